import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2, norm
from sklearn import metrics

from engine.base.errors import LoupeError
from engine.evaluation.comparison import Comparison, as_document, compare, in_words, mcnemar, paired_interval
from engine.evaluation.predictions import Predictions

CLASSES = ("ant", "bee", "cat", "dog")


def predictions_of(labels: list[int] | np.ndarray, predicted: list[int] | np.ndarray) -> Predictions:
    probabilities = np.full((len(labels), 4), 0.1, np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.7
    indices = np.arange(len(labels))
    return Predictions("test", "test", probabilities, np.array(labels), indices, CLASSES, "0123")


def random_pair(count: int = 300) -> tuple[Predictions, Predictions]:
    """Two runs of which the second is right on more images, but not on all that the first is right on."""
    labels = np.random.randint(0, 4, count)
    first = np.where(np.random.rand(count) < 0.5, labels, np.random.randint(0, 4, count))
    second = np.where(np.random.rand(count) < 0.3, labels, first)
    second = np.where(np.random.rand(count) < 0.1, (labels + 1) % 4, second)
    return predictions_of(labels, first), predictions_of(labels, second)


def with_flips(fixed: int, broken: int, count: int) -> Comparison:
    """Compare two runs on this many images, of which the rest is right in both."""
    labels = np.zeros(count, int)
    first, second = labels.copy(), labels.copy()
    first[:fixed] = 1
    second[fixed : fixed + broken] = 1
    return compare(predictions_of(labels, first), predictions_of(labels, second))


def test_two_runs_are_compared_image_by_image():
    first, second = random_pair()
    comparison = compare(first, second)
    fixed = [row for row in range(300) if second.correct[row] and not first.correct[row]]
    broken = [row for row in range(300) if first.correct[row] and not second.correct[row]]
    assert len(fixed) > len(broken) > 10
    assert comparison.fixed.tolist() == fixed
    assert comparison.broken.tolist() == broken
    assert comparison.fixed.dtype == comparison.broken.dtype == np.int64
    assert comparison.count == 300
    assert comparison.difference == pytest.approx(second.accuracy - first.accuracy)
    assert comparison.interval == paired_interval(len(fixed), len(broken), 300)
    assert comparison.p_value == mcnemar(len(fixed), len(broken))


def test_the_other_way_round_everything_is_turned():
    first, second = random_pair()
    one, other = compare(first, second), compare(second, first)
    assert one.difference == -other.difference != 0
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert one.p_value == other.p_value
    np.testing.assert_array_equal(one.fixed, other.broken)
    np.testing.assert_array_equal(one.broken, other.fixed)


def test_the_recall_of_each_class_is_compared():
    first, second = random_pair()
    rows = compare(first, second).per_class
    recalls = [
        metrics.recall_score(each.labels, each.predicted, labels=range(4), average=None) for each in (first, second)
    ]
    assert [row.name for row in rows] == list(CLASSES)
    assert [row.count for row in rows] == np.bincount(first.labels).tolist()
    assert [row.first_right / row.count for row in rows] == pytest.approx(recalls[0])
    assert [row.second_right / row.count for row in rows] == pytest.approx(recalls[1])
    assert [row.difference for row in rows] == pytest.approx(recalls[1] - recalls[0])


def test_a_class_without_images_has_no_difference():
    rows = compare(predictions_of([0, 0, 2], [0, 1, 3]), predictions_of([0, 0, 2], [0, 0, 3])).per_class
    assert [(row.count, row.first_right, row.second_right, row.difference) for row in rows] == [
        (2, 1, 2, 0.5),
        (0, 0, 0, 0.0),
        (1, 0, 0, 0.0),
        (0, 0, 0, 0.0),
    ]


# Counts of images that one alone, and that the other alone, gets right, of all; then the interval to so many decimals,
# as the tests of the R packages ratesci and contingencytables quote it from the papers.
PUBLISHED = {
    "Tango 1998": (9, 3, 32, -0.027, 0.390, 3),
    "Agresti and Min 2005": (16, 8, 86, -0.020, 0.207, 3),
    "Tang, Ling, Ling and Tian 2010": (3, 1, 14, -0.1670, 0.4327, 4),
    "Fagerland, Lydersen and Laake 2014, bronchial reactivity": (1, 7, 21, -0.517, -0.026, 3),
    "Fagerland, Lydersen and Laake 2017, myeloma": (6, 16, 161, -0.1240, -0.0054, 4),
}


@pytest.mark.parametrize(("fixed", "broken", "count", "low", "high", "decimals"), PUBLISHED.values(), ids=PUBLISHED)
def test_intervals_are_as_published(fixed, broken, count, low, high, decimals):
    assert [round(end, decimals) for end in paired_interval(fixed, broken, count)] == [low, high]


def test_p_values_are_as_published():
    # Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data, and their book of 2017
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)


