import os
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
import torch
from filelock import FileLock
from full_disk import files_limited_to
from processes import python
from small_networks import extractor_of, network
from torch import nn

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, delete_dataset, open_dataset, save_dataset
from engine.networks import features
from engine.networks.augment import augment
from engine.networks.features import Features, View
from engine.networks.inference import as_tensor
from engine.recipes.augmentation import parse_augmentation
from engine.training.loop import extract

MakeColours = Callable[..., Dataset]

TURNED = parse_augmentation("flip shift=2 rotate=20")
EVERY = np.arange(90)


def expected_rows(images: np.ndarray, size: tuple[int, int] | None = None) -> torch.Tensor:
    """What the last layer of the network is given for some images, as its forward pass has it."""
    model = network().eval()
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 255
    if size:
        pixels = nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    rows: list[torch.Tensor] = []
    model[-1].register_forward_hook(lambda module, inputs, output: rows.append(inputs[0]))
    with torch.no_grad():
        model(pixels)
    return rows[0]


def fill(kept: Features, indices: np.ndarray = EVERY) -> int:
    """Compute what is missing; returns how many that were."""
    return sum(kept.fill(indices))


def state_of(kept: Features) -> tuple[bytes, bytes, int]:
    return kept.values.read_bytes(), kept.there.read_bytes(), kept.there.stat().st_mtime_ns


