import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from picture_files import import_pictures, png, write
from PIL import Image, ImageFilter

from engine.audit import inspection, similarity
from engine.audit import outliers as oddities
from engine.audit.inspection import (
    DEFAULT_THRESHOLD,
    MAX_DISTANCE,
    Inspection,
    Outlier,
    Pair,
    Place,
    Progress,
    as_document,
    inspect,
    load_inspection,
)
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset

MakeSet = Callable[..., Dataset]


def photographs(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """Make what stands for ordinary photographs: soft shapes on a slope of some colour, under fine texture."""
    random_state = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        slope = random_state.uniform(-25, 25, 2) @ np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].reshape(2, -1)
        shapes = Image.fromarray(random_state.normal(0, 35, (5, 5)).astype(np.float32)).resize((side, side), 3)
        light = slope.reshape(side, side) + np.asarray(shapes) + random_state.normal(0, 10, (side, side))
        images.append(random_state.uniform(70, 180, 3) + light[..., np.newaxis])
    return to_levels(np.stack(images))


def to_levels(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, radius: float = 3) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def recompressed(image: np.ndarray) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=50)
    return np.asarray(Image.open(content))


def halved(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC))


def noisy(image: np.ndarray) -> np.ndarray:
    return to_levels(image + np.random.default_rng(9).normal(0, 4, image.shape))


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """Make a dataset that is not saved, of images by split; labels are 0 unless given by split."""

    def make(labels: dict[str, list[int]] | None = None, kind: str = "images", **images: np.ndarray) -> Dataset:
        splits = {
            name: Split(part, np.array((labels or {}).get(name, [0] * len(part)), np.int64))
            for name, part in images.items()
        }
        (tmp_path / "set").mkdir(exist_ok=True)
        return Dataset("set", ("zero", "one"), splits, "generated", "0123", "4567", tmp_path / "set", kind)

    return make


def check(dataset: Dataset, sizes=None) -> tuple[Inspection, list[Progress]]:
    """Go through a check: its result and all that it told on the way."""
    told, steps = [], inspect(dataset, sizes)
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return end.value, told


def result(dataset: Dataset, sizes=None) -> Inspection:
    return check(dataset, sizes)[0]


def places(pairs: tuple[Pair, ...]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    return [((pair.first.split, pair.first.index), (pair.second.split, pair.second.index)) for pair in pairs]


def test_each_exact_copy_is_paired_with_the_first_of_its_group(make_set):
    images = photographs(6)
    dataset = make_set(test=images[[5, 0, 0]], train=images[[0, 1, 2, 1]], val=images[[3, 0, 4]])
    found = result(dataset)
    assert places(found.exact) == [
        (("train", 0), ("val", 1)),
        (("train", 0), ("test", 1)),
        (("train", 0), ("test", 2)),
        (("train", 1), ("train", 3)),
    ]
    assert {pair.distance for pair in found.exact} == {0}
    assert found.near == ()
    assert found.leaked_test(0) == [1, 2]


def test_exact_groups_are_those_of_equal_rows(make_set):
    images = np.random.randint(0, 2, (400, 3, 3, 1)).astype(np.uint8)  # 512 kinds: chance makes groups
    found = result(make_set(train=images))
    _, groups = np.unique(images.reshape(400, -1), axis=0, return_inverse=True)
    firsts = {group: np.flatnonzero(groups == group)[0] for group in set(groups.tolist())}
    expected = {(firsts[group], place) for place, group in enumerate(groups.tolist()) if firsts[group] != place}
    assert len(expected) > 50
    assert {(pair.first.index, pair.second.index) for pair in found.exact} == expected
    assert found.near == ()  # too small to have a hash


def test_one_level_in_one_pixel_makes_a_near_copy_of_an_exact_one(make_set):
    images = photographs(20)[[*range(20), 4]]
    images[20, 3, 5, 1] ^= 1
    found = result(make_set(train=images))
    assert found.exact == ()
    assert places(found.near) == [(("train", 4), ("train", 20))]


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        halved,
        noisy,
        lambda image: to_levels(image * 1.2),
        lambda image: to_levels(image * 0.8),
        lambda image: to_levels((image - image.mean()) * 0.7 + image.mean()),
    ],
    ids=["saved again", "halved", "noisy", "brighter", "darker", "paler"],
)
def test_changed_copies_are_found_and_nothing_else(make_set, change):
    images = photographs(60)
    copies = np.stack([change(image) for image in images[:20]])
    found = result(make_set(train=images, test=copies))
    near = found.near_within(DEFAULT_THRESHOLD)
    assert sorted(places(near)) == [(("train", place), ("test", place)) for place in range(20)]
    assert found.leaked_test(DEFAULT_THRESHOLD) == list(range(20))


