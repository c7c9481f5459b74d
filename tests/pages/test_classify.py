import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damage import DAMAGE, die_at_once, die_in_training, fail
from PIL import Image
from screen import (
    buttons,
    click,
    components,
    download,
    errors,
    figure,
    links,
    open_page,
    select_rows,
    show,
    title,
    words,
)

from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions, load_predictions
from engine.images.pictures import SUFFIXES
from engine.inference.classify_job import find_classification, jobs_root
from engine.runs.run import Run

NO_PICTURE = "This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP or TIFF."
# More are classified in the background.
AT_ONCE = 20
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


def table_of(app) -> pd.DataFrame:
    return app.dataframe[0].value


@pytest.fixture
def end_of_job(execute_jobs: Callable[[], None]) -> Callable:
    """Have the job that a page has started come to its end, and look at the page again."""

    def end(app):
        execute_jobs()
        return show(app)

    return end


def digit_images(digits: Dataset, count: int) -> dict[str, bytes]:
    """Return test images as files, named by what they are."""
    test = digits.splits["test"]
    return {f"{test.labels[row]}_{row}.png": png(test.images[row, ..., 0]) for row in range(count)}


def test_before_a_picture_is_there_it_says_what_will_be_done(finished: Run) -> None:
    app = open_page("classify", run=finished.id)
    assert title(app) == "Classify"
    (uploader,) = app.file_uploader
    assert uploader.accept_multiple_files
    assert {name.removeprefix(".") for name in uploader.allowed_type} == {*SUFFIXES, "heic", "heif", "zip"}
    assert "Each picture is cropped to the middle" in words(app)
    assert links(app) == {"See what the training images look like": ("explore", {"dataset": "digits"})}


# Some pictures


@pytest.mark.slow
def test_pictures_get_the_answers_of_the_evaluation(finished: Run, digits: Dataset, predictions: Predictions) -> None:
    rows = [0, 100, 200]
    images = digits.splits["test"].images[predictions.indices[rows], ..., 0]
    app = upload(finished, {f"no {row}.png": png(image) for row, image in zip(rows, images, strict=True)})
    assert not app.error
    table = table_of(app)
    assert table.file.tolist() == ["no 0.png", "no 100.png", "no 200.png"]
    assert table.label.tolist() == [str(label) for label in predictions.predicted[rows]]
    assert table.confidence.tolist() == pytest.approx(predictions.confidence[rows].tolist(), abs=1e-4)
    assert all(url.startswith("data:image/png;base64,") for url in table.picture)
    for number, row in enumerate(rows):
        select_rows(app, number)
        answers = figure(app, f"top-no {row}.png")["data"][0]
        assert answers["y"][-1] == str(predictions.predicted[row])
        five = np.sort(predictions.probabilities[row])[-5:]
        np.testing.assert_allclose(answers["x"], 100 * five, atol=0.01)
        assert f"### {predictions.predicted[row]}" in words(app)
        assert "As it came: 8\u00a0x\u00a08 pixels" in words(app)
        assert "As the model sees it: 8\u00a0x\u00a08" in words(app)
        assert "Bright where the evidence is" in words(app)


def test_one_picture_needs_no_table(finished: Run, digits: Dataset) -> None:
    app = upload(finished, {"one.png": png(digits.splits["test"].images[0, ..., 0])})
    assert not app.dataframe
    assert len(app.main.get("plotly_chart")) == 1
    assert not app.error


@pytest.mark.slow
def test_names_that_say_what_a_picture_is_give_the_accuracy(finished: Run, digits: Dataset) -> None:
    files = digit_images(digits, 12)
    wrong = {"9_" + name.partition("_")[2]: content for name, content in list(files.items())[:1]}
    app = upload(finished, {**files, **wrong})
    table = table_of(app)
    right = table.right.sum()
    assert table.true.tolist() == [name[0] for name in (*files, *wrong)]
    assert right == (table.true == table.label).sum() < 13
    assert f"**{right} of 13 right** of those whose class is known" in words(app)


