"""Importing a person's own pictures: understood first, as a plan, then decoded once, in parallel, into arrays."""

from __future__ import annotations

import re
import shutil
import sqlite3
import statistics
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.encodings import ENCODINGS
from engine.base.errors import LoupeError
from engine.base.text import format_bytes, format_duration, join_words, pluralize, printable
from engine.base.zips import encoding_of_names
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import prepared_root
from engine.images.kinds import suffix, unread_in_words, unread_kinds
from engine.images.levels import levels_of
from engine.images.pictures import FITS
from engine.images.sources import Archive, Folder, Source, UnsafeSourceError, find, open_source
from engine.importing.decoding import Sight, look_into
from engine.importing.layout import (
    LAYOUTS,
    MANIFEST_SUFFIXES,
    NEEDED,
    TABLE,
    Layout,
    folders_left_out,
    list_files,
    list_manifest,
    some_of,
    understand,
)

# Up to this many pixels a side, images that are all of one size are kept as they are.
KEPT_SIDE = 224
# Sides that networks are made for; the largest that most images have is suggested.
SIDES = (32, 64, 96, 128, 160, 224)
LOWEST_SIDE, HIGHEST_SIDE = 8, 2048
# Of larger sets so many files, drawn at random, are looked at to find size and channels.
LOOKED_AT = 1000
LOOKED_AT_CLOSELY = 100
DEFAULT_TEST_SHARE = 0.2
# So many classes are all named with their counts; of more it is said how many have fewer images than these.
NAMED = 30
FEW = (5, 20)


@dataclass(frozen=True)
class Request:
    """What to import, as a person asks for it.

    name: what the dataset will be called. test: another folder or zip, of the test images.
    size: side of the square that every image is brought to, None to keep or suggest one. fit: one of FITS.
    test_share: share of each class held back for testing, None for a fifth where the source has no splits.
    levels: the values that become black and white where files have more than 8 bits, None to find them.
    layout: one of LAYOUTS, what the folders are read as; None where their names and what is in them is to tell.
    names_in: the encoding of the names in a zip that are not in UTF-8, None for the one that is most likely.
    min_images: classes of fewer are left out.
    """

    name: str
    path: str
    test: str | None = None
    size: int | None = None
    fit: str = "crop"
    test_share: float | None = None
    seed: int = 0
    levels: tuple[float, float] | None = None
    layout: str | None = None
    names_in: str | None = None
    min_images: int = 1

    @property
    def paths(self) -> list[str]:
        return [path for path in (self.path, self.test) if path is not None]


