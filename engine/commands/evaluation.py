"""Commands that judge runs by their predictions: evaluate one, compare two, and write a report."""

import argparse
from pathlib import Path

from engine.base.errors import LoupeError
from engine.base.text import format_bytes, pluralize, printable
from engine.commands.command import AddCommand, Outcome
from engine.commands.progress import tell
from engine.data.catalogue import item_of
from engine.data.dataset import open_dataset
from engine.evaluation import comparison
from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.summary import evaluation
from engine.runs.run import ACTIVE, Run, open_run

CLASSES_TOLD = 10


def add_commands(add_command: AddCommand) -> None:
    evaluating = add_command("evaluate", evaluate)
    evaluating.add_argument("run", metavar="RUN", help="the id of a run")

    comparing = add_command("compare", compare)
    comparing.add_argument("first", metavar="RUN", help="the id of the run to compare with")
    comparing.add_argument("second", metavar="RUN", help="the id of the run that is compared to it")

    reporting = add_command("report", report)
    reporting.add_argument("run", metavar="RUN", help="the id of a run")
    reporting.add_argument("file", metavar="FILE", help="what to write, whose name ends in .html")

    for of_split in (evaluating, comparing, reporting):
        of_split.add_argument(
            "--split", metavar="SPLIT", help="train, val or test (default: test, or val where there is none)"
        )


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
            tell(f"{progress.done:,} of {progress.total:,} images")
    return load_predictions(path)


def evaluate(args: argparse.Namespace) -> Outcome:
    """Accuracy, confusion matrix and the scores of each class, from the run's predictions."""
    run = open_run(args.run)
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
    return Outcome(document, "\n".join(lines))


def compare(args: argparse.Namespace) -> Outcome:
    """Compare a second run to a first, image by image: which is better, by how much, and whether it may be chance."""
    first, second = open_run(args.first), open_run(args.second)
    split = args.split or _split_to_judge_by(first)
    base = _predictions(first, split)
    compared = comparison.compare(base, _predictions(second, split))
    item = item_of(first.read_recipe().dataset)
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
    return Outcome(document, "\n".join(lines))


def report(args: argparse.Namespace) -> Outcome:
    """Write the whole evaluation of a run as one HTML file, which opens in any browser, without a network."""
    from engine.export.report import check_target, write_report

    path = Path(args.file)
    check_target(path)
    run = open_run(args.run)
    split = args.split or _split_to_judge_by(run)
    predictions = _predictions(run, split)
    try:
        dataset = open_dataset(run.read_recipe().dataset)
    except LoupeError:  # without it there are no pictures, which the report says
        dataset = None
    write_report(run, predictions, dataset, path)
    size = path.stat().st_size
    document = {"run": run.id, "split": split, "file": str(path), "bytes": size}
    return Outcome(document, f"{run.id}, {split}: written to {printable(str(path))} ({format_bytes(size)})")
