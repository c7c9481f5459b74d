import json
import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, open_dataset, save_dataset
from engine.data.download import fetch
from engine.evaluation.predictions import load_predictions
from engine.inference.classifier import Classifier, find_split, gather, load_classifier
from engine.networks.inference import as_tensor
from engine.networks.model_file import save_model
from engine.recipes.recipe import Recipe
from engine.runs.records import Evaluating
from engine.runs.run import Run, create_run


def all_probabilities(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    return np.concatenate(list(classifier.probabilities(images)))


def plain_probabilities(run: Run, images: np.ndarray, model: torch.nn.Module) -> np.ndarray:
    """What the saved weights say, in float32, by a forward pass of the test's own (scaling 0 to 1)."""
    with safe_open(run.weights, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict
    with torch.no_grad():
        logits = model.float().eval()(as_tensor(images).permute(0, 3, 1, 2).float() / 255)
    return logits.softmax(1).numpy()


def mlp(inputs: int, classes: int) -> torch.nn.Module:
    layers = torch.nn.Linear(inputs, 128), torch.nn.ReLU(), torch.nn.Linear(128, classes)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


# Weights on disk


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "convnet"])
def test_weights_come_back_as_they_were_saved(digits: Dataset, model: str) -> None:
    run, training = train_run(digits, model=model, scaling="dataset")
    images = digits.splits["test"].images
    trained = all_probabilities(Classifier(training.model, training.preprocessing), images)
    loaded = load_classifier(run)
    assert loaded.preprocessing == training.preprocessing
    assert loaded.classes == digits.classes
    np.testing.assert_array_equal(all_probabilities(loaded, images), trained)
    assert accuracy_score(digits.splits["test"].labels, trained.argmax(1)) > 0.5


def test_a_loaded_model_is_kept_until_its_file_changes(digits: Dataset) -> None:
    run, training = train_run(digits)
    first = load_classifier(run)
    assert load_classifier(run) is first
    with torch.no_grad():
        training.model[-1].weight.zero_()
    save_model(run.weights, training.model.state_dict(), training.recipe, training.preprocessing)
    os.utime(run.weights, ns=(1, 1))  # two writes may fall into one tick of the file system's clock
    images = digits.splits["test"].images[:5]
    assert not np.array_equal(all_probabilities(load_classifier(run), images), all_probabilities(first, images))


def test_saving_leaves_nothing_beside_the_weights(digits: Dataset) -> None:
    run, _ = train_run(digits)
    assert sorted(path.name for path in run.path.iterdir()) == ["recipe.json", "weights.safetensors"]


