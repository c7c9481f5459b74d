"""Runs and predictions as the pages need them, cached by the state of the files that they are read from."""

import hashlib
from datetime import datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from engine.errors import LoupeError
from engine.log import History
from engine.predictions import Predictions, load_predictions, wilson_interval
from engine.runs import Run, list_runs, open_run


def history_of(run: Run) -> History:
    """Read a run's log; kept until the log grows."""
    return _history(str(run.log), _state(run.log))


@st.cache_data(max_entries=1000, show_spinner=False)
def _history(path: str, state: tuple[int, int]) -> History:
    return History(Path(path)).read()


def predictions_of(run: Run, split: str) -> Predictions:
    path = run.predictions(split)
    return _predictions(str(path), _state(path))


# Shared, not copied: nobody writes to the arrays.
@st.cache_resource(max_entries=8, show_spinner=False)
def _predictions(path: str, state: tuple[int, int]) -> Predictions:
    return load_predictions(Path(path))


def _state(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:
        return 0, 0
    return about.st_mtime_ns, about.st_size


def summarize(run: Run) -> dict:
    """Sum a run up in a table's row."""
    history = history_of(run)
    try:
        recipe, status = run.recipe, run.status(history)
        name, model, dataset = recipe.name, recipe.model, recipe.dataset
    except LoupeError:
        name, model, dataset, status = run.id, "", "", "damaged"
    started, ended = history.started, history.ended
    split = "test" if ended and ended.test_accuracy is not None else "val"
    # Where a damaged line has taken the denominator, there is no accuracy either.
    accuracy = getattr(ended, f"{split}_accuracy") if started and ended else None
    return {
        "run": run.id,
        "recipe": name,
        "model": model,
        "dataset": dataset,
        "when": made(run),
        "status": status,
        "accuracy": accuracy,
        "percent": None if accuracy is None else 100 * accuracy,
        "count": None if accuracy is None else f"{getattr(started, f'{split}_count'):,} {SPLIT_NAMES[split]} images",
        "epochs": ended.epochs if ended else len(history.epochs),
        "seconds": ended.train_seconds if ended else None,
        "curve": [step.train_accuracy for step in history.steps] or [epoch.train_accuracy for epoch in history.epochs],
    }


def made(run: Run) -> datetime:
    """Return when a run was made: its id says so."""
    try:
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return datetime.fromtimestamp(run.path.stat().st_mtime)


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
            "when": column.DatetimeColumn("Made", format="D MMM YYYY, HH:mm:ss"),
            "recipe": "Recipe",
            "dataset": "Dataset",
            "status": "Status",
            "curve": column.LineChartColumn("Training accuracy", y_min=0, y_max=1, help="Running, by step, 0 to 100%."),
            "percent": column.NumberColumn("Accuracy", format="%.2f%%", help="On the images of the next column."),
            "count": "Of",
            "epochs": column.NumberColumn("Epochs", help="Finished ones."),
            "seconds": column.NumberColumn("Training time", format="%.1f s", help="Time in training steps."),
        },
    }


def in_words(successes: int, count: int) -> str:
    """Say a share with its denominator and its interval."""
    low, high = wilson_interval(successes, count)
    return f"{successes:,} of {count:,}, 95% interval {low:.2%} to {high:.2%}"


def sure(probability: float) -> str:
    """Say a probability in percent, and that it is 0% or 100% only where it is."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= probability < 1 else f"{probability:.1%}"


SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}

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
