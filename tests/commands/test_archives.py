import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from command_line import Answer, assert_refused, begin, call
from processes import folders, python, wait_until

from engine.base.text import format_bytes
from engine.runs.archive import CHECKPOINT, MANIFEST, TENSORS
from engine.runs.run import Run, list_runs

RESULTS = ["log.jsonl", "output.txt", "predictions-test.npz", "predictions-val.npz", "recipe.json"]


@pytest.fixture
def runs(trained: Run, tmp_path: Path):
    """The folders of the finished run: not to be written to."""
    with folders(tmp_path / "data", trained.path.parent):
        yield


def restore(file: Path, runs: Path, *options: str) -> Answer:
    with folders(runs.parent / "data", runs):
        return call("restore", str(file), *options)


@pytest.mark.usefixtures("runs")
def test_a_run_is_archived_and_restored(trained: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.zip"
    archived = call("archive", trained.id, str(file), "--json")
    assert (archived.code, archived.stderr) == (0, "")
    names = sorted([*RESULTS, "weights.safetensors", CHECKPOINT, TENSORS])
    document = archived.document
    assert sorted(document.pop("files")) == names
    assert document == {"run": trained.id, "file": str(file), "bytes": file.stat().st_size}
    with zipfile.ZipFile(file) as content:
        assert sorted(content.namelist()) == sorted([*names, MANIFEST])

    restored = restore(file, tmp_path / "there", "--json")
    assert (restored.code, restored.stderr) == (0, "")
    assert restored.document == {
        "run": trained.id,
        "status": "finished",
        "files": sorted([*RESULTS, "checkpoint.pt", "weights.safetensors"]),
    }
    assert_refused(restore(file, tmp_path / "there"), f"The run {trained.id} is here already")

    with folders(tmp_path / "data", tmp_path / "there"):
        there = [call(*arguments) for arguments in (("runs",), ("evaluate", trained.id))]
    assert there == [call("runs"), call("evaluate", trained.id)]


@pytest.mark.usefixtures("runs")
def test_it_says_so_in_words(trained: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.zip"
    archived = call("archive", trained.id, str(file))
    assert archived == Answer(0, f"{trained.id}: written to {file} ({format_bytes(file.stat().st_size)})\n", "")
    assert restore(file, tmp_path / "there") == Answer(0, f"{trained.id}: restored, finished\n", "")


@pytest.mark.usefixtures("runs")
def test_what_cannot_be_archived_is_refused(trained: Run, tmp_path: Path) -> None:
    assert_refused(call("archive", "none", str(tmp_path / "run.zip")), "There is no run 'none'")
    assert_refused(call("archive", trained.id, str(tmp_path / "run.tar")), "does not end in .zip")
    assert_refused(call("archive", trained.id, str(tmp_path / "none" / "run.zip")), "There is no folder")
    (tmp_path / "run.zip").touch()
    assert_refused(call("archive", trained.id, str(tmp_path / "run.zip")), "is there already")
    assert_refused(call("archive", trained.id), "the following arguments are required: FILE")


@pytest.mark.usefixtures("runs")
def test_what_cannot_be_restored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    for name, reason in {
        "none.zip": "There is no file",
        "text.zip": "is not a zip archive",
        ".": "is a folder",
    }.items():
        assert_refused(restore(tmp_path / name, tmp_path / "there"), reason)
    assert not (tmp_path / "there").exists()


def test_a_damaged_checkpoint_is_told(trained: Run, tmp_path: Path, trap) -> None:
    run = Run(tmp_path / "runs" / trained.id)
    run.path.mkdir(parents=True)
    for name in ("recipe.json", "log.jsonl", "weights.safetensors"):
        (run.path / name).write_bytes((trained.path / name).read_bytes())
    torch.save({"fingerprint": trap}, run.checkpoint)
    archived = call("archive", run.id, str(tmp_path / "run.zip"), "--json")
    assert archived.code == 0
    assert archived.document["files"] == ["recipe.json", "log.jsonl", "weights.safetensors"]
    assert archived.stderr == (
        "checkpoint.pt is damaged (UnpicklingError), and was left out: from this archive the run cannot be trained "
        "further.\n"
    )
    assert not trap.sprung


RESTORED_WITH_A_PAUSE = """
import sys, time
import engine.runs.archive
def late(file):
    print("restoring", flush=True)
    time.sleep(60)
engine.runs.archive.load_predictions = late
from engine.commands.main import main
sys.exit(main(["restore", sys.argv[1]]))
"""


@pytest.mark.processes
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_restore_that_is_ended_leaves_no_run_and_can_be_done_again(
    trained: Run, tmp_path: Path, how: int, code: int
) -> None:
    file, there = tmp_path / "run.zip", tmp_path / "there"
    call("archive", trained.id, str(file))
    with folders(tmp_path / "data", there):
        with python("-c", RESTORED_WITH_A_PAUSE, str(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == "restoring\n"
            assert list(there.glob(".restoring-*")) and not list_runs()
            os.kill(process.pid, how)
            process.communicate()
        assert process.returncode == code
        assert not list_runs()
        assert bool(list(there.glob(".restoring-*"))) == (how == signal.SIGKILL)
        assert json.loads(call("restore", str(file), "--json").stdout)["run"] == trained.id
        assert not list(there.glob(".restoring-*"))


@pytest.mark.processes
@pytest.mark.usefixtures("runs")
def test_an_archive_that_is_ended_leaves_nothing_by_its_name(trained: Run, tmp_path: Path) -> None:
    process = begin("archive", trained.id, str(tmp_path / "run.zip"))
    wait_until(lambda: list(tmp_path.glob(".run.zip.*")) or process.poll() is not None)
    process.kill()
    process.communicate()
    if (tmp_path / "run.zip").exists():  # it was faster
        with zipfile.ZipFile(tmp_path / "run.zip") as content:
            assert content.testzip() is None
