"""Opening pictures that people bring, made into what they would expect to see."""

import base64
import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from engine.base.errors import LoupeError, reason_of
from engine.images.jpeg import with_end
from engine.images.levels import Counts, count_values
from engine.images.pixels import FORMATS, as_pixels, orientation, plain, turned

# 100 million pixels take 400 MB in Pillow: what each process of an import can spare.
MAX_PIXELS = 100_000_000
# Of one picture at a time; the largest cameras make 200 million, of which Pillow opens no more than this.
MAX_PIXELS_OF_ONE = 178_000_000
MAX_FILE_BYTES = 400_000_000
# Pictures of more pixels are decoded one at a time, whatever threads ask: the largest take 700 MB in Pillow.
PIXELS_OF_SEVERAL = 64_000_000
SUFFIXES: tuple[str, ...] = (
    "png",
    "jpg",
    "jpeg",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "ppm",
    "pgm",
    "jp2",
    "avif",
    "tga",
    "ico",
)
# What iPhones make, where pillow-heif is there to read it.
HEIF_SUFFIXES = ("heic", "heif")
if find_spec("pillow_heif"):
    SUFFIXES += HEIF_SUFFIXES
# Formats of films: where others have more than one picture, these are pages, or versions of it.
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")

# For a browser larger pictures become JPEG; below this PNG is as small, and exact.
JPEG_FROM_PIXELS = 96

# How a picture is brought to another shape: its middle is cut out, or it is laid whole on black.
FITS = ("crop", "pad")
# A JPEG is decoded at an eighth, a quarter or half of its size where that leaves this many times what is needed.
DRAFT = 2
TURNED = (5, 6, 7, 8)  # EXIF orientations in which a picture lies on its side
ORIENTED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}  # where Pillow keeps what a PNG says of it


class Original(NamedTuple):
    """A picture as it came: its upright size in pixels, and Pillow's name for its pixels, such as RGB or L."""

    width: int
    height: int
    mode: str


class Picture(NamedTuple):
    """A picture that was opened: pixels, uint8 (height, width, channels); what it was; what is to be said of it."""

    pixels: np.ndarray
    original: Original
    note: str


_large = threading.Lock()
# Pillow's own blocks, of 16 MB, would stay with the heap of each thread that ever opened a large picture: 600 MB each.
# Of those above 32 MB every one is given back.
Image.core.set_block_size(1 << 26)


def open_picture(source: Path | bytes, channels: int, levels: tuple[float, float] | None = None) -> Picture:
    """Open a picture as ``as_pixels`` does: upright, on white, of an animation the first frame, which the note says.

    One of more than 16 million pixels comes smaller. Raises LoupeError with the reason when it cannot be had.
    """
    content = source if isinstance(source, bytes) else read_file(source)
    with without_warnings(), _telling_reasons():
        with _opened(_in_memory(content), MAX_PIXELS_OF_ONE) as image:
            is_large = image.width * image.height > PIXELS_OF_SEVERAL
        with _large if is_large else nullcontext():
            return _decoded(content, channels, levels)


def _decoded(content: bytes, channels: int, levels: tuple[float, float] | None) -> Picture:
    with _opened_whole(content, MAX_PIXELS_OF_ONE) as image:
        frames = image.format in ANIMATED and getattr(image, "is_animated", False)
        original = _original(image)
        return Picture(as_pixels(image, channels, levels), original, "An animation: its first frame." if frames else "")


