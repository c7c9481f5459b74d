"""The command line: ``python -m engine COMMAND``. The headless twin of the pages, over the same engine."""

import argparse
import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.audit.inspection import DEFAULT_THRESHOLD, MAX_DISTANCE, as_document, inspect, load_inspection
from engine.base.errors import LoupeError, reason_of
from engine.base.paths import weights_folder
from engine.base.progress import run_to_end
from engine.base.text import format_bytes, format_probability, join_words, pluralize, printable
from engine.data import catalogue
from engine.data.dataset import Dataset, is_prepared, open_dataset
from engine.data.source_files import BAD_FILES, original_sizes, read_bad_files
from engine.evaluation import comparison
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.summary import evaluation
from engine.images.pictures import FITS
from engine.importing.plan import DEFAULT_TEST_SHARE, Plan, Request, check_request, plan_import
from engine.importing.write import import_dataset
from engine.recipes import recipe as recipes
from engine.recipes.backbones import rank_for_images
from engine.recipes.recipe import published, published_in_words
from engine.recipes.weights import ImageNetWeights
from engine.runs import run as runs
from engine.runs.log import History
from engine.runs.records import Epoch, Evaluating, Extracting, Preparing, Record, Started, Step
from engine.runs.run import ACTIVE, WORKER_ENVIRONMENT, Run

PAIRS_TOLD = 10
CLASSES_TOLD = 10


