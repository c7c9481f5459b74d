"""The view of the Evaluate page that shows how far a run's confidence is to be trusted."""

import numpy as np
import pytest
from damage import all_right, all_wrong, answering, change_predictions
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from screen import errors, figure, follow, links, open_page, show, tiles, words

from engine.evaluation.calibration import at_temperature, expected_calibration_error, fit_temperature
from engine.evaluation.predictions import Predictions, load_predictions
from engine.runs.run import Run


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def confidence(run: Run, **choices: str):
    return open_page("evaluate", run=run.id, look="Confidence", **choices)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """As defined: in 15 bins, the mean gap between confidence and accuracy, weighted by the images of a bin."""
    sure, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.ceil(15 * sure).astype(int)
    return sum(abs(right[bins == each].sum() - sure[bins == each].sum()) for each in set(bins)) / len(labels)


def test_the_calibration_error_is_told(finished: Run, predictions: Predictions) -> None:
    error = calibration_error(predictions.probabilities, predictions.labels)
    assert error == pytest.approx(expected_calibration_error(predictions), abs=1e-6)
    mean = predictions.confidence.mean()
    assert mean < predictions.accuracy, "two epochs leave a model less sure than it might be"
    said = words(confidence(finished))
    assert (
        f"Of 360 images {predictions.accuracy:.1%} are right, at a mean confidence of {mean:.1%}. It is less "
        f"sure than it might be: **expected calibration error {error:.2%}**."
    ) in said


def test_a_run_that_is_surer_than_right_is_told(finished: Run, predictions: Predictions) -> None:
    change_predictions(finished, answering(predictions.predicted))
    wrong = 1 - predictions.accuracy
    said = words(confidence(finished))
    assert "at a mean confidence of 100.0%. It is surer than it should be: " in said
    assert f"**expected calibration error {wrong:.2%}**" in said


def test_the_temperature_is_fitted_on_the_validation_images(finished: Run, predictions: Predictions) -> None:
    held_back = load_predictions(finished.predictions("val"))
    logits = np.log(held_back.probabilities.astype(np.float64))

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(144), held_back.labels]).mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}).x
    assert fit_temperature(held_back) == pytest.approx(best, abs=1e-3)
    softened = at_temperature(predictions, best)
    error = calibration_error(softened.probabilities, predictions.labels)
    app = confidence(finished)
    assert (
        f"Dividing the logits by a temperature of **{best:.2f}**, fitted on the validation images, makes it "
        f"**{error:.2%}**. It changes no answer, only how sure it is."
    ) in words(app)
    lines = figure(app, "reliability")["data"]
    assert [line["name"] for line in lines] == ["as sure as right", "as it is", "at the temperature"]
    for line, each in zip(lines[1:], (predictions, softened), strict=True):
        assert sum(line["customdata"]) == 360
        assert np.dot(line["y"], line["customdata"]) / 360 == pytest.approx(100 * each.accuracy)
        assert np.dot(line["x"], line["customdata"]) / 360 == pytest.approx(100 * each.confidence.mean(), rel=1e-5)


def test_without_validation_images_no_temperature_is_fitted(finished: Run) -> None:
    finished.predictions("val").unlink()
    app = confidence(finished)
    assert (
        "No temperature can be fitted: it takes validation images, and this run has held none back. "
        "Set validation_share to hold some back."
    ) in words(app)
    assert len(figure(app, "reliability")["data"]) == 2
    assert "Dividing the logits" not in words(app)


@pytest.mark.parametrize("change", [all_right, all_wrong])
def test_a_temperature_that_goes_to_an_extreme_is_not_shown(finished: Run, change) -> None:
    change_predictions(finished, change, "val")
    app = confidence(finished)
    assert (
        "No temperature can be fitted: on the 144 validation images the more extreme it is the better, as where all "
        "are right. Set validation_share to hold back more."
    ) in words(app)
    assert [line["name"] for line in figure(app, "reliability")["data"]] == ["as sure as right", "as it is"]
    assert "Dividing the logits" not in words(app)
    assert not app.error


def test_the_validation_images_are_not_fitted_and_judged_at_once(finished: Run) -> None:
    finished.predictions("test").unlink()
    assert (
        "No temperature can be fitted: the validation images, which it takes, are those of this evaluation."
    ) in words(confidence(finished))


def test_damaged_validation_answers_are_told(finished: Run) -> None:
    finished.predictions("val").write_bytes(b"damaged")
    app = confidence(finished)
    (error,) = errors(app)
    assert error.startswith(f"predictions-val.npz of the run {finished.id} is damaged")
    assert "What if it answered only when sure?" in words(app)


# Answering only when sure


