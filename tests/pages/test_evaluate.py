import os

import numpy as np
import pytest
from damage import (
    DAMAGE,
    all_right,
    answering,
    change_dataset,
    change_predictions,
    copy_into_train,
    die_at_once,
    die_in_training,
    fail,
    of_many_classes,
)
from picture_files import result_of
from scipy.stats import binomtest
from screen import all_links, button, buttons, click, errors, follow, links, open_page, show, title, words
from sklearn import metrics

from engine.audit.inspection import DEFAULT_THRESHOLD, inspect
from engine.data.dataset import Dataset, Split
from engine.evaluation.predictions import Predictions, load_predictions
from engine.recipes.recipe import change, find_recipe
from engine.runs.run import Run

CHECK = "Check whether test images are in the training set too"
VIEWS = ["Confusions", "Classes", "Confidence", "Training", "Compare", "Take away"]


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def figures(app) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def interval(right: int, count: int) -> str:
    """Wilson's, by SciPy."""
    found = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return f"95% interval {found.low:.2%} to {found.high:.2%}"


def twins(dataset: Dataset) -> np.ndarray:
    """Which test images are in the training set too, byte by byte."""
    train = {image.tobytes() for image in dataset.splits["train"].images}
    return np.array([image.tobytes() in train for image in dataset.splits["test"].images])


# The headline


def test_every_figure_has_its_denominator(finished: Run, predictions: Predictions) -> None:
    labels, probabilities = predictions.labels, predictions.probabilities
    answers = probabilities.argmax(1)
    right, counts = int((answers == labels).sum()), np.bincount(labels)
    top = metrics.top_k_accuracy_score(labels, probabilities, k=5)
    app = open_page("evaluate", run=finished.id)
    assert figures(app) == {
        "Accuracy on the test images": f"{metrics.accuracy_score(labels, answers):.2%}",
        "Mistakes": f"{360 - right}",
        "Top 5": f"{top:.2%}",
        "Baseline": f"{counts.max() / 360:.2%}",
    }
    said = words(app).splitlines()
    assert f"{right} of 360, {interval(right, 360)}" in said
    assert "of 360 images" in said
    assert f"{round(360 * top)} of 360" in said
    assert f"{counts.max()} of 360 are {counts.argmax()}" in said
    assert f"{finished.id} · convnet on digits · finished · {right / 360:.2%} of 360 test images" in words(app)


def test_the_five_most_probable_count_only_among_more_than_five_classes(finished: Run) -> None:
    change_predictions(
        finished,
        lambda predictions: {"classes": tuple("01234"), "labels": predictions.labels % 5} | halved(predictions),
    )
    assert "Top 5" not in figures(open_page("evaluate", run=finished.id))


def halved(predictions: Predictions) -> dict:
    return {"probabilities": predictions.probabilities[:, :5] + predictions.probabilities[:, 5:]}


def test_uneven_classes_are_balanced(finished: Run, predictions: Predictions) -> None:
    assert "Balanced accuracy" not in figures(open_page("evaluate", run=finished.id))
    labels = np.where(np.arange(360) % 2, predictions.labels, 0)
    change_predictions(finished, lambda _: {"labels": labels})
    app = open_page("evaluate", run=finished.id)
    balanced = metrics.balanced_accuracy_score(labels, predictions.predicted)
    assert figures(app)["Balanced accuracy"] == f"{balanced:.2%}"
    counts = np.bincount(labels)
    (metric,) = [each for each in app.metric if each.label == "Balanced accuracy"]
    assert metric.help == f"The classes have from {counts.min()} to {counts.max()} images: here each counts as much."
    assert "mean recall of 10 classes" in words(app)


def test_classes_without_images_do_not_count_in_the_balance(finished: Run) -> None:
    labels = (np.arange(360) % 3 == 0).astype(np.int64)
    change_predictions(finished, lambda _: {"labels": labels})
    change_predictions(finished, answering(np.zeros(360, np.int64)))
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Balanced accuracy"] == "50.00%"
    assert "mean recall of 2 classes" in words(app)
    assert figures(app)["Baseline"] == f"{2 / 3:.2%}"
    assert "240 of 360 are 0" in words(app)


