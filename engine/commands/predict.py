"""The command that classifies pictures: answers are printed, and written to a table, as they come."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.base.errors import LoupeError, reason_of
from engine.base.text import format_probability, pluralize, printable
from engine.commands.command import AddCommand, Outcome
from engine.commands.progress import tell
from engine.evaluation.metrics import wilson_interval
from engine.runs.run import open_run

CSV_COLUMNS = ["file", "label", "confidence", "error", "true", "notes"]


def add_commands(add_command: AddCommand) -> None:
    predicting = add_command("predict", predict)
    predicting.add_argument("run", metavar="RUN", help="the id of a run")
    predicting.add_argument(
        "paths", metavar="PATH", nargs="+", help="a picture, a folder, a zip or a glob; - for a list of them"
    )
    predicting.add_argument(
        "--no-ink", action="store_true", help="take pictures as they are, also where the training images are of ink"
    )
    predicting.add_argument("--csv", metavar="FILE", help="write the answers to this file too")


def predict(args: argparse.Namespace) -> Outcome:
    """Classify pictures: files, folders, zips and globs, or - for a list of paths on standard input."""
    run = open_run(args.run)
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
        tell(f"passed over: {pluralize(pictures.passed_over, 'other file')}, no pictures")
    if labelled and 2 * labelled >= count:
        low, high = wilson_interval(right, labelled)
        tell(
            f"{right:,} of {labelled:,} right of those whose folder or name says what they are: {right / labelled:.2%} "
            f"(95% interval {low:.2%} to {high:.2%})"
        )
    if failed:
        tell(f"{failed:,} of {pluralize(count, 'picture')} could not be classified")
    return Outcome(documents, "", 1 if failed else 0)


def _listed_paths() -> Iterator[str]:
    if sys.stdin is None:
        raise LoupeError("There is no standard input to read the list of pictures from. Name them, or pipe it in.")
    # Unbuffered: each is there as soon as it is written, and no lock is held by a thread that waits for more.
    with io.FileIO(sys.stdin.fileno(), closefd=False) as lines:
        while line := lines.readline():
            if path := line.rstrip(b"\r\n"):
                yield os.fsdecode(path)


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
