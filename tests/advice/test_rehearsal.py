import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import python
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from engine.advice import rehearsal
from engine.advice.rehearsal import Check, rehearse
from engine.base.errors import LoupeError
from engine.base.paths import data_root, runs_root
from engine.base.progress import run_to_end
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.data.splits import train_validation_indices
from engine.evaluation.metrics import wilson_interval
from engine.networks.models import build_model, count_parameters
from engine.recipes.recipe import Recipe, change

ALL = ["weights", "first loss", "one batch", "majority", "linear model", "time", "memory"]
OF_THE_MACHINE = ("memory", "time")


def recipe(**settings) -> Recipe:
    as_machines_differ = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}
    return Recipe(**{"model": "mlp", "learning_rate": 0.01} | as_machines_differ | settings)


def rehearsed(chosen: Recipe, dataset: Dataset) -> dict[str, Check]:
    checks = run_to_end(rehearse(chosen, dataset), lambda doing: None)
    assert all(check.verdict in ("good", "look", "bad") for check in checks)
    assert all(check.text.endswith(".") and "\n" not in check.text for check in checks)
    by_name = {check.name: check for check in checks}
    assert len(by_name) == len(checks)
    return by_name


def numbers(text: str, pattern: str) -> list[float]:
    """Read the numbers that the groups of a pattern find in a sentence."""
    found = re.search(pattern, text)
    assert found, text
    return [float(group.replace(",", "")) for group in found.groups()]


def shortened(dataset: Dataset, **counts: int) -> Dataset:
    """Leave the first images of each split."""
    splits = {
        name: Split(split.images[: counts.get(name)], split.labels[: counts.get(name)])
        for name, split in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def test_it_says_what_it_is_doing_and_then_what_it_found(colours: Dataset) -> None:
    doing: list[str] = []
    checks = run_to_end(rehearse(recipe(), colours), doing.append)
    assert doing == [
        "building the network",
        "timing a step",
        "learning one batch by heart",
        "training a linear model, to compare with",
    ]
    assert [check.name for check in checks] == ALL
    assert {check.verdict for check in checks} == {"good"}
    document = json.loads(json.dumps([check.as_document() for check in checks], allow_nan=False))
    assert [list(check) for check in document] == [["name", "verdict", "text"]] * 7


# The first loss


def test_the_first_loss_is_that_of_new_weights(digits: Dataset) -> None:
    """Hold it against the network computed by hand on all images: a batch of all is in any order the same."""
    few = shortened(digits, train=200)
    check = rehearsed(recipe(batch_size=200, seed=5), few)["first loss"]
    torch.manual_seed(5)
    weights = [parameter.detach().double().numpy() for parameter in build_model("mlp", (8, 8, 1), 10).parameters()]
    hidden = np.maximum(few.splits["train"].images.reshape(200, -1) / 255 @ weights[0].T + weights[1], 0)
    logits = hidden @ weights[2].T + weights[3]
    loss = (logsumexp(logits, axis=1) - logits[np.arange(200), few.splits["train"].labels]).mean()
    assert check.text == (
        f"The first loss is {loss:.3g}; guessing among 10 classes would give {math.log(10):.3g}, so the training "
        "starts from where it should."
    )
    assert check.verdict == "good"


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "verdict"), [(1, "good"), (200, "look")])
def test_a_network_that_is_sure_at_first_is_worth_a_look(
    tmp_path: Path, colours: Dataset, factor: int, verdict: str
) -> None:
    model = build_model("mlp", colours.image_shape, 3)
    with torch.no_grad():
        model[3].weight.mul_(factor)
    torch.save(model.state_dict(), tmp_path / "sure.pth")
    check = rehearsed(recipe(weights=str(tmp_path / "sure.pth")), colours)["first loss"]
    assert check.verdict == verdict
    (loss,) = numbers(check.text, r"^The first loss is ([\d.]+);")
    assert (loss > 5) == (verdict == "look")
    assert ("start with a low learning rate" in check.text) == (verdict == "look")


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_worth_a_look_and_no_crash(tmp_path: Path, colours: Dataset) -> None:
    model = build_model("mlp", colours.image_shape, 3)
    with torch.no_grad():
        model[3].weight.mul_(3e38)
    torch.save(model.state_dict(), tmp_path / "wild.pth")
    checks = rehearsed(recipe(weights=str(tmp_path / "wild.pth"), learning_rate=1e-8), colours)
    assert checks["first loss"].verdict == "look"


