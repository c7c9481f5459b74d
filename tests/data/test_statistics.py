from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data import statistics
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.statistics import average_class, mean_and_std, pixel_levels

MakeSet = Callable[..., Dataset]


@pytest.fixture
def make_set() -> MakeSet:
    """Make and save a dataset of noise that gets brighter, of classes that take turns: 40 images to train on."""

    def make(height: int = 6, width: int = 4, channels: int = 3, count: int = 40, classes: int = 3) -> Dataset:
        brightest = np.linspace(20, 256, count)[:, np.newaxis, np.newaxis, np.newaxis]
        images = (np.random.random((count, height, width, channels)) * brightest).astype(np.uint8)
        labels = np.arange(count) % classes
        splits = {"train": Split(images, labels), "test": Split(images[::3] // 2, np.zeros_like(labels[::3]))}
        save_dataset("noise", tuple("abcdefgh"[:classes]), splits, "generated")
        return open_dataset("noise")

    return make


def levels_file(dataset: Dataset) -> Path:
    return dataset.folder / "train-levels.npy"


# Levels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block_bytes", [1, 500, 8_000_000])
def test_levels_are_counted_as_numpy_does_whatever_the_blocks(make_set, channels, block_bytes, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK_BYTES", block_bytes)
    dataset = make_set(channels=channels)
    images = np.asarray(dataset.splits["train"].images)
    levels = pixel_levels(dataset)
    assert levels.dtype == np.int64
    for channel in range(channels):
        np.testing.assert_array_equal(levels[channel], np.bincount(images[..., channel].ravel(), minlength=256))


def test_mean_and_deviation_are_numpys(make_set):
    dataset = make_set()
    mean, std = mean_and_std(pixel_levels(dataset))
    values = dataset.splits["train"].images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=(0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_the_deviation_of_blank_images_is_0(level):
    levels = np.zeros((1, 256), np.int64)
    levels[0, level] = 123_456_789
    mean, std = mean_and_std(levels)
    assert mean == pytest.approx(level / 255)
    assert std == 0


def test_levels_are_kept_beside_the_dataset(make_set):
    dataset = make_set()
    levels = pixel_levels(dataset)
    np.testing.assert_array_equal(np.load(levels_file(dataset)), levels)
    np.save(levels_file(dataset), levels + 1)  # what is there is taken, not counted again
    np.testing.assert_array_equal(pixel_levels(dataset), levels + 1)
    assert [path.name for path in dataset.folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array"),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: np.save(path, np.zeros((1, 256), np.int64)),
        lambda path: np.save(path, np.zeros((3, 256))),
    ],
    ids=["empty", "no array", "cut short", "of another shape", "of another type"],
)
def test_levels_that_are_damaged_are_counted_again(make_set, damage):
    dataset = make_set()
    levels = pixel_levels(dataset)
    damage(levels_file(dataset))
    np.testing.assert_array_equal(pixel_levels(dataset), levels)
    np.testing.assert_array_equal(np.load(levels_file(dataset)), levels)


def test_levels_that_unpickle_to_code_are_not_unpickled(make_set, trap):
    dataset = make_set()
    levels = pixel_levels(dataset)
    np.save(levels_file(dataset), np.array([trap], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(pixel_levels(dataset), levels)
    assert not trap.sprung


def test_levels_that_cannot_be_kept_are_counted_all_the_same(make_set):
    dataset = make_set()
    levels_file(dataset).mkdir()  # in the way
    expected = np.bincount(dataset.splits["train"].images[..., 1].ravel(), minlength=256)
    np.testing.assert_array_equal(pixel_levels(dataset)[1], expected)
    assert sorted(path.name for path in dataset.folder.iterdir() if path.name.startswith(".")) == []


# Averages


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block_bytes", [1, 2000, 8_000_000])
@pytest.mark.parametrize("label", [0, 2])
def test_mean_and_deviation_of_a_class_are_numpys(make_set, channels, block_bytes, label, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK_BYTES", block_bytes)
    dataset = make_set(channels=channels)
    split = dataset.splits["train"]
    images = split.images[split.labels == label].astype(np.float64)
    average = average_class(dataset, "train", label)
    assert average.mean.shape == average.std.shape == (6, 4, channels)
    np.testing.assert_allclose(average.mean, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(average.std, images.std(axis=0), rtol=1e-5, atol=1e-4)
    assert average.variation == pytest.approx(np.sqrt(images.var(axis=0).mean()))
    assert average.used == average.count == len(images)


def test_a_class_without_images_has_no_average(make_set):
    dataset = make_set()
    assert average_class(dataset, "test", 1) is None
    assert average_class(dataset, "test", 0).count == len(dataset.splits["test"])


def test_images_that_are_all_alike_do_not_vary():
    images = np.full((30, 5, 5, 1), 201, np.uint8)
    save_dataset("blank", ("a", "b"), {"train": Split(images, np.arange(30) % 2)}, "generated")
    average = average_class(open_dataset("blank"), "train", 1)
    assert (average.mean == 201).all()
    assert (average.std == 0).all()
    assert average.variation == 0


def test_of_many_images_some_are_averaged_evenly_spread(make_set, monkeypatch):
    dataset = make_set(count=300)
    bytes_each = dataset.splits["train"].images[0].nbytes
    monkeypatch.setattr(statistics, "AVERAGED_BYTES", 25 * bytes_each * 3)
    monkeypatch.setattr(statistics, "LEAST_AVERAGED", 1)
    average = average_class(dataset, "train", 1)
    assert (average.used, average.count) == (25, 100)
    # They get brighter, so that any stretch of them has another mean than they all.
    images = dataset.splits["train"].images[1::3]
    assert average.mean.mean() == pytest.approx(images.mean(), rel=0.05)
    spread = images[np.linspace(0, 99, 25).astype(int)].astype(np.float64)
    np.testing.assert_allclose(average.mean, spread.mean(axis=0), rtol=1e-6)


def test_however_large_images_are_some_of_each_class_are_averaged(make_set, monkeypatch):
    monkeypatch.setattr(statistics, "AVERAGED_BYTES", 1)
    average = average_class(make_set(count=300), "train", 0)
    assert (average.used, average.count) == (statistics.LEAST_AVERAGED, 100)


@pytest.mark.parametrize(("height", "width", "shape"), [(20, 16, (10, 8)), (21, 17, (7, 5)), (16, 31, (4, 7))])
def test_large_images_are_made_smaller_by_the_mean_of_squares(make_set, height, width, shape, monkeypatch):
    monkeypatch.setattr(statistics, "AVERAGE_SIDE", 10)
    dataset = make_set(height=height, width=width)
    average = average_class(dataset, "train", 1)
    step = -(-max(height, width) // 10)
    rows, columns = shape
    images = dataset.splits["train"].images[1::3].astype(np.float64)
    small = np.empty((len(images), rows, columns, 3))
    for row in range(rows):
        for column in range(columns):
            square = images[:, row * step : (row + 1) * step, column * step : (column + 1) * step]
            small[:, row, column] = square.mean(axis=(1, 2))
    assert average.mean.shape == (*shape, 3)
    np.testing.assert_allclose(average.mean, small.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(average.std, small.std(axis=0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(1, 200), (200, 1)])
def test_a_narrow_image_is_averaged_too(height: int, width: int) -> None:
    images = np.random.randint(0, 256, (3, height, width, 1)).astype(np.uint8)
    save_dataset("narrow", ("a", "b"), {"train": Split(images, np.array([0, 0, 1]))}, "drawn")
    average = average_class(open_dataset("narrow"), "train", 0)
    np.testing.assert_allclose(average.mean, images[:2].mean(axis=0), atol=1e-4)
