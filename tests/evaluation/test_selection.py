import numpy as np
import pytest
from answers import CLASSES, predictions_of, random_predictions

from engine.base.errors import LoupeError
from engine.evaluation.selection import ORDERS, in_order, rank, select


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


def test_the_confidence_is_from_the_least_to_the_most_both_included():
    predictions = random_predictions()
    low, high = (float(predictions.confidence[row]) for row in (0, 1))
    low, high = min(low, high), max(low, high)
    chosen = select(predictions, confidence=(low, high)).tolist()
    assert {0, 1} <= set(chosen)
    assert chosen == [row for row in range(200) if low <= predictions.confidence[row] <= high]
    assert 2 <= len(chosen) < 200


def test_the_whole_range_holds_what_float32_rounds_beyond_its_end():
    certain = predictions_of([0, 1], [0, 1], confidence=float(np.nextafter(np.float32(1), np.float32(2))))
    assert certain.confidence[0] > 1
    assert select(certain).tolist() == select(certain, confidence=(0.5, 1.0)).tolist() == [0, 1]


KEYS = {
    "most confident": lambda row: -row.max(),
    "least confident": lambda row: row.max(),
    "smallest margin": lambda row: sorted(row)[-1] - sorted(row)[-2],
}


@pytest.mark.parametrize("order", KEYS)
def test_images_are_in_the_order_that_was_asked_for(order):
    predictions = random_predictions()
    rows = np.arange(0, 200, 2)
    expected = sorted(rows.tolist(), key=lambda row: KEYS[order](predictions.probabilities[row]))
    assert in_order(predictions, rows, order).tolist() == expected


def test_the_highest_loss_is_the_truth_that_was_held_to_be_least_likely():
    predictions = random_predictions()
    order = in_order(predictions, np.arange(200), "highest loss")
    of_truth = predictions.probabilities[order, predictions.labels[order]]
    assert (np.diff(of_truth) >= 0).all()
    assert [rank(predictions, int(row)) for row in order[:3]] == [1, 2, 3]
    assert rank(predictions, int(order[-1])) == 200


def test_of_equal_losses_each_has_the_place_of_the_first():
    predictions = predictions_of([0, 0, 1, 1], [0, 0, 0, 0])
    assert [rank(predictions, row) for row in range(4)] == [3, 3, 1, 1]


@pytest.mark.parametrize("order", ORDERS)
def test_equal_images_stay_in_their_order(order):
    predictions = predictions_of([0] * 50, [0] * 50)
    assert in_order(predictions, np.arange(50), order).tolist() == list(range(50))


def test_a_seed_shuffles_always_alike():
    predictions, rows = random_predictions(), np.arange(50)
    once = in_order(predictions, rows, "random", seed=3).tolist()
    assert once == in_order(predictions, rows, "random", seed=3).tolist()
    assert once != in_order(predictions, rows, "random", seed=4).tolist()
    assert once != rows.tolist()
    assert sorted(once) == rows.tolist()


def test_an_unknown_order_names_those_there_are():
    with pytest.raises(LoupeError, match=r"no order 'prettiest'.*most confident.*random"):
        in_order(random_predictions(), np.arange(3), "prettiest")