# One batch


@pytest.mark.slow
def test_a_good_rate_learns_one_batch_by_heart(digits: Dataset) -> None:
    check = rehearsed(recipe(), digits)["one batch"]
    assert check.verdict == "good"
    right, of, steps = numbers(check.text, r"it has (\d+) of (\d+) images right after (\d+) steps?: it can learn\.$")
    assert right == of == 32
    assert 1 < steps < 100


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [1e-8, 50.0])
def test_a_rate_far_off_does_not(digits: Dataset, learning_rate: float) -> None:
    check = rehearsed(recipe(learning_rate=learning_rate, optimizer="sgd"), digits)["one batch"]
    assert check.verdict == "bad"
    (right,) = numbers(check.text, r"it has (\d+) of 32 images right after 100 steps, and should have all: ")
    assert right < 16
    assert f"the learning rate, {learning_rate:g}, may be too high or too low." in check.text


def test_images_that_cannot_be_told_apart_are_not_learned_by_heart() -> None:
    alike = np.full((60, 8, 8, 1), 90, np.uint8)
    save_dataset("alike", ("a", "b"), {"train": Split(alike, np.arange(60) % 2)}, "all images are alike")
    checks = rehearsed(recipe(dataset="alike"), open_dataset("alike"))
    assert checks["one batch"].verdict == "bad"


FOR_LATER: list[dict] = [
    {"label_smoothing": 0.9},
    {"class_weights": "balanced"},
    {"augment": "flip rotate=30 crop=0.5 erase=0.5"},
    {"schedule": "one-cycle", "warmup_epochs": 0.0},
    {"schedule": "cosine", "warmup_epochs": 4.5},
    {"batch_size": 3},
    {"epochs": 1},
]


@pytest.mark.slow
def test_what_is_for_later_does_not_matter_to_one_batch(digits: Dataset) -> None:
    stored = digits.splits["train"]
    zeros, others = np.flatnonzero(stored.labels == 0), np.flatnonzero(stored.labels)
    uneven = replace(digits, splits={"train": taken(stored, [*zeros, *others[: len(zeros)]])})
    expected = rehearsed(recipe(), uneven)["one batch"]
    for settings in FOR_LATER:
        assert rehearsed(recipe(**settings), uneven)["one batch"] == expected, settings


@pytest.mark.slow
def test_dropout_does_not_keep_a_network_from_learning_one_batch(digits: Dataset) -> None:
    chosen = recipe(model="squeezenet1_1", size=32, optimizer="adamw", learning_rate=0.001, batch_size=8)
    assert rehearsed(chosen, digits)["one batch"].verdict == "good"


@pytest.mark.slow
def test_what_ran_out_of_time_is_worth_a_look(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "OVERFIT_SECONDS", 0.0)
    check = rehearsed(recipe(learning_rate=1e-8), digits)["one batch"]
    assert check.verdict == "look"
    assert check.text.endswith("of 32 images right after 1 step, all that 0 seconds were enough for.")


# What simple models do


def linear_model(train: Split, judged: Split) -> int:
    """Standardise by hand, fit a logistic regression, and count what it has right."""
    seen, asked = (split.images.reshape(len(split), -1).astype(np.float64) for split in (train, judged))
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    std[std == 0] = 1
    model = LogisticRegression(C=0.1, max_iter=1000).fit((seen - mean) / std, train.labels)
    return int((model.predict((asked - mean) / std) == judged.labels).sum())


def taken(split: Split, indices) -> Split:
    return Split(split.images[np.asarray(indices)], split.labels[np.asarray(indices)])


def assert_told(checks: dict[str, Check], train: Split, judged: Split, what: str, where: str) -> None:
    labels, counts = np.unique(train.labels, return_counts=True)
    commonest = labels[counts.argmax()]
    share, count = int((judged.labels == commonest).sum()), len(judged)
    assert checks["majority"].text == (
        f"Always answering '{commonest}' would be right for {share:,} of {count:,} {where}, {share / count:.1%}: what "
        "is learned must be better than that."
    )
    text = checks["linear model"].text
    seen, right, of, part, low, high = numbers(
        text,
        rf"^A linear model on {re.escape(what)} of ([\d,]+) training images answers right for ([\d,]+) of ([\d,]+) "
        rf"{where}, ([\d.]+)% \(95% interval ([\d.]+)% to ([\d.]+)%\): a network worth its time should beat it\.$",
    )
    assert (seen, of) == (len(train), count)
    # It is fitted to the same minimum, though not as closely: an image at the border may go either way.
    assert right == pytest.approx(linear_model(train, judged), abs=1 + 0.01 * count)
    assert part == pytest.approx(100 * right / of, abs=0.06)
    assert [low, high] == pytest.approx([100 * bound for bound in wilson_interval(int(right), int(of))], abs=0.06)


