import os

import numpy as np
import pytest
from damage import DAMAGE, all_right, all_wrong, change_predictions, copy_of, die_at_once, die_in_training, fail
from screen import (
    buttons,
    click,
    errors,
    follow,
    go_to,
    links,
    open_page,
    pick,
    sheets,
    show,
    shown,
    tiles,
    title,
    words,
)

from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions, load_predictions
from engine.runs.run import Run

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


@pytest.mark.slow
def test_long_names_are_below_each_other_on_a_tile(finished: Run, predictions: Predictions) -> None:
    """Pairs of names of 10 letters together and of 11 are among the mistakes."""
    names = [letter * length for letter, length in zip("abcdefghij", (1, 5, 5, 6, 7, 5, 4, 3, 2, 9), strict=True)]
    labels = (predictions.predicted + np.arange(360) % 10) % 10
    change_predictions(finished, lambda _: {"classes": tuple(names), "labels": labels})
    lengths = set()
    for page in range(1, 7):
        for tile in tiles(open_page("gallery", run=finished.id, page=str(page), sort="random")):
            truth, answer = names[labels[tile["index"]]], names[predictions.predicted[tile["index"]]]
            lengths.add(len(truth + answer))
            together = [f"{truth} → {answer}"] if len(truth + answer) <= 10 else [truth, f"→ {answer}"]
            assert tile["lines"][:-1] == together
    assert {10, 11} <= lengths


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
    assert app.query_params == {"run": finished.id, "show": "all", "true": "3"}


WITHOUT = {
    "show": ("none", "none"),
    "true": ("ten", "ten"),
    "predicted": ("*1*", "*1*"),
    "sort": (["highest loss", "random"], "highest loss and random"),
    "confidence": (["7", "8"], "7 and 8"),
}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        *((key, *value) for key, value in WITHOUT.items()),
        ("true", "a\nb", "a\\nb"),
        ("true", ["3", "4"], "3 and 4"),
        ("confidence", "high", "high"),
        ("confidence", "0.9", "0.9"),
        ("confidence", ["0", "nan"], "0 and nan"),
        ("confidence", ["0", "0.5", "1"], "0 and 0.5 and 1"),
    ],
    ids=str,
)
def test_a_choice_that_does_not_exist_is_told(finished: Run, key: str, value, said: str) -> None:
    app = open_page("gallery", run=finished.id, **{key: value})
    told = [shown(warning.value) for warning in app.warning]
    assert told == [f"There is no **{key}** {said} here, so this choice is left out."]
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id))
    assert not app.error


@pytest.mark.parametrize("seed", ["-1", "1000000", "1.5", "x", 5000 * "1"], ids=lambda seed: seed[:9])
def test_a_seed_that_does_not_exist_is_told(finished: Run, seed: str) -> None:
    app = open_page("gallery", run=finished.id, sort="random", seed=seed)
    (warning,) = app.warning
    assert warning.value.startswith(f"There is no **seed** {seed[:200]}")
    assert len(warning.value) < 300
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id, sort="random"))


def test_each_choice_that_does_not_exist_is_told_and_the_others_hold(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", true="3", predicted="ten", sort="by name")
    told = [warning.value for warning in app.warning]
    assert len(told) == 2
    assert "**predicted** ten" in told[0] and "**sort** by name" in told[1]
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id, show="all", true="3"))


def test_a_view_that_does_not_exist_is_passed_over(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, **{"as": "Film"})
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id))
    assert not app.error


@pytest.mark.slow
@pytest.mark.parametrize("image", ["360", "-1", "one", "1.5", 5000 * "1"], ids=lambda image: image[:9])
def test_an_image_that_does_not_exist_is_told(finished: Run, image: str) -> None:
    app = open_page("gallery", run=finished.id, image=image)
    said = image if len(image) < 200 else f"{image[:200]}..."
    there_are = "they are numbered from 0 to 359. Shown below are those that the filters choose."
    assert errors(app) == [f"There is no image {said} here: {there_are}"]
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id))
    assert not open_page("gallery", run=finished.id, image="359").error


