"""Findings of real runs on the digits, and of histories built by hand for what real runs seldom show."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.advice.doctor import Finding, diagnose
from engine.base.errors import DivergedError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.networks.models import count_parameters
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs.log import History, Log
from engine.runs.records import Cancelled, Ended, Epoch, Failed, Finished, Queued, Record, Started, Step, Stopped
from engine.training.loop import Training, fit

TEN = [str(digit) for digit in range(10)]
GUESSING = math.log(10)
STARTED = Started("letters", "0123", TEN, 1000, 400, 100, 20, 10, 61_706, "cpu", 2, "float32", "2.0")
LOGS = itertools.count()


def end(kind: type[Ended], epochs: int, step: int) -> Ended:
    return kind(epochs, step, "the last", None, None, None, None, None, None, 1.0, 1000.0)


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


# Real runs


def recipe(**settings: Any) -> Recipe:
    as_machines_differ = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}
    small = {"model": "mlp", "validation_share": 0.2, "log_every": 5, "learning_rate": 0.01}
    return Recipe(**as_machines_differ | small | settings)


def growing(chosen: Recipe, dataset: Dataset) -> Iterator[History]:
    """Train, and give the history after each record, as a page sees it."""
    path = dataset.folder / f"log-{next(LOGS)}.jsonl"
    history = History(path)
    with Log(path) as log:
        for record in records_of(chosen, dataset):
            log.append(record)
            yield history.read()


def records_of(chosen: Recipe, dataset: Dataset) -> Iterator[Record]:
    training = Training(chosen, dataset, torch.device("cpu"))
    yield replace(
        STARTED,
        classes=list(dataset.classes),
        train_count=len(training.train_indices),
        val_count=len(training.val_indices),
        steps_per_epoch=training.steps_per_epoch,
        epochs=chosen.epochs,
        parameters=count_parameters(training.model),
    )
    try:
        yield from filter(None, fit(training, dataset))
    except DivergedError as error:
        yield Failed(str(error), "diverged")
    else:
        yield end(Finished, training.epoch, training.step)


def trained(chosen: Recipe, dataset: Dataset) -> History:
    *_, history = growing(chosen, dataset)
    return history


def cured(chosen: Recipe, finding: Finding, dataset: Dataset) -> tuple[Recipe, History]:
    """Train again with what the finding would change."""
    changed = change(chosen, finding.change)
    return changed, trained(changed, dataset)


def derived(dataset: Dataset, pixels: slice = slice(None), images: slice = slice(None), noise: int = 0) -> Dataset:
    """Save a variant of a dataset: fewer pixels, fewer images, or the labels of the first ``noise`` ones mixed up."""
    splits = {}
    for name, split in dataset.splits.items():
        labels = np.array(split.labels)
        if name == "train":
            np.random.shuffle(labels[:noise])
        chosen = images if name == "train" else slice(None)
        splits[name] = Split(np.array(split.images[chosen, pixels, pixels]), labels[chosen])
    save_dataset("derived", dataset.classes, splits, "derived from the digits")
    return open_dataset("derived")


def class_counts(dataset: Dataset) -> dict[str, int]:
    return dict(zip(dataset.classes, dataset.class_counts()["train"], strict=True))


@pytest.mark.slow
def test_the_quick_recipe_is_well_at_every_record(digits: Dataset) -> None:
    chosen = change(find_recipe("digits-quick"), {"device": "cpu", "precision": "float32", "convolutions": "onednn"})
    found = [names(diagnose(chosen, history, class_counts(digits))) for history in growing(chosen, digits)]
    assert len(found) == 62
    assert found == [[]] * 62


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 25, "learning_rate": 0.01, "optimizer": "adamw"},
        {"epochs": 12, "learning_rate": 0.01, "schedule": "cosine"},
        {"epochs": 12, "learning_rate": 0.1, "optimizer": "sgd", "schedule": "one-cycle"},
        {"epochs": 20, "learning_rate": 0.05, "optimizer": "sgd", "schedule": "step"},
    ],
)
def test_runs_that_learn_well_are_well_at_every_record(settings: dict, digits: Dataset) -> None:
    chosen = recipe(**settings)
    histories = growing(chosen, digits)
    assert {name for history in histories for name in names(diagnose(chosen, history, class_counts(digits)))} == set()


def test_a_run_that_diverged_was_too_fast() -> None:
    fetch("blobs")
    blobs = open_dataset("blobs")
    chosen = recipe(optimizer="sgd", learning_rate=60.0, epochs=10, log_every=1)
    history = trained(chosen, blobs)
    assert isinstance(history.last, Failed)
    (finding,) = diagnose(chosen, history, class_counts(blobs))
    latest = history.steps[-1]
    assert finding.name == "rate-too-high"
    assert finding.evidence == (
        "At a learning rate of up to 60 the training loss grew beyond all numbers; "
        f"it was {latest.train_loss:.3g} at step {latest.step}."
    )
    assert finding.advice == "Take shorter steps: a learning rate of 6 in place of 60."
    assert finding.change == {"learning_rate": 6.0}


@pytest.mark.slow
def test_a_run_that_is_thrown_off_and_learns_nothing_was_too_fast(digits: Dataset) -> None:
    chosen = replace(find_recipe("digits-quick"), learning_rate=10.0, epochs=4, device="cpu", precision="float32")
    history = trained(replace(chosen, convolutions="onednn"), digits)
    finding = diagnose(chosen, history)[0]
    late = np.mean([step.train_loss for step in history.steps[-4:]])  # the last quarter of 16
    assert (finding.name, finding.change) == ("rate-too-high", {"learning_rate": 1.0})
    assert finding.evidence == f"After 84 steps the training loss is {late:.3g}, no better than the 2.3 of guessing."


@pytest.mark.slow
def test_a_run_that_crawls_was_too_slow_and_ten_times_the_rate_goes_further(digits: Dataset) -> None:
    chosen = recipe(learning_rate=2e-5, epochs=8)
    history = trained(chosen, digits)
    (finding,) = diagnose(chosen, history, class_counts(digits))
    assert (finding.name, finding.change) == ("rate-too-low", {"learning_rate": 0.0002})
    losses = [step.train_loss for step in history.steps]  # 24, of which an eighth is 3
    first, last = np.mean(losses[:3]), np.mean(losses[-3:])
    assert finding.evidence.startswith(f"In 144 steps the training loss went from {first:.3g} by way of 2.")
    assert f" to {last:.3g}, almost" in finding.evidence
    assert finding.evidence.endswith("on a straight line; guessing gives 2.3, and the least there can be is 0.")
    _, again = cured(chosen, finding, digits)
    covered = [GUESSING - each.epochs[-1].train_loss for each in (history, again)]
    assert covered[1] > 2 * covered[0]


def test_a_run_that_is_too_slow_is_told_so_half_way_but_not_before(digits: Dataset) -> None:
    chosen = recipe(learning_rate=1e-5, epochs=8, schedule="one-cycle")
    told = {
        history.position.step for history in growing(chosen, digits) if history.position and diagnose(chosen, history)
    }
    assert min(told) == 72
    assert max(told) == 144


@pytest.mark.slow
def test_labels_that_mean_nothing_are_learned_by_heart(digits: Dataset) -> None:
    noisy = derived(digits, images=slice(500), noise=500)
    chosen = recipe(epochs=30, batch_size=32)
    history = trained(chosen, noisy)
    (finding,) = diagnose(chosen, history, class_counts(noisy))
    assert finding.name == "overfitting"
    assert finding.evidence.startswith("Validation loss, of 100 images, was 2.")
    now = np.median([epoch.val_loss for epoch in history.epochs[-3:]])
    assert f" and is {now:.3g} now (medians of 3 epochs), while training loss fell from " in finding.evidence
    assert finding.evidence.endswith(f" to {history.epochs[-1].train_loss:.3g}.")
    assert set(finding.change) == {"augment"}
    _, again = cured(chosen, finding, noisy)
    assert again.epochs[-1].val_loss < history.epochs[-1].val_loss


@pytest.mark.slow
def test_few_images_that_are_all_right_while_others_are_not_are_learned_by_heart(digits: Dataset) -> None:
    few = derived(digits, images=slice(150))
    chosen = recipe(epochs=60, validation_share=0.5)
    history = trained(chosen, few)
    first, second = diagnose(chosen, history, class_counts(few))
    last = history.epochs[-1]
    assert last.train_accuracy == 1
    assert first.name == "overfitting"
    assert f"raining accuracy is 100.0% of 75 images, and validation accuracy {last.val_accuracy:.1%} of 75 images" in (
        first.evidence
    )
    assert second.name == "few-images"


@pytest.mark.slow
def test_a_network_that_sees_too_little_underfits(digits: Dataset) -> None:
    blurred = derived(digits, pixels=slice(None, None, 4))
    assert blurred.image_shape == (2, 2, 1)
    chosen = recipe(epochs=30, optimizer="sgd", learning_rate=0.1)
    history = trained(chosen, blurred)
    (finding,) = diagnose(chosen, history, class_counts(blurred))
    last = history.epochs[-1]
    assert (finding.name, finding.change) == ("underfitting", {"model": "convnet"})
    assert finding.evidence == (
        f"In the end training accuracy was {last.train_accuracy:.1%} of 1,150 images, validation accuracy "
        f"{last.val_accuracy:.1%} of 287 images; always naming the commonest class gets 10.2%."
    )


@pytest.mark.slow
def test_images_that_are_changed_beyond_recognition_are_to_be_left_as_they_are(digits: Dataset) -> None:
    chosen = recipe(epochs=8, augment="rotate=180 erase=0.9 crop=0.2")
    finding = diagnose(chosen, trained(chosen, digits))[0]
    assert (finding.name, finding.change) == ("underfitting", {"augment": ""})
    _, again = cured(chosen, finding, digits)
    assert again.epochs[-1].val_accuracy > 0.9


@pytest.mark.slow
def test_a_run_that_ends_on_its_way_down_was_still_improving(digits: Dataset) -> None:
    chosen = recipe(epochs=4, learning_rate=0.001)
    history = trained(chosen, digits)
    (finding,) = diagnose(chosen, history, class_counts(digits))
    losses = [step.train_loss for step in history.steps]  # 3 an epoch
    fall = 1 - np.mean(losses[-3:]) / np.mean(losses[-6:-3])
    last = history.epochs[-1]
    assert (finding.name, finding.change) == ("still-improving", {"epochs": 8})
    assert finding.evidence == (
        f"In the last quarter of 72 steps the training loss was {fall:.0%} lower than in the quarter before; in the "
        f"end training accuracy was {last.train_accuracy:.1%} of 1,150 images, validation accuracy "
        f"{last.val_accuracy:.1%} of 287 images."
    )
    _, again = cured(chosen, finding, digits)
    assert again.epochs[-1].val_loss < 0.8 * last.val_loss


@pytest.mark.slow
def test_a_run_that_nothing_is_held_back_from_is_unwatched_once_it_has_ended(digits: Dataset) -> None:
    chosen = recipe(epochs=10, validation_share=0.0, schedule="one-cycle")
    *before, last = [diagnose(chosen, history) for history in growing(chosen, digits)]
    assert before == [[]] * len(before)
    (finding,) = last
    assert (finding.name, finding.change) == ("unwatched", {"validation_share": 0.1})
    assert finding.evidence == "All 1,437 training images were trained on, and 0 held back."


# Histories built by hand

CONSTANT = Recipe(epochs=10, batch_size=50, learning_rate=0.01, validation_share=0.2, model="convnet")


def epoch(number: int, train_loss: float, train_accuracy: float, val_loss=None, val_accuracy=None, rate=0.01) -> Epoch:
    return Epoch(20 * number, number, train_loss, train_accuracy, val_loss, val_accuracy, rate, 1000.0, float(number))


def step(number: int, loss: float, accuracy: float = 0.1, rate: float = 0.01) -> Step:
    return Step(number, (number - 1) // 20 + 1, loss, accuracy, rate, 1000.0, number / 20)


def history(*records: Step | Epoch, last: Record | None = None, started: Started | None = STARTED) -> History:
    steps = [record for record in records if isinstance(record, Step)]
    epochs = [record for record in records if isinstance(record, Epoch)]
    return History(Path("nowhere"), started, steps, epochs, last=last or (records[-1] if records else started))


def finished(*records: Step | Epoch, **others: Any) -> History:
    return history(*records, last=end(Finished, 10, records[-1].step), **others)


# Of ten epochs: training gets better, validation loss first, then worse.
BY_HEART = [epoch(number, 2.0 / number, 1 - 0.5 / number, 0.8 + 0.1 * abs(number - 4), 0.93) for number in range(1, 11)]
GOOD = [epoch(number, 0.5 / number, 1 - 0.2 / number, 0.6 / number, 1 - 0.22 / number) for number in range(1, 11)]
POOR = [epoch(number, 1.8, 0.30, 1.8, 0.31) for number in range(1, 11)]


@pytest.mark.parametrize(
    "records",
    [
        History(Path("nowhere")),
        History(Path("nowhere"), last=Queued("cpu")),
        History(Path("nowhere"), STARTED, last=STARTED),
        History(Path("nowhere"), last=Cancelled()),
        history(step(1, 2.3)),
        history(step(1, 9.9)),
        history(epoch(1, 2.4, 0.1, 5.0, 0.1)),
        history(epoch(1, 0.1, 1.0, 5.0, 0.1)),
        history(step(1, 2.3), last=Failed("The disk is full.")),
        finished(*GOOD),
    ],
    ids=["no log", "queued", "started", "cancelled", "a step", "a bad step", "a bad epoch", "a gap", "failed", "good"],
)
def test_nothing_is_said_without_evidence(records: History) -> None:
    assert diagnose(CONSTANT, records) == []


def test_the_rise_of_validation_loss_is_told_by_its_medians() -> None:
    (finding,) = diagnose(CONSTANT, finished(*BY_HEART))
    assert finding.name == "overfitting"
    assert finding.evidence == (
        "Validation loss, of 400 images, was 0.9 around epoch 3 and is 1.3 now (medians of 3 epochs), while training "
        "loss fell from 0.667 to 0.2."
    )


@pytest.mark.parametrize("so_far", range(1, 11))
def test_overfitting_is_told_once_its_rise_is_clear(so_far: int) -> None:
    # The medians are 0.9 at their lowest, and chance moves the loss of 400 images by a tenth of that.
    found = diagnose(CONSTANT, history(*BY_HEART[:so_far]))
    assert names(found) == (["overfitting"] if so_far >= 7 else [])


def test_a_single_bad_epoch_is_no_rise() -> None:
    blip = [*GOOD[:-1], replace(GOOD[-1], val_loss=3.0)]
    assert diagnose(CONSTANT, finished(*blip)) == []


def test_a_rise_at_the_full_rate_of_a_schedule_that_will_come_down_is_waited_for() -> None:
    one_cycle = replace(CONSTANT, schedule="one-cycle")
    high = [replace(each, learning_rate=0.009) for each in BY_HEART]
    assert diagnose(one_cycle, history(*high)) == []
    low = [*high[:-1], replace(high[-1], learning_rate=0.004)]
    assert names(diagnose(one_cycle, history(*low))) == ["overfitting"]


def test_a_gap_is_told_with_what_chance_explains() -> None:
    ahead = [epoch(number, 1 / number, 0.6 + 0.04 * number, 1.0, 0.7) for number in range(1, 11)]
    (finding,) = diagnose(CONSTANT, finished(*ahead))
    # scipy's binomtest(280, 400).proportion_ci(method="wilson")
    assert finding.evidence == (
        "Training accuracy is 100.0% of 1,000 images, and validation accuracy 70.0% of 400 images (by chance between "
        "65.3% and 74.3%)."
    )


@pytest.mark.parametrize(("val_count", "told"), [(10, False), (30, False), (100, True), (1000, True)])
def test_a_gap_that_chance_may_have_made_is_none(val_count: int, told: bool) -> None:
    ahead = [epoch(number, 1 / number, 0.98, 1.0, 0.9) for number in range(1, 11)]
    found = diagnose(CONSTANT, finished(*ahead, started=replace(STARTED, val_count=val_count)))
    assert ("overfitting" in names(found)) == told


def test_a_gap_is_told_after_ten_epochs_or_at_the_end() -> None:
    ahead = [epoch(number, 1 / number, 0.98, 1.0, 0.7) for number in range(1, 11)]
    assert diagnose(CONSTANT, history(*ahead[:9])) == []
    assert names(diagnose(CONSTANT, history(*ahead))) == ["overfitting"]
    assert names(diagnose(CONSTANT, history(*ahead[:3], last=end(Finished, 3, 60)))) == ["overfitting"]


def test_a_gap_of_2_points_is_none_however_many_images_there_are() -> None:
    ahead = [epoch(number, 1 / number, 0.97, 0.2, 0.95) for number in range(1, 11)]
    large = replace(STARTED, train_count=10**6, val_count=10**6)
    assert "overfitting" not in names(diagnose(CONSTANT, finished(*ahead, started=large)))


def test_a_gap_that_closes_is_none() -> None:
    closing = [epoch(number, 1 / number, 0.95, 2 / number, 0.30 + 0.05 * number) for number in range(1, 11)]
    assert "overfitting" not in names(diagnose(CONSTANT, history(*closing)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"augment": "crop=0.8 rotate=10"}),
        ({"augment": "shift=1"}, {"weight_decay": 0.0005}),
        ({"augment": "shift=1", "optimizer": "adamw"}, {"weight_decay": 0.05}),
        ({"augment": "shift=1", "weight_decay": 0.1}, {"keep": "best"}),
        (
            {"augment": "shift=1", "weight_decay": 0.1, "validation_share": 0.0},
            {"keep": "best", "validation_share": 0.1},
        ),
        ({"augment": "shift=1", "weight_decay": 0.1, "keep": "best"}, {"patience": 5}),
        ({"augment": "shift=1", "weight_decay": 0.1, "keep": "best", "schedule": "step", "learning_rate": 0.02}, {}),
        ({"augment": "shift=1", "weight_decay": 0.1, "keep": "best", "patience": 3}, {}),
        ({"model": "resnet18", "weights": "imagenet", "freeze": "backbone"}, {"weight_decay": 0.0005}),
    ],
)
def test_against_overfitting_comes_first_what_the_recipe_lacks(settings: dict, expected: dict) -> None:
    chosen = replace(CONSTANT, **settings)
    (finding,) = diagnose(chosen, finished(*BY_HEART))
    assert (finding.name, finding.change) == ("overfitting", expected)
    change(chosen, finding.change)  # a recipe that is possible
    assert "flip" not in str(finding.change)


def test_rows_of_numbers_are_not_to_be_augmented() -> None:
    # 4 numbers, 8 hidden units, 10 classes
    (finding,) = diagnose(replace(CONSTANT, model="mlp", dataset="blobs"), finished(*BY_HEART))
    assert finding.change == {"weight_decay": 0.0005}
    # an image of one pixel, 128 hidden units
    pixel = replace(STARTED, parameters=2 * 128 + 129 * 10)
    (finding,) = diagnose(replace(CONSTANT, model="mlp"), finished(*BY_HEART, started=pixel))
    assert set(finding.change) == {"augment"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": "mlp"}, {"model": "convnet"}),
        ({"model": "convnet"}, {"model": "resnet-fast"}),
        ({"model": "lenet5"}, {"model": "resnet-fast"}),
        ({"model": "resnet-fast"}, {}),
        ({"model": "convnet", "weights": "an earlier run"}, {}),
        ({"label_smoothing": 0.5}, {"label_smoothing": 0.0}),
        ({"augment": "flip erase=0.6"}, {"augment": ""}),
        ({"model": "resnet18", "weights": "imagenet", "freeze": "backbone"}, {"freeze": "none", "backbone_rate": 0.1}),
    ],
)
def test_against_underfitting_there_is(settings: dict, expected: dict) -> None:
    chosen = replace(CONSTANT, **settings)
    (finding,) = diagnose(chosen, finished(*POOR))
    assert (finding.name, finding.change) == ("underfitting", expected)
    change(chosen, finding.change)
    assert finding.evidence == (
        "In the end training accuracy was 30.0% of 1,000 images, validation accuracy 31.0% of 400 images; always "
        "naming the commonest class gets 10.0%."
    )


def test_underfitting_is_told_at_the_end_only_and_not_of_a_run_that_was_stopped() -> None:
    assert diagnose(CONSTANT, history(*POOR)) == []
    assert diagnose(CONSTANT, history(*POOR, last=end(Stopped, 10, 200))) == []


def test_a_loss_that_has_hardly_begun_to_fall_calls_for_more_epochs_not_for_a_larger_network() -> None:
    (finding,) = diagnose(CONSTANT, history(*POOR[:9], last=end(Finished, 9, 180)))
    assert (finding.name, finding.change) == ("underfitting", {"epochs": 20})


def test_what_is_poor_depends_on_the_commonest_class() -> None:
    two = replace(STARTED, classes=["sick", "well"])
    fair = [epoch(number, 0.3, 0.90, 0.3, 0.90) for number in range(1, 11)]
    assert diagnose(CONSTANT, finished(*fair, started=two), {"sick": 500, "well": 500}) == []
    (finding,) = diagnose(CONSTANT, finished(*fair, started=two), {"sick": 110, "well": 890})
    assert finding.name == "underfitting"
    assert finding.evidence.endswith("always naming the commonest class gets 89.0%.")


def test_a_run_of_a_few_steps_underfits_whatever_its_validation_says() -> None:
    (finding,) = diagnose(CONSTANT, history(epoch(1, 1.7, 0.5, 2.4, 0.1), last=end(Finished, 1, 20)))
    assert (finding.name, finding.change) == ("underfitting", {"epochs": 20})


def test_a_loss_that_stays_at_guessing_is_of_a_rate_too_high_or_too_low() -> None:
    still = [step(5 * number, GUESSING + 0.01 * (-1) ** number + 0.005) for number in range(1, 41)]
    high = diagnose(CONSTANT, history(*still))
    assert (names(high), high[0].change) == (["rate-too-high"], {"learning_rate": 0.001})
    slow = [replace(each, learning_rate=1e-6) for each in still]
    low = diagnose(replace(CONSTANT, learning_rate=1e-6), history(*slow))
    assert (names(low), low[0].change) == (["rate-too-low"], {"learning_rate": 1e-5})
    assert low[0].evidence == (
        "In 200 steps the training loss went from 2.31 by way of 2.31 to 2.31; guessing gives 2.3, and the least there "
        "can be is 0."
    )


def test_a_loss_that_leapt_and_did_not_come_back_is_told_with_its_peak() -> None:
    losses = [31.2, 8.0, 3.0, 2.0, 1.2, 1.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    leapt = [step(5 * number, loss) for number, loss in enumerate(losses, start=1)]
    (finding,) = diagnose(CONSTANT, history(*leapt))
    assert finding.evidence == (
        "The training loss was 31.2 at step 5, where guessing gives 2.3, and it is 1 after 60 steps."
    )
    recovered = [*leapt, *(step(60 + 5 * number, 0.1) for number in range(1, 13))]
    assert diagnose(CONSTANT, history(*recovered)) == []


def test_a_short_run_that_ended_far_off_was_too_fast() -> None:
    off = [step(5 * number, 7.0 + number) for number in range(1, 9)]
    assert diagnose(CONSTANT, history(*off)) == []
    (finding,) = diagnose(CONSTANT, history(*off, last=end(Finished, 2, 40)))
    assert finding.evidence == "After 40 steps the training loss is 14.5, no better than the 2.3 of guessing."


def test_a_leap_is_waited_out_while_the_rate_will_come_down() -> None:
    leapt = [step(5 * number, 5.0) for number in range(1, 21)]  # of 200 steps
    assert names(diagnose(CONSTANT, history(*leapt))) == ["rate-too-high"]
    assert diagnose(replace(CONSTANT, schedule="cosine"), history(*leapt[:19])) == []
    assert names(diagnose(replace(CONSTANT, schedule="cosine"), history(*leapt))) == ["rate-too-high"]


def test_rows_of_large_numbers_start_far_off_at_any_rate() -> None:
    losses = [40.0, *(5.0 / number for number in range(1, 30))]
    falling = [step(5 * number, loss) for number, loss in enumerate(losses, start=1)]
    table = replace(CONSTANT, model="mlp", dataset="blobs")
    assert diagnose(table, history(*falling)) == []
    risen = [replace(falling[0], train_loss=20.0), replace(falling[1], train_loss=60.0), *falling[2:8]] * 2
    risen = [replace(each, step=5 * number) for number, each in enumerate(risen, start=1)]
    assert names(diagnose(table, history(*risen))) == ["rate-too-high"]


def test_validation_accuracy_that_goes_up_and_down_is_told_with_its_dip() -> None:
    accuracies = [0.3, 0.6, 0.8, 0.82, 0.61, 0.79, 0.84, 0.75]
    jumping = [epoch(number, 1 / number, 0.8, 1.0, accuracy) for number, accuracy in enumerate(accuracies, start=1)]
    (finding,) = diagnose(CONSTANT, history(*jumping))
    assert (finding.name, finding.change) == ("rate-too-high", {"learning_rate": 0.003})
    assert finding.evidence == (
        "Validation accuracy, of 400 images, had been 82.0%, fell to 61.0% at epoch 5, and was 84.0% later."
    )
    assert diagnose(CONSTANT, history(*jumping[:7])) == []  # back where it was
    early = [replace(each, step=each.step - 10) for each in jumping]  # the dip in the first 100 steps
    assert diagnose(CONSTANT, history(*early)) == []
    few = replace(STARTED, val_count=20)
    assert diagnose(CONSTANT, history(*jumping, started=few)) == []
    assert diagnose(replace(CONSTANT, schedule="cosine"), history(*jumping)) == []


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (100.0, {"learning_rate": 10.0}),
        (0.34, {"learning_rate": 0.03}),
        (1e-8, {}),
        (3e-8, {"learning_rate": 1e-8}),
    ],
)
def test_a_rate_has_one_digit_and_stays_within_its_limits(rate: float, expected: dict) -> None:
    chosen = replace(CONSTANT, learning_rate=rate)
    (finding,) = diagnose(chosen, history(last=Failed("Whatever it says.", "diverged")))
    assert (finding.name, finding.change) == ("rate-too-high", expected)
    change(chosen, finding.change)


def test_a_run_that_was_stopped_while_it_improved_is_to_be_resumed() -> None:
    falling = [
        epoch(number, 2.0 * 0.8**number, 0.1 * number, 2.0 * 0.8**number, 0.1 * number) for number in range(1, 9)
    ]
    (finding,) = diagnose(CONSTANT, history(*falling, last=end(Stopped, 8, 160)))
    assert (finding.name, finding.change) == ("still-improving", {})
    assert finding.advice == "Resume the run, and it makes the rest of its epochs."
    # 1 - (0.8^7 + 0.8^8) / (0.8^5 + 0.8^6)
    assert "the validation loss, of 400 images, was 36% lower than in the quarter before" in finding.evidence
    (finding,) = diagnose(CONSTANT, history(*falling, last=end(Finished, 8, 160)))
    assert finding.change == {"epochs": 20}
    assert diagnose(replace(CONSTANT, schedule="cosine"), history(*falling, last=end(Finished, 8, 160))) == []
    (finding,) = diagnose(replace(CONSTANT, epochs=10_000), history(*falling, last=end(Finished, 8, 160)))
    assert finding.change == {}


@pytest.mark.parametrize(("train_accuracy", "val_accuracy"), [(0.98, 0.98), (0.98, 0.96), (0.96, 0.98)])
def test_with_next_to_nothing_left_to_get_wrong_a_falling_loss_is_no_reason_to_go_on(
    train_accuracy: float, val_accuracy: float
) -> None:
    falling = [epoch(number, 0.8**number, train_accuracy, 0.8**number, val_accuracy) for number in range(1, 9)]
    assert diagnose(CONSTANT, history(*falling, last=end(Finished, 8, 160))) == []


def test_without_validation_the_training_figures_are_judged_and_unwatched_comes_last() -> None:
    alone = replace(STARTED, train_count=1400, val_count=0)
    unvalidated = [replace(each, val_loss=None, val_accuracy=None) for each in POOR]
    findings = diagnose(CONSTANT, finished(*unvalidated, started=alone), dict.fromkeys(TEN, 250) | {"9": 22})
    assert names(findings) == ["underfitting", "imbalance", "unwatched"]
    assert findings[0].evidence == (
        "In the end training accuracy was 30.0% of 1,400 images; always naming the commonest class gets 11.0%."
    )
    assert findings[2].evidence == "All 1,400 training images were trained on, and 0 held back."


# Classes


def test_classes_with_few_images_are_named_the_fewest_first() -> None:
    counts = {"ant": 19, "bee": 20, "cat": 3, "dog": 0}
    (finding,) = diagnose(CONSTANT, History(Path("nowhere")), counts)
    assert finding.name == "imbalance"
    assert finding.evidence == "Images by class, validation included: dog 0, cat 3 and ant 19; the mean of all 4 is 10."
    (finding,) = diagnose(CONSTANT, History(Path("nowhere")), {"ant": 19, "bee": 20, "cat": 10})
    assert (finding.name, finding.change) == ("few-images", {})
    assert finding.evidence == "Images by class, validation included: cat 10 and ant 19; the mean of all 3 is 16."


def test_of_many_classes_five_are_named() -> None:
    counts = {f"class {number}": number for number in range(1, 16)}
    (finding,) = diagnose(CONSTANT, History(Path("nowhere")), counts)
    assert finding.evidence == (
        "Images by class, validation included: class 1 1, class 2 2, class 3 3, class 4 4, class 5 5 and 10 "
        "more; the mean of all 15 is 8."
    )


@pytest.mark.parametrize(
    ("counts", "weights", "expected"),
    [
        ({"a": 20_000, "b": 900}, "none", {"class_weights": "balanced"}),
        ({"a": 20_000, "b": 900}, "balanced", {}),
        ({"a": 20_000, "b": 20_000, "c": 0}, "none", {}),  # what is not there cannot be weighed
    ],
)
def test_weights_are_advised_where_they_can_help(counts: dict, weights: str, expected: dict) -> None:
    (finding,) = diagnose(replace(CONSTANT, class_weights=weights), History(Path("nowhere")), counts)
    assert (finding.name, finding.change) == ("imbalance", expected)


def test_an_untrained_network_on_uneven_classes_was_not_thrown_off() -> None:
    # It starts at the 0.69 of two classes, far above the 0.06 of knowing that one is rare.
    two = replace(STARTED, classes=["sick", "well"])
    falling = [step(5 * number, max(0.7 - 0.06 * number, 0.05), 0.99) for number in range(1, 41)]
    assert names(diagnose(CONSTANT, history(*falling, started=two), {"sick": 100, "well": 9900})) == ["imbalance"]


@pytest.mark.parametrize("counts", [{}, None, {"a": 20}, {"a": 20, "b": 25}, {"a": 10_000, "b": 900}])
def test_enough_images_are_no_finding(counts: dict | None) -> None:
    assert diagnose(CONSTANT, finished(*GOOD), counts) == []


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        {"train_loss": None},
        {"train_loss": math.nan},
        {"train_loss": math.inf},
        {"train_loss": 1e300},
        {"train_loss": -1.0},
        {"train_accuracy": None},
        {"train_accuracy": 7.0},
        {"val_loss": 1e300},
        {"val_loss": math.nan},
        {"val_accuracy": None},
        {"val_accuracy": -0.5},
        {"learning_rate": math.nan},
    ],
)
def test_an_epoch_with_damaged_figures_is_passed_over(damage: dict) -> None:
    damaged = [*BY_HEART[:5], replace(BY_HEART[5], **damage), *BY_HEART[6:]]
    without = [*BY_HEART[:5], *BY_HEART[6:]]
    assert diagnose(CONSTANT, finished(*damaged)) == diagnose(CONSTANT, finished(*without)) != []
    assert diagnose(CONSTANT, finished(*(replace(each, **damage) for each in BY_HEART))) == []


@pytest.mark.parametrize("loss", [0.0, 1e-300, 1e38])
def test_figures_at_the_ends_of_their_ranges_are_borne(loss: float) -> None:
    for records in (
        [epoch(number, loss, 1.0, loss, 0.0) for number in range(1, 11)],
        [epoch(number, loss, 0.0, loss, 1.0, rate=0.0) for number in range(1, 11)],
        [step(number, loss) for number in range(1, 100)],
    ):
        for chosen in (CONSTANT, replace(CONSTANT, learning_rate=1e-8), replace(CONSTANT, label_smoothing=0.9)):
            for finding in diagnose(chosen, finished(*records), {"a": 0, "b": 10**12}):
                change(chosen, finding.change)


@pytest.mark.parametrize("classes", [[], ["only"]])
def test_with_a_single_class_nothing_is_learned_and_nothing_said(classes: list[str]) -> None:
    sure = [epoch(number, 0.0, 1.0, 0.0, 1.0) for number in range(1, 11)]
    assert diagnose(CONSTANT, finished(*sure, started=replace(STARTED, classes=classes)), {"only": 1000}) == []
