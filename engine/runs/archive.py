"""A run as one file: written on one machine, brought into the Loupe of another. Nothing in it is ever executed."""

import hashlib
import json
import math
import os
import shutil
import stat
import struct
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from engine.base.errors import LoupeError, reason_of
from engine.base.machine import is_out_of_memory
from engine.base.paths import PROJECT_ROOT, replacing_file, runs_root, writing_file, writing_folder
from engine.base.text import SPLIT_NAMES, format_bytes, printable
from engine.base.zips import STORED, DamagedEntry, Entry, entries, read_entry
from engine.evaluation.predictions import load_predictions
from engine.runs.records import from_line
from engine.runs.run import ACTIVE, ID_PATTERN, LAUNCH_SECONDS, Run

FORMAT = 1
MANIFEST = "loupe-run.json"
CHECKPOINT, TENSORS = "checkpoint.json", "checkpoint.safetensors"
# Text is compressed up to this size, and unpacked in memory. All else, which compression hardly makes smaller, is
# stored, and copied a piece at a time.
MOST_PACKED = 64 << 20
PIECE = 1 << 20
# Those that are deleted are renamed first, and a name has room for 255 bytes.
LONGEST_ID = 240
# Predictions are compressed in themselves, and loaded whole.
MOST_PREDICTIONS = 4 << 30
WHOLE_COPY = "Get a whole copy of it, as python -m engine archive has made it"


@dataclass(frozen=True)
class Archived:
    """An archive as it was written. left_out: a sentence on each file that was damaged, and is not in it."""

    path: Path
    bytes: int
    files: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Manifest:
    """What an archive says that it holds. made: seconds since 1970. files: size and SHA-256 by name."""

    run: str
    made: float
    files: dict[str, tuple[int, str]]


# Writing


def archive_run(run: Run, path: Path) -> Archived:
    """Write a run to one file. A damaged file of it is left out; without a recipe there is nothing to archive."""
    check_target(path)
    _require_rest(run)
    run.read_recipe()  # raises for a damaged one, without which none could use the rest
    if not _is_id(run.id):
        raise LoupeError(
            f"The name of the run {printable(run.id)} is too long for an archive. Rename its folder first."
        )
    log_size = _size(run.log)
    files: dict[str, dict] = {}
    left_out: list[str] = []
    with writing_file(path), replacing_file(path) as beside:
        with zipfile.ZipFile(beside, "w") as archive:
            for name, check in CHECKS.items():
                file = run.path / name
                if not file.is_file():
                    continue
                if reason := _complaint(check, run):
                    left_out.append(f"{name} is damaged ({reason}), and was left out.")
                    continue
                files[name] = _add(archive, name, _read(file), _size(file))
            if run.checkpoint.is_file():
                try:
                    files |= _add_checkpoint(archive, run)
                except _NotPlainError as error:
                    left_out.append(
                        f"checkpoint.pt is damaged ({error}), and was left out: from this archive the run cannot be "
                        "trained further."
                    )
            manifest = {
                "format": FORMAT,
                "loupe": _version(),
                "run": run.id,
                "archived": datetime.now().astimezone().isoformat(timespec="seconds"),
                "made": round(run.made.timestamp(), 3),
                "files": files,
            }
            content = json.dumps(manifest, indent=1).encode()
            _add(archive, MANIFEST, [content], len(content))
        check_target(path)
        _require_rest(run)
        if _size(run.log) != log_size:
            raise LoupeError(f"The run {run.id} went on while it was archived. Wait for its end, then archive it.")
    return Archived(path, path.stat().st_size, tuple(files), tuple(left_out))


def check_target(path: Path) -> None:
    """Raise LoupeError for a path that no archive is to be written to."""
    place = printable(str(path))
    if path.suffix.lower() != ".zip":
        raise LoupeError(f"An archive is a zip, and {place} does not end in .zip. Give it such a name.")
    with writing_file(path):
        if path.is_symlink() or path.exists():
            raise LoupeError(f"{place} is there already, and an archive replaces nothing. Choose another name.")
        if not path.parent.is_dir():
            raise LoupeError(
                f"There is no folder {printable(str(path.parent))} to write the archive to. Make it first."
            )


