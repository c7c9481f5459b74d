"""What a recipe's network starts from: the text of its field ``weights``, and what that means."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WEIGHT_FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
WANTED = f"none, imagenet, the name of an earlier run, or a file ({', '.join(WEIGHT_FILES)})"


@dataclass(frozen=True)
class NewWeights:
    """Drawn with the recipe's seed."""


@dataclass(frozen=True)
class ImageNetWeights:
    """torchvision's default weights for the network, trained on ImageNet."""


@dataclass(frozen=True)
class WeightsFile:
    path: Path


@dataclass(frozen=True)
class RunWeights:
    """Those that an earlier run has come to; name: its id, or the path of its directory."""

    name: str


StartingWeights = NewWeights | ImageNetWeights | WeightsFile | RunWeights


def parse_weights(text: str, is_run: Callable[[str], bool]) -> StartingWeights:
    """Tell what a recipe's ``weights`` means. is_run: whether there is a run of a name, which may be like a file's.

    What is no run is a file if it has a folder or the ending of a file of weights, and else a run that is not there.
    """
    if text == "none":
        return NewWeights()
    if text == "imagenet":
        return ImageNetWeights()
    looks_like_file = "/" in text or os.sep in text or text.endswith(WEIGHT_FILES)
    if looks_like_file and not is_run(text):
        return WeightsFile(Path(os.path.expanduser(text)))  # noqa: PTH111 - it leaves alone what it cannot expand
    return RunWeights(text)
