"""The view of the Evaluate page that shows what is taken for what."""

import json

import numpy as np
import pytest
from damage import all_right, answering, change_predictions, of_many_classes
from screen import all_links, follow, links, matrix, open_page, pick, pick_cell, sheets, show, tiles, title, words
from sklearn import metrics

from engine.evaluation.predictions import Predictions, load_predictions
from engine.runs.run import Run

COUNTS, SHARES, MISTAKES = "Counts", "Shares of each row", "Mistakes only"


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def counts_of(predictions: Predictions) -> np.ndarray:
    """The confusion matrix, by scikit-learn."""
    labels = range(len(predictions.classes))
    return metrics.confusion_matrix(predictions.labels, predictions.predicted, labels=labels)


def mistakes_of(predictions: Predictions) -> np.ndarray:
    counts = counts_of(predictions)
    return counts - np.diag(np.diag(counts))


# The matrix


def test_the_matrix_is_scikit_learns(finished: Run, predictions: Predictions) -> None:
    counts = counts_of(predictions)
    app = open_page("evaluate", run=finished.id)
    drawn = matrix(app)
    np.testing.assert_array_equal(drawn["counts"], counts)
    np.testing.assert_array_equal(drawn["totals"], np.bincount(predictions.labels))
    np.testing.assert_array_equal(drawn["shades"], np.ceil(100 * np.sqrt(counts / counts.sum(1, keepdims=True))))
    assert drawn["classes"] == list("0123456789")
    assert drawn["order"].tolist() == list(range(10))
    assert (drawn["shares"], drawn["mistakes"], drawn["what"]) == (False, False, "images")
    said = "A cell's shade is its share of the row. Click a cell, or press Enter on it, to see its images."
    assert said in words(app)


@pytest.mark.parametrize("cells", [SHARES, MISTAKES])
def test_what_cells_show_has_an_address(finished: Run, cells: str) -> None:
    app = open_page("evaluate", run=finished.id)
    (mode,) = [each for each in app.main.get("button_group") if each.key == "cells"]
    assert (mode.options, mode.value) == ([COUNTS, SHARES, MISTAKES], COUNTS)
    mode.set_value(cells)
    assert show(app).query_params == {"run": finished.id, "cells": cells}
    chosen, asked = matrix(app), matrix(open_page("evaluate", run=finished.id, cells=cells))
    assert json.dumps(chosen, default=np.ndarray.tolist) == json.dumps(asked, default=np.ndarray.tolist)
    assert (chosen["shares"], chosen["mistakes"]) == (cells == SHARES, cells == MISTAKES)


def test_mistakes_only_leave_the_diagonal_blank_and_spread_their_shades(finished: Run, predictions) -> None:
    shares = mistakes_of(predictions) / np.bincount(predictions.labels)[:, None]
    app = open_page("evaluate", run=finished.id, cells=MISTAKES)
    shades = matrix(app)["shades"]
    assert np.diag(shades).tolist() == 10 * [0]
    assert shades.max() == 100
    assert shades.argmax() == shares.argmax()
    order = np.argsort(shares, axis=None)
    assert (np.diff(shades.ravel()[order]) >= 0).all(), "the larger the share, the darker"
    assert ((shades > 0) == (shares > 0)).all()
    assert "A cell's shade is its share of the row, beside the largest such share." in words(app)


def test_no_mistakes_have_no_shades(finished: Run) -> None:
    change_predictions(finished, all_right)
    assert not matrix(open_page("evaluate", run=finished.id, cells=MISTAKES))["shades"].any()
    assert matrix(open_page("evaluate", run=finished.id))["shades"].tolist() == (100 * np.eye(10)).tolist()


def test_similar_classes_stand_side_by_side_when_asked(finished: Run, predictions: Predictions) -> None:
    """0 is taken for 7, 3 for 9 and 5 for 1, and nothing else for anything."""
    answers, taken = predictions.labels.copy(), {0: 7, 3: 9, 5: 1}
    for true, predicted in taken.items():
        answers[np.flatnonzero(answers == true)[:10]] = predicted
    changed = change_predictions(finished, answering(answers))
    app = open_page("evaluate", run=finished.id)
    app.toggle("similar").set_value(True)
    drawn = matrix(show(app))
    order = drawn["order"].tolist()
    assert sorted(order) == list(range(10))
    assert all(abs(order.index(true) - order.index(predicted)) == 1 for true, predicted in taken.items())
    assert drawn["classes"] == [str(label) for label in order]
    np.testing.assert_array_equal(drawn["counts"], counts_of(changed)[np.ix_(order, order)])
    np.testing.assert_array_equal(drawn["totals"], np.bincount(predictions.labels)[order])
    assert (drawn["shades"] > 0).tolist() == (drawn["counts"] > 0).tolist()


