"""``predict.py``: a program that classifies with an exported model, and needs nothing of Loupe."""

import ast
import inspect
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from engine.base.text import format_probability
from engine.images import ink, jpeg, pixels
from engine.networks.preprocessing import Preprocessing


def predict_program(model: str, preprocessing: Preprocessing) -> str:
    """Write the program for a model's file, an .onnx or a .pt2, that is to lie beside it."""
    onnx = model.endswith(".onnx")
    of_images, of_ink = preprocessing.is_of_images, preprocessing.ink is not None
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in _modules(of_images, of_ink)]
    runtime = "onnxruntime" if onnx else "torch"
    own = ["argparse", "json", "sys", "warnings", "numpy as np", runtime, *(["contextlib", "io"] if of_images else [])]
    imported = [*(f"import {module}" for module in own), "from pathlib import Path", *sources]
    return (
        templates()
        .get_template("predict.py.jinja")
        .render(
            model=model,
            onnx=onnx,
            of_images=of_images,
            of_ink=of_ink,
            features=preprocessing.shape[0],
            items="pictures" if of_images else "rows of numbers",
            packages=[runtime, "numpy", *(["pillow"] if of_images else [])],
            format_probability=inspect.getsource(format_probability),
            imports=merged_imports(imported),
            helpers="\n\n".join(without_imports(source) for source in sources),
        )
    )


def _modules(of_images: bool, of_ink: bool):
    # Their very text: so it cannot come to differ from what Loupe does.
    return ([jpeg, pixels] if of_images else []) + ([ink] if of_ink else [])


@cache
def templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def without_imports(source: str) -> str:
    """Return what comes after a module's docstring and its imports."""
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(source.splitlines()[imports[-1].end_lineno :]).strip("\n") + "\n"


def merged_imports(sources: list[str]) -> str:
    """Write the imports of several modules once each, those of the standard library first."""
    modules: set[tuple[str, str | None]] = set()
    names: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import):
                modules |= {(alias.name, alias.asname) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names[node.module] |= {alias.name for alias in node.names}
    lines = [(module, f"import {module}" + (f" as {known}" if known else "")) for module, known in modules]
    blocks = []
    for standard in (True, False):
        plain = sorted(line for module, line in lines if _is_standard(module) == standard)
        some = sorted(
            f"from {module} import {', '.join(sorted(found))}"
            for module, found in names.items()
            if _is_standard(module) == standard
        )
        blocks.append("\n".join(plain + some))
    return "\n\n".join(blocks)


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
