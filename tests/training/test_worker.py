import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from full_disk import execute_with_small_files, files_limited_to
from processes import ending_its_runs, folders, python, wait_until
from sklearn.metrics import accuracy_score, log_loss

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset
from engine.data.download import fetch
from engine.evaluation.predictions import load_predictions
from engine.inference.classifier import load_classifier
from engine.networks.model_file import save_model
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs import run as runs
from engine.runs.records import (
    Cancelled,
    Epoch,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Queued,
    Resumed,
    Step,
    Stopped,
    from_line,
    to_line,
)
from engine.runs.run import ACTIVE, Run, create_run
from engine.training import tuning
from engine.training.loop import Training, fit
from engine.training.worker import execute, load_checkpoint, read_checkpoint, save_checkpoint

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


def restore(run: Run, training: Training, dataset: Dataset) -> None:
    """Bring a training to where its run's checkpoint stands, as the worker does."""
    load_checkpoint(run, training, read_checkpoint(run, training.recipe, dataset))


def log_lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def records_of(run: Run) -> list[str]:
    return [line["record"] for line in log_lines(run)]


def assert_its_model_is_what_it_says(run: Run, dataset: Dataset, splits: Sequence[str] = ("val", "test")) -> None:
    """Hold the last record, the predictions and the weights of a run against each other and scikit-learn."""
    ended = run.history().ended
    truth = dataset.splits["test"].labels
    for split in splits:
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

queued = pytest.mark.xdist_group("queue")  # they are made once

START_ENDLESS = """
import sys
from engine.recipes import recipe as recipes
from engine.runs import run as runs
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


@queued
@pytest.mark.processes
def test_no_status_was_ever_wrong(queue: Queue) -> None:
    def but_for_short_ones(seen: list[str]) -> list[str]:
        return [status for status in seen if status != "starting"]

    assert but_for_short_ones(queue.seen["first"]) == ["queued", "running", "stopped"]
    assert but_for_short_ones(queue.seen["third"]) == ["queued", "stopped"]
    assert but_for_short_ones(queue.seen["second"]) in (["queued", "running", "finished"], ["queued", "finished"])


@queued
@pytest.mark.processes
def test_a_run_outlives_ctrl_c_on_what_started_it(queue: Queue) -> None:
    assert queue.launcher_code != 0
    assert queue.seen["first"][-2:] == ["running", "stopped"]


@queued
@pytest.mark.processes
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


@queued
@pytest.mark.processes
def test_a_run_says_what_it_trains_and_on_what(queue: Queue, digits: Dataset) -> None:
    recipe, started = queue.second.read_recipe(), queue.second.history().started
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
        "note": "",
    }
    assert recipe.precision in ("float32", "bfloat16")
    assert recipe.convolutions in ("onednn", "native")
    assert change(QUICK, {"precision": recipe.precision, "convolutions": recipe.convolutions}) == recipe


@queued
@pytest.mark.processes
def test_a_run_leaves_nothing_else_in_its_directory(queue: Queue) -> None:
    assert sorted(path.name for path in queue.second.path.iterdir()) == FILES
    assert sorted(path.name for path in queue.first.path.iterdir()) == sorted([*FILES, "stop"])
    assert queue.second.output.read_bytes() == b""


@queued
@pytest.mark.processes
def test_runs_that_wait_go_on_by_themselves_in_the_order_in_which_they_were_made(queue: Queue) -> None:
    assert records_of(queue.first)[:3] == ["preparing", "queued", "started"]
    assert records_of(queue.second)[:3] == ["preparing", "queued", "started"]
    first_ended = log_lines(queue.first)[-1]["time"]
    second_started = next(line["time"] for line in log_lines(queue.second) if line["record"] == "started")
    assert second_started >= first_ended


@queued
@pytest.mark.processes
def test_a_run_that_is_stopped_while_it_waits_is_cancelled(queue: Queue) -> None:
    run = queue.third
    assert records_of(run) == ["preparing", "queued", "cancelled"]
    assert isinstance(run.history().last, Cancelled)
    assert run.status() == "stopped"
    assert queue.second_when_third_was_stopped == "queued"
    assert "no model" in run.explain(run.history())
    with pytest.raises(LoupeError, match="has no weights"):
        load_classifier(run)


@queued
@pytest.mark.processes
def test_a_run_that_is_stopped_has_the_model_that_it_had_come_to(queue: Queue, digits: Dataset) -> None:
    run = queue.first
    assert run.status() == "stopped"
    ended = run.history().ended
    assert isinstance(ended, Stopped)
    assert 2 <= ended.epochs < 1000
    assert ended.epochs == len(run.history().epochs)
    assert ended.epochs * 21 <= ended.step <= (ended.epochs + 1) * 21
    assert ended.test_accuracy > 0.7
    assert_its_model_is_what_it_says(run, digits)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == ended.step


# Runs that go on


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute runs that are started or resumed here, at once: seconds less for each than in a process of its own."""

    def start_process(run: Run) -> SimpleNamespace:
        execute(run)
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(runs, "start_process", start_process)


