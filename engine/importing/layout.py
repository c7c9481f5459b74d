"""Understanding how a source lays out its pictures: which class and which split each file belongs to.

Files are listed in a table of a temporary database, so that their number is not limited by memory.
"""

import codecs
import csv
import io
import os
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from engine.base.errors import LoupeError
from engine.base.text import escape_undecodable, join_words, pluralize, printable
from engine.images.kinds import is_picture, suffix
from engine.images.sources import Folder, Source, UnsafeSourceError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# What downloads call the folders of splits: such a word, with what it is of, among the words of a name.
SPLIT_WORD = re.compile(
    r"(?:(train(?:ing)?)|(val(?:id)?|validation|dev)|(test(?:ing)?|eval|evaluation))"
    r"(?:set|data|dataset|images?|imgs?|split|folder)?"
)
# How folders may be read where their names leave both open.
LAYOUTS = ("splits", "classes")
LEVELS = ("first", "second", "third", "fourth", "fifth")
MANIFEST_SUFFIXES = ("csv", "tsv")
ARCHIVE_SUFFIXES = ("zip", "tar", "tgz", "gz", "bz2", "xz", "7z", "rar")
# Other names of a manifest's columns, the likeliest first; they are taken where the manifest is named itself.
OTHER_COLUMNS = {
    "file": (
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "path",
        "image",
        "image_path",
        "image_name",
        "img",
        "image_id",
        "id",
    ),
    "label": ("class", "class_name", "category", "target", "labels"),
    "split": ("set", "subset", "partition"),
}
NEEDED = (
    "Expected is a folder for each class, such as cats/ and dogs/, with train/, val/ and test/ above them where there "
    "are splits; or a CSV manifest with the columns file,label or file,label,split."
)
MOST_SEARCHED = 100_000  # files, for the one that a name in a manifest may mean
NOT_TEXT = "is not text in UTF-8. Save it as CSV in UTF-8."
QUOTED = 80  # characters of a line that is none of a manifest
IN_NO_CLASS = "It is in no class folder. Move it into one."

TABLE = """
CREATE TABLE files (
    source INTEGER, name TEXT, place BLOB, bytes INTEGER,
    picture INTEGER,  -- whether it is one, by its suffix or its first bytes
    other INTEGER,  -- whether its suffix is that of another kind of file
    -- the folders that it is in, from the top; those around the classes or splits are taken off
    first TEXT, second TEXT, third TEXT, fourth TEXT, fifth TEXT,
    split TEXT, label TEXT, problem TEXT
)
"""


@dataclass(frozen=True)
class Layout:
    """What was understood, in words; how many files are left out that belong to no class; what a person should know."""

    words: str
    has_splits: bool
    left_out: int
    notes: tuple[str, ...] = ()


def list_files(listing: sqlite3.Connection, source: Source, number: int) -> Iterator[int]:
    """Write the files of a source into the listing, yielding how many there are so far."""
    count = 0
    batch: list[tuple] = []
    for file in source.files():
        name = normalized(file.name)
        folders = (*name.split("/")[:-1], *[None] * len(LEVELS))[: len(LEVELS)]
        picture, problem = None, file.problem
        if not problem:
            try:
                picture = is_picture(source, file)
            except UnsafeSourceError:
                raise
            except LoupeError as error:
                problem = str(error)
        batch.append((number, name, file.place, file.size, picture is True, picture is False, *folders, problem))
        count += 1
        if len(batch) == 1000:
            _insert(listing, batch)
            yield count
            batch.clear()
    _insert(listing, batch)
    yield count


def _insert(listing: sqlite3.Connection, batch: list[tuple]) -> None:
    columns = f"source, name, place, bytes, picture, other, {', '.join(LEVELS)}, problem"
    values = ", ".join("?" * (7 + len(LEVELS)))
    listing.executemany(f"INSERT INTO files ({columns}) VALUES ({values})", batch)


def normalized(name: str) -> str:
    """Write a name as text in one form: macOS takes letters and their accents apart, and others do not."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", escape_undecodable(name))


def split_of(name: str) -> str | None:
    """Return the split that a folder's name speaks of, as training_set, seg_train and Train Data do; None for others.

    A name that speaks of several, such as train_test, is none of a split.
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = [match for match in map(SPLIT_WORD.fullmatch, words) if match]
    splits = {("train", "val", "test")[match.lastindex - 1] for match in found if match.lastindex}
    return splits.pop() if len(splits) == 1 else None


