import pytest
import torch

from engine.augmentation import shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move one image, pixel by pixel."""
    height, width, _ = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[row, column] = image[row - down, column - right]
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("furthest", "height", "width", "channels"), [(1, 8, 8, 1), (2, 5, 7, 3), (6, 4, 3, 1)])
def test_each_image_is_moved_as_the_generator_says(furthest, height, width, channels, dtype):
    images = torch.randint(1, 256, (50, height, width, channels)).to(dtype)
    result = shift(images, furthest, generator())

    drawn = torch.randint(-furthest, furthest + 1, (2, 50, 1), generator=generator()).squeeze(2)
    down, right = drawn.tolist()
    assert result.dtype == dtype
    assert torch.equal(result, torch.stack([moved(*each) for each in zip(images, down, right, strict=True)]))
    # Every way and distance is drawn, and one way does not tell the other.
    assert {*down} == {*right} == {*range(-furthest, furthest + 1)}
    assert down != right


def test_images_are_not_changed_in_place():
    images = torch.randint(1, 256, (20, 5, 5, 1), dtype=torch.uint8)
    before = images.clone()
    shift(images, 2, generator())
    assert torch.equal(images, before)


def test_no_shift_is_no_change():
    images = torch.randint(0, 256, (20, 5, 7, 3), dtype=torch.uint8)
    assert torch.equal(shift(images, 0, generator()), images)


def test_the_same_generator_gives_the_same_result():
    images = torch.randint(0, 256, (20, 6, 6, 1), dtype=torch.uint8)
    one = generator(1)
    first, second = shift(images, 2, one), shift(images, 2, one)
    assert torch.equal(first, shift(images, 2, generator(1)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, shift(images, 2, generator(2)))


def test_memory_stays_channels_last():
    images = torch.randint(0, 256, (4, 6, 6, 3), dtype=torch.uint8)
    assert shift(images, 2, generator()).is_contiguous()
