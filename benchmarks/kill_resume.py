"""Kill a run's process again and again, resume it, and compare what it ends with to a run that was never killed.

    python -m benchmarks.kill_resume [--kills 25] [--recipe digits-quick] [--epochs 60] [--seed 0]

Each run is killed with SIGKILL at a moment drawn evenly from the time that the run took that was not killed, from the
start of its process to its end: while it imports torch, trains, saves or evaluates. It is then resumed, and must come
to the same weights, probabilities and logged figures, bit by bit, times and memory aside. All train in one thread, in
float32 on the CPU, so that nothing is left to what a machine finds quickest. Exits with 1 if any run ends otherwise.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file

from benchmarks.environment import describe_machine
from engine.data.download_job import get_dataset
from engine.evaluation.predictions import load_predictions
from engine.recipes.recipe import RECIPES, change, find_recipe
from engine.runs.records import Record
from engine.runs.run import ACTIVE, Run, create_run, resume, start_process

FIXED = {"device": "cpu", "threads": 1, "precision": "float32", "convolutions": "onednn"}
MEASURED = ("train_seconds", "images_per_second", "memory_mb")  # they differ from one run to the next


def differences(run: Run, other: Run) -> list[str]:
    """Name what two runs do not have in common, bit by bit, of what they logged, their weights and predictions."""
    found, expected = _outcome(run), _outcome(other)
    return [name for name in sorted(found | expected) if found.get(name) != expected.get(name)]


def _outcome(run: Run) -> dict[str, object]:
    history = run.history()
    outcome: dict[str, object] = {
        "steps": [_figures(step) for step in history.steps],
        "epochs": [_figures(epoch) for epoch in history.epochs],
        "evaluations": [_figures(evaluated) for evaluated in history.evaluations],
        "last record": history.last and _figures(history.last),
    }
    if run.weights.exists():
        outcome |= {f"weight {name}": _bits(value) for name, value in load_file(run.weights).items()}
    for file in run.path.glob("predictions-*.npz"):
        predictions = load_predictions(file)
        outcome[file.name] = [_bits(a) for a in (predictions.probabilities, predictions.labels, predictions.indices)]
    return outcome


def _figures(record: Record) -> tuple[type, dict]:
    return type(record), {name: value for name, value in asdict(record).items() if name not in MEASURED}


def _bits(array: np.ndarray) -> tuple:
    return array.dtype, array.shape, array.tobytes()


@contextmanager
def temporary_runs() -> Iterator[None]:
    """Keep the runs of what is done inside in a folder that is deleted afterwards."""
    before = os.environ.get("LOUPE_RUNS")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["LOUPE_RUNS"] = folder
        try:
            yield
        finally:
            os.environ.pop("LOUPE_RUNS")
            if before is not None:
                os.environ["LOUPE_RUNS"] = before


def wait_for_end(run: Run) -> str:
    while (status := run.status()) in ACTIVE:
        time.sleep(0.05)
    return status


def under_way(run: Run) -> str:
    """Say what a run was doing when its process was killed."""
    history = run.history()
    if history.last is None:
        return "starting, nothing logged"
    what = type(history.last).__name__.lower()
    if history.started and history.last != history.ended:
        what += f", {len(history.epochs)} of {history.started.epochs} epochs"
    files = [path.name.rpartition(".")[0].removeprefix(".") for path in run.path.glob(".*")]
    return what + "".join(f", writing {name}" for name in files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--recipe", default="digits-quick", choices=RECIPES)
    parser.add_argument("--epochs", type=int, default=60, help="enough for most kills to come within the training")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of the kills")
    args = parser.parse_args()
    recipe = change(find_recipe(args.recipe), FIXED | {"epochs": args.epochs})
    for _ in get_dataset(recipe.dataset):
        pass
    print(describe_machine())

    with temporary_runs():
        began = time.monotonic()
        reference = create_run(recipe)
        process = start_process(reference)  # not launched: a kill may come before its first record
        status = wait_for_end(reference)
        seconds = time.monotonic() - began
        process.wait()
        if status != "finished":
            raise SystemExit(reference.explain(reference.history()))
        print(f"{recipe.name}, {recipe.epochs} epochs: {seconds:.1f} s without a kill")
        print(f"{'kill':>4} {'at, s':>6}  {'result':7} last record", flush=True)

        moments = random.Random(args.seed)
        equal = ended_before = 0
        for number in range(1, args.kills + 1):
            began, moment = time.monotonic(), moments.uniform(0, seconds)
            run = create_run(recipe)
            process = start_process(run)
            time.sleep(max(0.0, began + moment - time.monotonic()))
            ended_before += run.status() == "finished"
            process.kill()
            process.wait()
            what = under_way(run)
            if wait_for_end(run) == "died":
                resume(run)
                wait_for_end(run)
            differing = differences(run, reference)
            equal += not differing
            result = "differs" if differing else "equal"
            print(f"{number:4} {moment:6.2f}  {result:7} {what}", flush=True)
            if differing:
                print(f"{'':13}differing: {', '.join(differing)}")
    print(
        f"{equal} of {args.kills} runs are equal to the one that was never killed, bit by bit; "
        f"{ended_before} of them had ended before their kill."
    )
    return int(equal < args.kills)


if __name__ == "__main__":
    sys.exit(main())
