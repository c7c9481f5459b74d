import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from engine.images.ink_style import SAMPLE, InkStyle, measure_ink_style


def bars(count: int = 50, side: int = 28, width: int = 3, long: int = 20) -> np.ndarray:
    """Draw upright bars, light on dark, anywhere within their images."""
    images = np.zeros((count, side, side, 1), np.uint8)
    for image in images:
        top, left = np.random.randint(1, side - long), np.random.randint(1, side - width)
        image[top : top + long, left : left + width] = 255
    return images


def test_size_and_thickness_are_those_of_what_was_drawn():
    style = measure_ink_style(bars(width=3, long=20))
    assert style is not None
    assert style.box == pytest.approx(20 / 28)
    assert style.thickness == pytest.approx(20 * 3 / 23 / 28, rel=0.05)  # a bar's ends belong to its outline
    thicker = measure_ink_style(bars(width=6, long=14))
    assert thicker is not None
    assert thicker.box == pytest.approx(14 / 28)
    assert thicker.thickness > 1.5 * style.thickness


def wedge(side: int = 64) -> Image.Image:
    image = Image.new("L", (side, side))
    lower = np.random.randint(2, 10), np.random.randint(40, 60)
    ImageDraw.Draw(image).polygon([(2, 2), (side - 3, np.random.randint(5, 20)), lower], fill=255)
    return image


@pytest.mark.parametrize("centred", ["mass", "box"])
def test_what_is_in_the_middle_is_found(centred):
    images = np.zeros((40, 40, 40, 1), np.uint8)
    for image in images:
        drawn = np.asarray(wedge().crop(wedge().getbbox()).resize((20, np.random.randint(12, 24)))) // 2
        down, across = ((np.indices(drawn.shape) + 0.5) * drawn).sum(axis=(1, 2)) / drawn.sum()
        if centred == "box":
            down, across = drawn.shape[0] / 2, drawn.shape[1] / 2
        top, left = round(20 - down), round(20 - across)
        image[top : top + drawn.shape[0], left : left + drawn.shape[1], 0] = drawn
    style = measure_ink_style(images)
    assert style is not None
    assert style.centred == centred


def test_the_digits_of_scikit_learn():
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)[..., np.newaxis]
    style = measure_ink_style(digits)
    assert style == InkStyle(box=1.0, centred="box", thickness=pytest.approx(0.18, abs=0.02))
    assert measure_ink_style(255 - digits) is None


def test_images_that_are_not_small_grey_and_light_on_dark_have_none():
    images = bars()
    assert measure_ink_style(images) is not None
    assert measure_ink_style(255 - images) is None
    assert measure_ink_style(images.repeat(3, axis=3)) is None
    assert measure_ink_style(np.pad(images, [(0, 0), (19, 18), (0, 0), (0, 0)])) is None  # 65 pixels
    assert measure_ink_style(np.random.randint(0, 256, images.shape).astype(np.uint8)) is None
    assert measure_ink_style(np.zeros_like(images)) is None
    assert measure_ink_style(images[:0]) is None
    mixed = images.copy()
    mixed[::5] = 255 - mixed[::5]
    assert measure_ink_style(mixed) is None


def test_a_few_odd_images_do_no_harm():
    images = bars(100)
    images[3], images[50] = 255, 0
    with_them, without = measure_ink_style(images), measure_ink_style(np.delete(images, [3, 50], axis=0))
    assert with_them is not None
    assert without is not None
    assert (with_them.box, with_them.centred) == (without.box, without.centred)
    assert with_them.thickness == pytest.approx(without.thickness)


def test_of_many_images_some_are_looked_at_from_first_to_last():
    images = bars(2 * SAMPLE, side=12, width=2, long=8)
    images[SAMPLE:] = bars(SAMPLE, side=12, width=2, long=8)
    half = measure_ink_style(images)
    images[1::2] = 255  # every other one, which is not looked at
    assert measure_ink_style(images) == half
    images[SAMPLE:] = 255
    assert measure_ink_style(images) is None
