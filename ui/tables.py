"""Runs and predictions as the pages need them, cached by the state of the files that they are read from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES, format_duration, pluralize
from engine.data.catalogue import item_of
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions, load_predictions
from engine.recipes.recipe import Recipe
from engine.runs.log import History
from engine.runs.run import Run, list_runs, open_run

# No curve has more points than this in the browser, where a chart is some 400 pixels wide.
MOST_POINTS = 500

Item = TypeVar("Item")


def thinned(items: Sequence[Item]) -> list[Item]:
    """Return every second, fourth, ... item, as few as are drawn, and the last; those of a growing curve stay put."""
    stride = 1
    while len(items) > (MOST_POINTS - 1) * stride:
        stride *= 2
    return [*items[:-1:stride], *items[-1:]]


def history_of(run: Run) -> History:
    """Read a run's log; kept until the log grows."""
    return _history(str(run.log), state_of(run.log))


@st.cache_data(max_entries=1000, show_spinner=False)
def _history(path: str, state: tuple[int, int]) -> History:
    return History(Path(path)).read()


def recipe_of(run: Run) -> Recipe:
    """Read a run's recipe; kept until its file changes. Raises LoupeError for a damaged or missing one."""
    return _recipe(str(run.path), state_of(run.path / "recipe.json"))


# Shared, not copied: it is frozen. Tables have two thousand runs.
@st.cache_resource(max_entries=4000, show_spinner=False)
def _recipe(path: str, state: tuple[int, int]) -> Recipe:
    return Run(Path(path)).read_recipe()


def predictions_of(run: Run, split: str) -> Predictions:
    path = run.predictions(split)
    return _predictions(str(path), state_of(path))


# Shared, not copied: nobody writes to the arrays.
@st.cache_resource(max_entries=8, show_spinner=False)
def _predictions(path: str, state: tuple[int, int]) -> Predictions:
    return load_predictions(Path(path))


