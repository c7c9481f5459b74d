"""Getting a dataset of the catalogue as a job of its own: it goes on when its page is closed."""

import shutil
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.base.errors import LoupeError
from engine.base.jobs import Job, JobState, find_job, run_job, start_job
from engine.base.progress import LOOK_EVERY_SECONDS, in_thread
from engine.data.catalogue import Progress, download_folder, download_progress, find_source, seconds_left
from engine.data.dataset import prepared_names, prepared_root


def get_dataset(name: str) -> Iterator[Progress]:
    """Fetch and prepare a dataset unless it is here, yielding progress a few times a second.

    Whoever asks while it is under way, after a reload say, sees the same progress and waits for the same end. An
    iteration that is closed leaves the job to itself; Ctrl+C ends one that it has started.
    """
    while name not in prepared_names():
        started = start_download(name)
        try:
            while (state := find_download(name)) and state.is_running:
                yield progress_of(state)
                time.sleep(LOOK_EVERY_SECONDS)
        except KeyboardInterrupt:
            if started:
                cancel_download(name)
            raise
        if started and name not in prepared_names():
            forget_download(name)
            cancelled = f"Getting {find_source(name).title} was cancelled. Start it again."
            raise LoupeError((state and state.error) or cancelled)
        # What another has started and cancelled is still wanted here.


def start_download(name: str) -> bool:
    """Start to get a dataset in the background; returns False where that is under way already."""
    find_source(name)
    return start_job(_place(name), "engine.data.download_job", name) is not None


def find_download(name: str) -> JobState | None:
    """Return how getting a dataset stands, if it is under way or has failed."""
    job = find_job(_place(name))
    return job.state() if job else None


def progress_of(state: JobState) -> Progress:
    return Progress(**state.progress) if state.progress else Progress(0, 0)


def cancel_download(name: str) -> None:
    """End getting a dataset; nothing is kept of what has come."""
    if job := find_job(_place(name)):
        job.request_stop()


def forget_download(name: str) -> None:
    """Take note that getting a dataset has failed."""
    job = find_job(_place(name))
    if job and (state := job.state()) and not state.is_running:
        job.delete()


def _place(name: str) -> Path:
    return prepared_root() / f".{name}.get"


def _fetch(name: str) -> Generator[dict[str, Any], None, None]:
    """Fetch a dataset, yielding how much has arrived: it is read off the disk, since libraries do the downloading."""
    from engine.data.download import fetch

    began, first = time.monotonic(), Progress(0, 0)
    try:
        for _ in in_thread(lambda: fetch(name)):
            progress = download_progress(name)
            if not 0 < first.done <= progress.done:  # nothing had come yet, or what came was an earlier try's
                began, first = time.monotonic(), progress
            yield asdict(replace(progress, seconds_left=seconds_left(first, progress, time.monotonic() - began)))
    except GeneratorExit:
        shutil.rmtree(download_folder(name), ignore_errors=True)
        raise


def execute(folder: Path) -> None:
    """Run a job that was started, to its end; only one that failed leaves anything of it."""
    state = run_job(folder, _fetch)
    if state and state.status != "failed":
        Job(folder).delete()


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
