"""JPEGs without their end marker, and whether all of their pixels are there.

The text of this file goes into the programs that are exported with a model, so that both read a picture alike: it
needs nothing but NumPy and Pillow.
"""

import hashlib
import io
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

START, END = b"\xff\xd8\xff", b"\xff\xd9"
SCAN, RESTART_INTERVAL = 0xDA, 0xDD
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the others of these are tables
STANDALONE = (0x01, 0xD8, 0xD9)  # markers that no content follows
# In the data of a scan a zero after 255 says that this is no marker, and the eight from D0 on belong to the data.
MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
COEFFICIENTS = 64
# As many bytes may be read for blocks below or right of the picture, which nobody would see.
CONTINUED_BYTES = 2048
CONTINUATIONS = 8


def with_end(content: bytes) -> bytes:
    """Return a JPEG that lacks only its end marker with it; what is cut short, or no JPEG, as it is."""
    if not content.startswith(START) or content.endswith(END):
        return content
    scan = next((end for marker, _, end in segments(content) if marker == SCAN), None)
    if scan is None or content.find(END, scan) >= 0:
        return content
    content_to_end = content.rstrip(b"\xff")  # half a marker, or what an erased memory holds
    if not begins_all(content_to_end):
        return content
    data = without_zeros(content_to_end)
    if needs_no_more(data):
        return data + END
    zeros = len(content_to_end) - len(data)
    # Zeros may be data, of a page that is white to its end, say, or fill a file that was copied in part. Those that
    # fill it would have to be exactly as many as the missing blocks take.
    if zeros and needs_no_more(content_to_end) and (zeros == 1 or not needs_no_more(content_to_end[:-1])):
        return content_to_end + END
    return content


def segments(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the marker, the content and the end of each whole segment of a JPEG, passing over the data of scans."""
    place = len(START) - 1
    while found := MARKER.search(content, place):
        marker, start, place = found[1][0], found.end(), found.end()
        if marker not in STANDALONE:
            place += max(2, int.from_bytes(content[start : start + 2]))
        if place <= len(content):
            yield marker, content[start + 2 : place], place


def begins_all(content: bytes) -> bool:
    """Tell whether the scans of a JPEG bring every coefficient in full, and the last one has begun all its parts."""
    sampling: dict[int, tuple[int, int]] = {}
    brought: set[tuple[int, int]] = set()
    height = width = interval = parts = 0
    try:
        for marker, about, end in segments(content):
            if marker in FRAMES:
                height, width = int.from_bytes(about[1:3]), int.from_bytes(about[3:5])
                sampling = {about[at]: divmod(about[at + 1], 16) for at in range(6, len(about), 3)}
            elif marker == RESTART_INTERVAL:
                interval = int.from_bytes(about[:2])
            elif marker == SCAN:
                names = about[1 : 1 + 2 * about[0] : 2]
                first, last, precision = about[1 + 2 * about[0] : 4 + 2 * about[0]]
                if precision % 16 == 0:  # otherwise the lowest bits are still to come
                    brought |= {(name, place) for name in names for place in range(first, last + 1)}
                if interval:
                    parts = -(-units(height, width, sampling, names) // interval)
                    has_begun = len(RESTART.findall(content, end)) == parts - 1
        return len(brought) == COEFFICIENTS * len(sampling) and (not parts or has_begun)
    except (IndexError, KeyError, ValueError, ZeroDivisionError):  # the headers are damaged
        return False


def units(height: int, width: int, sampling: dict[int, tuple[int, int]], names: bytes) -> int:
    """Count what a scan is made of: the blocks of one component, or the groups of blocks of several."""
    most_right, most_down = (max(factors) for factors in zip(*sampling.values(), strict=True))
    right, down = sampling[names[0]] if len(names) == 1 else (1, 1)
    return -(-width * right // (8 * most_right)) * -(-height * down // (8 * most_down))


def without_zeros(content: bytes) -> bytes:
    """Take away zeros at the end, but for one that belongs to the 255 before it."""
    data = content.rstrip(b"\0")
    return data + b"\0" if data.endswith(b"\xff") and data != content else data


def needs_no_more(content: bytes) -> bool:
    """Tell whether a JPEG has the same pixels, whatever its data would go on with.

    The decoder makes up what is missing and does not tell; but what it makes of different data differs.
    """
    ended = digest(content + END)
    return ended is not None and all(
        digest(content + continuation(number) + END) == ended for number in range(CONTINUATIONS)
    )


def continuation(number: int) -> bytes:
    """Make data that begins with other three bits for each number, so that a code is ended in every way."""
    data = np.random.default_rng(number).integers(0, 255, CONTINUED_BYTES, dtype=np.uint8)  # no 255: no marker
    data[0] = number * 32 + data[0] % 31
    return data.tobytes()


def digest(content: bytes) -> bytes | None:
    """Sum up the pixels of a JPEG; None where they cannot be decoded."""
    found = hashlib.blake2b(digest_size=16)
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            for top in range(0, image.height, 256):  # in strips: a second copy of all would be as large
                strip = image.crop((0, top, image.width, min(top + 256, image.height)))
                found.update(strip.tobytes())
    except Exception:  # decoders raise whatever the damage leads to
        return None
    return found.digest()
