import json
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from screen import click, decoded, errors, go_to, open_page, show, words
from streamlit.testing.v1 import AppTest

from engine.base.paths import PROJECT_ROOT
from engine.data.catalogue import kind_of
from engine.data.dataset import Dataset
from engine.networks.augment import augment
from engine.recipes.augmentation import FIELDS, parse_augmentation
from engine.recipes.recipe import RECIPES
from engine.runs.run import Run
from ui.augmentation import SAMPLES, VERSIONS, draw_samples

OF_IMAGES = [name for name, recipe in RECIPES.items() if kind_of(recipe.dataset) == "images"]
CAPTION = "Top of each column: a training image as stored. Below it: three ways that training might see it."


def form() -> AppTest:
    """Run the form by itself, which leaves the value of the field that it makes in the state."""

    def script() -> None:
        import streamlit as st

        from ui.recipe_form import choose_recipe

        st.session_state.made = choose_recipe().augment

    app = AppTest.from_function(script, default_timeout=120)
    app.query_params["dataset"] = "digits"
    return show(app)


def choose(app: AppTest, recipe: str) -> AppTest:
    app.selectbox("recipe").set_value(recipe)
    return show(app)


def widget(app: AppTest, name: str, recipe: str = "digits-quick"):
    (found,) = [each for each in [*app.toggle, *app.number_input] if each.key == f"{recipe}:augment:{name}"]
    return found


def set_widgets(app: AppTest, text: str, recipe: str = "digits-quick") -> AppTest:
    """Set all widgets to what a text says."""
    for name, value in vars(parse_augmentation(text)).items():
        widget(app, name, recipe).set_value(value)
    return show(app)


def preview(app: AppTest) -> list[dict[str, Any]]:
    """What the preview shows: for each column its label, the image as stored, and the changed ones, as arrays."""
    return [
        {
            "label": column["label"],
            "stored": decoded(column["images"][0]),
            "changed": [decoded(url) for url in column["images"][1:]],
        }
        for column in data_of(app)["columns"]
    ]


def data_of(app: AppTest) -> dict[str, Any]:
    (component,) = app.main.get("bidi_component")
    return json.loads(component.proto.json)


def has_preview(app: AppTest) -> bool:
    return bool(app.main.get("bidi_component"))


# The widgets


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_widgets_start_at_the_recipes_value(name: str) -> None:
    app = choose(form(), name)
    own = parse_augmentation(RECIPES[name].augment)
    assert {field: widget(app, field, name).value for field in FIELDS} == vars(own)
    assert app.session_state.made == RECIPES[name].augment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "flip",
        "shift=3",
        "rotate=12.5",
        "crop=0.8",
        "erase=0.25",
        "flip shift=64 rotate=180 crop=0.1 erase=0.9",
    ],
)
def test_the_widgets_make_the_value_of_the_field(text: str) -> None:
    app = set_widgets(form(), text)
    assert app.session_state.made == text == str(parse_augmentation(text))


def test_a_number_is_taken_as_it_is_shown() -> None:
    app = form()
    widget(app, "erase").set_value(0.1 + 0.05 + 0.15)  # 0.30000000000000004
    assert show(app).session_state.made == "shift=1 erase=0.3"


def test_every_widget_says_its_limits_and_what_it_does() -> None:
    app = form()
    own = parse_augmentation(RECIPES["digits-quick"].augment)
    for name, about in FIELDS.items():
        shown = widget(app, name)
        assert shown.label.lower().startswith(name)
        if name == "flip":
            assert shown.help.endswith(" The recipe's value: off.")
            continue
        assert shown.help.endswith(f" The recipe's value: {getattr(own, name):g}.")
        assert (shown.min, shown.max) == (about.metadata["low"], about.metadata["high"])
    assert [widget(app, name).label.partition(" ")[2] for name in ("shift", "rotate", "crop", "erase")] == [
        "(pixels)",
        "(degrees)",
        "(least share)",
        "(share)",
    ]


def test_the_field_can_be_set_in_the_state_and_then_changed() -> None:
    app = form()
    widget(app, "erase").set_value(0.5)
    show(app)
    app.session_state["digits-quick:augment"] = "flip rotate=5"
    assert show(app).session_state.made == "flip rotate=5"
    assert widget(app, "rotate").value == 5
    widget(app, "rotate").set_value(7.0)
    assert show(app).session_state.made == "flip rotate=7"
    assert not app.warning


