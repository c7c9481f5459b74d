"""A run as one plain PyTorch script, of a tutorial's length, which trains the same network without Loupe."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import nn

from engine.augmentations import parse_augmentation
from engine.backbones import BACKBONES
from engine.catalogue import CATALOGUE, kind_of, title_of
from engine.dataset import Dataset, is_prepared, open_dataset, prepared_root
from engine.errors import LoupeError
from engine.inference import batch_size_for
from engine.log import History
from engine.model_file import load_preprocessing
from engine.models import Residual, ScaledLinear, build_model, head_path
from engine.paths import data_root
from engine.preprocessing import Preprocessing, build_preprocess, middle_box
from engine.pretrained import preprocessing_of
from engine.recipes import Recipe
from engine.runs import Run, is_file, weights_of_run
from engine.splits import hold_back
from engine.weight_files import NESTS, fit_weights, read_weights
from engine.words import SPLIT_NAMES, counted, listed, shown

LINE_LENGTH = 120
IMAGENET_CLASSES = 1000
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
# Sides of the catalogue's images that are not of 28 x 28 pixels.
SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "svhn": 32}


def script_of(run: Run) -> str:
    """Write a run as one Python script that needs torch, torchvision and NumPy, but no Loupe.

    A dataset of the catalogue is loaded as tutorials do, a person's own from its prepared arrays. Raises LoupeError
    for a run of which too little is left to know its network, or whose first weights are gone.
    """
    subject = _Subject(run)
    return _with_blank_lines(_template().render(_context(subject)))


@cache
def _template():
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # it is Python
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("script.py.jinja")


@dataclass(frozen=True)
class _Subject:
    """What is known of a run, from whatever is left of it: its log, its weights, its dataset."""

    run: Run

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @cached_property
    def history(self) -> History:
        return self.run.history()

    @cached_property
    def dataset(self) -> Dataset | None:
        return open_dataset(self.recipe.dataset) if is_prepared(self.recipe.dataset) else None

    @cached_property
    def preprocessing(self) -> Preprocessing:
        if self.run.weights.exists():
            return load_preprocessing(self.run.weights)
        if self.dataset:
            return preprocessing_of(self.recipe, self.dataset)
        raise LoupeError(
            f"The run {self.run.id} has no trained model, and its dataset {self.recipe.dataset} is not here, so what "
            "its network looks like is not known. Get or import the dataset, then write the script again."
        )

    @cached_property
    def model(self) -> nn.Module:
        num_classes = len(self.preprocessing.classes)
        return build_model(self.recipe.model, self.preprocessing.model_shape, num_classes, self.recipe.head)

    @property
    def is_of_images(self) -> bool:
        return self.preprocessing.is_of_images

    @cached_property
    def stored_size(self) -> tuple[int, int] | None:
        """Height and width of the stored images; None for those of a dataset that is not here any more."""
        if self.dataset:
            return self.dataset.image_shape[:2]
        side = SIDES.get(self.recipe.dataset, 28)
        return (side, side) if self.recipe.dataset in CATALOGUE else None

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The stored splits: train, and val or test where the dataset has them."""
        if self.dataset:
            return tuple(self.dataset.splits)
        if self.recipe.dataset in CATALOGUE:
            return ("train", "test")
        started = self.history.started
        if started is None:
            raise LoupeError(
                f"The run {self.run.id} did not get as far as its first step, and its dataset {self.recipe.dataset} is "
                "not here, so its splits are not known. Import the dataset, then write the script again."
            )
        held_back = round((started.train_count + started.val_count) * self.recipe.validation_share)
        has_own = started.val_count > 0 and started.val_count != held_back
        return ("train", *["val"] * has_own, *["test"] * (started.test_count > 0))

    @property
    def holds_back(self) -> bool:
        return "val" not in self.splits and self.recipe.validation_share > 0

    @property
    def validates(self) -> bool:
        return "val" in self.splits or self.holds_back

    @property
    def steps_per_epoch(self) -> int | None:
        """None where that is not known before the script runs."""
        if self.history.started:
            return self.history.started.steps_per_epoch
        if self.dataset:
            count, size = len(hold_back(self.dataset, self.recipe)[0]), self.recipe.batch_size
            return count // size if self.recipe.drop_last else -(-count // size)
        return None

    @property
    def has_absent_classes(self) -> bool:
        """Whether a class has no image to train on, as far as can be told."""
        if not self.dataset:
            return False
        labels = torch.from_numpy(self.dataset.splits["train"].labels)[hold_back(self.dataset, self.recipe)[0]]
        return len(labels.unique()) < len(self.preprocessing.classes)


