"""How good a run is: pure functions of its predictions, those of scikit-learn wherever it has them."""

import math

import numpy as np

from engine.evaluation.predictions import Predictions


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


def top_k_accuracy(predictions: Predictions, k: int) -> float:
    """Return the share of images whose true class is among the k most probable; of equals the first counts first."""
    probabilities, labels = predictions.probabilities, predictions.labels[:, None]
    of_truth = np.take_along_axis(probabilities, labels, axis=1)
    first = np.arange(probabilities.shape[1]) < labels
    ahead = (probabilities > of_truth) | (probabilities == of_truth) & first
    return float((ahead.sum(axis=1) < k).mean())


def balanced_accuracy(predictions: Predictions) -> float:
    """Return the mean recall of the classes that have images."""
    counts = np.bincount(predictions.labels)
    right = np.bincount(predictions.labels[predictions.correct], minlength=len(counts))
    return float((right[counts > 0] / counts[counts > 0]).mean())


def majority_baseline(predictions: Predictions) -> float:
    """Return the accuracy of always answering the commonest class."""
    return float(np.bincount(predictions.labels).max() / len(predictions))


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


def averages(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Average the scores of the classes as scikit-learn's report does: macro, all alike; weighted, by their images."""
    from sklearn import metrics

    found = {}
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            predictions.labels,
            predictions.predicted,
            labels=range(len(predictions.classes)),
            average=average,
            zero_division=0,
        )
        found[average] = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    return found


def report(predictions: Predictions) -> str:
    """Return scikit-learn's classification report as text."""
    from sklearn import metrics

    return metrics.classification_report(
        predictions.labels,
        predictions.predicted,
        labels=range(len(predictions.classes)),
        target_names=predictions.classes,
        digits=4,
        zero_division=0,
    )


def most_confused(predictions: Predictions, most: int = 10) -> list[tuple[str, str, int, int]]:
    """List (true class, predicted class, images, images of the true class) of the commonest mistakes, worst first."""
    matrix = confusion_matrix(predictions)
    totals = matrix.sum(axis=1)
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    classes = predictions.classes
    return [(classes[i], classes[j], int(mistakes[i, j]), int(totals[i])) for i, j in pairs if mistakes[i, j]]


def order_by_confusion(matrix: np.ndarray) -> np.ndarray:
    """Order classes so that those that are taken for each other stand side by side: a permutation of their indices.

    Average linkage on the shares of mistakes, each pair both ways, its leaves in the order of Bar-Joseph et al. 2001,
    Fast optimal leaf ordering for hierarchical clustering.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(matrix) < 3:
        return np.arange(len(matrix))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    likeness = shares + shares.T
    np.fill_diagonal(likeness, 0)
    # A root, so that rare mistakes count beside the common ones.
    distances = squareform(1 - np.sqrt(likeness / 2), checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances))
