"""What the files were, and what the pixels are."""

import numpy as np
import pandas as pd
import streamlit as st

from engine.base.text import format_bytes
from engine.data.dataset import Dataset
from engine.data.source_files import SourceFiles, open_source_files
from engine.data.statistics import mean_and_std, pixel_levels
from ui.charts import CONFIG, histogram, level_chart

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "CMYK": "print colours (CMYK)",
    "I": "grey, 32 bits",
    "I;16": "grey, 16 bits",
    "I;16B": "grey, 16 bits",
    "F": "grey, floating point",
}


def show_shapes(dataset: Dataset) -> None:
    split = st.selectbox("Split", list(dataset.splits), key="split", bind="query-params", width=220)
    st.subheader("As files")
    origins = open_source_files(dataset, split)
    height, width, channels = dataset.image_shape
    colour = "one channel (grey)" if channels == 1 else "three channels (colour)"
    if origins is None:
        st.markdown(
            f"These images came as arrays: all are {width} x {height} pixels with {colour}, as they were published."
        )
    else:
        _files(origins)
        st.caption(f"Of {len(origins):,} {split} images, as they were. Here all are {width} x {height}, {colour}.")
    st.subheader("As pixels")
    levels = pixel_levels(dataset)
    st.plotly_chart(level_chart(levels), config=CONFIG, key="levels")
    mean, deviation = mean_and_std(levels)
    names = ["grey"] if channels == 1 else ["red", "green", "blue"]
    rows = {"Channel": names, "Mean": mean, "Deviation": deviation, "Mean (of 255)": 255 * mean}
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        width="content",
        column_config={
            name: st.column_config.NumberColumn(format="%.4f" if "255" not in name else "%.1f")
            for name in rows
            if name != "Channel"
        },
    )
    count = len(dataset.splits["train"])
    st.caption(
        f"Of all pixels of the {count:,} training images, on the scale 0 to 1. A training with the scaling “dataset” "
        "subtracts this mean and divides by this deviation; other scalings use fixed ones."
    )


def _files(origins: SourceFiles) -> None:
    widths, heights, sizes = origins.column("width"), origins.column("height"), origins.column("bytes")
    measures = {
        "width (pixels)": widths,
        "height (pixels)": heights,
        "aspect (width / height)": widths / heights,
        "file size (kB)": sizes / 1000,
    }
    # Of one size all, a chart would show a single bar.
    varied = {title: values for title, values in measures.items() if values.min() < values.max()}
    columns = st.columns(max(1, min(2, len(varied))))
    for number, (title, values) in enumerate(varied.items()):
        columns[number % len(columns)].plotly_chart(histogram(values, title), config=CONFIG, key=title)
    same = widths.min() == widths.max() and heights.min() == heights.max()
    size = f"{np.median(widths):,.0f} x {np.median(heights):,.0f} pixels"
    modes, counts = np.unique(origins.column("mode").astype(str), return_counts=True)
    kinds = ", ".join(
        f"{MODES.get(mode, mode)} {count:,}"
        for mode, count in sorted(zip(modes, counts, strict=True), key=lambda m: -m[1])
    )
    st.markdown(
        f"{'All were' if same else 'Median'} {size}; a median of {format_bytes(float(np.median(sizes)))} a file, "
        f"{format_bytes(float(sizes.sum()))} in all. Kinds: {kinds}."
    )
