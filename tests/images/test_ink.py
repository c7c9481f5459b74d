import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

from engine.images.ink import NO_INK, bounds, normalize_ink, pieces, stroke_thickness, thickened

MNIST = (28, 28, 20 / 28, "mass", 0.08)
DARK_ON_LIGHT = "Read as dark ink on light: evened out, turned light on dark, cropped to the ink and centred by mass."
LIGHT_ON_DARK = "Read as light ink on dark: evened out, cropped to the ink and centred by mass."

# Strokes in a square of side 1: lists of points (across, down).
FIVE = [[(0.9, 0.05), (0.3, 0.05), (0.25, 0.45), (0.7, 0.42), (0.85, 0.65), (0.7, 0.9), (0.2, 0.95)]]
FIVE_WITH_ITS_BAR_APART = [[(0.25, 0.15), (0.25, 0.5), (0.7, 0.45), (0.85, 0.7), (0.6, 0.95)], [(0.4, 0.0), (0.9, 0.0)]]
SEVEN = [[(0.1, 0.1), (0.9, 0.1), (0.4, 0.9)]]
ZERO = [[(0.5 + 0.3 * np.cos(angle), 0.5 + 0.45 * np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 40)]]


def drawn(strokes: list, side: int = 160, pen: float = 0.11) -> np.ndarray:
    """Draw strokes as coverage by ink, 0 to 1, (side, side): antialiased, with round ends, a tenth of margin."""
    large = 4 * side
    canvas = Image.new("L", (large, large))
    draw, radius = ImageDraw.Draw(canvas), pen * 0.8 * large / 2
    for stroke in strokes:
        points = [((0.1 + 0.8 * x) * large, (0.1 + 0.8 * y) * large) for x, y in stroke]
        draw.line(points, fill=255, width=round(2 * radius))
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32) / 255


def on_paper(ink: np.ndarray, height: int = 240, width: int = 300, top: int = 40, left: int = 60) -> np.ndarray:
    sheet = np.zeros((height, width), np.float32)
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def picture_of(ink: np.ndarray, paper: float = 230, pen: float = 30, light: np.ndarray | float = 1.0) -> np.ndarray:
    return ((paper + (pen - paper) * ink) * light).clip(0, 255).astype(np.uint8)[..., np.newaxis]


