"""Which random changes training images get: a widget for each, and what they do to some of the images themselves."""

import hashlib
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.data.catalogue import kind_of
from engine.data.dataset import is_prepared, open_dataset
from engine.images.pictures import JPEG_FROM_PIXELS, data_url
from engine.recipes.augmentation import FIELDS, Augmentation, parse_augmentation
from engine.recipes.recipe import Recipe
from ui.components import component
from ui.wording import show_problem

SAMPLES = 8  # as many as the style sheet has columns
VERSIONS = 3  # of each; the caption says so

LABELS = {
    "flip": "Flip",
    "shift": "Shift (pixels)",
    "rotate": "Rotate (degrees)",
    "crop": "Crop (least share)",
    "erase": "Erase (share)",
}
HELP = {
    "flip": "Half of the images are mirrored, left to right.",
    "shift": "Each image is moved by up to so many pixels, up or down and left or right; black comes in at the edges.",
    "rotate": "Each image is turned by up to so many degrees, either way.",
    "crop": "A part of each image is enlarged to the full size: at least this share of its sides; 1 keeps all of it.",
    "erase": "A square is filled with the mean colour of the image; its side is this share of the shorter side.",
}
STEPS = {"shift": 1, "rotate": 5.0, "crop": 0.05, "erase": 0.05}

_component = component("augmentation")


def choose_augmentation(base: Recipe, dataset: str) -> dict[str, str]:
    """Show a section with the changes that a recipe makes; returns its field ``augment``, or nothing for a table."""
    if kind_of(base.dataset) == "table":
        return {}
    own = parse_augmentation(base.augment)
    _fill(base, own)
    chosen = str(_chosen(base))
    folded = st.expander(
        "Augmentation",  # what is chosen is no part of it: under a new label the section would fold
        # A page that shows a run is there for that, which PyTorch, loading for the preview, would be in the way of.
        expanded=bool(base.augment) and "run" not in st.query_params,
        on_change="rerun",
        key=f"{base.name}:augmentation",
    )
    with folded:
        for name, column in zip(FIELDS, st.columns(len(FIELDS), vertical_alignment="bottom"), strict=True):
            with column:
                _widget(base, name, getattr(own, name))
        if folded.open:
            _preview(dataset, chosen)
    return {"augment": chosen}


def _key(base: Recipe, name: str) -> str:
    return f"{base.name}:augment:{name}"


def _fill(base: Recipe, own: Augmentation) -> None:
    """Bring the widgets to the recipe's own value, or to the one that was put into the state for the whole field."""
    put = st.session_state.pop(f"{base.name}:augment", None)
    values = own if put is None else parse_augmentation(put)
    for name in FIELDS:
        if put is not None or _key(base, name) not in st.session_state:
            st.session_state[_key(base, name)] = getattr(values, name)


def _chosen(base: Recipe) -> Augmentation:
    values: dict[str, Any] = {}
    for name in FIELDS:
        value = st.session_state[_key(base, name)]
        # As shown: steps of 0.05 from 0.1 lead to 0.15000000000000002.
        values[name] = float(f"{value:.6g}") if isinstance(value, float) else value
    return Augmentation(**values)


def _widget(base: Recipe, name: str, own: bool | int | float) -> None:
    """Show the widget of one change; its value is in the state."""
    in_words = ("on" if own else "off") if isinstance(own, bool) else f"{own:g}"
    help = f"{HELP[name]} The recipe's value: {in_words}."
    key = _key(base, name)
    if isinstance(own, bool):
        st.toggle(LABELS[name], key=key, help=help, persist_state="session")
        return
    kind, about = type(own), FIELDS[name].metadata
    st.number_input(
        LABELS[name],
        kind(about["low"]),
        kind(about["high"]),
        step=STEPS[name],
        format="%d" if kind is int else "%.6g",
        key=key,
        help=help,
        persist_state="session",
    )


@st.fragment(parallel=True)  # the rest of the page need not wait until PyTorch is loaded
def _preview(name: str, augment: str) -> None:
    """Show some training images, and below each how training might see it."""
    if not augment:
        st.caption("No change is chosen: training sees the images as they are stored.")
        return
    if not is_prepared(name):
        st.caption(
            "To see what this does to the images, get the dataset on the Explore page first, or start the training."
        )
        return
    draw = st.session_state.setdefault("augmentation-draw", 0)
    try:
        dataset = open_dataset(name)
        # A spinner takes the images' place, and everything below would jump: only for the seconds of the first time.
        with nullcontext() if "torch" in sys.modules else st.spinner("Loading PyTorch"):
            columns = _columns(name, dataset.fingerprint, augment, draw)
    except LoupeError as error:
        show_problem(error)
        return
    height, width, _ = dataset.image_shape
    data = {
        "columns": columns,
        "shape": f"{width} / {height}",
        "small": max(height, width) < JPEG_FROM_PIXELS,
        "version": hashlib.sha256(repr(columns).encode()).hexdigest()[:16],
    }
    _component(data=data, key="augmentation-preview")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Top of each column: a training image as stored. Below it: three ways that training might see it.")
        st.button("Other images", icon=":material/shuffle:", key="augmentation-again", on_click=_again)


def _again() -> None:
    st.session_state["augmentation-draw"] += 1


@st.cache_data(max_entries=20, show_spinner=False)
def _columns(name: str, fingerprint: str, augment: str, draw: int) -> list[dict]:
    dataset = open_dataset(name)
    split = dataset.splits["train"]
    indices = draw_samples(split.labels, draw)
    stored = split.images[indices]
    changed = changed_versions(stored, parse_augmentation(augment), draw)
    return [
        {
            "label": dataset.classes[split.labels[index]],
            "images": [data_url(image) for image in (before, *afters)],
        }
        for index, before, afters in zip(indices, stored, changed, strict=True)
    ]


def draw_samples(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw the indices of a few images, of as many classes as there can be, in the order of their classes."""
    random = np.random.default_rng(seed)
    classes = random.permutation(np.flatnonzero(np.bincount(labels)))[:SAMPLES]
    drawn: list[int] = []
    for turn, label in enumerate(np.sort(classes)):
        share = len(range(turn, SAMPLES, len(classes)))  # where classes are few, several of each
        own = np.flatnonzero(labels == label)
        drawn += random.choice(own, min(share, len(own)), replace=False).tolist()
    return np.array(drawn)


def changed_versions(images: np.ndarray, augmentation: Augmentation, seed: int) -> np.ndarray:
    """Change each image several times over as training does; returns uint8 (images, versions, height, ...)."""
    import torch

    from engine.networks.augment import augment

    batch = torch.from_numpy(images.repeat(VERSIONS, axis=0))
    changed = augment(batch, augmentation, torch.Generator().manual_seed(seed))
    return changed.numpy().reshape(len(images), VERSIONS, *images.shape[1:])
