import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, assert_refused, call
from damage import fail
from processes import folders
from sklearn import metrics

from engine.base.text import format_bytes
from engine.evaluation.predictions import load_predictions, save_predictions
from engine.recipes.recipe import Recipe
from engine.runs.records import Preparing, to_line
from engine.runs.run import Run, create_run


@pytest.fixture(scope="module")
def run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, to which predictions may be added."""
    return Run(shutil.copytree(trained.path, tmp_path_factory.mktemp("runs") / trained.id))


@pytest.fixture(scope="module")
def evaluated(run: Run, digits_data: Path) -> dict[str, Answer]:
    """Each split of the run, evaluated; the predictions of ``train`` are made for it."""
    with folders(digits_data, run.path.parent):
        return {
            "text": call("evaluate", run.id),
            "nope": call("evaluate", run.id, "--split", "nope", "--json"),
        } | {split: call("evaluate", run.id, "--split", split, "--json") for split in ("train", "val", "test")}


@pytest.mark.parametrize(("split", "count"), [("train", 1293), ("val", 144), ("test", 360)])
def test_evaluate_agrees_with_scikit_learn(evaluated: dict[str, Answer], run: Run, split: str, count: int) -> None:
    assert evaluated[split].code == 0
    document = evaluated[split].document
    assert document.keys() == {
        "run",
        "split",
        "count",
        "accuracy",
        "accuracy_interval",
        "top_5_accuracy",
        "balanced_accuracy",
        "majority_baseline",
        "loss",
        "expected_calibration_error",
        "classes",
        "confusion",
        "per_class",
        "averages",
    }
    assert (document["run"], document["split"], document["count"]) == (run.id, split, count)
    assert document["classes"] == list("0123456789")

    predictions = load_predictions(run.predictions(split))
    assert len(predictions) == count
    truth, predicted = predictions.labels, predictions.probabilities.argmax(axis=1)
    assert document["accuracy"] == metrics.accuracy_score(truth, predicted)
    low, high = document["accuracy_interval"]
    assert 0 <= low < document["accuracy"] < high <= 1
    assert document["confusion"] == metrics.confusion_matrix(truth, predicted, labels=range(10)).tolist()
    report = metrics.classification_report(truth, predicted, labels=range(10), output_dict=True, zero_division=0)
    for index, row in enumerate(document["per_class"]):
        expected = report[str(index)]
        assert row == {
            "class": str(index),
            "precision": pytest.approx(expected["precision"]),
            "recall": pytest.approx(expected["recall"]),
            "f1": pytest.approx(expected["f1-score"]),
            "support": expected["support"],
        }


def test_evaluate_agrees_with_training(evaluated: dict[str, Answer], run: Run) -> None:
    for split in ("val", "test"):
        assert evaluated[split].document["accuracy"] == getattr(run.history().ended, f"{split}_accuracy")


def test_evaluate_answers_in_words_and_means_the_test_split(evaluated: dict[str, Answer], run: Run) -> None:
    answer = evaluated["text"]
    assert answer.code == 0
    lines = answer.stdout.splitlines()
    accuracy = run.history().ended.test_accuracy
    assert lines[0].startswith(f"{run.id}, test: {round(accuracy * 360)} of 360 right, accuracy {accuracy:.2%} (")
    assert [line.split()[0] for line in lines[2:]] == list("0123456789")


def test_evaluate_of_a_run_that_is_going_on_is_refused() -> None:
    run = create_run(Recipe())
    run.log.write_text(to_line(Preparing(0, 0)))
    with run.lock():
        assert_refused(call("evaluate", run.id, "--json"), f"The run {run.id} is still going on.")


def test_evaluate_refuses_an_unknown_split(evaluated: dict[str, Answer]) -> None:
    assert_refused(evaluated["nope"], "There is no split 'nope' in this run. Its splits: train, val and test.")


# Comparing


@dataclass(frozen=True)
class Compared:
    first: Run
    second: Run
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def compared(trained: Run, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A run, and one that is the same but for answers that were made worse by hand: what is said of them."""
    folder = tmp_path_factory.mktemp("compared")
    first, second, other, failed = (Run(folder / name) for name in ("first", "second", "other", "failed"))
    for run in (first, second, other, failed):
        shutil.copytree(trained.path, run.path)
    fail(failed)
    answers = load_predictions(first.predictions("test"))
    worse = answers.probabilities.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    save_predictions(replace(answers, probabilities=worse), second.predictions("test"))
    save_predictions(replace(answers, fingerprint="another"), other.predictions("test"))
    with folders(digits_data, folder):
        answers = {
            "json": call("compare", first.id, second.id, "--json"),
            "text": call("compare", first.id, second.id),
            "itself": call("compare", first.id, first.id),
            "val": call("compare", first.id, second.id, "--split", "val", "--json"),
            "another dataset": call("compare", first.id, other.id, "--json"),
            "no split": call("compare", first.id, second.id, "--split", "nope", "--json"),
            "no model": call("compare", first.id, failed.id, "--json"),
        }
        return Compared(first, second, answers)


@pytest.mark.slow
def test_compare_answers_image_by_image(compared: Compared) -> None:
    answer = compared.answers["json"]
    assert (answer.code, answer.stderr) == (0, "")
    first, second = (load_predictions(run.predictions("test")) for run in (compared.first, compared.second))
    document = answer.document
    assert list(document) == [
        *("first", "second", "split", "count", "difference", "interval", "p_value", "fixed", "broken"),
    ]
    assert (document["first"], document["second"]) == ("first", "second")
    assert (document["split"], document["count"]) == ("test", 360)
    assert document["fixed"] == first.indices[second.correct & ~first.correct].tolist()
    assert document["broken"] == first.indices[first.correct & ~second.correct].tolist()
    assert len(document["broken"]) > 20
    assert document["difference"] == pytest.approx(second.accuracy - first.accuracy)
    low, high = document["interval"]
    assert low < document["difference"] < high < 0
    assert 0 < document["p_value"] < 0.05


