"""Commands on datasets: which there are, to get one, to import one's own, and to check one."""

import argparse
from collections.abc import Iterator

from engine.audit.inspection import DEFAULT_THRESHOLD, MAX_DISTANCE, as_document, inspect, load_inspection
from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.base.text import join_words, pluralize, printable
from engine.commands.command import AddCommand, Outcome, exit_on_sigterm
from engine.commands.progress import once_a_second
from engine.data import catalogue, download_job
from engine.data.dataset import open_dataset
from engine.data.source_files import BAD_FILES, original_sizes, read_bad_files
from engine.images.pictures import FITS
from engine.importing.layout import LAYOUTS
from engine.importing.plan import DEFAULT_TEST_SHARE, Plan, Request, check_request, plan_import
from engine.importing.write import import_dataset

PAIRS_TOLD = 10


def add_commands(add_command: AddCommand) -> None:
    add_command("datasets", list_datasets)

    getting = add_command("get", get_dataset)
    getting.add_argument("name", metavar="NAME", help="one of the datasets")

    importing = add_command("import", import_pictures)
    importing.add_argument("name", metavar="NAME", help="what the dataset will be called")
    importing.add_argument(
        "path", metavar="PATH", help="a folder, zip or tar, or a CSV manifest with file,label[,split]"
    )
    importing.add_argument("--test", metavar="PATH", help="a folder, zip or tar of test images, by class")
    importing.add_argument("--size", metavar="N", type=int, help="side in pixels that every image is brought to")
    importing.add_argument("--fit", choices=FITS, default="crop", help="cut out the middle, or pad with black")
    importing.add_argument(
        "--range",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="values that become black and white where files have more than 8 bits (default: found from all of them)",
    )
    importing.add_argument(
        "--test-share",
        metavar="S",
        type=float,
        help=f"share of each class held back for testing (default: {DEFAULT_TEST_SHARE}, or 0 of a source with splits)",
    )
    importing.add_argument(
        "--min-images", metavar="N", type=int, default=1, help="leave out classes of fewer images than this"
    )
    importing.add_argument("--seed", metavar="N", type=int, default=0, help="decides which images those are")
    importing.add_argument("--layout", choices=LAYOUTS, help="what the folders are, where they could be either")
    importing.add_argument("--names-in", metavar="ENCODING", help="of the names in a zip that are not in UTF-8")
    importing.add_argument("--dry-run", action="store_true", help="say what was understood, and write nothing")

    checking = add_command("check", check)
    checking.add_argument("name", metavar="NAME", help="a dataset that is here")
    checking.add_argument(
        "--threshold", metavar="BITS", type=int, default=DEFAULT_THRESHOLD, help="how far apart near copies may be"
    )


def list_datasets(args: argparse.Namespace) -> Outcome:
    """What there is, where each comes from, whether it is here."""
    datasets = catalogue.describe_datasets()
    lines = [
        f"{dataset['name']:15} {'here' if dataset['present'] else 'not here':9} {dataset['about']}"
        for dataset in datasets
    ]
    return Outcome(datasets, "\n".join(lines))


def get_dataset(args: argparse.Namespace) -> Outcome:
    """Fetch and prepare one dataset."""
    tell_download = once_a_second(_download_in_words)
    for progress in download_job.get_dataset(args.name):
        if progress.total:
            tell_download(progress)
    dataset = open_dataset(args.name)
    images = {split: len(stored) for split, stored in dataset.splits.items()}
    return Outcome(
        {"name": dataset.name, "present": True, "images": images, "source": dataset.source},
        f"{dataset.name}: {_counts_in_words(images)} of {len(dataset.classes)} classes",
    )


def _download_in_words(progress: catalogue.Progress) -> str:
    until = "" if progress.seconds_left is None else f", {progress.seconds_left:,.0f} s left"
    return f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB{until}"


def _counts_in_words(images: dict[str, int]) -> str:
    return join_words(pluralize(count, f"{split} image") for split, count in images.items())


def import_pictures(args: argparse.Namespace) -> Outcome:
    """Make a dataset of a folder, a zip, a tar or a CSV manifest of pictures."""
    request = Request(
        name=args.name,
        path=args.path,
        test=args.test,
        size=args.size,
        fit=args.fit,
        test_share=args.test_share,
        seed=args.seed,
        levels=args.range,
        layout=args.layout,
        names_in=args.names_in,
        min_images=args.min_images,
    )
    if args.dry_run:
        check_request(request)
        plan = run_to_end(plan_import(request), lambda progress: None)
        return Outcome({"name": args.name} | plan.as_document(), "\n".join(_plan_lines(args.name, plan)))
    exit_on_sigterm()
    plan = run_to_end(import_dataset(request), once_a_second(lambda progress: progress.in_words()))
    dataset = open_dataset(args.name)
    images = {split: len(stored) for split, stored in dataset.splits.items()}
    height, width, channels = dataset.image_shape
    text = f"{dataset.name}: {_counts_in_words(images)} of {len(dataset.classes)} classes, {width} x {height} pixels"
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
    return Outcome(document, text)


def _plan_lines(name: str, plan: Plan) -> Iterator[str]:
    yield f"{name}: {plan.layout}"
    for split, numbers in plan.counts.items():
        yield f"{split:6} {pluralize(sum(numbers), 'image')}: {plan.counts_in_words(split)}"
    yield from plan.in_words()
    yield "nothing was written"


def check(args: argparse.Namespace) -> Outcome:
    """Look for copies, test images that are in train too, and odd images."""
    if not 0 <= args.threshold <= MAX_DISTANCE:
        raise LoupeError(f"--threshold is {args.threshold}, but must be between 0 and {MAX_DISTANCE} bits.")
    dataset = open_dataset(args.name)
    inspection = load_inspection(dataset)
    if inspection is None:
        steps = inspect(dataset, original_sizes(dataset))
        inspection = run_to_end(steps, once_a_second(lambda at: f"{at.stage}: {at.done:,} of {at.total:,}"))
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
    return Outcome(document, "\n".join(lines))


def _place(place: dict) -> str:
    file = f", {printable(place['file'])}" if place["file"] else ""
    return f"{place['split']} {place['index']} ({printable(place['label'])}{file})"
