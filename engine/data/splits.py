"""Which of a dataset's images a run trains on, and which it validates on."""

import torch
from torch import Tensor

from engine.base.errors import LoupeError
from engine.base.text import pluralize
from engine.data.dataset import Dataset
from engine.recipes.recipe import Recipe


def validation_split(dataset: Dataset) -> str:
    """Return the split that validation images are stored in: a dataset's own, or else train, which holds some back."""
    return "val" if "val" in dataset.splits else "train"


def train_validation_indices(dataset: Dataset, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the indices of the images to train on, and of those to validate on in their ``validation_split``.

    Held back from train, they are drawn as torch.utils.data.random_split draws, so that a tutorial's split is had with
    its seed. Of a dataset that has validation images of its own nothing is held back.
    """
    count = len(dataset.splits["train"])
    if "val" in dataset.splits:
        return torch.arange(count), torch.arange(len(dataset.splits["val"]))
    if not recipe.validation_share:
        return torch.arange(count), torch.arange(0)
    held_back = round(count * recipe.validation_share)
    if not 0 < held_back < count:
        raise LoupeError(
            f"validation_share is {recipe.validation_share:g}, which holds back {held_back} of the {count} training "
            "images: it must leave at least one to train on and one to validate on. Set it to 0.1, say, or to 0."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(recipe.split_seed))
    return order[:-held_back], order[-held_back:]


def require_all_classes(dataset: Dataset, recipe: Recipe, train: Tensor, val: Tensor) -> None:
    """Raise LoupeError for a class that is asked for, in validation or test, but has no image to train on."""
    labels = {name: torch.from_numpy(split.labels) for name, split in dataset.splits.items()}
    asked = {"validation": labels[validation_split(dataset)][val], "test": labels.get("test", torch.arange(0))}
    counts = torch.bincount(labels["train"][train], minlength=len(dataset.classes))
    for split, targets in asked.items():
        for number in (counts[targets] == 0).nonzero()[:1].flatten():
            label = int(targets[number])
            what = pluralize(int((targets == label).sum()), f"{split} image")
            stored = bool((labels["train"] == label).any())
            raise LoupeError(
                f"The class {dataset.classes[label]!r} has {what} but none to train on, so it cannot be learned. "
                + (
                    "All its images were held back: lower validation_share, or set another split_seed."
                    if stored
                    else "Add training images of it, or import the dataset without it."
                )
            )
