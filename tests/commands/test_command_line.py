import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, assert_refused, begin, command, finish
from processes import ending_its_runs, folders, python
from sklearn import metrics

from engine.base.paths import weights_folder
from engine.base.text import format_bytes
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import open_dataset
from engine.evaluation.predictions import load_predictions, save_predictions
from engine.recipes.backbones import BACKBONES, rank_for_images
from engine.recipes.recipe import MODELS, RECIPES, Recipe, change, published
from engine.runs.records import Preparing, to_line
from engine.runs.run import Run, create_run

TRAIN_KEYS = {
    "run",
    "status",
    "epochs",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "train_seconds",
    "images_per_second",
    "published",
}
FIGURES = TRAIN_KEYS - {"run", "status", "epochs", "published"}
QUICK = ("train", "digits-quick", "--set", "epochs=2", "--set", "threads=1", "--set", "device=cpu")


# Runs from the command line, all under way at once; each has a folder of its own, so that none waits for another


@dataclass(frozen=True)
class Trained:
    folder: Path
    answers: dict[str, Answer]

    def run(self, name: str) -> Run:
        (run,) = [path for path in (self.folder / name).iterdir() if not path.name.startswith(".")]
        return Run(run)


@pytest.fixture(scope="module")
def trained(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("command-line")
    with folders(digits_data, folder), ending_its_runs(digits_data, folder / "interrupted"):
        begun = {}
        for name, arguments in {
            "interrupted": ("--set", "epochs=4", "--json"),
            "json": ("--json",),
            "text": (),
            "failed": ("--set", "model=lenet5", "--json"),
        }.items():
            with folders(digits_data, folder / name):
                begun[name] = begin(*QUICK, *arguments)
        # The command says which run it is as soon as there is one, seconds before the first step.
        assert begun["interrupted"].stderr.readline().startswith("run ")
        os.killpg(begun["interrupted"].pid, signal.SIGINT)  # Ctrl+C, as a terminal does it
        yield Trained(folder, {name: finish(process) for name, process in begun.items()})


@pytest.fixture(scope="module")
def resumed(trained: Trained, digits_data: Path) -> Trained:
    """The run that was interrupted, resumed with --json and without; and those that have finished, made longer."""
    begun = {}
    for name, (before, *arguments) in {
        "resumed-json": ("interrupted", "--json"),
        "resumed-text": ("interrupted",),
        "longer": ("json", "--epochs", "3", "--json"),
        "not longer": ("text", "--epochs", "2", "--json"),
    }.items():
        run = trained.run(before)
        shutil.copytree(run.path, trained.folder / name / run.id)
        with folders(digits_data, trained.folder / name):
            begun[name] = begin("resume", run.id, *arguments)
    return Trained(trained.folder, {name: finish(process) for name, process in begun.items()})


@pytest.fixture
def finished(trained: Trained, digits_data: Path) -> Iterator[Run]:
    """The run that was trained with --json, where commands find it."""
    with folders(digits_data, trained.folder / "json"):
        yield trained.run("json")


def test_train_answers_with_its_figures(trained: Trained) -> None:
    answer, run = trained.answers["json"], trained.run("json")
    assert answer.code == 0
    assert answer.document.keys() == TRAIN_KEYS
    ended = run.history().ended
    assert answer.document == {name: getattr(ended, name) for name in FIGURES} | {
        "run": run.id,
        "status": "finished",
        "epochs": 2,
        "published": None,
    }
    assert ended.test_accuracy > 0.7
    resolved = {"precision": run.read_recipe().precision, "convolutions": run.read_recipe().convolutions}
    assert "auto" not in resolved.values()
    assert run.read_recipe() == change(RECIPES["digits-quick"], {"epochs": 2, "threads": 1, "device": "cpu"} | resolved)


def test_train_tells_its_progress_on_stderr(trained: Trained) -> None:
    told = trained.answers["json"].stderr.splitlines()
    assert told[0] == f"run {trained.run('json').id}"
    assert told[1] == "getting ready"
    epochs = [line for line in told if re.match(r"epoch \d+: ", line)]
    assert [line.split(",")[0] for line in epochs] == [
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}" for epoch in trained.run("json").history().epochs
    ]
    # Of all else it tells the latest, ten times a second.
    known = (
        r"1,293 training, 144 validation and 360 test images; |epoch [12]( step \d+)?: loss \d|evaluating (val|test): "
    )
    assert all(re.match(known, line) for line in told[2:])


