"""Opening pictures that people bring, made into what they would expect to see."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import LoupeError, reason_of

# 100 million pixels take 300 MB as RGB: more than cameras make, and what a small machine can spare.
MAX_PIXELS = 100_000_000
# Raster formats that Pillow decodes by itself; EPS, for one, would start Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif", "tga", "ico")


def open_picture(source: Path | bytes, channels: int) -> np.ndarray:
    """Open a picture as uint8 (height, width, channels), channels 1 (grey) or 3 (RGB).

    Turned as its EXIF says; transparency laid on white; 16 bits brought to 8; the first frame of an animation.
    Raises LoupeError with the reason when it cannot be had.
    """
    try:
        with warnings.catch_warnings():
            # Of odd metadata, and of sizes that Loupe has a limit of its own for.
            warnings.filterwarnings("ignore", module="PIL")
            return _open(source, channels)
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
    except Exception as error:  # decoders raise whatever the damage leads to
        raise LoupeError(
            f"The picture is damaged or cut short ({reason_of(error)}). Get a whole copy of the file."
        ) from error


def _open(source: Path | bytes, channels: int) -> np.ndarray:
    content = source if isinstance(source, bytes) else source.read_bytes()
    if not content:
        raise LoupeError("The file is empty. Get a whole copy of it.")
    Image.init()
    with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise LoupeError(_too_large(image.size))
        image.load()
        upright = ImageOps.exif_transpose(image)
        plain = _on_white(_eight_bits(upright)).convert("L" if channels == 1 else "RGB")
    return np.asarray(plain).reshape(plain.height, plain.width, channels)


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
