from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from engine.dataset import Dataset, open_dataset
from engine.errors import LoupeError
from engine.predictions import Predictions, top
from engine.runs import Run
from engine.selection import in_order, select
from engine.words import counted
from ui.charts import CONFIG, probability_bars
from ui.contact_sheet import Tile, contact_sheet, enlarged
from ui.state import choose_run, enter, head, open_predictions
from ui.tables import SPLIT_NAMES, item_of, sure
from ui.wording import plain, show_problem

enter()

PAGE = 60
SHOW = {"mistakes": False, "right": True, "all": None}


def to_first_page() -> None:
    st.session_state.page = 1


def filters(predictions: Predictions, items: str) -> tuple[np.ndarray, str]:
    """Let the person filter; returns the chosen items, most confident mistakes first, and the filter in words."""
    show, true, predicted = st.columns(3)
    filtering: dict[str, Any] = {"bind": "query-params", "on_change": to_first_page}
    which = show.selectbox("Show", list(SHOW), key="show", **filtering)
    among: dict[str, Any] = {"options": list(predictions.classes), "index": None, "placeholder": "any"} | filtering
    truth = true.selectbox("True class", key="true", **among)
    answer = predicted.selectbox("Predicted class", key="predicted", **among)
    indices = in_order(
        predictions, select(predictions, true=truth, predicted=answer, right=SHOW[which]), "most confident"
    )
    words = {"mistakes": "mistakes", "right": "right answers", "all": items}[which]
    of = f" of true class {truth}" if truth else ""
    as_ = f" taken for {answer}" if answer else ""
    return indices, words + of + as_


def tile(predictions: Predictions, dataset: Dataset, row: int) -> Tile:
    truth = predictions.classes[predictions.labels[row]]
    answer = predictions.classes[predictions.predicted[row]]
    how_sure = sure(predictions.confidence[row])
    right = bool(predictions.right[row])
    return Tile(
        index=row,
        image=dataset.splits[predictions.stored_in].images[predictions.indices[row]],
        title=f"{truth}, recognised with {how_sure}" if right else f"{truth}, taken for {answer} with {how_sure}",
        lines=(truth if right else f"{truth} → {answer}", how_sure),
        mark="right" if right else "wrong",
    )


def show_rows(predictions: Predictions, dataset: Dataset, rows: np.ndarray) -> None:
    """Show rows of a table: what was answered, and the numbers that the answer was made from."""
    stored = predictions.indices[rows]
    numbers = dataset.splits[predictions.stored_in].images[stored]
    names = np.array(predictions.classes, dtype=object)
    right = predictions.right[rows]
    answers = {
        "": np.where(right, "✓ right", "✗ wrong"),
        "True class": names[predictions.labels[rows]],
        "Predicted class": names[predictions.predicted[rows]],
        "Confidence": [sure(confidence) for confidence in predictions.confidence[rows]],
    }
    features = {f"x{number}": column for number, column in enumerate(numbers.T, start=1)}
    st.dataframe(
        pd.DataFrame(answers | features | {"Row": stored}),
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format="%.4g") for name in features},
        placeholder="",
        height="content",
    )
    st.caption(
        f"x1 to x{len(features)}: the numbers of the row. Confidence: the probability of the predicted class. "
        f"Row: its place in the {predictions.stored_in} split."
    )


@st.dialog("One image")
def show_large(predictions: Predictions, dataset: Dataset, row: int) -> None:
    stored = int(predictions.indices[row])
    truth = predictions.classes[predictions.labels[row]]
    st.image(enlarged(dataset.splits[predictions.stored_in].images[stored], 280))
    answer = plain(predictions.classes[predictions.predicted[row]])
    right = predictions.right[row]
    verdict = ":green[:material/check: right]" if right else f":orange[:material/close: taken for **{answer}**]"
    of_truth = predictions.probabilities[row, predictions.labels[row]]
    st.markdown(
        f"{verdict} · true class **{plain(truth)}**, which got {sure(of_truth)} · image {stored:,} of the "
        f"{predictions.stored_in} split"
    )
    best = top(predictions.probabilities[row], predictions.classes)
    st.plotly_chart(probability_bars(best, truth), config=CONFIG, key="probabilities")


run: Run = choose_run("Gallery")
head("Gallery", run)
predictions = open_predictions(run)
item = item_of(run.recipe.dataset)
items = f"{item}s"
try:
    dataset = open_dataset(run.recipe.dataset)
    stored = dataset.splits[predictions.stored_in]
    if dataset.fingerprint != predictions.fingerprint or predictions.indices.max() >= len(stored):
        raise LoupeError(
            f"The dataset {dataset.name} has changed since this run was evaluated, so its {items} cannot be shown. "
            "Train the recipe again on the dataset as it is now."
        )
except LoupeError as error:
    show_problem(error)
    st.stop()

wrong = int((~predictions.right).sum())
st.markdown(
    f"**{counted(wrong, 'mistake')}** in {counted(len(predictions), f'{SPLIT_NAMES[predictions.split]} {item}')}. "
    "The most confident mistakes come first."
)
rows, words = filters(predictions, items)
if not len(rows):
    if not wrong:
        st.success(
            f"This run made no mistakes here. Show all {items} to see the least sure last.", icon=":material/check:"
        )
    else:
        st.info(f"There are no {words}. Change or clear the filters above.", icon=":material/filter_alt:")
    st.stop()
pages = -(-len(rows) // PAGE)
caption, paging = st.columns([1, 1], vertical_alignment="center")
number = 1
if pages > 1:
    with paging:
        number = st.pagination(pages, key="page", bind="query-params")
shown = rows[(number - 1) * PAGE : number * PAGE]
caption.caption(f"{(number - 1) * PAGE + 1:,} to {(number - 1) * PAGE + len(shown):,} of {len(rows):,} {words}")
if dataset.kind == "table":
    show_rows(predictions, dataset, shown)
    st.stop()
picked = contact_sheet([tile(predictions, dataset, int(row)) for row in shown], name=words, key="gallery", width=92)
st.caption(
    "Solid green frame: right. Dashed orange frame: wrong. Below: true class → predicted class, and its probability."
)
if picked is not None:
    show_large(predictions, dataset, picked)
