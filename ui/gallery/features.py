"""What a run's network makes of images, computed once for those who ask: on the page, with its progress."""

import time
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_duration
from engine.runs.run import Run
from ui.wording import show_problem

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier
    from engine.networks.features import Features

# What takes no longer is done unasked; how long it takes is told by its first second.
UNASKED_SECONDS, TRIAL_SECONDS = 15, 1


def open_classifier(run: Run) -> "Classifier | None":
    """Load a run's model; where it has none that can be used, say why and return None."""
    from engine.inference.classifier import load_classifier

    try:
        return load_classifier(run)
    except LoupeError as error:
        show_problem(error)
        return None


def have_features(features: "Features", rows: np.ndarray, what: str, key: str) -> bool:
    """Tell whether the features of some images are there; where they are not, compute them, or offer to.

    what: the images in words, such as ``training images``. What takes long is offered, with how long it takes.
    """
    missing = len(features.missing(rows))
    if not missing:
        return True
    place = st.empty()
    estimates = st.session_state.setdefault("seconds for features", {})
    takes = estimates.get(features.values.name)
    if takes:
        with place.container():
            asked = st.button(f"Put the {what} through the network", icon=":material/play_arrow:", key=key)
            st.caption(
                f"{missing:,} of {len(rows):,} are left, which takes about {format_duration(takes)}. Done once for "
                "this run, and kept beside the dataset; it may be left and goes on where it was."
            )
        if not asked:
            return False
    bar = place.progress(0.0, text=f"{missing:,} {what}")
    began, done, told = time.monotonic(), 0, 0.0
    try:
        for count in features.fill(rows):
            done += count
            passed = time.monotonic() - began
            left = passed * (missing - done) / done
            if not takes and passed > TRIAL_SECONDS and left > UNASKED_SECONDS:
                estimates[features.values.name] = left
                st.rerun()
            if passed > told + 0.2:
                told = passed
                bar.progress(
                    min(done / missing, 1.0), text=f"{done:,} of {missing:,} {what}, {format_duration(left)} left"
                )
    except LoupeError as error:
        show_problem(error)
        return False
    finally:
        place.empty()
    return True
