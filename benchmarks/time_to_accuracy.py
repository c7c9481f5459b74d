"""Compare what Loupe's fast recipes reach, and when, with the tutorials' own loops on the same data.

    python -m benchmarks.time_to_accuracy [--pair cifar10] [--dataset NAME] [--repeats 3]

The tutorial's loop (as in ``train_speed``) and Loupe's training take turns in one process, each from its first step to
its last. Time is that of training alone: neither start-up nor the evaluation on the test images, which Loupe's
validation during the training is counted with. ``--dataset`` takes both to other prepared data of the same kind.
"""

import argparse
import itertools
import time
from dataclasses import replace

import torch
from torch import nn

from benchmarks.environment import describe_machine, start_as_a_run_does
from benchmarks.train_speed import plain_loop, spread
from engine.data.dataset import Dataset, open_dataset
from engine.data.download_job import get_dataset
from engine.networks.inference import logits_in_batches
from engine.networks.preprocessing import build_preprocess, preprocessing_for
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.training import tuning
from engine.training.loop import Training, fit

PAIRS = {"cifar10": ("cifar10-blitz", "cifar10-fast"), "mnist": ("mnist-lenet5", "mnist-fast")}


def test_accuracy(model: nn.Module, recipe: Recipe, dataset: Dataset) -> float:
    preprocess = build_preprocess(preprocessing_for(dataset, recipe.scaling))
    test = dataset.splits["test"]
    batches = list(logits_in_batches(model.eval(), preprocess, test.images))
    return float((torch.cat(batches).argmax(1) == torch.from_numpy(test.labels)).float().mean())


def train_plainly(recipe: Recipe, dataset: Dataset) -> tuple[float, float]:
    """Train as the tutorial does; returns seconds and test accuracy."""
    count = len(dataset.splits["train"])
    per_epoch = count // recipe.batch_size if recipe.drop_last else -(-count // recipe.batch_size)
    steps = plain_loop(recipe, dataset)
    began = time.perf_counter()
    *_, model = itertools.islice(steps, recipe.epochs * per_epoch)
    return time.perf_counter() - began, test_accuracy(model, recipe, dataset)


def train_as_loupe(recipe: Recipe, dataset: Dataset) -> tuple[float, float]:
    training = Training(recipe, dataset, torch.device(recipe.device))
    began = time.perf_counter()
    for _ in fit(training, dataset):
        pass
    return time.perf_counter() - began, test_accuracy(training.model, recipe, dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="cifar10", choices=list(PAIRS))
    parser.add_argument("--dataset", help="prepared data of the same kind, in place of the recipes'")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    start_as_a_run_does()

    tutorial, fast = (find_recipe(name) for name in PAIRS[args.pair])
    if args.dataset:
        tutorial, fast = (change(recipe, {"dataset": args.dataset}) for recipe in (tutorial, fast))
    for _ in get_dataset(fast.dataset):
        pass
    dataset = open_dataset(fast.dataset)
    plain_threads = torch.get_num_threads()
    fast = tuning.resolve(tuning.choose_device(fast), dataset)
    results: dict[str, list[tuple[float, float]]] = {"tutorial": [], "Loupe": []}
    for repeat in range(args.repeats):
        tuning.apply_settings(replace(fast, threads=plain_threads, convolutions="onednn"))
        results["tutorial"].append(train_plainly(change(tutorial, {"seed": repeat}), dataset))
        tuning.apply_settings(fast)
        results["Loupe"].append(train_as_loupe(change(fast, {"seed": repeat}), dataset))

    print(describe_machine())
    print(
        f"{tutorial.name} against {fast.name} ({fast.threads} threads, {fast.precision}) on {dataset.name}; "
        f"n = {args.repeats}, median (lowest to highest)"
    )
    for name, values in results.items():
        seconds, accuracies = zip(*values, strict=True)
        percent = [100 * accuracy for accuracy in accuracies]
        print(f"{name:10} {spread(list(seconds), '.1f')} s, test accuracy {spread(percent)} %")
    ratios = [ours / theirs for (ours, _), (theirs, _) in zip(results["Loupe"], results["tutorial"], strict=True)]
    print(f"Loupe's time / the tutorial's: {spread(ratios)}")


if __name__ == "__main__":
    main()
