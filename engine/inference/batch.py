"""Classifying many pictures, from files, folders, zips and lists: an answer for each as soon as it is ready."""

import glob
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

import numpy as np

from engine.base.errors import LoupeError
from engine.base.machine import cores
from engine.base.tars import is_compressed_tar, is_tar
from engine.evaluation.predictions import top
from engine.images.kinds import is_picture
from engine.images.pictures import SUFFIXES, Picture, data_url, open_picture, read_file
from engine.images.sources import UnsafeSourceError, find, open_source, require_allowed
from engine.importing.layout import normalized
from engine.inference.classifier import Classifier

ZIP_START = b"PK"
THUMBNAIL = 64
# Pictures that are opened by threads; each may take a few hundred megabytes.
MOST_AT_ONCE = 8


class Item(NamedTuple):
    """A picture that is to be classified: what it is called, and what reads its file, or raises LoupeError.

    below: its name below the folder or zip that was given; empty where the file itself was.
    """

    name: str
    read: Callable[[], bytes]
    below: str = ""


class Prepared(NamedTuple):
    """A picture that was opened; what the model is given of it, and what was done to it for that, in words."""

    picture: Picture
    given: np.ndarray
    note: str


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture, or why nothing can be said.

    top: the most probable classes, label and confidence, best first. notes: what was done to the picture, in words.
    true: the class that its folder, or the beginning of its name, says it is. size: width and height as it came.
    pixels: uint8 (height, width, channels), as it was opened; seen: what the model saw of it.
    """

    file: str
    error: str | None = None
    top: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    true: str | None = None
    size: tuple[int, int] = (0, 0)
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)
    seen: np.ndarray | None = field(default=None, compare=False, repr=False)

    def as_document(self) -> dict[str, Any]:
        """Return it as scripts read it."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        document = {"file": self.file, **self.top[0], "top": list(self.top)}
        return document | {name: value for name, value in (("true", self.true), ("notes", list(self.notes))) if value}

    def as_row(self) -> dict[str, Any]:
        """Return it as the pages read it: with a small picture, a data URL, and the size."""
        row = self.as_document() | {"size": list(self.size)}
        return row if self.pixels is None else row | {"thumbnail": data_url(self.pixels, THUMBNAIL)}


class Pictures:
    """The pictures at some paths, one after the other: files, those in folders and zips, and those that match a glob.

    passed_over: how many files in folders and zips were left out so far, as they are no pictures.
    """

    def __init__(self, paths: Iterable[str]):
        self.paths = paths
        self.passed_over = 0

    def __iter__(self) -> Iterator[Item]:
        for path in self.paths:
            for named in _matching(path):
                try:
                    yield from self._at(named)
                except LoupeError as error:  # of all that is there: a zip that does harm, say
                    yield Item(named, partial(_refuse, str(error)))

    def _at(self, named: str) -> Iterator[Item]:
        if not named or "\0" in named:  # no path; the first would be taken for the folder that we are in
            yield Item(named, partial(_refuse, "There is no such file. Check its name and folder."))
            return
        path = Path(os.path.expanduser(named))  # noqa: PTH111 - it leaves alone what it cannot expand
        if not _holds_files(path):
            yield Item(named, partial(_read, named, path))
            return
        source = open_source(find(named))
        try:
            found = False
            for file in sorted(source.files()):
                name = f"{named.rstrip('/')}/{file.name}"
                try:
                    problem, is_one = file.problem, not file.problem and is_picture(source, file)
                except UnsafeSourceError:
                    raise
                except LoupeError as error:
                    problem = str(error)
                if problem:
                    yield Item(name, partial(_refuse, problem), file.name)
                elif is_one:
                    yield Item(name, partial(source.read, file.place), file.name)
                else:
                    self.passed_over += 1
                    continue
                found = True
            if not found:
                raise LoupeError("There is no picture in it. Use PNG, JPEG, WebP, GIF, BMP or TIFF.")
        finally:
            source.close()


def _matching(path: str) -> Sequence[str]:
    # Compared with what is there first: a file's own name may have brackets in it.
    if not glob.has_magic(path) or os.path.lexists(path) or "\0" in path:
        return [path]
    # Not pathlib's: the names are to be as they were given.
    found = sorted(glob.glob(os.path.expanduser(path), recursive=True))  # noqa: PTH111, PTH207
    folders = {each for each in map(Path, found) if each.is_dir()}
    # What is in a folder that matches too, as most does of **, comes with it.
    return [each for each in found if folders.isdisjoint(Path(each).parents)] or [path]


def _holds_files(path: Path) -> bool:
    """Tell whether it is a folder, a zip or a tar; an archive's name may end in anything but what pictures' do."""
    try:
        if path.is_dir():
            return True
        require_allowed(path)
        suffix = path.suffix.lower()
        if not path.is_file() or suffix[1:] in SUFFIXES:  # to open a pipe would be to wait for it
            return False
        with path.open("rb") as file:
            start = file.read(512)
        return suffix == ".zip" or start[:2] == ZIP_START or is_tar(start) or is_compressed_tar(path)
    except (OSError, ValueError):  # reading it tells
        return False


