from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.calibration import calibration_curve

from engine.base.errors import LoupeError
from engine.evaluation.calibration import (
    answered_above,
    at_temperature,
    coverage,
    expected_calibration_error,
    fit_temperature,
    is_fitted,
    reliability,
)
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions

CLASSES = ("ant", "bee", "cat", "dog")


def predictions_of(probabilities: list[list[float]] | np.ndarray, labels: list[int] | np.ndarray) -> Predictions:
    count = len(labels)
    classes = CLASSES[: np.shape(probabilities)[1]]
    shares = np.array(probabilities, np.float32)
    return Predictions("val", "train", shares, np.array(labels, np.int64), np.arange(count), classes, "0123")


def with_confidences(confidences: list[float], right: list[bool]) -> Predictions:
    """Make predictions of two classes, each for the first, with these confidences of at least a half."""
    return predictions_of([[confidence, 1 - confidence] for confidence in confidences], [not each for each in right])


def random_predictions(count: int = 500, temperature: float = 1.0) -> Predictions:
    """Draw each true class from the probabilities of its image, then say them at another temperature."""
    logits = np.random.normal(0, 2, (count, 4))
    truth = np.exp(log_softmax(logits, axis=1))
    labels = np.array([np.random.choice(4, p=row) for row in truth])
    return predictions_of(np.exp(log_softmax(logits / temperature, axis=1)), labels)


CASES = {
    "random": random_predictions,
    "too sure": lambda: random_predictions(temperature=0.4),
    "not sure enough": lambda: random_predictions(temperature=2.5),
    "probabilities of zero": lambda: predictions_of(np.eye(4)[np.random.randint(0, 4, 60)], np.arange(60) % 4),
    "equal probabilities": lambda: predictions_of(np.full((8, 4), 0.25), np.arange(8) % 4),
    "all right": lambda: predictions_of(np.full((4, 4), 0.1) + 0.6 * np.eye(4), range(4)),
    "all wrong": lambda: predictions_of(np.full((4, 4), 0.1) + 0.6 * np.eye(4), [1, 2, 3, 0]),
    "no images of a class": lambda: predictions_of(np.full((3, 4), 0.1) + 0.6 * np.eye(4)[:3], [0, 0, 1]),
    "one image": lambda: predictions_of([[0.1, 0.2, 0.6, 0.1]], [2]),
    "one image, wrong": lambda: predictions_of([[0.1, 0.2, 0.6, 0.1]], [3]),
}


@pytest.fixture(params=CASES)
def predictions(request: pytest.FixtureRequest) -> Predictions:
    return CASES[request.param]()


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_bins_are_those_of_scikit_learn(predictions, bins):
    confidence = predictions.confidence.astype(np.float64).clip(0, 1)
    accuracies, confidences = calibration_curve(predictions.correct, confidence, n_bins=bins, pos_label=True)
    found = reliability(predictions, bins)
    assert [each.accuracy for each in found] == pytest.approx(accuracies)
    assert [each.confidence for each in found] == pytest.approx(confidences)
    assert sum(each.count for each in found) == len(predictions)
    for each in found:
        assert each.low < each.high <= 1
        assert each.low <= each.confidence <= each.high
        assert each.interval == wilson_interval(round(each.accuracy * each.count), each.count)


def test_a_confidence_on_an_edge_is_in_the_bin_below_it():
    found = reliability(with_confidences([0.5, 0.5, 0.75, 1.0, 1.0], [True, False, True, True, True]), bins=4)
    assert [(each.low, each.high, each.count) for each in found] == [(0.25, 0.5, 2), (0.5, 0.75, 1), (0.75, 1.0, 2)]
    assert [each.accuracy for each in found] == [0.5, 1.0, 1.0]


def test_what_float32_rounds_beyond_the_ends_is_in_the_bins_at_the_ends():
    beyond = np.nextafter(np.float32(1), np.float32(2))
    (found,) = reliability(predictions_of([[beyond, 0.0]], [0]))
    assert (found.high, found.count, found.confidence) == (1.0, 1, 1.0)
    (found,) = reliability(predictions_of([[0.0, 0.0]], [0]))
    assert (found.low, found.count, found.confidence) == (0.0, 1, 0.0)


def test_the_calibration_error_is_the_mean_gap_weighted_by_images(predictions):
    """The paper's formula, written out a second time: its bins leave out their lower edge."""
    confidence = predictions.confidence.astype(np.float64).clip(0, 1)
    expected = 0.0
    for step in range(15):
        inside = (confidence > step / 15) & (confidence <= (step + 1) / 15)
        if inside.any():
            expected += abs(predictions.correct[inside].sum() - confidence[inside].sum()) / len(predictions)
    assert expected_calibration_error(predictions) == pytest.approx(expected)


def test_a_calibration_error_worked_by_hand():
    # Bins of a tenth: 0.55 and 0.55 with one right, a gap of 0.05; 0.95 with none right, a gap of 0.95.
    predictions = with_confidences([0.55, 0.55, 0.95], [True, False, False])
    assert expected_calibration_error(predictions, bins=10) == pytest.approx((2 * 0.05 + 0.95) / 3)