def _require_rest(run: Run) -> None:
    if run.status() in ACTIVE:
        raise LoupeError(f"The run {run.id} is still going on. Wait for its end, or stop it, then archive it.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _version() -> str:
    return tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"]


def _add(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes | memoryview], size: int) -> dict:
    """Write a file of an archive; returns its line of the manifest."""
    info = zipfile.ZipInfo(name, time.localtime()[:6])
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size  # by which its header gets room for more than 32 bits
    is_text = name.endswith((".json", ".jsonl", ".txt"))
    info.compress_type = zipfile.ZIP_DEFLATED if is_text and size <= MOST_PACKED else zipfile.ZIP_STORED
    digest, written = hashlib.sha256(), 0
    with archive.open(info, "w") as file:
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE]
                digest.update(part)
                written += file.write(part)
    return {"bytes": written, "sha256": digest.hexdigest()}


class _NotPlainError(Exception):
    """A checkpoint cannot be read as data, or holds more than plain values."""


def _add_checkpoint(archive: zipfile.ZipFile, run: Run) -> dict[str, dict]:
    from engine.runs.checkpoint_file import flatten_state, read_checkpoint_file, tensor_file

    try:
        tensors, rest = flatten_state(read_checkpoint_file(run.checkpoint))
        document = json.dumps(rest, allow_nan=False).encode()
    except Exception as error:  # torch raises whatever the damage leads to
        if is_out_of_memory(error):
            raise
        # torch would say how to run what is in it.
        raise _NotPlainError(type(error).__name__) from error
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {
        CHECKPOINT: _add(archive, CHECKPOINT, [document], len(document)),
        TENSORS: _add(archive, TENSORS, tensor_file(tensors), size),
    }


# Reading


def restore_run(path: Path) -> Run:
    """Bring in a run from its archive, whole and checked or not at all. A run of its name is never replaced."""
    manifest, listing = _look_at(path)
    root = runs_root()
    with writing_folder(root):
        root.mkdir(parents=True, exist_ok=True)
        # One at a time: what another has left is then nobody's, and two of one run do not meet.
        with FileLock(root / ".restore.lock"):
            for left in root.glob(".restoring-*"):
                shutil.rmtree(left, ignore_errors=True)
            place = root / manifest.run
            if place.is_symlink() or place.exists():
                raise _taken(manifest.run)
            hidden = root / f".restoring-{os.getpid()}-{threading.get_ident()}"
            # Under its own name, which messages are to say.
            staged = Run(hidden / manifest.run)
            staged.path.mkdir(parents=True)
            try:
                _unpack(path, manifest, listing, staged)
                _check(path, manifest, staged)
                _date(staged, manifest.made)
                try:
                    staged.path.rename(place)
                except OSError as error:
                    if place.exists():
                        raise _taken(manifest.run) from error
                    raise
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
    return Run(place)


def _taken(name: str) -> LoupeError:
    return LoupeError(f"The run {name} is here already, and an archive replaces nothing.")


def _refusal(path: Path, reason: str) -> LoupeError:
    return LoupeError(f"{printable(path.name)} is not restored: {reason}. {WHOLE_COPY}.")


