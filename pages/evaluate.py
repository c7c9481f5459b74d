import json
from typing import Any

import pandas as pd
import streamlit as st

from engine.evaluation import evaluation
from engine.metrics import confusion_matrix, most_confused
from engine.predictions import Predictions
from engine.recipes import published
from engine.runs import Run
from engine.words import counted
from ui.charts import confusion_chart, curves, picture_config, recall_bars
from ui.state import choose_run, enter, go, head, link, open_predictions
from ui.tables import SPLIT_NAMES, history_of, in_words, item_of, published_score
from ui.wording import plain

enter()

SCORES = {
    "precision": ("Precision", "Share of the {item}s so answered that are of it."),
    "recall": ("Recall", "Share of its {item}s that were recognised: its accuracy."),
    "f1": ("F1", "Harmonic mean of precision and recall."),
}


def headline(run: Run, predictions: Predictions) -> None:
    right = int(predictions.right.sum())
    item = item_of(run.recipe.dataset)
    accuracy, mistakes, reference = st.columns(3)
    accuracy.metric(f"Accuracy on the {SPLIT_NAMES[predictions.split]} {item}s", f"{predictions.accuracy:.2%}")
    accuracy.caption(in_words(right, len(predictions)))
    mistakes.metric("Mistakes", f"{len(predictions) - right:,}")
    mistakes.caption(f"of {counted(len(predictions), item)}")
    figures = published(run.recipe)
    reference.metric("Published", f"{figures['test_accuracy']:.2%}" if figures else "-")
    if figures:
        reference.caption(plain(figures["source"]))
    else:
        reference.caption("None for these settings.")


def matrix(run: Run, predictions: Predictions) -> None:
    """Show the confusion matrix; a click on a cell opens the gallery on its images."""
    items = f"{item_of(run.recipe.dataset)}s"
    st.subheader("Confusion matrix")
    shares = st.toggle("Shares of each row, in percent", key="shares")
    # A counter in the key clears the selection, so that coming back does not open the gallery again.
    clicks = st.session_state.setdefault("matrix_clicks", 0)
    event = st.altair_chart(
        confusion_chart(
            confusion_matrix(predictions),
            predictions.classes,
            shares=shares,
            what=items,
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
        f"Click a cell to see its {items}."
    )


def classes(run: Run, per_class: list[dict]) -> None:
    item = item_of(run.recipe.dataset)
    st.subheader("Each class")
    st.plotly_chart(recall_bars(per_class), config=picture_config(f"{run.id}-recall"), key="recall")
    st.caption(
        f"Share of each class's {item}s that were recognised: its recall, also called per-class accuracy. "
        "Whiskers: 95% intervals."
    )
    table = pd.DataFrame(per_class)
    theirs = (published(run.recipe) or {}).get("per_class", {})
    number = st.column_config.NumberColumn
    titles: dict[str, Any] = {"class": "Class"}
    for score, (name, about) in SCORES.items():
        table[score] *= 100
        titles[score] = number(name, format="%.2f%%", help=about.format(item=item))
        figures = [published_score(theirs.get(row["class"]), score) for row in per_class]
        if any(figure is not None for figure in figures):
            table[f"published {score}"] = figures
            titles[f"published {score}"] = number(
                f"{name}, published", format="%.0f%%", help="Of the same recipe, by the source named at the top."
            )
    titles["support"] = number(f"{item.capitalize()}s", format="localized")
    st.dataframe(table, hide_index=True, column_config=titles, column_order=list(titles))


def confusions(run: Run, predictions: Predictions) -> None:
    pairs, item = most_confused(predictions), item_of(run.recipe.dataset)
    if not pairs:
        st.success(f"No mistakes at all on these {item}s.", icon=":material/check:")
        return
    st.subheader("Most confused")
    for true, predicted, count, total in pairs[:5]:
        link(
            "gallery",
            f"**{plain(true)}** taken for **{plain(predicted)}**: {count:,} of {counted(total, item)}",
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


run = choose_run("Evaluate")
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
loss.plotly_chart(curves(history, "loss"), config=picture_config(f"{run.id}-loss"), key="loss")
accuracy.plotly_chart(curves(history, "accuracy"), config=picture_config(f"{run.id}-accuracy"), key="accuracy")
if history.ended:
    st.caption(f"Kept: {plain(history.ended.kept)}.")
downloads(run, predictions, result)