def _context(subject: _Subject) -> dict[str, Any]:
    recipe, seen = subject.recipe, subject.preprocessing
    if recipe.augment and not subject.is_of_images:
        raise LoupeError(f"augment is {recipe.augment!r}, but {recipe.dataset} is a table. Leave augment empty.")
    is_frozen = recipe.frozen_epochs == recipe.epochs
    on_features = is_frozen and not recipe.augment and subject.is_of_images
    partly_frozen = 0 < recipe.frozen_epochs < recipe.epochs
    has_groups = recipe.backbone_rate != 1.0 and not is_frozen
    augmentation = parse_augmentation(recipe.augment)
    items = "images" if subject.is_of_images else "rows"
    judged = "val" if subject.validates else "test" if "test" in subject.splits else ""
    each_epoch = "val" if subject.validates else ""
    every = recipe.evaluate_every if judged else 0
    if every and every == subject.steps_per_epoch:
        every, each_epoch = 0, judged
    head = _access(subject.model)
    context: dict[str, Any] = {
        "title": f"Train {recipe.model} on {title_of(recipe.dataset)}.",
        "items": items,
        "stored": "features" if on_features else items,
        "inputs": "features" if on_features else items,
        "is_of_images": subject.is_of_images,
        "splits": sorted(
            {*subject.splits, *(["val"] if subject.validates else [])}, key=["train", "val", "test"].index
        ),
        "holds_back": subject.holds_back,
        "data": _data(subject),
        "scaling": _scaling(seen),
        "resize": _resize(subject),
        "cut": _cut(subject),
        "grey_to_colour": subject.is_of_images and seen.shape[2] == 1 and len(seen.mean) == 3,
        "augmentation": augmentation if recipe.augment.strip() and str(augmentation) else None,
        "cropped": augmentation.crop < 1,
        "turned": augmentation.rotate > 0 or augmentation.crop < 1,
        "square": subject.is_of_images and _is_square(subject.stored_size),
        "transform": _transform(augmentation.rotate > 0, augmentation.crop < 1, subject),
        "views": recipe.views if recipe.augment and is_frozen else 0,
        "network": _network(subject),
        "pretrained": _pretrained(subject),
        "channels_last": subject.is_of_images and recipe.convolutions != "native" and recipe.model != "mlp",
        "head": head,
        "trained": "head" if is_frozen else "model",
        "net": "head" if on_features else "model",
        "on_features": on_features,
        "is_frozen": is_frozen,
        "partly_frozen": partly_frozen,
        "has_groups": has_groups,
        "is_bfloat16": recipe.precision == "bfloat16",
        "at_once": batch_size_for(build_preprocess(seen)),
        "balanced": recipe.class_weights == "balanced",
        "has_absent_classes": subject.has_absent_classes,
        "num_classes": len(seen.classes),
        "loss_function": _loss_function(recipe),
        "groups": _groups(subject) if has_groups else "",
        "optimizer_name": OPTIMIZERS[recipe.optimizer],
        "optimizer": _optimizer(recipe, is_frozen, has_groups),
        "drop_last": recipe.drop_last,
        "steps_per_epoch": "len(train_labels) // BATCH_SIZE"
        if recipe.drop_last
        else "math.ceil(len(train_labels) / BATCH_SIZE)",
        "warm_up": recipe.warmup_epochs > 0,
        "schedule": _schedule(recipe, has_groups),
        "order": _order(recipe),
        "within": every > 0,
        "judged": judged,
        "judged_words": SPLIT_NAMES.get(judged, ""),
        "each_epoch": each_epoch,
        "each_epoch_words": SPLIT_NAMES.get(each_epoch, ""),
        "keeps_best": recipe.keep == "best" and subject.validates,
        "patience": recipe.patience and subject.validates,
        "clips": recipe.clip_norm > 0,
    }
    # What a script needs is what it names.
    body = re.sub(r'"[^"\n]*"', '""', _template().render(context | {"about": "", "imports": "", "constants": []}))
    constants = [code for name, code in _constants(subject) if re.search(rf"\b{name}\b", body)]
    imports = _imports(body + "".join(re.split("[\"']", code, maxsplit=1)[0] for code in constants))
    return context | {"imports": imports, "constants": constants, "about": _about(subject, imports)}


