import io

import numpy as np
import pytest
from odd_pictures import EXIF_WITH_ORIENTATION, EXIF_WITHOUT_ORIENTATION, bitmap, encode, jpeg_with_exif, transparent
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.images.pictures import fit_picture, has_colour, look_at, open_picture, without_warnings


def colours(height: int = 8, width: int = 6) -> np.ndarray:
    """Make reddish pixels that all differ a little: uint8 (height, width, 3)."""
    pixels = np.random.default_rng(0).integers(20, 90, (height, width, 3)).astype(np.uint8)
    pixels[..., 0] += 150
    return pixels


def slope(height: int = 16, width: int = 24) -> np.ndarray:
    """Make a picture that is lighter to the right and to the bottom: uint8 (height, width, 3)."""
    down, right = np.mgrid[0:height, 0:width]
    return np.stack([40 + 5 * right, 60 + 9 * down, 90 + 0 * down], axis=2).astype(np.uint8)


# Orientation


def with_exif(format: str, pixels: np.ndarray, exif: bytes) -> bytes:
    picture = Image.fromarray(pixels)
    if format == "JPEG":
        return jpeg_with_exif(picture, exif)
    if format == "WEBP":
        return encode(picture, format, exif=exif, lossless=True)
    if format == "PNG of old":
        about = PngInfo()
        about.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n", zip=True)
        return encode(picture, "PNG", pnginfo=about)
    return encode(picture, format, exif=exif)


FORMATS_WITH_EXIF = ["JPEG", "PNG", "PNG of old", "WEBP"]


def assert_seen_alike(content: bytes, expected: np.ndarray) -> None:
    """Check that a picture is the same by every way that Loupe opens one."""
    height, width = expected.shape[:2]
    opened = open_picture(content, 3)
    assert (opened.original.height, opened.original.width) == (height, width)
    np.testing.assert_allclose(opened.pixels, expected.astype(int), atol=8)
    with without_warnings():
        pixels, original = fit_picture(content, height, width, 3, "crop")
    np.testing.assert_allclose(pixels, expected.astype(int), atol=8)
    assert original == opened.original == look_at(io.BytesIO(content))
    assert has_colour(content)


@pytest.mark.parametrize("format", FORMATS_WITH_EXIF)
@pytest.mark.parametrize("exif", EXIF_WITH_ORIENTATION.values(), ids=EXIF_WITH_ORIENTATION)
def test_a_picture_is_turned_whatever_else_is_wrong_with_its_exif(format, exif):
    assert_seen_alike(with_exif(format, slope(), exif), np.rot90(slope(), -1))


@pytest.mark.parametrize("format", FORMATS_WITH_EXIF)
@pytest.mark.parametrize("exif", EXIF_WITHOUT_ORIENTATION.values(), ids=EXIF_WITHOUT_ORIENTATION)
def test_a_picture_is_taken_as_it_lies_where_its_exif_cannot_be_read(format, exif):
    assert_seen_alike(with_exif(format, slope(), exif), slope())


def test_old_exif_of_a_png_that_is_no_text_of_numbers_does_no_harm():
    about = PngInfo()
    about.add_text("Raw profile type exif", "\nexif\n       2\nxyz\n")
    assert_seen_alike(encode(Image.fromarray(slope()), "PNG", pnginfo=about), slope())


def test_a_tiff_is_turned_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert_seen_alike(encode(Image.fromarray(slope()), "TIFF", exif=exif), np.rot90(slope(), -1))


@pytest.mark.parametrize(
    ("exif", "turns"), [("sound", -1), ("cut short", -1), ("no header", 0), ("a part of the header", 0)]
)
def test_what_an_iphone_makes_is_turned_once(exif, turns):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC is read where pillow-heif is installed")
    content = io.BytesIO()
    damaged = (EXIF_WITH_ORIENTATION | EXIF_WITHOUT_ORIENTATION)[exif]
    pillow_heif.from_pillow(Image.fromarray(slope(64, 96))).save(content, quality=95, exif=damaged)
    opened = open_picture(content.getvalue(), 3)
    assert opened.pixels.shape == np.rot90(slope(64, 96), turns).shape
    assert (opened.original.height, opened.original.width) == opened.pixels.shape[:2]


# Transparency all over


UNUSED_ALPHA = {
    "BMP": bitmap(colours(), 0),
    "PNG": transparent(colours(), "PNG"),
    "TGA": transparent(colours(), "TGA"),
    "WEBP": transparent(colours(), "WEBP", lossless=True, exact=True),
    "TIFF": transparent(colours(), "TIFF"),
    "palette": encode(Image.fromarray(colours(2, 3)).quantize(6), "PNG", transparency=bytes(6)),
}


@pytest.mark.parametrize("kind", UNUSED_ALPHA)
def test_what_is_transparent_all_over_is_opened_in_its_colours(kind):
    assert_seen_alike(UNUSED_ALPHA[kind], colours(2, 3) if kind == "palette" else colours())


def test_an_icon_that_is_transparent_all_over_is_opened_in_its_colours():
    pixels = colours(16, 16)
    content = encode(Image.fromarray(np.dstack([pixels, np.zeros((16, 16), np.uint8)])), "ICO", sizes=[(16, 16)])
    np.testing.assert_array_equal(open_picture(content, 3).pixels, pixels)


def test_grey_that_is_transparent_all_over_is_opened_as_grey():
    levels = np.dstack([colours()[..., 0], np.zeros((8, 6), np.uint8)])
    opened = open_picture(encode(Image.fromarray(levels, "LA"), "PNG"), 1).pixels
    np.testing.assert_array_equal(opened[..., 0], levels[..., 0])


def test_one_pixel_that_shows_makes_the_others_transparent():
    pixels = np.dstack([colours(), np.zeros((8, 6), np.uint8)])
    pixels[3, 4, 3] = 255
    opened = open_picture(encode(Image.fromarray(pixels), "PNG"), 3).pixels
    assert opened[3, 4].tolist() == pixels[3, 4, :3].tolist()
    assert (opened == 255).all(axis=2).sum() == 47


def test_an_alpha_that_is_used_is_left_as_it_is():
    np.testing.assert_array_equal(open_picture(bitmap(colours(), 255), 3).pixels, colours())
    half = open_picture(bitmap(colours(), 128), 3).pixels
    np.testing.assert_allclose(half, (colours() + 255.0) / 2, atol=1)


def test_an_empty_canvas_is_white():
    assert open_picture(encode(Image.new("RGBA", (6, 8)), "PNG"), 3).pixels.min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_of_a_large_picture_the_alpha_of_the_whole_is_judged(monkeypatch, mode):
    monkeypatch.setattr("engine.images.pixels.MOST_PIXELS", 32 * 32)
    pixels = colours(100, 80)
    for rows_that_show in (0, 10):
        alpha = np.zeros((100, 80), np.uint8)
        alpha[100 - rows_that_show :] = 255
        picture = Image.fromarray(np.dstack([pixels, alpha]))
        if mode == "P":
            picture = Image.fromarray((alpha // 255 + 1).astype(np.uint8))
            picture.putpalette([0, 0, 0, 200, 50, 50, 200, 50, 50])
        content = encode(picture, "PNG", **({"transparency": bytes([0, 0, 255])} if mode == "P" else {}))
        opened = open_picture(content, 3).pixels
        upper = opened[: len(opened) // 2]
        if rows_that_show:
            assert upper.min() == 255
        else:
            assert 150 < upper[..., 0].mean() < 250 and upper[..., 1].mean() < 100
        assert opened[-1, :, 1].max() < 100