def photograph(picture: np.ndarray, grain: float = 6) -> np.ndarray:
    """Blur a picture, with grain, as a JPEG."""
    blurred = np.asarray(Image.fromarray(picture[..., 0]).filter(ImageFilter.GaussianBlur(0.8)))
    noisy = (blurred + np.random.normal(0, grain, blurred.shape)).clip(0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(noisy).save(content, "jpeg", quality=80)
    return np.asarray(Image.open(content))[..., np.newaxis]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def side_of(image: np.ndarray) -> int:
    top, bottom, left, right = bounds(image[..., 0] > 64)
    return max(bottom - top, right - left)


def mass_centre(image: np.ndarray) -> np.ndarray:
    return ((np.indices(image.shape[:2]) + 0.5) * image[..., 0]).sum(axis=(1, 2)) / image.sum()


CLEAN, _ = normalize_ink(picture_of(on_paper(drawn(FIVE))), *MNIST)


@pytest.mark.parametrize("strokes", [FIVE, FIVE_WITH_ITS_BAR_APART, SEVEN, ZERO])
def test_what_comes_out_is_as_mnist_has_it(strokes):
    seen, done = normalize_ink(picture_of(on_paper(drawn(strokes))), *MNIST)
    assert done == DARK_ON_LIGHT
    assert seen.dtype == np.uint8
    assert seen.shape == (28, 28, 1)
    assert seen.max() == 255
    assert len(np.unique(seen)) > 20  # with smooth edges
    assert side_of(seen) in (19, 20, 21)
    np.testing.assert_allclose(mass_centre(seen), 14.5, atol=0.51)
    top, bottom, left, right = bounds(drawn(strokes) > 0)
    cut = Image.fromarray(drawn(strokes)[top:bottom, left:right])
    cut.thumbnail((20, 20))
    assert seen.sum() / 255 == pytest.approx(np.asarray(cut).sum(), rel=0.1)  # as much ink as there was


def test_light_ink_on_dark_of_another_size_is_not_inverted():
    board = photograph(picture_of(on_paper(drawn(FIVE)), paper=60, pen=220))
    seen, done = normalize_ink(board, *MNIST)
    assert done == LIGHT_ON_DARK
    assert likeness(seen, CLEAN) > 0.97
    enlarged = np.asarray(Image.fromarray(CLEAN[..., 0]).resize((200, 200), Image.Resampling.BICUBIC))
    again, done = normalize_ink(enlarged[..., np.newaxis], *MNIST)
    assert done == LIGHT_ON_DARK
    assert likeness(again, CLEAN) > 0.97


@pytest.mark.parametrize(("paper", "pen"), [(250, 0), (230, 120), (120, 30), (90, 40)])
def test_paper_and_ink_may_have_any_levels(paper, pen):
    seen, done = normalize_ink(photograph(picture_of(on_paper(drawn(FIVE)), paper, pen), grain=3), *MNIST)
    assert done == DARK_ON_LIGHT
    assert likeness(seen, CLEAN) > 0.97


def uneven_lights(height: int = 240, width: int = 300) -> dict[str, np.ndarray]:
    down, right = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return {
        "from the left": 1 - 0.6 * right,
        "from below": 0.3 + 0.7 * down,
        "darker corners": 1 - 0.8 * ((down - 0.5) ** 2 + (right - 0.5) ** 2),
        "a soft shadow across the ink": 1 - 0.45 / (1 + np.exp(-(down + right - 0.9) / 0.04)),
    }


@pytest.mark.parametrize("name", uneven_lights())
def test_uneven_light_makes_no_difference(name):
    seen, done = normalize_ink(photograph(picture_of(on_paper(drawn(FIVE)), light=uneven_lights()[name])), *MNIST)
    assert done == DARK_ON_LIGHT
    assert likeness(seen, CLEAN) > 0.97


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 130), (80, 3), (80, 140)])
def test_it_does_not_matter_where_the_ink_is(top, left):
    seen, _ = normalize_ink(picture_of(on_paper(drawn(FIVE), top=top, left=left)), *MNIST)
    assert likeness(seen, CLEAN) > 0.98


@pytest.mark.parametrize("side", [40, 100, 400, 900])
def test_it_does_not_matter_how_large_the_ink_is(side):
    seen, _ = normalize_ink(picture_of(on_paper(drawn(FIVE, side), 1500, 1000, 300, 50)), *MNIST)
    assert likeness(seen, CLEAN) > 0.95


def test_a_picture_of_the_models_size_that_is_light_on_dark_is_left_alone():
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)[..., np.newaxis]
    for digit in digits[:200]:
        seen, done = normalize_ink(digit, 8, 8, 1.0, "box", 0.18)
        assert seen is digit
        assert done == ""
    seen, done = normalize_ink(CLEAN, *MNIST)
    assert seen is CLEAN
    assert done == ""


def test_one_of_the_models_size_that_is_dark_on_light_is_turned():
    seen, done = normalize_ink(255 - CLEAN, *MNIST)
    assert done == DARK_ON_LIGHT
    assert likeness(seen, CLEAN) > 0.97


