import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from engine.errors import LoupeError
from engine.predictions import (
    Predictions,
    confusion_matrix,
    evaluation,
    load_predictions,
    most_confused,
    per_class,
    save_predictions,
    select,
    top,
    wilson_interval,
)

CLASSES = ("ant", "bee", "cat", "dog")


def predictions_of(
    labels: list[int], predicted: list[int], confidence: float = 0.7, split: str = "test", stored_in: str = "test"
) -> Predictions:
    """Make predictions with a certain answer for each image, and the rest shared among the other classes."""
    probabilities = np.full((len(labels), 4), (1 - confidence) / 3, np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return Predictions(split, stored_in, probabilities, np.array(labels), np.arange(len(labels)), CLASSES, "0123")


def random_predictions(count: int = 200) -> Predictions:
    probabilities = np.random.dirichlet(np.full(4, 0.5), count).astype(np.float32)
    labels = np.random.randint(0, 4, count)
    return Predictions("test", "test", probabilities, labels, np.random.permutation(count), CLASSES, "0123")


CASES = {
    "random": random_predictions,
    "no images of a class": lambda: predictions_of([0, 0, 1, 1, 3], [0, 1, 1, 2, 3]),
    "a class never predicted": lambda: predictions_of([0, 1, 2, 3, 3], [0, 1, 2, 2, 0]),
    "a class neither there nor predicted": lambda: predictions_of([0, 1, 1], [1, 1, 0]),
    "all right": lambda: predictions_of([0, 1, 2, 3], [0, 1, 2, 3]),
    "all wrong": lambda: predictions_of([0, 1, 2, 3], [1, 2, 3, 0]),
    "one image": lambda: predictions_of([2], [2]),
    "one image, wrong": lambda: predictions_of([2], [0]),
}


@pytest.fixture(params=CASES)
def predictions(request: pytest.FixtureRequest) -> Predictions:
    return CASES[request.param]()


def test_scores_are_those_of_scikit_learn(predictions):
    labels, predicted = predictions.labels, predictions.probabilities.argmax(axis=1)
    assert predictions.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    # As float64, so that it takes the probabilities as they are.
    shares = predictions.probabilities.astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    assert predictions.loss == pytest.approx(metrics.log_loss(labels, shares, labels=range(4)), rel=1e-5)

    report = metrics.classification_report(
        labels, predicted, labels=range(4), target_names=CLASSES, output_dict=True, zero_division=0
    )
    rows = per_class(predictions)
    assert [row["class"] for row in rows] == list(CLASSES)
    for row in rows:
        theirs = report[row["class"]]
        assert row["precision"] == pytest.approx(theirs["precision"])
        assert row["recall"] == pytest.approx(theirs["recall"])
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["support"] == theirs["support"]


def test_the_confusion_matrix_counts_true_by_predicted(predictions):
    counted = np.zeros((4, 4), int)
    for label, probabilities in zip(predictions.labels, predictions.probabilities, strict=True):
        counted[label, probabilities.argmax()] += 1
    matrix = confusion_matrix(predictions)
    np.testing.assert_array_equal(matrix, counted)
    assert matrix.dtype == np.int64


def test_undefined_scores_are_zero():
    rows = per_class(predictions_of([0, 0, 3], [0, 1, 3]))
    assert rows[1] == {"class": "bee", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert rows[2] == {"class": "cat", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_a_probability_of_zero_for_the_truth_is_a_large_loss_and_not_an_endless_one():
    certain = predictions_of([0, 1], [0, 0], confidence=1.0)
    assert 40 < certain.loss < 50  # half of -log of the least float32 that is normal


@pytest.mark.parametrize(
    ("successes", "count"), [(0, 1), (1, 1), (0, 10), (10, 10), (5, 10), (353, 360), (9876, 10_000), (1, 10**7)]
)
def test_the_interval_is_wilsons(successes, count):
    from scipy.stats import binomtest

    theirs = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, count)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert low >= 0
    assert high <= 1


def test_of_no_images_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_commonest_mistakes_come_first():
    predictions = predictions_of([0, 0, 0, 1, 1, 2, 3, 3], [1, 1, 0, 0, 1, 2, 2, 2])
    assert most_confused(predictions) == [("ant", "bee", 2, 3), ("dog", "cat", 2, 2), ("bee", "ant", 1, 2)]
    assert most_confused(predictions, most=1) == [("ant", "bee", 2, 3)]
    assert most_confused(CASES["all right"]()) == []


def test_selected_images_are_mistakes_first_and_the_most_confident_first():
    predictions = random_predictions()
    chosen = select(predictions).tolist()
    assert sorted(chosen) == list(range(200))
    keys = [(predictions.right[image], -predictions.confidence[image]) for image in chosen]
    assert keys == sorted(keys)
    assert 0 < predictions.right.sum() < 200


@pytest.mark.parametrize("true", [None, "bee"])
@pytest.mark.parametrize("predicted", [None, "dog"])
@pytest.mark.parametrize("right", [None, True, False])
def test_selected_images_fit(true, predicted, right):
    predictions = random_predictions()
    answers = predictions.probabilities.argmax(axis=1)
    fitting = {
        image
        for image, (label, answer) in enumerate(zip(predictions.labels, answers, strict=True))
        if (true is None or CLASSES[label] == true)
        and (predicted is None or CLASSES[answer] == predicted)
        and (right is None or (label == answer) == right)
    }
    chosen = select(predictions, true=true, predicted=predicted, right=right)
    assert set(chosen.tolist()) == fitting
    assert len(chosen) == len(fitting)
    # Nothing is both of one class, taken for another, and right.
    assert bool(fitting) != (true is not None and predicted is not None and right is True)


def test_the_most_probable_classes_come_first():
    probabilities = np.array([0.1, 0.6, 0.05, 0.25], np.float32)
    assert top(probabilities, CLASSES, 2) == [
        {"label": "bee", "confidence": pytest.approx(0.6)},
        {"label": "dog", "confidence": pytest.approx(0.25)},
    ]
    assert [row["label"] for row in top(probabilities, CLASSES)] == ["bee", "dog", "ant", "cat"]


def test_an_evaluation_sums_up(predictions):
    document = evaluation("a-run", predictions)
    right, count = int(predictions.right.sum()), len(predictions)
    assert (document["run"], document["split"], document["count"]) == ("a-run", "test", count)
    assert document["accuracy"] == right / count
    assert document["accuracy_interval"] == list(wilson_interval(right, count))
    assert document["classes"] == list(CLASSES)
    assert sum(map(sum, document["confusion"])) == count
    assert [row["support"] for row in document["per_class"]] == [sum(row) for row in document["confusion"]]


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
    ],
    ids=lambda change: "-".join(f"{name}" for name in change),
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
    assert not trap.sprung

    path.write_bytes(pickle.dumps(trap))
    assert_damaged(path)
    assert not trap.sprung


def test_the_trap_would_spring(trap):
    pickle.loads(pickle.dumps(trap)).close()
    assert trap.sprung
