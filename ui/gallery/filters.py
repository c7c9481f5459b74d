"""Which images the gallery shows, and in which order: all of it is in the URL."""

from typing import Any

import numpy as np
import streamlit as st

from engine.evaluation.predictions import Predictions
from engine.evaluation.selection import ORDERS, RANDOM, in_order, select
from ui.state import one_of, share, tie, whole_number

SHOW = {"mistakes": False, "right": True, "all": None}
HIGHEST_SEED = 999_999


def choose_images(predictions: Predictions, item: str) -> tuple[np.ndarray, str]:
    """Let the person filter and sort; returns the rows of the chosen images, in order, and the filter in words."""
    any_class: dict[str, Any] = {"options": list(predictions.classes), "index": None, "placeholder": "any"}
    known = one_of(predictions.classes)
    above, below = st.columns(3), st.columns(3)
    which = above[0].selectbox("Show", list(SHOW), **tie("show", "mistakes", one_of(SHOW), to_first_page))
    true_class = above[1].selectbox("True class", **any_class, **tie("true", None, known, to_first_page))
    answer = above[2].selectbox("Predicted class", **any_class, **tie("predicted", None, known, to_first_page))
    orders = [*ORDERS, RANDOM]
    order = below[0].selectbox("Sort by", orders, **tie("sort", orders[0], one_of(orders), to_first_page))
    low, high = below[1].slider(
        "Confidence", 0.0, 1.0, step=0.01, **tie("confidence", (0.0, 1.0), _range, to_first_page)
    )
    seed = 0
    if order == RANDOM:
        seed = below[2].number_input(
            "Seed",
            0,
            HIGHEST_SEED,
            help="The same seed, the same order.",
            **tie("seed", 0, lambda text: whole_number(text, HIGHEST_SEED), to_first_page),
        )
    rows = select(predictions, true=true_class, predicted=answer, right=SHOW[which], confidence=(low, high))
    words = {"mistakes": "mistake", "right": "right answer", "all": item}[which] + ("" if len(rows) == 1 else "s")
    if true_class:
        words += f" of true class {true_class}"
    if answer:
        words += f" taken for {answer}"
    if (low, high) != (0, 1):
        words += f" at a confidence of {low:g} to {high:g}"
    return in_order(predictions, rows, order, int(seed)), words


def _range(low: str, high: str) -> tuple[float, float]:
    low_share, high_share = sorted((share(low), share(high)))
    return low_share, high_share


def to_first_page() -> None:
    for choice in ("page", "image"):
        st.query_params.pop(choice, None)
