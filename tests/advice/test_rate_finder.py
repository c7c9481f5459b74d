import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from engine.advice.rate_finder import HIGHEST, LOWEST, RATES, RateCurve, find_learning_rate
from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.networks.models import build_model
from engine.recipes.recipe import Recipe, change
from engine.runs.records import Extracting, Step
from engine.training.loop import Training, fit
from engine.training.pretrained import load_pretrained

CPU = torch.device("cpu")


def recipe(**settings) -> Recipe:
    as_machines_differ = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}
    return Recipe(**{"model": "mlp", "optimizer": "sgd"} | as_machines_differ | settings)


def find(chosen: Recipe, dataset: Dataset) -> RateCurve:
    return run_to_end(find_learning_rate(Training(chosen, dataset, CPU), dataset), lambda record: None)


def state_of(training: Training) -> dict:
    """All that decides the rest of a training, copied."""
    settings = {"recipe": training.recipe, "rates": [training.schedule(step) for step in range(30)]}
    settings["held back"] = training.val_indices.clone()
    return copy.deepcopy(training.state_dict()) | settings


def assert_same(one, other, place: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_same(one[name], other[name], f"{place}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, yours, f"{place}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def begun(chosen: Recipe, dataset: Dataset, steps: int) -> Training:
    """A training that stands within its first epoch: with an optimiser that remembers, and figures not yet told."""
    training = Training(chosen, dataset, CPU)
    going_on = fit(training, dataset)
    for _ in range(steps):
        next(going_on)
    return training


# Each of which something is left of, were it not put back: batch norm, momentum, a schedule, figures, the best so far.
CHOSEN = {
    "model": "convnet",
    "momentum": 0.9,
    "schedule": "one-cycle",
    "epochs": 3,
    "batch_size": 24,
    "validation_share": 0.2,
    "keep": "best",
    "patience": 2,
    "evaluate_every": 2,
    "log_every": 2,
    "augment": "flip",
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 5])
def test_a_training_is_left_as_it_was(colours: Dataset, steps: int) -> None:
    training = begun(recipe(**CHOSEN), colours, steps)
    before = state_of(training)
    curve = run_to_end(find_learning_rate(training, colours), lambda record: None)
    assert len(curve.losses) > 20
    assert_same(state_of(training), before)
    assert not training.pending


@pytest.mark.slow
def test_a_training_goes_on_as_if_nothing_had_been(colours: Dataset) -> None:
    for chosen in (recipe(**CHOSEN | {"optimizer": "adamw", "drop_last": True}),):
        disturbed, plain = (begun(chosen, colours, 5) for _ in range(2))
        run_to_end(find_learning_rate(disturbed, colours), lambda record: None)
        for training in (disturbed, plain):
            for _ in fit(training, colours):
                pass
        kept = [{**training.state_dict(), "train_seconds": 0} for training in (disturbed, plain)]
        for state in kept:
            for figures in ("last", "best"):
                for of_the_machine in ("train_seconds", "images_per_second", "memory_mb"):
                    del state[figures][of_the_machine]
        assert_same(*kept)
        assert disturbed.step == chosen.epochs * disturbed.steps_per_epoch


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "after"), [(5, 1), (5, 9), (32, 2), (32, 40)])
def test_a_search_that_is_broken_off_leaves_a_training_as_it_was(colours: Dataset, batch_size: int, after: int) -> None:
    training = begun(recipe(**CHOSEN | {"batch_size": batch_size}), colours, 2)
    before = state_of(training)
    finding = find_learning_rate(training, colours)
    for _ in range(after):
        next(finding)
    assert training.recipe != before["recipe"] and training.step > 2
    finding.close()
    assert_same(state_of(training), before)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_search_and_leaves_a_training_as_it_was(colours: Dataset) -> None:
    # A linear network under a square that grows without bounds: nothing holds the loss at a high rate.
    training = Training(recipe(momentum=0.99), colours, CPU)
    training.head.register_forward_hook(lambda module, inputs, output: output**5)
    before = state_of(training)
    curve = run_to_end(find_learning_rate(training, colours), lambda record: None)
    assert 20 < len(curve.losses) < RATES
    assert all(map(math.isfinite, (*curve.losses, *curve.smoothed)))
    assert_same(state_of(training), before)


def test_a_loss_that_is_no_number_at_the_lowest_rate_is_an_error(colours: Dataset) -> None:
    training = Training(recipe(), colours, CPU)
    with torch.no_grad():
        training.head.weight.fill_(float("nan"))
    with pytest.raises(LoupeError, match="no longer a finite number"):
        run_to_end(find_learning_rate(training, colours), lambda record: None)
    assert training.step == 0 and training.recipe == recipe()


