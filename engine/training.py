"""The training loop: a generator that yields what happened, and leaves logging, saving and stopping to its caller."""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.augmentation import augment
from engine.augmentations import parse_augmentation
from engine.dataset import Dataset, Split
from engine.errors import LoupeError
from engine.inference import BATCH_SIZE, as_tensor, logits_in_batches
from engine.models import build_model
from engine.optimization import build_optimizer, build_schedule
from engine.preprocessing import Preprocess, preprocessing_for
from engine.recipes import Recipe
from engine.records import Epoch, Step


@dataclass
class Figures:
    """Sums over some steps; tensors, so that a GPU is not waited for at each step."""

    loss: Tensor
    correct: Tensor
    images: int = 0
    seconds: float = 0.0

    @classmethod
    def none(cls) -> "Figures":
        return cls(torch.zeros(()), torch.zeros((), dtype=torch.int64))

    def add(self, other: "Figures") -> None:
        # Not in place: the first sum is on the CPU, wherever the rest are.
        self.loss = self.loss + other.loss
        self.correct = self.correct + other.correct
        self.images += other.images
        self.seconds += other.seconds

    def means(self) -> dict[str, float]:
        return {
            "train_loss": self.loss.item() / self.images,
            "train_accuracy": self.correct.item() / self.images,
            "images_per_second": round(self.images / self.seconds, 1),
        }