def fit_picture(
    content: bytes, height: int, width: int, channels: int, fit: str, levels: tuple[float, float] | None = None
) -> tuple[np.ndarray, Original]:
    """Open a picture at a size of one's own: uint8 (height, width, channels), and what it was.

    fit: one of FITS; the picture is scaled by its shorter side to be cropped, by its longer side to be padded.
    As ``open_picture`` otherwise, but warnings of Pillow are the caller's.
    """
    with _telling_reasons(), _opened_whole(content) as image:
        original = _original(image)
        box = _crop_box(original, height, width) if fit == "crop" else (0, 0, original.width, original.height)
        size = (width, height) if fit == "crop" else _padded_size(original, height, width)
        factor = max(size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1]))
        shrunk = 1.0
        if factor < 1:
            width_as_stored = image.width
            enough = (max(1, int(DRAFT * image.width * factor)), max(1, int(DRAFT * image.height * factor)))
            drafted = image.draft("L" if channels == 1 else None, enough)
            if drafted:  # its size is rounded up: the whole picture ends within its last pixels
                shrunk = drafted[1][2] / width_as_stored
        fitted = _upright(image, channels, levels)
        if size != fitted.size or box != (0, 0, *fitted.size):
            # Rounding may lead out of the picture by a hair, which Pillow refuses.
            left, top = max(0.0, box[0] * shrunk), max(0.0, box[1] * shrunk)
            box = left, top, min(box[2] * shrunk, fitted.width), min(box[3] * shrunk, fitted.height)
            # Bilinear with antialiasing, as torchvision's Resize does.
            fitted = fitted.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
        if size != (width, height):
            whole = Image.new(fitted.mode, (width, height))
            whole.paste(fitted, ((width - size[0]) // 2, (height - size[1]) // 2))
            fitted = whole
        return np.asarray(fitted).reshape(height, width, channels), original


def data_url(image: np.ndarray, most: int | None = None) -> str:
    """Encode an image, uint8 (height, width, channels), for a browser; shrunk to ``most`` pixels where it is larger."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if most:
        picture.thumbnail((most, most))
    kind = "jpeg" if max(picture.size) >= JPEG_FROM_PIXELS else "png"
    content = io.BytesIO()
    picture.save(content, kind)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def look_at(file: BinaryIO) -> Original:
    """Read what a picture is from its first bytes, without decoding it."""
    with without_warnings(), _telling_reasons(), _opened(file) as image:
        if (
            image.format == "PNG" and not ORIENTED & image.info.keys()
        ):  # it would be decoded to look for EXIF at its end
            return Original(*image.size, image.mode)
        return _original(image)


def values_of(content: bytes) -> Counts:
    """Count the values of a picture of more than 8 bits; of another there are none."""
    with without_warnings(), _telling_reasons(), _opened(_in_memory(content)) as image:
        return count_values(image)


def has_colour(content: bytes) -> bool:
    """Tell whether a picture is more than grey, whatever it is stored as. Looked at small, and with some tolerance."""
    with without_warnings(), _telling_reasons(), _opened_whole(content) as image:
        if image.mode in ("1", "L", "LA", "F", "I") or image.mode.startswith("I;16"):
            return False
        image.draft(None, (64, 64))
        small = _upright(image, 3, None)
        small.thumbnail((64, 64))
        pixels = np.asarray(small).astype(np.int16)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    # JPEG leaves grey pictures a level or two off grey; a tinted scan differs by more, all over or somewhere.
    return bool(spread.max() > 12)


# Python's filters are those of all threads, so those that want quiet are counted.
_quiet = threading.Lock(), ExitStack(), [0]


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep to ourselves what Pillow warns of: odd metadata, and sizes that Loupe has a limit of its own for.

    The first of several threads that are within sets Python's filters, the last brings them back.
    """
    lock, filters, within = _quiet
    with lock:
        if not within[0]:
            filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module="PIL")
        within[0] += 1
    try:
        yield
    finally:
        with lock:
            within[0] -= 1
            if not within[0]:
                filters.close()


@contextmanager
def _telling_reasons() -> Iterator[None]:
    """Turn whatever opening a picture may raise into a sentence."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise LoupeError(_too_large(None, MAX_PIXELS_OF_ONE)) from error
    except (FileNotFoundError, NotADirectoryError):
        raise LoupeError("There is no such file. Check its name and folder.") from None
    except IsADirectoryError:
        raise LoupeError("This is a folder. Name the pictures in it.") from None
    except PermissionError:
        raise LoupeError("The file may not be read. Change its permissions, or copy it.") from None
    except UnidentifiedImageError:
        raise LoupeError("This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP or TIFF.") from None
    except LoupeError:
        raise
    except MemoryError:
        raise LoupeError("There is not enough memory to open the picture. Make it smaller first.") from None
    except Exception as error:  # decoders raise whatever the damage leads to
        if reason := getattr(error, "strerror", None):  # this is the system's
            raise LoupeError(f"The file cannot be read ({reason}). Check its name and its disk.") from error
        raise LoupeError(
            f"The picture is damaged or cut short ({reason_of(error)}). Get a whole copy of the file."
        ) from error


def read_file(path: Path) -> bytes:
    """Read the file of a picture. Raises LoupeError with the reason when it cannot be had."""
    with _telling_reasons():
        # A pipe or a device would be waited for, or have no end.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise LoupeError("This is not a regular file. Name a picture.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LoupeError(
                f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB. Make the picture smaller first."
            )
        return path.read_bytes()


def _in_memory(content: bytes) -> BinaryIO:
    if not content:
        raise LoupeError("The file is empty. Get a whole copy of it.")
    return io.BytesIO(content)


@cache
def _formats() -> list[str]:
    """List the formats of ours that this Pillow was built with, or that were added to it."""
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _opened(file: BinaryIO, most_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture of one of the known formats, not yet decoded."""
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        file.seek(4)
        if file.read(8) in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc") and not find_spec(
            "pillow_heif"
        ):
            raise LoupeError(
                "This is a HEIC picture, which needs pillow-heif. Run pip install pillow-heif and start again, or save "
                "it as JPEG."
            ) from None
        raise
    with image:
        if image.width * image.height > most_pixels:
            raise LoupeError(_too_large(image.size, most_pixels))
        yield image


