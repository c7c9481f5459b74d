"""Telling what a single file is that a person names in the place of a folder, by its content."""

import re
from pathlib import Path

from engine.base.errors import LoupeError
from engine.base.tars import is_compressed_tar, is_tar
from engine.base.text import printable

START_BYTES = 1024
_ZIP_END_BYTES = 1 << 16

ZIP, TAR, COMPRESSED_TAR = "zip", "tar", "compressed tar"

_ARCHIVES = {
    "a RAR archive": re.compile(rb"Rar!\x1a\x07"),
    "a 7z archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "a file compressed by gzip": re.compile(rb"\x1f\x8b"),
    "a file compressed by bzip2": re.compile(rb"BZh"),
    "a file compressed by xz": re.compile(rb"\xfd7zXZ\0"),
    "a file compressed by Zstandard": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_OTHERS = {
    "a Parquet file": re.compile(rb"PAR1"),
    "an Arrow file": re.compile(rb"ARROW1"),
    "a MATLAB file": re.compile(rb"MATLAB [57]\.\d MAT-file"),
    "an HDF5 file": re.compile(rb"\x89HDF\r\n\x1a\n"),
    "a NumPy array (.npy)": re.compile(rb"\x93NUMPY"),
    "an IDX file": re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\x01-\x04]"),
    "a SQLite database": re.compile(rb"SQLite format 3\0"),
    "a PDF": re.compile(rb"%PDF-"),
    "a pickle of Python": re.compile(rb"\x80[\x02-\x05]"),
}


def kind_of_file(path: Path) -> str:
    """Tell whether a file is a ZIP, a TAR or a COMPRESSED_TAR.

    Raises LoupeError, which says what it is, for whole files of other kinds, and OSError when it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        file.seek(max(0, path.stat().st_size - _ZIP_END_BYTES))
        is_zip = start[:2] == b"PK" or b"PK\x05\x06" in file.read(_ZIP_END_BYTES)
    name = printable(str(path))
    if is_zip:
        if start[:4] == b"PK\x03\x04" and start[30 : 30 + int.from_bytes(start[26:28], "little")].endswith(b".npy"):
            raise LoupeError(_no_pictures(name, "a NumPy archive of arrays (.npz)"))
        return ZIP
    if is_tar(start):
        return TAR
    if is_compressed_tar(path):
        return COMPRESSED_TAR
    if kind := _first_match(_ARCHIVES, start):
        raise LoupeError(
            f"{name} is {kind}, which is not read. Unpack it and import the folder, or pack it as a zip or a tar."
        )
    if kind := _first_match(_OTHERS, start):
        raise LoupeError(_no_pictures(name, kind))
    if start and _is_text(start):
        raise LoupeError(
            f"{name} is a text, and what is taken is a folder, a zip, a tar or a CSV. If it lists pictures, write "
            "file,label as its first line, with a comma between the two in each, and save it with the suffix .csv."
        )
    raise LoupeError(
        f"{name} is {'empty' if not start else 'a file of another kind'}. Name a folder, a zip, a tar or a CSV of "
        "pictures."
    )


def _first_match(kinds: dict[str, re.Pattern[bytes]], start: bytes) -> str | None:
    return next((kind for kind, pattern in kinds.items() if pattern.match(start)), None)


def _no_pictures(name: str, kind: str) -> str:
    return (
        f"{name} is {kind}, and what is taken is a folder, a zip, a tar or a CSV. Save its images as picture files, in "
        "a folder for each class, and import the folder."
    )


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8") if len(start) < START_BYTES else start[:-3].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)
