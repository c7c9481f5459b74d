import streamlit as st

from engine.catalogue import CATALOGUE
from engine.dataset import is_prepared
from engine.errors import LoupeError
from engine.recipes import MODELS, published_in_words
from engine.runs import ACTIVE, Run, list_runs, open_run, resume, start
from ui.layers import show_layers
from ui.live import show_run
from ui.recipe_form import choose_recipe
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
show_layers(recipe)
figures = published_in_words(recipe)
if figures:
    st.caption(f"Published, to compare with: {figures}.")
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
