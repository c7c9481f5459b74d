import io

import numpy as np
import pytest
from odd_pictures import encode
from PIL import Image

from engine.images.jpeg import END, with_end


def soft(height: int, width: int) -> np.ndarray:
    """Make a picture that no block of is like another: uint8 (height, width, 3)."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(9 * right + 2) + np.cos(7 * down), np.sin(5 * right + 8 * down), np.cos(6 * (right + down))]
    noise = np.random.default_rng(0).normal(0, 9, (height, width, 3))
    return (127 + 50 * np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8)


def page(height: int, width: int) -> np.ndarray:
    """Make a white page with a stroke in its upper half: uint8 (height, width, 3)."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[height // 4 : height // 3, width // 4 : width // 2] = 30
    return pixels


PICTURE = Image.fromarray(soft(37, 45))  # its last blocks go on below and right of it, where nobody sees them
KINDS = {
    "baseline": encode(PICTURE, "JPEG", quality=85),
    "tables of its own": encode(PICTURE, "JPEG", quality=60, optimize=True),
    "colours at full size": encode(PICTURE, "JPEG", quality=95, subsampling=0),
    "grey": encode(PICTURE.convert("L"), "JPEG", quality=85),
    "cmyk": encode(PICTURE.convert("CMYK"), "JPEG", quality=40),
    "progressive": encode(PICTURE, "JPEG", quality=85, progressive=True),
    "progressive grey": encode(PICTURE.convert("L"), "JPEG", quality=85, progressive=True),
    "restarts": encode(PICTURE, "JPEG", quality=85, restart_marker_blocks=1),
    "restarts of rows": encode(PICTURE, "JPEG", quality=85, restart_marker_rows=1),
    "progressive with restarts": encode(PICTURE, "JPEG", quality=40, progressive=True, restart_marker_blocks=3),
    "one colour": encode(Image.new("RGB", (45, 37), (200, 30, 40)), "JPEG", optimize=True),
    "a white page": encode(Image.fromarray(page(176, 46)), "JPEG", optimize=True),
}
of_every_kind = pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)


def pixels_of(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        return image.tobytes()


def assert_whole_or_left_alone(content: bytes, cut: bytes) -> None:
    """Check that what was cut is left to be refused, but where it lost nothing that makes a difference to a pixel."""
    found = with_end(cut)
    assert found is cut or pixels_of(found) == pixels_of(content)


@of_every_kind
def test_what_lacks_only_its_end_marker_is_given_it(content):
    assert with_end(content[:-2]) == content


@of_every_kind
def test_half_of_a_marker_is_made_a_whole_one(content):
    assert with_end(content[:-1]) == content


@of_every_kind
def test_what_fills_a_file_after_its_data_does_no_harm(content):
    for filled in (content[:-2] + bytes(100), content[:-2] + b"\xff" * 100):
        assert pixels_of(with_end(filled)) == pixels_of(content)


@of_every_kind
def test_what_has_its_end_marker_is_left_alone(content):
    for whole in (content, content + b"what a camera adds", content + content):
        assert with_end(whole) is whole


def test_what_is_no_jpeg_is_left_alone():
    for content in (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"Dear reader", encode(PICTURE, "PNG")[:-2]):
        assert with_end(content) is content


@of_every_kind
def test_what_is_cut_short_is_left_alone(content):
    start = content.index(b"\xff\xda")
    for share in (0.1, 0.3, 0.5, 0.8):
        cut = content[: start + int((len(content) - start) * share)]
        assert_whole_or_left_alone(content, cut)
        assert_whole_or_left_alone(content, cut + bytes(5000))
    for missing in range(3, 12):
        assert_whole_or_left_alone(content, content[:-missing])


@pytest.mark.parametrize("kind", ["baseline", "restarts", "progressive", "grey", "progressive with restarts"])
def test_without_its_last_byte_of_data_it_is_cut_short(kind):
    cut = KINDS[kind][:-3]
    assert with_end(cut) is cut


@pytest.mark.parametrize("kind", ["restarts", "restarts of rows", "progressive with restarts"])
def test_what_is_cut_where_it_would_restart_is_left_alone(kind):
    content = KINDS[kind]
    restarts = [at for at in range(len(content)) if content[at] == 255 and 0xD0 <= content[at + 1] <= 0xD7]
    assert len(restarts) > 1
    for at in restarts:
        for cut in (content[:at], content[: at + 1], content[: at + 2], content[: at + 3]):
            assert with_end(cut) is cut


@pytest.mark.parametrize("kind", ["progressive", "progressive grey", "progressive with restarts"])
def test_what_is_cut_between_two_scans_is_left_alone(kind):
    content = KINDS[kind]
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for at in scans:
        for cut in (content[:at], content[: at + 2], content[: at + 12]):
            assert with_end(cut) is cut


def test_of_several_pictures_in_a_file_the_first_is_judged():
    content = encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180)])
    second = content.index(b"\xff\xd8\xff", 3)
    for cut in (content[:-2], content[: second + 900]):
        assert with_end(cut) is cut  # the first has its end, and no more is needed
    assert with_end(content[: second - 2]) == content[:second]
    cut = content[: second - 3]
    assert with_end(cut) is cut


def test_zeros_at_the_end_of_a_white_page_are_its_data():
    content = KINDS["a white page"]
    assert content.endswith(bytes(4) + END)
    assert pixels_of(with_end(content[:-2])) == pixels_of(content)
    middle = content.index(b"\xff\xda") + 30  # within the stroke
    filled = content[:middle] + bytes(len(content) - middle)
    assert with_end(filled) is filled


@pytest.mark.sweep
@of_every_kind
def test_wherever_it_is_cut_it_is_told_from_a_whole_one(content):
    for cut in range(content.index(b"\xff\xda"), len(content) - 2):
        assert_whole_or_left_alone(content, content[:cut])


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(40))
def test_pictures_of_every_shape_and_setting_are_told_wherever_they_are_cut(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 70, 2)
    picture = Image.fromarray((soft, page)[seed % 2](height, width))
    settings = {
        "quality": int(random.choice([5, 30, 75, 95, 100])),
        "progressive": bool(random.integers(2)),
        "optimize": bool(random.integers(2)),
        "subsampling": int(random.integers(3)),
        "restart_marker_blocks": int(random.choice([0, 0, 1, 4])),
    }
    content = encode(picture, "JPEG", **settings)
    for cut in range(content.index(b"\xff\xda"), len(content) - 2):
        assert_whole_or_left_alone(content, content[:cut])
    assert pixels_of(with_end(content[:-2])) == pixels_of(content)
