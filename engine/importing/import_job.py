"""An import as a job of its own: it goes on when its page is closed."""

import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import LoupeError
from engine.base.jobs import Job, find_job, list_jobs, run_job, start_job
from engine.base.paths import data_root, writing_folder
from engine.data.dataset import prepared_root
from engine.images.sources import uploads_root
from engine.importing.plan import Progress, Request, check_request
from engine.importing.write import import_dataset

LEFT_UPLOAD_SECONDS = 24 * 3600
SUFFIX = ".import"


@dataclass(frozen=True)
class ImportState:
    """An import that is going on, or one that has ended without a dataset: ``error`` then says why."""

    request: Request
    progress: Progress | None = None
    error: str | None = None


def start_import(request: Request) -> None:
    """Start an import in the background. Raises LoupeError for what can be told at once."""
    check_request(request)
    if start_job(_place(request.name), "engine.importing.import_job", asdict(request)) is None:
        raise LoupeError(f"A dataset named {request.name} is being imported. Wait for its end.")


def find_import(name: str) -> ImportState | None:
    """Return the import of a name that is going on or that failed; None when there is none."""
    job = find_job(_place(name))
    return _state_of(job) if job else None


def _state_of(job: Job) -> ImportState | None:
    state = job.state()
    if state is None or state.status in ("finished", "stopped"):  # its process is about to delete it
        return None
    try:
        request = Request(**state.request)
        progress = Progress(**state.progress) if state.progress else None
    except TypeError:
        return None
    return ImportState(request, progress, state.error)


def list_imports() -> list[str]:
    """List the names of imports that are going on or that failed."""
    jobs = list_jobs(prepared_root())
    return sorted(
        place.removeprefix(".").removesuffix(SUFFIX)
        for place, job in jobs.items()
        if place.endswith(SUFFIX) and _state_of(job)
    )


def cancel_import(name: str) -> None:
    """Ask an import to end; it leaves nothing behind."""
    if job := find_job(_place(name)):
        job.request_stop()


def forget_import(name: str) -> None:
    """Take note that an import has failed."""
    job = find_job(_place(name))
    if job and (state := job.state()) and not state.is_running:
        job.delete()


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


def _place(name: str) -> Path:
    return prepared_root() / f".{name}{SUFFIX}"


def _import(request: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    for progress in import_dataset(Request(**request)):
        yield asdict(progress)


def execute(folder: Path) -> None:
    """Run an import that was started, to its end; only one that failed leaves anything of its job."""
    state = run_job(folder, _import)
    if state is None:
        return
    if state.status != "failed":
        Job(folder).delete()
    delete_upload(Path(state.request["path"]))


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
