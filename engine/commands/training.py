"""Commands that train a recipe, try it first, or go on with a run."""

import argparse
import os

from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.commands.command import AddCommand, Outcome
from engine.commands.following import follow
from engine.commands.progress import once_a_second, tell
from engine.data import catalogue
from engine.data.dataset import Dataset, open_dataset
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs.records import Extracting, Step
from engine.runs.run import WORKER_ENVIRONMENT, Run, list_runs, open_run, require_sources, resume, start


def add_commands(add_command: AddCommand) -> None:
    for name, action in (("train", train), ("rehearse", rehearse_recipe), ("find-rate", find_rate)):
        of_recipe = add_command(name, action)
        of_recipe.add_argument("recipe", metavar="RECIPE", help="one of the recipes")
        of_recipe.add_argument("--dataset", metavar="NAME", help="train on this dataset in place of the recipe's")
        of_recipe.add_argument(
            "--set", metavar="FIELD=VALUE", action="append", default=[], help="change a field of the recipe"
        )

    resuming = add_command("resume", resume_run)
    resuming.add_argument("run", metavar="RUN", help="the id of a run")
    resuming.add_argument("--epochs", metavar="N", type=int, help="how many it is to have in all; more than it had")

    add_command("runs", describe_runs)


def _recipe(args: argparse.Namespace) -> Recipe:
    """Return the recipe that a command names, with the changes that it asks for."""
    settings = {"dataset": args.dataset} if args.dataset else {}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise LoupeError(f"--set was given {setting!r}, but needs FIELD=VALUE, such as epochs=3.")
        settings[name.strip()] = value
    return change(find_recipe(args.recipe), settings)


def train(args: argparse.Namespace) -> Outcome:
    """Train a recipe; Ctrl+C stops it and keeps the model."""
    return follow(start(_recipe(args)))


def _ready(recipe: Recipe) -> tuple[Recipe, Dataset]:
    """Get what a recipe needs that is not here, and settle how this machine runs it."""
    os.environ |= WORKER_ENVIRONMENT  # before torch is imported, which its threads go by
    from engine.training import tuning
    from engine.training.pretrained import fetch_weights

    require_sources(recipe)
    downloads = [catalogue.get_dataset(recipe.dataset)]
    if recipe.weights == "imagenet":
        downloads.append(fetch_weights(recipe.model))
    for download in downloads:
        for progress in download:
            if progress.total:
                tell(f"downloading: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB")
    dataset = open_dataset(recipe.dataset)
    recipe = tuning.resolve(tuning.choose_device(recipe), dataset)
    tuning.apply_settings(recipe)
    return recipe, dataset


def rehearse_recipe(args: argparse.Namespace) -> Outcome:
    """The one-minute check: try a recipe before a long run, and say what to expect."""
    from engine.advice.rehearsal import rehearse

    checks = run_to_end(rehearse(*_ready(_recipe(args))), tell)
    lines = [f"{check.verdict:4}  {check.name}: {check.text}" for check in checks]
    return Outcome([check.as_document() for check in checks], "\n".join(lines))


def find_rate(args: argparse.Namespace) -> Outcome:
    """Find a learning rate: train at rising rates for a moment, and see where the loss falls."""
    import torch

    from engine.advice.rate_finder import RATES, find_learning_rate
    from engine.base.machine import is_out_of_memory
    from engine.training.loop import Training
    from engine.training.pretrained import load_pretrained
    from engine.training.worker import too_little_memory

    def in_words(record: Step | Extracting) -> str:
        if isinstance(record, Extracting):
            return f"features of {record.done:,} of {record.total:,} images"
        return f"step {record.step:,}, {RATES} rates at most"

    recipe, dataset = _ready(_recipe(args))
    try:
        training = Training(recipe, dataset, torch.device(recipe.device))
        load_pretrained(training.model, recipe)
        curve = run_to_end(find_learning_rate(training, dataset), once_a_second(in_words))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise LoupeError(too_little_memory(recipe)) from error
    found = "none" if curve.suggestion is None else f"{curve.suggestion:g}"
    return Outcome(curve.as_document(), f"learning_rate {found}. {curve.reason}")


def resume_run(args: argparse.Namespace) -> Outcome:
    """Go on with a run that was stopped or that died, or train a finished one for more epochs."""
    run = open_run(args.run)
    resume(run, args.epochs)
    return follow(Run(run.path))


def describe_runs(args: argparse.Namespace) -> Outcome:
    """All runs, newest first."""
    listing, lines = [], []
    for run in list_runs():
        history = run.history()
        try:
            name, status = run.recipe.name, run.status(history)
        except LoupeError:
            name, status = None, "damaged"
        listing.append({"run": run.id, "status": status, "recipe": name})
        accuracy = history.ended.test_accuracy if history.ended else None
        lines.append(f"{run.id:40} {status:9} " + ("" if accuracy is None else f"test accuracy {accuracy:.2%}"))
    return Outcome(listing, "\n".join(lines) or "No runs yet. Start one: python -m engine train digits-quick")