IMPORTS = {
    "copy": "import copy",
    "math": "import math",
    "Path": "from pathlib import Path",
    "": "",
    "np": "import numpy as np",
    "torch": "import torch",
    "load_file": "from safetensors.torch import load_file",
    "load_digits": "from sklearn.datasets import load_digits",
    "make_blobs": "from sklearn.datasets import make_blobs",
    "train_test_split": "from sklearn.model_selection import train_test_split",
    "nn": "from torch import nn",
    "functional": "from torch.nn import functional",
    "datasets": "from torchvision import datasets",
    "models": "from torchvision import models",
}
BOTH_OF_TORCHVISION = "from torchvision import datasets, models"


def _imports(body: str) -> str:
    """Import what a body of code names."""
    used = [line for name, line in IMPORTS.items() if not name or re.search(rf"(?<![\w./]){name}[.(\[]", body)]
    if used[-2:] == [IMPORTS["datasets"], IMPORTS["models"]]:
        used[-2:] = [BOTH_OF_TORCHVISION]
    return "\n".join(used).strip()


def _constants(subject: _Subject) -> Iterator[tuple[str, str]]:
    """Give every setting that a script may name; a path is that of what is already here."""
    recipe, augmentation = subject.recipe, parse_augmentation(subject.recipe.augment)
    own = subject.dataset.folder if subject.dataset else prepared_root() / recipe.dataset
    data = _call("DATA = Path", [_quoted(str(data_root()))])
    yield "DATA", f"# Where torchvision keeps what it downloads.\n{data}"
    yield "DATASET", _call("DATASET = Path", [_quoted(str(own))])
    for name, value in {
        "EPOCHS": recipe.epochs,
        "FROZEN_EPOCHS": recipe.frozen_epochs,
        "BATCH_SIZE": recipe.batch_size,
        "LEARNING_RATE": recipe.learning_rate,
        "BACKBONE_RATE": recipe.backbone_rate,
        "WARMUP_EPOCHS": recipe.warmup_epochs,
        "MOMENTUM": recipe.momentum,
        "WEIGHT_DECAY": recipe.weight_decay,
        "LABEL_SMOOTHING": recipe.label_smoothing,
        "CLIP_NORM": recipe.clip_norm,
        "PATIENCE": recipe.patience,
        "SHIFT": augmentation.shift,
        "ROTATE": augmentation.rotate,
        "CROP": augmentation.crop,
        "ERASE": augmentation.erase,
        "VALIDATION_SHARE": recipe.validation_share,
        "SPLIT_SEED": recipe.split_seed,
        "EVALUATE_EVERY": recipe.evaluate_every,
        "SEED": recipe.seed,
    }.items():
        yield name, f"{name} = {value!r}{REMARKS.get(name, '')}"


REMARKS = {
    "FROZEN_EPOCHS": "  # in which the head alone is trained",
    "BACKBONE_RATE": "  # in parts of the head's",
    "PATIENCE": "  # epochs without a rise of validation accuracy",
    "SHIFT": "  # pixels",
    "ROTATE": "  # degrees",
    "CROP": "  # the least share of the sides",
    "ERASE": "  # the side of a square, as a share of the image's",
    "EVALUATE_EVERY": "  # steps",
}


