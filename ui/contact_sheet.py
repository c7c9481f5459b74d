"""A contact sheet: many small images to look over and click, as real buttons."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.images.pictures import JPEG_FROM_PIXELS, data_url
from ui.components import component

# Images are sent with so many pixels for each of a tile's, for tiles that are wider and screens that are finer.
SHARPEST = 3

_component = component("contact_sheet")


@dataclass(frozen=True)
class Tile:
    """One image: its index, what a click reports; title, for screen readers and on hovering; lines of text below.

    mark: ``right`` for a solid green frame, ``wrong`` for a dashed red one, or nothing.
    """

    index: int
    image: np.ndarray
    title: str
    lines: tuple[str, ...] = ()
    mark: str = ""


def contact_sheet(tiles: Sequence[Tile], *, name: str, key: str, width: int = 84) -> int | None:
    """Show images in a grid; returns the index of the one that was just clicked.

    width: the least width of a tile in pixels.
    """
    encoded = [
        {
            "index": tile.index,
            "image": data_url(tile.image, SHARPEST * width),
            "title": tile.title,
            "lines": list(tile.lines),
            "mark": tile.mark,
        }
        for tile in tiles
    ]
    height, columns = tiles[0].image.shape[:2] if tiles else (1, 1)
    data = {
        "tiles": encoded,
        "name": name,
        "width": width,
        "shape": f"{columns} / {height}",
        "small": max(height, columns) < JPEG_FROM_PIXELS,
    }
    data["version"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    picked = _component(data=data, key=key, on_picked_change=lambda: None).picked
    return None if picked is None else int(picked)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a small image by whole pixels, without blur, to about ``side``; a larger one is left as it is."""
    factor = max(1, side // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
