"""From stored pixels to what a model sees: one float module for training, evaluation and new pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.dataset import Dataset
from engine.errors import LoupeError
from engine.statistics import mean_and_deviation, pixel_levels


@dataclass(frozen=True)
class Preprocessing:
    """What a trained model needs to know of its input; plain values, saved beside its weights.

    shape: height, width and channels of an image, or the number of features of a row. mean, deviation: for each
    channel, on the scale 0..1, or for each feature; the model sees (value - mean) / deviation.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: tuple[str, ...]

    @property
    def is_of_images(self) -> bool:
        return len(self.shape) == 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images; raises LoupeError for a model of rows."""
        if not self.is_of_images:
            raise LoupeError(
                f"This model classifies rows of {self.shape[0]} numbers, not pictures. Choose a run that was trained "
                "on images."
            )
        height, width, channels = self.shape
        return height, width, channels

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        values = dict(values)
        if "height" in values:  # of models saved when there were images only
            values["shape"] = [values.pop(name) for name in ("height", "width", "channels")]
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)


def preprocessing_for(dataset: Dataset, scaling: str) -> Preprocessing:
    """Work out the preprocessing for a dataset; ``dataset`` scaling measures its training images, or rows."""
    if dataset.kind == "table":
        mean, deviation = _table_scaling(dataset, scaling)
    else:
        mean, deviation = SCALINGS[scaling](dataset)
    return Preprocessing(dataset.sample_shape, tuple(mean), tuple(deviation), dataset.classes)


def _fixed(mean: float, deviation: float):
    return lambda dataset: ((mean,) * dataset.image_shape[2], (deviation,) * dataset.image_shape[2])


def _measured(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, deviation = mean_and_deviation(pixel_levels(dataset))
    return tuple(mean.tolist()), _but_for_zeros(deviation)


def _table_scaling(dataset: Dataset, scaling: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    rows = dataset.splits["train"].images
    if scaling == "half":
        raise LoupeError(
            f"scaling is 'half', which is for pixels, but {dataset.name} is a table. Set scaling to 'unit', which "
            "leaves its numbers as they are, or to 'dataset', which brings each column to mean 0 and deviation 1."
        )
    if scaling == "unit":
        return (0.0,) * rows.shape[1], (1.0,) * rows.shape[1]
    return tuple(rows.mean(axis=0, dtype=np.float64).tolist()), _but_for_zeros(rows.std(axis=0, dtype=np.float64))


def _but_for_zeros(deviation: np.ndarray) -> tuple[float, ...]:
    # Of blank images, or a column of one value, the deviation is 0: leave them as they are.
    return tuple(np.where(deviation > 0, deviation, 1.0).tolist())


SCALINGS = {"unit": _fixed(0.0, 1.0), "half": _fixed(0.5, 0.5), "dataset": _measured}


def build_preprocess(preprocessing: Preprocessing) -> nn.Module:
    """Build the module that turns stored images, or rows, into what the model sees."""
    return (Preprocess if preprocessing.is_of_images else Standardize)(preprocessing)


class Standardize(nn.Module):
    """Scale rows of a table: float32 (batch, features) in and out."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean))
        self.register_buffer("deviation", torch.tensor(preprocessing.deviation))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.deviation


class Preprocess(nn.Module):
    """Turn uint8 (batch, height, width, channels) into what the model sees.

    The result is float32 (batch, channels, height, width) in channels_last memory order.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.size = preprocessing.image_shape[:2]
        # Folded, so that scaling is one multiplication and one subtraction a pixel.
        deviation = torch.tensor(preprocessing.deviation)
        self.register_buffer("factor", (1 / (255 * deviation)).view(1, -1, 1, 1))
        self.register_buffer("offset", (torch.tensor(preprocessing.mean) / deviation).view(1, -1, 1, 1))

    def resize(self, images: Tensor) -> Tensor:
        """Bring images to the model's size: uint8 or float32, still on the scale 0..255, channels before height."""
        pixels = images.permute(0, 3, 1, 2)  # of channels-last pixels this is channels_last memory order already
        if pixels.shape[2:] == self.size:
            return pixels
        return functional.interpolate(
            pixels.float(), size=self.size, mode="bilinear", antialias=True, align_corners=False
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.resize(images) * self.factor - self.offset
