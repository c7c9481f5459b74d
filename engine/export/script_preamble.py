"""What a script begins with: the words about its run, the imports, and the settings."""

import textwrap

from engine.base.paths import data_root
from engine.base.text import SPLIT_NAMES, join_words, pluralize, printable
from engine.data.dataset import prepared_root
from engine.export.script_code import LINE_LENGTH, call, quoted
from engine.export.script_subject import Subject

STANDARD_IMPORTS = {
    "copy": "import copy",
    "math": "import math",
    "Path": "from pathlib import Path",
}
OTHER_IMPORTS = {
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
PACKAGES = {"numpy": "numpy", "safetensors": "safetensors", "sklearn": "scikit-learn"}
PACKAGES |= {"torch": "torch", "torchvision": "torchvision"}
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


def imports_of(names: set[str]) -> str:
    """Import those of the names that are not the script's own."""
    standard = [line for name, line in STANDARD_IMPORTS.items() if name in names]
    others = [line for name, line in OTHER_IMPORTS.items() if name in names]
    if {"datasets", "models"} <= names:
        others[-2:] = ["from torchvision import datasets, models"]
    return "\n".join([*standard, "", *others]).strip()


def constants_of(subject: Subject, names: set[str]) -> list[str]:
    """Give the settings among the names; a path is that of what is already here."""
    recipe, augmentation = subject.recipe, subject.augmentation
    own = subject.dataset.folder if subject.dataset else prepared_root() / recipe.dataset
    data = call("DATA = Path", [quoted(str(data_root()))])
    values = {
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
    }
    constants = {
        "DATA": f"# Where torchvision keeps what it downloads.\n{data}",
        "DATASET": call("DATASET = Path", [quoted(str(own))]),
        **{name: f"{name} = {value!r}{REMARKS.get(name, '')}" for name, value in values.items()},
    }
    return [code for name, code in constants.items() if name in names]


def about(subject: Subject, imports: str) -> str:
    """Say which run it is, what came of it, and how to start the script."""
    recipe, started = subject.recipe, subject.history.started
    words = [
        f"Loupe's run {printable(subject.run.id)} (recipe {printable(recipe.name)}) as one script.",
        _measured(subject),
    ]
    if subject.history.ended and (recipe.shuffle or recipe.augment):
        drawn = "The order of the images, and their changes, are" if recipe.augment else "The order of the images is"
        words += [f"{drawn} drawn anew here, so its figures differ from those by chance."]
    if subject.dataset and started and subject.dataset.fingerprint != started.fingerprint:
        words += ["The dataset has changed since that run."]
    packages = join_words(package for module, package in PACKAGES.items() if f" {module}" in imports)
    version = f" (it was made with torch {started.torch})" if started else ""
    start = f"Start it with python and the name of this file. It needs {packages}{version}, and writes model.pt."
    # It is to be within a docstring.
    paragraphs = [" ".join(words).replace("\\", "\\\\").replace('"', "'"), start]
    return "\n\n".join(textwrap.fill(paragraph, LINE_LENGTH) for paragraph in paragraphs)


def _measured(subject: Subject) -> str:
    recipe, ended, started = subject.recipe, subject.history.ended, subject.history.started
    if ended is None:
        return "Loupe has measured no accuracy: the run has not come to its end."
    split = next((name for name in ("test", "val") if getattr(ended, f"{name}_accuracy") is not None), "train")
    accuracy, loss = getattr(ended, f"{split}_accuracy"), getattr(ended, f"{split}_loss")
    noun = f"{SPLIT_NAMES[split]} {subject.items.removesuffix('s')}"
    of = f"the {pluralize(getattr(started, f'{split}_count'), noun)}" if started else f"the {noun}s"
    early = f", after {ended.epochs} of its {pluralize(recipe.epochs, 'epoch')}" * (ended.epochs < recipe.epochs)
    return f"Loupe measured {accuracy:.2%} accuracy and a loss of {loss:.4f} on {of}{early}."