def test_rates_rise_evenly_from_the_lowest_to_where_the_loss_has_risen(digits: Dataset) -> None:
    curve = find(recipe(), digits)
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed)
    np.testing.assert_allclose(curve.rates, np.geomspace(LOWEST, HIGHEST, RATES)[: len(curve.rates)])
    lowest = int(np.argmin(curve.smoothed))
    assert curve.losses[0] == pytest.approx(math.log(10), rel=0.1)
    assert curve.losses[-1] > 1.5 * curve.smoothed[lowest]
    assert 0 < lowest < len(curve.rates) - 1


@pytest.mark.slow
def test_losses_are_those_of_training_at_these_rates(digits: Dataset) -> None:
    """Hold them against a plain loop over the same batches."""
    chosen = recipe(batch_size=100, shuffle=False, momentum=0.9)
    curve = find(chosen, digits)
    torch.manual_seed(chosen.seed)
    model = build_model("mlp", digits.image_shape, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9)
    images = torch.from_numpy(digits.splits["train"].images.transpose(0, 3, 1, 2) / np.float32(255))
    labels = torch.from_numpy(np.array(digits.splits["train"].labels))
    batches = list(zip(images.split(100), labels.split(100), strict=True))
    expected = []
    for number, rate in enumerate(curve.rates[:40]):
        pixels, truth = batches[number % len(batches)]
        optimizer.param_groups[0]["lr"] = rate
        loss = nn.functional.cross_entropy(model(pixels), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(curve.losses[:40], expected, rtol=1e-4)


@pytest.mark.slow
def test_smoothing_moves_nothing_to_one_side(digits: Dataset) -> None:
    curve = find(recipe(), digits)
    expected = gaussian_filter1d(curve.losses, 3.0, mode="nearest", truncate=3.0)
    np.testing.assert_allclose(curve.smoothed, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        pytest.param({"optimizer": "sgd", "momentum": 0.0}, marks=pytest.mark.sweep),
        pytest.param({"optimizer": "sgd", "batch_size": 8}, marks=pytest.mark.sweep),
        pytest.param({"optimizer": "sgd", "schedule": "one-cycle"}, marks=pytest.mark.sweep),
    ],
    ids=str,
)
def test_training_with_the_suggestion_is_better_than_far_from_it(digits: Dataset, settings: dict) -> None:
    chosen = recipe(**settings, epochs=2)
    suggestion = find(chosen, digits).suggestion
    assert suggestion

    def loss(rate: float) -> float:
        training = Training(change(chosen, {"learning_rate": rate}), digits, CPU)
        try:
            for _ in fit(training, digits):
                pass
        except LoupeError:
            return math.inf
        assert training.last
        return training.last.train_loss

    good = loss(suggestion)
    assert good < 0.95 * loss(suggestion / 100)
    assert good < 0.95 * loss(suggestion * 100)


@pytest.mark.slow
def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss_and_says_so(digits: Dataset) -> None:
    curve = find(recipe(), digits)
    best = curve.rates[int(np.argmin(curve.smoothed))]
    assert curve.suggestion == pytest.approx(best / 10, rel=0.5) and curve.suggestion == float(f"{best / 10:.1g}")
    assert curve.reason == (
        f"A tenth of {best:.2g}, where the loss was lowest: {min(curve.smoothed):.3g}, down from "
        f"{max(curve.smoothed[: int(np.argmin(curve.smoothed)) + 1]):.3g}."
    )
    of_one_cycle = find(recipe(schedule="one-cycle"), digits)
    assert of_one_cycle.losses == curve.losses
    assert of_one_cycle.suggestion == float(f"{best / 3:.1g}")
    assert of_one_cycle.reason.startswith(f"A third of {best:.2g}, where")


def test_a_curve_is_a_document_of_plain_values(digits: Dataset) -> None:
    curve = find(recipe(), digits)
    document = json.loads(json.dumps(curve.as_document(), allow_nan=False))
    assert document.keys() == {"rates", "losses", "smoothed", "suggestion", "reason"}
    assert document["losses"] == list(curve.losses)
    assert document["suggestion"] == curve.suggestion


