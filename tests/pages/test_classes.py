"""The views of the Evaluate page that show the scores of each class, and the curves of the training."""

import numpy as np
import pytest
from damage import answering, change_predictions, write_log
from scipy.stats import binomtest
from screen import figure, open_page, show, tiles, title, words
from sklearn import metrics

from engine.evaluation.predictions import Predictions, load_predictions
from engine.recipes.recipe import change, find_recipe, published
from engine.runs.records import to_line
from engine.runs.run import Run

KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def classes(run: Run):
    return open_page("evaluate", run=run.id, look="Classes")


def report_of(predictions: Predictions) -> dict:
    return metrics.classification_report(
        predictions.labels, predictions.predicted, labels=range(10), output_dict=True, zero_division=0
    )


def test_scores_of_each_class_are_scikit_learns(finished: Run, predictions: Predictions) -> None:
    report = report_of(predictions)
    table = classes(finished).dataframe[0].value
    assert table["class"].tolist() == list("0123456789")
    for row in table.itertuples():
        theirs = report[str(row.Index)]
        assert row.precision == pytest.approx(100 * theirs["precision"])
        assert row.recall == pytest.approx(100 * theirs["recall"])
        assert row.f1 == pytest.approx(100 * theirs["f1-score"])
        assert row.support == theirs["support"]


def test_averages_are_those_of_scikit_learns_report(finished: Run, predictions: Predictions) -> None:
    report = report_of(predictions)
    table = classes(finished).dataframe[1].value
    assert table["class"].tolist() == ["Macro average: all classes alike", "Weighted average: by their images"]
    for row, name in zip(table.itertuples(), ("macro avg", "weighted avg"), strict=True):
        theirs = report[name]
        expected = [100 * theirs[score] for score in ("precision", "recall", "f1-score")]
        assert [row.precision, row.recall, row.f1] == pytest.approx(expected)
        assert row.support == 360


def test_bars_are_recalls_with_wilsons_intervals(finished: Run, predictions: Predictions) -> None:
    app = classes(finished)
    (bars,) = figure(app, "recall-0")["data"]
    for label in range(10):
        own = predictions.predicted[predictions.labels == label] == label
        interval = binomtest(int(own.sum()), len(own)).proportion_ci(0.95, method="wilson")
        assert bars["y"][label] == pytest.approx(100 * own.mean())
        assert bars["y"][label] + bars["error_y"]["array"][label] == pytest.approx(100 * interval.high)
        assert bars["y"][label] - bars["error_y"]["arrayminus"][label] == pytest.approx(100 * interval.low)
    said = "Share of each class's images that were recognised: its recall, also called per-class accuracy."
    assert said in words(app)
    assert "Click a bar, or the box before a row, to see the images of a class." in words(app)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["bar", "row"])
def test_a_click_on_a_class_opens_its_images(finished: Run, predictions: Predictions, what: str) -> None:
    app = classes(finished)
    if what == "bar":
        chosen = {"selection": {"points": [{"point_index": 8}], "point_indices": [8], "box": [], "lasso": []}}
        app.session_state["recall-0"] = chosen
    else:
        app.session_state[app.dataframe[0].key] = {"selection": {"rows": [8], "columns": []}}
    show(app)
    assert title(app) == "Gallery"
    assert app.query_params == {"run": finished.id, "true": "8", "show": "all", "sort": "highest loss"}
    fitting = np.flatnonzero(predictions.labels == 8)
    expected = fitting[np.argsort(predictions.probabilities[fitting, 8], kind="stable")]
    assert [tile["index"] for tile in tiles(app)] == expected.tolist()
    app.switch_page("pages/evaluate.py")
    assert title(show(app)) == "Evaluate", "coming back does not open the gallery again"


def test_classes_without_images_have_scores_of_zero(finished: Run) -> None:
    change_predictions(finished, lambda _: {"labels": np.zeros(360, np.int64)})
    change_predictions(finished, answering(np.arange(360) % 2))
    app = classes(finished)
    table = app.dataframe[0].value
    assert table.recall.tolist() == [50.0] + 9 * [0.0]
    assert table.support.tolist() == [360] + 9 * [0]
    assert app.dataframe[1].value.recall.tolist() == [5.0, 50.0]


def test_published_scores_of_each_class_are_beside_ones_own(finished: Run) -> None:
    change_predictions(finished, lambda _: {"classes": KUZUSHIJI})
    finished.write_recipe(find_recipe("kmnist-lenet"))
    own, averages = (each.value for each in classes(finished).dataframe)
    theirs = published(find_recipe("kmnist-lenet"))["per_class"]
    for row in own.to_dict("records"):
        for score in ("precision", "recall", "f1"):
            assert row[f"published {score}"] == pytest.approx(100 * theirs[row["class"]][score])
    assert not averages.columns.str.startswith("published").any()


def test_a_published_accuracy_of_each_class_is_beside_its_recall(finished: Run) -> None:
    change_predictions(finished, lambda _: {"classes": OBJECTS})
    finished.write_recipe(find_recipe("cifar10-blitz"))
    own = classes(finished).dataframe[0].value
    assert own.columns[own.columns.str.startswith("published")].tolist() == ["published recall"]
    assert own.set_index("class").loc["deer", "published recall"] == pytest.approx(57)
    finished.write_recipe(change(find_recipe("cifar10-blitz"), {"epochs": 3}))
    own = classes(finished).dataframe[0].value
    assert not own.columns.str.startswith("published").any(), "other settings"


# The training


def test_the_training_curves_are_those_of_the_log(finished: Run) -> None:
    app = open_page("evaluate", run=finished.id, look="Training")
    history = finished.history()
    running, epochs, validation, best = figure(app, "accuracy")["data"]
    assert running["y"] == pytest.approx([100 * step.train_accuracy for step in history.steps])
    assert epochs["x"] == [1, 2]
    assert epochs["y"] == pytest.approx([100 * epoch.train_accuracy for epoch in history.epochs])
    assert validation["y"] == pytest.approx([100 * epoch.val_accuracy for epoch in history.epochs])
    assert figure(app, "loss")["data"][2]["y"] == pytest.approx([epoch.val_loss for epoch in history.epochs])
    first = max(history.epochs, key=lambda epoch: epoch.val_accuracy)
    assert best["x"] == [first.epoch]
    assert f"Best epoch by validation: {first.epoch} of 2, {first.val_accuracy:.2%} of 144 right." in words(app)
    assert f"Kept: {history.ended.kept}." in words(app)


def test_a_run_without_validation_has_no_best_epoch(blobs: Run) -> None:
    app = open_page("evaluate", run=blobs.id, look="Training")
    assert "test, by step" in [trace["name"] for trace in figure(app, "loss")["data"]]
    assert "Best epoch" not in words(app)
    assert f"Kept: {blobs.history().ended.kept}." in words(app)


def test_a_log_without_epochs_is_told(finished: Run) -> None:
    history = finished.history()
    write_log(finished, (to_line(history.started) + to_line(history.ended)).encode())
    app = open_page("evaluate", run=finished.id, look="Training")
    assert "The log of this run has no epochs, so there are no curves to show." in words(app)
    assert not app.main.get("plotly_chart")
