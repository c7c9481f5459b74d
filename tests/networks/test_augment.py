import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.networks import augment as augmentation
from engine.networks.augment import augment, erase, flip, rotate_and_crop, shift
from engine.recipes.augmentation import Augmentation, parse_augmentation

EVERYTHING = "flip shift=2 rotate=30 crop=0.6 erase=0.4"
EACH = ["flip", "shift=2", "rotate=30", "crop=0.6", "rotate=30 crop=0.6", "erase=0.4", EVERYTHING]
SHAPES = [(40, 8, 8, 1), (40, 5, 9, 3), (40, 10, 4, 1)]
TYPES = [torch.uint8, torch.float32, torch.float64]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(1, 256, shape).to(dtype)


def constant_draw(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Have all random numbers between 0 and 1 be this one."""
    monkeypatch.setattr(augmentation.torch, "rand", lambda *shape, generator: torch.full(shape, value))


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Move one image, pixel by pixel."""
    height, width, _ = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[row, column] = image[row - down, column - right]
    return result


def sampled(image: Tensor, row: float, column: float, outside_is_black: bool) -> np.ndarray:
    """Interpolate between the four pixels around a place; pixel (0, 0) has its middle at (0, 0)."""
    pixels = image.numpy().astype(np.float64)
    height, width, channels = pixels.shape
    value = np.zeros(channels)
    for near_row in (math.floor(row), math.floor(row) + 1):
        for near_column in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - near_row)) * (1 - abs(column - near_column))
            inside = 0 <= near_row < height and 0 <= near_column < width
            if inside or not outside_is_black:
                value += weight * pixels[min(max(near_row, 0), height - 1), min(max(near_column, 0), width - 1)]
    return value


