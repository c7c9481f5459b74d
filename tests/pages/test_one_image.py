"""One image in the gallery: what was answered, where the evidence is, and which training images are like it."""

import numpy as np
import pytest
from damage import (
    DAMAGE,
    all_right,
    answer_at_random,
    change_dataset,
    change_predictions,
    copy_into_train,
)
from picture_files import files_of, import_pictures, pngs, write
from screen import click, errors, figure, large_images, open_page, pick, pictures, sheets, show, tiles, words

from engine.data.dataset import Dataset, Split
from engine.evaluation.predictions import Predictions, load_predictions
from engine.inference.classifier import find_split, load_classifier
from engine.inference.saliency import overlay, saliency
from engine.runs.run import Run
from ui.contact_sheet import enlarged

NEAREST = "nearest training images"


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def gallery(run: Run, row: int, **choices: str):
    return open_page("gallery", run=run.id, image=str(row), **choices)


def sure(probability: float) -> str:
    return f"{probability:.1%}"


@pytest.mark.slow
def test_the_answer_is_told_with_its_loss_and_rank(finished: Run, predictions: Predictions) -> None:
    losses = -np.log(predictions.probabilities[np.arange(360), predictions.labels].astype(np.float64))
    for row in (int(losses.argmax()), int(losses.argmin()), 7):
        truth, answer = int(predictions.labels[row]), int(predictions.probabilities[row].argmax())
        of_truth = predictions.probabilities[row, truth]
        app = gallery(finished, row, show="all")
        right = ":green[:material/check: recognised]"
        verdict = right if truth == answer else f":orange[:material/close: taken for **{answer}**]"
        said = words(app)
        assert f"**{truth}**, {verdict} with {sure(predictions.probabilities[row].max())}" in said
        assert (
            f"The true class got {sure(of_truth)}: a loss of **{losses[row]:.3g} nats**, rank "
            f"{1 + int((losses > losses[row]).sum())} of 360 images by loss, the highest first."
        ) in said
        assert f"Image: **number {predictions.indices[row]} of the test split**" in said


@pytest.mark.slow
def test_the_bars_are_its_five_most_probable_classes(finished: Run, predictions: Predictions) -> None:
    row = int(np.flatnonzero(~predictions.correct)[0])
    chart = figure(gallery(finished, row), "probabilities")
    (bars,) = chart["data"]
    best = np.argsort(-predictions.probabilities[row], kind="stable")[:5][::-1]
    truth = predictions.labels[row]
    assert bars["y"] == [str(label) for label in best]
    named = {str(label): f"{label} (true)" if label == truth else str(label) for label in best}
    assert chart["layout"]["yaxis"]["labelalias"] == named
    assert bars["x"] == pytest.approx(100 * predictions.probabilities[row, best])


@pytest.mark.slow
def test_an_imported_picture_has_its_file_name(finished: Run, tmp_path) -> None:
    names = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in ("cats", "dogs") for n in range(6)]
    dataset = import_pictures("own", write(tmp_path / "pictures", pngs(names, height=8, width=8, channels=1)))
    answer_at_random(finished, dataset)
    for row, name in enumerate(files_of(dataset, "test")):
        assert f"Image: **{name}**" in words(gallery(finished, row))


# One after the other


@pytest.mark.slow
def test_images_are_stepped_through_in_their_order(finished: Run, predictions: Predictions) -> None:
    wrong = np.flatnonzero(~predictions.correct)
    order = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")].tolist()
    app = gallery(finished, order[0])
    assert app.button("previous").disabled
    assert f"1 of {len(order)} mistakes" in words(app)
    seen = [order[0]]
    for number in range(2, len(order) + 1):
        click(app, "Next")
        assert f"\n{number} of {len(order)} mistakes" in words(app)
        seen.append(int(app.query_params["image"]))
    assert seen == order
    assert app.button("next").disabled
    click(app, "Previous")
    assert app.query_params == {"run": finished.id, "image": str(order[-2])}
    click(app, "All of them")
    assert app.query_params == {"run": finished.id}
    assert [tile["index"] for tile in tiles(app)] == order[:60]