def say(text: str) -> None:
    """Tell progress, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def _now_and_then(in_words: Callable[[Any], str]) -> Callable[[Any], None]:
    """Return what tells progress once a second."""
    said = 0.0

    def tell(progress: Any) -> None:
        nonlocal said
        if time.monotonic() - said > 1:
            say(in_words(progress))
            said = time.monotonic()

    return tell


def list_datasets(args: argparse.Namespace) -> tuple[object, str, int]:
    """What there is, where each comes from, whether it is here."""
    datasets = catalogue.describe_datasets()
    lines = [
        f"{dataset['name']:15} {'here' if dataset['present'] else 'not here':9} {dataset['about']}"
        for dataset in datasets
    ]
    return datasets, "\n".join(lines), 0


def get_dataset(args: argparse.Namespace) -> tuple[object, str, int]:
    """Fetch and prepare one dataset."""
    said = 0.0
    for progress in catalogue.get_dataset(args.name):
        if progress.total and time.monotonic() - said > 1:
            until = "" if progress.seconds_left is None else f", {progress.seconds_left:,.0f} s left"
            say(f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB{until}")
            said = time.monotonic()
    dataset = open_dataset(args.name)
    images = {split: len(stored) for split, stored in dataset.splits.items()}
    counts = join_words(pluralize(count, f"{split} image") for split, count in images.items())
    return (
        {"name": dataset.name, "present": True, "images": images, "source": dataset.source},
        f"{dataset.name}: {counts} of {len(dataset.classes)} classes",
        0,
    )


def import_pictures(args: argparse.Namespace) -> tuple[object, str, int]:
    """Make a dataset of a folder, a zip or a CSV manifest of pictures."""
    request = Request(args.name, args.path, args.test, args.size, args.fit, args.test_share, args.seed)
    if args.dry_run:
        check_request(request)
        plan = run_to_end(plan_import(request), lambda progress: None)
        return {"name": args.name} | plan.as_document(), "\n".join(_plan_lines(args.name, plan)), 0
    # Ended so too, it leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = run_to_end(import_dataset(request), _now_and_then(lambda progress: progress.in_words()))
    dataset = open_dataset(args.name)
    images = {split: len(stored) for split, stored in dataset.splits.items()}
    counts = join_words(pluralize(count, f"{split} image") for split, count in images.items())
    height, width, channels = dataset.image_shape
    text = f"{dataset.name}: {counts} of {len(dataset.classes)} classes, {width} x {height} pixels"
    if dataset.bad_file_count:
        text += f"; {pluralize(dataset.bad_file_count, 'bad file')} left out, listed in {dataset.folder / BAD_FILES}"
    text += "".join(f"\n{note[0].upper()}{note[1:]}." for note in plan.notes)
    document = {
        "name": dataset.name,
        "present": True,
        "notes": list(plan.notes),
        "classes": list(dataset.classes),
        "images": images,
        "image_shape": [height, width, channels],
        "bad_files": dataset.bad_file_count,
        "source": dataset.source,
    }
    return document, text, 0


def _plan_lines(name: str, plan: Plan) -> Iterator[str]:
    yield f"{name}: {plan.layout}"
    for split, numbers in plan.counts.items():
        by_class = ", ".join(
            f"{printable(label)} {count:,}" for label, count in zip(plan.classes, numbers, strict=True)
        )
        yield f"{split:6} {pluralize(sum(numbers), 'image')}: {by_class}"
    yield from plan.in_words()
    yield "nothing was written"


def check(args: argparse.Namespace) -> tuple[object, str, int]:
    """Look for copies, test images that are in train too, and odd images."""
    if not 0 <= args.threshold <= MAX_DISTANCE:
        raise LoupeError(f"--threshold is {args.threshold}, but must be between 0 and {MAX_DISTANCE} bits.")
    dataset = open_dataset(args.name)
    inspection = load_inspection(dataset)
    if inspection is None:
        steps = inspect(dataset, original_sizes(dataset))
        inspection = run_to_end(steps, _now_and_then(lambda at: f"{at.stage}: {at.done:,} of {at.total:,}"))
    document = as_document(dataset, inspection, args.threshold, read_bad_files(dataset))
    lines = [
        f"{dataset.name}: {len(document['exact']):,} pairs of exact copies, {len(document['near']):,} of near copies "
        f"(up to {args.threshold} bits apart), {len(document['odd']):,} odd images, "
        f"{dataset.bad_file_count:,} bad files"
    ]
    if "test" in dataset.splits:
        count = len(dataset.splits["test"])
        lines.append(f"{len(document['leaked_test']):,} of {count:,} test images have a copy in train")
    for kind in ("exact", "near"):
        for pair in document[kind][:PAIRS_TOLD]:
            differently = "" if pair["same_label"] else ", labelled differently"
            lines.append(f"{kind}: {_place(pair['first'])} and {_place(pair['second'])}{differently}")
    lines += [f"odd: {_place(odd)}: {odd['reason']}" for odd in document["odd"][:PAIRS_TOLD]]
    if any(len(document[kind]) > PAIRS_TOLD for kind in ("exact", "near", "odd")):
        lines.append(f"The first {PAIRS_TOLD} of each; --json has all.")
    return document, "\n".join(lines), 0


def _place(place: dict) -> str:
    file = f", {printable(place['file'])}" if place["file"] else ""
    return f"{place['split']} {place['index']} ({printable(place['label'])}{file})"


def list_recipes(args: argparse.Namespace) -> tuple[object, str, int]:
    """The recipes, with published results."""
    listing = [recipe.as_dict() | {"published": published(recipe)} for recipe in recipes.RECIPES.values()]
    lines = []
    for recipe in recipes.RECIPES.values():
        lines.append(
            f"{recipe.name:15} {recipe.model} on {recipe.dataset}, {recipe.epochs} epochs. {recipes.ABOUT[recipe.name]}"
        )
        if figures := published_in_words(recipe):
            lines.append(f"{'':15} published: {figures}")
    return listing, "\n".join(lines), 0


def list_models(args: argparse.Namespace) -> tuple[object, str, int]:
    """The networks; of torchvision's those first that suit a dataset, with their work and accuracy on ImageNet."""
    if args.dataset and not is_prepared(args.dataset):
        catalogue.find_source(args.dataset)
    shape = open_dataset(args.dataset).image_shape if args.dataset else (224, 224, 3)
    own = [{"name": name, "about": about} for name, about in recipes.MODELS.items()]
    theirs = [
        {"name": each.name, "about": each.in_words()}
        | {name: value for name, value in asdict(each).items() if name != "fixed"}
        | {"weights_here": (weights_folder() / each.file).exists()}
        for each in rank_for_images(shape)
    ]
    lines = [f"{model['name']:20} {model['about']}" for model in own]
    lines += [
        f"{model['name']:20} {model['about']}{', weights here' if model['weights_here'] else ''}" for model in theirs
    ]
    return own + theirs, "\n".join(lines), 0


