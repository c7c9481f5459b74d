"""Rows of a table in the gallery: points in place of pictures."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_probability
from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run
from ui.charts import CONFIG, category, class_names, ink, style
from ui.explorer.points import principal_components
from ui.pictures import picture_of
from ui.wording import show_problem

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier


def places_of_rows(predictions: Predictions, dataset: Dataset) -> tuple[np.ndarray, float]:
    """Place rows by their numbers, in their two principal components: float32 (count, 2), and the share of variance."""
    places, share = principal_components(dataset)
    stored = places[places.split == predictions.stored_in][["x", "y"]].to_numpy(np.float32)
    return stored[predictions.indices], share


def show_rows(predictions: Predictions, dataset: Dataset, rows: np.ndarray) -> int | None:
    """Show rows as a table: what was answered, and from which numbers; returns the row that was just clicked."""
    stored = predictions.indices[rows]
    names = np.array(predictions.classes, dtype=object)
    answers = {
        "": np.where(predictions.correct[rows], "✓ right", "✗ wrong"),
        "True class": names[predictions.labels[rows]],
        "Predicted class": names[predictions.predicted[rows]],
        "Confidence": [format_probability(confidence) for confidence in predictions.confidence[rows]],
    }
    numbers = dataset.splits[predictions.stored_in].images[stored]
    features = {f"x{number}": column for number, column in enumerate(numbers.T, start=1)}
    clicks = st.session_state.setdefault("row_clicks", 0)
    picked = st.dataframe(
        pd.DataFrame(answers | features | {"Row": stored}),
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format="%.4g") for name in features},
        placeholder="",
        on_select="rerun",
        selection_mode="single-row",
        key=f"rows-{clicks}",
    ).selection.rows
    st.caption(
        f"x1 to x{len(features)}: the numbers of the row. Confidence: the probability of the predicted class. "
        f"Row: its place in the {predictions.stored_in} split. Click the box before a row to look into it."
    )
    if not picked:
        return None
    # A new key drops the selection, so that coming back does not open it again.
    st.session_state.row_clicks = clicks + 1
    return int(rows[picked[0]])


def show_point(run: Run, predictions: Predictions, dataset: Dataset, row: int, classifier: "Classifier | None") -> None:
    """Show a row among the training rows, and what each of its numbers does to the answer."""
    places, share = principal_components(dataset)
    train = places[places.split == "train"]
    here = places[places.split == predictions.stored_in].iloc[int(predictions.indices[row])]
    st.plotly_chart(_point_among(train, here, predictions.classes), config=CONFIG, key="point")
    st.caption(f"The star is this row, the points are the training rows: {share:.0%} of their variance is seen here.")
    if classifier is None:
        return
    from engine.inference.saliency import row_gradients

    numbers = picture_of(predictions, dataset, row)
    try:
        gradients = row_gradients(classifier, numbers, int(predictions.predicted[row]))
    except LoupeError as error:
        show_problem(error)
        return
    st.dataframe(
        {
            "Number": [f"x{number}" for number in range(1, len(numbers) + 1)],
            "Value": numbers,
            "Effect": gradients,
        },
        hide_index=True,
        column_config={
            "Value": st.column_config.NumberColumn(format="%.4g"),
            "Effect": st.column_config.NumberColumn(
                format="%+.3g",
                help="By how much the score (logit) of the answer changes when the number, as the model sees it, grows "
                "by 1.",
            ),
        },
    )


def _point_among(train: pd.DataFrame, here: pd.Series, classes: tuple[str, ...]) -> go.Figure:
    figure = go.Figure()
    for label, name in enumerate(class_names(classes)):
        part = train[train.label == label]
        figure.add_scatter(
            x=part.x.to_numpy(),
            y=part.y.to_numpy(),
            name=name,
            mode="markers",
            marker={"size": 5, "color": category(label), "opacity": 0.5},
            hovertemplate="%{x:.3g}, %{y:.3g}",
        )
    figure.add_scatter(
        x=[here.x],
        y=[here.y],
        name="this row",
        mode="markers",
        marker={"symbol": "star", "size": 18, "color": category(int(here.label)), "line": {"color": ink(), "width": 2}},
        hovertemplate="%{x:.3g}, %{y:.3g}",
    )
    style(figure, height=340, x="first principal component", y="second principal component", legend=True)
    return figure.update_layout(hovermode="closest")
