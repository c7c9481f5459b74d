import io
import pickle

import numpy as np
import pytest
from damage import DAMAGE, die_at_once, die_in_training, fail
from PIL import Image
from screen import errors, figure, links, open_page, show, title, words

from engine.dataset import Dataset
from engine.pictures import SUFFIXES
from engine.predictions import Predictions, load_predictions
from engine.runs import Run

NO_PICTURE = "This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP or TIFF."
EMPTY = "The file is empty. Get a whole copy of it."


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def upload(run: Run, files: dict[str, bytes]):
    app = open_page("classify", run=run.id)
    app.file_uploader[0].set_value([(name, content, "image/png") for name, content in files.items()])
    return show(app)


def test_before_a_picture_is_there_it_says_what_will_be_done(finished: Run) -> None:
    app = open_page("classify", run=finished.id)
    assert title(app) == "Classify"
    (uploader,) = app.file_uploader
    assert uploader.accept_multiple_files
    assert {name.removeprefix(".") for name in uploader.allowed_type} == set(SUFFIXES)
    assert "The middle of each picture is cut out" in words(app)
    assert links(app) == {"See what the training images look like": ("explore", {"dataset": "digits"})}


def test_pictures_get_the_answers_of_the_evaluation(finished: Run, digits: Dataset, predictions: Predictions) -> None:
    rows = [0, 100, 200]
    images = digits.splits["test"].images[predictions.indices[rows], ..., 0]
    app = upload(finished, {f"{row}.png": png(image) for row, image in zip(rows, images, strict=True)})
    assert not app.error
    table = app.dataframe[0].value
    assert table.file.tolist() == ["0.png", "100.png", "200.png"]
    assert table.label.tolist() == [str(label) for label in predictions.predicted[rows]]
    assert table.confidence.tolist() == pytest.approx(predictions.confidence[rows].tolist(), abs=1e-4)
    assert table.error.isna().all()
    for number, row in enumerate(rows):
        answers = figure(app, f"top-{row}.png-{number}")["data"][0]
        assert answers["y"][-1] == str(predictions.predicted[row])
        five = np.sort(predictions.probabilities[row])[-5:]
        np.testing.assert_allclose(answers["x"], 100 * five, atol=0.01)
        assert f"### {predictions.predicted[row]}\n" in words(app)
        assert f"{row}.png, 8 x 8 pixels" in words(app)
    assert words(app).count("As the model sees it: 8 x 8 pixels") == 3


def test_one_picture_needs_no_table(finished: Run, digits: Dataset) -> None:
    app = upload(finished, {"one.png": png(digits.splits["test"].images[0, ..., 0])})
    assert not app.dataframe
    assert len(app.main.get("plotly_chart")) == 1
    assert [each.proto.label for each in app.get("download_button")] == ["Answers as CSV"]


def test_a_large_colour_picture_is_classified(finished: Run) -> None:
    app = upload(finished, {"photograph.png": png(np.full((300, 451, 3), 200, np.uint8))})
    assert not app.error
    assert "photograph.png, 451 x 300 pixels" in words(app)
    assert "As the model sees it: 8 x 8 pixels" in words(app)


def test_what_is_no_picture_is_told_and_does_not_stop_the_others(finished: Run, digits: Dataset) -> None:
    good = png(digits.splits["test"].images[0, ..., 0])
    files = {"text.png": b"This is no picture.", "good.png": good, "empty.png": b"", "cut.png": good[:60]}
    app = upload(finished, files)
    assert errors(app)[:2] == [f"text.png: {NO_PICTURE}", f"empty.png: {EMPTY}"]
    assert errors(app)[2].startswith("cut.png: The picture is damaged or cut short (")
    table = app.dataframe[0].value
    assert table.label.notna().tolist() == [False, True, False, False]
    assert table.error[[0, 2]].tolist() == [NO_PICTURE, EMPTY]
    assert table.error.isna().tolist() == [False, True, False, False]
    assert len(app.main.get("plotly_chart")) == 1


def test_the_same_picture_twice_is_shown_twice(finished: Run, digits: Dataset) -> None:
    content = png(digits.splits["test"].images[0, ..., 0])
    app = open_page("classify", run=finished.id)
    app.file_uploader[0].set_value([("same.png", content, "image/png")] * 2)
    assert len(show(app).main.get("plotly_chart")) == 2


def test_many_pictures_are_shown_ten_at_a_time(finished: Run, digits: Dataset) -> None:
    images = digits.splits["test"].images[:23, ..., 0]
    app = upload(finished, {f"{number}.png": png(image) for number, image in enumerate(images)})
    assert len(app.dataframe[0].value) == 23
    assert app.main.pagination[0].num_pages == 3
    assert len(app.main.get("plotly_chart")) == 10
    app.main.pagination[0].select(3)
    show(app)
    assert len(app.main.get("plotly_chart")) == 3
    assert "22.png, 8 x 8 pixels" in words(app)


@pytest.mark.parametrize("damage", [fail, die_at_once, DAMAGE["no weights"]])
def test_a_run_without_a_model_is_told(finished: Run, damage) -> None:
    damage(finished)
    app = open_page("classify", run=finished.id)
    assert app.info[0].value.startswith("This run has no model yet.")
    assert links(app) == {"Watch this run": ("train", {"run": finished.id})}
    assert not app.file_uploader


def test_a_run_on_rows_says_that_it_does_not_take_pictures(blobs: Run) -> None:
    app = open_page("classify", run=blobs.id)
    (info,) = app.info
    assert info.value == (
        "This run classifies rows of numbers, not pictures. Choose a run in the sidebar that was trained on images."
    )
    assert links(app) == {"See the rows that it classified": ("gallery", {"run": blobs.id, "show": "all"})}
    assert not app.file_uploader
    assert not app.error


def test_a_run_that_died_has_the_model_of_its_last_checkpoint(finished: Run, digits: Dataset) -> None:
    die_in_training(finished)
    app = upload(finished, {"one.png": png(digits.splits["test"].images[0, ..., 0])})
    assert not app.error
    assert "confiden" in words(app)


def test_a_damaged_model_is_told(finished: Run, digits: Dataset) -> None:
    finished.weights.write_bytes(b"damaged")
    (error,) = errors(upload(finished, {"one.png": png(digits.splits["test"].images[0, ..., 0])}))
    assert error.startswith(f"weights.safetensors of the run {finished.id} cannot be used: it is damaged")
    assert error.endswith("Nothing in it was run. Train the recipe again.")


def test_a_model_from_code_is_refused_and_not_run(finished: Run, digits: Dataset, trap) -> None:
    finished.weights.write_bytes(pickle.dumps(trap))
    (error,) = errors(upload(finished, {"one.png": png(digits.splits["test"].images[0, ..., 0])}))
    assert "Nothing in it was run." in error
    assert not trap.sprung
