"""A run for the pages to show, and room to start others."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_once import made_once
from processes import LaunchedProcess, ending_its_runs, folders, jobs_in_this_process, wait_until, watching_launches
from streamlit.components.v2.component_manager import BidiComponentManager

from engine.data.dataset import Dataset
from engine.recipes.recipe import change, find_recipe
from engine.runs.run import ACTIVE, Run, open_run, start


@pytest.fixture(scope="session", autouse=True)
def no_search_for_components() -> Iterator[None]:
    """Each AppTest would look through all installed packages for components of theirs: half a second a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BidiComponentManager, "discover_and_register_components", lambda *_, **__: None)
        yield


@pytest.fixture(autouse=True)
def main_module_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest leaves the app in the place of the main module, and each process that is spawned would run it anew."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def execute_jobs() -> Iterator[Callable[[], None]]:
    """Jobs that a page starts wait until this is called, and are executed in this process."""
    with jobs_in_this_process() as execute:
        yield execute


@pytest.fixture
def finished(trained: Run, digits: Dataset, tmp_path: Path) -> Run:
    """A finished run, present for this test and its to change, as is its dataset."""
    shutil.copytree(trained.path, tmp_path / "runs" / trained.id)
    return open_run(trained.id)


@pytest.fixture(scope="session")
def trained_on_rows(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of blobs-mlp that has finished, with its data beside it: not to be written to."""

    def make(folder: Path) -> None:
        folder.mkdir()
        with folders(folder / "data", folder / "runs"), ending_its_runs(folder / "data", folder / "runs"):
            run = start(change(find_recipe("blobs-mlp"), {"device": "cpu", "threads": 1}))
            wait_until(lambda: run.status() not in ACTIVE)
        assert run.status() == "finished"

    copied = Path(shutil.copytree(made_once("rows", make), tmp_path_factory.mktemp("rows") / "copy"))
    (run,) = (path for path in (copied / "runs").iterdir() if (path / "recipe.json").exists())
    return Run(run)


@pytest.fixture
def blobs(trained_on_rows: Run, tmp_path: Path) -> Run:
    """A finished run on rows of numbers, present for this test and its to change, as is its dataset."""
    shutil.copytree(trained_on_rows.path.parents[1], tmp_path, dirs_exist_ok=True)
    return open_run(trained_on_rows.id)


@pytest.fixture
def launches(digits: Dataset, tmp_path: Path) -> Iterator[type[LaunchedProcess]]:
    """Let a page start runs; the process that it started last is ended with the test."""
    with ending_its_runs(tmp_path / "data", tmp_path / "runs"), watching_launches() as launched:
        launched.latest = None
        yield launched
        if launched.latest:
            launched.latest.kill()
            launched.latest.wait()
