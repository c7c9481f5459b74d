"""The datasets that can be had, and getting them."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.dataset import is_prepared, open_dataset, prepared_root
from engine.errors import LoupeError, listed
from engine.paths import PROJECT_ROOT, child_environment, data_root

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    download_bytes: what torchvision downloads; 0 when the dataset comes with an installed package.
    folder: the folder of the downloaded files below ``LOUPE_DATA``.
    """

    title: str
    classes: tuple[str, ...]
    about: str
    torchvision: str = ""
    download_bytes: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.torchvision) / "raw"


CATALOGUE = {
    "digits": Source(
        "Digits",
        DIGITS,
        "1,797 scans of handwritten digits, 8 x 8 pixels, from the UCI repository; comes with scikit-learn.",
    ),
    "mnist": Source(
        "MNIST",
        DIGITS,
        "70,000 handwritten digits, 28 x 28 pixels (LeCun, Cortes and Burges, 1998).",
        torchvision="MNIST",
        download_bytes=11_594_722,
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        "70,000 photographs of clothes, 28 x 28 pixels (Xiao, Rasul and Vollgraf, 2017).",
        torchvision="FashionMNIST",
        download_bytes=30_878_645,
    ),
    "kmnist": Source(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        "70,000 cursive Japanese characters, 28 x 28 pixels (Clanuwat et al., 2018).",
        torchvision="KMNIST",
        download_bytes=21_240_888,
    ),
}


@dataclass(frozen=True)
class Progress:
    """How far getting a dataset is, in bytes; ``total`` is 0 while nothing is being downloaded."""

    done: int
    total: int


def find_source(name: str) -> Source:
    if name not in CATALOGUE:
        raise LoupeError(f"There is no dataset {name!r}. Known datasets: {listed(CATALOGUE)}.")
    return CATALOGUE[name]


def describe_datasets() -> list[dict]:
    """Describe every dataset of the catalogue and whether it is here, as plain data."""
    return [_describe(name, source) for name, source in CATALOGUE.items()]


def _describe(name: str, source: Source) -> dict:
    here = {"present": is_prepared(name), "images": {}, "bad_files": 0}
    if here["present"]:
        try:
            dataset = open_dataset(name)
        except LoupeError as error:
            here |= {"present": False, "error": str(error)}
        else:
            here["images"] = {split: len(images) for split, images in dataset.splits.items()}
            here["bad_files"] = len(dataset.bad_files)
    return {
        "name": name,
        "title": source.title,
        "kind": "images",
        "classes": list(source.classes),
        "download_bytes": source.download_bytes,
        "about": source.about,
    } | here


def get(name: str) -> Iterator[Progress]:
    """Fetch and prepare a dataset unless it is here, yielding progress a few times a second.

    The work is done by a process of its own, under a lock, and progress is read off the disk: whoever
    asks again while it is under way, after a reload say, sees the same progress and waits for the same end.
    """
    source = find_source(name)
    if is_prepared(name):
        return
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "engine.fetch", name],
            cwd=PROJECT_ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                yield download_progress(name)
                time.sleep(0.2)
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
        if child.returncode:
            output.seek(0)
            lines = output.read().strip().splitlines()
            reason = lines[-1] if lines else f"its process ended with code {child.returncode}"
            raise LoupeError(
                reason.removeprefix("error: ")
                if reason.startswith("error: ")
                else f"{source.title} could not be prepared: {reason}. Try again."
            )


def download_folder(name: str) -> Path:
    """Return where an unfinished download of a dataset is kept."""
    return prepared_root() / f".{name}.download"


def download_progress(name: str) -> Progress:
    """Read off the disk how much of a download has arrived."""
    source = find_source(name)
    try:
        arrived = sum(file.stat().st_size for file in download_folder(name).rglob("*.gz"))
    except OSError:  # moved into place between the listing and the look
        arrived = source.download_bytes
    return Progress(min(arrived, source.download_bytes), source.download_bytes if arrived else 0)


def way_out(name: str) -> str:
    """Say how to get a dataset by hand."""
    source = find_source(name)
    return (
        f"Connect to the internet and try again, or copy its files into {data_root() / source.folder}; "
        "the digits dataset needs no download"
    )