def _about(subject: _Subject, imports: str) -> str:
    """Say which run it is, what came of it, and how to start the script."""
    recipe, ended, started = subject.recipe, subject.history.ended, subject.history.started
    words = [f"Loupe's run {shown(subject.run.id)} (recipe {shown(recipe.name)}) as one script."]
    if ended is None:
        words += ["Loupe has measured no accuracy: the run has not come to its end."]
    else:
        split = next((name for name in ("test", "val") if getattr(ended, f"{name}_accuracy") is not None), "train")
        accuracy, loss = getattr(ended, f"{split}_accuracy"), getattr(ended, f"{split}_loss")
        noun = f"{SPLIT_NAMES[split]} {'image' if subject.is_of_images else 'row'}"
        of = f"the {counted(getattr(started, f'{split}_count'), noun)}" if started else f"the {noun}s"
        early = f", after {ended.epochs} of its {counted(recipe.epochs, 'epoch')}" * (ended.epochs < recipe.epochs)
        words += [f"Loupe measured {accuracy:.2%} accuracy and a loss of {loss:.4f} on {of}{early}."]
    if ended and (recipe.shuffle or recipe.augment):
        drawn = (
            "The order of the images is" if not recipe.augment else "The order of the images, and their changes, are"
        )
        words += [f"{drawn} drawn anew here, so its figures differ from those by chance."]
    if subject.dataset and started and subject.dataset.fingerprint != started.fingerprint:
        words += ["The dataset has changed since that run."]
    needed = [name for name in ("numpy", "safetensors", "sklearn", "torch", "torchvision") if f" {name}" in imports]
    packages = listed("scikit-learn" if name == "sklearn" else name for name in needed)
    version = f" (it was made with torch {started.torch})" if started else ""
    start = f"Start it with python and the name of this file. It needs {packages}{version}, and writes model.pt."
    paragraphs = [" ".join(words).replace("\\", "\\\\").replace('"', "'"), start]
    return "\n\n".join(textwrap.fill(paragraph, LINE_LENGTH) for paragraph in paragraphs)


def _data(subject: _Subject) -> dict[str, str]:
    """Return the code that loads a dataset's splits as tensors, and what they are in words."""
    name = subject.recipe.dataset
    if name == "digits":
        return {
            "about": "grey levels from 0 to 16, brought to 0..255; a fifth is for testing.",
            "code": textwrap.dedent("""\
                digits = load_digits()
                images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
                parts = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
                train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)"""),
        }
    if name == "blobs":
        return {
            "about": "points of four numbers in three clouds that overlap.",
            "code": textwrap.dedent("""\
                points, labels = make_blobs(n_samples=1000, n_features=4, centers=3, cluster_std=2.5, random_state=95)
                parts = train_test_split(points.astype(np.float32), labels, test_size=0.15, random_state=95)
                train_rows, test_rows, train_labels, test_labels = map(torch.from_numpy, parts)"""),
        }
    if name in CATALOGUE:
        return _torchvision_data(name)
    items = "images" if kind_of(name) == "images" and subject.is_of_images else "rows"
    kind = "whole numbers from 0 to 255" if items == "images" else "float32"
    turned = ".permute(0, 3, 1, 2)" if items == "images" else ""
    shape = "count, channels, height, width" if items == "images" else "count, features"
    loads = "\n".join(f'{split}_{items}, {split}_labels = load("{split}")' for split in subject.splits)
    return {
        "about": "arrays that Loupe has prepared, one of each split.",
        "code": textwrap.dedent(f'''\
            def load(split):
                """Return {items}, {kind} ({shape}), and labels."""
                {items} = torch.from_numpy(np.load(DATASET / f"{{split}}-images.npy")){turned}
                return {items}, torch.from_numpy(np.load(DATASET / f"{{split}}-labels.npy"))

            ''')
        + loads,
    }


def _torchvision_data(name: str) -> dict[str, str]:
    source = CATALOGUE[name]
    cls = source.torchvision
    if cls == "SVHN":
        options = ['split="train"', 'split="test"']
        images, labels = "torch.from_numpy({}.data)", "torch.from_numpy({}.labels)"
    else:
        part = f'split="{source.parts[0]}", ' if source.parts else ""
        options = [f"{part}train=True", f"{part}train=False"]
        if cls.startswith("CIFAR"):
            images, labels = "torch.from_numpy({}.data).permute(0, 3, 1, 2)", "torch.tensor({}.targets)"
        elif cls == "EMNIST":
            images, labels = "{}.data.transpose(1, 2).unsqueeze(1)", "{}.targets"
        else:
            images, labels = "{}.data.unsqueeze(1)", "{}.targets"
        if source.first_label:
            labels += f" - {source.first_label}"
    lines = [
        f"{split}_set = datasets.{cls}(DATA, {option}, download=True)"
        for split, option in zip(("train", "test"), options, strict=True)
    ]
    for split in ("train", "test"):
        pair = [code.format(f"{split}_set") for code in (images, labels)]
        line = f"{split}_images, {split}_labels = {', '.join(pair)}"
        apart = [f"{split}_images = {pair[0]}", f"{split}_labels = {pair[1]}"]
        lines += [line] if len(line) <= LINE_LENGTH else apart
    about = f"{title_of(name)}, whole numbers from 0 to 255 (count, channels, height, width)."
    if cls == "EMNIST":
        about = f"{title_of(name)}, whole numbers from 0 to 255; its files have the columns of an image as rows."
    return {"about": about, "code": "\n".join(lines)}


