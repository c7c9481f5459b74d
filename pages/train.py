import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import pluralize
from engine.data.catalogue import kind_of
from engine.recipes.recipe import FIELDS, published_in_words
from engine.runs.run import ACTIVE, Run, list_runs, open_run, resume, start
from ui.advice import offer_advice, show_advice
from ui.layers import show_layers
from ui.live import going_on, show_run
from ui.networks import about_features, about_model, compare_networks
from ui.recipe_form import changes_in_words, choose_recipe, downloads_of
from ui.state import enter, go, link
from ui.tables import recipe_of
from ui.wording import plain, show_problem

enter()

MORE_EPOCHS = 5


def attached() -> Run | None:
    """Return the run that the URL names, or else one that is going on."""
    name = st.query_params.get("run")
    if name:
        try:
            run = open_run(name)
            recipe_of(run)  # a damaged one is told here
            return run
        except LoupeError as error:
            show_problem(error)
    found = next((run for run in list_runs() if run.has_process()), None)
    if found:
        st.query_params["run"] = found.id
    return found


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
        ways = {"evaluate": "Evaluate it", "gallery": "See its mistakes", "classify": "Classify a picture"}
        if kind_of(recipe_of(run).dataset) == "table":
            del ways["classify"]
        for column, (page, text) in zip(st.columns(3), ways.items(), strict=False):
            with column:
                link(page, text, run=run.id)
    if status != "finished":
        offer_to_resume(run)
    if status in ("finished", "stopped") and run.checkpoint.exists():
        offer_more_epochs(run)


def offer_to_resume(run: Run) -> None:
    has_begun = run.checkpoint.exists()
    where = "from its last checkpoint" if has_begun else "from the beginning: it has no checkpoint"
    if st.button("Resume", icon=":material/resume:", help=f"Goes on {where}.", key="resume"):
        go_on(run)


def offer_more_epochs(run: Run) -> None:
    """Offer to train a run further than its recipe said."""
    made = len(run.history().epochs)
    room = int(FIELDS["epochs"].metadata["high"]) - made
    if room < 1:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        more = st.number_input(
            "More epochs",
            1,
            room,
            min(MORE_EPOCHS, room),
            help=f"To be made beyond the {pluralize(made, 'epoch')} that this run has.",
            width=160,
            key=f"more-{run.id}",
        )
        if st.button(
            "Train further",
            icon=":material/fast_forward:",
            help="Goes on with these weights. A schedule other than constant is stretched over the new length.",
            key="further",
        ):
            go_on(run, made + more)


def go_on(run: Run, epochs: int | None = None) -> None:
    try:
        resume(run, epochs)
    except LoupeError as error:
        show_problem(error)
    else:
        st.session_state.begun = True
        st.rerun()


st.title("Train")
if st.session_state.pop("begun", False):
    st.toast("The training has begun: it is at the top of this page.", icon=":material/arrow_upward:")
run = attached()
if run:
    show_attached(run)
for name, status in going_on(but=run).items():
    link("train", f"Also going on: {name} ({status})", run=name)

st.subheader("New training")
try:
    recipe = choose_recipe()
except LoupeError as error:
    show_problem(error)
    st.stop()
st.caption(about_model(recipe))
compare_networks(recipe)
show_layers(recipe)
figures = published_in_words(recipe)
if figures:
    st.caption(f"Published, to compare with: {figures}.")
for sentence in filter(None, (about_features(recipe), *downloads_of(recipe), changes_in_words(recipe))):
    st.caption(plain(sentence))
with st.container(horizontal=True):
    started = st.button("Start training", type="primary", icon=":material/play_arrow:")
    asked = offer_advice()
if started:
    try:
        new = start(recipe)
    except LoupeError as error:
        show_problem(error)
    else:
        st.session_state.begun = True
        go("train", run=new.id, dataset=recipe.dataset)
show_advice(recipe, asked)
