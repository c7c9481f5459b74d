"""What all tests share: folders of their own, fixed seeds, and small datasets."""

import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_once import made_once
from processes import ending_its_runs, folders, wait_until

from engine.base.paths import PROJECT_ROOT
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.recipes.recipe import change, find_recipe
from engine.runs.run import ACTIVE, Run, start

MakeColours = Callable[..., Dataset]

# A shell that starts the tests in the background has them ignore Ctrl+C, and with them all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"launches", "launched"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.processes)
        if "browser" in item.path.relative_to(PROJECT_ROOT / "tests").parts:
            item.add_marker(pytest.mark.browser)
            if item.get_closest_marker("sweep"):  # the longest: two at a time would wait for each other
                item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test of the quick tier that starts a Python of ours: those take seconds, and are marked."""
    STARTED.clear()
    yield
    if STARTED and not any(item.get_closest_marker(tier) for tier in ("processes", "browser", "sweep")):
        pytest.fail(f"It starts a process, and needs pytest.mark.processes: {STARTED[0]}")


def note_process(event: str, about: tuple) -> None:
    if event == "subprocess.Popen" and about[0] == sys.executable:
        STARTED.append(about[1])


STARTED: list[list[str]] = []
sys.addaudithook(note_process)


class Trap:
    """Unpickled, it makes a file: proof that code from a file was run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")

    @property
    def sprung(self) -> bool:
        return self.path.exists()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the data and runs of the person who runs it; neither folder exists yet."""
    monkeypatch.setenv("LOUPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LOUPE_RUNS", str(tmp_path / "runs"))


@pytest.fixture(autouse=True)
def fixed_seeds_and_threads() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):  # importing it takes seconds, which most tests need not spend
        # ``torch.manual_seed`` keeps the stack of each call until a GPU is first used: milliseconds a test.
        torch.default_generator.manual_seed(0)
        # Small batches gain nothing from more, and on a busy machine threads that wait for each other take four times
        # as long.
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the digits prepared in it, once for all tests: not to be written to."""

    def make(folder: Path) -> None:
        from engine.data.download import fetch

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOUPE_DATA", str(folder))
            fetch("digits")

    # A copy: servers compute features beside the dataset.
    return Path(shutil.copytree(made_once("digits", make), tmp_path_factory.mktemp("digits") / "data"))


@pytest.fixture
def digits(digits_data: Path, tmp_path: Path) -> Dataset:
    """The digits, present for this test and its to change."""
    # Without the features that pages in a browser may have computed.
    ignored = shutil.ignore_patterns("features-*")
    shutil.copytree(digits_data / "prepared" / "digits", tmp_path / "data" / "prepared" / "digits", ignore=ignored)
    return open_dataset("digits")


@pytest.fixture(scope="session")
def trained(digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of digits-quick that has finished: not to be written to."""

    def make(folder: Path) -> None:
        # Two epochs make a model that is right and wrong often enough.
        recipe = change(find_recipe("digits-quick"), {"epochs": 2, "device": "cpu", "threads": 1})
        with folders(digits_data, folder), ending_its_runs(digits_data, folder):
            run = start(recipe)
            wait_until(lambda: run.status() not in ACTIVE)
        assert run.status() == "finished"
        # Without a readable log, a run that was made just now would count as one that is starting.
        os.utime(run.path / "recipe.json", (0, 0))

    kept = made_once("trained", make)
    (run,) = (path for path in kept.iterdir() if (path / "recipe.json").exists())
    return Run(Path(shutil.copytree(run, tmp_path_factory.mktemp("trained") / run.name)))


@pytest.fixture
def make_colours() -> MakeColours:
    """Make and save a dataset whose classes are told apart by colour: red, green and blue under noise.

    Images are uint8, 12 pixels high, 10 wide, with 3 channels; classes take turns, so that each has its share.
    """

    def make(name: str = "colours", train: int = 90, test: int = 30, height: int = 12, width: int = 10) -> Dataset:
        random_state = np.random.default_rng(0)

        def split(count: int) -> Split:
            labels = np.arange(count) % 3
            images = random_state.integers(0, 100, (count, height, width, 3))
            images[np.arange(count), ..., labels] += 120
            return Split(images.astype(np.uint8), labels)

        splits = {split_name: split(count) for split_name, count in (("train", train), ("test", test)) if count}
        save_dataset(name, ("red", "green", "blue"), splits, "generated by the tests")
        return open_dataset(name)

    return make


@pytest.fixture
def colours(make_colours: MakeColours) -> Dataset:
    """Three colours: 90 images to train on, 30 to test on, of 12 x 10 pixels with 3 channels."""
    return make_colours()


@pytest.fixture
def own_timeout() -> Iterator[float]:
    """The timeout of this process's sockets, which is another than that of downloads."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(47.5)
    yield 47.5
    socket.setdefaulttimeout(before)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "sprung")