def test_a_run_without_weights_is_refused() -> None:
    with pytest.raises(LoupeError, match="has no weights"):
        load_classifier(create_run(Recipe()))


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_code_in_a_file_of_weights_is_not_run(trap, write: Callable) -> None:
    run = create_run(Recipe())
    with run.weights.open("wb") as file:
        write(trap, file)
    with pytest.raises(LoupeError, match="not a file of weights"):
        load_classifier(run)
    assert not trap.sprung
    with run.weights.open("rb") as file:
        (torch.load(file, weights_only=False) if write is torch.save else pickle.load(file)).close()
    assert trap.sprung, "the trap does not work"


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_refused(digits: Dataset, kept: int) -> None:
    run, _ = train_run(digits)
    run.weights.write_bytes(run.weights.read_bytes()[:kept])
    with pytest.raises(LoupeError, match=r"weights\.safetensors of the run .* cannot be used"):
        load_classifier(run)


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "2"},
        {"format": None},
        {"model": "resnet1000"},
        {"model": "convnet"},
        {"model": None},
        {"preprocessing": None},
        {"preprocessing": "{"},
        {"preprocessing": "[]"},
        {"preprocessing": "{}"},
        {"preprocessing": json.dumps({"height": 8, "width": 8})},
        {"preprocessing": json.dumps({"shape": [8, 8], "mean": [0.0], "deviation": [1.0], "classes": list("0123")})},
    ],
    ids=str,
)
def test_weights_with_wrong_metadata_are_refused(digits: Dataset, wrong: dict) -> None:
    run, _ = train_run(digits)
    with safe_open(run.weights, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = {name: value for name, value in (file.metadata() | wrong).items() if value is not None}
    save_file(weights, run.weights, metadata)
    with pytest.raises(LoupeError, match="cannot be used"):
        load_classifier(run)


def test_weights_of_another_shape_are_refused(digits: Dataset) -> None:
    run, training = train_run(digits)
    weights = training.model.state_dict() | {"3.weight": torch.zeros(11, 128)}
    save_model(run.weights, weights, training.recipe, training.preprocessing)
    with pytest.raises(LoupeError, match="size mismatch"):
        load_classifier(run)


# Pictures


def test_a_picture_of_the_models_size_is_classified_as_in_the_dataset(colours: Dataset) -> None:
    run, _ = train_run(colours, model="convnet")
    classifier = load_classifier(run)
    images = colours.splits["test"].images[:8]
    in_the_dataset = all_probabilities(classifier, images)
    for image, expected in zip(images, in_the_dataset, strict=True):
        probabilities, seen = classifier.classify(image)
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        np.testing.assert_array_equal(seen, image)
        np.testing.assert_array_equal(classifier.see(image), image)
        assert probabilities.dtype == np.float32
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "middle"),
    [
        (48, 100, np.s_[:, 30:70]),  # wider than 12 x 10: as high, and 48 * 10 / 12 wide
        (61, 10, np.s_[24:36, :]),
        (24, 20, np.s_[:, :]),
        (6, 5, np.s_[:, :]),
        (1, 1, np.s_[:, :]),
        (1, 500, np.s_[:, 249:250]),
    ],
    ids=str,
)
def test_the_middle_of_a_picture_of_another_shape_is_seen(colours: Dataset, height: int, width: int, middle) -> None:
    classifier = load_classifier(train_run(colours, learning_rate=0.01, epochs=10)[0])
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 2] = 255  # blue around
    picture[middle] = (255, 0, 0)
    probabilities, seen = classifier.classify(picture)
    assert (seen.shape, seen.dtype) == ((12, 10, 3), np.uint8)
    assert (seen == np.array([255, 0, 0])).all()
    assert classifier.classes[probabilities.argmax()] == "red"
    np.testing.assert_allclose(probabilities, classifier.classify(seen)[0], atol=1e-6)


@pytest.fixture
def of_a_table() -> Run:
    fetch("blobs")
    return train_run(open_dataset("blobs"), scaling="dataset", learning_rate=0.01)[0]


def test_a_picture_is_refused_by_a_model_of_rows(of_a_table: Run) -> None:
    classifier = load_classifier(of_a_table)
    for ask in (classifier.classify, classifier.see):
        with pytest.raises(LoupeError) as refused:
            ask(np.zeros((8, 8, 3), np.uint8))
        assert str(refused.value) == (
            "This model classifies rows of 4 numbers, not pictures. Choose a run that was trained on images."
        )


def test_rows_are_classified_as_scikit_learn_scales_them(of_a_table: Run) -> None:
    dataset = open_dataset("blobs")
    rows = dataset.splits["test"].images
    classifier = load_classifier(of_a_table)
    weights = classifier.model.state_dict()
    first, last = ((weights[f"{layer}.weight"].numpy(), weights[f"{layer}.bias"].numpy()) for layer in (0, 2))
    scaled = StandardScaler().fit(dataset.splits["train"].images.astype(np.float64)).transform(rows)
    logits = np.maximum(scaled @ first[0].T + first[1], 0) @ last[0].T + last[1]
    np.testing.assert_allclose(all_probabilities(classifier, rows), softmax(logits, axis=1), atol=1e-5)