@pytest.mark.slow
def test_without_such_names_no_accuracy_is_claimed(finished: Run, digits: Dataset) -> None:
    app = upload(finished, {f"picture {name}": content for name, content in digit_images(digits, 3).items()})
    assert "true" not in table_of(app)
    assert "of those whose class is known" not in words(app)


@pytest.mark.slow
def test_the_answers_can_be_downloaded(finished: Run, digits: Dataset) -> None:
    app = upload(finished, digit_images(digits, 4))
    rows = pd.read_csv(io.StringIO(download(app, "Answers as CSV")), dtype={"label": str, "true": str})
    assert list(rows) == ["file", "label", "confidence", "true", "right"]
    pd.testing.assert_series_equal(rows.label, table_of(app).label.astype(rows.label.dtype))


@pytest.mark.slow
def test_a_large_colour_picture_is_classified(finished: Run) -> None:
    app = upload(finished, {"photograph.png": png(np.full((300, 451, 3), 200, np.uint8))})
    assert not app.error
    assert "As it came: 451\u00a0x\u00a0300 pixels" in words(app)
    assert "As the model sees it: 8\u00a0x\u00a08" in words(app)


@pytest.mark.slow
def test_what_is_no_picture_is_told_and_does_not_stop_the_others(finished: Run, digits: Dataset) -> None:
    good = png(digits.splits["test"].images[0, ..., 0])
    files = {"text.png": b"This is no picture.", "good.png": good, "empty.png": b"", "cut.png": good[:60]}
    app = upload(finished, files)
    table = table_of(app)
    assert table.label.notna().tolist() == [False, True, False, False]
    assert table.error[[0, 2]].tolist() == [NO_PICTURE, EMPTY]
    assert table.error[3].startswith("The picture is damaged or cut short (")
    assert errors(app) == [f"text.png: {NO_PICTURE}"]
    select_rows(app, 1)
    assert not app.error
    assert len(app.main.get("plotly_chart")) == 1


@pytest.mark.slow
def test_the_same_picture_twice_is_shown_twice(finished: Run, digits: Dataset) -> None:
    content = png(digits.splits["test"].images[0, ..., 0])
    app = open_page("classify", run=finished.id)
    app.file_uploader[0].set_value([("same.png", content, "image/png")] * 2)
    assert len(table_of(show(app))) == 2


@pytest.mark.slow
def test_a_name_with_markup_is_shown_as_text(finished: Run, digits: Dataset) -> None:
    name = "<b>**猫**</b> $x$ :material/home: [a](http://b).png"
    app = upload(finished, {name: png(digits.splits["test"].images[0, ..., 0])})
    assert name in words(app)
    assert not app.exception


# Ink


def on_paper(image: np.ndarray) -> np.ndarray:
    """Return a digit as it is on paper: dark on light, large, with wide margins."""
    large = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.BICUBIC))
    paper = np.full((300, 400), 235.0)
    paper[40:200, 190:350] -= large * 0.8
    return paper.astype(np.uint8)


@pytest.mark.slow
def test_ink_on_paper_is_read_and_that_is_said_and_can_be_switched_off(
    finished: Run, digits: Dataset, predictions: Predictions
) -> None:
    test = digits.splits["test"]
    files = {f"{test.labels[row]}_{row}.png": png(on_paper(test.images[row, ..., 0])) for row in range(AT_ONCE)}
    app = upload(finished, files)
    right = table_of(app).right.sum()
    # Images of 8 x 8 pixels are coarse, and the model is one of two epochs.
    assert right >= 0.75 * predictions.correct[:AT_ONCE].sum()
    assert "Read as dark ink on light" in words(app)
    app.toggle(key="ink").set_value(False)
    show(app)
    assert "Read as dark ink on light" not in words(app)
    assert table_of(app).right.sum() < right - 5


def test_a_drawing_is_classified(finished: Run, digits: Dataset) -> None:
    app = open_page("classify", run=finished.id, **{"from": "Draw"})
    assert "Draw one of: 0, 1, 2" in words(app)
    assert components(app, "loupe_drawing_pad")
    assert not app.main.get("plotly_chart")