def test_p_values_are_those_of_scipys_binomial_test():
    for fixed, broken in [*product(range(12), repeat=2), (9, 12), (480, 520), (5000, 5200), (0, 2000)]:
        theirs = binomtest(fixed, fixed + broken, 0.5).pvalue if fixed + broken else 1.0
        assert mcnemar(fixed, broken) == pytest.approx(theirs, rel=1e-9), (fixed, broken)


def score_statistic(fixed: int, broken: int, count: int, difference: float) -> float:
    """The score statistic, with the likeliest share of broken images searched for and not solved for."""
    both = count - fixed - broken

    def surprise(share: float) -> float:
        shares = np.array([share + difference, share, 1 - difference - 2 * share])
        return -(np.array([fixed, broken, both]) * np.log(np.maximum(shares, 1e-300))).sum()

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    share = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (fixed - broken - count * difference) / np.sqrt(count * (2 * share + difference - difference**2))


@pytest.mark.parametrize("counts", [(9, 3, 32), (40, 20, 160), (12, 9, 1000), (3, 15, 18), (7, 7, 50)])
def test_at_its_ends_the_interval_is_just_as_surprising_as_95_percent_allow(counts):
    low, high = paired_interval(*counts)
    z = norm.ppf(0.975)
    assert score_statistic(*counts, low) == pytest.approx(z, rel=1e-4)
    assert score_statistic(*counts, high) == pytest.approx(-z, rel=1e-4)


@pytest.mark.slow
def test_an_interval_holds_the_difference_and_keeps_within_bounds():
    for count in (1, 2, 5, 40):
        for fixed, broken in product(range(count + 1), repeat=2):
            if fixed + broken <= count:
                low, high = paired_interval(fixed, broken, count)
                assert -1 <= low <= (fixed - broken) / count <= high <= 1
                assert low < high
                mirrored = paired_interval(broken, fixed, count)
                assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-12)


def test_without_a_flip_the_interval_is_as_wide_as_that_of_a_share_of_none():
    # With no flips the statistic is that of Wilson's interval, whose end is z^2 / (n + z^2).
    end = chi2.ppf(0.95, 1)
    for count in (1, 360, 10_000):
        assert paired_interval(0, 0, count) == pytest.approx((-end / (count + end), end / (count + end)))


@pytest.mark.slow
def test_an_interval_leaves_out_0_just_where_mcnemars_chi_square_does():
    certain = chi2.ppf(0.95, 1)
    for fixed, broken in product(range(30), repeat=2):
        if fixed + broken:
            low, high = paired_interval(fixed, broken, 500)
            assert (low > 0 or high < 0) == ((fixed - broken) ** 2 / (fixed + broken) > certain), (fixed, broken)


@pytest.mark.slow
def test_where_the_exact_test_is_certain_the_interval_is_too():
    certain = 0
    for fixed, broken in product(range(60), repeat=2):
        if mcnemar(fixed, broken) < 0.05:
            low, high = paired_interval(fixed, broken, 500)
            assert low > 0 or high < 0, (fixed, broken)
            certain += 1
    assert certain > 1000


@pytest.mark.slow
def test_95_percent_of_intervals_hold_the_truth():
    random_state = np.random.default_rng(0)
    truth = np.array([0.05, 0.02, 0.93])
    counts = random_state.multinomial(400, truth, size=2000)
    inside = [low <= 0.03 <= high for low, high in (paired_interval(row[0], row[1], 400) for row in counts)]
    assert 0.935 < np.mean(inside) < 0.965


