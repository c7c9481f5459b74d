import warnings

import numpy as np
import pytest
from answers import CASES, CLASSES, predictions_of
from sklearn import metrics

from engine.evaluation.metrics import (
    averages,
    balanced_accuracy,
    confusion_matrix,
    majority_baseline,
    most_confused,
    order_by_confusion,
    per_class,
    report,
    top_k_accuracy,
    wilson_interval,
)
from engine.evaluation.predictions import Predictions


@pytest.fixture(params=CASES)
def predictions(request: pytest.FixtureRequest) -> Predictions:
    return CASES[request.param]()


def test_scores_are_those_of_scikit_learn(predictions):
    labels, predicted = predictions.labels, predictions.probabilities.argmax(axis=1)
    assert predictions.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    # As float64, so that it takes the probabilities as they are.
    shares = predictions.probabilities.astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    assert predictions.loss == pytest.approx(metrics.log_loss(labels, shares, labels=range(4)), rel=1e-5)

    report = metrics.classification_report(
        labels, predicted, labels=range(4), target_names=CLASSES, output_dict=True, zero_division=0
    )
    rows = per_class(predictions)
    assert [row["class"] for row in rows] == list(CLASSES)
    for row in rows:
        theirs = report[row["class"]]
        assert row["precision"] == pytest.approx(theirs["precision"])
        assert row["recall"] == pytest.approx(theirs["recall"])
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["support"] == theirs["support"]


def test_the_confusion_matrix_counts_true_by_predicted(predictions):
    counted = np.zeros((4, 4), int)
    for label, probabilities in zip(predictions.labels, predictions.probabilities, strict=True):
        counted[label, probabilities.argmax()] += 1
    matrix = confusion_matrix(predictions)
    np.testing.assert_array_equal(matrix, counted)
    assert matrix.dtype == np.int64


def test_undefined_scores_are_zero():
    rows = per_class(predictions_of([0, 0, 3], [0, 1, 3]))
    assert rows[1] == {"class": "bee", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert rows[2] == {"class": "cat", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@pytest.mark.parametrize(
    ("successes", "count"), [(0, 1), (1, 1), (0, 10), (10, 10), (5, 10), (353, 360), (9876, 10_000), (1, 10**7)]
)
def test_the_interval_is_wilsons(successes, count):
    from scipy.stats import binomtest

    theirs = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, count)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert low >= 0
    assert high <= 1


def test_of_no_images_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_commonest_mistakes_come_first():
    predictions = predictions_of([0, 0, 0, 1, 1, 2, 3, 3], [1, 1, 0, 0, 1, 2, 2, 2])
    assert most_confused(predictions) == [("ant", "bee", 2, 3), ("dog", "cat", 2, 2), ("bee", "ant", 1, 2)]
    assert most_confused(predictions, most=1) == [("ant", "bee", 2, 3)]
    assert most_confused(CASES["all right"]()) == []


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("case", ["random", "all right", "all wrong", "one image", "one image, wrong"])
def test_top_k_accuracy_is_scikit_learns(case, k):
    predictions = CASES[case]()
    # Its own choice among equals is the last, Loupe's the first: a little less for each that follows.
    distinct = predictions.probabilities - 1e-6 * np.arange(4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'k'", UserWarning)  # that of four classes one is always among four
        theirs = metrics.top_k_accuracy_score(predictions.labels, distinct, k=k, labels=range(4))
    assert top_k_accuracy(predictions, k) == pytest.approx(theirs)


def test_the_most_probable_class_alone_is_the_answer(predictions):
    assert top_k_accuracy(predictions, 1) == predictions.accuracy
    assert top_k_accuracy(predictions, 4) == top_k_accuracy(predictions, 5) == 1.0


def test_of_equally_probable_classes_the_first_are_taken():
    equal = predictions_of([0, 1, 2, 3] * 2, [0] * 8, confidence=0.25)
    assert [top_k_accuracy(equal, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_balanced_accuracy_is_scikit_learns(predictions):
    with warnings.catch_warnings():
        # It warns of classes that are predicted and have no images, and leaves them out too.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        theirs = metrics.balanced_accuracy_score(predictions.labels, predictions.predicted)
    assert balanced_accuracy(predictions) == pytest.approx(theirs)


def test_the_baseline_is_that_of_scikit_learns_dummy(predictions):
    from sklearn.dummy import DummyClassifier

    nothing = np.zeros((len(predictions), 1))
    dummy = DummyClassifier(strategy="most_frequent").fit(nothing, predictions.labels)
    assert majority_baseline(predictions) == dummy.score(nothing, predictions.labels)


def test_a_class_of_many_images_hides_the_others_from_accuracy_only():
    predictions = predictions_of([0] * 8 + [1, 2], [0] * 10)
    assert (predictions.accuracy, majority_baseline(predictions)) == (0.8, 0.8)
    assert balanced_accuracy(predictions) == pytest.approx(1 / 3)


def test_averages_are_those_of_scikit_learns_report(predictions):
    theirs = metrics.classification_report(
        predictions.labels,
        predictions.predicted,
        labels=range(4),
        target_names=CLASSES,
        output_dict=True,
        zero_division=0,
    )
    for name, scores in averages(predictions).items():
        expected = theirs[f"{name} avg"]
        assert scores["precision"] == pytest.approx(expected["precision"])
        assert scores["recall"] == pytest.approx(expected["recall"])
        assert scores["f1"] == pytest.approx(expected["f1-score"])


def test_the_macro_average_takes_classes_alike_and_the_weighted_one_by_their_images():
    found = averages(predictions_of([0] * 8 + [1, 2], [0] * 10))
    assert found["macro"]["recall"] == pytest.approx(1 / 4)
    assert found["weighted"]["recall"] == pytest.approx(0.8)


def test_the_report_is_scikit_learns_with_every_class_in_it(predictions):
    text = report(predictions)
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    for row in per_class(predictions):
        expected = [f"{row[score]:.4f}" for score in ("precision", "recall", "f1")]
        *scores, support = lines[row["class"]]
        assert (scores, float(support)) == (expected, row["support"])  # scikit-learn may write it as 1.0
    assert "macro avg" in text
    assert "weighted avg" in text


def test_classes_that_are_taken_for_each_other_stand_side_by_side():
    groups = [{0, 5, 7}, {1, 4}, {2, 6}, {3}]
    matrix = 100 * np.eye(8, dtype=int)
    for group in groups:
        for one in group:
            for other in group - {one}:
                matrix[one, other] = 9
    order = order_by_confusion(matrix).tolist()
    assert sorted(order) == list(range(8))
    for group in groups:
        places = [order.index(member) for member in group]
        assert max(places) - min(places) == len(group) - 1


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("number", [0, 1], ids=["no images", "no mistakes"])
def test_without_confusions_classes_stay_as_they_are_or_nearly(count, number):
    assert sorted(order_by_confusion(number * np.eye(count, dtype=int)).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [2, 10, 100])
def test_the_order_is_a_permutation_that_brings_confused_classes_nearer(count):
    matrix = np.random.default_rng(0).poisson(0.5, (count, count)) + 20 * np.eye(count, dtype=int)
    order = order_by_confusion(matrix)
    assert sorted(order.tolist()) == list(range(count))

    def spread(order: np.ndarray) -> float:
        places = np.argsort(order)
        mistakes = matrix - np.diag(np.diag(matrix))
        return float((mistakes * abs(places[:, None] - places[None])).sum())

    assert spread(order) <= spread(np.arange(count))
