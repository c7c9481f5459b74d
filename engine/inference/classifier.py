"""A trained run that classifies: splits of its dataset, and any picture."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.base.errors import DivergedError, LoupeError
from engine.base.paths import writing_folder
from engine.base.text import join_words
from engine.data.dataset import Dataset
from engine.data.splits import train_validation_indices, validation_split
from engine.evaluation.predictions import Predictions, save_predictions
from engine.images.ink import normalize_ink
from engine.networks.features import Extractor
from engine.networks.inference import logits_in_batches
from engine.networks.model_file import load_model
from engine.networks.models import backbone_of, feature_count
from engine.networks.preprocessing import Preprocessing, build_preprocess
from engine.recipes.recipe import Recipe
from engine.runs.records import Evaluating
from engine.runs.run import Run

DIVERGED = "The model's answers are not numbers: its training has diverged. Train it again with a lower learning_rate."


class Classifier:
    """A model in evaluation mode with the preprocessing that it was trained with. Computes in float32."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing):
        self.model = model.eval()
        self.preprocessing = preprocessing
        self.preprocess: Any = build_preprocess(preprocessing).to(next(model.parameters()).device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.preprocessing.classes

    @cached_property
    def extractor(self) -> Extractor:
        """What makes the features that the head decides by."""
        return Extractor(backbone_of(self.model), feature_count(self.model), self.preprocess, "float32")

    def probabilities(self, images: np.ndarray | Tensor, indices: Tensor | None = None) -> Iterator[np.ndarray]:
        """Yield probabilities, float32 (batch, classes), for uint8 images of one size, a batch at a time.

        Raises DivergedError when they are no numbers.
        """
        for logits in logits_in_batches(self.model, self.preprocess, images, indices):
            probabilities = logits.softmax(dim=1).cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise DivergedError(DIVERGED)
            yield probabilities

    def classify(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classify one picture of any size: uint8 (height, width, channels), with the model's channels.

        Its middle is cut out in the shape of the model's input and resized. Returns the probabilities, float32
        (classes,), and what the model saw.
        """
        resized = self._resize(picture)
        (probabilities,) = self.probabilities(resized)
        return probabilities[0], _as_pixels(resized)

    def normalize(self, picture: np.ndarray) -> tuple[np.ndarray, str]:
        """Bring a picture of ink, dark on light say, into the form of the training images where those are of strokes.

        picture: as for ``classify``. Returns what to classify in its place and what was done in words, or the very
        picture and no words.
        """
        height, width, _ = self.preprocessing.image_shape
        ink = self.preprocessing.ink
        return normalize_ink(picture, height, width, **asdict(ink)) if ink else (picture, "")

    def see(self, picture: np.ndarray) -> np.ndarray:
        """Return what the model sees of a picture, before scaling: uint8, of the model's size."""
        return _as_pixels(self._resize(picture))

    def _resize(self, picture: np.ndarray) -> Tensor:
        """Bring a picture to the model's size: (1, height, width, channels) on its device, not rounded."""
        self.preprocessing.require_images()
        # A copy: torch warns about arrays that it may not write to, as those of Pillow are.
        pixels = torch.from_numpy(np.array(picture)[np.newaxis]).to(next(self.model.parameters()).device)
        with torch.inference_mode():
            return self.preprocess.resize(pixels).permute(0, 2, 3, 1)


def _as_pixels(resized: Tensor) -> np.ndarray:
    return resized[0].round().to(torch.uint8).cpu().numpy()


class HeadClassifier(Classifier):
    """A model of which the head alone is at work, on features in place of images."""

    def __init__(self, head: nn.Module, preprocessing: Preprocessing):
        super().__init__(head, preprocessing)
        self.preprocess = nn.Identity()


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
    model, preprocessing = load_model(path)
    return Classifier(model.to(memory_format=torch.channels_last), preprocessing)


def has_split(dataset: Dataset, recipe: Recipe, split: str) -> bool:
    return split in dataset.splits or (split == "val" and recipe.validation_share > 0)


def find_split(dataset: Dataset, recipe: Recipe, split: str) -> tuple[str, Tensor]:
    """Return the dataset's split that holds a run's, and the indices there; ``train`` leaves out what is held back."""
    if not has_split(dataset, recipe, split):
        held = [name for name in ("train", "val", "test") if has_split(dataset, recipe, name)]
        raise LoupeError(f"There is no split {split!r} in this run. Its splits: {join_words(held)}.")
    if split in ("train", "val"):
        train, val = train_validation_indices(dataset, recipe)
        return ("train", train) if split == "train" else (validation_split(dataset), val)
    return split, torch.arange(len(dataset.splits[split]))


def gather(
    classifier: Classifier, run: Run, dataset: Dataset, split: str, inputs: Tensor | None = None
) -> Iterator[Evaluating]:
    """Run a split through a model and write the run's predictions for it, yielding progress.

    inputs: what to give the classifier for the images of the stored split, where that is not the images themselves.
    """
    stored_in, indices = find_split(dataset, run.read_recipe(), split)
    stored = dataset.splits[stored_in]
    batches: list[np.ndarray] = []
    done = 0
    for batch in classifier.probabilities(stored.images if inputs is None else inputs, indices):
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
    with writing_folder(run.path):
        save_predictions(predictions, run.predictions(split))
