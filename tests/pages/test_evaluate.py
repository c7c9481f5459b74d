import json
import os

import numpy as np
import pytest
from damage import DAMAGE, all_right, change_predictions, die_at_once, die_in_training, fail
from screen import button, buttons, cells, click, errors, figure, links, open_page, show, title, words
from sklearn import metrics

from engine.predictions import Predictions, load_predictions
from engine.recipes import change, find_recipe, published
from engine.runs import Run


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def figures(app) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def test_the_headline_is_the_accuracy_of_the_predictions(finished: Run) -> None:
    with np.load(finished.predictions("test")) as arrays:
        answers, labels = arrays["probabilities"].argmax(1), arrays["labels"]
    accuracy = metrics.accuracy_score(labels, answers)
    right = int((answers == labels).sum())
    app = open_page("evaluate", run=finished.id)
    assert figures(app) == {
        "Accuracy on the test images": f"{accuracy:.2%}",
        "Mistakes": f"{360 - right}",
        "Published": "-",
    }
    assert f"{right} of 360, 95% interval " in words(app)
    assert "of 360 images" in words(app)
    assert f"{finished.id} · " in words(app)
    assert f"{finished.history().ended.test_accuracy:.2%} of 360 test images" in words(app)


def test_the_interval_is_wilsons(finished: Run, predictions: Predictions) -> None:
    from scipy.stats import binomtest

    interval = binomtest(int(predictions.right.sum()), 360).proportion_ci(0.95, method="wilson")
    assert f"95% interval {interval.low:.2%} to {interval.high:.2%}" in words(open_page("evaluate", run=finished.id))


def test_the_matrix_is_scikit_learns(finished: Run, predictions: Predictions) -> None:
    expected = metrics.confusion_matrix(predictions.labels, predictions.predicted, labels=range(10))
    drawn = cells(open_page("evaluate", run=finished.id))
    matrix = drawn.pivot(index="true", columns="predicted", values="images")
    np.testing.assert_array_equal(matrix.to_numpy(), expected)
    assert drawn.images.sum() == 360
    assert all(cell.text == (str(cell.images) if cell.images else "") for cell in drawn.itertuples())


def test_the_matrix_says_shares_when_asked(finished: Run, predictions: Predictions) -> None:
    app = open_page("evaluate", run=finished.id)
    app.toggle("shares").set_value(True)
    expected = 100 * metrics.confusion_matrix(predictions.labels, predictions.predicted, normalize="true")
    drawn = cells(show(app)).pivot(index="true", columns="predicted", values="text").to_numpy()
    np.testing.assert_array_equal(drawn, [[f"{share:.1f}" if share else "" for share in row] for row in expected])


def test_a_click_on_a_cell_opens_its_images(finished: Run, predictions: Predictions) -> None:
    wrong = int(np.flatnonzero(~predictions.right)[0])
    true, predicted = predictions.labels[wrong], predictions.predicted[wrong]
    app = open_page("evaluate", run=finished.id)
    (matrix,) = app.main.get("vega_lite_chart")
    app.session_state[matrix.key] = {"selection": {"cell": [{"true": str(true), "predicted": str(predicted)}]}}
    show(app)
    assert title(app) == "Gallery"
    assert app.query_params == {"run": finished.id, "true": str(true), "predicted": str(predicted), "show": "all"}
    count = int(((predictions.labels == true) & (predictions.predicted == predicted)).sum())
    assert f"1 to {count} of {count} images of true class {true} taken for {predicted}" in words(app)


def test_scores_of_each_class_are_scikit_learns(finished: Run, predictions: Predictions) -> None:
    report = metrics.classification_report(
        predictions.labels, predictions.predicted, labels=range(10), output_dict=True, zero_division=0
    )
    app = open_page("evaluate", run=finished.id)
    table = app.dataframe[0].value
    assert table["class"].tolist() == list("0123456789")
    for row in table.itertuples():
        theirs = report[str(row.Index)]
        assert row.precision == pytest.approx(100 * theirs["precision"])
        assert row.recall == pytest.approx(100 * theirs["recall"])
        assert row.f1 == pytest.approx(100 * theirs["f1-score"])
        assert row.support == theirs["support"]
    np.testing.assert_allclose(figure(app, "recall")["data"][0]["y"], table.recall)


