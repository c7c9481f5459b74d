import json
import re
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Answer, assert_refused, begin, finish
from exports import PROOF, left_in
from full_disk import files_limited_to

from engine.base.text import format_bytes
from engine.commands.main import main
from engine.inference.classifier import load_classifier

DIFFERENCE = r"the largest difference in probability from the run's own answers is \d\.\de-\d\d"


@pytest.fixture(autouse=True)
def own_way_to_end() -> Iterator[None]:
    """The command has SIGTERM end its process in its own way, which here is the process of the tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["model.onnx", pytest.param("model.pt2", marks=pytest.mark.sweep)])
def test_a_run_is_exported_to_a_file(name: str, run_of, at, tmp_path: Path, capfd) -> None:
    run, file, format = at(run_of("grey")), tmp_path / name, {"model.onnx": "onnx", "model.pt2": "torch"}[name]
    assert main(["export", run.id, "--format", format, str(file)]) == 0
    stdout, stderr = capfd.readouterr()
    written, proof = stdout.splitlines()
    assert written == f"written: {file} ({format_bytes(file.stat().st_size)})"
    assert re.match(rf"On 100 test images of digits, .*: {DIFFERENCE}, and 0 of 116 answers are different\.$", proof)
    assert stderr == f"writing {name}\nproving it in a process without Loupe\n"
    assert left_in(tmp_path) == [name]


@pytest.mark.usefixtures("stub_of_the_writer")
def test_a_run_is_exported_to_a_folder_beside_where_one_is(run_of, at, tmp_path: Path, capsys) -> None:
    run = at(run_of("rows"))
    assert main(["export", run.id, "--format", "torch", "--json", str(tmp_path / "up" / ".." / "out")]) == 0
    names = ["model.pt2", "weights.safetensors", "weights.json", "predict.py", "MODEL_CARD.md"]
    assert json.loads(capsys.readouterr().out) == {
        "run": run.id,
        "format": "torch",
        "files": [str(tmp_path / "out" / name) for name in names],
        "proof": asdict(PROOF),
    }
    about = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert about["classes"] == list(load_classifier(run).classes)


def test_what_cannot_be_exported_is_refused(run_of, at, tmp_path: Path, capsys) -> None:
    run = at(run_of("grey"))
    (tmp_path / "there.onnx").write_text("mine")
    for arguments, reason in {
        ("none", "--format", "onnx", str(tmp_path / "out")): "There is no run 'none'",
        (run.id, "--format", "onnx", str(tmp_path / "none" / "out")): "There is no folder",
        (run.id, "--format", "onnx", str(tmp_path / "there.onnx")): "nothing is overwritten",
        (run.id, "--format", "torch", str(tmp_path / "model.onnx")): "a file of the format torch ends in .pt2",
        (run.id, "--format", "tensorflow", str(tmp_path / "out")): "invalid choice: 'tensorflow'",
        (run.id, str(tmp_path / "out")): "the following arguments are required: --format",
        (run.id, "--format", "onnx", ""): "No place was named to export to.",
        (run.id, "--format", "onnx"): "the following arguments are required: PATH",
    }.items():
        assert_refused(Answer(main(["export", *arguments]), *capsys.readouterr()), reason)
    assert left_in(tmp_path) == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk_is_told_of_in_a_sentence(run_of, at, tmp_path: Path, capsys) -> None:
    run, place = at(run_of("grey")), tmp_path / "out"
    with files_limited_to(20_000):
        assert main(["export", run.id, "--format", "torch", str(place)]) == 2
    stdout, stderr = capsys.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 2)
    assert stderr.splitlines()[1].startswith(f"error: {place} could not be written (File too large). Name a file")
    assert left_in(tmp_path) == []


@pytest.mark.processes
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ended_on_the_way_it_leaves_nothing(ending: signal.Signals, run_of, at, tmp_path: Path) -> None:
    run = at(run_of("grey"))
    process = begin("export", run.id, "--format", "torch", str(tmp_path / "out"))
    assert process.stderr and process.stderr.readline() == "writing model.pt2\n"
    assert len(left_in(tmp_path)) == 1
    process.send_signal(ending)
    # 2 if it comes while safetensors reads, which makes an error of its own of it.
    assert finish(process).code in (128 + ending, 2)
    assert left_in(tmp_path) == []
