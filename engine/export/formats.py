"""The files that a model is written to: an ONNX graph, a torch.export program, and its bare weights."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from engine.base.errors import LoupeError
from engine.base.machine import is_out_of_memory
from engine.base.text import format_bytes, printable
from engine.export.portable import example_of, load_portable, metadata_of
from engine.networks.model_file import load_model, load_preprocessing
from engine.runs.run import Run

OPSET = 20
INPUT, OUTPUT = "images", "probabilities"
ROWS = "rows"
# Protocol buffers, which ONNX files are, hold no more.
MOST_OF_ONNX = 2_000_000_000


def write_onnx(run: Run, path: Path) -> None:
    """Write a run's model as one ONNX file, for onnxruntime on any system."""
    size = run.weights.stat().st_size
    if size > MOST_OF_ONNX:
        raise LoupeError(
            f"The weights of {run.id} take {format_bytes(size)}, and one ONNX file holds 2 GB. "
            "Export it with --format torch."
        )
    preprocessing = load_preprocessing(run.weights)
    portable = load_portable(run)
    example, sizes = example_of(portable, preprocessing)
    with _exporting(run, "as ONNX"):
        program: Any = torch.onnx.export(
            portable,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT if preprocessing.is_of_images else ROWS],
            output_names=[OUTPUT],
            dynamic_shapes=sizes,
            verbose=False,
        )
        program.model.metadata_props.update(metadata_of(run, preprocessing))
        program.save(path, external_data=False)


def write_program(run: Run, path: Path) -> None:
    """Write a run's model as a program of torch.export, with the same signature."""
    preprocessing = load_preprocessing(run.weights)
    portable = load_portable(run)
    example, sizes = example_of(portable, preprocessing)
    about, content = {"loupe.json": json.dumps(metadata_of(run, preprocessing))}, io.BytesIO()
    with _exporting(run, "with torch.export"):
        torch.export.save(torch.export.export(portable, example, dynamic_shapes=sizes), content, extra_files=about)
    # Not by torch itself, which on a full disk ends the whole process.
    path.write_bytes(content.getbuffer())


def write_weights(run: Run, folder: Path) -> None:
    """Write a run's weights, by the names of the network's own modules, and what is needed to use them as JSON."""
    recipe = run.read_recipe()
    model, preprocessing = load_model(run.weights)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    (folder / "weights.safetensors").write_bytes(save(weights))
    about = {
        "run": run.id,
        "model": recipe.model,
        "head": recipe.head,
        "classes": list(preprocessing.classes),
        "preprocessing": {name: value for name, value in preprocessing.as_dict().items() if name != "classes"},
    }
    (folder / "weights.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _exporting(run: Run, how: str) -> Iterator[None]:
    """Turn what the exporters raise into a sentence, and keep to ourselves what they print, log and warn of."""
    unheard, disabled = io.StringIO(), logging.root.manager.disable
    try:
        logging.disable()
        with warnings.catch_warnings(), contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever an operation that they do not know leads to
        if is_out_of_memory(error) or isinstance(error, OSError):
            raise
        first: BaseException = error
        while first.__cause__:
            first = first.__cause__
        reason = (str(first).strip() or type(first).__name__).splitlines()[0].rstrip(".")
        raise LoupeError(
            f"The model {run.read_recipe().model} cannot be exported {how} ({printable(reason)}). Try the other "
            "format, or another version of torch."
        ) from error
    finally:
        logging.disable(disabled)
