"""What can be asked about a recipe before it is trained, answered as a job of its own."""

import hashlib
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.base.errors import LoupeError
from engine.base.jobs import Job, delete_old_jobs, find_job, run_job, start_job
from engine.base.paths import runs_root
from engine.data.dataset import Dataset, open_dataset
from engine.data.download_job import get_dataset
from engine.recipes.recipe import Recipe, from_dict
from engine.recipes.weights import ImageNetWeights, RunWeights, WeightsFile
from engine.runs.records import Extracting, Step
from engine.runs.run import WORKER_ENVIRONMENT, open_run, require_sources, starting_weights

QUESTIONS = ("rehearse", "find-rate")
# Later the machine may be as busy, and its memory as full, as it likes.
KEPT_SECONDS = 3600


def answer(question: str, recipe: Recipe) -> Generator[str, None, Any]:
    """Answer a question about a recipe, yielding what is being done in words; returns plain data.

    rehearse: the checks, a list of ``name verdict text``. find-rate: the curve, as ``RateCurve.as_document`` has it.
    What the recipe needs is downloaded first. Raises LoupeError where it cannot be answered.
    """
    require_sources(recipe)
    yield from _downloads(recipe)
    return (yield from {"rehearse": _rehearse, "find-rate": _find_rate}[question](recipe))


def _downloads(recipe: Recipe) -> Generator[str, None, None]:
    from engine.training.pretrained import fetch_weights

    downloads = [get_dataset(recipe.dataset)]
    if starting_weights(recipe) == ImageNetWeights():
        downloads.append(fetch_weights(recipe.model))
    for download in downloads:
        for progress in download:
            if progress.total:
                yield f"downloading: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"


def _as_it_would_run(recipe: Recipe) -> tuple[Recipe, Dataset]:
    """Settle how this machine runs a recipe, and set this process up for it."""
    from engine.training import tuning

    dataset = open_dataset(recipe.dataset)
    recipe = tuning.resolve(tuning.choose_device(recipe), dataset)
    tuning.apply_settings(recipe)
    return recipe, dataset


def _rehearse(recipe: Recipe) -> Generator[str, None, list[dict[str, Any]]]:
    from engine.advice.rehearsal import rehearse

    recipe, dataset = _as_it_would_run(recipe)
    checks = yield from rehearse(recipe, dataset)
    return [check.as_document() for check in checks]


def _find_rate(recipe: Recipe) -> Generator[str, None, dict[str, Any]]:
    import torch

    from engine.advice.rate_finder import find_learning_rate
    from engine.base.machine import is_out_of_memory
    from engine.training.loop import Training
    from engine.training.pretrained import load_pretrained
    from engine.training.worker import too_little_memory

    recipe, dataset = _as_it_would_run(recipe)
    try:
        training = Training(recipe, dataset, torch.device(recipe.device))
        load_pretrained(training.model, recipe)
        curve = yield from _in_words(find_learning_rate(training, dataset))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise LoupeError(too_little_memory(recipe)) from error
    return curve.as_document()


def _in_words(steps: Generator[Step | Extracting, None, Any]) -> Generator[str, None, Any]:
    from engine.advice.rate_finder import RATES

    while True:
        try:
            record = next(steps)
        except StopIteration as end:
            return end.value
        if isinstance(record, Extracting):
            yield f"features of {record.done:,} of {record.total:,} images"
        else:
            yield f"step {record.step:,}, {RATES} rates at most"


def ask(question: str, recipe: Recipe) -> None:
    """Start to answer a question about a recipe in the background; raises LoupeError for what can be told at once."""
    require_sources(recipe)
    delete_old_jobs(_root(), KEPT_SECONDS)
    request = {"question": question, "recipe": recipe.as_dict()}
    start_job(_place(question, recipe), "engine.advice.advice_job", request, WORKER_ENVIRONMENT)


def find_answer(question: str, recipe: Recipe) -> Job | None:
    """Return the job that answers a question about a recipe, or has answered it; None where nobody has asked."""
    job = find_job(_place(question, recipe))
    return job if job and (datetime.now() - job.started).total_seconds() < KEPT_SECONDS else None


def _sources(recipe: Recipe) -> Iterator[object]:
    """Yield what tells the data and the weights that a recipe names from others that were called so before."""
    with suppress(LoupeError):  # it is not here
        yield open_dataset(recipe.dataset).fingerprint
    match starting_weights(recipe):
        case WeightsFile(path):
            yield _changed(path)
        case RunWeights(name):
            with suppress(LoupeError):
                yield _changed(open_run(name).weights)


def _changed(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _root() -> Path:
    return runs_root() / ".advice"


def _place(question: str, recipe: Recipe) -> Path:
    if question == "find-rate":  # it tries them all, whichever the recipe has
        recipe = replace(recipe, learning_rate=1.0)
    about = [recipe.as_dict(), *_sources(recipe)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return _root() / f"{question}-{digest[:16]}"


def execute(folder: Path) -> None:
    """Answer what was asked."""
    run_job(folder, lambda request: answer(request["question"], from_dict(request["recipe"])))


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
