"""The map: images placed so that those which the network takes for alike lie close together."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.base.text import format_probability
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions
from engine.inference.embedding import Placing, load_places, pca, save_places, tsne
from engine.runs.run import Run
from ui.charts import CONFIG, MODE_BAR, RIGHT, WRONG, category, class_names, style
from ui.gallery.features import have_features, open_classifier
from ui.gallery.filters import to_first_page
from ui.gallery.points import places_of_rows, show_rows
from ui.gallery.sheet import show_sheet
from ui.state import one_of, tie
from ui.tables import recipe_of
from ui.wording import plain, show_problem

if TYPE_CHECKING:
    from engine.networks.features import Features

# Of more images so many are placed, drawn at random: more could not be told apart.
MOST = 10_000
PCA, TSNE, NUMBERS = "PCA of the features", "t-SNE of the features", "The numbers themselves"
COLOURS = ("True class", "Predicted class", "Right or wrong")
# Ten colours, each with another symbol when they are through.
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon", "triangle-down", "pentagon")
MOST_IN_LEGEND = 20


def show_map(run: Run, predictions: Predictions, dataset: Dataset, rows: np.ndarray, words: str) -> int | None:
    """Show a map of all images with the chosen ones in colour; returns the row that was just clicked below it."""
    item = item_of(recipe_of(run).dataset)
    choices = (NUMBERS, PCA, TSNE) if dataset.kind == "table" else (PCA, TSNE)
    with st.container(horizontal=True):
        how = st.segmented_control("Placed by", choices, required=True, **tie("places", choices[0], one_of(choices)))
        colour = st.segmented_control(
            "Coloured by", COLOURS, required=True, **tie("colour", COLOURS[0], one_of(COLOURS))
        )
    placed = np.arange(len(predictions))
    if len(placed) > MOST:
        placed = np.sort(np.random.default_rng(0).choice(placed, MOST, replace=False))
    found = _places(run, predictions, dataset, how, placed)
    if found is None:
        return None
    places, about = found
    coloured = np.isin(placed, rows)
    key, region = f"map-{run.id}", f"region of {run.id} by {how}"
    st.plotly_chart(
        map_chart(predictions, placed, places, coloured, colour, item),
        config=CONFIG | {"modeBarButtonsToRemove": ["autoScale2d"], "displayModeBar": True},
        on_select=lambda: _note_region(key, region),
        selection_mode=("points", "box", "lasso"),
        key=key,
    )
    st.caption(f"{_shown_in_words(predictions, coloured, item, words)} {about}")
    picked = st.session_state.get(region, [])
    chosen = rows[np.isin(rows, picked)]
    if not len(chosen):  # or none of them is left, now that others were chosen
        st.info(
            f"Draw a box or a loop around points, or click one, to see its {item}s here.",
            icon=":material/highlight_alt:",
        )
        return None
    st.button("Clear the region", icon=":material/close:", on_click=_clear_region, args=(region,))
    if dataset.kind == "table":
        return show_rows(predictions, dataset, chosen)
    return show_sheet(predictions, dataset, chosen, f"{words} in the region")


def _note_region(key: str, region: str) -> None:
    """Keep what was selected: Streamlit forgets it as soon as the chart is another, such as in other colours."""
    points = st.session_state[key]["selection"]["points"]
    st.session_state[region] = [int(point["customdata"][0]) for point in points if point.get("customdata")]
    to_first_page()


def _clear_region(region: str) -> None:
    del st.session_state[region]
    to_first_page()


def _shown_in_words(predictions: Predictions, coloured: np.ndarray, item: str, words: str) -> str:
    """Say what of a map is in colour, and of how many images it is a map."""
    few = len(coloured) < len(predictions)
    all_of_them = f"{len(coloured):,} of {len(predictions):,} {item}s, drawn at random" if few else f"all {item}s"
    if coloured.all():
        return f"Shown: {all_of_them}."
    count, grey = int(coloured.sum()), int((~coloured).sum())
    return f"Shown: {all_of_them}. In colour: {count:,} {plain(words)}. In grey: {grey:,} others."


def _places(
    run: Run, predictions: Predictions, dataset: Dataset, how: str, placed: np.ndarray
) -> tuple[np.ndarray, str] | None:
    """Return places, float32 (placed, 2), and what they are in words; None while they are not to be had."""
    if how == NUMBERS:
        places, share = places_of_rows(predictions, dataset)
        return places[placed], f"The two directions shown have {share:.0%} of the variance of the training rows."
    classifier = open_classifier(run)
    if classifier is None:
        return None
    from engine.networks.features import Features

    item, indices = item_of(recipe_of(run).dataset), predictions.indices[placed]
    try:
        features = Features(dataset, predictions.stored_in, classifier.extractor)
        if not have_features(features, np.sort(indices), f"{predictions.split} {item}s", "compute-map"):
            return None
        if how == PCA:
            places, share = _pca(run.id, features.values.name, len(indices), features, indices)
            return places, f"The two directions shown have {share:.0%} of the variance of {features.width:,} features."
        neighbourhoods = _tsne(run, predictions, features, indices)
    except LoupeError as error:
        show_problem(error)
        return None
    if neighbourhoods is None:
        return None
    return neighbourhoods, "Near points are alike to the network; distances between far groups mean little in t-SNE."


# Shared, not copied: nobody writes to them.
@st.cache_resource(max_entries=20, show_spinner=False)
def _pca(run: str, file: str, count: int, _features: "Features", _indices: np.ndarray) -> tuple[np.ndarray, float]:
    return pca(_values(_features, _indices))


def _values(features: "Features", indices: np.ndarray) -> np.ndarray:
    return features.open().numpy()[indices]


def _tsne(run: Run, predictions: Predictions, features: "Features", indices: np.ndarray) -> np.ndarray | None:
    """Return the places that were kept beside the run; where there are none, offer to compute them."""
    path, key = run.path / f"tsne-{predictions.split}.npz", f"{features.values.name} {len(indices)}"
    places = load_places(path, key)
    if places is not None and len(places) == len(indices):
        return places
    place = st.empty()
    with place.container():
        asked = st.button(f"Place {len(indices):,} points by t-SNE", icon=":material/play_arrow:", key="compute-tsne")
        st.caption("Ten thousand take up to a minute on two cores. Done once, and kept with the run.")
    if not asked:
        return None
    bar = place.progress(0.0, text="Looking for the neighbours of each")

    def tell(progress: Placing) -> None:
        if progress.done:
            bar.progress(progress.done / progress.total, text=f"{progress.done:,} of {progress.total:,} iterations")

    places = run_to_end(tsne(_values(features, indices)), tell)
    place.empty()
    with suppress(LoupeError):  # the map is there all the same, and is computed again next time
        save_places(path, places, key)
    return places


def map_chart(
    predictions: Predictions, placed: np.ndarray, places: np.ndarray, coloured: np.ndarray, by: str, item: str
) -> go.Figure:
    """Draw a map; points carry their row. placed: rows. coloured: which of them are; the rest lies grey below."""
    figure = go.Figure()
    # WebGL draws ten thousand points at once; of a few it would be slower to start.
    kind = go.Scattergl if len(placed) > 1000 else go.Scatter
    names = class_names(predictions.classes)
    grey = ~coloured
    if grey.any():
        marker = {"size": 4, "color": "#8A8276", "opacity": 0.25 if len(placed) > 1000 else 0.6}
        others = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(kind(x=places[grey, 0], y=places[grey, 1], **others))

    def add(mask: np.ndarray, name: str, marker: dict[str, Any]) -> None:
        rows = placed[mask]
        if not len(rows):
            return
        said = [
            [
                int(row),
                names[predictions.labels[row]],
                names[predictions.predicted[row]],
                format_probability(predictions.confidence[row]),
            ]
            for row in rows
        ]
        figure.add_trace(
            kind(
                x=places[mask, 0],
                y=places[mask, 1],
                mode="markers",
                name=name,
                marker={"size": 6, "opacity": 0.8} | marker,
                customdata=said,
                hovertemplate="%{customdata[1]} → %{customdata[2]}, %{customdata[3]}<extra></extra>",
            )
        )

    if by == COLOURS[2]:
        right = predictions.correct[placed]
        add(coloured & right, "right", {"color": RIGHT, "symbol": "circle"})
        add(coloured & ~right, "wrong", {"color": WRONG, "symbol": "x", "size": 8})
    else:
        labels = (predictions.labels if by == COLOURS[0] else predictions.predicted)[placed]
        for label, name in enumerate(names):
            symbol = SYMBOLS[label // 10 % len(SYMBOLS)]
            add(coloured & (labels == label), name, {"color": category(label), "symbol": symbol})
    style(figure, height=620, x="", y="", legend=len(names) <= MOST_IN_LEGEND or by == COLOURS[2])
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False}
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    figure.update_xaxes(**bare).update_yaxes(**bare).update_layout(legend=legend, margin={"t": MODE_BAR, "b": 70})
    return figure.update_layout(hovermode="closest", dragmode="lasso")