def test_the_temperature_is_that_of_scipys_minimiser(predictions):
    shares = predictions.probabilities.astype(np.float64)
    logits = np.log(np.maximum(shares, np.finfo(np.float32).tiny))

    def loss(temperature: float) -> float:
        return -log_softmax(logits / temperature, axis=1)[np.arange(len(shares)), predictions.labels].mean()

    found = fit_temperature(predictions)
    assert 0.05 <= found <= 20
    theirs = np.exp(minimize_scalar(lambda log: loss(np.exp(log)), bounds=np.log([0.05, 20]), method="bounded").x)
    assert loss(found) <= loss(theirs) + 1e-6
    if 0.06 < theirs < 19 and np.ptp(logits):
        assert found == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize(
    ("case", "temperature"),
    [
        ("all right", 0.05),
        ("one image", 0.05),
        ("all wrong", 20.0),
        ("one image, wrong", 20.0),
        ("equal probabilities", 1.0),
    ],
)
def test_where_there_is_no_best_temperature_it_is_a_bound_or_1(case, temperature):
    assert fit_temperature(CASES[case]()) == temperature


def test_a_temperature_at_the_end_of_what_is_tried_is_none_that_fits():
    assert not is_fitted(fit_temperature(CASES["all right"]()))
    assert not is_fitted(fit_temperature(CASES["all wrong"]()))
    assert is_fitted(fit_temperature(CASES["too sure"]()))


def test_certain_answers_leave_no_doubt_about_the_way():
    shares = np.eye(4)
    assert fit_temperature(predictions_of(shares, range(4))) == 1.0
    assert fit_temperature(predictions_of(shares, [1, 2, 3, 0])) == 20.0


@pytest.mark.parametrize("said", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_the_one_that_the_probabilities_were_said_at(said):
    predictions = random_predictions(4000, temperature=said)
    temperature = fit_temperature(predictions)
    assert temperature == pytest.approx(1 / said, rel=0.08)
    calibrated = at_temperature(predictions, temperature)
    assert expected_calibration_error(calibrated) < 0.03
    assert calibrated.loss <= predictions.loss + 1e-6
    if said != 1.0:
        assert expected_calibration_error(predictions) > 0.1
    assert fit_temperature(calibrated) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 20.0])
def test_a_temperature_changes_probabilities_and_no_answer(predictions, temperature):
    softened = at_temperature(predictions, temperature)
    np.testing.assert_array_equal(softened.predicted, predictions.predicted)
    assert softened.probabilities.dtype == np.float32
    np.testing.assert_allclose(softened.probabilities.sum(axis=1), 1, rtol=1e-5)
    powers = predictions.probabilities.astype(np.float64) ** (1 / temperature)
    if predictions.probabilities.all():
        np.testing.assert_allclose(
            softened.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7
        )
    assert replace(softened, probabilities=predictions.probabilities) == predictions  # the very same arrays


def test_classes_that_a_temperature_makes_equal_keep_their_order():
    close = np.array([[0.5 - 1e-7, 0.5]], np.float32)
    close[0, 1] = np.nextafter(close[0, 0], np.float32(1))
    predictions = predictions_of(close, [1])
    assert predictions.predicted.tolist() == [1]
    assert at_temperature(predictions, 20.0).predicted.tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_told(temperature):
    with pytest.raises(LoupeError, match=r"^The temperature is .*, but it has to be a number above 0: give another\.$"):
        at_temperature(CASES["one image"](), temperature)


def test_answering_only_when_sure_is_counted():
    predictions = with_confidences([0.95, 0.9, 0.9, 0.6], [True, False, True, True])
    sure = answered_above(predictions, 0.9)
    assert (sure.count, sure.answered, sure.right) == (4, 3, 2)
    assert (sure.share, sure.accuracy) == (0.75, 2 / 3)
    assert sure.interval == wilson_interval(2, 3)


def test_where_nothing_is_answered_nothing_is_known():
    none = answered_above(with_confidences([0.9], [True]), 0.99)
    assert (none.answered, none.share, none.accuracy, none.interval) == (0, 0.0, 0.0, (0.0, 1.0))


def test_coverage_goes_from_the_surest_images_to_all(predictions):
    curve = coverage(predictions, most=10_000)
    assert [point.threshold for point in curve] == sorted(set(predictions.confidence.tolist()), reverse=True)
    assert all(point == answered_above(predictions, point.threshold) for point in curve)
    assert (curve[-1].answered, curve[-1].right) == (len(predictions), predictions.correct.sum())


def test_images_of_equal_confidence_are_answered_together():
    predictions = with_confidences([0.7, 0.9, 0.7, 0.7], [True, True, False, True])
    curve = coverage(predictions)
    assert [(point.answered, point.right) for point in curve] == [(1, 1), (4, 3)]
    assert [point.share for point in curve] == [0.25, 1.0]


@pytest.mark.parametrize("most", [2, 50, 499, 500, 501])
def test_a_long_curve_is_thinned_and_keeps_its_ends(most):
    predictions = random_predictions(500)
    every = {point.threshold: point for point in coverage(predictions, most=10_000)}
    thinned = coverage(predictions, most=most)
    assert len(every) > 490
    assert len(thinned) == min(most, len(every))
    assert all(every[point.threshold] == point for point in thinned)
    assert thinned[0] == next(iter(every.values()))
    assert thinned[-1].answered == 500
