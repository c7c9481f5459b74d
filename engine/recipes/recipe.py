"""What to train on, what to train, and how: one flat dataclass, and the recipes by name."""

import difflib
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from engine.base.errors import LoupeError
from engine.base.text import format_duration, join_words
from engine.recipes.augmentation import parse_augmentation
from engine.recipes.backbones import BACKBONES
from engine.recipes.weights import ImageNetWeights, NewWeights, parse_weights

# These say how a machine runs a recipe, not what is trained.
MACHINE_FIELDS = frozenset({"threads", "precision", "convolutions", "device"})


# What each network of Loupe's own is, by the name that engine.networks.models builds it under (which needs torch; this
# module does not). torchvision's are in engine.recipes.backbones.
MODELS = {
    "convnet": "Three 3x3 convolutions with batch norm, then the average over the image; any size.",
    "convnet-fast": "Four convolutions with batch norm, for digits; images of 20 x 20 pixels or more.",
    "resnet-fast": "A small residual network for photographs such as CIFAR-10's; any size.",
    "lenet5": "LeCun's network of 1998 with ReLU and max pooling; images of 28 x 28 pixels or more.",
    "lenet": "The wider LeNet of the KMNIST tutorial; images of 16 x 16 pixels or more.",
    "cifar-net": "The network of PyTorch's 60-minute blitz for CIFAR-10; images of 16 x 16 pixels or more.",
    "mlp": "One hidden layer: 128 units over all pixels of an image, of any size, or 8 over the numbers of a row.",
}


