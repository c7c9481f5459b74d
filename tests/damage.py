"""What may become of a run, done to the files of one that has finished."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.evaluation.predictions import Predictions, load_predictions, save_predictions
from engine.recipes.recipe import change
from engine.runs.records import Failed, Preparing, to_line
from engine.runs.run import Run, open_run

FAILURE = "lenet5 needs images of at least 28 x 28 pixels, but these are 8 x 8. Choose another model."


def copy_of(run: Run, name: str) -> Run:
    shutil.copytree(run.path, run.path.with_name(name))
    return open_run(name)


def without_results(run: Run) -> None:
    for file in (run.checkpoint, run.weights):
        file.unlink()
    without_predictions(run)


def without_predictions(run: Run) -> None:
    for split in ("val", "test"):
        run.predictions(split).unlink()


def cut_log(run: Run, kind: str) -> None:
    """Cut a log in the middle of its last record of a kind, as a crash does."""
    log = run.log.read_bytes()
    write_log(run, log[: log.rindex(f'"record": "{kind}"'.encode()) + 20])


def write_log(run: Run, content: bytes) -> None:
    """Write a log of a run that was made long ago: without a record, it is not starting any more."""
    run.log.write_bytes(content)
    os.utime(run.path / "recipe.json", (1, 1))


def fail(run: Run) -> None:
    write_log(run, (to_line(Preparing(0, 0)) + to_line(Failed(FAILURE))).encode())
    without_results(run)


def die_in_training(run: Run) -> None:
    """Leave what there is of a run that was killed at the end of its second epoch."""
    cut_log(run, "epoch")
    without_predictions(run)


def die_at_once(run: Run) -> None:
    """Leave what there is of a run that was killed before its first checkpoint."""
    cut_log(run, "started")
    without_results(run)


def without_line(run: Run, kind: str) -> None:
    lines = run.log.read_text().splitlines(keepends=True)
    run.log.write_text("".join(line for line in lines if f'"record": "{kind}"' not in line))


def empty(run: Run) -> None:
    shutil.rmtree(run.path)
    run.path.mkdir()


def change_predictions(run: Run, change: Callable[[Predictions], dict], split: str = "test") -> Predictions:
    """Write a run's predictions for the images of a split with some of their fields changed."""
    predictions = load_predictions(run.predictions(split))
    changed = replace(predictions, **change(predictions))
    save_predictions(changed, run.predictions(split))
    return changed


def all_right(predictions: Predictions) -> dict:
    return {"labels": predictions.predicted}


def all_wrong(predictions: Predictions) -> dict:
    return {"labels": (predictions.predicted + 1) % len(predictions.classes)}


def answering(answers: np.ndarray) -> Callable[[Predictions], dict]:
    """Have a run answer classes of one's own choice, all of them with certainty."""
    return lambda predictions: {"probabilities": np.eye(len(predictions.classes), dtype=np.float32)[answers]}


def of_many_classes(predictions: Predictions, count: int = 47) -> dict:
    """Have a run tell more classes apart, of which it never answers the last three."""
    labels = np.arange(len(predictions)) % count
    probabilities = np.zeros((len(predictions), count), np.float32)
    probabilities[:, :-3] = np.random.default_rng(0).dirichlet(np.full(count - 3, 0.1), len(predictions))
    return {"classes": tuple(f"class {n}" for n in range(count)), "labels": labels, "probabilities": probabilities}


def answer_at_random(run: Run, dataset: Dataset) -> None:
    """Have a run be one on another dataset, of whose test images it answers each at random."""
    run.write_recipe(change(run.read_recipe(), {"dataset": dataset.name}))
    labels = dataset.splits["test"].labels
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(dataset.classes)), len(labels))
    answers = {
        "probabilities": probabilities.astype(np.float32),
        "labels": labels,
        "indices": np.arange(len(labels)),
        "classes": dataset.classes,
        "fingerprint": dataset.fingerprint,
    }
    change_predictions(run, lambda _: answers)


def copy_into_train(run: Run, rows: np.ndarray) -> Dataset:
    """Put exact copies of test images of the run's dataset first in its training split, as if it had been so always."""
    dataset = open_dataset(run.read_recipe().dataset)
    train, test = dataset.splits["train"], dataset.splits["test"]
    images, labels = train.images.copy(), train.labels.copy()
    images[: len(rows)], labels[: len(rows)] = test.images[rows], test.labels[rows]
    return change_dataset(run, {"train": Split(images, labels), "test": test})


def change_dataset(run: Run, splits: dict[str, Split]) -> Dataset:
    """Replace the dataset of a run, and have its predictions be of the new one."""
    dataset = open_dataset(run.read_recipe().dataset)
    save_dataset(dataset.name, dataset.classes, splits, dataset.source, dataset.kind)
    changed = open_dataset(dataset.name)
    change_predictions(run, lambda _: {"fingerprint": changed.fingerprint})
    return changed


DAMAGE: dict[str, Callable[[Run], object]] = {
    "none": lambda run: None,
    "failed": fail,
    "died in training": die_in_training,
    "died at once": die_at_once,
    "no recipe": lambda run: (run.path / "recipe.json").unlink(),
    "no JSON in the recipe": lambda run: (run.path / "recipe.json").write_text("{"),
    "a recipe of a newer Loupe": lambda run: (run.path / "recipe.json").write_text('{"wings": 2}'),
    "no weights": lambda run: run.weights.unlink(),
    "damaged weights": lambda run: run.weights.write_bytes(b"damaged"),
    "no predictions": without_predictions,
    "damaged predictions": lambda run: run.predictions("test").write_bytes(b"damaged"),
    "no log": lambda run: (write_log(run, b""), run.log.unlink()),
    "an empty log": lambda run: write_log(run, b""),
    "no text in the log": lambda run: write_log(run, bytes(range(256)) * 10),
    "no line of the beginning": lambda run: without_line(run, "started"),
    "no line of the end": lambda run: without_line(run, "finished"),
    "an empty directory": empty,
}
