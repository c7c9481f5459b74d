import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from answers import CASES, CLASSES, predictions_of, random_predictions
from sklearn import metrics

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.evaluation.predictions import (
    Predictions,
    load_predictions,
    save_predictions,
    top,
)


@pytest.fixture(params=CASES)
def predictions(request: pytest.FixtureRequest) -> Predictions:
    return CASES[request.param]()


def test_accuracy_and_loss_are_those_of_scikit_learn(predictions):
    labels, predicted = predictions.labels, predictions.probabilities.argmax(axis=1)
    assert predictions.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    # As float64, so that it takes the probabilities as they are.
    shares = predictions.probabilities.astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    assert predictions.loss == pytest.approx(metrics.log_loss(labels, shares, labels=range(4)), rel=1e-5)
    assert predictions.losses.mean() == predictions.loss
    for row, label in enumerate(labels):
        assert predictions.losses[row] == pytest.approx(metrics.log_loss([label], shares[[row]], labels=range(4)), 1e-5)


def test_the_margin_is_between_the_most_probable_class_and_the_next(predictions):
    for row, margin in zip(predictions.probabilities, predictions.margins, strict=True):
        *_, second, first = sorted(row)
        assert margin == first - second


def test_some_images_keep_what_was_answered_for_them():
    predictions = random_predictions()
    rows = np.array([7, 3, 150])
    some = predictions.subset(rows)
    assert some.labels.tolist() == predictions.labels[rows].tolist()
    assert some.indices.tolist() == predictions.indices[rows].tolist()
    assert some.correct.tolist() == predictions.correct[rows].tolist()
    assert (some.classes, some.split, len(some)) == (predictions.classes, "test", 3)
    assert predictions.subset(predictions.correct).accuracy == 1.0


def test_a_probability_of_zero_for_the_truth_is_a_large_loss_and_not_an_endless_one():
    certain = predictions_of([0, 1], [0, 0], confidence=1.0)
    assert 40 < certain.loss < 50  # half of -log of the least float32 that is normal