def _field(default, help, *, unit="", choices=None, low=None, high=None, common=False):
    """Describe a field once, for the command line's checks and the page's form alike."""
    about = {"help": help, "unit": unit, "choices": choices, "low": low, "high": high, "common": common}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, in plain values. Unknown fields and impossible values are refused."""

    name: str = _field("custom", "What the recipe is called.")
    dataset: str = _field("digits", "What to train and test on; the recipes for a folder leave it open.", common=True)
    model: str = _field("convnet", "The network to train.", choices=(*MODELS, *BACKBONES), common=True)
    weights: str = _field(
        "none",
        "What the network starts from: none, new weights; imagenet, torchvision's, trained on ImageNet; the name of an "
        "earlier run; or a file of weights (.pth, .safetensors).",
        common=True,
    )
    freeze: str = _field(
        "none",
        "Which of those weights stay as they are: none; the backbone, all but the head; or the backbone for so many "
        "epochs, such as 2.",
        common=True,
    )
    size: int = _field(
        0,
        "Side of the squares that images are brought to for the network; 0 leaves them as they are stored, if it takes "
        "them.",
        unit="pixels",
        low=0,
        high=2048,
        common=True,
    )
    epochs: int = _field(5, "How often every training image is seen.", low=1, high=10_000, common=True)
    batch_size: int = _field(64, "Images in one step of training.", unit="images", low=1, high=65_536, common=True)
    learning_rate: float = _field(
        0.001, "How far one step moves the weights; with one-cycle, the highest.", low=1e-8, high=100.0, common=True
    )
    optimizer: str = _field(
        "adam", "The rule that turns gradients into steps.", choices=("sgd", "adam", "adamw"), common=True
    )
    schedule: str = _field(
        "constant",
        "How the learning rate changes: not; to a tenth at half and again at three quarters of the run; down along a "
        "cosine; or up and then down.",
        choices=("constant", "step", "cosine", "one-cycle"),
        common=True,
    )
    warmup_epochs: float = _field(
        0.0, "The learning rate first rises to its full value over so many epochs.", unit="epochs", low=0.0, high=1000.0
    )
    validation_share: float = _field(
        0.0,
        "Share of the training images held back to watch and choose by; none of a dataset with a val split of its own.",
        low=0.0,
        high=0.9,
        common=True,
    )
    keep: str = _field(
        "last",
        "The weights that the run ends with: of its last step, or of its best epoch by validation accuracy.",
        choices=("last", "best"),
        common=True,
    )
    head: str = _field(
        "linear",
        "The layers that tell the classes apart by the backbone's features: one linear layer; or hidden, 512 units "
        "with ReLU and dropout 0.2 before it.",
        choices=("linear", "hidden"),
    )
    backbone_rate: float = _field(
        1.0, "The learning rate of the backbone, where it is not frozen, in parts of the head's.", low=0.0, high=1.0
    )
    momentum: float = _field(0.9, "For SGD: how much of the last step is carried on.", low=0.0, high=0.9999)
    nesterov: bool = _field(False, "For SGD: look ahead along the momentum.")
    weight_decay: float = _field(0.0, "Pull of all weights towards zero.", low=0.0, high=10.0)
    label_smoothing: float = _field(0.0, "Share of certainty taken from the true class.", low=0.0, high=0.9)
    class_weights: str = _field(
        "none",
        "Balanced counts each class alike in the loss, however few its images are.",
        choices=("none", "balanced"),
    )
    clip_norm: float = _field(
        0.0, "Gradients longer than this are shortened to it, before each step; 0 leaves them.", low=0.0, high=1e6
    )
    patience: int = _field(
        0,
        "Training ends when validation accuracy has not risen for so many epochs; 0 never.",
        unit="epochs",
        low=0,
        high=10_000,
    )
    augment: str = _field(
        "",
        "Random changes to each training image, such as: flip shift=2 rotate=10 crop=0.8 erase=0.25. Empty for none.",
    )
    views: int = _field(
        0,
        "With augmentation and a frozen backbone: so many changed versions of each training image are put through the "
        "backbone once and then taken in turn; 0 puts a new version through it each epoch.",
        low=0,
        high=1000,
    )
    scaling: str = _field(
        "auto",
        "Range of what the model sees: pixels from 0 to 1 (unit; rows of numbers as they are), from -1 to 1 (half), by "
        "the training set's mean and deviation, or by ImageNet's; auto takes what the weights that it starts from were "
        "trained with, and unit for new ones.",
        choices=("auto", "unit", "half", "dataset", "imagenet"),
    )
    shuffle: bool = _field(True, "Draw the training images in a new order each epoch.")
    drop_last: bool = _field(False, "Leave out the last batch of an epoch when it is not full.")
    split_seed: int = _field(42, "Decides which images are held back for validation.", low=0, high=2**31 - 1)
    seed: int = _field(0, "Decides first weights, order and augmentation.", low=0, high=2**31 - 1)
    log_every: int = _field(100, "Running figures are logged every so many steps.", unit="steps", low=1, high=1_000_000)
    evaluate_every: int = _field(
        0,
        "Validation figures are also taken every so many steps, or test figures where nothing is held back, as some "
        "tutorials print them; nothing is chosen by those. 0 never.",
        unit="steps",
        low=0,
        high=1_000_000,
    )
    threads: int = _field(
        0,
        "Processor threads, at most one a core; 0 takes what is quickest for this network and batch: it is tried once.",
        low=0,
        high=1024,
    )
    precision: str = _field(
        "auto",
        "Number format in training; auto takes the quicker one. Evaluation is always float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    convolutions: str = _field(
        "auto",
        "Whose convolutions a processor runs: oneDNN's, or torch's own (native), quicker for a few small images at a "
        "time; auto takes the quicker ones.",
        choices=("auto", "onednn", "native"),
    )
    device: str = _field("auto", "Where to train; auto takes a GPU when there is one.", choices=("auto", "cpu", "cuda"))

    def __post_init__(self):
        for about in fields(self):
            _check(about, getattr(self, about.name))
        _check_transfer(self)
        if self.keep == "best" and not self.validation_share:
            raise LoupeError(
                "keep is 'best', which needs validation images to choose by, but validation_share is 0. "
                "Set validation_share to 0.1, say, or keep to 'last'."
            )
        if self.patience and not self.validation_share:
            raise LoupeError(
                f"patience is {self.patience}, which needs validation images to judge by, but validation_share is 0. "
                "Set validation_share to 0.1, say, or patience to 0."
            )
        if self.warmup_epochs >= self.epochs:
            raise LoupeError(
                f"warmup_epochs is {self.warmup_epochs:g}, but must be less than the {self.epochs} epochs of the run."
            )
        parse_augmentation(self.augment)
        if self.nesterov and not self.momentum:
            raise LoupeError(
                "nesterov needs momentum, but momentum is 0. Set momentum to 0.9, say, or nesterov to false."
            )

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def frozen_epochs(self) -> int:
        """In how many of its epochs, counted from the first, the backbone stays as it is."""
        if self.freeze in ("none", "backbone"):
            return self.epochs if self.freeze == "backbone" else 0
        return min(int(self.freeze), self.epochs)

    @property
    def keeps_features(self) -> bool:
        """Whether the head is trained on what the frozen backbone has made of each image once."""
        return self.frozen_epochs > 0 and (not self.augment or self.views > 0)


def _check_transfer(recipe: Recipe) -> None:
    """Raise LoupeError for settings of transfer learning that do not go together."""
    # Whether anything else is a run or a file does not matter here.
    source = parse_weights(recipe.weights, is_run=lambda name: False)
    if source == ImageNetWeights() and recipe.model not in BACKBONES:
        raise LoupeError(
            f"weights is 'imagenet', but there are no such weights for {recipe.model}, which is Loupe's own. Choose a "
            "network of torchvision's, such as resnet18, or set weights and freeze to 'none'."
        )
    if recipe.freeze not in ("none", "backbone") and not re.fullmatch("[1-9][0-9]{0,4}", recipe.freeze):
        raise LoupeError(
            f"freeze is {recipe.freeze!r}, but must be 'none', 'backbone', or the number of epochs for which the "
            "backbone is to be frozen, such as 2."
        )
    if recipe.freeze != "none" and source == NewWeights():
        raise LoupeError(
            f"freeze is {recipe.freeze!r}, but weights is 'none': new weights that are frozen would never learn. "
            "Set weights to 'imagenet', say, or freeze to 'none'."
        )


FIELDS = {about.name: about for about in fields(Recipe)}
TYPES = typing.get_type_hints(Recipe)


def _check(about, value) -> None:
    expected, limits = TYPES[about.name], about.metadata
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise LoupeError(f"{about.name} is {value!r}, but must be {_kind(about)}.")
    if about.name == "model":
        check_model(value)
    if limits["choices"] and value not in limits["choices"]:
        raise LoupeError(f"{about.name} is {value!r}, but must be one of {join_words(limits['choices'])}.")
    if limits["low"] is not None and not limits["low"] <= value <= limits["high"]:
        raise LoupeError(f"{about.name} is {value}, but must be between {limits['low']} and {limits['high']}.")


def check_model(name: str) -> None:
    """Raise LoupeError for the name of no network; there are too many to list them all."""
    known = (*MODELS, *BACKBONES)
    if name not in known:
        near = difflib.get_close_matches(name, known)
        nearest = f"The nearest in name: {join_words(near)}. " if near else ""
        raise LoupeError(
            f"There is no model {name!r}. {nearest}python -m engine models lists all {len(known)}, from convnet to "
            f"{known[-1]}."
        )


def _kind(about) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[TYPES[about.name]]


def change(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """Return the recipe with some fields changed; values may be text, as from a command line."""
    unknown = [name for name in settings if name not in FIELDS or name == "name"]
    if unknown:
        known = join_words(name for name in FIELDS if name != "name")
        raise LoupeError(f"There is no recipe field {unknown[0]!r}. Known fields: {known}.")
    return replace(recipe, **{name: _parse(FIELDS[name], value) for name, value in settings.items()})


def _parse(about, value):
    expected = TYPES[about.name]
    if not isinstance(value, str) or expected is str:
        return value
    text = value.strip().lower()
    if expected is bool and text in ("true", "false"):
        return text == "true"
    try:
        if expected in (int, float) and math.isfinite(float(text)):
            return expected(text)
    except ValueError:
        pass
    raise LoupeError(f"{about.name} is {value!r}, but must be {_kind(about)}.")


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe that was written as JSON; fields of a newer Loupe are an error that names them."""
    values = dict(values)
    if shift := values.pop("shift", None):  # of recipes written when there was no other augmentation
        values["augment"] = f"shift={shift}"
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise LoupeError(
            f"The recipe has a field {unknown[0]!r} that this Loupe does not know. Known: {join_words(FIELDS)}."
        )
    return Recipe(**values)


