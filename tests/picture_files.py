"""Picture files for the tests of imports, and imports of them."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, open_dataset, prepared_root
from engine.importing.plan import Listing, Plan, Request, make_plan
from engine.importing.write import import_dataset

Files = Mapping[str, bytes]


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def noise(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    """Return pixels that no other seed has: uint8 (height, width, channels), or without channels where it is one."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(seed: int = 0, height: int = 6, width: int = 5, channels: int = 3) -> bytes:
    return encode(Image.fromarray(noise(seed, height, width, channels)))


def pngs(names, **settings) -> dict[str, bytes]:
    """Make a small picture for each name, of pixels of its own."""
    return {name: png(seed, **settings) for seed, name in enumerate(names)}


def png_of_size(width: int, height: int) -> bytes:
    """Make a PNG that says to be of a size, with next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


def write(folder: Path, files: Files) -> Path:
    """Write files into a folder, by their names below it; returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pack(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write files into a zip archive; returns its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def put(kind: str, place: Path, files: Files) -> Path:
    """Write files as a folder or as a zip archive in a place; returns the path to import."""
    return write(place / "pictures", files) if kind == "folder" else pack(place / "pictures.zip", files)


def result_of(steps: Generator):
    """Run a generator to its end; returns what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value


@contextmanager
def listing_of(path: Path, **settings) -> Iterator[tuple[Listing, Plan]]:
    """Yield the files of an import and its plan."""
    with closing(Listing(Request("pictures", str(path), **settings))) as listing:
        yield listing, result_of(make_plan(listing))


def understand(path: Path, **settings) -> tuple[Plan, dict[str, tuple[str, str]]]:
    """Plan an import: returns the plan, and the split and the class of each file by its name."""
    with listing_of(path, **settings) as (listing, plan):
        rows = listing.database.execute("SELECT name, split, class FROM images").fetchall()
    return plan, {name: (split, plan.classes[number]) for name, split, number in rows}


def import_pictures(name: str, path: Path, **settings) -> Dataset:
    result_of(import_dataset(Request(name, str(path), **settings)))
    return open_dataset(name)


def refusal(steps: Generator) -> str:
    """Check that a plan or an import is refused in a sentence or two; returns them."""
    with pytest.raises(LoupeError) as refused:
        result_of(steps)
    message = str(refused.value)
    assert_sentences(message)
    return message


def assert_sentences(message: str) -> None:
    assert message.isprintable()
    assert message.endswith(".")
    assert "  " not in message
    assert 1 <= len(re.findall(r"(?<!\.)\.(?= |$)", message)) <= 2, message


def left_behind() -> list[str]:
    """List what is in the folder of prepared data, but for files of locks."""
    return sorted(path.name for path in prepared_root().glob("*") if not path.name.endswith(".lock"))


def files_of(dataset: Dataset, split: str) -> list[str]:
    """List the names of the files that a split's images came from, in their order."""
    from engine.data.source_files import open_source_files

    origins = open_source_files(dataset, split)
    return [origins.of(row)["file"] for row in range(len(origins))]


# Where fields are in an entry of an archive's directory, and their formats: APPNOTE.TXT 4.3.12.
FLAGS, CRC, SIZE = (8, "<H"), (16, "<L"), (24, "<L")


def change_entry(path: Path, name: str, field: tuple[int, str], value: int) -> None:
    """Change a field of a file in the directory of an archive, which comes last in it."""
    content = bytearray(path.read_bytes())
    header = content.rindex(name.encode()) - 46
    struct.pack_into(field[1], content, header + field[0], value)
    path.write_bytes(content)
