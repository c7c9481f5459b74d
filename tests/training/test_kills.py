"""A run's process is killed at the worst moments; resumed, the run ends as one that was never killed, bit by bit.

Within an epoch by default, at the other moments in the sweeps; at each record of a training it is cut in
test_loop.py and test_transfer.py, without a process.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import LaunchedProcess, ending_its_runs, folders, wait_until, watching_launches
from safetensors.numpy import load_file, save_file

from benchmarks.kill_resume import differences
from engine.inference.classifier import load_classifier
from engine.recipes.recipe import Recipe
from engine.runs import run as runs
from engine.runs.log import History
from engine.runs.records import Evaluating, Finished, Resumed, Step, from_line
from engine.runs.run import ACTIVE, Run, create_run
from engine.training.worker import execute

# Its tests share the runs that are killed.
pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("kills")]

EPOCHS, STEPS_PER_EPOCH = 3, 81
RECIPE = Recipe(
    epochs=EPOCHS,
    batch_size=16,
    learning_rate=0.01,
    optimizer="adamw",
    schedule="one-cycle",
    augment="shift=1 rotate=10",
    validation_share=0.1,
    keep="best",
    log_every=5,
    evaluate_every=20,
    device="cpu",
    threads=1,
    precision="float32",
    convolutions="onednn",
)

Moment = Callable[[Run, History], bool]


def before_the_first_checkpoint(run: Run, history: History) -> bool:
    return isinstance(history.last, Step) and not run.checkpoint.exists()


def within_an_epoch(run: Run, history: History) -> bool:
    return isinstance(history.last, Step) and history.last.step > 2.5 * STEPS_PER_EPOCH and len(history.epochs) == 2


def writing_a_checkpoint(run: Run, history: History) -> bool:
    return run.checkpoint.exists() and any(run.path.glob(".checkpoint.pt.*"))


def evaluating(run: Run, history: History) -> bool:
    return isinstance(history.last, Evaluating)


OTHER_MOMENTS: list[Moment] = [before_the_first_checkpoint, writing_a_checkpoint, evaluating]
at_all_moments = pytest.mark.parametrize(
    "moment", [within_an_epoch, *(pytest.param(moment, marks=pytest.mark.sweep) for moment in OTHER_MOMENTS)]
)


@dataclass
class Killed:
    """A run that was killed, and what was said of it then."""

    run: Run
    as_left: Path  # a copy of its directory from before it was resumed
    status: str
    explained: str | None


def kill_at(moment: Moment, run: Run, process: LaunchedProcess) -> bool:
    """Kill a run's process once the moment has come; False if it was never caught.

    It is halted first, and killed only if the moment is still there.
    """
    history = History(run.log)
    while process.poll() is None:
        if not moment(run, history.read()):
            time.sleep(0.001)  # a checkpoint is written within several of these
            continue
        process.send_signal(signal.SIGSTOP)
        try:
            os.waitpid(process.pid, os.WUNTRACED)
        except ChildProcessError:  # it has ended by itself
            return False
        if moment(run, history.read()):
            process.kill()
            process.wait()
            return True
        process.send_signal(signal.SIGCONT)
    return False


def finish(run: Run) -> None:
    runs.resume(run)
    wait_until(lambda: run.status() not in ACTIVE)
    assert run.status() == "finished"


@pytest.fixture(scope="module")
def place(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the runs of these tests."""
    folder = tmp_path_factory.mktemp("kills")
    with ending_its_runs(digits_data, folder):
        yield folder


@pytest.fixture(scope="module")
def never_killed(place: Path, digits_data: Path) -> Run:
    with folders(digits_data, place):
        run = create_run(RECIPE)
        execute(run)
    assert run.status() == "finished"
    return run


@pytest.fixture(scope="module")
def killed_at(place: Path, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Moment], Killed]:
    """Give a run that was killed at a moment and is finished now: one for all tests."""

    @cache
    def killed_at(moment: Moment) -> Killed:
        with folders(digits_data, place):
            for _ in range(5):  # a busy machine may be late for all checkpoints of a run
                with watching_launches():
                    run = runs.start(RECIPE)
                if kill_at(moment, run, LaunchedProcess.latest):
                    break
            else:
                raise TimeoutError(f"no run was caught {moment.__name__.replace('_', ' ')}")
            as_left = tmp_path_factory.mktemp("left") / run.id
            shutil.copytree(run.path, as_left)
            killed = Killed(run, as_left, run.status(), run.explain(run.history()))
            finish(run)
        return killed

    return killed_at


@pytest.fixture
def as_left(killed_at: Callable[[Moment], Killed], place: Path, tmp_path: Path) -> Callable[[Moment], Run]:
    """Give a run as it was left by its kill, for this test to change and to resume."""

    def as_left(moment: Moment) -> Run:
        killed = killed_at(moment)
        return Run(shutil.copytree(killed.as_left, tmp_path / "runs" / killed.run.id))

    return as_left