@contextmanager
def _opened_whole(content: bytes, most_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture that is to be decoded: as ``_opened`` does, and a JPEG without its end marker as one with it."""
    with _opened(_in_memory(content), most_pixels) as image:
        whole = with_end(content)  # once it is known not to be too large
        if whole is content:
            yield image
            return
    with _opened(_in_memory(whole), most_pixels) as image:
        yield image


def _original(image: Image.Image) -> Original:
    width, height = image.size
    # Pillow gives the size of a TIFF upright.
    if image.format != "TIFF" and orientation(image) in TURNED:
        width, height = height, width
    return Original(width, height, image.mode)


def _upright(image: Image.Image, channels: int, levels: tuple[float, float] | None) -> Image.Image:
    """Decode a picture to upright grey or RGB."""
    image.load()
    return turned(plain(image, channels, levels), orientation(image))


def _crop_box(original: Original, height: int, width: int) -> tuple[float, float, float, float]:
    """Return the middle of a picture in the shape of height and width: left, top, right, bottom."""
    scale = min(original.width / width, original.height / height)
    columns, rows = width * scale, height * scale
    left, top = (original.width - columns) / 2, (original.height - rows) / 2
    return left, top, left + columns, top + rows


def _padded_size(original: Original, height: int, width: int) -> tuple[int, int]:
    """Return the width and height of a picture scaled to fit into height and width."""
    columns = (2 * original.width * height + original.height) // (2 * original.height)
    rows = (2 * original.height * width + original.width) // (2 * original.width)
    return max(1, min(width, columns)), max(1, min(height, rows))


def _too_large(size: tuple[int, int] | None, most_pixels: int) -> str:
    measured = f"has {size[0]:,} x {size[1]:,} pixels" if size else "unpacks to far more pixels than a photograph has"
    return f"The picture {measured}; at most {most_pixels // 1_000_000} million are opened. Make it smaller first."
