"""Making a dataset of a plan: every picture is decoded once, by several processes, straight into the arrays' files."""

import csv
import os
import shutil
import time
from array import array
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from engine.catalogue import CATALOGUE
from engine.dataset import begin_dataset, finish_dataset, prepared_root
from engine.decoding import Chunk, decode, prepare_process
from engine.errors import LoupeError
from engine.ingest import Listing, Plan, Progress, Request, check_request, make_plan
from engine.machine import cores
from engine.origins import BAD_FILES, OriginsWriter
from engine.paths import data_root, is_locked, writing_to
from engine.pictures import Original
from engine.words import shown

# What a process decodes at a time: so many images, or fewer where they are large, as files or as pixels.
CHUNK_IMAGES = 64
CHUNK_BYTES = 8_000_000
CRASHED = "The process that decoded it was killed: the file may be damaged, or memory short. Save the picture anew."


@dataclass
class _Rows:
    """A chunk of a split's images with what becomes of them."""

    chunk: Chunk
    classes: list[int]
    files: list[tuple[str, int]]  # names and bytes
    first: int


def import_dataset(request: Request) -> Generator[Progress, None, None]:
    """Import a person's pictures as a dataset, yielding progress; closed early, it leaves nothing behind.

    Raises LoupeError when it cannot be done. Whatever ends it, the dataset is there whole or not at all.
    """
    check_request(request)
    with writing_to(data_root()):
        prepared_root().mkdir(parents=True, exist_ok=True)
        try:
            # What is acquired is released once: a lock that is entered again would stay held.
            lock = FileLock(prepared_root() / f".{request.name}.lock").acquire(blocking=False)
        except Timeout:
            raise LoupeError(
                f"A dataset named {request.name} is being made right now. Wait for its end, or choose another name."
            ) from None
    with lock, closing(Listing(request)) as listing:
        check_request(request)  # another may have had the lock
        _sweep()
        plan = yield from make_plan(listing)
        try:
            with writing_to(prepared_root()):
                folder = begin_dataset(request.name)
                yield from _make(listing, plan, folder)
        finally:
            shutil.rmtree(prepared_root() / f".{request.name}.unfinished", ignore_errors=True)


def _sweep() -> None:
    """Delete what imports that were killed have left."""
    for left in prepared_root().glob(".*.unfinished"):
        name = left.name[1 : -len(".unfinished")]
        if name not in CATALOGUE and not is_locked(prepared_root() / f".{name}.lock"):
            shutil.rmtree(left, ignore_errors=True)


def _make(listing: Listing, plan: Plan, folder: Path) -> Iterator[Progress]:
    request, total = listing.request, sum(plan.images.values())
    labels: dict[str, np.ndarray] = {}
    done = bad = 0
    began = 0.0
    with (folder / BAD_FILES).open("w", newline="", encoding="utf-8") as file:
        bad_files = csv.writer(file)
        bad_files.writerow(("file", "reason"))
        for name, reason in listing.database.execute("SELECT name, problem FROM files WHERE problem NOT NULL"):
            bad_files.writerow((name, reason))
            bad += 1
        for split in plan.images:
            labels_so_far, bad_rows = array("q"), array("q")
            origins = OriginsWriter(folder, split)
            images = folder / f"{split}-images.npy"
            start = _reserve(images, plan, split)
            for rows, results in _decoded(_chunks(listing, plan, split, images, start), listing):
                began = began or time.monotonic()  # from the first ones on: processes take a moment to start
                good = []
                for row, result in enumerate(results):
                    name, size = rows.files[row]
                    if isinstance(result, Original):
                        good.append((name, size, result.width, result.height, result.mode))
                        labels_so_far.append(rows.classes[row])
                    else:
                        bad_files.writerow((name, result))
                        bad_rows.append(rows.first + row)
                        bad += 1
                if good:
                    origins.write(good)
                done += len(results)
                yield Progress("Decoding", done, total, bad, time.monotonic() - began)
            origins.close()
            labels[split] = np.frombuffer(labels_so_far, dtype=np.int64) if labels_so_far else np.empty(0, np.int64)
            _close_gaps(images, start, (plan.images[split], plan.height, plan.width, plan.channels), bad_rows)
    yield Progress("Finishing", done, total, bad, time.monotonic() - began)
    classes, labels = _without_empty(plan.classes, labels, request)
    for split in plan.images:
        if split in labels:
            np.save(folder / f"{split}-labels.npy", labels[split])
        else:
            for unused in folder.glob(f"{split}-*"):
                unused.unlink()
    counts = {split: len(labels[split]) for split in labels}
    finish_dataset(request.name, classes, counts, _source(request, plan), bad_file_count=bad)