@pytest.mark.parametrize("side", [8, 11, 100])
def test_copies_are_found_in_images_of_any_size(make_set, side):
    images = photographs(40, side=side)
    found = result(make_set(train=images, test=to_levels(images[:3] * 0.9)))
    assert sorted(places(found.near)) == [(("train", place), ("test", place)) for place in range(3)]


def test_near_copies_come_with_their_distance_closest_first(make_set):
    images = photographs(60)
    shifted = np.stack([np.roll(image, 1, axis=1) for image in images[:20]])
    found = result(make_set(train=images, test=np.concatenate([shifted, to_levels(images[20:40] * 0.9)])))
    distances = [pair.distance for pair in found.near]
    assert distances == sorted(distances)
    assert distances[0] == 0 < distances[-1] <= MAX_DISTANCE
    for threshold in (0, 3, MAX_DISTANCE):
        assert found.near_within(threshold) == tuple(pair for pair in found.near if pair.distance <= threshold)


def test_labels_that_contradict_each_other_are_told(make_set):
    images = photographs(30)
    near = to_levels(images[:2] * 0.9)
    dataset = make_set(
        train=images,
        test=np.concatenate([images[2:4], near]),
        labels={"train": [1, 0] * 15, "test": [1, 1, 0, 0]},
    )
    found = result(dataset)
    assert [(pair.first.index, pair.same_label) for pair in found.exact] == [(2, True), (3, False)]
    assert sorted((pair.first.index, pair.same_label) for pair in found.near) == [(0, False), (1, True)]


def test_images_without_contrast_are_no_near_copies(make_set):
    images = photographs(30)
    # All darkest, but no two equal.
    nothing = np.random.default_rng(1).integers(0, 2, (4, 32, 32, 3)).astype(np.uint8)
    assert result(make_set(train=np.concatenate([images, nothing]))).near == ()


def pair(first: tuple[str, int], second: tuple[str, int], distance: int = 0) -> Pair:
    return Pair(Place(*first), Place(*second), distance, True)


def test_a_leak_goes_through_groups_of_exact_copies():
    exact = (
        pair(("train", 0), ("test", 0)),
        pair(("train", 1), ("train", 2)),
        pair(("test", 3), ("test", 4)),
        pair(("val", 5), ("test", 5)),
        pair(("val", 6), ("train", 6)),
        pair(("test", 8), ("test", 9)),
    )
    near = (
        pair(("train", 1), ("test", 3), 2),
        pair(("train", 7), ("val", 5), 6),
        pair(("val", 6), ("test", 6), 8),
        pair(("val", 8), ("test", 8), 1),
    )
    found = Inspection(exact, near, ())
    assert found.leaked_test(1) == [0]
    assert found.leaked_test(2) == [0, 3, 4]
    assert found.leaked_test(6) == [0, 3, 4, 5]
    assert found.leaked_test(MAX_DISTANCE) == [0, 3, 4, 5, 6]


def test_a_near_copy_of_a_near_copy_is_no_leak():
    near = (pair(("train", 0), ("val", 0), 3), pair(("val", 0), ("test", 0), 3))
    assert Inspection((), near, ()).leaked_test(MAX_DISTANCE) == []


