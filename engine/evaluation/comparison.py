"""Two runs on the same images: whether one is better, by how much, and on which images."""

import math
from dataclasses import dataclass

import numpy as np

from engine.base.errors import LoupeError
from engine.base.text import join_words, pluralize, printable
from engine.evaluation.predictions import Predictions

Z = 1.959963984540054
# The conventional level below which a p value is held to be more than chance.
SIGNIFICANT = 0.05
MOST_NAMED = 5


@dataclass(frozen=True)
class ClassComparison:
    """count: images of the class. first_right, second_right: how many of them each run gets right."""

    name: str
    count: int
    first_right: int
    second_right: int

    @property
    def difference(self) -> float:
        """Of the recalls, second - first; 0 where the class has no images."""
        return (self.second_right - self.first_right) / self.count if self.count else 0.0


@dataclass(frozen=True)
class Comparison:
    """How a second run differs from a first.

    difference: of the accuracies, second - first. interval: its 95 % interval. p_value: of McNemar's exact test.
    fixed, broken: int64, rows of the images that only the second, or only the first, gets right.
    """

    count: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    fixed: np.ndarray
    broken: np.ndarray
    per_class: tuple[ClassComparison, ...]


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compare two runs image by image; raises LoupeError when they did not answer the same images."""
    _check_comparable(first, second)
    fixed = np.flatnonzero(second.correct & ~first.correct)
    broken = np.flatnonzero(first.correct & ~second.correct)
    counts, first_right, second_right = (
        np.bincount(labels, minlength=len(first.classes)).tolist()
        for labels in (first.labels, first.labels[first.correct], first.labels[second.correct])
    )
    return Comparison(
        count=len(first),
        difference=(len(fixed) - len(broken)) / len(first),
        interval=paired_interval(len(fixed), len(broken), len(first)),
        p_value=mcnemar(len(fixed), len(broken)),
        fixed=fixed,
        broken=broken,
        per_class=tuple(map(ClassComparison, first.classes, counts, first_right, second_right)),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Return the p value of McNemar's exact test: how often a fair coin would fall at least as unevenly."""
    from scipy.special import bdtr  # comes with scikit-learn; SciPy's binomtest takes a second to import

    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def paired_interval(fixed: int, broken: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of (fixed - broken) / count: the score interval of Tango 1998, Equivalence test and ...

    Of the intervals for paired shares it is the one that goes with McNemar's test: it leaves out 0 just where the
    test's chi-square does, so that it seldom disagrees with the exact p value, which asks for a little more. It keeps
    within -1 and 1, and has a width where no image differs, or every one does.
    """

    def left_out(difference: float) -> bool:
        # Equations 24 to 26, squared. q: the likeliest share of broken images if this were the true difference.
        b = -fixed - broken + (2 * count - fixed + broken) * difference
        c = -broken * difference * (1 - difference)
        q = (math.sqrt(max(b * b - 8 * count * c, 0.0)) - b) / (4 * count)
        variance = count * (2 * q + difference * (1 - difference))
        return (fixed - broken - count * difference) ** 2 > Z * Z * variance

    def limit(outer: float) -> float:
        inner = (fixed - broken) / count
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if left_out(middle) else (middle, outer)
        return inner

    return limit(-1.0), limit(1.0)


def in_words(comparison: Comparison, first_name: str, second_name: str, item: str = "image") -> str:
    """Say which of two runs is better, by how much, and whether that could be chance. item: what they answered."""
    decimals = max(1, math.ceil(math.log10(comparison.count)) - 2)  # so that a single image shows

    def points(share: float) -> str:
        return f"{round(100 * share, decimals) + 0.0:.{decimals}f}"  # + 0.0 makes 0 of -0

    low, high = comparison.interval
    interval = f"95% interval {points(low)} to {points(high)} points"
    fixed, broken = len(comparison.fixed), len(comparison.broken)
    items = pluralize(comparison.count, item)
    if not fixed and not broken:
        return f"{second_name} is right on the same {item}s as {first_name}: no difference on {items} ({interval})."
    if fixed == broken:
        verdict = "just as good"
    else:
        verdict = f"{points(abs(comparison.difference))} points {'better' if fixed > broken else 'worse'}"
    p_value = "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"
    if comparison.p_value < SIGNIFICANT:
        chance = "this is more than chance would do"
    elif low > 0 or high < 0:
        chance = "this is at the edge of what chance would do"
    else:
        chance = "this could be chance"
    return (
        f"{second_name} is right on {pluralize(fixed, item)} that {first_name} gets wrong, "
        f"and wrong on {broken:,} that {first_name} gets right: "
        f"{verdict} on {items} ({interval}, McNemar {p_value}): {chance}."
    )


def as_document(comparison: Comparison, first: Predictions) -> dict:
    """Put a comparison, with the predictions that it begins from, as plain data.

    fixed, broken: where the images are in the split that stores them.
    """
    return {
        "split": first.split,
        "count": comparison.count,
        "difference": comparison.difference,
        "interval": list(comparison.interval),
        "p_value": comparison.p_value,
        "fixed": first.indices[comparison.fixed].tolist(),
        "broken": first.indices[comparison.broken].tolist(),
    }


def _check_comparable(first: Predictions, second: Predictions) -> None:
    if first.split != second.split:
        raise LoupeError(
            f"The first run was evaluated on {printable(first.split)} and the second on {printable(second.split)}: "
            "choose the same split for both."
        )
    if first.fingerprint != second.fingerprint:
        raise LoupeError(
            "The two runs were evaluated on different datasets, or on different versions of one: "
            "choose two runs of the same dataset, or evaluate both again."
        )
    if set(first.classes) != set(second.classes):
        only_first, only_second = (
            join_words(printable(name) for name in names[:MOST_NAMED])
            + (" and others" if len(names) > MOST_NAMED else "")
            for names in (
                [name for name in first.classes if name not in second.classes],
                [name for name in second.classes if name not in first.classes],
            )
        )
        raise LoupeError(
            f"The two runs tell different classes apart (only the first: {only_first}; only the second: "
            f"{only_second}): choose two runs with the same classes."
        )
    if first.stored_in != second.stored_in or not np.array_equal(first.indices, second.indices):
        raise LoupeError(
            f"The two runs were not evaluated on the same images of {printable(first.split)} in the same order: "
            "choose another split, or runs that hold back the same images."
        )
    truths = (np.array(each.classes)[each.labels] for each in (first, second))
    if not np.array_equal(*truths):
        raise LoupeError(
            "The two runs were evaluated with different true classes for the same images: evaluate both again."
        )