def turned_part(image: Tensor, angle: float, share: float, down: float, right: float) -> np.ndarray:
    """Cut a part out of one image, its middle so far from the image's in pixels, and turn it: pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            y, x = share * (row - (height - 1) / 2), share * (column - (width - 1) / 2)
            from_row = math.sin(angle) * x + math.cos(angle) * y + down + (height - 1) / 2
            from_column = math.cos(angle) * x - math.sin(angle) * y + right + (width - 1) / 2
            result[row, column] = sampled(image, from_row, from_column, outside_is_black=True)
    return result


@pytest.mark.parametrize("asked", EACH)
@pytest.mark.parametrize("dtype", [*TYPES, torch.float16])
@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (6, 5, 9, 3), (1, 10, 4, 3)])
def test_type_shape_and_layout_are_kept_and_images_are_not_changed_in_place(asked, dtype, shape):
    images = noise(shape, dtype)
    before = images.clone()
    result = augment(images, parse_augmentation(asked), generator())
    assert (result.shape, result.dtype, result.device) == (images.shape, dtype, images.device)
    assert result.is_contiguous()
    assert torch.equal(images, before)
    assert result.data_ptr() != images.data_ptr()
    assert result.min() >= 0
    assert result.max() <= 255


@pytest.mark.parametrize("nothing", [Augmentation(), Augmentation(shift=0, rotate=0.0, crop=1.0, erase=0.0)])
def test_nothing_asked_for_gives_the_images_themselves_and_draws_nothing(nothing):
    images, one = noise((3, 4, 4, 1)), generator()
    assert augment(images, nothing, one) is images
    assert torch.equal(one.get_state(), generator().get_state())


@pytest.mark.parametrize("asked", EACH)
def test_the_same_generator_gives_the_same_result(asked):
    images, wanted, one = noise((20, 8, 8, 3), torch.float32), parse_augmentation(asked), generator(1)
    first, second = augment(images, wanted, one), augment(images, wanted, one)
    assert torch.equal(first, augment(images, wanted, generator(1)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, augment(images, wanted, generator(2)))


@pytest.mark.parametrize("asked", EACH)
def test_images_have_no_part_in_each_other(asked):
    images, wanted = noise((20, 6, 7, 3)), parse_augmentation(asked)
    others = noise(images.shape)
    others[7] = images[7]
    assert torch.equal(augment(images, wanted, generator())[7], augment(others, wanted, generator())[7])


@pytest.mark.parametrize("asked", EACH)
def test_each_image_draws_a_change_of_its_own(asked):
    images = noise((1, 9, 9, 1)).expand(200, 9, 9, 1)
    different = augment(images, parse_augmentation(asked), generator()).flatten(1).unique(dim=0)
    # Two ways to be flipped, 25 to be shifted, and 36 places for a square of 4 x 4; no two angles are the same.
    assert len(different) >= {"flip": 2, "shift=2": 25, "erase=0.4": 35}.get(asked, 190)


def test_images_that_do_not_lie_in_memory_as_usual_are_changed_alike():
    images = noise((5, 3, 8, 7)).permute(0, 2, 3, 1)
    for asked in EACH:
        wanted = parse_augmentation(asked)
        usual = augment(images.contiguous(), wanted, generator())
        assert torch.equal(augment(images, wanted, generator()), usual), asked


def test_changes_follow_one_another_in_a_fixed_order():
    images, one = noise((20, 8, 9, 3)), generator()
    expected = erase(shift(rotate_and_crop(flip(images, one), 30, 0.6, one), 2, one), 0.4, one)
    assert torch.equal(augment(images, parse_augmentation(EVERYTHING), generator()), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_images_are_flipped_where_the_draw_is_below_one_half(shape, dtype):
    images = noise(shape, dtype)
    result = flip(images, generator())
    draws = torch.rand(shape[0], generator=generator()).tolist()
    for image, changed, draw in zip(images.numpy(), result.numpy(), draws, strict=True):
        np.testing.assert_array_equal(changed, np.fliplr(image) if draw < 0.5 else image)


def test_half_of_the_images_are_flipped():
    left = torch.tensor([1, 0], dtype=torch.uint8).view(1, 1, 2, 1).expand(10_000, 1, 2, 1)
    flipped = flip(left, generator())[:, 0, 1, 0].float().mean().item()
    assert flipped == pytest.approx(0.5, abs=0.02)  # four standard deviations


@pytest.mark.parametrize("value", [0.0, 0.9])
def test_all_or_no_images_may_be_flipped(value, monkeypatch):
    images = noise((5, 4, 3, 3))
    constant_draw(monkeypatch, value)
    assert torch.equal(flip(images, generator()), images if value else images.flip(2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("furthest", "height", "width", "channels"), [(1, 8, 8, 1), (2, 5, 7, 3), (6, 4, 3, 1), (6, 9, 4, 3)]
)
def test_each_image_is_moved_as_the_generator_says(furthest, height, width, channels, dtype):
    images = noise((50, height, width, channels), dtype)
    result = shift(images, furthest, generator())

    drawn = torch.randint(-furthest, furthest + 1, (2, 50, 1), generator=generator()).squeeze(2)
    down, right = drawn.tolist()
    assert result.dtype == dtype
    assert torch.equal(result, torch.stack([moved(*each) for each in zip(images, down, right, strict=True)]))
    # Every way and distance is drawn, and one way does not tell the other.
    assert {*down} == {*right} == {*range(-furthest, furthest + 1)}
    assert down != right


@pytest.mark.parametrize("shape", [(100, 30, 2, 1), (100, 2, 30, 1)])
def test_an_image_may_be_moved_by_far_more_than_one_of_its_sides(shape):
    images = noise(shape)
    down, right = torch.randint(-20, 21, (2, 100, 1), generator=generator()).squeeze(2).tolist()
    expected = torch.stack([moved(*each) for each in zip(images, down, right, strict=True)])
    assert expected.any()
    assert torch.equal(shift(images, 20, generator()), expected)


def test_no_shift_is_no_change():
    images = noise((20, 5, 7, 3))
    assert torch.equal(shift(images, 0, generator()), images)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(8, 7, 7, 1), (8, 5, 9, 3), (8, 9, 4, 1)])
@pytest.mark.parametrize(("degrees", "least"), [(50.0, 1.0), (30.0, 0.5)])
def test_each_image_is_turned_and_cut_as_the_generator_says(degrees, least, shape, dtype):
    images, one = noise(shape, dtype), generator()
    result = rotate_and_crop(images, degrees, least, generator())

    count, height, width, _ = shape
    for image, changed, (turn, size, right, down) in zip(
        images, result, torch.rand(4, count, generator=one).T.tolist(), strict=True
    ):
        angle, share = (2 * turn - 1) * math.radians(degrees), least + (1 - least) * size
        room = (1 - share) / 2
        middle = ((2 * down - 1) * room * height, (2 * right - 1) * room * width)
        expected = turned_part(image, angle, share, *middle)
        tolerance = 0.51 if dtype == torch.uint8 else 0.01
        np.testing.assert_allclose(changed.numpy().astype(np.float64), expected, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_is_what_pillow_cuts_out_and_resizes(shape, dtype):
    images, one = noise(shape, dtype), generator()
    result = rotate_and_crop(images, 0.0, 0.3, generator())

    count, height, width, channels = shape
    for image, changed, (_, size, right, down) in zip(
        images, result, torch.rand(4, count, generator=one).T.tolist(), strict=True
    ):
        share = 0.3 + 0.7 * size
        left, top = right * (1 - share) * width, down * (1 - share) * height
        box = (left, top, left + share * width, top + share * height)
        for channel in range(channels):
            plane = Image.fromarray(image[..., channel].numpy().astype(np.float32))
            expected = plane.resize((width, height), Image.Resampling.BILINEAR, box=box)
            tolerance = 0.51 if dtype == torch.uint8 else 0.01
            np.testing.assert_allclose(changed[..., channel], np.asarray(expected), atol=tolerance)


def test_a_crop_never_looks_outside_the_image():
    images = torch.full((200, 6, 9, 1), 200, dtype=torch.uint8)
    assert torch.equal(rotate_and_crop(images, 0.0, 0.1, generator()), images)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(5, 6, 6, 1), (5, 7, 7, 3)])
@pytest.mark.parametrize(("draw", "quarters"), [(0.0, 1), (1.0, -1)])
def test_a_quarter_turn_is_exact(draw, quarters, shape, dtype, monkeypatch):
    images = noise(shape, dtype)
    constant_draw(monkeypatch, draw)
    result = rotate_and_crop(images, 90.0, 1.0, generator())
    expected = torch.rot90(images, -quarters, (1, 2))
    torch.testing.assert_close(result, expected, atol=0 if dtype == torch.uint8 else 0.001, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_a_turn_puts_an_image_of_any_shape_upside_down(shape, monkeypatch):
    images = noise(shape)
    constant_draw(monkeypatch, 1.0)
    assert torch.equal(rotate_and_crop(images, 180.0, 1.0, generator()), images.flip(1, 2))


def test_a_turn_brings_in_black(monkeypatch):
    images = torch.full((2, 9, 9, 1), 255, dtype=torch.uint8)
    constant_draw(monkeypatch, 1.0)
    turned = rotate_and_crop(images, 45.0, 1.0, generator())[0, ..., 0]
    assert turned[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 0, 0, 0]
    assert turned[4].tolist() == [255] * 9


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_neither_a_turn_nor_a_cut_is_no_change(shape, dtype):
    images = noise(shape, dtype)
    result = rotate_and_crop(images, 0.0, 1.0, generator())
    torch.testing.assert_close(result, images, atol=0 if dtype == torch.uint8 else 0.001, rtol=0)


@pytest.mark.slow
def test_angles_shares_and_places_are_drawn_from_their_whole_ranges():
    """Measured on ramps, whose values say where a pixel was taken from."""
    count, side = 2000, 33
    ramp = torch.linspace(-1 + 1 / side, 1 - 1 / side, side, dtype=torch.float64)  # from the middle, in half sides
    images = torch.stack((ramp[:, None].expand(side, side), ramp.expand(side, side)), 2).expand(count, -1, -1, -1)
    middle = side // 2

    turned = rotate_and_crop(images, 20.0, 1.0, generator())
    step = (turned[:, middle, middle + 1] - turned[:, middle, middle]) * side / 2
    angles = torch.rad2deg(torch.atan2(step[:, 0], step[:, 1]))
    assert angles.min().item() == pytest.approx(-20, abs=0.1)
    assert angles.max().item() == pytest.approx(20, abs=0.1)
    assert angles.mean().item() == pytest.approx(0, abs=1)
    assert angles.std().item() == pytest.approx(40 / math.sqrt(12), abs=0.5)

    cut = rotate_and_crop(images, 0.0, 0.4, generator())
    shares = (cut[:, middle, middle + 1, 1] - cut[:, middle, middle, 1]) * side / 2
    assert shares.min().item() == pytest.approx(0.4, abs=0.005)
    assert shares.max().item() == pytest.approx(1.0, abs=0.005)
    assert shares.mean().item() == pytest.approx(0.7, abs=0.02)
    places = cut[:, middle, middle] / (1 - shares)[:, None]  # from -1, at one edge, to 1, at the other
    places = places[shares < 0.9]
    assert places.min().item() == pytest.approx(-1, abs=0.01)
    assert places.max().item() == pytest.approx(1, abs=0.01)
    assert places.mean(0).tolist() == pytest.approx([0, 0], abs=0.06)
    assert abs(torch.corrcoef(places.T)[0, 1].item()) < 0.1


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_square_of_each_image_gets_its_mean_colour(share, shape, dtype):
    images, one = noise(shape, dtype), generator()
    result = erase(images, share, generator())

    count, height, width, _ = shape
    side = max(1, round(share * min(height, width)))
    tops = torch.randint(height - side + 1, (count, 1), generator=one).squeeze(1).tolist()
    lefts = torch.randint(width - side + 1, (count, 1), generator=one).squeeze(1).tolist()
    for image, changed, top, left in zip(images.numpy(), result.numpy(), tops, lefts, strict=True):
        mean = image.mean((0, 1), dtype=np.float64)
        expected = image.copy()
        expected[top : top + side, left : left + side] = mean.round() if dtype == torch.uint8 else mean
        np.testing.assert_allclose(changed, expected, rtol=1e-5)
    # The square is as often in one place as in another, from edge to edge.
    if side < min(height, width):
        assert {0, height - side} <= {*tops}
        assert {0, width - side} <= {*lefts}


def test_a_mean_of_many_bright_pixels_is_not_cut_short():
    images = torch.full((2, 300, 300, 1), 255, dtype=torch.uint8)
    assert torch.equal(erase(images, 0.5, generator()), images)
