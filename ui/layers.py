"""The layers of a network, before it is trained."""

import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import pluralize
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.recipe import Recipe
from ui.wording import plain, show_problem


def show_layers(recipe: Recipe) -> None:
    """Offer a table of the network's layers for the chosen dataset; it is made once it is opened."""
    folded = st.expander("Layers of the network", on_change="rerun", key="layers")
    if not folded.open:  # PyTorch takes seconds to load
        return
    with folded:
        if not is_prepared(recipe.dataset):
            st.caption("The layers depend on the shape of the data: get the dataset first, or start the training.")
            return
        try:
            dataset = open_dataset(recipe.dataset)
            shape = _shape(recipe, dataset.fingerprint)
            rows = _layers(recipe.model, shape, len(dataset.classes), recipe.head)
        except LoupeError as error:
            show_problem(error)
            return
        number = st.column_config.NumberColumn(format="localized")
        st.dataframe(rows, hide_index=True, column_config={"Parameters": number}, placeholder="")
        total = sum(row["Parameters"] for row in rows)
        st.caption(
            f"{total:,} parameters, for {_in_words(shape)} of {plain(recipe.dataset)}. Shapes are "
            "channels x height x width, or a number of units."
        )


def _in_words(sample_shape: tuple[int, ...]) -> str:
    if len(sample_shape) == 1:
        return f"rows of {pluralize(sample_shape[0], 'number')}"
    height, width, channels = sample_shape
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'} images"


@st.cache_data(max_entries=50, show_spinner="Loading PyTorch")
def _shape(recipe: Recipe, fingerprint: str) -> tuple[int, ...]:
    """Return what the network sees of the recipe's dataset."""
    from engine.training.pretrained import preprocessing_of

    return preprocessing_of(recipe, open_dataset(recipe.dataset)).model_shape


@st.cache_data(max_entries=50, show_spinner="Building the network")
def _layers(model: str, shape: tuple[int, ...], num_classes: int, head: str) -> list[dict]:
    from engine.networks.models import build_model, layer_table

    table = layer_table(build_model(model, shape, num_classes, head), shape)
    return [
        {"Layer": row["layer"], "Output": " x ".join(map(str, row["output"])), "Parameters": row["parameters"]}
        for row in table
    ]
