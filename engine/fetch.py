"""Fetch and prepare one dataset: ``python -m engine.fetch NAME``."""

import shutil
import socket
import sys
from http.client import HTTPException
from urllib.error import URLError

import numpy as np
from filelock import FileLock

from engine.catalogue import Source, download_folder, find_source, way_out
from engine.dataset import Split, is_prepared, prepared_root, save_dataset
from engine.errors import LoupeError, reason_of
from engine.paths import data_root, writing_to

# A server that accepts the connection and then says nothing would otherwise be waited for without end.
NETWORK_TIMEOUT_SECONDS = 30


def fetch(name: str) -> None:
    """Fetch a dataset of the catalogue and write its arrays; do nothing when they are here."""
    source = find_source(name)
    with writing_to(data_root()):
        prepared_root().mkdir(parents=True, exist_ok=True)
        with FileLock(prepared_root() / f".{name}.lock"):
            if not is_prepared(name):
                splits, origin = _torchvision_splits(name, source) if source.torchvision else _digits_splits()
                save_dataset(name, source.classes, splits, origin)


def _digits_splits() -> tuple[dict[str, Split], str]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # The scans have 17 grey levels, 0 to 16; the nearest of 256.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    train, test = train_test_split(
        np.arange(len(images)), test_size=0.2, random_state=0, shuffle=True, stratify=digits.target
    )
    return {
        "train": Split(images[train], digits.target[train]),
        "test": Split(images[test], digits.target[test]),
    }, "scikit-learn's load_digits; 20% held out for testing, stratified by class, random_state 0"


def _torchvision_splits(name: str, source: Source) -> tuple[dict[str, Split], str]:
    from torchvision import datasets

    dataset_class = getattr(datasets, source.torchvision)
    raw = data_root() / source.folder
    files = [raw / archive.removesuffix(".gz") for archive, _ in dataset_class.resources]
    if not all(file.is_file() for file in files):
        _download(name, source, dataset_class)
    try:
        parts = {
            "train": dataset_class(data_root(), train=True),
            "test": dataset_class(data_root(), train=False),
        }
        splits = {
            split_name: Split(part.data.numpy()[..., np.newaxis], part.targets.numpy())
            for split_name, part in parts.items()
        }
        for split_name, split in splits.items():
            if len(split.images) != len(split) or not len(split):
                raise ValueError(f"{len(split.images)} {split_name} images, but {len(split)} labels")
            if split.labels.min() < 0 or split.labels.max() >= len(source.classes):
                raise ValueError(f"a {split_name} label is not one of the {len(source.classes)} classes")
    except (RuntimeError, ValueError, TypeError, AssertionError, EOFError, KeyError, IndexError) as error:
        raise LoupeError(
            f"The files of {source.title} in {raw} cannot be read ({reason_of(error)}). "
            "They may be cut short: delete them and get the dataset again."
        ) from error
    return splits, f"torchvision.datasets.{source.torchvision}, read from {source.folder.as_posix()}"


def _download(name: str, source: Source, dataset_class: type) -> None:
    """Download into a folder of its own and move the files into place once all are whole."""
    folder = download_folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)
    try:
        dataset_class(folder, download=True)  # checks the checksums
    except (RuntimeError, OSError, HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, URLError | TimeoutError | ConnectionError):
            raise  # the disk's, not the network's
        raise LoupeError(
            f"{source.title} is not on this machine and could not be downloaded ({_network_reason(error)}). "
            f"{way_out(name)}."
        ) from error
    else:
        raw = data_root() / source.folder
        raw.mkdir(parents=True, exist_ok=True)
        for file in (folder / source.folder).iterdir():
            file.replace(raw / file.name)
    finally:
        socket.setdefaulttimeout(None)
        shutil.rmtree(folder, ignore_errors=True)


def _network_reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return reason.removeprefix("<urlopen error ").removesuffix(">").rstrip(".")


if __name__ == "__main__":
    try:
        fetch(sys.argv[1])
    except LoupeError as error:
        sys.exit(f"error: {error}")
