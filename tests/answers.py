"""Answers of runs that never were: random ones, and the degenerate ones that metrics must bear."""

import numpy as np

from engine.evaluation.predictions import Predictions

CLASSES = ("ant", "bee", "cat", "dog")


def predictions_of(
    labels: list[int], predicted: list[int], confidence: float = 0.7, split: str = "test", stored_in: str = "test"
) -> Predictions:
    """Make predictions with a certain answer for each image, and the rest shared among the other classes."""
    probabilities = np.full((len(labels), 4), (1 - confidence) / 3, np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return Predictions(split, stored_in, probabilities, np.array(labels), np.arange(len(labels)), CLASSES, "0123")


def random_predictions(count: int = 200) -> Predictions:
    probabilities = np.random.dirichlet(np.full(4, 0.5), count).astype(np.float32)
    labels = np.random.randint(0, 4, count)
    return Predictions("test", "test", probabilities, labels, np.random.permutation(count), CLASSES, "0123")


CASES = {
    "random": random_predictions,
    "no images of a class": lambda: predictions_of([0, 0, 1, 1, 3], [0, 1, 1, 2, 3]),
    "a class never predicted": lambda: predictions_of([0, 1, 2, 3, 3], [0, 1, 2, 2, 0]),
    "a class neither there nor predicted": lambda: predictions_of([0, 1, 1], [1, 1, 0]),
    "all right": lambda: predictions_of([0, 1, 2, 3], [0, 1, 2, 3]),
    "all wrong": lambda: predictions_of([0, 1, 2, 3], [1, 2, 3, 0]),
    "one image": lambda: predictions_of([2], [2]),
    "one image, wrong": lambda: predictions_of([2], [0]),
}
