"""The process that executes one run: ``python -m engine.training.worker RUN_DIRECTORY``.

Torch is imported late, so that the run's lock is held and its first record written as soon as the process is there.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from engine.base.errors import DivergedError, LoupeError, reason_of
from engine.base.machine import is_out_of_memory
from engine.base.paths import clear_unfinished_files, replacing_file, writing_folder
from engine.base.progress import run_to_end
from engine.data.catalogue import Progress
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.data.download_job import get_dataset
from engine.evaluation.predictions import load_predictions
from engine.recipes.recipe import MACHINE_FIELDS, Recipe
from engine.recipes.weights import ImageNetWeights
from engine.runs.log import Log
from engine.runs.records import (
    Cancelled,
    Epoch,
    Evaluating,
    Extracting,
    Failed,
    Finished,
    Preparing,
    Queued,
    Resumed,
    Started,
    Stopped,
)
from engine.runs.run import Run, list_runs, starting_weights

if TYPE_CHECKING:
    from engine.training.loop import Training

# Those who look whether the run's lock is held have it for less than a thousandth of this.
LOCK_SECONDS = 2
PROGRESS_EVERY_SECONDS = 0.5
CHECKPOINT_EVERY_SECONDS = 60
# Nor is one written at the end of an epoch while the last has taken more than this share of the time since: a large
# network whose head alone is trained has epochs that are shorter than its checkpoints.
SAVING_SHARE = 0.1
CHECKPOINT_FORMAT = 3
# What may differ in the recipe of a run that goes on: all else would make it neither the old training nor a new one.
MAY_CHANGE = MACHINE_FIELDS | {"name", "epochs"}


class _CancelledError(Exception):
    """The run was stopped before its first step."""


def execute(run: Run) -> None:
    """Execute a run from its recipe to its last record, whatever comes; do nothing if another process does."""
    try:
        lock = run.lock().acquire(timeout=LOCK_SECONDS)
    except Timeout:
        return
    with lock, Log(run.log) as log:
        try:
            with writing_folder(run.path):
                clear_unfinished_files(run.path)
            _prepare(run, log)
            _train_in_turn(run, log)
        except _CancelledError:
            log.append(Cancelled())
        except Exception as error:
            log.append(_failure(run, error))


def _failure(run: Run, error: Exception) -> Failed:
    """Say why a run has failed, and print what no sentence is known for."""
    if isinstance(error, DivergedError):
        return Failed(str(error), "diverged")
    if isinstance(error, LoupeError):
        return Failed(str(error), "mendable")
    if is_out_of_memory(error):
        return Failed(too_little_memory(run.read_recipe()), "memory")
    traceback.print_exception(error)
    return Failed(
        f"Training ended with an error that Loupe did not expect: {type(error).__name__}: {error}. "
        f"The whole of it is in {run.output}.",
        "unexpected",
    )


def too_little_memory(recipe: Recipe) -> str:
    batch = recipe.batch_size
    if recipe.keeps_features:
        way_out = "Choose a smaller network, or a smaller size"
    elif batch > 1:
        way_out = f"Try batch_size {batch // 2} in place of {batch}"
    else:
        way_out = "Choose a smaller model, or smaller images"
    place = "The GPU's memory" if recipe.device == "cuda" else "Memory"
    return f"{place} was not enough for a step of training. {way_out}, or end other programs that use much of it."


def _prepare(run: Run, log: Log) -> None:
    """Get the dataset and the weights to start from if they are not here."""
    recipe = run.read_recipe()
    log.append(Preparing(0, 0))
    if not is_prepared(recipe.dataset):
        _wait_for(get_dataset(recipe.dataset), run, log)
    if starting_weights(recipe) == ImageNetWeights() and not run.checkpoint.exists():
        from engine.training.pretrained import fetch_weights

        _wait_for(fetch_weights(recipe.model), run, log)


def _wait_for(download: Iterator[Progress], run: Run, log: Log) -> None:
    last = None
    for progress in download:
        import torch  # noqa: F401 - in the meantime: half of the wait for a first run

        if run.stop_file.exists():
            raise _CancelledError
        if progress != last:
            log.append(Preparing(progress.done, progress.total))
            last = progress


def _train_in_turn(run: Run, log: Log) -> None:
    """Wait for the device, then train. Runs that wait get it in the order in which they were made."""
    from engine.training import tuning  # imports torch

    recipe = tuning.choose_device(run.read_recipe())  # as far as it can be told before the device is free
    device = FileLock(run.path.parent / f".{recipe.device}.lock")
    waiting = False
    while _others_are_ahead(run) or not _acquire(device):
        if not waiting:
            log.append(Queued(recipe.device))
            waiting = True
        if run.stop_file.exists():
            raise _CancelledError
        time.sleep(0.2)
    try:
        _train(run, recipe, log)
    finally:
        device.release()


def _acquire(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _others_are_ahead(run: Run) -> bool:
    """Tell whether a run that was made earlier is waiting too."""
    return any(other.id < run.id and other.has_process() and other.status() == "queued" for other in list_runs())


def _train(run: Run, recipe: Recipe, log: Log) -> None:
    import torch

    from engine.networks.models import count_parameters
    from engine.networks.preprocessing import Preprocessing
    from engine.training import tuning
    from engine.training.loop import Training, fit
    from engine.training.pretrained import load_pretrained

    dataset = open_dataset(recipe.dataset)
    recipe = tuning.resolve(recipe, dataset)
    run.write_recipe(recipe)
    tuning.apply_settings(recipe)
    note = None
    if run.checkpoint.exists():
        state = read_checkpoint(run, recipe, dataset)
        # As it was: what the run has started from, an earlier run say, may be gone.
        seen = Preprocessing.from_dict(state["preprocessing"])
        training = Training(recipe, dataset, torch.device(recipe.device), seen)
        load_checkpoint(run, training, state)
    else:
        training = Training(recipe, dataset, torch.device(recipe.device))
        note = load_pretrained(training.model, recipe)
    if log.was_begun:
        for split in ("train", "val", "test"):  # those of the weights that are about to change
            run.predictions(split).unlink(missing_ok=True)
        log.append(Resumed(training.step))
    log.append(
        Started(
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            classes=list(dataset.classes),
            train_count=len(training.train_indices),
            val_count=len(training.val_indices),
            test_count=len(dataset.splits.get("test", ())),
            steps_per_epoch=training.steps_per_epoch,
            epochs=recipe.epochs,
            parameters=count_parameters(training.model),
            device=recipe.device,
            threads=recipe.threads,
            precision=recipe.precision,
            torch=torch.__version__,
            note=note or "",
        )
    )
    saved, took = time.monotonic(), 0.0
    stopped = False
    told = ThrottledLog(log)
    for record in fit(training, dataset):
        if isinstance(record, Extracting):
            told.append(record)
        elif record is not None:
            log.append(record)
        stopped = run.stop_file.exists() and not training.is_over
        if stopped and not training.step:
            raise _CancelledError
        since = time.monotonic() - saved
        epoch_ends = isinstance(record, Epoch) and (training.is_over or took <= SAVING_SHARE * since)
        if stopped or epoch_ends or since > CHECKPOINT_EVERY_SECONDS:
            began = time.monotonic()
            save_checkpoint(run, training, dataset)
            saved = time.monotonic()
            took = saved - began
        if stopped:
            break
    _end(run, log, training, dataset, stopped)


class ThrottledLog:
    """Progress that is logged now and then, and at its end."""

    def __init__(self, log: Log):
        self.log = log
        self.last = 0.0

    def append(self, progress: Extracting | Evaluating) -> None:
        if progress.done == progress.total or time.monotonic() - self.last > PROGRESS_EVERY_SECONDS:
            self.log.append(progress)
            self.last = time.monotonic()


def save_checkpoint(run: Run, training: Training, dataset: Dataset) -> None:
    """Write all that decides the rest of the run, and the weights that it would end with now."""
    import torch

    state = training.state_dict() | {
        "format": CHECKPOINT_FORMAT,
        "fingerprint": dataset.fingerprint,
        "recipe": training.recipe.as_dict(),
    }
    with writing_folder(run.path), replacing_file(run.checkpoint) as beside, beside.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, about the file that a failed write has left too short
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    _save_kept_weights(run, training)


def _save_kept_weights(run: Run, training: Training) -> None:
    from engine.networks.model_file import save_model

    save_model(run.weights, training.kept_weights(), training.recipe, training.preprocessing)


def read_checkpoint(run: Run, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Read a run's checkpoint, as data: code in it is refused. It must be of this recipe and dataset."""
    import torch

    try:
        # On the CPU, where random states must be; the rest is copied to wherever the model is.
        state = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        fingerprint = state["fingerprint"]
    except Exception as error:  # torch raises whatever the damage leads to
        if is_out_of_memory(error):
            raise
        raise LoupeError(
            f"checkpoint.pt of the run {run.id} cannot be used: it is damaged, or holds more than data "
            f"({type(error).__name__}). Nothing in it was run. Delete that file and start the recipe again."
        ) from error
    if state.get("format") != CHECKPOINT_FORMAT:
        raise LoupeError(
            f"checkpoint.pt of the run {run.id} was written by another version of Loupe, and this one cannot go on "
            "with it. Start the recipe again."
        )
    if fingerprint != dataset.fingerprint:
        raise LoupeError(
            f"The dataset {dataset.name} has changed since the run {run.id} began, so it cannot go on. "
            "Bring the old dataset back, or start the recipe again."
        )
    for field, value in state["recipe"].items():
        now = getattr(recipe, field, None)
        if field not in MAY_CHANGE and now != value:
            raise LoupeError(
                f"{field} was {value!r} in the training of the run {run.id} so far, but its recipe.json now says "
                f"{now!r}, and with that it cannot go on. Set it back, or start a new run with it."
            )
    return state


