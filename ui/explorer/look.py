"""A contact sheet of images drawn at random."""

from typing import Never

import numpy as np
import streamlit as st

from engine.base.text import format_bytes
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files
from ui.contact_sheet import Tile, contact_sheet, enlarged
from ui.wording import plain

SHEET = 48
MOST = 10 * SHEET
HIGHEST_SEED = 999_999


def show_sample(dataset: Dataset) -> None:
    """Show random images of a class and split; a click shows one large."""
    choices = st.columns([3, 2, 2, 2, 2], vertical_alignment="bottom")
    label = choices[0].selectbox(
        "Class", dataset.classes, index=None, placeholder="all classes", key="class", bind="query-params"
    )
    split_name = choices[1].selectbox("Split", list(dataset.splits), key="split", bind="query-params")
    seed = choices[2].number_input(
        "Seed",
        0,
        HIGHEST_SEED,
        key="seed",
        bind="query-params",
        help="Decides which images are drawn: the same seed, the same images.",
    )
    choices[3].button(
        "Again", icon=":material/shuffle:", help="Draw others, with the next seed.", width="stretch", on_click=_again
    )
    split = dataset.splits[split_name]
    candidates = (
        np.arange(len(split)) if label is None else np.flatnonzero(split.labels == dataset.classes.index(label))
    )
    if not len(candidates):
        st.info(f"The {split_name} split has no image of the class {plain(label)}.", icon=":material/info:")
        return
    count = min(_wanted(), len(candidates))
    choices[4].button(
        "More",
        icon=":material/add:",
        help=f"Show {SHEET} more of the same draw, up to {MOST}.",
        width="stretch",
        on_click=_more,
        disabled=count in (len(candidates), MOST),
    )
    # The whole draw at once, so that more of it begins with what is shown already.
    drawn = np.random.default_rng(seed).permutation(len(candidates))[:count]
    tiles = [tile(dataset, split_name, int(index)) for index in candidates[drawn]]
    picked = contact_sheet(tiles, name=f"{split_name} images", key="sample")
    of = "images" if label is None else f"images of {plain(label)}"
    st.caption(f"{count:,} of {len(candidates):,} {split_name} {of}, drawn at random with seed {seed}.")
    if picked is not None:
        show_large(dataset, split_name, picked)


def _wanted() -> int:
    asked = st.query_params.get("shown", "")[:6]  # Python refuses to read numbers of thousands of digits
    return min(int(asked), MOST) if asked.isdecimal() and int(asked) else SHEET


def _more() -> None:
    st.query_params["shown"] = str(_wanted() + SHEET)


def _again() -> None:
    st.session_state.seed = (st.session_state.seed + 1) % (HIGHEST_SEED + 1)


def look_at(**choices: str) -> Never:
    """Show the page anew with other choices: widgets that are there already cannot be changed, nor their part of the
    URL."""
    st.session_state["look-at"] = choices
    st.rerun()


def take_choices() -> dict[str, str]:
    """Make and return the choices of ``look_at``, if there are any. Called before the widgets that they are for."""
    choices = st.session_state.pop("look-at", {})
    for key, choice in choices.items():
        st.session_state[key] = choice
    return choices


def tile(dataset: Dataset, split_name: str, index: int, *lines: str) -> Tile:
    """Make the tile of an image, with its class below, or other lines."""
    split = dataset.splits[split_name]
    true_class = dataset.classes[split.labels[index]]
    return Tile(index, split.images[index], f"{true_class}, image {index} of {split_name}", lines or (true_class,))


@st.dialog("One image")
def show_large(dataset: Dataset, split_name: str, index: int, reason: str = "") -> None:
    """Show one image large, with all that is known of it."""
    split = dataset.splits[split_name]
    st.image(enlarged(split.images[index], 320))
    height, width, channels = dataset.image_shape
    facts = {
        "Class": plain(dataset.classes[split.labels[index]]),
        "Place": f"index {index:,} of the {len(split):,} images in {split_name}",
        "Size": f"{width} x {height} pixels, {'grey' if channels == 1 else 'colour'}",
    }
    origins = open_source_files(dataset, split_name)
    if origins is not None:
        was = origins.of(index)
        facts["File"] = plain(was["file"])
        facts["Originally"] = (
            f"{was['width']:,} x {was['height']:,} pixels, {was['mode']}, {format_bytes(was['bytes'])}"
        )
    if reason:
        facts["Odd"] = plain(reason)
    st.markdown("\n".join(f"- {name}: **{fact}**" for name, fact in facts.items()))
