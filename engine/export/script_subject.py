"""What a script is about: a run, and what is known of it from whatever is left."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.data.splits import train_validation_indices
from engine.networks.model_file import load_preprocessing
from engine.networks.models import build_model, head_path
from engine.networks.preprocessing import Preprocessing
from engine.recipes.augmentation import Augmentation, parse_augmentation
from engine.recipes.recipe import Recipe
from engine.runs.log import History
from engine.runs.run import Run
from engine.training.pretrained import preprocessing_of

# Sides of the catalogue's images that are not of 28 x 28 pixels.
SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "svhn": 32}


@dataclass(frozen=True)
class Subject:
    """A run with its log, its weights and its dataset, each as far as it is there."""

    run: Run

    @cached_property
    def recipe(self) -> Recipe:
        return self.run.read_recipe()

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

    @property
    def is_of_images(self) -> bool:
        return self.preprocessing.is_of_images

    @property
    def items(self) -> str:
        return "images" if self.is_of_images else "rows"

    @property
    def num_classes(self) -> int:
        return len(self.preprocessing.classes)

    @cached_property
    def model(self) -> nn.Module:
        return build_model(self.recipe.model, self.preprocessing.model_shape, self.num_classes, self.recipe.head)

    @property
    def head(self) -> str:
        """Path of the layers that tell the classes apart."""
        return head_path(self.model)

    @cached_property
    def stored_size(self) -> tuple[int, int] | None:
        """Height and width of the stored images; None for those of a dataset that is not here any more."""
        if self.dataset:
            return self.dataset.image_shape[:2]
        side = SIDES.get(self.recipe.dataset, 28)
        return (side, side) if self.recipe.dataset in CATALOGUE else None

    @property
    def is_square(self) -> bool:
        """Whether the stored images are known to be squares."""
        return self.stored_size is not None and self.stored_size[0] == self.stored_size[1]

    @cached_property
    def stored_splits(self) -> tuple[str, ...]:
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
        return "val" not in self.stored_splits and self.recipe.validation_share > 0

    @property
    def splits(self) -> list[str]:
        """The splits that the script has, with what it holds back for validation."""
        known = {*self.stored_splits, *["val"] * self.holds_back}
        return [split for split in SPLIT_NAMES if split in known]

    @property
    def validates(self) -> bool:
        return "val" in self.splits

    @cached_property
    def train_indices(self) -> Tensor | None:
        """Which images of the train split are trained on; None for a dataset that is not here any more."""
        return train_validation_indices(self.dataset, self.recipe)[0] if self.dataset else None

    @property
    def steps_per_epoch(self) -> int | None:
        """None where that is not known before the script runs."""
        if self.history.started:
            return self.history.started.steps_per_epoch
        if self.train_indices is None:
            return None
        count, size = len(self.train_indices), self.recipe.batch_size
        return count // size if self.recipe.drop_last else -(-count // size)

    @property
    def has_absent_classes(self) -> bool:
        """Whether a class has no image to train on, as far as can be told."""
        if not self.dataset:
            return False
        labels = torch.from_numpy(self.dataset.splits["train"].labels)[self.train_indices]
        return len(labels.unique()) < self.num_classes

    @cached_property
    def augmentation(self) -> Augmentation:
        return parse_augmentation(self.recipe.augment)

    @property
    def augments(self) -> bool:
        return str(self.augmentation) != ""

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone stays as it is from the first epoch to the last."""
        return self.recipe.frozen_epochs == self.recipe.epochs

    @property
    def is_partly_frozen(self) -> bool:
        return 0 < self.recipe.frozen_epochs < self.recipe.epochs

    @property
    def on_features(self) -> bool:
        """Whether each image need go through the backbone only once."""
        return self.is_frozen and not self.recipe.augment and self.is_of_images

    @property
    def has_groups(self) -> bool:
        """Whether backbone and head have learning rates of their own."""
        return self.recipe.backbone_rate != 1.0 and not self.is_frozen