class Training:
    """Everything that decides the rest of a training: model, optimiser, schedule, position, best so far.

    The order of an epoch and the augmentation of a step follow from the seed and their number alone.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.preprocessing = preprocessing_for(dataset, recipe.scaling)
        self.preprocess = Preprocess(self.preprocessing).to(device)
        model = build_model(recipe.model, dataset.image_shape, len(dataset.classes))
        self.model: nn.Module = model.to(memory_format=torch.channels_last).to(device)

        self.train_indices, self.val_indices = hold_back(dataset, recipe)
        self.class_weights = _class_weights(dataset, self.train_indices, recipe, device)
        self.augmentation = parse_augmentation(recipe.augment)
        self.steps_per_epoch = _steps_per_epoch(len(self.train_indices), recipe)

        self.optimizer = build_optimizer(self.model, recipe)
        self.schedule = build_schedule(self.optimizer, recipe, recipe.epochs * self.steps_per_epoch)
        self.step = 0  # steps made
        self.epoch = 0  # epochs finished: trained and validated
        self.images_seen = 0
        self.train_seconds = 0.0  # in steps; neither validation nor saving
        self.step_figures = Figures.none()  # since the last report of steps
        self.epoch_figures = Figures.none()
        self.last: Epoch | None = None
        self.best: Epoch | None = None
        self.risen_in = 0  # the epoch in which validation accuracy rose last
        self.best_weights: dict[str, Tensor] = {}

    def kept_weights(self) -> dict[str, Tensor]:
        """Return the weights that a run ends with if it ends now: the best where those are kept, else the current."""
        return self.best_weights or self.model.state_dict()

    def state_dict(self) -> dict:
        """Return all of it as tensors and plain values, so that it loads as data only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "images_seen": self.images_seen,
            "train_seconds": self.train_seconds,
            "step_figures": vars(self.step_figures),
            "epoch_figures": vars(self.epoch_figures),
            "last": self.last and asdict(self.last),
            "best": self.best and asdict(self.best),
            "risen_in": self.risen_in,
            "best_weights": self.best_weights,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Its place is all that a schedule has: the rates follow from it, and the current one is in the optimiser.
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.step, self.epoch = state["step"], state["epoch"]
        self.images_seen, self.train_seconds = state["images_seen"], state["train_seconds"]
        self.step_figures, self.epoch_figures = Figures(**state["step_figures"]), Figures(**state["epoch_figures"])
        self.last = state["last"] and Epoch(**state["last"])
        self.best = state["best"] and Epoch(**state["best"])
        self.risen_in = state.get("risen_in", 0)  # of checkpoints from before there was patience
        self.best_weights = state["best_weights"]
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"])

    def kept_figures(self) -> dict[str, Any]:
        """Say which weights those are, and give the training figures that belong to them."""
        if self.best and self.best_weights:
            kept, figures = (
                f"epoch {self.best.epoch}, the best of {self.epoch} by validation accuracy",
                asdict(self.best),
            )
        elif self.epoch_figures.images:
            kept, figures = f"step {self.step:,}, within epoch {self.epoch + 1}", self._means(self.epoch_figures)
        elif self.last:
            kept, figures = f"epoch {self.epoch}, the last", asdict(self.last)
        else:
            raise RuntimeError("kept_figures needs a training of at least one step")
        return {
            "kept": kept,
            "train_loss": figures["train_loss"],
            "train_accuracy": figures["train_accuracy"],
            "train_seconds": self.train_seconds,
            "images_per_second": round(self.images_seen / self.train_seconds, 1),
        }

    def count(self, figures: Figures) -> None:
        self.images_seen += figures.images
        self.train_seconds += figures.seconds
        self.step_figures.add(figures)
        self.epoch_figures.add(figures)

    def report_step(self) -> Step:
        figures, self.step_figures = self.step_figures, Figures.none()
        return Step(self.step, self.epoch + 1, train_seconds=self.train_seconds, **self._means(figures))

    def report_epoch(self, validation: dict[str, Any]) -> Epoch:
        """Close the epoch; its weights become the best if its validation accuracy is highest (then: loss lowest)."""
        if validation["val_loss"] is not None:
            self._require_finite(validation["val_loss"])
        figures, self.epoch_figures, self.step_figures = self.epoch_figures, Figures.none(), Figures.none()
        self.epoch += 1
        epoch = Epoch(self.step, self.epoch, train_seconds=self.train_seconds, **validation, **self._means(figures))
        self.last = epoch
        if epoch.val_accuracy is not None and (self.best is None or _rank(epoch) > _rank(self.best)):
            if self.best is None or epoch.val_accuracy > (self.best.val_accuracy or 0.0):
                self.risen_in = self.epoch
            self.best = epoch
            if self.recipe.keep == "best":
                self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return epoch

    @property
    def is_over(self) -> bool:
        """Whether all epochs are made, or validation accuracy has not risen for as long as the recipe is patient."""
        return self.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= self.epoch - self.risen_in

    def _means(self, figures: Figures) -> dict[str, float]:
        means = figures.means()
        self._require_finite(means["train_loss"])
        return means | {"learning_rate": self.learning_rate}

    def _require_finite(self, loss: float) -> None:
        """Raise LoupeError for a loss that is no number: training has diverged."""
        if not math.isfinite(loss):
            raise LoupeError(
                f"The loss was no longer a finite number at step {self.step:,}: training has diverged. "
                f"Start again with a lower learning_rate, say {self.recipe.learning_rate / 10:g} "
                f"in place of {self.recipe.learning_rate:g}."
            )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step to come."""
        return float(self.optimizer.param_groups[0]["lr"])


def validation_split(dataset: Dataset) -> str:
    """Return the split that validation images are stored in: a dataset's own, or else train, which holds some back."""
    return "val" if "val" in dataset.splits else "train"


def hold_back(dataset: Dataset, recipe: Recipe) -> tuple[Tensor, Tensor]:
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


