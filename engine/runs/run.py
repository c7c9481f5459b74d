"""A run: one training of one recipe, and all that is known of it, in a directory."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from engine.base.errors import LoupeError, reason_of
from engine.base.jobs import start_in_background
from engine.base.paths import is_locked, replacing_file, runs_root, writing_folder
from engine.base.text import join_words, pluralize
from engine.data.catalogue import find_source
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.evaluation.predictions import Predictions
from engine.recipes.recipe import Recipe, change, from_dict
from engine.recipes.weights import WANTED, RunWeights, StartingWeights, WeightsFile, parse_weights
from engine.runs.log import History
from engine.runs.records import FINAL, Cancelled, Failed, Preparing, Queued, Resumed, Stopped

ACTIVE = ("starting", "queued", "running")
# A new run may take this long until its process has its lock.
LAUNCH_SECONDS = 15
WORKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # A thread that waits spins only this long. Left alone, OpenMP's threads spin so much longer that any other work
    # on the machine, the browser that watches, say, slows a run on two cores to a fifth.
    "GOMP_SPINCOUNT": "1000",
    # Memory that a step frees is kept for the next. Left alone, glibc gives what is large back to the system each time,
    # and the pages that are then new again cost a step of resnet-fast a sixth of its time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Run:
    """The directory of a run. Its status is never stored: it follows from the log and the lock."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def made(self) -> datetime:
        """When the run was made: its id says so, or where it was renamed its directory."""
        try:
            return datetime.strptime(self.id[:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return datetime.fromtimestamp(self.path.stat().st_mtime)

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def output(self) -> Path:
        return self.path / "output.txt"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    def predictions(self, split: str) -> Path:
        return self.path / f"predictions-{split}.npz"

    def lock(self) -> FileLock:
        """Return the lock that the run's process holds as long as it lives."""
        return FileLock(self.path / "lock")

    def read_recipe(self) -> Recipe:
        """Read what the run trains, as its file says now; raises LoupeError for a damaged or missing one."""
        try:
            values = json.loads((self.path / "recipe.json").read_text())
            if not isinstance(values, dict):
                raise ValueError("it is not a JSON object")
            return from_dict(values)
        except FileNotFoundError:
            raise LoupeError(
                f"The run {self.id} has no recipe.json, so nothing is known of it. Delete the run."
            ) from None
        except Exception as error:  # json and the recipe raise whatever the damage leads to
            raise LoupeError(
                f"recipe.json of the run {self.id} cannot be used ({reason_of(error).rstrip('.')}). "
                "Restore that file, or delete the run."
            ) from error

    def write_recipe(self, recipe: Recipe) -> None:
        with writing_folder(self.path), replacing_file(self.path / "recipe.json") as beside:
            beside.write_text(json.dumps(recipe.as_dict(), indent=1) + "\n")

    def history(self) -> History:
        return History(self.log).read()

    def status(self, history: History | None = None) -> str:
        """Derive the status from the log, and from whether anybody holds the run's lock."""
        history = history or self.history()
        if isinstance(history.last, FINAL):
            return {Stopped: "stopped", Cancelled: "stopped", Failed: "failed"}.get(type(history.last), "finished")
        if not self.has_process():
            history.read()  # it may have ended between the two looks
            if isinstance(history.last, FINAL):
                return self.status(history)
            fresh = history.last is None and time.time() - self._created() < LAUNCH_SECONDS
            return "starting" if fresh else "died"
        if isinstance(history.last, Queued):
            return "queued"
        return "starting" if isinstance(history.last, Preparing | Resumed | None) else "running"

    def has_process(self) -> bool:
        """Tell whether a process executes the run: whether anybody holds its lock."""
        return is_locked(self.path / "lock")

    def _created(self) -> float:
        try:
            return (self.path / "recipe.json").stat().st_mtime
        except OSError:
            return 0.0

    def request_stop(self) -> None:
        """Ask the run to stop; its process looks for this at every step."""
        self.stop_file.touch()

    def explain(self, history: History) -> str | None:
        """Say in words why a run has no model, or none of its own choosing; None when there is nothing to say."""
        status = self.status(history)
        if isinstance(history.last, Failed):
            return history.last.error
        if isinstance(history.last, Cancelled):
            if self.checkpoint.exists():
                return "Stopped before it went on from its last checkpoint. Resume it, and it does."
            return "Stopped before its first step, so there is no model. Resume it, and it starts from the beginning."
        if status == "died":
            if not history.started:
                what = "before training began"
            elif len(history.epochs) < history.started.epochs:
                what = f"during epoch {len(history.epochs) + 1}"
            else:
                what = "during its evaluation"
            words = self.last_output()
            return (
                f"The process of this run ended {what} without a word of its own"
                + (
                    f". The end of its output: {words}"
                    if words
                    else " and printed nothing: it was killed, or memory ran out"
                )
                + (
                    ". Resume it, and it goes on from its last checkpoint."
                    if self.checkpoint.exists()
                    else ". Resume it, and it starts from the beginning."
                )
            )
        return None

    def last_output(self, characters: int = 800) -> str:
        try:
            return self.output.read_bytes()[-characters * 4 :].decode(errors="replace").strip()[-characters:]
        except OSError:
            return ""


def create_run(recipe: Recipe) -> Run:
    """Make the directory of a new run, named by time and recipe."""
    root = runs_root()
    with writing_folder(root):
        root.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{recipe.name}"
        for number in range(1, 1000):
            path = root / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            run = Run(path)
            run.write_recipe(recipe)
            return run
    raise LoupeError(f"{root} already has a thousand runs called {stem}. Wait a second and try again.")


def start_process(run: Run) -> subprocess.Popen:
    """Start the process of a run."""
    return start_in_background("engine.training.worker", str(run.path), run.output, WORKER_ENVIRONMENT)


def launch(run: Run) -> None:
    """Start the process of a run; returns once it has logged that it is there, or has ended."""
    run.stop_file.unlink(missing_ok=True)
    said = History(run.log, offset=run.log.stat().st_size if run.log.exists() else 0)
    process = start_process(run)
    deadline = time.monotonic() + LAUNCH_SECONDS
    try:
        while process.poll() is None and said.read().last is None and time.monotonic() < deadline:
            time.sleep(0.02)
    except KeyboardInterrupt:
        run.request_stop()
        raise


def starting_weights(recipe: Recipe) -> StartingWeights:
    """Tell what a recipe's network starts from, given the runs that there are."""
    return parse_weights(recipe.weights, lambda name: _find_run(name) is not None)


def weights_of_run(source: RunWeights, model: str) -> Path:
    """Return the weights that a network starts from of an earlier run, which must have trained that network."""
    try:
        run = open_run(source.name)
    except LoupeError as error:
        raise LoupeError(f"weights is {source.name!r}, but must be {WANTED}. {error}") from error
    trained = run.read_recipe().model
    if trained != model:
        raise LoupeError(
            f"The run {run.id} trained {trained}, and its weights do not fit {model}. Set model to {trained}, or "
            "choose another run."
        )
    if not run.weights.exists():
        raise LoupeError(f"The run {run.id} has no weights: it did not get as far as saving a model. Choose another.")
    return run.weights


def require_sources(recipe: Recipe) -> None:
    """Raise LoupeError for a recipe whose dataset or weights are not here and cannot be had."""
    match starting_weights(recipe):
        case WeightsFile(path=path) if not path.is_file():
            raise LoupeError(
                f"weights is {recipe.weights!r}, but there is no such file, nor a run of that name. It must be "
                f"{WANTED}: give the whole path of one."
            )
        case RunWeights() as source:
            weights_of_run(source, recipe.model)
    if not recipe.dataset:
        raise LoupeError(
            f"The recipe {recipe.name} is for images of your own. Import a folder on the Explore page, or with "
            "python -m engine import NAME PATH, then set dataset to that name."
        )
    if not is_prepared(recipe.dataset):
        find_source(recipe.dataset)


def start(recipe: Recipe) -> Run:
    """Create a run and start its process; an unknown dataset is refused."""
    require_sources(recipe)
    run = create_run(recipe)
    launch(run)
    return run


def resume(run: Run, epochs: int | None = None) -> None:
    """Start the process of a run again, to go on from its last checkpoint, or from the start where there is none.

    epochs: how many it is to have in all, where that is to be another number; a finished run needs more than it had.
    """
    history = run.history()
    status = run.status(history)
    if status in ACTIVE:
        raise LoupeError(f"The run {run.id} is still going on, so there is nothing to resume.")
    recipe = run.read_recipe()
    made = len(history.epochs)
    # Patience may have ended it early, and is given anew only to a run that is made longer than it was to be.
    had = max(made, recipe.epochs) if status == "finished" else made
    if epochs is None:
        if status == "finished":
            raise LoupeError(
                f"The run {run.id} has finished its {pluralize(made, 'epoch')}, so there is nothing to resume. "
                "To train it further, ask for more epochs."
            )
    elif epochs <= had:
        raise LoupeError(
            f"The run {run.id} has made {pluralize(made, 'epoch')} already, so it cannot end with {epochs}. "
            f"Ask for more than {had}."
        )
    elif status == "finished" and not run.checkpoint.exists():
        raise LoupeError(f"The run {run.id} has no checkpoint to go on from. Start it again from its recipe.")
    else:
        longer = change(recipe, {"epochs": epochs})
        require_same_dataset(run, history)  # or a run that has a model would end as one that failed
        run.write_recipe(longer)
    launch(run)


def require_same_dataset(run: Run, history: History) -> None:
    """Raise LoupeError for a run whose dataset is gone, or another by now."""
    dataset = open_dataset(run.read_recipe().dataset)
    if history.started and history.started.fingerprint != dataset.fingerprint:
        raise LoupeError(
            f"The dataset {dataset.name} has changed since the run {run.id} began, so it cannot go on. Bring the old "
            "dataset back, or start the recipe again."
        )


def dataset_of(run: Run, predictions: Predictions) -> Dataset:
    """Open the dataset that a run's predictions are of; raises LoupeError when it is gone, or another by now."""
    name = run.read_recipe().dataset
    if not is_prepared(name):
        raise LoupeError(
            f"The dataset {name} is not here any more, so its pictures cannot be shown; the figures stand. "
            "Get or import it again on the Explore page to see them."
        )
    dataset = open_dataset(name)
    if not predictions.match(dataset):
        raise LoupeError(
            f"The dataset {name} has changed since this run was evaluated, so its pictures cannot be shown; the "
            "figures stand. Bring the old dataset back, or train the recipe again on the dataset as it is now."
        )
    return dataset


def list_runs() -> list[Run]:
    """List all runs, newest first."""
    root = runs_root()
    if not root.is_dir():
        return []
    return [
        Run(path) for path in sorted(root.iterdir(), reverse=True) if path.is_dir() and ID_PATTERN.fullmatch(path.name)
    ]


def open_run(name: str) -> Run:
    """Find a run by its id, or by the path of its directory."""
    found = _find_run(name)
    if found:
        return found
    newest = join_words(run.id for run in list_runs()[:3])
    asked = name if len(name) <= 200 else f"{name[:200]}..."
    raise LoupeError(f"There is no run {asked!r} in {runs_root()}. The newest: {newest}.")


def _find_run(name: str) -> Run | None:
    # Compared, not looked up: the name may be anything, such as one too long for a file.
    known = {run.path: run for run in list_runs()}
    found = known.get(runs_root() / name)
    return found if found or "\0" in name else known.get(Path(name).resolve())


def delete_run(run: Run) -> None:
    """Delete a run's directory; refused while its process is alive."""
    if run.status() in ACTIVE:
        raise LoupeError(f"The run {run.id} is still going on. Stop it first, then delete it.")
    # Out of sight at once, whatever happens while its files go.
    doomed = run.path.with_name(f".deleted-{run.id}")
    run.path.rename(doomed)
    shutil.rmtree(doomed)
