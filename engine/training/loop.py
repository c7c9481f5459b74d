"""The training loop: a generator that yields what happened, and leaves logging, saving and stopping to its caller."""

import copy
import hashlib
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.base.errors import DivergedError, LoupeError
from engine.base.machine import peak_memory
from engine.base.text import pluralize
from engine.data.dataset import Dataset
from engine.data.splits import require_all_classes, train_validation_indices, validation_split
from engine.networks.augment import augment
from engine.networks.features import Extractor, Features, View
from engine.networks.inference import as_tensor, batch_size_for, logits_in_batches
from engine.networks.models import backbone_of, build_model, feature_count, head_path
from engine.networks.preprocessing import Preprocessing, build_preprocess
from engine.recipes.augmentation import parse_augmentation
from engine.recipes.recipe import Recipe
from engine.runs.records import Epoch, Evaluated, Extracting, Step
from engine.training.optimization import build_optimizer, build_schedule
from engine.training.pretrained import preprocessing_of

# Images that are gathered, changed and scaled in one go: of batches of 4, one at a time costs a tenth of their step.
GATHERED_AT_ONCE = 256
# Images whose figures wait to be summed up, so that a GPU is not waited for at each step.
PENDING_MOST = 4096


@dataclass
class RunningSums:
    """Sums over some steps. They are added up in the order of the steps, wherever a run may have been cut."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0

    def means(self) -> dict[str, float]:
        return {
            "train_loss": self.loss / self.images,
            "train_accuracy": self.correct / self.images,
            "images_per_second": round(self.images / self.seconds, 1),
        }


class Training:
    """Everything that decides the rest of a training: model, optimiser, position, best so far.

    The learning rate of a step, the order of an epoch and the augmentation of its images follow from the recipe and
    their number alone.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, device: torch.device, preprocessing: Preprocessing | None = None
    ):
        """Begin with new weights. preprocessing: of a training that goes on; None works it out from the recipe."""
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.preprocessing = preprocessing or preprocessing_of(recipe, dataset)
        self.preprocess = build_preprocess(self.preprocessing).to(device)
        model = build_model(recipe.model, self.preprocessing.model_shape, len(dataset.classes), recipe.head)
        # torch's own convolutions work on channels one by one, oneDNN's and a GPU's on all of a pixel.
        native = recipe.convolutions == "native"
        self.memory_format = torch.contiguous_format if native else torch.channels_last
        self.model: nn.Module = model.to(memory_format=self.memory_format).to(device)
        self.head = self.model.get_submodule(head_path(self.model))
        self.extractors: dict[str, Extractor] = {}  # by precision
        self.stored: dict[str, tuple[Tensor, Tensor]] = {}  # images and labels by split, on the device

        self.train_indices, self.val_indices = train_validation_indices(dataset, recipe)
        require_all_classes(dataset, recipe, self.train_indices, self.val_indices)
        self.class_weights = _class_weights(dataset, self.train_indices, recipe, device)
        if recipe.augment and dataset.kind == "table":
            raise LoupeError(
                f"augment is {recipe.augment!r}, which changes images, but {dataset.name} is a table. "
                "Leave augment empty."
            )
        self.augmentation = parse_augmentation(recipe.augment)
        self.steps_per_epoch = _steps_per_epoch(len(self.train_indices), recipe)
        _require_batches_that_can_be_normed(self)

        self.optimizer = build_optimizer(self.model, self.head, recipe)
        self.schedule = build_schedule(recipe, recipe.epochs * self.steps_per_epoch)
        self.step = 0  # steps made
        self.epoch = 0  # epochs finished: trained and validated
        self.evaluated_at = 0  # the step of the last evaluation within the training
        self.images_seen = 0
        self.train_seconds = 0.0  # in steps; neither validation nor saving
        self.step_figures = RunningSums()  # since the last report of steps
        self.epoch_figures = RunningSums()
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []  # loss, logits and labels of steps not in the figures
        self.last: Epoch | None = None
        self.best: Epoch | None = None
        self.last_improvement = 0  # the epoch in which validation accuracy rose last
        self.best_weights: dict[str, Tensor] = {}

    def in_memory_order(self, seen: Tensor) -> Tensor:
        """Bring what the model sees into the memory order that it is quickest with."""
        return seen.contiguous(memory_format=self.memory_format) if seen.dim() == 4 else seen

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone stays as it is in the epoch to come."""
        return self.epoch < self.recipe.frozen_epochs

    @property
    def trains_on_features(self) -> bool:
        """Whether the head alone is trained in that epoch, on what the backbone has made of each image once."""
        return self.is_frozen and self.recipe.keeps_features

    @property
    def network(self) -> nn.Module:
        """What a step of training goes through."""
        return self.head if self.trains_on_features else self.model

    @property
    def was_frozen(self) -> bool:
        """Whether the backbone has been as it is from the beginning, so that its features are those of the start."""
        return self.recipe.frozen_epochs > 0 and self.step <= self.recipe.frozen_epochs * self.steps_per_epoch

    def to_training_mode(self) -> None:
        """Set the network up for training, but for a frozen backbone: its batch norm and dropout are as in use."""
        self.model.train(not self.is_frozen).requires_grad_(not self.is_frozen)
        self.head.train().requires_grad_(True)

    def features(self, dataset: Dataset, split: str, precision: str, view: View | None = None) -> Features:
        """Return where the features of a split are kept, as the frozen backbone makes them."""
        return Features(dataset, split, self.extractor(precision), view)

    def extractor(self, precision: str) -> Extractor:
        if precision not in self.extractors:
            backbone, width = backbone_of(self.model), feature_count(self.model)
            self.extractors[precision] = Extractor(backbone, width, self.preprocess, precision)
        return self.extractors[precision]

    def on_device(self, dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
        """Return images and labels as tensors: on the CPU the memory map itself, on a GPU a copy there."""
        if split not in self.stored:
            stored = dataset.splits[split]
            self.stored[split] = (
                as_tensor(stored.images).to(self.device),
                torch.from_numpy(stored.labels).to(self.device),
            )
        return self.stored[split]

    @property
    def view(self) -> View | None:
        """Which changed version of the images the epoch to come sees; None for the images as they are."""
        if not self.recipe.augment:
            return None
        return View(self.augmentation, self.recipe.seed, self.epoch % self.recipe.views)

    def kept_weights(self) -> dict[str, Tensor]:
        """Return the weights that a run ends with if it ends now: the best where those are kept, else the current."""
        return self.best_weights or self.model.state_dict()

    def state_dict(self) -> dict:
        """Return all of it as tensors and plain values, so that it loads as data only."""
        self.sum_up()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "preprocessing": self.preprocessing.as_dict(),
            "epochs": self.recipe.epochs,
            "step": self.step,
            "epoch": self.epoch,
            "evaluated_at": self.evaluated_at,
            "images_seen": self.images_seen,
            "train_seconds": self.train_seconds,
            "step_figures": asdict(self.step_figures),
            "epoch_figures": asdict(self.epoch_figures),
            "last": self.last and asdict(self.last),
            "best": self.best and asdict(self.best),
            "last_improvement": self.last_improvement,
            "best_weights": self.best_weights,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch, self.evaluated_at = state["step"], state["epoch"], state["evaluated_at"]
        self.images_seen, self.train_seconds = state["images_seen"], state["train_seconds"]
        self.step_figures, self.epoch_figures = (
            RunningSums(**state["step_figures"]),
            RunningSums(**state["epoch_figures"]),
        )
        self.last = state["last"] and Epoch(**state["last"])
        self.best = state["best"] and Epoch(**state["best"])
        # Checkpoints of before call it risen_in. A run that is made longer is given its patience anew.
        improved = state["last_improvement"] if "last_improvement" in state else state["risen_in"]
        self.last_improvement = self.epoch if self.recipe.epochs > state["epochs"] else improved
        self.best_weights = state["best_weights"]
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"])

    def kept_figures(self) -> dict[str, Any]:
        """Say which weights those are, and give the training figures that belong to them."""
        self.sum_up()
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

    def count(self, images: int, seconds: float) -> None:
        self.images_seen += images
        self.train_seconds += seconds
        for figures in (self.step_figures, self.epoch_figures):
            figures.images += images
            figures.seconds += seconds

    def sum_up(self) -> None:
        """Add the losses and right answers of the steps since the last time; a GPU is waited for here."""
        if not self.pending:
            return
        losses, logits, labels = zip(*self.pending, strict=True)
        self.pending = []
        correct = int((torch.cat(logits).argmax(1) == torch.cat(labels)).sum())
        means = torch.stack(losses).tolist()
        for figures in (self.step_figures, self.epoch_figures):
            figures.correct += correct
            for mean, targets in zip(means, labels, strict=True):
                figures.loss += mean * len(targets)

    def report_step(self) -> Step:
        figures, self.step_figures = self.step_figures, RunningSums()
        return Step(self.step, self.epoch + 1, train_seconds=self.train_seconds, **self._means(figures))

    def report_epoch(self, validation: dict[str, Any]) -> Epoch:
        """Close the epoch; its weights become the best if its validation accuracy is highest (then: loss lowest)."""
        if validation["val_loss"] is not None:
            self._require_finite(validation["val_loss"])
        figures, self.epoch_figures, self.step_figures = self.epoch_figures, RunningSums(), RunningSums()
        self.epoch += 1
        epoch = Epoch(self.step, self.epoch, train_seconds=self.train_seconds, **validation, **self._means(figures))
        self.last = epoch
        if epoch.val_accuracy is not None and (self.best is None or _rank(epoch) > _rank(self.best)):
            if self.best is None or epoch.val_accuracy > (self.best.val_accuracy or 0.0):
                self.last_improvement = self.epoch
            self.best = epoch
            if self.recipe.keep == "best":
                self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return epoch

    def report_evaluation(self, split: str, loss: float, accuracy: float) -> Evaluated:
        self._require_finite(loss)
        self.evaluated_at = self.step
        return Evaluated(self.step, split, loss, accuracy)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are made, or validation accuracy has not risen for as long as the recipe is patient."""
        return self.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= self.epoch - self.last_improvement

    @property
    def owes_evaluation(self) -> bool:
        """Whether the recipe asks for an evaluation at this step, and it has not been made yet."""
        every = self.recipe.evaluate_every
        return bool(every and self.step % every == 0 and self.step > self.evaluated_at)

    def _means(self, figures: RunningSums) -> dict[str, float]:
        means = figures.means()
        self._require_finite(means["train_loss"])
        return means | {"learning_rate": self.learning_rate, "memory_mb": peak_memory(self.device.type)}

    def _require_finite(self, loss: float) -> None:
        """Raise DivergedError for a loss that is no number."""
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss was no longer a finite number at step {self.step:,}: training has diverged. "
                f"Start again with a lower learning_rate, say {self.recipe.learning_rate / 10:g} "
                f"in place of {self.recipe.learning_rate:g}."
            )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step to come."""
        return self.schedule(self.step)


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


def _require_batches_that_can_be_normed(training: Training) -> None:
    """Raise LoupeError where batch norm would be given a single value of a channel: it needs several to compare."""
    recipe, count = training.recipe, len(training.train_indices)
    if recipe.frozen_epochs == recipe.epochs:  # its batch norm compares nothing
        return
    last = recipe.batch_size if recipe.drop_last else (count - 1) % recipe.batch_size + 1
    norms = nn.modules.batchnorm._BatchNorm
    if last > 1 or not any(isinstance(module, norms) for module in training.model.modules()):
        return
    sample = training.preprocess(torch.zeros(1, *training.preprocessing.shape, device=training.device))
    try:
        with torch.no_grad():
            copy.deepcopy(training.model).train()(sample)
    except ValueError as error:
        if recipe.batch_size == 1:
            way_out = "Set batch_size to 2 or more."
        else:
            way_out = "Set drop_last to true, which leaves it out, or another batch_size."
        raise LoupeError(
            f"With {pluralize(count, 'training image')} in batches of {recipe.batch_size} the last batch is a single "
            f"image, and batch norm, which {recipe.model} has, needs at least two. {way_out}"
        ) from error


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


def fit(training: Training, dataset: Dataset) -> Iterator[Step | Evaluated | Extracting | Epoch | None]:
    """Train to the end of the recipe, from wherever ``training`` stands.

    Yields after every step, so that the caller can stop or save at any of them: a ``Step`` every ``log_every``
    steps, an ``Epoch`` at the end of an epoch, an ``Evaluated`` every ``evaluate_every`` steps, ``Extracting`` while
    features are computed, None after the other steps and between batches of evaluation. Raises LoupeError when the
    loss is no longer a finite number.
    """
    recipe = training.recipe
    judged = "val" if len(training.val_indices) else "test"
    evaluates_within = recipe.evaluate_every and (judged == "val" or judged in dataset.splits)
    while not training.is_over:
        source = yield from _source_of_training(training, dataset)
        batches = _batches(training, source)
        training.to_training_mode()
        while True:
            if evaluates_within and training.owes_evaluation:
                loss, accuracy = yield from _evaluate(training, dataset, judged)
                yield training.report_evaluation(judged, loss, accuracy)
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            train_step(training, *batch)
            number = training.step - training.epoch * training.steps_per_epoch
            report = number % recipe.log_every == 0
            if report or number == training.steps_per_epoch:
                training.sum_up()
            training.count(len(batch[1]), time.perf_counter() - began)
            del batch
            if report:
                yield training.report_step()
            elif number < training.steps_per_epoch:
                yield None
        validation: dict[str, Any] = {"val_loss": None, "val_accuracy": None}
        if len(training.val_indices):
            loss, accuracy = yield from _evaluate(training, dataset, "val")
            validation = {"val_loss": loss, "val_accuracy": accuracy}
        yield training.report_epoch(validation)


@dataclass
class Source:
    """What a network, or its head alone, is given: stored images, or their features, with the labels of all."""

    network: nn.Module
    preprocess: nn.Module
    inputs: Tensor
    labels: Tensor


def _source_of_training(training: Training, dataset: Dataset) -> Generator[Extracting, None, Source]:
    if not training.trains_on_features:
        return _whole(training, dataset, "train")
    features = training.features(dataset, "train", training.recipe.precision, training.view)
    return (yield from _by_features(training, dataset, features, "train", training.train_indices))


def source_of_evaluation(
    training: Training, dataset: Dataset, split: str, indices: Tensor
) -> Generator[Extracting, None, Source]:
    """Return what evaluation on some images works on; a frozen backbone's features are computed once, in float32."""
    if not training.was_frozen:
        return _whole(training, dataset, split)
    features = training.features(dataset, split, "float32")
    return (yield from _by_features(training, dataset, features, split, indices))