@dataclass(frozen=True)
class Plan:
    """What an import would make.

    layout: in words. classes: names in their order. counts: for each split, images by class, files that turn out bad
    among them. problems: files known to be bad already. looked_at: files that size and channels were found from.
    smallest, largest: width and height of originals among those. unreadable: reasons of those that cannot be read.
    bytes_needed, bytes_free: on the disk of the prepared data. notes: what a person should know. levels: the values
    that become black and white in files of more than 8 bits; None where there are no such files. small: classes that
    are left out for having too few images.
    """

    layout: str
    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    problems: int
    looked_at: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    height: int
    width: int
    channels: int
    is_resized: bool
    bytes_needed: int
    bytes_free: int
    notes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    levels: tuple[float, float] | None = None
    small: tuple[str, ...] = ()

    @property
    def images(self) -> dict[str, int]:
        return {split: sum(numbers) for split, numbers in self.counts.items()}

    def in_words(self) -> list[str]:
        """Say what the images are and what becomes of them, a sentence an item."""
        smallest, largest = (f"{width:,} x {height:,}" for width, height in (self.smallest, self.largest))
        was = f"{smallest} pixels" if smallest == largest else f"{smallest} to {largest} pixels"
        which = (
            "All images are"
            if self.looked_at >= sum(self.images.values())
            else f"Of {self.looked_at:,} looked at all are"
        )
        becomes = f"{self.width} x {self.height} pixels"
        sentences = [
            f"{which} {was}, {'grey' if self.channels == 1 else 'colour'}.",
            f"They are brought to {becomes}." if self.is_resized else f"They are kept at {becomes}.",
            f"This takes {format_bytes(self.bytes_needed)} of the {format_bytes(self.bytes_free)} that are free on the "
            "disk.",
        ]
        if self.levels:
            low, high = self.levels
            found = "" if sum(self.images.values()) <= LOOKED_AT_CLOSELY else f", by {LOOKED_AT_CLOSELY} of them so far"
            sentences.append(
                f"Those of more than 8 bits are brought to 8 by one scale for all: the value {low:g} becomes black, "
                f"{high:g} white{found}."
            )
        if self.unreadable:
            sentences.append(
                f"{len(self.unreadable):,} of the {self.looked_at:,} that were looked at cannot be read. "
                f"The first: {self.unreadable[0]}"
            )
        if self.problems:
            sentences.append(
                f"{pluralize(self.problems, 'bad file')} already: in no class folder, not readable, or named by the "
                "manifest in vain."
            )
        return sentences + [f"{note[0].upper()}{note[1:]}." for note in self.notes]

    def counts_in_words(self, split: str) -> str:
        """Say how many images of each class a split has; of many classes only of the largest and the smallest."""
        named = [(printable(name), count) for name, count in zip(self.classes, self.counts[split], strict=True)]
        if len(named) <= NAMED:
            return _listed(named)
        there = sorted((each for each in named if each[1]), key=lambda each: -each[1])
        few = [f"{sum(count < most for _, count in there):,} of fewer than {most} images" for most in FEW]
        return (
            f"{len(there):,} classes, the largest {_listed(there[:3])}, the smallest {_listed(there[-3:])}; "
            f"{join_words(few)}"
        )

    def as_document(self) -> dict:
        """Return all of it as plain data."""
        return asdict(self) | {"classes": list(self.classes), "images": self.images, "notes": list(self.notes)}


def _listed(named: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in named)


@dataclass(frozen=True)
class Progress:
    """How far a stage of an import is: files or images; total is 0 while it is not known.

    bad: files left out. seconds, since: for the pace, images done in that time.
    """

    stage: str
    done: int
    total: int
    bad: int = 0
    seconds: float = 0.0
    since: int = 0

    def in_words(self) -> str:
        if not self.total:
            return f"{self.stage}: {self.done:,}" if self.done else self.stage
        words = f"{self.stage}: {self.done:,} of {self.total:,} images"
        if self.bad:
            words += f", {pluralize(self.bad, 'bad file')}"
        if self.seconds_left is not None:
            words += f", {self.images_per_second:,.0f} a second, about {format_duration(self.seconds_left)} left"
        return words

    @property
    def images_per_second(self) -> float | None:
        return self.since / self.seconds if self.since and self.seconds > 1 else None

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.images_per_second if self.total and self.images_per_second else None


def check_request(request: Request) -> None:
    """Raise LoupeError for a request that cannot be met, before anything is read."""
    require_free_name(request.name)
    check_settings(request)


def check_settings(request: Request) -> None:
    """Raise LoupeError for settings out of their range, and for paths that are not there."""
    if request.fit not in FITS:
        raise LoupeError(f"fit is {request.fit!r}, but must be crop or pad.")
    if request.layout is not None and request.layout not in LAYOUTS:
        raise LoupeError(f"The layout is {request.layout!r}, but must be splits or classes.")
    if request.names_in is not None and not _is_encoding(request.names_in):
        raise LoupeError(
            f"{printable(request.names_in)!r} is no encoding that is known. Name one such as {', '.join(ENCODINGS)}."
        )
    if request.size is not None and not LOWEST_SIDE <= request.size <= HIGHEST_SIDE:
        raise LoupeError(f"The size is {request.size}, but must be between {LOWEST_SIDE} and {HIGHEST_SIDE} pixels.")
    if request.test_share is not None and not 0 <= request.test_share <= 0.9:
        raise LoupeError(f"The test share is {request.test_share:g}, but must be between 0 and 0.9.")
    if request.test is not None and request.test_share:
        raise LoupeError("There are test images of their own, and a test share too. Name one of the two.")
    if request.levels is not None and not request.levels[0] < request.levels[1]:
        low, high = request.levels
        raise LoupeError(f"The range is {low:g} to {high:g}, but must go from a lower value to a higher one.")
    if request.min_images < 1:
        raise LoupeError(f"The fewest images of a class are {request.min_images}, but must be 1 or more.")
    if request.seed < 0:
        raise LoupeError(f"The seed is {request.seed}, but must be 0 or a larger whole number.")
    for path in request.paths:
        if not path.strip():
            raise LoupeError("The path is empty. Name a folder, a zip, a tar or a CSV manifest on this machine.")
        find(path)


