"""Work in a process of its own, which goes on when whoever started it is gone.

A job is a folder: what was asked, how far it is, and how it ended are files in it, so that every page and every
process, after a restart too, sees the same. It is found by its place, a path such as ``data/prepared/.pets.import``;
the folder's name has a number as well, so that a job that is being deleted and the next one never share a file.
"""

import _thread
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT, child_environment, is_locked, replacing_file, writing_folder

# A process that has not taken its lock by then will not.
LAUNCH_SECONDS = 30
WRITE_EVERY_SECONDS = 0.2
# A job that is asked to stop has this long to do so at its next step; then it is interrupted within the step.
STOP_SECONDS = 2.0
KILLED = "It ended without a word of its own: it was killed, or memory ran out. Start it again."
SEPARATOR = "~"


@dataclass(frozen=True)
class JobState:
    """How a job stands.

    status: ``running``, ``finished``, ``stopped`` or ``failed``. request: what was asked for. progress: the latest that
    it has told, None before the first. result: of one that has finished. error: why it failed, a sentence.
    Request, progress and result are plain data, as JSON holds it.
    """

    status: str
    request: Any
    progress: Any = None
    result: Any = None
    error: str | None = None

    @property
    def is_running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True)
class Job:
    """The folder of a job. What the work itself makes may lie in it too."""

    folder: Path

    @property
    def output(self) -> Path:
        """What its process has printed."""
        return self.folder / "output.txt"

    @property
    def started(self) -> datetime:
        return datetime.fromtimestamp(int(self.folder.name.rpartition(SEPARATOR)[2]) / 1e9)

    @property
    def request_file(self) -> Path:
        return self.folder / "request.json"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    def state(self) -> JobState | None:
        """Return how the job stands; None where it was deleted, or its request cannot be read."""
        request = _read(self.request_file)
        if request is None:
            return None
        # In this order: it takes its lock before it says that it has started, and ends before it lets go of it.
        is_running = self._may_start() or is_locked(self.folder / "lock")
        ended = _read(self.folder / "ended.json")
        progress = _read(self.folder / "progress.json")
        match ended:
            case {"status": str(status), "result": result, "error": error}:
                return JobState(status, request, progress, result, error)
        if is_running:
            return JobState("running", request, progress)
        return JobState("failed", request, progress, error=KILLED) if self.request_file.exists() else None

    def _may_start(self) -> bool:
        try:
            age = time.time() - self.request_file.stat().st_mtime
        except OSError:
            return False
        return abs(age) < LAUNCH_SECONDS and not (self.folder / "started").exists()

    def request_stop(self) -> None:
        """Ask the job to end: at its next step, or in the midst of one that takes long."""
        with suppress(FileNotFoundError):  # it was deleted
            self.stop_file.touch()

    def is_to_stop(self) -> bool:
        return self.stop_file.exists() or not self.request_file.exists()

    def delete(self) -> None:
        """Delete the job and all in its folder; one that is running ends."""
        self.request_file.unlink(missing_ok=True)  # first of all: a folder without it is no job
        shutil.rmtree(self.folder, ignore_errors=True)


def start_job(place: Path, module: str, request: Any, environment: Mapping[str, str] | None = None) -> Job | None:
    """Start ``python -m MODULE FOLDER``, which calls ``run_job``; None where a job is running at this place already.

    An earlier job of this place is deleted. request: plain data. environment: what is to be set unless it is already.
    """
    with writing_folder(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / ".jobs.lock"):
            for earlier in _jobs_at(place):
                if (state := earlier.state()) and state.is_running:
                    return None
                earlier.delete()
            job = Job(place.with_name(f"{place.name}{SEPARATOR}{time.time_ns()}"))
            job.folder.mkdir()
            _write(job.request_file, request)
            start_in_background(module, str(job.folder), job.output, environment)
    return job


def find_job(place: Path) -> Job | None:
    """Return the job at a place, running or ended; None where there is none."""
    return next((job for job in reversed(_jobs_at(place)) if job.request_file.exists()), None)


def list_jobs(parent: Path) -> dict[str, Job]:
    """Return the latest job of each place in a folder, by the place's name."""
    folders = sorted(parent.glob(f"*{SEPARATOR}*")) if parent.is_dir() else []
    jobs = (Job(folder) for folder in folders)
    return {job.folder.name.rpartition(SEPARATOR)[0]: job for job in jobs if job.request_file.exists()}


