"""The view of the Evaluate page that compares two runs, image by image."""

import numpy as np
import pytest
from damage import answering, change_predictions, copy_of
from scipy.stats import binomtest
from screen import errors, figure, links, open_page, pick, sheets, show, tiles, title, words

from engine.evaluation.comparison import paired_interval
from engine.evaluation.predictions import Predictions, load_predictions
from engine.recipes.recipe import change
from engine.runs.run import Run

NAME = "digits-quick, 03 Jan 00:00:00"


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


@pytest.fixture
def other(finished: Run) -> Run:
    return copy_of(finished, "20000103-000000-digits-quick")


def compare(run: Run, **choices: str):
    return open_page("evaluate", run=run.id, look="Compare", **choices)


def changed_by(predictions: Predictions, better: int, worse: int) -> np.ndarray:
    """Answers that are right on so many images on which these are wrong, and wrong on so many on which they are right.

    As it is another run that gets them, what is better in it is worse in this one.
    """
    answers = predictions.predicted.copy()
    wrong, right = np.flatnonzero(~predictions.correct)[:better], np.flatnonzero(predictions.correct)[:worse]
    answers[wrong] = predictions.labels[wrong]
    answers[right] = (predictions.labels[right] + 1) % 10
    return answers


def test_without_another_run_it_says_how_to_get_one(finished: Run, blobs: Run) -> None:
    """The other run there is has another dataset."""
    app = compare(finished)
    assert (
        "There is no other evaluated run on digits. Train a second one, with another setting or another model, to "
        "compare the two image by image."
    ) in words(app)
    assert links(app)["Train another"] == ("train", {"dataset": "digits"})
    assert app.query_params == {"run": finished.id, "look": "Compare"}


def test_runs_without_an_evaluation_and_damaged_ones_are_not_offered(finished: Run, other: Run) -> None:
    other.predictions("test").unlink()
    damaged = copy_of(finished, "20000104-000000-digits-quick")
    (damaged.path / "recipe.json").write_text("{")
    assert "There is no other evaluated run on digits." in words(compare(finished))


@pytest.mark.parametrize(("better", "worse"), [(2, 20), (20, 2), (5, 5), (4, 10)])
def test_the_difference_and_what_it_means_are_told(finished: Run, other: Run, predictions, better, worse) -> None:
    """better, worse: of the other run."""
    others = change_predictions(other, answering(changed_by(predictions, better, worse)))
    p_value = binomtest(min(better, worse), better + worse).pvalue
    low, high = (100 * bound for bound in paired_interval(worse, better, 360))
    difference = 100 * (worse - better) / 360
    app = compare(finished)
    assert {metric.label: metric.value for metric in app.metric[-3:]} == {
        "This run": f"{predictions.accuracy:.2%}",
        NAME.replace(":", ":\u2060"): f"{others.accuracy:.2%}",
        "Difference": f"{difference:+.2f} points",
    }
    said = words(app)
    assert f"{predictions.correct.sum()} of 360\n" in said
    assert f"{others.correct.sum()} of 360\n" in said
    assert "of this run to the other" in said.splitlines()
    p_in_words = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    assert f" (95% interval {low:.1f} to {high:.1f} points, McNemar {p_in_words}): this " in said
    assert said.count("interval") == 2, "the other is that of the headline"
    assert (
        f"This run is right on {worse} images that {NAME} gets wrong, and wrong on {better} that {NAME} gets right: "
    ) in said
    if better == worse:
        verdict = "just as good on 360 images"
    else:
        verdict = f"{abs(difference):.1f} points {'better' if worse > better else 'worse'} on 360 images"
    assert verdict in said
    assert ("this is more than chance would do." if p_value < 0.05 else "this could be chance.") in said


def test_the_recall_of_each_class_is_compared(finished: Run, other: Run, predictions: Predictions) -> None:
    others = change_predictions(other, answering(changed_by(predictions, 6, 9)))
    app = compare(finished)
    (bars,) = figure(app, "differences")["data"]
    assert bars["x"] == list("0123456789")
    expected = [
        100 * float(predictions.correct[own].mean() - others.correct[own].mean())
        for own in (predictions.labels == label for label in range(10))
    ]
    assert bars["y"] == pytest.approx(expected)
    assert f"How many points more or fewer of a class's images this run recognises than {NAME} does." in words(app)


