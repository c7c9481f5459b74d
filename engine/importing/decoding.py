"""What the processes of an import do: decode some pictures, and write them where they belong."""

import os
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from engine.base.errors import LoupeError
from engine.images.pictures import Original, fit_picture
from engine.images.sources import Source, UnsafeSourceError, open_source


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
                sources[source].read(place), chunk.height, chunk.width, chunk.channels, chunk.fit
            )
            results.append(original)
        except UnsafeSourceError:
            raise
        except LoupeError as error:
            results.append(str(error))
    write_at(Path(chunk.file), chunk.offset, pixels.data.cast("B"))
    return results


def write_at(path: Path, offset: int, content: memoryview) -> None:
    """Write into a file that is there. Written through a memory map, it would count as this process's memory."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while len(content):
            written = os.pwrite(descriptor, content, offset)
            content, offset = content[written:], offset + written
    finally:
        os.close(descriptor)
