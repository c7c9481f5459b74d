import errno
import json
import os
import pickle
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from engine.base.errors import LoupeError
from engine.data.dataset import (
    Split,
    delete_dataset,
    is_prepared,
    open_dataset,
    prepared_names,
    prepared_root,
    save_dataset,
)

CLASSES = ("cat", "dog", "eel")


def make_split(count: int = 6) -> Split:
    images = np.random.randint(0, 256, (count, 4, 5, 1)).astype(np.uint8)
    return Split(images, np.arange(count) % 3)


def refusal(name: str) -> str:
    with pytest.raises(LoupeError) as refused:
        open_dataset(name)
    return str(refused.value)


def test_what_is_saved_is_what_is_opened():
    train, test = make_split(7), make_split(3)
    save_dataset("animals", CLASSES, {"train": train, "test": test}, "drawn by hand: ø")

    dataset = open_dataset("animals")

    assert (dataset.name, dataset.classes, dataset.source) == ("animals", CLASSES, "drawn by hand: ø")
    assert (dataset.kind, dataset.bad_file_count, dataset.image_shape) == ("images", 0, (4, 5, 1))
    assert list(dataset.splits) == ["train", "test"]
    for saved, opened in ((train, dataset.splits["train"]), (test, dataset.splits["test"])):
        np.testing.assert_array_equal(opened.images, saved.images)
        np.testing.assert_array_equal(opened.labels, saved.labels)
        assert (opened.images.dtype, opened.labels.dtype) == (np.uint8, np.int64)
        assert len(opened) == len(saved.labels)


def test_a_table_is_saved_as_rows_and_has_no_image_shape():
    rows = np.random.rand(5, 4).astype(np.float32)
    save_dataset("points", CLASSES, {"train": Split(rows, np.arange(5) % 3)}, "drawn", kind="table")
    dataset = open_dataset("points")
    assert dataset.kind == "table"
    np.testing.assert_array_equal(dataset.splits["train"].images, rows)
    with pytest.raises(LoupeError, match="points is a table of 4 numbers a row, and this needs images"):
        assert dataset.image_shape


def test_a_deleted_dataset_is_gone(colours):
    delete_dataset("colours")
    assert not is_prepared("colours")
    assert list(prepared_root().iterdir()) == []
    save_dataset("colours", CLASSES, {"train": make_split()}, "drawn")
    assert prepared_names() == ["colours"]


def test_what_is_prepared_is_listed_by_name_and_nothing_else(colours, make_colours):
    make_colours("b-side")
    (prepared_root() / ".half.unfinished").mkdir()
    (prepared_root() / ".half.unfinished" / "dataset.json").write_text("{}")
    (prepared_root() / "empty").mkdir()
    assert prepared_names() == ["b-side", "colours"]


def test_images_are_mapped_and_the_file_is_out_of_reach(colours):
    images = colours.splits["train"].images
    assert isinstance(images, np.memmap)
    stored = prepared_root() / "colours" / "train-images.npy"
    before = stored.read_bytes()
    with pytest.raises(ValueError, match="read-only"):
        images[:] = 0
    assert stored.read_bytes() == before


def test_class_counts_name_every_class_in_every_split():
    train = Split(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 0, 1, 0]))
    test = Split(np.zeros((2, 2, 2, 1), np.uint8), np.array([1, 1]))
    save_dataset("animals", CLASSES, {"train": train, "test": test}, "drawn")
    assert open_dataset("animals").class_counts() == {"train": [3, 1, 0], "test": [0, 2, 0]}


def test_opened_again_it_is_the_same_object(colours):
    assert open_dataset("colours") is colours


def test_replaced_it_is_opened_anew(colours):
    save_dataset("colours", CLASSES, {"train": make_split()}, "drawn")
    description = prepared_root() / "colours" / "dataset.json"
    # A clock tick later: saved within one, the two would be of the same time.
    later = description.stat().st_mtime_ns + 10**9
    os.utime(description, ns=(later, later))
    assert open_dataset("colours").classes == CLASSES


def test_a_dataset_that_is_not_here_is_named_with_the_way_to_get_it():
    assert not is_prepared("animals")
    message = refusal("animals")
    assert "animals is not here yet" in message
    assert "python -m engine get animals" in message


def test_an_unfinished_folder_is_not_a_dataset(colours):
    (prepared_root() / "colours").rename(prepared_root() / ".colours.unfinished")
    assert not is_prepared("colours")
    assert "not here yet" in refusal("colours")