@pytest.mark.slow
def test_a_planted_copy_among_the_digits_is_found(digits):
    splits = {name: Split(np.array(split.images), split.labels) for name, split in digits.splits.items()}
    splits["test"].images[7] = splits["train"].images[100]
    splits["test"].images[9] = to_levels(splits["train"].images[200] * 0.9)
    before, after = result(digits), result(replace(digits, splits=splits))
    planted = {(("train", 100), ("test", 7)), (("train", 200), ("test", 9))}
    assert before.exact == ()
    assert len(before.near) < 0.03 * 1797  # digits of one hand are alike, but not many
    assert places(after.exact) == [(("train", 100), ("test", 7))]
    assert planted & set(places(before.near)) == set()
    assert (("train", 200), ("test", 9)) in places(after.near)
    assert {7, 9} <= set(after.leaked_test(DEFAULT_THRESHOLD))
    assert before.odd == ()


def test_a_table_is_searched_for_equal_rows_alone(make_set):
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found, told = check(make_set(kind="table", train=rows, test=rows[[7, 8, 7]] + np.float32([[0], [1e-3], [0]])))
    assert places(found.exact) == [(("train", 7), ("test", 0)), (("train", 7), ("test", 2))]
    assert found == Inspection(found.exact, (), ())
    assert found.leaked_test(DEFAULT_THRESHOLD) == [0, 2]
    assert told[-1] == Progress("Reading the images", 53, 53)


@pytest.fixture
def ordinary() -> np.ndarray:
    return photographs(40)


def reasons(found: Inspection) -> dict[int, str]:
    return {odd.index: odd.reason for odd in found.odd}


def test_a_blank_image_is_odd(make_set, ordinary):
    ordinary[3], ordinary[4], ordinary[5] = 0, 120, (10, 200, 30)
    ordinary[4, 0, 0] = 124
    found = reasons(result(make_set(train=ordinary)))
    assert found == {
        3: "blank: every pixel is the same, around level 0 of 255",
        5: "blank: every pixel is the same, around level 124 of 255",
        4: "blank: pixels differ by 4 levels at most, around level 120 of 255",
    }
    assert list(found) == [3, 5, 4]


def test_a_grey_blank_image_is_told_by_its_level(make_set, ordinary):
    grey = ordinary[..., :1].copy()
    grey[3] = 255
    assert reasons(result(make_set(train=grey))) == {3: "blank: every pixel is the same, around level 255 of 255"}


def test_a_nearly_black_and_a_nearly_white_image_are_odd(make_set, ordinary):
    ordinary[3] = to_levels(ordinary[3] * 0.05)
    ordinary[30] = to_levels(255 - ordinary[30] * 0.05)
    found = reasons(result(make_set(train=ordinary)))
    assert found.keys() == {3, 30}
    low, high = np.percentile(ordinary.mean(axis=3).mean(axis=(1, 2)), [25, 75])
    assert found[3].startswith("very dark: mean level ")
    assert found[30].startswith("very bright: mean level 2")
    for reason in found.values():
        words = reason.split()
        assert reason.endswith(f"of 255, where half of the images lie between {words[-3]} and {words[-1]}")
        np.testing.assert_allclose([int(words[-3]), int(words[-1])], [low, high], atol=8)  # of luma, not of the mean


def test_a_blurred_image_is_odd(make_set, ordinary):
    ordinary[12] = blurred(ordinary[12])
    found = reasons(result(make_set(train=ordinary)))
    assert found.keys() == {12}
    assert found[12].startswith("blurred: detail 0.0")
    assert "of the contrast, where half of the images lie between 1." in found[12]


def test_pale_but_sharp_is_not_blurred(make_set, ordinary):
    ordinary[12] = to_levels((ordinary[12] - ordinary[12].mean()) * 0.2 + ordinary[12].mean())
    assert result(make_set(train=ordinary)).odd == ()