@pytest.mark.slow
def test_enlarged_scans_come_back_as_they_were():
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)
    likenesses = []
    for digit in digits[:30]:
        enlarged = np.pad(np.asarray(Image.fromarray(digit).resize((160, 160), Image.Resampling.BILINEAR)), 60)
        seen, done = normalize_ink(255 - enlarged[..., np.newaxis], 8, 8, 1.0, "box", 0.18)
        assert done.startswith("Read as dark ink on light")
        assert done.endswith("centred by box.")
        likenesses.append(likeness(seen, digit))
    assert np.median(likenesses) > 0.9


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 20), (9, 64)])
def test_a_box_is_put_in_the_middle(height, width):
    seen, _ = normalize_ink(picture_of(on_paper(drawn(SEVEN))), height, width, 0.8, "box", 0.08)
    assert seen.shape == (height, width, 1)
    top, bottom, left, right = bounds(seen[..., 0] > 64)
    assert abs(top - (height - bottom)) <= 2
    assert abs(left - (width - right)) <= 2
    assert max((bottom - top) / height, (right - left) / width) == pytest.approx(0.8, abs=2 / min(height, width))


# What is not ink, and what is


def with_a_black(picture: np.ndarray, *place: slice) -> np.ndarray:
    changed = picture.copy()
    changed[place] = 20
    return changed


@pytest.mark.parametrize(
    "place",
    [np.s_[4:7, 4:7], np.s_[60:63, 262:265], np.s_[-25:, :], np.s_[:, 20:23], np.s_[:, :12]],
    ids=["speck in a corner", "speck beside the ink", "edge of a table", "margin line", "dark band"],
)
def test_what_does_not_belong_to_the_ink_is_left_out(place):
    picture = with_a_black(picture_of(on_paper(drawn(FIVE))), *place)
    seen, _ = normalize_ink(picture, *MNIST)
    assert likeness(seen, CLEAN) > 0.99


def test_paper_that_lies_on_a_dark_table_is_no_ink():
    picture = np.pad(picture_of(on_paper(drawn(FIVE))), [(50, 70), (60, 40), (0, 0)], constant_values=25)
    seen, done = normalize_ink(picture, *MNIST)
    assert done == DARK_ON_LIGHT
    assert likeness(seen, CLEAN) > 0.97


def test_the_parts_of_one_character_are_kept():
    stem, dot = [(0.5, 0.4), (0.5, 1.0)], [(0.5, 0.1), (0.5, 0.12)]
    seen, _ = normalize_ink(picture_of(on_paper(drawn([stem, dot]))), *MNIST)
    assert len(pieces(seen[..., 0] / 255, 0.3)) == 2
    seen, _ = normalize_ink(picture_of(on_paper(drawn(FIVE_WITH_ITS_BAR_APART))), *MNIST)
    assert len(pieces(seen[..., 0] / 255, 0.3)) == 2


def test_ink_that_touches_the_edge_is_read_where_there_is_no_other():
    top, bottom, left, right = bounds(drawn(SEVEN) > 0)
    tight = picture_of(drawn(SEVEN)[top:bottom, left:right])
    free, _ = normalize_ink(picture_of(on_paper(drawn(SEVEN))), *MNIST)
    seen, done = normalize_ink(tight, *MNIST)
    assert done == DARK_ON_LIGHT
    assert likeness(seen, free) > 0.95


# Thickness


@pytest.mark.parametrize("pen", [0.01, 0.02, 0.04])
def test_thin_strokes_are_thickened_to_the_datasets(pen):
    seen, done = normalize_ink(picture_of(on_paper(drawn(FIVE, 600, pen), 900, 900)), *MNIST)
    assert done == DARK_ON_LIGHT.replace("dark, cropped", "dark, strokes thickened, cropped")
    assert stroke_thickness(seen[..., 0] / 255) == pytest.approx(0.08 * 28, rel=0.15)
    assert side_of(seen) in (19, 20, 21)
    assert likeness(seen, CLEAN) > 0.9


def test_thick_strokes_stay_thick():
    seen, done = normalize_ink(picture_of(on_paper(drawn(ZERO, pen=0.25))), *MNIST)
    assert done == DARK_ON_LIGHT
    assert stroke_thickness(seen[..., 0] / 255) > 0.08 * 28 * 1.5