def test_what_the_state_has_for_the_field_is_checked() -> None:
    app = open_page("train")
    app.session_state["digits-quick:augment"] = "mirror"
    (error,) = errors(show(app))
    assert error.startswith("augment has 'mirror', but augmentation must be words out of flip (alone), ")
    assert not errors(show(app))


@pytest.mark.slow
def test_what_was_chosen_is_kept_over_other_recipes_and_pages() -> None:
    app = open_page("train")
    set_widgets(app, "flip shift=3")
    choose(app, "mnist-lenet5")
    assert widget(app, "shift", "mnist-lenet5").value == 0
    choose(app, "digits-quick")
    assert (widget(app, "flip").value, widget(app, "shift").value) == (True, 3)
    go_to(app, "runs")
    go_to(app, "train")
    assert (widget(app, "flip").value, widget(app, "shift").value) == (True, 3)


def test_a_table_has_no_such_section() -> None:
    app = form()
    assert "Augmentation" in [each.label for each in app.expander]
    choose(app, "blobs-mlp")
    assert "Augmentation" not in [each.label for each in app.expander]
    assert not app.toggle
    assert not [each for each in [*app.number_input, *app.text_input] if "augment" in each.key]
    assert app.session_state.made == ""


# The preview


def test_the_preview_is_what_training_makes_of_images_of_the_training_set(digits: Dataset) -> None:
    text = "flip shift=2 rotate=10 crop=0.8 erase=0.25"
    columns = preview(set_widgets(open_page("train"), text))
    split = digits.splits["train"]
    drawn = draw_samples(split.labels, 0)
    assert [column["label"] for column in columns] == [digits.classes[label] for label in split.labels[drawn]]
    assert np.array_equal([column["stored"] for column in columns], split.images[drawn])
    batch = torch.from_numpy(split.images[drawn].repeat(VERSIONS, axis=0))
    expected = augment(batch, parse_augmentation(text), torch.Generator().manual_seed(0)).numpy()
    assert np.array_equal([image for column in columns for image in column["changed"]], expected)
    assert len({image.tobytes() for column in columns for image in column["changed"]}) == SAMPLES * VERSIONS


def test_flipped_images_are_shown_beneath_their_own(digits: Dataset) -> None:
    mirrored = []
    for column in preview(set_widgets(open_page("train"), "flip")):
        for image in column["changed"]:
            mirrored.append(np.array_equal(image, column["stored"][:, ::-1]))
            assert mirrored[-1] or np.array_equal(image, column["stored"])
    assert len(mirrored) == SAMPLES * VERSIONS
    assert 4 < sum(mirrored) < 20


def test_shifted_images_are_shown_beneath_their_own(digits: Dataset) -> None:
    ways = list(product((-1, 0, 1), repeat=2))
    taken = set()
    for column in preview(set_widgets(open_page("train"), "shift=1")):
        padded = np.pad(column["stored"], ((1, 1), (1, 1), (0, 0)))
        moved = {way: np.roll(padded, way, (0, 1))[1:-1, 1:-1] for way in ways}
        for image in column["changed"]:
            fitting = [way for way in ways if np.array_equal(image, moved[way])]
            assert fitting
            taken |= set(fitting)
    assert len(taken) > 5


def test_the_preview_follows_the_fields_and_the_same_images_stay(digits: Dataset) -> None:
    app = open_page("train")
    before = preview(app)
    widget(app, "erase").set_value(0.5)
    after = preview(show(app))
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one["stored"], other["stored"])
        assert not np.array_equal(one["changed"], other["changed"])


def test_a_change_of_another_field_changes_nothing_in_the_preview(digits: Dataset) -> None:
    app = open_page("train")
    before = data_of(app)
    app.number_input("digits-quick:epochs").set_value(77)
    assert data_of(show(app)) == before


def test_other_images_are_drawn(digits: Dataset) -> None:
    app = open_page("train")
    before = preview(app)
    after = preview(click(app, "Other images"))
    assert len(after) == SAMPLES
    shown = {column["stored"].tobytes() for column in before}
    assert not [column for column in after if column["stored"].tobytes() in shown]


def test_the_preview_is_of_the_dataset_that_is_chosen(digits: Dataset, make_colours) -> None:
    make_colours("pets")
    app = open_page("train")
    app.selectbox("digits-quick:dataset").set_value("pets")
    columns = preview(show(app))
    assert {column["label"] for column in columns} == {"red", "green", "blue"}
    assert data_of(app)["shape"] == "10 / 12"


