"""How good a run is, beside what that is to be measured by."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

from engine.audit.inspection import DEFAULT_THRESHOLD, load_inspection
from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES, pluralize
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions
from engine.recipes.recipe import published
from engine.runs.run import Run, dataset_of
from ui.state import link
from ui.tables import in_words, recipe_of, state_of
from ui.wording import plain

# Classes are uneven where the largest has so many times the images of the smallest.
UNEVEN = 1.5
WIDTH, WIDEST = 136, 210  # of a figure, in pixels


@dataclass(frozen=True)
class Figure:
    """A figure of the headline: what it is, its value, what it is of, and what is meant by it."""

    name: str
    value: str
    of: str
    meaning: str | None = None


def show_headline(run: Run, predictions: Predictions, result: dict) -> None:
    figures = _figures(run, predictions, result)
    with st.container(horizontal=True):  # and not in columns: on a narrow page two stand side by side
        for figure in figures:
            # The interval is the longest of what stands below a figure.
            with st.container(width=WIDTH if figure is not figures[0] else WIDEST, gap="xsmall"):
                st.metric(figure.name, figure.value, help=figure.meaning)
                st.caption(figure.of)
    if (theirs := published(recipe_of(run))) is not None:
        st.caption(f"Published: {plain(theirs['source'])}.")
    _show_leaks(run, predictions)


def _figures(run: Run, predictions: Predictions, result: dict) -> list[Figure]:
    count, right = len(predictions), int(predictions.correct.sum())
    recipe = recipe_of(run)
    item = item_of(recipe.dataset)
    figures = [
        Figure(
            f"Accuracy on the {SPLIT_NAMES[predictions.split]} {item}s",
            f"{predictions.accuracy:.2%}",
            in_words(right, count),
        ),
        Figure("Mistakes", f"{count - right:,}", f"of {pluralize(count, item)}"),
    ]
    top = result["top_5_accuracy"]
    if top is not None:
        meaning = "How often the true class is among the five most probable."
        figures.append(Figure("Top 5", f"{top:.2%}", f"{round(top * count):,} of {count:,}", meaning))
    supports = np.bincount(predictions.labels)
    present = supports[supports > 0]
    if present.max() >= UNEVEN * present.min():
        meaning = f"The classes have from {present.min():,} to {present.max():,} {item}s: here each counts as much."
        of = f"mean recall of {len(present)} classes"
        figures.append(Figure("Balanced accuracy", f"{result['balanced_accuracy']:.2%}", of, meaning))
    commonest = int(supports.argmax())
    of = f"{supports[commonest]:,} of {count:,} are {plain(predictions.classes[commonest])}"
    meaning = "The accuracy of always answering the commonest class: what a model has to beat."
    figures.append(Figure("Baseline", f"{result['majority_baseline']:.2%}", of, meaning))
    theirs = published(recipe)
    if theirs and f"{predictions.split}_accuracy" in theirs:
        score = theirs[f"{predictions.split}_accuracy"]
        figures.append(Figure("Published", f"{score:.2%}", "for the same recipe"))
    return figures


def _show_leaks(run: Run, predictions: Predictions) -> None:
    """Say the accuracy without the test images that the model has seen in training, where these are known."""
    name = recipe_of(run).dataset
    if predictions.stored_in != "test":
        return
    try:
        dataset = dataset_of(run, predictions)
    except LoupeError:  # gone or damaged: that is said where its pictures would be
        return
    item = item_of(name)
    leaked = _leaked(name, dataset.fingerprint, state_of(dataset.folder / "inspection.json"), dataset)
    if leaked is None:
        if item == "image":  # rows are checked from a terminal only
            text = "Check whether test images are in the training set too"
            link("explore", text, dataset=name, view="Copies and leaks")
        return
    seen = np.isin(predictions.indices, leaked)
    if not seen.any():
        st.caption(f"None of these {item}s has a twin in the training set, by the check of the dataset.")
        return
    twins = int(seen.sum())
    have = "has a twin" if twins == 1 else "have a twin"
    if seen.all():
        st.caption(f"All of these {item}s {have} in the training set: this accuracy says nothing about new ones.")
        return
    unseen = predictions.subset(~seen)
    right = int(unseen.correct.sum())
    low, high = wilson_interval(right, len(unseen))
    st.markdown(
        f"Without the {pluralize(twins, item)} that {have} in the training set: **{unseen.accuracy:.2%}** "
        f"({right:,} of {len(unseen):,}, 95% interval {low:.2%} to {high:.2%})."
    )


@st.cache_data(max_entries=100, show_spinner=False)
def _leaked(name: str, fingerprint: str, state: tuple[int, int], _dataset: Dataset) -> list[int] | None:
    """List the test images with a twin in train; None where the dataset was not checked."""
    inspection = load_inspection(_dataset)
    return None if inspection is None else inspection.leaked_test(DEFAULT_THRESHOLD)