def test_compare_answers_in_words(compared: Compared) -> None:
    first, second = (load_predictions(run.predictions("test")) for run in (compared.first, compared.second))
    fixed, broken = (len(compared.answers["json"].document[name]) for name in ("fixed", "broken"))
    verdict, header, *rows, last = compared.answers["text"].stdout.splitlines()
    assert verdict.startswith(f"second is right on {fixed} image")
    assert f"wrong on {broken} that first gets right" in verdict
    assert header.split() == ["class", "images", "first", "recall", "second", "recall", "points"]
    assert last.startswith(f"fixed: {fixed} image") and last.endswith(f", broken: {broken}")
    recalls = [metrics.recall_score(each.labels, each.predicted, average=None) for each in (first, second)]
    differences = 100 * (recalls[1] - recalls[0])
    assert len(rows) == (differences != 0).sum() > 5
    told = [float(row.split()[-1]) for row in rows]
    assert [abs(points) for points in told] == sorted((abs(points) for points in told), reverse=True)
    for row in rows:
        name, images, *shares, points = row.split()
        assert int(images) == (first.labels == int(name)).sum()
        assert shares == [f"{recall[int(name)]:.2%}" for recall in recalls]
        assert points == f"{differences[int(name)]:+.2f}"


def test_a_run_does_not_differ_from_itself(compared: Compared) -> None:
    answer = compared.answers["itself"]
    assert (answer.code, answer.stderr) == (0, "")
    verdict, last = answer.stdout.splitlines()
    assert verdict.startswith("first is right on the same images as first: no difference on 360 images (")
    assert last == "fixed: 0 images, broken: 0"


def test_compare_takes_another_split(compared: Compared) -> None:
    document = compared.answers["val"].document
    assert (document["split"], document["count"], document["fixed"], document["broken"]) == ("val", 144, [], [])


def test_what_cannot_be_compared_is_refused_in_one_line(compared: Compared) -> None:
    for name, reason in (
        ("another dataset", "The two runs were evaluated on different datasets, or on different versions of one"),
        ("no split", "There is no split 'nope' in this run. Its splits: train, val and test."),
        ("no model", "The run failed has no weights"),
    ):
        assert_refused(compared.answers[name], reason)


# Reporting


@pytest.fixture(scope="module")
def reported(run: Run, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("reported")
    (folder / "thesis.doc").write_text("years of work")
    (folder / "json.html").write_text("an older one")
    with folders(digits_data, run.path.parent):
        answers = {
            "json": call("report", run.id, str(folder / "json.html"), "--json"),
            "text": call("report", run.id, str(folder / "text.html")),
            "val": call("report", run.id, str(folder / "val.html"), "--split", "val", "--json"),
            "no page": call("report", run.id, str(folder / "thesis.doc"), "--json"),
            "no folder": call("report", run.id, str(folder / "nowhere" / "report.html"), "--json"),
            "a folder": call("report", run.id, str(folder), "--json"),
            "no split": call("report", run.id, str(folder / "nope.html"), "--split", "nope", "--json"),
        }
    with folders(folder / "data", run.path.parent):
        answers["no dataset"] = call("report", run.id, str(folder / "no-dataset.html"))
        return folder, answers


@pytest.mark.slow
def test_report_writes_one_page(reported: tuple[Path, dict[str, Answer]], run: Run) -> None:
    folder, answers = reported
    assert (answers["json"].code, answers["json"].stderr) == (0, "")
    path = folder / "json.html"
    size = path.stat().st_size
    assert answers["json"].document == {"run": run.id, "split": "test", "file": str(path), "bytes": size}
    right = int(load_predictions(run.predictions("test")).correct.sum())
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert f"{right} of 360 images right" in page
    assert page.count('src="data:image/png;base64,') >= 24
    assert (folder / "text.html").read_text() == page
    assert answers["text"].stdout == f"{run.id}, test: written to {folder / 'text.html'} ({format_bytes(size)})\n"


@pytest.mark.slow
def test_report_takes_another_split(reported: tuple[Path, dict[str, Answer]]) -> None:
    folder, answers = reported
    assert answers["val"].document["split"] == "val"
    assert "144 validation images" in (folder / "val.html").read_text()


@pytest.mark.slow
def test_report_does_without_the_dataset(reported: tuple[Path, dict[str, Answer]]) -> None:
    folder, answers = reported
    assert answers["no dataset"].code == 0
    page = (folder / "no-dataset.html").read_text()
    assert "The dataset digits was not there when this was written" in page
    assert "<img" not in page


@pytest.mark.slow
def test_what_cannot_be_reported_is_refused_in_one_line(reported: tuple[Path, dict[str, Answer]]) -> None:
    folder, answers = reported
    for name, reason in (
        ("no page", "only a file whose name ends in .html is written or replaced"),
        ("no folder", f"There is no folder {folder / 'nowhere'} to write the report to"),
        ("a folder", "only a file whose name ends in .html is written or replaced"),
        ("no split", "There is no split 'nope' in this run. Its splits: train, val and test."),
    ):
        assert_refused(answers[name], reason)
    assert (folder / "thesis.doc").read_text() == "years of work"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("json.html", "no-dataset.html", "text.html", "thesis.doc", "val.html"),
    ]
