"""The map of the gallery: images placed by what a run's network makes of them."""

import re

import numpy as np
import pytest
from damage import DAMAGE, change_dataset, change_predictions, of_many_classes
from screen import buttons, click, errors, figure, open_page, pick, select_points, sheets, show, table, tiles, words
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from engine.data.dataset import Dataset, Split
from engine.evaluation.predictions import Predictions, load_predictions
from engine.inference.classifier import load_classifier
from engine.networks.inference import as_tensor
from engine.runs.run import Run

TSNE = "t-SNE of the features"
HINT = "Draw a box or a loop around points, or click one, to see its images here."
GREY = "#8A8276"


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def open_map(run: Run, **choices):
    return open_page("gallery", run=run.id, **{"as": "Map"} | choices)


def drawn(app, run: Run) -> list[dict]:
    """The groups of points in colour: their name, look, rows and places."""
    return [
        {
            "name": trace["name"],
            "marker": trace["marker"],
            "rows": [said[0] for said in trace["customdata"]],
            "said": trace["customdata"],
            "places": np.stack([trace["x"], trace["y"]], axis=1),
        }
        for trace in figure(app, f"map-{run.id}")["data"]
        if "customdata" in trace
    ]


def in_grey(app, run: Run) -> int:
    return sum(len(trace["x"]) for trace in figure(app, f"map-{run.id}")["data"] if trace["marker"]["color"] == GREY)


def places_of(app, run: Run) -> np.ndarray:
    """The places of all images that are in colour, by row."""
    groups = drawn(app, run)
    rows = np.concatenate([group["rows"] for group in groups])
    return np.concatenate([group["places"] for group in groups])[np.argsort(rows)]


def choose(app, run: Run, rows):
    """Draw a loop around the points of these rows."""
    return select_points(app, f"map-{run.id}", rows)


def control(app, key: str):
    (found,) = [each for each in app.main.get("button_group") if each.key == key]
    return found


def colour(app, by: str):
    control(app, "colour").set_value(by)
    return show(app)


def features_of(run: Run, images: np.ndarray) -> np.ndarray:
    return load_classifier(run).extractor.features(as_tensor(images)).numpy()


@pytest.mark.slow
def test_all_images_are_placed_by_the_pca_of_their_features(finished: Run, predictions, digits: Dataset) -> None:
    features = features_of(finished, digits.splits["test"].images[predictions.indices])
    fitted = PCA(2).fit(features)
    app = open_map(finished, show="all")
    places = places_of(app, finished)
    assert places.shape == (360, 2)
    expected = fitted.transform(features)
    signs = np.sign((places * expected).sum(axis=0))
    np.testing.assert_allclose(places, signs * expected, atol=1e-3)
    share = fitted.explained_variance_ratio_.sum()
    said = f"Shown: all images. The two directions shown have {share:.0%} of the variance of 128 features."
    assert said in words(app)
    assert in_grey(app, finished) == 0
    assert HINT in words(app)


@pytest.mark.slow
def test_points_have_the_colours_of_their_true_classes(finished: Run, predictions: Predictions) -> None:
    groups = drawn(open_map(finished, show="all"), finished)
    assert [group["name"] for group in groups] == list("0123456789")
    assert len({group["marker"]["color"] for group in groups}) == 10
    for label, group in enumerate(groups):
        assert group["rows"] == np.flatnonzero(predictions.labels == label).tolist()
    row, true, answer, sure = groups[3]["said"][0]
    assert (true, answer) == ("3", str(predictions.predicted[row]))
    assert sure == f"{predictions.confidence[row]:.1%}"


@pytest.mark.slow
def test_points_may_have_the_colours_of_their_answers(finished: Run, predictions: Predictions) -> None:
    for group in drawn(open_map(finished, show="all", colour="Predicted class"), finished):
        assert group["rows"] == np.flatnonzero(predictions.predicted == int(group["name"])).tolist()


def test_points_may_show_what_is_wrong_by_colour_and_symbol(finished: Run, predictions: Predictions) -> None:
    right, wrong = drawn(open_map(finished, show="all", colour="Right or wrong"), finished)
    assert (right["name"], wrong["name"]) == ("right", "wrong")
    assert right["rows"] == np.flatnonzero(predictions.correct).tolist()
    assert wrong["rows"] == np.flatnonzero(~predictions.correct).tolist()
    assert right["marker"]["color"] != wrong["marker"]["color"]
    assert right["marker"]["symbol"] != wrong["marker"]["symbol"]


@pytest.mark.slow
def test_many_classes_are_told_apart_by_colour_and_symbol(finished: Run) -> None:
    change_predictions(finished, of_many_classes)
    groups = drawn(open_map(finished, show="all"), finished)
    assert len({(group["marker"]["color"], group["marker"]["symbol"]) for group in groups}) == 47


