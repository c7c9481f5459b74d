import os

import numpy as np
import pytest
from damage import DAMAGE, all_right, change_predictions, copy_of, die_at_once, die_in_training, fail
from screen import buttons, errors, links, open_page, show, table, tiles, title, words

from engine.dataset import Dataset, open_dataset
from engine.predictions import Predictions, load_predictions
from engine.runs import Run

PAGE = 60


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def rows_shown(app) -> list[int]:
    return [tile["index"] for tile in tiles(app)]


def test_the_mistakes_come_first_and_the_most_confident_first(finished: Run, predictions: Predictions) -> None:
    app = open_page("gallery", run=finished.id)
    wrong = np.flatnonzero(predictions.probabilities.argmax(1) != predictions.labels)
    assert len(wrong) > 3
    expected = sorted(wrong.tolist(), key=lambda row: -predictions.probabilities[row].max())
    assert rows_shown(app) == expected[:PAGE]
    assert f"**{len(wrong)} mistakes** in 360 test images." in words(app)
    assert f"1 to {min(PAGE, len(wrong))} of {len(wrong)} mistakes" in words(app)
    assert app.query_params == {"run": finished.id}


def test_a_tile_shows_its_image_and_what_was_answered(finished: Run, predictions: Predictions, digits: Dataset) -> None:
    for tile in tiles(open_page("gallery", run=finished.id, show="all")):
        row = tile["index"]
        truth, answer = predictions.labels[row], predictions.probabilities[row].argmax()
        sure = f"{predictions.probabilities[row].max():.1%}"
        np.testing.assert_array_equal(tile["image"], digits.splits["test"].images[predictions.indices[row]])
        if truth == answer:
            assert (tile["mark"], tile["lines"]) == ("right", [f"{truth}", sure])
            assert tile["title"] == f"{truth}, recognised with {sure}"
        else:
            assert (tile["mark"], tile["lines"]) == ("wrong", [f"{truth} → {answer}", sure])
            assert tile["title"] == f"{truth}, taken for {answer} with {sure}"


@pytest.mark.parametrize("which", ["mistakes", "right", "all"])
@pytest.mark.parametrize("true", [None, "8"])
@pytest.mark.parametrize("predicted", [None, "1"])
def test_the_filters_are_those_of_the_url(finished: Run, predictions: Predictions, which, true, predicted) -> None:
    choices = {"show": which} | ({"true": true} if true else {}) | ({"predicted": predicted} if predicted else {})
    app = open_page("gallery", run=finished.id, **choices)
    answers = predictions.probabilities.argmax(1)
    fitting = {
        row
        for row in range(360)
        if (which == "all" or (answers[row] == predictions.labels[row]) == (which == "right"))
        and (true is None or predictions.labels[row] == int(true))
        and (predicted is None or answers[row] == int(predicted))
    }
    wanted = {"mistakes": "mistakes", "right": "right answers", "all": "images"}[which]
    wanted += (f" of true class {true}" if true else "") + (f" taken for {predicted}" if predicted else "")
    if not fitting:
        assert f"There are no {wanted}. Change or clear the filters above." in words(app)
        return
    assert f" of {len(fitting)} {wanted}" in words(app)
    if len(fitting) <= PAGE:
        assert set(rows_shown(app)) == fitting
    else:
        assert set(rows_shown(app)) < fitting


def test_the_filters_are_those_that_are_chosen(finished: Run) -> None:
    app = open_page("gallery", run=finished.id)
    app.selectbox("show").select("all")
    app.selectbox("true").select("3")
    assert rows_shown(show(app)) == rows_shown(open_page("gallery", run=finished.id, show="all", true="3"))


@pytest.mark.parametrize("choices", [{"true": "ten"}, {"predicted": ""}, {"show": "none"}])
def test_a_filter_that_does_not_exist_is_passed_over(finished: Run, choices: dict[str, str]) -> None:
    app = open_page("gallery", run=finished.id, **choices)
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id))
    assert app.query_params == {"run": finished.id}


