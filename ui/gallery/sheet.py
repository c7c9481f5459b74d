"""The contact sheet of the images that were chosen, a page at a time."""

import hashlib

import numpy as np
import streamlit as st

from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions
from ui.contact_sheet import contact_sheet
from ui.pictures import tile_of
from ui.wording import plain

PAGE = 60


def show_sheet(predictions: Predictions, dataset: Dataset, rows: np.ndarray, words: str) -> int | None:
    """Show a page of rows; returns the row that was just clicked."""
    pages = -(-len(rows) // PAGE)
    caption, paging = st.columns([1, 1], vertical_alignment="center")
    number = 1
    if pages > 1:
        with paging:
            number = _turn_pages(pages, rows)
    shown = rows[(number - 1) * PAGE : number * PAGE]
    first = (number - 1) * PAGE + 1
    caption.caption(f"{first:,} to {first + len(shown) - 1:,} of {len(rows):,} {plain(words)}")
    picked = contact_sheet(
        [tile_of(predictions, dataset, int(row)) for row in shown], name=words, key="gallery", width=92
    )
    st.caption(
        "Solid green frame: right. Dashed orange frame: wrong. Below: true class → predicted class, and its "
        "probability. Click an image to look into it."
    )
    return picked


def _turn_pages(pages: int, rows: np.ndarray) -> int:
    """Let the person turn pages; returns the number of the one that is open, which is in the URL."""
    asked = st.query_params.get("page", "")[:9]  # Python refuses to read numbers of thousands of digits
    wanted = min(max(int(asked), 1), pages) if asked.isdecimal() else 1
    # Other images, or another order, have pages of their own. Streamlit's binding to the URL could not be sent back to
    # the first.
    number = st.pagination(pages, default=wanted, key=f"page of {hashlib.sha256(rows.tobytes()).hexdigest()[:16]}")
    # Each change of the URL is a step of the browser's history: none is made that changes nothing.
    if number != wanted:
        st.query_params["page"] = str(number)
    return number