def _look_at(path: Path) -> tuple[_Manifest, dict[str, Entry]]:
    """Read what an archive says that it holds, and hold it against the names and sizes of what is in it."""
    place = printable(str(path))
    try:
        if path.is_dir():
            raise LoupeError(f"{place} is a folder, and the archive of a run is a file. Name that file.")
        if not path.exists():
            raise LoupeError(f"There is no file {place}. Check its name and folder.")
        if not path.is_file():  # a pipe would be waited for without end
            raise LoupeError(f"{place} is not a regular file. Name the archive of a run.")
        if not path.stat().st_size:
            raise LoupeError(f"{place} is empty. {WHOLE_COPY}.")
    except (OSError, ValueError) as error:
        if isinstance(error, LoupeError):
            raise
        reason = error.strerror if isinstance(error, OSError) else reason_of(error)
        raise LoupeError(f"{place} cannot be read ({reason}). Check its name and permissions.") from error
    found = next((entry for entry in entries(path) if entry.name == MANIFEST), None)
    if found is None:
        raise LoupeError(
            f"{printable(path.name)} is a zip archive, but not of a run: it has no {MANIFEST}. Choose a file that "
            "python -m engine archive has made."
        )
    manifest = _read_manifest(path, found)
    listing: dict[str, Entry] = {}
    for entry in entries(path):
        if entry.name != MANIFEST and entry.name not in manifest.files:
            raise _refusal(path, f"it holds {printable(entry.name)}, which is not part of a run")
        if entry.name in listing:
            raise _refusal(path, f"it holds {entry.name} twice")
        if entry.kind not in (0, stat.S_IFREG):
            raise _refusal(path, f"{entry.name} in it is a link, or another special file")
        if entry.name in manifest.files and entry.size != manifest.files[entry.name][0]:
            raise _refusal(path, f"{entry.name} in it has not the size that it should have")
        listing[entry.name] = entry
    if missing := manifest.files.keys() - listing.keys():
        raise _refusal(path, f"{min(missing)} is missing from it")
    return manifest, listing


def _read_manifest(path: Path, entry: Entry) -> _Manifest:
    try:
        with path.open("rb", buffering=0) as file:
            values = json.loads(read_entry(file, entry, PIECE))
    except (DamagedEntry, OSError, ValueError, RecursionError) as error:
        if isinstance(error, LoupeError):
            raise
        raise _refusal(path, f"{MANIFEST} in it cannot be read") from error
    number = values.get("format") if isinstance(values, dict) else None
    if type(number) is not int or number < 1:
        raise _refusal(path, f"{MANIFEST} in it does not say its format")
    if number > FORMAT:
        by = values.get("loupe")
        raise LoupeError(
            f"{printable(path.name)} has the format {printable(str(number)[:20])}, written by Loupe "
            f"{printable(by) if isinstance(by, str) else 'of another version'}, and this Loupe {_version()} reads up "
            f"to {FORMAT}. Update Loupe, then restore it."
        )
    name, made, files = values.get("run"), values.get("made"), values.get("files")
    if not isinstance(name, str) or not _is_id(name):
        raise _refusal(path, "its name of the run is none that a run can have")
    if type(made) not in (int, float) or not 0 <= made < 1 << 40:  # nor what is no number
        raise _refusal(path, f"{MANIFEST} in it does not say when the run was made")
    known = (*CHECKS, CHECKPOINT, TENSORS)
    if not isinstance(files, dict) or "recipe.json" not in files or (CHECKPOINT in files) != (TENSORS in files):
        raise _refusal(path, f"{MANIFEST} in it does not list the files of a run")
    listed: dict[str, tuple[int, str]] = {}
    for file, about in files.items():
        if file not in known:
            raise _refusal(path, f"it holds {printable(file)}, which is not part of a run")
        match about:
            case {"bytes": int(size), "sha256": str(digest)}:
                listed[file] = size, digest
            case _:
                raise _refusal(path, f"{MANIFEST} in it does not say the size and SHA-256 of {file}")
    return _Manifest(name, float(made), listed)


def _is_id(name: str) -> bool:
    return len(name) <= LONGEST_ID and ID_PATTERN.fullmatch(name) is not None


def _unpack(path: Path, manifest: _Manifest, listing: dict[str, Entry], run: Run) -> None:
    """Write the files of an archive into a run's folder, each of them as it was when it was archived."""
    for name, (size, expected) in manifest.files.items():
        digest, written = hashlib.sha256(), 0
        with (run.path / name).open("xb") as file:
            for piece in _pieces(path, listing[name]):
                digest.update(piece)
                written += file.write(piece)
        if written != size or digest.hexdigest() != expected:
            raise _refusal(path, f"{name} in it is not what was archived")


def _pieces(path: Path, entry: Entry) -> Iterator[bytes]:
    """Read a file of an archive: what is stored a piece at a time, what is packed as a whole."""
    try:
        with path.open("rb", buffering=0) as archive:
            if entry.method == STORED:
                yield from _stored(archive, entry)
            else:
                yield read_entry(archive, entry, MOST_PACKED)
    except DamagedEntry as error:
        reason = _first_sentence(str(error))
        raise _refusal(path, f"{entry.name} in it cannot be had: {reason[0].lower()}{reason[1:]}") from None
    except OSError as error:
        raise LoupeError(f"{printable(path.name)} cannot be read ({reason_of(error)}). {WHOLE_COPY}.") from error