def _class_weights(dataset: Dataset, indices: Tensor, recipe: Recipe, device: torch.device) -> Tensor | None:
    """Return a weight for each class, so that all count alike whatever their number of images; absent ones 0.

    As scikit-learn's ``balanced``: images / (classes * images of the class).
    """
    if recipe.class_weights == "none":
        return None
    counts = torch.bincount(torch.from_numpy(dataset.splits["train"].labels)[indices], minlength=len(dataset.classes))
    present = counts > 0
    weights = torch.where(present, len(indices) / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.float().to(device)


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.val_accuracy or 0.0, -(epoch.val_loss or 0.0)


def _steps_per_epoch(count: int, recipe: Recipe) -> int:
    steps = count // recipe.batch_size if recipe.drop_last else math.ceil(count / recipe.batch_size)
    if not steps:
        raise LoupeError(
            f"There are {count} training images, fewer than one batch of {recipe.batch_size}, and incomplete batches "
            f"are dropped. Set batch_size to {max(count, 1)} or less, or drop_last to false."
        )
    return steps


def fit(training: Training, dataset: Dataset) -> Iterator[Step | Epoch | None]:
    """Train to the end of the recipe, from wherever ``training`` stands.

    Yields after every step, so that the caller can stop or save at any of them: a ``Step`` every ``log_every``
    steps, an ``Epoch`` at the end of an epoch, None after the other steps and between validation batches.
    Raises LoupeError when the loss is no longer a finite number.
    """
    recipe, device = training.recipe, training.device
    images, labels = _on_device(dataset.splits["train"], device)
    held_back = images, labels
    if validation_split(dataset) != "train":
        held_back = _on_device(dataset.splits[validation_split(dataset)], device)
    while not training.is_over:
        first = training.step - training.epoch * training.steps_per_epoch
        order = training.train_indices
        if recipe.shuffle:
            order = order[torch.randperm(len(order), generator=_random(recipe, "order", training.epoch))]
        batches = order.to(device).split(recipe.batch_size)[: training.steps_per_epoch]
        training.model.train()
        for number, batch in enumerate(batches[first:], start=first + 1):
            began = time.perf_counter()
            pixels = images[batch]
            if recipe.augment:
                generator = _random(recipe, "augmentation", training.step)
                pixels = augment(pixels, training.augmentation, generator)
            figures = _train_step(training, pixels, labels[batch])
            report = number % recipe.log_every == 0
            if report or number == len(batches):
                figures.loss.item()  # a GPU is waited for here, so that the time below is the work's
            figures.seconds = time.perf_counter() - began
            training.count(figures)
            if report:
                yield training.report_step()
            elif number < len(batches):
                yield None
        training.model.eval()
        validation: dict[str, Any] = {"val_loss": None, "val_accuracy": None}
        for so_far in _validate(training, *held_back):
            validation = so_far
            yield None
        yield training.report_epoch(validation)


def _train_step(training: Training, pixels: Tensor, labels: Tensor) -> Figures:
    """Make one step; returns its figures but for the time. Sums stay on the device."""
    recipe, device = training.recipe, training.device
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = training.model(training.preprocess(pixels))
    loss = functional.cross_entropy(
        logits.float(), labels, weight=training.class_weights, label_smoothing=recipe.label_smoothing
    )
    training.optimizer.zero_grad()
    loss.backward()
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(training.model.parameters(), recipe.clip_norm)
    training.optimizer.step()
    training.schedule.step()
    training.step += 1
    correct = (logits.detach().argmax(1) == labels).sum()
    return Figures(loss.detach() * len(labels), correct, len(labels))


def _validate(training: Training, images: Tensor, labels: Tensor) -> Iterator[dict[str, Any]]:
    """Run the validation images in float32, yielding their figures so far, a batch at a time."""
    if not len(training.val_indices):
        return
    figures = Figures.none()
    batches = logits_in_batches(training.model, training.preprocess, images, training.val_indices)
    for batch, logits in zip(training.val_indices.split(BATCH_SIZE), batches, strict=True):
        truth = labels[batch.to(labels.device)]
        loss = functional.cross_entropy(logits, truth, reduction="sum")
        figures.add(Figures(loss, (logits.argmax(1) == truth).sum(), len(batch)))
        yield {
            "val_loss": figures.loss.item() / figures.images,
            "val_accuracy": figures.correct.item() / figures.images,
        }


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels as tensors: on the CPU the memory map itself, on a GPU a copy there."""
    return as_tensor(split.images).to(device), torch.from_numpy(split.labels).to(device)


def _random(recipe: Recipe, purpose: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{recipe.seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
