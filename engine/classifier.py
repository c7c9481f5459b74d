"""A trained run that classifies: splits of its dataset, and any picture."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.dataset import Dataset
from engine.errors import LoupeError, reason_of
from engine.inference import logits_in_batches
from engine.machine import is_out_of_memory
from engine.models import build_model
from engine.paths import replacing, writing_to
from engine.predictions import Predictions, save_predictions
from engine.preprocessing import Preprocess, Preprocessing, build_preprocess
from engine.recipes import Recipe
from engine.records import Evaluating
from engine.runs import Run
from engine.training import hold_back, validation_split
from engine.words import listed

FORMAT = "1"


class Classifier:
    """A model in evaluation mode with the preprocessing that it was trained with. Computes in float32."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing):
        self.model = model.eval()
        self.preprocessing = preprocessing
        self.preprocess = build_preprocess(preprocessing).to(next(model.parameters()).device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.preprocessing.classes

    def probabilities(self, images: np.ndarray, indices: Tensor | None = None) -> Iterator[np.ndarray]:
        """Yield probabilities, float32 (batch, classes), for uint8 images of one size, a batch at a time.

        Raises LoupeError when they are no numbers, as those of diverged weights.
        """
        for logits in logits_in_batches(self.model, self.preprocess, images, indices):
            probabilities = logits.softmax(dim=1).cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise LoupeError(
                    "The model's answers are not numbers: its training has diverged. "
                    "Train it again with a lower learning_rate."
                )
            yield probabilities

    def classify(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classify one picture of any size: uint8 (height, width, channels), with the model's channels.

        Its middle is cut out in the shape of the model's input and resized. Returns the probabilities, float32
        (classes,), and what the model saw before scaling: uint8, of the model's size.
        """
        middle = self._middle(picture)[np.newaxis]
        assert isinstance(self.preprocess, Preprocess)  # _middle has refused rows
        (probabilities,) = self.probabilities(middle)
        with torch.inference_mode():
            device = next(self.model.parameters()).device
            seen = self.preprocess.resize(torch.from_numpy(middle).to(device)).round().to(torch.uint8)
        return probabilities[0], seen[0].permute(1, 2, 0).cpu().numpy()

    def _middle(self, picture: np.ndarray) -> np.ndarray:
        wanted_height, wanted_width, _ = self.preprocessing.image_shape
        height, width = picture.shape[:2]
        shape = wanted_width / wanted_height
        rows, columns = max(1, min(height, round(width / shape))), max(1, min(width, round(height * shape)))
        top, left = (height - rows) // 2, (width - columns) // 2
        # A copy: torch warns about arrays that it may not write to, as those of Pillow are.
        return np.array(picture[top : top + rows, left : left + columns])


def save_weights(path: Path, weights: Mapping[str, Tensor], model: str, preprocessing: Preprocessing) -> None:
    """Write weights, and what is needed to use them, as one safetensors file."""
    metadata = {"format": FORMAT, "model": model, "preprocessing": json.dumps(preprocessing.as_dict())}
    with writing_to(path.parent), replacing(path) as beside:
        # Not with save_file, which tells of a full disk in a way of its own.
        beside.write_bytes(save({name: value.contiguous() for name, value in weights.items()}, metadata))


def load_classifier(run: Run) -> Classifier:
    """Load the model of a run; the few used last are kept in memory. The file is data: nothing in it can run."""
    try:
        changed = run.weights.stat().st_mtime_ns
    except FileNotFoundError:
        raise LoupeError(
            f"The run {run.id} has no weights: it did not get as far as saving a model. "
            "Choose another run, or train again."
        ) from None
    return _load(run.weights, changed)


@lru_cache(maxsize=4)
def _load(path: Path, changed: int) -> Classifier:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')}, not {FORMAT}")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        preprocessing = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
        model = build_model(metadata["model"], preprocessing.shape, len(preprocessing.classes))
        model.load_state_dict(weights)
    except Exception as error:  # safetensors and torch raise whatever the damage leads to
        if is_out_of_memory(error):
            raise
        raise LoupeError(
            f"{path.name} of the run {path.parent.name} cannot be used: it is damaged, or not a file of weights "
            f"({reason_of(error)}). Nothing in it was run. Train the recipe again."
        ) from error
    return Classifier(model.to(memory_format=torch.channels_last), preprocessing)


def has_split(dataset: Dataset, recipe: Recipe, split: str) -> bool:
    return split in dataset.splits or (split == "val" and recipe.validation_share > 0)


def find_split(dataset: Dataset, recipe: Recipe, split: str) -> tuple[str, Tensor]:
    """Return the dataset's split that holds a run's, and the indices there; ``train`` leaves out what is held back."""
    if not has_split(dataset, recipe, split):
        held = [name for name in ("train", "val", "test") if has_split(dataset, recipe, name)]
        raise LoupeError(f"There is no split {split!r} in this run. Its splits: {listed(held)}.")
    if split in ("train", "val"):
        train, val = hold_back(dataset, recipe)
        return ("train", train) if split == "train" else (validation_split(dataset), val)
    return split, torch.arange(len(dataset.splits[split]))


def gather(classifier: Classifier, run: Run, dataset: Dataset, split: str) -> Iterator[Evaluating]:
    """Run a split through a model and write the run's predictions for it, yielding progress."""
    stored_in, indices = find_split(dataset, run.recipe, split)
    stored = dataset.splits[stored_in]
    batches: list[np.ndarray] = []
    done = 0
    for batch in classifier.probabilities(stored.images, indices):
        batches.append(batch)
        done += len(batch)
        yield Evaluating(split, done, len(indices))
    predictions = Predictions(
        split=split,
        stored_in=stored_in,
        probabilities=np.concatenate(batches),
        labels=stored.labels[indices.numpy()],
        indices=indices.numpy(),
        classes=classifier.classes,
        fingerprint=dataset.fingerprint,
    )
    with writing_to(run.path):
        save_predictions(predictions, run.predictions(split))
