"""A trained model as one module that takes images as they are: what every export is made from."""

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from engine.networks.model_file import load_model
from engine.networks.preprocessing import (
    Preprocess,
    Preprocessing,
    build_preprocess,
    middle_box,
    pad,
    resample,
)
from engine.runs.run import Run

FORMAT = "1"
MOST_IMAGES, LONGEST_SIDE = 1 << 16, 1 << 17


class Portable(nn.Module):
    """Images in, probabilities out: uint8 (batch, height, width, channels) of any size to float32 (batch, classes).

    For a model of rows: float32 (batch, features) in.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        prepare = GraphPreprocess if preprocessing.is_of_images else build_preprocess
        self.preprocess = prepare(preprocessing)
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(self.preprocess(inputs)).softmax(dim=1)


class GraphPreprocess(Preprocess):
    """The preprocessing as a graph of operations that holds for images of every size: nothing in it asks for one.

    The middle is gathered by index: a slice of a length that is not known makes torch.export ask what it may be. Nor
    has what is gathered a single row or column, which it would tell apart, but the same twice: resized, that is no
    other. And it is float before, as of a part of an image the cast would ask for its order in memory.
    """

    def resize(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        if self.fit == "pad":
            return pad(pixels, self.size)
        top, left, rows, columns = middle_box(pixels.shape[2], pixels.shape[3], self.size)
        tall, wide = (
            torch.arange(torch.sym_max(2, length), device=images.device).clamp(max=length - 1)
            for length in (rows, columns)
        )
        return resample(pixels.index_select(2, tall + top).index_select(3, wide + left), self.size)


def load_portable(run: Run) -> Portable:
    """Load a run's model for an export: its own copy, on the CPU."""
    return Portable(*load_model(run.weights)).eval()


def example_of(portable: Portable, preprocessing: Preprocessing) -> tuple[tuple[Tensor], dict[str, Any]]:
    """Return an input to trace a model with, and which of its sizes are free."""
    images = Dim("batch", min=1, max=MOST_IMAGES)
    # With a batch of one, torch takes one for the only size there is.
    if not preprocessing.is_of_images:
        return (torch.zeros(2, *preprocessing.shape),), {"inputs": {0: images}}
    height, width = (Dim(name, min=1, max=LONGEST_SIDE) for name in ("height", "width"))
    example = torch.zeros(2, 45, 57, preprocessing.shape[2], dtype=torch.uint8)
    return (example,), {"inputs": {0: images, 1: height, 2: width}}


def metadata_of(run: Run, preprocessing: Preprocessing) -> dict[str, str]:
    """Return what goes into an exported model besides its weights, as texts; all but the run's name are JSON."""
    values = preprocessing.as_dict()
    return {
        "run": run.id,
        "format": json.dumps(FORMAT),
        "classes": json.dumps(values.pop("classes"), ensure_ascii=False),
        "preprocessing": json.dumps(values),
    }
