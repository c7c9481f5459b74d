"""What the tests that start processes share."""

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.base.paths import PROJECT_ROOT
from engine.runs.run import ACTIVE, list_runs


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Look again and again until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.01)


@contextmanager
def folders(data: Path, runs: Path) -> Iterator[None]:
    """Point Loupe at a data and a runs folder for a while, as fixtures that outlive a test must."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOUPE_DATA", str(data))
        patch.setenv("LOUPE_RUNS", str(runs))
        yield


@contextmanager
def ending_its_runs(data: Path, runs: Path) -> Iterator[None]:
    """Leave no run behind that is still going on, whatever the tests did."""
    try:
        yield
    finally:
        with folders(data, runs):
            going_on = [run for run in list_runs() if run.has_process()]
            for run in going_on:
                run.request_stop()
            wait_until(lambda: not any(run.status() in ACTIVE for run in going_on))


class LaunchedProcess(subprocess.Popen):
    """A process that can be found again."""

    latest: "LaunchedProcess"

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        LaunchedProcess.latest = self


@contextmanager
def watching_launches() -> Iterator[type[LaunchedProcess]]:
    """Note the processes that are started, which keep to themselves who they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", LaunchedProcess)
        yield LaunchedProcess


@contextmanager
def jobs_in_this_process() -> Iterator[Callable[[], None]]:
    """Execute jobs by the function that their process would call: seconds less for each than in one of their own.

    A job that the main thread starts is executed at once. One that a page starts, in a thread, waits, as if its process
    were slow, until what this yields is called.
    """
    waiting: list[Callable[[], None]] = []

    def start(module: str, folder: str, output: Path, environment: object = None) -> None:
        waiting.append(partial(importlib.import_module(module).execute, Path(folder)))
        if threading.current_thread() is threading.main_thread():
            execute()

    def execute() -> None:
        while waiting:
            waiting.pop(0)()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.base.jobs.start_in_background", start)
        yield execute


def python(*arguments: str, **settings) -> subprocess.Popen:
    """Start a Python of ours in the project's folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        text=True,
        start_new_session=True,
        **settings,
    )
