"""Exports that pages offer: made as a job, and kept with their run."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import jobs_in_this_process, wait_until
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.export.export_job import cancel_export, export_state, find_cached_export, start_export
from engine.runs.run import Run


@pytest.fixture
def run(make_colours) -> Run:
    return train_run(make_colours(), model="convnet")[0]


@pytest.fixture
def in_this_process() -> Iterator[None]:
    with jobs_in_this_process():
        yield


def folders_of(run: Run) -> list[str]:
    return [path.name for path in (run.path / "exports").glob("[!.]*")]


@pytest.mark.processes
def test_an_export_is_made_once_and_found_again(run: Run, tmp_path: Path) -> None:
    assert find_cached_export(run, "onnx") is None
    assert export_state(run, "onnx") is None
    start_export(run, "onnx")
    start_export(run, "onnx")  # from another tab
    said = set()
    while (state := export_state(run, "onnx")) and state.is_running:
        said.add(state.progress)
    assert said - {None} <= {"writing model.onnx", "proving it in a process without Loupe"}
    kept = find_cached_export(run, "onnx")
    assert kept
    assert (kept.proof.images, kept.proof.different) == (30, 0)
    assert kept.proof.largest < 1e-4
    kept.write_zip(tmp_path / "export.zip")
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        names = [f"{run.id}/{name}" for name in ("MODEL_CARD.md", "model.onnx", "predict.py")]
        assert archive.namelist() == names
        assert sum(entry.file_size for entry in archive.infolist()) == kept.bytes
    assert find_cached_export(run, "torch") is None
    assert len(folders_of(run)) == 1


@pytest.mark.processes
def test_an_export_that_is_cancelled_leaves_nothing(run: Run) -> None:
    start_export(run, "onnx")
    cancel_export(run, "onnx")
    assert export_state(run, "onnx") is None
    wait_until(lambda: folders_of(run) == [])


@pytest.mark.usefixtures("in_this_process", "stub_of_the_writer")
def test_an_export_of_earlier_weights_is_not_offered_but_made_anew(run: Run) -> None:
    start_export(run, "onnx")
    assert find_cached_export(run, "onnx")
    os.utime(run.weights, ns=(1, 1))
    assert find_cached_export(run, "onnx") is None
    start_export(run, "onnx")
    assert find_cached_export(run, "onnx")


def test_a_run_that_is_gone_is_not_exported(run: Run) -> None:
    shutil.rmtree(run.path)
    with pytest.raises(LoupeError, match="is not there any more"):
        start_export(run, "onnx")
    assert not run.path.exists()


@pytest.mark.usefixtures("in_this_process")
def test_why_an_export_failed_is_told(run: Run) -> None:
    run.weights.write_bytes(b"damaged")
    start_export(run, "onnx")
    state = export_state(run, "onnx")
    assert state and state.error
    assert state.error.startswith(f"weights.safetensors of the run {run.id} cannot be used")
    assert find_cached_export(run, "onnx") is None


@pytest.mark.parametrize("result", ["[]", '{"weights": 1}', '{"weights": null, "proof": 3}', "null"])
def test_damaged_notes_of_an_export_are_taken_for_none(run: Run, result: str) -> None:
    folder = run.path / "exports" / "onnx~1"
    (folder / "files").mkdir(parents=True)
    (folder / "request.json").write_text("{}")
    (folder / "ended.json").write_text(f'{{"status": "finished", "error": null, "result": {result}}}')
    assert find_cached_export(run, "onnx") is None
