"""What a run answered for each image of a split: gathered once, then viewed by pure functions."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from engine.base.errors import LoupeError, reason_of
from engine.base.paths import replacing_file
from engine.data.dataset import Dataset

ROUNDING = 1e-3


@dataclass(frozen=True)
class Predictions:
    """Probabilities of one run on one split, an image a row, in the split's order.

    probabilities: float32 (count, classes). labels: int64 (count,), the true classes.
    stored_in: the dataset's split that holds the images; val may be held back from train. indices: int64 (count,),
    where they are in it. fingerprint: of the dataset that images and labels are from.
    """

    split: str
    stored_in: str
    probabilities: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class of each image."""
        return self.probabilities.max(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    @cached_property
    def losses(self) -> np.ndarray:
        """The cross-entropy of each image in nats, float64; that of a probability of 0 is large, not endless."""
        of_labels = self.probabilities[np.arange(len(self)), self.labels].astype(np.float64)
        return -np.log(np.maximum(of_labels, np.finfo(np.float32).tiny))

    @cached_property
    def margins(self) -> np.ndarray:
        """By how much the predicted class of each image is more probable than the next; 1 where there is no other."""
        if len(self.classes) < 2:
            return np.ones(len(self), np.float32)
        second, first = np.partition(self.probabilities, -2, axis=1)[:, -2:].T
        return first - second

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.losses.mean())

    def match(self, dataset: Dataset) -> bool:
        """Tell whether these are of a dataset, images and labels, as it is now."""
        stored = dataset.splits.get(self.stored_in, ())
        return dataset.fingerprint == self.fingerprint and int(self.indices.max()) < len(stored)

    def subset(self, rows: np.ndarray) -> "Predictions":
        """Return the predictions of some images: their rows, or a mask."""
        return replace(
            self, probabilities=self.probabilities[rows], labels=self.labels[rows], indices=self.indices[rows]
        )


def save_predictions(predictions: Predictions, path: Path) -> None:
    with replacing_file(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            split=np.array(predictions.split),
            stored_in=np.array(predictions.stored_in),
            probabilities=predictions.probabilities,
            labels=predictions.labels,
            indices=predictions.indices,
            classes=np.array(predictions.classes),
            fingerprint=np.array(predictions.fingerprint),
        )


def load_predictions(path: Path) -> Predictions:
    """Read predictions; raises LoupeError when there are none or the file is damaged. Runs no code from it."""
    try:
        # Opened here: NumPy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            split = str(arrays["split"])
            # Files of before there was more than one place for validation images do not say it.
            stored_in = str(arrays["stored_in"]) if "stored_in" in arrays else "test" if split == "test" else "train"
            predictions = Predictions(
                split=split,
                stored_in=stored_in,
                probabilities=arrays["probabilities"],
                labels=arrays["labels"],
                indices=arrays["indices"],
                classes=tuple(arrays["classes"].tolist()),
                fingerprint=str(arrays["fingerprint"]),
            )
        _check(predictions)
        return predictions
    except FileNotFoundError:
        raise LoupeError(
            f"The run {path.parent.name} has no {path.name}: it did not get as far as its evaluation. "
            "Train it again, or choose another run."
        ) from None
    except Exception as error:  # zipfile, zlib and NumPy raise whatever the damage leads to
        # NumPy would say how to run what is in it.
        reason = "it holds more than numbers and text" if "pickle" in str(error) else reason_of(error)
        raise LoupeError(
            f"{path.name} of the run {path.parent.name} is damaged ({reason}). "
            "Delete that file and evaluate the run again."
        ) from error


def _check(predictions: Predictions) -> None:
    """Raise ValueError for arrays that are not what predictions are made of."""
    arrays = {"probabilities": "f", "labels": "i", "indices": "i"}
    for name, kind in arrays.items():
        if getattr(predictions, name).dtype.kind != kind:
            raise ValueError(f"its {name} are of another kind than they should be")
    shape = (predictions.labels.size, len(predictions.classes))
    probabilities, labels, indices = predictions.probabilities, predictions.labels, predictions.indices
    if probabilities.shape != shape or labels.shape != shape[:1] or indices.shape != shape[:1] or not labels.size:
        raise ValueError("its arrays do not fit together")
    if not 0 <= labels.min() <= labels.max() < shape[1] or indices.min() < 0:
        raise ValueError("a label or an index is out of range")
    if not all(isinstance(name, str) for name in predictions.classes) or len(set(predictions.classes)) < shape[1]:
        raise ValueError("its classes are not texts, or two of them have one name")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("a probability is not a number, or below 0")
    if abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max() > ROUNDING:
        raise ValueError("the probabilities of an image do not add up to 1")


def top(probabilities: np.ndarray, classes: tuple[str, ...], most: int = 5) -> list[dict]:
    """List the most probable classes of one image: label and confidence, best first."""
    best = np.argsort(-probabilities, kind="stable")[:most]
    return [{"label": classes[index], "confidence": float(probabilities[index])} for index in best]