def _scaling(seen: Preprocessing) -> str:
    """Write the mean and deviation that values are scaled by; empty where they are left as they are, or 0..1."""
    mean, deviation = ([float(f"{value:.7g}") for value in values] for values in (seen.mean, seen.deviation))
    if set(mean) == {0.0} and set(deviation) == {1.0}:
        return ""
    if not seen.is_of_images:
        return "\n".join([_tensor("MEAN", mean), _tensor("DEVIATION", deviation)])
    if len(set(mean)) == len(set(deviation)) == 1:
        return f"MEAN, DEVIATION = {mean[0]!r}, {deviation[0]!r}"
    shape = f".view({len(mean)}, 1, 1).to(device)"
    return "\n".join([_tensor("MEAN", mean, shape), _tensor("DEVIATION", deviation, shape)])


def _tensor(name: str, values: Iterable[float], shape: str = "") -> str:
    return _call(f"{name} = torch.tensor", [f"[{', '.join(map(repr, values))}]"], shape)


def _is_square(size: tuple[int, int] | None) -> bool:
    return size is not None and size[0] == size[1]


def _resize(subject: _Subject) -> str:
    """Return the size that images are brought to, as code; empty where they have it."""
    if not subject.is_of_images:
        return ""
    height, width = subject.preprocessing.shape[:2]
    return "" if subject.stored_size == (height, width) else f"({height}, {width})"


def _cut(subject: _Subject) -> str | None:
    """Return the rows and columns of the middle that is resized; empty for all, None where that is not known."""
    if not subject.is_of_images or not _resize(subject):
        return ""
    wanted = (subject.preprocessing.shape[0], subject.preprocessing.shape[1])
    if subject.stored_size is None:
        if _is_square(wanted):
            return None
        raise LoupeError(
            f"The dataset {subject.recipe.dataset} is not here any more, so how its images are cut is not known. "
            "Import it again, then write the script again."
        )
    height, width = subject.stored_size
    top, left, rows, columns = middle_box(height, width, wanted)
    if (rows, columns) == (height, width):
        return ""
    return f"{_slice(top, rows, height)}, {_slice(left, columns, width)}"


def _slice(first: int, count: int, length: int) -> str:
    return ":" if count == length else f"{first}:{first + count}"


def _transform(rotates: bool, crops: bool, subject: _Subject) -> str:
    """Return the six numbers of affine_grid: where to look, as x and y from -1 to 1."""
    if not rotates:
        return "share, zero, x, zero, share, y"
    x, y = ("x", "y") if crops else ("zero", "zero")
    square = subject.is_of_images and _is_square(subject.stored_size)
    up, down = ("-sin", "sin") if square else ("-sin * height / width", "sin * width / height")
    return f"cos, {up}, {x}, {down}, cos, {y}"


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


def _network(subject: _Subject) -> dict[str, Any]:
    """Write out the network: Loupe's own layer by layer, torchvision's by name, with what is changed of it."""
    recipe, model = subject.recipe, subject.model
    sample = f"{listed(subject.preprocessing.model_shape[:1])} numbers"
    if subject.is_of_images:
        height, width, channels = subject.preprocessing.model_shape
        sample = f"{counted(channels, 'channel')} of {height} x {width} pixels"
    about = f"{recipe.model}, from {sample} to {len(subject.preprocessing.classes)} classes."
    if recipe.model not in BACKBONES or not subject.is_of_images:
        kinds = {type(module) for module in model.modules()}
        return {
            "about": about,
            "definitions": [text for kind, text in DEFINITIONS.items() if kind in kinds],
            "code": f"model = {_layer(model)}",
        }
    options = [f"num_classes={len(subject.preprocessing.classes)}"]
    if recipe.model in ("googlenet", "inception_v3"):
        options += ["aux_logits=False", "transform_input=True", "init_weights=True"]
    elif recipe.model.startswith("vit_"):
        options += [f"image_size={BACKBONES[recipe.model].size}"]
    lines = [_call(f"model = models.{recipe.model}", options)]
    if recipe.model.startswith("squeezenet"):
        lines += [
            "# torchvision's head cuts the average of each class off at 0, so that a class may never learn.",
            f"model.classifier = {_layer(model.get_submodule('classifier'))}",
        ]
    elif recipe.head == "hidden":
        lines += [f"{_access(model)} = {_layer(model.get_submodule(head_path(model)))}"]
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


