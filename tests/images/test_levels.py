"""One scale for pictures of more than 8 bits."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from engine.images.levels import LEFT_OUT, count_values, levels_of
from engine.images.pixels import as_pixels


def counted(*arrays: np.ndarray) -> Counter[int]:
    return sum((count_values(Image.fromarray(values)) for values in arrays), Counter())


def normal(mean: float, kind: type, count: int = 300) -> np.ndarray:
    return np.random.normal(mean, 12, (count, 40)).round().astype(kind)


@pytest.mark.parametrize(
    ("mean", "kind"), [(300, np.uint16), (-700, np.int32), (-3.5e-4, np.float32), (2e6, np.float32)]
)
def test_the_scale_leaves_out_the_outermost_values_as_numpys_quantiles_do(mean: float, kind: type) -> None:
    values = np.concatenate([normal(mean, kind), normal(1.2 * mean, kind)])
    low, high = levels_of(counted(values))
    expected = np.quantile(values, [LEFT_OUT, 1 - LEFT_OUT])
    np.testing.assert_allclose((low, high), expected, rtol=2**-10, atol=1)


def test_it_is_the_same_whatever_the_order_and_of_one_picture_as_of_several() -> None:
    values = [normal(mean, np.uint16) for mean in (300, 440, 1000)]
    assert (
        levels_of(counted(*values)) == levels_of(counted(*values[::-1])) == levels_of(counted(np.concatenate(values)))
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 65000, 4000).astype(np.uint16), (0, 65535)),
        (np.linspace(0, 1, 4000).astype(np.float32), (0, 1)),
        (np.full(4000, 7, np.uint16), (7, 8)),
        (np.full(4000, np.nan, np.float32), None),
        (np.full(4000, 7, np.uint8), None),
    ],
    ids=["16 bits", "shares", "flat", "no numbers", "8 bits"],
)
def test_ranges_that_are_used_in_full_are_kept(values: np.ndarray, expected: tuple[float, float] | None) -> None:
    assert levels_of(counted(values.reshape(40, 100))) == expected


def test_a_hot_pixel_does_not_darken_the_others() -> None:
    values = normal(300, np.uint16)
    values[0, 0] = 65535
    levels = levels_of(counted(values))
    pixels = as_pixels(Image.fromarray(values), 1, levels)
    assert pixels[0, 0] == 255
    assert pixels.std() > 30


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pictures_are_scaled_alike_whatever_holds_their_values(kind: type) -> None:
    values = np.arange(0, 4096, 8).reshape(-1, 8).astype(kind)
    expected = ((values.astype(float) - 100) / 3900).clip(0, 1) * 255
    np.testing.assert_allclose(as_pixels(Image.fromarray(values), 1, (100, 4000))[..., 0], expected, atol=0.51)


def test_pictures_of_8_bits_are_never_rescaled() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(as_pixels(Image.fromarray(values), 1, (100, 200))[..., 0], values)