def test_train_answers_in_words(trained: Trained) -> None:
    answer, run = trained.answers["text"], trained.run("text")
    assert answer.code == 0
    summary, figures = answer.stdout.splitlines()
    assert summary.startswith(f"{run.id}: finished, epochs 2, ")
    assert f"test_accuracy {run.history().ended.test_accuracy:.4f}" in figures


def test_two_runs_of_a_recipe_have_the_same_figures(trained: Trained) -> None:
    one, other = (trained.run(name).history().ended for name in ("json", "text"))
    for name in FIGURES - {"train_seconds", "images_per_second"}:
        assert getattr(one, name) == getattr(other, name)


def test_ctrl_c_stops_the_run_and_keeps_its_model(trained: Trained) -> None:
    answer, run = trained.answers["interrupted"], trained.run("interrupted")
    assert answer.code == 0
    assert "stopping; the model so far is kept" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.document.keys() == TRAIN_KEYS
    assert (answer.document["status"], answer.document["epochs"]) == ("stopped", 0)
    predictions = load_predictions(run.predictions("test"))
    assert answer.document["test_accuracy"] == predictions.accuracy
    assert run.weights.is_file()


def test_a_run_that_fails_exits_with_1(trained: Trained) -> None:
    answer = trained.answers["failed"]
    assert answer.code == 1
    assert answer.document.keys() == TRAIN_KEYS | {"error"}
    assert (answer.document["status"], answer.document["epochs"]) == ("failed", 0)
    assert {answer.document[name] for name in FIGURES} == {None}
    assert answer.document["error"].startswith("lenet5 needs images of at least 28 x 28 pixels")
    assert "Traceback" not in answer.stderr


def test_resume_goes_on_to_the_end(resumed: Trained) -> None:
    answer, run = resumed.answers["resumed-json"], resumed.run("resumed-json")
    assert answer.code == 0
    assert answer.document.keys() == TRAIN_KEYS
    assert (answer.document["status"], answer.document["epochs"]) == ("finished", 4)
    assert answer.document["run"] == run.id
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2, 3, 4]
    assert answer.document["test_accuracy"] == load_predictions(run.predictions("test")).accuracy


def test_resume_answers_in_words(resumed: Trained) -> None:
    answer, run = resumed.answers["resumed-text"], resumed.run("resumed-text")
    assert answer.code == 0
    assert answer.stdout.startswith(f"{run.id}: finished, epochs 4, ")


def test_resume_makes_a_finished_run_longer(resumed: Trained) -> None:
    answer, run = resumed.answers["longer"], resumed.run("longer")
    assert answer.code == 0
    assert answer.document.keys() == TRAIN_KEYS
    assert (answer.document["status"], answer.document["epochs"]) == ("finished", 3)
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2, 3]
    assert run.read_recipe().epochs == 3
    told = [line.split(":")[0] for line in answer.stderr.splitlines() if re.match(r"epoch \d+: ", line)]
    assert told == ["epoch 3"]


def test_resume_refuses_no_more_epochs_than_there_are(resumed: Trained) -> None:
    assert_refused(resumed.answers["not longer"], "has made 2 epochs already, so it cannot end with 2. Ask for more")
    assert [epoch.epoch for epoch in resumed.run("not longer").history().epochs] == [1, 2]


# Listings