PIXELS = "the pixels (at most 16 x 16)"


@pytest.mark.slow
def test_simple_models_are_judged_by_the_images_held_back_for_validation(digits: Dataset) -> None:
    few = shortened(digits, train=500)
    chosen = recipe(validation_share=0.2, split_seed=3)
    train, val = train_validation_indices(few, chosen)
    assert (len(train), len(val)) == (400, 100)
    stored = few.splits["train"]
    assert_told(rehearsed(chosen, few), taken(stored, train), taken(stored, val), PIXELS, "validation images")


@pytest.mark.slow
def test_simple_models_are_judged_by_a_validation_split_where_there_is_one(digits: Dataset) -> None:
    train, test = digits.splits["train"], digits.splits["test"]
    uneven = np.flatnonzero(train.labels != 9)[:300].tolist() + np.flatnonzero(train.labels == 9)[:60].tolist()
    val = taken(test, np.flatnonzero(test.labels != 3))
    splits = {"train": taken(train, uneven), "val": val, "test": taken(test, range(50))}
    save_dataset("with-val", digits.classes, splits, "digits")
    stored = open_dataset("with-val")
    assert_told(rehearsed(recipe(dataset="with-val"), stored), splits["train"], val, PIXELS, "validation images")


@pytest.mark.slow
def test_simple_models_are_judged_by_training_images_where_none_are_for_validation(digits: Dataset) -> None:
    few = shortened(digits, train=500)
    checks = rehearsed(recipe(), few)
    told = checks["linear model"].text
    seen, of = numbers(told, r"of ([\d,]+) training images answers right for \d+ of (\d+) training images held back")
    assert (seen, of) == (400, 100)
    right, part = numbers(told, r"for (\d+) of 100 .*?, ([\d.]+)%")
    assert right == part
    assert 80 <= right <= 99  # of images that it was not fitted to, as any fifth of the digits gives


@pytest.mark.slow
def test_no_more_than_a_thousand_images_are_looked_at(digits: Dataset) -> None:
    chosen = recipe(validation_share=0.2)
    train, val = train_validation_indices(digits, chosen)
    assert len(train) > 1000
    checks = rehearsed(chosen, digits)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    stored = digits.splits["train"]
    some = taken(stored, train[order[:1000]])
    text = checks["linear model"].text
    right, of = numbers(text, r"of 1,000 training images answers right for (\d+) of (\d+) validation images")
    assert of == len(val)
    assert right == pytest.approx(linear_model(some, taken(stored, val)), abs=3)


@pytest.mark.slow
def test_large_images_are_made_small_for_the_linear_model(make_colours) -> None:
    large = make_colours(train=60, test=0, height=64, width=48)
    train, val = train_validation_indices(large, recipe(validation_share=0.5))

    def small(indices) -> Split:
        images = large.splits["train"].images[indices.numpy()]
        means = images.reshape(len(images), 16, 4, 16, 3, 3).mean(axis=(2, 4))
        return Split(means, large.splits["train"].labels[indices.numpy()])

    checks = rehearsed(recipe(dataset="colours", validation_share=0.5), large)
    (right,) = numbers(checks["linear model"].text, r"right for (\d+) of 30 validation")
    assert right == linear_model(small(train), small(val))


@pytest.mark.slow
def test_a_table_is_rehearsed_with_its_numbers() -> None:
    fetch("blobs")
    blobs = open_dataset("blobs")
    chosen = recipe(dataset="blobs", validation_share=0.2, optimizer="sgd")
    train, val = train_validation_indices(blobs, chosen)
    stored = blobs.splits["train"]
    checks = rehearsed(chosen, blobs)
    assert list(checks) == ALL
    assert_told(checks, taken(stored, train), taken(stored, val), "the numbers", "validation images")


