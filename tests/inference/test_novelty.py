import json
import shutil
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import assert_sentences
from sklearn.neighbors import NearestNeighbors
from small_networks import own_features
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.inference import novelty
from engine.inference.classifier import find_split, load_classifier
from engine.inference.neighbours import training_rows
from engine.inference.novelty import Novelty, Threshold, open_novelty
from engine.networks.model_file import save_model
from engine.runs.run import Run


def ready(run: Run) -> Novelty:
    """Open the novelty of a run, its features computed."""
    opened = open_novelty(run, load_classifier(run))
    deque(opened.features.fill(opened.rows), maxlen=0)
    return opened


def plain_distances(run: Run, dataset: Dataset, images: np.ndarray) -> np.ndarray:
    """How far some images are from the nearest that a run was trained on, as scikit-learn finds it."""
    classifier = load_classifier(run)
    trained_on = dataset.splits["train"].images[training_rows(run, dataset)]
    search = NearestNeighbors(n_neighbors=1).fit(own_features(classifier, trained_on).astype(np.float64))
    return search.kneighbors(own_features(classifier, images).astype(np.float64))[0][:, 0]


def held_back(run: Run, dataset: Dataset, split: str) -> np.ndarray:
    stored_in, indices = find_split(dataset, run.read_recipe(), split)
    return dataset.splits[stored_in].images[indices.numpy()]


def refusal(run: Run) -> str:
    with pytest.raises(LoupeError) as refused:
        open_novelty(run, load_classifier(run)).threshold()
    assert_sentences(str(refused.value))
    return str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "split", "count"), [(0.1, "val", 144), (0.0, "test", 360)])
@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_the_threshold_is_what_99_of_100_held_back_images_are_within(
    digits: Dataset, model: str, share: float, split: str, count: int
) -> None:
    run, _ = train_run(digits, model=model, validation_share=share, scaling="dataset")
    threshold = ready(run).threshold()
    distances = plain_distances(run, digits, held_back(run, digits, split))
    assert (threshold.split, threshold.count, len(distances)) == (split, count, count)
    assert threshold.distance == pytest.approx(np.quantile(distances, 0.99), rel=1e-4)
    assert 0.98 <= np.mean(distances <= threshold.distance * (1 + 1e-4)) <= 0.995


@pytest.mark.slow
def test_of_many_held_back_images_some_are_looked_at(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "HELD_BACK", 60)
    monkeypatch.setattr(novelty, "BLOCK", 100)  # leaves a part of one
    run, _ = train_run(digits, validation_share=0.0)
    chosen = np.random.default_rng(0).permutation(360)[:60]
    distances = plain_distances(run, digits, held_back(run, digits, "test")[np.sort(chosen)])
    threshold = ready(run).threshold()
    assert (threshold.count, threshold.distance) == (60, pytest.approx(np.quantile(distances, 0.99), rel=1e-4))


@pytest.mark.slow
def test_pictures_are_as_far_as_scikit_learn_finds_them(digits: Dataset) -> None:
    run, _ = train_run(digits, model="convnet")
    opened, pictures = ready(run), digits.splits["test"].images[:10]
    found = [opened.nearest(picture) for picture in pictures]
    np.testing.assert_allclose(
        [each.distance for each in found], plain_distances(run, digits, pictures), rtol=1e-4, atol=1e-5
    )
    row = int(opened.rows[7])
    copy = opened.nearest(digits.splits["train"].images[row].copy())
    assert (copy.index, copy.distance) == (row, 0.0)


@pytest.mark.slow
def test_what_is_unlike_the_training_images_is_beyond_the_threshold(colours: Dataset) -> None:
    run, _ = train_run(colours, model="convnet", learning_rate=0.01, epochs=10)
    opened = ready(run)
    within = [opened.nearest(picture).distance for picture in colours.splits["test"].images]
    white = opened.nearest(np.full((12, 10, 3), 255, np.uint8)).distance
    assert white > opened.threshold().distance
    assert np.mean(np.array(within) > opened.threshold().distance) < 0.2


