"""Commands that try a recipe, list runs, and refuse to go on with one; test_following.py has runs that are trained."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Answer, assert_refused, begin, call, finish
from processes import folders, python

from engine.runs.run import Run
from engine.training.measurements import keep_measurement, key_of

AS_MACHINES_DIFFER = ("device=cpu", "threads=1", "precision=float32", "convolutions=onednn")
SET = tuple(part for setting in AS_MACHINES_DIFFER for part in ("--set", setting))


def test_runs_lists_them(finished: Run) -> None:
    answer = call("runs", "--json")
    assert answer.code == 0
    assert answer.document == [{"run": finished.id, "status": "finished", "recipe": "digits-quick"}]
    (line,) = call("runs").stdout.splitlines()
    accuracy = finished.history().ended.test_accuracy
    assert line.split() == [finished.id, "finished", "test", "accuracy", f"{accuracy:.2%}"]


def test_a_damaged_run_is_listed(tmp_path: Path) -> None:
    (tmp_path / "runs" / "20240101-000000-x").mkdir(parents=True)
    answer = call("runs", "--json")
    assert answer.document == [{"run": "20240101-000000-x", "status": "damaged", "recipe": None}]


def test_without_runs_there_is_a_hint() -> None:
    assert call("runs", "--json").document == []
    assert "python -m engine train digits-quick" in call("runs").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "has finished its 2 epochs"),
        (("--epochs", "2"), "has made 2 epochs already, so it cannot end with 2. Ask for more"),
    ],
)
def test_a_finished_run_is_not_resumed(finished: Run, arguments: tuple[str, ...], reason: str) -> None:
    before = finished.log.read_bytes()
    assert_refused(call("resume", finished.id, *arguments, "--json"), reason)
    assert finished.log.read_bytes() == before


# Trials


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
        answers = {
            "rehearse": call("rehearse", *recipe),
            "rehearse --json": call("rehearse", *recipe, "--json"),
            "rehearse badly": call("rehearse", *recipe, "--set", "learning_rate=1e-8", "--json"),
            "find-rate": call("find-rate", *recipe),
            "find-rate --json": call("find-rate", *recipe, "--json"),
            "no weights": call("rehearse", *recipe, "--set", "weights=nope"),
            "no file": call("find-rate", *recipe, "--set", "weights=nope.pth", "--json"),
            "too small": call("find-rate", *recipe, "--set", "model=lenet5"),
        }
        assert but_for_locks(folder) == before
    return answers


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_rehearse_tells_what_is_bad(tried: dict[str, Answer]) -> None:
    answer = tried["rehearse badly"]
    assert answer.code == 0
    verdicts = {check["name"]: check["verdict"] for check in answer.document}
    assert [name for name, verdict in verdicts.items() if verdict == "bad"] == ["one batch"]


@pytest.mark.slow
def test_find_rate_answers_with_its_curve(tried: dict[str, Answer]) -> None:
    answer = tried["find-rate --json"]
    assert answer.code == 0
    curve = answer.document
    assert curve.keys() == {"rates", "losses", "smoothed", "suggestion", "reason"}
    assert len(curve["rates"]) == len(curve["losses"]) == len(curve["smoothed"])
    assert 1e-3 < curve["suggestion"] < 1
    assert re.match(r"step [\d,]+, 100 rates at most\n", answer.stderr)


@pytest.mark.slow
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


@pytest.mark.processes
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


@pytest.mark.sweep
@pytest.mark.processes
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


def test_what_was_measured_is_forgotten(tmp_path: Path) -> None:
    measured = tmp_path / "data" / "quickest.json"
    measured.parent.mkdir()
    keep_measurement(key_of("convnet"), {"threads": 1, "precision": "float32", "convolutions": "onednn"})
    assert json.loads(measured.read_text())
    assert call("measure-again", "--json") == Answer(0, '{\n "forgotten": 1\n}\n', "")
    assert json.loads(measured.read_text()) == {}
    assert call("measure-again") == Answer(0, "0 measurements forgotten\n", "")
