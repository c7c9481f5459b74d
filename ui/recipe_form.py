"""The form of a recipe: the fields that are changed most, the others folded away."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import streamlit as st

from engine.base.errors import LoupeError
from engine.base.paths import weights_folder
from engine.base.text import pluralize
from engine.data.catalogue import CATALOGUE, dataset_names, kind_of, title_of
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.backbones import BACKBONES, rank_for_images
from engine.recipes.recipe import ABOUT, FIELDS, MACHINE_FIELDS, MODELS, RECIPES, TYPES, Recipe, change
from engine.recipes.weights import ImageNetWeights
from engine.runs.run import list_runs, starting_weights
from ui.augmentation import choose_augmentation
from ui.tables import label, recipe_of

# The networks that take rows of numbers; all take images.
MODELS_OF_ROWS = ("mlp",)
LATEST_RUNS = 50  # to start from; an earlier one's name can be typed
# Fields that take what is typed as well: a file of weights, a number of epochs.
OPEN = ("weights", "freeze")
SUGGESTIONS = {"freeze": ("none", "backbone", "1", "2", "5")}


def _weights_in_words(weights: str) -> str:
    return {"none": "none: new weights", "imagenet": "imagenet: torchvision's"}.get(weights) or label(weights)


def _freeze_in_words(freeze: str) -> str:
    return f"backbone for {pluralize(int(freeze), 'epoch')}" if freeze.isdigit() else freeze


IN_WORDS = {"dataset": title_of, "weights": _weights_in_words, "freeze": _freeze_in_words}


def fill_form(recipe: Recipe) -> None:
    """Set the form to a recipe, before it is shown: for a button's ``on_click``. The machine's fields stay open."""
    base = RECIPES.get(recipe.name, RECIPES["digits-quick"])  # of a run whose recipe has another name
    st.session_state.recipe = base.name
    st.query_params["dataset"] = recipe.dataset
    for field in FIELDS:
        if field != "name" and field not in MACHINE_FIELDS:
            st.session_state[_key(base, field, recipe.dataset)] = getattr(recipe, field)


def _key(base: Recipe, field: str, wanted: str | None) -> str:
    """Name the widget of a field. What was chosen earlier is kept, but not against a link to another dataset."""
    return f"{base.name}:dataset:{wanted}" if wanted and field == "dataset" else f"{base.name}:{field}"


def choose_recipe() -> Recipe:
    """Show a recipe and its fields; returns it as it was changed. Raises LoupeError for what does not go together."""
    dataset = st.query_params.get("dataset")
    fitting = _recipes_for(dataset)
    st.session_state.setdefault("recipe", fitting[0])
    name = st.selectbox(
        "Recipe",
        list(RECIPES),
        format_func=lambda name: f"{name}: {ABOUT[name]}",
        key="recipe",
    )
    base = RECIPES[name]
    common = [field for field in FIELDS if FIELDS[field].metadata["common"]]
    rest = [field for field in FIELDS if not FIELDS[field].metadata["common"] and field not in ("name", "augment")]
    values = field_widgets(base, common, {}, dataset)
    values["dataset"] = values["dataset"] or ""
    values |= choose_augmentation(base, values["dataset"])
    with st.expander("All other settings"):
        values = field_widgets(base, rest, values)
    return change(base, values)


def _recipes_for(dataset: str | None) -> list[str]:
    """List the recipes that fit a dataset best: its own, else those for data of its origin, else of its kind."""
    own = [name for name, recipe in RECIPES.items() if recipe.dataset == dataset]
    of_kind = [name for name, recipe in RECIPES.items() if kind_of(recipe.dataset) == kind_of(dataset or "")]
    of_origin = []
    if dataset in CATALOGUE and CATALOGUE[dataset].torchvision:
        sources = {name: CATALOGUE.get(RECIPES[name].dataset) for name in of_kind}
        of_origin = [name for name, source in sources.items() if source and source.torchvision]
    if dataset and dataset not in CATALOGUE and is_prepared(dataset):
        of_origin = [name for name in of_kind if not RECIPES[name].dataset]
    return own or of_origin or of_kind


def choices_of(base: Recipe, field: str, chosen: dict[str, Any]) -> list[str]:
    """List what a field of a recipe may be, given the fields before it; nothing where it may be anything."""
    kind = kind_of(base.dataset)
    if field == "dataset":
        names = [name for name in dataset_names() if kind_of(name) == kind]
        return names if base.dataset else sorted(names, key=CATALOGUE.__contains__)  # one's own first
    if field == "model":
        return _models(kind, chosen["dataset"])
    if field == "weights":
        of_imagenet = ["imagenet"] if chosen["model"] in BACKBONES else []
        return ["none", *of_imagenet, *_runs_of(chosen["model"])]
    return list(FIELDS[field].metadata["choices"] or SUGGESTIONS.get(field, ()))


def _models(kind: str, dataset: str | None) -> list[str]:
    """List the networks: Loupe's own, then torchvision's, those first that suit the dataset."""
    if kind == "table":  # another would need images
        return list(MODELS_OF_ROWS)
    shape = (224, 224, 3)
    if dataset and is_prepared(dataset):
        with suppress(LoupeError):  # of a damaged one; it is told where it is used
            shape = open_dataset(dataset).image_shape
    return [*MODELS, *(backbone.name for backbone in rank_for_images(shape))]


def _runs_of(model: str) -> list[str]:
    """List the newest runs that have trained a network, and have its weights."""
    found = []
    for run in list_runs()[:LATEST_RUNS]:
        try:
            if recipe_of(run).model == model and run.weights.exists():
                found.append(run.id)
        except LoupeError:  # its recipe is damaged
            continue
    return found


def field_widgets(base: Recipe, names: list[str], chosen: dict[str, Any], dataset: str | None = None) -> dict[str, Any]:
    """Show fields, three in a row; returns what is chosen in them, and in those before."""
    values = dict(chosen)
    for first in range(0, len(names), 3):
        for name, column in zip(names[first : first + 3], st.columns(3), strict=False):
            with column:
                values[name] = field_widget(base, name, values, dataset)
    return values


def field_widget(base: Recipe, field: str, chosen: dict[str, Any], dataset: str | None = None) -> Any:
    """Show the widget that fits a field's type; it starts at the recipe's value, or at the dataset that is wanted."""
    about = FIELDS[field].metadata
    own = getattr(base, field)
    label, unit = field.replace("_", " ").capitalize(), about["unit"]
    if kind_of(base.dataset) == "table":
        unit = unit.replace("images", "rows")
    if unit and not label.endswith(unit):
        label += f" ({unit})"
    help = f"{about['help']} The recipe's value: {in_short(own)}."
    key = _key(base, field, dataset)
    settings: dict[str, Any] = {"key": key, "help": help, "persist_state": "session"}
    if choices := choices_of(base, field, chosen):
        is_open = field in OPEN
        if not is_open and st.session_state.get(key) not in choices:  # a dataset that has been deleted, say
            st.session_state.pop(key, None)
        st.session_state.setdefault(key, _first(choices, own, dataset))
        in_words = IN_WORDS.get(field, str)
        return st.selectbox(
            label,
            choices,
            format_func=in_words,
            accept_new_options=is_open,
            index=None if st.session_state[key] is None else 0,
            placeholder="import one of your own" if field == "dataset" else None,
            **settings,
        )
    st.session_state.setdefault(key, own)
    if TYPES[field] is bool:
        return st.selectbox(label, (True, False), format_func=lambda on: "yes" if on else "no", **settings)
    if TYPES[field] is str:
        return st.text_input(label, placeholder="none", **settings)
    low, high = about["low"], about["high"]
    if TYPES[field] is float:
        step = 10.0 ** math.floor(math.log10(own)) if own else 0.01
        return st.number_input(label, float(low), float(high), step=step, format="%.6g", **settings)
    return st.number_input(label, low, high, **settings)


def _first(choices: list[str], own: str, wanted: str | None) -> str | None:
    """Return what is chosen at first; nothing for a recipe that leaves the dataset open, where none is one's own."""
    if wanted in choices:
        return wanted
    if own or choices[0] not in CATALOGUE:
        return own or choices[0]
    return None


def in_short(value: Any) -> str:
    """Write a field's value as a person would."""
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "none"


def changes_in_words(recipe: Recipe) -> str:
    """Say in what a recipe differs from the one that it is called after."""
    base = RECIPES[recipe.name]
    changed = [
        f"{name} {in_short(getattr(recipe, name))} (the recipe: {in_short(getattr(base, name))})"
        for name in FIELDS
        if getattr(recipe, name) != getattr(base, name) and (base.dataset or name != "dataset")
    ]
    return f"Changed: {', '.join(changed)}." if changed else ""


def downloads_of(recipe: Recipe) -> Iterator[str]:
    """Say what a training would download first."""
    source = CATALOGUE.get(recipe.dataset)
    if source and source.download_bytes and not is_prepared(recipe.dataset):
        size = source.download_bytes / 1e6
        yield f"{source.title} is not here yet; what is missing of its {size:.1f} MB is downloaded first."
    if starting_weights(recipe) == ImageNetWeights():
        backbone = BACKBONES[recipe.model]
        if not (weights_folder() / backbone.file).exists():
            yield f"The weights are not here yet; their {backbone.megabytes:.1f} MiB are downloaded first."
