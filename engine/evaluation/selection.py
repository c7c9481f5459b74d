"""Which images of a run to look at, and in which order."""

from collections.abc import Callable

import numpy as np

from engine.base.errors import LoupeError
from engine.base.text import join_words
from engine.evaluation.predictions import Predictions

# By what images are sorted, and what comes first: keys of which the least is shown first.
ORDERS: dict[str, Callable[[Predictions], np.ndarray]] = {
    "most confident": lambda predictions: -predictions.confidence,
    "least confident": lambda predictions: predictions.confidence,
    "highest loss": lambda predictions: -predictions.losses,
    "smallest margin": lambda predictions: predictions.margins,
}
RANDOM = "random"


def select(
    predictions: Predictions,
    *,
    true: str | None = None,
    predicted: str | None = None,
    right: bool | None = None,
    confidence: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Return the rows of the images that fit, in their order. confidence: the least and the most, both inclusive."""
    low, high = confidence
    chosen = np.ones(len(predictions), dtype=bool)
    # What float32 rounds beyond the ends is within them.
    if low > 0:
        chosen &= predictions.confidence >= low
    if high < 1:
        chosen &= predictions.confidence <= high
    if true is not None:
        chosen &= predictions.labels == predictions.classes.index(true)
    if predicted is not None:
        chosen &= predictions.predicted == predictions.classes.index(predicted)
    if right is not None:
        chosen &= predictions.correct == right
    return np.flatnonzero(chosen)


def in_order(predictions: Predictions, rows: np.ndarray, order: str, seed: int = 0) -> np.ndarray:
    """Sort rows by one of ORDERS, equal ones as they were; or shuffle them, by a seed, with ``random``."""
    if order == RANDOM:
        return np.random.default_rng(seed).permutation(rows)
    if order not in ORDERS:
        raise LoupeError(f"There is no order {order!r}. Choose one of {join_words([*ORDERS, RANDOM])}.")
    return rows[np.argsort(ORDERS[order](predictions)[rows], kind="stable")]


def rank(predictions: Predictions, row: int) -> int:
    """Return the place of an image by its loss among all: 1 for the highest; equal ones share the first of theirs."""
    return 1 + int((predictions.losses > predictions.losses[row]).sum())