@pytest.mark.slow
def test_what_the_filter_leaves_out_is_grey(finished: Run, predictions: Predictions) -> None:
    wrong = np.flatnonzero(~predictions.correct)
    app = open_map(finished)
    assert sorted(row for group in drawn(app, finished) for row in group["rows"]) == wrong.tolist()
    assert in_grey(app, finished) == 360 - len(wrong)
    said = f"Shown: all images. In colour: {len(wrong)} mistakes. In grey: {360 - len(wrong)} others."
    assert said in words(app)
    threes = open_map(finished, show="all", true="3")
    (group,) = drawn(threes, finished)
    assert group["rows"] == np.flatnonzero(predictions.labels == 3).tolist()
    assert f"In colour: {len(group['rows'])} images of true class 3. In grey: " in words(threes)
    np.testing.assert_array_equal(
        group["places"], places_of(open_map(finished, show="all"), finished)[group["rows"]], "where they were"
    )


# A region


@pytest.mark.slow
def test_a_region_shows_its_images_in_the_order_of_the_filter(finished: Run, predictions: Predictions) -> None:
    region = np.flatnonzero(predictions.labels == 6)[:20]
    app = choose(open_map(finished, show="all", sort="highest loss"), finished, region)
    assert HINT not in words(app)
    assert "1 to 20 of 20 images in the region" in words(app)
    expected = region[np.argsort(-predictions.losses[region], kind="stable")]
    assert [tile["index"] for tile in tiles(app)] == expected.tolist()
    row = int(expected[4])
    pick(app, row)
    assert app.query_params["image"] == str(row)
    assert "of 360 images by loss, the highest first." in words(app)


@pytest.mark.slow
def test_a_region_leaves_out_what_the_filter_does(finished: Run, predictions: Predictions) -> None:
    app = choose(open_map(finished, show="all"), finished, range(100))
    assert "1 to 60 of 100 images in the region" in words(app)
    app.selectbox("true").select("3")
    show(app)
    threes = np.flatnonzero(predictions.labels[:100] == 3)
    assert sorted(tile["index"] for tile in tiles(app)) == threes.tolist()
    choose(app, finished, np.flatnonzero(predictions.labels == 4))
    assert not sheets(app)
    assert HINT in words(app)


@pytest.mark.slow
def test_the_way_back_from_an_image_leads_to_the_map(finished: Run, predictions: Predictions) -> None:
    app = open_map(finished, show="all", colour="Right or wrong")
    pick(choose(app, finished, range(5)), 2)
    click(app, "All of them")
    assert [group["name"] for group in drawn(app, finished)] == ["right", "wrong"]
    assert sorted(tile["index"] for tile in tiles(app)) == [0, 1, 2, 3, 4], "the region is what it was"


@pytest.mark.slow
def test_a_region_stays_when_points_are_coloured_otherwise(finished: Run) -> None:
    app = choose(open_map(finished, show="all"), finished, range(5))
    colour(app, "Right or wrong")
    assert [group["name"] for group in drawn(app, finished)] == ["right", "wrong"]
    assert sorted(tile["index"] for tile in tiles(app)) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_region_that_is_cleared_is_gone(finished: Run) -> None:
    app = choose(open_map(finished, show="all"), finished, range(5))
    assert len(tiles(app)) == 5
    choose(app, finished, [])
    assert not sheets(app)
    assert HINT in words(app)


@pytest.mark.slow
def test_a_region_is_cleared_by_its_button_in_other_colours_too(finished: Run) -> None:
    app = open_map(finished, show="all")
    choose(app, finished, range(5))
    colour(app, "Right or wrong")
    assert len(tiles(app)) == 5
    click(app, "Clear the region")
    assert not sheets(app)
    assert HINT in words(app)


@pytest.mark.slow
def test_the_way_back_leads_to_the_page_of_the_region_that_was_open(finished: Run) -> None:
    app = open_map(finished, show="all")
    choose(app, finished, range(100))
    image = tiles(app)[-1]["index"]
    pick(app, image)
    assert app.query_params["image"] == str(image)
    click(app, "All of them")
    assert "1 to 60 of 100 images in the region" in words(app)
    assert image in [tile["index"] for tile in tiles(app)]


@pytest.mark.slow
def test_another_placing_has_a_region_of_its_own(blobs: Run) -> None:
    app = select_points(open_page("gallery", run=blobs.id, show="all"), f"map-{blobs.id}", range(5))
    assert len(table(app)) == 5
    control(app, "places").set_value("PCA of the features")
    show(app)
    assert not app.main.dataframe
    select_points(app, f"map-{blobs.id}", range(7))
    assert len(table(app)) == 7
    control(app, "places").set_value("The numbers themselves")
    assert len(table(show(app))) == 5