def test_a_published_figure_is_shown_for_the_settings_that_it_is_for(finished: Run) -> None:
    recipe = find_recipe("mnist-lenet5")
    finished.write_recipe(recipe)
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Published"] == "99.05%"
    assert "for the same recipe" in words(app)
    assert "Published: LeCun et al. 1998" in words(app)
    finished.write_recipe(change(recipe, {"epochs": 6}))
    app = open_page("evaluate", run=finished.id)
    assert "Published" not in figures(app)
    assert "LeCun" not in words(app)


def test_a_run_without_test_images_is_evaluated_on_those_held_back(finished: Run) -> None:
    finished.predictions("test").unlink()
    held_back = load_predictions(finished.predictions("val"))
    app = open_page("evaluate", run=finished.id)
    assert figures(app)["Accuracy on the validation images"] == f"{held_back.accuracy:.2%}"
    assert f"{held_back.correct.sum()} of 144, {interval(int(held_back.correct.sum()), 144)}" in words(app)
    assert CHECK not in links(app)


@pytest.mark.slow
def test_a_run_on_rows_is_evaluated_in_words_of_rows(blobs: Run) -> None:
    predictions = load_predictions(blobs.predictions("test"))
    for view in VIEWS:
        app = open_page("evaluate", run=blobs.id, look=view)
        assert figures(app)["Accuracy on the test rows"] == f"{predictions.accuracy:.2%}"
        assert figures(app)["Published"] == "98.00%"
        assert "Published: the MLP on blobs tutorial." in words(app)
        assert "of 150 rows" in words(app)
        assert "image" not in words(app).replace("image by image", "")
        assert not [label for label in links(app) if "image" in label]


def test_a_class_may_have_any_name(finished: Run) -> None:
    names = ("*a*", "[b](http://x.org)", ":material/home:", "$c$", "`d`", "<b>e</b>", "# f", "g_h_", "i ", "~~j~~")
    change_predictions(finished, lambda _: {"classes": names})
    change_predictions(finished, lambda predictions: {"labels": np.where(predictions.labels < 9, 0, 1)})
    app = open_page("evaluate", run=finished.id)
    assert "324 of 360 are *a*" in words(app)
    assert "324 of 360 are *a*" not in [caption.value for caption in app.caption], "as text, not as Markdown"
    pairs = [choices for _, _, choices in all_links(app) if "true" in choices]
    assert pairs[0]["true"] == "*a*"
    assert f"**{pairs[0]['true']}** taken for **{pairs[0]['predicted']}**" in words(app)


# Test images that are in the training set too


@pytest.fixture
def unlike(finished: Run, digits: Dataset) -> Dataset:
    """The dataset of the run with training images that none of its test images is like."""
    train, test = digits.splits["train"], digits.splits["test"]
    images = np.random.default_rng(0).integers(0, 256, train.images.shape).astype(np.uint8)
    return change_dataset(finished, {"train": Split(images, train.labels), "test": test})


@pytest.mark.slow
def test_a_dataset_that_was_not_checked_can_be(finished: Run) -> None:
    app = open_page("evaluate", run=finished.id)
    assert links(app)[CHECK] == ("explore", {"dataset": "digits", "view": "Copies and leaks"})
    follow(app, CHECK)
    (view,) = [each for each in app.main.get("button_group") if each.key == "view"]
    assert (title(app), view.value) == ("Digits", "copies")


@pytest.mark.slow
def test_the_accuracy_without_leaked_images_is_told(finished: Run, predictions: Predictions, digits: Dataset) -> None:
    rows = np.concatenate([np.flatnonzero(~predictions.correct)[:3], np.flatnonzero(predictions.correct)[:10]])
    dataset = copy_into_train(finished, rows)
    leaked = np.isin(np.arange(360), result_of(inspect(dataset)).leaked_test(DEFAULT_THRESHOLD))
    assert leaked[twins(dataset)].all() and leaked[rows].all()
    right, count = int((predictions.correct & ~leaked).sum()), int((~leaked).sum())
    app = open_page("evaluate", run=finished.id)
    assert (
        f"Without the {leaked.sum()} images that have a twin in the training set: **{right / count:.2%}** "
        f"({right} of {count}, {interval(right, count)})."
    ) in words(app)
    assert CHECK not in links(app)
    assert figures(app)["Accuracy on the test images"] == f"{predictions.accuracy:.2%}", "the headline stays"


