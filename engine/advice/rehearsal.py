"""The one-minute check: what a short rehearsal tells of a training before it is begun.

It looks at training and validation images only; nothing is written, and nothing is kept of what it trains.
"""

import math
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.base.machine import available_memory, is_out_of_memory, peak_memory
from engine.base.text import format_bytes, format_duration, join_words, pluralize
from engine.data.dataset import Dataset
from engine.data.splits import validation_split
from engine.evaluation.metrics import wilson_interval
from engine.networks.inference import as_tensor
from engine.networks.models import count_parameters
from engine.recipes.recipe import Recipe
from engine.training.loop import Training, train_step
from engine.training.pretrained import load_pretrained

FIRST_LOSS_FACTOR = 1.5  # a first loss within this factor of guessing's is as it should be
OVERFIT_IMAGES, OVERFIT_STEPS, OVERFIT_SECONDS = 32, 100, 10.0
PROBE_IMAGES, PROBE_SECONDS = 1000, 10.0  # of training and of validation each
PROBE_SIDE = 16  # raw pixels are brought to at most so many a side: a linear model of more is slow and no better
TIMED_STEPS, TIMED_SECONDS = 5, 6.0
WORRYING_SHARE = 0.8  # of the memory that is free


@dataclass(frozen=True)
class Check:
    """One answer. verdict: ``good``, ``look`` where it is worth a thought, or ``bad``."""

    name: str
    verdict: str
    text: str

    def as_document(self) -> dict:
        return asdict(self)