def test_the_run_that_is_killed_has_all_that_a_run_can_have(never_killed: Run) -> None:
    history = never_killed.history()
    assert [epoch.step for epoch in history.epochs] == [STEPS_PER_EPOCH * n for n in range(1, EPOCHS + 1)]
    assert len(history.steps) == EPOCHS * (STEPS_PER_EPOCH // 5)
    assert [evaluated.step for evaluated in history.evaluations] == list(range(20, EPOCHS * STEPS_PER_EPOCH + 1, 20))
    assert {path.name for path in never_killed.path.glob("predictions-*")} == {
        "predictions-val.npz",
        "predictions-test.npz",
    }
    assert differences(never_killed, never_killed) == []


def test_differences_are_found_to_the_last_bit(never_killed: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(never_killed.path, tmp_path / "other"))
    assert differences(other, never_killed) == []
    weights = load_file(other.weights)
    name = min(weights)
    weights[name].flat[0] = np.nextafter(weights[name].flat[0], np.float32(np.inf))
    save_file(weights, other.weights)
    lines = other.log.read_text().splitlines()
    lines.remove(next(line for line in lines if '"step": 10,' in line))
    other.log.write_text("\n".join(lines) + "\n")
    other.predictions("val").unlink()
    assert differences(other, never_killed) == ["predictions-val.npz", "steps", f"weight {name}"]


@at_all_moments
def test_a_killed_run_ends_as_one_that_was_never_killed(
    moment: Moment, killed_at: Callable[[Moment], Killed], never_killed: Run
) -> None:
    run = killed_at(moment).run
    assert differences(run, never_killed) == []
    expected = {path.name for path in never_killed.path.iterdir()} | {"output.txt"}
    assert {path.name for path in run.path.iterdir()} == expected


@at_all_moments
def test_a_killed_run_has_died_and_says_what_to_do(moment: Moment, killed_at: Callable[[Moment], Killed]) -> None:
    killed = killed_at(moment)
    assert killed.status == "died"
    assert killed.explained
    when = {
        before_the_first_checkpoint: "ended during epoch 1",
        within_an_epoch: "ended during epoch 3",
        writing_a_checkpoint: "ended during ",
        evaluating: "ended during its evaluation",
    }
    assert when[moment] in killed.explained
    where = "starts from the beginning" if moment is before_the_first_checkpoint else "goes on from its last"
    assert f"Resume it, and it {where}" in killed.explained


@at_all_moments
def test_a_killed_run_has_the_model_of_its_last_checkpoint_and_goes_on_from_there(
    moment: Moment, killed_at: Callable[[Moment], Killed]
) -> None:
    killed = killed_at(moment)
    left = Run(killed.as_left)
    checkpoint = left.checkpoint.exists() and torch.load(left.checkpoint, weights_only=True)
    if checkpoint:
        (answers,) = load_classifier(left).probabilities(np.zeros((1, 8, 8, 1), np.uint8))
        assert answers.sum() == pytest.approx(1, abs=1e-5)
    epochs = {before_the_first_checkpoint: 0, within_an_epoch: 2, evaluating: EPOCHS}
    done = checkpoint["epoch"] if checkpoint else 0
    # The epoch is logged first.
    assert done == epochs.get(moment, len(left.history().epochs) - 1)
    added = killed.run.log.read_bytes().removeprefix(left.log.read_bytes())
    records = [from_line(line) for line in added.splitlines()]
    assert [record for record in records if isinstance(record, Resumed)] == [Resumed(done * STEPS_PER_EPOCH)]


@pytest.mark.sweep
def test_a_run_may_be_killed_again(as_left: Callable[[Moment], Run], never_killed: Run, digits_data: Path) -> None:
    run = as_left(within_an_epoch)
    with folders(digits_data, run.path.parent), ending_its_runs(digits_data, run.path.parent):
        with watching_launches():
            runs.resume(run)
        assert kill_at(evaluating, run, LaunchedProcess.latest)
        assert run.status() == "died"
        finish(run)
    assert differences(run, never_killed) == []


def test_a_log_that_was_cut_within_a_line_goes_on(
    as_left: Callable[[Moment], Run], never_killed: Run, digits_data: Path
) -> None:
    run = as_left(within_an_epoch)
    run.log.write_bytes(run.log.read_bytes()[:-20])
    with folders(digits_data, run.path.parent):
        execute(run)
    assert differences(run, never_killed) == []


def test_a_run_ends_with_the_weights_of_its_checkpoint_if_the_kill_came_between_the_two(
    never_killed: Run, digits_data: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(never_killed.path, tmp_path / "runs" / never_killed.id))
    trained = [
        line for line in run.log.read_text().splitlines() if not isinstance(from_line(line), Evaluating | Finished)
    ]
    run.log.write_text("\n".join(trained) + "\n")
    save_file({name: np.zeros_like(value) for name, value in load_file(run.weights).items()}, run.weights)
    for split in ("val", "test"):
        run.predictions(split).unlink()
    assert run.status() == "died"
    with folders(digits_data, run.path.parent):
        execute(run)
    assert differences(run, never_killed) == []