ORDERS = {
    "most confident": lambda predictions: -predictions.probabilities.max(1),
    "least confident": lambda predictions: predictions.probabilities.max(1),
    "highest loss": lambda predictions: predictions.probabilities[np.arange(360), predictions.labels],
    "smallest margin": lambda predictions: np.diff(np.sort(predictions.probabilities, axis=1)[:, -2:])[:, 0],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", ["mistakes", "all"])
def test_images_are_sorted_as_the_url_says(finished: Run, predictions: Predictions, order: str, which: str) -> None:
    fitting = np.flatnonzero(~predictions.correct) if which == "mistakes" else np.arange(360)
    expected = fitting[np.argsort(ORDERS[order](predictions)[fitting], kind="stable")]
    app = open_page("gallery", run=finished.id, show=which, sort=order)
    assert rows_shown(app) == expected[:PAGE].tolist()
    app = open_page("gallery", run=finished.id, show=which)
    app.selectbox("sort").select(order)
    assert rows_shown(show(app)) == expected[:PAGE].tolist()


@pytest.mark.slow
def test_a_random_order_is_that_of_its_seed(finished: Run) -> None:
    def shuffled(**choices: str) -> list[int]:
        seen: list[int] = []
        for page in range(1, 7):
            app = open_page("gallery", run=finished.id, show="all", sort="random", page=str(page), **choices)
            seen += rows_shown(app)
        return seen

    first, second = shuffled(), shuffled(seed="1")
    assert sorted(first) == sorted(second) == list(range(360))
    assert first != second
    assert first == shuffled(seed="0")
    assert np.array_equal(second, np.random.default_rng(1).permutation(360)), "whoever has the seed has the order"


def test_the_seed_is_asked_for_where_it_counts(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all")
    assert not app.number_input
    app.selectbox("sort").select("random")
    before = rows_shown(show(app))
    app.number_input("seed").set_value(3)
    assert rows_shown(show(app)) == rows_shown(
        open_page("gallery", run=finished.id, show="all", sort="random", seed="3")
    )
    assert rows_shown(app) != before


def test_a_range_of_confidence_is_that_of_the_url(finished: Run, predictions: Predictions) -> None:
    sure = predictions.probabilities.max(1)
    fitting = np.flatnonzero((sure >= np.float32(0.3)) & (sure <= np.float32(0.55)))
    assert 0 < len(fitting) <= PAGE
    app = open_page("gallery", run=finished.id, show="all", confidence=["0.3", "0.55"])
    assert sorted(rows_shown(app)) == fitting.tolist()
    assert f" of {len(fitting)} images at a confidence of 0.3 to 0.55" in words(app)
    app = open_page("gallery", run=finished.id, show="all")
    app.slider("confidence").set_range(0.3, 0.55)
    assert sorted(rows_shown(show(app))) == fitting.tolist()
    assert app.query_params["confidence"] == ["0.3", "0.55"]


def test_a_range_the_wrong_way_round_is_turned(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", confidence=["0.55", "0.3"])
    assert app.slider("confidence").value == (0.3, 0.55)
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id, show="all", confidence=["0.3", "0.55"]))
    assert not app.warning


@pytest.mark.slow
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


def test_a_run_without_mistakes_is_told(finished: Run, predictions: Predictions) -> None:
    change_predictions(finished, all_right)
    app = open_page("gallery", run=finished.id)
    assert "**0 mistakes** in 360 test images." in words(app)
    assert [said.value for said in app.success] == ["This run made no mistakes here."]
    assert not sheets(app)
    follow(app, "See the least sure of all images")
    assert rows_shown(app) == np.argsort(predictions.confidence, kind="stable")[:PAGE].tolist()
    assert "1 to 60 of 360 images" in words(app)
    assert {tile["mark"] for tile in tiles(app)} == {"right"}


def test_mistakes_of_a_class_are_told_to_be_none_where_there_are_none_at_all(finished: Run) -> None:
    change_predictions(finished, all_right)
    app = open_page("gallery", run=finished.id, true="3")
    told = ["There are no mistakes of true class 3. This run made no mistakes here."]
    assert [said.value for said in app.success] == told


def test_a_run_that_was_always_wrong_is_shown(finished: Run) -> None:
    change_predictions(finished, all_wrong)
    app = open_page("gallery", run=finished.id)
    assert "**360 mistakes** in 360 test images." in words(app)
    assert {tile["mark"] for tile in tiles(app)} == {"wrong"}
    assert "There are no right answers. Change or clear the filters above." in words(
        open_page("gallery", run=finished.id, show="right")
    )


def test_images_of_another_dataset_are_not_shown(finished: Run) -> None:
    change_predictions(finished, lambda _: {"fingerprint": "0123456789abcdef"})
    app = open_page("gallery", run=finished.id)
    assert [info.value for info in app.info] == [
        "The dataset digits has changed since this run was evaluated, so its pictures cannot be shown; the figures "
        "stand. Bring the old dataset back, or train the recipe again on the dataset as it is now."
    ]
    assert not sheets(app)
    assert links(app) == {"See the figures of this run": ("evaluate", {"run": finished.id})}


def test_a_dataset_that_is_not_here_is_told(finished: Run, predictions: Predictions, tmp_path) -> None:
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    app = open_page("gallery", run=finished.id, image="3")
    assert [info.value for info in app.info] == [
        "The dataset digits is not here any more, so its pictures cannot be shown; the figures stand. Get or import it "
        "again on the Explore page to see them."
    ]
    follow(app, "See the figures of this run")
    assert title(app) == "Evaluate"
    assert f"{predictions.accuracy:.2%}" in words(app)


def test_a_damaged_dataset_is_told(finished: Run, digits: Dataset) -> None:
    (digits.folder / "test-images.npy").unlink()
    os.utime(digits.folder / "dataset.json", (1, 1))
    app = open_page("gallery", run=finished.id)
    assert app.info[0].value.startswith("The prepared dataset digits is damaged (")
    assert "See the figures of this run" in links(app)


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
    change_predictions(finished, all_wrong)
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


@pytest.mark.parametrize("page", ["0", "-1", "three"])
def test_a_page_that_does_not_exist_is_passed_over(finished: Run, page: str) -> None:
    app = open_page("gallery", run=finished.id, show="all", page=page)
    assert "\n1 to 60 of 360 images" in words(app)


@pytest.mark.parametrize("page", ["7", "99", 5000 * "1"], ids=lambda page: page[:9])
def test_a_page_beyond_the_last_is_the_last(finished: Run, page: str) -> None:
    app = open_page("gallery", run=finished.id, show="all", page=page)
    assert "301 to 360 of 360 images" in words(app)


CHANGES = {
    "show": lambda app: app.selectbox("show").select("right"),
    "true": lambda app: app.selectbox("true").select("3"),
    "predicted": lambda app: app.selectbox("predicted").select("1"),
    "sort": lambda app: app.selectbox("sort").select("highest loss"),
    "confidence": lambda app: app.slider("confidence").set_range(0.0, 0.6),
    "seed": lambda app: app.number_input("seed").set_value(8),
}
ASKED = {
    "show": "right",
    "true": "3",
    "predicted": "1",
    "sort": "highest loss",
    "confidence": ["0", "0.6"],
    "seed": "8",
}
DEFAULTS = {
    "show": lambda app: app.selectbox("show").select("mistakes"),
    "true": lambda app: app.selectbox("true").set_value(None),
    "predicted": lambda app: app.selectbox("predicted").set_value(None),
    "sort": lambda app: app.selectbox("sort").select("most confident"),
    "confidence": lambda app: app.slider("confidence").set_range(0.0, 1.0),
    "seed": lambda app: app.number_input("seed").set_value(0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_chosen_is_in_the_address_and_goes_with_it(finished: Run, what: str) -> None:
    """The browser's Back and Forward change the address, in the same session."""
    before = {"run": finished.id} | ({"sort": "random"} if what == "seed" else {})
    app = open_page("gallery", **before)
    first = rows_shown(app)
    CHANGES[what](app)
    chosen = rows_shown(show(app))
    assert chosen != first
    assert app.query_params == before | {what: ASKED[what]}
    app.query_params = dict(before)
    assert rows_shown(show(app)) == first
    app.query_params = before | {what: ASKED[what]}
    assert rows_shown(show(app)) == chosen
    DEFAULTS[what](app)
    assert rows_shown(show(app)) == (first if what != "sort" else rows_shown(open_page("gallery", run=finished.id)))
    assert app.query_params == before, "what is the default needs no saying"
    assert not app.warning


@pytest.mark.slow
def test_the_way_back_from_another_page_leads_to_what_was_chosen(finished: Run) -> None:
    app = open_page("gallery", run=finished.id)
    first = rows_shown(app)
    app.selectbox("sort").select("random")
    show(app)
    chosen_one_by_one = ("show", "true", "confidence", "seed")
    for what in chosen_one_by_one:
        CHANGES[what](app)
        show(app)
    address, chosen = dict(app.query_params), rows_shown(app)
    assert set(address) == {"run", "sort", *chosen_one_by_one}
    assert chosen != first
    go_to(app, "runs")
    go_to(app, "gallery", **address)
    assert rows_shown(app) == chosen
    assert app.query_params == address
    go_to(app, "runs")
    go_to(app, "gallery")
    assert rows_shown(app) == chosen
    assert app.query_params == address
    go_to(app, "runs")
    go_to(app, "gallery", show="mistakes")
    assert rows_shown(app) == first, "whoever comes with a view gets that"


@pytest.mark.parametrize("what", CHANGES)
def test_another_choice_begins_at_its_first_page(finished: Run, what: str) -> None:
    app = open_page("gallery", run=finished.id, show="all", sort="random", page="3")
    assert "121 to 180 of " in words(app)
    CHANGES[what](app)
    assert "\n1 to " in words(show(app))
    assert "page" not in app.query_params


@pytest.mark.slow
def test_a_click_on_a_tile_opens_its_image_and_the_way_back_leads_to_its_page(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", page="4")
    row = rows_shown(app)[7]
    pick(app, row)
    assert app.query_params == {"run": finished.id, "show": "all", "page": "4", "image": str(row)}
    assert "188 of 360 images" in words(app)
    app.button("close").click()
    assert "181 to 240 of 360 images" in words(show(app))
    assert app.query_params == {"run": finished.id, "show": "all", "page": "4"}


@pytest.mark.slow
def test_the_way_back_leads_to_the_page_that_the_last_image_is_on(finished: Run) -> None:
    app = open_page("gallery", run=finished.id, show="all", page="2")
    row = rows_shown(app)[-1]
    pick(app, row)
    click(app, "Next")
    assert "121 of 360 images" in words(app)
    click(app, "All of them")
    assert "121 to 180 of 360 images" in words(app)
    assert app.query_params == {"run": finished.id, "show": "all", "page": "3"}
    app = open_page("gallery", run=finished.id, show="all", page="2")
    pick(app, rows_shown(app)[0])
    click(app, "Previous")
    click(app, "All of them")
    assert "\n1 to 60 of 360 images" in words(app)
    assert app.query_params == {"run": finished.id, "show": "all"}


@pytest.mark.slow
def test_names_of_classes_are_shown_as_they_are(finished: Run) -> None:
    names = ("*a*", "[b](http://x.org)", ":material/home:", "$c$", "`d`", "<b>e</b>", "# f", "g_h_", "i", "~~j~~")
    change_predictions(finished, lambda _: {"classes": names})
    for number, name in enumerate(names):
        app = open_page("gallery", run=finished.id, show="all", true=name)
        assert f"images of true class {name}" in words(app)
        assert not [said for said in app.caption if f"images of true class {name}" in said.value and number != 8]
        assert {tile["lines"][0].partition(" →")[0] for tile in tiles(app)} == {name}


def test_without_a_run_it_has_its_title_and_says_what_to_do() -> None:
    app = open_page("gallery")
    assert title(app) == "Gallery"
    assert "There is no trained model yet." in words(app)


def test_one_image_is_spoken_of_as_one(finished: Run, predictions: Predictions) -> None:
    labels = predictions.predicted.copy()
    labels[7] = (labels[7] + 1) % 10
    change_predictions(finished, lambda _: {"labels": labels})
    app = open_page("gallery", run=finished.id)
    assert rows_shown(app) == [7]
    assert "**1 mistake** in 360 test images." in words(app)
    assert "1 to 1 of 1 mistake" in words(app).splitlines()


@pytest.mark.parametrize("empty", ["true", "predicted", "sort", "image", "page"])
def test_what_the_address_leaves_empty_is_not_asked_for(finished: Run, empty: str) -> None:
    app = open_page("gallery", run=finished.id, **{empty: ""})
    assert not app.warning
    assert not app.error
    assert rows_shown(app) == rows_shown(open_page("gallery", run=finished.id))
