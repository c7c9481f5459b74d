"""Whether a picture is unlike anything that a model was trained on, by its distance to the nearest training image."""

import json
from dataclasses import asdict, dataclass

import numpy as np

from engine.base.errors import LoupeError
from engine.base.paths import replacing_file, writing_folder
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.inference.classifier import Classifier, find_split, has_split
from engine.inference.neighbours import Neighbour, nearest, training_features, training_rows
from engine.networks.features import Features
from engine.networks.inference import as_tensor, batch_size_for
from engine.runs.run import Run

# So many of the images that were held back are within the threshold.
SHARE = 0.99
HELD_BACK, BLOCK = 1000, 4096


@dataclass(frozen=True)
class Threshold:
    """The distance, between features, that a share of held-out images are within of their nearest training image.

    split: where those images are from, ``val`` or, in a run that held none back, ``test``; count: how many.
    features: names what it was measured on, so that it is measured anew for other weights or data.
    """

    distance: float
    split: str
    count: int
    features: str


def open_novelty(run: Run, classifier: Classifier) -> "Novelty":
    """Open what tells how unlike a run's training images pictures are; raises LoupeError when those are not here."""
    name, started = run.read_recipe().dataset, run.history().started
    if not is_prepared(name):
        raise LoupeError(
            f"The dataset {name} is not here any more, so it cannot be told how like its images this is. The answer "
            "stands."
        )
    dataset = open_dataset(name)
    if started and started.fingerprint != dataset.fingerprint:
        raise LoupeError(
            f"The dataset {name} has changed since this run was trained, so it cannot be told how like its training "
            "images this is. The answer stands."
        )
    return Novelty(run, classifier, dataset)


class Novelty:
    """What tells how far pictures are from a run's training images; their features must have been computed."""

    def __init__(self, run: Run, classifier: Classifier, dataset: Dataset):
        self.features: Features = training_features(classifier, dataset)
        self.rows = training_rows(run, dataset)
        self._run, self._dataset = run, dataset

    @property
    def is_ready(self) -> bool:
        return not len(self.features.missing(self.rows))

    def threshold(self) -> Threshold:
        """Return the threshold; measured once, and kept with the run."""
        path = self._run.path / "novelty.json"
        try:
            kept = Threshold(**json.loads(path.read_text()))
            if kept.features == self.features.values.name and isinstance(kept.distance, float):
                return kept
        except (OSError, ValueError, TypeError):
            pass
        measured = self._measure()
        with writing_folder(self._run.path), replacing_file(path) as beside:
            beside.write_text(json.dumps(asdict(measured)) + "\n")
        return measured

    def nearest(self, picture: np.ndarray) -> Neighbour:
        """Return the training image nearest to a picture, uint8 (height, width, channels), as the model sees it."""
        return nearest(self.features, self.rows, picture, most=1)[0]

    def _measure(self) -> Threshold:
        recipe = self._run.read_recipe()
        split = "val" if has_split(self._dataset, recipe, "val") else "test"
        if not has_split(self._dataset, recipe, split):
            raise LoupeError("The run held no images back, so it cannot be told what is unlike its training images.")
        stored_in, indices = find_split(self._dataset, recipe, split)
        chosen = np.sort(np.random.default_rng(0).permutation(indices.numpy())[:HELD_BACK])
        own = self._features_of(self._dataset.splits[stored_in].images[chosen])
        distance = float(np.quantile(self._to_nearest(own), SHARE))
        return Threshold(distance, split, len(chosen), self.features.values.name)

    def _features_of(self, images: np.ndarray) -> np.ndarray:
        extractor, at_once = self.features.extractor, batch_size_for(self.features.extractor.preprocess)
        batches = (images[start : start + at_once] for start in range(0, len(images), at_once))
        return np.concatenate([extractor.features(as_tensor(batch)).cpu().numpy() for batch in batches])

    def _to_nearest(self, own: np.ndarray) -> np.ndarray:
        """Return the distances of some features, (count, features), from the nearest of the training images'."""
        own = own.astype(np.float64)
        squares, least = (own**2).sum(axis=1), np.full(len(own), np.inf)
        stored = self.features.open().numpy()
        for start in range(0, len(self.rows), BLOCK):
            block = stored[self.rows[start : start + BLOCK]].astype(np.float64)
            distances = squares[:, np.newaxis] - 2 * own @ block.T + (block**2).sum(axis=1)
            np.minimum(least, distances.min(axis=1), out=least)
        return np.sqrt(np.maximum(least, 0))
