"""Making a dataset of a plan: every picture is decoded once, by several processes, straight into the arrays' files."""

import csv
import os
import shutil
import signal
import time
from array import array
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from engine.base.errors import LoupeError
from engine.base.machine import cores
from engine.base.paths import data_root, is_locked, writing_folder
from engine.base.text import join_words, printable
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import begin_dataset, finish_dataset, prepared_root
from engine.data.source_files import BAD_FILES, SourceFilesWriter
from engine.images.kinds import suffix
from engine.images.pictures import Original
from engine.importing.decoding import Chunk, Glance, Sight, decode, look, prepare_process
from engine.importing.layout import some_of
from engine.importing.plan import Listing, Plan, Progress, Request, check_request, is_kept, make_plan, revise

# What a process decodes at a time: so many images, or fewer where they are large, as files or as pixels.
CHUNK_IMAGES = 256
CHUNK_BYTES = 8_000_000
# Suffixes of formats that have 8 bits a pixel and no more.
OF_8_BITS = frozenset({"jpg", "jpeg", "gif", "webp", "bmp", "ico", "tga"})
CRASHED = "The process that decoded it was killed: the file may be damaged, or memory short. Save the picture anew."


@dataclass
class _Rows:
    """A chunk of a split's images: what is known of them before they are decoded."""

    split: str
    chunk: Chunk
    classes: tuple[int, ...]
    names: tuple[str, ...]
    sizes: tuple[int, ...]  # bytes of the files
    first: int


def import_dataset(request: Request) -> Generator[Progress, None, Plan]:
    """Import a person's pictures as a dataset, yielding progress; closed early, it leaves nothing behind.

    Returns the plan that it followed.

    Raises LoupeError when it cannot be done. Whatever ends it, the dataset is there whole or not at all.
    """
    check_request(request)
    with writing_folder(data_root()):
        prepared_root().mkdir(parents=True, exist_ok=True)
        try:
            # What is acquired is released once: a lock that is entered again would stay held.
            lock = FileLock(_lock_file(request.name)).acquire(blocking=False)
        except Timeout:
            raise LoupeError(
                f"A dataset named {request.name} is being made right now. Wait for its end, or choose another name."
            ) from None
    with lock, closing(Listing(request)) as listing:
        check_request(request)  # another may have had the lock
        _sweep()
        decoders = _Decoders()  # they start while files are listed
        try:
            plan = yield from make_plan(listing)
            plan = revise(plan, request, (yield from _look_at_all(listing, plan, decoders)))
            with writing_folder(prepared_root()):
                folder = begin_dataset(request.name)
                plan = yield from _make(listing, plan, folder, decoders)
            return plan
        finally:
            decoders.close()
            shutil.rmtree(prepared_root() / f".{request.name}.unfinished", ignore_errors=True)


def _look_at_all(listing: Listing, plan: Plan, decoders: "_Decoders") -> Generator[Progress, None, Sight]:
    """Look at every picture that what was seen of some may not hold for: sizes, colour, values of more than 8 bits."""
    seen, done = Sight(), 0
    for_sizes, for_colour = is_kept(plan, listing.request), plan.channels == 1
    paths = tuple(str(source.file) for source in listing.sources)
    listed = listing.database.execute("SELECT source, place, name FROM images ORDER BY rowid")
    rows = (row for row in listed if for_sizes or for_colour or suffix(row[2]) not in OF_8_BITS)

    def glances() -> Iterator[Glance]:
        while some := list(islice(rows, CHUNK_IMAGES)):
            sources, places, _ = zip(*some, strict=True)
            yield Glance(paths, sources, places, for_colour and not seen.has_colour, for_values=True)

    for glance, found in decoders.look(glances()):
        seen.add(found)
        done += len(glance.places)
        yield Progress("Looking at images", done, sum(plan.images.values()))
    return seen


def _lock_file(name: str) -> Path:
    # Names that differ in case alone are one folder on some disks.
    return prepared_root() / f".{name.lower()}.lock"


def _sweep() -> None:
    """Delete what imports that were killed have left."""
    for left in prepared_root().glob(".*.unfinished"):
        name = left.name[1 : -len(".unfinished")]
        if name not in CATALOGUE and not is_locked(_lock_file(name)):
            shutil.rmtree(left, ignore_errors=True)


def _make(listing: Listing, plan: Plan, folder: Path, decoders: "_Decoders") -> Generator[Progress, None, Plan]:
    """Decode all images and finish the dataset; returns the plan, with a note of the classes that have none."""
    request, total = listing.request, sum(plan.images.values())
    with ExitStack() as files:
        writers = {split: files.enter_context(_SplitWriter(folder, split, plan)) for split in plan.images}
        bad = yield from _decode_all(listing, plan, writers, decoders, folder)
    yield Progress("Finishing", total, total, bad)
    classes, labels = _without_empty(plan.classes, {split: writers[split].finish() for split in writers}, request)
    if lost := set(plan.classes) - set(classes):
        said = f"left out: {some_of(sorted(lost))}, of which no file is a picture that can be read"
        plan = replace(plan, notes=(said, *plan.notes))
    for split in plan.images:
        if split in labels:
            np.save(folder / f"{split}-labels.npy", labels[split])
        else:
            for unused in folder.glob(f"{split}-*"):
                unused.unlink()
    counts = {split: len(labels[split]) for split in labels}
    finish_dataset(
        request.name,
        classes,
        counts,
        _source(request, plan),
        bad_file_count=bad,
        fit=request.fit,
        levels=plan.levels,
        imported_from=tuple(str(Path(path).expanduser().resolve()) for path in request.paths),
    )
    return plan


