"""A run beside another on the same images: which is better, whether that is chance, and where they differ."""

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import pluralize
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.comparison import ClassComparison, Comparison, compare, in_words
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run, list_runs, open_run
from ui.charts import MODE_BAR, RIGHT, WRONG, class_names, label_classes, picture_config, style
from ui.contact_sheet import Tile, contact_sheet
from ui.pictures import open_pictures, picture_of, taken
from ui.state import go as go_to
from ui.state import link
from ui.tables import label, predictions_of, recipe_of
from ui.wording import plain, show_problem

PAGE = 36


def show_comparison(run: Run, predictions: Predictions) -> None:
    other = _choose_other(run, predictions)
    if other is None:
        return
    try:
        others = predictions_of(other, predictions.split)
        comparison = compare(others, predictions)
    except LoupeError as error:
        show_problem(error)
        return
    item = item_of(recipe_of(run).dataset)
    name = plain(label(other.id))
    _show_difference(comparison, predictions, others, name, item)
    if not len(comparison.fixed) and not len(comparison.broken):
        return
    st.subheader("Each class")
    st.plotly_chart(
        difference_bars(comparison.per_class), config=picture_config(f"{run.id}-and-{other.id}"), key="differences"
    )
    st.caption(f"How many points more or fewer of a class's {item}s this run recognises than {name} does.")
    st.subheader("Where they differ")
    dataset = open_pictures(run, predictions)
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(
            f"**{pluralize(len(comparison.fixed), item)}** that only this run gets right, beside what {name} says"
        )
        _show_flips(run, dataset, predictions, others, comparison.fixed, "fixed")
    with right:
        st.markdown(
            f"**{pluralize(len(comparison.broken), item)}** that only {name} gets right, beside what this run says"
        )
        _show_flips(run, dataset, predictions, predictions, comparison.broken, "broken")


def _choose_other(run: Run, predictions: Predictions) -> Run | None:
    """Let the person choose another run of the same dataset that has answers for the same split."""
    dataset = recipe_of(run).dataset
    others = []
    for each in list_runs():
        try:
            same = recipe_of(each).dataset == dataset
        except LoupeError:  # damaged
            continue
        if same and each.id != run.id and each.predictions(predictions.split).exists():
            others.append(each.id)
    asked = st.query_params.get("with")
    if asked and asked not in others:
        # Said before what is chosen in its place: a link may name a run of another dataset, or one that was deleted.
        try:
            other = open_run(asked)
            compare(predictions_of(other, predictions.split), predictions)
        except LoupeError as error:
            show_problem(error)
    if not others:
        st.info(
            f"There is no other evaluated run on {plain(dataset)}. Train a second one, with another setting or another "
            "model, to compare the two image by image.",
            icon=":material/info:",
        )
        link("train", "Train another", dataset=dataset)
        return None
    # Streamlit's binding to the URL would write what is shown of a run, not its id.
    chosen = st.selectbox(
        "Compare with",
        others,
        index=others.index(asked) if asked in others else 0,
        format_func=label,
        key=f"with-{run.id}",
        width=420,
    )
    if chosen != asked:
        st.query_params["with"] = chosen
    return open_run(chosen)


def _show_difference(
    comparison: Comparison, predictions: Predictions, others: Predictions, name: str, item: str
) -> None:
    """Show both accuracies, their difference with its interval, and what that means in words."""
    shown = (
        ("This run", f"{predictions.accuracy:.2%}", f"{int(predictions.correct.sum()):,} of {len(predictions):,}"),
        (name, f"{others.accuracy:.2%}", f"{int(others.correct.sum()):,} of {len(others):,}"),
        ("Difference", f"{100 * comparison.difference:+.2f} points", "of this run to the other"),
    )
    for column, (title, value, about) in zip(st.columns(3), shown, strict=True):
        column.metric(title, value)
        column.caption(about)
    st.markdown(in_words(comparison, name, "This run", item))


def _show_flips(
    run: Run, dataset: Dataset | None, predictions: Predictions, answers: Predictions, rows: np.ndarray, name: str
) -> None:
    """Show the images that one run gets right and the other wrong, with what the other says; a click opens one."""
    if dataset is None or not len(rows):
        return
    pages = -(-len(rows) // PAGE)
    first = PAGE * (st.pagination(pages, key=f"{name}-page") - 1) if pages > 1 else 0
    shown = rows[first : first + PAGE]
    said = [(predictions.classes[predictions.labels[row]], answers.classes[answers.predicted[row]]) for row in shown]
    if dataset.kind == "table":
        places = predictions.indices[shown]
        st.dataframe(
            {"Row": places, "True class": [each[0] for each in said], "Said": [each[1] for each in said]},
            hide_index=True,
        )
        return
    tiles = [
        Tile(
            int(row),
            picture_of(predictions, dataset, int(row)),
            f"{true_class}, taken for {answer}",
            taken(true_class, answer),
            "right" if name == "fixed" else "wrong",
        )
        for row, (true_class, answer) in zip(shown, said, strict=True)
    ]
    picked = contact_sheet(tiles, name=name, key=f"{name}-sheet", width=76)
    if picked is not None:
        go_to("gallery", run=run.id, show="all", image=str(picked))


def difference_bars(per_class: tuple[ClassComparison, ...]) -> go.Figure:
    """Draw by how many points the recall of each class with images differs, better up and worse down."""
    per_class = tuple(each for each in per_class if each.count)
    points = [100 * each.difference for each in per_class]
    figure = go.Figure(
        go.Bar(
            x=class_names([each.name for each in per_class]),
            y=points,
            marker_color=[RIGHT if value >= 0 else WRONG for value in points],
            customdata=[
                [*class_names([each.name]), each.second_right, each.first_right, each.count] for each in per_class
            ],
            hovertemplate="%{customdata[0]}: %{y:+.2f} points, %{customdata[1]:,} and %{customdata[2]:,} right of "
            "%{customdata[3]:,}<extra></extra>",
        )
    )
    style(figure, height=320, x="class", y="difference of recall (points)").update_layout(margin={"t": MODE_BAR})
    return label_classes(figure, [each.name for each in per_class])
