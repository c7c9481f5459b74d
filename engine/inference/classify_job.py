"""Classifying many pictures as a process of its own: it outlives its page.

Its state is files in a folder beside the runs: what was asked for, how far it is, and a row for each
answer. Uploaded pictures are kept where those of imports are.
"""

import json
import secrets
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock, Timeout

from engine.base.background import start_in_background
from engine.base.errors import LoupeError
from engine.base.paths import is_locked, replacing_file, runs_root, writing_folder
from engine.base.text import escape_undecodable
from engine.images.sources import uploads_root
from engine.runs.run import ID_PATTERN, WORKER_ENVIRONMENT, Run, open_run

if TYPE_CHECKING:
    from engine.inference.batch import Item
    from engine.inference.classifier import Classifier
    from engine.inference.novelty import Novelty

# A process that has not taken its lock by then will not.
LAUNCH_SECONDS = 30
KEPT_SECONDS = 24 * 3600
# The name of an upload may be longer than a file system takes.
LONGEST_SUFFIX = 12


@dataclass(frozen=True)
class Request:
    """What to classify: paths, each with what it is called; normalize: as in ``engine.inference.batch``."""

    run: str
    paths: tuple[tuple[str, str], ...]
    normalize: bool


@dataclass(frozen=True)
class Job:
    """Pictures that are being classified, or were.

    total: 0 until they are counted. started: when there was a first answer. error: why it ended early.
    """

    id: str
    request: Request
    done: int
    total: int
    passed_over: int
    started: float
    is_active: bool
    was_cancelled: bool
    error: str | None

    @property
    def seconds_left(self) -> float | None:
        if self.done < 2 or not self.total:
            return None
        return (time.time() - self.started) * (self.total - self.done) / (self.done - 1)


def jobs_root() -> Path:
    return runs_root() / ".classified"


def _folder(job: str) -> Path:
    return jobs_root() / job


def _uploads(job: str) -> Path:
    return uploads_root() / job  # from where pictures are read whatever LOUPE_IMPORT_ROOTS says


def start_job(run: Run, paths: Sequence[str], uploads: Sequence[tuple[str, BinaryIO]], normalize: bool) -> str:
    """Start to classify pictures at some paths, and uploaded ones, in the background; returns the job's id.

    uploads: what each is called, and the file, which is copied.
    """
    _delete_old()
    job = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    folder = _folder(job)
    with writing_folder(runs_root()):
        folder.mkdir(parents=True)
        named = [*((path, Path(path).name or path) for path in paths), *_copied(uploads, _uploads(job))]
        (folder / "request.json").write_text(json.dumps(asdict(Request(run.id, tuple(named), normalize))))
        start_in_background("engine.inference.classify_job", job, folder / "output.txt", WORKER_ENVIRONMENT)
    return job


def _copied(uploads: Sequence[tuple[str, BinaryIO]], folder: Path) -> Iterator[tuple[str, str]]:
    """Copy uploaded files into a folder; yields the path of each and a name of its own."""
    taken: Counter[str] = Counter()
    for number, (name, content) in enumerate(uploads):
        folder.mkdir(parents=True, exist_ok=True)
        own = Path(name).name or f"picture {number + 1}"
        suffix = Path(own).suffix
        place = folder / f"{number}{suffix if suffix[1:].isalnum() and len(suffix) <= LONGEST_SUFFIX else ''}"
        with place.open("wb") as written:
            shutil.copyfileobj(content, written)
        taken[own] += 1
        yield str(place), own if taken[own] == 1 else f"{Path(own).stem} ({taken[own]}){suffix}"


def find_job(job: str) -> Job | None:
    """Return a job by its id; None when there is none, or it was deleted."""
    if not ID_PATTERN.fullmatch(job):
        return None
    folder = _folder(job)
    try:
        request = _read_request(folder)
        began = (folder / "request.json").stat().st_mtime
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # In this order: it takes its lock before it says that it has started.
    may_start = not (folder / "started").exists() and time.time() - began < LAUNCH_SECONDS
    is_active = may_start or is_locked(folder / "lock")
    counts = {"done": 0, "total": 0, "passed_over": 0}
    with suppress(OSError, ValueError, TypeError):
        counts |= json.loads((folder / "progress.json").read_text())
    error = None
    if not is_active and not (folder / "ended").exists():
        error = "It ended without a word of its own: it was killed, or memory ran out. Start it again."
        with suppress(OSError):
            error = (folder / "error.txt").read_text()
    with suppress(OSError):
        began = (folder / "first").stat().st_mtime
    was_cancelled = (folder / "stop").exists() and counts["done"] < counts["total"]
    return Job(job, request, **counts, started=began, is_active=is_active, was_cancelled=was_cancelled, error=error)