def test_the_threshold_is_measured_once_and_kept(digits: Dataset) -> None:
    run, _ = train_run(digits)
    opened = ready(run)
    assert opened.is_ready
    measured = opened.threshold()
    path = run.path / "novelty.json"
    assert json.loads(path.read_text()) == asdict(measured)
    path.write_text(json.dumps(asdict(measured) | {"distance": 0.125}))
    again = open_novelty(run, load_classifier(run))
    assert again.threshold().distance == 0.125  # the file's word is taken
    assert sorted(each.name for each in run.path.iterdir()) == [
        "novelty.json",
        "recipe.json",
        "weights.safetensors",
    ]


def test_other_weights_have_a_threshold_of_their_own(digits: Dataset) -> None:
    run, training = train_run(digits, learning_rate=0.01)
    first = ready(run).threshold()
    with torch.no_grad():
        training.model[1].weight.mul_(3)
    save_model(run.weights, training.model.state_dict(), training.recipe, training.preprocessing)
    changed = open_novelty(run, load_classifier(run))
    assert not changed.is_ready  # nor are its features those of before
    second = ready(run).threshold()
    assert second.features != first.features
    distances = plain_distances(run, digits, held_back(run, digits, "val"))
    assert second.distance == pytest.approx(np.quantile(distances, 0.99), rel=1e-4)
    assert second.distance > 1.5 * first.distance


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"distance": 1.0}',
        b'{"distance": "far", "split": "val", "count": 144, "features": "NAME"}',
        b'{"distance": null, "split": "val", "count": 144, "features": "NAME"}',
        b'{"distance": 1.0, "split": "val", "count": 144, "features": "others"}',
        bytes(range(256)),
    ],
    ids=ascii,
)
def test_a_damaged_file_is_measured_anew(digits: Dataset, damage: bytes) -> None:
    run, _ = train_run(digits)
    opened = ready(run)
    measured = opened.threshold()
    (run.path / "novelty.json").write_bytes(damage.replace(b"NAME", measured.features.encode()))
    assert opened.threshold() == measured
    assert Threshold(**json.loads((run.path / "novelty.json").read_text())) == measured


def test_without_features_there_is_no_answer_yet(digits: Dataset) -> None:
    run, _ = train_run(digits)
    opened = open_novelty(run, load_classifier(run))
    assert not opened.is_ready
    with pytest.raises(LoupeError, match="have not been computed yet"):
        opened.nearest(digits.splits["test"].images[0])
    next(opened.features.fill(opened.rows))
    assert not opened.is_ready
    with pytest.raises(LoupeError, match="have not been computed yet"):
        opened.nearest(digits.splits["test"].images[0])
    assert not (run.path / "novelty.json").exists()


def test_a_dataset_that_is_gone_is_said(digits: Dataset) -> None:
    run, _ = train_run(digits)
    shutil.rmtree(digits.folder)
    assert refusal(run) == (
        "The dataset digits is not here any more, so it cannot be told how like its images this is. The answer stands."
    )


def test_a_dataset_that_has_changed_is_said(digits: Dataset, trained: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(trained.path, tmp_path / "runs" / trained.id))
    assert not open_novelty(run, load_classifier(run)).is_ready
    train, test = digits.splits["train"], digits.splits["test"]
    save_dataset("digits", digits.classes, {"train": Split(train.images[:500], train.labels[:500]), "test": test}, "us")
    assert refusal(run) == (
        "The dataset digits has changed since this run was trained, so it cannot be told how like its training images "
        "this is. The answer stands."
    )


def test_a_run_that_held_nothing_back_is_said(make_colours) -> None:
    dataset = make_colours(test=0)
    run, _ = train_run(dataset, validation_share=0.0)
    ready(run)
    assert refusal(run) == "The run held no images back, so it cannot be told what is unlike its training images."


def test_validation_images_come_before_test_images(make_colours) -> None:
    parts = make_colours(train=60, test=30).splits
    save_dataset(
        "parted",
        ("red", "green", "blue"),
        {
            "train": parts["train"],
            "val": Split(parts["test"].images[:12], parts["test"].labels[:12]),
            "test": parts["test"],
        },
        "generated by the tests",
    )
    run, _ = train_run(open_dataset("parted"), validation_share=0.0)
    threshold = ready(run).threshold()
    assert (threshold.split, threshold.count) == ("val", 12)