def _recipe(args: argparse.Namespace) -> recipes.Recipe:
    """Return the recipe that a command names, with the changes that it asks for."""
    settings = {"dataset": args.dataset} if args.dataset else {}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise LoupeError(f"--set was given {setting!r}, but needs FIELD=VALUE, such as epochs=3.")
        settings[name.strip()] = value
    return recipes.change(recipes.find_recipe(args.recipe), settings)


def train(args: argparse.Namespace) -> tuple[object, str, int]:
    """Train a recipe; Ctrl+C stops it and keeps the model."""
    return _follow(runs.start(_recipe(args)))


def _ready(recipe: recipes.Recipe) -> tuple[recipes.Recipe, Dataset]:
    """Get what a recipe needs that is not here, and settle how this machine runs it."""
    os.environ |= runs.WORKER_ENVIRONMENT  # before torch is imported, which its threads go by
    from engine.training import tuning
    from engine.training.pretrained import fetch_weights

    runs.require_sources(recipe)
    downloads = [catalogue.get_dataset(recipe.dataset)]
    if runs.starting_weights(recipe) == ImageNetWeights():
        downloads.append(fetch_weights(recipe.model))
    for download in downloads:
        for progress in download:
            if progress.total:
                say(f"downloading: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB")
    dataset = open_dataset(recipe.dataset)
    recipe = tuning.resolve(tuning.choose_device(recipe), dataset)
    tuning.apply_settings(recipe)
    return recipe, dataset


def rehearse(args: argparse.Namespace) -> tuple[object, str, int]:
    """The one-minute check: try a recipe before a long run, and say what to expect."""
    from engine.advice.rehearsal import rehearse as rehearse_recipe

    checks = run_to_end(rehearse_recipe(*_ready(_recipe(args))), say)
    lines = [f"{check.verdict:4}  {check.name}: {check.text}" for check in checks]
    return [check.as_document() for check in checks], "\n".join(lines), 0


def find_rate(args: argparse.Namespace) -> tuple[object, str, int]:
    """Find a learning rate: train at rising rates for a moment, and see where the loss falls."""
    import torch

    from engine.advice.rate_finder import RATES, find_learning_rate
    from engine.base.machine import is_out_of_memory
    from engine.training.loop import Training
    from engine.training.pretrained import load_pretrained
    from engine.training.worker import too_little_memory

    def in_words(record: Step | Extracting) -> str:
        if isinstance(record, Extracting):
            return f"features of {record.done:,} of {record.total:,} images"
        return f"step {record.step:,}, {RATES} rates at most"

    recipe, dataset = _ready(_recipe(args))
    try:
        training = Training(recipe, dataset, torch.device(recipe.device))
        load_pretrained(training.model, recipe)
        curve = run_to_end(find_learning_rate(training, dataset), _now_and_then(in_words))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise LoupeError(too_little_memory(recipe)) from error
    found = "none" if curve.suggestion is None else f"{curve.suggestion:g}"
    return curve.as_document(), f"learning_rate {found}. {curve.reason}", 0


def resume(args: argparse.Namespace) -> tuple[object, str, int]:
    """Go on with a run that was stopped or that died, or train a finished one for more epochs."""
    run = runs.open_run(args.run)
    runs.resume(run, args.epochs)
    return _follow(run)


