"""Optimisers and learning-rate schedules, by the names that recipes use."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from engine.base.errors import LoupeError
from engine.recipes.recipe import Recipe

# Of one-cycle, as torch's OneCycleLR has them: the share of the run that it rises, and where it starts and ends.
RISE, START, END = 0.3, 1 / 25, 1 / 25 / 1e4


def build_optimizer(model: nn.Module, head: nn.Module, recipe: Recipe) -> Optimizer:
    """Build a recipe's optimiser; fused, which makes a step of a small network a fifth faster.

    Its groups of weights have the ``share`` of the learning rate that they get.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters()), "share": 1.0}]
    # A group's weights must begin at one time: fused SGD cannot have the momentum of some and not of others.
    if recipe.backbone_rate != 1.0 or recipe.freeze != "none":
        of_head = set(head.parameters())
        backbone = [parameter for parameter in model.parameters() if parameter not in of_head]
        groups = [
            {"params": backbone, "share": recipe.backbone_rate},
            {"params": list(head.parameters()), "share": 1.0},
        ]
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **settings)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](groups, **settings)


def build_schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Return what gives the learning rate of each of ``steps`` steps, counted from 0.

    It follows from the step alone, so that a run that is resumed, or made longer, needs nothing but its place.
    """
    highest = recipe.learning_rate
    warm_up = round(recipe.warmup_epochs * steps / recipe.epochs)
    if warm_up >= steps:
        raise LoupeError(
            f"warmup_epochs is {recipe.warmup_epochs:g} of {recipe.epochs}, which leaves no step at the full learning "
            "rate. Set it lower."
        )
    if recipe.schedule == "one-cycle":
        # Its rise is a warm-up already. The peak is where torch's OneCycleLR has it, moved on after each step.
        peak = (warm_up / steps if warm_up else RISE) * (steps + 1) - 1

        def one_cycle(step: int) -> float:
            if step < peak:
                return highest * _between(START, 1.0, step / peak)
            return highest * _between(1.0, END, (step - peak) / (steps - peak))

        return one_cycle
    shape = SHAPES[recipe.schedule]
    return lambda step: (
        highest * ((step + 1) / (warm_up + 1) if step < warm_up else shape((step - warm_up) / (steps - warm_up)))
    )


def _between(first: float, last: float, done: float) -> float:
    """Go from first to last along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


# The share of the full learning rate when a share of the run is done, warm-up left out.
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "step": lambda done: 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01,
    "cosine": lambda done: _between(1.0, 0.0, done),
}
