"""How sure a run is, and how far that is to be trusted."""

import plotly.graph_objects as go
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import pluralize
from engine.data.catalogue import item_of
from engine.evaluation.calibration import (
    Answered,
    answered_above,
    at_temperature,
    coverage,
    expected_calibration_error,
    fit_temperature,
    is_fitted,
    reliability,
)
from engine.evaluation.predictions import Predictions
from engine.runs.run import Run
from ui.charts import MODE_BAR, first_colours, ink, picture_config, style
from ui.state import link, share, tie
from ui.tables import predictions_of, recipe_of, state_of
from ui.wording import show_problem

THRESHOLD = 0.9


def show_certainty(run: Run, predictions: Predictions) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _show_reliability(run, predictions)
    with right:
        _show_coverage(run, predictions)


def _show_reliability(run: Run, predictions: Predictions) -> None:
    """Compare confidence to accuracy, as it is and at the temperature that fits the validation images."""
    item = item_of(recipe_of(run).dataset)
    st.subheader("Is its confidence to be trusted?")
    error = expected_calibration_error(predictions)
    mean = float(predictions.confidence.mean())
    lean = "It is surer than it should be" if mean > predictions.accuracy else "It is less sure than it might be"
    st.markdown(
        f"Of {pluralize(len(predictions), item)} {predictions.accuracy:.1%} are right, at a mean confidence of "
        f"{mean:.1%}. {lean}: **expected calibration error {error:.2%}**."
    )
    temperature = _temperature(run, predictions)
    softened = at_temperature(predictions, temperature) if temperature else None
    st.plotly_chart(
        reliability_chart(predictions, softened, item),
        config=picture_config(f"{run.id}-reliability"),
        key="reliability",
    )
    if softened is not None:
        st.markdown(
            f"Dividing the logits by a temperature of **{temperature:.2f}**, fitted on the validation {item}s, makes "
            f"it **{expected_calibration_error(softened):.2%}**. It changes no answer, only how sure it is."
        )
    st.caption(
        f"Each point: the {item}s whose confidence is within one of 15 steps; its size goes with their number, its "
        "whiskers are 95% intervals. On the dotted line a confidence of 80% means that 80% are right. The expected "
        "calibration error is how far points are from it on average."
    )


def _temperature(run: Run, predictions: Predictions) -> float | None:
    """Return the temperature that fits a run's validation images; where there is none, say why."""
    path, item = run.predictions("val"), item_of(recipe_of(run).dataset)
    if predictions.split == "val":
        st.caption(
            f"No temperature can be fitted: the validation {item}s, which it takes, are those of this evaluation. "
            "A test split would leave them to it."
        )
        return None
    if not path.exists():
        st.caption(
            f"No temperature can be fitted: it takes validation {item}s, and this run has held none back. "
            "Set validation_share to hold some back."
        )
        return None
    try:
        validation = predictions_of(run, "val")
    except LoupeError as error:
        show_problem(error)
        return None
    temperature = _fitted(run.id, state_of(path), validation)
    if not is_fitted(temperature):
        st.caption(
            f"No temperature can be fitted: on the {pluralize(len(validation), f'validation {item}')} the more extreme "
            "it is the better, as where all are right. Set validation_share to hold back more."
        )
        return None
    return temperature


@st.cache_data(max_entries=100, show_spinner=False)
def _fitted(run: str, state: tuple[int, int], _predictions: Predictions) -> float:
    return fit_temperature(_predictions)


def _show_coverage(run: Run, predictions: Predictions) -> None:
    """Show what is left, and how much of it is right, when only the sure answers are given."""
    item = item_of(recipe_of(run).dataset)
    st.subheader("What if it answered only when sure?")
    threshold = st.slider(
        "Answer only above a confidence of",
        0.0,
        1.0,
        step=0.01,
        help=f"Which {item}s a person would still have to look at.",
        **tie("above", THRESHOLD, share),
    )
    answered = answered_above(predictions, threshold)
    st.markdown(_answered_in_words(answered, item))
    st.plotly_chart(
        coverage_chart(coverage(predictions), answered, item),
        config=picture_config(f"{run.id}-coverage"),
        key="coverage",
    )
    left = answered.count - answered.answered
    if left and 0 < threshold < 1:  # from 0 to 1 the gallery would show all, those of just 1 too
        link(
            "gallery",
            f"See the {pluralize(left, item)} left to a person",
            run=run.id,
            show="all",
            sort="least confident",
            confidence=["0", f"{threshold:g}"],
        )