def _is_encoding(name: str) -> bool:
    try:
        b"a".decode(name)
    except (LookupError, ValueError):
        return False
    return True


def require_free_name(name: str) -> None:
    """Raise LoupeError for a name that cannot be given to a dataset, or that one has already."""
    # A folder's name, with what is put around it, may have 255 bytes.
    if not re.fullmatch(r"\w[\w.-]{0,63}", name) or name.endswith(".") or len(name.encode()) > 200:
        raise LoupeError(
            f"The name {printable(name)!r} cannot be given to a dataset. Use up to 64 letters, digits, dashes, dots "
            "and underscores, with a letter or digit first."
        )
    taken = {existing.lower() for existing in CATALOGUE}
    taken |= {path.name.lower() for path in prepared_root().glob("[!.]*")}
    if name.lower() in taken:
        raise LoupeError(f"The name {name} is already taken by another dataset. Choose another name.")


class Listing:
    """The files of an import, each with its split and label; kept on the disk while it is open, in a nameless file."""

    def __init__(self, request: Request):
        self.request = request
        self.sources: list[Source] = []
        # A name would be left behind by a process that is killed.
        self.database = sqlite3.connect("", isolation_level=None)
        self.database.execute(TABLE)

    def close(self) -> None:
        self.database.close()
        for source in self.sources:
            source.close()


def plan_import(request: Request) -> Generator[Progress, None, Plan]:
    """Find out what an import would make, whatever its name, writing nothing. Yields progress; returns the plan.

    Raises LoupeError when it cannot be made.
    """
    check_settings(request)
    with closing(Listing(request)) as listing:
        return (yield from make_plan(listing))


def make_plan(listing: Listing) -> Generator[Progress, None, Plan]:
    """List and understand the files of a request, and give each image its split and its row."""
    request, database = listing.request, listing.database
    yield Progress("Listing files", 0, 0)
    layouts = []
    for number, path in enumerate(request.paths):
        layouts.append((yield from _list_source(listing, find(path), number)))
    layout = layouts[0]
    notes = (
        _notes_on_folders(listing)
        + _notes_on_kinds(listing)
        + _notes_on_names(listing)
        + [note for each in layouts for note in each.notes]
    )
    if request.test is not None:
        if layout.has_splits and database.execute("SELECT 1 FROM files WHERE split = 'test'").fetchone():
            raise LoupeError(
                f"{printable(request.path)} has test images of its own. Import it without another test folder."
            )
        if layouts[1].has_splits:
            raise LoupeError(
                f"{printable(request.test)} has splits, but is named as test images: it needs class folders only."
            )
        database.execute("UPDATE files SET split = 'test' WHERE source = 1")
    database.execute("UPDATE files SET split = 'train' WHERE split IS NULL AND label NOT NULL")
    share = request.test_share
    if share is None:
        share = 0.0 if layout.has_splits or request.test is not None else DEFAULT_TEST_SHARE
    elif share and database.execute("SELECT 1 FROM files WHERE split = 'test'").fetchone():
        raise LoupeError(
            f"{printable(request.path)} has test images of its own. Leave out the test share, or set it to 0."
        )
    small = _leave_out_small_classes(listing)
    if small:
        how_many = "1 class" if len(small) == 1 else f"{len(small):,} classes"
        notes.append(f"left out: {how_many} of fewer than {request.min_images} images, {some_of(small)}")
    classes = _classes(listing)
    notes += _notes_on_classes(classes)
    if share:
        yield from _hold_back_test(listing, classes, share)
        notes.append(
            f"{100 * share:g}% of each class, at least one image where it has two, is held back for testing, "
            f"drawn with seed {request.seed}"
        )
    counts = _number_images(listing, classes)
    left_out = sum(each.left_out for each in layouts)
    if left_out:
        notes.append(f"left out: {pluralize(left_out, 'other file')}, no pictures or in no class folder or manifest")
    notes += _notes_on_splits(classes, counts)
    (problems,) = database.execute("SELECT count(*) FROM files WHERE problem NOT NULL").fetchone()
    plan = yield from _with_size(listing, layout.words, classes, counts, problems, notes)
    return replace(plan, small=tuple(small))


