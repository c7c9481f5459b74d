"""Runs to export, one of each kind, and each export of them: made once for all tests, and not to be written to."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import HOSTILE, PROOF, Exported, ExportOf, export_to, left_in
from made_once import made_once, made_within
from photographs import save_photographs
from processes import folders
from small_networks import after_some_images
from torchvision.models import get_model

from engine.data.dataset import Split, save_dataset
from engine.data.download import fetch
from engine.export.exporting import FORMATS
from engine.export.proof import Proof
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs.run import Run, create_run
from engine.training.worker import execute

AS_MACHINES_DIFFER = {"device": "cpu", "precision": "float32", "convolutions": "onednn", "threads": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "export_of" in getattr(item, "fixturenames", ()):  # where it is not made yet, it is proved in a process
            item.add_marker(pytest.mark.processes)


def executed(recipe: Recipe) -> Run:
    run = create_run(change(recipe, AS_MACHINES_DIFFER))
    execute(run)
    assert run.status() == "finished", run.history().last
    return run


def colour_images(count: int) -> Split:
    """Images of 12 x 8 pixels, each lighter in the channel of its class, by more or less."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % 3
    images = random.integers(0, 150, (count, 12, 8, 3))
    images[np.arange(count), ..., labels] += random.integers(0, 60, (count, 1, 1))
    return Split(images.astype(np.uint8), labels)


def colour_run(folder: Path) -> Run:
    splits = {"train": colour_images(300), "test": colour_images(120)}
    save_dataset("colours", HOSTILE, splits, "the tests", fit="pad")
    return executed(Recipe(dataset="colours", model="convnet", epochs=2))


def transferred_run(folder: Path) -> Run:
    """A frozen network of torchvision's under a new head."""
    torch.manual_seed(1)
    weights = folder / "resnet18.pth"
    torch.save(after_some_images(get_model("resnet18", num_classes=7), 32).state_dict(), weights)
    save_photographs()
    settings = {"weights": str(weights), "freeze": "backbone", "size": 32, "scaling": "imagenet"}
    return executed(Recipe(dataset="photographs", model="resnet18", epochs=2, batch_size=16, **settings))


def rows_run(folder: Path) -> Run:
    fetch("blobs")  # here: a run whose data are not there yet has a process get them
    return executed(change(find_recipe("blobs-mlp"), {"epochs": 2}))


@pytest.fixture(scope="session")
def run_of(trained: Run, digits_data: Path) -> Callable[[str], Run]:
    """Return a finished run of a kind, with its data beside it: grey (of ink), colour, transferred, or rows."""

    @cache
    def finished(kind: str) -> Run:
        def make(folder: Path) -> None:
            if kind == "grey":
                shutil.copytree(digits_data / "prepared", folder / "data" / "prepared")
                shutil.copytree(trained.path, folder / "runs" / trained.id)
                return
            folder.mkdir()
            torch.manual_seed(0)
            with folders(folder / "data", folder / "runs"):
                {"colour": colour_run, "transferred": transferred_run, "rows": rows_run}[kind](folder)

        runs = made_once(f"run-{kind}", make) / "runs"
        (path,) = (path for path in runs.iterdir() if (path / "recipe.json").exists())
        return Run(path)

    return finished


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Run]:
    """Point Loupe at the folders of a run, for this test."""

    def point(run: Run) -> Run:
        monkeypatch.setenv("LOUPE_DATA", str(run.path.parents[1] / "data"))
        monkeypatch.setenv("LOUPE_RUNS", str(run.path.parent))
        return run

    return point


@pytest.fixture(scope="session")
def export_of(run_of: Callable[[str], Run]) -> ExportOf:
    """Return the export of a kind of run in a format, onnx or torch, as a folder."""

    @cache
    def exported(kind: str, format: str) -> Exported:
        run = run_of(kind)
        base = run.path.parents[1]

        def make(folder: Path) -> None:
            folder.mkdir()
            with folders(base / "data", base / "runs"):
                done = export_to(run, format, folder / "files")
            assert left_in(folder / "files") == sorted(FORMATS[format])
            (folder / "proof.json").write_text(json.dumps(asdict(done.proof)))

        kept = made_within(base, format, make)
        proof = Proof(**json.loads((kept / "proof.json").read_text()))
        return Exported(run, kept / "files" / FORMATS[format][0], proof)

    return exported


@pytest.fixture
def stub_of_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have models written as a small text, and taken to be proved: it is where files land that is tested."""

    def write(run: Run, path: Path) -> None:
        path.write_text(f"the model of {run.id}")

    monkeypatch.setattr("engine.export.formats.write_onnx", write)
    monkeypatch.setattr("engine.export.formats.write_program", write)
    monkeypatch.setattr("engine.export.proof.prove", lambda run, model: PROOF)


@pytest.fixture
def copied(run_of: Callable[[str], Run], tmp_path: Path, at: Callable[[Run], Run]) -> Callable[[str], Run]:
    """Return a run of a kind and its data for this test to change."""

    def copy(kind: str) -> Run:
        run = run_of(kind)
        for name in ("data", "runs"):
            shutil.copytree(run.path.parents[1] / name, tmp_path / name, symlinks=True)
        return at(Run(tmp_path / "runs" / run.id))

    return copy
