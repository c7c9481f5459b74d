import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import (
    CATALOGUE,
    Progress,
    describe_datasets,
    download_folder,
    download_progress,
    find_source,
    get,
)
from engine.dataset import is_prepared, open_dataset, prepared_root
from engine.errors import LoupeError


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


def test_getting_yields_progress_and_ends_with_the_dataset(digits_data, monkeypatch):
    progress = list(get("digits"))
    assert progress
    assert set(progress) == {Progress(0, 0)}  # nothing is downloaded
    here = open_dataset("digits")
    assert list(get("digits")) == []

    # The same every time: as in the folder that another process prepared.
    monkeypatch.setenv("LOUPE_DATA", str(digits_data))
    assert open_dataset("digits").fingerprint == here.fingerprint


def test_getting_tells_what_stopped_it(tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file, not a folder")
    folder = tmp_path / "occupied" / "data"
    monkeypatch.setenv("LOUPE_DATA", str(folder))
    with pytest.raises(LoupeError) as refused:
        list(get("digits"))
    assert str(refused.value).startswith(f"{folder} cannot be written (")
    assert "LOUPE_DATA" in str(refused.value)


@pytest.mark.parametrize("look_up", [find_source, lambda name: next(get(name)), download_progress])
def test_an_unknown_name_is_answered_with_the_known_ones(look_up):
    with pytest.raises(LoupeError) as refused:
        look_up("mnits")
    assert str(refused.value) == (
        "There is no dataset 'mnits'. Known datasets: digits, mnist, fashion-mnist and kmnist."
    )


def test_every_dataset_is_described_and_none_is_here_at_first():
    descriptions = {description["name"]: description for description in describe_datasets()}
    assert list(descriptions) == list(CATALOGUE)
    for name, description in descriptions.items():
        assert (description["present"], description["images"], description["bad_files"]) == (False, {}, 0)
        assert description["classes"] == list(CATALOGUE[name].classes)
        assert len(set(description["classes"])) == 10
        assert (description["download_bytes"] == 0) == (name == "digits")


def test_what_is_here_is_described_with_its_images(digits):
    description = describe_datasets()[0]
    assert (description["name"], description["present"]) == ("digits", True)
    assert description["images"] == {"train": 1437, "test": 360}


def test_what_is_damaged_is_described_as_such(digits):
    whole = prepared_root() / "digits"
    (whole / "train-labels.npy").unlink()
    os.utime(whole / "dataset.json", ns=(0, 0))  # it is open already: let it look changed
    description = describe_datasets()[0]
    assert not description["present"]
    assert "digits is damaged" in description["error"]


def arrive(file: str, size: int) -> None:
    path: Path = download_folder("mnist") / "MNIST" / "raw" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)


def test_progress_is_read_off_the_disk():
    total = CATALOGUE["mnist"].download_bytes
    assert download_progress("mnist") == Progress(0, 0)
    arrive("train-images-idx3-ubyte.gz", 3_000_000)
    arrive("train-labels-idx1-ubyte.gz", 28_881)
    arrive("train-labels-idx1-ubyte", 60_008)  # unpacked: not another download
    assert download_progress("mnist") == Progress(3_028_881, total)
    assert download_progress("kmnist") == Progress(0, 0)
    arrive("t10k-images-idx3-ubyte.gz", total)
    assert download_progress("mnist") == Progress(total, total)
    assert not is_prepared("mnist")