def _access(model: nn.Module) -> str:
    """Write the path of the head as code: ``model.fc``, ``model.classifier[3]``, or the last layer of our own."""
    parts = head_path(model).split(".")
    if isinstance(model, nn.Sequential) and parts == [str(len(model) - 1)]:
        return "model[-1]"
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)


def _pretrained(subject: _Subject) -> str:
    """Write how the weights are loaded that the network starts from; empty where they are new."""
    recipe, model = subject.recipe, subject.model
    if recipe.weights == "none":
        return ""
    if recipe.weights == "imagenet":
        lines = _imagenet(recipe.model)
        keeps_head = recipe.head == "linear" and len(subject.preprocessing.classes) == IMAGENET_CLASSES
    else:
        lines, keeps_head = _own_weights(recipe, model)
    if not keeps_head:
        start = _quoted(f"{head_path(model)}.")
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


def _own_weights(recipe: Recipe, model: nn.Module) -> tuple[list[str], bool]:
    """Return the lines that load a file or an earlier run's weights, and whether its head is taken too."""
    path = Path(recipe.weights).expanduser().resolve() if is_file(recipe.weights) else weights_of_run(recipe)
    found, head = read_weights(path), head_path(model)
    taken, _ = fit_weights(found, model.state_dict(), head, (), path.name, recipe.model)
    prefix = next(
        (
            name.removesuffix(first)
            for first in list(taken)[:1]
            for name in found
            if name.endswith(first) and all(f"{name.removesuffix(first)}{each}" in found for each in taken)
        ),
        None,
    )
    if prefix is None:
        raise LoupeError(
            f"{path.name} names its weights in another way than {recipe.model}, and a plain script would have to "
            "rename each. Start a run from the weights of this one, and write that as a script."
        )
    what = "a file of weights" if is_file(recipe.weights) else f"the weights of Loupe's run {recipe.weights}"
    comment = f"# The network starts from {what}."
    if path.suffix == ".safetensors":
        lines = [comment, _call("pretrained = load_file", [_quoted(str(path))])]
    else:
        nest = "".join(f"[{_quoted(name)}]" for name in _nest(path, found))
        options = [_quoted(str(path)), 'map_location="cpu"', "weights_only=True"]
        lines = [comment, _call("pretrained = torch.load", options, nest)]
    if prefix:
        lines += [f"pretrained = {{name.removeprefix({_quoted(prefix)}): value for name, value in pretrained.items()}}"]
    return lines, any(name.startswith(f"{head}.") for name in taken)


