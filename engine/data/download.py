"""Fetching and preparing one dataset of the catalogue."""

import shutil
import warnings
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import URLError

import numpy as np
from filelock import FileLock

from engine.base.errors import LoupeError
from engine.base.network import downloading
from engine.base.paths import data_root, writing_folder
from engine.base.text import join_words
from engine.data.catalogue import CATALOGUE, Source, download_folder, find_source, manual_download_help
from engine.data.dataset import Split, is_prepared, prepared_root, save_dataset
from engine.data.raw_files import read_raw_files


def fetch(name: str) -> None:
    """Fetch a dataset of the catalogue and write its arrays; do nothing when they are here."""
    source = find_source(name)
    with writing_folder(data_root()):
        prepared_root().mkdir(parents=True, exist_ok=True)
        # Datasets of one archive wait for each other: whichever comes second finds its files in place.
        with FileLock(prepared_root() / f".{source.torchvision or name}.lock"):
            if not is_prepared(name):
                splits, origin = GENERATED[name]() if name in GENERATED else _torchvision_splits(name, source)
                save_dataset(name, source.classes, splits, origin, source.kind)


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


def _blobs_splits() -> tuple[dict[str, Split], str]:
    from sklearn.datasets import make_blobs
    from sklearn.model_selection import train_test_split

    rows, labels = make_blobs(n_samples=1000, n_features=4, centers=3, cluster_std=2.5, random_state=95)
    train_rows, test_rows, train_labels, test_labels = train_test_split(rows, labels, test_size=0.15, random_state=95)
    return {
        "train": Split(train_rows.astype(np.float32), train_labels),
        "test": Split(test_rows.astype(np.float32), test_labels),
    }, "scikit-learn's make_blobs, cluster_std 2.5; 15% held out for testing; random_state 95 for both"


GENERATED = {"digits": _digits_splits, "blobs": _blobs_splits}


def _torchvision_splits(name: str, source: Source) -> tuple[dict[str, Split], str]:
    with warnings.catch_warnings():
        # Of NumPy 2.4.0 to 2.4.4, about the arrays that Python 2 pickled.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        if not all((data_root() / file).is_file() for file in source.files):
            _download(name, source)
        splits = read_raw_files(source)
    place = source.folder.as_posix() if source.folder != Path() else join_words(source.files)
    return splits, f"torchvision.datasets.{source.torchvision}, read from {place}"


def _download(name: str, source: Source) -> None:
    """Download into a folder of its own and move the files into place once all are whole."""
    from torchvision import datasets

    dataset_class = getattr(datasets, source.torchvision)
    folder = download_folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with downloading:
            for options in [{"split": part} for part in source.parts] or [{}]:
                dataset_class(folder, download=True, **options)  # checks the checksums
    except (RuntimeError, OSError, HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, URLError | TimeoutError | ConnectionError | SSLError):
            raise  # the disk's, not the network's
        raise LoupeError(
            f"{source.title} is not on this machine and could not be downloaded ({network_reason(error)}). "
            f"{manual_download_help(name)}."
        ) from error
    else:
        _move_into_place(folder, source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(folder: Path, source: Source) -> None:
    """Move what was downloaded of a dataset, and what came with it of others that are not there yet."""
    for other in CATALOGUE.values():
        if other.torchvision != source.torchvision:
            continue
        for file in other.files + other.companions:
            target = data_root() / file
            if other is source or not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / file).replace(target)


def network_reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return reason.removeprefix("<urlopen error ").removesuffix(">").rstrip(".")