def _decode_all(
    listing: Listing, plan: Plan, writers: dict[str, "_SplitWriter"], decoders: "_Decoders", folder: Path
) -> Generator[Progress, None, int]:
    """Decode the images of all splits, and list the bad files; returns how many these are."""
    total = sum(plan.images.values())
    chunks = chain.from_iterable(_chunks(listing, plan, writers[split]) for split in plan.images)
    done = bad = 0
    began: tuple[float, int] | None = None
    with (folder / BAD_FILES).open("w", newline="", encoding="utf-8") as file:
        bad_files = csv.writer(file)
        bad_files.writerow(("file", "reason"))
        for name, reason in listing.database.execute("SELECT name, problem FROM files WHERE problem NOT NULL"):
            bad_files.writerow((name, reason))
            bad += 1
        for rows, results in decoders.decode(chunks):
            for name, reason in writers[rows.split].add(rows, results):
                bad_files.writerow((name, reason))
                bad += 1
            done += len(results)
            began = began or (time.monotonic(), done)  # the pace is that of those that follow
            yield Progress("Decoding", done, total, bad, time.monotonic() - began[0], done - began[1])
    return bad


class _SplitWriter:
    """The files of a split as they fill: pixels come from the processes, the rest from here."""

    def __init__(self, folder: Path, split: str, plan: Plan):
        self.split = split
        self.images = folder / f"{split}-images.npy"
        self.shape = (plan.images[split], plan.height, plan.width, plan.channels)
        self.start = _reserve(self.images, self.shape)
        self._origins = SourceFilesWriter(folder, split)
        self._labels, self._bad_rows = array("q"), array("q")

    def add(self, rows: _Rows, results: list[Original | str]) -> list[tuple[str, str]]:
        """Note what became of some images; returns names and reasons of the bad ones."""
        good, bad = [], []
        for row, result in enumerate(results):
            if isinstance(result, Original):
                good.append((rows.names[row], rows.sizes[row], *result))
                self._labels.append(rows.classes[row])
            else:
                bad.append((rows.names[row], result))
                self._bad_rows.append(rows.first + row)
        self._origins.write(good)
        return bad

    def __enter__(self) -> "_SplitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._origins.close()

    def finish(self) -> np.ndarray:
        """Close the gaps that bad files left; returns the labels of the good images."""
        _close_gaps(self.images, self.start, self.shape, self._bad_rows)
        return np.array(self._labels, dtype=np.int64)


def _source(request: Request, plan: Plan) -> str:
    how = {"crop": "shorter side resized, middle cut out", "pad": "longer side resized, padded with black"}[request.fit]
    kept = f"{how}" if plan.is_resized else "kept at their size"
    paths = join_words(printable(Path(path).expanduser().resolve().name) for path in request.paths)
    scaled = ["values from {:g} to {:g} brought to 8 bits".format(*plan.levels)] if plan.levels else []
    return "; ".join([f"imported from {paths}", plan.layout, kept, *scaled, *plan.notes])


def _reserve(path: Path, shape: tuple[int, ...]) -> int:
    """Make a file of images at its full size, so that a full disk is told now; returns where the images start."""
    with path.open("wb") as file:
        _write_header(file, shape)
        start = file.tell()
        size = start + int(np.prod(shape, dtype=np.int64))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return start


def _write_header(file, shape: tuple[int, ...]) -> None:
    # NumPy leaves room in it for a longer first number, so that it can be written again with another.
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _chunks(listing: Listing, plan: Plan, writer: _SplitWriter) -> Iterator[_Rows]:
    """Divide the images of a split into chunks; only those under way are in memory."""
    image_bytes = plan.height * plan.width * plan.channels
    most = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // image_bytes))
    paths = tuple(str(source.file) for source in listing.sources)
    fit, levels = listing.request.fit, plan.levels
    first = file_bytes = 0
    waiting: list[tuple] = []

    def chunk() -> _Rows:
        sources, classes, names, places, sizes = zip(*waiting, strict=True)
        file, offset = str(writer.images), writer.start + first * image_bytes
        work = Chunk(paths, sources, places, file, offset, plan.height, plan.width, plan.channels, fit, levels)
        return _Rows(writer.split, work, classes, names, sizes, first)

    query = "SELECT source, class, name, place, bytes FROM images WHERE split = ? ORDER BY rowid"
    for row in listing.database.execute(query, (writer.split,)):
        waiting.append(row)
        file_bytes += row[-1]
        if len(waiting) == most or file_bytes > CHUNK_BYTES:
            yield chunk()
            first += len(waiting)
            waiting, file_bytes = [], 0
    if waiting:
        yield chunk()


