"""A run for the pages to show, and room to start others."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LaunchedProcess, ending_its_runs, watching_launches
from streamlit.components.v2.component_manager import BidiComponentManager

from engine.dataset import Dataset
from engine.runs import Run, open_run


@pytest.fixture(scope="session", autouse=True)
def no_search_for_components() -> Iterator[None]:
    """Each AppTest would look through all installed packages for components of theirs: half a second a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BidiComponentManager, "discover_and_register_components", lambda *_, **__: None)
        yield


@pytest.fixture
def finished(trained: Run, digits: Dataset, tmp_path: Path) -> Run:
    """A finished run, present for this test and its to change, as is its dataset."""
    shutil.copytree(trained.path, tmp_path / "runs" / trained.id)
    return open_run(trained.id)


@pytest.fixture
def launches(digits: Dataset, tmp_path: Path) -> Iterator[type[LaunchedProcess]]:
    """Let a page start runs; the process that it started last is ended with the test."""
    with ending_its_runs(tmp_path / "data", tmp_path / "runs"), watching_launches() as launched:
        launched.latest = None
        yield launched
        if launched.latest:
            launched.latest.kill()
            launched.latest.wait()