WITHOUT_FLIPS = {
    "identical": ([0, 1, 2], [0, 1, 3], [0, 1, 3]),
    "both all right": ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
    "both all wrong": ([0, 1, 2], [1, 2, 3], [3, 0, 1]),
    "one image, both right": ([0], [0], [0]),
}


@pytest.mark.parametrize("case", WITHOUT_FLIPS)
def test_without_flips_there_is_no_difference(case):
    labels, first, second = WITHOUT_FLIPS[case]
    comparison = compare(predictions_of(labels, first), predictions_of(labels, second))
    assert (comparison.difference, comparison.p_value) == (0.0, 1.0)
    assert len(comparison.fixed) == len(comparison.broken) == 0
    assert comparison.fixed.dtype == np.int64
    low, high = comparison.interval
    assert -1 < low == pytest.approx(-high)
    assert 0 < high < 1


def test_from_all_wrong_to_all_right_is_the_largest_difference():
    comparison = compare(
        predictions_of([0, 1, 2, 3] * 5, [1, 2, 3, 0] * 5), predictions_of([0, 1, 2, 3] * 5, [0, 1, 2, 3] * 5)
    )
    assert comparison.difference == 1.0
    assert comparison.fixed.tolist() == list(range(20))
    # n images, all of them fixed: (n - z^2) / (n + z^2).
    assert comparison.interval == pytest.approx(((20 - 3.841459) / (20 + 3.841459), 1.0), abs=1e-6)
    assert comparison.p_value == 2 * 0.5**20


def test_one_image_proves_nothing():
    comparison = compare(predictions_of([0], [1]), predictions_of([0], [0]))
    assert (comparison.difference, comparison.p_value, comparison.interval[1]) == (1.0, 1.0, 1.0)
    assert comparison.interval[0] < 0


def test_classes_in_another_order_are_matched_by_name():
    first, second = random_pair()
    order = [2, 0, 3, 1]
    turned = replace(
        second,
        classes=tuple(CLASSES[column] for column in order),
        probabilities=second.probabilities[:, order],
        labels=np.array([order.index(label) for label in second.labels]),
    )
    assert as_document(compare(first, turned), first) == as_document(compare(first, second), first)
    assert compare(first, turned).per_class == compare(first, second).per_class
    assert [row.name for row in compare(turned, first).per_class] == ["cat", "ant", "dog", "bee"]


INCOMPARABLE = {
    "another split": (
        {"split": "val"},
        "The first run was evaluated on test and the second on val: choose the same split for both.",
    ),
    "another dataset": (
        {"fingerprint": "4567"},
        "The two runs were evaluated on different datasets, or on different versions of one: "
        "choose two runs of the same dataset, or evaluate both again.",
    ),
    "other classes": (
        {"classes": ("ant", "bee", "cow", "elk")},
        "The two runs tell different classes apart (only the first: cat and dog; only the second: cow and elk): "
        "choose two runs with the same classes.",
    ),
    "other images": (
        {"indices": np.array([0, 1, 2, 4])},
        "The two runs were not evaluated on the same images of test in the same order: "
        "choose another split, or runs that hold back the same images.",
    ),
    "images of another place": (
        {"stored_in": "train"},
        "The two runs were not evaluated on the same images of test in the same order: "
        "choose another split, or runs that hold back the same images.",
    ),
    "another truth": (
        {"labels": np.array([0, 1, 2, 2])},
        "The two runs were evaluated with different true classes for the same images: evaluate both again.",
    ),
}


@pytest.mark.parametrize(("change", "message"), INCOMPARABLE.values(), ids=INCOMPARABLE)
def test_what_cannot_be_compared_is_told(change, message):
    first = predictions_of([0, 1, 2, 3], [0, 1, 2, 2])
    assert compare(first, replace(first)).difference == 0
    with pytest.raises(LoupeError) as refused:
        compare(first, replace(first, **change))
    assert str(refused.value) == message


def test_fewer_images_are_other_images():
    with pytest.raises(LoupeError, match="not evaluated on the same images"):
        compare(predictions_of([0, 1, 2], [0, 1, 2]), predictions_of([0, 1], [0, 1]))


