"""One image, looked into: what was answered, where the evidence is, and which training images are like it."""

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_probability, pluralize
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions, top
from engine.evaluation.selection import rank
from engine.runs.run import Run
from ui.charts import CONFIG, probability_bars
from ui.contact_sheet import Tile, contact_sheet, enlarged
from ui.explorer.look import show_large
from ui.gallery.features import have_features, open_classifier
from ui.gallery.points import show_point
from ui.gallery.sheet import PAGE
from ui.pictures import name_of, picture_of
from ui.tables import recipe_of, state_of
from ui.wording import plain, show_problem

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier
    from engine.inference.neighbours import Neighbour
    from engine.inference.saliency import Saliency
    from engine.networks.features import Features

SIDE = 300
# What heat may be shown for, besides each class.
ANSWER, TRUTH = -1, -2


def show_one(run: Run, predictions: Predictions, dataset: Dataset, row: int, rows: np.ndarray, words: str) -> None:
    """Show one image large. rows: those that are stepped through, which it may not be one of."""
    on_a_sheet = dataset.kind == "images" and "as" not in st.query_params  # and not on a map or in a table
    _show_steps(row, rows, words, on_a_sheet)
    _show_verdict(predictions, row)
    classifier = open_classifier(run)
    if dataset.kind == "table":
        about, picture = st.columns([2, 3], gap="large")
        with picture:
            show_point(run, predictions, dataset, row, classifier)
    else:
        picture, evidence, about = st.columns([3, 3, 4], gap="medium")
        with picture:
            st.image(enlarged(picture_of(predictions, dataset, row), SIDE), width="stretch", output_format="PNG")
        if classifier is not None:
            with evidence:
                _show_saliency(run, classifier, predictions, dataset, row)
    with about:
        _show_answer(predictions, dataset, row, item_of(recipe_of(run).dataset))
    if classifier is not None:
        _show_neighbours(run, classifier, predictions, dataset, row)


def _show_steps(row: int, rows: np.ndarray, words: str, on_a_sheet: bool) -> None:
    """Offer the way back, and to the images before and after, by button and by key."""
    found = np.flatnonzero(rows == row)
    place = int(found[0]) if len(found) else -1
    before, after = (int(rows[near]) if 0 <= near < len(rows) else None for near in (place - 1, place + 1))
    with st.container(horizontal=True, vertical_alignment="center"):
        # Not Escape, which would be taken from a list that it is to close.
        st.button(
            "All of them",
            icon=":material/grid_view:",
            shortcut="Backspace",
            on_click=_close,
            args=(max(place, 0) if on_a_sheet else None,),
            key="close",
        )
        for name, icon, key, to in (
            ("Previous", ":material/chevron_left:", "Left", before),
            ("Next", ":material/chevron_right:", "Right", after),
        ):
            st.button(name, icon=icon, shortcut=key, disabled=to is None, on_click=_open, args=(to,), key=name.lower())
        where = f"{place + 1:,} of {len(rows):,} {words}" if len(found) else f"not one of the {words}"
        st.caption(plain(where))


def _open(row: int) -> None:
    st.query_params["image"] = str(row)


