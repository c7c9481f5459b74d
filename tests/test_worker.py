import json
import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from processes import LaunchedProcess, ending_its_runs, folders, python, wait_until, watching_launches
from sklearn.metrics import accuracy_score, log_loss

from engine import runs
from engine.classifier import load_classifier
from engine.dataset import Dataset
from engine.errors import LoupeError
from engine.predictions import load_predictions
from engine.recipes import Recipe, change, find_recipe
from engine.records import Cancelled, Epoch, Failed, Finished, Step, Stopped
from engine.runs import ACTIVE, Run, create_run
from engine.training import Training, fit
from engine.worker import execute, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
# One thread: several runs are under way at once.
QUICK = change(find_recipe("digits-quick"), {"device": "cpu", "threads": 1, "epochs": 2})
ENDLESS = change(QUICK, {"epochs": 1000})
FILES = [
    "checkpoint.pt",
    "lock",
    "log.jsonl",
    "output.txt",
    "predictions-test.npz",
    "predictions-val.npz",
    "recipe.json",
    "weights.safetensors",
]


def log_lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def records_of(run: Run) -> list[str]:
    return [line["record"] for line in log_lines(run)]


def has_ended(run: Run) -> bool:
    return run.status() not in ACTIVE


def assert_its_model_is_what_it_says(run: Run, dataset: Dataset) -> None:
    """Hold the last record, the predictions and the weights of a run against each other and scikit-learn."""
    ended = run.history().ended
    truth = dataset.splits["test"].labels
    for split in ("val", "test"):
        predictions = load_predictions(run.predictions(split))
        accuracy, loss = getattr(ended, f"{split}_accuracy"), getattr(ended, f"{split}_loss")
        assert accuracy == accuracy_score(predictions.labels, predictions.predicted)
        normalized = predictions.probabilities / predictions.probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
        assert loss == pytest.approx(log_loss(predictions.labels, normalized, labels=range(10)), rel=1e-5)
    np.testing.assert_array_equal(predictions.labels, truth)
    answers = np.concatenate(list(load_classifier(run).probabilities(dataset.splits["test"].images)))
    np.testing.assert_allclose(answers, predictions.probabilities, atol=1e-5)
    assert ended.train_seconds > 0
    assert ended.images_per_second > 0
    assert 0 < ended.train_loss < 10


# Three runs at once; what started the first is gone before it has the device

START_ENDLESS = """
import sys
from engine import recipes, runs
settings = {"device": "cpu", "threads": 1, "epochs": 1000}
print(runs.start(recipes.change(recipes.find_recipe("digits-quick"), settings)).id, flush=True)
sys.stdin.read()
"""


@dataclass
class Queue:
    first: Run
    second: Run
    third: Run
    launcher_code: int
    seen: dict[str, list[str]] = field(default_factory=dict)
    second_when_third_was_stopped: str = ""

    def look(self) -> dict[str, str]:
        """Note the status of each run where it has changed."""
        now = {name: getattr(self, name).status() for name in ("first", "second", "third")}
        for name, status in now.items():
            if self.seen.setdefault(name, [])[-1:] != [status]:
                self.seen[name].append(status)
        return now