def _list_source(listing: Listing, path: Path, number: int) -> Generator[Progress, None, Layout]:
    if suffix(path.name) in MANIFEST_SUFFIXES and path.is_file():
        folder = Folder(path.parent.resolve())
        listing.sources.append(folder)
        return list_manifest(listing.database, folder, number, path.name)
    source = open_source(path, listing.request.names_in)
    listing.sources.append(source)
    with listing.database:
        listing.database.execute("BEGIN")
        for count in list_files(listing.database, source, number):
            yield Progress("Listing files", count, 0)
    reading = listing.request.layout if number == 0 else None
    return understand(listing.database, source, number, reading)


def _leave_out_small_classes(listing: Listing) -> list[str]:
    """Take their labels from files of classes that have fewer images than was asked for; returns these classes."""
    few = "SELECT label FROM files WHERE label NOT NULL GROUP BY label HAVING count(*) < ?"
    fewest = (listing.request.min_images,)
    small = [label for (label,) in listing.database.execute(few, fewest)]
    listing.database.execute(f"UPDATE files SET label = NULL, split = NULL WHERE label IN ({few})", fewest)
    return sorted(small, key=_natural)


def _classes(listing: Listing) -> tuple[str, ...]:
    found = [label for (label,) in listing.database.execute("SELECT DISTINCT label FROM files WHERE label NOT NULL")]
    place = printable(listing.request.path)
    if not found:
        raise LoupeError(f"There are no images in {place} that belong to a class. {NEEDED}")
    if len(found) == 1:
        raise LoupeError(
            f"There is one class only, {printable(found[0])}, in {place}, and telling apart takes two. {NEEDED}"
        )
    if not listing.database.execute("SELECT 1 FROM files WHERE split = 'train'").fetchone():
        raise LoupeError(f"There are no images to train on in {place}: all are for validation or test. {NEEDED}")
    return tuple(sorted(found, key=_natural))


