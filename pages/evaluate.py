import json

import pandas as pd
import streamlit as st

from engine.predictions import Predictions, confusion_matrix, evaluation, most_confused
from engine.recipes import published
from engine.runs import Run
from ui.charts import CONFIG, confusion_chart, curves, recall_bars
from ui.state import choose_run, enter, go, head, link, open_predictions
from ui.tables import SPLIT_NAMES, history_of, in_words
from ui.wording import plain

enter()


def headline(run: Run, predictions: Predictions) -> None:
    right = int(predictions.right.sum())
    accuracy, mistakes, reference = st.columns(3)
    accuracy.metric(f"Accuracy on the {SPLIT_NAMES[predictions.split]} images", f"{predictions.accuracy:.2%}")
    accuracy.caption(in_words(right, len(predictions)))
    mistakes.metric("Mistakes", f"{len(predictions) - right:,}")
    mistakes.caption(f"of {len(predictions):,} images")
    figures = published(run.recipe)
    reference.metric("Published", f"{figures['test_accuracy']:.2%}" if figures else "-")
    if figures:
        reference.caption(str(figures["source"]))
    else:
        reference.caption("None for these settings.")


def matrix(run: Run, predictions: Predictions) -> None:
    """Show the confusion matrix; a click on a cell opens the gallery on its images."""
    st.subheader("Confusion matrix")
    shares = st.toggle("Shares of each row, in percent", key="shares")
    # A counter in the key clears the selection, so that coming back does not open the gallery again.
    clicks = st.session_state.setdefault("matrix_clicks", 0)
    event = st.altair_chart(
        confusion_chart(
            confusion_matrix(predictions),
            predictions.classes,
            shares=shares,
        ),
        on_select="rerun",
        key=f"matrix-{run.id}-{clicks}",
    )
    cells = event["selection"].get("cell")
    if cells:
        st.session_state.matrix_clicks = clicks + 1
        go("gallery", run=run.id, true=cells[0]["true"], predicted=cells[0]["predicted"], show="all")
    st.caption(
        "Rows are true classes, columns predicted ones; a cell's shade is its share of the row. "
        "Click a cell to see its images."
    )


def classes(run: Run, per_class: list[dict]) -> None:
    st.subheader("Each class")
    st.plotly_chart(recall_bars(per_class), config=CONFIG, key="recall")
    st.caption(
        "Share of each class's images that were recognised: its recall, also called per-class accuracy. "
        "Whiskers: 95% intervals."
    )
    table = pd.DataFrame(per_class)
    table[["precision", "recall", "f1"]] *= 100
    number = st.column_config.NumberColumn
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "class": "Class",
            "precision": number("Precision", format="%.2f%%", help="Share of the images so answered that are of it."),
            "recall": number("Recall", format="%.2f%%", help="Share of its images that were recognised."),
            "f1": number("F1", format="%.2f%%", help="Harmonic mean of precision and recall."),
            "support": number("Images", format="localized"),
        },
    )


def confusions(run: Run, predictions: Predictions) -> None:
    pairs = most_confused(predictions)
    if not pairs:
        st.success("No mistakes at all on these images.", icon=":material/check:")
        return
    st.subheader("Most confused")
    for true, predicted, count, total in pairs[:5]:
        link(
            "gallery",
            f"**{plain(true)}** taken for **{plain(predicted)}**: {count:,} of {total:,} images",
            run=run.id,
            true=true,
            predicted=predicted,
            show="all",
        )
    link("gallery", "Any other pair: choose it in the gallery", run=run.id, show="all")


def downloads(run: Run, predictions: Predictions, result: dict) -> None:
    table = pd.DataFrame(
        {
            "index": predictions.indices,
            "true": [predictions.classes[label] for label in predictions.labels],
            "predicted": [predictions.classes[label] for label in predictions.predicted],
            "confidence": predictions.confidence,
        }
    )
    left, right = st.columns(2)
    left.download_button(
        "Predictions as CSV", table.to_csv(index=False), f"{run.id}-{predictions.split}.csv", icon=":material/download:"
    )
    right.download_button(
        "Evaluation as JSON",
        json.dumps(result, indent=1),
        f"{run.id}-{predictions.split}.json",
        icon=":material/download:",
    )


run = choose_run()
head("Evaluate", run)
predictions = open_predictions(run)
result = evaluation(run.id, predictions)
headline(run, predictions)
matrix_side, confused_side = st.columns([3, 2])
with matrix_side:
    matrix(run, predictions)
with confused_side:
    confusions(run, predictions)
classes(run, result["per_class"])
st.subheader("Training")
history = history_of(run)
loss, accuracy = st.columns(2)
loss.plotly_chart(curves(history, "loss"), config=CONFIG, key="loss")
accuracy.plotly_chart(curves(history, "accuracy"), config=CONFIG, key="accuracy")
if history.ended:
    st.caption(f"Kept: {plain(history.ended.kept)}.")
downloads(run, predictions, result)