@pytest.mark.slow
def test_the_order_of_the_classes_is_in_the_address(finished: Run) -> None:
    app = open_page("evaluate", run=finished.id)
    app.toggle("similar").set_value(True)
    similar = matrix(show(app))["order"].tolist()
    assert similar != list(range(10))
    assert app.query_params == {"run": finished.id, "similar": "True"}
    assert matrix(open_page("evaluate", run=finished.id, similar="True"))["order"].tolist() == similar
    app.query_params = {"run": finished.id}
    assert matrix(show(app))["order"].tolist() == list(range(10)), "the browser's Back"
    app.toggle("similar").set_value(True)
    show(app)
    app.toggle("similar").set_value(False)
    assert show(app).query_params == {"run": finished.id}
    assert not app.warning


def test_an_order_of_the_classes_that_does_not_exist_is_told(finished: Run) -> None:
    app = open_page("evaluate", run=finished.id, similar="rather")
    told = ["There is no **similar** rather here, so this choice is left out."]
    assert [warning.value for warning in app.warning] == told
    assert matrix(app)["order"].tolist() == list(range(10))


@pytest.mark.parametrize("sort", [False, True])
def test_a_click_on_a_cell_opens_its_images(finished: Run, predictions: Predictions, sort: bool) -> None:
    app = open_page("evaluate", run=finished.id)
    app.toggle("similar").set_value(sort)
    drawn = matrix(show(app))
    off = drawn["counts"] - np.diag(np.diag(drawn["counts"]))
    row, column = np.unravel_index(off.argmax(), off.shape)
    true, predicted = drawn["classes"][row], drawn["classes"][column]
    pick_cell(app, int(row), int(column))
    assert title(app) == "Gallery"
    assert app.query_params == {"run": finished.id, "true": true, "predicted": predicted, "show": "all"}
    fitting = np.flatnonzero((predictions.labels == int(true)) & (predictions.predicted == int(predicted)))
    assert sorted(tile["index"] for tile in tiles(app)) == fitting.tolist()
    count = off.max()
    assert f"1 to {count} of {count} images of true class {true} taken for {predicted}" in words(app)


def test_a_click_on_an_empty_cell_says_that_there_is_nothing(finished: Run, predictions: Predictions) -> None:
    true, predicted = np.argwhere(counts_of(predictions) == 0)[0].tolist()
    app = pick_cell(open_page("evaluate", run=finished.id), true, predicted)
    assert f"There are no images of true class {true} taken for {predicted}." in words(app)


@pytest.mark.slow
def test_many_classes_have_a_matrix_too(finished: Run) -> None:
    changed = change_predictions(finished, of_many_classes)
    app = open_page("evaluate", run=finished.id)
    drawn = matrix(app)
    np.testing.assert_array_equal(drawn["counts"], counts_of(changed))
    assert drawn["classes"] == list(changed.classes)
    assert not drawn["counts"][:, -3:].any()
    app.toggle("similar").set_value(True)
    drawn = matrix(show(app))
    assert sorted(drawn["order"].tolist()) == list(range(47))
    np.testing.assert_array_equal(drawn["counts"], counts_of(changed)[np.ix_(drawn["order"], drawn["order"])])
    row, column = map(int, np.argwhere(drawn["counts"] > 0)[0])
    pick_cell(app, row, column)
    choices = {"true": drawn["classes"][row], "predicted": drawn["classes"][column], "show": "all"}
    assert app.query_params == {"run": finished.id} | choices
    assert f" of {drawn['counts'][row, column]} images of true class {choices['true']} taken for " in words(app)