def test_datasets_lists_them(digits) -> None:
    answer = command("datasets", "--json")
    assert answer.code == 0
    assert [dataset["name"] for dataset in answer.document] == list(CATALOGUE)
    for dataset in answer.document:
        assert {"name", "present", "kind", "classes", "images", "bad_files"} <= dataset.keys()
    here = {dataset["name"]: dataset for dataset in answer.document}
    assert here["digits"]["present"] is True
    assert here["digits"]["images"] == {"train": 1437, "test": 360}
    assert here["digits"]["classes"] == list("0123456789")
    assert (here["digits"]["kind"], here["digits"]["bad_files"]) == ("images", 0)
    assert (here["mnist"]["present"], here["mnist"]["images"]) == (False, {})

    lines = command("datasets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert lines[0].split()[1] == "here"


def test_get_prepares_a_dataset_once() -> None:
    answer = command("get", "digits", "--json")
    assert answer.code == 0
    assert answer.document["images"] == {"train": 1437, "test": 360}
    assert (answer.document["name"], answer.document["present"]) == ("digits", True)
    assert len(open_dataset("digits").splits["train"]) == 1437
    again = command("get", "digits")
    assert again.code == 0
    assert again.stdout == "digits: 1,437 train images and 360 test images of 10 classes\n"


def test_recipes_lists_their_fields_and_what_is_published() -> None:
    answer = command("recipes", "--json")
    assert answer.code == 0
    names = {about.name for about in fields(Recipe)}
    for recipe in answer.document:
        assert recipe.keys() == names | {"published"}
        original = RECIPES[recipe["name"]]
        assert recipe == original.as_dict() | {"published": published(original)}
    assert [recipe["name"] for recipe in answer.document] == list(RECIPES)

    text = command("recipes").stdout
    assert all(name in text for name in RECIPES)


def test_what_is_published_belongs_to_the_untouched_recipe() -> None:
    original = RECIPES["mnist-lenet5"]
    figures = published(original)
    assert figures["test_accuracy"] == 0.9905
    assert published(change(original, {"device": "cpu", "threads": 3, "precision": "float32"})) == figures
    assert published(change(original, {"epochs": 6})) is None
    assert published(change(original, {"dataset": "fashion-mnist"})) is None


def test_runs_lists_them(finished: Run) -> None:
    answer = command("runs", "--json")
    assert answer.code == 0
    assert answer.document == [{"run": finished.id, "status": "finished", "recipe": "digits-quick"}]
    (line,) = command("runs").stdout.splitlines()
    accuracy = finished.history().ended.test_accuracy
    assert line.split() == [finished.id, "finished", "test", "accuracy", f"{accuracy:.2%}"]


def test_a_damaged_run_is_listed(tmp_path: Path) -> None:
    (tmp_path / "runs" / "20240101-000000-x").mkdir(parents=True)
    answer = command("runs", "--json")
    assert answer.document == [{"run": "20240101-000000-x", "status": "damaged", "recipe": None}]


def test_without_runs_there_is_a_hint() -> None:
    assert command("runs", "--json").document == []
    assert "python -m engine train digits-quick" in command("runs").stdout


# Evaluating


@pytest.fixture(scope="module")
def evaluated(trained: Trained, digits_data: Path) -> dict[str, Answer]:
    """Each split of the finished run, evaluated; that of ``train`` is made for it."""
    run = trained.run("json")
    with folders(digits_data, trained.folder / "json"):
        begun = {split: begin("evaluate", run.id, "--split", split, "--json") for split in ("train", "val", "test")}
        begun["text"] = begin("evaluate", run.id)
        begun["nope"] = begin("evaluate", run.id, "--split", "nope", "--json")
        return {name: finish(process) for name, process in begun.items()}


@pytest.mark.parametrize(("split", "count"), [("train", 1293), ("val", 144), ("test", 360)])
def test_evaluate_agrees_with_scikit_learn(evaluated: dict[str, Answer], finished: Run, split: str, count: int) -> None:
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
    assert (document["run"], document["split"], document["count"]) == (finished.id, split, count)
    assert document["classes"] == list("0123456789")

    predictions = load_predictions(finished.predictions(split))
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


def test_evaluate_agrees_with_train(evaluated: dict[str, Answer], trained: Trained) -> None:
    for split in ("val", "test"):
        assert evaluated[split].document["accuracy"] == trained.answers["json"].document[f"{split}_accuracy"]


def test_evaluate_answers_in_words_and_means_the_test_split(evaluated: dict[str, Answer], finished: Run) -> None:
    answer = evaluated["text"]
    assert answer.code == 0
    lines = answer.stdout.splitlines()
    accuracy = finished.history().ended.test_accuracy
    assert lines[0].startswith(f"{finished.id}, test: {round(accuracy * 360)} of 360 right, accuracy {accuracy:.2%} (")
    assert [line.split()[0] for line in lines[2:]] == list("0123456789")


def test_evaluate_of_a_run_that_is_going_on_is_refused() -> None:
    run = create_run(Recipe())
    run.log.write_text(to_line(Preparing(0, 0)))
    with run.lock():
        assert_refused(command("evaluate", run.id, "--json"), f"The run {run.id} is still going on.")


def test_evaluate_refuses_an_unknown_split(evaluated: dict[str, Answer]) -> None:
    assert_refused(evaluated["nope"], "There is no split 'nope' in this run. Its splits: train, val and test.")


# Comparing


@dataclass(frozen=True)
class Compared:
    first: Run
    second: Run
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def compared(trained: Trained, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A run, and one that is the same but for answers that were made worse by hand: what is said of them."""
    folder = tmp_path_factory.mktemp("compared")
    first, second, other, failed = (Run(folder / name) for name in ("first", "second", "other", "failed"))
    for run in (first, second, other):
        shutil.copytree(trained.run("json").path, run.path)
    shutil.copytree(trained.run("failed").path, failed.path)
    answers = load_predictions(first.predictions("test"))
    worse = answers.probabilities.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    save_predictions(replace(answers, probabilities=worse), second.predictions("test"))
    save_predictions(replace(answers, fingerprint="another"), other.predictions("test"))
    with folders(digits_data, folder):
        begun = {
            "json": begin("compare", first.id, second.id, "--json"),
            "text": begin("compare", first.id, second.id),
            "itself": begin("compare", first.id, first.id),
            "val": begin("compare", first.id, second.id, "--split", "val", "--json"),
            "another dataset": begin("compare", first.id, other.id, "--json"),
            "no split": begin("compare", first.id, second.id, "--split", "nope", "--json"),
            "no model": begin("compare", first.id, failed.id, "--json"),
        }
        return Compared(first, second, {name: finish(process) for name, process in begun.items()})


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
def reported(trained: Trained, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("reported")
    run = trained.run("json").id
    (folder / "thesis.doc").write_text("years of work")
    (folder / "json.html").write_text("an older one")
    with folders(digits_data, trained.folder / "json"):
        begun = {
            "json": begin("report", run, str(folder / "json.html"), "--json"),
            "text": begin("report", run, str(folder / "text.html")),
            "val": begin("report", run, str(folder / "val.html"), "--split", "val", "--json"),
            "no page": begin("report", run, str(folder / "thesis.doc"), "--json"),
            "no folder": begin("report", run, str(folder / "nowhere" / "report.html"), "--json"),
            "a folder": begin("report", run, str(folder), "--json"),
            "no split": begin("report", run, str(folder / "nope.html"), "--split", "nope", "--json"),
        }
    with folders(folder / "data", trained.folder / "json"):
        begun["no dataset"] = begin("report", run, str(folder / "no-dataset.html"))
        return folder, {name: finish(process) for name, process in begun.items()}


def test_report_writes_one_page(reported: tuple[Path, dict[str, Answer]], trained: Trained) -> None:
    folder, answers = reported
    assert (answers["json"].code, answers["json"].stderr) == (0, "")
    path = folder / "json.html"
    run = trained.run("json")
    size = path.stat().st_size
    assert answers["json"].document == {"run": run.id, "split": "test", "file": str(path), "bytes": size}
    right = int(load_predictions(run.predictions("test")).correct.sum())
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert f"{right} of 360 images right" in page
    assert page.count('src="data:image/png;base64,') >= 24
    assert (folder / "text.html").read_text() == page
    assert answers["text"].stdout == f"{run.id}, test: written to {folder / 'text.html'} ({format_bytes(size)})\n"


def test_report_takes_another_split(reported: tuple[Path, dict[str, Answer]]) -> None:
    folder, answers = reported
    assert answers["val"].document["split"] == "val"
    assert "144 validation images" in (folder / "val.html").read_text()


def test_report_does_without_the_dataset(reported: tuple[Path, dict[str, Answer]]) -> None:
    folder, answers = reported
    assert answers["no dataset"].code == 0
    page = (folder / "no-dataset.html").read_text()
    assert "The dataset digits was not there when this was written" in page
    assert "<img" not in page


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


# Bad input


BAD_INPUT = [
    ((), "the following arguments are required: COMMAND"),
    (("nonsense",), "invalid choice: 'nonsense'"),
    (("runs", "--nonsense"), "unrecognized arguments: --nonsense"),
    (("train",), "the following arguments are required: RECIPE"),
    (("train", "nope"), "There is no recipe 'nope'. Known recipes: digits-quick"),
    (("train", "digits-quick", "--dataset", "nope"), "There is no dataset 'nope'. Known datasets: digits"),
    (("train", "digits-quick", "--set"), "argument --set: expected one argument"),
    (("train", "digits-quick", "--set", "epochs"), "--set was given 'epochs', but needs FIELD=VALUE"),
    (("train", "digits-quick", "--set", "wings=2"), "There is no recipe field 'wings'. Known fields: dataset"),
    (("train", "digits-quick", "--set", "epochs=many"), "epochs is 'many', but must be a whole number"),
    (("train", "digits-quick", "--set", "epochs=0"), "epochs is 0, but must be between 1 and 10000"),
    (("train", "digits-quick", "--set", "epochs="), "epochs is '', but must be a whole number"),
    (("train", "digits-quick", "--set", "keep=first"), "keep is 'first', but must be one of last and best"),
    (("train", "digits-quick", "--set", "learning_rate=nan"), "learning_rate is 'nan', but must be a number"),
    (("get",), "the following arguments are required: NAME"),
    (("get", "nope"), "There is no dataset 'nope'"),
    (("evaluate", "nope"), "There is no run 'nope'"),
    (("evaluate", "../runs"), "There is no run '../runs'"),
    (("compare", "nope"), "the following arguments are required: RUN"),
    (("compare", "nope", "neither"), "There is no run 'nope'"),
    (("report", "nope"), "the following arguments are required: FILE"),
    (("report", "nope", "report.html"), "There is no run 'nope'"),
    (("report", "nope", "report.pdf"), "only a file whose name ends in .html is written or replaced"),
    (("resume", "nope"), "There is no run 'nope'"),
    (("resume", "nope", "--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    (("predict", "nope", "picture.png"), "There is no run 'nope'"),
    (("predict", "nope"), "the following arguments are required: PATH"),
    (("models", "--dataset", "nope"), "There is no dataset 'nope'"),
    (("models", "resnet18"), "unrecognized arguments: resnet18"),
    (("rehearse",), "the following arguments are required: RECIPE"),
    (("rehearse", "nope"), "There is no recipe 'nope'"),
    (("rehearse", "digits-quick", "--dataset", "nope"), "There is no dataset 'nope'"),
    (
        ("rehearse", "digits-quick", "--set", "model=resnet"),
        "There is no model 'resnet'. The nearest in name: resnet50",
    ),
    (("rehearse", "digits-quick", "--set", "weights=imagenet"), "there are no such weights for convnet"),
    (("find-rate",), "the following arguments are required: RECIPE"),
    (("find-rate", "nope"), "There is no recipe 'nope'"),
    (("find-rate", "folder-quick"), "The recipe folder-quick is for images of your own. Import a folder"),
    (("find-rate", "digits-quick", "--set", "freeze=backbone"), "new weights that are frozen would never learn"),
    (("find-rate", "digits-quick", "--set", "epochs"), "--set was given 'epochs', but needs FIELD=VALUE"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Answer]:
    folder = tmp_path_factory.mktemp("refused")
    with folders(folder / "data", folder / "runs"):
        begun = {arguments: begin(*arguments, *(["--json"] if arguments else [])) for arguments, _ in BAD_INPUT}
        answers = {arguments: finish(process) for arguments, process in begun.items()}
    assert list(folder.iterdir()) == [], "something was made of bad input"
    return answers


@pytest.mark.parametrize(("arguments", "reason"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_refused_in_one_line(
    refused: dict[tuple[str, ...], Answer], arguments: tuple[str, ...], reason: str
) -> None:
    assert_refused(refused[arguments], reason)


def test_a_finished_run_is_not_resumed(finished: Run) -> None:
    before = finished.log.read_bytes()
    assert_refused(command("resume", finished.id, "--json"), "has finished its 2 epochs")
    assert finished.log.read_bytes() == before


def test_help_is_there() -> None:
    answer = command("--help")
    assert answer.code == 0
    for name in (
        "datasets",
        "get",
        "recipes",
        "models",
        "train",
        "rehearse",
        "find-rate",
        "resume",
        "runs",
        "evaluate",
        "compare",
        "report",
        "predict",
    ):
        assert name in answer.stdout


# Choosing a network and a rate, and what to expect

AS_MACHINES_DIFFER = ("device=cpu", "threads=1", "precision=float32", "convolutions=onednn")
SET = tuple(part for setting in AS_MACHINES_DIFFER for part in ("--set", setting))


def test_models_lists_loupes_own_and_then_torchvisions_that_suit_a_dataset(digits) -> None:
    weights_folder().mkdir()
    (weights_folder() / BACKBONES["resnet18"].file).write_bytes(b"")
    for arguments, shape in (((), (224, 224, 3)), (("--dataset", "digits"), (8, 8, 1))):
        answer = command("models", *arguments, "--json")
        assert (answer.code, answer.stderr) == (0, "")
        own, theirs = answer.document[: len(MODELS)], answer.document[len(MODELS) :]
        assert own == [{"name": name, "about": about} for name, about in MODELS.items()]
        assert [model["name"] for model in theirs] == [each.name for each in rank_for_images(shape)]
        for model in theirs:
            backbone = BACKBONES[model["name"]]
            assert model["about"] == backbone.in_words()
            assert (model["parameters"], model["accuracy"]) == (backbone.parameters, backbone.accuracy)
            assert model["weights_here"] == (model["name"] == "resnet18")
    lines = command("models").stdout.splitlines()
    assert len(lines) == len(MODELS) + len(BACKBONES)
    assert lines[0].split()[:2] == ["convnet", "Three"]
    (resnet18,) = [line for line in lines if line.startswith("resnet18 ")]
    assert resnet18 == f"{'resnet18':20} {BACKBONES['resnet18'].in_words()}, weights here"
    assert "".join(lines).count("weights here") == 1


def test_models_for_a_table_are_refused() -> None:
    assert command("get", "blobs").code == 0
    assert_refused(
        command("models", "--dataset", "blobs"), "blobs is a table of 4 numbers a row, and this needs images"
    )


def but_for_locks(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix != ".lock"}


@pytest.fixture(scope="module")
def tried(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What commands say that try a recipe: none makes a run, or writes beside the dataset."""
    folder = tmp_path_factory.mktemp("tried")
    shutil.copytree(digits_data, folder / "data")
    recipe = ("digits-quick", *SET, "--set", "model=mlp")
    with folders(folder / "data", folder / "runs"):
        before = but_for_locks(folder)
        begun = {
            "rehearse": begin("rehearse", *recipe),
            "rehearse --json": begin("rehearse", *recipe, "--json"),
            "rehearse badly": begin("rehearse", *recipe, "--set", "learning_rate=1e-8", "--json"),
            "find-rate": begin("find-rate", *recipe),
            "find-rate --json": begin("find-rate", *recipe, "--json"),
            "no weights": begin("rehearse", *recipe, "--set", "weights=nope"),
            "no file": begin("find-rate", *recipe, "--set", "weights=nope.pth", "--json"),
            "too small": begin("find-rate", *recipe, "--set", "model=lenet5"),
        }
        answers = {name: finish(process) for name, process in begun.items()}
        assert but_for_locks(folder) == before
    return answers


def test_rehearse_answers_with_its_checks(tried: dict[str, Answer]) -> None:
    answer = tried["rehearse --json"]
    assert answer.code == 0
    names = [check["name"] for check in answer.document]
    assert names == ["weights", "first loss", "one batch", "majority", "linear model", "time", "memory"]
    assert {check["verdict"] for check in answer.document} == {"good"}
    assert answer.stderr.splitlines() == [
        "building the network",
        "timing a step",
        "learning one batch by heart",
        "training a linear model, to compare with",
    ]


def test_rehearse_answers_in_words(tried: dict[str, Answer]) -> None:
    in_words, document = tried["rehearse"], tried["rehearse --json"].document
    assert in_words.code == 0
    lines = in_words.stdout.splitlines()
    assert len(lines) == len(document)
    for line, check in zip(lines, document, strict=True):
        said = f"{check['verdict']:4}  {check['name']}: "
        assert line.startswith(said)
        if check["name"] not in ("memory", "time"):  # which are of the machine
            assert line == said + check["text"]


def test_rehearse_tells_what_is_bad(tried: dict[str, Answer]) -> None:
    answer = tried["rehearse badly"]
    assert answer.code == 0
    verdicts = {check["name"]: check["verdict"] for check in answer.document}
    assert [name for name, verdict in verdicts.items() if verdict == "bad"] == ["one batch"]


def test_find_rate_answers_with_its_curve(tried: dict[str, Answer]) -> None:
    answer = tried["find-rate --json"]
    assert answer.code == 0
    curve = answer.document
    assert curve.keys() == {"rates", "losses", "smoothed", "suggestion", "reason"}
    assert len(curve["rates"]) == len(curve["losses"]) == len(curve["smoothed"])
    assert 1e-3 < curve["suggestion"] < 1
    assert re.match(r"step [\d,]+, 100 rates at most\n", answer.stderr)


def test_find_rate_answers_in_words(tried: dict[str, Answer]) -> None:
    answer, curve = tried["find-rate"], tried["find-rate --json"].document
    assert answer.code == 0
    assert answer.stdout == f"learning_rate {curve['suggestion']:g}. {curve['reason']}\n"


def test_what_cannot_be_tried_is_refused_in_one_line(tried: dict[str, Answer]) -> None:
    for name, reason in (
        ("no weights", "weights is 'nope', but must be none, imagenet, the name of an earlier run, or a file"),
        (
            "no file",
            "weights is 'nope.pth', but there is no such file, nor a run of that name. It must be none, ",
        ),
        ("too small", "lenet5 needs images of at least 28 x 28 pixels"),
    ):
        answer = tried[name]
        assert (answer.code, answer.stdout) == (2, "")
        *progress, last = answer.stderr.splitlines()
        assert last.startswith("error: ") and reason in last
        assert len(progress) <= 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("rehearse", "digits-quick", "--set", "model=resnet18", "--set", "size=64"), "timing a step\n"),
        (("find-rate", "digits-quick", "--set", "model=resnet18", "--set", "batch_size=8"), "step "),
    ],
)
def test_ctrl_c_ends_a_trial_and_leaves_nothing_behind(
    digits, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    before = but_for_locks(tmp_path)
    process = begin(*arguments, *SET, "--json")
    while not (told := process.stderr.readline()).startswith(line):
        assert told
    os.killpg(process.pid, signal.SIGINT)
    answer = finish(process)
    assert (answer.code, answer.stdout) == (130, "")
    assert "Traceback" not in answer.stderr
    assert but_for_locks(tmp_path) == before


WITH_LITTLE_MEMORY = """
import resource, sys
import sklearn.linear_model, torch
import engine.advice.rate_finder, engine.advice.rehearsal, engine.training.tuning
from engine.commands.main import main

torch.set_num_threads(1)
torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 9, 9)).sum().backward()
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_too_little_memory_for_a_trial_is_told_in_a_sentence(make_colours) -> None:
    make_colours(train=600, test=0, height=64, width=64)  # the first convolution of all makes 314 MB
    recipe = ("digits-quick", "--dataset", "colours", "--set", "batch_size=600", "--set", "device=cpu")
    begun = {
        name: python(
            *("-c", WITH_LITTLE_MEMORY, name, *recipe, *settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # Left open, the quickest way is tried first, which takes as much.
        for name, settings in (("rehearse", ()), ("find-rate", SET))
    }
    answers = {name: finish(process) for name, process in begun.items()}
    for name, answer in answers.items():
        assert "Traceback" not in answer.stderr, name
    assert answers["rehearse"].code == 0
    assert "bad   memory: Memory is not enough for a step with batches of 600." in answers["rehearse"].stdout
    assert answers["find-rate"].code == 2
    assert (
        answers["find-rate"].stderr.splitlines()[-1].startswith("error: Memory was not enough for a step of training")
    )