@pytest.fixture(scope="module")
def queue(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    folder = tmp_path_factory.mktemp("queue")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with folders(digits_data, folder), ending_its_runs(digits_data, folder):
        with FileLock(folder / ".cpu.lock"):  # so that it does not matter which of them is there first
            with python("-c", START_ENDLESS, **pipes) as launcher:
                first = runs.open_run(launcher.stdout.readline().strip())
                os.killpg(launcher.pid, signal.SIGINT)  # Ctrl+C, as a terminal does it
                launcher.wait(timeout=60)
            queue = Queue(first, runs.start(QUICK), runs.start(ENDLESS), launcher.returncode)
            wait_until(lambda: set(queue.look().values()) == {"queued"})
        wait_until(lambda: queue.look()["first"] == "running" and len(first.history().epochs) >= 2)
        queue.third.request_stop()
        wait_until(lambda: queue.look()["third"] not in ACTIVE)
        queue.second_when_third_was_stopped = queue.second.status()
        first.request_stop()
        wait_until(lambda: not set(queue.look().values()) & set(ACTIVE))
        yield queue


def test_no_status_was_ever_wrong(queue: Queue) -> None:
    def but_for_short_ones(seen: list[str]) -> list[str]:
        return [status for status in seen if status != "starting"]

    assert but_for_short_ones(queue.seen["first"]) == ["queued", "running", "stopped"]
    assert but_for_short_ones(queue.seen["third"]) == ["queued", "stopped"]
    assert but_for_short_ones(queue.seen["second"]) in (["queued", "running", "finished"], ["queued", "finished"])


def test_a_run_outlives_ctrl_c_on_what_started_it(queue: Queue) -> None:
    assert queue.launcher_code != 0
    assert queue.seen["first"][-2:] == ["running", "stopped"]


def test_a_run_is_trained_to_its_end(queue: Queue, digits: Dataset) -> None:
    run = queue.second
    assert run.status() == "finished"
    history = run.history()
    assert isinstance(history.last, Finished)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2]
    assert [step.step for step in history.steps] == [5, 10, 15, 20, 26, 31, 36, 41]
    assert (history.ended.epochs, history.ended.step) == (2, 42)
    best = max(history.epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert history.ended.kept == f"epoch {best.epoch}, the best of 2 by validation accuracy"
    assert history.ended.train_loss == best.train_loss
    assert history.ended.val_accuracy == best.val_accuracy
    assert history.ended.val_loss == pytest.approx(best.val_loss, rel=1e-4)
    assert history.ended.test_accuracy > 0.7
    assert_its_model_is_what_it_says(run, digits)


def test_a_run_says_what_it_trains_and_on_what(queue: Queue, digits: Dataset) -> None:
    recipe, started = queue.second.recipe, queue.second.history().started
    assert asdict(started) == {
        "dataset": "digits",
        "fingerprint": digits.fingerprint,
        "classes": list("0123456789"),
        "train_count": 1293,
        "val_count": 144,
        "test_count": 360,
        "steps_per_epoch": 21,
        "epochs": 2,
        "parameters": 32 * 9 + 64 * 32 * 9 + 128 * 64 * 9 + 2 * (32 + 64 + 128) + 1290,
        "device": "cpu",
        "threads": 1,
        "precision": recipe.precision,
        "torch": torch.__version__,
    }
    assert recipe.precision in ("float32", "bfloat16")
    assert change(QUICK, {"precision": recipe.precision}) == recipe


def test_a_run_leaves_nothing_else_in_its_directory(queue: Queue) -> None:
    assert sorted(path.name for path in queue.second.path.iterdir()) == FILES
    assert sorted(path.name for path in queue.first.path.iterdir()) == sorted([*FILES, "stop"])
    assert queue.second.output.read_bytes() == b""


def test_runs_that_wait_go_on_by_themselves_in_the_order_in_which_they_were_made(queue: Queue) -> None:
    assert records_of(queue.first)[:3] == ["preparing", "queued", "started"]
    assert records_of(queue.second)[:3] == ["preparing", "queued", "started"]
    first_ended = log_lines(queue.first)[-1]["time"]
    second_started = next(line["time"] for line in log_lines(queue.second) if line["record"] == "started")
    assert second_started >= first_ended


def test_a_run_that_is_stopped_while_it_waits_is_cancelled(queue: Queue) -> None:
    run = queue.third
    assert records_of(run) == ["preparing", "queued", "cancelled"]
    assert isinstance(run.history().last, Cancelled)
    assert run.status() == "stopped"
    assert queue.second_when_third_was_stopped == "queued"
    assert "no model" in run.explain(run.history())
    with pytest.raises(LoupeError, match="has no weights"):
        load_classifier(run)


def test_a_run_that_is_stopped_has_the_model_that_it_had_come_to(queue: Queue, digits: Dataset) -> None:
    run = queue.first
    assert run.status() == "stopped"
    ended = run.history().ended
    assert isinstance(ended, Stopped)
    assert 2 <= ended.epochs < 1000
    assert ended.epochs == len(run.history().epochs)
    assert ended.epochs * 21 <= ended.step < (ended.epochs + 1) * 21
    assert ended.test_accuracy > 0.7
    assert_its_model_is_what_it_says(run, digits)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == ended.step


# Runs that work on while others are waited for


@pytest.fixture(scope="module")
def begun(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """A run that cannot work, and one that is told to stop before it has begun."""
    failing, stopping = tmp_path_factory.mktemp("failing"), tmp_path_factory.mktemp("stopping")
    with ending_its_runs(digits_data, failing), ending_its_runs(digits_data, stopping):
        with folders(digits_data, failing):
            failed = runs.start(change(QUICK, {"model": "lenet5"}))
        with folders(digits_data, stopping):
            stopped = runs.start(ENDLESS)
            stopped.request_stop()
        yield {"failed": failed, "stopped": stopped}


@pytest.fixture
def failed(begun: dict[str, Run]) -> Run:
    wait_until(lambda: has_ended(begun["failed"]))
    return begun["failed"]


@pytest.fixture
def stopped(begun: dict[str, Run]) -> Run:
    wait_until(lambda: has_ended(begun["stopped"]))
    return begun["stopped"]


# A run whose process is killed, and that then goes on


@dataclass
class Killed:
    run: Run
    log: bytes
    status: str
    explained: str
    accuracy: float
    checkpoint_step: int


@pytest.fixture(scope="module")
def killed(begun: dict[str, Run], digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """A run that was killed after its first checkpoint, and has been resumed and is finished."""
    folder = tmp_path_factory.mktemp("killed")
    with folders(digits_data, folder), ending_its_runs(digits_data, folder):
        # Small batches make long epochs: there is time to kill it.
        with watching_launches():
            run = runs.start(change(QUICK, {"model": "mlp", "epochs": 4, "batch_size": 4, "log_every": 50}))
            process = LaunchedProcess.latest
        wait_until(run.weights.exists)
        process.send_signal(signal.SIGKILL)
        process.wait()
        history = run.history()
        (answers,) = load_classifier(run).probabilities(np.zeros((1, 8, 8, 1), np.uint8))
        killed = Killed(
            run,
            run.log.read_bytes(),
            run.status(history),
            run.explain(history),
            float(answers.sum()),
            torch.load(run.checkpoint, weights_only=True)["step"],
        )
        runs.resume(run)
        wait_until(lambda: has_ended(run))
        yield killed


def test_a_killed_run_has_died(killed: Killed) -> None:
    assert killed.status == "died"
    assert "The process of this run ended during epoch" in killed.explained
    assert killed.explained.endswith("Resume it, and it goes on from its last checkpoint.")


def test_a_killed_run_has_the_model_of_its_last_checkpoint(killed: Killed) -> None:
    assert killed.accuracy == pytest.approx(1, abs=1e-5)


def test_a_killed_run_goes_on_from_its_last_checkpoint(killed: Killed, digits: Dataset) -> None:
    run = killed.run
    assert run.status() == "finished"
    assert run.log.read_bytes().startswith(killed.log)
    added = [json.loads(line) for line in run.log.read_bytes()[len(killed.log) :].splitlines() if line]
    assert [line["record"] for line in added[:3]] == ["preparing", "resumed", "started"]
    assert added[1]["step"] == killed.checkpoint_step
    done = killed.checkpoint_step // 324
    assert 1 <= done < 4
    assert [line["epoch"] for line in added if line["record"] == "epoch"] == list(range(done + 1, 5))
    assert all(line["step"] > killed.checkpoint_step for line in added if line["record"] == "step")
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2, 3, 4]
    assert run.history().ended.epochs == 4
    assert_its_model_is_what_it_says(run, digits)


def test_a_killed_run_ends_as_one_that_was_never_killed(killed: Killed, digits: Dataset) -> None:
    training = Training(killed.run.recipe, digits, CPU)
    records = [record for record in fit(training, digits) if record]

    def without_times(logged: list) -> list[dict]:
        times = ("train_seconds", "images_per_second")
        return [{name: value for name, value in asdict(r).items() if name not in times} for r in logged]

    history = killed.run.history()
    assert without_times(history.steps) == without_times([r for r in records if isinstance(r, Step)])
    assert without_times(history.epochs) == without_times([r for r in records if isinstance(r, Epoch)])
    state = torch.load(killed.run.checkpoint, weights_only=True)
    for name, value in training.model.state_dict().items():
        assert torch.equal(state["model"][name], value), name
    for name, value in training.kept_weights().items():
        assert torch.equal(load_classifier(killed.run).model.state_dict()[name], value), name


# Other ends


def test_a_run_that_is_stopped_within_its_first_epoch_has_a_model(stopped: Run, digits: Dataset) -> None:
    run = stopped
    assert run.status() == "stopped"
    ended = run.history().ended
    assert ended.epochs == 0
    assert 1 <= ended.step < 21
    assert ended.kept == f"step {ended.step}, within epoch 1"
    assert_its_model_is_what_it_says(run, digits)


def test_a_run_that_cannot_work_says_why_in_a_sentence(failed: Run) -> None:
    run = failed
    assert run.status() == "failed"
    assert records_of(run) == ["preparing", "failed"]
    error = run.history().last.error
    assert error.startswith("lenet5 needs images of at least 28 x 28 pixels, but these are 8 x 8.")
    assert "\n" not in error
    assert run.explain(run.history()) == error
    assert run.output.read_bytes() == b""


# What a run's process does, done here


def executed(recipe: Recipe) -> Run:
    run = create_run(recipe)
    execute(run)
    return run


@pytest.fixture
def mlp(digits: Dataset) -> Recipe:
    return Recipe(model="mlp", epochs=1, batch_size=200, device="cpu", precision="float32", threads=1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "lenet5"}, "lenet5 needs images of at least 28 x 28 pixels"),
        ({"batch_size": 2000, "drop_last": True}, "Set batch_size to 1437 or less"),
        ({"validation_share": 0.0001}, "holds back 0 of the 1437 training images"),
    ],
)
def test_what_a_dataset_does_not_allow_fails_in_a_sentence(mlp: Recipe, settings: dict, reason: str) -> None:
    run = executed(change(mlp, settings))
    assert records_of(run) == ["preparing", "failed"]
    assert reason in run.history().last.error


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy"])
def test_a_dataset_with_a_file_missing_fails_in_a_sentence(mlp: Recipe, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "data" / "prepared" / "digits"
    (folder / file).unlink()
    os.utime(folder / "dataset.json", (1, 1))  # this process has it open; a run's own has not
    run = executed(mlp)
    assert run.status() == "failed"
    assert run.history().last.error.startswith("The prepared dataset digits is damaged (")
    assert "\n" not in run.history().last.error


def test_an_unexpected_error_fails_in_a_sentence_and_is_printed_whole(mlp: Recipe, capsys) -> None:
    run = create_run(mlp)
    (run.path.parent / ".cpu.lock").mkdir()  # in the way of the lock of the device
    execute(run)
    error = run.history().last.error
    assert error.startswith("Training ended with an error that Loupe did not expect: ")
    assert error.endswith(f"The whole of it is in {run.output}.")
    assert "Traceback" not in run.log.read_text()
    assert "Traceback" in capsys.readouterr().err


def test_divergence_is_told_in_a_sentence_whichever_step_it_comes_in(mlp: Recipe) -> None:
    # One step an epoch: the last one's own loss may be finite, and the answers of the weights after it not.
    diverging = change(mlp, {"optimizer": "sgd", "learning_rate": 100.0, "weight_decay": 10.0, "batch_size": 2000})
    ends = [executed(change(diverging, {"epochs": epochs})).history().last for epochs in range(1, 14)]
    assert isinstance(ends[0], Finished)
    assert isinstance(ends[-1], Failed)
    for end in ends:
        assert isinstance(end, Finished) or "diverged" in end.error


def test_predictions_of_older_weights_go_when_a_run_goes_on(mlp: Recipe) -> None:
    run = executed(mlp)
    older = run.predictions("train")
    older.write_bytes(run.predictions("test").read_bytes())
    execute(run)
    assert records_of(run)[-5:] == ["preparing", "resumed", "started", "evaluating", "finished"]
    assert not older.exists()
    assert run.predictions("test").exists()


def test_a_run_that_keeps_the_best_is_evaluated_with_the_best(mlp: Recipe) -> None:
    run = executed(change(mlp, {"validation_share": 0.1, "keep": "best", "batch_size": 50}))
    state = torch.load(run.checkpoint, weights_only=True)
    state["model"]["3.weight"].neg_()  # so that the second epoch cannot be the best
    torch.save(state, run.checkpoint)
    run.write_recipe(change(run.recipe, {"epochs": 2}))
    run = Run(run.path)
    execute(run)
    ended, (first, second) = run.history().ended, run.history().epochs
    assert second.val_accuracy < first.val_accuracy
    assert ended.kept == "epoch 1, the best of 2 by validation accuracy"
    assert ended.val_accuracy == load_predictions(run.predictions("val")).accuracy == first.val_accuracy
    for name, value in load_classifier(run).model.state_dict().items():
        assert torch.equal(value, state["best_weights"][name])


def test_a_dataset_without_a_test_split_is_trained_on(make_colours) -> None:
    make_colours(test=0)
    run = executed(Recipe(dataset="colours", model="mlp", epochs=1, device="cpu", threads=1))
    assert run.status() == "finished"
    ended = run.history().ended
    assert (ended.test_loss, ended.test_accuracy, ended.val_loss, ended.val_accuracy) == (None,) * 4


# Checkpoints


def test_a_run_with_code_in_its_checkpoint_fails_in_a_sentence_and_does_not_run_it(mlp: Recipe, trap) -> None:
    run = executed(mlp)
    with run.checkpoint.open("wb") as file:
        torch.save({"fingerprint": trap}, file)
    before = run.predictions("test").read_bytes()
    execute(run)
    assert run.status() == "failed"
    error = run.history().last.error
    assert error.startswith(f"checkpoint.pt of the run {run.id} cannot be used")
    assert "\n" not in error
    assert not trap.sprung
    assert run.predictions("test").read_bytes() == before
    torch.load(run.checkpoint, weights_only=False)["fingerprint"].close()
    assert trap.sprung, "the trap does not work"


@pytest.fixture
def checkpointed(mlp: Recipe, digits: Dataset) -> tuple[Run, Training]:
    run = create_run(mlp)
    training = Training(mlp, digits, CPU)
    next(fit(training, digits))
    save_checkpoint(run, training, digits)
    return run, training


def test_a_checkpoint_comes_back(checkpointed: tuple[Run, Training], digits: Dataset) -> None:
    run, training = checkpointed
    other = Training(run.recipe, digits, CPU)
    load_checkpoint(run, other, digits)
    assert other.step == 1
    for name, value in training.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoint.pt", "recipe.json", "weights.safetensors"]


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_a_checkpoint_with_code_is_refused(
    checkpointed: tuple[Run, Training], digits: Dataset, trap, write: Callable
) -> None:
    run, training = checkpointed
    with run.checkpoint.open("wb") as file:
        write({"fingerprint": digits.fingerprint, "model": trap}, file)
    with pytest.raises(LoupeError, match="Nothing in it was run"):
        load_checkpoint(run, training, digits)
    assert not trap.sprung


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: torch.save({}, path),
        lambda path: torch.save([1, 2], path),
    ],
    ids=["empty", "beginning", "no end", "nothing in it", "a list"],
)
def test_a_damaged_checkpoint_is_refused(checkpointed: tuple[Run, Training], digits: Dataset, damage: Callable) -> None:
    run, training = checkpointed
    damage(run.checkpoint)
    with pytest.raises(LoupeError, match=f"checkpoint.pt of the run {run.id} cannot be used"):
        load_checkpoint(run, training, digits)


def test_a_checkpoint_of_another_dataset_is_refused(checkpointed: tuple[Run, Training], make_colours) -> None:
    run, training = checkpointed
    with pytest.raises(LoupeError, match="The dataset colours has changed since"):
        load_checkpoint(run, training, make_colours())
