"""The charts: Plotly in the theme's colours."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.base.text import SPLIT_NAMES, format_probability
from engine.runs.log import History, best_epoch
from ui.tables import thinned

# Right and wrong: safe for colour-blind eyes, and never the only sign.
RIGHT, WRONG = "#009E73", "#D55E00"
PAPER, INK = "#FBFAF7", "#1D1B18"
# The theme's categorical colours, as in config.toml.
# fmt: off
CATEGORIES = {
    "light": (
        "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A53", "#9A9A00", "#5B4B8A", "#4D4D4D",
    ),
    "dark": (
        "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#B8A88E", "#C4C400", "#9C8CCB", "#B0B0B0",
    ),
}
# fmt: on
# Axis labels of classes: longer ones are cut, more than these are left out, and few short ones lie flat.
MAX_LABEL, MAX_LABELS = 14, 60
FLAT_LABEL, FLAT_LABELS = 6, 12
MOST_MARKERS = 50
CONFIG: dict[str, Any] = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
# Room above for what saves a chart as a picture, and below, where the legend has up to three lines.
MODE_BAR, LEGEND_LINES = 34, 112


def is_dark() -> bool:
    return st.context.theme.type == "dark"


def first_colours() -> tuple[str, str]:
    """Return the theme's first two categorical colours: for training and for validation."""
    return category(0), category(1)


def ink() -> str:
    return PAPER if is_dark() else INK


def layout_of(*, height: int, x: str, y: str, legend: bool = False) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 28 if legend else 12, "b": 8},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "showlegend": legend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "x unified" if legend else "closest",
    }


def style(figure: go.Figure, *, height: int, x: str, y: str, legend: bool = False) -> go.Figure:
    return figure.update_layout(**layout_of(height=height, x=x, y=y, legend=legend))


def picture_config(name: str) -> dict[str, Any]:
    """Return a chart's settings with a camera always in sight, which saves it as a picture of a name."""
    picture = {"format": "png", "filename": name, "scale": 2}
    unneeded = [*CONFIG["modeBarButtonsToRemove"], "pan2d", "zoomIn2d", "zoomOut2d"]
    return CONFIG | {"displayModeBar": True, "modeBarButtonsToRemove": unneeded, "toImageButtonOptions": picture}


# These two are drawn at every look at a run that goes on. Made of arrays, and all at once, a chart takes a fifth of the
# time that it takes made of lists and piece by piece.


def curves(history: History, metric: str) -> go.Figure:
    """Draw loss or accuracy: running figures by step, those of finished epochs, and those of evaluations between.

    metric: ``loss`` or ``accuracy``. The epoch that is best by validation has a star.
    """
    started = history.started
    per_epoch = max(started.steps_per_epoch, 1) if started else 1
    training, validation = first_colours()
    scale, unit = (100, "%") if metric == "accuracy" else (1, "")
    traces: list[dict[str, Any]] = []

    def draw(records: Sequence[Any], field: str, name: str, **look: Any) -> None:
        drawn = [record for record in thinned(records) if getattr(record, field) is not None]
        trace = {
            "type": "scatter",
            "x": np.array([record.step for record in drawn]) / per_epoch,
            "y": np.array([getattr(record, field) for record in drawn]) * scale,
            "name": name,
            "hovertemplate": "%{y:.4g}" + unit,
        }
        traces.append(trace | look)

    thin = {"mode": "lines", "line": {"color": training, "width": 1}, "opacity": 0.6}
    draw(history.steps, f"train_{metric}", "training, running", **thin)
    draw(history.epochs, f"train_{metric}", "training", line={"color": training}, mode=_mode(history.epochs))
    if (started and started.val_count) or any(epoch.val_loss is not None for epoch in history.epochs):
        dashed = {"line": {"color": validation, "dash": "dash"}, "marker": {"symbol": "square"}}
        draw(history.epochs, f"val_{metric}", "validation", mode=_mode(history.epochs), **dashed)
        best = best_epoch(history)
        star = {"symbol": "star", "size": 13, "color": validation, "line": {"color": ink(), "width": 1}}
        draw([best] if best else [], f"val_{metric}", "best epoch", mode="markers", marker=star)
    for split in sorted({each.split for each in history.evaluations}):
        within = [each for each in history.evaluations if each.split == split]
        colour = validation if split == "val" else category(3)
        dotted = {"line": {"color": colour, "dash": "dot", "width": 1.5}, "marker": {"symbol": "diamond", "size": 5}}
        draw(within, metric, f"{SPLIT_NAMES[split]}, by step", mode=_mode(within), **dotted)
    layout = layout_of(height=370, x="epoch", y=f"{metric}{' (%)' if unit else ' (nats)'}", legend=True)
    layout["legend"] = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    layout["margin"] |= {"t": MODE_BAR, "b": LEGEND_LINES}
    if started:
        layout["xaxis"]["range"] = [0, 1.03 * _reach(history) / per_epoch]
    if metric == "loss":
        layout["yaxis"]["rangemode"] = "tozero"
    return _drawn_again(traces, layout, history)