def test_all_images_are_shown_page_by_page(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all")
    (pages,) = app.main.pagination
    assert pages.num_pages == 6
    seen = rows_shown(app)
    for number in range(2, 7):
        app.main.pagination[0].select(number)
        show(app)
        assert f"{60 * number - 59} to {60 * number} of 360 images" in words(app)
        seen += rows_shown(app)
    assert sorted(seen) == list(range(360))


def test_a_run_without_mistakes_is_told(finished: Run) -> None:
    change_predictions(finished, all_right)
    app = open_page("gallery", run=finished.id)
    assert "**0 mistakes** in 360 test images." in words(app)
    assert app.success[0].value.startswith("This run made no mistakes here.")
    every = open_page("gallery", run=finished.id, show="all")
    assert "1 to 60 of 360 images" in words(every)
    assert {tile["mark"] for tile in tiles(every)} == {"right"}


def test_a_run_that_was_always_wrong_is_shown(finished: Run) -> None:
    change_predictions(finished, lambda predictions: {"labels": (predictions.predicted + 1) % 10})
    app = open_page("gallery", run=finished.id)
    assert "**360 mistakes** in 360 test images." in words(app)
    assert {tile["mark"] for tile in tiles(app)} == {"wrong"}
    assert "There are no right answers. Change or clear the filters above." in words(
        open_page("gallery", run=finished.id, show="right")
    )


def test_images_of_another_dataset_are_not_shown(finished: Run) -> None:
    change_predictions(finished, lambda _: {"fingerprint": "0123456789abcdef"})
    app = open_page("gallery", run=finished.id)
    assert errors(app) == [
        "The dataset digits has changed since this run was evaluated, so its images cannot be shown. "
        "Train the recipe again on the dataset as it is now."
    ]
    assert not app.main.get("bidi_component")


def test_a_dataset_that_is_not_here_is_told(finished: Run, tmp_path) -> None:
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    (error,) = errors(open_page("gallery", run=finished.id))
    assert error.startswith("The dataset digits is not here yet. Get it first: the button on the Explore page")


def test_images_held_back_from_training_are_shown_where_there_is_no_test(finished: Run, digits: Dataset) -> None:
    finished.predictions("test").unlink()
    app = open_page("gallery", run=finished.id, show="all")
    assert "in 144 validation images." in words(app)
    held_back = load_predictions(finished.predictions("val"))
    for tile in tiles(app):
        stored = held_back.indices[tile["index"]]
        np.testing.assert_array_equal(tile["image"], digits.splits["train"].images[stored])


def test_another_run_with_other_classes_is_shown_without_the_filters_of_the_first(finished: Run) -> None:
    other = copy_of(finished, "29990101-000000-digits-quick")
    change_predictions(other, lambda predictions: {"classes": tuple("abcdefghij")})
    app = open_page("gallery", run=finished.id, true="3", show="all")
    app.sidebar.selectbox("run").select_index(0)
    show(app)
    assert app.query_params["run"] == other.id
    assert "1 to 60 of 360 images" in words(app)
    assert app.selectbox("true").value is None


def test_a_run_with_fewer_mistakes_is_shown_from_where_it_has_some(finished: Run) -> None:
    fewer = copy_of(finished, "29990101-000000-digits-quick")
    change_predictions(finished, lambda predictions: {"labels": (predictions.predicted + 1) % 10})
    change_predictions(fewer, lambda predictions: {"labels": (predictions.predicted + (np.arange(360) < 100)) % 10})
    app = open_page("gallery", run=finished.id)
    app.main.pagination[0].select(6)
    show(app)
    assert "301 to 360 of 360 mistakes" in words(app)
    app.sidebar.selectbox("run").select_index(0)
    show(app)
    assert "**100 mistakes**" in words(app)
    assert 1 <= len(tiles(app)) <= PAGE


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
def test_why_there_is_nothing_to_see_is_told(finished: Run, damage, error: str) -> None:
    damage(finished)
    app = open_page("gallery", run=finished.id)
    assert title(app) == "Gallery"
    assert len(errors(app)) == 1
    assert error in errors(app)[0]
    assert ("Evaluate its model now" in buttons(app)) == finished.weights.exists()


def test_a_run_that_is_going_on_is_told(finished: Run) -> None:
    die_in_training(finished)
    with finished.lock():
        app = open_page("gallery", run=finished.id)
    assert not app.error
    assert "This run is still going on; its evaluation comes at its end." in words(app)
    assert links(app) == {"Watch it": ("train", {"run": finished.id})}


def test_predictions_that_change_are_read_again(finished: Run) -> None:
    before = open_page("gallery", run=finished.id)
    change_predictions(finished, all_right)
    os.utime(finished.predictions("test"), (1, 1))  # two writes may fall into one tick of the file system's clock
    assert "**0 mistakes**" in words(open_page("gallery", run=finished.id))
    assert "**0 mistakes**" not in words(before)


def test_the_page_of_tiles_is_in_the_address(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", page="3")
    assert "121 to 180 of 360 images" in words(app)
    app.main.pagination[0].select(2)
    assert "61 to 120 of 360 images" in words(show(app))


@pytest.mark.parametrize("page", ["0", "99", "three"])
def test_a_page_that_does_not_exist_is_passed_over(finished: Run, page: str) -> None:
    app = open_page("gallery", run=finished.id, show="all", page=page)
    assert "1 to 60 of 360 images" in words(app)


def test_another_filter_begins_at_its_first_page(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", page="6")
    app.selectbox("show").select("right")
    assert "1 to 60 of " in words(show(app))


def test_without_a_run_it_has_its_title_and_says_what_to_do() -> None:
    app = open_page("gallery")
    assert title(app) == "Gallery"
    assert "There is no trained model yet." in words(app)


# Rows of numbers


def test_rows_are_a_table_with_their_numbers_and_the_mistakes_first(blobs: Run) -> None:
    predictions = load_predictions(blobs.predictions("test"))
    stored = open_dataset("blobs").splits["test"]
    app = open_page("gallery", run=blobs.id, show="all")
    wrong = int((predictions.probabilities.argmax(1) != predictions.labels).sum())
    assert f"**{wrong} mistake{'s' * (wrong != 1)}** in 150 test rows." in words(app)
    assert "1 to 60 of 150 rows" in words(app)
    shown = table(app)
    assert shown.columns.tolist() == ["", "True class", "Predicted class", "Confidence", "x1", "x2", "x3", "x4", "Row"]
    assert shown[""].tolist() == ["✗ wrong"] * wrong + ["✓ right"] * (60 - wrong)
    for row in shown.to_dict("records"):
        np.testing.assert_allclose([row[f"x{n}"] for n in (1, 2, 3, 4)], stored.images[row["Row"]])
        assert row["True class"] == str(stored.labels[row["Row"]])
        assert row["Predicted class"] == str(predictions.probabilities[row["Row"]].argmax())
        assert (row["True class"] == row["Predicted class"]) == (row[""] == "✓ right")
    assert not app.main.get("bidi_component")


def test_all_rows_are_shown_page_by_page_and_filtered(blobs: Run) -> None:
    seen: list[int] = []
    for page in ("1", "2", "3"):
        seen += table(open_page("gallery", run=blobs.id, show="all", page=page))["Row"].tolist()
    assert sorted(seen) == list(range(150))
    filtered = table(open_page("gallery", run=blobs.id, show="all", true="2"))
    assert set(filtered["True class"]) == {"2"}