def _natural(name: str) -> tuple:
    """Order names as people do: 2 before 10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)), name


def _hold_back_test(listing: Listing, classes: tuple[str, ...], share: float) -> Iterator[Progress]:
    """Move a share of the training images of each class to the test split."""
    random = np.random.default_rng(listing.request.seed)
    database = listing.database
    database.execute("CREATE INDEX by_label ON files (label, name)")  # or all files would be read for each class
    with database:
        database.execute("BEGIN")
        for label in classes:
            yield Progress("Dividing", 0, 0)
            rows = database.execute(
                "SELECT rowid FROM files WHERE label = ? AND split = 'train' ORDER BY name", (label,)
            )
            ids = np.fromiter((row for (row,) in rows), dtype=np.int64)
            # At least one to test on and one to train on, where there are two.
            most = max(len(ids) - 1, 0)
            held_back = random.permutation(ids)[: min(max(round(share * len(ids)), 1), most)]
            database.executemany("UPDATE files SET split = 'test' WHERE rowid = ?", ((int(row),) for row in held_back))


def _number_images(listing: Listing, classes: tuple[str, ...]) -> dict[str, list[int]]:
    """Order the images of each split by class and name; returns their counts by class."""
    database = listing.database
    numbers = {label: number for number, label in enumerate(classes)}
    database.create_function("class_of", 1, numbers.get, deterministic=True)
    database.execute(
        "CREATE TABLE images AS SELECT split, class_of(label) AS class, source, name, place, bytes FROM files "
        "WHERE label NOT NULL ORDER BY split, class, source, name"
    )
    database.execute("CREATE INDEX by_split ON images (split)")
    counts = {}
    for split in ("train", "val", "test"):
        found = dict(database.execute("SELECT class, count(*) FROM images WHERE split = ? GROUP BY class", (split,)))
        if found:
            counts[split] = [found.get(number, 0) for number in range(len(classes))]
    return counts


def _notes_on_names(listing: Listing) -> list[str]:
    """Say of zips whose names are not all in UTF-8 how these are read."""
    notes = []
    for source in listing.sources:
        if isinstance(source, Archive) and (found := encoding_of_names(source.path)):
            encoding = listing.request.names_in or found
            notes.append(
                f"the names in {printable(source.path.name)} do not say their encoding and are read as "
                f"{ENCODINGS.get(encoding, encoding)}; where they are wrong, choose another for names in"
            )
    return notes


def _notes_on_classes(classes: tuple[str, ...]) -> list[str]:
    """Name the classes whose names differ in case or in spaces around them alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.strip().casefold(), []).append(name)
    return [
        f"the classes {join_words(repr(printable(name)) for name in names)} differ in case or spaces only"
        for names in alike.values()
        if len(names) > 1
    ]


def _notes_on_folders(listing: Listing) -> list[str]:
    """Name the folders of which nothing is taken: one of them may be a class."""
    folders = [each for number in range(len(listing.sources)) for each in folders_left_out(listing.database, number)]
    if not folders:
        return []
    files = sum(count for _, count in folders)
    return [f"nothing is taken of {some_of([name for name, _ in folders])} ({pluralize(files, 'file')})"]


def _notes_on_kinds(listing: Listing) -> list[str]:
    """Say of pictures of kinds that are not read how many there are, and what each kind takes."""
    notes = []
    for words in map(unread_in_words, unread_kinds()):
        count, first = listing.database.execute(
            "SELECT count(*), min(name) FROM files WHERE problem = ?", (words,)
        ).fetchone()
        if count:
            which = "one file," if count == 1 else f"{count:,} files, the first"
            notes.append(f"not read: {which} {printable(first)}. {words.removesuffix('.')}")
    return notes


def _notes_on_splits(classes: tuple[str, ...], counts: dict[str, list[int]]) -> list[str]:
    notes = []
    if "test" not in counts:
        notes.append("there is no test split: a model can be judged on validation images only")
    else:
        untested = [name for name, tested in zip(classes, counts["test"], strict=True) if not tested]
        if untested:
            notes.append(f"there are no test images of {some_of(untested)}")
    for split, numbers in counts.items():
        if split != "train":
            lacking = [
                name
                for name, there, trained in zip(classes, numbers, counts["train"], strict=True)
                if there and not trained
            ]
            if lacking:
                notes.append(f"there are {split} images but no training images of {some_of(lacking)}")
    return notes


def _with_size(
    listing: Listing,
    layout: str,
    classes: tuple[str, ...],
    counts: dict[str, list[int]],
    problems: int,
    notes: list[str],
) -> Generator[Progress, None, Plan]:
    """Look at some images, settle the size and the channels by them, and finish the plan."""
    request = listing.request
    seen, reasons, lost = yield from _look(listing)
    if not seen.sizes:
        raise LoupeError(
            f"None of the {len(reasons):,} files that were looked at in {printable(request.path)} is an image that "
            f"can be read (the first: {reasons[0].partition('. ')[0]}). Check that they are pictures."
        )
    size, channels = _size(request, seen.sizes), 3 if seen.has_colour else 1
    room = _room(sum(map(sum, counts.values())), size["height"], size["width"], channels)
    return Plan(
        layout=layout,
        classes=classes,
        counts=counts,
        problems=problems,
        looked_at=seen.sizes.total() + len(reasons),
        notes=(*(_lost(classes[number], reason) for number, reason in lost.items()), *notes),
        unreadable=tuple(reasons),
        channels=channels,
        levels=_levels(request, seen),
        **size,
        **room,
    )


