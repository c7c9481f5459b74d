"""A run's log: one process appends to it, everybody reads."""

from dataclasses import dataclass, field
from pathlib import Path

from engine.records import Ended, Epoch, Record, Resumed, Started, Step, from_line, to_line


class Log:
    """The run's log, open for its one writer."""

    def __init__(self, path: Path):
        self._file = path.open("ab")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # after a crash in mid-line

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        self._file.write(to_line(record).encode())
        self._file.flush()


@dataclass
class History:
    """What a run has logged so far. ``read`` takes in only what is new, and forgives a damaged line."""

    path: Path
    started: Started | None = None
    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    last: Record | None = None
    offset: int = 0

    def read(self) -> "History":
        try:
            with self.path.open("rb") as log:
                log.seek(self.offset)
                new = log.read()
        except OSError:  # not there yet, or not to be read
            return self
        whole = new.rfind(b"\n") + 1
        self.offset += whole
        for line in new[:whole].splitlines():
            record = from_line(line)
            if record is not None:
                self._take(record)
        return self

    def _take(self, record: Record) -> None:
        self.last = record
        if isinstance(record, Started):
            self.started = record
        elif isinstance(record, Step):
            self.steps.append(record)
        elif isinstance(record, Epoch):
            self.epochs.append(record)
        elif isinstance(record, Resumed):
            self.steps = [step for step in self.steps if step.step <= record.step]
            self.epochs = [epoch for epoch in self.epochs if epoch.step <= record.step]

    @property
    def ended(self) -> Ended | None:
        """The last record, when it is that of a run with a model."""
        return self.last if isinstance(self.last, Ended) else None

    @property
    def position(self) -> Step | Epoch | None:
        """The latest running figures."""
        latest = self.steps[-1:] + self.epochs[-1:]
        return max(latest, key=lambda record: record.step, default=None)

    def seconds_left(self) -> float | None:
        """Estimate the time left in training steps from the pace so far."""
        if not self.started or not self.position:
            return None
        steps = self.started.epochs * self.started.steps_per_epoch
        return (steps - self.position.step) * self.position.train_seconds / self.position.step
