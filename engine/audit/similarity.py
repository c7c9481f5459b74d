"""Images that look alike: a perceptual hash, a finer description, and the search for pairs among many."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TypeVar

import numpy as np

from engine.base.machine import cores

# Of the copies of 2,000 CIFAR-10 images, 8 bits find all that are saved again, halved, darker, paler or noisy, 99.9 %
# of those brighter by a fifth, 83 % of those cropped by a pixel all round, 73 % of those shifted by one; 10 bits find
# 93 % and 89 % of the last two.
DEFAULT_THRESHOLD = 8
MAX_DISTANCE = 10
MAX_PAIRS = 20_000
HASHED_SIDE = 8
# Lowest frequencies each way that two images are compared by. With 16, halved copies differ by what they lost; with 8,
# handwritten digits differ too little.
COMPARED_SIDE = 12
# The hash says little of simple images: 15 million pairs of MNIST are within 10 bits. So a pair must besides be alike
# as chance does not make it: its distance (1 - correlation) at most a fifth of that of either image to its 20th
# neighbour. That leaves some hundred pairs of MNIST, and of CIFAR-10 what people know as its duplicates.
NEIGHBOUR = 20
SHARE_OF_USUAL = 0.2
# Whatever the neighbours are like: below the first no pair is alike, from the second on every pair is.
LEAST_CORRELATION, SURE_CORRELATION = 0.8, 0.998
SAMPLE = (2000, 4000)
# Each with each takes 2 to 5 s for 70,000 images on two cores, and four times as long for twice as many.
MOST_FOR_EACH_WITH_EACH = 150_000
ROWS, COLUMNS = 128, 2048
SCREENED = 16
CHECKED_AT_ONCE = 1 << 14
# Larger products OpenBLAS shares among threads of its own, which, on top of ours, makes them ten times as slow.
SMALL_PRODUCT = 150_000

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions, first < second, with their distance in bits and their correlation."""

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    correlation: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def closest(self, count: int) -> "Pairs":
        """Drop what is there twice, keep the ``count`` closest and most alike, and sort by distance, then position."""
        _, unique = np.unique(self.first.astype(np.int64) << 32 | self.second, return_index=True)
        kept = unique[np.lexsort((-self.correlation[unique], self.distance[unique]))[:count]]
        return self[kept[np.lexsort((self.second[kept], self.first[kept], self.distance[kept]))]]

    def __getitem__(self, which: np.ndarray) -> "Pairs":
        return Pairs(self.first[which], self.second[which], self.distance[which], self.correlation[which])


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield a function's results in order, computed by a thread for each core."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def frequencies(luma: np.ndarray) -> np.ndarray:
    """Return the lowest DCT-II coefficients of images: float32 (count, 12 or height, 12 or width).

    luma: float32 (count, height, width). Resized, an image keeps its low frequencies but for a common factor.
    """
    height, width = luma.shape[1:]
    across, rows = _cosines(width).T, max(1, SMALL_PRODUCT // (width * COMPARED_SIDE))
    slabs = [luma[:, top : top + rows] @ across for top in range(0, height, rows)]
    return _cosines(height) @ np.concatenate(slabs, axis=1)


@cache
def _cosines(side: int) -> np.ndarray:
    """Return the orthonormal DCT-II of one side, its lowest frequencies only: float32 (12 or side, side)."""
    frequency = np.arange(min(side, COMPARED_SIDE))[:, np.newaxis]
    waves = np.sqrt(2 / side) * np.cos(np.pi / side * frequency * (np.arange(side) + 0.5))
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


def perceptual_hashes(coefficients: np.ndarray) -> np.ndarray:
    """Hash images to uint64: which of the 8 x 8 lowest frequencies are above their median; the mean level is not one.

    The sides of the images are 8 at least.
    """
    lowest = coefficients[:, :HASHED_SIDE, :HASHED_SIDE].reshape(len(coefficients), -1)[:, 1:]
    bits = np.zeros((len(lowest), 64), bool)
    bits[:, 1:] = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def directions(coefficients: np.ndarray) -> np.ndarray:
    """Return the coefficients without the mean level as vectors of length 1, whose products are correlations."""
    vectors = coefficients.reshape(len(coefficients), -1)[:, 1:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def find_pairs(
    hashes: np.ndarray, vectors: np.ndarray, limit: int = MOST_FOR_EACH_WITH_EACH
) -> Iterator[tuple[int, int, Pairs]]:
    """Search for pairs of images that are alike, yielding steps done, steps in all, and the pairs so far.

    hashes: uint64 (count,). vectors: (count, features) of length 1. The last pairs are the result: at most one more
    than MAX_PAIRS, the closest, sorted. Above ``limit`` images only those are compared that have two of the hash's
    eight bytes in common: all pairs up to 6 bits apart, 97 % of those with 7, 90 % with 8, 79 % with 9, 67 % with 10.
    """
    found = Pairs(*(np.empty(0, kind) for kind in (np.int32, np.int32, np.uint8, np.float32)))
    count = len(hashes)
    if count < 2:
        yield 1, 1, found
        return
    search = _Search(hashes, vectors, _required(vectors))
    if count <= limit:
        steps, total = in_threads(search.with_later, range(0, count, ROWS)), -(-count // ROWS)
    else:
        ways = list(combinations(range(8), 2))
        steps, total = in_threads(search.with_equal_bytes, ways), len(ways)
    for done, more in enumerate(steps, start=1):
        found = _joined([found, more])
        yield done, total, found if done < total else found.closest(MAX_PAIRS + 1)


def _required(vectors: np.ndarray) -> np.ndarray:
    """Return the correlation that each image requires of a near copy, by how near its neighbours usually are.

    Neighbours are looked for in a sample: the nearest of 3,500 out of 70,000 is about the 20th of all.
    """
    count = len(vectors)
    size = min(count, int(np.clip(count // NEIGHBOUR, *SAMPLE)))
    sample = np.sort(np.random.default_rng(0).permutation(count)[:size])
    # In a small set the neighbour halfway; of two images, which are their own only neighbours, none.
    rank = min(max(1, round(NEIGHBOUR * size / count)), max(2, size // 2))
    compared = vectors[sample].astype(np.float32).T

    def usual(start: int) -> np.ndarray:
        correlation = vectors[start : start + ROWS].astype(np.float32, copy=False) @ compared
        own = np.flatnonzero((sample >= start) & (sample < start + ROWS))
        correlation[sample[own] - start, own] = -1
        return correlation.max(axis=1) if rank == 1 else np.partition(correlation, -rank, axis=1)[:, -rank]

    # One after another: the product uses all cores by itself.
    neighbours = np.concatenate([usual(start) for start in range(0, count, ROWS)])
    return np.clip(1 - SHARE_OF_USUAL * (1 - neighbours), LEAST_CORRELATION, SURE_CORRELATION)


def _joined(parts: list[Pairs]) -> Pairs:
    """Put pairs together; of very many only the closest, so that memory is bounded."""
    fields = ("first", "second", "distance", "correlation")
    joined = Pairs(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))
    return joined.closest(MAX_PAIRS + 1) if len(joined) > 4 * MAX_PAIRS else joined


class _Search:
    def __init__(self, hashes: np.ndarray, vectors: np.ndarray, required: np.ndarray):
        self.hashes, self.vectors, self.required = hashes, vectors, required
        # A few components in which images differ most say for nearly all pairs that they differ too much.
        varied = np.argsort(vectors[:: max(1, len(vectors) // 5000)].var(axis=0))[-SCREENED:]
        self.screen = vectors[:, varied].astype(np.float32, order="C")

    def with_later(self, start: int) -> Pairs:
        """Compare a block of images with each other and with all that come later."""
        return self._each_with_later(np.arange(len(self.hashes), dtype=np.int32), start)

    def with_equal_bytes(self, two: tuple[int, int]) -> Pairs:
        """Compare the images that have two of the hash's eight bytes in common."""
        octets = self.hashes.view(np.uint8).reshape(-1, 8)
        keys = octets[:, two[0]].astype(np.uint16) << 8 | octets[:, two[1]]
        order = np.argsort(keys, kind="stable").astype(np.int32)
        starts = np.flatnonzero(np.diff(keys[order].astype(np.int32), prepend=-1))
        sizes = np.diff(starts, append=len(order))
        parts = [self._alike(order[:0], order[:0])]
        # A large group block by block; all others at once, each image with the next one of its group, the one after..
        large = sizes > 2 * ROWS
        for begin, size in zip(starts[large], sizes[large], strict=True):
            members = order[begin : begin + size]
            parts += [self._each_with_later(members, start) for start in range(0, len(members), ROWS)]
        ends = np.repeat(np.where(large, 0, starts + sizes), sizes)
        left = np.arange(len(order))
        for step in range(1, 2 * ROWS):
            left = left[left + step < ends[left]]
            if not len(left):
                break
            first, second = order[left], order[left + step]
            near = np.bitwise_count(self.hashes[first] ^ self.hashes[second]) <= MAX_DISTANCE
            parts.append(self._alike(first[near], second[near]))
        return _joined(parts)

    def _each_with_later(self, members: np.ndarray, start: int) -> Pairs:
        """Compare members from ``start`` on, ROWS of them, with each other and with all members after them."""
        hashes = self.hashes[members]
        rows = hashes[start : start + ROWS, np.newaxis]
        parts = []
        # Memory that is asked for anew at each step costs several times as long as the comparing.
        differences = np.empty(ROWS * COLUMNS, np.uint64)
        distances, near = np.empty(ROWS * COLUMNS, np.uint8), np.empty(ROWS * COLUMNS, bool)
        for column in range(start, len(hashes), COLUMNS):
            columns = hashes[column : column + COLUMNS]
            size = len(rows) * len(columns)
            np.bitwise_xor(rows, columns, out=differences[:size].reshape(len(rows), -1))
            np.bitwise_count(differences[:size], out=distances[:size])
            np.less_equal(distances[:size], MAX_DISTANCE, out=near[:size])
            first, second = np.divmod(np.flatnonzero(near[:size]), len(columns))
            first, second = first + start, second + column
            later = second > first
            first, second = members.take(first[later]), members.take(second[later])
            parts.append(self._alike(first, second))
            if len(parts) > 64:
                parts = [_joined(parts)]
        return _joined(parts)

    def _alike(self, first: np.ndarray, second: np.ndarray) -> Pairs:
        """Return those of the pairs that are alike by the finer comparison."""
        starts = range(0, max(1, len(first)), CHECKED_AT_ONCE)
        chosen = [slice(start, start + CHECKED_AT_ONCE) for start in starts]
        return _joined([self._checked(first[some], second[some]) for some in chosen])

    def _checked(self, first: np.ndarray, second: np.ndarray) -> Pairs:
        # take, unlike an index, lets other threads run meanwhile.
        required = np.maximum(self.required.take(first), self.required.take(second))
        apart = self.screen.take(first, axis=0) - self.screen.take(second, axis=0)
        # Of vectors of length 1 the squared distance is 2 - 2 * correlation; that of some components is no more.
        possible = np.einsum("ij,ij->i", apart, apart) <= 2.001 - 2 * required
        first, second, required = first[possible], second[possible], required[possible]
        one, other = (self.vectors.take(which, axis=0).astype(np.float32, copy=False) for which in (first, second))
        correlation = np.einsum("ij,ij->i", one, other)
        alike = correlation >= required
        first, second = first[alike], second[alike]
        distance = np.bitwise_count(self.hashes[first] ^ self.hashes[second])
        return Pairs(np.minimum(first, second), np.maximum(first, second), distance, correlation[alike])
