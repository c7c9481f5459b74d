"""Whether a picture is like anything that the model was trained on."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES
from engine.runs.run import Run
from ui.gallery.features import have_features
from ui.wording import plain

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier
    from engine.inference.neighbours import Neighbour
    from engine.inference.novelty import Novelty


def show_likeness(run: Run, classifier: "Classifier", seen: np.ndarray) -> None:
    """Say how far a picture is from the nearest training image, and whether that is farther than usual."""
    from engine.inference.novelty import SHARE, open_novelty

    try:
        novelty = open_novelty(run, classifier)
        if not novelty.is_ready:
            place = st.empty()
            place.caption("Whether this is like anything in training is told by the features of all training images.")
            if not have_features(novelty.features, novelty.rows, "training images", "compute-likeness"):
                return
            place.empty()
        digest = hashlib.sha256(seen.tobytes()).hexdigest()
        threshold, near = novelty.threshold(), _nearest(novelty.features.values.name, digest, novelty, seen)
    except (LoupeError, OSError) as error:  # features may be deleted at any time, to make room for others
        st.caption(plain(error))
        return
    label, split = plain(classifier.classes[near.label]), SPLIT_NAMES[threshold.split]
    explained = (
        f"Its features are {near.distance:.3g} away from those of the nearest training image, labelled **{label}**; "
        f"{SHARE:.0%} of {threshold.count:,} {split} images are within {threshold.distance:.3g} of theirs."
    )
    if near.distance > threshold.distance:
        st.warning(
            f"**Unlike anything in training**, so the answer says little. {explained}", icon=":material/travel_explore:"
        )
    else:
        st.caption(f"Like what it was trained on. {explained} A picture of something else may be so as well.")


# All features are read for it, which a change elsewhere on the page need not do again.
@st.cache_resource(max_entries=64, show_spinner=False)
def _nearest(features: str, digest: str, _novelty: "Novelty", _seen: np.ndarray) -> "Neighbour":
    return _novelty.nearest(_seen)