def _answered_in_words(answered: Answered, item: str) -> str:
    if not answered.answered:
        return f"Answer only above {answered.threshold:g}: no {item} at all of {answered.count:,}."
    low, high = answered.interval
    return (
        f"Answer only above {answered.threshold:g}: **{answered.share:.0%} of {item}s** "
        f"({answered.answered:,} of {answered.count:,}), **{answered.accuracy:.1%} right** ({answered.right:,} of "
        f"{answered.answered:,}, 95% interval {low:.1%} to {high:.1%})."
    )


def reliability_chart(predictions: Predictions, softened: Predictions | None, item: str) -> go.Figure:
    """Draw accuracy against confidence, in bins; with the predictions at a fitted temperature beside them."""
    colour, other = first_colours()
    figure = go.Figure(
        go.Scatter(
            x=[0, 100],
            y=[0, 100],
            mode="lines",
            line={"dash": "dot", "color": ink(), "width": 1},
            hoverinfo="skip",
            name="as sure as right",
        )
    )
    drawn = [(predictions, "as it is", colour, "circle")]
    if softened is not None:
        drawn.append((softened, "at the temperature", other, "square"))
    for each, name, shade, symbol in drawn:
        bins = reliability(each)
        figure.add_scatter(
            x=[100 * part.confidence for part in bins],
            y=[100 * part.accuracy for part in bins],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (part.interval[1] - part.accuracy) for part in bins],
                "arrayminus": [100 * (part.accuracy - part.interval[0]) for part in bins],
                "thickness": 1.2,
                "width": 3,
            },
            mode="lines+markers",
            name=name,
            line={"color": shade, "width": 1.5},
            marker={
                "symbol": symbol,
                "size": [6 + 12 * (part.count / len(each)) ** 0.5 for part in bins],
                "color": shade,
            },
            customdata=[part.count for part in bins],
            hovertemplate=f"%{{x:.1f}}% sure, %{{y:.1f}}% right, %{{customdata:,}} {item}s",
        )
    style(figure, height=380, x="confidence (%)", y="right (%)", legend=True)
    figure.update_xaxes(range=[0, 102]).update_yaxes(range=[0, 102])
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    return figure.update_layout(hovermode="closest", margin={"t": MODE_BAR, "b": 90}, legend=legend, height=420)


def coverage_chart(curve: list[Answered], chosen: Answered, item: str) -> go.Figure:
    """Draw the accuracy of what is answered against the share that is, with the chosen threshold marked."""
    colour, other = first_colours()
    figure = go.Figure(
        go.Scatter(
            x=[100 * each.share for each in curve],
            y=[100 * each.accuracy for each in curve],
            mode="lines" if len(curve) > 1 else "markers",
            line={"color": colour, "width": 2},
            customdata=[[each.threshold, each.answered] for each in curve],
            hovertemplate=f"from %{{customdata[0]:.3f}}: %{{customdata[1]:,}} {item}s, %{{y:.2f}}% right"
            "<extra></extra>",
        )
    )
    if chosen.answered:
        figure.add_scatter(
            x=[100 * chosen.share],
            y=[100 * chosen.accuracy],
            mode="markers+text",
            marker={"symbol": "star", "size": 15, "color": other, "line": {"color": ink(), "width": 1}},
            text=[f"above {chosen.threshold:g}"],
            textposition="bottom left",
            hoverinfo="skip",
        )
    lowest = min(each.accuracy for each in curve)
    figure.update_xaxes(range=[0, 102])
    figure.update_yaxes(range=[max(0.0, 100 - 125 * max(1 - lowest, 0.02)), 100.6])
    style(figure, height=380, x=f"{item}s answered (%)", y="of those, right (%)")
    return figure.update_layout(margin={"t": MODE_BAR})
