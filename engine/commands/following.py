"""A run followed from the command line: its progress until it has ended, then what came of it."""

import time

from engine.base.text import pluralize
from engine.commands.command import Outcome
from engine.commands.progress import tell
from engine.recipes.recipe import published, published_in_words
from engine.runs.log import History
from engine.runs.records import Epoch, Evaluating, Extracting, Preparing, Record, Started, Step
from engine.runs.run import ACTIVE, Run

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def follow(run: Run) -> Outcome:
    """Tell what a run does until it has ended, then sum it up."""
    history = run.history()
    told: Record | str | None = None
    epochs_told = len(history.epochs)
    announced = stopping = False
    while True:
        try:  # of all that follows: Ctrl+C may come as soon as the run is told
            if not announced:
                announced = True
                tell(f"run {run.id}")
            status = run.status(history.read())
            for epoch in history.epochs[epochs_told:]:  # each, however fast; of the rest, the latest
                tell(_progress_line(epoch, history))
            epochs_told = len(history.epochs)
            now = status if status == "queued" else history.last
            if now != told:
                told = now
                if not isinstance(now, Epoch) and (line := _progress_line(now, history)):
                    tell(line)
            if status not in ACTIVE:
                return _sum_up(run, history)
            time.sleep(0.1)
        except KeyboardInterrupt:
            if stopping:
                raise
            stopping = True
            run.request_stop()
            tell("stopping; the model so far is kept and evaluated (Ctrl+C again leaves it to finish that alone)")


def _progress_line(now: Record | str | None, history: History) -> str:
    match now:
        case "queued":
            return "queued: another run has the device"
        case Preparing(done=done, total=total):
            return f"getting the dataset: {done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else "getting ready"
        case Started():
            held = f", {now.val_count:,} validation" if now.val_count else ""
            return (
                f"{now.train_count:,} training{held} and {now.test_count:,} test images; "
                f"{now.parameters:,} parameters; {now.device}, {pluralize(now.threads, 'thread')}, {now.precision}"
                + (f". {now.note}" if now.note else "")
            )
        case Step():
            left = history.seconds_left() or 0
            return (
                f"epoch {now.epoch} step {now.step:,}: loss {now.train_loss:.4f}, accuracy {now.train_accuracy:.2%}, "
                f"{now.images_per_second:,.0f} images/s, {left:.0f} s left"
            )
        case Epoch():
            validation = f", validation accuracy {now.val_accuracy:.2%}" if now.val_accuracy is not None else ""
            return f"epoch {now.epoch}: loss {now.train_loss:.4f}, accuracy {now.train_accuracy:.2%}{validation}"
        case Extracting():
            return f"features: {now.done:,} of {now.total:,} images"
        case Evaluating():
            return f"evaluating {now.split}: {now.done:,} of {now.total:,} images"
    return ""


def _sum_up(run: Run, history: History) -> Outcome:
    recipe, status, ended = run.read_recipe(), run.status(history), history.ended
    summary: dict[str, object] = {
        "run": run.id,
        "status": status,
        "epochs": ended.epochs if ended else len(history.epochs),
    }
    for metric in (*METRICS, "train_seconds", "images_per_second"):
        summary[metric] = getattr(ended, metric) if ended else None
    summary["published"] = published(recipe)
    reason = run.explain(history)
    if reason:
        summary["error"] = reason
    if not ended:
        tell(f"{status}: {reason}")
        return Outcome(summary, f"{run.id}: {status}", 0 if status == "stopped" else 1)
    text = f"{run.id}: {status}, epochs {ended.epochs}, {ended.train_seconds:.1f} s of training; kept: {ended.kept}\n"
    text += ", ".join(f"{name} {summary[name]:.4f}" for name in METRICS if summary[name] is not None)
    if figures := published_in_words(recipe):
        text += f"\npublished: {figures}"
    return Outcome(summary, text)