def assert_it_ended_as_one_in_one_go(run: Run, dataset: Dataset) -> None:
    """Train the run's recipe here without a break, and hold its log, checkpoint and weights against that."""
    tuning.apply_settings(run.read_recipe())
    try:
        training = Training(run.read_recipe(), dataset, CPU)
        records = [record for record in fit(training, dataset) if record]
    finally:
        torch.backends.mkldnn.set_flags(True)

    def as_trained(logged: list) -> list[dict]:
        of_the_machine = ("train_seconds", "images_per_second", "memory_mb")
        return [{name: value for name, value in asdict(r).items() if name not in of_the_machine} for r in logged]

    history = run.history()
    for kind, logged in ((Step, history.steps), (Epoch, history.epochs), (Evaluated, history.evaluations)):
        assert as_trained(logged) == as_trained([record for record in records if isinstance(record, kind)])
    state = torch.load(run.checkpoint, weights_only=True)
    for name, value in training.model.state_dict().items():
        assert torch.equal(state["model"][name], value), name
    for name, value in training.kept_weights().items():
        assert torch.equal(load_classifier(run).model.state_dict()[name], value), name


@pytest.mark.slow
def test_a_finished_run_that_is_made_longer_ends_as_one_of_that_length(digits: Dataset, in_this_process: None) -> None:
    recipe = Recipe(model="mlp", optimizer="sgd", epochs=2, batch_size=100, log_every=4, device="cpu", threads=1)
    run = runs.start(recipe)
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2]
    runs.resume(run, 4)
    assert run.status() == "finished"
    assert run.history().ended.epochs == run.read_recipe().epochs == 4
    assert run.history().ended.kept == "epoch 4, the last"
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2, 3, 4]
    assert records_of(run).count("resumed") == 1
    assert load_predictions(run.predictions("test")).accuracy == run.history().ended.test_accuracy
    assert_it_ended_as_one_in_one_go(run, digits)


@pytest.mark.slow
def test_a_run_without_a_checkpoint_starts_from_the_beginning(digits: Dataset, in_this_process: None) -> None:
    recipe = Recipe(model="mlp", epochs=1, batch_size=100, log_every=5, device="cpu", threads=1, precision="float32")
    died = [Preparing(0, 0), Queued("cpu"), Step(5, 1, 0.5, 0.5, 0.1, 100.0, 1.0), Evaluated(5, "test", 0.5, 0.5)]
    ends = {"died": died, "failed": [*died, Failed("No such luck.")], "stopped": [Preparing(0, 0), Cancelled()]}
    for status, records in ends.items():
        run = create_run(recipe)
        run.log.write_text("".join(to_line(record) for record in records))
        run.request_stop()  # of before
        assert run.status() == status
        runs.resume(run)
        history = run.history()
        assert run.status(history) == "finished"
        assert [step.step for step in history.steps] == [5, 10, 15]
        assert [epoch.epoch for epoch in history.epochs] == [1]
        assert history.evaluations == []
        assert Resumed(0) in [from_line(line) for line in run.log.read_text().splitlines()]
        assert_its_model_is_what_it_says(run, digits, splits=("test",)), status