@pytest.mark.slow
def test_a_model_of_colours_offers_no_drawing(make_colours) -> None:
    from trained_runs import train_run

    run, _ = train_run(make_colours(), model="convnet")
    app = open_page("classify", run=run.id)
    (ways,) = [each for each in app.main.get("button_group") if each.key == "from"]
    assert ways.options == ["Files", "Folder", "Camera", "Test images"]
    assert not app.toggle
    classes = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    app = upload(run, {f"{name}.png": png(np.full((40, 60, 3), colour, np.uint8)) for name, colour in classes.items()})
    assert table_of(app).true.tolist() == list(classes)


# Others' pictures


@pytest.mark.slow
def test_test_images_are_drawn_at_random_and_others_are_drawn(finished: Run, predictions: Predictions) -> None:
    app = open_page("classify", run=finished.id, **{"from": "Test images"})
    first = table_of(app)
    rows = [int(name.split()[-1].replace(",", "")) for name in first.file]
    assert len(set(rows)) == 12
    assert first.label.tolist() == [str(label) for label in predictions.predicted[rows]]
    assert first.true.tolist() == [str(label) for label in predictions.labels[rows]]
    click(app, "Draw others")
    assert app.query_params["draw"] == "1"
    assert table_of(app).file.tolist() != first.file.tolist()
    again = open_page("classify", run=finished.id, **{"from": "Test images"})
    assert table_of(again).file.tolist() == first.file.tolist()


def test_a_model_whose_dataset_is_gone_still_classifies(finished: Run, digits: Dataset, tmp_path: Path) -> None:
    content = png(digits.splits["test"].images[0, ..., 0])
    shutil.rmtree(tmp_path / "data")
    app = upload(finished, {"one.png": content})
    assert not app.error
    assert "The dataset digits is not here any more" in words(app)
    assert len(app.main.get("plotly_chart")) == 1
    gone = open_page("classify", run=finished.id, **{"from": "Test images"})
    assert len(errors(gone)) == 1


# How like the training images


@pytest.mark.slow
def test_it_is_said_whether_a_picture_is_like_the_training_images(finished: Run, digits: Dataset) -> None:
    known = digits.splits["train"].images[0, ..., 0]
    app = upload(finished, {"known.png": png(known)})
    assert "Like what it was trained on. Its features are 0 away" in words(app)
    assert "99% of 144 validation images are within" in words(app)
    strange = np.zeros((8, 8), np.uint8)
    strange[::2, ::2] = 255
    app = upload(finished, {"strange.png": png(strange)})
    (warning,) = app.warning
    assert warning.value.startswith("**Unlike anything in training**")


# Many pictures


@pytest.mark.slow
def test_many_pictures_are_classified_in_the_background(end_of_job: Callable, finished: Run, digits: Dataset) -> None:
    files = digit_images(digits, AT_ONCE + 5)
    app = upload(finished, files)
    assert not app.exception
    job = find_classification(app.query_params["job"])
    assert job.request.run == finished.id
    end_of_job(app)
    assert table_of(app).file.tolist() == list(files)
    assert f"**{AT_ONCE + 5} files**: {AT_ONCE + 5} pictures classified" in words(app)
    expected = load_predictions(finished.predictions("test"))
    assert table_of(app).label.tolist() == [str(label) for label in expected.predicted[: AT_ONCE + 5]]
    select_rows(app, 3)
    assert f"### {expected.predicted[3]}" in words(app)
    click(app, "Classify others")
    assert "job" not in app.query_params
    assert find_classification(job.id) is None
    assert app.file_uploader


@pytest.mark.slow
def test_a_zip_is_classified_with_its_bad_files(end_of_job: Callable, finished: Run, digits: Dataset) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, picture in digit_images(digits, 3).items():
            archive.writestr(f"{name[0]}/{name}", picture)
        archive.writestr("bad.png", b"nothing")
        archive.writestr("notes.txt", b"nothing")
    app = end_of_job(upload(finished, {"some.zip": content.getvalue()}))
    table = table_of(app)
    assert table.error.notna().sum() == 1
    assert table.true.notna().sum() == 3
    assert all(name.startswith("some.zip/") for name in table.file)
    assert "3 pictures classified, and 1 that could not be" in words(app)
    assert "Passed over: 1 other file, no pictures." in words(app)


