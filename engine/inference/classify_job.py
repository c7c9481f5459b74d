"""Classifying many pictures as a job of its own: it outlives its page.

Beside what every job has, its folder holds a row for each answer. Uploaded pictures are kept where those of imports
are.
"""

import json
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.base.errors import LoupeError
from engine.base.jobs import Job, JobState, delete_old_jobs, find_job, run_job, start_job
from engine.base.paths import runs_root, writing_folder
from engine.base.text import escape_undecodable
from engine.images.sources import uploads_root
from engine.runs.run import ID_PATTERN, WORKER_ENVIRONMENT, Run, open_run

if TYPE_CHECKING:
    from engine.inference.batch import Item
    from engine.inference.classifier import Classifier
    from engine.inference.novelty import Novelty

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
class Classification:
    """Pictures that are being classified, or were.

    total: 0 until they are counted. seconds: since the first answer. error: why it ended early.
    """

    id: str
    request: Request
    done: int
    total: int
    passed_over: int
    seconds: float
    is_active: bool
    was_cancelled: bool
    error: str | None

    @property
    def seconds_left(self) -> float | None:
        if self.done < 2 or not self.total:
            return None
        return self.seconds * (self.total - self.done) / (self.done - 1)


def jobs_root() -> Path:
    return runs_root() / ".classified"


def _place(name: str) -> Path:
    return jobs_root() / name


def _uploads(name: str) -> Path:
    return uploads_root() / name  # from where pictures are read whatever LOUPE_IMPORT_ROOTS says


def start_classification(
    run: Run, paths: Sequence[str], uploads: Sequence[tuple[str, BinaryIO]], normalize: bool
) -> str:
    """Start to classify pictures at some paths, and uploaded ones, in the background; returns the job's id.

    uploads: what each is called, and the file, which is copied.
    """
    for old in delete_old_jobs(jobs_root(), KEPT_SECONDS):
        shutil.rmtree(_uploads(old), ignore_errors=True)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    with writing_folder(runs_root()):
        named = [*((path, Path(path).name or path) for path in paths), *_copied(uploads, _uploads(name))]
        request = asdict(Request(run.id, tuple(named), normalize))
        start_job(_place(name), "engine.inference.classify_job", request, WORKER_ENVIRONMENT)
    return name


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


def find_classification(name: str) -> Classification | None:
    """Return a job by its id; None when there is none, or it was deleted."""
    job = find_job(_place(name)) if ID_PATTERN.fullmatch(name) else None
    state = job.state() if job else None
    try:
        return _classification(name, state) if state else None
    except (ValueError, TypeError, KeyError):  # of a request that is damaged
        return None


def _classification(name: str, state: JobState) -> Classification:
    counts = {"done": 0, "total": 0, "passed_over": 0, "seconds": 0.0} | (state.progress or {})
    return Classification(
        name,
        _request_of(state.request),
        **counts,
        is_active=state.is_running,
        was_cancelled=state.status == "stopped",
        error=state.error,
    )


def _request_of(values: dict[str, Any]) -> Request:
    return Request(values["run"], tuple((path, named) for path, named in values["paths"]), values["normalize"])


def read_rows(name: str) -> list[dict]:
    """Return the answers of a job so far, as ``Answer.as_row`` has them.

    Each with its ``distance`` from the nearest training image, and whether it is ``unlike`` them, where that is known.
    """
    job = find_job(_place(name))
    try:
        lines = _rows_of(job).read_bytes().splitlines(keepends=True) if job else []
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]  # the last may be half there


def _rows_of(job: Job) -> Path:
    return job.folder / "rows.jsonl"


def read_picture(job: Classification, name: str) -> bytes:
    """Read the file of one of a job's pictures again, by the name that its row has."""
    for item in _items(job.request):
        if item.name == name:
            return item.read()
    raise LoupeError(f"{name} is not there any more. Classify its folder again.")


def cancel_classification(name: str) -> None:
    """Ask a job to end; its answers so far are kept."""
    if job := find_job(_place(name)):
        job.request_stop()


def delete_classification(name: str) -> None:
    """Delete what a job left: its answers and the pictures that were uploaded."""
    if job := find_job(_place(name)):
        job.delete()
    shutil.rmtree(_uploads(name), ignore_errors=True)


def _items(request: Request) -> Iterator["Item"]:
    """Yield the pictures of a request under the names that people gave them."""
    from engine.inference.batch import Pictures

    for path, named in request.paths:
        start = path.rstrip("/")
        for item in Pictures([path]):
            # What a glob matched has a name of its own.
            own = named.rstrip("/") + item.name[len(start) :] if item.name.startswith(start) else item.name
            yield item._replace(name=escape_undecodable(own))


def _classify(folder: Path, request: Request) -> Generator[dict[str, Any], None, None]:
    """Classify, writing a row at a time; yields how many are done, of how many, and how many files were passed over."""
    from engine.inference.batch import Pictures, classify_all
    from engine.inference.classifier import load_classifier

    run = open_run(request.run)
    listed = [Pictures([path]) for path, _ in request.paths]
    total = sum(1 for pictures in listed for _ in pictures)
    counts = {"total": total, "passed_over": sum(pictures.passed_over for pictures in listed)}
    yield counts
    classifier = load_classifier(run)
    novelty = _novelty(run, classifier)
    threshold = novelty.threshold().distance if novelty else 0.0
    answers = classify_all(classifier, _items(request), request.normalize)
    began: float | None = None  # before the first answer the model was loaded
    try:
        with _rows_of(Job(folder)).open("w", buffering=1) as rows:
            for done, answer in enumerate(answers, start=1):
                began = began or time.monotonic()
                row = answer.as_row()
                if novelty and answer.seen is not None:
                    with suppress(LoupeError, OSError):  # its dataset was deleted in the meantime
                        row["distance"] = novelty.nearest(answer.seen).distance
                        row["unlike"] = row["distance"] > threshold
                rows.write(json.dumps(row) + "\n")
                yield counts | {"done": done, "seconds": time.monotonic() - began}
    finally:
        answers.close()


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


def execute(folder: Path) -> None:
    """Run a job that was started, to its end; do nothing if another process does."""
    run_job(folder, lambda request: _classify(folder, _request_of(request)))


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