def test_the_most_probable_classes_come_first():
    probabilities = np.array([0.1, 0.6, 0.05, 0.25], np.float32)
    assert top(probabilities, CLASSES, 2) == [
        {"label": "bee", "confidence": pytest.approx(0.6)},
        {"label": "dog", "confidence": pytest.approx(0.25)},
    ]
    assert [row["label"] for row in top(probabilities, CLASSES)] == ["bee", "dog", "ant", "cat"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a-run").mkdir()
    return tmp_path / "a-run" / "predictions-test.npz"


def test_what_is_saved_is_what_is_loaded(path):
    saved = random_predictions()
    save_predictions(saved, path)
    loaded = load_predictions(path)
    for name in ("probabilities", "labels", "indices"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert (loaded.split, loaded.stored_in) == ("test", "test")
    assert (loaded.classes, loaded.fingerprint) == (CLASSES, "0123")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("split", "stored_in"), [("test", "test"), ("val", "train"), ("train", "train")])
def test_files_of_before_say_by_their_split_where_the_images_are_stored(path, split, stored_in):
    save_predictions(predictions_of([0, 1], [0, 0], split=split, stored_in="elsewhere"), path)
    with np.load(path) as arrays:
        of_before = {name: value for name, value in arrays.items() if name != "stored_in"}
    np.savez_compressed(path, **of_before)
    assert load_predictions(path).stored_in == stored_in


def test_they_are_of_the_images_and_of_the_labels_of_their_dataset(colours):
    probabilities = np.eye(3, dtype=np.float32)[colours.splits["test"].labels]
    predictions = Predictions(
        split="test",
        stored_in="test",
        probabilities=probabilities,
        labels=colours.splits["test"].labels,
        indices=np.arange(30),
        classes=colours.classes,
        fingerprint=colours.fingerprint,
    )

    def like(name: str, classes: tuple[str, ...], change: Callable[[Split], Split]) -> Dataset:
        save_dataset(name, classes, {name: change(split) for name, split in colours.splits.items()}, "generated")
        return open_dataset(name)

    def retouched(split: Split) -> Split:
        images = split.images.copy()
        images[-1, 0, 0, 0] ^= 1
        return Split(images, split.labels)

    backwards = like("relabelled", colours.classes, lambda split: Split(split.images, split.labels[::-1]))
    assert predictions.match(like("same", colours.classes, lambda split: split))
    assert not predictions.match(like("renamed", ("red", "green", "azure"), lambda split: split))
    assert not predictions.match(backwards)
    assert not predictions.match(like("retouched", colours.classes, retouched))


def refusal(path: Path) -> str:
    with pytest.raises(LoupeError) as refused:
        load_predictions(path)
    message = str(refused.value)
    assert "\n" not in message
    assert "damaged ()" not in message
    return message


def test_where_there_are_none_the_run_is_named(path):
    message = refusal(path)
    assert message.startswith("The run a-run has no predictions-test.npz: it did not get as far as its evaluation.")


def assert_damaged(path: Path) -> None:
    message = refusal(path)
    assert message.startswith("predictions-test.npz of the run a-run is damaged (")
    assert message.endswith("Delete that file and evaluate the run again.")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_told(path, content):
    path.write_bytes(content)
    assert_damaged(path)


def test_wherever_it_is_cut_it_is_told(path):
    save_predictions(random_predictions(20), path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert_damaged(path)


@pytest.mark.slow
def test_wherever_it_is_scratched_it_is_told_or_as_before(path):
    saved = random_predictions(20)
    save_predictions(saved, path)
    content = path.read_bytes()
    told = 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = load_predictions(path)
        except LoupeError:
            told += 1
            assert_damaged(path)
        else:  # a date, or another field of the archive that nobody reads
            np.testing.assert_array_equal(loaded.probabilities, saved.probabilities)
            np.testing.assert_array_equal(loaded.labels, saved.labels)
    assert told > len(content) / 6


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(4, np.int64)},
        {"indices": np.zeros(6, np.int64)},
        {"probabilities": np.zeros((5, 3), np.float32)},
        {"classes": np.array(CLASSES[:3])},
        {"labels": None},
        {"fingerprint": None},
        {"labels": np.array([0.0, 1.0, 2.0, 3.0, 0.0])},
        {"labels": np.array([True, False, True, True, False])},
        {"labels": np.array([[0], [1], [2], [3], [0]])},
        {"indices": np.arange(5.0)},
        {"classes": np.arange(4)},
        {"probabilities": np.full((5, 4), 0.25 + 0j)},
        {"probabilities": np.full((5, 4), 25)},
        {"probabilities": np.full((5, 4), 0.5, np.float32)},
        {"probabilities": np.tile(np.float32([1.5, -0.5, 0, 0]), (5, 1))},
        {"probabilities": np.full((5, 4), np.nan, np.float32)},
    ],
    ids=lambda change: "-".join(f"{name} {getattr(value, 'dtype', '')}" for name, value in change.items()),
)
def test_arrays_that_do_not_fit_together_are_told(path, change):
    whole = predictions_of([0, 1, 2, 3, 0], [0, 1, 2, 3, 0])
    arrays = vars(whole) | change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    assert_damaged(path)


def test_predictions_of_no_images_are_told(path):
    save_predictions(predictions_of([], []), path)
    assert_damaged(path)


@pytest.mark.parametrize("wrapped", [True, False], ids=["array of objects", "bare pickle"])
@pytest.mark.parametrize("member", ["labels", "classes"])
def test_pickles_are_refused_and_not_run(path, trap, member, wrapped):
    save_predictions(random_predictions(3), path)
    array = io.BytesIO()
    np.save(array, np.array([trap] * 3, dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    members[f"{member}.npy"] = array.getvalue() if wrapped else pickle.dumps(trap)
    with zipfile.ZipFile(path, "w") as trapped:
        for name, content in members.items():
            trapped.writestr(name, content)

    assert_damaged(path)
    assert "unsafe" not in refusal(path)  # NumPy would say how to run it
    assert not trap.sprung

    path.write_bytes(pickle.dumps(trap))
    assert_damaged(path)
    assert "unsafe" not in refusal(path)  # NumPy would say how to run it
    assert not trap.sprung


def test_the_trap_would_spring(trap):
    pickle.loads(pickle.dumps(trap)).close()
    assert trap.sprung