def test_weights_saved_when_there_were_images_only_are_loaded(digits: Dataset) -> None:
    run, training = train_run(digits)
    with safe_open(run.weights, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    preprocessing = json.loads(metadata["preprocessing"])
    assert preprocessing.pop("shape") == [8, 8, 1]
    older = preprocessing | {"height": 8, "width": 8, "channels": 1}
    save_file(weights, run.weights, metadata | {"preprocessing": json.dumps(older)})
    assert load_classifier(run).preprocessing == training.preprocessing


def test_a_picture_may_be_read_only(colours: Dataset) -> None:
    classifier = load_classifier(train_run(colours)[0])
    picture = colours.splits["test"].images[0].copy()
    expected, _ = classifier.classify(picture)
    picture.setflags(write=False)  # as Pillow's arrays are, which torch warns about
    np.testing.assert_array_equal(classifier.classify(picture)[0], expected)


def test_what_is_resized_keeps_its_place_and_its_light(colours: Dataset) -> None:
    classifier = load_classifier(train_run(colours)[0])
    small = colours.splits["test"].images[0]
    _, seen = classifier.classify(small.repeat(8, axis=0).repeat(8, axis=1))
    # The filter reaches a little into the neighbours.
    assert np.abs(seen.astype(int) - small).mean() < 20
    assert seen.mean() == pytest.approx(small.mean(), abs=1)
    assert np.corrcoef(seen.ravel(), small.ravel())[0, 1] > 0.95


# Features


@pytest.mark.parametrize("head", ["linear", "hidden"])
def test_the_head_decides_by_the_features_of_the_extractor(colours: Dataset, head: str) -> None:
    classifier = load_classifier(train_run(colours, model="convnet", head=head, precision="bfloat16")[0])
    images = colours.splits["test"].images
    features = classifier.extractor.features(as_tensor(images))
    assert (tuple(features.shape), features.dtype) == ((30, 128), torch.float32)
    assert classifier.extractor.width == 128
    with torch.no_grad():
        answers = classifier.model[-1](features.clone()).softmax(dim=1).numpy()
    np.testing.assert_allclose(answers, all_probabilities(classifier, images), atol=1e-6)
    assert classifier.extractor is classifier.extractor


# Splits


def test_evaluation_is_float32_whatever_the_training_was(digits: Dataset) -> None:
    run, _ = train_run(digits, precision="bfloat16")
    images = digits.splits["test"].images
    probabilities = all_probabilities(load_classifier(run), images)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, plain_probabilities(run, images, mlp(64, 10)), atol=1e-6)


@pytest.mark.parametrize(("split", "count"), [("train", 1293), ("val", 144), ("test", 360)])
def test_gathered_predictions_agree_with_scikit_learn(digits: Dataset, split: str, count: int) -> None:
    run, training = train_run(digits)
    progress = list(gather(load_classifier(run), run, digits, split))
    done = [*list(range(500, count, 500)), count]
    assert progress == [Evaluating(split, so_far, count) for so_far in done]

    predictions = load_predictions(run.predictions(split))
    stored = digits.splits["test" if split == "test" else "train"]
    indices = {"train": training.train_indices, "val": training.val_indices, "test": torch.arange(360)}[split].numpy()
    np.testing.assert_array_equal(predictions.indices, indices)
    np.testing.assert_array_equal(predictions.labels, stored.labels[indices])
    expected = plain_probabilities(run, stored.images[indices], mlp(64, 10))
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    assert predictions.accuracy == accuracy_score(stored.labels[indices], expected.argmax(1))
    normalized = expected / expected.sum(axis=1, keepdims=True, dtype=np.float64)  # float32 is not enough for it
    assert predictions.loss == pytest.approx(log_loss(stored.labels[indices], normalized, labels=range(10)), abs=1e-5)
    assert (predictions.split, predictions.classes) == (split, digits.classes)
    assert predictions.fingerprint == digits.fingerprint


def test_train_and_val_share_no_image(digits: Dataset) -> None:
    chosen = Recipe(validation_share=0.1)
    _, train = find_split(digits, chosen, "train")
    _, val = find_split(digits, chosen, "val")
    assert sorted(train.tolist() + val.tolist()) == list(range(1437))


@pytest.mark.parametrize(
    ("split", "share", "splits"),
    [("nope", 0.1, "train, val and test"), ("", 0.1, "train, val and test"), ("val", 0.0, "train and test")],
)
def test_a_split_that_is_not_there_is_refused(digits: Dataset, split: str, share: float, splits: str) -> None:
    with pytest.raises(LoupeError, match=f"no split {split!r} in this run. Its splits: {splits}"):
        find_split(digits, Recipe(validation_share=share), split)