def _read_request(folder: Path) -> Request:
    values = json.loads((folder / "request.json").read_text())
    return Request(values["run"], tuple((path, name) for path, name in values["paths"]), values["normalize"])


def read_rows(job: str) -> list[dict]:
    """Return the answers of a job so far, as ``Answer.as_row`` has them.

    Each with its ``distance`` from the nearest training image, and whether it is ``unlike`` them, where that is known.
    """
    try:
        lines = (_folder(job) / "rows.jsonl").read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]  # the last may be half there


def read_picture(job: Job, name: str) -> bytes:
    """Read the file of one of a job's pictures again, by the name that its row has."""
    for item in _items(job.request):
        if item.name == name:
            return item.read()
    raise LoupeError(f"{name} is not there any more. Classify its folder again.")


def cancel_job(job: str) -> None:
    """Ask a job to end; its answers so far are kept."""
    with suppress(FileNotFoundError):  # it was deleted
        (_folder(job) / "stop").touch()


def delete_job(job: str) -> None:
    """Delete what a job left: its answers and the pictures that were uploaded."""
    cancel_job(job)
    _delete(job)


def _delete(job: str) -> None:
    for folder in (_folder(job), _uploads(job)):
        shutil.rmtree(folder, ignore_errors=True)


def _delete_old() -> None:
    for old in jobs_root().glob("*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS and not is_locked(old / "lock"):
                _delete(old.name)


def _items(request: Request) -> Iterator["Item"]:
    """Yield the pictures of a request under the names that people gave them."""
    from engine.inference.batch import Item, Pictures

    for path, named in request.paths:
        start = path.rstrip("/")
        for item in Pictures([path]):
            # What a glob matched has a name of its own.
            own = named.rstrip("/") + item.name[len(start) :] if item.name.startswith(start) else item.name
            yield Item(escape_undecodable(own), item.read)


def run_job(job: str) -> None:
    """Run a job that was started, to its end; do nothing if another process does."""
    folder = _folder(job)
    try:
        lock = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout:
        return
    with lock:
        (folder / "started").touch()  # the lock's file is there a moment before it is locked
        try:
            for done, total, passed_over in _classify(folder):
                counts = {"done": done, "total": total, "passed_over": passed_over}
                with replacing_file(folder / "progress.json") as beside:
                    beside.write_text(json.dumps(counts))
        except LoupeError as error:
            _write_error(folder, str(error))
        except Exception as error:
            traceback.print_exc()
            _write_error(
                folder,
                f"It ended with an error that Loupe did not expect: {type(error).__name__}: {error}. "
                f"The whole of it is in {folder / 'output.txt'}.",
            )
        else:
            with suppress(FileNotFoundError):
                (folder / "ended").touch()
        finally:
            if _is_deleted(folder):  # but for what was written meanwhile
                shutil.rmtree(folder, ignore_errors=True)


def _write_error(folder: Path, text: str) -> None:
    with suppress(FileNotFoundError):  # it was deleted
        (folder / "error.txt").write_text(text)


def _is_deleted(folder: Path) -> bool:
    return not (folder / "request.json").exists()


def _classify(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Classify, writing a row at a time; yields how many are done, of how many, and how many files were passed over."""
    from engine.inference.batch import Pictures, classify_all
    from engine.inference.classifier import load_classifier

    request = _read_request(folder)
    run = open_run(request.run)
    counted = [Pictures([path]) for path, _ in request.paths]
    total = sum(1 for pictures in counted for _ in pictures)
    passed_over = sum(pictures.passed_over for pictures in counted)
    yield 0, total, passed_over
    classifier = load_classifier(run)
    novelty = _novelty(run, classifier)
    threshold = novelty.threshold().distance if novelty else 0.0
    answers = classify_all(classifier, _items(request), request.normalize)
    with (folder / "rows.jsonl").open("w", buffering=1) as rows:
        for done, answer in enumerate(answers, start=1):
            row = answer.as_row()
            if novelty and answer.seen is not None:
                with suppress(LoupeError, OSError):  # its dataset was deleted in the meantime
                    row["distance"] = novelty.nearest(answer.seen).distance
                    row["unlike"] = row["distance"] > threshold
            rows.write(json.dumps(row) + "\n")
            if done == 1:
                (folder / "first").touch()  # from here on time is taken: before, the model was loaded
            yield done, total, passed_over
            if (folder / "stop").exists() or _is_deleted(folder):
                answers.close()
                return


def _novelty(run: Run, classifier: "Classifier") -> "Novelty | None":
    """Return what tells how unlike the training images pictures are, where that has been computed."""
    from engine.inference.novelty import open_novelty

    try:
        novelty = open_novelty(run, classifier)
        if novelty.is_ready:
            novelty.threshold()
            return novelty
    except LoupeError:  # the dataset is gone, or another by now
        pass
    return None


if __name__ == "__main__":
    run_job(sys.argv[1])
