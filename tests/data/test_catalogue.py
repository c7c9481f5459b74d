import os
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    get_dataset,
    manual_download_help,
    seconds_left,
    title_of,
)
from engine.data.dataset import (
    Split,
    begin_dataset,
    finish_dataset,
    is_prepared,
    open_dataset,
    prepared_root,
    save_dataset,
)


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
    progress = list(get_dataset("digits"))
    assert progress
    assert set(progress) == {Progress(0, 0)}  # nothing is downloaded
    here = open_dataset("digits")
    assert list(get_dataset("digits")) == []

    # The same every time: as in the folder that another process prepared.
    monkeypatch.setenv("LOUPE_DATA", str(digits_data))
    assert open_dataset("digits").fingerprint == here.fingerprint


def test_getting_tells_what_stopped_it(tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file, not a folder")
    folder = tmp_path / "occupied" / "data"
    monkeypatch.setenv("LOUPE_DATA", str(folder))
    with pytest.raises(LoupeError) as refused:
        list(get_dataset("digits"))
    assert str(refused.value).startswith(f"{folder} cannot be written (")
    assert "LOUPE_DATA" in str(refused.value)


@pytest.mark.parametrize(
    "look_up", [find_source, lambda name: next(get_dataset(name)), download_progress, manual_download_help]
)
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
        list(get_dataset(name))


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
    assert list(get_dataset("zebras")) == []


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


def test_getting_tells_bytes_and_seconds_left_while_they_come(monkeypatch):
    steps = [threading.Event(), threading.Event()]

    class Slow(BaseHTTPRequestHandler):
        """Sends a megabyte, and after each step that the test allows another."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5000000")
            self.end_headers()
            self.server.asked += 1
            if self.server.asked > 1:  # the first looks for a redirection, and takes nothing
                for step in steps:
                    self.wfile.write(bytes(1 << 20))
                    step.wait(60)

        def log_message(self, format: str, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.asked = 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        getting = get_dataset("kmnist")  # of an address without encryption, so that the stand-in can answer for it
        try:
            one = next(progress for progress in getting if progress.done == 1 << 20)
            steps[0].set()
            two = next(progress for progress in getting if progress.done == 2 << 20)
            steps[1].set()
            with pytest.raises(LoupeError, match="KMNIST is not on this machine and could not be downloaded"):
                list(getting)
        finally:
            for step in steps:
                step.set()
            server.shutdown()
            thread.join()
    total = CATALOGUE["kmnist"].download_bytes
    assert (one.total, two.total) == (total, total)
    assert one.seconds_left is None  # there is no pace to go by yet
    assert two.seconds_left > 0
    assert not is_prepared("kmnist")
