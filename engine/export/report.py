"""The evaluation of a run as one HTML file, which opens in any browser without a network, now and in ten years."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.audit.inspection import DEFAULT_THRESHOLD, load_inspection
from engine.base.errors import LoupeError
from engine.base.paths import replacing_file, writing_file
from engine.base.text import SPLIT_NAMES, format_duration, format_probability, pluralize, printable
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files
from engine.evaluation.calibration import (
    answered_above,
    at_temperature,
    coverage,
    expected_calibration_error,
    fit_temperature,
    is_fitted,
    reliability,
)
from engine.evaluation.metrics import most_confused, wilson_interval
from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.selection import in_order, select
from engine.evaluation.summary import evaluation
from engine.export.drawing import Axis, Line, line_chart, ticks_around
from engine.images.pictures import JPEG_FROM_PIXELS, data_url
from engine.recipes.recipe import published_in_words, settings_in_words
from engine.runs.log import History, best_epoch
from engine.runs.records import Epoch
from engine.runs.run import Run

ENDINGS = (".html", ".htm")
MOST_PAIRS, PICTURES_OF_PAIR, HIGHEST_LOSSES = 8, 6, 24
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)
MOST_POINTS, MOST_MARKS = 300, 50
# Larger pictures are made this small.
LARGEST_PICTURE = 192
# Up to so many classes the matrix has numbers in cells of full size, and up to so many others in small ones.
LARGE_CELLS, SMALL_CELLS = 20, 60
# A matrix of a thousand classes would be a million cells.
MOST_OF_MATRIX = 120
SHADES = 10
TRAINING, VALIDATION, TEST = "var(--first)", "var(--second)", "var(--third)"


def check_target(path: Path) -> None:
    """Raise LoupeError for a path that no report is to be written to."""
    if path.suffix.lower() not in ENDINGS:
        raise LoupeError(
            f"The report was to be written to {printable(str(path))}, but a report is HTML, and only a file whose name "
            "ends in .html is written or replaced. Give it such a name."
        )
    with writing_file(path):
        if path.is_dir():
            raise LoupeError(f"{printable(str(path))} is a folder, and a report is a file. Name a file in it.")
        if not path.parent.is_dir():
            raise LoupeError(f"There is no folder {printable(str(path.parent))} to write the report to. Make it first.")


def write_report(run: Run, predictions: Predictions, dataset: Dataset | None, path: Path) -> None:
    """Write the report of a run; a report that is there is replaced once the new one is whole."""
    check_target(path)
    html = report_html(run, predictions, dataset)
    with writing_file(path), replacing_file(path) as beside:
        beside.write_text(html, encoding="utf-8")


def report_html(run: Run, predictions: Predictions, dataset: Dataset | None) -> str:
    """Make the report of a run on a split. Without its dataset as it was at the evaluation it has no pictures."""
    recipe, history = run.read_recipe(), run.history()
    same = dataset is not None and predictions.match(dataset)
    item = item_of(recipe.dataset)
    pictures = Pictures(predictions, dataset) if dataset and same and item == "image" else None
    names = [printable(name) for name in predictions.classes]
    result = evaluation(run.id, predictions)
    context = {
        "run": run,
        "recipe": recipe,
        "item": item,
        "items": f"{item}s",
        "count": len(predictions),
        "right": int(predictions.correct.sum()),
        "split": SPLIT_NAMES.get(predictions.split, printable(predictions.split)),
        "made": run.made,
        "status": run.status(history),
        "result": result,
        "names": names,
        "published": published_in_words(recipe),
        "no_twins": _without_twins(predictions, dataset if same else None),
        "matrix": _matrix(np.array(result["confusion"])),
        "cells": "large" if len(names) <= LARGE_CELLS else "small" if len(names) <= SMALL_CELLS else "tiny",
        "lying": len(names) <= 12 and max(map(len, names)) < 7,
        "classes": _classes(result),
        "pairs": _pairs(predictions, pictures),
        "losses": _highest_losses(predictions, pictures),
        "no_pictures": _why_no_pictures(recipe.dataset, dataset, same, item),
        "pixelated": pictures.pixelated if pictures else False,
        "calibration": _calibration(run, predictions, item),
        "answered": [answered_above(predictions, threshold) for threshold in THRESHOLDS],
        "curves": [_curves(history, "loss"), _curves(history, "accuracy")] if history.epochs else [],
        "best": best_epoch(history),
        "history": history,
        "settings": settings_in_words(recipe, item),
    }
    return _template().render(context)


@cache
def _template():
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of classes and files may be anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda share: f"{share:.2%}",
        "number": lambda count: f"{count:,}",
        "format_probability": format_probability,
        "time": lambda seconds: f"{seconds:.2g} s" if seconds < 9.5 else format_duration(seconds),
        "pluralize": pluralize,
        "wilson": lambda of: wilson_interval(*of),
    }
    return environment.get_template("report.html")


class Pictures:
    """The images that predictions are of."""

    def __init__(self, predictions: Predictions, dataset: Dataset):
        self._predictions = predictions
        self._images = dataset.splits[predictions.stored_in].images
        self._origins = open_source_files(dataset, predictions.stored_in)
        self.pixelated = max(self._images.shape[1:3]) < JPEG_FROM_PIXELS

    def url(self, row: int) -> str:
        return data_url(self._images[self._predictions.indices[row]], LARGEST_PICTURE)

    def file(self, row: int) -> str | None:
        """Return the name of the file that an image came from, where it came from one."""
        return printable(self._origins.of(int(self._predictions.indices[row]))["file"]) if self._origins else None


def _without_twins(predictions: Predictions, dataset: Dataset | None) -> Predictions | None:
    """Return the answers to test images that the training set has no copy of; None where that is all, or unknown."""
    inspection = load_inspection(dataset) if dataset and predictions.stored_in == "test" else None
    if not inspection:
        return None
    alone = ~np.isin(predictions.indices, inspection.leaked_test(DEFAULT_THRESHOLD))
    return predictions.subset(alone) if 0 < alone.sum() < len(predictions) else None


def _why_no_pictures(name: str, dataset: Dataset | None, same: bool, item: str) -> str | None:
    if item == "row":
        return None
    if dataset is None:
        return f"The dataset {printable(name)} was not there when this was written, so there are no pictures."
    if not same:
        return f"The dataset {printable(name)} has changed since the run was evaluated, so there are no pictures."
    return None


def _matrix(counts: np.ndarray) -> dict[str, Any]:
    """Return the classes chosen and, for each, a row of cells: predicted class, count, shade from 0 to SHADES - 1."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    chosen = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_OF_MATRIX])
    # The diagonal would drown the mistakes: a root spreads the low end of the scale.
    shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)) * (SHADES - 1)
    steps = np.where(counts > 0, np.maximum(shades.round(), 1), 0).astype(int)
    names = chosen.tolist()
    rows = [
        (row, list(zip(names, counts[row, chosen].tolist(), steps[row, chosen].tolist(), strict=True))) for row in names
    ]
    return {"chosen": names, "rows": rows}


