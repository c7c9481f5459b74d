"""Telling which files of a source are pictures: by their suffix where it is known, by their first bytes else."""

import re
from importlib.util import find_spec

from engine.base.errors import LoupeError
from engine.images.pictures import HEIF_SUFFIXES, SUFFIXES
from engine.images.sources import File, Source, UnsafeSourceError

# Files that lie beside pictures, in class folders too: they are left out, unread.
OTHER_SUFFIXES = frozenset(
    {"xml", "json", "txt", "csv", "tsv", "md", "html", "yaml", "yml", "npy", "pdf", "doc", "docx", "mp4", "mov", "avi"}
    | {"zip", "tar", "gz", "py", "db", "ini", "log", "xmp", "aae"}
)
RAW_SUFFIXES = ("arw", "cr2", "cr3", "dng", "nef", "nrw", "orf", "pef", "raf", "rw2", "srw")
# Pictures that are not read, by suffix; camera raw must be told so: by its content it is a TIFF of a small preview.
UNREAD_SUFFIXES = dict.fromkeys(HEIF_SUFFIXES, "HEIC") | dict.fromkeys(RAW_SUFFIXES, "camera raw")
UNREAD_SUFFIXES |= {"svg": "SVG", "psd": "PSD", "eps": "EPS", "dcm": "DICOM", "jxl": "JPEG XL", "xcf": "XCF"}
# Enough for the names of formats, and for that of DICOM, which comes after 128 bytes.
START_BYTES = 256

# The first bytes of what Pillow opens, but for TGA, which has none of its own.
_PICTURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+|P[1-6][\s#]"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|\0\0\x01\0[\x01-\x20]\0.{3}\0"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|.{4}ftypavi[fs]",
    re.DOTALL,
)
_UNREAD = {
    "HEIC": re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    "camera raw": re.compile(rb"FUJIFILMCCD-RAW|II\*\0....CR\x02|IIR[OS]|.{4}ftypcrx ", re.DOTALL),
    "PSD": re.compile(rb"8BPS\0"),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "SVG": re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*)?<svg[\s>]", re.DOTALL),
    "EPS": re.compile(rb"%!PS-Adobe|\xc5\xd0\xd3\xc6"),
    "DICOM": re.compile(rb".{128}DICM", re.DOTALL),
    "XCF": re.compile(rb"gimp xcf"),
}


def suffix(name: str) -> str:
    """Return what a file's name ends in, in lower case and without the dot; nothing for one that begins with it."""
    stem, _, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if stem else ""


def is_picture(source: Source, file: File) -> bool | None:
    """Tell whether a listed file is a picture; None where neither its suffix nor its first bytes say what it is.

    Only of files with unknown suffixes is anything read. Raises LoupeError for a picture of a kind that is not read,
    with what it takes.
    """
    ending = suffix(file.name)
    if ending in SUFFIXES:
        return True
    if ending in OTHER_SUFFIXES:
        return False
    kind = None if ending in RAW_SUFFIXES else kind_of(_first_bytes(source, file))
    if kind == "picture":
        return True
    if unread := kind or UNREAD_SUFFIXES.get(ending):
        raise LoupeError(unread_in_words(unread))
    return None


def kind_of(start: bytes) -> str | None:
    """Tell what a file is by its first bytes: ``picture``, or the name of a kind that is not read; None for others."""
    unread = next((kind for kind, pattern in _UNREAD.items() if pattern.match(start)), None)
    if unread == "HEIC" and (find_spec("pillow_heif") or b"avif" in start[16:64]):
        return "picture"
    return unread or ("picture" if _PICTURE.match(start) else None)


def unread_kinds() -> list[str]:
    """List the kinds of pictures that are not read."""
    return list(_UNREAD)


def unread_in_words(kind: str) -> str:
    """Say of a picture of a kind that is not read what it takes."""
    if kind == "HEIC":
        return (
            "This is a HEIC picture, which needs pillow-heif. Run pip install pillow-heif and start again, or save it "
            "as JPEG."
        )
    article = "an" if kind in ("SVG", "EPS", "XCF") else "a"
    return f"This is {article} {kind} picture, which is not read. Save it as PNG or JPEG."


def _first_bytes(source: Source, file: File) -> bytes:
    try:
        # Of a zip more, as compressed bytes begin with tables.
        with source.start(file.place, 16 * START_BYTES) as start:
            return start.read(START_BYTES)
    except UnsafeSourceError:
        raise
    except (LoupeError, OSError):  # reading it tells
        return b""