# What the fast recipes share.
_FAST = Recipe(
    model="convnet-fast",
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.2,
    momentum=0.9,
    nesterov=True,
    schedule="one-cycle",
    weight_decay=0.0005,
    label_smoothing=0.05,
    augment="shift=1",
    scaling="dataset",
    validation_share=0.05,
    keep="last",
    log_every=20,
)

# A first model of photographs of one's own. Two cores train this network on 32 images a second, and put 98 through it;
# efficientnet_b0, a point less accurate on ImageNet, on 19 and 108, resnet50, two points better, on 12 and 36.
_FOLDER = Recipe(
    name="folder-quick",
    dataset="",
    model="regnet_y_800mf",
    weights="imagenet",
    freeze="backbone",
    size=224,
    epochs=30,
    batch_size=64,
    optimizer="adamw",
    learning_rate=0.003,
    schedule="one-cycle",
    weight_decay=0.01,
    label_smoothing=0.05,
    validation_share=0.2,
    keep="best",
    log_every=5,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="digits-quick",
            dataset="digits",
            model="convnet",
            epochs=12,
            batch_size=64,
            optimizer="adamw",
            learning_rate=0.01,
            schedule="one-cycle",
            weight_decay=0.01,
            label_smoothing=0.05,
            augment="shift=1",
            validation_share=0.1,
            keep="best",
            log_every=5,
            threads=1,  # its steps are too small to share
        ),
        Recipe(
            name="blobs-mlp",
            dataset="blobs",
            model="mlp",
            epochs=10,
            batch_size=64,
            optimizer="sgd",
            learning_rate=0.01,
            momentum=0.0,
            shuffle=False,
            keep="last",
            scaling="unit",
            log_every=1,
            evaluate_every=14,  # an epoch
        ),
        Recipe(
            name="mnist-lenet5",
            dataset="mnist",
            model="lenet5",
            epochs=5,
            batch_size=64,
            optimizer="adam",
            learning_rate=0.001,
            drop_last=True,
            keep="last",
            scaling="unit",
            log_every=100,
        ),
        Recipe(
            name="kmnist-lenet",
            dataset="kmnist",
            model="lenet",
            epochs=10,
            batch_size=64,
            optimizer="adam",
            learning_rate=0.001,
            validation_share=0.25,
            split_seed=42,
            keep="last",
            scaling="unit",
            log_every=100,
        ),
        Recipe(
            name="cifar10-blitz",
            dataset="cifar10",
            model="cifar-net",
            epochs=2,
            batch_size=4,
            optimizer="sgd",
            learning_rate=0.01,
            momentum=0.9,
            scaling="half",
            keep="last",
            log_every=2000,
        ),
        replace(_FAST, name="mnist-fast", dataset="mnist", epochs=2),
        replace(_FAST, name="kmnist-fast", dataset="kmnist", epochs=6, augment="shift=2"),
        replace(
            _FAST,
            name="fashion-fast",
            dataset="fashion-mnist",
            model="resnet-fast",
            epochs=6,
            augment="flip shift=1",
        ),
        replace(
            _FAST,
            name="cifar10-fast",
            dataset="cifar10",
            model="resnet-fast",
            epochs=5,
            learning_rate=0.4,
            label_smoothing=0.1,
            augment="flip",
        ),
        _FOLDER,
        replace(
            _FOLDER,
            name="folder-best",
            freeze="2",
            backbone_rate=0.1,
            epochs=10,
            batch_size=32,
            learning_rate=0.003,
            augment="flip rotate=10 crop=0.7",
        ),
        Recipe(
            name="folder-resnet50",
            dataset="",
            model="resnet50",
            weights="imagenet",
            freeze="backbone",
            head="hidden",
            size=224,
            scaling="unit",
            epochs=1,
            batch_size=64,
            optimizer="adam",
            learning_rate=0.003,
            validation_share=0.2,
            keep="last",
            log_every=10,
            evaluate_every=10,
        ),
    )
}

