"""What a run answered for each image of a split: gathered once, then viewed by pure functions."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import LoupeError, reason_of
from engine.paths import replacing


@dataclass(frozen=True)
class Predictions:
    """Probabilities of one run on one split, an image a row, in the split's order.

    probabilities: float32 (count, classes). labels: int64 (count,), the true classes.
    stored_in: the dataset's split that holds the images; val may be held back from train. indices: int64 (count,),
    where they are in it. fingerprint: of the dataset that the images are from.
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

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class of each image."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        of_truth = self.probabilities[np.arange(len(self)), self.labels].astype(np.float64)
        return float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())


def save_predictions(predictions: Predictions, path: Path) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
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
        shape = (len(predictions), len(predictions.classes))
        if predictions.probabilities.shape != shape or predictions.indices.shape != shape[:1] or not len(predictions):
            raise ValueError("its arrays do not fit together")
        if not 0 <= predictions.labels.min() <= predictions.labels.max() < shape[1] or predictions.indices.min() < 0:
            raise ValueError("a label or an index is out of range")
        if not np.isfinite(predictions.probabilities).all() or len(set(predictions.classes)) < shape[1]:
            raise ValueError("a probability is not a number, or two classes have one name")
        return predictions
    except FileNotFoundError:
        raise LoupeError(
            f"The run {path.parent.name} has no {path.name}: it did not get as far as its evaluation. "
            "Train it again, or choose another run."
        ) from None
    except Exception as error:  # zipfile, zlib and NumPy raise whatever the damage leads to
        raise LoupeError(
            f"{path.name} of the run {path.parent.name} is damaged ({reason_of(error)}). "
            "Delete that file and evaluate the run again."
        ) from error


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, Probable Inference, the Law of Succession, ...)."""
    if not count:
        return 0.0, 1.0
    z = 1.959963984540054
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """Count images by true class (rows) and predicted class (columns): int64 (classes, classes)."""
    from sklearn import metrics

    labels = range(len(predictions.classes))
    return metrics.confusion_matrix(predictions.labels, predictions.predicted, labels=labels)


def per_class(predictions: Predictions) -> list[dict]:
    """Score each class: precision, recall, f1, support. Undefined scores are 0."""
    from sklearn import metrics

    scores = metrics.precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=range(len(predictions.classes)), zero_division=0
    )
    return [
        {
            "class": name,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(predictions.classes, *scores, strict=True)
    ]


def most_confused(predictions: Predictions, most: int = 10) -> list[tuple[str, str, int, int]]:
    """List (true class, predicted class, images, images of the true class) of the commonest mistakes, worst first."""
    matrix = confusion_matrix(predictions)
    totals = matrix.sum(axis=1)
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    classes = predictions.classes
    return [(classes[i], classes[j], int(mistakes[i, j]), int(totals[i])) for i, j in pairs if mistakes[i, j]]


def select(
    predictions: Predictions, *, true: str | None = None, predicted: str | None = None, right: bool | None = None
) -> np.ndarray:
    """Return indices of the images that fit: mistakes first, and the most confident first among each."""
    chosen = np.ones(len(predictions), dtype=bool)
    if true is not None:
        chosen &= predictions.labels == predictions.classes.index(true)
    if predicted is not None:
        chosen &= predictions.predicted == predictions.classes.index(predicted)
    if right is not None:
        chosen &= predictions.right == right
    indices = np.flatnonzero(chosen)
    return indices[np.lexsort((-predictions.confidence[indices], predictions.right[indices]))]


def top(probabilities: np.ndarray, classes: tuple[str, ...], most: int = 5) -> list[dict]:
    """List the most probable classes of one image: label and confidence, best first."""
    best = np.argsort(-probabilities, kind="stable")[:most]
    return [{"label": classes[index], "confidence": float(probabilities[index])} for index in best]


def evaluation(run: str, predictions: Predictions) -> dict:
    """Sum predictions up as plain data: accuracy with its interval, confusion matrix, scores of each class."""
    return {
        "run": run,
        "split": predictions.split,
        "count": len(predictions),
        "accuracy": predictions.accuracy,
        "accuracy_interval": list(wilson_interval(int(predictions.right.sum()), len(predictions))),
        "classes": list(predictions.classes),
        "confusion": confusion_matrix(predictions).tolist(),
        "per_class": per_class(predictions),
    }
