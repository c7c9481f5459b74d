"""Runs that are trained from the command line, in processes of their own, and followed to their ends."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Answer, begin, finish
from processes import ending_its_runs, folders

from engine.evaluation.predictions import load_predictions
from engine.recipes.recipe import RECIPES, change
from engine.runs.run import Run

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("following")]  # its runs are made once

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
    """The run that was interrupted, resumed with --json and without; and one that has finished, made longer."""
    begun = {}
    for name, (before, *arguments) in {
        "resumed-json": ("interrupted", "--json"),
        "resumed-text": ("interrupted",),
        "longer": ("json", "--epochs", "3", "--json"),
    }.items():
        run = trained.run(before)
        shutil.copytree(run.path, trained.folder / name / run.id)
        with folders(digits_data, trained.folder / name):
            begun[name] = begin("resume", run.id, *arguments)
    return Trained(trained.folder, {name: finish(process) for name, process in begun.items()})


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