def test_a_single_leaked_image_is_told_in_the_singular(
    finished: Run, predictions: Predictions, unlike: Dataset
) -> None:
    dataset = copy_into_train(finished, np.array([7]))
    assert np.flatnonzero(twins(dataset)).tolist() == [7]
    result_of(inspect(dataset))
    right = int(np.delete(predictions.correct, 7).sum())
    said = f"Without the 1 image that has a twin in the training set: **{right / 359:.2%}** ({right} of 359"
    assert said in words(open_page("evaluate", run=finished.id))


@pytest.mark.slow
def test_no_leaked_image_is_told(finished: Run, unlike: Dataset) -> None:
    result_of(inspect(unlike))
    said = words(open_page("evaluate", run=finished.id))
    assert "None of these images has a twin in the training set, by the check of the dataset." in said


@pytest.mark.slow
def test_where_all_are_leaked_the_accuracy_says_nothing(finished: Run) -> None:
    result_of(inspect(copy_into_train(finished, np.arange(360))))
    app = open_page("evaluate", run=finished.id)
    assert "All of these images have a twin in the training set: this accuracy says nothing about new ones." in words(
        app
    )
    assert "Without the" not in words(app)


@pytest.mark.slow
def test_the_check_of_another_dataset_is_not_taken_for_this_ones(finished: Run) -> None:
    result_of(inspect(copy_into_train(finished, np.arange(20))))
    change_predictions(finished, lambda _: {"fingerprint": "0123456789abcdef"})
    app = open_page("evaluate", run=finished.id)
    assert "a twin" not in words(app)
    assert "The dataset digits has changed since this run was evaluated" in words(app)


def test_leaked_rows_of_a_table_are_told(blobs: Run) -> None:
    assert not [label for label in links(open_page("evaluate", run=blobs.id)) if label.startswith("Check")]
    predictions = load_predictions(blobs.predictions("test"))
    result_of(inspect(copy_into_train(blobs, np.arange(10))))
    right = int(predictions.correct[10:].sum())
    assert f"Without the 10 rows that have a twin in the training set: **{right / 140:.2%}** ({right} of 140" in words(
        open_page("evaluate", run=blobs.id)
    )


# The dataset of a run may be gone


@pytest.mark.parametrize("look", VIEWS)
def test_the_figures_stay_when_the_dataset_is_deleted(finished: Run, predictions, tmp_path, look: str) -> None:
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    app = open_page("evaluate", run=finished.id, look=look)
    assert figures(app)["Accuracy on the test images"] == f"{predictions.accuracy:.2%}"
    assert not app.error
    gone = "The dataset digits is not here any more, so its pictures cannot be shown; the figures stand."
    assert (gone in words(app)) == (look == "Confusions")


@pytest.mark.parametrize("look", VIEWS)
def test_the_figures_stay_when_the_dataset_is_damaged(finished: Run, predictions, digits: Dataset, look: str) -> None:
    (digits.folder / "test-images.npy").unlink()
    os.utime(digits.folder / "dataset.json", (1, 1))
    app = open_page("evaluate", run=finished.id, look=look)
    assert figures(app)["Accuracy on the test images"] == f"{predictions.accuracy:.2%}"
    assert ("The prepared dataset digits is damaged" in words(app)) == (look == "Confusions")


# The views


@pytest.mark.parametrize("look", VIEWS)
def test_each_view_has_an_address(finished: Run, look: str) -> None:
    app = open_page("evaluate", run=finished.id, look=look)
    (views,) = [each for each in app.main.get("button_group") if each.key == "look"]
    assert (views.options, views.value) == (VIEWS, look)
    app = open_page("evaluate", run=finished.id)
    (views,) = [each for each in app.main.get("button_group") if each.key == "look"]
    views.set_value(look)
    assert show(app).query_params == {"run": finished.id} | ({"look": look} if look != VIEWS[0] else {})


@pytest.mark.parametrize("look", VIEWS)
def test_each_view_bears_a_run_that_is_always_right_and_one_of_many_classes(finished: Run, look: str) -> None:
    change_predictions(finished, all_right)
    assert not open_page("evaluate", run=finished.id, look=look).error
    change_predictions(finished, of_many_classes)
    assert not open_page("evaluate", run=finished.id, look=look).error


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
