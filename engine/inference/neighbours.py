"""The training images that a model takes for most alike a picture: the nearest by its own features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.base.errors import DivergedError, LoupeError
from engine.base.text import pluralize
from engine.data.dataset import Dataset
from engine.inference.classifier import DIVERGED, Classifier, find_split
from engine.networks.features import Features
from engine.networks.inference import as_tensor
from engine.runs.run import Run

# What is worked on at once stays in the processor's cache.
BLOCK_BYTES = 1 << 20
# The last bits of an image's features depend on those that it was computed with, so a picture's exact copies may come a
# little after others: so many more than asked for are looked at, pixel by pixel.
MORE = 50


@dataclass(frozen=True)
class Neighbour:
    """A training image: its index in the split, its label, and how far its features are from the picture's."""

    index: int
    label: int
    distance: float


def training_features(classifier: Classifier, dataset: Dataset) -> Features:
    """Return the features of the training images by a model, which are to be filled before they are searched."""
    return Features(dataset, "train", classifier.extractor)


def training_rows(run: Run, dataset: Dataset) -> np.ndarray:
    """Return the indices of the images that a run was trained on, in order: without those held back from it."""
    return np.sort(find_split(dataset, run.read_recipe(), "train")[1].numpy())


def nearest(features: Features, rows: np.ndarray, picture: np.ndarray, most: int = 12) -> list[Neighbour]:
    """Find those of the rows whose features are nearest to a picture's by Euclidean distance, the nearest first.

    rows: indices, in order, that are all filled. picture: uint8 (height, width, channels) of any size, or a row of a
    table. An exact copy of it is at a distance of 0.
    """
    missing = len(features.missing(rows))
    if missing:
        raise LoupeError(
            f"The features of {pluralize(missing, 'training image')} of {len(rows):,} have not been computed yet. "
            "Compute them first, then look for the nearest."
        )
    own = features.extractor.features(as_tensor(picture[np.newaxis]))[0].cpu().numpy()
    if not np.isfinite(own).all():
        raise DivergedError(DIVERGED)
    squares = np.concatenate([np.zeros(0, np.float32), *_squared_distances(features, rows, own)])
    looked_at = np.arange(len(rows))
    if most + MORE < len(rows):
        looked_at = np.argpartition(squares, most + MORE)[: most + MORE]
    neighbours = [
        Neighbour(
            index=int(rows[place]),
            label=int(features.stored.labels[rows[place]]),
            distance=0.0 if _equal(features.stored.images[rows[place]], picture) else float(np.sqrt(squares[place])),
        )
        for place in looked_at
    ]
    return sorted(neighbours, key=lambda neighbour: (neighbour.distance, neighbour.index))[:most]


def _squared_distances(features: Features, rows: np.ndarray, own: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the squared distances of rows from some features, float32, a block of the file at a time.

    Summed up from differences: |a|^2 - 2ab + |b|^2 would leave noise of the small ones, which are wanted. Read, not
    mapped: a map's pages would count as this process's memory.
    """
    at_once = max(1, BLOCK_BYTES // own.nbytes)
    block = np.zeros((at_once, len(own)), np.float32)  # of the last, only a part is read
    with features.values.open("rb", buffering=0) as file:
        for start in range(0, len(features.stored), at_once):
            first, last = np.searchsorted(rows, (start, start + at_once))
            if first == last:
                continue
            file.seek(start * own.nbytes)
            file.readinto(block)  # type: ignore[arg-type]
            block -= own
            yield np.einsum("ij,ij->i", block, block)[rows[first:last] - start]


def _equal(stored: np.ndarray, picture: np.ndarray) -> bool:
    return stored.shape == picture.shape and np.array_equal(stored, picture)
