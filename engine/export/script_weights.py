"""The weights that a network starts from as code: torchvision's, an earlier run's, or those of a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.base.errors import LoupeError
from engine.export.script_code import call, quoted
from engine.export.script_subject import Subject
from engine.networks.weight_files import NESTS, fit_weights, read_weights
from engine.recipes.weights import ImageNetWeights, NewWeights, RunWeights, WeightsFile
from engine.runs.run import starting_weights, weights_of_run

IMAGENET_CLASSES = 1000


def pretrained_code(subject: Subject) -> str:
    """Write how the weights are loaded that the network starts from; empty where they are new."""
    recipe = subject.recipe
    match starting_weights(recipe):
        case NewWeights():
            return ""
        case ImageNetWeights():
            lines = _imagenet(recipe.model)
            keeps_head = recipe.head == "linear" and subject.num_classes == IMAGENET_CLASSES
        case WeightsFile(path=path):
            lines, keeps_head = _own_weights(subject, path.resolve(), "a file of weights")
        case RunWeights() as run:
            path = weights_of_run(run, recipe.model)
            lines, keeps_head = _own_weights(subject, path, f"the weights of Loupe's run {run.name}")
    if not keeps_head:
        start = quoted(f"{subject.head}.")
        lines += [
            "# The head, which tells the classes apart, is new.",
            f"pretrained = {{name: value for name, value in pretrained.items() if not name.startswith({start})}}",
        ]
    if recipe.model.startswith("mnasnet"):
        lines += [
            "state = model.state_dict()  # with the versions of its layers, which this network asks for",
            "state.update(pretrained)",
            "model.load_state_dict(state, strict=False)",
        ]
    else:
        lines += ["model.load_state_dict(pretrained, strict=False)"]
    return "\n".join(lines)


def _imagenet(name: str) -> list[str]:
    comment = "# The network starts from torchvision's weights, which were trained on ImageNet."
    if name.startswith("densenet"):  # the names in its file are not those of the network
        return [comment, f'pretrained = models.{name}(weights="DEFAULT").state_dict()']
    return [
        comment,
        f'weights = models.get_model_weights("{name}").DEFAULT',
        'pretrained = weights.get_state_dict(model_dir=DATA / "weights", check_hash=True)',
    ]


def _own_weights(subject: Subject, path: Path, what: str) -> tuple[list[str], bool]:
    """Return the lines that load weights from a file, and whether its head is taken too. what: they are, in words."""
    recipe = subject.recipe
    found = read_weights(path)
    taken, _ = fit_weights(found, subject.model.state_dict(), subject.head, (), path.name, recipe.model)
    prefix = _prefix(found, taken)
    if prefix is None:
        raise LoupeError(
            f"{path.name} names its weights in another way than {recipe.model}, and a plain script would have to "
            "rename each. Start a run from the weights of this one, and write that as a script."
        )
    comment = f"# The network starts from {what}."
    if path.suffix == ".safetensors":
        lines = [comment, call("pretrained = load_file", [quoted(str(path))])]
    else:
        nest = _nest(_content(path), found)
        if nest is None:
            raise _refused(path)
        options = [quoted(str(path)), 'map_location="cpu"', "weights_only=True"]
        lines = [comment, call("pretrained = torch.load", options, "".join(f"[{quoted(name)}]" for name in nest))]
    if prefix:
        lines += [f"pretrained = {{name.removeprefix({quoted(prefix)}): value for name, value in pretrained.items()}}"]
    return lines, any(name.startswith(f"{subject.head}.") for name in taken)


def _prefix(found: Mapping[str, Any], taken: Mapping[str, Any]) -> str | None:
    """Return what a file has before each of the network's names; None where it names them in another way."""
    first = next(iter(taken))
    for name in found:
        prefix = name.removesuffix(first)
        if name.endswith(first) and all(f"{prefix}{each}" in found for each in taken):
            return prefix
    return None


def _content(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the file leads to
        raise _refused(path) from error


def _nest(content: Any, found: Mapping[str, Any], depth: int = 3) -> tuple[str, ...] | None:
    """Return under which names a checkpoint keeps its weights, the outermost first; None where it has none."""
    if not isinstance(content, Mapping) or not depth:
        return None
    if found.keys() <= content.keys():
        return ()
    # In the order in which the weights were looked for: a second copy, such as an average, comes after.
    nests = ((name, _nest(content.get(name), found, depth - 1)) for name in NESTS)
    return next(((name, *nest) for name, nest in nests if nest is not None), None)


def _refused(path: Path) -> LoupeError:
    return LoupeError(
        f"{path.name} cannot be read by torch.load(..., weights_only=True) alone, as a script would. Start a run from "
        "the weights of this one, and write that as a script."
    )