# What a run's process does, done here


def executed(recipe: Recipe) -> Run:
    run = create_run(recipe)
    execute(run)
    return run


@pytest.mark.slow
def test_a_run_that_is_stopped_within_its_first_epoch_has_a_model(digits: Dataset) -> None:
    run = create_run(ENDLESS)
    run.request_stop()
    execute(run)
    assert run.status() == "stopped"
    ended = run.history().ended
    assert ended.epochs == 0
    assert 1 <= ended.step < 21
    assert ended.kept == f"step {ended.step}, within epoch 1"
    assert_its_model_is_what_it_says(run, digits)


@pytest.fixture
def mlp(digits: Dataset) -> Recipe:
    as_machines_differ = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}
    return Recipe(model="mlp", epochs=1, batch_size=200, **as_machines_differ)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "lenet5"}, "lenet5 needs images of at least 28 x 28 pixels, but these are 8 x 8."),
        ({"batch_size": 2000, "drop_last": True}, "Set batch_size to 1437 or less"),
        ({"validation_share": 0.0001}, "holds back 0 of the 1437 training images"),
    ],
)
def test_what_a_dataset_does_not_allow_fails_in_a_sentence(
    mlp: Recipe, settings: dict, reason: str, capfd: pytest.CaptureFixture
) -> None:
    run = executed(change(mlp, settings))
    assert run.status() == "failed"
    assert records_of(run) == ["preparing", "failed"]
    error = run.history().last.error
    assert reason in error and "\n" not in error
    assert run.explain(run.history()) == error
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy"])
def test_a_dataset_with_a_file_missing_fails_in_a_sentence(mlp: Recipe, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "data" / "prepared" / "digits"
    (folder / file).unlink()
    os.utime(folder / "dataset.json", (1, 1))  # this process has it open; a run's own has not
    run = executed(mlp)
    assert run.status() == "failed"
    assert run.history().last.error.startswith("The prepared dataset digits is damaged (")
    assert run.history().last.kind == "mendable"
    assert "\n" not in run.history().last.error


def test_an_unexpected_error_fails_in_a_sentence_and_is_printed_whole(mlp: Recipe, capsys) -> None:
    run = create_run(mlp)
    (run.path.parent / ".cpu.lock").mkdir()  # in the way of the lock of the device
    execute(run)
    error = run.history().last.error
    assert run.history().last.kind == "unexpected"
    assert error.startswith("Training ended with an error that Loupe did not expect: ")
    assert error.endswith(f"The whole of it is in {run.output}.")
    assert "Traceback" not in run.log.read_text()
    assert "Traceback" in capsys.readouterr().err


def test_what_others_keep_in_its_directory_stays_and_what_a_killed_process_left_goes(mlp: Recipe) -> None:
    run = create_run(mlp)
    (run.path / ".ipynb_checkpoints").mkdir()
    (run.path / ".ipynb_checkpoints" / "recipe-checkpoint.json").write_text("{}")
    (run.path / ".recipe.json.swp").write_text("an editor's")
    (run.path / ".weights.safetensors.4711-140223").write_text("half of it")
    execute(run)
    assert run.status() == "finished"
    hidden = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if "/." in str(path))
    assert hidden == [".ipynb_checkpoints", ".ipynb_checkpoints/recipe-checkpoint.json", ".recipe.json.swp"]


