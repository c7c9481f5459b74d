"""From an opened picture to the pixels that a model is given.

The text of this file goes into the programs that are exported with a model, so that both read a picture alike: it
needs nothing but NumPy and Pillow.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

# Larger pictures are brought below this by averaging squares of pixels, so that any photograph takes bounded memory.
MOST_PIXELS = 1 << 24
# Raster formats that Pillow decodes by itself; EPS, for one, would start Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "HEIF")

ORIENTATION = 0x0112  # of EXIF
# How a picture is turned that its camera stored in another orientation than the first.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_pixels(image: Image.Image, channels: int, levels: tuple[float, float] | None = None) -> np.ndarray:
    """Decode a picture to uint8 (height, width, channels), channels 1 (grey) or 3 (RGB).

    Turned as its EXIF says; transparency laid on white, but opaque if it is transparent all over; the first frame of an
    animation. levels: of pictures of more than 8 bits, the values that become black and white; None takes the range
    that its type or its largest value says.
    """
    if (step := averaging_step(image)) > 1:
        image.draft(None, (image.width // step, image.height // step))  # of a JPEG less is decoded
        step = averaging_step(image)
    image.load()
    decoded = plain(image, channels, levels) if step == 1 else averaged(image, channels, step, levels)
    upright = turned(decoded, orientation(image))
    return np.asarray(upright).reshape(upright.height, upright.width, channels)


def orientation(image: Image.Image) -> int:
    """Read how a picture is to be turned, as EXIF numbers it: 1, as it lies, where that is not said or cannot be read.

    Nothing else of EXIF is needed, and whatever else is wrong with it does no harm. Of a picture that Pillow turns as
    it decodes it, 1 once it is decoded.
    """
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises whatever the damage leads to
        return 1
    return found if found in TURNS else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def averaging_step(image: Image.Image) -> int:
    return math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS))


def averaged(image: Image.Image, channels: int, step: int, levels: tuple[float, float] | None) -> Image.Image:
    """Shrink a picture by a whole number, a strip at a time: a second copy of all of it would be as large."""
    if image.mode in ("I", "F"):  # the range of all of its values is needed
        return plain(image.reduce(step), channels, levels)
    width, height = image.size
    small = Image.new("L" if channels == 1 else "RGB", (-(-width // step), -(-height // step)))
    opaque = has_unused_alpha(image)  # of the whole: a strip may be transparent all over in a picture that is not
    for top, strip in strips(image, step):
        small.paste(
            on_white(without_alpha(strip) if opaque else strip, channels, levels).reduce(step), (0, top // step)
        )
    return small


def strips(image: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Cut a picture into strips of bounded memory: the top row of each, a multiple of a number, and the strip."""
    width, height = image.size
    rows = multiple * max(1, MOST_PIXELS // 16 // (width * multiple))
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def is_deep(mode: str) -> bool:
    """Tell whether pictures of a mode have values of more than 8 bits: whole numbers, signed or not, or floats."""
    return mode in ("I", "F") or mode.startswith("I;16")


def plain(image: Image.Image, channels: int, levels: tuple[float, float] | None) -> Image.Image:
    """Bring the pixels of a picture to 8 bits of grey or RGB, on white where it is transparent.

    One that is transparent all over is opaque: its alpha was left at 0 by a program that does not use it.
    """
    return on_white(without_alpha(image) if has_unused_alpha(image) else image, channels, levels)


def has_unused_alpha(image: Image.Image) -> bool:
    """Tell whether a picture is transparent all over, and yet has colours. An empty canvas is black under its alpha."""
    if not image.has_transparency_data:
        return False
    has_colours = False
    for _, strip in strips(image):
        pixels = np.asarray(strip.convert("RGBA"))
        if pixels[..., 3].any():
            return False
        has_colours = has_colours or bool(pixels[..., :3].any())
    return has_colours


def without_alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").convert("RGB")


def on_white(image: Image.Image, channels: int, levels: tuple[float, float] | None) -> Image.Image:
    if levels and is_deep(image.mode):
        low, high = levels
        share = (np.asarray(image, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
        image = Image.fromarray((np.nan_to_num(share).clip(0, 1) * 255).round().astype(np.uint8))
    elif image.mode.startswith("I;16"):  # Pillow's own conversion would clip 16 bits to white
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        full = next((full for full in (1.0, 255.0, 65535.0) if values.max() <= full), values.max())
        full = 255.0 if image.mode == "I" and full == 1.0 else full
        image = Image.fromarray((values.clip(0, full) / full * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")
