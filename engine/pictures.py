"""Opening pictures that people bring, made into what they would expect to see."""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import LoupeError, reason_of

# 100 million pixels take 300 MB as RGB: more than cameras make, and what a small machine can spare.
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 400_000_000
# Raster formats that Pillow decodes by itself; EPS, for one, would start Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif", "tga", "ico")

# For a browser larger pictures become JPEG; below this PNG is as small, and exact.
JPEG_FROM_PIXELS = 96

# How a picture is brought to another shape: its middle is cut out, or it is laid whole on black.
FITS = ("crop", "pad")
# A JPEG is decoded at an eighth, a quarter or half of its size where that leaves this many times what is needed.
DRAFT = 2
TURNED = (5, 6, 7, 8)  # EXIF orientations in which a picture lies on its side


class Original(NamedTuple):
    """A picture as it came: its upright size in pixels, and Pillow's name for its pixels, such as RGB or L."""

    width: int
    height: int
    mode: str


def open_picture(source: Path | bytes, channels: int) -> np.ndarray:
    """Open a picture as uint8 (height, width, channels), channels 1 (grey) or 3 (RGB).

    Turned as its EXIF says; transparency laid on white; 16 bits brought to 8; the first frame of an animation.
    Raises LoupeError with the reason when it cannot be had.
    """
    with _without_warnings(), _telling_reasons(), _opened(_in_memory(_content(source))) as image:
        return _as_array(_plain(image, channels), channels)


def fit_picture(content: bytes, height: int, width: int, channels: int, fit: str) -> tuple[np.ndarray, Original]:
    """Open a picture at a size of one's own: uint8 (height, width, channels), and what it was.

    fit: one of FITS; the picture is scaled by its shorter side to be cropped, by its longer side to be padded.
    As ``open_picture`` otherwise, but warnings of Pillow are the caller's.
    """
    with _telling_reasons(), _opened(_in_memory(content)) as image:
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
        plain = _plain(image, channels)
        if size != plain.size or box != (0, 0, *plain.size):
            # Rounding may lead out of the picture by a hair, which Pillow refuses.
            left, top = max(0.0, box[0] * shrunk), max(0.0, box[1] * shrunk)
            box = left, top, min(box[2] * shrunk, plain.width), min(box[3] * shrunk, plain.height)
            # Bilinear with antialiasing, as torchvision's Resize does.
            plain = plain.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
        if size != (width, height):
            whole = Image.new(plain.mode, (width, height))
            whole.paste(plain, ((width - size[0]) // 2, (height - size[1]) // 2))
            plain = whole
        return _as_array(plain, channels), original


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
    with _without_warnings(), _telling_reasons(), _opened(file) as image:
        if image.format == "PNG" and "exif" not in image.info:  # it would be decoded to look for EXIF at its end
            return Original(*image.size, image.mode)
        return _original(image)


def has_colour(content: bytes) -> bool:
    """Tell whether a picture is more than grey, whatever it is stored as. Looked at small, and with some tolerance."""
    with _without_warnings(), _telling_reasons(), _opened(_in_memory(content)) as image:
        if image.mode in ("1", "L", "LA", "F", "I") or image.mode.startswith("I;16"):
            return False
        image.draft(None, (64, 64))
        small = _plain(image, 3)
        small.thumbnail((64, 64))
        pixels = np.asarray(small).astype(np.int16)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    # JPEG leaves grey pictures a level or two off grey; a tinted scan differs by more, all over or somewhere.
    return bool(spread.max() > 12)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep to ourselves what Pillow warns of: odd metadata, and sizes that Loupe has a limit of its own for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@contextmanager
def _telling_reasons() -> Iterator[None]:
    """Turn whatever opening a picture may raise into a sentence."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise LoupeError(_too_large(None)) from error
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
        raise LoupeError(
            f"The picture is damaged or cut short ({reason_of(error)}). Get a whole copy of the file."
        ) from error


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if source.stat().st_size > MAX_FILE_BYTES:
        raise LoupeError(f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB. Make the picture smaller first.")
    return source.read_bytes()


def _in_memory(content: bytes) -> BinaryIO:
    if not content:
        raise LoupeError("The file is empty. Get a whole copy of it.")
    return io.BytesIO(content)


@cache
def _formats() -> list[str]:
    """List the formats of ours that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open a picture of one of the known formats, not yet decoded."""
    with Image.open(file, formats=_formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise LoupeError(_too_large(image.size))
        yield image


def _original(image: Image.Image) -> Original:
    width, height = image.size
    # Pillow gives the size of a TIFF upright.
    if image.format != "TIFF" and image.getexif().get(0x0112) in TURNED:
        width, height = height, width
    return Original(width, height, image.mode)


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Decode a picture to upright grey or RGB."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return _on_white(_eight_bits(image)).convert("L" if channels == 1 else "RGB")


def _as_array(plain: Image.Image, channels: int) -> np.ndarray:
    return np.asarray(plain).reshape(plain.height, plain.width, channels)


def _crop_box(original: Original, height: int, width: int) -> tuple[float, float, float, float]:
    """Return the middle of a picture in the shape of height and width: left, top, right, bottom."""
    scale = min(original.width / width, original.height / height)
    columns, rows = width * scale, height * scale
    left, top = (original.width - columns) / 2, (original.height - rows) / 2
    return left, top, left + columns, top + rows


def _padded_size(original: Original, height: int, width: int) -> tuple[int, int]:
    """Return the width and height of a picture scaled to fit into height and width."""
    scale = min(width / original.width, height / original.height)
    return max(1, min(width, round(original.width * scale))), max(1, min(height, round(original.height * scale)))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit and floating-point grey to 8 bits; Pillow's own conversion would clip it to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        highest = values.max()
        full = next((full for full in (1.0, 255.0, 65535.0) if highest <= full), highest)
        if image.mode == "I" and full == 1.0:
            full = 255.0
        return Image.fromarray((values.clip(0, full) / full * 255).round().astype(np.uint8))
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _too_large(size: tuple[int, int] | None) -> str:
    measured = f"has {size[0]:,} x {size[1]:,} pixels" if size else "unpacks to far more pixels than a photograph has"
    return f"The picture {measured}; at most {MAX_PIXELS // 1_000_000} million are opened. Make it smaller first."
