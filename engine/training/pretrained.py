"""Where a training may start from: torchvision's weights for ImageNet, a file of weights, or an earlier run."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import URLError

from filelock import FileLock
from torch import nn

from engine.base.errors import LoupeError
from engine.base.network import downloading
from engine.base.paths import weights_folder, writing_folder
from engine.base.progress import in_thread
from engine.data.catalogue import Progress
from engine.data.dataset import Dataset
from engine.data.download import network_reason
from engine.networks.model_file import load_preprocessing
from engine.networks.models import head_path
from engine.networks.preprocessing import Preprocessing, preprocessing_for
from engine.networks.weight_files import fit_weights, read_weights
from engine.recipes.backbones import BACKBONES
from engine.recipes.recipe import Recipe
from engine.recipes.weights import ImageNetWeights, NewWeights, RunWeights, WeightsFile
from engine.runs.run import starting_weights, weights_of_run

# What torchvision's files hold beside the networks that are built here: classifiers at half of the depth, and of
# squeezenet a head of another kind.
UNUSED = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
    "squeezenet1_0": ("classifier.1.",),
    "squeezenet1_1": ("classifier.1.",),
}


def downloaded_file(model: str) -> Path:
    """Return where the default weights of one of torchvision's networks are, or are to be."""
    return weights_folder() / BACKBONES[model].file


def _address(model: str) -> str:
    from torchvision.models import get_model_weights  # takes seconds

    return get_model_weights(model).DEFAULT.url


def fetch_weights(model: str) -> Iterator[Progress]:
    """Download the default weights of one of torchvision's networks unless they are here, yielding progress."""
    file, total = downloaded_file(model), round(BACKBONES[model].megabytes * 2**20)
    if file.exists():
        return
    with writing_folder(weights_folder()):
        weights_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(weights_folder() / f".{file.name}.lock"):
            if file.exists():
                return
            arriving = file.with_name(f".{file.name}.part")
            _clear(arriving)  # of a download that was killed
            try:
                for _ in in_thread(partial(_download, _address(model), arriving)):
                    yield Progress(min(_size_of(arriving), total), total)
                arriving.replace(file)
            finally:
                _clear(arriving)


def _parts(arriving: Path) -> Iterator[Path]:
    return arriving.parent.glob(f"{arriving.name}*")  # torch adds a name of its own


def _size_of(arriving: Path) -> int:
    total = 0
    for part in _parts(arriving):
        with suppress(FileNotFoundError):  # it has just got its name, or was given up
            total += part.stat().st_size
    return total


def _clear(arriving: Path) -> None:
    for part in _parts(arriving):
        part.unlink(missing_ok=True)


def _download(address: str, file: Path) -> None:
    """Download by torch's own function, which checks the hash that a file's name ends with."""
    import torch

    found = torch.hub.HASH_REGEX.search(address.rsplit("/", 1)[1])
    try:
        with downloading:
            torch.hub.download_url_to_file(address, str(file), found and found.group(1), progress=False)
        return
    except (RuntimeError, HTTPException, URLError, TimeoutError, ConnectionError, SSLError) as error:
        reason = network_reason(error)
    # Not within the handler: the library's error would be kept with ours, and the connection that it has left open.
    raise LoupeError(
        f"The weights are not on this machine and could not be downloaded ({reason}). Connect to the internet and try "
        f"again, or get {address} elsewhere and put it into {file.parent}."
    )


def earlier_preprocessing(recipe: Recipe) -> Preprocessing | None:
    """Return what the run that a recipe starts from was trained with; None where it starts from no run."""
    match starting_weights(recipe):
        case RunWeights() as source:
            return load_preprocessing(weights_of_run(source, recipe.model))
    return None


def preprocessing_of(recipe: Recipe, dataset: Dataset) -> Preprocessing:
    """Work out what a recipe's network sees of a dataset; whatever it leaves open, as its weights were trained."""
    earlier = earlier_preprocessing(recipe)
    backbone = BACKBONES.get(recipe.model)
    scaling = recipe.scaling
    if scaling == "auto":
        is_new = starting_weights(recipe) == NewWeights()
        scaling = backbone.scaling if backbone and not is_new else "unit"
    if dataset.kind == "table":
        return _as_earlier(preprocessing_for(dataset, scaling), earlier, recipe)
    height, width, channels = dataset.image_shape
    if backbone:
        channels = 3
    elif earlier and earlier.is_of_images and channels == 1:
        channels = len(earlier.mean)
    size = _size(recipe, (height, width), earlier)
    return _as_earlier(preprocessing_for(dataset, scaling, size, channels), earlier, recipe)


def _as_earlier(found: Preprocessing, earlier: Preprocessing | None, recipe: Recipe) -> Preprocessing:
    """Take over the scaling of an earlier run where a recipe leaves it open and the run's was of as many numbers."""
    if earlier is None or recipe.scaling != "auto" or earlier.is_of_images != found.is_of_images:
        return found
    if len(earlier.mean) != len(found.mean):
        return found
    return replace(found, mean=earlier.mean, std=earlier.std)


def _size(recipe: Recipe, stored: tuple[int, int], earlier: Preprocessing | None) -> tuple[int, int]:
    """Return height and width of what the network sees of images of a size."""
    backbone = BACKBONES.get(recipe.model)
    if backbone and backbone.fixed:
        if recipe.size not in (0, backbone.size):
            raise LoupeError(
                f"size is {recipe.size}, but {recipe.model} takes images of {backbone.size} x {backbone.size} pixels "
                f"only. Set size to 0 or {backbone.size}."
            )
        return backbone.size, backbone.size
    if backbone and 0 < recipe.size < backbone.smallest:
        raise LoupeError(
            f"size is {recipe.size}, but {recipe.model} needs images of at least {backbone.smallest} x "
            f"{backbone.smallest} pixels. Set size to {backbone.size}, which its weights were trained with, or to 0."
        )
    if recipe.size:
        return recipe.size, recipe.size
    if earlier and earlier.is_of_images:
        return earlier.image_shape[:2]
    if backbone and min(stored) < backbone.smallest:
        return backbone.smallest, backbone.smallest
    return stored


def load_pretrained(model: nn.Module, recipe: Recipe) -> str | None:
    """Load what a recipe starts from into a new network; returns a sentence about it, None where that is nothing.

    torchvision's weights must be here. Raises LoupeError for weights that do not fit; the network is then as it was.
    """
    match starting_weights(recipe):
        case NewWeights():
            return None
        case WeightsFile(path=file):
            source = file.name
        case ImageNetWeights():
            file = downloaded_file(recipe.model)
            source = file.name
        case RunWeights() as run:
            file = weights_of_run(run, recipe.model)
            source = f"the run {file.parent.name}"
    wanted, unused = model.state_dict(), UNUSED.get(recipe.model, ())
    fitting, note = fit_weights(read_weights(file), wanted, head_path(model), unused, source, recipe.model)
    model.load_state_dict(fitting, strict=False)
    return note
