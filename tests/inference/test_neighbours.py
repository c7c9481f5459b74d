import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from small_networks import own_features
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.download import fetch
from engine.inference import neighbours
from engine.inference.classifier import Classifier, find_split, load_classifier
from engine.inference.neighbours import Neighbour, nearest, training_features, training_rows
from engine.networks.features import Features
from engine.networks.models import build_model
from engine.networks.preprocessing import preprocessing_for


def untrained(dataset: Dataset, model: str = "convnet") -> Classifier:
    torch.manual_seed(0)
    network = build_model(model, dataset.sample_shape, len(dataset.classes))
    return Classifier(network, preprocessing_for(dataset, "dataset"))


def filled(classifier: Classifier, dataset: Dataset, rows: np.ndarray) -> Features:
    features = training_features(classifier, dataset)
    assert sum(features.fill(rows)) == len(rows)
    return features


def expect_as_scikit_learn_finds(classifier: Classifier, dataset: Dataset, rows: np.ndarray, most: int) -> None:
    """Compare what is found for some test images; those at distances that rounding cannot tell may change places."""
    features = filled(classifier, dataset, rows)
    train, pictures = dataset.splits["train"], dataset.splits["test"].images[:15]
    search = NearestNeighbors().fit(own_features(classifier, train.images[rows]))
    distances, places = search.kneighbors(own_features(classifier, pictures), most)
    for picture, expected, at in zip(pictures, distances, places, strict=True):
        found = nearest(features, rows, picture, most)
        np.testing.assert_allclose([one.distance for one in found], expected, rtol=1e-4, atol=1e-5)
        agreed = [one.index == rows[place] for one, place in zip(found, at, strict=True)]
        assert np.mean(agreed) > 0.7
        assert len({one.index for one in found}) == most
        assert [one.label for one in found] == train.labels[[one.index for one in found]].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_the_nearest_are_those_that_scikit_learn_finds(digits: Dataset, model: str) -> None:
    run, _ = train_run(digits, model=model, scaling="dataset")
    expect_as_scikit_learn_finds(load_classifier(run), digits, training_rows(run, digits), 12)


def test_the_nearest_rows_of_a_table_are_those_that_scikit_learn_finds() -> None:
    fetch("blobs")
    blobs = open_dataset("blobs")
    expect_as_scikit_learn_finds(untrained(blobs, "mlp"), blobs, np.arange(len(blobs.splits["train"])), 5)


@pytest.mark.parametrize("block_bytes", [1, 128 * 4, 7 * 128 * 4, 90 * 128 * 4])
@pytest.mark.parametrize("rows", [np.arange(90), np.arange(20, 90, 7), np.array([0, 89]), np.array([13])], ids=str)
def test_blocks_of_the_file_leave_nothing_out(
    colours: Dataset, monkeypatch, block_bytes: int, rows: np.ndarray
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    classifier, picture = untrained(colours), colours.splits["test"].images[0]
    features = filled(classifier, colours, rows)
    kept = own_features(classifier, colours.splits["train"].images[rows])
    distances = np.linalg.norm(kept - own_features(classifier, picture[np.newaxis]), axis=1)
    found = nearest(features, rows, picture, most=100)
    assert sorted(one.index for one in found) == rows.tolist()
    np.testing.assert_allclose([one.distance for one in found], np.sort(distances), rtol=1e-4)


def with_copies(dataset: Dataset, copies: list[int]) -> Dataset:
    """Save the dataset with its first test image planted among its training images."""
    train, test = dataset.splits["train"], dataset.splits["test"]
    images = np.array(train.images)
    images[copies] = test.images[0]
    save_dataset("planted", dataset.classes, {"train": Split(images, train.labels), "test": test}, "by the tests")
    return open_dataset("planted")


@pytest.mark.parametrize("copies", [[57], [3, 41, 77], list(range(5, 70))], ids=len)
def test_exact_copies_come_first_at_no_distance(make_colours, copies: list[int]) -> None:
    dataset = with_copies(make_colours(train=700), copies)
    rows = np.arange(700)
    features = filled(untrained(dataset), dataset, rows)
    found = nearest(features, rows, dataset.splits["test"].images[0], most=3 + len(copies))
    labels = dataset.splits["train"].labels
    assert found[: len(copies)] == [Neighbour(index, int(labels[index]), 0.0) for index in copies]
    others = [one.distance for one in found[len(copies) :]]
    assert others == sorted(others)
    assert others[0] > 0


def test_images_that_were_held_back_are_never_among_them(digits: Dataset) -> None:
    run, _ = train_run(digits, validation_share=0.5)
    rows = training_rows(run, digits)
    held_back = set(find_split(digits, run.read_recipe(), "val")[1].tolist())
    assert (len(held_back), len(rows), list(rows)) == (718, 719, sorted(set(range(1437)) - held_back))
    features = training_features(load_classifier(run), digits)
    assert sum(features.fill(np.arange(1437))) == 1437  # all are there, as for another run's sake
    of_held_back = digits.splits["train"].images[sorted(held_back)[:20]]
    for picture in of_held_back:
        found = nearest(features, rows, picture)
        assert len(found) == 12
        assert not {one.index for one in found} & held_back


def test_a_picture_of_another_size_is_seen_as_the_model_sees_it(colours: Dataset) -> None:
    classifier, rows = untrained(colours), np.arange(90)
    features = filled(classifier, colours, rows)
    picture = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    picture.setflags(write=False)  # as Pillow's arrays are, which torch warns about
    given = own_features(classifier, picture[np.newaxis].copy())
    distances = np.linalg.norm(own_features(classifier, colours.splits["train"].images) - given, axis=1)
    found = nearest(features, rows, picture, most=5)
    np.testing.assert_allclose([one.distance for one in found], np.sort(distances)[:5], rtol=1e-4)


def test_features_that_are_not_there_yet_are_told(colours: Dataset) -> None:
    picture, rows = colours.splits["test"].images[0], np.arange(90)
    features = training_features(untrained(colours), colours)
    with pytest.raises(LoupeError, match=r"^The features of 90 training images of 90 have not been computed yet\. "):
        nearest(features, rows, picture)
    assert sum(features.fill(np.arange(89))) == 89
    with pytest.raises(LoupeError, match=r"^The features of 1 training image of 90 have"):
        nearest(features, rows, picture)
    assert len(nearest(features, rows[:89], picture)) == 12


def test_a_network_that_diverged_is_told(colours: Dataset) -> None:
    classifier = untrained(colours)
    with torch.no_grad():
        next(classifier.model.parameters()).fill_(torch.nan)
    features = filled(classifier, colours, np.arange(90))
    with pytest.raises(LoupeError, match="its training has diverged"):
        nearest(features, np.arange(90), colours.splits["test"].images[0])