def test_an_odd_shape_is_told_with_its_pixels(make_set, ordinary):
    train, test = np.full((2, 30), [[400], [300]]), np.full((2, 10), [[300], [400]])  # some are upright
    train[:, 5] = 800, 100
    found = result(make_set(train=ordinary[:30], test=ordinary[30:]), {"train": train, "test": test})
    assert found.odd == (Outlier("train", 5, "odd shape: 800 x 100 pixels, where the usual aspect is 1.33"),)


def test_sizes_of_one_split_are_enough(make_set, ordinary):
    test = np.full((2, 10), 50)
    test[:, 2] = 20, 300
    found = result(make_set(train=ordinary[:30], test=ordinary[30:]), {"test": tuple(test)})
    assert found.odd == (Outlier("test", 2, "odd shape: 20 x 300 pixels, where the usual aspect is 1.00"),)


@pytest.mark.parametrize("count", [30, 60])
def test_all_kinds_are_found_in_a_small_set_worst_first(make_set, count):
    images = photographs(count, seed=count)
    sizes = np.full((2, count), [[400], [300]])
    images[1] = blurred(images[1])
    images[2] = to_levels(images[2] * 0.07)
    images[3] = to_levels(255 - images[3] * 0.07)
    images[4] = 77
    sizes[:, 4] = sizes[:, 5] = 800, 100
    found = result(make_set(train=images), {"train": tuple(sizes)})
    assert {odd.index for odd in found.odd} == {1, 2, 3, 4, 5}
    assert found.odd[0].reason == (
        "blank: every pixel is the same, around level 77 of 255; "
        "odd shape: 800 x 100 pixels, where the usual aspect is 1.33"
    )


@pytest.mark.parametrize("count", [1, 2, 12, 60, 300])
@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: x * 0.08, lambda x: 255 - x * 0.08], ids=["usual", "dark", "bright"]
)
def test_ordinary_images_are_not_odd_nor_are_sets_that_are_dark_or_bright_throughout(make_set, count, change):
    images = to_levels(change(photographs(count, seed=count)))
    sizes = np.random.default_rng(0).integers(300, 500, (2, count))
    assert result(make_set(train=images), {"train": tuple(sizes)}).odd == ()


def test_what_many_images_have_in_common_is_not_odd(make_set, ordinary):
    for count, found in ((8, 8), (9, 0)):
        sizes = np.full((2, 40), [[400], [300]])
        sizes[:, :count] = [[800], [100]]
        assert len(result(make_set(train=ordinary), {"train": tuple(sizes)}).odd) == found


@pytest.mark.parametrize("blank", [9, 40])
def test_blank_images_are_told_of_however_many_they_are(make_set, ordinary, blank):
    ordinary[:blank] = np.arange(blank)[:, np.newaxis, np.newaxis, np.newaxis]
    found = reasons(result(make_set(train=ordinary)))
    assert sorted(found) == list(range(blank))
    assert found[7] == "blank: every pixel is the same, around level 7 of 255"


def test_in_a_set_of_nothing_but_equal_images_all_are_blank(make_set):
    found = result(make_set(train=np.zeros((20, 9, 9, 1), np.uint8)))
    assert len(found.exact) == 19
    assert found.near == ()
    assert len(found.odd) == 20


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 3), (7, 200, 1)])
def test_images_too_small_to_be_compared_are_still_checked(make_set, shape):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape)).astype(np.uint8)
    images[7] = images[3]
    assert (("train", 3), ("train", 7)) in places(result(make_set(train=images)).exact)


def test_the_list_of_odd_images_has_an_end(make_set, ordinary, monkeypatch):
    monkeypatch.setattr(oddities, "MAX_ODD", 2)
    ordinary[3], ordinary[4] = to_levels(ordinary[3] * 0.05), 0
    ordinary[8] = to_levels(ordinary[8] * 0.01)
    assert list(reasons(result(make_set(train=ordinary)))) == [4, 8]


