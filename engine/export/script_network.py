"""The network of a run as code: Loupe's own layer by layer, torchvision's by name."""

import textwrap
from typing import Any

from torch import nn

from engine.base.text import join_words, pluralize
from engine.export.script_code import call
from engine.export.script_subject import Subject
from engine.export.script_weights import pretrained_code
from engine.networks.inference import batch_size_for
from engine.networks.models import Residual, ScaledLinear
from engine.networks.preprocessing import build_preprocess
from engine.recipes.backbones import BACKBONES

DEFINITIONS: dict[type[nn.Module], str] = {
    Residual: textwrap.dedent('''\
        class Residual(nn.Sequential):
            """Layers whose output is added to their input."""

            def forward(self, images):
                return images + super().forward(images)
        '''),
    ScaledLinear: textwrap.dedent('''\
        class ScaledLinear(nn.Linear):
            """A linear layer without bias whose output is multiplied by a fixed number."""

            def __init__(self, in_features, out_features, factor):
                super().__init__(in_features, out_features, bias=False)
                self.factor = factor

            def forward(self, features):
                return super().forward(features) * self.factor
        '''),
}


def network_parts(subject: Subject) -> dict[str, Any]:
    recipe = subject.recipe
    return {
        "network": _network(subject),
        "pretrained": pretrained_code(subject),
        "channels_last": subject.is_of_images and recipe.convolutions != "native" and recipe.model != "mlp",
        "head": _access(subject),
        "at_once": batch_size_for(build_preprocess(subject.preprocessing)),
    }


def _network(subject: Subject) -> dict[str, Any]:
    """Write out the network: Loupe's own layer by layer, torchvision's by name, with what is changed of it."""
    recipe, model = subject.recipe, subject.model
    sample = f"{join_words(subject.preprocessing.model_shape[:1])} numbers"
    if subject.is_of_images:
        height, width, channels = subject.preprocessing.model_shape
        sample = f"{pluralize(channels, 'channel')} of {height} x {width} pixels"
    about = f"{recipe.model}, from {sample} to {subject.num_classes} classes."
    if recipe.model not in BACKBONES or not subject.is_of_images:
        kinds = {type(module) for module in model.modules()}
        return {
            "about": about,
            "definitions": [text for kind, text in DEFINITIONS.items() if kind in kinds],
            "code": f"model = {_layer(model)}",
        }
    options = [f"num_classes={subject.num_classes}"]
    if recipe.model in ("googlenet", "inception_v3"):
        options += ["aux_logits=False", "transform_input=True", "init_weights=True"]
    elif recipe.model.startswith("vit_"):
        options += [f"image_size={BACKBONES[recipe.model].size}"]
    lines = [call(f"model = models.{recipe.model}", options)]
    if recipe.model.startswith("squeezenet"):
        lines += [
            "# torchvision's head cuts the average of each class off at 0, so that a class may never learn.",
            f"model.classifier = {_layer(model.get_submodule('classifier'))}",
        ]
    elif recipe.head == "hidden":
        lines += [f"{_access(subject)} = {_layer(model.get_submodule(subject.head))}"]
    return {"about": about, "definitions": [], "code": "\n".join(lines)}


def _layer(layer: nn.Module, indent: str = "") -> str:
    """Write a layer as the call that builds it; only arguments that differ from torch's defaults are named."""
    match layer:
        case nn.Sequential():
            name = "Residual" if isinstance(layer, Residual) else "nn.Sequential"
            inner = indent + "    "
            return f"{name}(\n" + "".join(f"{inner}{_layer(each, inner)},\n" for each in layer) + f"{indent})"
        case nn.Conv2d():
            options = [_pair(layer.kernel_size)]
            options += [f"padding={_pair(layer.padding)}"] * any(layer.padding)
            options += ["bias=False"] * (layer.bias is None)
            return f"nn.Conv2d({layer.in_channels}, {layer.out_channels}, {', '.join(options)})"
        case ScaledLinear():
            return f"ScaledLinear({layer.in_features}, {layer.out_features}, {layer.factor!r})"
        case nn.Linear():
            return f"nn.Linear({layer.in_features}, {layer.out_features})"
        case nn.BatchNorm2d():
            return f"nn.BatchNorm2d({layer.num_features})"
        case nn.MaxPool2d():
            return f"nn.MaxPool2d({layer.kernel_size})"
        case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
            return f"nn.{type(layer).__name__}({layer.output_size})"
        case nn.Dropout():
            return f"nn.Dropout({layer.p!r})"
        case nn.ReLU() | nn.Flatten():
            return f"nn.{type(layer).__name__}()"
        case _:
            raise TypeError(f"no code is known for a layer of the type {type(layer).__name__}")


def _pair(values: Any) -> str:
    """Write what a convolution has for rows and columns as one number where they are alike."""
    return str(values[0]) if len(set(values)) == 1 else repr(tuple(values))


def _access(subject: Subject) -> str:
    """Write the path of the head as code: ``model.fc``, ``model.classifier[3]``, or the last layer of our own."""
    parts = subject.head.split(".")
    if isinstance(subject.model, nn.Sequential) and parts == [str(len(subject.model) - 1)]:
        return "model[-1]"
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
