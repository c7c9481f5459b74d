"""A table of numbers, as points and as rows."""

import numpy as np
import pandas as pd
import streamlit as st

from engine.data.dataset import Dataset
from ui.charts import CONFIG, point_chart

ROWS = 1000


def show_points(dataset: Dataset) -> None:
    """Show the rows in their two principal components, coloured by class."""
    points, share = principal_components(dataset)
    st.plotly_chart(point_chart(points, dataset.classes), config=CONFIG, key="points")
    st.caption(
        f"Each point is a row, seen along the two directions in which the training rows vary most: {share:.0%} of "
        "their variance. Circles: train. Crosses: test."
    )


def principal_components(dataset: Dataset) -> tuple[pd.DataFrame, float]:
    """Project all rows on the two principal components of the training rows; also their share of the variance."""
    train = dataset.splits["train"].images.astype(np.float64)
    centre = train.mean(axis=0)
    _, strengths, directions = np.linalg.svd(train - centre, full_matrices=False)
    tables = []
    for split_name, split in dataset.splits.items():
        places = (split.images - centre) @ directions[:2].T
        tables.append(pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "label": split.labels, "split": split_name}))
    return pd.concat(tables), float(np.square(strengths[:2]).sum() / np.square(strengths).sum())


def show_rows(dataset: Dataset) -> None:
    split_name = st.selectbox("Split", list(dataset.splits), key="split", bind="query-params", width=220)
    split = dataset.splits[split_name]
    shown = split.images[:ROWS]
    table = pd.DataFrame(shown, columns=[f"feature {number + 1}" for number in range(shown.shape[1])])
    table.insert(0, "class", [dataset.classes[label] for label in split.labels[:ROWS]])
    st.dataframe(table, placeholder="")
    st.caption(f"{len(shown):,} of {len(split):,} {split_name} rows.")