def test_a_directory_that_cannot_be_cleared_fails_in_a_sentence(mlp: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(mlp)
    left = run.path / ".recipe.json.4711-140223"
    left.write_text("half of it")
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:  # as a file system that is read-only
        if path == left:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    execute(run)
    assert run.status() == "failed"
    assert run.history().last.error.startswith(f"{run.path} cannot be written (Read-only file system). ")


@pytest.mark.slow
def test_divergence_is_told_in_a_sentence_whichever_step_it_comes_in(mlp: Recipe) -> None:
    # One step an epoch: the last one's own loss may be finite, and the answers of the weights after it not.
    diverging = change(mlp, {"optimizer": "sgd", "learning_rate": 100.0, "weight_decay": 10.0, "batch_size": 2000})
    ends = [executed(change(diverging, {"epochs": epochs})).history().last for epochs in range(1, 14)]
    assert isinstance(ends[0], Finished)
    assert isinstance(ends[-1], Failed)
    for end in ends:
        assert isinstance(end, Finished) or ("diverged" in end.error and end.kind == "diverged")


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
    run.write_recipe(change(run.read_recipe(), {"epochs": 2}))
    execute(run)
    ended, (first, second) = run.history().ended, run.history().epochs
    assert second.val_accuracy < first.val_accuracy
    assert ended.kept == "epoch 1, the best of 2 by validation accuracy"
    assert ended.val_accuracy == load_predictions(run.predictions("val")).accuracy == first.val_accuracy
    for name, value in load_classifier(run).model.state_dict().items():
        assert torch.equal(value, state["best_weights"][name])


@pytest.mark.slow
def test_a_dataset_without_a_test_split_is_trained_on(make_colours) -> None:
    make_colours(test=0)
    run = executed(Recipe(dataset="colours", model="mlp", epochs=1, device="cpu", threads=1))
    assert run.status() == "finished"
    ended = run.history().ended
    assert (ended.test_loss, ended.test_accuracy, ended.val_loss, ended.val_accuracy) == (None,) * 4


@pytest.mark.slow
def test_a_table_is_trained_on_and_evaluated() -> None:
    fetch("blobs")
    run = executed(change(find_recipe("blobs-mlp"), {"device": "cpu"}))
    history = run.history()
    assert run.status(history) == "finished"
    assert [(evaluated.step, evaluated.split) for evaluated in history.evaluations] == [
        (14 * epoch, "test") for epoch in range(1, 11)
    ]
    last = history.evaluations[-1]
    assert (history.ended.test_loss, history.ended.test_accuracy) == pytest.approx((last.loss, last.accuracy))
    assert history.ended.test_accuracy == load_predictions(run.predictions("test")).accuracy > 0.9
    with pytest.raises(LoupeError, match="This model classifies rows of 4 numbers, not pictures"):
        load_classifier(run).classify(np.zeros((8, 8, 1), np.uint8))


# Too little memory, and full disks

EXECUTED_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
import engine.inference.classifier, engine.training.loop, engine.training.tuning
from engine.runs.run import Run
from engine.training.worker import execute

torch.set_num_threads(1)
torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 9, 9)).sum().backward()
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
execute(Run(Path(sys.argv[1])))
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("batch_size", "way_out"),
    [
        (600, "Try batch_size 300 in place of 600"),
        pytest.param(1, "Choose a smaller model, or smaller images", marks=pytest.mark.sweep),
    ],
)
def test_too_little_memory_is_told_with_a_way_out(make_colours, batch_size: int, way_out: str) -> None:
    # The first convolution of 600 such images makes 314 MB; that of one large image 268 MB.
    side = {600: 64, 1: 1448}[batch_size]
    make_colours(train=max(batch_size, 3), test=0, height=side, width=side)
    settings = {"device": "cpu", "threads": 1, "precision": "float32", "convolutions": "onednn"}
    run = create_run(Recipe(dataset="colours", model="convnet", batch_size=batch_size, epochs=1, **settings))
    with python("-c", EXECUTED_WITH_LITTLE_MEMORY, str(run.path), "200_000_000", stderr=subprocess.PIPE) as process:
        _, printed = process.communicate()
    assert (process.returncode, printed) == (0, "")
    assert run.status() == "failed"
    assert run.history().last.kind == "memory"
    assert run.history().last.error == (
        f"Memory was not enough for a step of training. {way_out}, or end other programs that use much of it."
    )
    assert records_of(run)[-1] == "failed"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_checkpoint_that_the_disk_has_no_room_for_leaves_the_old_one_whole(
    mlp: Recipe, digits: Dataset, share: float
) -> None:
    run = executed(mlp)
    before = {path.name: path.read_bytes() for path in (run.checkpoint, run.weights)}
    longer = Training(change(run.read_recipe(), {"epochs": 2}), digits, CPU)
    restore(run, longer, digits)
    next(fit(longer, digits))
    with files_limited_to(int(share * run.checkpoint.stat().st_size)), pytest.raises(LoupeError) as raised:
        save_checkpoint(run, longer, digits)
    assert str(raised.value).startswith(f"{run.path} cannot be written (File too large). ")
    assert {path.name: path.read_bytes() for path in (run.checkpoint, run.weights)} == before
    assert not list(run.path.glob(".*"))
    again = Training(mlp, digits, CPU)
    restore(run, again, digits)
    assert again.step == 8


