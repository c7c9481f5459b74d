import json
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from engine.export.portable import GraphPreprocess, load_portable, metadata_of
from engine.images.ink_style import InkStyle
from engine.images.pictures import FITS
from engine.inference.classifier import load_classifier
from engine.networks.model_file import load_preprocessing
from engine.networks.preprocessing import Preprocess, Preprocessing, middle_box

SIZES = [(1, 1), (1, 50), (50, 1), (2, 3), (8, 8), (9, 8), (16, 16), (45, 57), (333, 222), (3, 1000)]
SHAPES = [(8, 8), (12, 10), (28, 20), (1, 7)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_every_size_are_prepared_as_for_the_run(shape: tuple[int, int], channels: int, fit: str) -> None:
    preprocessing = Preprocessing((*shape, channels), (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), ("a", "b"), fit=fit)
    ours, graph = Preprocess(preprocessing), GraphPreprocess(preprocessing)
    for size in (*SIZES, shape):
        images = torch.randint(0, 256, (2, *size, channels), dtype=torch.uint8)
        torch.testing.assert_close(graph(images), ours(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SHAPES)
def test_the_middle_is_as_large_as_fits(size: tuple[int, int]) -> None:
    tall, wide = size
    for height in (1, 2, 7, 24, 333):
        for width in (1, 3, 20, 28, 222):
            top, left, rows, columns = middle_box(height, width, size)
            half = Fraction(1, 2)
            assert rows == max(1, min(height, floor(Fraction(width * tall, wide) + half)))
            assert columns == max(1, min(width, floor(Fraction(height * wide, tall) + half)))
            assert 0 <= top <= top + rows <= height and abs(height - rows - 2 * top) <= 1
            assert 0 <= left <= left + columns <= width and abs(width - columns - 2 * left) <= 1


@pytest.mark.parametrize("kind", ["grey", "colour", "transferred", "rows"])
def test_it_answers_as_the_run_does(kind: str, run_of) -> None:
    run = run_of(kind)
    shape = load_preprocessing(run.weights).shape
    inputs = torch.randn(5, *shape) if kind == "rows" else torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    (expected,) = load_classifier(run).probabilities(inputs)
    with torch.inference_mode():
        found = load_portable(run)(inputs)
    assert np.ptp(expected, axis=0).max() > 0.01, "answers that tell nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum(dim=1), 1, atol=1e-5)


def test_all_that_is_known_of_a_model_can_be_read_back(run_of) -> None:
    run = run_of("grey")
    preprocessing = load_preprocessing(run.weights)
    assert isinstance(preprocessing.ink, InkStyle)
    metadata = metadata_of(run, preprocessing)
    assert metadata.pop("run") == run.id
    values = {name: json.loads(text) for name, text in metadata.items()}
    assert values["format"] == "1"
    assert Preprocessing.from_dict(values["preprocessing"] | {"classes": values["classes"]}) == preprocessing
