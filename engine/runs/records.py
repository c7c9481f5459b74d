"""What a run writes down as it goes: one frozen dataclass a kind of record, one JSON object a line."""

import json
import time
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Preparing:
    """The dataset is being fetched; bytes, ``total`` 0 while nothing is being downloaded."""

    done: int
    total: int


@dataclass(frozen=True)
class Queued:
    """Another run has the device."""

    device: str


@dataclass(frozen=True)
class Started:
    dataset: str
    fingerprint: str
    classes: list[str]
    train_count: int
    val_count: int
    test_count: int
    steps_per_epoch: int
    epochs: int
    parameters: int
    device: str
    threads: int
    precision: str
    torch: str
    note: str = ""  # on the weights that it starts from


@dataclass(frozen=True)
class Resumed:
    """Training goes on from a checkpoint: whatever was logged beyond this step is void."""

    step: int


@dataclass(frozen=True)
class Step:
    """Running figures: means over the steps since the last such record of the epoch.

    epoch: counted from 1. train_seconds: spent in training steps since the start of the run. memory_mb: the most that
    the process has had so far, or its tensors on a GPU.
    """

    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    images_per_second: float
    train_seconds: float
    memory_mb: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """Figures of a finished epoch: train_ are means over its steps, val_ are of the weights at its end."""

    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    images_per_second: float
    train_seconds: float
    memory_mb: float = 0.0


@dataclass(frozen=True)
class Extracting:
    """Features of images are being computed, of those that have none yet; seconds: since the first of them."""

    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Figures of a split in the midst of training, as some tutorials print them: nothing is chosen by them."""

    step: int
    split: str
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Evaluating:
    """The trained weights are being run on a split."""

    split: str
    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """The last record of a run that has a model.

    epochs: finished ones. kept: which weights these are, for people. The figures are of those weights;
    train_ figures are means over the epoch (or the steps) that made them.
    """

    epochs: int
    step: int
    kept: str
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    train_seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Finished(Ended):
    pass


@dataclass(frozen=True)
class Stopped(Ended):
    pass


@dataclass(frozen=True)
class Cancelled:
    """Stopped before training began: there is no model."""


@dataclass(frozen=True)
class Failed:
    """The run ended without a model of its own choosing; error: why, in a sentence.

    kind: what the failure comes of. ``diverged``: training diverged. ``memory``: there was too little of it.
    ``mendable``: another mistake or mishap that a person can mend, such as a dataset that is gone or a full disk.
    ``unexpected``: an error that Loupe knows nothing of. Empty where it is not known.
    """

    error: str
    kind: str = ""


Record = (
    Preparing
    | Queued
    | Started
    | Resumed
    | Step
    | Epoch
    | Extracting
    | Evaluated
    | Evaluating
    | Finished
    | Stopped
    | Cancelled
    | Failed
)
FINAL = (Finished, Stopped, Cancelled, Failed)
KINDS = {
    kind.__name__.lower(): kind
    for kind in (
        Preparing,
        Queued,
        Started,
        Resumed,
        Step,
        Epoch,
        Extracting,
        Evaluated,
        Evaluating,
        Finished,
        Stopped,
        Cancelled,
        Failed,
    )
}


TYPES = {kind: get_type_hints(kind) for kind in KINDS.values()}


def to_line(record: Record) -> str:
    """Write a record as a line of JSON, with the time in seconds since 1970."""
    named = {"record": type(record).__name__.lower(), "time": round(time.time(), 3)}
    return json.dumps(named | asdict(record), ensure_ascii=False, allow_nan=False) + "\n"


def from_line(line: str | bytes) -> Record | None:
    """Read a record; None for a damaged line or a kind that this Loupe does not know. Unknown keys are left out."""
    try:
        values = json.loads(line)
        kind = KINDS[values["record"]]
        if kind is Failed and "kind" not in values:
            values["kind"] = _kind_of_failure(values["error"])
        # A field with a default was added later: logs from before do not have it.
        known = [about.name for about in fields(kind) if about.name in values or about.default is MISSING]
        fitting = {name: values[name] for name in known}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    types = TYPES[kind]
    return kind(**fitting) if all(_fits(value, types[name]) for name, value in fitting.items()) else None


def _kind_of_failure(error: str) -> str:
    """Tell a failure's kind by its sentence: logs written before failures had one say it nowhere else."""
    return "diverged" if "no longer a finite number" in error else ""


def _fits(value: object, expected: Any) -> bool:
    """Tell whether a value of JSON has a field's type."""
    if expected == list[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if expected in (float, float | None) and type(value) is int:
        return True
    return isinstance(value, expected) and not isinstance(value, bool)
