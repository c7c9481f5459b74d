"""The gallery of a run on a table: rows of numbers, as points and as a table."""

import numpy as np
import pytest
from damage import DAMAGE, change_predictions
from screen import click, errors, figure, links, open_page, select_points, select_rows, sheets, table, words

from engine.data.dataset import Split, open_dataset
from engine.evaluation.predictions import Predictions, load_predictions
from engine.inference.classifier import load_classifier
from engine.networks.inference import as_tensor
from engine.runs.run import Run

NUMBERS = ("x1", "x2", "x3", "x4")


@pytest.fixture
def predictions(blobs: Run) -> Predictions:
    return load_predictions(blobs.predictions("test"))


@pytest.fixture
def stored(blobs: Run) -> Split:
    return open_dataset("blobs").splits["test"]


def open_table(run: Run, **choices):
    return open_page("gallery", run=run.id, **{"as": "Table", "show": "all"} | choices)


def principal_components(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    _, _, directions = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    return (rows - train.mean(axis=0)) @ directions[:2].T


def test_a_map_of_the_numbers_comes_first(blobs: Run, predictions: Predictions, stored: Split) -> None:
    app = open_page("gallery", run=blobs.id, show="all")
    wrong = int((~predictions.correct).sum())
    assert f"**{wrong} mistake{'s' * (wrong != 1)}** in 150 test rows." in words(app)
    groups = figure(app, f"map-{blobs.id}")["data"]
    assert [group["name"] for group in groups] == list("012")
    expected = principal_components(open_dataset("blobs").splits["train"].images.astype(np.float64), stored.images)
    for group in groups:
        rows = [said[0] for said in group["customdata"]]
        assert rows == np.flatnonzero(predictions.labels == int(group["name"])).tolist()
        places = np.stack([group["x"], group["y"]], axis=1)
        np.testing.assert_allclose(np.abs(places), np.abs(expected[predictions.indices[rows]]), atol=1e-4)
    assert "of the variance of the training rows." in words(app)
    assert "Draw a box or a loop around points, or click one, to see its rows here." in words(app)
    assert not sheets(app)


@pytest.mark.slow
@pytest.mark.parametrize("places", ["PCA of the features", "t-SNE of the features"])
def test_rows_are_placed_by_their_features_too(blobs: Run, places: str) -> None:
    app = open_page("gallery", run=blobs.id, show="all", places=places)
    if places.startswith("t-SNE"):
        click(app, "Place 150 points by t-SNE")
    assert sum(len(group["x"]) for group in figure(app, f"map-{blobs.id}")["data"]) == 150
    assert ("of the variance of 8 features." in words(app)) == places.startswith("PCA")


@pytest.mark.slow
def test_a_region_is_a_table_of_its_rows(blobs: Run, predictions: Predictions) -> None:
    app = open_page("gallery", run=blobs.id, show="all", sort="least confident")
    select_points(app, f"map-{blobs.id}", range(10))
    expected = np.argsort(predictions.confidence[:10], kind="stable")
    assert table(app)["Row"].tolist() == predictions.indices[expected].tolist()
    select_rows(app, 3)
    assert app.query_params["image"] == str(expected[3])


def test_rows_are_a_table_with_their_numbers(blobs: Run, predictions: Predictions, stored: Split) -> None:
    app = open_table(blobs, sort="highest loss")
    shown = table(app)
    assert shown.columns.tolist() == ["", "True class", "Predicted class", "Confidence", *NUMBERS, "Row"]
    assert shown["Row"].tolist() == predictions.indices[np.argsort(-predictions.losses, kind="stable")].tolist()
    for row in shown.to_dict("records"):
        np.testing.assert_allclose([row[name] for name in NUMBERS], stored.images[row["Row"]])
        assert row["True class"] == str(stored.labels[row["Row"]])
        assert row["Predicted class"] == str(predictions.probabilities[row["Row"]].argmax())
        assert row[""] == ("✓ right" if row["True class"] == row["Predicted class"] else "✗ wrong")
    assert (
        "x1 to x4: the numbers of the row. Confidence: the probability of the predicted class. Row: its place in the "
        "test split. Click the box before a row to look into it."
    ) in words(app)
    assert not sheets(app)


def test_the_table_is_filtered(blobs: Run, predictions: Predictions) -> None:
    filtered = table(open_table(blobs, true="2"))
    assert filtered["Row"].isin(predictions.indices[predictions.labels == 2]).all()
    assert len(filtered) == (predictions.labels == 2).sum()
    wrong = table(open_table(blobs, show="mistakes"))
    assert sorted(wrong["Row"]) == sorted(predictions.indices[~predictions.correct])


@pytest.mark.slow
def test_a_click_on_a_row_opens_it_and_the_way_back_leads_to_the_table(blobs: Run, predictions: Predictions) -> None:
    app = open_table(blobs, true="1", sort="least confident", confidence=["0.2", "1"])
    place = int(table(app)["Row"][4])
    select_rows(app, 4)
    assert predictions.indices[int(app.query_params["image"])] == place
    fitting = int((predictions.labels == 1).sum())
    assert f"5 of {fitting} rows of true class 1 at a confidence of 0.2 to 1" in words(app)
    click(app, "All of them")
    assert "image" not in app.query_params
    assert len(table(app)) == fitting


def test_a_row_that_does_not_exist_is_told(blobs: Run) -> None:
    app = open_table(blobs, image="150")
    assert errors(app) == [
        "There is no row 150 here: they are numbered from 0 to 149. Shown below are those that the filters choose."
    ]
    assert len(table(app)) == 150


# One row


def test_a_row_is_shown_among_the_training_rows(blobs: Run, predictions: Predictions, stored: Split) -> None:
    app = open_page("gallery", run=blobs.id, image="7", show="all")
    truth = predictions.labels[7]
    train = open_dataset("blobs").splits["train"]
    *groups, star = figure(app, "point")["data"]
    assert [len(group["x"]) for group in groups] == np.bincount(train.labels).tolist()
    here = principal_components(train.images.astype(np.float64), stored.images[[predictions.indices[7]]])[0]
    np.testing.assert_allclose(np.abs([star["x"][0], star["y"][0]]), np.abs(here), atol=1e-4)
    assert star["marker"]["symbol"] == "star"
    assert "The star is this row, the points are the training rows: " in words(app)
    assert f"**{truth}**, :green[:material/check: recognised] with {predictions.confidence[7]:.1%}" in words(app)
    assert "of 150 rows by loss, the highest first." in words(app)
    assert f"Row: **number {predictions.indices[7]} of the test split**" in words(app)


def test_what_each_number_does_to_the_answer_is_told(blobs: Run, predictions: Predictions, stored: Split) -> None:
    """Judged by differences: each number is changed a little, as the model sees it."""
    app = open_page("gallery", run=blobs.id, image="7", show="all")
    effects = next(each.value for each in app.main.dataframe if "Effect" in each.value)
    assert effects["Number"].tolist() == list(NUMBERS)
    numbers = stored.images[predictions.indices[7]]
    np.testing.assert_allclose(effects["Value"], numbers)
    classifier, answer = load_classifier(blobs), int(predictions.predicted[7])
    seen = classifier.preprocess(as_tensor(numbers[np.newaxis])).double()
    model = classifier.model.double()
    try:
        step = 1e-6 * np.eye(4)
        for number in range(4):
            above, below = (model(seen + sign * as_tensor(step[[number]]))[0, answer].item() for sign in (1, -1))
            assert effects["Effect"][number] == pytest.approx((above - below) / 2e-6, rel=1e-3, abs=1e-5)
    finally:
        model.float()


def test_the_nearest_training_rows_are_a_table(blobs: Run, predictions: Predictions, stored: Split) -> None:
    train = open_dataset("blobs").splits["train"]
    extractor = load_classifier(blobs).extractor
    own = extractor.features(as_tensor(stored.images[predictions.indices[[7]]])).numpy()
    distances = np.linalg.norm(extractor.features(as_tensor(train.images)).numpy() - own, axis=1)
    app = open_page("gallery", run=blobs.id, image="7", show="all")
    nearest = next(each.value for each in app.main.dataframe if "Distance" in each.value)
    assert nearest["Row"].tolist() == np.argsort(distances, kind="stable")[:12].tolist()
    np.testing.assert_allclose(nearest["Distance"], np.sort(distances)[:12], rtol=1e-3)
    for row in nearest.to_dict("records"):
        assert row["Class"] == str(train.labels[row["Row"]])
        np.testing.assert_allclose([row[name] for name in NUMBERS], train.images[row["Row"]])
    assert "Nearest training rows" in words(app)


def test_without_its_model_a_row_has_its_place_and_its_answer(blobs: Run) -> None:
    DAMAGE["no weights"](blobs)
    app = open_page("gallery", run=blobs.id, image="7", show="all")
    (error,) = errors(app)
    assert "has no weights" in error
    assert figure(app, "point")["data"]
    assert figure(app, "probabilities")["data"]
    assert not app.main.dataframe


def test_rows_without_mistakes_are_told(blobs: Run) -> None:
    change_predictions(blobs, lambda predictions: {"labels": predictions.predicted})
    app = open_page("gallery", run=blobs.id)
    assert "**0 mistakes** in 150 test rows." in words(app)
    page, choices = links(app)["See the least sure of all rows"]
    assert len(table(open_page(page, **choices | {"as": "Table"}))) == 150
