"""The view of the Evaluate page from which files are taken away: each is made when it is asked for."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damage import answer_at_random, change_predictions
from picture_files import files_of, import_pictures, pngs, write
from screen import buttons, click, download, errors, open_page, show, words
from sklearn import metrics

from engine.commands.main import main
from engine.data.dataset import Dataset
from engine.evaluation.predictions import Predictions, load_predictions
from engine.export.export_job import find_cached_export
from engine.runs.run import Run

SCRIPT = "Training script"
REPORT, CSV, TEXT, JSON = "Report as HTML", "Predictions as CSV", "Scores as text", "Evaluation as JSON"


@pytest.fixture
def predictions(finished: Run) -> Predictions:
    return load_predictions(finished.predictions("test"))


@pytest.fixture
def imported(finished: Run, tmp_path: Path) -> Dataset:
    """Pictures of one's own, the dataset of the run from now on."""
    names = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in ("cats", "dogs") for n in range(6)]
    dataset = import_pictures("own", write(tmp_path / "pictures", pngs(names, height=8, width=8, channels=1)))
    answer_at_random(finished, dataset)
    return dataset


def take_away(run: Run):
    return open_page("evaluate", run=run.id, look="Take away")


def table(app) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(download(app, CSV)), dtype={"true": str, "predicted": str})


def test_predictions_are_a_line_for_each_image(finished: Run, predictions: Predictions) -> None:
    app = take_away(finished)
    assert "A line for each of the 360 images: " in words(app)
    found = table(app)
    probabilities = [f"probability of {label}" for label in range(10)]
    assert found.columns.tolist() == ["index", "true", "predicted", "right", "confidence", "loss", *probabilities]
    assert found["index"].tolist() == predictions.indices.tolist()
    assert found["true"].tolist() == [str(label) for label in predictions.labels]
    assert found["predicted"].tolist() == [str(label) for label in predictions.probabilities.argmax(1)]
    assert found["right"].tolist() == (found["true"] == found["predicted"]).tolist()
    np.testing.assert_allclose(found[probabilities], predictions.probabilities, rtol=1e-5)
    np.testing.assert_allclose(found["confidence"], predictions.probabilities.max(1), rtol=1e-5)
    of_truth = predictions.probabilities[np.arange(360), predictions.labels]
    np.testing.assert_allclose(found["loss"], -np.log(of_truth.astype(np.float64)), rtol=1e-5)


@pytest.mark.slow
def test_imported_pictures_have_their_file_names(finished: Run, imported: Dataset) -> None:
    found = table(take_away(finished))
    assert found.columns.tolist()[:4] == ["index", "file", "true", "predicted"]
    assert found["file"].tolist() == files_of(imported, "test")
    assert [Path(file).parent.name for file in found["file"]] == found["true"].tolist()


def test_scores_are_scikit_learns_report(finished: Run, predictions: Predictions) -> None:
    expected = metrics.classification_report(predictions.labels, predictions.predicted, digits=4)
    app = take_away(finished)
    assert download(app, TEXT) == expected
    (shown,) = app.main.get("code")
    assert shown.value == expected.rstrip()


def test_the_evaluation_is_that_of_the_command_line(finished: Run, capsys: pytest.CaptureFixture) -> None:
    taken = json.loads(download(take_away(finished), JSON))
    capsys.readouterr()
    main(["evaluate", finished.id, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert taken == {name: printed[name] for name in taken}
    assert taken["confusion"] == printed["confusion"]


def test_the_report_is_of_this_run(finished: Run, predictions: Predictions) -> None:
    report = download(take_away(finished), REPORT)
    assert report.startswith("<!doctype html>")
    assert finished.id in report
    assert f"{predictions.accuracy:.2%}" in report
    assert "data:image/png;base64," in report


@pytest.mark.slow
def test_without_the_dataset_all_but_pictures_and_names_can_be_taken(
    finished: Run, imported: Dataset, tmp_path
) -> None:
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    app = take_away(finished)
    assert "file" not in table(app).columns
    assert "data:image" not in download(app, REPORT)
    assert len(json.loads(download(app, JSON))["classes"]) == 2


def test_what_is_taken_is_of_the_predictions_as_they_are(finished: Run) -> None:
    changed = change_predictions(finished, lambda predictions: {"labels": predictions.predicted})
    app = take_away(finished)
    assert table(app)["true"].tolist() == [str(label) for label in changed.labels]
    assert json.loads(download(app, JSON))["accuracy"] == 1


def test_answers_for_validation_images_can_be_taken_where_there_is_no_test(finished: Run) -> None:
    finished.predictions("test").unlink()
    app = take_away(finished)
    assert [each.label for each in app.main.get("download_button")] == [SCRIPT, REPORT, CSV, TEXT, JSON]
    assert "A line for each of the 144 images" in words(app)
    assert table(app)["index"].tolist() == load_predictions(finished.predictions("val")).indices.tolist()


def test_rows_can_be_taken_away(blobs: Run) -> None:
    predictions = load_predictions(blobs.predictions("test"))
    app = take_away(blobs)
    assert table(app)["predicted"].tolist() == [str(answer) for answer in predictions.predicted]
    assert blobs.id in download(app, REPORT)


# The model


@pytest.mark.processes
def test_a_model_is_exported_proved_and_offered(finished: Run, execute_jobs: Callable[[], None]) -> None:
    app = take_away(finished)
    assert buttons(app) == ["Export as ONNX", "Export as PyTorch"]
    click(app, "Export as ONNX")
    assert not app.error
    assert "Getting ready: this takes some seconds" in words(app)
    # Another who looks sees it too.
    assert buttons(app) == buttons(take_away(finished)) == ["Cancel", "Export as PyTorch"]
    execute_jobs()
    assert buttons(show(app)) == ["Export as PyTorch"]
    kept = find_cached_export(finished, "onnx")
    assert kept
    assert "On 100 test images of digits, and on " in words(app)
    assert "0 of 1" in kept.proof.in_words()
    assert any(each.label.startswith("ONNX, ") for each in app.main.get("download_button"))
    assert buttons(take_away(finished)) == ["Export as PyTorch"]


def test_an_export_can_be_cancelled(finished: Run, execute_jobs: Callable[[], None]) -> None:
    app = click(click(take_away(finished), "Export as ONNX"), "Cancel")
    assert buttons(app) == ["Export as ONNX", "Export as PyTorch"]
    execute_jobs()
    assert find_cached_export(finished, "onnx") is None


def test_why_a_model_cannot_be_exported_is_told(finished: Run, execute_jobs: Callable[[], None]) -> None:
    app = take_away(finished)
    finished.weights.write_bytes(b"damaged")
    click(app, "Export as ONNX")
    execute_jobs()
    (error,) = errors(show(app))
    assert error.startswith(f"weights.safetensors of the run {finished.id} cannot be used")
    assert "Export as ONNX" in buttons(app)


def test_the_training_is_taken_away_as_a_script(finished: Run) -> None:
    script = download(take_away(finished), SCRIPT)
    compile(script, "train.py", "exec")
    assert finished.id in script
    assert "engine" not in script


def test_a_run_without_weights_has_no_model_to_take_away(finished: Run) -> None:
    finished.weights.unlink()
    app = take_away(finished)
    assert "This run has no finished model to take away." in words(app)
    assert not buttons(app)
