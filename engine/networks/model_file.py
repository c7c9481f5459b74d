"""The file of a trained model: weights, and all that is needed to use them, as safetensors, which holds only data."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.base.errors import LoupeError, reason_of
from engine.base.machine import is_out_of_memory
from engine.base.paths import replacing_file, writing_folder
from engine.networks.models import build_model
from engine.networks.preprocessing import Preprocessing
from engine.recipes.recipe import Recipe

FORMAT = "1"


def save_model(path: Path, weights: Mapping[str, Tensor], recipe: Recipe, preprocessing: Preprocessing) -> None:
    """Write weights, and what is needed to use them, as one safetensors file."""
    metadata = {
        "format": FORMAT,
        "model": recipe.model,
        "head": recipe.head,
        "preprocessing": json.dumps(preprocessing.as_dict()),
    }
    with writing_folder(path.parent), replacing_file(path) as beside:
        # Not with save_file, which tells of a full disk in a way of its own.
        beside.write_bytes(save({name: value.contiguous() for name, value in weights.items()}, metadata))


def load_model(path: Path) -> tuple[nn.Module, Preprocessing]:
    """Rebuild a run's model from its file, and what it was trained with. Nothing in the file can run."""
    with _reading(path):
        metadata, preprocessing = _metadata(path)
        with safe_open(path, framework="pt") as file:
            weights = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - not a dict
        shape, head = preprocessing.model_shape, metadata.get("head", "linear")
        model = build_model(metadata["model"], shape, len(preprocessing.classes), head)
        # The versions of its modules, without which mnasnet takes weights for those of an older one.
        weights._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
        model.load_state_dict(weights)
    return model, preprocessing


def load_preprocessing(path: Path) -> Preprocessing:
    """Read only what a run's model was trained with."""
    with _reading(path):
        return _metadata(path)[1]


def network_of(path: Path) -> str:
    """Read the name of the network that a run's weights are of."""
    with _reading(path):
        return _metadata(path)[0]["model"]


def _metadata(path: Path) -> tuple[dict[str, str], Preprocessing]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is {metadata.get('format')}, not {FORMAT}")
    return metadata, Preprocessing.from_dict(json.loads(metadata["preprocessing"]))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what safetensors and torch raise, which is whatever the damage leads to, into a sentence."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise LoupeError(
            f"{path.name} of the run {path.parent.name} cannot be used: it is damaged, or not a file of weights "
            f"({reason_of(error)}). Nothing in it was run. Train the recipe again."
        ) from error