def rehearse(recipe: Recipe, dataset: Dataset) -> Generator[str, None, list[Check]]:
    """Try a recipe for up to a minute, yielding what is being done; returns what was found.

    The recipe must be resolved, and torchvision's weights here. Raises LoupeError for what could not be trained at all.
    """
    checks: list[Check] = []
    try:
        yield "building the network"
        training = Training(recipe, dataset, torch.device(recipe.device))
        checks.append(_start(recipe, load_pretrained(training.model, recipe)))
        yield "timing a step"
        pace = _time_steps(training, dataset)
        checks.append(_first_loss(pace.first_loss, len(dataset.classes)))
        yield "learning one batch by heart"
        checks.append(_overfit(recipe, dataset))
        yield "training a linear model, to compare with"
        checks += _simple_models(training, dataset)
        # Memory last: by then it has made every kind of step, those with the backbone too.
        checks += [_duration(training, dataset, pace), _memory(training)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        checks.append(_out_of_memory(recipe))
    return checks


def _start(recipe: Recipe, note: str | None) -> Check:
    return Check("weights", "good", note or f"The network starts from new weights, drawn with seed {recipe.seed}.")


def _batch(training: Training, dataset: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Return what the network, or its head alone, is given for some training images, unchanged, and their labels."""
    split = dataset.splits["train"]
    order = torch.randperm(len(training.train_indices), generator=torch.Generator().manual_seed(0))
    chosen = training.train_indices[order[:count]]
    images = as_tensor(split.images[chosen.numpy()])
    labels = torch.from_numpy(split.labels)[chosen].to(training.device)
    if training.trains_on_features:
        return training.extractor(training.recipe.precision).features(images).clone(), labels
    return training.in_memory_order(training.preprocess(images.to(training.device))), labels


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, and of an image that goes through the whole network; and the loss of the first weights."""

    step: float
    image: float
    first_loss: float


def _time_steps(training: Training, dataset: Dataset) -> Pace:
    count = min(training.recipe.batch_size, len(training.train_indices))
    inputs, labels = _batch(training, dataset, count)
    training.model.eval()
    few = as_tensor(dataset.splits["train"].images[: min(8, count)])
    with torch.inference_mode():
        seen = training.in_memory_order(training.preprocess(few.to(training.device)))
        training.model(seen)  # the first time sets up more than any other
        began = time.perf_counter()
        training.model(seen).sum().item()
        image = (time.perf_counter() - began) / len(few)
    training.to_training_mode()
    with torch.no_grad():
        first_loss = functional.cross_entropy(training.network(inputs).float(), labels).item()
    times: list[float] = []
    until = time.perf_counter() + TIMED_SECONDS
    while not times or (len(times) <= TIMED_STEPS and time.perf_counter() < until):
        began = time.perf_counter()
        train_step(training, inputs, labels)
        training.sum_up()  # which waits for a GPU
        times.append(time.perf_counter() - began)
    return Pace(float(np.median(times[1:] or times)), image, first_loss)


def _first_loss(loss: float, classes: int) -> Check:
    guessing = math.log(classes)
    said = f"The first loss is {loss:.3g}; guessing among {classes} classes would give {guessing:.3g}"
    if loss <= FIRST_LOSS_FACTOR * guessing + 0.1:
        return Check("first loss", "good", f"{said}, so the training starts from where it should.")
    return Check(
        "first loss",
        "look",
        f"{said}: at first the network is surer than it can be. Look at scaling, and start with a low learning rate.",
    )


def _overfit(recipe: Recipe, dataset: Dataset) -> Check:
    """Train on one batch only: a network that cannot learn even that has a fault, or a wrong learning rate."""
    alone = replace(
        recipe, label_smoothing=0.0, class_weights="none", augment="", schedule="constant", warmup_epochs=0.0
    )
    training = Training(alone, dataset, torch.device(recipe.device))
    load_pretrained(training.model, alone)
    for module in training.model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # it is there to keep a network from this
            module.p = 0.0
    inputs, labels = _batch(training, dataset, OVERFIT_IMAGES)
    training.to_training_mode()
    until, steps, right = time.perf_counter() + OVERFIT_SECONDS, 0, 0
    while steps < OVERFIT_STEPS and right < len(labels) and (not steps or time.perf_counter() < until):
        train_step(training, inputs, labels)
        steps += 1
        with torch.no_grad():
            right = int((training.network(inputs).argmax(1) == labels).sum())
    said = f"Trained on one batch only, it has {right} of {len(labels)} images right after {pluralize(steps, 'step')}"
    if right == len(labels):
        return Check("one batch", "good", f"{said}: it can learn.")
    if steps < OVERFIT_STEPS:
        return Check("one batch", "look", f"{said}, all that {OVERFIT_SECONDS:.0f} seconds were enough for.")
    return Check(
        "one batch",
        "bad",
        f"{said}, and should have all: the learning rate, {recipe.learning_rate:g}, may be too high or too low.",
    )


def _simple_models(training: Training, dataset: Dataset) -> list[Check]:
    """Score the commonest class, and a linear model, on validation images, or on training images held back here."""
    stored = validation_split(dataset)
    train, val = training.train_indices, training.val_indices
    judged = "validation images"
    if not len(val):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        part = max(1, len(train) // 5)
        train, val = train[order[part:]], train[order[:part]]
        stored, judged = "train", "training images held back for this"
    labels = torch.from_numpy(dataset.splits["train"].labels)[train]
    targets = torch.from_numpy(dataset.splits[stored].labels)[val]
    commonest = int(torch.bincount(labels).argmax()) if len(labels) else 0
    share = int((targets == commonest).sum())
    checks = [
        Check(
            "majority",
            "good",
            f"Always answering {dataset.classes[commonest]!r} would be right for {share:,} of {len(targets):,} "
            f"{judged}, {share / len(targets):.1%}: what is learned must be better than that.",
        )
    ]
    probe = _linear_probe(training, dataset, train, stored, val)
    if probe:
        checks.append(probe(judged))
    return checks


def _linear_probe(
    training: Training, dataset: Dataset, train: Tensor, stored: str, val: Tensor
) -> Callable[[str], Check] | None:
    """Fit a logistic regression on pixels, or on a frozen backbone's features; returns what says how good it is."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    look, what = _look(training)
    one = dataset.splits["train"].images[train[:1].numpy()]
    look(one)  # the first time sets up more than any other
    began = time.perf_counter()
    look(one)
    each = max(time.perf_counter() - began, 1e-6)
    most = max(20, min(PROBE_IMAGES, int(PROBE_SECONDS / 2 / each)))
    some = [_some(indices, most) for indices in (train, val)]
    truths = [dataset.splits[name].labels[indices] for name, indices in zip(("train", stored), some, strict=True)]
    if len(set(truths[0].tolist())) < 2:
        return None
    seen = [look(dataset.splits[name].images[indices]) for name, indices in zip(("train", stored), some, strict=True)]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: near enough to compare with
        right = int((model.fit(seen[0], truths[0]).predict(seen[1]) == truths[1]).sum())
    low, high = wilson_interval(right, len(truths[1]))

    def tell(judged: str) -> Check:
        return Check(
            "linear model",
            "good",
            f"A linear model on {what} of {len(truths[0]):,} training images answers right for {right:,} of "
            f"{len(truths[1]):,} {judged}, {right / len(truths[1]):.1%} (95% interval {low:.1%} to {high:.1%}): a "
            "network worth its time should beat it.",
        )

    return tell


def _look(training: Training) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return what turns stored images into numbers for a linear model, and what those are in words."""
    if training.is_frozen:
        extractor = training.extractor(training.recipe.precision)

        def features(images: np.ndarray) -> np.ndarray:
            return np.concatenate([extractor.features(part).cpu().numpy() for part in as_tensor(images).split(32)])

        return features, "the frozen backbone's features"
    if not training.preprocessing.is_of_images:
        return lambda rows: rows, "the numbers"

    def pixels(images: np.ndarray) -> np.ndarray:
        seen = as_tensor(images).permute(0, 3, 1, 2).float()
        height, width = (min(PROBE_SIDE, side) for side in seen.shape[2:])
        return functional.adaptive_avg_pool2d(seen, (height, width)).flatten(1).numpy()

    return pixels, f"the pixels (at most {PROBE_SIDE} x {PROBE_SIDE})"


def _some(indices: Tensor, most: int) -> np.ndarray:
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(1))
    return np.sort(indices[order[:most]].numpy())


def _memory(training: Training) -> Check:
    recipe = training.recipe
    used, free = peak_memory(recipe.device) * 1e6, available_memory(recipe.device)
    said = (
        f"With {count_parameters(training.model):,} parameters and batches of {recipe.batch_size}, "
        f"training takes about {format_bytes(used)}"
    )
    if free is None:
        return Check("memory", "good", f"{said}.")
    if used <= WORRYING_SHARE * (free + used):  # what this check has taken is not free just now
        return Check("memory", "good", f"{said}, and {format_bytes(free)} are free beside: it fits.")
    smaller = max(1, recipe.batch_size // 2)
    return Check(
        "memory", "look", f"{said}, and only {format_bytes(free)} are free beside. Set batch_size to {smaller}."
    )


def _out_of_memory(recipe: Recipe) -> Check:
    smaller = f"Set batch_size to {recipe.batch_size // 2}, or choose" if recipe.batch_size > 1 else "Choose"
    return Check(
        "memory",
        "bad",
        f"Memory is not enough for a step with batches of {recipe.batch_size}. {smaller} a smaller network or size.",
    )


def _duration(training: Training, dataset: Dataset, pace: Pace) -> Check:
    recipe, of_frozen = training.recipe, training.recipe.frozen_epochs
    steps, total, parts = training.steps_per_epoch, 0.0, []
    if of_frozen:
        total += of_frozen * steps * pace.step
        parts.append(f"{pluralize(of_frozen * steps, 'step')} of {_in_short(pace.step)} with the backbone frozen")
    if training.trains_on_features:
        versions = min(recipe.views, of_frozen) if recipe.augment else 1
        extracting = pace.image * len(training.train_indices) * versions
        total += extracting
        parts.append(f"{_about(extracting)} for features, which later runs find ready")
    if of_frozen < recipe.epochs:
        whole = pace.step
        if of_frozen:
            thawed = replace(recipe, freeze="none")
            whole = _time_steps(Training(thawed, dataset, training.device), dataset).step
        total += (recipe.epochs - of_frozen) * steps * whole
        parts.append(f"{pluralize((recipe.epochs - of_frozen) * steps, 'step')} of {_in_short(whole)}")
    validations = 1 if of_frozen == recipe.epochs else recipe.epochs
    evaluated = validations * len(training.val_indices) + len(dataset.splits.get("test", ()))
    total += evaluated * pace.image
    if evaluated * pace.image >= 1:
        parts.append(f"{format_duration(evaluated * pace.image)} for evaluation")
    how_long = f"It takes {_about(total)} on this machine as it is now"
    return Check("time", "good", f"{how_long}: {join_words(parts)}.")


def _about(seconds: float) -> str:
    return f"about {format_duration(seconds)}" if seconds >= 1 else "less than a second"


def _in_short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2g} s"