def test_of_many_other_classes_a_few_are_named():
    labels = np.zeros(2, int)
    one, other = (
        Predictions("test", "test", np.full((2, 9), 1 / 9, np.float32), labels, np.arange(2), classes, "0123")
        for classes in (tuple("abcdefghi"), (*"abc", *"456789"))
    )
    with pytest.raises(LoupeError, match=r"only the first: d, e, f, g and h and others; only the second: 4, 5, 6, 7 "):
        compare(one, other)
    with pytest.raises(LoupeError, match=r"only the second: nothing\)"):
        compare(one, replace(one, classes=tuple("abcdefgh"), probabilities=one.probabilities[:, :8]))


WORDS = {
    (
        12,
        9,
        10_000,
    ): "right on 12 images that old gets wrong, and wrong on 9 that old gets right: 0.03 points better on "
    "10,000 images (95% interval -0.07 to 0.13 points, McNemar p = 0.664): this could be chance.",
    (60, 20, 10_000): "right on 60 images that old gets wrong, and wrong on 20 that old gets right: 0.40 points better "
    "on 10,000 images (95% interval 0.23 to 0.59 points, McNemar p < 0.001): this is more than chance would do.",
    (6, 16, 161): "right on 6 images that old gets wrong, and wrong on 16 that old gets right: 6.2 points worse on "
    "161 images (95% interval -12.4 to -0.5 points, McNemar p = 0.052): this is at the edge of what chance would do.",
    (1, 9, 360): "right on 1 image that old gets wrong, and wrong on 9 that old gets right: 2.2 points worse on "
    "360 images (95% interval -4.4 to -0.6 points, McNemar p = 0.021): this is more than chance would do.",
    (10, 3, 360): "right on 10 images that old gets wrong, and wrong on 3 that old gets right: 1.9 points better on "
    "360 images (95% interval 0.0 to 4.3 points, McNemar p = 0.092): this could be chance.",
    (4, 4, 360): "right on 4 images that old gets wrong, and wrong on 4 that old gets right: just as good on "
    "360 images (95% interval -1.9 to 1.9 points, McNemar p = 1.000): this could be chance.",
    (
        0,
        0,
        10_000,
    ): "right on the same images as old: no difference on 10,000 images (95% interval -0.04 to 0.04 points).",
    (1, 0, 1): "right on 1 image that old gets wrong, and wrong on 0 that old gets right: 100.0 points better on "
    "1 image (95% interval -58.7 to 100.0 points, McNemar p = 1.000): this could be chance.",
    (
        3,
        2,
        200_000,
    ): "right on 3 images that old gets wrong, and wrong on 2 that old gets right: 0.0005 points better on "
    "200,000 images (95% interval -0.0023 to 0.0035 points, McNemar p = 1.000): this could be chance.",
}


@pytest.mark.parametrize(("flips", "words"), WORDS.items(), ids=map(str, WORDS))
def test_a_comparison_is_put_in_words(flips, words):
    assert in_words(with_flips(*flips), "old", "new") == f"new is {words}"


def test_a_comparison_is_plain_data():
    first, second = random_pair()
    comparison = compare(first, second)
    document = as_document(comparison, first)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document == {
        "split": "test",
        "count": 300,
        "difference": comparison.difference,
        "interval": list(comparison.interval),
        "p_value": comparison.p_value,
        "fixed": np.flatnonzero(second.correct & ~first.correct).tolist(),
        "broken": np.flatnonzero(first.correct & ~second.correct).tolist(),
    }


def test_images_are_named_by_where_they_are_stored():
    held_back = {"split": "val", "stored_in": "train", "indices": np.array([70, 4, 31, 15])}
    first = replace(predictions_of([0, 1, 2, 3], [0, 0, 0, 3]), **held_back)
    second = replace(predictions_of([0, 1, 2, 3], [1, 1, 2, 2]), **held_back)
    document = as_document(compare(first, second), first)
    assert (document["split"], document["count"]) == ("val", 4)
    assert (document["fixed"], document["broken"]) == ([4, 31], [70, 15])


def test_rows_are_called_rows():
    assert " on 1 row that old gets wrong" in in_words(with_flips(1, 0, 30), "old", "new", "row")
    assert "images" not in in_words(with_flips(1, 3, 30), "old", "new", "row")
    assert "the same rows as old" in in_words(with_flips(0, 0, 30), "old", "new", "row")
