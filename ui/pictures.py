"""The pictures behind a run's predictions, and how one is shown on a contact sheet."""

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_probability
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run, dataset_of
from ui.contact_sheet import Tile
from ui.wording import plain

# Of two names: so many characters have room beside an arrow.
SHORT = 10


def open_pictures(run: Run, predictions: Predictions) -> Dataset | None:
    """Open the dataset that predictions are of; where it is gone, or another by now, say so and return None."""
    try:
        return dataset_of(run, predictions)
    except LoupeError as error:
        st.info(plain(error), icon=":material/hide_image:")
        return None


def picture_of(predictions: Predictions, dataset: Dataset, row: int) -> np.ndarray:
    """Return the stored image of a row: uint8 (height, width, channels), or float32 (features,) of a table."""
    return dataset.splits[predictions.stored_in].images[predictions.indices[row]]


def name_of(predictions: Predictions, dataset: Dataset, row: int) -> str:
    """Name an image by its file where it was imported from one, else by its place."""
    index = int(predictions.indices[row])
    origins = open_source_files(dataset, predictions.stored_in)
    return origins.of(index)["file"] if origins else f"number {index:,} of the {predictions.stored_in} split"


def taken(true_class: str, answer: str) -> tuple[str, ...]:
    """Say on a tile what was taken for what: in one line if it is short, or else in two."""
    return (f"{true_class} → {answer}",) if len(true_class) + len(answer) <= SHORT else (true_class, f"→ {answer}")


def tile_of(predictions: Predictions, dataset: Dataset, row: int, lines: bool = True) -> Tile:
    """Make the tile of an image, framed as right or wrong; below it, if asked, what was answered."""
    true_class = predictions.classes[predictions.labels[row]]
    answer = predictions.classes[predictions.predicted[row]]
    how_sure = format_probability(predictions.confidence[row])
    right = bool(predictions.correct[row])
    return Tile(
        index=row,
        image=picture_of(predictions, dataset, row),
        title=f"{true_class}, recognised with {how_sure}"
        if right
        else f"{true_class}, taken for {answer} with {how_sure}",
        lines=(*((true_class,) if right else taken(true_class, answer)), how_sure) if lines else (),
        mark="right" if right else "wrong",
    )
