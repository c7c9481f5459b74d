"""Figures of a dataset's pixels: levels, mean and deviation, and what the images of a class have in common."""

from dataclasses import dataclass

import numpy as np

from engine.base.paths import replacing_file
from engine.data.dataset import Dataset

# Averages are of so many bytes of images at most, divided among the classes: a second's work at any size of dataset.
AVERAGED_BYTES = 200_000_000
LEAST_AVERAGED = 10
AVERAGE_SIDE = 96
BLOCK_BYTES = 8_000_000


def pixel_levels(dataset: Dataset) -> np.ndarray:
    """Count the levels of the training images' pixels: int64 (channels, 256). Kept beside the dataset."""
    path, channels = dataset.folder / "train-levels.npy", dataset.image_shape[2]
    try:
        levels = np.load(path, allow_pickle=False)
        if levels.shape == (channels, 256) and levels.dtype == np.int64:
            return levels
    except (OSError, ValueError, EOFError):  # not there yet, or damaged
        pass
    images = dataset.splits["train"].images
    levels = np.zeros((channels, 256), dtype=np.int64)
    # A block at a time: exact, and no copy of the whole set.
    rows = max(1, BLOCK_BYTES // images[0].nbytes)
    for start in range(0, len(images), rows):
        block = images[start : start + rows]
        for channel in range(channels):
            levels[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    try:
        with replacing_file(path) as beside, beside.open("wb") as file:
            np.save(file, levels)
    except OSError:  # it can be counted again
        pass
    return levels


def mean_and_std(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's mean and standard deviation on the scale 0..1; of blank images the deviation is 0."""
    values = np.arange(256) / 255
    mean = levels @ values / levels.sum(axis=1)
    variance = levels @ values**2 / levels.sum(axis=1) - mean**2
    return mean, np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 0)), 0.0)


@dataclass(frozen=True)
class ClassAverage:
    """What the images of a class have in common.

    mean, std: of each pixel, float32 (height, width, channels), on the scale 0..255; made smaller where images
    are large. used, count: images that they are of, and images of the class.
    """

    mean: np.ndarray
    std: np.ndarray
    used: int
    count: int

    @property
    def variation(self) -> float:
        """How far a pixel of the class is from its mean: the root of the mean variance, in levels of 255."""
        return float(np.sqrt(np.mean(np.square(self.std))))


def average_class(dataset: Dataset, split: str, label: int) -> ClassAverage | None:
    """Average the images of a class in a split, or as many of them, evenly spread, as can be read in a moment."""
    stored = dataset.splits[split]
    indices = np.flatnonzero(stored.labels == label)
    if not len(indices):
        return None
    most = max(LEAST_AVERAGED, AVERAGED_BYTES // (stored.images[0].nbytes * len(dataset.classes)))
    used = indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(np.int64)]
    height, width, _ = dataset.image_shape
    step = min(-(-max(height, width) // AVERAGE_SIDE), height, width)
    total, squares = np.zeros(()), np.zeros(())
    rows = max(1, BLOCK_BYTES // (4 * stored.images[0].nbytes))
    for start in range(0, len(used), rows):
        block = _shrunk(stored.images[used[start : start + rows]].astype(np.float32), step)
        total = total + block.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(block).sum(axis=0, dtype=np.float64)
    mean = total / len(used)
    std = np.sqrt(np.maximum(squares / len(used) - np.square(mean), 0))
    return ClassAverage(mean.astype(np.float32), std.astype(np.float32), len(used), len(indices))


def _shrunk(images: np.ndarray, step: int) -> np.ndarray:
    """Average squares of ``step`` pixels; what is left at the edges is cut off."""
    if step == 1:
        return images
    count, height, width, channels = images.shape
    rows, columns = height // step, width // step
    blocks = images[:, : rows * step, : columns * step].reshape(count, rows, step, columns, step, channels)
    return blocks.mean(axis=(2, 4))
