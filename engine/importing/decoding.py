"""What the processes of an import do: decode some pictures, and write them where they belong."""

import os
import threading
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from engine.base.errors import LoupeError
from engine.images.levels import Counts
from engine.images.pictures import Original, fit_picture, has_colour, look_at, values_of
from engine.images.pixels import is_deep
from engine.images.sources import Source, UnsafeSourceError, open_source

GREY_MODES = ("1", "L", "LA")


@dataclass(frozen=True)
class Chunk:
    """Some images of a split, in the order of their rows.

    paths: of the sources. sources, places: where to read each, by the number of its source. file, offset: where the
    pixels of the first go; the others follow.
    """

    paths: tuple[str, ...]
    sources: tuple[int, ...]
    places: tuple[bytes, ...]
    file: str
    offset: int
    height: int
    width: int
    channels: int
    fit: str
    levels: tuple[float, float] | None


@dataclass(frozen=True)
class Glance:
    """Some pictures of an import that are looked at before any is decoded: where to read each.

    for_colour, for_values: whether it is to be found out if they have colour, and what values those of more than 8
    bits have.
    """

    paths: tuple[str, ...]
    sources: tuple[int, ...]
    places: tuple[bytes, ...]
    for_colour: bool
    for_values: bool


@dataclass
class Sight:
    """What pictures are: how many of each width and height, whether any has colour, values of more than 8 bits."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    has_colour: bool = False
    values: Counts = field(default_factory=Counter)

    def add(self, other: "Sight") -> None:
        self.sizes += other.sizes
        self.has_colour |= other.has_colour
        self.values += other.values


def prepare_process() -> None:
    """Make a new process ready to decode pictures."""
    # Of odd metadata, and of sizes that Loupe has a limit of its own for.
    warnings.filterwarnings("ignore", module="PIL")
    parent = parent_process()
    if parent is not None:
        # Or it would wait without end for work from a parent that was killed.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@cache
def _open(path: str) -> Source:
    return open_source(Path(path))


def decode(chunk: Chunk) -> list[Original | str]:
    """Decode pictures and write their pixels; returns for each what it was, or the reason why it is bad."""
    pixels = np.zeros((len(chunk.places), chunk.height, chunk.width, chunk.channels), dtype=np.uint8)
    results: list[Original | str] = []
    sources = [_open(path) for path in chunk.paths]
    for row, (source, place) in enumerate(zip(chunk.sources, chunk.places, strict=True)):
        try:
            pixels[row], original = fit_picture(
                sources[source].read(place), chunk.height, chunk.width, chunk.channels, chunk.fit, chunk.levels
            )
            results.append(original)
        except UnsafeSourceError:
            raise
        except LoupeError as error:
            results.append(str(error))
    write_at(Path(chunk.file), chunk.offset, pixels.data.cast("B"))
    return results


def look(glance: Glance) -> Sight:
    """Look at pictures, decoding none that need not be; those that are bad are passed over."""
    seen = Sight()
    sources = [_open(path) for path in glance.paths]
    for number, place in zip(glance.sources, glance.places, strict=True):
        with suppress(LoupeError):  # decoding it tells
            look_into(sources[number], place, seen, for_colour=glance.for_colour, for_values=glance.for_values)
    return seen


def look_into(source: Source, place: bytes, seen: Sight, *, for_colour: bool, for_values: bool) -> Original:
    """Look at one picture, and add what it is to what was seen."""
    with source.start(place) as file:
        original = look_at(file)
    seen.sizes[original.width, original.height] += 1
    if is_deep(original.mode):
        if for_values:
            seen.values += values_of(source.read(place))
    elif for_colour and not seen.has_colour and original.mode not in GREY_MODES:
        seen.has_colour = has_colour(source.read(place))
    return original


def write_at(path: Path, offset: int, content: memoryview) -> None:
    """Write into a file that is there. Written through a memory map, it would count as this process's memory."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while len(content):
            written = os.pwrite(descriptor, content, offset)
            content, offset = content[written:], offset + written
    finally:
        os.close(descriptor)