def answered(predictions: Predictions, threshold: float) -> str:
    chosen = predictions.probabilities.max(1) >= np.float32(threshold)
    right = int((chosen & (predictions.probabilities.argmax(1) == predictions.labels)).sum())
    count = int(chosen.sum())
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return (
        f"Answer only above {threshold:g}: **{count / 360:.0%} of images** ({count} of 360), **{right / count:.1%} "
        f"right** ({right} of {count}, 95% interval {interval.low:.1%} to {interval.high:.1%})."
    )


@pytest.mark.slow
def test_what_is_answered_is_told_for_any_threshold(finished: Run, predictions: Predictions) -> None:
    app = confidence(finished)
    assert answered(predictions, 0.9) in words(app)
    app.slider("above").set_value(0.55)
    assert answered(predictions, 0.55) in words(show(app))
    assert app.query_params == {"run": finished.id, "look": "Confidence", "above": "0.55"}
    assert answered(predictions, 0.7) in words(confidence(finished, above="0.7"))
    app.query_params = {"run": finished.id, "look": "Confidence"}
    assert answered(predictions, 0.9) in words(show(app)), "the browser's Back"
    app.slider("above").set_value(0.3)
    show(app)
    app.slider("above").set_value(0.9)
    assert show(app).query_params == {"run": finished.id, "look": "Confidence"}


@pytest.mark.parametrize("above", ["1.01", "-0.1", "nan", "sure"])
def test_a_threshold_that_does_not_exist_is_told(finished: Run, predictions: Predictions, above: str) -> None:
    app = confidence(finished, above=above)
    told = [f"There is no **above** {above} here, so this choice is left out."]
    assert [warning.value for warning in app.warning] == told
    assert answered(predictions, 0.9) in words(app)


def test_where_nothing_is_answered_that_is_told(finished: Run, predictions: Predictions) -> None:
    assert predictions.confidence.max() < 1
    app = confidence(finished, above="1.0")
    assert "Answer only above 1: no image at all of 360." in words(app)
    assert len(figure(app, "coverage")["data"]) == 1, "nothing to mark"


def test_where_all_is_answered_nothing_is_left(finished: Run) -> None:
    app = confidence(finished, above="0.0")
    assert "**100% of images** (360 of 360)" in words(app)
    assert not [label for label in links(app) if "left to a person" in label]


def test_a_single_image_is_left_in_the_singular(finished: Run, predictions: Predictions) -> None:
    first, second = np.sort(predictions.confidence)[:2].astype(float)
    above = (first + second) / 2
    assert first < above < second
    assert "See the 1 image left to a person" in links(confidence(finished, above=str(above)))


def test_the_curve_goes_from_the_surest_to_all(finished: Run, predictions: Predictions) -> None:
    curve, star = figure(confidence(finished), "coverage")["data"]
    order = np.argsort(-predictions.confidence, kind="stable")
    accuracies = 100 * predictions.correct[order].cumsum() / np.arange(1, 361)
    for (_, count), share, accuracy in zip(curve["customdata"], curve["x"], curve["y"], strict=True):
        assert (share, accuracy) == pytest.approx((100 * count / 360, accuracies[int(count) - 1]))
    assert curve["x"][-1] == 100
    chosen = predictions.confidence >= np.float32(0.9)
    assert star["x"] == pytest.approx([100 * chosen.mean()])
    assert star["y"] == pytest.approx([100 * predictions.correct[chosen].mean()])


def test_what_is_left_to_a_person_is_in_the_gallery(finished: Run, predictions: Predictions) -> None:
    left = np.flatnonzero(predictions.confidence < np.float32(0.6))
    assert len(left) > 10
    app = confidence(finished, above="0.6")
    label = f"See the {len(left)} images left to a person"
    choices = {"run": finished.id, "show": "all", "sort": "least confident", "confidence": ["0", "0.6"]}
    assert links(app)[label] == ("gallery", choices)
    follow(app, label)
    expected = left[np.argsort(predictions.confidence[left], kind="stable")]
    assert [tile["index"] for tile in tiles(app)] == expected[:60].tolist()
    assert f"1 to {min(60, len(left))} of {len(left)} images at a confidence of 0 to 0.6" in words(app)


def test_a_run_that_is_always_right_has_a_curve_too(finished: Run) -> None:
    change_predictions(finished, all_right)
    curve, _ = figure(confidence(finished), "coverage")["data"]
    assert set(curve["y"]) == {100.0}
    assert curve["mode"] == "lines"


def test_a_curve_of_one_point_is_a_point(finished: Run, predictions: Predictions) -> None:
    change_predictions(finished, answering(predictions.predicted))
    curve, _ = figure(confidence(finished), "coverage")["data"]
    assert (curve["x"], curve["mode"]) == ([100.0], "markers")
