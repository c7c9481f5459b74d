"""A dataset: images, labels, class names and splits, prepared once and then memory-mapped."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from engine.errors import LoupeError, reason_of
from engine.paths import data_root, writing_to

FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    images: uint8 (count, height, width, channels), channels 1 or 3.
    labels: int64 (count,), indices into the class names.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    source: str
    fingerprint: str
    kind: str = "images"
    bad_files: tuple[Mapping[str, str], ...] = field(default=())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.splits["train"].images.shape[1:]
        return height, width, channels

    def class_counts(self) -> dict[str, list[int]]:
        """Count the images of each class in each split."""
        return {
            name: np.bincount(split.labels, minlength=len(self.classes)).tolist() for name, split in self.splits.items()
        }


def prepared_root() -> Path:
    return data_root() / "prepared"


def is_prepared(name: str) -> bool:
    return (prepared_root() / name / "dataset.json").is_file()


def save_dataset(name: str, classes: tuple[str, ...], splits: Mapping[str, Split], source: str) -> None:
    """Write a dataset's arrays and description; it appears under its name all at once or not at all."""
    folder, unfinished = prepared_root() / name, prepared_root() / f".{name}.unfinished"
    with writing_to(prepared_root()):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        digest = hashlib.sha256(json.dumps(classes).encode())
        for split_name, split in splits.items():
            for part, array in (("images", split.images), ("labels", split.labels.astype(np.int64))):
                np.save(unfinished / f"{split_name}-{part}.npy", array)
                digest.update(f"{split_name}-{part}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        description = {
            "format": FORMAT,
            "kind": "images",
            "classes": list(classes),
            "splits": {split_name: len(split) for split_name, split in splits.items()},
            "source": source,
            "fingerprint": digest.hexdigest()[:16],
            "bad_files": [],
        }
        (unfinished / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)


def open_dataset(name: str) -> Dataset:
    """Open a prepared dataset as memory maps: instant, and shared by every process that has it open."""
    description = prepared_root() / name / "dataset.json"
    try:
        changed = description.stat().st_mtime_ns
    except OSError:
        raise LoupeError(
            f"The dataset {name} is not here yet. Get it first: the button on the Explore page, "
            f"or python -m engine get {name}."
        ) from None
    return _open(description, changed)


@lru_cache(maxsize=8)
def _open(description: Path, changed: int) -> Dataset:
    folder = description.parent
    try:
        facts = json.loads(description.read_text())
        # Copy-on-write: torch warns about arrays that it may not write to, and the file stays out of reach.
        splits = {
            split_name: Split(
                np.load(folder / f"{split_name}-images.npy", mmap_mode="c", allow_pickle=False),
                np.load(folder / f"{split_name}-labels.npy", allow_pickle=False),
            )
            for split_name in facts["splits"]
        }
        for split_name, split in splits.items():
            if not len(split.images) == len(split) == facts["splits"][split_name] > 0:
                raise ValueError(f"the {split_name} split does not have its {facts['splits'][split_name]} images")
        return Dataset(
            name=folder.name,
            classes=tuple(facts["classes"]),
            splits=splits,
            source=facts["source"],
            fingerprint=facts["fingerprint"],
            kind=facts["kind"],
            bad_files=tuple(facts["bad_files"]),
        )
    except Exception as error:  # NumPy raises whatever the damage leads to
        raise LoupeError(
            f"The prepared dataset {folder.name} is damaged ({reason_of(error)}). Delete {folder} and get it again."
        ) from error