def rates(history: History, field: str, title: str) -> go.Figure:
    """Draw what steps and epochs say of the training itself, by step: its learning rate, say, or its pace."""
    records: Sequence[Any] = history.steps or history.epochs
    drawn = thinned(records)
    trace = {
        "type": "scatter",
        "x": np.array([record.step for record in drawn]),
        "y": np.array([getattr(record, field) for record in drawn]),
        "mode": "lines" if len(drawn) > 1 else "markers",
        "line": {"color": first_colours()[0], "width": 1.5},
        "hovertemplate": "step %{x:,}: %{y:,.4~g}<extra></extra>",
    }
    layout = layout_of(height=210, x="step", y=title)
    layout["margin"]["t"] = MODE_BAR
    layout["xaxis"]["tickformat"] = ","
    layout["yaxis"] |= {"rangemode": "tozero", "tickformat": "~s" if field == "images_per_second" else ",~g"}
    if history.started:
        layout["xaxis"]["range"] = [0, 1.03 * _reach(history)]
    return _drawn_again([trace], layout, history)


def rate_curve(curve: dict[str, Any], current: float) -> go.Figure:
    """Draw the loss at rising learning rates, the rate that is suggested, and the one that is set now."""
    colour, other = first_colours()
    hover = "%{x:.2g}: %{y:.4g}<extra></extra>"
    raw = {"line": {"color": colour, "width": 1}, "opacity": 0.5, "name": "as it was", "hovertemplate": hover}
    smooth = {"line": {"color": colour, "width": 2.5}, "name": "smoothed", "hovertemplate": hover}
    figure = go.Figure(
        [
            go.Scatter(x=curve["rates"], y=curve["losses"], mode="lines", **raw),
            go.Scatter(x=curve["rates"], y=curve["smoothed"], mode="lines", **smooth),
        ]
    )
    style(figure, height=320, x="learning rate", y="loss (nats)", legend=True)
    figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    # What comes after the loss has blown up would press the rest flat.
    highest = max(curve["smoothed"][0], *curve["losses"][: len(curve["losses"]) // 2])
    figure.update_yaxes(range=[0, 1.3 * highest])
    marks = [(current, "now", {"color": ink(), "dash": "dot"}, 0.04)]
    if curve["suggestion"]:
        marks.append((curve["suggestion"], "suggested", {"color": other, "dash": "dash"}, 0.13))
    for rate, name, line, height in marks:
        figure.add_vline(rate, line=line)
        place = {"x": math.log10(rate), "xanchor": "left", "y": height, "yref": "paper"}  # on an axis of logarithms
        figure.add_annotation(text=name, showarrow=False, **place)
    return figure.update_layout(hovermode="closest")


def _mode(records: Sequence[Any]) -> str:
    # Many markers would hide each other.
    return "lines+markers" if len(records) <= MOST_MARKERS else "lines"


def _reach(history: History) -> float:
    """Return the step at which charts by step end: that of the run's end, halved as often as nothing is cut off."""
    if not history.started:
        return 1.0
    reach = float(max(history.started.epochs * history.started.steps_per_epoch, 1))
    position = history.position.step if history.position else 0
    while position <= reach / 2 and reach / 2 >= history.started.steps_per_epoch:
        reach /= 2
    return reach


def _drawn_again(traces: list[dict[str, Any]], layout: dict[str, Any], history: History) -> go.Figure:
    """Make a chart that is drawn again as the history grows; before its first figures it has no scale."""
    if not history.position:
        for axis in ("xaxis", "yaxis"):
            layout[axis]["showticklabels"] = False
    # The same for every reading of one run, so that zooming survives the next.
    return go.Figure({"data": traces, "layout": layout | {"uirevision": str(history.path)}})


def class_counts(classes: Sequence[str], counts: dict[str, list[int]], what: str = "images") -> go.Figure:
    """Draw the images, or what else is counted, of each class by split."""
    figure = go.Figure()
    # The pointer is shown the axis label too: it need not read a name twice that is whole there.
    whole_name = "%{customdata}: " if any(len(name) > MAX_LABEL for name in classes) else ""
    for split, numbers in counts.items():
        figure.add_bar(
            x=class_names(classes),
            y=numbers,
            name=split,
            customdata=class_names(classes),
            hovertemplate=whole_name + "%{y:,} " + what,
        )
    figure.update_layout(barmode="group").update_yaxes(tickformat=",")
    return label_classes(style(figure, height=280, x="class", y=what, legend=True), classes)


def label_classes(figure: go.Figure, classes: Sequence[str]) -> go.Figure:
    """Label the x axis with names of classes so that they leave room for the bars; the pointer shows them whole."""
    long = [name for name in classes if len(name) > MAX_LABEL]
    if len(classes) > FLAT_LABELS or max(map(len, classes), default=0) > FLAT_LABEL:
        figure.update_layout(xaxis_title="")  # it would be printed across labels that are turned
    return figure.update_xaxes(
        type="category",
        showticklabels=len(classes) <= MAX_LABELS,
        # Plotly leaves some of these out where it is narrow, as it does not of ticks that are listed.
        labelalias=dict(zip(class_names(long), class_names([cut(name) for name in long]), strict=True)),
    )


def cut(name: str) -> str:
    """Cut a name to the length of an axis label."""
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"


def class_names(names: Sequence[str]) -> list[str]:
    """Make names of classes into text that Plotly shows as it is; it takes some HTML for markup."""
    return [html.escape(name, quote=False) for name in names]


def probability_bars(probabilities: list[dict], true: str | None = None) -> go.Figure:
    """Draw the most probable classes of one image; the true one in green, the others not."""
    rows = probabilities[::-1]
    colours = [RIGHT if row["label"] == true else first_colours()[0] if true is None else WRONG for row in rows]
    figure = go.Figure(
        go.Bar(
            x=[100 * row["confidence"] for row in rows],
            y=class_names([row["label"] for row in rows]),
            orientation="h",
            marker_color=colours,
            text=[format_probability(row["confidence"]) for row in rows],
            # Left to choose, Plotly leaves out what has no length to stand beside.
            textposition=["inside" if row["confidence"] > 0.3 else "outside" for row in rows],
            hovertemplate="%{y}: %{x:.2f}%<extra></extra>",
        )
    )
    figure.update_xaxes(range=[0, 103], tickvals=[0, 25, 50, 75, 100], tickangle=0)
    names = [cut(row["label"]) + (" (true)" if row["label"] == true else "") for row in rows]
    figure.update_yaxes(
        type="category",
        labelalias=dict(zip(class_names([row["label"] for row in rows]), class_names(names), strict=True)),
    )
    return style(figure, height=40 + 34 * len(rows), x="probability (%)", y="")


def histogram(values: np.ndarray, title: str, bins: int = 40) -> go.Figure:
    """Draw how values are distributed; only the bins' counts go to the browser."""
    counts, edges = np.histogram(values, bins=1 if values.min() == values.max() else bins)
    widths = np.diff(edges)
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + widths / 2).tolist(),
            y=counts.tolist(),
            width=widths.tolist(),
            customdata=np.stack([edges[:-1], edges[1:]], axis=1).tolist(),
            hovertemplate="%{customdata[0]:,.4~g} to %{customdata[1]:,.4~g}: %{y:,} images<extra></extra>",
            marker_color=first_colours()[0],
        )
    )
    figure.update_yaxes(tickformat=",")
    return style(figure, height=220, x=title, y="images")