@pytest.mark.slow
def test_large_images_are_sent_as_jpeg_and_small_ones_exactly(digits: Dataset, make_colours) -> None:
    make_colours("large", height=120, width=200)
    small = data_of(open_page("train"))
    app = open_page("train", dataset="large")  # with a recipe that has none: the section is folded
    app.session_state["folder-quick:augmentation"] = True
    large = data_of(set_widgets(app, "shift=1", "folder-quick"))
    assert (small["small"], large["small"]) == (True, False)
    assert small["columns"][0]["images"][0].startswith("data:image/png;")
    assert large["columns"][0]["images"][0].startswith("data:image/jpeg;")
    assert decoded(large["columns"][0]["images"][1]).shape == (120, 200, 3)


def test_a_shift_out_of_sight_leaves_black_images(digits: Dataset) -> None:
    columns = preview(set_widgets(open_page("train"), "shift=64"))
    black = [not image.any() for column in columns for image in column["changed"]]
    assert sum(black) > len(black) / 2


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([100] * 10, [1] * 8),
        ([100] * 3, [3, 3, 2]),
        ([100], [8]),
        ([1, 1, 1], [1, 1, 1]),
        ([1, 100, 0, 100], [1, 3, 2]),
    ],
)
def test_the_images_are_of_as_many_classes_as_there_can_be(counts: list[int], expected: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(20):
        drawn = draw_samples(labels, seed)
        assert len(set(drawn.tolist())) == len(drawn)
        _, of_each = np.unique(labels[drawn], return_counts=True)
        assert of_each.tolist() == expected
        assert labels[drawn].tolist() == sorted(labels[drawn])
    assert len({tuple(draw_samples(labels, seed)) for seed in range(20)}) > (1 if sum(counts) > 3 else 0)


# When there is nothing to preview


def test_where_nothing_is_chosen_one_sentence_says_so(digits: Dataset) -> None:
    app = set_widgets(open_page("train"), "")
    assert "No change is chosen: training sees the images as they are stored." in words(app)
    assert not has_preview(app)


def test_of_a_dataset_that_is_not_here_a_sentence_says_what_to_do() -> None:
    app = open_page("train")
    sentence = "To see what this does to the images, get the dataset on the Explore page first, or start the training."
    assert sentence in words(app)
    assert not has_preview(app)


def test_a_damaged_dataset_is_told_and_the_rest_of_the_page_is_there(digits: Dataset) -> None:
    (digits.folder / "dataset.json").write_text("{}")
    app = open_page("train")
    (error,) = errors(app)
    assert error.startswith("The prepared dataset digits is damaged ")
    assert "Start training" in [each.label for each in app.button]


@pytest.mark.slow
def test_the_section_is_open_for_a_recipe_that_changes_images_unless_a_run_is_shown(
    digits: Dataset, finished: Run
) -> None:
    app = open_page("train", dataset="digits")
    assert has_preview(app)
    assert CAPTION in words(app)
    choose(app, "mnist-lenet5")
    set_widgets(app, "flip", "mnist-lenet5")
    assert not has_preview(app)
    assert not has_preview(open_page("train", run=finished.id))


@pytest.mark.slow
def test_the_section_stays_as_it_is_while_fields_change(digits: Dataset) -> None:
    def section(app: AppTest):
        (found,) = [each for each in app.expander if each.label == "Augmentation"]
        return found.proto

    app = set_widgets(open_page("train"), "")
    before = section(app).id
    assert before
    for text in ("flip", "flip erase=0.2", ""):
        assert section(set_widgets(app, text)).id == before
        assert section(app).expanded


@pytest.mark.processes
@pytest.mark.parametrize(
    ("opened", "text", "loaded"), [(False, "flip", False), (True, "", False), (True, "flip", True)]
)
def test_pytorch_is_loaded_only_to_change_images_in_an_open_section(
    digits: Dataset, opened: bool, text: str, loaded: bool
) -> None:
    code = f"""
        import sys
        from streamlit.testing.v1 import AppTest
        app = AppTest.from_file("streamlit_app.py", default_timeout=120)
        app.switch_page("pages/train.py")
        app.session_state["digits-quick:augment"] = {text!r}
        app.session_state["digits-quick:augmentation"] = {opened}
        app.run()
        assert not app.exception
        assert [each.label for each in app.toggle] == ["Flip"]
        assert app.toggle[0].value == ({text!r} == "flip")
        print("torch" in sys.modules)
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    found = subprocess.run(
        [sys.executable, "-c", lines], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == str(loaded)