@pytest.mark.slow
def test_a_folder_of_this_machine_is_classified(
    end_of_job: Callable, finished: Run, digits: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for name, content in digit_images(digits, 3).items():
        (folder / name).write_bytes(content)
    app = open_page("classify", run=finished.id, **{"from": "Folder"})
    app.text_input(key="folder").set_value(f"'{folder}'")
    app = end_of_job(click(app, "Classify"))
    assert table_of(app).file.tolist() == [f"my pictures/{name}" for name in sorted(digit_images(digits, 3))]


@pytest.mark.slow
def test_a_name_that_is_no_text_is_shown_escaped(
    end_of_job: Callable, finished: Run, digits: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(png(digits.splits["test"].images[0, ..., 0]))
    app = open_page("classify", run=finished.id, **{"from": "Folder"})
    app.text_input(key="folder").set_value(str(folder))
    app = end_of_job(click(app, "Classify"))
    assert not app.exception
    assert table_of(app).file.tolist() == ["pictures/caf\\udce9.png"]
    assert "As it came: 8\u00a0x\u00a08 pixels" in words(app)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [("", "No folder was named."), ("/nowhere/at/all", "There is no such file. Check its name and folder.")],
)
def test_a_folder_that_is_not_there_is_told(end_of_job: Callable, finished: Run, typed: str, reason: str) -> None:
    app = open_page("classify", run=finished.id, **{"from": "Folder"})
    app.text_input(key="folder").set_value(typed)
    click(app, "Classify")
    if "job" in app.query_params:
        end_of_job(app)
    assert reason in "".join(errors(app))


@pytest.mark.slow
def test_a_job_of_another_run_is_left_when_that_is_chosen(end_of_job: Callable, finished: Run, digits: Dataset) -> None:
    app = end_of_job(upload(finished, digit_images(digits, AT_ONCE + 1)))
    job = app.query_params["job"]
    other = finished.path.with_name("20200101-000000-other")
    shutil.copytree(finished.path, other)
    again = open_page("classify", run=other.name, job=job)
    assert "job" not in again.query_params
    assert again.file_uploader


@pytest.mark.slow
def test_a_job_that_goes_on_is_kept_in_reach_when_another_run_is_chosen(
    finished: Run, digits: Dataset, execute_jobs: Callable[[], None]
) -> None:
    app = upload(finished, digit_images(digits, AT_ONCE + 1))
    job = app.query_params["job"]
    assert "Counting pictures" in words(app)
    assert buttons(app) == ["Cancel"]
    other = finished.path.with_name("20200101-000000-other")
    shutil.copytree(finished.path, other)
    elsewhere = open_page("classify", run=other.name, job=job)
    assert elsewhere.info[0].value == "Another run is still classifying pictures."
    assert links(elsewhere)["See how far it is, or cancel it"] == ("classify", {"run": finished.id, "job": job})
    assert elsewhere.file_uploader or elsewhere.text_input
    execute_jobs()
    assert "job" not in show(elsewhere).query_params


@pytest.mark.parametrize("job", ["nope", "../..", "..", "a/b", "x" * 300])
def test_a_job_that_is_not_there_is_passed_over(finished: Run, job: str) -> None:
    app = open_page("classify", run=finished.id, job=job)
    assert not app.exception
    assert app.file_uploader
    assert not jobs_root().exists()


# Runs that cannot


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


def test_a_damaged_model_is_told(finished: Run) -> None:
    finished.weights.write_bytes(b"damaged")
    (error,) = errors(open_page("classify", run=finished.id))
    assert error.startswith(f"weights.safetensors of the run {finished.id} cannot be used: it is damaged")
    assert error.endswith("Nothing in it was run. Train the recipe again.")


def test_a_model_from_code_is_refused_and_not_run(finished: Run, trap) -> None:
    finished.weights.write_bytes(pickle.dumps(trap))
    (error,) = errors(open_page("classify", run=finished.id))
    assert "Nothing in it was run." in error
    assert not trap.sprung