def test_a_class_without_images_has_no_bar(finished: Run, other: Run, predictions: Predictions) -> None:
    labels = np.where(predictions.labels == 4, 5, predictions.labels)
    for run in (finished, other):
        change_predictions(run, lambda _: {"labels": labels})
    change_predictions(other, answering((labels + 1) % 10))
    (bars,) = figure(compare(finished), "differences")["data"]
    assert bars["x"] == list("012356789")
    recalls = [100 * (predictions.predicted[labels == int(name)] == int(name)).mean() for name in bars["x"]]
    assert bars["y"] == pytest.approx(recalls), "the other is right on none"


def test_the_images_on_which_they_differ_are_shown(finished: Run, other: Run, predictions, digits) -> None:
    others = change_predictions(other, answering(changed_by(predictions, 3, 7)))
    app = compare(finished)
    assert sheets(app) == ["fixed", "broken"]
    assert f"**7 images** that only this run gets right, beside what {NAME} says" in words(app).splitlines()
    assert f"**3 images** that only {NAME} gets right, beside what this run says" in words(app).splitlines()
    for name, who, mark in (("fixed", others, "right"), ("broken", predictions, "wrong")):
        rows = np.flatnonzero((predictions.correct != others.correct) & (predictions.correct == (name == "fixed")))
        drawn = tiles(app, name)
        assert [tile["index"] for tile in drawn] == rows.tolist()
        for tile in drawn:
            row = tile["index"]
            assert tile["lines"] == [f"{predictions.labels[row]} → {who.predicted[row]}"]
            assert tile["title"] == f"{predictions.labels[row]}, taken for {who.predicted[row]}"
            assert tile["mark"] == mark
            np.testing.assert_array_equal(tile["image"], digits.splits["test"].images[predictions.indices[row]])


@pytest.mark.slow
def test_a_click_on_an_image_opens_it(finished: Run, other: Run, predictions: Predictions) -> None:
    change_predictions(other, answering(changed_by(predictions, 3, 7)))
    app = compare(finished)
    row = tiles(app, "broken")[1]["index"]
    pick(app, row, "broken")
    assert title(app) == "Gallery"
    assert app.query_params == {"run": finished.id, "show": "all", "image": str(row)}


@pytest.mark.slow
def test_many_images_are_shown_page_by_page(finished: Run, other: Run, predictions: Predictions) -> None:
    change_predictions(other, answering(changed_by(predictions, 0, 80)))
    app = compare(finished)
    assert f"**0 images** that only {NAME} gets right" in words(app)
    seen = [tile["index"] for tile in tiles(app, "fixed")]
    for page in (2, 3):
        app.main.pagination[0].select(page)
        seen += [tile["index"] for tile in tiles(show(app), "fixed")]
    assert seen == np.flatnonzero(predictions.correct)[:80].tolist()


def test_identical_runs_are_told(finished: Run, other: Run) -> None:
    app = compare(finished)
    same = f"This run is right on the same images as {NAME}: no difference on 360 images (95% interval "
    assert same in words(app)
    assert "+0.00 points" in [metric.value for metric in app.metric]
    assert not sheets(app)
    assert "Each class" not in words(app)


# Which run it is compared with


def test_the_other_run_has_an_address(finished: Run, other: Run, predictions: Predictions) -> None:
    third = copy_of(finished, "20000102-000000-digits-quick")
    app = compare(finished)
    (choice,) = [box for box in app.selectbox if box.label == "Compare with"]
    assert choice.options == [NAME, "digits-quick, 02 Jan 00:00:00"]
    assert app.query_params["with"] == other.id
    change_predictions(third, answering((predictions.labels + 1) % 10))
    asked = compare(finished, **{"with": third.id})
    assert "only digits-quick, 02 Jan 00:00:00 gets right" in words(asked)
    assert asked.query_params["with"] == third.id
    choice.select_index(1)
    assert "only digits-quick, 02 Jan 00:00:00 gets right" in words(show(app))
    assert app.query_params["with"] == third.id


