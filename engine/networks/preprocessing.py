"""From stored pixels to what a model sees: one float module for training, evaluation and new pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset
from engine.data.statistics import mean_and_std, pixel_levels
from engine.images.ink_style import InkStyle, measure_ink_style


@dataclass(frozen=True)
class Preprocessing:
    """What a trained model needs to know of its input; plain values, saved beside its weights.

    shape: height and width of what the model sees, and the channels of images as they are stored; or the number of
    features of a row. mean, std: for each channel that the model sees, on the scale 0..1, or for each feature;
    it sees (value - mean) / std. Where it sees three channels of images that have one, all three are that one.
    fit: how a picture of another shape is brought to the model's, one of FITS, as it was done with the training images.
    levels: so too the values that become black and white in pictures of more than 8 bits.
    ink: how the training images hold their ink, where they are small, grey, and light strokes on dark.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    ink: InkStyle | None = None
    fit: str = "crop"  # models saved before it was noted have none
    levels: tuple[float, float] | None = None

    @property
    def is_of_images(self) -> bool:
        return len(self.shape) == 3

    def require_images(self) -> None:
        """Raise LoupeError for a model of rows."""
        if not self.is_of_images:
            raise LoupeError(
                f"This model classifies rows of {self.shape[0]} numbers, not pictures. Choose a run that was trained "
                "on images."
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images; raises LoupeError for a model of rows."""
        self.require_images()
        height, width, channels = self.shape
        return height, width, channels

    @property
    def model_shape(self) -> tuple[int, ...]:
        """What the model is built for: height, width, channels, or the number of features of a row."""
        return (*self.shape[:2], len(self.mean)) if self.is_of_images else self.shape

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        values = dict(values)
        if "height" in values:  # of models saved when there were images only
            values["shape"] = [values.pop(name) for name in ("height", "width", "channels")]
        if "deviation" in values:  # what std was called
            values["std"] = values.pop("deviation")
        ink = values.pop("ink", None)  # models saved before it was looked at have none
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain, ink=InkStyle(**ink) if ink else None)


def preprocessing_for(
    dataset: Dataset, scaling: str, size: tuple[int, int] | None = None, channels: int | None = None
) -> Preprocessing:
    """Work out the preprocessing for a dataset; ``dataset`` scaling measures its training images, or rows.

    size: height and width of what the model sees, None for those of the stored images. channels: as many as it sees.
    """
    if dataset.kind == "table":
        mean, std = _table_scaling(dataset, scaling)
        return Preprocessing(dataset.sample_shape, mean, std, dataset.classes)
    height, width, stored = dataset.image_shape
    mean, std = FIXED[scaling] if scaling in FIXED else _measured(dataset)
    channels = channels or stored
    if len(mean) != channels:  # alike for all channels, or of grey images
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    shape = (*(size or (height, width)), stored)
    ink = measure_ink_style(dataset.splits["train"].images)
    return Preprocessing(shape, tuple(mean), tuple(std), dataset.classes, ink, dataset.fit, dataset.levels)


def _measured(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = mean_and_std(pixel_levels(dataset))
    return tuple(mean.tolist()), _but_for_zeros(std)


def _table_scaling(dataset: Dataset, scaling: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    rows = dataset.splits["train"].images
    if scaling in ("half", "imagenet"):
        raise LoupeError(
            f"scaling is {scaling!r}, which is for pixels, but {dataset.name} is a table. Set scaling to 'unit', which "
            "leaves its numbers as they are, or to 'dataset', which brings each column to mean 0 and deviation 1."
        )
    if scaling == "unit":
        return (0.0,) * rows.shape[1], (1.0,) * rows.shape[1]
    return tuple(rows.mean(axis=0, dtype=np.float64).tolist()), _but_for_zeros(rows.std(axis=0, dtype=np.float64))


def _but_for_zeros(std: np.ndarray) -> tuple[float, ...]:
    # Of blank images, or a column of one value, the deviation is 0: leave them as they are.
    return tuple(np.where(std > 0, std, 1.0).tolist())


# Mean and deviation of the channels; ImageNet's are those that torchvision's weights were trained with.
FIXED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "unit": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def build_preprocess(preprocessing: Preprocessing) -> nn.Module:
    """Build the module that turns stored images, or rows, into what the model sees."""
    return (Preprocess if preprocessing.is_of_images else Standardize)(preprocessing)


class Standardize(nn.Module):
    """Scale rows of a table: float32 (batch, features) in and out."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean))
        self.register_buffer("std", torch.tensor(preprocessing.std))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


class Preprocess(nn.Module):
    """Turn uint8 (batch, height, width, channels) into what the model sees.

    Images of another shape are cropped: the middle is cut out in the model's shape, and resized; or they are padded:
    resized to fit into the model's shape, and laid in the middle of black. The result is float32 (batch, channels of
    the model, height, width) in channels_last memory order.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        self.size = preprocessing.image_shape[:2]
        self.fit = preprocessing.fit
        # Folded, so that scaling is one multiplication and one subtraction a pixel.
        std = torch.tensor(preprocessing.std)
        self.register_buffer("factor", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("offset", (torch.tensor(preprocessing.mean) / std).view(1, -1, 1, 1))

    def resize(self, images: Tensor) -> Tensor:
        """Bring images to the model's size: uint8 or float32, still on the scale 0..255, channels before height."""
        pixels = images.permute(0, 3, 1, 2)  # of channels-last pixels this is channels_last memory order already
        if pixels.shape[2:] == self.size:
            return pixels
        return pad(pixels, self.size) if self.fit == "pad" else resample(middle(pixels, self.size), self.size)

    def forward(self, images: Tensor) -> Tensor:
        return self.resize(images) * self.factor - self.offset


def resample(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images, (batch, channels, height, width); those of that size stay as they are."""
    return functional.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True, align_corners=False)


def pad(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images, (batch, channels, height, width), to fit into a size, and lay them in the middle of black.

    By two products of matrices: torch.export can do nothing with a resize to a size that it does not know, and torch's
    own to a single row or column of pixels is wrong.
    """
    height, width = pixels.shape[-2:]
    top, left, rows, columns = padded_box(height, width, size)
    down = _resampling(height, rows, top, size[0], pixels.device)
    across = _resampling(width, columns, left, size[1], pixels.device)
    return (down @ pixels.float() @ across.T).contiguous(memory_format=torch.channels_last)


def _resampling(length: int, resized: int, start: int, size: int, device: torch.device) -> Tensor:
    """Return how much of each of ``length`` pixels goes into each of ``size``, float32 (size, length).

    They are resized to ``resized`` pixels from ``start`` on, bilinear with antialiasing; the others get nothing.
    """
    scale = length / resized
    place = torch.arange(size, device=device) - start
    centre = (place + 0.5) * scale
    distance = (torch.arange(length, device=device) + 0.5 - centre.unsqueeze(1)).abs()
    reach: Any = torch.sym_max(scale, 1.0)
    weight = (1 - distance / reach).clamp(min=0)
    within = ((place >= 0) & (place < resized)).unsqueeze(1)
    return within * weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)


def middle(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the middle out of images, (..., height, width), in the shape of a size: as large as fits."""
    top, left, rows, columns = middle_box(pixels.shape[-2], pixels.shape[-1], size)
    return pixels[..., top : top + rows, left : left + columns]


def middle_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return where the middle of images is: top, left, rows, columns. In an export height and width are symbols."""
    tall, wide = size
    rows: Any = torch.sym_max(1, torch.sym_min(height, (2 * width * tall + wide) // (2 * wide)))
    columns: Any = torch.sym_max(1, torch.sym_min(width, (2 * height * wide + tall) // (2 * tall)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def padded_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return where images lie once they are padded, as imported ones are: top, left, rows, columns.

    In an export height and width are symbols.
    """
    tall, wide = size
    rows: Any = torch.sym_max(1, torch.sym_min(tall, (2 * height * wide + width) // (2 * width)))
    columns: Any = torch.sym_max(1, torch.sym_min(wide, (2 * width * tall + height) // (2 * height)))
    return (tall - rows) // 2, (wide - columns) // 2, rows, columns
