"""Commands that list what can be trained: recipes and models."""

import argparse
from dataclasses import asdict

from engine.base.paths import weights_folder
from engine.commands.command import AddCommand, Outcome
from engine.data.catalogue import find_source
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.backbones import rank_for_images
from engine.recipes.recipe import ABOUT, MODELS, RECIPES, published, published_in_words


def add_commands(add_command: AddCommand) -> None:
    add_command("recipes", list_recipes)

    models = add_command("models", list_models)
    models.add_argument("--dataset", metavar="NAME", help="those first that suit its images")


def list_recipes(args: argparse.Namespace) -> Outcome:
    """The recipes, with published results."""
    listing = [recipe.as_dict() | {"published": published(recipe)} for recipe in RECIPES.values()]
    lines = []
    for recipe in RECIPES.values():
        lines.append(
            f"{recipe.name:15} {recipe.model} on {recipe.dataset}, {recipe.epochs} epochs. {ABOUT[recipe.name]}"
        )
        if figures := published_in_words(recipe):
            lines.append(f"{'':15} published: {figures}")
    return Outcome(listing, "\n".join(lines))


def list_models(args: argparse.Namespace) -> Outcome:
    """The networks; of torchvision's those first that suit a dataset, with their work and accuracy on ImageNet."""
    if args.dataset and not is_prepared(args.dataset):
        find_source(args.dataset)
    shape = open_dataset(args.dataset).image_shape if args.dataset else (224, 224, 3)
    own = [{"name": name, "about": about} for name, about in MODELS.items()]
    theirs = [
        {"name": each.name, "about": each.in_words()}
        | {name: value for name, value in asdict(each).items() if name != "fixed"}
        | {"weights_here": (weights_folder() / each.file).exists()}
        for each in rank_for_images(shape)
    ]
    lines = [f"{model['name']:20} {model['about']}" for model in own]
    lines += [
        f"{model['name']:20} {model['about']}{', weights here' if model['weights_here'] else ''}" for model in theirs
    ]
    return Outcome(own + theirs, "\n".join(lines))
