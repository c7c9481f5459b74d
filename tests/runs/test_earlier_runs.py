"""A dataset and a run, written when there was one fingerprint and failures had no kind: all of it is still of use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.audit.inspection import inspect, load_inspection
from engine.base.progress import run_to_end
from engine.data.dataset import open_dataset, save_dataset
from engine.evaluation.predictions import load_predictions
from engine.evaluation.summary import evaluation
from engine.inference.batch import Pictures, classify_all
from engine.inference.classifier import load_classifier
from engine.networks.features import Features
from engine.runs.archive import archive_run, restore_run
from engine.runs.run import Run, dataset_of, delete_run, list_runs
from engine.training.worker import execute

EARLIER = Path(__file__).resolve().parents[1] / "fixtures" / "earlier"


@pytest.fixture
def earlier(tmp_path: Path) -> Run:
    """A run that was stopped after 3 of 40 epochs, and the 96 + 24 images of its dataset, for this test to change."""
    shutil.copytree(EARLIER / "data", tmp_path / "data")
    shutil.copytree(EARLIER / "runs", tmp_path / "runs")
    (run,) = list_runs()
    return run


def files_of(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name not in ("stop", "lock")}


def assert_it_answers(run: Run, confidences: tuple[float, float]) -> None:
    """It takes a.png for an a and b.png for a b, and is so sure of that."""
    pictures = Pictures([str(EARLIER / "a.png"), str(EARLIER / "b.png")])
    answers = [answer.top[0] for answer in classify_all(load_classifier(run), pictures)]
    assert [answer["label"] for answer in answers] == ["a", "b"]
    assert [answer["confidence"] for answer in answers] == pytest.approx(confidences, abs=1e-4)


def assert_it_goes_on_to_its_end(run: Run) -> None:
    """Of 40 epochs, 30 after the last that was better are too many: so many had been counted by its checkpoint."""
    run.stop_file.unlink(missing_ok=True)
    execute(run)
    history = run.history()
    assert run.status(history) == "finished", run.explain(history)
    assert history.ended.epochs == len(history.epochs) == 36
    assert history.ended.test_accuracy == 1.0
    assert_it_answers(run, (0.9512, 0.8708))


def test_it_is_listed_with_what_it_came_to(earlier):
    history = earlier.history()
    assert earlier.status(history) == "stopped"
    assert len(history.epochs) == history.ended.epochs == 3
    assert (earlier.read_recipe().epochs, earlier.read_recipe().patience) == (40, 30)


def test_its_figures_follow_from_its_predictions(earlier):
    ended = earlier.history().ended
    for split, right, count in (("test", 20, 24), ("val", 8, 10)):
        predictions = load_predictions(earlier.predictions(split))
        assert dataset_of(earlier, predictions).classes == ("a", "b", "c")
        assert evaluation(earlier.id, predictions)["accuracy"] == getattr(ended, f"{split}_accuracy") == right / count
        assert predictions.loss == pytest.approx(getattr(ended, f"{split}_loss"))


def test_it_classifies_pictures(earlier):
    assert_it_answers(earlier, (0.4447, 0.3968))


@pytest.mark.slow
def test_it_is_resumed_to_its_end(earlier):
    assert_it_goes_on_to_its_end(earlier)


@pytest.mark.slow
def test_it_is_archived_and_restored(earlier, tmp_path):
    before = files_of(earlier)
    archived = archive_run(earlier, tmp_path / "run.zip")
    assert archived.left_out == ()
    delete_run(earlier)
    restored = restore_run(archived.path)
    after = files_of(restored)
    assert after.keys() == before.keys()
    # torch.save does not write a checkpoint twice with the same bytes.
    assert {name for name in before if after[name] != before[name]} <= {"checkpoint.pt"}
    assert_it_goes_on_to_its_end(restored)


@pytest.mark.slow
def test_an_archive_of_that_time_is_restored(earlier):
    before = files_of(earlier)
    delete_run(earlier)
    restored = restore_run(EARLIER / "run.zip")
    after = files_of(restored)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} <= {"checkpoint.pt"}
    assert restored.status() == "stopped"
    assert_it_goes_on_to_its_end(restored)


def test_what_was_computed_of_its_images_is_found(earlier):
    dataset = open_dataset("earlier")
    features = Features(dataset, "test", load_classifier(earlier).extractor)
    assert features.missing(np.arange(24)).tolist() == []
    kept = features.open().clone()
    features.there.unlink()
    assert list(features.fill(np.arange(24))) == [24]
    torch.testing.assert_close(features.open(), kept)


def test_a_check_of_that_time_which_told_of_fewer_blank_images_is_made_anew(earlier):
    dataset = open_dataset("earlier")
    assert (dataset.folder / "inspection.json").exists()
    assert load_inspection(dataset) is None
    found = run_to_end(inspect(dataset), lambda progress: None)
    assert (len(found.exact), len(found.near), len(found.odd)) == (0, 5, 0)
    assert load_inspection(dataset) == found


def test_its_dataset_saved_again_has_the_same_fingerprint(earlier):
    dataset = open_dataset("earlier")
    save_dataset("again", dataset.classes, dataset.splits, dataset.source)
    again = open_dataset("again")
    assert again.fingerprint == dataset.fingerprint == earlier.history().started.fingerprint
    assert load_predictions(earlier.predictions("test")).match(again)


def test_its_dataset_opens_where_nothing_can_be_written(earlier, tmp_path):
    folder = tmp_path / "data" / "prepared" / "earlier"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    folder.chmod(0o555)
    try:
        dataset = open_dataset("earlier")
        assert load_predictions(earlier.predictions("test")).match(dataset)
        assert earlier.history().started.fingerprint == dataset.fingerprint
    finally:
        folder.chmod(0o755)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