def test_a_run_that_does_not_exist_is_told(finished: Run, other: Run) -> None:
    app = compare(finished, **{"with": "none"})
    (error,) = errors(app)
    assert error.startswith("There is no run 'none' in ")
    assert app.query_params["with"] == other.id
    assert NAME in [metric.label.replace("\u2060", "") for metric in app.metric]


def test_a_run_on_another_dataset_is_told(finished: Run, other: Run, blobs: Run) -> None:
    (error,) = errors(compare(finished, **{"with": blobs.id}))
    assert error.startswith("The two runs were evaluated on different datasets, or on different versions of one: ")


CHANGES = {
    "fingerprint": (
        lambda _: {"fingerprint": "0123456789abcdef"},
        "The two runs were evaluated on different datasets, or on different versions of one: choose two runs of the "
        "same dataset, or evaluate both again.",
    ),
    "classes": (
        lambda _: {"classes": tuple("abcdefghi9")},
        "The two runs tell different classes apart (only the first: a, b, c, d and e and others; only the second: "
        "0, 1, 2, 3 and 4 and others): choose two runs with the same classes.",
    ),
    "order": (
        lambda predictions: {"indices": predictions.indices[::-1]},
        "The two runs were not evaluated on the same images of test in the same order: choose another split, or runs "
        "that hold back the same images.",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_runs_that_cannot_be_compared_are_told_in_one_sentence(finished: Run, other: Run, change: str) -> None:
    changed, message = CHANGES[change]
    change_predictions(other, changed)
    app = compare(finished)
    assert errors(app) == [message]
    assert len(app.metric) == 4, "the headline stays"


def test_damaged_answers_of_the_other_are_told(finished: Run, other: Run) -> None:
    other.predictions("test").write_bytes(b"damaged")
    (error,) = errors(compare(finished))
    assert error.startswith(f"predictions-test.npz of the run {other.id} is damaged")


# What the other run may be


def test_a_renamed_run_is_shown_under_its_name(finished: Run) -> None:
    copy_of(finished, "my_own_run")
    assert "This run is right on the same images as my_own_run: " in words(compare(finished))


def test_runs_are_compared_on_validation_images_where_there_is_no_test(finished: Run, other: Run) -> None:
    for run in (finished, other):
        run.predictions("test").unlink()
    assert "no difference on 144 images" in words(compare(finished))
    other.write_recipe(change(other.read_recipe(), {"epochs": 3}))
    assert "no difference on 144 images" in words(compare(finished)), "another setting, the same images"


def test_rows_on_which_they_differ_are_a_table(blobs: Run) -> None:
    predictions = load_predictions(blobs.predictions("test"))
    other = copy_of(blobs, "20000103-000000-blobs-mlp")
    rows = np.flatnonzero(predictions.correct)[[3, 5]]
    answers = predictions.predicted.copy()
    answers[rows] = (answers[rows] + 1) % 3
    change_predictions(other, answering(answers))
    app = compare(blobs)
    assert "**2 rows** that only this run gets right" in words(app)
    (shown,) = app.main.dataframe
    assert shown.value["Row"].tolist() == predictions.indices[rows].tolist()
    assert shown.value["True class"].tolist() == [str(label) for label in predictions.labels[rows]]
    assert shown.value["Said"].tolist() == [str(answer) for answer in answers[rows]]
    assert not sheets(app)


def test_without_the_dataset_the_figures_are_compared_all_the_same(finished: Run, other, predictions, tmp_path) -> None:
    change_predictions(other, answering(changed_by(predictions, 3, 7)))
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    app = compare(finished)
    assert "This run is right on 7 images" in words(app)
    assert "The dataset digits is not here any more, so its pictures cannot be shown; the figures stand." in words(app)
    assert not sheets(app)
