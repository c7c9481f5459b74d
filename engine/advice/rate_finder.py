"""The learning-rate finder: a short training at rates that rise step by step (Smith 2017, Cyclical Learning Rates).

The loss hardly moves while the rate is too low, falls while it is right, and rises once it is too high.
"""

import copy
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset
from engine.runs.records import Extracting, Step
from engine.training.loop import Training, fit

RATES = 100
LOWEST, HIGHEST = 1e-6, 10.0
IMAGES_AT_LEAST = 32  # at each rate: the loss of fewer says little, so that small batches make several steps
SMOOTHING = 3.0  # standard deviation, in rates, of the bell that losses are averaged under
DIVERGED, LATEST = 3.0, 5  # latest losses whose mean is so many times the lowest such mean will not come down again
WORTH = 0.05  # by this share the loss must have fallen for the curve to say anything
# The rate with the lowest loss is about to be too high: a tenth of it is the usual advice. One-cycle is at its highest
# for a short while only, and may go further.
SHARES = {"one-cycle": 1 / 3}
SHARE = 1 / 10


@dataclass(frozen=True)
class RateCurve:
    """The losses at each rate, smoothed and as they were, and the rate to take; None where the loss never fell."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    reason: str

    def as_document(self) -> dict:
        return asdict(self)


def find_learning_rate(training: Training, dataset: Dataset) -> Generator[Step | Extracting, None, RateCurve]:
    """Train at rising rates, yielding after each, and leave the training and its weights as they were."""
    rates = np.geomspace(LOWEST, HIGHEST, RATES)
    losses: list[float] = []
    latest: list[float] = []  # of the steps at one rate
    each = math.ceil(IMAGES_AT_LEAST / training.recipe.batch_size)
    with _borrowed(training, each):
        first = training.step
        training.schedule = lambda step: float(rates[min((step - first) // each, RATES - 1)])
        try:
            for record in fit(training, dataset):
                if isinstance(record, Extracting):
                    yield record
                if not isinstance(record, Step):
                    continue
                latest.append(record.train_loss)
                if len(latest) < each:
                    continue
                losses.append(float(np.mean(latest)))
                latest.clear()
                yield record
                means = [np.mean(losses[end - LATEST : end]) for end in range(LATEST, len(losses) + 1)]
                if len(losses) == RATES or (means and means[-1] > DIVERGED * min(means)):
                    break
        except LoupeError:  # of a loss that is no number any more
            if not losses:
                raise
    smoothed = _smooth(np.array(losses))
    suggestion, reason = _suggest(rates, smoothed, SHARES.get(training.recipe.schedule, SHARE))
    tried = rates[: len(losses)].tolist()
    return RateCurve(tuple(tried), tuple(losses), tuple(smoothed.tolist()), suggestion, reason)


@contextmanager
def _borrowed(training: Training, each: int) -> Iterator[None]:
    """Let a training be trained without validation, and put everything back at the end."""
    state = copy.deepcopy(training.state_dict())
    recipe, schedule, val_indices = training.recipe, training.schedule, training.val_indices
    more = math.ceil(RATES * each / training.steps_per_epoch) + 1
    epochs = min(recipe.epochs + more, 10_000)
    # What is trained at first is trained at all rates.
    freeze = "backbone" if training.is_frozen else "none"
    changes: dict[str, Any] = {"log_every": 1, "evaluate_every": 0, "patience": 0, "keep": "last", "freeze": freeze}
    training.recipe = replace(recipe, epochs=epochs, **changes)
    training.val_indices = val_indices[:0]
    try:
        yield
    finally:
        training.recipe, training.schedule, training.val_indices = recipe, schedule, val_indices
        training.pending = []
        training.load_state_dict(state)


def _smooth(losses: np.ndarray) -> np.ndarray:
    """Average each loss with its neighbours, which moves nothing to one side as a running mean would."""
    reach = np.arange(-int(3 * SMOOTHING), int(3 * SMOOTHING) + 1)
    weights = np.exp(-((reach / SMOOTHING) ** 2) / 2)
    padded = np.pad(losses, len(reach) // 2, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def _suggest(rates: np.ndarray, smoothed: np.ndarray, share: float) -> tuple[float | None, str]:
    lowest = int(smoothed.argmin())
    before = smoothed[: lowest + 1].max()
    if smoothed[lowest] > (1 - WORTH) * before:
        return None, (
            f"The loss did not fall at any rate from {rates[0]:.2g} to {rates[len(smoothed) - 1]:.2g}, so no rate is "
            "suggested. The one-minute check tells whether this network can learn a single batch."
        )
    part = "A third" if share > SHARE else "A tenth"
    return float(f"{rates[lowest] * share:.1g}"), (
        f"{part} of {rates[lowest]:.2g}, where the loss was lowest: {smoothed[lowest]:.3g}, down from {before:.3g}."
    )
