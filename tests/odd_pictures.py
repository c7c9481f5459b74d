"""Files of pictures that do not keep to their format, as some programs write them, and whose pixels are all there."""

import io
import struct

import numpy as np
from PIL import Image

ON_ITS_SIDE = 6  # EXIF: the top of the picture is on the right of what is stored


def directory(*entries: bytes, at: int = 8, then: bytes = b"") -> bytes:
    """Write EXIF of one directory."""
    return b"II*\0" + struct.pack("<LH", at, len(entries)) + b"".join(entries) + bytes(4) + then


ORIENTATION = struct.pack("<HHLHH", 0x0112, 3, 1, ON_ITS_SIDE, 0)
# What can be read of these says that the picture is on its side.
EXIF_WITH_ORIENTATION = {
    "sound": directory(ORIENTATION),
    "a resolution in words": directory(ORIENTATION, struct.pack("<HHL4s", 0x011A, 2, 3, b"72\0\0")),
    "an exposure over nothing": directory(
        ORIENTATION,
        struct.pack("<HHLL", 0x8769, 4, 1, 38),
        then=struct.pack("<HHHLLL", 1, 0x9204, 10, 1, 56, 0) + struct.pack("<ll", -2, 0),
    ),
    "cut short": directory(ORIENTATION, ORIENTATION)[:30],
    "more entries than there are": b"II*\0" + struct.pack("<LH", 8, 500) + ORIENTATION,
    "a directory outside": directory(ORIENTATION, struct.pack("<HHLL", 0x8769, 4, 1, 2**32 - 1)),
    "a directory of itself": directory(ORIENTATION, struct.pack("<HHLL", 0x8769, 4, 1, 8)),
}
EXIF_WITHOUT_ORIENTATION = {
    "no header": b"\0\x08\0\2\1\x12\0\3" + bytes(12),
    "a part of the header": b"II*",
    "a directory that is not there": directory(ORIENTATION, at=5000),
    "an orientation that there is not": directory(struct.pack("<HHLHH", 0x0112, 3, 1, 9, 0)),
    "an orientation in words": directory(struct.pack("<HHL4s", 0x0112, 2, 2, b"6\0\0\0")),
    "a type that there is not": directory(struct.pack("<HHLHH", 0x0112, 99, 1, 6, 0)),
}


def encode(image: Image.Image, format: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def jpeg_with_exif(image: Image.Image, exif: bytes) -> bytes:
    """Write a JPEG with EXIF as it is, which Pillow would mend."""
    plain = encode(image, "JPEG", quality=95, subsampling=0)
    block = b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def bitmap(pixels: np.ndarray, alpha: int) -> bytes:
    """Write a BMP of 32 bits a pixel, with the same alpha everywhere, of pixels, uint8 (height, width, 3)."""
    height, width = pixels.shape[:2]
    rows = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)])[::-1].tobytes()
    header = struct.pack("<LllHHLLllLL", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0)
    header += struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    start = 14 + len(header)
    return b"BM" + struct.pack("<LHHL", start + len(rows), 0, 0, start) + header + rows


def transparent(pixels: np.ndarray, format: str, **options) -> bytes:
    """Write a picture of pixels, uint8 (height, width, 3), that is transparent all over."""
    return encode(Image.fromarray(np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])), format, **options)