def understand(listing: sqlite3.Connection, source: Source, number: int, reading: str | None = None) -> Layout:
    """Find out the split and the label of each listed file of a source, and write them into the listing.

    reading: one of LAYOUTS, what the folders are to be read as; None leaves it to their names and what is in them.
    Pictures without a label, and files that a manifest names and that are not there, get a problem instead.
    Raises LoupeError when there are no images, or no classes.
    """
    place = printable(str(source.path))
    files, pictures = listing.execute(
        "SELECT count(*), coalesce(sum(picture), 0) FROM files WHERE source = ? AND problem IS NULL", (number,)
    ).fetchone()
    unread = listing.execute(
        "SELECT name, problem FROM files WHERE source = ? AND problem NOT NULL ORDER BY name", (number,)
    ).fetchone()
    if not files and unread:
        raise LoupeError(
            f"There are no images in {place} that may be read, the first {printable(unread[0])}: {unread[1]}"
        )
    if not files:
        raise LoupeError(f"There are no images in {place}: it is empty. {NEEDED}")
    if not pictures:
        _refuse_archives(listing, place, number)
    manifest = _find_manifest(listing, source, number, _only_folder(listing, number))
    if manifest:
        layout = _label_by_manifest(listing, source, number, *manifest)
    else:
        layout = _understand_folders(listing, source, number, reading)
    if (
        not pictures
        and not listing.execute("SELECT 1 FROM files WHERE source = ? AND label NOT NULL", (number,)).fetchone()
    ):
        raise LoupeError(
            f"There are no images in {place}, which has {pluralize(files, 'file')} of other kinds. {NEEDED}"
        )
    return layout


def _refuse_archives(listing: sqlite3.Connection, place: str, number: int) -> None:
    """Raise LoupeError for a source without pictures that holds archives, naming them."""
    endings = " OR ".join(f"name LIKE '%.{ending}'" for ending in ARCHIVE_SUFFIXES)
    found = listing.execute(f"SELECT name FROM files WHERE source = ? AND ({endings}) ORDER BY name", (number,))
    if names := [name for (name,) in found.fetchmany(100)]:
        raise LoupeError(
            f"There are no images in {place} itself, which holds other archives: {some_of(names)}. Unpack it, and "
            "import what is in it."
        )


def _only_folder(listing: sqlite3.Connection, number: int) -> str | None:
    """Return the folder that holds all pictures but loose ones, where it is one alone."""
    tops = listing.execute(
        "SELECT DISTINCT first FROM files WHERE source = ? AND picture AND first NOT NULL LIMIT 2", (number,)
    ).fetchall()
    return tops[0][0] if len(tops) == 1 else None


def _take_off_outer_folders(listing: sqlite3.Connection, number: int) -> list[str]:
    """Take off the folders around classes or splits, as archives of a folder have; returns their names."""
    outer: list[str] = []
    while len(outer) < len(LEVELS) - 3 and (only := _only_folder(listing, number)):
        inside = "SELECT 1 FROM files WHERE source = ? AND picture AND first = ? AND second NOT NULL"
        if not listing.execute(inside, (number, only)).fetchone():
            break
        moved = ", ".join(f"{to} = iif(first = :only, {frm}, NULL)" for to, frm in pairwise(LEVELS))
        listing.execute(f"UPDATE files SET {moved} WHERE source = :number", {"only": only, "number": number})
        outer.append(only)
    return outer


def _take_off_repeated_folders(listing: sqlite3.Connection, number: int) -> None:
    """Take off a folder within one of its own name, where that holds all of its pictures: train/train/cats."""
    repeated = listing.execute(
        "SELECT first FROM files WHERE source = ? AND picture AND first NOT NULL GROUP BY first "
        "HAVING min(coalesce(lower(second) = lower(first), 0))",
        (number,),
    ).fetchall()
    moved = ", ".join(f"{to} = {frm}" for to, frm in pairwise(LEVELS[1:]))
    for (first,) in repeated:
        listing.execute(
            f"UPDATE files SET {moved} WHERE source = ? AND first = ? AND lower(second) = lower(first)", (number, first)
        )