ABOUT = {
    "digits-quick": "A first model in seconds, on data that needs no download.",
    "blobs-mlp": "Where the tutorials start: a network of one hidden layer on points in four dimensions, no images.",
    "mnist-lenet5": "The classic first network for images: LeNet-5 with ReLU and max pooling, all 60,000 images.",
    "kmnist-lenet": "LeNet on cursive Japanese characters, a quarter of the training images held back for validation.",
    "cifar10-blitz": "The sixty-minute blitz: a small network on colour photographs, four images at a time.",
    "mnist-fast": "Above 99% on handwritten digits in seconds: batch norm, one-cycle, shifted images.",
    "kmnist-fast": "Cursive Japanese characters with the same quick network, for longer and moved further.",
    "fashion-fast": "Pictures of clothing with a small residual network.",
    "cifar10-fast": "Above 80% on colour photographs in about a minute: a small residual network, one-cycle.",
    "folder-quick": "A first model of your own photographs: a light network of torchvision's, frozen, and a new head.",
    "folder-best": "The same network, then trained as a whole at a lower rate on flipped, turned and cropped images.",
    "folder-resnet50": "The transfer-learning tutorial on your own folder: a head for ResNet-50, which stays as it is, "
    "batch norm too.",
}


def _scores(precision: float, recall: float, f1: float) -> dict[str, float]:
    return {"precision": precision, "recall": recall, "f1": f1}