def _jobs_at(place: Path) -> list[Job]:
    """List the jobs of a place, the oldest first; all but the last are being deleted."""
    try:
        folders = sorted(place.parent.iterdir())
    except OSError:
        return []
    return [Job(folder) for folder in folders if folder.name.rpartition(SEPARATOR)[0] == place.name]


def delete_old_jobs(parent: Path, seconds: float) -> list[str]:
    """Delete the jobs in a folder that ended longer ago than so many seconds; returns the names of their places."""
    deleted = []
    for folder in parent.glob("[!.]*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > seconds and not is_locked(folder / "lock"):
                shutil.rmtree(folder)
                deleted.append(folder.name.partition(SEPARATOR)[0])
    return deleted


def run_job(folder: Path, work: Callable[[Any], Generator[Any, None, Any]]) -> JobState | None:
    """Execute a job that was started, in its process; None where it was deleted, or another process executes it.

    work: is given the request, yields progress as plain data, and returns the result as plain data. It is closed when
    the job is asked to stop, or interrupted. The LoupeError that it raises is the job's error.
    """
    job = Job(folder)
    if not job.request_file.exists():  # the lock would make a folder anew that was deleted
        return None
    try:
        lock = FileLock(folder / "lock").acquire(blocking=False)
    except (Timeout, OSError):
        return None
    with lock:
        try:
            (folder / "started").touch()  # the lock's file is there a moment before it is locked
            request = _read(job.request_file)
            if request is not None:
                _write(folder / "ended.json", _executed(job, work, request))
        except FileNotFoundError:  # it was deleted
            pass
        state = job.state()
        if state is None:  # but for what was written meanwhile
            shutil.rmtree(folder, ignore_errors=True)
        return state


def _executed(job: Job, work: Callable[[Any], Generator[Any, None, Any]], request: Any) -> dict[str, Any]:
    """Execute the work of a job; returns how it ended."""
    ended = {"status": "failed", "result": None, "error": None}
    try:
        with _interrupted_when_to_stop(job):
            ended["status"], ended["result"] = _follow(job, work(request))
    except KeyboardInterrupt:
        ended["status"] = "stopped"
    except LoupeError as error:
        ended["error"] = str(error)
    except Exception as error:
        traceback.print_exc()
        ended["error"] = (
            f"It ended with an error that Loupe did not expect: {type(error).__name__}: {error}. "
            f"The whole of it is in {job.output}."
        )
    return ended


def _follow(job: Job, steps: Generator[Any, None, Any]) -> tuple[str, Any]:
    """Take the steps of a job's work, writing down how far it is; returns its status and result."""
    written, progress = float("-inf"), None
    try:
        while not job.is_to_stop():
            try:
                progress = next(steps)
            except StopIteration as end:
                return "finished", end.value
            if time.monotonic() - written > WRITE_EVERY_SECONDS:
                _tell(job, progress)
                written = time.monotonic()
        return "stopped", None
    finally:
        steps.close()
        if progress is not None:
            _tell(job, progress)


def _tell(job: Job, progress: Any) -> None:
    with suppress(FileNotFoundError):  # it was deleted
        _write(job.folder / "progress.json", progress)


@contextmanager
def _interrupted_when_to_stop(job: Job) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread once the job was asked to stop and has not for a while."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had us ignore it
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WRITE_EVERY_SECONDS):
            if job.is_to_stop() and not over.wait(STOP_SECONDS):
                _thread.interrupt_main()
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()  # so that no interruption comes later


def _write(path: Path, document: Any) -> None:
    """Write a file that others may be reading."""
    with replacing_file(path) as beside:
        beside.write_text(json.dumps(document), encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def start_in_background(
    module: str, argument: str, output: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start ``python -m MODULE ARGUMENT`` in a session of its own, so that Ctrl+C on ours does not reach it.

    output: the file that gets what it prints. environment: what is to be set unless it is already.
    """
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", module, argument],
            cwd=PROJECT_ROOT,
            env={**(environment or {}), **child_environment()},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Whoever started it waits for its end: it is never left as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    return process