def _close(place: int | None) -> None:
    """Go back to all images; where they are on a contact sheet, to the page of the one at this place."""
    st.query_params.pop("image", None)
    if place is None:
        return
    if place >= PAGE:
        st.query_params["page"] = str(place // PAGE + 1)
    else:
        st.query_params.pop("page", None)


def _show_verdict(predictions: Predictions, row: int) -> None:
    true_class, answer = (
        plain(predictions.classes[labels[row]]) for labels in (predictions.labels, predictions.predicted)
    )
    right = predictions.correct[row]
    verdict = ":green[:material/check: recognised]" if right else f":orange[:material/close: taken for **{answer}**]"
    st.markdown(f"**{true_class}**, {verdict} with {format_probability(predictions.confidence[row])}")


def _show_answer(predictions: Predictions, dataset: Dataset, row: int, item: str) -> None:
    true_class = predictions.classes[predictions.labels[row]]
    of_truth = predictions.probabilities[row, predictions.labels[row]]
    st.plotly_chart(
        probability_bars(top(predictions.probabilities[row], predictions.classes), true_class),
        config=CONFIG,
        key="probabilities",
    )
    facts = [
        f"The true class got {format_probability(of_truth)}: a loss of **{predictions.losses[row]:.3g} nats**, rank "
        f"{rank(predictions, row):,} of {pluralize(len(predictions), item)} by loss, the highest first.",
        f"{item.capitalize()}: **{plain(name_of(predictions, dataset, row))}**",
    ]
    st.markdown("\n".join(f"- {fact}" for fact in facts))


def _show_saliency(run: Run, classifier: "Classifier", predictions: Predictions, dataset: Dataset, row: int) -> None:
    """Show where in a picture the evidence for a class is, laid over what the model sees."""
    from engine.inference.saliency import overlay

    picture = picture_of(predictions, dataset, row)
    place = st.empty()
    labels = {ANSWER: int(predictions.predicted[row]), TRUTH: int(predictions.labels[row])}

    def name(choice: int) -> str:
        said = predictions.classes[labels.get(choice, choice)]
        return {ANSWER: f"the answer: {said}", TRUTH: f"the true class: {said}"}.get(choice, said)

    choice = st.selectbox(
        "Evidence for", [ANSWER, TRUTH, *range(len(predictions.classes))], format_func=name, key="evidence"
    )
    strength = st.slider(
        "Strength", 0.0, 1.0, 0.6, 0.05, key="strength", help="How much of the picture the heat hides."
    )
    try:
        found = _saliency(
            run.id, state_of(run.weights), predictions.fingerprint, row, labels.get(choice, choice), classifier, picture
        )
    except LoupeError as error:
        place.empty()
        show_problem(error)
        return
    seen = classifier.see(picture)
    factor = max(1, SIDE // max(seen.shape[:2]))
    heat = found.heat.repeat(factor, axis=0).repeat(factor, axis=1)
    place.image(overlay(enlarged(seen, SIDE), heat, strength), width="stretch", output_format="PNG")
    if not found.heat.any():
        st.caption("Nothing in this picture speaks for that class.")
        return
    if found.layer is None:
        how = "how much the class's score changes with each pixel"
    else:
        height, width = found.side or (0, 0)
        how = f"Grad-CAM at the convolution {found.layer}, whose maps have {width} x {height} fields"
    st.caption(f"Bright where the evidence for the class is: {plain(how)}.")


# Shared, not copied: nobody writes to it.
@st.cache_resource(max_entries=64, show_spinner=False)
def _saliency(
    run: str,
    state: tuple[int, int],
    fingerprint: str,
    row: int,
    target: int,
    _classifier: "Classifier",
    _picture: np.ndarray,
) -> "Saliency":
    from engine.inference.saliency import saliency

    return saliency(_classifier, _picture, target)


def _show_neighbours(run: Run, classifier: "Classifier", predictions: Predictions, dataset: Dataset, row: int) -> None:
    """Show the training images that the model takes for most alike."""
    from engine.inference.neighbours import training_features, training_rows

    item = item_of(recipe_of(run).dataset)
    st.subheader(f"Nearest training {item}s")
    try:
        features, rows = training_features(classifier, dataset), training_rows(run, dataset)
        if not have_features(features, rows, f"training {item}s", "compute-training"):
            return
        found = _nearest(run.id, features.values.name, row, features, rows, picture_of(predictions, dataset, row))
    except LoupeError as error:
        show_problem(error)
        return
    if dataset.kind == "table":
        _show_nearest_rows(dataset, found)
    else:
        true_class = int(predictions.labels[row])
        tiles = [_neighbour_tile(dataset, neighbour, true_class) for neighbour in found]
        picked = contact_sheet(tiles, name="nearest training images", key="neighbours", width=92)
        if picked is not None:
            show_large(dataset, "train", picked)
    st.caption(
        f"Of the {pluralize(len(rows), item)} that it was trained on, those whose {features.width:,} features, the "
        "numbers that it answers from, are nearest; at a distance of 0 is an exact copy. "
        + ("Solid green frame: of its own class; dashed orange: of another." if dataset.kind == "images" else "")
    )


# Shared, not copied: nobody writes to it.
@st.cache_resource(max_entries=64, show_spinner=False)
def _nearest(
    run: str, file: str, row: int, _features: "Features", _rows: np.ndarray, _picture: np.ndarray
) -> list["Neighbour"]:
    from engine.inference.neighbours import nearest

    return nearest(_features, _rows, _picture)


def _neighbour_tile(dataset: Dataset, neighbour: "Neighbour", true_class: int) -> Tile:
    name = dataset.classes[neighbour.label]
    return Tile(
        index=neighbour.index,
        image=dataset.splits["train"].images[neighbour.index],
        title=f"{name}, training image {neighbour.index:,}, at a distance of {neighbour.distance:.3g}",
        lines=(name, f"{neighbour.distance:.3g}"),
        mark="right" if neighbour.label == true_class else "wrong",
    )


def _show_nearest_rows(dataset: Dataset, found: list["Neighbour"]) -> None:
    numbers = dataset.splits["train"].images[[neighbour.index for neighbour in found]]
    st.dataframe(
        {
            "Class": [dataset.classes[neighbour.label] for neighbour in found],
            "Distance": [neighbour.distance for neighbour in found],
        }
        | {f"x{number}": column for number, column in enumerate(numbers.T, start=1)}
        | {"Row": [neighbour.index for neighbour in found]},
        hide_index=True,
        height="content",
    )