def _lost(label: str, reason: str) -> str:
    return f"of {printable(label)} no file that was looked at is a picture that can be read: {reason.removesuffix('.')}"


def revise(plan: Plan, request: Request, seen: Sight) -> Plan:
    """Plan again what may be otherwise than by the files that were looked at first, by what was seen of all.

    Raises LoupeError when the disk has no room for it.
    """
    if not seen.sizes:
        return plan
    size = _size(request, seen.sizes) if is_kept(plan, request) else {}
    plan = replace(plan, **size, channels=3 if seen.has_colour else plan.channels, levels=_levels(request, seen))
    return replace(plan, **_room(sum(plan.images.values()), plan.height, plan.width, plan.channels))


def is_kept(plan: Plan, request: Request) -> bool:
    """Tell whether images are to keep the size that all that were looked at have."""
    return request.size is None and not plan.is_resized


def _size(request: Request, sizes: Counter[tuple[int, int]]) -> dict[str, Any]:
    """Settle the size of the images by how many pictures there are of each width and height."""
    widths, heights = zip(*sizes, strict=True)
    size = width, height = next(iter(sizes))
    agree = len(sizes) == 1
    if request.size is not None:
        width, height = request.size, request.size
    elif not agree or max(size) > KEPT_SIDE:
        typical = statistics.median(min(each) for each in sizes.elements())
        width = height = max((side for side in SIDES if side <= typical), default=SIDES[0])
    return {
        "smallest": (min(widths), min(heights)),
        "largest": (max(widths), max(heights)),
        "height": height,
        "width": width,
        "is_resized": not agree or (width, height) != size,
    }


def _levels(request: Request, seen: Sight) -> tuple[float, float] | None:
    if request.levels and seen.values:
        return request.levels[0], request.levels[1]
    return levels_of(seen.values)


def _room(count: int, height: int, width: int, channels: int) -> dict[str, Any]:
    """Return the bytes that images need, and those that are free; raises LoupeError where these are fewer."""
    bytes_needed = count * (height * width * channels + 200)  # with its label, file name and size
    bytes_free = _bytes_free()
    if bytes_needed > bytes_free:
        raise LoupeError(
            f"The disk that holds {prepared_root()} is too full: {count:,} images of {width} x {height} pixels need "
            f"{format_bytes(bytes_needed)}, and {format_bytes(bytes_free)} are free. Free some space, or import them "
            "smaller."
        )
    return {"bytes_needed": bytes_needed, "bytes_free": bytes_free}


def _look(listing: Listing) -> Generator[Progress, None, tuple[Sight, list[str], dict[int, str]]]:
    """Look at images drawn at random: returns what was seen of them, and the reasons of those that are bad.

    And, for each class of which all were bad, the first reason. Of some all pixels are looked at, for colour and for
    values of more than 8 bits.
    """
    (count,) = listing.database.execute("SELECT count(*) FROM images").fetchone()
    random = np.random.default_rng(0)
    drawn = np.sort(random.choice(count, min(LOOKED_AT, count), replace=False)) + 1
    closely = set(random.permutation(drawn)[:LOOKED_AT_CLOSELY].tolist())
    seen, reasons = Sight(), []
    read: set[int] = set()
    lost: dict[int, str] = {}
    for done, row in enumerate(drawn.tolist()):
        if done % 50 == 0:
            yield Progress("Looking at images", done, len(drawn))
        number, label, place = listing.database.execute(
            "SELECT source, class, place FROM images WHERE rowid = ?", (row,)
        ).fetchone()
        try:
            look_into(listing.sources[number], place, seen, for_colour=row in closely, for_values=row in closely)
        except UnsafeSourceError:
            raise
        except LoupeError as error:
            reasons.append(str(error))
            lost.setdefault(label, str(error))
        else:
            read.add(label)
    return seen, reasons, {label: reason for label, reason in lost.items() if label not in read}


def _bytes_free() -> int:
    folder = prepared_root()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
