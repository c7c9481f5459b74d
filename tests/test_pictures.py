import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import LoupeError
from engine.pictures import MAX_PIXELS, SUFFIXES, open_picture

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def noise(height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3)).astype(np.uint8)


def refusal(source: Path | bytes, channels: int = 3) -> str:
    with pytest.raises(LoupeError) as refused:
        open_picture(source, channels)
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
        opened = open_picture(source, 3)
        assert opened.dtype == np.uint8
        np.testing.assert_array_equal(opened, pixels)


def test_grey_is_the_luminance_and_colour_of_grey_is_grey():
    pixels = noise()
    grey = open_picture(encode(Image.fromarray(pixels), "PNG"), 1)
    assert grey.shape == (9, 7, 1)
    np.testing.assert_allclose(grey[..., 0], pixels @ [0.299, 0.587, 0.114], atol=1)

    colour = open_picture(encode(Image.fromarray(grey[..., 0]), "PNG"), 3)
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
    np.testing.assert_array_equal(open_picture(content, 3), upright)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM", "TGA", "GIF"])
def test_formats_without_loss_give_back_their_pixels(format):
    grey = noise()[..., 0]
    np.testing.assert_array_equal(open_picture(encode(Image.fromarray(grey), format), 1)[..., 0], grey)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000"])
def test_photographic_formats_come_close(format):
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    opened = open_picture(encode(Image.fromarray(pixels), format), 3)
    np.testing.assert_allclose(opened, pixels.astype(int), atol=6)


def test_every_suffix_that_is_offered_is_of_a_format_that_is_opened():
    formats = {Image.registered_extensions()[f".{suffix}"] for suffix in SUFFIXES}
    picture = Image.fromarray(noise(32, 32))
    for format in formats:
        assert open_picture(encode(picture, format), 3).shape == (32, 32, 3), format


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_every_mode_comes_in_the_channels_asked_for(mode, channels):
    picture = Image.new(mode, (7, 9))
    assert open_picture(encode(picture, "TIFF"), channels).shape == (9, 7, channels)


def test_cmyk_is_converted_to_what_it_shows():
    paper_and_ink = np.zeros((1, 3, 4), np.uint8)  # white
    paper_and_ink[0, 1] = (0, 255, 255, 0)  # magenta and yellow
    paper_and_ink[0, 2] = (0, 0, 0, 255)  # black
    opened = open_picture(encode(Image.fromarray(paper_and_ink, "CMYK"), "TIFF"), 3)
    np.testing.assert_allclose(opened[0], [WHITE, RED, (0, 0, 0)], atol=2)
    grey = open_picture(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), 1)
    assert grey.min() > 250


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format):
    levels = np.array([[0, 257, 1000, 32768, 65000, 65535]], np.uint16)
    content = encode(Image.fromarray(levels), format)
    np.testing.assert_allclose(open_picture(content, 1)[0, :, 0], levels[0] / 257, atol=1)
    assert open_picture(content, 3)[0, :, 2].tolist() == open_picture(content, 1)[0, :, 0].tolist()


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_the_white_that_they_fit_under(white):
    shares = np.array([[0, 0.25, 0.5, 1]], np.float32)
    opened = open_picture(encode(Image.fromarray(shares * white), "TIFF"), 1)
    np.testing.assert_allclose(opened[0, :, 0], shares[0] * 255, atol=1)


def test_floats_that_are_no_level_are_black():
    levels = np.array([[np.nan, -3, 0.5, 1]], np.float32)
    opened = open_picture(encode(Image.fromarray(levels), "TIFF"), 1)
    np.testing.assert_allclose(opened[0, :, 0], [0, 0, 127.5, 255], atol=1)


def test_one_bit_is_black_and_white():
    bits = np.array([[True, False, True]])
    assert open_picture(encode(Image.fromarray(bits), "PNG"), 1)[0, :, 0].tolist() == [255, 0, 255]


def test_transparency_is_laid_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :] = [(*RED, 255), (*RED, 0), (*RED, 128)]
    opened = open_picture(encode(Image.fromarray(pixels), "PNG"), 3)
    np.testing.assert_allclose(opened[0], [RED, WHITE, (255, 127, 127)], atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_with_transparency_is_laid_on_white(channels):
    pixels = np.array([[(40, 255), (40, 0)]], np.uint8)
    opened = open_picture(encode(Image.fromarray(pixels, "LA"), "PNG"), channels)
    assert opened[0].tolist() == [[40] * channels, [255] * channels]


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    assert open_picture(encode(picture, "PNG"), 3)[0].tolist() == [list(RED), list(BLUE)]
    assert open_picture(encode(picture, "PNG", transparency=1), 3)[0].tolist() == [list(RED), [255, 255, 255]]
    assert open_picture(encode(picture, "PNG", transparency=b"\x00\xff"), 3)[0].tolist() == [
        [255, 255, 255],
        list(BLUE),
    ]


def test_of_an_animation_the_first_frame_is_taken():
    red, blue = (Image.new("RGB", (4, 3), colour) for colour in (RED, BLUE))
    content = encode(red, "GIF", save_all=True, append_images=[blue])
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.n_frames == 2
    np.testing.assert_array_equal(open_picture(content, 3), np.full((3, 4, 3), RED))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_that_is_cut_short_is_refused(format):
    content = encode(Image.fromarray(noise(40, 40)), format)
    message = refusal(content[: len(content) * 2 // 3])
    assert message.startswith("The picture is damaged or cut short (")
    assert message.endswith("Get a whole copy of the file.")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_wherever_it_is_cut_or_scratched_it_is_opened_or_refused(format):
    content = encode(Image.fromarray(noise(12, 12)), format)
    for place in range(0, len(content), 3):
        for damaged in (content[:place], content[:place] + b"\xff\x00\x80" + content[place + 3 :]):
            try:
                assert open_picture(damaged, 1).shape[2] == 1
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
    assert MAX_PIXELS == 10_000 * 10_000
    assert refusal(png_of_size(10_000, 10_001)) == (
        "The picture has 10,000 x 10,001 pixels; at most 100 million are opened. Make it smaller first."
    )
    assert "cut short" in refusal(png_of_size(10, 10))  # it is the number that is refused


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused(side):
    message = refusal(png_of_size(side, side))
    assert message.endswith("at most 100 million are opened. Make it smaller first.")


def test_warnings_of_pillow_are_kept_from_the_person():
    # It warns from 89 million on; the limit that counts is ours.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "cut short" in refusal(png_of_size(9_500, 10_000), channels=1)
    assert [str(warning.message) for warning in told] == []
