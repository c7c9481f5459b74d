"""The scale by which pictures of more than 8 bits are brought to 8: one for all of a dataset, found from their values.

Each picture by a scale of its own would be as bright as any other, and what tells classes apart might be lost.
"""

from collections import Counter

import numpy as np
from PIL import Image

from engine.images.pixels import is_deep

# Of the values so much is left out on either side: a hot pixel, or a burnt-in mark, says nothing of the others.
LEFT_OUT = 0.001
# Values that make use of one of these ranges, of 16 bits or of shares, are seen as those who made them see them.
FULL = (1.0, 65535.0)
# Of a picture so many values are counted, at even distances.
VALUES_OF_ONE = 1 << 18
# Values are counted by their first bits, sign and exponent included: a step is a 2,000th of the value.
BITS = 20

Counts = Counter[int]


def count_values(image: Image.Image) -> Counts:
    """Count the values of an opened picture, by steps; empty for one of 8 bits."""
    if not is_deep(image.mode):
        return Counter()
    values = np.asarray(image, dtype=np.float32).ravel()
    values = values[:: 1 + len(values) // VALUES_OF_ONE]
    steps, counts = np.unique(_steps_of(values[np.isfinite(values)]), return_counts=True)
    return Counter(dict(zip(steps.tolist(), counts.tolist(), strict=True)))


def levels_of(counts: Counts) -> tuple[float, float] | None:
    """Return the values that become black and white; None where there are no values."""
    if not counts:
        return None
    steps = sorted(counts)
    shares = np.cumsum([counts[step] for step in steps]) / counts.total()
    low = _value_of(steps[int(np.searchsorted(shares, LEFT_OUT, side="right"))])
    high = _value_of(steps[min(int(np.searchsorted(shares, 1 - LEFT_OUT)), len(steps) - 1)])
    full = next((full for full in FULL if low >= 0 and full / 2 < high <= full), None)
    if full:
        return 0.0, full
    return (low, high) if high > low else (low, low + 1)


def _steps_of(values: np.ndarray) -> np.ndarray:
    """Number float32 values in their order: as whole numbers their bits are in it, but for negative ones."""
    bits = (values + np.float32(0)).view(np.int32)  # -0 becomes 0
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> (32 - BITS)


def _value_of(step: int) -> float:
    bits = np.array(step << (32 - BITS), dtype=np.int64).astype(np.int32)
    return float(np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int32).view(np.float32))
