"""What a processor trains a recipe with: threads, number format, convolutions. Tried once, then kept.

Which is quickest depends on the network and the batch: two threads halve the time of a large step and double that of a
tiny one, bfloat16 needs a processor that computes in it, and oneDNN's convolutions cost more to set up than a few small
images take.
"""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.base.errors import LoupeError
from engine.base.machine import cores, has_bfloat16, is_out_of_memory, processor_name
from engine.data.dataset import Dataset
from engine.recipes.recipe import Recipe
from engine.training.loop import Training, train_step
from engine.training.measurements import keep_measurement, key_of, read_measurements

TRYING_SECONDS = 1.0  # for all ways together, beside two first steps of each
TURN_SECONDS = 0.02  # of each way in its turn
HOPELESS = 1.7  # what takes so many times the best is not tried again
LONG_STEP_SECONDS = 0.4  # where a step takes this long, only another number format is worth the wait
PIXELS_TRIED = 8 * 224 * 224  # of large images fewer than a batch do: what is quicker for these is so for more
WORTH_THREADS = 1.1  # so much quicker must several threads be: they lose more when something else wants a core
WORTH = 1.05  # so much quicker must anything else be


def choose_device(recipe: Recipe) -> Recipe:
    """Return the recipe with its device chosen; ``resolve`` chooses the rest."""
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise LoupeError("device is 'cuda', but no GPU that torch can use was found. Set device to 'cpu' or 'auto'.")
    return replace(recipe, device=device)


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe with threads, precision and convolutions chosen, so that the run can be repeated as it was.

    The device must have been chosen. On a processor the ways that the recipe leaves open are tried, unless they were
    before: for this machine, network, images and batch.
    """
    recipe = replace(recipe, threads=min(recipe.threads, cores()))  # more would only wait for each other
    if recipe.device != "cpu":
        precision = "bfloat16" if has_bfloat16(recipe.device) else "float32"
        return _with_settings(recipe, _Settings(cores(), precision, "onednn"))
    ways = list(_candidates(recipe))
    if len(ways) == 1:
        return _with_settings(recipe, ways[0])
    remembered = _Remembered(recipe, dataset)
    known = remembered.way()
    way = next((way for way in ways if way == known), None)
    if way is None:
        try:
            way = _fastest(recipe, dataset, ways)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return _with_settings(recipe, ways[0])  # whoever trains with it says so
        way = remembered.keep(way)
    return _with_settings(recipe, way)


def apply_settings(recipe: Recipe) -> None:
    """Set this process up for a resolved recipe."""
    torch.set_num_threads(recipe.threads)
    torch.backends.mkldnn.set_flags(recipe.convolutions == "onednn")


@dataclass(frozen=True)
class _Settings:
    threads: int
    precision: str
    convolutions: str


def _with_settings(recipe: Recipe, way: _Settings) -> Recipe:
    return replace(
        recipe,
        threads=recipe.threads or way.threads,
        precision=way.precision if recipe.precision == "auto" else recipe.precision,
        convolutions=way.convolutions if recipe.convolutions == "auto" else recipe.convolutions,
    )


def _candidates(recipe: Recipe) -> Iterator[_Settings]:
    """List what a recipe leaves open; the first is what large steps are best trained with."""
    precisions = [recipe.precision]
    if recipe.precision == "auto":
        precisions = ["bfloat16", "float32"] if has_bfloat16("cpu") else ["float32"]
    all_threads = [recipe.threads] if recipe.threads else sorted({1, cores()}, reverse=True)
    for precision in precisions:
        both = ["onednn", "native"] if precision == "float32" else ["onednn"]
        for convolutions in both if recipe.convolutions == "auto" else [recipe.convolutions]:
            for threads in all_threads:
                yield _Settings(threads, precision, convolutions)


def _fastest(recipe: Recipe, dataset: Dataset, ways: list[_Settings]) -> _Settings:
    """Try each way on one batch in turns, and return the quickest; of ways alike, the plainest."""
    threads_before, onednn_before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    trials: dict[_Settings, _Trial] = {}
    try:
        for way in ways:
            differs_more = (way.threads, way.convolutions) != (ways[0].threads, ways[0].convolutions)
            if differs_more and (recipe.keeps_features or trials[ways[0]].best > LONG_STEP_SECONDS):
                continue
            trials[way] = trial = _Trial(_with_settings(recipe, way), dataset)
            trial.run(0)  # the first step sets up more than any other
            trial.run(0)
        until = time.perf_counter() + TRYING_SECONDS
        while time.perf_counter() < until:
            hopeless = HOPELESS * min(trial.best for trial in trials.values())
            for trial in trials.values():
                if trial.best < hopeless:
                    trial.run(TURN_SECONDS)
    finally:
        apply_settings(replace(recipe, threads=threads_before, convolutions="onednn" if onednn_before else "native"))
    best = min(trials, key=lambda way: trials[way].best * (WORTH_THREADS if way.threads > 1 else 1.0))
    alike = [way for way in trials if way.threads == best.threads and trials[way].best <= WORTH * trials[best].best]
    return max(alike, key=lambda way: (way.precision == "float32", way.convolutions == "onednn"))


class _Trial:
    """One way of training, on one batch. Its best time counts: whatever else the machine does only adds to it."""

    def __init__(self, recipe: Recipe, dataset: Dataset):
        self.recipe = recipe
        self.training = Training(recipe, dataset, torch.device("cpu"))
        split = dataset.splits["train"]
        pixels = math.prod(self.training.preprocessing.shape[:2])
        chosen = self.training.train_indices[: min(recipe.batch_size, max(2, PIXELS_TRIED // pixels))]
        self.images = torch.from_numpy(split.images[chosen.numpy()])
        self.pixels = self.training.in_memory_order(self.training.preprocess(self.images))
        self.labels = torch.from_numpy(split.labels)[chosen]
        self.best = float("inf")

    def run(self, seconds: float) -> float:
        """Make steps for so long, but at least one, and return the seconds of one."""
        apply_settings(self.recipe)
        self.training.to_training_mode()
        began, steps, taken = time.perf_counter(), 0, 0.0
        while not steps or taken < seconds:
            self._step()
            steps, taken = steps + 1, time.perf_counter() - began
        self.best = min(self.best, taken / steps)
        return taken / steps

    def _step(self) -> None:
        if self.training.trains_on_features:  # next to computing them, training on them is nothing
            self.training.extractor(self.recipe.precision).features(self.images)
        else:
            train_step(self.training, self.pixels, self.labels)


class _Remembered:
    """The way found before for the training of a recipe. It stays, whatever the machine was doing besides."""

    def __init__(self, recipe: Recipe, dataset: Dataset):
        shape = "x".join(map(str, dataset.sample_shape))
        self.key = key_of(
            f"{processor_name()}, {cores()} cores, torch {torch.__version__}: {recipe.model} on "
            f"{shape}, {len(dataset.classes)} classes, {recipe.batch_size} at a time, {recipe.optimizer}, "
            f"size {recipe.size}, freeze {recipe.freeze}, augment {recipe.augment!r}, {recipe.views} views, "
            f"{recipe.precision}, {recipe.threads} threads, {recipe.convolutions}"
        )

        self.kept: Any = read_measurements().get(self.key)

    def way(self) -> _Settings | None:
        """Return the way found before; None where there is none."""
        try:
            return _Settings(self.kept["threads"], self.kept["precision"], self.kept["convolutions"])
        except (KeyError, TypeError):
            return None

    def keep(self, way: _Settings) -> _Settings:
        """Write a way down, and return the one that is kept: another's, where that was found meanwhile."""
        with suppress(OSError):  # of a folder that cannot be written to: it is tried again the next time
            keep_measurement(self.key, vars(way), instead_of=self.kept)
            self.kept = read_measurements().get(self.key)
        return self.way() or way
