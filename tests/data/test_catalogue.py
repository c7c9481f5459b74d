import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.base.errors import LoupeError
from engine.data.catalogue import (
    CATALOGUE,
    Progress,
    dataset_names,
    describe_datasets,
    download_folder,
    download_progress,
    find_source,
    manual_download_help,
    seconds_left,
    title_of,
)
from engine.data.dataset import (
    Split,
    begin_dataset,
    finish_dataset,
    is_prepared,
    prepared_root,
    save_dataset,
)
from engine.data.download_job import start_download


def test_digits_are_the_scans_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.concatenate([split.images for split in digits.splits.values()])
    labels = np.concatenate([split.labels for split in digits.splits.values()])

    assert digits.image_shape == (8, 8, 1)
    assert len(labels) == 1797
    # Every scan with its label, none twice: 0..16 became the nearest of 0..255, so the way back is exact.
    back = np.round(images[..., 0] * (16 / 255)).astype(int)
    assert Counter((image.tobytes(), label) for image, label in zip(back, labels, strict=True)) == Counter(
        (image.astype(int).tobytes(), label) for image, label in zip(scans.images, scans.target, strict=True)
    )
    assert (images.min(), images.max()) == (0, 255)


def test_a_fifth_of_each_digit_is_for_testing(digits):
    counts = {name: np.array(count) for name, count in digits.class_counts().items()}
    assert counts["test"].sum() == 360
    np.testing.assert_allclose(counts["test"], 0.2 * (counts["train"] + counts["test"]), atol=1)


@pytest.mark.parametrize("look_up", [find_source, start_download, download_progress, manual_download_help])
def test_an_unknown_name_is_answered_with_the_known_ones(colours, look_up):
    with pytest.raises(LoupeError) as refused:
        look_up("mnits")
    assert str(refused.value) == (
        "There is no dataset 'mnits'. Known datasets: digits, blobs, mnist, kmnist, fashion-mnist, emnist-balanced, "
        "emnist-letters, cifar10, cifar100, svhn and colours."
    )


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere"])
def test_a_name_that_is_a_way_to_a_folder_is_unknown(digits, name):
    elsewhere = prepared_root() / name
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "dataset.json").write_text("{}")
    with pytest.raises(LoupeError, match="There is no dataset"):
        start_download(name)


def test_a_dataset_of_ones_own_has_no_source_to_download_from(colours):
    with pytest.raises(LoupeError) as refused:
        find_source("colours")
    assert str(refused.value) == "colours was imported on this machine, and cannot be downloaded. Import it again."


def test_every_dataset_is_described_and_none_is_here_at_first():
    descriptions = {description["name"]: description for description in describe_datasets()}
    assert list(descriptions) == list(CATALOGUE) == dataset_names()
    for name, description in descriptions.items():
        assert (description["present"], description["images"], description["bad_files"]) == (False, {}, 0)
        assert description["classes"] == list(CATALOGUE[name].classes)
        assert (description["download_bytes"] == 0) == (name in ("digits", "blobs"))
        assert description["kind"] == ("table" if name == "blobs" else "images")
        assert not description["own"]
        assert description["title"] == title_of(name) == CATALOGUE[name].title


def test_classes_have_the_names_that_people_read():
    classes = {name: source.classes for name, source in CATALOGUE.items()}
    counts = {name: len(set(names)) for name, names in classes.items()}
    assert counts == {name: len(names) for name, names in classes.items()}
    assert counts == {
        **dict.fromkeys(("digits", "mnist", "kmnist", "fashion-mnist", "cifar10", "svhn"), 10),
        **{"blobs": 3, "emnist-balanced": 47, "emnist-letters": 26, "cifar100": 100},
    }
    assert [classes["cifar10"][number] for number in (0, 5, 9)] == ["airplane", "dog", "truck"]
    assert [classes["cifar100"][number] for number in (0, 1, 50, 99)] == ["apple", "aquarium fish", "mouse", "worm"]
    assert classes["cifar100"] == tuple(sorted(classes["cifar100"]))
    assert (classes["emnist-letters"][0], classes["emnist-letters"][25]) == ("a", "z")


def test_the_classes_of_emnist_are_in_the_order_of_torchvision():
    from torchvision.datasets import EMNIST

    assert CATALOGUE["emnist-balanced"].classes == tuple(EMNIST.classes_split_dict["balanced"])
    assert CATALOGUE["emnist-letters"].classes == tuple(EMNIST.classes_split_dict["letters"][1:])


