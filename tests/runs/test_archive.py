import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import stat
import struct
import sys
import threading
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import files_limited_to
from processes import folders, wait_until
from safetensors.torch import load_file, save_file
from zip_files import patched, put_together, taken_apart
from zip_files import with_field as with_zip_field

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset
from engine.evaluation.predictions import load_predictions
from engine.inference.classifier import load_classifier
from engine.recipes.recipe import Recipe, change, find_recipe
from engine.runs import archive
from engine.runs.archive import CHECKPOINT, MANIFEST, TENSORS, archive_run, restore_run
from engine.runs.checkpoint_file import flatten_state, read_checkpoint_file, read_tensor_file, tensor_file
from engine.runs.checkpoint_file import unflatten_state as put_checkpoint_together
from engine.runs.log import Log
from engine.runs.records import Resumed, from_line
from engine.runs.run import Run, create_run, list_runs, resume
from engine.training.loop import Training, fit
from engine.training.worker import execute, save_checkpoint

FILES = [
    "checkpoint.pt",
    "log.jsonl",
    "output.txt",
    "predictions-test.npz",
    "predictions-val.npz",
    "recipe.json",
    "weights.safetensors",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.zip"


@pytest.fixture(scope="session")
def archive_of_trained(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive_run(trained, path := tmp_path_factory.mktemp("archive") / "run.zip")
    return path


@pytest.fixture
def archived(archive_of_trained: Path, path: Path) -> dict[str, bytes]:
    """The files of an archive of a finished run, whose archive is there."""
    shutil.copy(archive_of_trained, path)
    return unpacked(path)


@pytest.fixture
def own(trained: Run, tmp_path: Path) -> Run:
    """A finished run, present for this test and its to change."""
    shutil.copytree(trained.path, tmp_path / "own" / trained.id)
    return Run(tmp_path / "own" / trained.id)


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return content.getvalue()


def manifest_of(files: dict[str, bytes]) -> dict:
    return json.loads(files[MANIFEST])


def with_manifest(contents: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    manifest = manifest_of(contents) | changes
    kept = {name: value for name, value in manifest.items() if value != "left out"}
    return contents | {MANIFEST: json.dumps(kept).encode()}


def sealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Have the manifest say what the files are, as one does who makes an archive to do harm."""
    listed = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
        if name != MANIFEST
    }
    return with_manifest(files, files=listed)


def refusal(path: Path, content: bytes | None = None) -> str:
    """Restore what is refused; returns the message. Nothing may be left of it, neither here nor elsewhere."""
    if content is not None:
        path.write_bytes(content)
    around = sorted(path.parent.rglob("*"))
    with pytest.raises(LoupeError) as refused:
        restore_run(path)
    message = str(refused.value)
    assert message.isprintable() and message.endswith(".")
    assert len(re.findall(r"(?<!\.)\.(?= |$)", message)) <= 2, message
    left = [each for each in sorted(path.parent.rglob("*")) if each not in around]
    assert [each.name for each in left if each.name != ".restore.lock"] in ([], ["runs"])
    assert not list_runs()
    return message


def assert_same(one: Any, other: Any) -> None:
    """Hold two checkpoints against each other: types, order, values, and how tensors lie in memory."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
    elif isinstance(one, dict):
        assert [(type(key), key) for key in one] == [(type(key), key) for key in other]
        for key in one:
            assert_same(one[key], other[key])
        if isinstance(one, OrderedDict):
            assert_same(vars(one), vars(other))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_same(ours, theirs)
    else:
        assert repr(one) == repr(other)


def there_and_back(state: Any, folder: Path) -> Any:
    tensors, document = flatten_state(state)
    file = folder / "there.safetensors"
    file.write_bytes(b"".join(bytes(piece) for piece in tensor_file(tensors)))
    return put_checkpoint_together(read_tensor_file(file), json.loads(json.dumps(document, allow_nan=False)))


# There and back


def test_a_run_comes_back_byte_for_byte(trained: Run, path: Path) -> None:
    before = {name: (trained.path / name).read_bytes() for name in FILES}
    written = archive_run(trained, path)
    assert (written.path, written.bytes, written.left_out) == (path, path.stat().st_size, ())
    run = restore_run(path)
    assert list_runs() == [run] and run.id == trained.id
    assert sorted(file.name for file in run.path.iterdir()) == FILES
    for name in FILES:
        assert (trained.path / name).read_bytes() == before[name], "archiving changes nothing"
        if name != "checkpoint.pt":
            assert (run.path / name).read_bytes() == before[name]
    assert_same(torch.load(run.checkpoint, weights_only=True), torch.load(trained.checkpoint, weights_only=True))
    assert run.status() == "finished"
    assert [file.name for file in run.path.parent.iterdir() if file.name != run.id] == [".restore.lock"]
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]


def test_an_archive_of_what_was_restored_is_the_same(archived: dict[str, bytes], path: Path, tmp_path: Path) -> None:
    archive_run(restore_run(path), tmp_path / "again.zip")
    again = unpacked(tmp_path / "again.zip")
    assert list(again) == list(archived)
    assert {name for name in again if again[name] != archived[name]} <= {MANIFEST}
    assert manifest_of(again)["files"] == manifest_of(archived)["files"]


def test_the_manifest_says_what_there_is(trained: Run, archived: dict[str, bytes]) -> None:
    manifest = manifest_of(archived)
    assert (manifest["format"], manifest["run"]) == (1, trained.id)
    assert f'version = "{manifest["loupe"]}"' in (Path(archive.PROJECT_ROOT) / "pyproject.toml").read_text()
    assert manifest["made"] == trained.made.timestamp()
    assert manifest["files"] == manifest_of(sealed(archived))["files"]
    expected = [*FILES[1:], CHECKPOINT, TENSORS]
    assert sorted(manifest["files"]) == sorted(expected)


def test_an_archive_holds_no_pickle_and_what_is_large_is_stored(archived: dict[str, bytes], path: Path) -> None:
    assert not any(content.startswith(b"\x80") for content in archived.values())
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        methods = {info.filename: info.compress_type for info in file.infolist()}
    large = {name for name in methods if name.endswith((".safetensors", ".npz"))}
    assert len(large) == 4
    assert all((methods[name] == zipfile.ZIP_STORED) == (name in large) for name in methods)


def test_the_tensors_of_a_checkpoint_can_be_read_by_others(trained: Run, archived: dict, tmp_path: Path) -> None:
    (tmp_path / TENSORS).write_bytes(archived[TENSORS])
    tensors = load_file(tmp_path / TENSORS)
    state = torch.load(trained.checkpoint, weights_only=True)
    for name, value in state["model"].items():
        order = sorted(range(value.dim()), key=lambda axis, value=value: (-value.stride(axis), -value.shape[axis]))
        assert torch.equal(tensors[f"model/{name}"], value.permute(order))
    assert f"optimizer/state/0/{next(iter(state['optimizer']['state'][0]))}" in tensors


def test_files_that_are_not_results_stay_behind(own: Run, path: Path) -> None:
    for name in ("stop", ".weights.safetensors.1-2", "export.onnx", "predictions-.npz", "predictions-other.npz"):
        (own.path / name).write_bytes(b"other")
    assert sorted(archive_run(own, path).files) == sorted([*FILES[1:], CHECKPOINT, TENSORS])


def test_a_run_that_never_trained_comes_back(path: Path, tmp_path: Path) -> None:
    run = create_run(find_recipe("digits-quick"))
    os.utime(run.path / "recipe.json", (1, 1))
    assert run.status() == "died"
    archive_run(run, path)
    shutil.rmtree(run.path)
    again = restore_run(path)
    assert [file.name for file in again.path.iterdir()] == ["recipe.json"]
    assert again.status() == "died", "a fresh one would be starting"


def test_a_run_that_was_renamed_keeps_its_date(own: Run, path: Path) -> None:
    renamed = Run(own.path.rename(own.path.with_name("My_best.run-1")))
    os.utime(renamed.path, (1e9, 1e9))
    archive_run(renamed, path)
    run = restore_run(path)
    assert (run.id, run.made) == ("My_best.run-1", renamed.made)


def test_a_log_that_was_cut_off_comes_back_as_it_was(own: Run, path: Path) -> None:
    own.log.write_bytes(own.log.read_bytes()[:-30])
    archive_run(own, path)
    assert restore_run(path).log.read_bytes() == own.log.read_bytes()


def cut_within_an_epoch(recipe: Recipe, dataset: Dataset, step: int) -> Run:
    """Leave a run as its process would that was killed after it had saved a checkpoint at a step."""
    run = create_run(recipe)
    training = Training(recipe, dataset, torch.device("cpu"))
    with Log(run.log) as log:
        for record in fit(training, dataset):
            if record is not None:
                log.append(record)
            if training.step == step:
                break
    save_checkpoint(run, training, dataset)
    return run


@pytest.mark.slow
def test_a_run_that_was_restored_ends_as_the_original_does(trained: Run, digits: Dataset, path: Path) -> None:
    # Two batches of the second epoch are trained on.
    original = cut_within_an_epoch(change(trained.read_recipe(), {"epochs": 3}), digits, step=23)
    archive_run(original, path)
    with folders(path.parent / "data", path.parent / "there"):
        restored = restore_run(path)
        assert restored.path != original.path
        execute(restored)
    execute(original)
    assert restored.status() == "finished"
    assert Resumed(23) in [from_line(line) for line in restored.log.read_text().splitlines()]
    assert_same(load_file(restored.weights), load_file(original.weights))
    for split in ("val", "test"):
        assert restored.predictions(split).read_bytes() == original.predictions(split).read_bytes()
    ours, theirs = (torch.load(run.checkpoint, weights_only=True) for run in (restored, original))
    for part in ("model", "optimizer", "best_weights", "random", "step", "epoch"):
        assert_same(ours[part], theirs[part])


@pytest.mark.slow
def test_a_restored_run_works_where_its_dataset_is_not(make_colours, path: Path, tmp_path: Path) -> None:
    colours = make_colours()
    run = create_run(Recipe(dataset="colours", model="convnet", epochs=1, device="cpu", threads=1, batch_size=10))
    execute(run)
    archive_run(run, path)
    with folders(tmp_path / "nowhere", tmp_path / "there"):
        restored = restore_run(path)
        assert load_predictions(restored.predictions("test")).accuracy == run.history().ended.test_accuracy
        image = colours.splits["test"].images[0]
        probabilities, _ = load_classifier(restored).classify(image)
        np.testing.assert_array_equal(probabilities, load_classifier(run).classify(image)[0])
        with pytest.raises(LoupeError, match="colours"):
            resume(restored, 2)
        execute(restored)
        assert restored.status() == "failed"
        assert "There is no dataset 'colours'" in restored.explain(restored.history())


# Checkpoints as plain data


def test_what_a_checkpoint_may_hold_comes_back(tmp_path: Path) -> None:
    ordered = OrderedDict(b=1, a=torch.ones(2, 3).t())
    ordered._metadata = OrderedDict({"": {"version": 2}})
    state = {
        "fingerprint": "x",
        "numbers": [0, -1, 2**70, 0.1, -0.0, 1e-320, float("inf"), float("-inf"), float("nan"), True, False, None],
        "texts": ["", "ü狐\n\0", "\ud800"],
        "keys": {0: "int", "0": "text", None: 1, (1, "a"): 2, 2.5: 3},
        "empty": [(), [], {}, OrderedDict(), (None,), ((1, 2), [3])],
        "ordered": ordered,
        "like the encoding": {"tensor": "x", "order": [0]},
        "types": [torch.arange(3).to(dtype) for dtype in (torch.bool, torch.uint8, torch.int16, torch.int64)],
        "floats": [torch.randn(3, 2).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)],
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "one channel": torch.randn(16, 1, 3, 3).contiguous(memory_format=torch.channels_last),
        "one pixel": torch.randn(16, 8, 1, 1).contiguous(memory_format=torch.channels_last),
        0: {0: torch.ones(1), "0": torch.zeros(1)},
    }
    assert_same(there_and_back(state, tmp_path), state)


def test_tensors_that_are_one_come_back_as_one(tmp_path: Path) -> None:
    tied, base = torch.randn(4, 3), torch.randn(10)
    state = there_and_back(
        {"fingerprint": "", "tied": [tied, tied.t(), tied], "part": base[2:5], "wide": base[:1].expand(4)}, tmp_path
    )
    first, turned, third = state["tied"]
    assert first.data_ptr() == turned.data_ptr() == third.data_ptr()
    assert torch.equal(turned, tied.t())
    assert torch.equal(state["part"], base[2:5]) and torch.equal(state["wide"], base[:1].expand(4))
    assert state["part"].untyped_storage().nbytes() == 12


class Other:
    pass


@pytest.mark.parametrize(
    "value", [Other(), {1}, b"bytes", 1j, torch.Size([1]), torch.zeros(2).to_sparse(), torch.zeros(1, device="meta")]
)
def test_what_is_no_plain_value_is_not_taken_apart(value: object) -> None:
    with pytest.raises(ValueError):
        flatten_state({"fingerprint": "", "value": [value]})


# What cannot be archived


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("run", "An archive is a zip, and .*run does not end in .zip. Give it such a name."),
        ("run.tar", "does not end in .zip"),
        ("there.zip", "there.zip is there already, and an archive replaces nothing. Choose another name."),
        ("link.zip", "link.zip is there already"),
        ("folder.zip", "folder.zip is there already"),
        ("none/run.zip", "There is no folder .*none to write the archive to. Make it first."),
        (f"{'x' * 300}.zip", "could not be written .File name too long."),
    ],
)
def test_a_target_that_will_not_do_is_refused(trained: Run, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "there.zip").write_bytes(b"mine")
    (tmp_path / "link.zip").symlink_to("nowhere")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(LoupeError, match=reason):
        archive_run(trained, tmp_path / name)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.zip", "link.zip", "there.zip"]
    assert (tmp_path / "there.zip").read_bytes() == b"mine"


