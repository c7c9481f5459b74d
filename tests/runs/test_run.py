import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from processes import python

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, delete_dataset
from engine.evaluation.predictions import Predictions
from engine.recipes.recipe import RECIPES, Recipe
from engine.runs import run as runs
from engine.runs.log import Log
from engine.runs.records import (
    Cancelled,
    Epoch,
    Evaluated,
    Evaluating,
    Failed,
    Finished,
    Preparing,
    Queued,
    Record,
    Resumed,
    Started,
    Step,
    Stopped,
    to_line,
)
from engine.runs.run import LAUNCH_SECONDS, Run, create_run, dataset_of, delete_run, list_runs, open_run

STARTED = Started("digits", "abc", ["0", "1"], 100, 10, 20, 20, 10, 1000, "cpu", 2, "float32", "2.0")
ENDED = (3, 60, "epoch 3, the last", 0.5, 0.9, 0.6, 0.8, None, None, 1.5, 1000.0)


def step(number: int, seconds: float = 1.0) -> Step:
    return Step(number, (number - 1) // 20 + 1, 0.5, 0.9, 0.01, 1000.0, seconds)


def epoch(number: int, seconds: float = 1.0) -> Epoch:
    return Epoch(20 * number, number, 0.5, 0.9, 0.6, 0.8, 0.01, 1000.0, seconds)


def logged(*records: Record) -> Run:
    run = create_run(Recipe())
    run.log.write_text("".join(to_line(record) for record in records))
    return run


def launched_long_ago(run: Run) -> Run:
    then = time.time() - LAUNCH_SECONDS - 5
    os.utime(run.path / "recipe.json", (then, then))
    return run


@pytest.fixture
def hold() -> Iterator[Callable[[Run], None]]:
    """Hold a run's lock, as the process of that run would."""
    with ExitStack() as held:

        def hold(run: Run) -> None:
            held.enter_context(run.lock())

        yield hold


# Creating and finding


def test_runs_of_the_same_second_have_ids_of_their_own() -> None:
    created = [create_run(RECIPES["digits-quick"]) for _ in range(12)]
    assert len({run.id for run in created}) == 12
    assert all(run.path.is_dir() and "digits-quick" in run.id for run in created)


def test_a_recipe_comes_back_as_it_was_written() -> None:
    recipe = Recipe(name="mine", learning_rate=1 / 3, nesterov=True, epochs=7, scaling="half", validation_share=0.1)
    run = create_run(recipe)
    assert run.read_recipe() == recipe
    run.write_recipe(replace(recipe, threads=3))
    assert run.read_recipe().threads == 3
    assert [path.name for path in run.path.iterdir()] == ["recipe.json"]


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    assert list_runs() == []
    names = ["20240101-000000-a", "20231231-235959-b", "20240101-000000-a-2"]
    for name in names:
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / ".deleted-20240101-000000-c").mkdir()
    (tmp_path / "runs" / ".cpu.lock").touch()
    (tmp_path / "runs" / "notes.txt").touch()
    assert [run.id for run in list_runs()] == [names[2], names[0], names[1]]


def test_a_run_is_opened_by_its_id_and_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(Recipe())
    assert open_run(run.id) == run
    assert open_run(str(run.path)) == run
    assert open_run(f"{run.path}/") == run
    monkeypatch.chdir(tmp_path)
    assert open_run(f"runs/{run.id}") == run


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "../runs", "nope", ".deleted-x", "recipe.json", "x" * 5000, "a\0b", "~", "/", "a/../.."],
)
def test_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    newest = create_run(Recipe())
    (tmp_path / "x").mkdir()
    (tmp_path / "runs" / ".deleted-x").mkdir()
    with pytest.raises(LoupeError) as raised:
        open_run(name)
    asked = name if len(name) <= 200 else f"{name[:200]}..."
    assert str(raised.value).startswith(f"There is no run {asked!r} in ")
    assert newest.id in str(raised.value)


