"""Which images the gallery shows, and in which order: all of it is in the URL."""

from typing import Any

import numpy as np
import streamlit as st

from engine.predictions import Predictions
from engine.selection import ORDERS, RANDOM, in_order, select

SHOW = {"mistakes": False, "right": True, "all": None}
HIGHEST_SEED = 999_999


def choose_images(predictions: Predictions, item: str) -> tuple[np.ndarray, str]:
    """Let the person filter and sort; returns the rows of the chosen images, in order, and the filter in words."""
    changed: dict[str, Any] = {"bind": "query-params", "on_change": to_first_page}
    among: dict[str, Any] = {"options": list(predictions.classes), "index": None, "placeholder": "any"} | changed
    above, below = st.columns(3), st.columns(3)
    which = above[0].selectbox("Show", list(SHOW), key="show", **changed)
    truth = above[1].selectbox("True class", key="true", **among)
    answer = above[2].selectbox("Predicted class", key="predicted", **among)
    order = below[0].selectbox("Sort by", [*ORDERS, RANDOM], key="sort", **changed)
    low, high = below[1].slider("Confidence", 0.0, 1.0, (0.0, 1.0), 0.01, key="confidence", **changed)
    seed = 0
    if order == RANDOM:
        seed = below[2].number_input(
            "Seed", 0, HIGHEST_SEED, key="seed", help="The same seed, the same order.", **changed
        )
    rows = select(predictions, true=truth, predicted=answer, right=SHOW[which], confidence=(low, high))
    words = {"mistakes": "mistake", "right": "right answer", "all": item}[which] + ("" if len(rows) == 1 else "s")
    if truth:
        words += f" of true class {truth}"
    if answer:
        words += f" taken for {answer}"
    if (low, high) != (0, 1):
        words += f" at a confidence of {low:g} to {high:g}"
    return in_order(predictions, rows, order, int(seed)), words


def to_first_page() -> None:
    for choice in ("page", "image"):
        st.query_params.pop(choice, None)
