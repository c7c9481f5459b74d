"""Commands that train a recipe, try it first, or go on with a run."""

import argparse
import os
from collections.abc import Generator
from typing import Any

from engine.advice.advice_job import answer
from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.commands.command import AddCommand, Outcome
from engine.commands.following import follow
from engine.commands.progress import once_a_second, tell
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs.run import WORKER_ENVIRONMENT, list_runs, open_run, resume, start


def add_commands(add_command: AddCommand) -> None:
    for name, action in (("train", train), ("rehearse", rehearse), ("find-rate", find_rate)):
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


def rehearse(args: argparse.Namespace) -> Outcome:
    """The one-minute check: try a recipe before a long run, and say what to expect."""
    checks = run_to_end(_answer("rehearse", args), tell)
    return Outcome(checks, "\n".join(f"{check['verdict']:4}  {check['name']}: {check['text']}" for check in checks))


def find_rate(args: argparse.Namespace) -> Outcome:
    """Find a learning rate: train at rising rates for a moment, and see where the loss falls."""
    curve = run_to_end(_answer("find-rate", args), once_a_second(str))
    found = "none" if curve["suggestion"] is None else f"{curve['suggestion']:g}"
    return Outcome(curve, f"learning_rate {found}. {curve['reason']}")


def _answer(question: str, args: argparse.Namespace) -> Generator[str, None, Any]:
    os.environ |= WORKER_ENVIRONMENT  # before torch is imported, which its threads go by
    return answer(question, _recipe(args))


def resume_run(args: argparse.Namespace) -> Outcome:
    """Go on with a run that was stopped or that died, or train a finished one for more epochs."""
    run = open_run(args.run)
    resume(run, args.epochs)
    return follow(run)


def describe_runs(args: argparse.Namespace) -> Outcome:
    """All runs, newest first."""
    listing, lines = [], []
    for run in list_runs():
        history = run.history()
        try:
            name, status = run.read_recipe().name, run.status(history)
        except LoupeError:
            name, status = None, "damaged"
        listing.append({"run": run.id, "status": status, "recipe": name})
        accuracy = history.ended.test_accuracy if history.ended else None
        lines.append(f"{run.id:40} {status:9} " + ("" if accuracy is None else f"test accuracy {accuracy:.2%}"))
    return Outcome(listing, "\n".join(lines) or "No runs yet. Start one: python -m engine train digits-quick")
