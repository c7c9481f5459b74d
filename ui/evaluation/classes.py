"""The scores of each class: bars with intervals, and a table to sort."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.data.catalogue import item_of
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions
from engine.recipes.recipe import published
from engine.runs.run import Run
from ui.charts import (
    INK,
    MODE_BAR,
    PAPER,
    class_names,
    first_colours,
    ink,
    is_dark,
    label_classes,
    picture_config,
    style,
)
from ui.state import go as go_to
from ui.tables import published_score, recipe_of

MANY = 20
SCORES = {
    "precision": ("Precision", "Share of the {item}s so answered that are of it."),
    "recall": ("Recall", "Share of its {item}s that were recognised: its accuracy."),
    "f1": ("F1", "Harmonic mean of precision and recall."),
}


def show_classes(run: Run, predictions: Predictions, result: dict) -> None:
    """Show the scores of each class; a click on a bar or a row opens the gallery on its images."""
    item, per_class = item_of(recipe_of(run).dataset), result["per_class"]
    clicks = st.session_state.setdefault("class_clicks", 0)
    event = st.plotly_chart(
        recall_bars(per_class),
        config=picture_config(f"{run.id}-recall"),
        key=f"recall-{clicks}",
        on_select="rerun",
        selection_mode="points",
    )
    st.caption(
        f"Share of each class's {item}s that were recognised: its recall, also called per-class accuracy. "
        f"Whiskers: 95% intervals. Click a bar, or the box before a row, to see the {item}s of a class."
    )
    table, titles = _table(run, per_class, item)
    rows = st.dataframe(
        table,
        hide_index=True,
        column_config=titles,
        column_order=list(titles),
        on_select="rerun",
        selection_mode="single-row",
        key=f"classes-{clicks}",
    ).selection.rows
    _show_averages(result, item, titles)
    picked = [point["point_index"] for point in event["selection"]["points"]] + list(rows)
    if picked:
        # A new key drops the selection, so that coming back does not open the gallery again.
        st.session_state.class_clicks = clicks + 1
        go_to("gallery", run=run.id, true=predictions.classes[picked[0]], show="all", sort="highest loss")


def _table(run: Run, per_class: list[dict], item: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make the table of scores in percent, with what was published beside one's own, and its columns' titles."""
    table = pd.DataFrame(per_class)
    theirs = (published(recipe_of(run)) or {}).get("per_class", {})
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
    return table, titles


def _show_averages(result: dict, item: str, titles: dict[str, Any]) -> None:
    about = {"macro": "Macro average: all classes alike", "weighted": f"Weighted average: by their {item}s"}
    rows = [
        {"class": about[name], "support": result["count"]} | {score: 100 * value for score, value in scores.items()}
        for name, scores in result["averages"].items()
    ]
    own = {name: title for name, title in titles.items() if not name.startswith("published")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=own, column_order=list(own))


def recall_bars(per_class: list[dict]) -> go.Figure:
    """Draw each class's share of right answers with its 95 % interval."""
    low_high = [wilson_interval(round(row["recall"] * row["support"]), row["support"]) for row in per_class]
    recalls = [row["recall"] for row in per_class]
    figure = go.Figure(
        go.Bar(
            x=class_names([row["class"] for row in per_class]),
            y=[100 * recall for recall in recalls],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (high - recall) for recall, (_, high) in zip(recalls, low_high, strict=True)],
                "arrayminus": [100 * (recall - low) for recall, (low, _) in zip(recalls, low_high, strict=True)],
                # Of many classes the ends of the whiskers would hide the bars.
                "thickness": 1.2 if len(per_class) <= MANY else 0.7,
                "width": 4 if len(per_class) <= MANY else 0,
                "color": ink(),
            },
            customdata=[[*class_names([row["class"]]), row["support"]] for row in per_class],
            text=[f"{recall:.1%}" for recall in recalls] if len(per_class) <= MANY else None,
            textposition="inside",
            insidetextanchor="start",
            insidetextfont={"color": INK if is_dark() else PAPER},
            hovertemplate="%{customdata[0]}: %{y:.2f}% of %{customdata[1]:,}<extra></extra>",
            marker_color=first_colours()[0],
        )
    )
    figure.update_yaxes(range=[0, 105])
    style(figure, height=310, x="class", y="right (%)").update_layout(margin={"t": MODE_BAR})
    return label_classes(figure, [row["class"] for row in per_class])
