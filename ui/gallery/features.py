"""What a run's network makes of images, computed once for those who ask: on the page, with its progress."""

import time
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from engine.errors import LoupeError
from engine.runs import Run
from engine.words import duration
from ui.wording import show_problem

if TYPE_CHECKING:
    from engine.classifier import Classifier
    from engine.features import Features

# So many pixels or numbers go through a small network within a second or two: nobody is asked before.
LITTLE = 10_000_000


def open_classifier(run: Run) -> "Classifier | None":
    """Load a run's model; where it has none that can be used, say why and return None."""
    from engine.classifier import load_classifier

    try:
        return load_classifier(run)
    except LoupeError as error:
        show_problem(error)
        return None


def have_features(features: "Features", rows: np.ndarray, what: str, key: str) -> bool:
    """Tell whether the features of some images are there; where they are not, offer to compute them.

    what: the images in words, such as ``training images``. A few are computed unasked.
    """
    missing = len(features.missing(rows))
    if not missing:
        return True
    numbers = missing * prod(getattr(features.extractor.preprocess, "size", features.stored.images.shape[1:]))
    place = st.empty()
    if numbers > LITTLE:
        with place.container():
            asked = st.button(f"Put the {missing:,} {what} through the network", icon=":material/play_arrow:", key=key)
            st.caption("Done once for this run, and kept beside the dataset; it may be left and goes on where it was.")
        if not asked:
            return False
    bar = place.progress(0.0, text=f"{missing:,} {what}")
    began, done, told = time.monotonic(), 0, 0.0
    try:
        for count in features.fill(rows):
            done += count
            passed = time.monotonic() - began
            if passed > told + 0.2:
                told = passed
                left = duration(passed * (missing - done) / done)
                bar.progress(min(done / missing, 1.0), text=f"{done:,} of {missing:,} {what}, {left} left")
    except LoupeError as error:
        show_problem(error)
        return False
    finally:
        place.empty()
    return True