@pytest.mark.slow
def test_the_steps_are_those_of_the_filter(finished: Run, predictions: Predictions) -> None:
    fitting = np.flatnonzero(predictions.labels == 3)
    order = fitting[np.argsort(predictions.confidence[fitting], kind="stable")].tolist()
    app = gallery(finished, order[4], show="all", true="3", sort="least confident")
    assert f"5 of {len(order)} images of true class 3" in words(app)
    assert click(app, "Next").query_params["image"] == str(order[5])


@pytest.mark.slow
def test_an_image_beyond_the_filter_leads_to_its_first(finished: Run, predictions: Predictions) -> None:
    wrong = np.flatnonzero(~predictions.correct)
    app = gallery(finished, int(np.flatnonzero(predictions.correct)[0]))
    assert "not one of the mistakes" in words(app)
    assert app.button("previous").disabled
    assert click(app, "Next").query_params["image"] == str(wrong[predictions.confidence[wrong].argmax()])


def test_where_the_filter_leaves_nothing_an_image_is_shown_all_the_same(finished: Run) -> None:
    change_predictions(finished, all_right)
    app = gallery(finished, 3)
    assert "not one of the mistakes" in words(app)
    assert app.button("previous").disabled and app.button("next").disabled
    assert len(pictures(app)) == 2


def test_another_filter_closes_the_image(finished: Run) -> None:
    app = gallery(finished, 3, show="all")
    app.selectbox("true").select("5")
    show(app)
    assert "image" not in app.query_params
    assert "of true class 5" in words(app)
    assert sheets(app) == ["images of true class 5"]


# Where the evidence is


def test_the_evidence_is_laid_over_the_picture(finished: Run, predictions: Predictions, digits: Dataset) -> None:
    row = int(np.flatnonzero(~predictions.correct)[0])
    stored = digits.splits["test"].images[predictions.indices[row]]
    app = gallery(finished, row)
    picture, evidence = pictures(app)
    large = enlarged(stored, 300).astype(int)
    assert np.abs(picture - large).mean() < 2, "but for what JPEG leaves out"
    assert np.abs(evidence - large).mean() > 10
    app.slider("strength").set_value(0.0)
    _, evidence = pictures(show(app))
    assert evidence.shape == (*large.shape[:2], 3)
    assert np.abs(evidence - large).mean() < 2, "without heat it is the picture"
    assert "Bright where the evidence for the class is: Grad-CAM at the convolution " in words(app)


@pytest.mark.slow
def test_the_evidence_is_for_the_class_that_is_asked_for(finished: Run, predictions: Predictions, digits) -> None:
    row = int(np.flatnonzero(~predictions.correct)[0])
    truth, answer = int(predictions.labels[row]), int(predictions.predicted[row])
    stored = digits.splits["test"].images[predictions.indices[row]]
    app = gallery(finished, row)
    choice = app.selectbox("evidence")
    assert choice.options == [f"the answer: {answer}", f"the true class: {truth}", *"0123456789"]
    app.slider("strength").set_value(1.0)
    drawn = []
    for label, option in ((answer, 0), (truth, 1), (answer, 2 + answer), (truth, 2 + truth)):
        app.selectbox("evidence").select_index(option)
        drawn.append(pictures(show(app))[1].astype(int))
        heat = enlarged(saliency(load_classifier(finished), stored, label).heat, 300)
        assert np.abs(drawn[-1] - overlay(enlarged(stored, 300), heat, 1.0)).mean() < 3, "but for what JPEG leaves out"
    assert np.abs(drawn[0] - drawn[1]).mean() > 5
    assert (drawn[0] == drawn[2]).all()
    assert (drawn[1] == drawn[3]).all()


