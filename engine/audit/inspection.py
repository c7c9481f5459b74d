"""The check of a dataset: exact copies, near copies, test images that are in the training set too, and odd images."""

import hashlib
import json
import math
import time
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.audit.outliers import LEAST_CONTRAST, Features, find_outliers, measure
from engine.audit.similarity import (
    DEFAULT_THRESHOLD,
    HASHED_SIDE,
    MAX_DISTANCE,
    MAX_PAIRS,
    find_pairs,
    in_threads,
)
from engine.base.paths import replacing_file
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files

__all__ = [
    "DEFAULT_THRESHOLD",
    "MAX_DISTANCE",
    "Inspection",
    "Outlier",
    "Pair",
    "Place",
    "Progress",
    "as_document",
    "inspect",
    "load_inspection",
]

FORMAT = 2  # in the first, blank images were not told of where many are blank
SPLITS = ("train", "val", "test")
BLOCK_BYTES = 2 << 20


@dataclass(frozen=True)
class Progress:
    """How far a check is: of a stage in words, ``done`` of ``total`` steps."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, order=True)
class Place:
    split: str
    index: int


@dataclass(frozen=True)
class Pair:
    """Two images that are alike. distance: bits that their hashes differ by; 0 for exact copies."""

    first: Place
    second: Place
    distance: int
    same_label: bool


@dataclass(frozen=True)
class Outlier:
    split: str
    index: int
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What a check found.

    exact: each image that equals others, paired with the first of them. near: between images that differ, up to
    MAX_DISTANCE, the closest first; ``near_cut`` tells that there were more than are kept. odd: the worst first.
    """

    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]
    odd: tuple[Outlier, ...]
    near_cut: bool = False

    def near_within(self, threshold: int) -> tuple[Pair, ...]:
        """Return the near pairs that differ by at most ``threshold`` bits."""
        return tuple(pair for pair in self.near if pair.distance <= threshold)

    def leaked_test(self, threshold: int) -> list[int]:
        """List the test images that have an exact copy, or a near one within ``threshold``, in the training set."""
        groups: dict[Place, list[Place]] = {}
        for pair in self.exact:
            groups.setdefault(pair.first, [pair.first]).append(pair.second)
        alike = [(group, group) for group in groups.values()]
        for pair in self.near_within(threshold):
            first, second = (groups.get(place, [place]) for place in (pair.first, pair.second))
            alike += [(first, second), (second, first)]
        leaked: set[int] = set()
        for group, other in alike:
            if any(place.split == "train" for place in group):
                leaked |= {place.index for place in other if place.split == "test"}
        return sorted(leaked)


Sizes = Mapping[str, tuple[np.ndarray, np.ndarray]]
Result = TypeVar("Result")


