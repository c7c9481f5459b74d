"""Asking a run's model about one picture; what was asked before is kept."""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from PIL import Image

from engine.base.errors import LoupeError
from engine.images.pictures import Original, Picture, open_picture
from engine.runs.run import Run
from ui.classifying.answers import SIDE, ClassifiedPicture
from ui.classifying.inputs import Given
from ui.contact_sheet import enlarged
from ui.tables import state_of
from ui.wording import show_problem

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier
    from engine.inference.saliency import Saliency
    from engine.networks.preprocessing import Preprocessing


def classify_one(run: Run, given: Given, normalize: bool) -> tuple[dict[str, Any], ClassifiedPicture | None]:
    """Classify a picture: its row in a table, and what can be looked into, None where it could not be classified."""
    content = given.content if given.pixels is None else given.pixels.tobytes()
    digest = hashlib.sha256(content or b"").hexdigest()
    return _ask(digest, given.name, given.true, run.id, state_of(run.weights), normalize, given, run)


@st.cache_data(max_entries=200, show_spinner="Classifying")
def _ask(
    digest: str, name: str, true: str | None, run: str, state: tuple, normalize: bool, _given: Given, _run: Run
) -> tuple[dict[str, Any], ClassifiedPicture | None]:
    from engine.inference.batch import Answer, answer
    from engine.inference.classifier import load_classifier

    classifier = load_classifier(_run)
    try:
        found = answer(classifier, name, _opened(_given, classifier.preprocessing), normalize)
    except LoupeError as error:
        return Answer(name, error=str(error)).as_row(), None
    pixels: Any = found.pixels
    original = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    original.thumbnail((2 * SIDE, 2 * SIDE))
    row = found.as_row() | ({"true": true} if true else {})
    seen: Any = found.seen
    return row, ClassifiedPicture(list(found.top), list(found.notes), found.size, np.asarray(original), seen)


def _opened(given: Given, preprocessing: "Preprocessing") -> Picture:
    if given.pixels is None:
        return open_picture(given.content or b"", preprocessing.image_shape[2], preprocessing.levels)
    height, width = given.pixels.shape[:2]
    return Picture(np.array(given.pixels), Original(width, height, ""), "")


def show_evidence(run: Run, classifier: "Classifier", look: ClassifiedPicture) -> None:
    """Show where in a picture the evidence for the answer is, laid over what the model sees."""
    from engine.inference.saliency import overlay

    target = classifier.classes.index(look.top[0]["label"])
    digest = hashlib.sha256(look.seen.tobytes()).hexdigest()
    try:
        found = _evidence(digest, run.id, state_of(run.weights), target, classifier, look.seen)
    except LoupeError as error:
        show_problem(error)
        return
    seen = enlarged(look.seen, SIDE)
    factor = seen.shape[0] // look.seen.shape[0]
    heat = found.heat.repeat(factor, axis=0).repeat(factor, axis=1)
    st.image(overlay(seen, heat, 0.6), width="stretch", output_format="PNG")
    how = "where the score changes most" if found.layer is None else "Grad-CAM"
    st.caption(f"Bright where the evidence is: {how}")


# Shared, not copied: nobody writes to it.
@st.cache_resource(max_entries=64, show_spinner=False)
def _evidence(
    digest: str, run: str, state: tuple, target: int, _classifier: "Classifier", _seen: np.ndarray
) -> "Saliency":
    from engine.inference.saliency import saliency

    return saliency(_classifier, _seen, target)
