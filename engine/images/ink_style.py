"""How a dataset of characters holds its ink: light strokes on dark, of a usual size, place and thickness."""

from dataclasses import dataclass

import numpy as np

from engine.images.ink import stroke_thickness

SAMPLE = 2_000
LARGEST_SIDE = 64
DARK = 64  # a border of this median level, or darker
NEARLY_ALL = 0.95


@dataclass(frozen=True)
class InkStyle:
    """box, thickness: of the ink's longest side and of its strokes, in parts of the image's side.

    centred: what is in the middle of the images, the ink's ``mass`` or its ``box``.
    """

    box: float
    centred: str
    thickness: float


def measure_ink_style(images: np.ndarray) -> InkStyle | None:
    """Measure the style of images, uint8 (count, height, width, channels); None where they are not light on dark."""
    count, height, width, channels = images.shape
    if channels != 1 or max(height, width) > LARGEST_SIDE or not count:
        return None
    sample = np.asarray(images[:: -(-count // SAMPLE), ..., 0])
    ink = sample[sample.any(axis=(1, 2))].astype(np.float32) / 255
    edges = np.concatenate([sample[:, 0], sample[:, -1], sample[:, :, 0], sample[:, :, -1]], axis=1)
    if not len(ink) or np.mean(np.median(edges, axis=1) <= DARK) < NEARLY_ALL:
        return None
    full = ink.max(axis=(1, 2))
    there = ink > full[:, np.newaxis, np.newaxis] / 4
    sides, boxes, masses = [], [], []
    for axis, length in ((1, height), (2, width)):
        there_along, along = there.any(axis=3 - axis), np.arange(length) + 0.5
        first, last = there_along.argmax(axis=1), length - there_along[:, ::-1].argmax(axis=1)
        sides.append((last - first) / length)
        boxes.append((first + last) / 2 / length)
        masses.append((ink.sum(axis=3 - axis) @ along) / ink.sum(axis=(1, 2)) / length)
    centred = "mass" if np.var(masses, axis=1).sum() <= np.var(boxes, axis=1).sum() else "box"
    thickness = np.median(stroke_thickness(ink)) / max(height, width)
    return InkStyle(float(np.median(np.max(sides, axis=0))), centred, float(thickness))