class _Places:
    """The images of all splits in one row: train, val, test."""

    def __init__(self, dataset: Dataset):
        rank = {split: place for place, split in enumerate(SPLITS)}
        self.splits = sorted(dataset.splits, key=lambda split: (rank.get(split, len(SPLITS)), split))
        self.counts = [len(dataset.splits[split]) for split in self.splits]
        self.starts = list(accumulate(self.counts, initial=0))
        self.labels = np.concatenate([dataset.splits[split].labels for split in self.splits])

    def __getitem__(self, position: int) -> Place:
        if not 0 <= position < len(self.labels):
            raise IndexError(position)
        split = bisect_right(self.starts, position) - 1
        return Place(self.splits[split], int(position) - self.starts[split])

    def position(self, place: Place) -> int:
        return self.starts[self.splits.index(place.split)] + place.index

    def in_a_row(self, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
        """Return widths and heights of all images; 0 for those of splits whose sizes are not known."""
        widths, heights = np.zeros((2, len(self.labels)), np.int64)
        for split, start, count in zip(self.splits, self.starts, self.counts, strict=False):
            if split in sizes:
                widths[start : start + count], heights[start : start + count] = sizes[split]
        return widths, heights

    def pair(self, first: int, second: int, distance: int) -> Pair:
        return Pair(self[first], self[second], int(distance), bool(self.labels[first] == self.labels[second]))


def inspect(dataset: Dataset, sizes: Sizes | None = None) -> Generator[Progress, None, Inspection]:
    """Check a dataset, yielding progress a few times a second; the generator's return value is the Inspection.

    sizes: widths and heights in pixels that the images of each split had before they were brought to one size. The
    result is saved beside the dataset; where that cannot be written, it is only returned. Of a table, whose rows are
    no images, it lists exact copies alone.
    """
    places = _Places(dataset)
    digests, features = yield from _read(dataset, places)
    firsts = _first_copies(digests)
    copies = np.flatnonzero(firsts != np.arange(len(firsts)))
    exact = [places.pair(firsts[copy], copy, 0) for copy in copies[np.argsort(firsts[copies], kind="stable")]]
    near: list[Pair] = []
    near_cut = False
    odd: list[Outlier] = []
    if features:
        compared = np.flatnonzero((firsts == np.arange(len(firsts))) & (features.contrast >= LEAST_CONTRAST))
        if min(dataset.image_shape[:2]) >= HASHED_SIDE:
            search = find_pairs(features.hashes[compared], features.vectors[compared])
            found = yield from _telling("Comparing the images", search)
            near_cut = len(found) > MAX_PAIRS
            rows = zip(compared[found.first], compared[found.second], found.distance, strict=True)
            near = [places.pair(*row) for row in islice(rows, MAX_PAIRS)]
        widths, heights = places.in_a_row(sizes or {})
        found_odd = find_outliers(features, widths, heights)
        odd = [Outlier(places[position].split, places[position].index, reason) for position, reason in found_odd]
    inspection = Inspection(tuple(exact), tuple(near), tuple(odd), near_cut)
    with suppress(OSError):
        _save(dataset, places, inspection)
    return inspection


def _read(dataset: Dataset, places: _Places) -> Generator[Progress, None, tuple[np.ndarray, Features | None]]:
    """Go through all images once: the two halves of a digest of each, and what is measured of images."""
    blocks = []
    for split, count in zip(places.splits, places.counts, strict=True):
        images = dataset.splits[split].images
        step = max(1, BLOCK_BYTES // max(1, images[0].nbytes))
        blocks += [images[start : start + step] for start in range(0, count, step)]

    def read(block: np.ndarray) -> tuple[np.ndarray, ...]:
        return _digests(block), *(measure(block) if dataset.kind == "images" else ())

    parts: list[tuple[np.ndarray, ...]] = []

    def steps() -> Iterator[tuple[int, int, None]]:
        done = 0
        for part in in_threads(read, blocks):
            parts.append(part)
            done += len(part[0])
            yield done, len(places.labels), None

    yield from _telling("Reading the images", steps())
    digests, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return digests, Features(*columns) if columns else None


def _telling(stage: str, steps: Iterable[tuple[int, int, Result]]) -> Generator[Progress, None, Result]:
    """Yield progress at the first step, the last, and a few times a second; return what the last step came with."""
    told = -math.inf
    for done, total, result in steps:  # noqa: B007 - the last one is returned
        if done == total or time.monotonic() > told + 0.2:
            told = time.monotonic()
            yield Progress(stage, done, total)
    return result


def _digests(block: np.ndarray) -> np.ndarray:
    content = b"".join(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block)
    return np.frombuffer(content, np.uint64).reshape(-1, 2)


def _first_copies(digests: np.ndarray) -> np.ndarray:
    """Return for each image the position of the first one that equals it, which may be itself."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in the order of their positions
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[begins][np.cumsum(begins) - 1]
    return firsts


def _file(dataset: Dataset) -> Path:
    return dataset.folder / "inspection.json"


def _save(dataset: Dataset, places: _Places, inspection: Inspection) -> None:
    """Write a result: images as positions in the row of all splits. Labels are read from the dataset each time."""
    document = {
        "format": FORMAT,
        "fingerprint": dataset.images_fingerprint,
        "exact": [[places.position(pair.first), places.position(pair.second)] for pair in inspection.exact],
        "near": [
            [places.position(pair.first), places.position(pair.second), pair.distance] for pair in inspection.near
        ],
        "near_cut": inspection.near_cut,
        "odd": [[places.position(Place(odd.split, odd.index)), odd.reason] for odd in inspection.odd],
    }
    with replacing_file(_file(dataset)) as beside:
        beside.write_text(json.dumps(document), encoding="utf-8")


def load_inspection(dataset: Dataset) -> Inspection | None:
    """Read the result of the last check; None when there is none, or none that can be read, of these very images."""
    places = _Places(dataset)
    try:
        document = json.loads(_file(dataset).read_text(encoding="utf-8"))
        if (document["format"], document["fingerprint"]) != (FORMAT, dataset.images_fingerprint):
            return None
        return Inspection(
            exact=tuple(places.pair(first, second, 0) for first, second in document["exact"]),
            near=tuple(places.pair(*row) for row in document["near"]),
            odd=tuple(
                Outlier(places[position].split, places[position].index, str(why)) for position, why in document["odd"]
            ),
            near_cut=bool(document["near_cut"]),
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None


def as_document(dataset: Dataset, inspection: Inspection, threshold: int, bad_files: list) -> dict:
    """Describe a result as plain data, with the near pairs within ``threshold`` bits.

    Each image has its split, index, label, and file name where it was imported from one.
    """
    origins = {split: open_source_files(dataset, split) for split in dataset.splits}

    def place(split: str, index: int) -> dict:
        known = origins[split]
        label = dataset.classes[dataset.splits[split].labels[index]]
        return {"split": split, "index": index, "label": label, "file": known.of(index)["file"] if known else None}

    def pairs(found: tuple[Pair, ...]) -> list[dict]:
        return [
            {
                "first": place(pair.first.split, pair.first.index),
                "second": place(pair.second.split, pair.second.index),
                "distance": pair.distance,
                "same_label": pair.same_label,
            }
            for pair in found
        ]

    return {
        "threshold": threshold,
        "exact": pairs(inspection.exact),
        "near": pairs(inspection.near_within(threshold)),
        "leaked_test": inspection.leaked_test(threshold),
        "odd": [place(odd.split, odd.index) | {"reason": odd.reason} for odd in inspection.odd],
        "bad_files": bad_files,
    }
