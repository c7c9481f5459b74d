"""The evaluation of a run as plain data: what the command line prints and the report is made from."""

from engine.evaluation.calibration import expected_calibration_error
from engine.evaluation.metrics import (
    averages,
    balanced_accuracy,
    confusion_matrix,
    majority_baseline,
    per_class,
    top_k_accuracy,
    wilson_interval,
)
from engine.evaluation.predictions import Predictions

TOP = 5


def evaluation(run: str, predictions: Predictions) -> dict:
    """Sum predictions up: accuracy with its interval and what it is measured against, matrix, scores of each class.

    top_5_accuracy is None where there are no more than five classes.
    """
    return {
        "run": run,
        "split": predictions.split,
        "count": len(predictions),
        "accuracy": predictions.accuracy,
        "accuracy_interval": list(wilson_interval(int(predictions.correct.sum()), len(predictions))),
        "top_5_accuracy": top_k_accuracy(predictions, TOP) if len(predictions.classes) > TOP else None,
        "balanced_accuracy": balanced_accuracy(predictions),
        "majority_baseline": majority_baseline(predictions),
        "loss": predictions.loss,
        "expected_calibration_error": expected_calibration_error(predictions),
        "classes": list(predictions.classes),
        "confusion": confusion_matrix(predictions).tolist(),
        "per_class": per_class(predictions),
        "averages": averages(predictions),
    }
