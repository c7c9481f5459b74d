"""The mean image of each class, and how far each class varies."""

import numpy as np
import streamlit as st

from engine.data.dataset import Dataset
from engine.data.statistics import ClassAverage, average_class
from ui.contact_sheet import Tile, contact_sheet
from ui.explorer.look import look_at
from ui.wording import plain

PAGE = 60


@st.cache_data(max_entries=400, show_spinner=False)
def _average(name: str, fingerprint: str, split: str, label: int, _dataset: Dataset) -> ClassAverage | None:
    return average_class(_dataset, split, label)


def show_averages(dataset: Dataset) -> None:
    choices = st.columns(3, vertical_alignment="bottom")
    split = choices[0].selectbox("Split", list(dataset.splits), key="split", bind="query-params")
    pages = -(-len(dataset.classes) // PAGE)
    first = 0
    if pages > 1:
        with choices[1]:
            first = PAGE * (st.pagination(pages, key="average-page") - 1)
    shown = range(first, min(first + PAGE, len(dataset.classes)))
    found = {label: _average(dataset.name, dataset.fingerprint, split, label, dataset) for label in shown}
    averages = {label: average for label, average in found.items() if average is not None}
    if not averages:
        st.info(f"The {split} split has no images of these classes.", icon=":material/info:")
        return
    st.markdown("**Mean image of each class.** The sharper it is, the more alike its images are.")
    picked = contact_sheet(
        [_tile(dataset, label, average, average.mean) for label, average in averages.items()],
        name="mean images",
        key="means",
        width=104,
    )
    st.markdown(
        "**Where each class varies.** Bright where its images differ from their mean, on the same scale for all."
    )
    highest = max(average.std.max() for average in averages.values()) or 1.0
    varied = contact_sheet(
        [_tile(dataset, label, average, average.std * (255 / highest)) for label, average in averages.items()],
        name="variation of each class",
        key="deviations",
        width=104,
    )
    by_variation = sorted(averages, key=lambda label: averages[label].variation)
    least, most = by_variation[0], by_variation[-1]
    if len(averages) > 1:
        st.markdown(
            f"Of these, **{plain(dataset.classes[least])}** varies least, a pixel being "
            f"±{averages[least].variation:.0f} of 255 levels from its mean, and "
            f"**{plain(dataset.classes[most])}** most, ±{averages[most].variation:.0f}."
        )
    used, count = sum(average.used for average in averages.values()), sum(each.count for each in averages.values())
    whole = "all" if used == count else f"{used:,}, evenly spread, of"
    st.caption(f"Of {whole} {count:,} {split} images of these classes. Click a class to see its images.")
    chosen = picked if picked is not None else varied
    if chosen is not None:
        look_at(view="images", **{"class": dataset.classes[chosen]})


def _tile(dataset: Dataset, label: int, average: ClassAverage, image: np.ndarray) -> Tile:
    name = dataset.classes[label]
    varies = f"±{average.variation:.0f} levels"
    return Tile(label, image.round().clip(0, 255).astype(np.uint8), f"{name}, {varies}", (name, varies))
