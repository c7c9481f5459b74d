"""Make of a photographed or drawn character what a dataset of light strokes on dark would hold of it."""

import numpy as np
from PIL import Image, ImageFilter

LONGEST = 256  # pixels of the longest side at which a picture is looked at
DOUBT = 0.2  # of all votes on whether the ink is dark; with fewer against it it is, as in most pictures
FAINTEST = 0.06  # contrast of the palest ink, in parts of the paper's level
GRAIN = 5  # ink stands out by more than so many times what the paper's grain is
SMALLEST = 1 / 32  # of the picture's longest side; smaller is grain or dust
SPECK = 0.05  # of the main piece of ink; the dot of an i is larger
FAR = 0.3  # of the main piece's longest side
THIN = 0.65  # of the dataset's thickness; thinner strokes are thickened
NO_INK = "No ink was found, so the picture is left as it is."


def normalize_ink(
    picture: np.ndarray, height: int, width: int, box: float, centred: str, thickness: float
) -> tuple[np.ndarray, str]:
    """Bring a picture, uint8 (any height, any width, 1), to light strokes on dark, uint8 (height, width, 1).

    box, thickness: of the ink's longest side and of its strokes, in parts of the image's side. centred: ``mass`` or
    ``box``. Returns what was done too, in words, or the very picture where it is as wanted, or without ink.
    """
    grey = np.ascontiguousarray(picture[..., 0])
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if grey.shape == (height, width) and np.median(edge) <= (int(grey.min()) + int(grey.max())) / 2:
        return picture, ""
    image, share = Image.fromarray(grey), min(0.5, thickness / box)
    for _ in range(2):  # from afar, then at the ink from close by
        seen = looked_at(image)
        dark, paper = paper_of(seen, share)
        ink = main_ink(seen if dark else 255 - seen, paper)
        if not ink.any():
            return picture, NO_INK
        top, bottom, left, right = bounds(ink > 0)
        margin, factor = max(bottom - top, right - left) / 2, max(image.size) / max(seen.shape)
        west, north = (max(0, int((at - margin) * factor)) for at in (left, top))
        east, south = (int((at + margin) * factor) + 1 for at in (right, bottom))
        image = image.crop((west, north, min(image.width, east), min(image.height, south)))
    ink = ink[top:bottom, left:right]
    lacking = share * max(ink.shape) - stroke_thickness(ink)
    thin = lacking > (1 - THIN) * share * max(ink.shape)
    if thin:
        ink = thickened(ink, lacking / 2 / (1 - share))  # which makes its box larger too
    result = placed(ink, height, width, box, centred)
    done = "dark ink on light: evened out, turned light on dark" if dark else "light ink on dark: evened out"
    made_thicker = ", strokes thickened" if thin else ""
    return result, f"Read as {done}{made_thicker}, cropped to the ink and centred by {centred}."


def looked_at(image: Image.Image) -> np.ndarray:
    """Shrink an image and take off some grain: float32 levels."""
    scale = min(1, LONGEST / max(image.size))
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
    return np.asarray(small.filter(ImageFilter.GaussianBlur(max(small.size) / LONGEST)), np.float32)


def paper_of(seen: np.ndarray, share: float) -> tuple[bool, np.ndarray]:
    """Tell whether the ink is dark, and the paper's level everywhere: of the negative, where the ink is light."""
    reach = int(share * max(seen.shape)) + 2
    highest, lowest = extremes(seen, reach, np.maximum), extremes(seen, reach, np.minimum)
    mean = np.asarray(Image.fromarray(seen.astype(np.uint8)).filter(ImageFilter.BoxBlur(reach)), np.float32)
    # Around ink there is more paper than ink; at the edges of tables and shadows it is half and half, more or less.
    votes = (mean - (highest + lowest) / 2) * (highest - lowest) ** 3
    dark = bool(votes.sum() >= -DOUBT * np.abs(votes).sum())
    paper = extremes(highest, reach, np.minimum) if dark else 255 - extremes(lowest, reach, np.maximum)
    return dark, paper.clip(1)


def extremes(levels: np.ndarray, reach: int, of: np.ufunc) -> np.ndarray:
    """Take the highest or the lowest of the square around each pixel: ``np.maximum`` or ``np.minimum``."""
    for _ in range(2):  # down, then across
        levels, side = np.pad(levels, [(reach, reach), (0, 0)], mode="edge"), 1
        while side < 2 * reach + 1:
            step = min(side, 2 * reach + 1 - side)
            levels, side = of(levels[:-step], levels[step:]), side + step
        levels = levels.T
    return levels