def _follow(run: Run) -> tuple[object, str, int]:
    """Tell what a run does until it has ended, then sum it up."""
    history = run.history()
    told: Record | str | None = None
    epochs_told = len(history.epochs)
    announced = stopping = False
    while True:
        try:  # of all that follows: Ctrl+C may come as soon as the run is told
            if not announced:
                announced = True
                say(f"run {run.id}")
            status = run.status(history.read())
            for epoch in history.epochs[epochs_told:]:  # each, however fast; of the rest, the latest
                say(_progress_line(epoch, history))
            epochs_told = len(history.epochs)
            now = status if status == "queued" else history.last
            if now != told:
                told = now
                if not isinstance(now, Epoch) and (line := _progress_line(now, history)):
                    say(line)
            if status not in ACTIVE:
                return _sum_up(run, history)
            time.sleep(0.1)
        except KeyboardInterrupt:
            if stopping:
                raise
            stopping = True
            run.request_stop()
            say("stopping; the model so far is kept and evaluated (Ctrl+C again leaves it to finish that alone)")


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


METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def _sum_up(run: Run, history: History) -> tuple[object, str, int]:
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
        say(f"{status}: {reason}")
        return summary, f"{run.id}: {status}", 0 if status == "stopped" else 1
    text = f"{run.id}: {status}, epochs {ended.epochs}, {ended.train_seconds:.1f} s of training; kept: {ended.kept}\n"
    text += ", ".join(f"{name} {summary[name]:.4f}" for name in METRICS if summary[name] is not None)
    if figures := published_in_words(recipe):
        text += f"\npublished: {figures}"
    return summary, text, 0


def list_runs(args: argparse.Namespace) -> tuple[object, str, int]:
    """All runs, newest first."""
    listing, lines = [], []
    for run in runs.list_runs():
        history = run.history()
        try:
            name, status = run.read_recipe().name, run.status(history)
        except LoupeError:
            name, status = None, "damaged"
        listing.append({"run": run.id, "status": status, "recipe": name})
        accuracy = history.ended.test_accuracy if history.ended else None
        lines.append(f"{run.id:40} {status:9} " + ("" if accuracy is None else f"test accuracy {accuracy:.2%}"))
    return listing, "\n".join(lines) or "No runs yet. Start one: python -m engine train digits-quick", 0


def evaluate(args: argparse.Namespace) -> tuple[object, str, int]:
    """Accuracy, confusion matrix and the scores of each class, from the run's predictions."""
    run = runs.open_run(args.run)
    split = args.split or _split_to_judge_by(run)
    predictions = _predictions(run, split)
    document = evaluation(run.id, predictions)
    low, high = document["accuracy_interval"]
    lines = [
        f"{run.id}, {split}: {int(predictions.correct.sum()):,} of {len(predictions):,} right, "
        f"accuracy {predictions.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})",
        f"{'class':15} precision  recall      f1  support",
    ]
    lines += [
        f"{printable(row['class']):15} {row['precision']:9.4f} {row['recall']:7.4f} {row['f1']:7.4f} "
        f"{row['support']:8,}"
        for row in document["per_class"]
    ]
    return document, "\n".join(lines), 0


def compare(args: argparse.Namespace) -> tuple[object, str, int]:
    """Compare a second run to a first, image by image: which is better, by how much, and whether it may be chance."""
    first, second = runs.open_run(args.first), runs.open_run(args.second)
    split = args.split or _split_to_judge_by(first)
    base = _predictions(first, split)
    compared = comparison.compare(base, _predictions(second, split))
    item = catalogue.item_of(first.read_recipe().dataset)
    lines = [comparison.in_words(compared, printable(first.id), printable(second.id), item)]
    differing = sorted((row for row in compared.per_class if row.difference), key=lambda row: -abs(row.difference))
    if differing:
        lines.append(f"{'class':15} {item + 's':>7}  first recall  second recall  points")
    lines += [
        f"{printable(row.name):15} {row.count:7,} {row.first_right / row.count:13.2%} "
        f"{row.second_right / row.count:14.2%} {100 * row.difference:+7.2f}"
        for row in differing[:CLASSES_TOLD]
    ]
    if len(differing) > CLASSES_TOLD:
        lines.append(f"and {len(differing) - CLASSES_TOLD:,} more classes that differ less")
    lines.append(f"fixed: {pluralize(len(compared.fixed), item)}, broken: {len(compared.broken):,}")
    document = {"first": first.id, "second": second.id} | comparison.as_document(compared, base)
    return document, "\n".join(lines), 0


