"""From an opened picture to the pixels that a model is given.

The text of this file goes into the programs that are exported with a model, so that both read a picture alike: it
needs nothing but NumPy and Pillow.
"""

import math

import numpy as np
from PIL import Image, ImageOps

# Larger pictures are brought below this by averaging squares of pixels, so that any photograph takes bounded memory.
MOST_PIXELS = 1 << 24
# Raster formats that Pillow decodes by itself; EPS, for one, would start Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "HEIF")


def as_pixels(image: Image.Image, channels: int, levels: tuple[float, float] | None = None) -> np.ndarray:
    """Decode a picture to uint8 (height, width, channels), channels 1 (grey) or 3 (RGB).

    Turned as its EXIF says; transparency laid on white; the first frame of an animation. levels: of pictures of more
    than 8 bits, the values that become black and white; None takes the range that its type or its largest value says.
    """
    if (step := averaging_step(image)) > 1:
        image.draft(None, (image.width // step, image.height // step))  # of a JPEG less is decoded
        step = averaging_step(image)
    image.load()
    decoded = plain(image, channels, levels) if step == 1 else averaged(image, channels, step, levels)
    decoded.getexif()[0x0112] = image.getexif().get(0x0112, 1)
    upright = ImageOps.exif_transpose(decoded)
    return np.asarray(upright).reshape(upright.height, upright.width, channels)


def averaging_step(image: Image.Image) -> int:
    return math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS))


def averaged(image: Image.Image, channels: int, step: int, levels: tuple[float, float] | None) -> Image.Image:
    """Shrink a picture by a whole number, a strip at a time: a second copy of all of it would be as large."""
    if image.mode in ("I", "F"):  # the range of all of its values is needed
        return plain(image.reduce(step), channels, levels)
    width, height = image.size
    small = Image.new("L" if channels == 1 else "RGB", (-(-width // step), -(-height // step)))
    rows = step * max(1, MOST_PIXELS // 16 // (width * step))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        small.paste(plain(strip, channels, levels).reduce(step), (0, top // step))
    return small


def is_deep(mode: str) -> bool:
    """Tell whether pictures of a mode have values of more than 8 bits: whole numbers, signed or not, or floats."""
    return mode in ("I", "F") or mode.startswith("I;16")


def plain(image: Image.Image, channels: int, levels: tuple[float, float] | None) -> Image.Image:
    """Bring the pixels of a picture to 8 bits of grey or RGB, on white where it is transparent."""
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