# Figures from the literature and the tutorials, by the names that our own figures have. per_class: accuracy, or
# the scores of a classification report. train_seconds: on the authors' machines.
PUBLISHED: dict[str, dict[str, Any]] = {
    "blobs-mlp": {
        "train_loss": 0.147,
        "train_accuracy": 0.991,
        "test_loss": 0.153,
        "test_accuracy": 0.980,
        "first_epoch": {"train_loss": 0.971, "train_accuracy": 0.580, "test_loss": 0.737, "test_accuracy": 0.827},
        "source": "the MLP on blobs tutorial",
    },
    "mnist-lenet5": {
        "test_accuracy": 0.9905,
        "source": "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition: "
        "0.95% test error of the original LeNet-5, which was trained otherwise",
    },
    "kmnist-lenet": {
        "train_accuracy": 0.9967,
        "val_loss": 0.0821,
        "val_accuracy": 0.9823,
        "test_accuracy": 0.95,
        "train_seconds": 160,
        "per_class": {
            "o": _scores(0.93, 0.98, 0.95),
            "ki": _scores(0.95, 0.96, 0.96),
            "su": _scores(0.96, 0.90, 0.93),
            "tsu": _scores(0.95, 0.97, 0.96),
            "na": _scores(0.94, 0.94, 0.94),
            "ha": _scores(0.97, 0.95, 0.96),
            "ma": _scores(0.94, 0.96, 0.95),
            "ya": _scores(0.98, 0.95, 0.97),
            "re": _scores(0.95, 0.97, 0.96),
            "wo": _scores(0.97, 0.96, 0.97),
        },
        "source": "the LeNet on KMNIST tutorial; its time is on the author's CPU, 82 s on a GPU",
    },
    "cifar10-blitz": {
        "test_accuracy": 0.27,
        "per_class": {
            "airplane": 0.07,
            "automobile": 0.53,
            "bird": 0.09,
            "cat": 0.02,
            "deer": 0.57,
            "dog": 0.41,
            "frog": 0.03,
            "horse": 0.38,
            "ship": 0.33,
            "truck": 0.41,
        },
        "source": "the CIFAR-10 sixty-minute blitz tutorial; the mean of its classes is 28.4%",
    },
}


def find_recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise LoupeError(f"There is no recipe {name!r}. Known recipes: {join_words(RECIPES)}.")
    return RECIPES[name]


def settings_in_words(recipe: Recipe, item: str) -> list[tuple[str, str]]:
    """Say each field's value as --set takes it, with its unit. item: what the dataset is of, ``image`` or ``row``."""
    return [
        (name, _in_words(getattr(recipe, name), about.metadata["unit"].replace("image", item)))
        for name, about in FIELDS.items()
    ]


def _in_words(value: object, unit: str) -> str:
    """Say a setting as --set takes it, with its unit."""
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value) or '""'
    return f"{text} {unit[:-1] if value == 1 else unit}" if unit else text


def published(recipe: Recipe) -> dict[str, Any] | None:
    """Return the figures published for a recipe, or None once a field that decides the result differs."""
    original = RECIPES.get(recipe.name)
    if original is None:
        return None
    same = all(getattr(recipe, name) == getattr(original, name) for name in FIELDS if name not in MACHINE_FIELDS)
    return PUBLISHED.get(recipe.name) if same else None


def published_in_words(recipe: Recipe) -> str | None:
    """Say what was published for a recipe, and where; None where nothing was."""
    figures = published(recipe)
    if figures is None:
        return None
    named = {"test_accuracy": "test", "val_accuracy": "validation", "train_accuracy": "training"}
    said = [f"{figures[name]:.2%} {words} accuracy" for name, words in named.items() if name in figures]
    if "train_seconds" in figures:
        said.append(f"in about {format_duration(figures['train_seconds'])}")
    return f"{', '.join(said)} ({figures['source']})"
