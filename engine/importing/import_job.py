"""An import as a process of its own: it goes on when its page is closed.

Its state is files in a folder beside the prepared datasets, so that every page, after a reload too, sees the same.
"""

import json
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from engine.base.background import start_in_background
from engine.base.errors import LoupeError
from engine.base.paths import data_root, is_locked, replacing_file, writing_folder
from engine.data.dataset import prepared_root
from engine.images.sources import uploads_root
from engine.importing.plan import Progress, Request, check_request
from engine.importing.write import import_dataset

WRITE_EVERY_SECONDS = 0.2
# A process that has not taken its lock by then will not.
LAUNCH_SECONDS = 30
LEFT_UPLOAD_SECONDS = 24 * 3600


@dataclass(frozen=True)
class ImportJob:
    """An import that is going on, or one that has ended without a dataset: ``error`` then says why."""

    request: Request
    progress: Progress | None = None
    error: str | None = None


def start_import(request: Request) -> None:
    """Start an import in the background. Raises LoupeError for what can be told at once."""
    check_request(request)
    folder = _folder(request.name)
    with writing_folder(data_root()):
        job = find_import(request.name)
        if job and job.error is None:
            raise LoupeError(f"A dataset named {request.name} is being imported. Wait for its end.")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(asdict(request)))
        start_in_background("engine.importing.import_job", request.name, folder / "output.txt")


def find_import(name: str) -> ImportJob | None:
    """Return the import of a name that is going on or that failed; None when there is none."""
    folder = _folder(name)
    try:
        request = Request(**json.loads((folder / "request.json").read_text()))
        age = time.time() - (folder / "request.json").stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
    except (OSError, ValueError, TypeError):
        progress = None
    # In this order: it takes its lock before it says that it has started.
    may_start = not (folder / "started").exists() and age < LAUNCH_SECONDS
    going_on = may_start or is_locked(folder / "lock")
    try:
        return ImportJob(request, progress, (folder / "error.txt").read_text())
    except OSError:
        if going_on:
            return ImportJob(request, progress)
    if not (folder / "request.json").exists():  # it ended between the looks
        return None
    return ImportJob(
        request,
        progress,
        f"The import of {name} ended without a word of its own: it was killed, or memory ran out. Start it again.",
    )


def list_imports() -> list[str]:
    """List the names of imports that are going on or that failed."""
    return sorted(
        request.parent.name[1 : -len(".import")] for request in prepared_root().glob(".*.import/request.json")
    )


def cancel_import(name: str) -> None:
    """Ask an import to end; it leaves nothing behind."""
    with suppress(FileNotFoundError):  # it has ended already
        (_folder(name) / "stop").touch()


def forget_import(name: str) -> None:
    """Take note that an import has failed."""
    if not is_locked(_folder(name) / "lock"):
        shutil.rmtree(_folder(name), ignore_errors=True)


def place_for_upload(name: str) -> Path:
    """Return where to write an archive that comes through a browser; it is deleted once it is imported."""
    with writing_folder(data_root()):
        uploads_root().mkdir(parents=True, exist_ok=True)
        for left in uploads_root().iterdir():
            if time.time() - left.stat().st_mtime > LEFT_UPLOAD_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        # Two may come under one name.
        return Path(tempfile.mkdtemp(dir=uploads_root())) / Path(name).name


def delete_upload(path: Path) -> None:
    """Delete an archive that came through a browser; anything else is left alone."""
    if path.parent.parent == uploads_root():
        shutil.rmtree(path.parent, ignore_errors=True)


def _folder(name: str) -> Path:
    return prepared_root() / f".{name}.import"


def run_import(name: str) -> None:
    """Run an import that was started, to its end; do nothing if another process does."""
    folder = _folder(name)
    try:
        lock = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout:
        return
    with lock:
        (folder / "started").touch()  # the lock's file is there a moment before it is locked
        request = Request(**json.loads((folder / "request.json").read_text()))
        try:
            _follow(request, folder)
        except LoupeError as error:
            _write(folder / "error.txt", str(error))
        except Exception as error:
            traceback.print_exc()
            _write(
                folder / "error.txt",
                f"The import ended with an error that Loupe did not expect: {type(error).__name__}: {error}. "
                f"The whole of it is in {folder / 'output.txt'}.",
            )
        else:
            # First of all: without its lock, it would look killed.
            (folder / "request.json").unlink()
            shutil.rmtree(folder, ignore_errors=True)
        delete_upload(Path(request.path))


def _follow(request: Request, folder: Path) -> None:
    """Import, writing down how far it is; ends early, and leaves nothing, when it is asked to."""
    written = 0.0
    steps = import_dataset(request)
    for progress in steps:
        if (folder / "stop").exists():
            steps.close()
            return
        if time.monotonic() - written > WRITE_EVERY_SECONDS:
            _write(folder / "progress.json", json.dumps(asdict(progress)))
            written = time.monotonic()


def _write(path: Path, text: str) -> None:
    """Write a file that others may be reading."""
    with replacing_file(path) as beside:
        beside.write_text(text)


if __name__ == "__main__":
    run_import(sys.argv[1])