def _understand_folders(listing: sqlite3.Connection, source: Source, number: int, reading: str | None) -> Layout:
    """Take the folders at the top, or in the outer one, as classes, or as splits with classes in them."""
    outer = _take_off_outer_folders(listing, number)
    _take_off_repeated_folders(listing, number)
    below: dict[str, set[str | None]] = {}
    for top, inner in listing.execute(
        "SELECT DISTINCT first, second FROM files WHERE source = ? AND picture AND first NOT NULL ORDER BY 1, 2",
        (number,),
    ):
        below.setdefault(top, set()).add(inner)
    if not below:
        raise LoupeError(f"There are no class folders with images in {printable(str(source.path))}. {NEEDED}")
    splits, notes = _splits_among(below, reading)
    inside = f", all in the folder {printable('/'.join(outer))}" if outer else ""
    if splits:
        for top, split in splits.items():
            _label_in_split(listing, number, top, split)
        words = f"splits ({_named(splits)}) with a folder for each class{inside}"
    else:
        _label_by_folder(listing, number)
        words = f"a folder for each class{inside}"
    return _layout(listing, number, words, notes, has_splits=bool(splits))


def _splits_among(below: dict[str, set[str | None]], reading: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Find the folders that are splits, none where they are classes; returns them, and what is to be said of it.

    below: for each folder the folders in it that have pictures, None among them for pictures of its own.
    """
    exact = {top: SPLITS[top.lower()] for top in below if top.lower() in SPLITS}
    if reading == "classes":
        return {}, ()
    # By other names a folder is taken for a split only where its folders are the classes of the others too.
    named = {top: split for top in below if (split := SPLITS.get(top.lower()) or split_of(top))}
    if reading == "splits":
        if "train" not in named.values():
            raise LoupeError(
                f"None of the folders {some_of(list(below))} is called like a split for training. Name it train."
            )
        _require_classes(below, named)
        return named, _notes_on_names(named)
    if len(exact) == len(below) > 1 and "train" not in exact.values():
        raise LoupeError(f"There are folders {_named(exact)}, but none named train. {NEEDED}")
    train = next((top for top, split in exact.items() if split == "train"), None)
    if len(exact) > 1 and train:
        _require_classes(below, exact)
    alike = _with_the_same_classes(below, named)
    # A folder train beside others may be a class (of vehicles, say); classes in it make it a split.
    if len(exact) > 1 or (train and len(below) > 1 and None not in below[train]):
        splits = {top: split for top, split in named.items() if top in exact or top in alike}
        return splits, _notes_on_names(splits)
    if alike:
        return alike, (*_notes_on_names(alike), "to have each of these folders be a class, choose the layout classes")
    if len(named) > 1 and "train" in named.values() and len(set(named.values())) > 1:
        note = f"the folders {_named(named)} are read as classes, though their names are those of splits"
        if any(None not in below[top] for top, split in named.items() if split == "train"):
            note += "; to have them read as splits, with the folders in them as classes, choose the layout splits"
        return {}, (note,)
    return {}, ()


def _with_the_same_classes(below: dict[str, set[str | None]], named: dict[str, str]) -> dict[str, str]:
    """Return the folders named like splits that hold the classes of the training folder; none where no other does.

    One without any folders is none of them, and makes the training folder a split all the same.
    """
    trained = {
        inner for top, split in named.items() if split == "train" and None not in below[top] for inner in below[top]
    }
    alike, bare = {}, {}
    for top, split in named.items():
        shared = len(below[top] & trained)
        if None not in below[top] and 2 * shared >= min(len(below[top]), len(trained)):
            alike[top] = split
        elif below[top] == {None}:
            bare[top] = split
    others = [top for top in below if top not in named and None not in below[top]]
    is_told = len(trained) > 1 and len(set(alike.values()) | set(bare.values())) > 1
    return alike if is_told and len(others) < len(alike) + len(bare) else {}


def _require_classes(below: dict[str, set[str | None]], splits: dict[str, str]) -> None:
    """Raise LoupeError where the folders for training have no class folders in them."""
    trains = [top for top, split in splits.items() if split == "train"]
    if all(below[top] == {None} for top in trains):
        raise LoupeError(
            f"There are folders {_named(splits)}, but no class folders with images in {printable(trains[0])}. "
            "Put class folders into each, or choose the layout classes, if the folders themselves are the classes."
        )


def _notes_on_names(splits: dict[str, str]) -> tuple[str, ...]:
    """Say which folder was read as which split, where one has another name than those of splits."""
    if all(top.lower() in SPLITS for top in splits):
        return ()
    return (f"read as splits: {join_words(f'{printable(top)} as {split}' for top, split in splits.items())}",)


def _named(folders: dict[str, str]) -> str:
    order = sorted(folders, key=lambda name: (list(SPLITS.values()).index(folders[name]), name))
    return join_words(printable(name) for name in order)


def some_of(names: list[str]) -> str:
    few = ", ".join(printable(name) for name in names[:5])
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"


def _label_by_folder(listing: sqlite3.Connection, number: int) -> None:
    """Give files the label of the folder at the top that they are in, where pictures are among those in it.

    Files of an unknown kind are taken for pictures too.
    """
    listing.execute(
        "UPDATE files SET label = first WHERE source = :number AND NOT other AND problem IS NULL "
        "AND first IN (SELECT first FROM files WHERE source = :number AND picture)",
        {"number": number},
    )


def _label_in_split(listing: sqlite3.Connection, number: int, top: str, split: str) -> None:
    """Give the files in a folder that is a split the label of the folder in it, as ``_label_by_folder`` does."""
    listing.execute(
        "UPDATE files SET label = second, split = :split WHERE source = :number AND first = :top "
        "AND NOT other AND problem IS NULL "
        "AND second IN (SELECT second FROM files WHERE source = :number AND first = :top AND picture)",
        {"split": split, "number": number, "top": top},
    )


def _layout(
    listing: sqlite3.Connection, number: int, words: str, notes: tuple[str, ...], *, has_splits: bool
) -> Layout:
    """Note the pictures that have found no label, and count the other files that have not."""
    unlabelled = "source = ? AND label IS NULL AND problem IS NULL"
    listing.execute(f"UPDATE files SET problem = ? WHERE picture AND {unlabelled}", (IN_NO_CLASS, number))
    (left_out,) = listing.execute(f"SELECT count(*) FROM files WHERE {unlabelled}", (number,)).fetchone()
    return Layout(words, has_splits, left_out, notes)


def folders_left_out(listing: sqlite3.Connection, number: int) -> list[tuple[str, int]]:
    """Name the folders of a source of which no file has a label, and how many files are in each, by name.

    Of folders within each other the outermost is named.
    """
    # SQLite has no function for the folder of a name; this takes off all behind the last slash.
    folder = "rtrim(name, replace(name, '/', ''))"
    taken: set[str] = set()
    for (name,) in listing.execute(
        f"SELECT DISTINCT {folder} FROM files WHERE source = ? AND label NOT NULL", (number,)
    ):
        taken.update(_folders_around(name))
    found: Counter[str] = Counter()
    for name, count in listing.execute(
        f"SELECT {folder}, count(*) FROM files WHERE source = ? AND place NOT NULL GROUP BY 1 HAVING NOT count(label)",
        (number,),
    ):
        if outermost := next((each for each in _folders_around(name) if each not in taken), None):
            found[outermost] += count
    return sorted(found.items())


def _folders_around(folder: str) -> Iterator[str]:
    """List a folder that ends in a slash, and those around it, the outermost first, without the slash."""
    parts = folder.split("/")[:-1]
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


# Manifests


def _find_manifest(
    listing: sqlite3.Connection, source: Source, number: int, only: str | None
) -> tuple[str, bytes] | None:
    """Find the table at the top, or in the only folder there, that says what the files are: its name, and its place."""
    found = []
    for name, place in listing.execute(
        "SELECT name, place FROM files WHERE source = ? AND NOT picture AND problem IS NULL AND second IS NULL "
        "AND (first IS NULL OR first = ?)",
        (number, only),
    ).fetchall():
        if suffix(name) in MANIFEST_SUFFIXES:
            with source.open(place) as file, _as_text(file) as text:
                if {"file", "label"} <= set(_columns(_header(text)[1])):
                    found.append((name, place))
    if len(found) > 1:
        names = join_words(printable(name) for name, _ in found)
        raise LoupeError(f"There are several manifests: {names}. Leave one, or name the one to import by.")
    return found[0] if found else None


def list_manifest(listing: sqlite3.Connection, folder: Folder, number: int, name: str) -> Layout:
    """List the files that a manifest in a folder names: only those, whatever else the folder holds."""
    with folder.open(os.fsencode(name)) as file, _as_text(file) as text:
        columns = _columns(_header(text)[1])
    others = _other_columns(columns)
    has_splits = _read_manifest(listing, folder, name, os.fsencode(name), others)
    notes = (f"columns: {join_words(f'{was} is taken as {column}' for was, column in others.items())}",)
    listing.create_function("place_of", 1, lambda file: os.fsencode(_as_stored(folder.path, file)))
    listing.create_function("bytes_of", 1, lambda file: _bytes_of(folder.path / _as_stored(folder.path, file)))
    listing.execute(
        "INSERT INTO files (source, name, place, bytes, picture, label, split, problem) "
        "SELECT ?, file, place_of(file), bytes_of(file), 1, iif(problem IS NULL, label, NULL), split, problem "
        "FROM named",
        (number,),
    )
    # The largest first: where one has bytes, no other is looked for.
    with closing(listing.execute("SELECT place FROM files WHERE source = ? ORDER BY bytes DESC", (number,))) as places:
        paths = (os.path.join(os.fsencode(folder.path), place) for (place,) in places)  # noqa: PTH118
        is_any_there = any(map(os.path.exists, paths))
    if not is_any_there:
        _tell_none_is_there(listing, name, (normalized(file.name) for file in folder.files()))
    listing.execute("DROP TABLE named")
    return Layout(f"the manifest {printable(name)}", has_splits, 0, notes if others else ())


def _label_by_manifest(listing: sqlite3.Connection, source: Source, number: int, name: str, place: bytes) -> Layout:
    """Give the listed files the splits and labels of a manifest; those that it names in vain are listed as bad."""
    has_splits = _read_manifest(listing, source, name, place)
    listing.execute(
        "UPDATE files SET label = iif(named.problem IS NULL, named.label, NULL), split = named.split, "
        "problem = named.problem FROM named WHERE source = ? AND named.file = files.name AND files.problem IS NULL",
        (number,),
    )
    listing.execute(
        "CREATE TEMP TABLE there AS SELECT name FROM files WHERE source = ? AND (label NOT NULL OR problem NOT NULL)",
        (number,),
    )
    listing.execute("CREATE INDEX by_name ON there (name)")
    listing.execute(
        "INSERT INTO files (source, name, bytes, picture, problem) SELECT ?, file, 0, 1, "
        "coalesce(problem, 'The manifest names it, but it is not there. Check its name.') FROM named "
        "WHERE file NOT IN (SELECT name FROM there)",
        (number,),
    )
    if not listing.execute("SELECT 1 FROM named WHERE file IN (SELECT name FROM there) LIMIT 1").fetchone():
        query = "SELECT name FROM files WHERE source = ? AND place NOT NULL"
        with closing(listing.execute(query, (number,))) as there:
            _tell_none_is_there(listing, name, (file for (file,) in there))
    listing.execute("DROP TABLE there")
    listing.execute("DROP TABLE named")
    (not_named,) = listing.execute(
        "SELECT count(*) FROM files WHERE source = ? AND label IS NULL AND problem IS NULL", (number,)
    ).fetchone()
    return Layout(f"the manifest {printable(name)}", has_splits, not_named - 1)  # but for the manifest itself


def _tell_none_is_there(listing: sqlite3.Connection, manifest: str, files: Iterable[str]) -> None:
    """Raise LoupeError for a manifest of which no file is there, unless it names none.

    files: names of what is there, among which the one is looked for that the first may mean.
    """
    (count,) = listing.execute("SELECT count(*) FROM named").fetchone()
    if count:
        (first,) = listing.execute("SELECT file FROM named ORDER BY rowid LIMIT 1").fetchone()
        folder = f"{PurePosixPath(manifest).parent}/"
        first = first.removeprefix(folder)
        wanted = _stem(first)
        meant = next((name for name in islice(files, MOST_SEARCHED) if _stem(name) == wanted), None)
        to_do = "Files are named from the manifest's folder."
        if meant:
            to_do = f"It may mean {printable(meant.removeprefix(folder))}: write each so, from the manifest's folder."
        none = "it is not there" if count == 1 else "none of them is there"
        raise LoupeError(
            f"The manifest {printable(manifest)} names {pluralize(count, 'file')}, and {none} (the first: "
            f"{printable(first)}). {to_do}"
        )


def _stem(name: str) -> str:
    """Return the last part of a name, whatever its case, without its suffix."""
    return PurePosixPath(name).name.rpartition(".")[0].lower() or PurePosixPath(name).name.lower()


def _other_columns(columns: list[str]) -> dict[str, str]:
    """Return which of a manifest's columns stand for those that it has not."""
    found = {}
    for column, others in OTHER_COLUMNS.items():
        if column not in columns and (other := next((other for other in others if other in columns), None)):
            found[other] = column
    return found


def _read_manifest(
    listing: sqlite3.Connection,
    source: Source,
    name: str,
    place: bytes,
    others: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Read a manifest into the table ``named``; returns whether it has splits.

    others: columns that stand for those of a manifest, by their own names.
    Raises LoupeError with the line that cannot be understood.
    """
    listing.execute("CREATE TEMP TABLE named (file TEXT, label TEXT, split TEXT, problem TEXT)")
    with source.open(place) as file, _as_text(file) as text:
        delimiter, header = _header(text)
        columns = [others.get(column, column) for column in _columns(header)]
        if not {"file", "label"} <= set(columns):
            first = ",".join(header)
            if "\0" in first or any("\ud800" <= character <= "\udfff" for character in first):
                raise LoupeError(f"The manifest {printable(name)} {NOT_TEXT}")
            if len(first) > QUOTED:
                first = f"{first[:QUOTED]}..."
            raise LoupeError(
                f"The first line of the manifest {printable(name)} is {printable(first)!r}, "
                "but must name the columns file,label or file,label,split."
            )
        rows = _rows(text, delimiter, columns, name, source.path)
        listing.executemany("INSERT INTO named VALUES (?, ?, ?, ?)", rows)
    listing.execute("CREATE INDEX by_file ON named (file)")
    listing.create_function("shown", 1, printable)
    for column, word in (("split", "in"), ("label", "as")):  # of both, that of the labels is told
        listing.execute(
            f"UPDATE named SET problem = 'The manifest names it {word} ' || shown(low) || ' and {word} ' || "
            f"shown(high) || '.' FROM (SELECT file AS twice, min({column}) AS low, max({column}) AS high FROM named "
            f"GROUP BY file HAVING count(*) > 1 AND min({column}) < max({column})) WHERE file = twice"
        )
    listing.execute("DELETE FROM named WHERE rowid NOT IN (SELECT min(rowid) FROM named GROUP BY file)")
    return "split" in columns


def _rows(
    text: io.TextIOWrapper, delimiter: str, columns: list[str], manifest: str, root: Path
) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Read the lines of a manifest: file below the source, label, split, and what is wrong with it."""
    reader = csv.reader(text, delimiter=delimiter)
    name = printable(manifest)
    try:
        for row in reader:
            "".join(row).encode()
            if not any(cell.strip() for cell in row):
                continue
            values = dict(zip(columns, (cell.strip() for cell in row), strict=False))
            if not values.get("file") or not values.get("label"):
                lacking = "label" if values.get("file") else "file"
                raise LoupeError(
                    f"Line {reader.line_num + 1} of the manifest {name} has no {lacking}. "
                    "Each line needs a file and its label."
                )
            said = values.get("split", "")
            split = SPLITS.get(said.lower()) or split_of(said)
            if "split" in columns and split is None:
                raise LoupeError(
                    f"Line {reader.line_num + 1} of the manifest {name} has the split {printable(said)!r}, but it "
                    "must be train, val or test."
                )
            file = values["file"].replace("\\", "/")
            if file.startswith("/") and Path(file).is_relative_to(root):
                path = PurePosixPath(file).relative_to(root)
            else:
                path = PurePosixPath(manifest).parent / file
            outside = path.is_absolute() or ".." in path.parts
            problem = "It lies outside the manifest's folder. Copy it there." if outside else None
            if "\0" in file:
                problem = "Its name in the manifest holds a zero byte. Write the manifest anew."
            yield normalized(str(path)), normalized(values["label"]), split, problem
    except csv.Error as error:
        raise LoupeError(
            f"Line {reader.line_num + 1} of the manifest {name} cannot be read ({error}). Save it as plain CSV."
        ) from error
    except UnicodeEncodeError:  # bytes that are no text were let through as surrogates
        raise LoupeError(f"The manifest {name} {NOT_TEXT}") from None


def _as_text(file) -> io.TextIOWrapper:
    is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as spreadsheets save "Unicode text"
    file.seek(0)
    if is_utf_16:
        return io.TextIOWrapper(file, encoding="utf-16", errors="replace", newline="")
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _header(text: io.TextIOWrapper) -> tuple[str, list[str]]:
    """Read the first line: the delimiter, and the columns' names."""
    line = text.readline(100_000)
    delimiter = max(",\t;", key=line.count)
    return delimiter, next(csv.reader([line], delimiter=delimiter), [])


def _columns(header: list[str]) -> list[str]:
    return [column.strip().lower() for column in header]


def _as_stored(folder: Path, name: str) -> str:
    """Return the name in the form that its file has: letters and their accents may be apart there."""
    apart = unicodedata.normalize("NFD", name)
    return apart if not _bytes_of(folder / name) and _bytes_of(folder / apart) else name


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
