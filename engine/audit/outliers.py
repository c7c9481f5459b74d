"""Images that stand out among those of their dataset: blank, dark, bright, blurred, or of an odd shape."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.audit.similarity import HASHED_SIDE, directions, frequencies, perceptual_hashes

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Standard deviation in levels below which an image shows too little to be compared or called blurred.
LEAST_CONTRAST = 2.0

MAX_ODD = 500
# What so many have in common is not odd, but for being blank: that is never what anybody means.
COMMON_SHARE = 0.2
BLANK_RANGE = 8
BLANK_FACTOR = 1e6  # beyond whatever other limit
# Dark is a mean level below the first, and below a third of what the darkest tenth of the images begin with: in a set
# of night scenes, or of digits on black, most are dark. Bright is the same from white.
EXTREME_LEVEL, EXTREME_SHARE = 20, 1 / 3
# The logarithm of detail is further below the median than so many of the usual deviations, and than a factor of 4.
BLURRED_DEVIATIONS, BLURRED_FACTOR = 5, 4
ODD_SHAPE_FACTOR = 2.2

Found = Iterator[tuple[int, float, str]]


@dataclass(frozen=True)
class Features:
    """Of each image: the hash and the vector to compare by, and figures in levels of 0 to 255.

    range: from the darkest to the brightest pixel, in the channel where that is most. detail: how strongly neighbouring
    pixels differ, as a share of the contrast: so strong and pale images compare, whereas the plain variance of the
    Laplacian of a pale sharp image is that of a strong blurred one.
    """

    hashes: np.ndarray
    vectors: np.ndarray
    mean: np.ndarray
    contrast: np.ndarray
    range: np.ndarray
    detail: np.ndarray


def measure(block: np.ndarray) -> tuple[np.ndarray, ...]:
    """Measure images, uint8 (count, height, width, channels): the fields of Features, in their order."""
    luma = (block[..., 0] if block.shape[-1] == 1 else block @ LUMA).astype(np.float32, copy=False)
    coefficients = frequencies(luma)
    hashes: np.ndarray = np.zeros(len(block), np.uint64)
    vectors: np.ndarray = np.empty((len(block), 0), np.float16)
    if min(luma.shape[1:]) >= HASHED_SIDE:
        hashes, vectors = perceptual_hashes(coefficients), directions(coefficients).astype(np.float16)
    # Channel by channel: over pixels of three bytes NumPy takes twenty times as long.
    channels = [block[..., channel] for channel in range(block.shape[-1])]
    ranges = np.max([channel.max(axis=(1, 2)) - channel.min(axis=(1, 2)) for channel in channels], axis=0)
    contrast = luma.std(axis=(1, 2))
    detail = np.full(len(block), np.nan, np.float32)
    if min(luma.shape[1:]) >= 3:
        laplacian = luma[:, 1:-1, 2:] + luma[:, 1:-1, :-2] + luma[:, 2:, 1:-1] + luma[:, :-2, 1:-1]
        laplacian -= 4 * luma[:, 1:-1, 1:-1]
        shows = contrast >= LEAST_CONTRAST
        detail[shows] = laplacian[shows].std(axis=(1, 2)) / contrast[shows]
    return hashes, vectors, luma.mean(axis=(1, 2)), contrast, ranges, detail


def find_outliers(features: Features, widths: np.ndarray, heights: np.ndarray) -> list[tuple[int, str]]:
    """List the odd images, the worst first: position and reason, with its figures.

    widths, heights: of the originals in pixels, 0 where they are not known. Worst is what is beyond its limit by the
    largest factor, and blank ones are before all. They are listed even where all images are blank.
    """
    blank = features.range <= BLANK_RANGE
    kinds = [
        _dark(features, ~blank),
        _bright(features, ~blank),
        _blurred(features, ~blank),
        _odd_shapes(widths, heights),
    ]
    found: dict[int, list[tuple[float, str]]] = {
        position: [(times_beyond, reason)] for position, times_beyond, reason in _blank(features, blank)
    }
    for kind in kinds:
        findings = list(kind)
        if len(findings) <= COMMON_SHARE * len(blank):
            for position, times_beyond, reason in findings:
                found.setdefault(int(position), []).append((times_beyond, reason))
    worst = sorted(found, key=lambda position: (-max(found[position])[0], position))[:MAX_ODD]
    return [(position, "; ".join(reason for _, reason in found[position])) for position in worst]


def _blank(features: Features, blank: np.ndarray) -> Found:
    for position in np.flatnonzero(blank).tolist():
        spread, level = int(features.range[position]), features.mean[position]
        about = f"pixels differ by {spread} levels at most" if spread else "every pixel is the same"
        yield position, BLANK_FACTOR - spread, f"blank: {about}, around level {level:.0f} of 255"


def _dark(features: Features, usual: np.ndarray) -> Found:
    if not usual.any():
        return
    means = features.mean[usual]
    limit = min(EXTREME_LEVEL, EXTREME_SHARE * np.percentile(means, 10, method="higher"))
    for position in np.flatnonzero(usual & (features.mean < limit)).tolist():
        level = features.mean[position]
        yield position, limit / max(level, 0.1), f"very dark: mean level {level:.0f} of 255, {_half(means, '.0f')}"


def _bright(features: Features, usual: np.ndarray) -> Found:
    if not usual.any():
        return
    means = features.mean[usual]
    limit = min(EXTREME_LEVEL, EXTREME_SHARE * (255 - np.percentile(means, 90, method="lower")))
    for position in np.flatnonzero(usual & (255 - features.mean < limit)).tolist():
        level = features.mean[position]
        reason = f"very bright: mean level {level:.0f} of 255, {_half(means, '.0f')}"
        yield position, limit / max(255 - level, 0.1), reason


def _blurred(features: Features, usual: np.ndarray) -> Found:
    usual = usual & (features.detail > 0)
    if not usual.any():
        return
    details = np.log(features.detail[usual])
    deviation = 1.4826 * np.median(np.abs(details - np.median(details)))
    limit = np.exp(np.median(details) - max(BLURRED_DEVIATIONS * deviation, math.log(BLURRED_FACTOR)))
    for position in np.flatnonzero(usual & (features.detail < limit)).tolist():
        detail = features.detail[position]
        reason = f"blurred: detail {detail:.2g} of the contrast, {_half(features.detail[usual], '.2g')}"
        yield position, limit / detail, reason


def _odd_shapes(widths: np.ndarray, heights: np.ndarray) -> Found:
    known = np.flatnonzero((widths > 0) & (heights > 0))
    if not len(known):
        return
    aspects = np.log(widths[known] / heights[known])
    usual = np.median(aspects)
    deviation = 1.4826 * np.median(np.abs(aspects - usual))
    limit = max(4 * deviation, math.log(ODD_SHAPE_FACTOR))
    off = np.abs(aspects - usual)
    for which in np.flatnonzero(off > limit).tolist():
        position = int(known[which])
        size = f"{widths[position]} x {heights[position]} pixels"
        reason = f"odd shape: {size}, where the usual aspect is {np.exp(usual):.2f}"
        yield position, np.exp(off[which] - limit), reason


def _half(values: np.ndarray, form: str) -> str:
    low, high = np.percentile(values, [25, 75])
    return f"where half of the images lie between {low:{form}} and {high:{form}}"
