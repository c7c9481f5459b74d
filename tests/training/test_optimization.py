"""Learning rates by step; that a training makes its steps with them is tested with the training."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from engine.base.errors import LoupeError
from engine.recipes.recipe import Recipe
from engine.training.optimization import build_schedule


def rates(steps: int, **settings) -> list[float]:
    """Return the learning rate of each step, and the one after the last."""
    recipe = Recipe(**{"learning_rate": 0.8, "epochs": 4} | settings)
    schedule = build_schedule(recipe, steps)
    return [schedule(step) for step in range(steps + 1)]


def torchs(name: str, steps: int, warmup_share: float = 0.3) -> list[float]:
    """The same from torch's own schedule."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8, momentum=0.9)
    schedule: LRScheduler
    if name == "cosine":
        schedule = CosineAnnealingLR(optimizer, T_max=steps)
    else:
        schedule = OneCycleLR(optimizer, 0.8, total_steps=steps + 1, pct_start=warmup_share)
    found = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found += schedule.get_last_lr()
    return found


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 250])
@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_schedules_are_torchs(name, steps):
    assert rates(steps, schedule=name, epochs=1) == pytest.approx(torchs(name, steps), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("steps", [4, 8, 40, 1000])
def test_one_cycle_with_a_warm_up_is_torchs_with_a_rise_of_that_share(steps):
    found = rates(steps, schedule="one-cycle", warmup_epochs=1)  # of four
    assert found == pytest.approx(torchs("one-cycle", steps, warmup_share=0.25), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 11])
def test_a_rate_depends_on_its_step_alone(schedule, steps):
    recipe = Recipe(schedule=schedule, epochs=1)
    rate = build_schedule(recipe, steps)
    forwards = [rate(step) for step in range(steps)]
    backwards = [rate(step) for step in reversed(range(steps))]
    assert forwards == backwards[::-1]
    assert all(0 < found <= recipe.learning_rate for found in forwards)


def test_a_constant_rate_stays():
    assert rates(8, schedule="constant") == [0.8] * 9


def test_steps_are_at_half_and_at_three_quarters():
    assert rates(8, schedule="step") == pytest.approx([0.8] * 4 + [0.08] * 2 + [0.008] * 3)


def test_a_warm_up_rises_evenly_to_the_full_rate():
    # One epoch of four is two steps of eight.
    found = rates(8, schedule="constant", warmup_epochs=1)
    assert found == pytest.approx([0.8 / 3, 1.6 / 3] + [0.8] * 7)


def test_what_follows_a_warm_up_takes_the_rest_of_the_run():
    found = rates(12, schedule="cosine", warmup_epochs=1)
    assert found[:3] == pytest.approx([0.2, 0.4, 0.6])
    assert found[3:] == pytest.approx([0.4 * (1 + math.cos(math.pi * step / 9)) for step in range(10)])


def test_the_rise_of_one_cycle_is_as_long_as_its_warm_up():
    found = rates(40, schedule="one-cycle", warmup_epochs=2)
    assert max(range(40), key=found.__getitem__) == pytest.approx(20, abs=1)
    default = rates(40, schedule="one-cycle")
    assert max(range(40), key=default.__getitem__) == pytest.approx(12, abs=1)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
def test_a_warm_up_as_long_as_the_run_is_refused(schedule):
    with pytest.raises(LoupeError, match=r"^warmup_epochs is 4, but must be less than the 4 epochs of the run\.$"):
        rates(8, schedule=schedule, warmup_epochs=4)
