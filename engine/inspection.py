"""The check of a dataset: exact copies, near copies, test images that are in the training set too, and odd images."""

import hashlib
import json
import math
import time
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.dataset import Dataset
from engine.paths import replacing
from engine.similarity import (
    DEFAULT_THRESHOLD,
    HASHED_SIDE,
    MAX_DISTANCE,
    MAX_PAIRS,
    directions,
    find_pairs,
    frequencies,
    in_threads,
    perceptual_hashes,
)

__all__ = [
    "DEFAULT_THRESHOLD",
    "MAX_DISTANCE",
    "Inspection",
    "Odd",
    "Pair",
    "Place",
    "Progress",
    "as_document",
    "inspect",
    "load_inspection",
]

FORMAT = 1
SPLITS = ("train", "val", "test")
BLOCK_BYTES = 2 << 20
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Standard deviation in levels below which an image shows too little to be compared or called blurred.
LEAST_CONTRAST = 2.0

MAX_ODD = 500
# What so many have in common is not odd.
COMMON_SHARE = 0.2
BLANK_RANGE = 8
BLANK_FACTOR = 1e6  # beyond whatever other limit
# Dark is a mean level below the first, and below a third of what the darkest tenth of the images begin with: in a set
# of night scenes, or of digits on black, most are dark. Bright is the same from white.
EXTREME_LEVEL, EXTREME_SHARE = 20, 1 / 3
# The logarithm of detail is further below the median than so many of the usual deviations, and than a factor of 4.
BLURRED_DEVIATIONS, BLURRED_FACTOR = 5, 4
ODD_SHAPE_FACTOR = 2.2


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
class Odd:
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
    odd: tuple[Odd, ...]
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

    def pair(self, first: int, second: int, distance: int) -> Pair:
        return Pair(self[first], self[second], int(distance), bool(self.labels[first] == self.labels[second]))


@dataclass(frozen=True)
class _Features:
    """Of each image: the hash and the vector to compare by, and figures in levels of 0 to 255.

    range: from the darkest to the brightest pixel, in the channel where that is most. detail: how strongly neighbouring
    pixels differ, as a share of the contrast: so strong and pale images compare, whereas the plain variance of the
    Laplacian of a pale sharp image is that of a strong blurred one.
    """

    hashes: np.ndarray
    vectors: np.ndarray
    mean: np.ndarray
    contrast: np.ndarray
    range: np.ndarray
    detail: np.ndarray


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
    odd: list[Odd] = []
    if features:
        compared = np.flatnonzero((firsts == np.arange(len(firsts))) & (features.contrast >= LEAST_CONTRAST))
        if min(dataset.image_shape[:2]) >= HASHED_SIDE:
            search = find_pairs(features.hashes[compared], features.vectors[compared])
            found = yield from _telling("Comparing the images", search)
            near_cut = len(found) > MAX_PAIRS
            rows = zip(compared[found.first], compared[found.second], found.distance, strict=True)
            near = [places.pair(*row) for row in islice(rows, MAX_PAIRS)]
        odd = _odd(dataset, places, features, sizes or {})
    inspection = Inspection(tuple(exact), tuple(near), tuple(odd), near_cut)
    with suppress(OSError):
        _save(dataset, places, inspection)
    return inspection