def test_the_pairs_that_are_most_confused_are_linked(finished: Run, predictions: Predictions) -> None:
    matrix = metrics.confusion_matrix(predictions.labels, predictions.predicted)
    np.fill_diagonal(matrix, 0)
    shown = links(open_page("evaluate", run=finished.id))
    others = shown.pop("Any other pair: choose it in the gallery")
    assert others == ("gallery", {"run": finished.id, "show": "all"})
    assert len(shown) == min(5, (matrix > 0).sum())
    counts = []
    for label, (page, choices) in shown.items():
        true, predicted = int(choices["true"]), int(choices["predicted"])
        counts.append(matrix[true, predicted])
        of = (predictions.labels == true).sum()
        assert label == f"**{true}** taken for **{predicted}**: {matrix[true, predicted]} of {of} images"
        assert page == "gallery"
        assert choices == {"run": finished.id, "true": str(true), "predicted": str(predicted), "show": "all"}
    assert counts == sorted(matrix.ravel(), reverse=True)[: len(counts)]


def test_the_training_curves_are_those_of_the_log(finished: Run) -> None:
    app = open_page("evaluate", run=finished.id)
    history = finished.history()
    running, epochs, validation, best = figure(app, "accuracy")["data"]
    assert running["y"] == pytest.approx([100 * step.train_accuracy for step in history.steps])
    assert epochs["x"] == [1, 2]
    assert epochs["y"] == pytest.approx([100 * epoch.train_accuracy for epoch in history.epochs])
    assert validation["y"] == pytest.approx([100 * epoch.val_accuracy for epoch in history.epochs])
    assert figure(app, "loss")["data"][2]["y"] == pytest.approx([epoch.val_loss for epoch in history.epochs])
    assert best["x"] == [max(history.epochs, key=lambda epoch: epoch.val_accuracy).epoch]
    assert f"Kept: {history.ended.kept}." in words(app)


def test_a_published_figure_is_shown_for_the_settings_that_it_is_for(finished: Run) -> None:
    recipe = find_recipe("mnist-lenet5")
    finished.write_recipe(recipe)
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Published"] == "99.05%"
    assert "LeCun et al. 1998" in words(app)
    (finished.path / "recipe.json").write_text(json.dumps(recipe.as_dict() | {"epochs": 6}))
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Published"] == "-"
    assert "None for these settings." in words(app)


def test_a_run_without_mistakes_is_told(finished: Run) -> None:
    change_predictions(finished, all_right)
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Accuracy on the test images"] == "100.00%"
    assert figures(app)["Mistakes"] == "0"
    assert app.success[0].value == "No mistakes at all on these images."
    assert links(app) == {}


def test_classes_without_images_have_scores_of_zero(finished: Run) -> None:
    change_predictions(
        finished,
        lambda predictions: {
            "labels": np.zeros(360, np.int64),
            "probabilities": np.eye(10, dtype=np.float32)[np.arange(360) % 2],
        },
    )
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Accuracy on the test images"] == "50.00%"
    table = app.dataframe[0].value
    assert table.recall.tolist() == [50.0] + 9 * [0.0]
    assert table.support.tolist() == [360] + 9 * [0]


def test_a_run_without_test_images_is_evaluated_on_those_held_back(finished: Run) -> None:
    finished.predictions("test").unlink()
    app = open_page("evaluate", run=finished.id)
    assert "Accuracy on the validation images" in figures(app)
    assert " of 144, 95% interval " in words(app)


def test_many_classes_have_a_matrix_too(finished: Run) -> None:
    names = tuple(f"class {number}" for number in range(43))
    change_predictions(
        finished,
        lambda predictions: {
            "classes": names,
            "labels": np.arange(360) % 43,
            "probabilities": np.eye(43, dtype=np.float32)[np.arange(360) % 40],
        },
    )
    app = open_page("evaluate", run=finished.id)
    assert len(cells(app)) == 43 * 43
    assert not app.error


KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_published_scores_of_each_class_are_beside_ones_own(finished: Run) -> None:
    change_predictions(finished, lambda _: {"classes": KUZUSHIJI})
    finished.write_recipe(find_recipe("kmnist-lenet"))
    shown = open_page("evaluate", run=finished.id).dataframe[0].value
    theirs = published(find_recipe("kmnist-lenet"))["per_class"]
    for row in shown.to_dict("records"):
        for score in ("precision", "recall", "f1"):
            assert row[f"published {score}"] == pytest.approx(100 * theirs[row["class"]][score])


def test_a_published_accuracy_of_each_class_is_beside_its_recall(finished: Run) -> None:
    change_predictions(finished, lambda _: {"classes": OBJECTS})
    finished.write_recipe(find_recipe("cifar10-blitz"))
    shown = open_page("evaluate", run=finished.id).dataframe[0].value
    assert shown.columns[shown.columns.str.startswith("published")].tolist() == ["published recall"]
    assert shown.set_index("class").loc["deer", "published recall"] == pytest.approx(57)
    finished.write_recipe(change(find_recipe("cifar10-blitz"), {"epochs": 3}))
    shown = open_page("evaluate", run=finished.id).dataframe[0].value
    assert not shown.columns.str.startswith("published").any(), "other settings"


def test_a_run_on_rows_is_evaluated_in_words_of_rows(blobs: Run) -> None:
    predictions = load_predictions(blobs.predictions("test"))
    app = open_page("evaluate", run=blobs.id)
    assert (
        figures(app)["Accuracy on the test rows"]
        == f"{metrics.accuracy_score(predictions.labels, predictions.predicted):.2%}"
    )
    assert figures(app)["Published"] == "98.00%"
    assert "of 150 rows" in words(app)
    assert "Click a cell to see its rows." in words(app)
    assert "images" not in words(app)
    assert len(cells(app)) == 9
    assert "test, by step" in [trace["name"] for trace in figure(app, "loss")["data"]]


# Runs without an evaluation


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (fail, "lenet5 needs images of at least 28 x 28 pixels"),
        (die_at_once, "The process of this run ended before training began"),
        (die_in_training, "The process of this run ended during epoch 2"),
        (DAMAGE["no predictions"], "has no predictions-test.npz: it did not get as far as its evaluation."),
        (DAMAGE["damaged predictions"], "predictions-test.npz of the run"),
    ],
)
def test_why_there_is_no_evaluation_is_told(finished: Run, damage, error: str) -> None:
    damage(finished)
    app = open_page("evaluate", run=finished.id)
    assert title(app) == "Evaluate"
    assert len(errors(app)) == 1
    assert error in errors(app)[0]
    assert not app.metric
    assert ("Evaluate its model now" in buttons(app)) == finished.weights.exists()


def test_a_run_that_is_going_on_is_told(finished: Run) -> None:
    die_at_once(finished)
    with finished.lock():
        app = open_page("evaluate", run=finished.id)
    assert not app.error
    assert "This run is still going on; its evaluation comes at its end." in words(app)
    assert links(app) == {"Watch it": ("train", {"run": finished.id})}


def test_a_model_without_an_evaluation_gets_one(finished: Run, predictions: Predictions) -> None:
    die_in_training(finished)
    app = click(open_page("evaluate", run=finished.id), "Evaluate its model now")
    assert not app.error
    written = load_predictions(finished.predictions("test"))
    assert figures(app)["Accuracy on the test images"] == f"{written.accuracy:.2%}"
    np.testing.assert_array_equal(written.labels, predictions.labels)
    np.testing.assert_allclose(written.probabilities, predictions.probabilities, atol=1e-4)


def test_damaged_predictions_are_replaced(finished: Run, predictions: Predictions) -> None:
    finished.predictions("test").write_bytes(b"damaged")
    app = click(open_page("evaluate", run=finished.id), "Evaluate its model now")
    assert figures(app)["Accuracy on the test images"] == f"{predictions.accuracy:.2%}"


def test_a_damaged_model_is_told(finished: Run) -> None:
    die_in_training(finished)
    finished.weights.write_bytes(b"damaged")
    os.utime(finished.weights, (1, 1))
    app = click(open_page("evaluate", run=finished.id), "Evaluate its model now")
    assert errors(app)[-1].startswith(f"weights.safetensors of the run {finished.id} cannot be used: it is damaged")
    assert button(app, "Evaluate its model now")
