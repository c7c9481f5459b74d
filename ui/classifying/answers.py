"""What a model says of pictures: all of them in a table, and one looked into."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from engine.base.text import format_probability
from engine.evaluation.metrics import wilson_interval
from ui.charts import CONFIG, probability_bars
from ui.contact_sheet import enlarged
from ui.wording import plain, show_problem

SIDE = 224
FIGURE = 130
# With more, small pictures in the table would be tens of megabytes to send.
MOST_WITH_PICTURES = 2000
TABLE_HEIGHT, ROW_HEIGHT = 430, 46


class ClassifiedPicture(NamedTuple):
    """One picture that was classified, to be looked into.

    top: the most probable classes. notes: what was done to it. size: width and height as it came. original, seen:
    uint8 (height, width, channels), it in small and what the model saw. error: why there is no answer.
    """

    top: list[dict[str, Any]]
    notes: list[str]
    size: tuple[int, int]
    original: np.ndarray
    seen: np.ndarray


def show_table(rows: Sequence[dict[str, Any]], file: str) -> int:
    """Show many answers as a table that can be sorted; returns the row that is chosen, the first unless another is.

    file: what the answers are called when they are downloaded.
    """
    table = pd.DataFrame(
        {
            "picture": [row.get("thumbnail") for row in rows],
            "file": [row["file"] for row in rows],
            "label": [row.get("label") for row in rows],
            "confidence": [row.get("confidence") for row in rows],
            "true": [row.get("true") for row in rows],
            "right": [row.get("true") and row["true"] == row.get("label") for row in rows],
            "unlike": [row.get("unlike") for row in rows],
            "distance": [row.get("distance") for row in rows],
            "error": [row.get("error") for row in rows],
            "notes": [" ".join(row.get("notes", ())) for row in rows],
        }
    )
    empty = [name for name in table if name != "label" and not table[name].replace("", None).notna().any()]
    table = table.drop(columns=empty)
    _show_accuracy(rows)
    shown = table.drop(columns="distance", errors="ignore")
    if len(rows) > MOST_WITH_PICTURES:
        shown = shown.drop(columns="picture", errors="ignore")
        st.caption(f"Without small pictures, as there are more than {MOST_WITH_PICTURES:,}; choose a row to see one.")
    columns: dict[str, Any] = {
        "picture": st.column_config.ImageColumn("Picture", width=60),
        "file": st.column_config.TextColumn("File", width="medium"),
        "label": st.column_config.TextColumn("Label"),
        "confidence": st.column_config.NumberColumn("Confidence", format="percent"),
        "true": st.column_config.TextColumn(
            "True", help="What the picture's folder or the beginning of its name says."
        ),
        "right": st.column_config.CheckboxColumn("Right"),
        "unlike": st.column_config.CheckboxColumn(
            "Unlike training", help="Farther from every training image than usual."
        ),
        "notes": st.column_config.TextColumn("What was done", width="large"),
        "error": st.column_config.TextColumn("Reason it was not classified", width="large"),
    }
    picked = st.dataframe(
        shown,
        hide_index=True,
        column_config={name: column for name, column in columns.items() if name in shown},
        on_select="rerun",
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [0], "columns": []}},
        height=min(ROW_HEIGHT * len(rows) + 40, TABLE_HEIGHT),
        placeholder="",
        row_height=ROW_HEIGHT,
        key=f"answers-{file}",
    )
    show_csv(table.drop(columns="picture", errors="ignore"), file)
    return picked.selection.rows[0] if picked.selection.rows else 0


def show_csv(table: pd.DataFrame, file: str) -> None:
    st.download_button(
        "Answers as CSV",
        lambda: table.to_csv(index=False),
        f"{file}.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
        key=f"csv-{file}",
    )


def _show_accuracy(rows: Sequence[dict[str, Any]]) -> None:
    """Say how many are right of those that are known, where that is most of them: others may be so by chance."""
    known = [row for row in rows if row.get("true")]
    if not known or 2 * len(known) < len(rows):
        return
    right = sum(row["true"] == row["label"] for row in known)
    low, high = wilson_interval(right, len(known))
    st.markdown(
        f"**{right:,} of {len(known):,} right** of those whose class is known: {right / len(known):.1%} "
        f"(95% interval {low:.1%} to {high:.1%})."
    )


def show_one(
    name: str,
    look: ClassifiedPicture,
    true: str | None,
    show_evidence: Callable[[], None],
    show_likeness: Callable[[], None],
) -> None:
    """Show one picture: the answer, it as it came, as the model sees it, and where the evidence is."""
    best = look.top[0]
    verdict = ""
    if true:
        verdict = (
            " :green[:material/check:]" if true == best["label"] else f" :orange[:material/close:] it is {plain(true)}"
        )
    width, height = look.size
    rows, columns = look.seen.shape[:2]
    with st.container(border=True):
        st.markdown(f"### {plain(best['label'])}{verdict}")
        st.caption(
            f"{plain(name)}: **{plain(best['label'])}** with {format_probability(best['confidence'])} confidence"
        )
        pictures, chart = st.columns([2, 1], gap="small")
        with pictures, st.container(horizontal=True, gap="small"):
            with st.container(width=FIGURE):
                st.image(enlarged(look.original, SIDE), width="stretch")
                st.caption(f"As it came: {width:,}\u00a0x\u00a0{height:,} pixels")
            with st.container(width=FIGURE):
                st.image(enlarged(look.seen, SIDE), width="stretch", output_format="PNG")
                st.caption(f"As the model sees it: {columns}\u00a0x\u00a0{rows}")
            with st.container(width=FIGURE):
                show_evidence()
        chart.plotly_chart(probability_bars(look.top, true), config=CONFIG, key=f"top-{name}")
        for note in look.notes:
            st.caption(f":material/info: {plain(note)}")
        show_likeness()


def show_bad(name: str, error: str) -> None:
    with st.container(border=True):
        show_problem(f"{name}: {error}")
