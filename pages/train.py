import math
from typing import Any

import streamlit as st

from engine.catalogue import CATALOGUE, dataset_names, title_of
from engine.dataset import is_prepared
from engine.errors import LoupeError
from engine.recipes import ABOUT, FIELDS, MODELS, RECIPES, TYPES, Recipe, change, published
from engine.runs import ACTIVE, Run, list_runs, open_run, resume, start
from ui.live import show_run
from ui.state import enter, go, link
from ui.wording import show_problem

enter()


def attached() -> Run | None:
    """Return the run that the URL names, or else one that is going on."""
    name = st.query_params.get("run")
    if name:
        try:
            run = open_run(name)
            run.recipe  # noqa: B018 - a damaged one is told here
            return run
        except LoupeError as error:
            show_problem(error)
    going_on = next((run for run in list_runs() if run.has_process()), None)
    if going_on:
        st.query_params["run"] = going_on.id
    return going_on


def show_attached(run: Run) -> None:
    """Show a run, and when it has ended what can be done with it."""
    status = show_run(run)
    if status in ACTIVE:
        st.session_state.watched = run.id
        return
    if status in ("finished", "stopped") and run.weights.exists():
        # Whoever has watched it end is taken on, but not whoever comes back to it.
        if "then" in st.query_params and st.session_state.pop("watched", None) == run.id:
            go(st.query_params["then"] if st.query_params["then"] in ("gallery", "evaluate") else "gallery", run=run.id)
        for column, page, text in zip(
            st.columns(3),
            ("evaluate", "gallery", "classify"),
            ("Evaluate it", "See its mistakes", "Classify a picture"),
            strict=True,
        ):
            with column:
                link(page, text, run=run.id)
    if status != "finished" and run.checkpoint.exists() and st.button("Resume", icon=":material/resume:"):
        try:
            resume(run)
        except LoupeError as error:
            show_problem(error)
        else:
            st.rerun()


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
    help = f"{about['help']} The recipe's value: {default}."
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
    low, high = about["low"], about["high"]
    if TYPES[field] is float:
        step = 10.0 ** math.floor(math.log10(default)) if default else 0.01
        return st.number_input(label, float(low), float(high), default, step=step, format="%.6g", **settings)
    return st.number_input(label, low, high, default, **settings)


st.title("Train")
run = attached()
if run:
    show_attached(run)
others = [other for other in list_runs() if other.has_process() and (not run or other.id != run.id)]
for other in others:
    link("train", f"Also going on: {other.id} ({other.status()})", run=other.id)

st.subheader("New training")
try:
    recipe = choose_recipe()
except LoupeError as error:
    show_problem(error)
    st.stop()
st.caption(MODELS[recipe.model])
figures = published(recipe)
if figures:
    st.caption(f"Published, to compare with: {figures['test_accuracy']:.2%} test accuracy ({figures['source']}).")
if not is_prepared(recipe.dataset) and recipe.dataset in CATALOGUE and CATALOGUE[recipe.dataset].download_bytes:
    size = CATALOGUE[recipe.dataset].download_bytes / 1e6
    st.caption(
        f"{CATALOGUE[recipe.dataset].title} is not here yet; what is missing of its {size:.1f} MB is downloaded first."
    )
if st.button("Start training", type="primary", icon=":material/play_arrow:"):
    try:
        new = start(recipe)
    except LoupeError as error:
        show_problem(error)
    else:
        go("train", run=new.id, dataset=recipe.dataset)
