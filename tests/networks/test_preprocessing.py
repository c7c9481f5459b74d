import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from picture_files import encode
from PIL import Image
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.images.ink_style import measure_ink_style
from engine.images.pictures import FITS, fit_picture
from engine.networks.inference import as_tensor
from engine.networks.preprocessing import (
    FIXED,
    Preprocess,
    Preprocessing,
    Standardize,
    build_preprocess,
    preprocessing_for,
)
from engine.recipes.recipe import FIELDS


def dataset_of(images: np.ndarray) -> Dataset:
    """Make a dataset with these images to train on."""
    save_dataset("drawn", ("thing",), {"train": Split(images, np.zeros(len(images), np.int64))}, "drawn")
    return open_dataset("drawn")


SCALINGS = (*FIXED, "dataset")


def random_images(count: int = 5, height: int = 6, width: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.randint(0, 256, (count, height, width, channels)).astype(np.uint8)


def apply(preprocessing: Preprocessing, images: np.ndarray) -> torch.Tensor:
    return Preprocess(preprocessing)(as_tensor(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling_is_that_of_torchvision(scaling, channels):
    from torchvision import transforms

    images = random_images(channels=channels)
    preprocessing = preprocessing_for(dataset_of(images), scaling)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    if channels == 1:  # of grey images, what is between theirs
        mean, std = [np.mean(mean)], [np.mean(std)]
    theirs = {
        "unit": transforms.ToTensor(),
        "imagenet": transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)]),
        "half": transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * channels, [0.5] * channels)]),
        "dataset": transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize(images.mean(axis=(0, 1, 2)) / 255, images.std(axis=(0, 1, 2)) / 255),
            ]
        ),
    }[scaling]
    expected = torch.stack([theirs(image) for image in images])

    seen = apply(preprocessing, images)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, expected.float(), rtol=0, atol=2e-6)


def test_the_ends_of_the_scale():
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    for scaling, expected in (("unit", [0, 1]), ("half", [-1, 1])):
        seen = apply(preprocessing_for(dataset_of(ends), scaling), ends).flatten()
        torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3), (4097, 3), (8192, 1)])