def test_too_many_near_pairs_are_cut_and_that_is_told(make_set, ordinary, monkeypatch):
    images = np.concatenate([ordinary, to_levels(ordinary[:12] * 0.9)])
    for limit, cut in ((11, True), (12, False)):
        monkeypatch.setattr(similarity, "MAX_PAIRS", limit)
        monkeypatch.setattr(inspection, "MAX_PAIRS", limit)
        dataset = make_set(train=images)
        found = result(dataset)
        assert (len(found.near), found.near_cut) == (limit, cut)
        assert load_inspection(dataset) == found


def test_blocks_do_not_show_in_the_result(make_set, ordinary, monkeypatch):
    ordinary[3], ordinary[30] = 0, ordinary[7]
    ordinary[31] = to_levels(ordinary[9] * 0.9)
    whole = result(make_set(train=ordinary[:25], test=ordinary[25:]))
    assert whole.exact and whole.near and whole.odd
    monkeypatch.setattr(inspection, "BLOCK_BYTES", 7 * ordinary[0].nbytes)
    monkeypatch.setattr(similarity, "ROWS", 4)
    assert result(make_set(train=ordinary[:25], test=ordinary[25:])) == whole


def test_progress_goes_up_to_the_end_of_each_stage(make_set, ordinary, monkeypatch):
    monkeypatch.setattr(inspection, "BLOCK_BYTES", ordinary[0].nbytes)
    _, told = check(make_set(train=ordinary))
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["Reading the images", "Comparing the images"]
    for stage in stages:
        steps = [progress for progress in told if progress.stage == stage]
        assert steps[-1].done == steps[-1].total
        assert all(one.done < other.done for one, other in pairwise(steps))


def test_a_check_can_be_given_up(make_set, ordinary):
    dataset = make_set(train=ordinary)
    steps = inspect(dataset)
    next(steps)
    steps.close()
    assert load_inspection(dataset) is None


@pytest.fixture
def checked(ordinary) -> tuple[Dataset, Inspection]:
    """A saved dataset that has been checked, with something of everything found in it."""
    ordinary[3], ordinary[4] = 0, ordinary[5]
    test = np.concatenate([to_levels(ordinary[10:12] * 0.9), ordinary[:1]])
    splits = {"test": Split(test, np.zeros(3, int)), "train": Split(ordinary, np.arange(40) % 2)}
    save_dataset("checked", ("zero", "one"), splits, "generated")
    dataset = open_dataset("checked")
    found = result(dataset)
    assert found.exact and found.near and found.odd
    return dataset, found


def test_a_result_is_kept_beside_its_dataset(checked):
    dataset, found = checked
    assert load_inspection(open_dataset("checked")) == found
    assert [file.name for file in dataset.folder.glob("*inspection*")] == ["inspection.json"]


def test_no_result_before_a_check(make_set, ordinary):
    assert load_inspection(make_set(train=ordinary)) is None


def test_a_result_is_of_the_images_whatever_their_labels(checked):
    dataset, found = checked

    def beside(name: str, change: Callable[[Split], Split]) -> Inspection | None:
        """Read what was found, put beside the same dataset with some of it changed."""
        splits = {name: change(split) for name, split in dataset.splits.items()}
        save_dataset(name, ("eins", "zwei"), splits, "generated")
        other = open_dataset(name)
        shutil.copy(dataset.folder / "inspection.json", other.folder)
        return load_inspection(other)

    def pixel_changed(split: Split) -> Split:
        images = split.images.copy()
        images[-1, 0, 0, 0] ^= 1
        return replace(split, images=images)

    assert not all(pair.same_label for pair in found.exact + found.near)
    again = beside("relabelled", lambda split: replace(split, labels=np.zeros_like(split.labels)))
    assert all(pair.same_label for pair in again.exact + again.near)
    assert [(pair.first, pair.second, pair.distance) for pair in again.exact + again.near] == [
        (pair.first, pair.second, pair.distance) for pair in found.exact + found.near
    ]
    assert (again.odd, again.near_cut) == (found.odd, found.near_cut)
    assert beside("retouched", pixel_changed) is None