def main_ink(seen: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """Return how much ink is in each pixel, 0 to 1, of the main piece of dark ink and what belongs to it."""
    ink = 1 - seen / paper
    lowest, low = np.quantile(ink, [0.025, 0.25])  # of paper, even where three quarters of the picture are ink
    ink, noise = ink - low, GRAIN * (low - lowest)
    found = pieces(ink, max(FAINTEST, noise))
    if not found:
        return np.zeros_like(ink)
    levels = ink[found[0]]
    full = np.quantile(levels[levels >= levels.max() / 2], 0.6)
    found = pieces(ink, max(full / 4, noise))
    kept, most = found[0].copy(), ink[found[0]].sum()
    top, bottom, left, right = bounds(kept)
    longest = max(bottom - top, right - left)
    if longest < SMALLEST * max(ink.shape):
        return np.zeros_like(ink)
    for piece in found[1:]:
        first, last, west, east = bounds(piece)
        inside = first > 0 and west > 0 and last < ink.shape[0] and east < ink.shape[1]
        apart = max(first - bottom, top - last, west - right, left - east)
        if inside and apart <= FAR * longest and ink[piece].sum() >= SPECK * most:
            kept |= piece
    return np.where(kept, ((ink / full - 0.1) / 0.85).clip(0, 1), 0)


def pieces(ink: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Return masks of the connected pieces above a threshold, at most 20: the weightiest first, those at edges late."""
    mask = np.pad(ink > threshold, 1)
    at, across = np.flatnonzero(mask), mask.shape[1]
    numbers = np.zeros(mask.size, int)
    numbers[at] = labels = np.arange(1, len(at) + 1)
    near = numbers[at + np.array([[row * across + column] for row in (-1, 0, 1) for column in (-1, 0, 1)])]
    before = np.zeros_like(labels)
    while not np.array_equal(labels, before):
        before = labels
        labels = np.append(0, labels)[near].max(axis=0)  # the highest of the neighbours', and then of that one's
        labels = labels[labels - 1]
    numbers[at] = labels
    numbers = numbers.reshape(mask.shape)[1:-1, 1:-1]
    weights = np.bincount(numbers.ravel(), ink.ravel())
    for side in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]):
        weights[np.unique(side)] /= 10
    found = np.unique(labels)
    return [numbers == label for label in found[np.argsort(-weights[found])][:20]]


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the first row and the one after the last, the first column and the one after the last."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def stroke_thickness(ink: np.ndarray) -> np.ndarray:
    """Measure the thickness of strokes, (..., height, width), in pixels: twice their area by their outline's length.

    Blurring changes neither the sum of the levels nor, but for the thinnest strokes, that of the slopes.
    """
    padded = np.pad(ink, [(0, 0)] * (ink.ndim - 2) + [(1, 1), (1, 1)])
    slopes = np.hypot(np.diff(padded, axis=-2)[..., :-1], np.diff(padded, axis=-1)[..., :-1, :])
    return 2 * padded.sum(axis=(-2, -1)) / slopes.sum(axis=(-2, -1))


def thickened(ink: np.ndarray, radius: float) -> np.ndarray:
    """Draw the ink with a round brush of this radius."""
    reach = int(np.ceil(radius))
    padded, result = np.pad(ink, 2 * reach), np.pad(ink, reach)
    height, width = result.shape
    for down, right in np.ndindex(2 * reach + 1, 2 * reach + 1):
        weight = min(1, radius + 1 - np.hypot(down - reach, right - reach))
        if weight > 0:
            np.maximum(result, weight * padded[down : down + height, right : right + width], out=result)
    return result


def placed(ink: np.ndarray, height: int, width: int, box: float, centred: str) -> np.ndarray:
    """Bring ink to its size and place on black."""
    scale = box * min(height / ink.shape[0], width / ink.shape[1])
    size = [max(1, round(side * scale)) for side in reversed(ink.shape)]
    small = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    if centred == "mass":  # into the middle pixel, of an even number the second, as in MNIST
        down, across = ((np.indices(small.shape) + 0.5) * small).sum(axis=(1, 2)) / small.sum()
        left, top = round(width // 2 + 0.5 - across), round(height // 2 + 0.5 - down)
        left, top = max(0, min(left, width - size[0])), max(0, min(top, height - size[1]))  # none of it is cut off
    result = Image.new("L", (width, height))
    result.paste(Image.fromarray((255 * small / small.max()).round().astype(np.uint8)), (left, top))
    return np.asarray(result)[..., np.newaxis]