def test_a_run_that_is_going_on_is_not_archived(own: Run, path: Path) -> None:
    own.log.write_bytes(own.log.read_bytes()[:-30])
    with own.lock(), pytest.raises(LoupeError, match=f"The run {own.id} is still going on. Wait for its end"):
        archive_run(own, path)
    assert not path.exists()


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in another thread, until it returns True or the block ends."""
    over = threading.Event()

    def act_often() -> None:
        while not over.is_set() and not act():
            time.sleep(0.001)

    thread = threading.Thread(target=act_often)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_run_that_went_on_meanwhile_is_not_archived(own: Run, path: Path) -> None:
    with (
        own.log.open("ab", buffering=0) as log,
        meanwhile(lambda: not log.write(b"{}\n")),
        pytest.raises(LoupeError, match="went on while it was archived"),
    ):
        archive_run(own, path)
    assert [each.name for each in path.parent.iterdir()] == ["own"]


@pytest.mark.parametrize("content", [None, b"{", b'{"wings": 2}'])
def test_a_run_without_a_recipe_is_not_archived(own: Run, path: Path, content: bytes | None) -> None:
    (own.path / "recipe.json").unlink()
    if content:
        (own.path / "recipe.json").write_bytes(content)
    with pytest.raises(LoupeError, match=f"run {own.id}"):
        archive_run(own, path)
    assert not path.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_an_archive_that_the_disk_has_no_room_for_leaves_nothing(trained: Run, path: Path, share: float) -> None:
    size = archive_run(trained, path).bytes
    path.unlink()
    with files_limited_to(int(share * size)), pytest.raises(LoupeError) as refused:
        archive_run(trained, path)
    assert str(refused.value) == (
        f"{path} could not be written (File too large). Name a file in a folder that can be, with room for it."
    )
    assert list(path.parent.iterdir()) == []


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(file.read_bytes()[:-1000]),
        lambda file: file.write_bytes(flipped(file.read_bytes(), file.stat().st_size // 2)),
        lambda file: torch.save([1, 2], file),
        lambda file: torch.save({}, file),
        lambda file: torch.save({"fingerprint": ""}, file, _use_new_zipfile_serialization=False),
    ],
    ids=["empty", "beginning", "no end", "one bit", "a list", "nothing in it", "of an old torch"],
)
def test_a_damaged_checkpoint_is_left_out_and_that_is_said(own: Run, path: Path, damage: Callable) -> None:
    damage(own.checkpoint)
    written = archive_run(own, path)
    assert sorted(written.files) == FILES[1:]
    (sentence,) = written.left_out
    assert re.fullmatch(
        r"checkpoint\.pt is damaged \(\w+\), and was left out: from this archive the run cannot be trained further\.",
        sentence,
    )
    run = restore_run(path)
    assert sorted(file.name for file in run.path.iterdir()) == FILES[1:]
    with pytest.raises(LoupeError, match="has no checkpoint to go on from"):
        resume(run, 9)


@pytest.mark.parametrize("name", ["weights.safetensors", "predictions-val.npz", "log.jsonl"])
def test_any_other_damaged_file_is_left_out_too(own: Run, path: Path, name: str) -> None:
    (own.path / name).write_bytes(b"damaged")
    (sentence,) = archive_run(own, path).left_out
    assert sentence.startswith(f"{name} is damaged (") and sentence.endswith("), and was left out.")
    assert sorted(file.name for file in restore_run(path).path.iterdir()) == [each for each in FILES if each != name]


def test_code_in_a_checkpoint_is_not_run_when_it_is_archived(own: Run, path: Path, trap) -> None:
    torch.save({"fingerprint": trap}, own.checkpoint)
    written = archive_run(own, path)
    assert written.left_out[0].startswith("checkpoint.pt is damaged (UnpicklingError), and was left out")
    assert not trap.sprung
    torch.load(own.checkpoint, weights_only=False)["fingerprint"].close()
    assert trap.sprung, "the trap does not work"


# What is no archive of a run


def test_what_is_not_there_is_refused(path: Path, tmp_path: Path) -> None:
    assert refusal(path) == f"There is no file {path}. Check its name and folder."
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refusal(folder) == f"{folder} is a folder, and the archive of a run is a file. Name that file."
    assert refusal(path, b"") == f"{path} is empty. Get a whole copy of it, as python -m engine archive has made it."
    os.mkfifo(tmp_path / "pipe.zip")
    assert "is not a regular file" in refusal(tmp_path / "pipe.zip")
    assert refusal(tmp_path / ("x" * 300)).endswith(
        "... cannot be read (File name too long). Check its name and permissions."
    )


@pytest.mark.parametrize("content", [b"text", b"PK\x03\x04", b"\x80\x02}.", random.Random(0).randbytes(5000)])
def test_what_is_no_zip_is_refused(path: Path, content: bytes) -> None:
    assert refusal(path, content).startswith("run.zip is not a zip archive, or it is cut short")


def test_a_zip_of_something_else_is_refused(path: Path, trained: Run) -> None:
    expected = (
        "run.zip is a zip archive, but not of a run: it has no loupe-run.json. Choose a file that python -m engine "
        "archive has made."
    )
    assert refusal(path, packed({})) == expected
    assert refusal(path, packed({"cats/1.png": b"1", "dogs/2.png": b"2"})) == expected
    assert refusal(path, trained.checkpoint.read_bytes()) == expected
    assert refusal(path, packed({"run/loupe-run.json": b"{}"})) == expected


def test_an_archive_that_is_cut_short_is_refused(archived: dict[str, bytes], path: Path) -> None:
    content = path.read_bytes()
    for length in [*range(1, 100, 9), *range(100, len(content), len(content) // 20), *range(-100, 0, 9)]:
        refusal(path, content[:length])


@pytest.mark.slow
def test_an_archive_in_which_a_bit_changed_is_refused_or_does_no_harm(
    archived: dict[str, bytes], path: Path, tmp_path: Path
) -> None:
    content = path.read_bytes()
    chosen = random.Random(0)
    directory = len(content) - 1000  # of which there is little, and most is told by it
    places = [chosen.randrange(len(content)) for _ in range(15)] + [
        chosen.randrange(directory, len(content)) for _ in range(60)
    ]
    refused = 0
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            run = restore_run(path)
        except LoupeError as error:
            assert str(error).isprintable()
            refused += 1
            assert not list_runs()
            continue
        for name, expected in archived.items():
            if (run.path / name).exists():
                assert (run.path / name).read_bytes() == expected
        shutil.rmtree(run.path)
    assert refused > 15


def test_an_archive_of_a_newer_format_is_refused_in_a_sentence(archived: dict[str, bytes], path: Path) -> None:
    changed = with_manifest(archived, format=2, loupe="9.1") | {"wings.bin": b"new"}
    version = manifest_of(archived)["loupe"]
    assert refusal(path, packed(changed)) == (
        f"run.zip has the format 2, written by Loupe 9.1, and this Loupe {version} reads up to 1. Update Loupe, then "
        "restore it."
    )
    assert "written by Loupe of another version" in refusal(path, packed(with_manifest(archived, format=99, loupe=[])))


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"[" * 100_000,
        b'{"format": ' + b"[" * 100_000,
        b"{}",
        b'{"format": 1}',
        b'{"format": ' + b"9" * 5000 + b"}",
        b" " * (2 << 20) + b"{}",
    ],
)
def test_a_manifest_that_is_none_is_refused(archived: dict[str, bytes], path: Path, manifest: bytes) -> None:
    assert (
        "loupe-run.json in it" in refusal(path, packed(archived | {MANIFEST: manifest})) or b'"format": 1}' in manifest
    )


HASH = "0" * 64


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "left out"},
        {"format": "1"},
        {"format": 1.0},
        {"format": True},
        {"format": 0},
        {"format": -1},
        {"format": None},
        {"run": "left out"},
        {"run": 5},
        {"run": ""},
        {"run": "."},
        {"run": ".."},
        {"run": "../run"},
        {"run": "a/b"},
        {"run": "a\\b"},
        {"run": ".hidden"},
        {"run": "/run"},
        {"run": "run\n"},
        {"run": "run\0"},
        {"run": "x" * 241},
        {"run": ["run"]},
        {"made": "left out"},
        {"made": "now"},
        {"made": -1},
        {"made": 1e300},
        {"made": float("nan")},
        {"made": True},
        {"files": "left out"},
        {"files": []},
        {"files": {}},
        {"files": {"recipe.json": None}},
        {"files": {"recipe.json": {"bytes": "1", "sha256": HASH}}},
        {"files": {"recipe.json": {"bytes": 1.5, "sha256": HASH}}},
        {"files": {"recipe.json": {"bytes": 1}}},
        {"files": {"recipe.json": {"bytes": 1, "sha256": 5}}},
        {"files": {"recipe.json": {"bytes": -1, "sha256": HASH}}},
        {"files": {"recipe.json": [1, HASH]}},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_say_what_it_should_is_refused(
    archived: dict[str, bytes], path: Path, changes: dict
) -> None:
    assert refusal(path, packed(with_manifest(archived, **changes))).startswith("run.zip is not restored: ")


# Archives that are made to do harm

EVIL = ["../evil", "/evil", "..\\evil", "C:\\evil", "a/../../evil", "a/..", "//host/evil"]


@pytest.mark.parametrize("name", EVIL)
def test_names_that_lead_out_of_the_folder_are_refused(archived: dict[str, bytes], path: Path, name: str) -> None:
    assert "which would unpack outside its folder" in refusal(path, packed(sealed(archived | {name: b"evil"})))


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.pt",
        "lock",
        "stop",
        ".hidden",
        "evil.py",
        "a/recipe.json",
        "./recipe.json",
        "recipe.json ",
        "RECIPE.JSON",
        "predictions-other.npz",
        "predictions-../x.npz",
        "__MACOSX/._recipe.json",
        "evil\x1b[2J",
    ],
)
def test_a_file_that_is_no_part_of_a_run_is_refused_by_name(archived: dict[str, bytes], path: Path, name: str) -> None:
    for files in (archived | {name: b"evil"}, sealed(archived | {name: b"evil"})):
        message = refusal(path, packed(files))
        assert f"it holds {name.replace(chr(27), chr(92) + 'x1b')}, which is not part of a run" in message


def test_a_manifest_that_lists_a_name_that_leads_out_is_refused(archived: dict[str, bytes], path: Path) -> None:
    about = {"bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    files = manifest_of(archived)["files"] | {"../evil": about}
    assert "it holds ../evil, which is not part" in refusal(path, packed(with_manifest(archived, files=files)))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
@pytest.mark.parametrize("name", ["output.txt", "weights.safetensors", MANIFEST])
def test_links_and_special_files_are_refused(archived: dict[str, bytes], path: Path, name: str, kind: int) -> None:
    files = sealed(archived | ({} if name == MANIFEST else {name: b"/etc/passwd"}))
    with zipfile.ZipFile(path, "w") as file:
        for each, content in files.items():
            info = zipfile.ZipInfo(each)
            info.external_attr = ((kind if each == name else stat.S_IFREG) | 0o644) << 16
            file.writestr(info, content)
    assert f"{name} in it " in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["recipe.json", "weights.safetensors"])
def test_a_file_that_is_there_twice_is_refused(archived: dict[str, bytes], path: Path, name: str) -> None:
    path.write_bytes(packed(archived))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, archived[name])
    assert f"it holds {name} twice" in refusal(path)


@pytest.mark.parametrize("name", ["recipe.json", "log.jsonl", "weights.safetensors", CHECKPOINT, TENSORS])
def test_a_file_that_is_missing_is_refused(archived: dict[str, bytes], path: Path, name: str) -> None:
    assert f"{name} is missing from it" in refusal(path, packed({k: v for k, v in archived.items() if k != name}))


@pytest.mark.parametrize("name", ["recipe.json", CHECKPOINT, TENSORS])
def test_a_run_without_what_belongs_together_is_refused(archived: dict[str, bytes], path: Path, name: str) -> None:
    less = sealed({each: content for each, content in archived.items() if each != name})
    assert "does not list the files of a run" in refusal(path, packed(less))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", [*FILES[1:2], *FILES[3:], CHECKPOINT, TENSORS])
def test_a_file_that_is_not_what_was_archived_is_refused(
    archived: dict[str, bytes], path: Path, name: str, method: int
) -> None:
    content = archived[name]
    changed = archived | {name: flipped(content, len(content) // 2)}
    assert f"{name} in it is not what was archived" in refusal(path, packed(changed, method))
    shorter = archived | {name: content[:-1]}
    assert f"{name} in it has not the size that it should have" in refusal(path, packed(shorter, method))


@pytest.mark.parametrize("size", [1, 1 << 31])
def test_a_file_that_claims_another_size_than_it_unpacks_to_is_refused(
    archived: dict[str, bytes], path: Path, size: int
) -> None:
    archived["output.txt"] = bytes(50_000)
    files = manifest_of(sealed(archived))["files"]
    files["output.txt"]["bytes"] = size
    content = packed(with_manifest(archived, files=files), zipfile.ZIP_DEFLATED)
    data, records = taken_apart(content)
    place = next(number for number, record in enumerate(records) if b"output.txt" in record)
    records[place] = patched(records[place], (24, "<L"), size)
    tracemalloc.start()
    refusal(path, put_together(data, records))
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


@pytest.mark.slow
def test_a_packed_file_that_is_too_large_is_refused_unread(archived: dict[str, bytes], path: Path) -> None:
    bomb = bytes(archive.MOST_PACKED + 1)
    content = packed(sealed(archived | {"output.txt": bomb}), zipfile.ZIP_DEFLATED)
    del bomb
    tracemalloc.start()
    assert "output.txt in it cannot be had: it is too large" in refusal(path, content)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_predictions_that_unpack_to_more_than_memory_are_refused(archived: dict[str, bytes], path: Path) -> None:
    npz = archived["predictions-test.npz"]
    data, records = taken_apart(npz)
    records[2] = patched(records[2], (24, "<L"), 0xFFFFFFF0)
    records[3] = patched(records[3], (24, "<L"), 0xFFFFFFF0)
    message = refusal(path, packed(sealed(archived | {"predictions-test.npz": put_together(data, records)})))
    assert "predictions-test.npz in it cannot be used (it unpacks to 8.6 GB, and at most 4.3 GB are read)" in message


def test_predictions_whose_arrays_claim_more_than_there_is_are_refused(archived: dict[str, bytes], path: Path) -> None:
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 10)})
    arrays = unpacked_bytes(archived["predictions-test.npz"]) | {"probabilities.npy": made.getvalue() + bytes(100)}
    message = refusal(path, packed(sealed(archived | {"predictions-test.npz": packed(arrays)})))
    assert "predictions-test.npz in it cannot be used (" in message


def unpacked_bytes(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_an_encrypted_archive_is_refused(archived: dict[str, bytes], path: Path) -> None:
    assert "is encrypted" in refusal(path, with_zip_field("flags", 1, packed(archived)))


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(archived: dict[str, bytes], path: Path, method: int) -> None:
    path.write_bytes(packed({MANIFEST: archived[MANIFEST]}))
    with zipfile.ZipFile(path, "a", method) as file:
        for name, content in archived.items():
            if name != MANIFEST:
                file.writestr(name, content)
    assert "cannot be had: it is compressed with" in refusal(path)


def test_a_local_header_that_is_damaged_is_refused(archived: dict[str, bytes], path: Path) -> None:
    content = packed(archived)
    place = content.index(b"weights.safetensors") - 30
    assert content[place : place + 4] == b"PK\3\4"
    assert "its header in the archive is damaged" in refusal(path, patched(content, (place, "<L"), 0))
    assert "is not what was archived" in refusal(path, patched(content, (place + 28, "<H"), 7))


def pickled(trap) -> bytes:
    return pickle.dumps({"fingerprint": trap, "format": 3, "recipe": {}})


def torch_saved(trap) -> bytes:
    content = io.BytesIO()
    torch.save({"fingerprint": trap, "format": 3, "recipe": {}}, content)
    return content.getvalue()


def array_of(trap) -> bytes:
    content = io.BytesIO()
    np.savez(content, **dict.fromkeys(("split", "probabilities", "labels", "indices", "classes"), np.array([trap])))
    return content.getvalue()


@pytest.mark.parametrize("make", [pickled, torch_saved, array_of])
@pytest.mark.parametrize("name", ["recipe.json", "log.jsonl", "weights.safetensors", "predictions-test.npz"])
def test_code_in_an_archive_is_not_run(archived: dict[str, bytes], path: Path, trap, name: str, make: Callable) -> None:
    message = refusal(path, packed(sealed(archived | {name: make(trap)})))
    assert message.startswith(f"run.zip is not restored: {name} in it cannot be used (")
    assert "allow_pickle" not in message and "weights_only" not in message
    assert not trap.sprung


@pytest.mark.parametrize("make", [pickled, torch_saved, array_of])
def test_code_in_the_checkpoint_of_an_archive_is_not_run(
    archived: dict[str, bytes], path: Path, trap, make: Callable
) -> None:
    for name in (CHECKPOINT, TENSORS):
        message = refusal(path, packed(sealed(archived | {name: make(trap)})))
        assert message.startswith("run.zip is not restored: the checkpoint in it cannot be used (")
    assert "it holds checkpoint.pt, which" in refusal(path, packed(sealed(archived | {"checkpoint.pt": make(trap)})))
    assert not trap.sprung


def test_the_traps_work(trap) -> None:
    pickle.loads(pickled(trap))["fingerprint"].close()
    assert trap.sprung
    trap.path.unlink()
    torch.load(io.BytesIO(torch_saved(trap)), weights_only=False)["fingerprint"].close()
    assert trap.sprung
    trap.path.unlink()
    with np.load(io.BytesIO(array_of(trap)), allow_pickle=True) as arrays:
        arrays["split"][0].close()
    assert trap.sprung


# Files that are whole, but not what they should be


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("recipe.json", b"{", "Expecting"),
        ("recipe.json", b"[]", "it is not a JSON object"),
        ("recipe.json", b"[" * 100_000, ""),
        ("recipe.json", b'{"wings": 2}', "wings"),
        ("recipe.json", b'{"name": "x", "epochs": "many"}', "epochs"),
        ("log.jsonl", b"no record\n" * 9, "no line of it is a record"),
        ("log.jsonl", bytes(range(256)) * 100, "no line of it is a record"),
        ("log.jsonl", b'{"record": ' * 10_000, "no line of it is a record"),
        ("weights.safetensors", b"", ""),
        ("weights.safetensors", b"damaged", ""),
        ("weights.safetensors", struct.pack("<Q", 1 << 60) + b"{}", ""),
        ("predictions-test.npz", b"", ""),
        ("predictions-test.npz", b"damaged", "not a zip archive"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    archived: dict[str, bytes], path: Path, name: str, content: bytes, reason: str
) -> None:
    message = refusal(path, packed(sealed(archived | {name: content})))
    assert message.startswith(f"run.zip is not restored: {name} in it cannot be used (")
    assert reason in message
    assert ".restoring" not in message


def test_weights_that_are_no_models_are_refused(archived: dict[str, bytes], path: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    content = (tmp_path / "weights.safetensors").read_bytes()
    message = refusal(path, packed(sealed(archived | {"weights.safetensors": content})))
    assert "weights.safetensors in it cannot be used (its format is None, not 1)" in message


def test_predictions_under_the_name_of_another_split_are_refused(archived: dict[str, bytes], path: Path) -> None:
    changed = archived | {"predictions-test.npz": archived["predictions-val.npz"]}
    assert "(it is of another split)" in refusal(path, packed(sealed(changed)))


def without_a_tensor(document: Any) -> Any:
    return {"dict": [pair for pair in document["dict"] if pair[0] != "random"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda document: [],
        lambda document: None,
        lambda document: 5,
        lambda document: {},
        lambda document: {"dict": []},
        lambda document: {"dict": [["fingerprint"]]},
        lambda document: {"dict": 5},
        lambda document: {"dict": [[[1], 2]]},
        lambda document: document | {"more": 1},
        lambda document: {"dict": [*document["dict"], ["x", {"pickle": "gASV"}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"float": "1"}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"tuple": {}}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"tensor": "random", "order": [0, 1]}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"tensor": "random", "order": ["a", 1]}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"tensor": "no such", "order": [0]}]]},
        lambda document: {"dict": [*document["dict"], ["x", {"tensor": ["random"], "order": [0]}]]},
        without_a_tensor,
    ],
)
def test_a_checkpoint_of_another_structure_is_refused(
    archived: dict[str, bytes], path: Path, change: Callable[[Any], Any]
) -> None:
    document = json.dumps(change(json.loads(archived[CHECKPOINT]))).encode()
    message = refusal(path, packed(sealed(archived | {CHECKPOINT: document})))
    assert message.startswith("run.zip is not restored: the checkpoint in it cannot be used (")


@pytest.mark.parametrize("document", [b"", b"{", b"[" * 100_000, b'{"tuple":[' * 900 + b"]}" * 900, b"9" * 5000])
def test_a_checkpoint_that_is_no_json_is_refused(archived: dict[str, bytes], path: Path, document: bytes) -> None:
    message = refusal(path, packed(sealed(archived | {CHECKPOINT: document})))
    assert message.startswith("run.zip is not restored: the checkpoint in it cannot be used (")


# Where it is put


def test_a_run_that_is_here_already_is_not_replaced(trained: Run, archived: dict, path: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs" / trained.id
    for made in (place.mkdir, place.touch, lambda: place.symlink_to("nowhere")):
        place.parent.mkdir(exist_ok=True)
        made()
        with pytest.raises(LoupeError) as refused:
            restore_run(path)
        assert str(refused.value) == (f"The run {trained.id} is here already, and an archive replaces nothing.")
        place.rmdir() if place.is_dir() else place.unlink()
    first = restore_run(path)
    first.output.write_text("mine")
    with pytest.raises(LoupeError, match="is here already"):
        restore_run(path)
    assert first.output.read_text() == "mine"
    assert sorted(each.name for each in place.parent.iterdir()) == [".restore.lock", trained.id]


def test_a_run_that_appears_meanwhile_is_not_replaced(trained: Run, archived: dict, path: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    prepared = Path(shutil.copytree(trained.path, tmp_path / "prepared"))

    def appear() -> bool:
        restoring = any(runs.glob(".restoring-*"))
        if restoring:
            prepared.rename(runs / trained.id)
        return restoring

    with meanwhile(appear), pytest.raises(LoupeError, match="is here already"):
        restore_run(path)
    assert (runs / trained.id / "lock").exists(), "which is in no archive"
    assert sorted(each.name for each in runs.iterdir()) == [".restore.lock", trained.id]


def test_of_several_who_restore_one_run_at_once_one_does(trained: Run, archived: dict, path: Path) -> None:
    told = []

    def restore() -> None:
        try:
            told.append(restore_run(path).id)
        except LoupeError as error:
            told.append(str(error))

    threads = [threading.Thread(target=restore) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count(trained.id) == 1
    assert sum("is here already" in each for each in told) == 3
    assert sorted(file.name for file in list_runs()[0].path.iterdir()) == FILES


def test_what_a_killed_process_has_left_is_cleared_away(archived: dict, path: Path, tmp_path: Path) -> None:
    left = tmp_path / "runs" / ".restoring-1-2" / "run"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    assert not list_runs()
    restore_run(path)
    assert not left.parent.exists()


def test_nothing_is_to_be_seen_of_a_run_before_it_is_whole(archived: dict, path: Path, tmp_path: Path) -> None:
    seen, hidden = [], 0

    def look() -> bool:
        nonlocal hidden
        for run in list_runs():
            seen.append(sorted(file.name for file in run.path.iterdir()))
        hidden += not seen and any((tmp_path / "runs").glob(".restoring-*/*/*"))
        return bool(seen)

    with meanwhile(look):
        restore_run(path)
        wait_until(lambda: seen)
    assert seen == [FILES]
    assert hidden, "it was looked at before it was whole"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.7, 0.999])
def test_a_restored_run_that_the_disk_has_no_room_for_leaves_nothing(
    archived: dict, path: Path, tmp_path: Path, share: float
) -> None:
    limit = int(share * max(map(len, archived.values())))
    with files_limited_to(limit), pytest.raises(LoupeError) as refused:
        restore_run(path)
    assert str(refused.value).startswith(f"{tmp_path / 'runs'} cannot be written (File too large). ")
    assert [each.name for each in (tmp_path / "runs").iterdir()] == [".restore.lock"]
    restore_run(path)


def test_a_runs_folder_that_is_none_is_told(archived: dict, path: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(LoupeError, match=f"{tmp_path / 'runs'} cannot be written"):
        restore_run(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="as the other tests of memory")
def test_large_files_pass_through_in_pieces(own: Run, path: Path) -> None:
    size = 48 << 20
    state = read_checkpoint_file(own.checkpoint)
    state["best_weights"] = {"large": torch.arange(size // 8)}
    torch.save(state, own.checkpoint.with_name("new"))
    own.checkpoint.with_name("new").rename(own.checkpoint)
    archive_run(own, path.with_name("before.zip"))
    path.with_name("before.zip").unlink()
    tracemalloc.start()
    archive_run(own, path)
    run = restore_run(path)
    # Of what Python has in memory: of tensors there are maps of the files.
    assert tracemalloc.get_traced_memory()[1] < size / 4
    tracemalloc.stop()
    assert torch.equal(torch.load(run.checkpoint, weights_only=True)["best_weights"]["large"], torch.arange(size // 8))
    assert run.checkpoint.stat().st_size > size


def test_dates_that_are_to_come_are_not_taken(archived: dict, path: Path) -> None:
    path.write_bytes(packed(with_manifest(archived, made=time.time() + 1e6)))
    assert (restore_run(path).path / "recipe.json").stat().st_mtime < time.time()


def test_weights_of_another_network_than_the_recipe_names_are_refused(archived: dict[str, bytes], path: Path) -> None:
    recipe = json.loads(archived["recipe.json"]) | {"model": "mlp"}
    message = refusal(path, packed(sealed(archived | {"recipe.json": json.dumps(recipe).encode()})))
    assert "its weights are of convnet, but its recipe is of mlp" in message