def report(args: argparse.Namespace) -> tuple[object, str, int]:
    """Write the whole evaluation of a run as one HTML file, which opens in any browser, without a network."""
    from engine.export.report import check_target, write_report

    path = Path(args.file)
    check_target(path)
    run = runs.open_run(args.run)
    split = args.split or _split_to_judge_by(run)
    predictions = _predictions(run, split)
    try:
        dataset = open_dataset(run.read_recipe().dataset)
    except LoupeError:  # without it there are no pictures, which the report says
        dataset = None
    write_report(run, predictions, dataset, path)
    size = path.stat().st_size
    document = {"run": run.id, "split": split, "file": str(path), "bytes": size}
    return document, f"{run.id}, {split}: written to {printable(str(path))} ({format_bytes(size)})", 0


def measure_again(args: argparse.Namespace) -> tuple[object, str, int]:
    """Forget what this machine trains quickest with, so that the next training of each kind measures it again."""
    from engine.training.measurements import forget_measurements

    count = forget_measurements()
    return {"forgotten": count}, f"{pluralize(count, 'measurement')} forgotten", 0


def archive(args: argparse.Namespace) -> tuple[object, str, int]:
    """Write a run to one file, to be restored in another Loupe, with all that it takes to train it further."""
    from engine.runs.archive import archive_run

    run = runs.open_run(args.run)
    archived = archive_run(run, Path(args.file))
    for sentence in archived.left_out:
        say(sentence)
    document = {"run": run.id, "file": args.file, "bytes": archived.bytes, "files": archived.files}
    return document, f"{run.id}: written to {printable(args.file)} ({format_bytes(archived.bytes)})", 0


def restore(args: argparse.Namespace) -> tuple[object, str, int]:
    """Bring in a run from its archive. Nothing in the file is executed, and no run is replaced."""
    from engine.runs.archive import restore_run

    # Ended so too, it leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = restore_run(Path(args.file))
    status, files = run.status(), sorted(path.name for path in run.path.iterdir())
    return {"run": run.id, "status": status, "files": files}, f"{run.id}: restored, {status}", 0


def _split_to_judge_by(run: Run) -> str:
    """Return ``test``, or ``val`` for a run that has answers for no other."""
    return "val" if run.predictions("val").exists() and not run.predictions("test").exists() else "test"


def _predictions(run: Run, split: str) -> Predictions:
    """Read a run's predictions; those that its process did not write are made now and kept."""
    path = run.predictions(split)
    if not path.exists():
        if run.status() in ACTIVE:
            raise LoupeError(f"The run {run.id} is still going on. Wait for its end, or stop it, then evaluate it.")
        from engine.inference.classifier import gather, load_classifier

        classifier = load_classifier(run)
        for progress in gather(classifier, run, open_dataset(run.read_recipe().dataset), split):
            say(f"{progress.done:,} of {progress.total:,} images")
    return load_predictions(path)


def predict(args: argparse.Namespace) -> tuple[object, str, int]:
    """Classify pictures: files, folders, zips and globs, or - for a list of paths on standard input."""
    run = runs.open_run(args.run)
    from engine.inference.batch import Pictures, classify_all
    from engine.inference.classifier import load_classifier

    classifier = load_classifier(run)
    paths = (path for named in args.paths for path in (_listed_paths() if named == "-" else (named,)))
    pictures = Pictures(paths)
    documents: list[dict] = []
    failed = labelled = right = count = 0
    with _table(args.csv) as write_row:
        for answer in classify_all(classifier, pictures, normalize=not args.no_ink):
            document = answer.as_document()
            count += 1
            failed += answer.error is not None
            labelled += answer.true is not None
            right += answer.true is not None and answer.true == document["label"]
            write_row(document)
            if args.json:
                documents.append(document)
            elif answer.error is not None:
                print(f"{printable(answer.file)}: error: {answer.error}", flush=True)
            else:
                confidence = format_probability(document["confidence"])
                print(f"{printable(answer.file)}: {printable(document['label'])} ({confidence})", flush=True)
    if not count:
        raise LoupeError("No picture was named: the list on standard input is empty. Give it a path on each line.")
    if pictures.passed_over:
        say(f"passed over: {pluralize(pictures.passed_over, 'file')} whose names are not those of pictures")
    if labelled and 2 * labelled >= count:
        low, high = wilson_interval(right, labelled)
        say(
            f"{right:,} of {labelled:,} right of those whose folder or name says what they are: {right / labelled:.2%} "
            f"(95% interval {low:.2%} to {high:.2%})"
        )
    if failed:
        say(f"{failed:,} of {pluralize(count, 'picture')} could not be classified")
    return documents, "", 1 if failed else 0