def _classes(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the scores of each class the counts that they are shares of."""
    answered = np.sum(result["confusion"], axis=0).tolist()
    rows = []
    for index, (row, answers) in enumerate(zip(result["per_class"], answered, strict=True)):
        right = result["confusion"][index][index]
        rows.append(row | {"right": right, "answered": answers, "interval": wilson_interval(right, row["support"])})
    return rows


def _tile(predictions: Predictions, pictures: Pictures | None, row: int) -> dict[str, Any]:
    return {
        "index": int(predictions.indices[row]),
        "stored_in": SPLIT_NAMES.get(predictions.stored_in, printable(predictions.stored_in)),
        "true": printable(predictions.classes[predictions.labels[row]]),
        "predicted": printable(predictions.classes[predictions.predicted[row]]),
        "right": bool(predictions.correct[row]),
        "confidence": float(predictions.confidence[row]),
        "loss": float(predictions.losses[row]),
        "url": pictures.url(row) if pictures else None,
        "file": pictures.file(row) if pictures else None,
    }


def _pairs(predictions: Predictions, pictures: Pictures | None) -> list[dict[str, Any]]:
    """List the commonest mistakes, each with the images that they were made on, the most confident first."""
    pairs = []
    for true, predicted, count, total in most_confused(predictions, MOST_PAIRS):
        rows = in_order(predictions, select(predictions, true=true, predicted=predicted), "most confident")
        tiles = [_tile(predictions, pictures, row) for row in rows[:PICTURES_OF_PAIR]] if pictures else []
        pair = {
            "true": printable(true),
            "predicted": printable(predicted),
            "count": count,
            "total": total,
            "tiles": tiles,
        }
        pairs.append(pair)
    return pairs


def _highest_losses(predictions: Predictions, pictures: Pictures | None) -> list[dict[str, Any]]:
    rows = in_order(predictions, np.arange(len(predictions)), "highest loss")
    return [_tile(predictions, pictures, row) for row in rows[:HIGHEST_LOSSES]]


def _calibration(run: Run, predictions: Predictions, item: str) -> dict[str, Any]:
    bins = reliability(predictions)
    found = {
        "error": expected_calibration_error(predictions),
        "bins": len(bins),
        "reliability": Markup(_reliability_chart(bins)),
        "coverage": Markup(_coverage_chart(predictions, item)),
        "temperature": None,
    }
    validation = _validation(run, predictions)
    temperature = fit_temperature(validation) if validation else 0.0
    if validation and is_fitted(temperature):
        after = expected_calibration_error(at_temperature(predictions, temperature))
        found |= {"temperature": temperature, "validation": len(validation), "error_after": after}
    return found


def _validation(run: Run, predictions: Predictions) -> Predictions | None:
    """Read the validation predictions that a temperature is fitted to; None for those themselves, or where none are."""
    if predictions.split == "val":
        return None
    try:
        validation = load_predictions(run.predictions("val"))
    except LoupeError:
        return None
    of_same = (validation.fingerprint, validation.classes) == (predictions.fingerprint, predictions.classes)
    return validation if of_same else None


def _ticks_of_shares(percents: Sequence[float]) -> list[float]:
    """Choose ticks within 0 and 100, with some room where there is, so that one share alone has a scale too."""
    return ticks_around([max(0.0, min(percents) - 1), min(100.0, max(percents) + 1)])


def _reliability_chart(bins: Sequence[Any]) -> str:
    every_fifth = [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    points = [(100 * each.confidence, 100 * each.accuracy) for each in bins]
    whiskers = [(100 * each.interval[0], 100 * each.interval[1]) for each in bins]
    lines = [
        Line("as sure as right", [(0, 0), (100, 100)], dash="2 4"),
        Line("this run, with 95% intervals", points, TRAINING, mark="circle", whiskers=whiskers),
    ]
    about = "Accuracy of the answers by how confident they are."
    return line_chart(lines, Axis("confidence", every_fifth, "%"), Axis("accuracy", every_fifth, "%"), about)


def _coverage_chart(predictions: Predictions, item: str) -> str:
    points = [(100 * each.share, 100 * each.accuracy) for each in coverage(predictions)]
    x = Axis(f"share of the {item}s that is answered, the surest first", [0.0, 20.0, 40.0, 60.0, 80.0, 100.0], "%")
    y = Axis("accuracy of those", _ticks_of_shares([accuracy for _, accuracy in points]), "%")
    mark = "circle" if len(points) == 1 else ""
    return line_chart([Line("this run", points, TRAINING, mark=mark)], x, y, "Accuracy against coverage.")


def _curves(history: History, figure: str) -> Markup:
    """Draw loss or accuracy by epoch; figure: ``loss`` or ``accuracy``."""
    scale, unit = (100, "%") if figure == "accuracy" else (1, "")
    per_epoch = history.started.steps_per_epoch if history.started else 0
    lines: list[Line] = []

    def draw(name: str, field: str, records: Sequence[Any], colour: str, dash: str = "", mark: str = "") -> None:
        drawn = [record for record in records if getattr(record, field) is not None]
        stride = -(-len(drawn) // MOST_POINTS) or 1
        places = [record.epoch if isinstance(record, Epoch) else record.step / per_epoch for record in drawn]
        points = [(place, getattr(record, field) * scale) for place, record in zip(places, drawn, strict=True)]
        if points:
            lines.append(Line(name, [*points[:-1:stride], points[-1]], colour, dash, mark))

    marked = len(history.epochs) <= MOST_MARKS  # more would hide each other
    draw("training", f"train_{figure}", history.epochs, TRAINING, mark="circle" if marked else "")
    draw("validation", f"val_{figure}", history.epochs, VALIDATION, "7 4", "square" if marked else "")
    for split in sorted({each.split for each in history.evaluations}) if per_epoch else ():
        within = [each for each in history.evaluations if each.split == split]
        draw(f"{SPLIT_NAMES.get(split, split)}, by step", figure, within, TEST, "2 3")
    best = best_epoch(history)
    draw("best epoch", f"val_{figure}", [best] if best else [], VALIDATION, "none", "star")
    reached = [place for line in lines for place, _ in line.points]
    values = [value for line in lines for _, value in line.points]
    x = Axis("epoch", ticks_around([0.0, *reached], most=9, least_step=1.0))
    if figure == "accuracy":
        y = Axis("accuracy", _ticks_of_shares(values), unit)
    else:
        y = Axis("loss (nats)", ticks_around([0.0, *values]))
    return Markup(line_chart(lines, x, y, f"{figure.capitalize()} by epoch."))
