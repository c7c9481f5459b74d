"""What is the matter with a run, told from its own figures, and what to change in the next one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from engine.base.text import join_words, pluralize
from engine.data.catalogue import kind_of
from engine.evaluation.metrics import wilson_interval
from engine.recipes.augmentation import parse_augmentation
from engine.recipes.recipe import FIELDS, Recipe
from engine.recipes.weights import NewWeights
from engine.runs.log import History
from engine.runs.records import Epoch, Failed, Started, Step, Stopped
from engine.runs.run import starting_weights

# Batch norm's running figures and Adam's averages need some tens of steps before any figure means much.
LEAST_STEPS = 50
# Fewer points than this have no trend that can be told from their noise.
LEAST_POINTS = 4
# With so many epochs the ups and downs of one are told from a trend.
LEAST_EPOCHS = 5
# A schedule that has come down to this share of its full rate has settled: before, validation figures suffer from the
# high rate, and get well by themselves when it falls.
SETTLED = 0.5
# A rise of validation loss by a tenth is clear where there are images enough; one of less than 0.03 nats is no
# matter: it is where nearly all is right, and comes and goes.
CLEAR_RISE = 0.1
LEAST_RISE = 0.03
# Training accuracy ahead of validation accuracy by at least so much, after all that chance explains: good runs on
# 2,500 validation images are ahead by 1 to 2 points, and lose nothing by it.
CLEAR_GAP = 0.03
# Nor is training accuracy that has fallen by so much that of a model that learns by heart.
CLEAR_FALL = 0.05
# A gap is closing when the later half of the epochs has less than this of that of the earlier half.
CLOSING = 0.75
# The share of the way from guessing to all right below which training accuracy is poor: 64% of ten even classes.
POOR_SKILL = 0.6
# A loss that falls by less from the third quarter of a run to the last is flat: twice the epochs would not pay.
FLAT = 0.05
# Nor is a loss flat that has hardly begun to fall.
LEVEL_STEPS = 200
# With so little left to get wrong, more epochs make the loss smaller and the model no better: LeNet-5 on 2,000 images
# went from 98.8% to 100% of those, and nowhere on the others.
NEARLY_ALL = 0.97
# Whole batches whose loss is so many times that of guessing: no good run passed 1.1, not even in its first steps.
LEAP = 1.5
# Nor did a run that got over such a leap cover less than this of the way from guessing to the least loss.
RECOVERED = 0.9
# Validation accuracy that drops by so much in the later two thirds of a run, and is back later: good runs at a constant
# rate stay below 0.06.
DIP = 0.1
# Chance moves an accuracy by less than so many of its standard errors.
STANDARD_ERRORS = 4
# A rate is too low when the run has covered less of the way than this ...
LITTLE = 0.5
# ... and the later half of all the movement that its rates allowed brought at least this much of what the first
# brought: it brings as much on a straight line, and next to nothing where a loss has levelled out.
STRAIGHT = 0.5
# With less of the way covered than this the noise between batches hides whether the line is straight.
HARDLY = 0.1
# Rates that most networks learn with: Adam's own default, and SGD's divided by what momentum makes of it. They settle
# nothing but which way to go when the loss alone cannot say.
USUAL_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
# With fewer images, one more or less that is right moves a class's accuracy by more than 5 points.
FEW_IMAGES = 20
# A class this much rarer than the others is hardly seen in a batch.
RARE_SHARE = 0.1
MOST_NAMED = 5
# What to take where a network is too small; mlp does not see which pixels are neighbours.
LARGER = {"mlp": "convnet"} | dict.fromkeys(("convnet", "convnet-fast", "lenet", "lenet5", "cifar-net"), "resnet-fast")
# From here on an augmentation may hide what an image shows, or a smoothed label what it is.
STRONG = {"shift": 5, "rotate": 45.0, "erase": 0.5}
LEAST_CROP = 0.5
STRONG_SMOOTHING = 0.3

# No float32 is larger, so that a figure that is comes of a damaged log.
LARGEST = 3.5e38


@dataclass(frozen=True)
class Finding:
    """Something that is the matter with a run.

    title: what, in a sentence. evidence: the figures it rests on. advice: what the change does, in words.
    change: recipe fields for the next run; empty when none can help.
    """

    name: str
    title: str
    evidence: str
    advice: str
    change: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """Means over the steps up to this one. rate: the learning rate at it."""

    step: int
    loss: float
    rate: float


@dataclass(frozen=True)
class RunCurves:
    """A run so far, as the rules look at it.

    guessing: the training loss where all classes are held equally likely, in nats, as an untrained network has it; None
    where it is not known. least: the smallest that it can be. majority: the share of the commonest class.
    """

    recipe: Recipe
    history: History
    started: Started
    points: list[Point]
    epochs: list[Epoch]
    guessing: float | None
    least: float
    majority: float

    @property
    def has_model(self) -> bool:
        """Whether the run has ended, with whatever it has learned."""
        return self.history.ended is not None

    @property
    def steps(self) -> int:
        return max([point.step for point in self.points] + [epoch.step for epoch in self.epochs])

    @property
    def progress(self) -> float:
        """The share of its steps that the run has made; 1 once it has ended, early or not."""
        total = self.started.epochs * self.started.steps_per_epoch
        return 1.0 if self.has_model else min(self.steps / max(total, 1), 1.0)

    @property
    def late_loss(self) -> float:
        """Mean training loss over the last quarter."""
        return fmean(point.loss for point in self.points[-max(1, len(self.points) // 4) :])

    @property
    def covered(self) -> float | None:
        """The share of the way from guessing to the least loss that the training loss has come."""
        return None if self.guessing is None else (self.guessing - self.late_loss) / (self.guessing - self.least)

    @property
    def settled(self) -> bool:
        """Whether validation figures are those of a rate that stays, or that has come down."""
        return not self.annealed or self.points[-1].rate <= SETTLED * self.recipe.learning_rate

    @property
    def annealed(self) -> bool:
        """Whether the rate is let down towards the end, after which there is little to gain by going on."""
        return self.recipe.schedule != "constant"

    @property
    def validated(self) -> list[Epoch]:
        return [epoch for epoch in self.epochs if epoch.val_loss is not None and epoch.val_accuracy is not None]

    @property
    def is_table(self) -> bool:
        """Whether the dataset is rows of numbers."""
        return kind_of(self.recipe.dataset) == "table"

    def accuracy_in_words(self) -> str:
        last, started = self.epochs[-1], self.started
        training = f"training accuracy was {last.train_accuracy:.1%} of {pluralize(started.train_count, 'image')}"
        if last.val_accuracy is None:
            return training
        return f"{training}, validation accuracy {last.val_accuracy:.1%} of {pluralize(started.val_count, 'image')}"


def diagnose(recipe: Recipe, history: History, class_counts: Mapping[str, int] | None = None) -> list[Finding]:
    """List what is the matter with a run, under way or ended, the most serious first.

    class_counts: the training images of each class, by its name.
    """
    curves = _curves_of(recipe, history, class_counts)
    diverged, classes = _diverged(recipe, history), _classes(recipe, class_counts)
    if diverged or not curves:
        findings = [diverged, classes]
    else:
        # At a rate that does not fit, nothing else that the figures say can be relied upon.
        rate = _rate_too_high(curves) or _rate_too_low(curves)
        improving = None if rate else _still_improving(curves)
        findings = [
            rate or _overfitting(curves),
            None if rate or improving else _underfitting(curves),
            classes,
            improving,
            _unwatched(curves),
        ]
    rewording = str if kind_of(recipe.dataset) == "images" else _of_rows
    return [
        replace(
            finding,
            title=rewording(finding.title),
            evidence=rewording(finding.evidence),
            advice=rewording(finding.advice),
        )
        for finding in findings
        if finding
    ]


def _of_rows(sentence: str) -> str:
    return sentence.replace("image", "row")


def _curves_of(recipe: Recipe, history: History, class_counts: Mapping[str, int] | None) -> RunCurves | None:
    started = history.started
    steps = [step for step in history.steps if _sound(step)]
    epochs = [epoch for epoch in history.epochs if _sound(epoch)]
    records: Sequence[Step | Epoch] = steps if len(steps) > len(epochs) else epochs
    points = [Point(record.step, record.train_loss, record.learning_rate) for record in records]
    if not started or not points:
        return None
    number, counts = max(len(started.classes), 1), list((class_counts or {}).values())
    smoothing, even = recipe.label_smoothing, recipe.label_smoothing / number
    guessing = math.log(number)
    least = sum(share * math.log(1 / share) for share in [1 - smoothing + even] + [even] * (number - 1) if share)
    # Smoothed labels that are weighed make losses that have no such ends.
    known = guessing > least and not (recipe.class_weights == "balanced" and smoothing)
    majority = max(counts) / sum(counts) if any(counts) else 1 / number
    return RunCurves(recipe, history, started, points, epochs, guessing if known else None, least, majority)


def _diverged(recipe: Recipe, history: History) -> Finding | None:
    if not isinstance(history.last, Failed) or history.last.kind != "diverged":
        return None
    records: list[Step | Epoch] = [*history.steps, *history.epochs]
    latest = max(filter(_sound, records), key=lambda record: record.step, default=None)
    last = f"; it was {latest.train_loss:.3g} at step {latest.step:,}" if latest else ""
    return Finding(
        "rate-too-high",
        "The learning rate is too high: training has diverged.",
        f"At a learning rate of up to {recipe.learning_rate:g} the training loss grew beyond all numbers{last}.",
        *_with_rate(recipe, recipe.learning_rate / 10),
    )


def _rate_too_high(curves: RunCurves) -> Finding | None:
    """Find a loss that guessing would have had too, that leapt and never recovered, or that goes up and down."""
    recipe, points = curves.recipe, curves.points
    enough = curves.steps >= LEAST_STEPS
    if len(points) < LEAST_POINTS or not (enough or curves.has_model):
        return None
    highest = max(points, key=lambda point: point.loss)
    if curves.guessing is not None and curves.covered is not None:
        # Rows of numbers may be of any size, and then a network starts far off whatever the rate; images are scaled.
        leapt = highest.loss >= LEAP * max(curves.guessing, points[0].loss if curves.is_table else 0.0)
        # Before half of a run, a rate that will come down may bring it back yet; and without a leap it may be the start
        # of one that is hard to learn.
        half = curves.progress >= 0.5
        stuck = curves.late_loss >= curves.guessing
        if stuck and ((leapt and (half or curves.settled)) or (enough and half and _at_usual_rate(recipe))):
            return Finding(
                "rate-too-high",
                "Nothing is learned: the learning rate is probably too high.",
                f"After {curves.steps:,} steps the training loss is {curves.late_loss:.3g}, no better than the "
                f"{curves.guessing:.3g} of guessing.",
                *_with_rate(recipe, recipe.learning_rate / 10),
            )
        if leapt and curves.covered < RECOVERED and curves.settled:
            return Finding(
                "rate-too-high",
                "The learning rate is too high: the first steps threw the network far off.",
                f"The training loss was {highest.loss:.3g} at step {highest.step:,}, where guessing gives "
                f"{curves.guessing:.3g}, and it is {curves.late_loss:.3g} after {curves.steps:,} steps.",
                *_with_rate(recipe, recipe.learning_rate / 10),
            )
    dip = None if curves.annealed else _dip(curves.validated, curves.started.val_count)
    if not dip:
        return None
    return Finding(
        "rate-too-high",
        "The learning rate is too high: validation accuracy goes up and down.",
        dip,
        *_with_rate(recipe, recipe.learning_rate / 3),
    )


def _dip(epochs: list[Epoch], count: int) -> str | None:
    """Say how far validation accuracy fell and rose again, in the later two thirds; None where chance may do it."""
    if len(epochs) < LEAST_EPOCHS or not count:
        return None
    accuracies = [epoch.val_accuracy or 0.0 for epoch in epochs]
    depths = [
        min(max(accuracies[: index + 1]), max(accuracies[index:])) - accuracy
        for index, accuracy in enumerate(accuracies)
    ]
    settled = [index for index in range(len(epochs) // 3, len(epochs)) if epochs[index].step >= 2 * LEAST_STEPS]
    # A run that has come through its dips is none the worse for them.
    if not settled or accuracies[-1] > max(accuracies) - DIP / 2:
        return None
    deepest = max(settled, key=depths.__getitem__)
    middle = accuracies[deepest] + depths[deepest] / 2
    if depths[deepest] < max(DIP, STANDARD_ERRORS * math.sqrt(middle * (1 - middle) / count)):
        return None
    before, after = max(accuracies[:deepest]), max(accuracies[deepest:])
    return (
        f"Validation accuracy, of {pluralize(count, 'image')}, had been {before:.1%}, fell to "
        f"{accuracies[deepest]:.1%} at epoch {epochs[deepest].epoch}, and was {after:.1%} later."
    )


def _rate_too_low(curves: RunCurves) -> Finding | None:
    """Find a loss that falls as on a straight line, and has far to go."""
    recipe, points = curves.recipe, curves.points
    if curves.steps < LEAST_STEPS or len(points) < 2 * LEAST_POINTS or curves.covered is None:
        return None
    if _at_usual_rate(recipe):
        return None
    # Under way it is told only once the full rate was reached, and of what has come far less than its share of the way:
    # many a loss falls slowly at first and fast then.
    if curves.progress < 0.5 or curves.covered >= LITTLE * curves.progress**2:
        return None
    moved = [0.0]
    for before, after in pairwise(points):
        moved.append(moved[-1] + before.rate * (after.step - before.step))
    half = next(index for index, way in enumerate(moved) if way >= moved[-1] / 2)
    few = max(1, len(points) // 8)
    first, middle, last = (
        fmean(point.loss for point in part)
        for part in (points[:few], points[max(0, half - few // 2) :][:few], points[-few:])
    )
    straight = last < first and middle - last >= STRAIGHT * (first - middle)
    if not straight and curves.covered >= HARDLY:
        return None
    return Finding(
        "rate-too-low",
        "The learning rate is too low: the loss has covered little of its way.",
        f"In {curves.steps:,} steps the training loss went from {first:.3g} by way of {middle:.3g} to {last:.3g}"
        f"{', almost on a straight line' if straight else ''}; guessing gives {curves.guessing:.3g}, "
        f"and the least there can be is {curves.least:.3g}.",
        *_with_rate(recipe, recipe.learning_rate * 10),
    )


def _overfitting(curves: RunCurves) -> Finding | None:
    """Find validation figures that get worse while training figures get better, or stay far behind them."""
    epochs, count = curves.validated, curves.started.val_count
    least = 3 if curves.has_model else LEAST_EPOCHS
    if not curves.settled or curves.steps < LEAST_STEPS or len(epochs) < least or not count:
        return None
    evidence = _risen(epochs, count) or _gap(curves, epochs)
    if not evidence:
        return None
    advice, change = _against_overfitting(curves)
    return Finding(
        "overfitting", "The model learns its training images by heart: it is overfitting.", evidence, advice, change
    )


def _risen(epochs: list[Epoch], count: int) -> str | None:
    """Say how validation loss has risen from its lowest while training loss fell; medians of three epochs."""
    if len(epochs) < LEAST_EPOCHS:
        return None
    losses = [epoch.val_loss or 0.0 for epoch in epochs]
    smooth = [median(losses[index : index + 3]) for index in range(len(losses) - 2)]
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    best, last = epochs[lowest + 1], epochs[-1]
    # Chance moves the mean loss of n images by about the loss over the root of n. What an unsteady training does
    # beyond that, its zigzag says; a steady rise has none.
    bends = [abs(a - 2 * b + c) / 2 for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    zigzag = median(bends[len(bends) // 2 :])
    clear = max(LEAST_RISE, 2 * zigzag, smooth[lowest] * max(CLEAR_RISE, 2 / math.sqrt(count)))
    if min(losses[-3:]) < smooth[lowest] or smooth[-1] - smooth[lowest] < clear or last.train_loss >= best.train_loss:
        return None
    return (
        f"Validation loss, of {pluralize(count, 'image')}, was {smooth[lowest]:.3g} around epoch {best.epoch} and is "
        f"{smooth[-1]:.3g} now (medians of 3 epochs), while training loss fell from {best.train_loss:.3g} to "
        f"{last.train_loss:.3g}."
    )


def _gap(curves: RunCurves, epochs: list[Epoch]) -> str | None:
    """Say how far training accuracy is ahead of validation accuracy, when it has been for three epochs.

    A gap that closes is another matter: batch norm's validation figures lag behind at first. Augmentation and means
    over an epoch make training figures look worse than they are, so that the true gap is no smaller.
    """
    train_count, val_count = curves.started.train_count, curves.started.val_count
    if not curves.has_model and len(epochs) < 2 * LEAST_EPOCHS:
        return None
    gaps = [epoch.train_accuracy - (epoch.val_accuracy or 0.0) for epoch in epochs]
    falls = epochs[-1].train_accuracy < max(epoch.train_accuracy for epoch in epochs) - CLEAR_FALL
    closes = fmean(gaps[len(gaps) // 2 :]) < CLOSING * fmean(gaps[: len(gaps) // 2])
    if falls or closes or any(_least_gap(epoch, train_count, val_count) < CLEAR_GAP for epoch in epochs[-3:]):
        return None
    last = epochs[-1]
    low, high = wilson_interval(round((last.val_accuracy or 0.0) * val_count), val_count)
    return (
        f"Training accuracy is {last.train_accuracy:.1%} of {pluralize(train_count, 'image')}, and validation accuracy "
        f"{last.val_accuracy:.1%} of {pluralize(val_count, 'image')} (by chance between {low:.1%} and {high:.1%})."
    )


def _least_gap(epoch: Epoch, train_count: int, val_count: int) -> float:
    """Return the lower end of the 95 % interval of training less validation accuracy (Newcombe 1998, method 10)."""
    train, val = epoch.train_accuracy, epoch.val_accuracy or 0.0
    train_low, _ = wilson_interval(round(train * train_count), train_count)
    _, val_high = wilson_interval(round(val * val_count), val_count)
    return train - val - math.hypot(train - train_low, val_high - val)


def _against_overfitting(curves: RunCurves) -> tuple[str, dict[str, Any]]:
    recipe = curves.recipe
    # With a frozen backbone each image goes through it once, and with augmentation once an epoch.
    if not recipe.augment and not curves.is_table and recipe.freeze != "backbone":
        return (
            "Change the training images a little each time that they are seen, so that none can be learned by heart. "
            "Where a mirrored image is of the same class, add flip.",
            {"augment": "crop=0.8 rotate=10"},
        )
    if not recipe.weight_decay:
        decay = 0.05 if recipe.optimizer == "adamw" else 0.0005
        return "Pull all weights towards zero, so that the network stays simple.", {"weight_decay": decay}
    if recipe.keep != "best":
        # A dataset with a val split of its own needs the share only to be let choose by it.
        share = {} if recipe.validation_share else {"validation_share": 0.1}
        return "Keep the weights of the best epoch by validation accuracy, not the last.", share | {"keep": "best"}
    # A schedule that is cut short never comes down to the low rates that it is for.
    if not recipe.patience and not curves.annealed:
        return "End training once validation accuracy has not risen for 5 epochs.", {"patience": 5}
    return "Add training images, or choose a smaller network: the recipe has what else there is against it.", {}


def _underfitting(curves: RunCurves) -> Finding | None:
    """Find a run that has ended with poor accuracy on the very images that it was trained on."""
    if not curves.has_model or isinstance(curves.history.last, Stopped) or not curves.epochs:
        return None
    if len(curves.started.classes) < 2 or curves.majority >= 1:
        return None
    last = curves.epochs[-1]
    accuracy = last.train_accuracy
    if last.val_accuracy is not None:
        if curves.steps < LEAST_STEPS:  # batch norm knows its training batches long before it knows other images
            accuracy = last.val_accuracy
        elif _least_gap(last, curves.started.train_count, curves.started.val_count) >= CLEAR_GAP:
            return None
    if (accuracy - curves.majority) / (1 - curves.majority) >= POOR_SKILL:
        return None
    advice, change = _against_underfitting(curves)
    return Finding(
        "underfitting",
        "The model has not learned even its training images: it is underfitting.",
        f"In the end {curves.accuracy_in_words()}; always naming the commonest class gets {curves.majority:.1%}.",
        advice,
        change,
    )


def _against_underfitting(curves: RunCurves) -> tuple[str, dict[str, Any]]:
    recipe = curves.recipe
    augmentation = parse_augmentation(recipe.augment)
    strong = augmentation.crop < LEAST_CROP or any(
        getattr(augmentation, name) >= least for name, least in STRONG.items()
    )
    if strong:
        return "Leave the training images as they are: they are changed so much that little is left to learn.", {
            "augment": ""
        }
    if recipe.label_smoothing >= STRONG_SMOOTHING:
        return "Train towards the true class alone: label smoothing takes too much of it.", {"label_smoothing": 0.0}
    if curves.steps < LEAST_STEPS:
        return _with_epochs(recipe)
    if recipe.freeze == "backbone":
        return "Let the backbone learn too, at a tenth of the rate of the head.", {
            "freeze": "none",
            "backbone_rate": 0.1,
        }
    fall = _late_fall(curves.points)
    if fall is None or fall >= FLAT or curves.steps < LEVEL_STEPS:
        return _with_epochs(recipe)
    levelled = "the loss has levelled out, so that more epochs would not help"
    # Weights that a run starts from are those of one network.
    larger = None if curves.is_table or starting_weights(recipe) != NewWeights() else LARGER.get(recipe.model)
    if larger:
        return f"Take a larger network, {larger}: {levelled}.", {"model": larger}
    return f"Look at the images and their labels, or try another learning rate: {levelled}.", {}


def _still_improving(curves: RunCurves) -> Finding | None:
    """Find a run whose loss still fell clearly when it ended, at a rate that was not let down."""
    if not curves.has_model or curves.annealed or not curves.epochs:
        return None
    last, epochs = curves.epochs[-1], curves.validated
    watched = len(epochs) >= 2 * LEAST_POINTS
    losses = [Point(epoch.step, epoch.val_loss or 0.0, 0.0) for epoch in epochs] if watched else curves.points
    fall = _late_fall(losses)
    images = curves.started.val_count if watched else curves.steps * curves.recipe.batch_size / 4
    if fall is None or fall < max(FLAT, 2 / math.sqrt(max(images, 1))):
        return None
    if max(last.train_accuracy, last.val_accuracy or 0.0) >= NEARLY_ALL:
        return None
    split = f"validation loss, of {curves.started.val_count:,} images," if watched else "training loss"
    stopped = isinstance(curves.history.last, Stopped)
    advice, change = _with_epochs(curves.recipe)
    return Finding(
        "still-improving",
        "The model was still getting better when training ended.",
        f"In the last quarter of {pluralize(curves.steps, 'step')} the {split} was {fall:.0%} lower than in the "
        f"quarter before; in the end {curves.accuracy_in_words()}.",
        "Resume the run, and it makes the rest of its epochs." if stopped else advice,
        {} if stopped else change,
    )


def _late_fall(points: list[Point]) -> float | None:
    """Return by which share the mean loss of the last quarter of steps is below that of the quarter before."""
    end = points[-1].step if points else 0
    third = [point.loss for point in points if end / 2 < point.step <= end * 3 / 4]
    fourth = [point.loss for point in points if point.step > end * 3 / 4]
    if not third or not fourth or len(points) < LEAST_POINTS or fmean(third) <= 0:
        return None
    return 1 - fmean(fourth) / fmean(third)


def _classes(recipe: Recipe, class_counts: Mapping[str, int] | None) -> Finding | None:
    """Find classes with too few training images, in all or beside the others."""
    if not class_counts:
        return None
    mean = fmean(class_counts.values())
    rare = {name for name, count in class_counts.items() if count < RARE_SHARE * mean}
    few = sorted(
        (name for name, count in class_counts.items() if count < FEW_IMAGES or name in rare),
        key=class_counts.__getitem__,
    )
    if not few:
        return None
    named = [f"{name} {class_counts[name]:,}" for name in few[:MOST_NAMED]]
    if len(few) > MOST_NAMED:
        named.append(f"{len(few) - MOST_NAMED:,} more")
    mean_of_all = f"the mean of all {len(class_counts)} is {mean:,.0f}"
    evidence = f"Images by class, validation included: {join_words(named)}; {mean_of_all}."
    if not rare:
        return Finding(
            "few-images",
            "Some classes have too few training images.",
            evidence,
            f"Add images: {FEW_IMAGES} of a class are the least to learn it from, and to tell whether it was learned.",
            {},
        )
    can_weigh = recipe.class_weights == "none" and any(class_counts[name] for name in rare)
    return Finding(
        "imbalance",
        "Some classes have far fewer training images than the others.",
        evidence,
        "Count each class alike in the loss, however few its images are." if can_weigh else "Add images of them.",
        {"class_weights": "balanced"} if can_weigh else {},
    )


def _unwatched(curves: RunCurves) -> Finding | None:
    if not curves.has_model or curves.started.val_count:
        return None
    return Finding(
        "unwatched",
        "Overfitting cannot be seen: nothing is held back to watch by.",
        f"All {pluralize(curves.started.train_count, 'training image')} were trained on, and 0 held back.",
        "Hold back a tenth of the training images, and watch the loss and accuracy of those too.",
        {"validation_share": 0.1},
    )


def _at_usual_rate(recipe: Recipe) -> bool:
    """Tell whether steps are as long as most networks learn with, or longer."""
    carried = 1 - recipe.momentum if recipe.optimizer == "sgd" else 1.0
    return recipe.learning_rate / carried >= USUAL_RATES.get(recipe.optimizer, 0.001) * 0.999


def _with_rate(recipe: Recipe, rate: float) -> tuple[str, dict[str, Any]]:
    """Advise a learning rate of one digit, within what the field takes."""
    limits = FIELDS["learning_rate"].metadata
    rate = float(f"{min(max(rate, limits['low']), limits['high']):.0e}")
    if rate == recipe.learning_rate:
        return f"The learning rate is {rate:g} already, the limit of that field: look at the images and labels.", {}
    lower = "shorter" if rate < recipe.learning_rate else "longer"
    return f"Take {lower} steps: a learning rate of {rate:g} in place of {recipe.learning_rate:g}.", {
        "learning_rate": rate
    }


def _with_epochs(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    epochs = min(2 * recipe.epochs, FIELDS["epochs"].metadata["high"])
    if epochs == recipe.epochs:
        return "Take a larger network or a higher learning rate: there are no more epochs to be had.", {}
    return f"Train for twice as long: {epochs:,} epochs in place of {recipe.epochs:,}.", {"epochs": epochs}


def _sound(record: Step | Epoch) -> bool:
    """Tell whether all figures of a record are such as training makes; a log may be damaged."""
    losses: list[Any] = [record.train_loss, record.learning_rate]
    shares: list[Any] = [record.train_accuracy]
    if isinstance(record, Epoch) and record.val_loss is not None:
        losses.append(record.val_loss)
        shares.append(record.val_accuracy)
    limits = [LARGEST] * len(losses) + [1.0] * len(shares)
    return all(figure is not None and 0 <= figure <= most for figure, most in zip(losses + shares, limits, strict=True))
