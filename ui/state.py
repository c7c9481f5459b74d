"""The pages, and the choices that they share. Choices live in the URL, so that a link shows the same view."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Never, TypeVar

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES, printable
from engine.data.catalogue import dataset_names, title_of
from engine.data.dataset import open_dataset
from engine.evaluation.predictions import Predictions
from engine.runs.run import ACTIVE, Run, list_runs, open_run
from ui.tables import STATUS_ICONS, history_of, label, predictions_of, recipe_of, summarize
from ui.wording import plain, show_problem

PAGES = {
    "home": st.Page("pages/home.py", title="Home", icon=":material/home:", default=True),
    "explore": st.Page("pages/explore.py", title="Explore", icon=":material/grid_view:"),
    "train": st.Page("pages/train.py", title="Train", icon=":material/model_training:"),
    "evaluate": st.Page("pages/evaluate.py", title="Evaluate", icon=":material/rule:"),
    "gallery": st.Page("pages/gallery.py", title="Gallery", icon=":material/photo_library:"),
    "classify": st.Page("pages/classify.py", title="Classify", icon=":material/image_search:"),
    "runs": st.Page("pages/runs.py", title="Runs", icon=":material/history:"),
}


Value = TypeVar("Value")


def enter() -> None:
    """Send whoever came to a page past the entry script through it. Each page calls this first.

    Streamlit runs a script in a folder called pages by itself, without the entry script, for those who are the first
    to come to a new server; ``st.navigation`` ends that.
    """
    if "entered" not in st.session_state:
        PagesManager.uses_pages_directory = False
        st.rerun()


def note_arrival(page: str) -> None:
    """Note whether a person has just come to a page, or does something on it."""
    st.session_state.arrived = st.session_state.get("at") != page
    st.session_state.at = page


def keep_view(name: str, parts: Collection[str]) -> None:
    """Bring back the view of a page, these parts of its URL, for those who come to it again with none of them.

    So do the sidebar and the browser's Back: Streamlit empties the URL in a step of its own before it leaves a page.
    """
    if st.session_state.arrived and not any(part in st.query_params for part in parts):
        st.query_params.update(st.session_state.get(f"view of {name}", {}))
    present = [part for part in parts if part in st.query_params]
    st.session_state[f"view of {name}"] = {part: st.query_params.get_all(part) for part in present}


def go(page: str, **choices: str | list[str]) -> Never:
    """Switch to a page with choices in its URL."""
    st.switch_page(PAGES[page], query_params=choices)


def link(page: str, text: str, **choices: str | list[str]) -> None:
    """Offer the way to a page with choices in its URL; a range is a choice of two."""
    st.page_link(PAGES[page], label=text, query_params=choices)


def choose_dataset() -> str:
    """Let the person choose a dataset in the sidebar."""
    return _choose("Dataset", "dataset", dataset_names(), title_of)


def _choose(text: str, key: str, options: list[str], format_func: Callable[[str], str]) -> str:
    """Show a choice in the sidebar that is always in the URL, and kept when the URL of another page lacks it.

    Streamlit's own binding would write the label, not the option, and leave out the first.
    """
    asked = st.query_params.get(key)
    wanted = asked if asked in options else st.session_state.get(key)
    # Written even where it is there already: left alone, it falls back to the first option where the way to this page
    # cut the script of the last one short.
    st.session_state[key] = st.query_params[key] = wanted if wanted in options else options[0]
    return st.sidebar.selectbox(
        text,
        options,
        format_func=format_func,
        key=key,
        persist_state="session",
        on_change=_note_choice,
        args=(key,),
    )


def choose_view(text: str, options: Sequence[str], key: str) -> str:
    """Let the person choose one of a few, shown side by side: the first unless the URL says, or was chosen before."""
    asked, kept = st.query_params.get(key), st.session_state.get(key)
    chosen = options[0]
    for wanted in (kept, asked):
        if wanted is not None and wanted in options:
            chosen = wanted
    st.session_state[key] = chosen
    # Each change of the URL is a step of the browser's history: none is made for what needs no saying.
    if chosen != (asked or options[0]):
        st.query_params[key] = chosen
    st.segmented_control(
        text,
        options,
        key=key,
        required=True,
        label_visibility="collapsed",
        persist_state="session",
        on_change=_note_choice,
        args=(key,),
    )
    return chosen


def tie(
    key: str, default: Value, read: Callable[..., Value], changed: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Tie a widget to the part of the URL that is named as its key; returns what the widget is to be made with.

    read: makes a value of the text, or the texts, in the URL; raises ValueError or TypeError for what cannot be meant.
    Streamlit's own binding empties the URL of a page that is left, and the way back would not lead to the same view.
    """
    asked = st.query_params.get_all(key)
    value = default
    if any(asked):
        try:
            value = read(*asked)
        except (ValueError, TypeError):
            text = plain(" and ".join(printable(part) for part in asked))
            st.warning(f"There is no **{key}** {text} here, so this choice is left out.", icon=":material/link_off:")
    # Written only where it differs: what is written is sent back, and a key held down would be set back by it.
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return {"key": key, "on_change": _write, "args": (key, default, changed)}