def test_features_are_what_the_head_is_given(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    assert fill(kept) == 90
    rows = kept.open()
    assert (rows.dtype, rows.shape) == (torch.float32, (90, 128))
    torch.testing.assert_close(rows, expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


def test_features_of_resized_images_are_those_of_what_the_model_sees(colours: Dataset) -> None:
    kept = Features(colours, "test", extractor_of(colours, size=(24, 20)))
    assert fill(kept, np.arange(30)) == 30
    expected = expected_rows(colours.splits["test"].images, (24, 20))
    torch.testing.assert_close(kept.open(), expected, rtol=1e-4, atol=1e-5)


def test_only_the_missing_are_computed_whatever_the_order_in_which_they_are_asked_for(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    seen: list[int] = []
    kept.extractor.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    assert fill(kept, np.array([7, 3, 80])) == 3
    assert list(kept.missing(np.array([80, 4, 3, 2]))) == [2, 4]
    assert not kept.open()[4].any()
    assert fill(kept, np.array([80, 4, 3, 2])) == 2
    before = state_of(kept)
    assert fill(kept, np.array([2, 80, 7])) == 0
    assert state_of(kept) == before
    assert seen == [3, 2]
    asked_for = [2, 3, 4, 7, 80]
    expected = expected_rows(colours.splits["train"].images[asked_for])
    torch.testing.assert_close(kept.open()[asked_for], expected, rtol=1e-5, atol=1e-6)


def test_extracting_says_how_many_of_the_missing_are_done(colours: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda preprocess: 40)
    kept = Features(colours, "train", extractor_of(colours))
    fill(kept, np.arange(5))
    told = list(extract(kept, torch.arange(90)))
    assert [(record.done, record.total) for record in told] == [(40, 85), (80, 85), (85, 85)]
    assert list(extract(kept, torch.arange(90))) == []


def test_another_head_has_the_same_features(colours: Dataset) -> None:
    fill(Features(colours, "train", extractor_of(colours)))
    for num_classes, head in ((7, "linear"), (3, "hidden")):
        other = network(num_classes=num_classes, head=head)
        other.load_state_dict(
            {n: v for n, v in network().state_dict().items() if not n.startswith("13.")}, strict=False
        )
        assert fill(Features(colours, "train", extractor_of(colours, other))) == 0


def with_other_statistics() -> nn.Module:
    model = network()
    model[1].running_var[3] *= 1 + 1e-6
    return model


OTHERS: dict[str, Callable[[Dataset], Features]] = {
    "weights": lambda dataset: Features(dataset, "train", extractor_of(dataset, network(seed=1))),
    "batch norm": lambda dataset: Features(dataset, "train", extractor_of(dataset, with_other_statistics())),
    "size": lambda dataset: Features(dataset, "train", extractor_of(dataset, size=(24, 20))),
    "scaling": lambda dataset: Features(dataset, "train", extractor_of(dataset, scaling="imagenet")),
    "precision": lambda dataset: Features(dataset, "train", extractor_of(dataset, precision="bfloat16")),
    "a view": lambda dataset: Features(dataset, "train", extractor_of(dataset), View(TURNED, 0, 1)),
    "split": lambda dataset: Features(dataset, "test", extractor_of(dataset)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_features_depend_on_has_files_of_its_own(colours: Dataset, what: str) -> None:
    first = Features(colours, "train", extractor_of(colours))
    fill(first)
    before = state_of(first)
    other = OTHERS[what](colours)
    indices = np.arange(30)
    assert fill(other, indices) == 30
    assert fill(other, indices) == 0
    assert not torch.equal(other.open()[:30], first.open()[:30])
    assert state_of(first) == before


def test_the_same_images_have_the_same_features_whatever_their_labels(colours: Dataset) -> None:
    extractor = extractor_of(colours)
    first = Features(colours, "train", extractor)
    fill(first)

    def beside(name: str, classes: tuple[str, ...], change: Callable[[Split], Split]) -> Features:
        """Return the features of the same dataset with some of it changed, beside which the first's were put."""
        save_dataset(name, classes, {name: change(split) for name, split in colours.splits.items()}, "generated")
        other = open_dataset(name)
        for file in (first.values, first.there):
            shutil.copy(file, other.folder)
        return Features(other, "train", extractor)

    def retouched(split: Split) -> Split:
        images = split.images.copy()
        images[-1, 0, 0, 0] ^= 1
        return Split(images, split.labels)

    relabelled = beside("relabelled", ("red", "green", "azure"), lambda split: Split(split.images, split.labels[::-1]))
    assert len(relabelled.missing(np.arange(90))) == 0
    assert torch.equal(relabelled.open(), first.open())
    assert len(beside("retouched", colours.classes, retouched).missing(np.arange(90))) == 90


@pytest.mark.slow
def test_each_view_has_files_of_its_own(colours: Dataset) -> None:
    views = [View(TURNED, 0, 0), View(TURNED, 0, 1), View(TURNED, 1, 0), View(parse_augmentation("flip"), 0, 0)]
    rows = []
    for view in views:
        kept = Features(colours, "train", extractor_of(colours), view)
        assert fill(kept) == 90
        rows.append(kept.open().clone())
    assert len({row.numpy().tobytes() for row in rows}) == len(views)


@pytest.mark.slow
def test_a_view_of_an_image_follows_from_its_place_whichever_are_asked_for_with_it(colours: Dataset) -> None:
    view = View(TURNED, 3, 1)
    images = as_tensor(colours.splits["train"].images)
    together = view.of(images[[5, 6, 7]], np.array([5, 6, 7]))
    assert torch.equal(view.of(images[[6]], np.array([6])), together[1:2])
    assert not torch.equal(together, images[[5, 6, 7]])
    # Alike images in different places are changed in different ways.
    alike = view.of(images[[5] * 8], np.arange(8))
    assert len({image.numpy().tobytes() for image in alike}) > 4

    kept = Features(colours, "train", extractor_of(colours), view)
    fill(kept)
    changed = view.of(images, EVERY)
    assert changed.dtype == torch.uint8
    torch.testing.assert_close(kept.open(), expected_rows(changed.numpy()), rtol=1e-5, atol=1e-6)


def test_a_view_changes_images_as_training_does(colours: Dataset) -> None:
    images = as_tensor(colours.splits["train"].images)[:200]
    shift = parse_augmentation("shift=2")
    shifted = View(shift, 0, 0).of(images, EVERY)
    possible = [augment(images[:1], shift, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert any(torch.equal(shifted[:1], one) for one in possible)


def test_a_dataset_that_is_made_again_has_new_features(make_colours: MakeColours) -> None:
    first = Features(make_colours(), "train", extractor_of(open_dataset("colours")))
    fill(first)
    splits = {name: Split(255 - np.array(split.images), split.labels) for name, split in first_splits().items()}
    save_dataset("colours", ("red", "green", "blue"), splits, "generated by the tests")
    assert not first.values.exists()
    again = Features(open_dataset("colours"), "train", extractor_of(open_dataset("colours")))
    assert again.values != first.values
    assert fill(again) == 90
    expected = expected_rows(open_dataset("colours").splits["train"].images)
    torch.testing.assert_close(again.open(), expected, rtol=1e-5, atol=1e-6)


def first_splits() -> dict[str, Split]:
    return dict(open_dataset("colours").splits)


def test_features_go_with_their_dataset(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    fill(kept)
    delete_dataset("colours")
    assert not kept.values.exists()
    assert not list(colours.folder.parent.rglob("features-*"))


# Room


def used(kept: Features, when: int) -> Features:
    """Fill features, and have them last used at a time."""
    fill(kept)
    os.utime(kept.values, (when, when))
    return kept


def test_room_is_made_of_what_was_not_used_for_longest(colours: Dataset, monkeypatch) -> None:
    a, b, c, d = (Features(colours, "train", extractor_of(colours, network(seed))) for seed in range(4))
    monkeypatch.setattr(features, "KEPT_BYTES", 3 * a.bytes)
    for kept, when in ((a, 1), (b, 2), (c, 3)):
        used(kept, when)
    assert fill(a) == 0  # it is used, so that b is the oldest now
    fill(d)
    assert [kept.values.exists() for kept in (a, b, c, d)] == [True, False, True, True]
    assert [kept.there.exists() for kept in (a, b, c, d)] == [True, False, True, True]
    assert fill(b) == 90
    assert [kept.values.exists() for kept in (a, b, c, d)] == [True, True, False, True]
    torch.testing.assert_close(a.open(), expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


def test_features_that_are_larger_than_all_the_room_are_kept_alone(colours: Dataset, monkeypatch) -> None:
    a, b, c = (Features(colours, "train", extractor_of(colours, network(seed))) for seed in range(3))
    used(a, 1), used(b, 2)
    monkeypatch.setattr(features, "KEPT_BYTES", 100)
    assert fill(c) == 90
    assert [kept.values.exists() for kept in (a, b, c)] == [False, False, True]


@pytest.mark.slow
def test_features_that_are_being_computed_are_not_deleted_to_make_room(colours: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda preprocess: 40)
    a, b, c = (Features(colours, "train", extractor_of(colours, network(seed))) for seed in range(3))
    monkeypatch.setattr(features, "KEPT_BYTES", a.bytes)
    used(b, 2)
    filling = a.fill(EVERY)
    next(filling)
    os.utime(a.values, (1, 1))
    b = used(Features(colours, "train", extractor_of(colours, network(1))), 2)
    fill(c)
    assert [kept.values.exists() for kept in (a, b, c)] == [True, False, True]
    assert sum(filling) == 50
    torch.testing.assert_close(a.open(), expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


# Processes that are killed, and several at once


def test_what_was_computed_before_an_end_is_not_computed_again_and_all_comes_out_the_same(
    make_colours: MakeColours, monkeypatch
) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda preprocess: 32)
    dataset = make_colours()
    whole = Features(make_colours("others"), "train", extractor_of(dataset))
    fill(whole)
    kept = Features(dataset, "train", extractor_of(dataset))
    filling = kept.fill(EVERY)
    next(filling)
    filling.close()
    assert list(kept.missing(EVERY)) == list(range(32, 90))
    assert fill(kept) == 58
    assert torch.equal(kept.open(), whole.open())


def test_a_large_file_that_was_deleted_by_hand_is_made_again(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    fill(kept)
    kept.values.unlink()
    assert len(kept.missing(EVERY)) == 90
    assert fill(kept) == 90
    torch.testing.assert_close(kept.open(), expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


FILL = """
import sys
import numpy as np, torch
from small_networks import extractor_of
from engine.networks import features
from engine.data.dataset import open_dataset
torch.set_num_threads(1)
features.batch_size_for = lambda preprocess: 20
dataset = open_dataset("colours")
kept = features.Features(dataset, "train", extractor_of(dataset))
first, last = map(int, sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
print(sum(kept.fill(np.arange(first, last))))
"""


@pytest.mark.processes
def test_two_processes_may_compute_the_same_features_at_once(make_colours: MakeColours) -> None:
    dataset = make_colours(train=900)
    kept = Features(dataset, "train", extractor_of(dataset))
    environment = os.environ | {"PYTHONPATH": "tests"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    ranges = [("0", "600"), ("300", "900")]
    processes = [python("-c", FILL, *asked_for, env=environment, **pipes) for asked_for in ranges]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both begin now
        process.stdin.write("\n")
        process.stdin.flush()
    computed = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(computed) == 900
    assert sorted(computed) == [300, 600]  # what is asked for by both is computed by the first alone
    assert not len(kept.missing(np.arange(900)))
    expected = expected_rows(dataset.splits["train"].images)
    torch.testing.assert_close(kept.open(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.processes
def test_who_comes_while_another_computes_waits(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    fill(kept, np.arange(5))
    with FileLock(kept.values.with_suffix(".lock")):
        environment = os.environ | {"PYTHONPATH": "tests"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = python("-c", FILL, "0", "90", env=environment, **pipes)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert len(kept.missing(EVERY)) == 85
    assert process.communicate()[0] == "85\n"


# Disks


def test_features_that_the_disk_has_no_room_for_are_told_in_a_sentence(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    with files_limited_to(kept.bytes - 1), pytest.raises(LoupeError) as raised:
        fill(kept)
    assert str(raised.value).startswith(f"{colours.folder} cannot be written (File too large). ")
    assert fill(kept) == 90
    torch.testing.assert_close(kept.open(), expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 0.5, 29, 29.5, 30, 30.25, 59.5])
def test_a_row_that_the_disk_has_room_for_in_part_counts_as_missing(colours: Dataset, monkeypatch, rows: float) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda preprocess: 30)
    kept = Features(colours, "train", extractor_of(colours))
    fill(kept, EVERY[:0])  # an empty file, of which a full disk takes a part only
    with files_limited_to(max(90, int(rows * 128 * 4))), pytest.raises(LoupeError, match="cannot be written"):
        fill(kept, EVERY[:60])
    assert len(kept.missing(EVERY)) == 90 - 30 * int(rows // 30)
    assert fill(kept) == 90 - 30 * int(rows // 30)
    torch.testing.assert_close(kept.open(), expected_rows(colours.splits["train"].images), rtol=1e-5, atol=1e-6)


def test_features_of_a_dataset_that_was_deleted_meanwhile_leave_nothing_behind(colours: Dataset) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    delete_dataset("colours")
    with pytest.raises(LoupeError, match="The dataset colours was deleted in the meantime"):
        fill(kept)
    assert not colours.folder.exists()


@pytest.mark.parametrize("file", ["values", "there"])
@pytest.mark.parametrize("left", [0, 100])
def test_files_that_were_cut_short_are_not_taken_for_whole(colours: Dataset, file: str, left: int) -> None:
    kept = Features(colours, "train", extractor_of(colours))
    assert sum(kept.fill(EVERY)) == 90
    whole = kept.open().clone()
    damaged = getattr(kept, file)
    damaged.write_bytes(damaged.read_bytes()[: left // (1 if file == "values" else 2)])
    assert kept.missing(EVERY).tolist() == EVERY.tolist()
    assert sum(kept.fill(EVERY)) == 90
    torch.testing.assert_close(kept.open(), whole)
