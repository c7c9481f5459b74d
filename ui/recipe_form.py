"""The form of a recipe: the fields that are changed most, the others folded away."""

import math
from typing import Any

import streamlit as st

from engine.catalogue import CATALOGUE, dataset_names, title_of
from engine.recipes import ABOUT, FIELDS, RECIPES, TYPES, Recipe, change


def choose_recipe() -> Recipe:
    """Show a recipe and its fields; returns it as it was changed. Raises LoupeError for what does not go together."""
    dataset = st.query_params.get("dataset")
    fitting = [name for name, recipe in RECIPES.items() if recipe.dataset == dataset]
    if not fitting and dataset in CATALOGUE:  # one for data of the same origin, which is of the same kind
        fitting = [name for name, recipe in RECIPES.items() if CATALOGUE[recipe.dataset].torchvision]
    name = st.selectbox(
        "Recipe",
        list(RECIPES),
        index=list(RECIPES).index(fitting[0]) if fitting else 0,
        format_func=lambda name: f"{name}: {ABOUT[name]}",
        key="recipe",
    )
    base = RECIPES[name]
    common = [field for field in FIELDS if FIELDS[field].metadata["common"]]
    rest = [field for field in FIELDS if not FIELDS[field].metadata["common"] and field != "name"]
    values = field_widgets(base, common, dataset)
    with st.expander("All other settings"):
        values |= field_widgets(base, rest)
    return change(base, values)


def trainable() -> list[str]:
    """List the datasets of images: no recipe takes a table yet."""
    return [name for name in dataset_names() if name not in CATALOGUE or CATALOGUE[name].kind == "images"]


def field_widgets(base: Recipe, names: list[str], dataset: str | None = None) -> dict[str, Any]:
    """Show fields, three in a row; returns their values."""
    values = {}
    for first in range(0, len(names), 3):
        for name, column in zip(names[first : first + 3], st.columns(3), strict=False):
            with column:
                values[name] = field_widget(base, name, dataset if name == "dataset" else None)
    return values


def field_widget(base: Recipe, field: str, wanted: str | None = None):
    """Show the widget that fits a field's type; it starts at the recipe's value, or at the one wanted."""
    about = FIELDS[field].metadata
    default = getattr(base, field)
    unit = f" ({about['unit']})" if about["unit"] else ""
    label = field.replace("_", " ").capitalize() + unit
    help = f"{about['help']} The recipe's value: {'none' if default == '' else default}."
    # What was chosen earlier is kept, but not against a link that wants another.
    key = f"{base.name}:{field}:{wanted}" if wanted else f"{base.name}:{field}"
    settings: dict[str, Any] = {"key": key, "help": help, "persist_state": "session"}
    choices = trainable() if field == "dataset" else about["choices"]
    if choices:
        first = list(choices).index(wanted if wanted in choices else default)
        in_words = title_of if field == "dataset" else str
        return st.selectbox(label, choices, index=first, format_func=in_words, **settings)
    if TYPES[field] is bool:
        return st.selectbox(
            label, (True, False), index=0 if default else 1, format_func=lambda on: "yes" if on else "no", **settings
        )
    if TYPES[field] is str:
        return st.text_input(label, default, placeholder="none", **settings)
    low, high = about["low"], about["high"]
    if TYPES[field] is float:
        step = 10.0 ** math.floor(math.log10(default)) if default else 0.01
        return st.number_input(label, float(low), float(high), default, step=step, format="%.6g", **settings)
    return st.number_input(label, low, high, default, **settings)