def test_mean_and_deviation_of_a_dataset_are_numpys(count, channels):
    images = random_images(count, channels=channels)
    images[: count // 2] //= 3  # blocks that differ
    preprocessing = preprocessing_for(dataset_of(images), "dataset")
    values = images.astype(np.float64) / 255
    np.testing.assert_allclose(preprocessing.mean, values.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(preprocessing.std, values.std(axis=(0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_of_blank_images_the_mean_is_taken_and_nothing_is_divided_by_zero(level):
    images = random_images()
    images[..., 1] = level
    preprocessing = preprocessing_for(dataset_of(images), "dataset")
    assert preprocessing.std[1] == 1
    assert min(preprocessing.std[0], preprocessing.std[2]) < 0.5
    seen = apply(preprocessing, images)
    torch.testing.assert_close(seen[:, 1], torch.zeros_like(seen[:, 1]), rtol=0, atol=1e-6)


def preprocessing_of(height: int, width: int, channels: int) -> Preprocessing:
    return Preprocessing((height, width, channels), (0.0,) * channels, (1.0,) * channels, ("thing",))


@pytest.mark.parametrize(("height", "width"), [(3, 2), (12, 8), (9, 6)])
def test_other_sizes_are_brought_to_the_models(height, width):
    images = torch.from_numpy(random_images())
    expected = functional.interpolate(
        images.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    preprocess = Preprocess(preprocessing_of(height, width, 3))
    torch.testing.assert_close(preprocess.resize(images), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(preprocess(images), expected / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "cut"), [(3, 3, np.s_[1:5, :]), (2, 6, np.s_[2:3, :]), (8, 4, np.s_[:, 0:3])]
)
def test_of_another_shape_the_middle_is_seen(height, width, cut):
    images = torch.from_numpy(random_images())
    seen = Preprocess(preprocessing_of(height, width, 3)).resize(images)
    part = images[(slice(None), *cut)].permute(0, 3, 1, 2).float()
    expected = functional.interpolate(part, (height, width), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(40, 160), (160, 40), (90, 91), (50, 71), (48, 48)])
def test_a_picture_is_fitted_as_its_import_does_it(size, fit):
    rows, columns = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    picture = np.stack([50 + 200 * rows, 50 + 200 * columns, np.full(size, 130)], axis=2).astype(np.uint8)
    for height, width in ((64, 64), (32, 48), (8, 30)):
        imported, _ = fit_picture(encode(Image.fromarray(picture)), height, width, 3, fit)
        preprocess = Preprocess(replace(preprocessing_of(height, width, 3), fit=fit))
        seen = preprocess.resize(torch.from_numpy(picture[np.newaxis]))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(seen.max(axis=2) == 0, imported.max(axis=2) == 0), "other parts of it are black"
        np.testing.assert_allclose(seen, imported, rtol=0, atol=6)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_the_thinnest_picture_is_padded_too(size):
    levels = np.linspace(0, 250, max(size)).round().astype(np.uint8).reshape(1, *size, 1)
    seen = Preprocess(replace(preprocessing_of(16, 16, 1), fit="pad")).resize(torch.from_numpy(levels))[0, 0]
    imported, _ = fit_picture(encode(Image.fromarray(levels[0, ..., 0])), 16, 16, 1, "pad")
    np.testing.assert_allclose(seen.numpy(), imported[..., 0], rtol=0, atol=1)


def test_grey_images_are_seen_by_a_model_of_colours():
    images = random_images(channels=1)
    preprocessing = preprocessing_for(dataset_of(images), "imagenet", size=(6, 4), channels=3)
    assert preprocessing.shape == (6, 4, 1)
    assert preprocessing.model_shape == (6, 4, 3)
    colour = preprocessing_for(dataset_of(images.repeat(3, axis=3)), "imagenet")
    assert torch.equal(apply(preprocessing, images), apply(colour, images.repeat(3, axis=3)))
    unit = preprocessing_for(dataset_of(images), "unit", channels=3)
    assert torch.equal(
        apply(unit, images), apply(preprocessing_for(dataset_of(images), "unit"), images).repeat(1, 3, 1, 1)
    )


def test_the_models_own_size_is_left_alone():
    images = torch.from_numpy(random_images())
    resized = Preprocess(preprocessing_of(6, 4, 3)).resize(images)
    assert resized.dtype == torch.uint8
    assert torch.equal(resized, images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(6, 4), (12, 10)], ids=["own size", "resized"])
def test_memory_is_laid_out_channels_last(size, channels):
    seen = apply(preprocessing_of(*size, channels), random_images(channels=channels))
    assert seen.shape == (5, channels, *size)
    assert seen.is_contiguous(memory_format=torch.channels_last)


def test_it_survives_json():
    preprocessing = Preprocessing((6, 4, 3), (0.1, 0.2, 0.3), (1.0, 0.5, 1 / 3), ("one", "zwölf"))
    written = json.dumps(preprocessing.as_dict())
    again = Preprocessing.from_dict(json.loads(written))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)  # tuples again, not lists


def test_one_that_was_written_when_there_were_images_only_is_read():
    older = {"height": 6, "width": 4, "channels": 1, "mean": [0.1], "deviation": [0.3], "classes": ["one", "two"]}
    assert Preprocessing.from_dict(older) == Preprocessing((6, 4, 1), (0.1,), (0.3,), ("one", "two"))
    assert "height" in older  # which is the caller's


def strokes(count: int = 20, side: int = 12) -> np.ndarray:
    """Draw light bars on dark, uint8 (count, side, side, 1)."""
    images = np.zeros((count, side, side, 1), np.uint8)
    for image in images:
        top, left = np.random.randint(1, 3), np.random.randint(1, side - 3)
        image[top : top + 8, left : left + 2] = 255
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_the_style_of_the_ink_is_that_of_the_training_images(channels):
    images = strokes()
    preprocessing = preprocessing_for(dataset_of(images), "half", size=(24, 24), channels=channels)
    assert preprocessing.ink == measure_ink_style(images)
    assert preprocessing.ink is not None
    assert preprocessing.ink.box == pytest.approx(8 / 12)
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.as_dict())))
    assert again == preprocessing
    assert again.ink == preprocessing.ink
    assert hash(again) == hash(preprocessing)


