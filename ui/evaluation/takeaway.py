"""What can be taken away: the model, and its evaluation; each made when it is asked for."""

import json
from typing import Any

import pandas as pd
import streamlit as st

from engine.base.errors import LoupeError
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files
from engine.evaluation.metrics import report
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run, dataset_of
from ui.exporting import show_exports
from ui.tables import recipe_of


def show_downloads(run: Run, predictions: Predictions, result: dict) -> None:
    st.subheader("The model")
    show_exports(run)
    st.subheader("Its evaluation")
    item, stem = item_of(recipe_of(run).dataset), f"{run.id}-{predictions.split}"
    offers = (
        (
            "Report as HTML",
            f"The whole evaluation as one file that opens anywhere, without a network: figures, matrix, charts, and "
            f"the {item}s behind the mistakes.",
            lambda: _report(run, predictions),
            f"{stem}.html",
            "text/html",
        ),
        (
            "Predictions as CSV",
            f"A line for each of the {len(predictions):,} {item}s: where it is, what it is, what was answered, how "
            "sure, the loss, and the probability of every class.",
            lambda: prediction_table(predictions, _dataset(run, predictions)).to_csv(index=False),
            f"{stem}.csv",
            "text/csv",
        ),
        (
            "Scores as text",
            "Precision, recall and F1 of each class with their averages, as scikit-learn's report writes them.",
            lambda: report(predictions),
            f"{stem}.txt",
            "text/plain",
        ),
        (
            "Evaluation as JSON",
            "All figures of this page, for scripts: what python -m engine evaluate prints.",
            lambda: json.dumps(result, indent=1),
            f"{stem}.json",
            "application/json",
        ),
    )
    for name, about, make, file, kind in offers:
        button, words = st.columns([1, 2], vertical_alignment="center")
        button.download_button(
            name, make, file, kind, icon=":material/download:", on_click="ignore", width="stretch", key=f"get-{file}"
        )
        words.markdown(about)
    with st.expander("Scores as text, to look at"):
        st.code(report(predictions), language=None)


def _dataset(run: Run, predictions: Predictions) -> Dataset | None:
    try:
        return dataset_of(run, predictions)
    except LoupeError:
        return None


def _report(run: Run, predictions: Predictions) -> str:
    from engine.export.report import report_html

    return report_html(run, predictions, _dataset(run, predictions))


def prediction_table(predictions: Predictions, dataset: Dataset | None) -> pd.DataFrame:
    """Make a table of predictions, an image a row; with file names where the dataset has them."""
    names = predictions.classes
    columns: dict[str, Any] = {"index": predictions.indices}
    origins = open_source_files(dataset, predictions.stored_in) if dataset else None
    if origins:
        columns["file"] = [origins.of(index)["file"] for index in predictions.indices.tolist()]
    columns |= {
        "true": [names[label] for label in predictions.labels],
        "predicted": [names[label] for label in predictions.predicted],
        "right": predictions.correct,
        "confidence": predictions.confidence,
        "loss": predictions.losses,
    }
    columns |= {f"probability of {name}": predictions.probabilities[:, label] for label, name in enumerate(names)}
    return pd.DataFrame(columns)