def _whole(training: Training, dataset: Dataset, split: str) -> Source:
    return Source(training.model, training.preprocess, *training.on_device(dataset, split))


def _by_features(
    training: Training, dataset: Dataset, features: Features, split: str, indices: Tensor
) -> Generator[Extracting, None, Source]:
    yield from extract(features, indices)
    labels = torch.from_numpy(dataset.splits[split].labels)
    return Source(training.head, nn.Identity(), features.open().to(training.device), labels.to(training.device))


def extract(features: Features, indices: Tensor) -> Iterator[Extracting]:
    """Compute the features that are missing of some images, yielding after each batch."""
    total, done, began = len(features.missing(indices.numpy())), 0, time.perf_counter()
    for count in features.fill(indices.numpy()):
        done += count
        yield Extracting(done, total, round(time.perf_counter() - began, 3))


def _batches(training: Training, source: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the network sees, and the labels, of each batch of the epoch, from wherever ``training`` stands."""
    recipe, done = training.recipe, training.epoch * training.steps_per_epoch
    order = training.train_indices
    if recipe.shuffle:
        order = order[torch.randperm(len(order), generator=_random(recipe, "order", training.epoch))]
    order = order[: training.steps_per_epoch * recipe.batch_size].to(training.device)
    at_once = max(1, min(GATHERED_AT_ONCE, batch_size_for(source.preprocess)) // recipe.batch_size)
    first = training.step - done
    for block, chosen in enumerate(order.split(at_once * recipe.batch_size)):
        if (block + 1) * at_once <= first:
            continue
        inputs = source.inputs[chosen]
        if recipe.augment and not training.trains_on_features:
            generator = _random(recipe, "augmentation", done + block * at_once)
            inputs = augment(inputs, training.augmentation, generator)
        inputs = training.in_memory_order(source.preprocess(inputs))
        seen, targets = inputs.split(recipe.batch_size), source.labels[chosen].split(recipe.batch_size)
        del inputs
        for number, batch in enumerate(zip(seen, targets, strict=True), start=block * at_once):
            if number >= first:
                yield batch
        del seen, batch  # before the next are made


def train_step(training: Training, pixels: Tensor, labels: Tensor) -> None:
    """Make one step on a batch as the model sees it."""
    recipe, model, optimizer = training.recipe, training.network, training.optimizer
    rate = training.learning_rate
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
    if recipe.precision == "bfloat16":
        with torch.autocast(training.device.type, torch.bfloat16):
            logits = model(pixels)
        logits = logits.float()
    else:
        logits = model(pixels)
    loss = functional.cross_entropy(
        logits, labels, weight=training.class_weights, label_smoothing=recipe.label_smoothing
    )
    optimizer.zero_grad()
    loss.backward()
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    training.step += 1
    training.pending.append((loss.detach(), logits.detach(), labels))
    if len(training.pending) * len(labels) >= PENDING_MOST:
        training.sum_up()


def _evaluate(
    training: Training, dataset: Dataset, split: str
) -> Generator[Extracting | None, None, tuple[float, float]]:
    """Run the validation or test images in float32, yielding after each batch; returns mean loss and accuracy."""
    if split == "val":
        stored, indices = validation_split(dataset), training.val_indices
    else:
        stored, indices = split, torch.arange(len(dataset.splits[split]))
    source = yield from source_of_evaluation(training, dataset, stored, indices)
    training.model.eval()
    loss, done, correct = 0.0, 0, 0
    for logits in logits_in_batches(source.network, source.preprocess, source.inputs, indices):
        targets = source.labels[indices[done : done + len(logits)].to(source.labels.device)]
        loss += functional.cross_entropy(logits, targets, reduction="sum").item()
        correct += int((logits.argmax(1) == targets).sum())
        done += len(logits)
        yield None
    training.to_training_mode()
    return loss / len(indices), correct / len(indices)


def _random(recipe: Recipe, purpose: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{recipe.seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