def state_of(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:
        return 0, 0
    return about.st_mtime_ns, about.st_size


def summarize(run: Run) -> dict:
    """Sum a run up in a table's row."""
    history = history_of(run)
    try:
        recipe, status = recipe_of(run), run.status(history)
        name, model, dataset = recipe.name, recipe.model, recipe.dataset
    except LoupeError:
        name, model, dataset, status = run.id, "", "", "damaged"
    started, ended = history.started, history.ended
    split = "test" if ended and ended.test_accuracy is not None else "val"
    # Where a damaged line has taken the denominator, there is no accuracy either.
    accuracy = getattr(ended, f"{split}_accuracy") if started and ended else None
    item = f"{SPLIT_NAMES[split]} {item_of(dataset)}"
    figures: Sequence[Any] = history.steps or history.epochs
    return {
        "run": run.id,
        "recipe": name,
        "model": model,
        "dataset": dataset,
        "when": run.made,
        "status": status,
        "accuracy": accuracy,
        "percent": None if accuracy is None else 100 * accuracy,
        "count": None if accuracy is None else pluralize(getattr(started, f"{split}_count"), item),
        "epochs": ended.epochs if ended else len(history.epochs),
        "seconds": ended.train_seconds if ended else None,
        "curve": [each.train_accuracy for each in thinned(figures)],
    }


def label(name: str) -> str:
    """Describe a run in a few words that fit the sidebar; no two runs have the same, or they could not be chosen."""
    try:
        summary = summarize(open_run(name))
    except LoupeError:  # deleted a moment ago
        return name
    stem = f"{summary['when']:%Y%m%d-%H%M%S}-{summary['recipe']}"
    if not name.startswith(stem):  # renamed, or damaged
        return name
    return f"{summary['recipe']}{name.removeprefix(stem)}, {summary['when']:%d %b %H:%M:%S}"


def run_table(most: int | None = None) -> pd.DataFrame:
    """Sum up all runs, or the newest ones, an item a row."""
    return pd.DataFrame([summarize(run) for run in list_runs()[:most]])


def rows_version(table: pd.DataFrame) -> str:
    """Name the runs that a table has now, for its key: a selection goes by row, and new runs move the rows."""
    return hashlib.sha256("/".join(table.run).encode()).hexdigest()[:16]


def run_table_columns() -> dict:
    """Say how a table of runs is shown."""
    column = st.column_config
    return {
        "column_order": ("when", "recipe", "dataset", "status", "curve", "percent", "count", "epochs", "seconds"),
        "column_config": {
            "when": column.DatetimeColumn("Made", format="D MMM YYYY, HH:mm"),
            "recipe": "Recipe",
            "dataset": "Dataset",
            "status": "Status",
            "curve": column.LineChartColumn(
                "Training", y_min=0, y_max=1, width="small", help="Training accuracy by step, 0 to 100%."
            ),
            "percent": column.NumberColumn("Accuracy", format="%.2f%%", help="On the images of the next column."),
            "count": "Of",
            "epochs": column.NumberColumn("Epochs", help="Finished ones."),
            "seconds": column.NumberColumn("Time", format="%.1f s", help="Time in training steps."),
        },
    }


FIGURES = {
    f"{split}_{figure}": f"{name} {figure}"
    for split, name in (("train", "training"), ("val", "validation"), ("test", "test"))
    for figure in ("loss", "accuracy")
} | {"train_seconds": "training time"}


def beside_published(history: History, published: dict[str, Any]) -> list[dict[str, str]]:
    """List all figures that were published for a run's recipe, each beside the run's own as far as it has come."""
    own = {name: getattr(record, name, None) for record in history.epochs[-1:] for name in FIGURES}
    for each in history.evaluations:
        own |= {f"{each.split}_loss": each.loss, f"{each.split}_accuracy": each.accuracy}
    if history.position:
        own["train_seconds"] = history.position.train_seconds
    if history.ended:
        own = {name: getattr(history.ended, name) for name in FIGURES}
    rows = _beside(own, published, "")
    if first := published.get("first_epoch"):
        made = {name: getattr(epoch, name, None) for epoch in history.epochs[:1] for name in FIGURES}
        for each in history.evaluations:
            if history.started and each.step == history.started.steps_per_epoch:
                made |= {f"{each.split}_loss": each.loss, f"{each.split}_accuracy": each.accuracy}
        rows += _beside(made, first, ", epoch 1")
    return rows


def _beside(own: dict[str, Any], published: dict[str, Any], when: str) -> list[dict[str, str]]:
    return [
        {
            "Figure": words.capitalize() + when,
            "This run": figure_in_words(name, own.get(name)),
            "Published": figure_in_words(name, published[name]),
        }
        for name, words in FIGURES.items()
        if name in published
    ]


def figure_in_words(name: str, value: float | None) -> str:
    """Say a figure of training as its kind is said: a share, a time, or a loss; three dots for one that is to come."""
    if value is None:
        return "..."
    if name.endswith("accuracy"):
        return f"{value:.2%}"
    return seconds_in_words(value) if name.endswith("seconds") else f"{value:.4g}"


def seconds_in_words(seconds: float) -> str:
    """Say a measured time: where it is short, with two digits."""
    return f"{seconds:.2g} s" if seconds < 9.5 else format_duration(seconds)


def published_score(figures: dict[str, float] | float | None, score: str) -> float | None:
    """Return a published score of a class in percent. Where only its accuracy was published, that is its recall."""
    if isinstance(figures, float):
        figures = {"recall": figures}
    return 100 * figures[score] if figures and score in figures else None


def in_words(successes: int, count: int) -> str:
    """Say a share with its denominator and its interval."""
    low, high = wilson_interval(successes, count)
    return f"{successes:,} of {count:,}, 95% interval {low:.2%} to {high:.2%}"


STATUS_ICONS = {
    "starting": ":material/hourglass_top:",
    "queued": ":material/schedule:",
    "running": ":material/play_arrow:",
    "finished": ":material/check_circle:",
    "stopped": ":material/stop_circle:",
    "failed": ":material/error:",
    "died": ":material/heart_broken:",
    "damaged": ":material/broken_image:",
}