def _nest(path: Path, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return under which names a checkpoint keeps its weights, the outermost first."""
    refused = LoupeError(
        f"{path.name} cannot be read by torch.load(..., weights_only=True) alone, as a script would. Start a run from "
        "the weights of this one, and write that as a script."
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the file leads to
        raise refused from error
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    for nest, values in waiting:
        if isinstance(values, Mapping):
            if found.keys() <= values.keys():
                return nest
            waiting += [((*nest, name), values[name]) for name in NESTS if name in values and len(nest) < 3]
    raise refused


def _loss_function(recipe: Recipe) -> str:
    options = ["weight=class_weights.to(device)"] * (recipe.class_weights == "balanced")
    options += ["label_smoothing=LABEL_SMOOTHING"] * (recipe.label_smoothing > 0)
    return _call("nn.CrossEntropyLoss", options)


def _groups(subject: _Subject) -> str:
    """Write out the two groups of weights, each with its learning rate."""
    start = _quoted(f"{head_path(subject.model)}.")
    return textwrap.dedent(f"""\
        backbone = [value for name, value in model.named_parameters() if not name.startswith({start})]
        groups = [
            {{"params": backbone, "lr": LEARNING_RATE * BACKBONE_RATE}},
            {{"params": head.parameters(), "lr": LEARNING_RATE}},
        ]""")


def _optimizer(recipe: Recipe, is_frozen: bool, has_groups: bool) -> str:
    options = ["groups" if has_groups else "head.parameters()" if is_frozen else "model.parameters()"]
    options += ["lr=LEARNING_RATE"]
    if recipe.optimizer == "sgd":
        options += ["momentum=MOMENTUM"] * (recipe.momentum > 0) + ["nesterov=True"] * recipe.nesterov
    # AdamW's own default is another.
    options += ["weight_decay=WEIGHT_DECAY"] * (recipe.weight_decay > 0 or recipe.optimizer == "adamw")
    return _call(f"optimizer = torch.optim.{OPTIMIZERS[recipe.optimizer]}", options)


def _schedule(recipe: Recipe, has_groups: bool) -> str:
    """Write the schedule of the learning rate, moved on after each step; empty for one that stays as it is."""
    schedulers = "torch.optim.lr_scheduler"
    if recipe.schedule == "one-cycle":
        highest = "[LEARNING_RATE * BACKBONE_RATE, LEARNING_RATE]" if has_groups else "LEARNING_RATE"
        options = [highest, "total_steps=steps + 1"] + ["pct_start=warmup_steps / steps"] * (recipe.warmup_epochs > 0)
        return _call(f"schedule = {schedulers}.OneCycleLR", ["optimizer", *options, "cycle_momentum=False"])
    if recipe.warmup_epochs > 0:
        done = "(step - warmup_steps) / (steps - warmup_steps)"
        lines = {
            "constant": ["    return 1.0"],
            "cosine": [f"    return (1 + math.cos(math.pi * {done})) / 2"],
            "step": [f"    done = {done}", "    return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01"],
        }[recipe.schedule]
        then = {"constant": "stay there", "cosine": "fall along half a cosine", "step": "fall in two steps"}
        return "\n".join(
            [
                "def share_of_rate(step):",
                f'    """Rise evenly to the full learning rate, then {then[recipe.schedule]}."""',
                "    if step < warmup_steps:",
                "        return (step + 1) / (warmup_steps + 1)",
                *lines,
                "",
                f"schedule = {schedulers}.LambdaLR(optimizer, share_of_rate)",
            ]
        )
    if recipe.schedule == "cosine":
        return f"schedule = {schedulers}.CosineAnnealingLR(optimizer, T_max=steps)"
    if recipe.schedule == "step":
        milestones = "milestones=[math.ceil(steps / 2), math.ceil(3 * steps / 4)]"
        return _call(f"schedule = {schedulers}.MultiStepLR", ["optimizer", milestones, "gamma=0.1"])
    return ""


def _order(recipe: Recipe) -> str:
    order = "torch.randperm(len(train_labels))" if recipe.shuffle else "torch.arange(len(train_labels))"
    return f"{order}[: steps_per_epoch * BATCH_SIZE]" if recipe.drop_last else order


def _call(name: str, arguments: list[str], after: str = "") -> str:
    """Write a call on one line, or where that is too long as formatters break it."""
    line = f"{name}({', '.join(arguments)}){after}"
    if len(line) <= LINE_LENGTH:
        return line
    inner = f"    {', '.join(arguments)}"
    if len(inner) > LINE_LENGTH and len(arguments) > 1:
        inner = "\n".join(f"    {argument}," for argument in arguments)
    return f"{name}(\n{inner}\n){after}"


def _quoted(text: str) -> str:
    """Write a string as formatters do: in double quotes, or in single ones where that saves escapes."""
    double = json.dumps(text, ensure_ascii=not text.isprintable())
    if '"' not in text or "'" in text:
        return double
    escaped = double[1:-1].replace('\\"', '"')
    return f"'{escaped}'"


def _with_blank_lines(code: str) -> str:
    """Put two blank lines around definitions, and one between all else that is apart."""
    found = [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", code) if paragraph.strip()]
    written, was_definition = found[0], False
    for paragraph in found[1:]:
        inside = paragraph.startswith(" ")
        defines = re.search(r"^(def|class|@)", paragraph, re.MULTILINE) is not None
        written += ("\n\n" if inside or not (defines or was_definition) else "\n\n\n") + paragraph
        was_definition = was_definition if inside else defines
    return written + "\n"