@pytest.mark.parametrize("blur", [0, 1, 2])
@pytest.mark.parametrize("width", [11, 20])
def test_thickness_is_measured_blurred_or_not(width, blur):
    line = np.zeros((120, 300), np.float32)
    line[50 : 50 + width, 20:280] = 1
    image = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    measured = stroke_thickness(np.asarray(image) / 255)
    assert measured == pytest.approx(260 * width / (260 + width), rel=0.05)  # a line's ends belong to its outline


@pytest.mark.parametrize("radius", [0.5, 1, 2.5, 6])
def test_a_line_is_thickened_on_both_its_sides(radius):
    line = np.zeros((60, 60), np.float32)
    line[30:34, 20:40] = 1
    thicker = thickened(line, radius)
    across = thicker[:, thicker.shape[1] // 2]
    assert across.sum() == pytest.approx(4 + 2 * radius)


def test_pieces_are_connected_at_corners_too_and_those_at_the_edge_come_late():
    ink = np.zeros((40, 40))
    ink[np.arange(10, 20), np.arange(10, 20)] = 1
    ink[30:32, 30:32] = 1
    ink[0:5, 0:5] = 1
    assert [int(piece.sum()) for piece in pieces(ink, 0.5)] == [10, 4, 25]
    spiral = drawn([[(0.5 + t / 50 * np.cos(t), 0.5 + t / 50 * np.sin(t)) for t in np.linspace(0, 20, 200)]], pen=0.03)
    assert len(pieces(spiral, 0.5)) == 1


# Anything may be brought


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("size", [(28, 28), (200, 300)])
def test_a_blank_picture_is_left_as_it_is(size, level):
    blank = np.full((*size, 1), level, np.uint8)
    seen, done = normalize_ink(blank, *MNIST)
    assert seen is blank
    assert done == ("" if size == (28, 28) else NO_INK)


def test_no_ink_is_seen_in_the_grain_of_empty_paper():
    paper = photograph(picture_of(np.zeros((240, 300), np.float32), light=uneven_lights()["from the left"]))
    seen, done = normalize_ink(paper, *MNIST)
    assert seen is paper
    assert done == NO_INK


@pytest.mark.parametrize("centred", ["mass", "box"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 28), (28, 28), (2, 3), (1, 4000), (4000, 1), (5, 2000), (300, 200)])
def test_pictures_of_any_shape_and_content_go_through(shape, centred):
    dot = np.zeros(shape)
    dot[shape[0] // 2, shape[1] // 2] = 255
    ramp = np.linspace(0, 255, dot.size).reshape(shape)
    for levels in (dot, 255 - dot, ramp, np.random.randint(0, 256, shape), 255 * np.random.randint(0, 2, shape)):
        picture = levels.astype(np.uint8)[..., np.newaxis]
        before = picture.copy()
        seen, done = normalize_ink(picture, 28, 28, 20 / 28, centred, 0.08)
        assert np.array_equal(picture, before)
        assert seen is picture if done in ("", NO_INK) else seen.shape == (28, 28, 1)


def test_an_array_that_may_not_be_written_to_is_read():
    picture = picture_of(on_paper(drawn(FIVE)))
    picture.flags.writeable = False
    seen, _ = normalize_ink(picture[:, ::-1], *MNIST)
    mirrored, _ = normalize_ink(np.ascontiguousarray(picture[:, ::-1]), *MNIST)
    assert np.array_equal(seen, mirrored)


def test_centring_by_mass_cuts_no_ink_off() -> None:
    page = Image.new("L", (280, 280), 255)
    seven = ((90, 50), (190, 50), (130, 230))  # its mass is high up, and so it comes down
    ImageDraw.Draw(page).line(seven, fill=0, width=16, joint="curve")
    result, _ = normalize_ink(np.asarray(page)[..., np.newaxis], 28, 28, 1.0, "mass", 0.08)
    rows = np.flatnonzero(result[..., 0].max(axis=1) > 100)
    assert (rows[0], rows[-1]) == (0, 27)
