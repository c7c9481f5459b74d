"""What is written where; and that nothing is overwritten, and nothing left behind."""

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from exports import damaged, export_to, left_in
from picture_files import assert_sentences, result_of

from engine.base.errors import LoupeError
from engine.export import formats
from engine.export.exporting import FORMATS, check_target, export
from engine.export.script import script_of
from engine.networks.model_file import load_model, save_model
from engine.runs.run import create_run


def refusal(path: Path, format: str) -> str:
    with pytest.raises(LoupeError) as refused:
        check_target(path, format)
    assert_sentences(str(refused.value))
    return str(refused.value)


@pytest.mark.usefixtures("stub_of_the_writer")
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_folder_gets_all_that_is_needed(format: str, run_of, at, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = export_to(at(run_of("grey")), format, folder)
    assert left_in(folder) == sorted(FORMATS[format])
    assert done.files == tuple(folder / name for name in FORMATS[format])
    document = json.loads(json.dumps(done.as_document()))
    assert document["files"] == [str(file) for file in done.files]
    assert document["proof"]["images"] == 100 and document["proof"]["largest"] <= 1e-4
    assert "/runs/" not in (folder / "predict.py").read_text(encoding="utf-8")


@pytest.mark.usefixtures("stub_of_the_writer")
def test_a_named_file_is_that_one_file_and_says_what_it_does(run_of, at, tmp_path: Path) -> None:
    run, told = at(run_of("grey")), []
    steps = export(run, "torch", tmp_path / "digits v2.PT2")
    try:
        while True:
            told.append(next(steps))
    except StopIteration as ended:
        done = ended.value
    assert told == ["writing model.pt2", "proving it in a process without Loupe"]
    assert done.files == (tmp_path / "digits v2.PT2",)
    assert left_in(tmp_path) == ["digits v2.PT2"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(done.files[0].stat().st_mode) == 0o666 & ~mask


def test_a_folder_that_is_there_keeps_what_is_in_it(run_of, at, tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    (tmp_path / "v1.2" / "notes.txt").write_text("mine")
    export_to(at(run_of("grey")), "script", tmp_path / "v1.2")
    assert left_in(tmp_path / "v1.2") == ["notes.txt", "train.py"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("there.pt2", "is there already"),
        ("link.pt2", "is there already"),
        ("file", "is there already"),
        ("none/model.pt2", "There is no folder"),
        ("file/model.pt2", "There is no folder"),
        ("full", "has model.pt2 and predict.py in it already"),
        ("model.onnx", "ends in .onnx, but a file of the format torch ends in .pt2"),
        ("v1.2", "ends in .2, but a file of the format torch ends in .pt2"),
        ("null/model.pt2", "There is no folder"),
        ("a\0b", "has a null character in it"),
        ("a" * 300, "could not be written (File name too long)"),
        ("line\nbreak\x1b/model", "There is no folder"),
    ],
)
def test_a_place_that_does_not_do_is_told_of(place: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "there.pt2").touch()
    (tmp_path / "link.pt2").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    for name in ("predict.py", "model.pt2", "train.py"):
        (tmp_path / "full" / name).touch()
    before = left_in(tmp_path)
    assert reason in refusal(tmp_path / place, "torch")
    assert left_in(tmp_path) == before


def test_a_run_without_weights_is_refused(copied, tmp_path: Path) -> None:
    run = copied("rows")
    run.weights.unlink()
    with pytest.raises(LoupeError, match="has no weights"):
        result_of(export(run, "onnx", tmp_path / "out"))
    run.weights.write_bytes(b"damaged")
    with pytest.raises(LoupeError, match=r"weights\.safetensors of the run .* cannot be used"):
        result_of(export(run, "onnx", tmp_path / "out"))
    assert left_in(tmp_path) == ["data", "runs"]


def test_an_export_that_nobody_waits_for_leaves_nothing(run_of, at, tmp_path: Path) -> None:
    steps = export(at(run_of("grey")), "script", tmp_path / "out")
    next(steps)
    assert len(left_in(tmp_path)) == 1
    steps.close()
    assert left_in(tmp_path) == []


@pytest.mark.usefixtures("stub_of_the_writer")
def test_what_has_come_to_be_there_meanwhile_is_not_overwritten(run_of, at, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    steps = export(at(run_of("rows")), "torch", tmp_path / "out")
    next(steps), next(steps)
    (tmp_path / "out" / "MODEL_CARD.md").write_text("theirs")
    with pytest.raises(LoupeError, match="has come to be there in the meantime, and nothing is overwritten"):
        result_of(steps)
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() == "theirs"
    assert left_in(tmp_path) == ["out"] and left_in(tmp_path / "out") == ["MODEL_CARD.md"]


def test_of_an_export_that_answers_otherwise_nothing_is_left(copied, export_of, tmp_path: Path, monkeypatch) -> None:
    run, of_other_weights = copied("grey"), export_of("grey", "onnx").model
    model, preprocessing = load_model(run.weights)
    save_model(run.weights, damaged(model).state_dict(), run.read_recipe(), preprocessing)
    monkeypatch.setattr(formats, "write_onnx", lambda run, path: shutil.copy(of_other_weights, path))
    before = left_in(tmp_path)
    with pytest.raises(LoupeError, match="its probabilities differ"):
        export_to(run, "onnx", tmp_path / "out")
    assert left_in(tmp_path) == before


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file system on which a file has one name only, as on USB sticks."""

    def link(*_) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_links")
def test_where_there_are_no_links_files_are_copied(run_of, at, tmp_path: Path) -> None:
    run = at(run_of("grey"))
    (file,) = export_to(run, "script", tmp_path / "out").files
    assert left_in(tmp_path) == ["out"] and left_in(tmp_path / "out") == ["train.py"]
    assert file.read_text(encoding="utf-8") == script_of(run)


@pytest.mark.usefixtures("no_links", "stub_of_the_writer")
def test_a_disk_that_fills_up_at_the_end_is_left_as_it_was(run_of, at, tmp_path: Path, monkeypatch) -> None:
    def copy(source, written) -> None:
        if written.name.endswith("MODEL_CARD.md"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(LoupeError, match=r"could not be written \(No space left on device\)"):
        export_to(at(run_of("rows")), "torch", tmp_path / "out")
    assert left_in(tmp_path) == []


def test_a_script_needs_no_weights(copied, tmp_path: Path) -> None:
    run = create_run(copied("grey").read_recipe())
    done = export_to(run, "script", tmp_path / "train.py")
    assert done.as_document() == {"files": [str(tmp_path / "train.py")], "proof": None}
    compile((tmp_path / "train.py").read_text(), "train.py", "exec")
