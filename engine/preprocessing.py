"""From stored pixels to what a model sees: one float module for training, evaluation and new pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.dataset import Dataset
from engine.statistics import mean_and_deviation, pixel_levels


@dataclass(frozen=True)
class Preprocessing:
    """What a trained model needs to know of its input; plain values, saved beside its weights.

    mean, deviation: for each channel, on the scale 0..1; the model sees (pixel / 255 - mean) / deviation.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: tuple[str, ...]

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)


def preprocessing_for(dataset: Dataset, scaling: str) -> Preprocessing:
    """Work out the preprocessing for a dataset; ``dataset`` scaling measures its training images."""
    height, width, channels = dataset.image_shape
    mean, deviation = SCALINGS[scaling](dataset)
    return Preprocessing(height, width, channels, tuple(mean), tuple(deviation), dataset.classes)


def _fixed(mean: float, deviation: float):
    return lambda dataset: ((mean,) * dataset.image_shape[2], (deviation,) * dataset.image_shape[2])


def _measured(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, deviation = mean_and_deviation(pixel_levels(dataset))
    # Of blank images the deviation is 0: leave them as they are.
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


SCALINGS = {"unit": _fixed(0.0, 1.0), "half": _fixed(0.5, 0.5), "dataset": _measured}


class Preprocess(nn.Module):
    """Turn uint8 (batch, height, width, channels) into what the model sees.

    The result is float32 (batch, channels, height, width) in channels_last memory order.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.size = (preprocessing.height, preprocessing.width)
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