def level_chart(levels: np.ndarray) -> go.Figure:
    """Draw the share of pixels at each level, 0 to 255, for each channel. levels: counts (channels, 256)."""
    figure = go.Figure()
    shares = 100 * levels / levels.sum(axis=1, keepdims=True)
    names = ("red", "green", "blue") if len(levels) == 3 else ("grey",)
    colours = ("#D0342C", "#1B8A3A", "#2F6FDE") if len(levels) == 3 else (first_colours()[0],)
    for name, colour, share in zip(names, colours, shares, strict=True):
        figure.add_scatter(
            x=list(range(256)),
            y=share.tolist(),
            name=name,
            mode="lines",
            line={"color": colour, "shape": "hvh", "width": 1.5},
            fill="tozeroy" if len(levels) == 1 else None,
            hovertemplate="%{y:.3g}%",
        )
    style(figure, height=260, x="level of a pixel", y="pixels (%), logarithmic", legend=len(levels) == 3)
    figure.update_yaxes(type="log", dtick=1, tickformat=",.4~g")
    return figure.update_xaxes(range=[-2, 257])


def point_chart(points: pd.DataFrame, classes: Sequence[str]) -> go.Figure:
    """Draw points in a plane, coloured by class. points: columns x, y, label and split."""
    figure = go.Figure()
    symbols = {"train": "circle", "val": "diamond", "test": "x"}
    for label, name in enumerate(class_names(classes)):
        for split, symbol in symbols.items():
            part = points[(points.label == label) & (points.split == split)]
            if len(part):
                figure.add_scatter(
                    x=part.x.tolist(),
                    y=part.y.tolist(),
                    name=f"{name}, {split}",
                    mode="markers",
                    marker={"symbol": symbol, "size": 6, "color": category(label), "opacity": 0.75},
                    hovertemplate="%{x:.3g}, %{y:.3g}",
                )
    style(figure, height=460, x="first principal component", y="second principal component", legend=True)
    return figure.update_layout(hovermode="closest")


def category(number: int) -> str:
    """Return the theme's categorical colour of a number."""
    colours = CATEGORIES["dark" if is_dark() else "light"]
    return colours[number % len(colours)]
