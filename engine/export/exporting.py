"""Taking a run's model away: one file, or a folder with all that is needed to use it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import LoupeError
from engine.base.paths import writing_file
from engine.base.text import join_words, printable
from engine.runs.run import Run

# The files of each format in a folder; the first is the one that is written where a file is named.
FORMATS = {
    "onnx": ("model.onnx", "predict.py", "MODEL_CARD.md"),
    "torch": ("model.pt2", "weights.safetensors", "weights.json", "predict.py", "MODEL_CARD.md"),
    "script": ("train.py",),
}


@dataclass(frozen=True)
class Export:
    """What was exported: the files that were written; proof: as in ``engine.export.proof``, None of a script."""

    files: tuple[Path, ...]
    proof: Any = None

    def as_document(self) -> dict[str, Any]:
        return {"files": [str(file) for file in self.files], "proof": asdict(self.proof) if self.proof else None}


def check_target(path: Path, format: str) -> None:
    """Raise LoupeError for a place that an export cannot be written to, or where something is already."""
    if "\0" in str(path):
        raise LoupeError("The name of the export has a null character in it. Choose another.")
    suffix = Path(FORMATS[format][0]).suffix
    with writing_file(path):
        if not path.parent.is_dir():
            raise LoupeError(f"There is no folder {printable(str(path.parent))} to export to. Make it first.")
        if path.is_dir():
            there = [name for name in FORMATS[format] if os.path.lexists(path / name)]
            if there:
                raise LoupeError(
                    f"{printable(str(path))} has {join_words(there)} in it already, and nothing is overwritten. "
                    "Name a new folder."
                )
        elif os.path.lexists(path):
            raise LoupeError(
                f"{printable(str(path))} is there already, and nothing is overwritten. Choose another name."
            )
        elif path.suffix and path.suffix.lower() != suffix:
            raise LoupeError(
                f"{printable(path.name)} ends in {printable(path.suffix)}, but a file of the format {format} ends in "
                f"{suffix}. Name such a file; or a folder, without a dot in its name, for all that is needed to use it."
            )


def export(run: Run, format: str, path: Path) -> Generator[str, None, Export]:
    """Export a run, yielding what is being done in words. A path with a suffix becomes that file, another a folder.

    An exported model is proved before it is there: nothing is kept of one that answers otherwise than the run.
    """
    check_target(path, format)
    if not run.weights.exists() and format != "script":
        raise LoupeError(
            f"The run {run.id} has no weights: it did not get as far as saving a model. Choose another run."
        )
    one_file = bool(path.suffix) and not path.is_dir()
    proof = None
    with writing_file(path), tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as beside:
        made = Path(beside)
        if format == "script":
            from engine.export.script import script_of

            yield "writing the script"
            (made / FORMATS[format][0]).write_text(script_of(run), encoding="utf-8")
        else:
            proof = yield from _make_model(run, format, made, one_file)
        names = FORMATS[format][:1] if one_file else FORMATS[format]
        files = [path] if one_file else [path / name for name in names]
        with ExitStack() as undone:
            if not one_file and not path.is_dir():
                path.mkdir()
                undone.callback(path.rmdir)
            for name, file in zip(names, files, strict=True):
                _put(made / name, file)
                undone.callback(file.unlink)
            undone.pop_all()
    return Export(tuple(files), proof)


def _make_model(run: Run, format: str, folder: Path, alone: bool) -> Generator[str, None, Any]:
    """Make the files of a model in a folder and prove it; alone: no more than the model's own file."""
    from engine.export.card import model_card
    from engine.export.formats import write_onnx, write_program, write_weights
    from engine.export.proof import prove
    from engine.export.standalone import predict_program
    from engine.networks.model_file import load_preprocessing

    write: Callable[[Run, Path], None] = {"onnx": write_onnx, "torch": write_program}[format]
    model = folder / FORMATS[format][0]
    yield f"writing {model.name}"
    write(run, model)
    yield "proving it in a process without Loupe"
    proof = prove(run, model)
    if not alone:
        if format == "torch":
            write_weights(run, folder)
        program = predict_program(model.name, load_preprocessing(run.weights))
        (folder / "predict.py").write_text(program, encoding="utf-8")
        (folder / "MODEL_CARD.md").write_text(model_card(run, model.name, proof), encoding="utf-8")
    return proof


def _put(made: Path, file: Path) -> None:
    """Move a file to its place, unless something is there by now."""
    try:
        os.link(made, file)  # unlike a rename, it never replaces
    except FileExistsError:
        raise LoupeError(
            f"{printable(str(file))} has come to be there in the meantime, and nothing is overwritten."
        ) from None
    except OSError:  # a file system without links
        with ExitStack() as undone, file.open("xb") as written, made.open("rb") as source:
            undone.callback(file.unlink)
            shutil.copyfileobj(source, written)
            undone.pop_all()