def test_a_directory_elsewhere_is_no_run(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / create_run(Recipe()).id
    elsewhere.mkdir(parents=True)
    with pytest.raises(LoupeError, match="There is no run"):
        open_run(str(elsewhere))


def test_a_run_without_its_recipe_is_refused() -> None:
    run = create_run(Recipe())
    (run.path / "recipe.json").unlink()
    with pytest.raises(LoupeError, match=r"has no recipe\.json"):
        run.read_recipe()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "not a JSON object"),
        ('{"epochs": 0}', "epochs is 0, but must be between 1 and 10000"),
        ('{"epochs": "5"}', "epochs is '5', but must be a whole number"),
        ('{"wings": 2}', "a field 'wings'"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_damaged_recipe_is_refused_with_the_reason(text: str, reason: str) -> None:
    run = create_run(Recipe())
    (run.path / "recipe.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LoupeError, match=reason) as raised:
        run.read_recipe()
    assert str(raised.value).startswith(f"recipe.json of the run {run.id} cannot be used (")
    assert str(raised.value).endswith("). Restore that file, or delete the run.")


# The log


def test_a_history_takes_in_what_is_new() -> None:
    run = create_run(Recipe())
    history = run.history()
    assert (history.last, history.started, history.position) == (None, None, None)
    with Log(run.log) as log:
        log.append(STARTED)
        log.append(step(10))
        assert history.read().steps == [step(10)]
        assert history.started == STARTED
        log.append(step(20))
        log.append(epoch(1))
    history.read()
    assert history.read().steps == [step(10), step(20)]
    assert history.epochs == [epoch(1)]
    assert history.last == epoch(1)
    assert history == run.history()


def test_a_line_counts_once_it_is_whole() -> None:
    run = logged(STARTED)
    line = to_line(step(10))
    history = run.history()
    with run.log.open("a") as log:
        log.write(line[:-20])
        log.flush()
        assert history.read().steps == []
        log.write(line[-20:-1])
        log.flush()
        assert history.read().steps == []
        log.write("\n")
    assert history.read().steps == [step(10)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        "{",
        "[1, 2]",
        "null",
        '{"record": "step"}',
        '{"record": "a newer kind"}',
        '"step"',
        "\udcff\udcfe",
    ],
)
def test_a_damaged_line_is_passed_over(line: str) -> None:
    run = logged(STARTED)
    with run.log.open("ab") as log:
        log.write(line.encode(errors="surrogateescape") + b"\n" + to_line(step(10)).encode())
    history = run.history()
    assert history.last == step(10)
    assert history.steps == [step(10)]


def test_a_log_goes_on_after_a_crash_in_mid_line() -> None:
    run = logged(STARTED, step(10))
    with run.log.open("ab") as crashing:
        crashing.write(to_line(step(20)).encode()[:-20])
    with Log(run.log) as log:
        log.append(step(30))
    assert run.history().steps == [step(10), step(30)]


def test_resumed_voids_what_was_logged_beyond_its_step() -> None:
    run = logged(STARTED, *[step(n) for n in (10, 20)], epoch(1), step(30), step(40), epoch(2), step(50))
    history = run.history()
    assert (len(history.steps), len(history.epochs)) == (5, 2)
    with run.log.open("a") as log:
        log.write(to_line(Resumed(30)))
    history.read()
    assert history.steps == [step(10), step(20), step(30)]
    assert history.epochs == [epoch(1)]
    assert history.position == step(30)


def evaluated(number: int, accuracy: float = 0.8) -> Evaluated:
    return Evaluated(number, "val", 0.6, accuracy)


def test_resumed_voids_evaluations_beyond_its_step_too() -> None:
    run = logged(STARTED, evaluated(10), step(20), evaluated(20), epoch(1), evaluated(30))
    assert [found.step for found in run.history().evaluations] == [10, 20, 30]
    with run.log.open("a") as log:
        log.write(to_line(Resumed(20)) + to_line(evaluated(25)))
    assert [found.step for found in run.history().evaluations] == [10, 20, 25]
    with run.log.open("a") as log:
        log.write(to_line(Resumed(0)))
    history = run.history()
    assert (history.steps, history.epochs, history.evaluations) == ([], [], [])


def test_what_is_evaluated_once_more_after_a_resumption_takes_the_place_of_the_first() -> None:
    # The checkpoint is of the step itself, taken while it was evaluated.
    again = replace(epoch(1), val_accuracy=0.9)
    history = logged(
        STARTED, step(20), evaluated(20), epoch(1), Resumed(20), STARTED, evaluated(20, accuracy=0.9), again
    ).history()
    assert history.steps == [step(20)]
    assert history.evaluations == [evaluated(20, accuracy=0.9)]
    assert history.epochs == [again]


def test_an_evaluation_does_not_move_the_position() -> None:
    assert logged(STARTED, step(10), evaluated(15)).history().position == step(10)
    assert logged(STARTED, step(10), evaluated(15)).history().last == evaluated(15)


def test_a_log_of_before_memory_was_noted_is_read() -> None:
    run = logged(STARTED, step(10), epoch(1))
    run.log.write_text(run.log.read_text().replace(', "memory_mb": 0.0', ""))
    assert "memory_mb" not in run.log.read_text()
    assert (run.history().steps, run.history().epochs) == ([step(10)], [epoch(1)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the full device is Linux's")
def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    run = create_run(Recipe())
    run.log.symlink_to("/dev/full")
    with Log(run.log) as log, pytest.raises(LoupeError, match=rf"^The disk that holds {run.path} is full\. Free some"):
        log.append(STARTED)


def test_position_is_the_latest_figure() -> None:
    assert logged(step(10), step(20), epoch(1)).history().position.step == 20
    assert logged(epoch(1), step(30)).history().position == step(30)
    assert logged(step(10), epoch(1)).history().position == epoch(1)


def test_seconds_left_go_on_at_the_pace_so_far() -> None:
    # 10 epochs of 20 steps.
    assert logged(STARTED, step(50, seconds=5.0)).history().seconds_left() == pytest.approx(15)
    assert logged(STARTED, step(50, seconds=5.0), epoch(3, seconds=9.0)).history().seconds_left() == pytest.approx(21)
    assert logged(STARTED, epoch(10, seconds=9.0)).history().seconds_left() == 0


def test_seconds_left_are_not_known_before_a_step() -> None:
    assert logged().history().seconds_left() is None
    assert logged(STARTED).history().seconds_left() is None
    assert logged(step(10)).history().seconds_left() is None


# Status


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([], "starting"),
        ([Preparing(0, 0)], "starting"),
        ([Preparing(0, 0), Queued("cpu")], "queued"),
        ([Preparing(0, 0), STARTED], "running"),
        ([STARTED, step(10)], "running"),
        ([STARTED, step(10), Evaluated(10, "test", 0.5, 0.9)], "running"),
        ([STARTED, epoch(1)], "running"),
        ([STARTED, Evaluating("test", 5, 20)], "running"),
        ([STARTED, epoch(1), Stopped(*ENDED), Preparing(0, 0)], "starting"),
        ([STARTED, epoch(1), Preparing(0, 0), Resumed(20)], "starting"),
        ([STARTED, epoch(1), Resumed(20), STARTED], "running"),
        ([Failed("no")], "failed"),
        ([STARTED, Finished(*ENDED)], "finished"),
    ],
)
def test_status_of_a_run_with_a_process(hold: Callable[[Run], None], records: list[Record], status: str) -> None:
    run = launched_long_ago(logged(*records))
    hold(run)
    assert run.status() == status


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([], "died"),
        ([Preparing(0, 0)], "died"),
        ([Preparing(0, 0), Queued("cpu")], "died"),
        ([STARTED, step(10)], "died"),
        ([STARTED, Evaluating("test", 5, 20)], "died"),
        ([STARTED, epoch(1), Stopped(*ENDED), Preparing(0, 0), Resumed(20)], "died"),
        ([STARTED, Stopped(*ENDED)], "stopped"),
        ([Queued("cpu"), Cancelled()], "stopped"),
        ([STARTED, Finished(*ENDED)], "finished"),
        ([Preparing(0, 0), Failed("no")], "failed"),
    ],
)
def test_status_of_a_run_without_a_process(records: list[Record], status: str) -> None:
    assert launched_long_ago(logged(*records)).status() == status