@pytest.mark.slow
def test_test_images_are_never_looked_at(digits: Dataset) -> None:
    test = digits.splits["test"]
    poison = Split(np.random.randint(0, 256, test.images.shape).astype(np.uint8), np.roll(test.labels, 1))
    poisoned = replace(digits, splits={"train": digits.splits["train"], "test": poison})
    for chosen in (recipe(), recipe(validation_share=0.1)):
        clean, other = rehearsed(chosen, digits), rehearsed(chosen, poisoned)
        assert list(clean) == list(other) == ALL
        for name in ALL:
            assert name in OF_THE_MACHINE or clean[name] == other[name]


# Few images, few classes


@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_two_classes_are_enough(model: str) -> None:
    images = np.random.randint(0, 100, (40, 8, 8, 1)).astype(np.uint8)
    images[1::2] += 120
    save_dataset("two", ("dark", "light"), {"train": Split(images, np.arange(40) % 2)}, "generated")
    checks = rehearsed(recipe(dataset="two", model=model), open_dataset("two"))
    assert list(checks) == ALL
    assert checks["one batch"].verdict == "good"
    assert "guessing among 2 classes would give 0.693" in checks["first loss"].text
    assert "right for 8 of 8 training images held back for this, 100.0%" in checks["linear model"].text


@pytest.mark.parametrize("count", [2, 3, 7])
def test_very_few_images_are_rehearsed_with_what_there_is(make_colours, count: int) -> None:
    splits = make_colours(train=count, test=0).splits
    save_dataset("few", ("red", "green", "blue")[:count], splits, "generated")
    checks = rehearsed(recipe(dataset="few"), open_dataset("few"))
    assert set(ALL) - set(checks) <= {"linear model"}  # which needs two classes to be fitted to
    assert f"of {count} images right" in checks["one batch"].text


def test_what_could_not_be_trained_is_refused(colours: Dataset) -> None:
    with pytest.raises(LoupeError, match="lenet5 needs images of at least 28 x 28 pixels"):
        rehearsed(recipe(model="lenet5"), colours)


# A frozen backbone


@pytest.fixture
def earlier(tmp_path: Path, colours: Dataset) -> Recipe:
    """A recipe that starts from a file of weights."""
    torch.manual_seed(3)
    torch.save(build_model("convnet", colours.image_shape, 3).state_dict(), tmp_path / "earlier.pth")
    weights = str(tmp_path / "earlier.pth")
    return recipe(dataset="colours", model="convnet", weights=weights, epochs=6, validation_share=0.2)


@pytest.mark.slow
def test_what_the_network_starts_from_is_told(colours: Dataset, earlier: Recipe) -> None:
    text = rehearsed(earlier, colours)["weights"].text
    assert text == "20 tensors of earlier.pth were taken, its head for 3 classes among them."
    new = rehearsed(change(earlier, {"weights": "none", "seed": 9}), colours)["weights"].text
    assert new == "The network starts from new weights, drawn with seed 9."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "time"),
    [
        ({"freeze": "backbone"}, r"12 steps of [\d.e-]+ ms with the backbone frozen and .+ for features, which later"),
        ({"freeze": "2"}, r"4 steps of \S+ ms with the backbone frozen, .+ for features, .+ and 8 steps of"),
        ({"freeze": "backbone", "augment": "flip", "views": 2}, r"frozen and .+ for features, which later runs"),
        ({"freeze": "backbone", "augment": "flip"}, r": 12 steps of \S+ ms with the backbone frozen\.$"),
        ({"freeze": "none"}, r": 12 steps of \S+ ms\.$"),
    ],
    ids=str,
)
def test_a_backbone_may_be_frozen(colours: Dataset, earlier: Recipe, settings: dict, time: str) -> None:
    before = files()
    checks = rehearsed(change(earlier, settings), colours)
    assert list(checks) == ALL
    assert checks["one batch"].verdict == "good"
    on = PIXELS if settings["freeze"] == "none" else "the frozen backbone's features"
    assert f"A linear model on {on} of 72 training images" in checks["linear model"].text
    assert re.search(time, checks["time"].text), checks["time"].text
    assert files() == before


@pytest.mark.slow
def test_a_linear_model_on_features_is_fitted_to_those_of_the_frozen_backbone(
    colours: Dataset, earlier: Recipe
) -> None:
    frozen = change(earlier, {"freeze": "backbone"})
    model = build_model("convnet", colours.image_shape, 3)
    model.load_state_dict(torch.load(earlier.weights))
    train, val = train_validation_indices(colours, frozen)
    stored = colours.splits["train"]

    def features(indices) -> Split:
        pixels = torch.from_numpy(stored.images[indices.numpy()]).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            return Split(model.eval()[:-1](pixels).numpy(), stored.labels[indices.numpy()])

    (right,) = numbers(rehearsed(frozen, colours)["linear model"].text, r"right for (\d+) of 18 validation")
    assert right == linear_model(features(train), features(val))