def test_weights_that_the_disk_has_no_room_for_are_told_in_a_sentence(mlp: Recipe, digits: Dataset) -> None:
    training = Training(mlp, digits, CPU)
    run = create_run(mlp)
    with files_limited_to(20_000), pytest.raises(LoupeError, match=r"cannot be written \(File too large\)"):
        save_model(run.weights, training.kept_weights(), training.recipe, training.preprocessing)
    assert [path.name for path in run.path.iterdir()] == ["recipe.json"]


@pytest.mark.slow
def test_a_run_whose_checkpoint_finds_no_room_fails_and_goes_on_once_there_is_some(
    mlp: Recipe, digits: Dataset
) -> None:
    run = executed(mlp)
    before = run.checkpoint.read_bytes(), run.weights.read_bytes()
    run.write_recipe(change(run.read_recipe(), {"epochs": 2}))
    with files_limited_to(50_000):
        execute(run)
    assert records_of(run)[-5:] == ["preparing", "resumed", "started", "epoch", "failed"]
    assert run.history().last.error.startswith(f"{run.path} cannot be written (File too large). ")
    assert (run.checkpoint.read_bytes(), run.weights.read_bytes()) == before
    assert_it_goes_on_to_its_end(run, digits)


def assert_it_goes_on_to_its_end(run: Run, dataset: Dataset) -> None:
    execute(run)
    assert run.status() == "finished"
    assert [epoch.epoch for epoch in run.history().epochs] == [1, 2]
    assert_it_ended_as_one_in_one_go(run, dataset)