def test_a_change_of_the_predictions_is_another_version_of_the_matrix(finished: Run) -> None:
    """The component draws again only what has another version."""
    versions = {matrix(open_page("evaluate", run=finished.id, cells=cells))["version"] for cells in (COUNTS, SHARES)}
    change_predictions(finished, all_right)
    versions.add(matrix(open_page("evaluate", run=finished.id))["version"])
    assert len(versions) == 3


# The commonest mistakes


def linked_pairs(app) -> list[tuple[str, str, dict]]:
    return [each for each in all_links(app) if "predicted" in each[2]]


def test_the_pairs_that_are_most_confused_are_linked(finished: Run, predictions: Predictions) -> None:
    mistakes = mistakes_of(predictions)
    app = open_page("evaluate", run=finished.id)
    others = links(app)["Any other pair: choose it in the gallery"]
    assert others == ("gallery", {"run": finished.id, "show": "all"})
    pairs = linked_pairs(app)
    assert len(pairs) == min(5, (mistakes > 0).sum())
    said = [line for line in words(app).splitlines() if " taken for " in line]
    counts = []
    for line, (label, page, choices) in zip(said, pairs, strict=True):
        true, predicted = int(choices["true"]), int(choices["predicted"])
        counts.append(mistakes[true, predicted])
        assert line == f"**{true}** taken for **{predicted}**"
        assert label == f"{mistakes[true, predicted]} of {(predictions.labels == true).sum()} images"
        assert page == "gallery"
        assert choices == {"run": finished.id, "true": str(true), "predicted": str(predicted), "show": "all"}
    assert counts == sorted(mistakes.ravel(), reverse=True)[: len(counts)]


def test_a_pair_shows_its_most_confident_mistakes(finished: Run, predictions: Predictions, digits) -> None:
    app = open_page("evaluate", run=finished.id)
    names = sheets(app)
    assert len(names) == 5
    for name in names:
        true, predicted = int(name[0]), int(name[-1])
        assert name == f"{true} taken for {predicted}"
        fitting = np.flatnonzero((predictions.labels == true) & (predictions.predicted == predicted))
        expected = fitting[np.argsort(-predictions.confidence[fitting], kind="stable")][:5]
        drawn = tiles(app, name)
        assert [tile["index"] for tile in drawn] == expected.tolist()
        assert {(tile["mark"], *tile["lines"]) for tile in drawn} == {("wrong",)}
        for tile in drawn:
            np.testing.assert_array_equal(
                tile["image"], digits.splits["test"].images[predictions.indices[tile["index"]]]
            )


@pytest.mark.slow
def test_a_click_on_an_example_opens_that_image(finished: Run, predictions: Predictions) -> None:
    app = open_page("evaluate", run=finished.id)
    name = sheets(app)[1]
    row = tiles(app, name)[0]["index"]
    pick(app, row, name)
    assert title(app) == "Gallery"
    choices = {"true": name[0], "predicted": name[-1], "show": "all", "image": str(row)}
    assert app.query_params == {"run": finished.id} | choices
    assert f"**{name[0]}**, :orange[:material/close: taken for **{name[-1]}**]" in words(app)
    assert f"1 of {len(tiles(open_page('gallery', run=finished.id, true=name[0], predicted=name[-1])))} " in words(app)


def test_a_run_without_mistakes_is_told(finished: Run, predictions: Predictions) -> None:
    change_predictions(finished, all_right)
    app = open_page("evaluate", run=finished.id)
    assert "No mistakes at all on these images." in [success.value for success in app.success]
    assert "Most confused" not in words(app)
    follow(app, "See the least sure of these images")
    assert [tile["index"] for tile in tiles(app)] == np.argsort(predictions.confidence, kind="stable")[:60].tolist()


def test_pairs_of_rows_have_no_pictures(blobs: Run) -> None:
    app = open_page("evaluate", run=blobs.id)
    assert not sheets(app)
    said = [f"**{choices['true']}** taken for **{choices['predicted']}**" for _, _, choices in linked_pairs(app)]
    assert said
    assert [line for line in words(app).splitlines() if " taken for " in line] == said


def test_without_the_dataset_pairs_have_no_pictures(finished: Run, tmp_path) -> None:
    pairs = linked_pairs(open_page("evaluate", run=finished.id))
    assert len(pairs) == 5
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    app = open_page("evaluate", run=finished.id)
    assert not sheets(app)
    assert linked_pairs(app) == pairs