def test_validation_images_of_a_datasets_own_are_answered_from_where_they_are(make_colours) -> None:
    parts = make_colours(train=60, test=30).splits
    save_dataset("parted", ("red", "green", "blue"), {"train": parts["train"], "val": parts["test"]}, "generated")
    stored_in, indices = find_split(open_dataset("parted"), Recipe(validation_share=0.1), "val")
    assert (stored_in, indices.tolist()) == ("val", list(range(30)))


def test_a_dataset_without_a_test_split_has_none(make_colours) -> None:
    dataset = make_colours(test=0)
    with pytest.raises(LoupeError, match="Its splits: train and val"):
        find_split(dataset, Recipe(validation_share=0.1), "test")


def test_weights_that_diverged_are_refused(digits: Dataset) -> None:
    run, training = train_run(digits)
    weights = {name: torch.full_like(value, torch.nan) for name, value in training.model.state_dict().items()}
    save_model(run.weights, weights, training.recipe, training.preprocessing)
    with pytest.raises(LoupeError, match="diverged"):
        list(gather(load_classifier(run), run, digits, "test"))
    assert not run.predictions("test").exists()


# Ink


def page_of(strokes: np.ndarray) -> np.ndarray:
    """Lay light strokes, (height, width), on a page as a scan has them: dark on light, larger, not in the middle."""
    large = strokes.repeat(10, axis=0).repeat(10, axis=1)
    return np.pad(230 - large // 255 * 200, ((30, 90), (70, 40)), constant_values=230).astype(np.uint8)[..., np.newaxis]


@pytest.mark.slow
def test_pictures_of_ink_are_brought_to_the_form_of_the_training_images(digits: Dataset) -> None:
    classifier = load_classifier(train_run(digits, epochs=20, learning_rate=0.003, scaling="dataset")[0])
    test = digits.splits["test"]
    right = {"as it is": 0, "normalized": 0}
    for image, label in zip(test.images[:60], test.labels[:60], strict=True):
        page = page_of(np.where(image[..., 0] > 100, 255, 0))
        normal, done = classifier.normalize(page)
        assert (normal.shape, normal.dtype) == ((8, 8, 1), np.uint8)
        assert normal.mean() < 128 < normal.max()  # light on dark
        assert done.endswith(".") and done.isprintable()
        for name, picture in (("as it is", page), ("normalized", normal)):
            right[name] += classifier.classify(picture)[0].argmax() == label
    assert right["normalized"] > 2 * right["as it is"]
    assert right["normalized"] > 30


def test_images_in_the_form_of_the_training_images_are_left_as_they_are(digits: Dataset) -> None:
    classifier = load_classifier(train_run(digits)[0])
    assert classifier.preprocessing.ink is not None
    for image in digits.splits["test"].images[:50]:
        normal, done = classifier.normalize(image)
        assert normal is image
        assert done == ""


def test_pictures_for_a_model_of_no_ink_are_left_as_they_are(colours: Dataset) -> None:
    classifier = load_classifier(train_run(colours)[0])
    assert classifier.preprocessing.ink is None
    for picture in (colours.splits["test"].images[0], np.full((90, 80, 3), 255, np.uint8)):
        normal, done = classifier.normalize(picture)
        assert normal is picture
        assert done == ""


def test_a_picture_without_ink_is_said_to_have_none(digits: Dataset) -> None:
    classifier = load_classifier(train_run(digits)[0])
    for height, width, level in ((200, 300, 255), (200, 300, 0), (1, 1, 128), (1, 400, 255), (8, 8, 255)):
        blank = np.full((height, width, 1), level, np.uint8)
        normal, done = classifier.normalize(blank)
        assert normal is blank
        assert done in ("", "No ink was found, so the picture is left as it is.")
        assert classifier.classify(normal)[0].sum() == pytest.approx(1, abs=1e-5)


def test_ink_is_not_read_for_a_model_saved_before_it_was_measured(digits: Dataset) -> None:
    run, _ = train_run(digits)
    with safe_open(run.weights, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    older = {name: value for name, value in json.loads(metadata["preprocessing"]).items() if name != "ink"}
    save_file(weights, run.weights, metadata | {"preprocessing": json.dumps(older)})
    page = page_of(digits.splits["test"].images[0, ..., 0])
    normal, done = load_classifier(run).normalize(page)
    assert (normal is page, done) == (True, "")
