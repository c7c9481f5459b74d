"""Copies and near copies, with what they do to an accuracy; and odd images."""

from collections.abc import Callable

import numpy as np
import streamlit as st

from engine.audit.inspection import (
    DEFAULT_THRESHOLD,
    MAX_DISTANCE,
    Inspection,
    Outlier,
    Pair,
    Place,
    Progress,
    inspect,
    load_inspection,
)
from engine.base.progress import run_to_end
from engine.base.text import pluralize
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files, original_sizes
from ui.contact_sheet import Tile, contact_sheet, enlarged
from ui.explorer.look import show_large
from ui.wording import plain

PAGE = 24
GAP = 0.06  # between the two images of a pair, as a share of their width

KINDS: dict[str, Callable[[Pair], bool]] = {
    "all pairs": lambda pair: True,
    "one in train, one in test": lambda pair: {pair.first.split, pair.second.split} == {"train", "test"},
    "within one split": lambda pair: pair.first.split == pair.second.split,
    "with different labels": lambda pair: not pair.same_label,
}


@st.cache_resource(max_entries=4, show_spinner=False)
def _inspection(name: str, fingerprint: str, _dataset: Dataset) -> Inspection:
    """Return what the check of a dataset found; the first time it is made now, with its progress on the page."""
    found = load_inspection(_dataset)
    if found is not None:
        return found
    bar = st.progress(0.0, text="Looking for copies and odd images, once")

    def tell(progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 0.0
        bar.progress(min(share, 1.0), text=f"{progress.stage}: {progress.done:,} of {progress.total:,}")

    found = run_to_end(inspect(_dataset, original_sizes(_dataset)), tell)
    bar.empty()
    return found


def show_copies(dataset: Dataset) -> None:
    inspection = _inspection(dataset.name, dataset.fingerprint, dataset)
    choices = st.columns(2, vertical_alignment="bottom")
    kind = choices[0].selectbox("Show", list(KINDS), key="pairs", bind="query-params")
    threshold = choices[1].slider(
        "Near copies differ by at most (bits of 64)",
        0,
        MAX_DISTANCE,
        DEFAULT_THRESHOLD,
        key="threshold",
        bind="query-params",
        help="What an image looks like, in a perceptual hash of 64 bits. A lower number asks for more likeness.",
    )
    near = inspection.near_within(threshold)
    st.markdown(leaks_in_words(dataset, inspection, threshold))
    st.markdown(_pairs_in_words(inspection, near))
    pairs = [(pair, "exact copies") for pair in inspection.exact]
    pairs += [(pair, f"{pluralize(pair.distance, 'bit')} apart") for pair in near]
    shown = [(pair, how) for pair, how in pairs if KINDS[kind](pair)]
    if not shown:
        st.success(f"No copies to show ({kind}).", icon=":material/check:")
        return
    first = _page(len(shown), f"copies-page-{kind}-{threshold}")
    tiles = [_pair_tile(dataset, first + number, *each) for number, each in enumerate(shown[first : first + PAGE])]
    picked = contact_sheet(tiles, name="pairs of copies", key="pairs-sheet", width=190)
    if picked is not None and picked < len(shown):
        _show_pair(dataset, *shown[picked])


def leaks_in_words(dataset: Dataset, inspection: Inspection, threshold: int) -> str:
    """Say how many test images have a twin in train, and what that does."""
    if "test" not in dataset.splits:
        return "There is no test split that training images could have leaked into."
    count = len(dataset.splits["test"])
    leaked = len(inspection.leaked_test(threshold))
    if not leaked:
        return f"**No leak**: none of the {count:,} test images has a copy among the training images."
    have = "has" if leaked == 1 else "have"
    return (
        f"**{leaked:,} of {count:,} test images {have} a twin in train** ({leaked / count:.2%}). A model has seen "
        "these before: they can make a test accuracy look better than it is, by up to that share."
    )


def _pairs_in_words(inspection: Inspection, near: tuple[Pair, ...]) -> str:
    different = sum(not pair.same_label for pair in (*inspection.exact, *near))
    exact = pluralize(len(inspection.exact), "exact copy").replace("copys", "copies")
    words = f"{exact} (the same pixels) and {pluralize(len(near), 'pair')} of near copies"
    if different:
        words += f"; **{pluralize(different, 'pair')} with different labels**, of which one must be wrong"
    if inspection.near_cut:
        words += "; there are more, the closest are kept"
    return words + "."


def _page(count: int, key: str) -> int:
    """Let the person turn pages, where there are some; returns where the page begins."""
    pages = -(-count // PAGE)
    return PAGE * (st.pagination(pages, key=key) - 1) if pages > 1 else 0


def _image(dataset: Dataset, place: Place) -> np.ndarray:
    return dataset.splits[place.split].images[place.index]


def _label(dataset: Dataset, place: Place) -> str:
    return dataset.classes[dataset.splits[place.split].labels[place.index]]


def _name(dataset: Dataset, place: Place) -> str:
    return f"{place.split} {place.index}: {_label(dataset, place)}"


def _pair_tile(dataset: Dataset, number: int, pair: Pair, how: str) -> Tile:
    first, second = _image(dataset, pair.first), _image(dataset, pair.second)
    gap = np.full((first.shape[0], max(1, round(GAP * first.shape[1])), first.shape[2]), 128, np.uint8)
    names = _name(dataset, pair.first), _name(dataset, pair.second)
    mark = "" if pair.same_label else "wrong"
    return Tile(
        number, np.concatenate([first, gap, second], axis=1), f"{names[0]}; {names[1]}; {how}", (*names, how), mark
    )


@st.dialog("A pair", width="medium")
def _show_pair(dataset: Dataset, pair: Pair, how: str) -> None:
    for column, place in zip(st.columns(2), (pair.first, pair.second), strict=True):
        column.image(enlarged(_image(dataset, place), 280))
        origins = open_source_files(dataset, place.split)
        file = f" · {plain(origins.of(place.index)['file'])}" if origins is not None else ""
        label = plain(_label(dataset, place))
        column.markdown(f"**{label}** · image {place.index:,} of {place.split}{file}")
    st.markdown(how.capitalize() + ("." if pair.same_label else ", but with **different labels**."))


def show_odd(dataset: Dataset) -> None:
    """Show images that are blank, dark, bright, blurred or of an odd shape, the worst first."""
    odd = _inspection(dataset.name, dataset.fingerprint, dataset).odd
    count = sum(len(split) for split in dataset.splits.values())
    if not odd:
        st.success(
            f"Of {count:,} images none is blank, extremely dark or bright, blurred or oddly shaped beside the others.",
            icon=":material/check:",
        )
        return
    st.markdown(
        f"**{pluralize(len(odd), 'odd image')}** of {count:,}, the worst first. Blank ones are always listed; anything "
        "else is odd beside the other images of this dataset. Look whether they belong in it."
    )
    first = _page(len(odd), "odd-page")
    shown = odd[first : first + PAGE]
    tiles = [_odd_tile(dataset, first + number, each) for number, each in enumerate(shown)]
    picked = contact_sheet(tiles, name="odd images", key="odd-sheet", width=150)
    if picked is not None and picked < len(odd):
        show_large(dataset, odd[picked].split, odd[picked].index, odd[picked].reason)


def _odd_tile(dataset: Dataset, number: int, odd: Outlier) -> Tile:
    place = Place(odd.split, odd.index)
    name = _name(dataset, place)
    return Tile(number, _image(dataset, place), f"{name}; {odd.reason}", (odd.reason.partition(":")[0], name))