@pytest.mark.slow
def test_another_region_begins_at_its_first_page(finished: Run) -> None:
    app = open_map(finished, show="all", page="2")
    choose(app, finished, range(100))
    assert "1 to 60 of 100 images in the region" in words(app)
    assert "page" not in app.query_params


@pytest.mark.slow
def test_how_points_are_placed_and_coloured_is_in_the_address(finished: Run) -> None:
    at_first = {"run": finished.id, "as": "Map", "show": "all"}
    app = open_page("gallery", **at_first)
    colour(app, "Right or wrong")
    assert app.query_params == at_first | {"colour": "Right or wrong"}
    control(app, "places").set_value(TSNE)
    assert show(app).query_params == at_first | {"colour": "Right or wrong", "places": TSNE}
    assert buttons(app) == ["Place 360 points by t-SNE"]
    app.query_params = dict(at_first)
    assert len(drawn(show(app), finished)) == 10, "the browser's Back"
    colour(app, "Predicted class")
    colour(app, "True class")
    assert app.query_params == at_first
    assert not app.warning


@pytest.mark.parametrize(("key", "value"), [("places", "The numbers themselves"), ("colour", "red")])
def test_a_placing_or_colouring_that_does_not_exist_is_told(finished: Run, key: str, value: str) -> None:
    app = open_map(finished, show="all", **{key: value})
    told = [f"There is no **{key}** {value} here, so this choice is left out."]
    assert [warning.value for warning in app.warning] == told
    assert len(drawn(app, finished)) == 10
    assert "of the variance of 128 features." in words(app)


# t-SNE


@pytest.mark.slow
def test_t_sne_is_computed_when_asked_for_and_kept(finished: Run, predictions: Predictions, digits: Dataset) -> None:
    app = open_map(finished, show="all", places=TSNE)
    assert not app.main.get("plotly_chart")
    assert buttons(app) == ["Place 360 points by t-SNE"]
    click(app, "Place 360 points by t-SNE")
    places = places_of(app, finished)
    assert places.shape == (360, 2)
    said = "Near points are alike to the network; distances between far groups mean little in t-SNE."
    assert said in words(app)
    neighbours = NearestNeighbors(n_neighbors=2).fit(places).kneighbors(return_distance=False)[:, 0]
    assert (predictions.labels[neighbours] == predictions.labels).mean() > 0.8, "neighbours are alike"
    again = open_map(finished, show="all", places=TSNE)
    assert not buttons(again)
    np.testing.assert_array_equal(places_of(again, finished), places)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["file", "weights", "dataset"])
def test_t_sne_is_offered_anew_when_what_was_kept_is_of_no_use(finished: Run, digits: Dataset, damage: str) -> None:
    click(open_map(finished, show="all", places=TSNE), "Place 360 points by t-SNE")
    if damage == "file":
        (finished.path / "tsne-test.npz").write_bytes(b"damaged")
    elif damage == "weights":
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(finished.weights, "pt") as file:
            about = file.metadata()
        save_file({name: 1.1 * value for name, value in load_file(finished.weights).items()}, finished.weights, about)
    else:
        train, test = digits.splits["train"], digits.splits["test"]
        change_dataset(finished, {"train": train, "test": Split(255 - test.images, test.labels)})
    assert buttons(open_map(finished, show="all", places=TSNE)) == ["Place 360 points by t-SNE"]


# What is not to be had


@pytest.mark.parametrize("damage", ["no weights", "damaged weights"])
def test_without_its_model_there_is_no_map(finished: Run, damage: str) -> None:
    DAMAGE[damage](finished)
    app = open_map(finished, show="all")
    (error,) = errors(app)
    assert "weights" in error
    assert not app.main.get("plotly_chart")
    assert tiles(open_page("gallery", run=finished.id, show="all")), "the sheet needs none"


@pytest.mark.slow
def test_the_map_is_drawn_anew_when_the_dataset_has_changed(finished: Run, predictions, digits: Dataset) -> None:
    """The same run, its weights unchanged, evaluated again on fewer images."""
    before = places_of(open_map(finished, show="all"), finished)
    test = digits.splits["test"]
    images = 255 - test.images[:300]
    change_dataset(finished, {"train": digits.splits["train"], "test": Split(images, test.labels[:300])})
    fewer = predictions.subset(np.arange(300))
    kept = {name: getattr(fewer, name) for name in ("probabilities", "labels", "indices")}
    change_predictions(finished, lambda _: kept)
    after = places_of(open_map(finished, show="all"), finished)
    assert after.shape == (300, 2)
    assert not np.allclose(after, before[:300])


@pytest.mark.slow
def test_images_held_back_are_placed_too(finished: Run) -> None:
    finished.predictions("test").unlink()
    app = open_map(finished, show="all")
    assert len(places_of(app, finished)) == 144
    assert re.search(r"Shown: all images\. The two directions shown have \d+% of the variance", words(app))