def _source(request: Request, plan: Plan) -> str:
    how = {"crop": "shorter side resized, middle cut out", "pad": "longer side resized, padded with black"}[request.fit]
    kept = f"{how}" if plan.is_resized else "kept at their size"
    paths = " and ".join(
        shown(Path(path).expanduser().resolve().name) for path in filter(None, (request.path, request.test))
    )
    return "; ".join([f"imported from {paths}", plan.layout, kept, *plan.notes])


def _reserve(path: Path, plan: Plan, split: str) -> int:
    """Make the file of a split's images at its full size, so that a full disk is told now; returns where they start."""
    shape = (plan.images[split], plan.height, plan.width, plan.channels)
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


def _chunks(listing: Listing, plan: Plan, split: str, images: Path, start: int) -> Iterator[_Rows]:
    """Divide the images of a split into chunks; only those under way are in memory."""
    image_bytes = plan.height * plan.width * plan.channels
    most = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // image_bytes))
    fit = listing.request.fit
    first = file_bytes = 0
    waiting: list[tuple] = []

    def chunk() -> _Rows:
        sources, classes, names, places, sizes = zip(*waiting, strict=True)
        offset = start + first * image_bytes
        shape = (plan.height, plan.width, plan.channels)
        files = list(zip(names, sizes, strict=True))
        return _Rows(Chunk(sources, places, str(images), offset, *shape, fit), list(classes), files, first)

    query = "SELECT source, class, name, place, bytes FROM images WHERE split = ? ORDER BY rowid"
    for row in listing.database.execute(query, (split,)):
        waiting.append(row)
        file_bytes += row[-1]
        if len(waiting) == most or file_bytes > CHUNK_BYTES:
            yield chunk()
            first += len(waiting)
            waiting, file_bytes = [], 0
    if waiting:
        yield chunk()


def _decoded(chunks: Iterator[_Rows], listing: Listing) -> Iterator[tuple[_Rows, list[Original | str]]]:
    """Decode chunks in processes, some ahead of the one that is waited for; yields them in their order."""
    paths = [source.path for source in listing.sources]
    workers = cores()
    pool = _start_pool(paths, workers)
    under_way: deque[tuple[_Rows, Future]] = deque()
    waiting = next(chunks, None)
    try:
        while waiting or under_way:
            try:
                while waiting and len(under_way) <= 2 * workers:
                    under_way.append((waiting, pool.submit(decode, waiting.chunk)))
                    waiting = next(chunks, None)
                results = under_way[0][1].result()
            except BrokenProcessPool:
                # A picture has killed its decoder, or the system has for want of memory: one at a time tells which.
                pool.shutdown()
                while under_way:
                    rows, _ = under_way.popleft()
                    yield rows, _decode_alone(rows.chunk, paths)
                pool = _start_pool(paths, workers)
            else:
                yield under_way.popleft()[0], results
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_alone(chunk: Chunk, paths: list[Path]) -> list[Original | str]:
    results: list[Original | str] = []
    pool = _start_pool(paths, 1)
    try:
        for row, (source, place) in enumerate(zip(chunk.sources, chunk.places, strict=True)):
            offset = chunk.offset + row * chunk.height * chunk.width * chunk.channels
            try:
                alone = replace(chunk, sources=(source,), places=(place,), offset=offset)
                results += pool.submit(decode, alone).result()
            except BrokenProcessPool:
                results.append(CRASHED)
                pool.shutdown()
                pool = _start_pool(paths, 1)
    finally:
        pool.shutdown()
    return results


def _start_pool(paths: list[Path], workers: int) -> ProcessPoolExecutor:
    # Started afresh, not forked: whoever imports may have threads, and torch.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=prepare_process, initargs=(paths,))


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
    place = shown(request.path)
    labels = {split: numbers for split, numbers in labels.items() if len(numbers)}
    if "train" not in labels:
        raise LoupeError(f"None of the training images in {place} could be read. Check that they are pictures.")
    used = np.unique(np.concatenate(list(labels.values())))
    if len(used) == 1:
        raise LoupeError(
            f"Of all classes in {place} only {shown(classes[used[0]])} has images that could be read, and telling "
            "apart takes two. Check the others' files."
        )
    return tuple(classes[number] for number in used), {
        split: np.searchsorted(used, numbers) for split, numbers in labels.items()
    }