def load_checkpoint(run: Run, training: Training, state: dict[str, Any]) -> None:
    """Bring a training to where its run's checkpoint stands."""
    try:
        training.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise LoupeError(
            f"checkpoint.pt of the run {run.id} does not fit its recipe ({reason_of(error)}). Restore its recipe.json "
            "as it was, or start the recipe again."
        ) from error


def _end(run: Run, log: Log, training: Training, dataset: Dataset, stopped: bool) -> None:
    """Evaluate the weights that are kept, in float32, and write the last record."""
    from engine.inference.classifier import Classifier, HeadClassifier, find_split, gather, has_split
    from engine.training import tuning
    from engine.training.loop import source_of_evaluation

    # However the training was best done: evaluation works on many images at a time.
    tuning.apply_settings(replace(training.recipe, convolutions="onednn"))
    _save_kept_weights(run, training)  # an earlier process may have been killed between its checkpoint and these
    training.model.load_state_dict(training.kept_weights())
    figures: dict[str, Any] = {}
    told = ThrottledLog(log)
    for split in ("val", "test"):
        figures |= {f"{split}_loss": None, f"{split}_accuracy": None}
        if not has_split(dataset, training.recipe, split):
            continue
        extracting = source_of_evaluation(training, dataset, *find_split(dataset, training.recipe, split))
        source = run_to_end(extracting, told.append)
        kind = HeadClassifier if training.was_frozen else Classifier
        classifier = kind(source.network, training.preprocessing)
        for progress in gather(classifier, run, dataset, split, source.inputs):
            told.append(progress)
        predictions = load_predictions(run.predictions(split))
        figures |= {f"{split}_loss": predictions.loss, f"{split}_accuracy": predictions.accuracy}
    ended = Stopped if stopped else Finished
    log.append(ended(epochs=training.epoch, step=training.step, **training.kept_figures(), **figures))


if __name__ == "__main__":
    try:
        execute(Run(Path(sys.argv[1])))
    except LoupeError as error:  # of a log that cannot be written
        sys.exit(str(error))
