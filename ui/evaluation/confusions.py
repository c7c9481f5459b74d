"""What a run confuses: the matrix, and the commonest mistakes with their pictures."""

import numpy as np
import streamlit as st

from engine.base.text import pluralize
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.metrics import confusion_matrix, most_confused, order_by_confusion
from engine.evaluation.predictions import Predictions
from engine.evaluation.selection import in_order, select
from engine.runs.run import Run
from ui.contact_sheet import contact_sheet
from ui.evaluation.matrix import MISTAKES, MODES, confusion_grid
from ui.pictures import open_pictures, tile_of
from ui.state import choose_view, go, link, one_of, tie
from ui.tables import recipe_of
from ui.wording import plain

# With more classes than this the matrix has the whole width of the page.
NARROW = 20
PAIRS, EXAMPLES, PAIR_WIDTH = 5, 5, 262  # pixels


def show_confusions(run: Run, predictions: Predictions) -> None:
    if len(predictions.classes) > NARROW:
        _show_matrix(run, predictions)
        _show_most_confused(run, predictions)
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_matrix(run, predictions)
    with right:
        _show_most_confused(run, predictions)


def _show_matrix(run: Run, predictions: Predictions) -> None:
    """Show the confusion matrix; a click on a cell opens the gallery on its images."""
    st.subheader("Confusion matrix")
    with st.container(horizontal=True, vertical_alignment="center"):
        mode = choose_view("Cells show", MODES, "cells")
        sort = st.toggle(
            "Similar classes side by side",
            help="Sorts the classes so that those which are taken for each other are neighbours.",
            **tie("similar", False, lambda text: bool(one_of(("True",))(text))),
        )
    matrix = confusion_matrix(predictions)
    items = f"{item_of(recipe_of(run).dataset)}s"
    order = order_by_confusion(matrix) if sort else np.arange(len(matrix))
    picked = confusion_grid(matrix, predictions.classes, mode=mode, order=order, what=items, key=f"matrix-{run.id}")
    if picked is not None:
        true, predicted = (predictions.classes[label] for label in picked)
        go("gallery", run=run.id, true=true, predicted=predicted, show="all")
    shade = "its share of the row, beside the largest such share" if mode == MISTAKES else "its share of the row"
    st.caption(f"A cell's shade is {shade}. Click a cell, or press Enter on it, to see its {items}.")


def _show_most_confused(run: Run, predictions: Predictions) -> None:
    """List the commonest mistakes in words, each with examples of it, the most confident first."""
    pairs, item = most_confused(predictions, PAIRS), item_of(recipe_of(run).dataset)
    if not pairs:
        st.success(f"No mistakes at all on these {item}s.", icon=":material/check:")
        link("gallery", f"See the least sure of these {item}s", run=run.id, show="all", sort="least confident")
        return
    st.subheader("Most confused")
    dataset = open_pictures(run, predictions)
    with st.container(horizontal=True):
        for true, predicted, count, total in pairs:
            with st.container(width=PAIR_WIDTH, gap="xsmall"):
                # In a line of its own: a link would cut it off where names are long.
                st.markdown(f"**{plain(true)}** taken for **{plain(predicted)}**")
                link(
                    "gallery",
                    f"{count:,} of {pluralize(total, item)}",
                    run=run.id,
                    true=true,
                    predicted=predicted,
                    show="all",
                )
                if dataset is not None and dataset.kind == "images":
                    _show_examples(run, predictions, dataset, true, predicted)
    link("gallery", "Any other pair: choose it in the gallery", run=run.id, show="all")


def _show_examples(run: Run, predictions: Predictions, dataset: Dataset, true: str, predicted: str) -> None:
    rows = in_order(predictions, select(predictions, true=true, predicted=predicted), "most confident")[:EXAMPLES]
    picked = contact_sheet(
        [tile_of(predictions, dataset, int(row), lines=False) for row in rows],
        name=f"{true} taken for {predicted}",
        key=f"examples-{true}-{predicted}",
        width=44,
    )
    if picked is not None:
        go("gallery", run=run.id, true=true, predicted=predicted, show="all", image=str(picked))
