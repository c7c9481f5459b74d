"""Exports that pages offer: made in a process of their own, and kept with their run."""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.export.kept import find_cached_export, make_cached_export
from engine.runs.run import Run


@pytest.fixture
def run(make_colours) -> Run:
    return train_run(make_colours(), model="convnet")[0]


def test_an_export_is_made_once_and_found_again(run: Run, tmp_path: Path) -> None:
    assert find_cached_export(run, "onnx") is None
    said: list[str] = []
    make_cached_export(run, "onnx", said.append)
    assert said == ["writing model.onnx", "proving it in a process without Loupe"]
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


def test_an_export_of_earlier_weights_is_not_offered_but_made_anew(run: Run) -> None:
    make_cached_export(run, "onnx", lambda said: None)
    os.utime(run.weights, ns=(1, 1))
    assert find_cached_export(run, "onnx") is None
    make_cached_export(run, "onnx", lambda said: None)
    assert find_cached_export(run, "onnx")


def test_two_who_ask_at_once_get_one_export(run: Run) -> None:
    told: list[list[str]] = [[], []]
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(make_cached_export, run, "onnx", said.append) for said in told]:
            ended.result()
    assert sorted(map(len, told)) == [0, 2], "one makes it, the other waits and finds it"
    assert find_cached_export(run, "onnx")


def test_why_an_export_failed_is_told(run: Run) -> None:
    run.weights.write_bytes(b"damaged")
    said: list[str] = []
    with pytest.raises(LoupeError, match=r"^weights\.safetensors of the run .* cannot be used"):
        make_cached_export(run, "onnx", said.append)
    assert not any(each.startswith("error") for each in said)
    assert find_cached_export(run, "onnx") is None
    assert [path.name for path in (run.path / "exports").iterdir()] == [".onnx.lock"]


def test_an_export_that_is_not_waited_for_ends_and_leaves_nothing(run: Run) -> None:
    class StoppedError(Exception):
        pass

    def stop(said: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        make_cached_export(run, "onnx", stop)
    assert find_cached_export(run, "onnx") is None
    assert [path.name for path in (run.path / "exports").iterdir()] == [".onnx.lock"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weights": 1}', '{"weights": null, "proof": 3}'])
def test_damaged_notes_of_an_export_are_taken_for_none(run: Run, content: str) -> None:
    place = run.path / "exports"
    (place / "onnx").mkdir(parents=True)
    (place / "onnx.json").write_text(content)
    assert find_cached_export(run, "onnx") is None
