import io
import re
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT
from engine.images.pictures import (
    FITS,
    MAX_PIXELS_OF_ONE,
    SUFFIXES,
    Original,
    fit_picture,
    has_colour,
    look_at,
    open_picture,
    without_warnings,
)
from engine.images.pixels import MOST_PIXELS, as_pixels

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def pixels_of(source: Path | bytes, channels: int) -> np.ndarray:
    return open_picture(source, channels).pixels


def noise(height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3)).astype(np.uint8)


def refusal(source: Path | bytes, channels: int = 3) -> str:
    with pytest.raises(LoupeError) as refused:
        pixels_of(source, channels)
    message = str(refused.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert 1 <= len(re.findall(r"\.(?= |$)", message)) <= 2, message
    return message


def test_a_picture_from_a_file_or_from_memory_is_its_pixels(tmp_path):
    pixels = noise()
    file = tmp_path / "noise.png"
    file.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    for source in (file, file.read_bytes()):
        opened = pixels_of(source, 3)
        assert opened.dtype == np.uint8
        np.testing.assert_array_equal(opened, pixels)


def test_grey_is_the_luminance_and_colour_of_grey_is_grey():
    pixels = noise()
    grey = pixels_of(encode(Image.fromarray(pixels), "PNG"), 1)
    assert grey.shape == (9, 7, 1)
    np.testing.assert_allclose(grey[..., 0], pixels @ [0.299, 0.587, 0.114], atol=1)

    colour = pixels_of(encode(Image.fromarray(grey[..., 0]), "PNG"), 3)
    np.testing.assert_array_equal(colour, grey.repeat(3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_says(orientation):
    upright = noise()
    # How a camera stores what is upright to the eye: the definition of the tag, backwards.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels_of(content, 3), upright)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM", "TGA", "GIF"])
def test_formats_without_loss_give_back_their_pixels(format):
    grey = noise()[..., 0]
    np.testing.assert_array_equal(pixels_of(encode(Image.fromarray(grey), format), 1)[..., 0], grey)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000"])
def test_photographic_formats_come_close(format):
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    opened = pixels_of(encode(Image.fromarray(pixels), format), 3)
    np.testing.assert_allclose(opened, pixels.astype(int), atol=6)


def test_every_suffix_that_is_offered_is_of_a_format_that_is_opened():
    formats = {Image.registered_extensions()[f".{suffix}"] for suffix in SUFFIXES}
    picture = Image.fromarray(noise(32, 32))
    for format in formats:
        assert pixels_of(encode(picture, format), 3).shape == (32, 32, 3), format


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_every_mode_comes_in_the_channels_asked_for(mode, channels):
    picture = Image.new(mode, (7, 9))
    assert pixels_of(encode(picture, "TIFF"), channels).shape == (9, 7, channels)


def test_cmyk_is_converted_to_what_it_shows():
    paper_and_ink = np.zeros((1, 3, 4), np.uint8)  # white
    paper_and_ink[0, 1] = (0, 255, 255, 0)  # magenta and yellow
    paper_and_ink[0, 2] = (0, 0, 0, 255)  # black
    opened = pixels_of(encode(Image.fromarray(paper_and_ink, "CMYK"), "TIFF"), 3)
    np.testing.assert_allclose(opened[0], [WHITE, RED, (0, 0, 0)], atol=2)
    grey = pixels_of(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), 1)
    assert grey.min() > 250


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format):
    levels = np.array([[0, 257, 1000, 32768, 65000, 65535]], np.uint16)
    content = encode(Image.fromarray(levels), format)
    np.testing.assert_allclose(pixels_of(content, 1)[0, :, 0], levels[0] / 257, atol=1)
    assert pixels_of(content, 3)[0, :, 2].tolist() == pixels_of(content, 1)[0, :, 0].tolist()


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_the_white_that_they_fit_under(white):
    shares = np.array([[0, 0.25, 0.5, 1]], np.float32)
    opened = pixels_of(encode(Image.fromarray(shares * white), "TIFF"), 1)
    np.testing.assert_allclose(opened[0, :, 0], shares[0] * 255, atol=1)


def test_floats_that_are_no_level_are_black():
    levels = np.array([[np.nan, -3, 0.5, 1]], np.float32)
    opened = pixels_of(encode(Image.fromarray(levels), "TIFF"), 1)
    np.testing.assert_allclose(opened[0, :, 0], [0, 0, 127.5, 255], atol=1)


def test_one_bit_is_black_and_white():
    bits = np.array([[True, False, True]])
    assert pixels_of(encode(Image.fromarray(bits), "PNG"), 1)[0, :, 0].tolist() == [255, 0, 255]


def test_transparency_is_laid_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :] = [(*RED, 255), (*RED, 0), (*RED, 128)]
    opened = pixels_of(encode(Image.fromarray(pixels), "PNG"), 3)
    np.testing.assert_allclose(opened[0], [RED, WHITE, (255, 127, 127)], atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_with_transparency_is_laid_on_white(channels):
    pixels = np.array([[(40, 255), (40, 0)]], np.uint8)
    opened = pixels_of(encode(Image.fromarray(pixels, "LA"), "PNG"), channels)
    assert opened[0].tolist() == [[40] * channels, [255] * channels]


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    assert pixels_of(encode(picture, "PNG"), 3)[0].tolist() == [list(RED), list(BLUE)]
    assert pixels_of(encode(picture, "PNG", transparency=1), 3)[0].tolist() == [list(RED), [255, 255, 255]]
    assert pixels_of(encode(picture, "PNG", transparency=b"\x00\xff"), 3)[0].tolist() == [
        [255, 255, 255],
        list(BLUE),
    ]


def test_of_an_animation_the_first_frame_is_taken():
    red, blue = (Image.new("RGB", (4, 3), colour) for colour in (RED, BLUE))
    content = encode(red, "GIF", save_all=True, append_images=[blue])
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.n_frames == 2
    np.testing.assert_array_equal(pixels_of(content, 3), np.full((3, 4, 3), RED))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_that_is_cut_short_is_refused(format):
    content = encode(Image.fromarray(noise(40, 40)), format)
    message = refusal(content[: len(content) * 2 // 3])
    assert message.startswith("The picture is damaged or cut short (")
    assert message.endswith("Get a whole copy of the file.")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_opened_as_the_whole_one_and_a_cut_one_is_refused(progressive):
    content = encode(Image.fromarray(smooth(300, 400)), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(pixels_of(content[:-2], 3), pixels_of(content, 3))
    for size in (32, 300):  # decoded at an eighth of its size, and whole
        pixels, original = fit_picture(content[:-2], size, size, 3, "crop")
        whole = fit_picture(content, size, size, 3, "crop")
        np.testing.assert_array_equal(pixels, whole[0])
        assert original == whole[1]
    assert has_colour(content[:-2])
    for cut in (content[:-3], content[: len(content) * 9 // 10], content[: len(content) // 2]):
        assert refusal(cut).startswith("The picture is damaged or cut short (")
        for open_cut in (has_colour, lambda content: fit_picture(content, 32, 32, 3, "crop")):
            with pytest.raises(LoupeError, match="damaged or cut short"):
                open_cut(cut)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_wherever_it_is_cut_or_scratched_it_is_opened_or_refused(format):
    content = encode(Image.fromarray(noise(12, 12)), format)
    for place in range(0, len(content), 3):
        for damaged in (content[:place], content[:place] + b"\xff\x00\x80" + content[place + 3 :]):
            try:
                assert pixels_of(damaged, 1).shape[2] == 1
            except LoupeError:
                refusal(damaged)


def test_what_is_no_picture_is_refused(tmp_path):
    assert refusal(b"Dear reader, this is a letter.").startswith("This is not a picture that can be read.")
    assert refusal(b"") == "The file is empty. Get a whole copy of it."
    assert refusal(tmp_path) == "This is a folder. Name the pictures in it."
    missing = "There is no such file. Check its name and folder."
    assert refusal(tmp_path / "missing.png") == missing
    (tmp_path / "letter.txt").write_text("Dear reader")
    assert refusal(tmp_path / "letter.txt" / "picture.png") == missing


@pytest.mark.parametrize("format", ["EPS", "PDF"])
def test_formats_that_are_programs_are_not_opened(format):
    assert refusal(encode(Image.fromarray(noise()), format)).startswith("This is not a picture that can be read.")


def png_of_size(width: int, height: int) -> bytes:
    """Make a PNG that says to be of a size, with next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


def test_more_pixels_than_the_most_are_refused_by_their_number():
    assert 12_000 * 12_000 < MAX_PIXELS_OF_ONE < 13_342**2
    assert refusal(png_of_size(13_341, 13_343)) == (
        "The picture has 13,341 x 13,343 pixels; at most 178 million are opened. Make it smaller first."
    )
    assert "cut short" in refusal(png_of_size(10, 10))  # it is the number that is refused


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused(side):
    message = refusal(png_of_size(side, side))
    assert message.endswith("at most 178 million are opened. Make it smaller first.")


def test_warnings_of_pillow_are_kept_from_the_person():
    # It warns from 89 million on; the limit that counts is ours.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "cut short" in refusal(png_of_size(9_500, 10_000), channels=1)
    assert [str(warning.message) for warning in told] == []


# Pictures larger than are kept whole


@pytest.fixture
def few_pixels(monkeypatch):
    """Have pictures of more than 4,096 pixels shrunk, which need not be large then."""
    monkeypatch.setattr("engine.images.pixels.MOST_PIXELS", 64 * 64)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16", "F", "LA"])
@pytest.mark.parametrize("size", [(200, 130), (129, 300), (65, 64)], ids=str)
def test_a_large_picture_is_averaged_over_squares_of_pixels(few_pixels, mode, size):
    grey = Image.fromarray(smooth(*size)).convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    step = int(np.ceil(np.sqrt(size[0] * size[1] / 4096)))
    for channels in (1, 3):
        pixels = as_pixels(image.copy(), channels)
        assert pixels.shape == (-(-size[0] // step), -(-size[1] // step), channels)
        assert pixels.shape[0] * pixels.shape[1] <= 4096 + sum(pixels.shape[:2])
        whole = np.asarray(image.convert("L") if mode not in ("I;16", "F") else grey).astype(float)
        inside = size[0] // step, size[1] // step
        squares = whole[: inside[0] * step, : inside[1] * step].reshape(inside[0], step, inside[1], step)
        difference = pixels[: inside[0], : inside[1], 0] - squares.mean(axis=(1, 3))
        # Values of floating point are brought to 255 by the largest there is, which averaging lowers.
        assert np.abs(difference).max() <= (3 if mode != "F" else 8)


def test_of_a_large_jpeg_less_is_decoded_and_it_is_turned(few_pixels):
    picture = Image.fromarray(smooth(400, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_picture(encode(picture, "JPEG", exif=exif, quality=95), 3)
    assert (opened.original.width, opened.original.height) == (400, 200)
    height, width = opened.pixels.shape[:2]
    assert 1 <= width / height / 2 < 1.05
    assert height * width <= 64 * 64 + height + width
    expected = np.rot90(smooth(400, 200), -1)[:: 200 // height][:height, :: 400 // width][:, :width].astype(int)
    assert np.corrcoef(expected.ravel(), opened.pixels.ravel())[0, 1] > 0.99


@pytest.mark.slow
def test_pictures_of_cameras_are_opened_whole():
    assert MOST_PIXELS == 4096 * 4096
    assert pixels_of(encode(Image.new("L", (4000, 3000)), "PNG"), 1).shape == (3000, 4000, 1)


# What is said of a picture


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_opened_and_that_is_said(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, WHITE)]
    film = open_picture(encode(frames[0], format, save_all=True, append_images=frames[1:], duration=100), 3)
    assert film.note == "An animation: its first frame."
    np.testing.assert_allclose(film.pixels[4, 4], RED, atol=8)
    assert open_picture(encode(frames[0], format), 3).note == ""


def test_the_pages_of_a_document_are_no_animation():
    pages = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    assert open_picture(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]), 3).note == ""


def test_what_an_iphone_makes_is_opened():
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC is read where pillow-heif is installed")
    content = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth(64, 48))).save(content, quality=95)
    opened = pixels_of(content.getvalue(), 3)
    assert np.abs(opened.astype(int) - smooth(64, 48)).mean() < 4
    assert "heic" in SUFFIXES


@pytest.mark.processes
def test_without_pillow_heif_it_is_said_that_it_is_needed():
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'pillow_heif' else find(name)\n"
        "from engine.images.pictures import SUFFIXES, open_picture\n"
        "assert 'heic' not in SUFFIXES\n"
        "open_picture(b'\\0\\0\\0\\x18ftypheic' + bytes(64), 3)"
    )
    ended = subprocess.run(  # noqa: PLW1510 - its exit status is looked at
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "This is a HEIC picture, which needs pillow-heif. Run pip install pillow-heif" in ended.stderr


@pytest.mark.slow
def test_threads_may_open_pictures_at_the_same_time_and_the_filters_come_back():
    before = list(warnings.filters)
    content = encode(Image.fromarray(noise(300, 300)), "PNG")
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(lambda _: pixels_of(content, 3), range(64)):
            assert pixels.shape == (300, 300, 3)
    assert warnings.filters == before
    with without_warnings():
        assert warnings.filters != before


# Pictures brought to a size


def fitted(content: bytes, height: int, width: int, channels: int, fit: str) -> np.ndarray:
    pixels, _ = fit_picture(content, height, width, channels, fit)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (height, width, channels))
    return pixels.astype(int)


def smooth(height: int, width: int) -> np.ndarray:
    """Return pixels that differ all over, but little from their neighbours, as in photographs."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(9 * x) + np.cos(7 * y), np.sin(5 * x + 8 * y), np.cos(6 * (x + y))]
    return np.stack([127 + 60 * wave for wave in waves], axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (20, 45), (100, 37), (200, 300)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("original", [(90, 150), (151, 60), (64, 64)])
def test_pictures_are_brought_to_a_size_as_pillow_does(original, fit, channels, size):
    picture = Image.fromarray(smooth(*original))
    plain = picture.convert("L" if channels == 1 else "RGB")
    if fit == "crop":
        reference = ImageOps.fit(plain, size[::-1], Image.Resampling.BILINEAR)
    else:
        scaled = ImageOps.contain(plain, size[::-1], Image.Resampling.BILINEAR)
        reference = Image.new(plain.mode, size[::-1])
        reference.paste(scaled, ((size[1] - scaled.width) // 2, (size[0] - scaled.height) // 2))
    expected = np.asarray(reference).astype(int).reshape(*size, channels)
    difference = np.abs(fitted(encode(picture, "PNG"), *size, channels, fit) - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (60, 100)])
def test_a_large_jpeg_that_is_decoded_small_looks_like_the_whole_one(fit, size):
    picture = Image.fromarray(smooth(603, 805))
    content = encode(picture, "JPEG", quality=90)
    with Image.open(io.BytesIO(content)) as image:
        whole = encode(image, "BMP")
    for channels in (1, 3):
        difference = np.abs(fitted(content, *size, channels, fit) - fitted(whole, *size, channels, fit))
        assert difference.max() <= 3
        assert difference.mean() < 0.7


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_on_its_side_is_brought_to_a_size_upright(orientation, fit):
    upright = Image.fromarray(smooth(403, 606))
    exif = Image.Exif()
    exif[0x0112] = orientation
    backwards = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(backwards[orientation]) if orientation > 1 else upright
    pixels, original = fit_picture(encode(stored, "JPEG", quality=95, exif=exif), 40, 50, 3, fit)
    assert (original.width, original.height, original.mode) == (606, 403, "RGB")
    expected = fitted(encode(upright, "BMP"), 40, 50, 3, fit)
    assert np.abs(pixels.astype(int) - expected).max() <= 4


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("format", ["BMP", "JPEG"])
def test_whatever_its_size_a_picture_can_be_brought_to_another(format, fit):
    sizes = np.random.randint(1, 300, (100, 4)).tolist()
    sizes += [(side + 10, side, 224, 224) for side in range(1, 300)]  # a side of 239 is divided with a remainder
    for width, height, new_width, new_height in sizes:
        content = encode(Image.new("L", (width, height), 200), format)
        pixels = fitted(content, new_height, new_width, 1, fit)
        assert pixels.max() == 200
        assert fit == "pad" or pixels.min() == 200


def test_a_picture_of_the_size_is_kept_as_it_is():
    pixels = noise()
    for fit in FITS:
        np.testing.assert_array_equal(fitted(encode(Image.fromarray(pixels), "PNG"), 9, 7, 3, fit), pixels)


def test_what_is_padded_is_whole_and_in_the_middle_of_black():
    wide = fitted(encode(Image.new("RGB", (40, 10), WHITE), "PNG"), 20, 20, 3, "pad")
    assert (wide[:7] == 0).all() and (wide[13:] == 0).all()
    assert (wide[8:12] == 255).all()
    high = fitted(encode(Image.new("L", (3, 300), 255), "PNG"), 20, 20, 1, "pad")
    assert (high.any(axis=0).sum(), high.any(axis=1).sum()) == (1, 20)


def test_what_is_cropped_is_its_middle():
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = RED
    np.testing.assert_array_equal(fitted(encode(Image.fromarray(pixels), "PNG"), 10, 10, 3, "crop"), pixels[:, 15:25])


@pytest.mark.parametrize(
    ("mode", "width", "height"),
    [("1", 3, 1), ("L", 1, 1), ("P", 7, 900), ("RGBA", 900, 7), ("CMYK", 5, 5), ("I;16", 9, 9)],
)
def test_pictures_of_every_mode_and_shape_are_brought_to_a_size(mode, width, height):
    content = encode(Image.new(mode, (width, height)), "TIFF")
    for fit in FITS:
        for channels in (1, 3):
            fitted(content, 16, 8, channels, fit)
    assert fit_picture(content, 8, 8, 3, "crop")[1] == Original(width, height, mode)


def test_transparency_is_laid_on_white_before_it_is_brought_to_a_size():
    content = encode(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG")
    for fit in FITS:
        assert fitted(content, 10, 10, 3, fit).min() == 255


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_opened_cannot_be_brought_to_a_size():
    photograph = encode(Image.fromarray(smooth(200, 200)), "JPEG")
    reasons = {
        b"": "The file is empty.",
        b"Dear reader, this is a letter.": "This is not a picture that can be read.",
        photograph[: len(photograph) // 2]: "The picture is damaged or cut short (",
        png_of_size(12_000, 12_000): "The picture has 12,000 x 12,000 pixels; at most 100 million are opened.",
    }
    for content, reason in reasons.items():
        with pytest.raises(LoupeError) as refused:
            fit_picture(content, 16, 16, 3, "crop")
        assert str(refused.value).startswith(reason)


# Pictures that are looked at


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_what_a_picture_is_can_be_told_from_its_first_bytes(format):
    content = encode(Image.fromarray(smooth(60, 90)), format)
    assert look_at(io.BytesIO(content)) == Original(90, 60, "P" if format == "GIF" else "RGB")
    if format in ("PNG", "JPEG", "GIF", "BMP"):
        assert look_at(io.BytesIO(content[:1000])).width == 90


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_picture_on_its_side_is_measured_upright(format):
    exif = Image.Exif()
    exif[0x0112] = 8
    content = encode(Image.fromarray(smooth(60, 90)), format, exif=exif)
    assert look_at(io.BytesIO(content)) == Original(60, 90, "RGB")


def test_what_is_no_picture_cannot_be_looked_at():
    for content in (b"", b"Dear reader, this is a letter."):
        with pytest.raises(LoupeError, match=r"This is not a picture that can be read\."):
            look_at(io.BytesIO(content))
    with pytest.raises(LoupeError, match="has 12,000 x 12,000 pixels"):
        look_at(io.BytesIO(png_of_size(12_000, 12_000)))


def with_a_spot(grey: np.ndarray) -> np.ndarray:
    spotted = grey.repeat(3, axis=2)
    spotted[10:30, 10:30] = RED
    return spotted


GREY = smooth(100, 100)[..., :1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(Image.fromarray(GREY[..., 0]), "PNG"), False),
        (encode(Image.fromarray(GREY.repeat(3, axis=2)), "PNG"), False),
        (encode(Image.fromarray(GREY.repeat(3, axis=2)), "JPEG", quality=50), False),
        (encode(Image.fromarray(GREY.repeat(3, axis=2)).convert("CMYK"), "JPEG"), False),
        (encode(Image.fromarray(GREY[..., 0]).convert("P"), "GIF"), False),
        (encode(Image.fromarray(GREY[..., 0].astype(np.uint16) * 200), "PNG"), False),
        (encode(Image.new("1", (5, 5)), "PNG"), False),
        (encode(Image.new("RGBA", (5, 5)), "PNG"), False),
        (encode(Image.fromarray(smooth(100, 100)), "PNG"), True),
        (encode(Image.fromarray(smooth(100, 100)), "JPEG", quality=50), True),
        (encode(Image.fromarray(with_a_spot(GREY)), "PNG"), True),
        (encode(Image.fromarray((GREY * (1.0, 0.9, 0.7)).astype(np.uint8)), "JPEG"), True),
        (encode(Image.new("P", (5, 5)), "PNG"), False),
        (encode(Image.new("RGBA", (5, 5), (200, 0, 0, 200)), "PNG"), True),
        (encode(Image.new("RGBA", (5, 5), (200, 0, 0, 0)), "PNG"), True),
    ],
    ids=[
        *("grey", "grey as RGB", "grey as JPEG", "grey as CMYK", "grey palette", "16 bits", "1 bit", "transparent"),
        *("colour", "colour as JPEG", "a spot", "sepia", "black palette", "half transparent", "unused alpha"),
    ],
)
def test_colour_is_told_from_grey_however_it_is_stored(content, expected):
    assert has_colour(content) is expected