DAMAGE: dict[str, Callable[[dict], object]] = {
    "another format": lambda document: document.update(format=1),
    "no near pairs": lambda document: document.pop("near"),
    "an image that is not there": lambda document: document["exact"].append([0, 43]),
    "an image before the first": lambda document: document["near"].append([-1, 0, 3]),
    "a pair of three": lambda document: document["exact"].append([0, 1, 2]),
    "words for images": lambda document: document["odd"].append(["first", "dark"]),
    "no list": lambda document: document.update(odd=3),
    "a fraction": lambda document: document["near"].append([0.5, 1, 3]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_result_does_not_count(checked, damage):
    dataset, _ = checked
    file = dataset.folder / "inspection.json"
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    assert load_inspection(dataset) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_result_does_not_count_and_is_replaced(checked, content):
    dataset, found = checked
    (dataset.folder / "inspection.json").write_bytes(content)
    assert load_inspection(dataset) is None
    assert result(dataset) == found
    assert load_inspection(dataset) == found


def test_a_result_that_cannot_be_saved_is_still_returned(make_set, ordinary, tmp_path):
    ordinary[3] = 0
    dataset = replace(make_set(train=ordinary), folder=tmp_path / "gone")
    assert reasons(result(dataset)) == {3: "blank: every pixel is the same, around level 0 of 255"}
    assert load_inspection(dataset) is None


def test_a_document_is_plain_data(checked):
    dataset, found = checked
    bad_files = [{"file": "a.jpg", "reason": "It is empty."}]
    document = as_document(dataset, found, DEFAULT_THRESHOLD, bad_files)
    assert json.loads(json.dumps(document)) == document
    assert document["threshold"] == DEFAULT_THRESHOLD
    assert document["leaked_test"] == found.leaked_test(DEFAULT_THRESHOLD)
    assert document["bad_files"] == bad_files
    for pairs, described in ((found.exact, document["exact"]), (found.near, document["near"])):
        assert len(described) == len(pairs) > 0
        for one, row in zip(pairs, described, strict=True):
            assert (row["distance"], row["same_label"]) == (one.distance, one.same_label)
            assert (row["first"]["split"], row["first"]["index"]) == (one.first.split, one.first.index)
            assert (row["second"]["split"], row["second"]["index"]) == (one.second.split, one.second.index)
    for odd, row in zip(found.odd, document["odd"], strict=True):
        assert (row["split"], row["index"], row["reason"]) == (odd.split, odd.index, odd.reason)
    # Made of arrays, its images have labels but no files.
    first = document["exact"][0]["first"]
    label = dataset.classes[dataset.splits[first["split"]].labels[first["index"]]]
    assert (first["label"], first["file"]) == (label, None)


@pytest.mark.slow
def test_a_document_names_the_files_of_an_import(tmp_path):
    files = {f"{label}/{number}.png": png(number, 16, 16) for number, label in enumerate("aabbab")}
    files["b/twin.png"] = files["a/0.png"]
    dataset = import_pictures("pets", write(tmp_path / "pets", files), test_share=0)
    (twins,) = as_document(dataset, result(dataset), DEFAULT_THRESHOLD, [])["exact"]
    assert (twins["first"]["file"], twins["first"]["label"]) == ("a/0.png", "a")
    assert (twins["second"]["file"], twins["second"]["label"]) == ("b/twin.png", "b")
    assert not twins["same_label"]


def test_a_document_holds_the_near_pairs_within_its_threshold(checked):
    near = (pair(("train", 0), ("test", 0), 2), pair(("train", 1), ("test", 1), 5))
    document = as_document(checked[0], Inspection((), near, ()), 4, [])
    assert [found["distance"] for found in document["near"]] == [2]
    assert document["leaked_test"] == [0]