@pytest.mark.processes
def test_a_run_whose_log_finds_no_room_ends_with_a_sentence_in_its_output(mlp: Recipe, digits: Dataset) -> None:
    run = executed(mlp)
    run.write_recipe(change(run.read_recipe(), {"epochs": 2}))
    # Of the files that are written the log becomes the largest: a few records fit in, and those of the end do not.
    line = to_line(Preparing(0, 0))
    with run.log.open("a") as log:
        log.write(line * (200_000 // len(line)))
    assert execute_with_small_files(run, limit=run.log.stat().st_size + 300) == 1
    (said,) = run.output.read_text().splitlines()
    assert said.startswith(f"{run.path} cannot be written (File too large). ")
    history = run.history()
    assert run.status(history) == "died"
    assert said in run.explain(history)
    assert_it_goes_on_to_its_end(run, digits)


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
    other = Training(run.read_recipe(), digits, CPU)
    restore(run, other, digits)
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
        restore(run, training, digits)
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
        restore(run, training, digits)


@pytest.mark.parametrize("number", [2, 4, "3", None])
def test_a_checkpoint_of_another_format_is_refused(
    checkpointed: tuple[Run, Training], digits: Dataset, number: object
) -> None:
    run, training = checkpointed
    state = torch.load(run.checkpoint, weights_only=True)
    state["format"] = number
    if number is None:
        del state["format"]
    torch.save(state, run.checkpoint)
    with pytest.raises(LoupeError) as refused:
        restore(run, training, digits)
    assert str(refused.value) == (
        f"checkpoint.pt of the run {run.id} was written by another version of Loupe, and this one cannot go on with "
        "it. Start the recipe again."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, what is said to be on one is loaded there")
def test_a_checkpoint_of_a_gpu_is_loaded_where_there_is_none(
    mlp: Recipe, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = change(mlp, {"validation_share": 0.1, "keep": "best"})
    run = create_run(chosen)
    training = Training(chosen, digits, CPU)
    for record in fit(training, digits):
        if isinstance(record, Epoch):
            with monkeypatch.context() as patch:
                patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
                save_checkpoint(run, training, digits)
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        torch.load(run.checkpoint, weights_only=True)
    other = Training(chosen, digits, CPU)
    restore(run, other, digits)
    assert_the_same_and_on(other, training, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_checkpoint_is_loaded_to_where_the_training_is(mlp: Recipe, digits: Dataset, first: str, then: str) -> None:
    chosen = change(mlp, {"validation_share": 0.1, "keep": "best", "epochs": 2, "augment": "shift=1"})
    run = create_run(chosen)
    training = Training(change(chosen, {"device": first}), digits, torch.device(first))
    next(record for record in fit(training, digits) if isinstance(record, Epoch))
    save_checkpoint(run, training, digits)
    other = Training(change(chosen, {"device": then}), digits, torch.device(then))
    restore(run, other, digits)
    assert_the_same_and_on(other, training, then)
    for _ in fit(other, digits):
        pass
    assert other.epoch == 2


def assert_the_same_and_on(one: Training, other: Training, device: str) -> None:
    for name, value in other.model.state_dict().items():
        assert torch.equal(one.model.state_dict()[name].cpu(), value.cpu())
        assert torch.equal(one.best_weights[name].cpu(), other.best_weights[name].cpu())
        assert one.model.state_dict()[name].device.type == device
    ours, theirs = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys() and len(ours) == 4
    for number, state in theirs.items():
        for name, value in state.items():
            assert torch.equal(ours[number][name].cpu(), value.cpu())
            assert ours[number][name].device.type == device
    assert (one.step, one.epoch, one.best) == (other.step, other.epoch, other.best)


def test_a_checkpoint_of_another_dataset_is_refused(checkpointed: tuple[Run, Training], make_colours) -> None:
    run, training = checkpointed
    with pytest.raises(LoupeError, match="The dataset colours has changed since"):
        restore(run, training, make_colours())


@pytest.mark.parametrize(("field", "value"), [("batch_size", 7), ("learning_rate", 0.5), ("validation_share", 0.2)])
def test_a_run_whose_recipe_was_edited_does_not_go_on(digits: Dataset, field: str, value: object) -> None:
    run = create_run(QUICK)
    save_checkpoint(run, Training(QUICK, digits, CPU), digits)
    edited = Training(change(QUICK, {field: value}), digits, CPU)
    with pytest.raises(LoupeError, match=f"^{field} was .* now says {value}, and with that it cannot go on"):
        restore(run, edited, digits)


def test_a_run_may_go_on_with_more_epochs_and_other_threads(digits: Dataset) -> None:
    run = create_run(QUICK)
    save_checkpoint(run, Training(QUICK, digits, CPU), digits)
    restore(run, Training(change(QUICK, {"epochs": 9, "threads": 2}), digits, CPU), digits)