def _listed_paths() -> Iterator[str]:
    if sys.stdin is None:
        raise LoupeError("There is no standard input to read the list of pictures from. Name them, or pipe it in.")
    # Unbuffered: each is there as soon as it is written, and no lock is held by a thread that waits for more.
    with io.FileIO(sys.stdin.fileno(), closefd=False) as lines:
        while line := lines.readline():
            if path := line.rstrip(b"\r\n"):
                yield os.fsdecode(path)


CSV_COLUMNS = ["file", "label", "confidence", "error", "true", "notes"]


@contextmanager
def _table(path: str | None) -> Iterator[Callable[[dict], None]]:
    """Yield what writes a row of answers into a CSV file, at once."""
    if not path:
        yield lambda row: None
        return
    with _telling_what_cannot_be_written(path):
        file = Path(path).open(  # noqa: SIM115 - to close it may fail too
            "w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1
        )
    writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore")

    def write_row(row: dict) -> None:
        with _telling_what_cannot_be_written(path):
            writer.writerow(row | {"notes": " ".join(row.get("notes", ()))})

    try:
        with _telling_what_cannot_be_written(path):
            writer.writeheader()
        yield write_row
    finally:
        with suppress(OSError):  # all that could be written is
            file.close()


@contextmanager
def _telling_what_cannot_be_written(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise LoupeError(f"{path} could not be written ({reason}). Name a file in a folder that can be.") from error


def export_model(args: argparse.Namespace) -> tuple[object, str, int]:
    """Take a run's model away as an ONNX graph, a torch program, or a plain PyTorch script that trains it again."""
    from engine.export.exporting import check_target, export

    # Ended so too, it leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.path.strip():
        raise LoupeError("No place was named to export to. Name a file such as model.onnx, or a folder.")
    path = Path(os.path.abspath(os.path.expanduser(args.path)))  # noqa: PTH100, PTH111 - a link stays what it is
    check_target(path, args.format)
    run = runs.open_run(args.run)
    done = run_to_end(export(run, args.format, path), say)
    text = "\n".join(f"written: {printable(str(file))} ({format_bytes(file.stat().st_size)})" for file in done.files)
    if done.proof:
        text += f"\n{done.proof.in_words()}"
    return {"run": run.id, "format": args.format} | done.as_document(), text, 0


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as everywhere."""

    def error(self, message: str):
        raise LoupeError(f"{message}. See {self.prog} --help.")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m engine", description="Train image classifiers and look at what they get wrong.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, action: Callable) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=action.__doc__, description=action.__doc__)
        added.add_argument("--json", action="store_true", help="print one JSON document on stdout, and nothing else")
        added.set_defaults(action=action)
        return added

    command("datasets", list_datasets)
    command("get", get_dataset).add_argument("name", metavar="NAME", help="one of the datasets")
    importing = command("import", import_pictures)
    importing.add_argument("name", metavar="NAME", help="what the dataset will be called")
    importing.add_argument("path", metavar="PATH", help="a folder, a zip, or a CSV manifest with file,label[,split]")
    importing.add_argument("--test", metavar="PATH", help="a folder or zip of test images, a folder for each class")
    importing.add_argument("--size", metavar="N", type=int, help="side in pixels that every image is brought to")
    importing.add_argument("--fit", choices=FITS, default="crop", help="cut out the middle, or pad with black")
    importing.add_argument(
        "--test-share",
        metavar="S",
        type=float,
        help=f"share of each class held back for testing (default: {DEFAULT_TEST_SHARE}, or 0 of a source with splits)",
    )
    importing.add_argument("--seed", metavar="N", type=int, default=0, help="decides which images those are")
    importing.add_argument("--dry-run", action="store_true", help="say what was understood, and write nothing")
    checking = command("check", check)
    checking.add_argument("name", metavar="NAME", help="a dataset that is here")
    checking.add_argument(
        "--threshold", metavar="BITS", type=int, default=DEFAULT_THRESHOLD, help="how far apart near copies may be"
    )
    command("recipes", list_recipes)
    command("models", list_models).add_argument("--dataset", metavar="NAME", help="those first that suit its images")
    for name, action in (("train", train), ("rehearse", rehearse), ("find-rate", find_rate)):
        of_recipe = command(name, action)
        of_recipe.add_argument("recipe", metavar="RECIPE", help="one of the recipes")
        of_recipe.add_argument("--dataset", metavar="NAME", help="train on this dataset in place of the recipe's")
        of_recipe.add_argument(
            "--set", metavar="FIELD=VALUE", action="append", default=[], help="change a field of the recipe"
        )
    resuming = command("resume", resume)
    resuming.add_argument("run", metavar="RUN", help="the id of a run")
    resuming.add_argument("--epochs", metavar="N", type=int, help="how many it is to have in all; more than it had")
    command("runs", list_runs)
    evaluating = command("evaluate", evaluate)
    evaluating.add_argument("run", metavar="RUN", help="the id of a run")
    comparing = command("compare", compare)
    comparing.add_argument("first", metavar="RUN", help="the id of the run to compare with")
    comparing.add_argument("second", metavar="RUN", help="the id of the run that is compared to it")
    reporting = command("report", report)
    reporting.add_argument("run", metavar="RUN", help="the id of a run")
    reporting.add_argument("file", metavar="FILE", help="what to write, whose name ends in .html")
    command("measure-again", measure_again)
    archiving = command("archive", archive)
    archiving.add_argument("run", metavar="RUN", help="the id of a run")
    archiving.add_argument("file", metavar="FILE", help="what to write, whose name ends in .zip")
    command("restore", restore).add_argument("file", metavar="FILE", help="the archive of a run")
    for of_split in (evaluating, comparing, reporting):
        of_split.add_argument(
            "--split", metavar="SPLIT", help="train, val or test (default: test, or val where there is none)"
        )
    predicting = command("predict", predict)
    predicting.add_argument("run", metavar="RUN", help="the id of a run")
    predicting.add_argument(
        "paths", metavar="PATH", nargs="+", help="a picture, a folder, a zip or a glob; - for a list of them"
    )
    predicting.add_argument(
        "--no-ink", action="store_true", help="take pictures as they are, also where the training images are of ink"
    )
    predicting.add_argument("--csv", metavar="FILE", help="write the answers to this file too")
    exporting = command("export", export_model)
    exporting.add_argument("run", metavar="RUN", help="the id of a run")
    exporting.add_argument("--format", choices=("onnx", "torch", "script"), required=True, help="what to write")
    exporting.add_argument(
        "path", metavar="PATH", help="a file such as model.onnx, or a folder, which gets all that is needed to use it"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):  # a file's name may be anything
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Before torch is loaded. Threads that spin beside those that open pictures take many times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", WORKER_ENVIRONMENT["GOMP_SPINCOUNT"])
    try:
        args = build_parser().parse_args(arguments)
        document, text, code = args.action(args)
        if args.json:
            print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        elif text:
            print(text)
        return code
    except LoupeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 141
    except OSError as error:
        print(f"error: {reason_of(error)}. Check the files and folders that are named, and the disk.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
