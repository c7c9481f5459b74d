"""Running a model on many images: always in float32, whatever it was trained in."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from engine.networks.preprocessing import Preprocess

BATCH_SIZE = 500
# Of larger images so many fewer are put through a network at once: 32 of 224 x 224, whose first layers of a ResNet-50
# then take half a gigabyte.
PIXELS_AT_ONCE = 32 * 224 * 224


def as_tensor(images: np.ndarray) -> Tensor:
    """Make a tensor that shares an array's memory; neither may be written to when the array may not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(images)


def batch_size_for(preprocess: nn.Module) -> int:
    """Return how many images, or rows, to put through a network at once."""
    if not isinstance(preprocess, Preprocess):
        return BATCH_SIZE
    height, width = preprocess.size
    return max(1, min(BATCH_SIZE, PIXELS_AT_ONCE // (height * width)))


def logits_in_batches(
    model: nn.Module, preprocess: nn.Module, images: Tensor | np.ndarray, indices: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield the model's logits for some images, in order, a batch at a time, on the model's device.

    images: uint8 (count, height, width, channels), or what else preprocess takes. The model must be in evaluation mode.
    """
    images = images if isinstance(images, Tensor) else as_tensor(images)
    device = next(model.parameters()).device
    if indices is None:
        indices = torch.arange(len(images))
    if not len(indices):
        return
    for batch in indices.to(images.device).split(batch_size_for(preprocess)):
        with torch.inference_mode():
            logits = model(preprocess(images[batch].to(device))).float()
        yield logits