def test_a_run_without_a_process_is_starting_while_it_is_new() -> None:
    run = create_run(Recipe())
    assert run.status() == "starting"
    launched_long_ago(run)
    assert run.status() == "died"


@pytest.mark.processes
def test_a_lock_is_free_once_its_holder_has_ended() -> None:
    run = logged(STARTED)
    take = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire()\n"
        "print('taken', flush=True); sys.stdin.read()"
    )
    with python("-c", take, str(run.path / "lock"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "taken\n"
        assert run.has_process()
        assert run.status() == "running"
        process.kill()
        process.wait()
        assert not run.has_process()
        assert run.status() == "died"


def test_looking_for_a_process_leaves_the_lock_free() -> None:
    run = logged(STARTED)
    assert [run.has_process(), run.has_process()] == [False, False]


# In words


@pytest.mark.parametrize(
    ("records", "output", "checkpoint", "expected"),
    [
        ([], "", False, "ended before training began without a word of its own and printed nothing"),
        ([STARTED, epoch(1)], "", True, "during epoch 2"),
        ([STARTED, *[epoch(n) for n in range(1, 11)]], "", True, "ended during its evaluation without a word"),
        ([STARTED, epoch(1)], "", True, "Resume it, and it goes on from its last checkpoint."),
        ([STARTED, epoch(1)], "", False, "Resume it, and it starts from the beginning."),
        (
            [STARTED],
            "x" * 5000 + " Killed: out of memory\n",
            False,
            "xxx Killed: out of memory. Resume it, and it starts from the beginning.",
        ),
    ],
)
def test_a_run_that_died_is_explained(records: list[Record], output: str, checkpoint: bool, expected: str) -> None:
    run = launched_long_ago(logged(*records))
    run.output.write_text(output)
    if checkpoint:
        run.checkpoint.touch()
    explained = run.explain(run.history())
    assert expected in explained
    assert len(explained) < 1200


def test_what_ended_otherwise_is_explained() -> None:
    failed, cancelled, finished = logged(Failed("No such luck.")), logged(Cancelled()), logged(Finished(*ENDED))
    assert failed.explain(failed.history()) == "No such luck."
    assert "Resume it, and it starts from the beginning" in cancelled.explain(cancelled.history())
    cancelled.checkpoint.touch()
    assert "Resume it" in cancelled.explain(cancelled.history())
    assert finished.explain(finished.history()) is None


# Stopping, resuming, deleting


def test_a_stop_is_a_file() -> None:
    run = create_run(Recipe())
    assert not run.stop_file.exists()
    run.request_stop()
    run.request_stop()
    assert run.stop_file.exists()


def test_an_unknown_dataset_is_refused_before_there_is_a_run() -> None:
    with pytest.raises(LoupeError, match="There is no dataset 'nope'"):
        runs.start(Recipe(dataset="nope"))
    assert list_runs() == []


@pytest.mark.parametrize(
    ("epochs", "reason"),
    [
        (None, "has finished its 3 epochs, so there is nothing to resume. To train it further, ask for more epochs."),
        (2, "has made 3 epochs already, so it cannot end with 2. Ask for more than 5."),
        (3, "has made 3 epochs already, so it cannot end with 3. Ask for more than 5."),
        # Its patience came to an end before its epochs did: of no more than these it would make none.
        (5, "has made 3 epochs already, so it cannot end with 5. Ask for more than 5."),
        (6, "has no checkpoint to go on from. Start it again from its recipe."),
        (10_001, "epochs is 10001, but must be between 1 and 10000."),
    ],
)
def test_a_finished_run_is_resumed_for_more_epochs_alone(epochs: int | None, reason: str) -> None:
    run = logged(STARTED, epoch(1), epoch(2), epoch(3), Finished(*ENDED))
    if epochs == 10_001:
        run.checkpoint.touch()
    assert run.read_recipe().epochs == 5
    assert_not_resumed(run, epochs, reason)


@pytest.mark.parametrize("end", [Stopped(*ENDED), Failed("no"), None])
def test_a_run_does_not_end_with_fewer_epochs_than_it_has_made(end: Record | None) -> None:
    run = launched_long_ago(logged(STARTED, epoch(1), epoch(2), epoch(3), *([end] if end else [])))
    assert_not_resumed(run, 3, "has made 3 epochs already, so it cannot end with 3. Ask for more than 3.")


def assert_not_resumed(run: Run, epochs: int | None, reason: str) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name != "lock"}

    before = files()
    with pytest.raises(LoupeError) as refused:
        runs.resume(run, epochs)
    assert str(refused.value).endswith(reason)
    assert files() == before


def test_a_run_that_is_going_on_is_not_resumed(hold: Callable[[Run], None]) -> None:
    run = logged(STARTED, step(10))
    run.checkpoint.touch()
    hold(run)
    with pytest.raises(LoupeError, match="is still going on"):
        runs.resume(run)


def test_a_run_with_a_damaged_recipe_is_not_resumed() -> None:
    run = logged(STARTED, Stopped(*ENDED))
    run.checkpoint.touch()
    (run.path / "recipe.json").write_text("{")
    with pytest.raises(LoupeError, match=r"recipe\.json"):
        runs.resume(run)
    assert run.status() == "stopped"


def test_a_run_that_ended_is_deleted() -> None:
    run, other = logged(STARTED, Finished(*ENDED)), create_run(Recipe())
    delete_run(run)
    assert not run.path.exists()
    assert list_runs() == [other]
    assert [path.name for path in run.path.parent.iterdir()] == [other.id]


def test_a_run_that_is_going_on_is_not_deleted(hold: Callable[[Run], None]) -> None:
    run = logged(STARTED, step(10))
    hold(run)
    with pytest.raises(LoupeError, match="Stop it first"):
        delete_run(run)
    assert json.loads((run.path / "recipe.json").read_text())["name"] == "custom"


# The dataset behind a run's predictions


@pytest.fixture
def answered(colours: Dataset) -> tuple[Run, Predictions]:
    run = create_run(replace(Recipe(), dataset="colours"))
    labels = colours.splits["test"].labels
    shares = np.eye(3, dtype=np.float32)[labels]
    return run, Predictions(
        "test", "test", shares, labels, np.arange(30), ("red", "green", "blue"), colours.fingerprint
    )


def test_predictions_lead_to_the_dataset_that_they_are_of(answered: tuple[Run, Predictions], colours: Dataset) -> None:
    run, predictions = answered
    assert predictions.match(colours)
    assert dataset_of(run, predictions).fingerprint == colours.fingerprint


def test_a_dataset_that_was_deleted_is_told_and_that_the_figures_stand(answered: tuple[Run, Predictions]) -> None:
    delete_dataset("colours")
    with pytest.raises(LoupeError, match=r"The dataset colours is not here any more.*figures stand.*import it again"):
        dataset_of(*answered)


def test_a_dataset_that_has_changed_is_told(
    answered: tuple[Run, Predictions], make_colours: Callable[..., Dataset]
) -> None:
    changed = make_colours(test=33)
    run, predictions = answered
    assert not predictions.match(changed)
    with pytest.raises(LoupeError, match=r"The dataset colours has changed since this run was evaluated"):
        dataset_of(run, predictions)


@pytest.mark.parametrize("change", [{"indices": np.arange(1, 31)}, {"stored_in": "val"}])
def test_predictions_of_images_that_are_not_there_are_of_another_dataset(
    answered: tuple[Run, Predictions], colours: Dataset, change: dict
) -> None:
    assert not replace(answered[1], **change).match(colours)


def test_when_a_run_was_made_is_in_its_id_and_else_that_of_its_directory() -> None:
    run = create_run(Recipe())
    assert abs((datetime.now() - run.made).total_seconds()) < 60
    renamed = Run(run.path.rename(run.path.with_name("my-best")))
    os.utime(renamed.path, (1_000_000_000, 1_000_000_000))
    assert renamed.made == datetime.fromtimestamp(1_000_000_000)