def _read(dataset: Dataset, places: _Places) -> Generator[Progress, None, tuple[np.ndarray, _Features | None]]:
    """Go through all images once: the two halves of a digest of each, and what is measured of images."""
    blocks = []
    for split, count in zip(places.splits, places.counts, strict=True):
        images = dataset.splits[split].images
        step = max(1, BLOCK_BYTES // max(1, images[0].nbytes))
        blocks += [images[start : start + step] for start in range(0, count, step)]

    def read(block: np.ndarray) -> tuple[np.ndarray, ...]:
        return _digests(block), *(_measured(block) if dataset.kind == "images" else ())

    parts: list[tuple[np.ndarray, ...]] = []

    def steps() -> Iterator[tuple[int, int, None]]:
        done = 0
        for part in in_threads(read, blocks):
            parts.append(part)
            done += len(part[0])
            yield done, len(places.labels), None

    yield from _telling("Reading the images", steps())
    digests, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return digests, _Features(*columns) if columns else None


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


def _measured(block: np.ndarray) -> tuple[np.ndarray, ...]:
    """Measure images, uint8 (count, height, width, channels): the fields of _Features."""
    luma = (block[..., 0] if block.shape[-1] == 1 else block @ LUMA).astype(np.float32, copy=False)
    coefficients = frequencies(luma)
    hashes: np.ndarray = np.zeros(len(block), np.uint64)
    vectors: np.ndarray = np.empty((len(block), 0), np.float16)
    if min(luma.shape[1:]) >= HASHED_SIDE:
        hashes, vectors = perceptual_hashes(coefficients), directions(coefficients).astype(np.float16)
    # Channel by channel: over pixels of three bytes NumPy takes twenty times as long.
    channels = [block[..., channel] for channel in range(block.shape[-1])]
    ranges = np.max([channel.max(axis=(1, 2)) - channel.min(axis=(1, 2)) for channel in channels], axis=0)
    contrast = luma.std(axis=(1, 2))
    detail = np.full(len(block), np.nan, np.float32)
    if min(luma.shape[1:]) >= 3:
        laplacian = luma[:, 1:-1, 2:] + luma[:, 1:-1, :-2] + luma[:, 2:, 1:-1] + luma[:, :-2, 1:-1]
        laplacian -= 4 * luma[:, 1:-1, 1:-1]
        shows = contrast >= LEAST_CONTRAST
        detail[shows] = laplacian[shows].std(axis=(1, 2)) / contrast[shows]
    return hashes, vectors, luma.mean(axis=(1, 2)), contrast, ranges, detail


def _odd(dataset: Dataset, places: _Places, features: _Features, sizes: Sizes) -> list[Odd]:
    """List the odd images; worst is what is beyond its limit by the largest factor, and blank ones before all."""
    blank = features.range <= BLANK_RANGE
    kinds = [
        _blank(dataset, places, features, blank),
        _dark(features, ~blank),
        _bright(features, ~blank),
        _blurred(features, ~blank),
        _odd_shapes(places, sizes),
    ]
    found: dict[int, list[tuple[float, str]]] = {}
    for kind in kinds:
        findings = list(kind)
        if len(findings) <= COMMON_SHARE * len(blank):
            for position, times_beyond, reason in findings:
                found.setdefault(int(position), []).append((times_beyond, reason))
    worst = sorted(found, key=lambda position: (-max(found[position])[0], position))[:MAX_ODD]
    return [
        Odd(places[position].split, places[position].index, "; ".join(reason for _, reason in found[position]))
        for position in worst
    ]


Found = Iterator[tuple[int, float, str]]


def _blank(dataset: Dataset, places: _Places, features: _Features, blank: np.ndarray) -> Found:
    for position in np.flatnonzero(blank).tolist():
        spread = int(features.range[position])
        place = places[position]
        pixel = dataset.splits[place.split].images[place.index, 0, 0].tolist()
        colour = str(pixel[0]) if len(set(pixel)) == 1 else f"({', '.join(map(str, pixel))})"
        about = f"pixels differ by {spread} of 255 levels at most, around {features.mean[position]:.0f}"
        yield position, BLANK_FACTOR - spread, f"blank: {about if spread else f'every pixel is {colour}'}"


def _dark(features: _Features, usual: np.ndarray) -> Found:
    if not usual.any():
        return
    means = features.mean[usual]
    limit = min(EXTREME_LEVEL, EXTREME_SHARE * np.percentile(means, 10, method="higher"))
    for position in np.flatnonzero(usual & (features.mean < limit)).tolist():
        level = features.mean[position]
        yield position, limit / max(level, 0.1), f"very dark: mean level {level:.0f} of 255, {_half(means, '.0f')}"


def _bright(features: _Features, usual: np.ndarray) -> Found:
    if not usual.any():
        return
    means = features.mean[usual]
    limit = min(EXTREME_LEVEL, EXTREME_SHARE * (255 - np.percentile(means, 90, method="lower")))
    for position in np.flatnonzero(usual & (255 - features.mean < limit)).tolist():
        level = features.mean[position]
        reason = f"very bright: mean level {level:.0f} of 255, {_half(means, '.0f')}"
        yield position, limit / max(255 - level, 0.1), reason


def _blurred(features: _Features, usual: np.ndarray) -> Found:
    usual = usual & (features.detail > 0)
    if not usual.any():
        return
    details = np.log(features.detail[usual])
    deviation = 1.4826 * np.median(np.abs(details - np.median(details)))
    limit = np.exp(np.median(details) - max(BLURRED_DEVIATIONS * deviation, math.log(BLURRED_FACTOR)))
    for position in np.flatnonzero(usual & (features.detail < limit)).tolist():
        detail = features.detail[position]
        reason = f"blurred: detail {detail:.2g} of the contrast, {_half(features.detail[usual], '.2g')}"
        yield position, limit / detail, reason


def _odd_shapes(places: _Places, sizes: Sizes) -> Found:
    known = [
        (start, *sizes[split]) for split, start in zip(places.splits, places.starts, strict=False) if split in sizes
    ]
    if not known:
        return
    aspects = np.log(np.concatenate([np.asarray(widths) / heights for _, widths, heights in known]))
    usual = np.median(aspects)
    deviation = 1.4826 * np.median(np.abs(aspects - usual))
    limit = max(4 * deviation, math.log(ODD_SHAPE_FACTOR))
    for start, widths, heights in known:
        off = np.abs(np.log(np.asarray(widths) / heights) - usual)
        for index in np.flatnonzero(off > limit).tolist():
            size = f"{widths[index]} x {heights[index]} pixels"
            reason = f"odd shape: {size}, where the usual aspect is {np.exp(usual):.2f}"
            yield start + index, np.exp(off[index] - limit), reason


def _half(values: np.ndarray, form: str) -> str:
    low, high = np.percentile(values, [25, 75])
    return f"where half of the images lie between {low:{form}} and {high:{form}}"


def _file(dataset: Dataset) -> Path:
    return dataset.folder / "inspection.json"


def _save(dataset: Dataset, places: _Places, inspection: Inspection) -> None:
    """Write a result: images as positions in the row of all splits, labels as what the dataset has."""
    document = {
        "format": FORMAT,
        "fingerprint": dataset.fingerprint,
        "exact": [[places.position(pair.first), places.position(pair.second)] for pair in inspection.exact],
        "near": [
            [places.position(pair.first), places.position(pair.second), pair.distance] for pair in inspection.near
        ],
        "near_cut": inspection.near_cut,
        "odd": [[places.position(Place(odd.split, odd.index)), odd.reason] for odd in inspection.odd],
    }
    with replacing(_file(dataset)) as beside:
        beside.write_text(json.dumps(document), encoding="utf-8")


def load_inspection(dataset: Dataset) -> Inspection | None:
    """Read the result of the last check; None when there is none, or none that can be read, of this very dataset."""
    places = _Places(dataset)
    try:
        document = json.loads(_file(dataset).read_text(encoding="utf-8"))
        if (document["format"], document["fingerprint"]) != (FORMAT, dataset.fingerprint):
            return None
        return Inspection(
            exact=tuple(places.pair(first, second, 0) for first, second in document["exact"]),
            near=tuple(places.pair(*row) for row in document["near"]),
            odd=tuple(
                Odd(places[position].split, places[position].index, str(why)) for position, why in document["odd"]
            ),
            near_cut=bool(document["near_cut"]),
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None


def as_document(inspection: Inspection, threshold: int, bad_files: list) -> dict:
    """Describe a result as plain data, with the near pairs within ``threshold`` bits."""
    return {
        "threshold": threshold,
        "exact": [asdict(pair) for pair in inspection.exact],
        "near": [asdict(pair) for pair in inspection.near_within(threshold)],
        "leaked_test": inspection.leaked_test(threshold),
        "odd": [asdict(odd) for odd in inspection.odd],
        "bad_files": bad_files,
    }