def test_of_other_images_and_of_models_saved_before_there_is_no_style_of_ink():
    assert preprocessing_for(dataset_of(strokes().repeat(3, axis=3)), "half").ink is None
    assert preprocessing_for(dataset_of(255 - strokes()), "half").ink is None
    saved = preprocessing_for(dataset_of(strokes()), "half").as_dict()
    assert saved.pop("ink")
    assert Preprocessing.from_dict(saved).ink is None


def test_what_it_keeps_is_of_the_dataset():
    preprocessing = preprocessing_for(dataset_of(random_images(channels=1)), "half")
    assert preprocessing == Preprocessing((6, 4, 1), (0.5,), (0.5,), ("thing",))
    assert preprocessing.is_of_images
    assert preprocessing.image_shape == (6, 4, 1)
    assert isinstance(build_preprocess(preprocessing), Preprocess)


# Tables


def table_of(rows: np.ndarray) -> Dataset:
    """Make a table with these rows to train on, and others, far away, to test on."""
    labels = np.zeros(len(rows), np.int64)
    splits = {"train": Split(rows, labels), "test": Split(rows * 100 + 7, labels)}
    save_dataset("rows", ("thing",), splits, "drawn", kind="table")
    return open_dataset("rows")


def random_rows(count: int = 50, features: int = 4) -> np.ndarray:
    return np.random.normal(3, [1, 10, 0.01, 1000][:features], (count, features)).astype(np.float32)


def test_rows_are_standardized_as_by_scikit_learn_from_those_to_train_on():
    rows = random_rows()
    dataset = table_of(rows)
    preprocess = build_preprocess(preprocessing_for(dataset, "dataset"))
    assert isinstance(preprocess, Standardize)
    scaler = StandardScaler().fit(rows.astype(np.float64))
    for split in dataset.splits.values():
        seen = preprocess(as_tensor(split.images))
        assert seen.dtype == torch.float32
        np.testing.assert_allclose(seen, scaler.transform(split.images.astype(np.float64)), rtol=1e-4, atol=1e-4)


def test_rows_are_left_as_they_are_by_unit():
    dataset = table_of(random_rows())
    stored = as_tensor(dataset.splits["train"].images)
    assert torch.equal(build_preprocess(preprocessing_for(dataset, "unit"))(stored), stored)


def test_a_column_of_one_value_is_not_divided_by_zero():
    rows = random_rows()
    rows[:, 1] = 5
    seen = build_preprocess(preprocessing_for(table_of(rows), "dataset"))(as_tensor(rows))
    assert torch.equal(seen[:, 1], torch.zeros(len(rows)))
    assert seen.isfinite().all()


def test_scaling_that_is_for_pixels_is_refused_for_rows():
    with pytest.raises(LoupeError) as refused:
        preprocessing_for(table_of(random_rows()), "half")
    assert str(refused.value) == (
        "scaling is 'half', which is for pixels, but rows is a table. Set scaling to 'unit', which leaves its numbers "
        "as they are, or to 'dataset', which brings each column to mean 0 and deviation 1."
    )


def test_rows_have_no_shape_of_an_image():
    preprocessing = preprocessing_for(table_of(random_rows(features=3)), "unit")
    assert preprocessing == Preprocessing((3,), (0.0,) * 3, (1.0,) * 3, ("thing",))
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.as_dict()))) == preprocessing
    assert not preprocessing.is_of_images
    with pytest.raises(LoupeError, match=r"^This model classifies rows of 3 numbers, not pictures\. Choose a run that"):
        preprocessing.require_images()


def test_every_scaling_of_a_recipe_is_there():
    assert {*SCALINGS, "auto"} == set(FIELDS["scaling"].metadata["choices"])