def test_what_is_here_is_described_with_its_images(digits):
    description = describe_datasets()[0]
    assert (description["name"], description["present"]) == ("digits", True)
    assert description["images"] == {"train": 1437, "test": 360}


def test_datasets_of_ones_own_come_after_the_catalogue(make_colours, digits):
    make_colours("zebras", train=30, test=0)
    rows = Split(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))
    save_dataset("measurements", ("low", "high"), {"train": rows}, "measured by the tests", kind="table")

    assert dataset_names() == [*CATALOGUE, "measurements", "zebras"]
    descriptions = describe_datasets()
    assert [description["name"] for description in descriptions] == dataset_names()
    assert descriptions[-2:] == [
        {
            "name": "measurements",
            "title": "measurements",
            "kind": "table",
            "classes": ["low", "high"],
            "download_bytes": 0,
            "about": "measured by the tests",
            "own": True,
            "present": True,
            "images": {"train": 4},
            "bad_files": 0,
        },
        {
            "name": "zebras",
            "title": "zebras",
            "kind": "images",
            "classes": ["red", "green", "blue"],
            "download_bytes": 0,
            "about": "generated by the tests",
            "own": True,
            "present": True,
            "images": {"train": 30},
            "bad_files": 0,
        },
    ]
    assert [title_of(name) for name in ("zebras", "digits", "gone")] == ["zebras", "Digits", "gone"]


def test_files_that_an_import_left_out_are_counted():
    unfinished = begin_dataset("holiday")
    np.save(unfinished / "train-images.npy", np.zeros((2, 3, 3, 1), np.uint8))
    np.save(unfinished / "train-labels.npy", np.array([0, 1]))
    finish_dataset("holiday", ("sea", "sky"), {"train": 2}, "a folder", bad_file_count=7)
    assert describe_datasets()[-1]["bad_files"] == 7


def test_what_is_damaged_is_described_as_such(digits):
    whole = prepared_root() / "digits"
    (whole / "train-labels.npy").unlink()
    os.utime(whole / "dataset.json", ns=(0, 0))  # it is open already: let it look changed
    description = describe_datasets()[0]
    assert not description["present"]
    assert "digits is damaged" in description["error"]
    assert description["error"].endswith(f"Delete {whole}, then get or import it again.")


def test_what_is_damaged_of_ones_own_is_described_as_such(colours):
    (colours.folder / "dataset.json").write_text("{")
    description = describe_datasets()[-1]
    assert (description["name"], description["present"], description["own"]) == ("colours", False, True)
    assert (description["kind"], description["classes"], description["images"]) == ("images", [], {})
    assert "colours is damaged" in description["error"]


def arrive(name: str, file: str, size: int) -> None:
    path: Path = download_folder(name) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)


def test_progress_is_read_off_the_disk():
    total = CATALOGUE["mnist"].download_bytes
    assert download_progress("mnist") == Progress(0, 0)
    arrive("mnist", "MNIST/raw/train-images-idx3-ubyte.gz", 3_000_000)
    arrive("mnist", "MNIST/raw/train-labels-idx1-ubyte.gz", 28_881)
    arrive("mnist", "MNIST/raw/train-labels-idx1-ubyte", 60_008)  # unpacked: not another download
    assert download_progress("mnist") == Progress(3_028_881, total)
    assert download_progress("kmnist") == Progress(0, 0)
    arrive("mnist", "MNIST/raw/t10k-images-idx3-ubyte.gz", total)
    assert download_progress("mnist") == Progress(total, total)
    assert not is_prepared("mnist")


def test_datasets_of_one_archive_show_the_same_progress():
    arrive("emnist-letters", "EMNIST/raw/gzip.zip", 1_000_000)
    arrive("emnist-letters", "EMNIST/raw/gzip/emnist-letters-test-images-idx3-ubyte.gz", 5_000)
    assert (
        download_progress("emnist-balanced") == download_progress("emnist-letters") == Progress(1_000_000, 561_753_746)
    )


@pytest.mark.parametrize(
    ("first", "done", "elapsed", "left"),
    [
        (0, 0, 3.0, None),
        (0, 250, 5.0, 15.0),
        (100, 100, 5.0, None),  # nothing since, so no pace to go by
        (100, 250, 3.0, 15.0),  # what was there before does not count towards the pace
        (100, 1000, 9.0, 0.0),
    ],
)
def test_the_seconds_left_follow_from_the_bytes_that_came(first, done, elapsed, left):
    assert seconds_left(Progress(first, 1000), Progress(done, 1000), elapsed) == left
