"""A run's log: one process appends to it, everybody reads."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.base.paths import writing_folder
from engine.runs.records import Ended, Epoch, Evaluated, Extracting, Record, Resumed, Started, Step, from_line, to_line


class Log:
    """The run's log, open for its one writer."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("ab")
        self.was_begun = path.stat().st_size > 0  # by an earlier process
        if self.was_begun and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # after a crash in mid-line

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *reason: object) -> None:
        with suppress(OSError):  # of what could not be written, append has told
            self._file.close()

    def append(self, record: Record) -> None:
        with writing_folder(self.path.parent):
            self._file.write(to_line(record).encode())
            self._file.flush()


@dataclass
class History:
    """What a run has logged so far. ``read`` takes in only what is new, and forgives a damaged line."""

    path: Path
    started: Started | None = None
    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    extractions: list[Extracting] = field(default_factory=list)  # those that came to their end
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
            _put(self.epochs, record)
        elif isinstance(record, Extracting):
            self.extractions += [record] if record.done == record.total else []
        elif isinstance(record, Evaluated):
            _put(self.evaluations, record)
        elif isinstance(record, Resumed):
            self.steps = [step for step in self.steps if step.step <= record.step]
            self.epochs = [epoch for epoch in self.epochs if epoch.step <= record.step]
            self.evaluations = [evaluated for evaluated in self.evaluations if evaluated.step <= record.step]

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


def history_rows(history: History) -> list[dict]:
    """List the figures of a history, a step, an evaluation or an epoch a row, in the order in which they were made.

    Every row has the same keys: record, step, epoch (counted from 1), loss and accuracy by split, and learning_rate,
    images_per_second, train_seconds and memory_mb; None where a record does not say.
    """
    splits = {f"{split}_{figure}": None for split in ("train", "val", "test") for figure in ("loss", "accuracy")}
    pace = dict.fromkeys(("learning_rate", "images_per_second", "train_seconds", "memory_mb"))
    empty: dict = {"record": None, "step": None, "epoch": None} | splits | pace
    per_epoch = history.started.steps_per_epoch if history.started else 0
    rows = [empty | {"record": "step"} | asdict(step) for step in history.steps]
    for each in history.evaluations:
        epoch = (each.step - 1) // per_epoch + 1 if per_epoch else None
        figures = {f"{each.split}_loss": each.loss, f"{each.split}_accuracy": each.accuracy}
        rows.append(empty | {"record": "evaluated", "step": each.step, "epoch": epoch} | figures)
    rows += [empty | {"record": "epoch"} | asdict(epoch) for epoch in history.epochs]
    return sorted(rows, key=lambda row: row["step"])  # at one step, as above: step, evaluation, epoch


def _put(records: list, record: Epoch | Evaluated) -> None:
    """Append a record, in the place of one of the same step: a run that goes on from there evaluates it once more."""
    if records and records[-1].step == record.step:
        records.pop()
    records.append(record)


def best_epoch(history: History) -> Epoch | None:
    """Return the epoch of the highest validation accuracy, then of the lowest loss, then the first of those."""
    validated = [epoch for epoch in history.epochs if epoch.val_accuracy is not None]
    return max(validated, key=lambda epoch: (epoch.val_accuracy or 0.0, -(epoch.val_loss or 0.0)), default=None)
