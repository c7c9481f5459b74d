"""A dataset: images, labels, class names and splits, prepared once and then memory-mapped."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from engine.base.errors import LoupeError, reason_of
from engine.base.paths import data_root, writing_folder

FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    images: uint8 (count, height, width, channels), channels 1 or 3; of a table float32 (count, features).
    labels: int64 (count,), indices into the class names.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset, open.

    fingerprint: of all that a training depends on: images and labels of all splits, and class names. By it runs and
    their predictions know their dataset. images_fingerprint: of the images of all splits alone. By it features and
    copies are known, which stay what they are when labels are corrected. In the description of a dataset that was
    saved when there was one only, it is ``fingerprint``. kind: ``images``, or ``table`` for rows of numbers.
    bad_file_count: files that the import had to leave out. fit: how a picture of another shape is brought to that of
    the images, ``crop`` or ``pad``, as the import did it. imported_from: paths of the folders, zips and manifests that
    it was imported from. levels: the values that became black and white where files had more than 8 bits.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    source: str
    fingerprint: str
    images_fingerprint: str
    folder: Path
    kind: str = "images"
    bad_file_count: int = 0
    fit: str = "crop"
    imported_from: tuple[str, ...] = ()
    levels: tuple[float, float] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        if self.kind != "images":
            raise LoupeError(
                f"{self.name} is a table of {self.splits['train'].images.shape[1]} numbers a row, and this needs "
                "images. Choose a dataset of images."
            )
        height, width, channels = self.splits["train"].images.shape[1:]
        return height, width, channels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Height, width and channels of every image, or the number of features of every row of a table."""
        return self.splits["train"].images.shape[1:]

    def class_counts(self) -> dict[str, list[int]]:
        """Count the images of each class in each split."""
        return {
            name: np.bincount(split.labels, minlength=len(self.classes)).tolist() for name, split in self.splits.items()
        }


def prepared_root() -> Path:
    return data_root() / "prepared"


def is_prepared(name: str) -> bool:
    return (prepared_root() / name / "dataset.json").is_file()


def prepared_names() -> list[str]:
    """List the datasets that are here, whatever they come from."""
    return sorted(path.parent.name for path in prepared_root().glob("[!.]*/dataset.json"))


def save_dataset(
    name: str,
    classes: tuple[str, ...],
    splits: Mapping[str, Split],
    source: str,
    kind: str = "images",
    fit: str = "crop",
) -> None:
    """Write a dataset's arrays and description; it appears under its name all at once or not at all."""
    with writing_folder(prepared_root()):
        unfinished = begin_dataset(name)
        for split_name, split in splits.items():
            np.save(unfinished / f"{split_name}-images.npy", split.images)
            np.save(unfinished / f"{split_name}-labels.npy", split.labels.astype(np.int64))
        counts = {split_name: len(split) for split_name, split in splits.items()}
        finish_dataset(name, classes, counts, source, kind, fit=fit)


def begin_dataset(name: str) -> Path:
    """Make the empty folder that a dataset's arrays are written to: nobody sees it before it is finished."""
    unfinished = prepared_root() / f".{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def finish_dataset(
    name: str,
    classes: tuple[str, ...],
    counts: Mapping[str, int],
    source: str,
    kind: str = "images",
    bad_file_count: int = 0,
    fit: str = "crop",
    imported_from: tuple[str, ...] = (),
    levels: tuple[float, float] | None = None,
) -> None:
    """Describe the arrays of an unfinished dataset, and put it into the place of one of the same name.

    counts: images by split; each split has its ``SPLIT-images.npy`` and ``SPLIT-labels.npy``.
    """
    folder, unfinished = prepared_root() / name, prepared_root() / f".{name}.unfinished"
    of_all, of_images = hashlib.sha256(json.dumps(classes).encode()), hashlib.sha256()
    for split_name in counts:
        for part, digests in (("images", (of_all, of_images)), ("labels", (of_all,))):
            array = np.load(unfinished / f"{split_name}-{part}.npy", mmap_mode="r", allow_pickle=False)
            for digest in digests:
                digest.update(f"{split_name}-{part}{array.shape}".encode())
            for block in read_in_blocks(unfinished / f"{split_name}-{part}.npy", array.offset):
                for digest in digests:
                    digest.update(block)
    description = {
        "format": FORMAT,
        "kind": kind,
        "classes": list(classes),
        "splits": dict(counts),
        "source": source,
        "fingerprint": of_all.hexdigest()[:16],
        "images_fingerprint": of_images.hexdigest()[:16],
        "bad_file_count": bad_file_count,
        "fit": fit,
        "imported_from": list(imported_from),
        "levels": levels,
    }
    (unfinished / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def read_in_blocks(path: Path, start: int = 0) -> Iterator[bytes]:
    """Read a file a megabyte at a time. Through a memory map, what was read would count as this process's memory."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(1 << 20):
            yield block


def delete_dataset(name: str) -> None:
    """Delete the prepared arrays of a dataset; what they were made from stays."""
    with writing_folder(prepared_root()):
        # Out of sight at once, whatever happens while its files go.
        doomed = prepared_root() / f".{name}.unfinished"
        shutil.rmtree(doomed, ignore_errors=True)
        (prepared_root() / name).rename(doomed)
        shutil.rmtree(doomed)


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


@lru_cache(maxsize=32)
def _open(description: Path, changed: int) -> Dataset:
    folder = description.parent
    try:
        facts = json.loads(description.read_text())
        # Read-only: a writable map of a set larger than memory would have to be granted that much memory.
        splits = {
            split_name: Split(
                np.load(folder / f"{split_name}-images.npy", mmap_mode="r", allow_pickle=False),
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
            images_fingerprint=facts.get("images_fingerprint", facts["fingerprint"]),
            folder=folder,
            kind=facts["kind"],
            bad_file_count=facts.get("bad_file_count", 0),
            # Imported when it was not noted, a dataset tells it in words.
            fit=facts.get("fit") or ("pad" if "padded with black" in facts["source"] else "crop"),
            imported_from=tuple(facts.get("imported_from", ())),
            levels=tuple(levels) if (levels := facts.get("levels")) else None,
        )
    except Exception as error:  # NumPy raises whatever the damage leads to
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            raise
        raise LoupeError(
            f"The prepared dataset {folder.name} is damaged ({reason_of(error)}). "
            f"Delete {folder}, then get or import it again."
        ) from error
