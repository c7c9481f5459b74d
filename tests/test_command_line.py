import csv
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import ending_its_runs, folders, python
from sklearn import metrics

from engine.catalogue import CATALOGUE
from engine.dataset import open_dataset
from engine.predictions import load_predictions
from engine.recipes import RECIPES, Recipe, change, published
from engine.records import Preparing, to_line
from engine.runs import Run, create_run

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


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self):
        """The one JSON document that is all of stdout."""
        return json.loads(self.stdout)


def begin(*arguments: str) -> subprocess.Popen:
    return python("-W", "error", "-m", "engine", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> Answer:
    with process:
        stdout, stderr = process.communicate(timeout=120)
    return Answer(process.returncode, stdout, stderr)


def command(*arguments: str) -> Answer:
    return finish(begin(*arguments))


def assert_refused(answer: Answer, reason: str) -> None:
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1 and answer.stderr.endswith("\n")
    assert reason in answer.stderr


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
    resolved = {"precision": run.recipe.precision, "convolutions": run.recipe.convolutions}
    assert "auto" not in resolved.values()
    assert run.recipe == change(RECIPES["digits-quick"], {"epochs": 2, "threads": 1, "device": "cpu"} | resolved)


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
    assert run.recipe.epochs == 3
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
        "classes",
        "confusion",
        "per_class",
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


# Predicting


@dataclass(frozen=True)
class Predicted:
    pictures: list[str]
    table: Path
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def predicted(trained: Trained, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    folder = tmp_path_factory.mktemp("pictures")
    broken, missing, table = folder / "broken.png", folder / "missing.png", folder / "answers.csv"
    with folders(digits_data, trained.folder / "json"):
        images = open_dataset("digits").splits["test"].images
        pictures = []
        for number in range(3):
            path = folder / f"picture {number}.png"
            Image.fromarray(images[number, ..., 0]).save(path)
            pictures.append(str(path))
        broken.write_bytes(Path(pictures[0]).read_bytes()[:60])
        run = trained.run("json").id
        begun = {
            "text": begin("predict", run, *pictures),
            "json": begin("predict", run, *pictures, str(broken), str(missing), "--json", "--csv", str(table)),
            "no table": begin("predict", run, pictures[0], "--csv", str(folder / "nowhere" / "answers.csv")),
        }
        answers = {name: finish(process) for name, process in begun.items()}
    return Predicted([*pictures, str(broken), str(missing)], table, answers)


def test_predict_answers_as_the_evaluation_does(predicted: Predicted, finished: Run) -> None:
    rows = predicted.answers["json"].document
    assert [row["file"] for row in rows] == predicted.pictures
    predictions = load_predictions(finished.predictions("test"))
    for row, probabilities in zip(rows[:3], predictions.probabilities[:3], strict=True):
        assert row.keys() == {"file", "label", "confidence", "top"}
        order = np.argsort(-probabilities)[:5]
        assert [best["label"] for best in row["top"]] == [str(index) for index in order]
        assert [best["confidence"] for best in row["top"]] == pytest.approx(probabilities[order].tolist(), abs=1e-5)
        assert all(best.keys() == {"label", "confidence"} for best in row["top"])
        assert {"label": row["label"], "confidence": row["confidence"]} == row["top"][0]


def test_predict_names_the_pictures_that_it_cannot_read(predicted: Predicted) -> None:
    answer = predicted.answers["json"]
    assert answer.code == 1
    broken, missing = answer.document[3:]
    assert broken.keys() == missing.keys() == {"file", "error"}
    assert broken["error"]
    assert missing["error"].startswith("There is no such file.")
    assert answer.stderr == ""


def test_predict_writes_a_table(predicted: Predicted) -> None:
    document = predicted.answers["json"].document
    with predicted.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "confidence", "error"]
    for row, answer in zip(rows, document, strict=True):
        assert row == {name: str(answer.get(name, "")) for name in row}


def test_predict_answers_in_words(predicted: Predicted) -> None:
    answer = predicted.answers["text"]
    assert (answer.code, answer.stderr) == (0, "")
    expected = [
        f"{row['file']}: {row['label']} ({row['confidence']:.1%})" for row in predicted.answers["json"].document[:3]
    ]
    assert answer.stdout.splitlines() == expected


def test_predict_refuses_pictures_for_a_run_on_a_table(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8)).save(picture)
    trained = command("train", "blobs-mlp", "--set", "epochs=1", "--set", "device=cpu", "--set", "threads=1", "--json")
    assert trained.code == 0
    assert trained.document["status"] == "finished"
    assert trained.document["test_accuracy"] > 1 / 3
    assert_refused(
        command("predict", trained.document["run"], str(picture), "--json"),
        "This model classifies rows of 4 numbers, not pictures. Choose a run that was trained on images.",
    )


def test_predict_says_when_the_table_cannot_be_written(predicted: Predicted) -> None:
    assert_refused(predicted.answers["no table"], "answers.csv could not be written (No such file or directory)")


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
    (("resume", "nope"), "There is no run 'nope'"),
    (("resume", "nope", "--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    (("predict", "nope", "picture.png"), "There is no run 'nope'"),
    (("predict", "nope"), "the following arguments are required: PATH"),
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
    for name in ("datasets", "get", "recipes", "train", "resume", "runs", "evaluate", "predict"):
        assert name in answer.stdout
