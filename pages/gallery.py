import numpy as np
import streamlit as st

from engine.base.text import SPLIT_NAMES, pluralize, printable
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run
from ui.gallery.filters import choose_images
from ui.gallery.map import show_map
from ui.gallery.one import show_one
from ui.gallery.points import show_rows
from ui.gallery.sheet import show_sheet
from ui.pictures import open_pictures
from ui.state import choose_run, choose_view, enter, head, keep_view, link, open_predictions, whole_number
from ui.tables import recipe_of
from ui.wording import plain, show_problem

enter()

VIEW = ("show", "true", "predicted", "sort", "confidence", "seed", "page", "image", "as", "places", "colour")
SHEET, MAP, TABLE = "Contact sheet", "Map", "Table"


def asked_for(predictions: Predictions, item: str) -> int | None:
    """Return the row of the image that the URL asks for; where there is no such one, say so."""
    asked = st.query_params.get("image")
    if not asked:
        return None
    try:
        return whole_number(asked, len(predictions) - 1)
    except ValueError:
        there_are = f"they are numbered from 0 to {len(predictions) - 1:,}"
        show_problem(
            f"There is no {item} {printable(asked)} here: {there_are}. Shown below are those that the filters choose."
        )
        return None


def show_none(run: Run, words: str, wrong: int, items: str) -> None:
    """Say that there is nothing to show, and what there is instead."""
    if wrong:
        st.info(f"There are no {plain(words)}. Change or clear the filters above.", icon=":material/filter_alt:")
        return
    none = "" if words == "mistakes" else f"There are no {plain(words)}. "
    st.success(f"{none}This run made no mistakes here.", icon=":material/check:")
    link("gallery", f"See the least sure of all {items}", run=run.id, show="all", sort="least confident")


def show_all(run: Run, predictions: Predictions, dataset: Dataset, rows: np.ndarray, words: str) -> None:
    """Show the chosen images, on a contact sheet or a map; a click opens one."""
    views = (MAP, TABLE) if dataset.kind == "table" else (SHEET, MAP)
    view = choose_view("View", views, "as")
    picked = None
    if view == MAP:
        picked = show_map(run, predictions, dataset, rows, words)
    elif view == TABLE:
        picked = show_rows(predictions, dataset, rows)
    else:
        picked = show_sheet(predictions, dataset, rows, words)
    if picked is not None:
        st.query_params["image"] = str(picked)
        st.rerun()


run = choose_run("Gallery")
keep_view(f"the gallery of {run.id}", VIEW)
head("Gallery", run)
predictions = open_predictions(run)
item = item_of(recipe_of(run).dataset)
dataset = open_pictures(run, predictions)
if dataset is None:
    link("evaluate", "See the figures of this run", run=run.id)
    st.stop()
wrong = int((~predictions.correct).sum())
of = pluralize(len(predictions), f"{SPLIT_NAMES[predictions.split]} {item}")
st.markdown(f"**{pluralize(wrong, 'mistake')}** in {of}.")
row = asked_for(predictions, item)
with st.expander("Filter and sort", icon=":material/filter_alt:", expanded=row is None):
    rows, words = choose_images(predictions, item)
if row is not None:
    show_one(run, predictions, dataset, row, rows, words)
elif not len(rows):
    show_none(run, words, wrong, f"{item}s")
else:
    show_all(run, predictions, dataset, rows, words)
