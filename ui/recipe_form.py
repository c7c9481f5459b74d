"""The form of a recipe: the fields that are changed most, the others folded away."""

import math
from typing import Any

import streamlit as st

from engine.catalogue import CATALOGUE, dataset_names, title_of
from engine.recipes import ABOUT, FIELDS, RECIPES, TYPES, Recipe, change
from ui.augmentation import choose_augmentation
from ui.tables import kind_of

# The networks that take rows of numbers; all take images.
MODELS_OF_ROWS = ("mlp",)


def choose_recipe() -> Recipe:
    """Show a recipe and its fields; returns it as it was changed. Raises LoupeError for what does not go together."""
    dataset = st.query_params.get("dataset")
    fitting = _recipes_for(dataset)
    name = st.selectbox(
        "Recipe",
        list(RECIPES),
        index=list(RECIPES).index(fitting[0]),
        format_func=lambda name: f"{name}: {ABOUT[name]}",
        key="recipe",
    )
    base = RECIPES[name]
    common = [field for field in FIELDS if FIELDS[field].metadata["common"]]
    rest = [field for field in FIELDS if not FIELDS[field].metadata["common"] and field not in ("name", "augment")]
    values = field_widgets(base, common, dataset)
    values |= choose_augmentation(base, values["dataset"])
    with st.expander("All other settings"):
        values |= field_widgets(base, rest)
    return change(base, values)


def _recipes_for(dataset: str | None) -> list[str]:
    """List the recipes that fit a dataset best: its own, else those for data of its origin, else of its kind."""
    own = [name for name, recipe in RECIPES.items() if recipe.dataset == dataset]
    of_kind = [name for name, recipe in RECIPES.items() if kind_of(recipe.dataset) == kind_of(dataset or "")]
    of_origin = []
    if dataset in CATALOGUE and CATALOGUE[dataset].torchvision:
        sources = {name: CATALOGUE.get(RECIPES[name].dataset) for name in of_kind}
        of_origin = [name for name, source in sources.items() if source and source.torchvision]
    if dataset and dataset not in CATALOGUE:
        of_origin = [name for name in of_kind if not RECIPES[name].dataset]
    return own or of_origin or of_kind


def choices_of(base: Recipe, field: str) -> list[str]:
    """List what a field of a recipe may be; nothing where it may be anything. A table needs another table."""
    kind = kind_of(base.dataset)
    if field == "dataset":
        return [name for name in dataset_names() if kind_of(name) == kind]
    choices = FIELDS[field].metadata["choices"] or ()
    return [name for name in choices if field != "model" or kind == "images" or name in MODELS_OF_ROWS]


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
    label, unit = field.replace("_", " ").capitalize(), about["unit"]
    if kind_of(base.dataset) == "table":
        unit = unit.replace("images", "rows")
    if unit and not label.endswith(unit):
        label += f" ({unit})"
    help = f"{about['help']} The recipe's value: {'none' if default == '' else default}."
    # What was chosen earlier is kept, but not against a link that wants another.
    key = f"{base.name}:{field}:{wanted}" if wanted else f"{base.name}:{field}"
    settings: dict[str, Any] = {"key": key, "help": help, "persist_state": "session"}
    choices = choices_of(base, field)
    if choices:
        first = choices.index(wanted if wanted in choices else default) if {wanted, default} & {*choices} else 0
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