def _read(named: str, path: Path) -> bytes:
    if glob.has_magic(named) and not os.path.lexists(path):
        raise LoupeError("No file matches this. Check its folder and its pattern.")
    require_allowed(path)
    return read_file(path)


def _refuse(reason: str) -> bytes:
    raise LoupeError(reason)


def classify_all(
    classifier: Classifier, items: Iterable[Item], normalize: bool = True
) -> Generator[Answer, None, None]:
    """Classify pictures in bounded memory, yielding their answers in order.

    Files are read, and pictures opened and their ink found, ahead of the model by threads. A bad one is an answer with
    its reason.
    """
    prepare = partial(_prepare, classifier, normalize)
    classifier.preprocessing.require_images()
    at_once = min(cores(), MOST_AT_ONCE)
    opened: Queue[tuple[Item, Future[Prepared]] | BaseException | None] = Queue(at_once + 1)
    over = Event()

    def put(entry: tuple[Item, Future[Prepared]] | BaseException | None) -> None:
        while not over.is_set():
            with suppress(Full):
                opened.put(entry, timeout=0.2)
                return

    def feed() -> None:
        try:
            for item in items:
                put((item, _open(item, prepare, pool)))
                if over.is_set():
                    return
            put(None)
        except BaseException as error:  # it is for whoever asked
            put(error)

    pool = ThreadPoolExecutor(at_once)
    # Not one of the pool: it may wait for a list that somebody types, and is not waited for.
    Thread(target=feed, daemon=True).start()
    try:
        while (entry := opened.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield _answer(classifier, *entry)
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)


def _open(item: Item, prepare: Callable[[bytes], Prepared], pool: ThreadPoolExecutor) -> Future[Prepared]:
    # Read here, one after the other: the files of a zip have one place to be read at.
    failed: Future[Prepared] = Future()
    try:
        return pool.submit(prepare, item.read())
    except Exception as error:
        failed.set_exception(error)
        return failed


def _prepare(classifier: Classifier, normalize: bool, content: bytes) -> Prepared:
    preprocessing = classifier.preprocessing
    picture = open_picture(content, preprocessing.image_shape[2], preprocessing.levels)
    return _normalized(classifier, picture, normalize)


def _normalized(classifier: Classifier, picture: Picture, normalize: bool) -> Prepared:
    return Prepared(picture, *(classifier.normalize(picture.pixels) if normalize else (picture.pixels, "")))


def _answer(classifier: Classifier, item: Item, opened: Future[Prepared]) -> Answer:
    true = true_class(item.name, classifier.classes, item.below)
    try:
        return _classify(classifier, item.name, opened.result(), true)
    except LoupeError as error:
        return Answer(item.name, error=str(error))


def answer(classifier: Classifier, name: str, picture: Picture, normalize: bool = True) -> Answer:
    """Classify one picture that was opened; normalize: read ink as the training images have it, if they are of ink."""
    prepared = _normalized(classifier, picture, normalize)
    return _classify(classifier, name, prepared, true_class(name, classifier.classes))


def _classify(classifier: Classifier, name: str, prepared: Prepared, true: str | None) -> Answer:
    picture, given, note = prepared
    probabilities, seen = classifier.classify(given)
    return Answer(
        file=name,
        top=tuple(top(probabilities, classifier.classes)),
        notes=tuple(filter(None, (picture.note, note))),
        true=true,
        size=picture.original[:2],
        pixels=picture.pixels,
        seen=seen,
    )


def true_class(name: str, classes: Sequence[str], below: str = "") -> str | None:
    """Return the class that one of a file's folders is called after, or that its name begins with; None where none is.

    ``cat/1.png``, ``cat/indoors/1.png`` and ``cat_1.png`` are cats, ``1.png`` is a 1, but ``10.png`` is not. below: the
    end of its name that is below the folder or zip that was given. There the outermost folder counts, as in an import;
    then the nearest of those above. Case counts only where it has to.
    """
    *folders, file = normalized(name.replace("\\", "/")).split("/")
    within = normalized(below.replace("\\", "/")).split("/")[:-1]
    outside = folders[: len(folders) - len(within)]
    known = {each.casefold() for each in classes}
    stem = file.rpartition(".")[0] or file
    written = next((folder for folder in (*within, *reversed(outside)) if folder.casefold() in known), stem)
    said = [each for each in classes if each.casefold() == written.casefold()]
    said = said or [each for each in classes if _begins(stem.casefold(), each.casefold())]
    # The longest of several; of a and A the one that is written so.
    return max(said, key=lambda each: (len(each), written.startswith(each)), default=None)


def _begins(stem: str, name: str) -> bool:
    return stem.startswith(name) and not stem[len(name) : len(name) + 1].isalnum()