@pytest.mark.slow
def test_where_nothing_can_be_learned_nothing_is_suggested() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 400)
    alike = np.full((400, 8, 8, 1), 90, np.uint8)
    save_dataset("alike", ("a", "b", "c", "d"), {"train": Split(alike, labels)}, "all images are alike")
    for optimizer in ("sgd", "adam"):
        curve = find(recipe(dataset="alike", optimizer=optimizer), open_dataset("alike"))
        assert curve.suggestion is None
        assert curve.reason == (
            f"The loss did not fall at any rate from 1e-06 to {curve.rates[-1]:.2g}, so no rate is suggested. The "
            "one-minute check tells whether this network can learn a single batch."
        )


# Batches and epochs of any size


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "each"), [(7, 5), (31, 2), (32, 1), (500, 1)])
def test_small_batches_make_several_steps_at_each_rate(colours: Dataset, batch_size: int, each: int) -> None:
    chosen = recipe(batch_size=batch_size, epochs=1)
    training = Training(chosen, colours, CPU)
    made: list[float] = []  # the rate of each step
    training.optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: made.append(optimizer.param_groups[0]["lr"])
    )
    yielded: list[Step] = []
    curve = run_to_end(find_learning_rate(training, colours), yielded.append)
    assert made == pytest.approx(np.repeat(curve.rates, each)[: len(made)])
    assert len(yielded) == len(curve.losses) == len(curve.rates) == len(made) // each
    assert [record.step for record in yielded] == [each * (number + 1) for number in range(len(yielded))]
    assert curve.suggestion


@pytest.mark.slow
def test_a_loss_is_the_mean_of_its_steps(digits: Dataset) -> None:
    # At rates that change nothing, over images in their order: known losses of known batches, across epochs' ends.
    few = replace(digits, splits={"train": Split(*(part[:42] for part in vars(digits.splits["train"]).values()))})
    chosen = recipe(batch_size=8, shuffle=False)
    curve = find(chosen, few)
    torch.manual_seed(chosen.seed)
    model = build_model("mlp", few.image_shape, 10)
    images = torch.from_numpy(few.splits["train"].images.transpose(0, 3, 1, 2) / np.float32(255))
    labels = torch.from_numpy(np.array(few.splits["train"].labels))
    with torch.no_grad():
        batches = [
            nn.functional.cross_entropy(model(pixels), truth).item()
            for pixels, truth in zip(images.split(8), labels.split(8), strict=True)
        ]
    assert len(batches) == 6  # and four at each rate
    expected = np.reshape(batches * 4, (-1, 4)).mean(axis=1)
    np.testing.assert_allclose(curve.losses[: len(expected)], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "batch_size"), [("mlp", 1), ("mlp", 64), ("convnet", 16)])
def test_one_image_of_each_class_is_enough(make_colours, model: str, batch_size: int) -> None:
    few = make_colours(train=3, test=0)
    curve = find(recipe(model=model, batch_size=batch_size), few)
    assert len(curve.losses) > 40
    assert curve.suggestion


@pytest.mark.slow
def test_the_longest_of_recipes_can_be_searched(colours: Dataset) -> None:
    assert find(recipe(epochs=10_000, batch_size=90), colours).suggestion


def test_a_table_can_be_searched() -> None:
    fetch("blobs")
    curve = find(recipe(dataset="blobs"), open_dataset("blobs"))
    assert curve.suggestion and min(curve.smoothed) < 0.5 * curve.losses[0]


@pytest.mark.slow
def test_test_images_are_never_looked_at(digits: Dataset) -> None:
    unusable = Split(np.zeros((5, 8, 8, 3), np.uint8), np.arange(5))  # the network takes one channel
    splits = {"train": digits.splits["train"], "test": unusable}
    chosen = recipe(evaluate_every=1)
    assert find(chosen, replace(digits, splits=splits)) == find(recipe(), digits)


@pytest.mark.slow
def test_the_head_of_a_frozen_backbone_is_searched_on_its_features(tmp_path, colours: Dataset) -> None:
    torch.manual_seed(3)
    torch.save(build_model("convnet", colours.image_shape, 3).state_dict(), tmp_path / "earlier.pth")
    settings = {"weights": str(tmp_path / "earlier.pth"), "freeze": "backbone", "optimizer": "adam"}
    training = Training(recipe(model="convnet", **settings), colours, CPU)
    load_pretrained(training.model, training.recipe)
    before = copy.deepcopy(training.state_dict())
    yielded: list[Step | Extracting] = []
    curve = run_to_end(find_learning_rate(training, colours), yielded.append)
    extracted = [record for record in yielded if isinstance(record, Extracting)]
    assert extracted[-1].done == extracted[-1].total == 90
    assert len(yielded) - len(extracted) == len(curve.losses)
    assert curve.suggestion
    assert_same(training.state_dict(), before)
