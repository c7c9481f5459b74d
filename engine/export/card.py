"""``MODEL_CARD.md``: what an exported model is, how good it is, on what, and where that ends."""

import re
from typing import Any

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES, join_words, pluralize, printable
from engine.data.catalogue import item_of
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.evaluation.metrics import most_confused
from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.summary import evaluation
from engine.export.proof import LIMIT, Proof
from engine.export.standalone import templates
from engine.networks.model_file import load_preprocessing
from engine.networks.preprocessing import Preprocessing
from engine.recipes.recipe import settings_in_words
from engine.runs.run import Run

# The classes that are recognised least, and the pairs that are confused most, in the limits.
WORST, PAIRS = 3, 3


def model_card(run: Run, model: str, proof: Proof) -> str:
    """Write the card of an exported model. model: the name of its file."""
    recipe, preprocessing, history = run.read_recipe(), load_preprocessing(run.weights), run.history()
    dataset = open_dataset(recipe.dataset) if is_prepared(recipe.dataset) else None
    predictions = _predictions(run)
    result = evaluation(run.id, predictions) if predictions else None
    item = item_of(recipe.dataset)
    context: dict[str, Any] = {
        "run": run,
        "recipe": recipe,
        "model": model,
        "onnx": model.endswith(".onnx"),
        "preprocessing": preprocessing,
        "item": item,
        "names": preprocessing.classes,
        "result": result,
        "right": int(predictions.correct.sum()) if predictions else 0,
        "split": SPLIT_NAMES.get(predictions.split, predictions.split) if predictions else "",
        "worst": _worst(result["per_class"]) if result else [],
        "pairs": _pairs(predictions),
        "source": dataset.source if dataset else None,
        "fingerprint": history.started.fingerprint if history.started else None,
        "counts": _counts(dataset, item),
        "trained_on": history.started.train_count if history.started else None,
        "stored_smaller": _stored_smaller(dataset, preprocessing),
        "settings": settings_in_words(recipe, item),
        "made": run.made,
        "proof": proof,
        "limit": LIMIT,
    }
    environment = templates()
    environment.filters |= {"plain": plain, "pluralize": pluralize}
    return environment.get_template("card.md.jinja").render(context)


def plain(text: object) -> str:
    """Make Markdown that shows a text as it is: names of classes and files may be anything."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", printable(str(text)))


def _predictions(run: Run) -> Predictions | None:
    """Return what the run answered on its test images, or validation images, if it did."""
    for split in ("test", "val"):
        if run.predictions(split).exists():
            try:
                return load_predictions(run.predictions(split))
            except LoupeError:
                continue
    return None


def _worst(per_class: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((row for row in per_class if row["support"]), key=lambda row: row["recall"])[:WORST]


def _pairs(predictions: Predictions | None) -> list[str]:
    if not predictions:
        return []
    return [
        f"{plain(true_class)} taken for {plain(answer)} ({count:,} of {total:,})"
        for true_class, answer, count, total in most_confused(predictions, PAIRS)
    ]


def _stored_smaller(dataset: Dataset | None, preprocessing: Preprocessing) -> str:
    """Say the size that the images are stored at, where the model sees them larger."""
    if not dataset or not preprocessing.is_of_images or dataset.kind != "images":
        return ""
    height, width, _ = dataset.image_shape
    return f"{width} x {height}" if max(height, width) < max(preprocessing.shape[:2]) else ""


def _counts(dataset: Dataset | None, item: str) -> str:
    if not dataset:
        return ""
    return join_words(pluralize(len(split), f"{SPLIT_NAMES[name]} {item}") for name, split in dataset.splits.items())