def _stored(archive: BinaryIO, entry: Entry) -> Iterator[bytes]:
    # 4.3.7 of PKWARE's APPNOTE.TXT: the local header ends with the lengths of the name and of an extra field.
    archive.seek(entry.offset)
    header = archive.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise DamagedEntry("its header in the archive is damaged")
    archive.seek(sum(struct.unpack_from("<2H", header, 26)), os.SEEK_CUR)
    left = entry.compressed
    while left and (piece := archive.read(min(left, PIECE))):
        left -= len(piece)
        yield piece


def _check(path: Path, manifest: _Manifest, run: Run) -> None:
    """Look whether all files are what a run has, and make the checkpoint of what came in its place."""
    for name, check in CHECKS.items():
        if name in manifest.files and (reason := _complaint(check, run)):
            raise _refusal(path, f"{name} in it cannot be used ({reason})")
    if CHECKPOINT in manifest.files and (reason := _complaint(_build_checkpoint, run)):
        raise _refusal(path, f"the checkpoint in it cannot be used ({reason})")


def _complaint(check: Callable[[Run], object], run: Run) -> str:
    """Say in a few words why a file of a run cannot be used; nothing if it can."""
    try:
        check(run)
    except Exception as error:  # whatever the damage leads to
        if is_out_of_memory(error) or isinstance(error, OSError):
            raise
        # Ours would go on to say what to do with a run that is here.
        cause = error.__cause__ if isinstance(error, LoupeError) and error.__cause__ else error
        # NumPy would say how to run what is in it.
        return "it holds more than data" if "pickle" in str(cause) else printable(_first_sentence(reason_of(cause)))
    return ""


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _check_log(run: Run) -> None:
    with run.log.open("rb") as log:
        if _size(run.log) and not any(from_line(line) for line in log):
            raise ValueError("no line of it is a record")


def _check_weights(run: Run) -> None:
    from engine.networks.model_file import load_preprocessing, network_of

    load_preprocessing(run.weights)
    network, model = network_of(run.weights), run.read_recipe().model
    if network != model:
        raise ValueError(f"its weights are of {printable(network)}, but its recipe is of {model}")


def _check_predictions(run: Run, split: str) -> None:
    unpacked = sum(entry.size for entry in entries(run.predictions(split)))
    if unpacked > MOST_PREDICTIONS:
        raise ValueError(
            f"it unpacks to {format_bytes(unpacked)}, and at most {format_bytes(MOST_PREDICTIONS)} are read"
        )
    if load_predictions(run.predictions(split)).split != split:
        raise ValueError("it is of another split")


def _build_checkpoint(run: Run) -> None:
    import torch

    from engine.runs.checkpoint_file import read_tensor_file, unflatten_state

    document, tensors = run.path / CHECKPOINT, run.path / TENSORS
    try:
        values = json.loads(document.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{CHECKPOINT} is not JSON, or nested too deep") from None
    state: Any = unflatten_state(read_tensor_file(tensors), values)
    with run.checkpoint.open("xb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, about the file that a failed write has left too short
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    document.unlink()
    tensors.unlink()


def _date(run: Run, made: float) -> None:
    """Date a run as it was: a fresh one without a log would be taken for one that is starting."""
    made = min(made, math.floor(time.time()) - LAUNCH_SECONDS)
    for path in (run.path / "recipe.json", run.path):
        os.utime(path, (made, made))


# What there is of a run besides its checkpoint, and how to tell whether it is what it should be.
CHECKS: dict[str, Callable[[Run], object]] = {
    "recipe.json": Run.read_recipe,
    "log.jsonl": _check_log,
    "output.txt": lambda run: None,
    "weights.safetensors": _check_weights,
    **{f"predictions-{split}.npz": partial(_check_predictions, split=split) for split in SPLIT_NAMES},
}