class _Decoders:
    """The processes that decode; close them."""

    def __init__(self) -> None:
        self._pool = _start_pool(cores())

    def decode(self, chunks: Iterator[_Rows]) -> Iterator[tuple[_Rows, list[Original | str]]]:
        """Decode chunks, some ahead of the one that is waited for; yields them in their order."""
        under_way: deque[tuple[_Rows, Future]] = deque()
        waiting = next(chunks, None)
        while waiting or under_way:
            try:
                while waiting and len(under_way) <= 2 * cores():
                    under_way.append((waiting, self._pool.submit(decode, waiting.chunk)))
                    waiting = next(chunks, None)
                results = under_way[0][1].result()
            except BrokenProcessPool:
                # A picture has killed its decoder, or the system has for want of memory: one at a time tells which.
                while under_way:
                    rows, _ = under_way.popleft()
                    yield rows, self._decode_alone(rows.chunk)
                self._restart(cores())
            else:
                yield under_way.popleft()[0], results

    def look(self, glances: Iterator[Glance]) -> Iterator[tuple[Glance, Sight]]:
        """Look at pictures, some ahead of those that are waited for; yields what was seen of them, in their order."""
        under_way: deque[tuple[Glance, Future]] = deque()
        waiting = next(glances, None)
        while waiting or under_way:
            try:
                while waiting and len(under_way) <= 2 * cores():
                    under_way.append((waiting, self._pool.submit(look, waiting)))
                    waiting = next(glances, None)
                seen = under_way[0][1].result()
            except BrokenProcessPool:  # by one of those under way
                while under_way:
                    glance, _ = under_way.popleft()
                    yield glance, self._look_alone(glance)
                self._restart(cores())
            else:
                yield under_way.popleft()[0], seen

    def _look_alone(self, glance: Glance) -> Sight:
        seen = Sight()
        self._restart(1)
        for source, place in zip(glance.sources, glance.places, strict=True):
            try:
                seen.add(self._pool.submit(look, replace(glance, sources=(source,), places=(place,))).result())
            except BrokenProcessPool:  # decoding it tells
                self._restart(1)
        return seen

    def _decode_alone(self, chunk: Chunk) -> list[Original | str]:
        results: list[Original | str] = []
        self._restart(1)
        for row, (source, place) in enumerate(zip(chunk.sources, chunk.places, strict=True)):
            offset = chunk.offset + row * chunk.height * chunk.width * chunk.channels
            try:
                alone = replace(chunk, sources=(source,), places=(place,), offset=offset)
                results += self._pool.submit(decode, alone).result()
            except BrokenProcessPool:
                results.append(CRASHED)
                self._restart(1)
        return results

    def _restart(self, workers: int) -> None:
        self._pool.shutdown()
        self._pool = _start_pool(workers)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    # Started afresh, not forked: whoever imports may have threads, and torch.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=prepare_process)
    # Ctrl+C reaches all; the one that gives the work ends it. What is blocked here is blocked in what is started.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(workers):  # each task starts a process while none is idle
            pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pool


def _close_gaps(path: Path, start: int, shape: tuple[int, ...], bad_rows: array) -> None:
    """Move the images of a split up over the rows of bad files, in the file, and cut off the rest."""
    if not bad_rows:
        return
    row_bytes = int(np.prod(shape[1:]))
    bad_rows.append(shape[0])  # the last gap is the end
    with path.open("r+b") as file:
        to = start + bad_rows[0] * row_bytes
        for bad, next_bad in pairwise(bad_rows):
            at, end = start + (bad + 1) * row_bytes, start + next_bad * row_bytes
            while at < end:
                file.seek(at)
                block = file.read(min(1 << 20, end - at))
                file.seek(to)
                file.write(block)
                at, to = at + len(block), to + len(block)
        file.truncate(to)
        file.seek(0)
        _write_header(file, ((to - start) // row_bytes, *shape[1:]))


def _without_empty(
    classes: tuple[str, ...], labels: dict[str, np.ndarray], request: Request
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Leave out splits and classes of which no file could be read. Raises LoupeError when too little is left."""
    place = printable(request.path)
    labels = {split: numbers for split, numbers in labels.items() if len(numbers)}
    if "train" not in labels:
        raise LoupeError(f"None of the training images in {place} could be read. Check that they are pictures.")
    used = np.unique(np.concatenate(list(labels.values())))
    if len(used) == 1:
        raise LoupeError(
            f"Of all classes in {place} only {printable(classes[used[0]])} has images that could be read, and telling "
            "apart takes two. Check the others' files."
        )
    return tuple(classes[number] for number in used), {
        split: np.searchsorted(used, numbers) for split, numbers in labels.items()
    }
