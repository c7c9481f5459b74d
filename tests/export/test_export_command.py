import json
import re
import signal
from pathlib import Path

import pytest
from command_line import Answer, assert_refused, begin, call, command, finish
from exports import left_in
from processes import python

from engine.base.text import format_bytes
from engine.inference.classifier import load_classifier

DIFFERENCE = r"the largest difference in probability from the run's own answers is \d\.\de-\d\d"


@pytest.mark.processes
def test_a_run_is_exported_to_a_file(run_of, at, tmp_path: Path) -> None:
    run, file = at(run_of("grey")), tmp_path / "digits.onnx"
    done = command("export", run.id, "--format", "onnx", str(file))
    assert done.code == 0, done.stderr
    written, proof = done.stdout.splitlines()
    assert written == f"written: {file} ({format_bytes(file.stat().st_size)})"
    assert re.match(rf"On 100 test images of digits, .*: {DIFFERENCE}, and 0 of 116 answers are different\.$", proof)
    assert done.stderr == "writing model.onnx\nproving it in a process without Loupe\n"
    assert left_in(tmp_path) == ["digits.onnx"]


@pytest.mark.processes
def test_a_run_is_exported_to_a_folder_beside_where_one_is(run_of, at, tmp_path: Path, monkeypatch) -> None:
    run = at(run_of("rows"))
    done = command("export", run.id, "--format", "torch", "--json", str(tmp_path / "up" / ".." / "out"))
    assert done.code == 0, done.stderr
    names = ["model.pt2", "weights.safetensors", "weights.json", "predict.py", "MODEL_CARD.md"]
    document = done.document
    assert document["proof"].pop("largest") <= 1e-4
    assert document == {
        "run": run.id,
        "format": "torch",
        "files": [str(tmp_path / "out" / name) for name in names],
        "proof": {"images": 100, "inputs": "test rows of blobs", "resized": 0, "different": 0},
    }
    about = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert about["classes"] == list(load_classifier(run).classes)


def test_what_cannot_be_exported_is_refused(run_of, at, tmp_path: Path) -> None:
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
        assert_refused(call("export", *arguments), reason)
    assert left_in(tmp_path) == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


EXPORTED_OTHERWISE = """
import sys
from exports import damaged
from engine.commands.main import main
from engine.export import formats
load = formats.load_portable
formats.load_portable = lambda run: damaged(load(run))
sys.exit(main(sys.argv[1:]))
"""

EXPORTED_WITH_SMALL_FILES = """
import resource, sys
from engine.commands.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)
sys.exit(main(sys.argv[1:]))
"""


def exported_by(code: str, *arguments: str) -> Answer:
    """Run the command within some code of ours."""
    code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n{code}"
    return finish(python("-c", code, "export", *arguments, stdout=-1, stderr=-1))


@pytest.mark.processes
def test_an_export_that_answers_otherwise_ends_in_a_sentence(run_of, at, tmp_path: Path) -> None:
    run = at(run_of("grey"))
    ended = exported_by(EXPORTED_OTHERWISE, run.id, "--format", "onnx", str(tmp_path / "out"))
    assert (ended.code, ended.stdout) == (2, "")
    *_, said = ended.stderr.splitlines()
    assert said.startswith("error: The export was given up, and nothing of it kept: its probabilities differ from the")
    assert left_in(tmp_path) == []


@pytest.mark.processes
def test_a_full_disk_is_told_of_in_a_sentence(run_of, at, tmp_path: Path) -> None:
    run = at(run_of("grey"))
    ended = exported_by(EXPORTED_WITH_SMALL_FILES, run.id, "--format", "torch", str(tmp_path / "out"))
    assert (ended.code, ended.stdout) == (2, "")
    *_, said = ended.stderr.splitlines()
    assert said.startswith(f"error: {tmp_path / 'out'} could not be written (File too large). Name a file")
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