# Memory, time, and what is left behind


@pytest.mark.slow
def test_memory_and_time_are_told_with_their_units(colours: Dataset) -> None:
    checks = rehearsed(recipe(model="convnet", epochs=7, batch_size=20), colours)
    count = count_parameters(build_model("convnet", colours.image_shape, 3))
    assert re.fullmatch(
        rf"With {count:,} parameters and batches of 20, training takes about [\d.,]+ [MG]B, and [\d.,]+ [MG]B are free "
        r"beside: it fits\.",
        checks["memory"].text,
    ), checks["memory"].text
    # Seven epochs of five steps.
    assert re.fullmatch(
        r"It takes (about .+ s|about .+ min.*|less than a second) on this machine as it is now: 35 steps of "
        r"[\d.]+ (ms|s)( and .+)?\.",
        checks["time"].text,
    ), checks["time"].text


@pytest.mark.parametrize(
    ("free", "verdict", "end"),
    [
        (10**15, "good", "are free beside: it fits."),
        (1_000, "look", "and only 1.0 kB are free beside. Set batch_size to 32."),
        (None, "good", "MB."),
    ],
)
def test_memory_that_is_short_is_worth_a_look(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch, free: int | None, verdict: str, end: str
) -> None:
    monkeypatch.setattr(rehearsal, "available_memory", lambda device: free)
    monkeypatch.setattr(rehearsal, "peak_memory", lambda device: 500.0)
    check = rehearsed(recipe(), colours)["memory"]
    assert check.verdict == verdict
    assert "training takes about 500.0 MB" in check.text
    assert check.text.endswith(end)


def files() -> set[Path]:
    return {path for folder in (data_root(), runs_root()) for path in folder.rglob("*")}


@pytest.mark.slow
def test_nothing_is_written(colours: Dataset) -> None:
    before = files()
    rehearsed(recipe(model="convnet", validation_share=0.1, augment="flip"), colours)
    assert files() == before
    assert not runs_root().exists()


WITH_LITTLE_MEMORY = """
import json, resource, sys
import torch
from engine.data.dataset import open_dataset
from engine.recipes.recipe import Recipe
from engine.advice.rehearsal import rehearse
from engine.base.progress import run_to_end
from engine.training.loop import Training
import engine.advice.rehearsal, sklearn.linear_model, torchvision.models

torch.set_num_threads(1)
torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 9, 9)).sum().backward()
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
recipe = Recipe(**json.loads(sys.argv[1]))
checks = run_to_end(rehearse(recipe, open_dataset(recipe.dataset)), lambda doing: None)
print(json.dumps([check.as_document() for check in checks]))
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("settings", "before", "way_out"),
    [
        # The first convolution of 600 such images makes 314 MB; that of one large image 268 MB.
        ({"model": "convnet", "batch_size": 600}, ["weights"], "Set batch_size to 300, or choose a smaller network"),
        # One goes through as the training is set up, to see whether batch norm can do with it.
        pytest.param({"model": "convnet", "batch_size": 1}, [], "Choose a smaller network", marks=pytest.mark.sweep),
        # A layer of 411 MB: it is not even built.
        pytest.param(
            {"model": "vgg11", "batch_size": 2},
            [],
            "Set batch_size to 1, or choose a smaller network",
            marks=pytest.mark.sweep,
        ),
    ],
    ids=["batch", "image", "network"],
)
def test_too_little_memory_is_told_with_a_way_out(
    make_colours, settings: dict, before: list[str], way_out: str
) -> None:
    side = {600: 64, 1: 1448, 2: 64}[settings["batch_size"]]
    make_colours(train=max(settings["batch_size"], 3), test=0, height=side, width=side)
    chosen = recipe(dataset="colours", epochs=1, **settings)
    arguments = ("-c", WITH_LITTLE_MEMORY, json.dumps(chosen.as_dict()))
    with python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    *others, last = json.loads(stdout)
    assert [check["name"] for check in others] == before
    assert last == {
        "name": "memory",
        "verdict": "bad",
        "text": f"Memory is not enough for a step with batches of {chosen.batch_size}. {way_out} or size.",
    }
