import numpy as np
import pytest
from answers import CASES, CLASSES

from engine.evaluation.calibration import expected_calibration_error
from engine.evaluation.metrics import averages, balanced_accuracy, majority_baseline, wilson_interval
from engine.evaluation.predictions import Predictions
from engine.evaluation.summary import evaluation


@pytest.fixture(params=CASES)
def predictions(request: pytest.FixtureRequest) -> Predictions:
    return CASES[request.param]()


def test_an_evaluation_sums_up(predictions):
    document = evaluation("a-run", predictions)
    right, count = int(predictions.correct.sum()), len(predictions)
    assert (document["run"], document["split"], document["count"]) == ("a-run", "test", count)
    assert document["accuracy"] == right / count
    assert document["accuracy_interval"] == list(wilson_interval(right, count))
    assert document["classes"] == list(CLASSES)
    assert sum(map(sum, document["confusion"])) == count
    assert [row["support"] for row in document["per_class"]] == [sum(row) for row in document["confusion"]]
    assert document["averages"] == averages(predictions)
    assert document["balanced_accuracy"] == balanced_accuracy(predictions)
    assert document["majority_baseline"] == majority_baseline(predictions)
    assert document["expected_calibration_error"] == expected_calibration_error(predictions)
    assert document["loss"] == predictions.loss
    assert document["top_5_accuracy"] is None  # of four classes one is always among five


def test_with_more_than_five_classes_five_answers_count(predictions):
    probabilities = np.array([[0.3, 0.25, 0.2, 0.1, 0.1, 0.05], [0.3, 0.25, 0.2, 0.1, 0.1, 0.05]], np.float32)
    six = Predictions("test", "test", probabilities, np.array([4, 5]), np.arange(2), tuple("abcdef"), "0123")
    assert evaluation("a-run", six)["top_5_accuracy"] == 0.5
