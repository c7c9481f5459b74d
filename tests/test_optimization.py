"""Learning rates by step; that schedules are torch's where torch has them is tested with the training."""

import math

import pytest
import torch
from torch import nn

from engine.errors import LoupeError
from engine.optimization import build_optimizer, build_schedule
from engine.recipes import Recipe


def rates(steps: int, **settings) -> list[float]:
    """Return the learning rate of each step, and the one after the last."""
    recipe = Recipe(optimizer="sgd", learning_rate=0.8, epochs=4, **settings)
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


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
