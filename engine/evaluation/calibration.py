"""How sure a run is, and how far that is to be trusted: pure functions of predictions."""

from dataclasses import dataclass, replace

import numpy as np

from engine.base.errors import LoupeError
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
# In nats for each unit of 1 / temperature: where the loss is flatter, float32 cannot tell which way is down.
FLAT = 1e-6


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above ``low`` and at most ``high``; of 0 too in the first bin.

    confidence: their mean. accuracy: the share that is right, with its 95 % interval.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Answered:
    """What is left when only images are answered whose confidence is at least ``threshold``.

    count: all images. answered: those that are. right: those of them that are right.
    """

    threshold: float
    count: int
    answered: int
    right: int

    @property
    def share(self) -> float:
        """The share of all images that is answered: the coverage."""
        return self.answered / self.count

    @property
    def accuracy(self) -> float:
        """The share of the answers that is right; 0 where there are none."""
        return self.right / self.answered if self.answered else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson_interval(self.right, self.answered)


def reliability(predictions: Predictions, bins: int = 15) -> list[Bin]:
    """Compare confidence to accuracy in bins of equal width, of which the empty ones are left out."""
    confidence, right = _confidence(predictions), predictions.correct
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place[right], minlength=bins)
    return [
        Bin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            count=int(counts[index]),
            confidence=float(sums[index] / counts[index]),
            accuracy=float(hits[index] / counts[index]),
            interval=wilson_interval(int(hits[index]), int(counts[index])),
        )
        for index in np.flatnonzero(counts)
    ]


def expected_calibration_error(predictions: Predictions, bins: int = 15) -> float:
    """Return how far accuracy is from confidence on average (Guo et al. 2017, On Calibration of Modern ...)."""
    gaps = (each.count * abs(each.accuracy - each.confidence) for each in reliability(predictions, bins))
    return sum(gaps) / len(predictions)


def fit_temperature(predictions: Predictions) -> float:
    """Return the temperature of 0.05 to 20 with the least mean cross-entropy (Guo et al. 2017, section 4.2).

    Fit it on validation images. Where no temperature is better than another it is 1.
    """
    from scipy.optimize import brentq  # comes with scikit-learn

    log_probabilities = _log_probabilities(predictions)
    of_truth = log_probabilities[np.arange(len(predictions)), predictions.labels].mean(dtype=np.float64)

    def slope(log_temperature: float) -> float:
        """How fast the loss rises with 1 / temperature: ever faster, as it is convex in it."""
        softened = _softmax(log_probabilities, np.exp(log_temperature))
        return float(np.einsum("ij,ij->i", softened, log_probabilities).mean(dtype=np.float64) - of_truth)

    if abs(slope(0.0)) < FLAT:
        return 1.0
    lowest, highest = np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)
    if slope(lowest) <= 0:
        return LOWEST_TEMPERATURE
    if slope(highest) >= 0:
        return HIGHEST_TEMPERATURE
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-6)))


def is_fitted(temperature: float) -> bool:
    """Tell whether a temperature is one that fits: at the ends of what is tried, a still more extreme one would."""
    return LOWEST_TEMPERATURE < temperature < HIGHEST_TEMPERATURE


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Soften probabilities (above 1) or sharpen them (below 1); the predicted classes stay what they are."""
    if not 0 < temperature < np.inf:
        raise LoupeError(f"The temperature is {temperature:g}, but it has to be a number above 0: give another.")
    softened = _softmax(_log_probabilities(predictions), temperature)
    # Two classes that were close may now be one float32, of which the first would be predicted.
    predicted = predictions.predicted
    tied = np.flatnonzero(softened.argmax(axis=1) != predicted)
    softened[tied, predicted[tied]] = np.nextafter(softened[tied].max(axis=1), np.float32(2))
    return replace(predictions, probabilities=softened)


def answered_above(predictions: Predictions, threshold: float) -> Answered:
    """Count what is answered, and rightly so, when only images of at least this confidence are."""
    answered = predictions.confidence >= threshold
    right = answered & predictions.correct
    return Answered(threshold, len(predictions), int(answered.sum()), int(right.sum()))


def coverage(predictions: Predictions, most: int = 300) -> list[Answered]:
    """Trace accuracy against coverage, from the surest images to all of them, in at most so many points.

    Images of equal confidence are answered together.
    """
    thresholds, places = np.unique(predictions.confidence, return_inverse=True)
    answered = np.bincount(places)[::-1].cumsum()
    right = np.bincount(places[predictions.correct], minlength=len(thresholds))[::-1].cumsum()
    steps = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).round().astype(np.int64))
    return [
        Answered(float(thresholds[-1 - step]), len(predictions), int(answered[step]), int(right[step]))
        for step in steps
    ]


def _confidence(predictions: Predictions) -> np.ndarray:
    """The confidences as float64, without what float32 rounds beyond 1."""
    return predictions.confidence.astype(np.float64).clip(0, 1)


def _log_probabilities(predictions: Predictions) -> np.ndarray:
    """float32 (count, classes); a probability of 0 is held to be the least normal float32, as in the loss."""
    probabilities = predictions.probabilities.astype(np.float32)
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _softmax(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide by the temperature and renormalise: float32 (count, classes)."""
    logits = log_probabilities / np.float32(temperature)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