def _write(key: str, default: object, changed: Callable[[], object]) -> None:
    value = st.session_state[key]
    if value == default:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = [f"{part:g}" for part in value] if isinstance(value, tuple) else str(value)
    changed()


def one_of(options: Collection[str]) -> Callable[[str], str]:
    """Return a reader of texts that takes only these."""

    def read(text: str) -> str:
        if text not in options:
            raise ValueError(text)
        return text

    return read


def whole_number(text: str, most: int) -> int:
    """Read a number from 0 to ``most``; raises ValueError for anything else."""
    # Python refuses to read numbers of thousands of digits.
    if not text.isdecimal() or len(text) > 9 or int(text) > most:
        raise ValueError(text)
    return int(text)


def share(text: str) -> float:
    """Read a number from 0 to 1; raises ValueError for anything else."""
    number = float(text)
    if not 0 <= number <= 1:  # nor what is no number
        raise ValueError(text)
    return number


def _note_choice(key: str) -> None:
    st.query_params[key] = st.session_state[key]
    st.query_params.pop("import", None)  # whoever chooses a dataset wants to see that


def choose_run(title: str) -> Run:
    """Let the person choose a run in the sidebar; where there is none, say under the title what to do, and end."""
    asked = st.query_params.get("run")
    if asked:
        try:
            open_run(asked)
        except LoupeError as error:
            show_problem(f"{error} Shown below is the newest.")
    names = [run.id for run in list_runs()]
    if not names:
        st.title(title)
        st.info("There is no trained model yet. The quick start trains one in under a minute.", icon=":material/info:")
        link("home", "Go to the quick start")
        st.stop()
    return open_run(_choose("Run", "run", names, label))


def head(title: str, run: Run) -> None:
    """Show a page's title and which run it is about: the sidebar may be folded away.

    Ends the page when the run's recipe is damaged.
    """
    summary = summarize(run)
    how = "" if summary["accuracy"] is None else f" · {summary['accuracy']:.2%} of {summary['count']}"
    st.title(title)
    what = f" · {plain(summary['model'])} on {plain(summary['dataset'])}" if summary["model"] else ""
    st.caption(f"{STATUS_ICONS[summary['status']]} {plain(run.id)}{what} · {summary['status']}{how}")
    try:
        recipe_of(run)  # the pages take it for granted
    except LoupeError as error:
        show_problem(error)
        st.stop()


def open_predictions(run: Run) -> Predictions:
    """Open what a run answered on its test images, or where it has none on its validation images.

    Where there is nothing yet, say why, offer what helps, and end the page.
    """
    split = "val" if run.predictions("val").exists() and not run.predictions("test").exists() else "test"
    try:
        return predictions_of(run, split)
    except LoupeError as error:
        history = history_of(run)
        if run.status(history) in ACTIVE:
            st.info("This run is still going on; its evaluation comes at its end.", icon=":material/hourglass_top:")
            link("train", "Watch it", run=run.id)
            st.stop()
        show_problem(run.explain(history) or error)
        if run.weights.exists() and st.button("Evaluate its model now", icon=":material/rule:"):
            evaluate_now(run)
        st.stop()


def evaluate_now(run: Run) -> None:
    """Run a model that was left without an evaluation on its images."""
    from engine.inference.classifier import gather, has_split, load_classifier

    bar = st.progress(0.0, text="Loading the model")
    try:
        recipe = recipe_of(run)
        classifier, dataset = load_classifier(run), open_dataset(recipe.dataset)
        split = "test" if has_split(dataset, recipe, "test") else "val"
        for progress in gather(classifier, run, dataset, split):
            text = f"{progress.done:,} of {progress.total:,} {SPLIT_NAMES[split]} images"
            bar.progress(progress.done / progress.total, text=text)
    except LoupeError as error:
        bar.empty()
        show_problem(error)
    else:
        st.rerun()