class FullDisk(Mapping):
    """Splits of which only the first fits on the disk."""

    def __getitem__(self, name: str) -> Split:
        if name == "test":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make_split()

    def __iter__(self) -> Iterator[str]:
        return iter(("train", "test"))

    def __len__(self) -> int:
        return 2


def test_saving_that_fails_midway_leaves_nothing_and_can_be_done_again():
    with pytest.raises(LoupeError, match=r"The disk that holds .* is full\. Free some space"):
        save_dataset("animals", CLASSES, FullDisk(), "drawn")
    assert not is_prepared("animals")
    save_dataset("animals", CLASSES, {"train": make_split()}, "drawn")
    assert list(open_dataset("animals").splits) == ["train"]
    assert [path.name for path in prepared_root().iterdir()] == ["animals"]


def test_replacing_that_fails_midway_leaves_the_old_dataset(colours):
    with pytest.raises(LoupeError):
        save_dataset("colours", CLASSES, FullDisk(), "drawn")
    assert open_dataset("colours").fingerprint == colours.fingerprint


def test_the_fingerprint_is_of_the_content():
    split = make_split()
    images, labels = split.images, split.labels
    pixel, label = images.copy(), labels.copy()
    pixel[3, 2, 1, 0] ^= 1
    label[3] = (label[3] + 1) % 3

    def fingerprint(
        name="animals", classes=CLASSES, images=images, labels=labels, parts=("train",), source="drawn"
    ) -> str:
        save_dataset(name, classes, dict.fromkeys(parts, Split(images, labels)), source)
        return json.loads((prepared_root() / name / "dataset.json").read_text())["fingerprint"]

    same = {fingerprint(), fingerprint(name="beasts"), fingerprint(source="painted")}
    other = {
        fingerprint(images=pixel),
        fingerprint(labels=label),
        fingerprint(classes=("cat", "dog", "owl")),
        fingerprint(parts=("test",)),
        fingerprint(parts=("train", "test")),
        fingerprint(images=images.reshape(6, 5, 4, 1)),
    }
    assert len(same) == 1
    assert len(other | same) == 7


DAMAGE = {
    "json cut short": ("dataset.json", lambda content: content[: len(content) // 2]),
    "json empty": ("dataset.json", lambda content: b""),
    "json of another kind": ("dataset.json", lambda content: b"[1, 2]"),
    "json not text": ("dataset.json", lambda content: b"\xff\xfe\x00"),
    "json without classes": ("dataset.json", lambda content: content.replace(b'"classes"', b'"glasses"')),
    "images cut short": ("train-images.npy", lambda content: content[:-10]),
    "labels cut short": ("test-labels.npy", lambda content: content[:-3]),
    "fewer labels": ("train-labels.npy", lambda content: content.replace(b"(90,)", b"(89,)")[:-8]),
    "header broken": ("train-labels.npy", lambda content: content.replace(b", }", b",  ")),
    "images empty": ("test-images.npy", lambda content: b""),
    "images missing": ("test-images.npy", None),
    "labels missing": ("train-labels.npy", None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_with_the_name_and_the_way_out(colours, damage):
    file, change = DAMAGE[damage]
    folder = prepared_root() / "colours"
    # Renamed, because the one that is whole is already open.
    folder = folder.rename(folder.with_name("scratched"))
    if change:
        content = (folder / file).read_bytes()
        assert change(content) != content
        (folder / file).write_bytes(change(content))
    else:
        (folder / file).unlink()

    message = refusal("scratched")
    assert message.startswith("The prepared dataset scratched is damaged (")
    assert message.endswith(f"Delete {folder}, then get or import it again.")
    assert "\n" not in message
    assert "()" not in message


@pytest.mark.parametrize("wrapped", [True, False], ids=["array of objects", "bare pickle"])
@pytest.mark.parametrize("file", ["train-images.npy", "train-labels.npy"])
def test_pickles_in_arrays_are_refused_and_not_run(colours, trap, file, wrapped):
    folder = prepared_root() / "colours"
    folder = folder.rename(folder.with_name("scratched"))
    if wrapped:
        np.save(folder / file, np.array([trap] * 90, dtype=object), allow_pickle=True)
    else:
        (folder / file).write_bytes(pickle.dumps(trap))

    assert "scratched is damaged" in refusal("scratched")
    assert not trap.sprung