@pytest.mark.slow
def test_the_evidence_is_found_anew_in_another_dataset(finished: Run, predictions, digits: Dataset) -> None:
    """The same run, the same row, and by now another picture."""
    before = pictures(gallery(finished, 3))[1]
    train, test = digits.splits["train"], digits.splits["test"]
    change_dataset(finished, {"train": train, "test": Split(np.ascontiguousarray(test.images[::-1]), test.labels)})
    picture, evidence = pictures(gallery(finished, 3))
    assert np.abs(picture - enlarged(test.images[-4], 300).astype(int)).mean() < 2
    heat = saliency(load_classifier(finished), test.images[-4], int(predictions.predicted[3])).heat
    expected = overlay(enlarged(test.images[-4], 300), enlarged(heat, 300), 0.6)
    assert np.abs(evidence.astype(int) - expected).mean() < 3
    assert (before != evidence).any()


# Which training images are like it


def test_the_twelve_nearest_training_images_are_shown(finished: Run, predictions: Predictions, digits: Dataset) -> None:
    row = int(np.flatnonzero(~predictions.correct)[0])
    classifier = load_classifier(finished)
    train, test = digits.splits["train"], digits.splits["test"]
    trained_on = np.sort(find_split(digits, finished.read_recipe(), "train")[1].numpy())
    everything = np.concatenate([train.images[trained_on], test.images[predictions.indices[[row]]]])
    features = classifier.extractor.features(classifier_input(everything)).numpy()
    distances = np.linalg.norm(features[:-1] - features[-1], axis=1)
    nearest = np.argsort(distances, kind="stable")[:12]
    app = gallery(finished, row)
    drawn = tiles(app, NEAREST)
    assert [tile["index"] for tile in drawn] == trained_on[nearest].tolist()
    for tile, distance in zip(drawn, distances[nearest], strict=True):
        name = str(train.labels[tile["index"]])
        assert tile["lines"] == [name, f"{distance:.3g}"]
        assert tile["mark"] == ("right" if name == str(predictions.labels[row]) else "wrong")
        np.testing.assert_array_equal(tile["image"], train.images[tile["index"]])
    assert "Of the 1,293 images that it was trained on, those whose 128 features" in words(app)


def classifier_input(images: np.ndarray):
    import torch

    return torch.from_numpy(images)


@pytest.mark.slow
def test_a_click_on_a_training_image_shows_it_large(finished: Run, predictions: Predictions) -> None:
    app = gallery(finished, 3, show="all")
    index = tiles(app, NEAREST)[5]["index"]
    pick(app, index, NEAREST)
    assert len(large_images(app)) == 1
    assert f"Place: **index {index} of the 1437 images in train**" in words(app).replace(",", "")
    assert app.query_params["image"] == "3"


@pytest.mark.slow
def test_an_exact_copy_comes_first_at_a_distance_of_0(finished: Run) -> None:
    """It is put into the training split; of what is held back for validation none is shown."""
    dataset = copy_into_train(finished, np.arange(50))
    trained_on = set(find_split(dataset, finished.read_recipe(), "train")[1].tolist())
    copied = next(row for row in range(50) if row in trained_on)
    held_back = next(row for row in range(50) if row not in trained_on)
    first = tiles(gallery(finished, copied, show="all"), NEAREST)[0]
    assert (first["index"], first["lines"][1]) == (copied, "0")
    assert held_back not in [tile["index"] for tile in tiles(gallery(finished, held_back, show="all"), NEAREST)]


@pytest.mark.parametrize("damage", ["no weights", "damaged weights"])
def test_without_its_model_the_rest_is_shown(finished: Run, predictions: Predictions, damage: str) -> None:
    DAMAGE[damage](finished)
    app = gallery(finished, 3, show="all")
    (error,) = errors(app)
    assert "weights" in error
    assert len(pictures(app)) == 1
    assert not sheets(app)
    assert f"a loss of **{predictions.losses[3]:.3g} nats**" in words(app)
    assert figure(app, "probabilities")["data"]
    assert click(app, "Next").query_params["image"] != "3"
