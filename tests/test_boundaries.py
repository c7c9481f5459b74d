"""What imports what: the engine knows nothing of the pages, and nobody waits for torch before they need it."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from engine.base.paths import PROJECT_ROOT

SLOW = ("torch", "torchvision", "sklearn", "scipy", "pandas", "pyarrow")
LIGHT = [
    "engine.data.catalogue",
    "engine.data.dataset",
    "engine.recipes.recipe",
    "engine.runs.records",
    "engine.runs.log",
    "engine.runs.run",
    "engine.evaluation.predictions",
    "engine.evaluation.metrics",
    "engine.evaluation.selection",
    "engine.evaluation.summary",
    "engine.evaluation.calibration",
    "engine.evaluation.comparison",
    "engine.export.report",
    "engine.recipes.backbones",
    "engine.advice.doctor",
    "engine.inference.embedding",
    "engine.images.pictures",
    "engine.training.worker",
    "engine.importing.plan",
    "engine.importing.write",
    "engine.importing.import_job",
    "engine.audit.inspection",
    "engine.data.statistics",
    "engine.data.source_files",
    "engine.base.machine",
    "engine.images.pixels",
    "engine.images.ink",
    "engine.runs.archive",
    "engine.inference.classify_job",
    "engine.export.exporting",
    "engine.export.kept",
    "engine.__main__",
]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources(*places: str) -> list[Path]:
    return [file for place in places for file in sorted(PROJECT_ROOT.glob(place))]


ENGINE = [module_name(file) for file in sources("engine/**/*.py")]
PAGES = sources("streamlit_app.py", "ui/**/*.py", "pages/**/*.py")


def imported_by(modules: list[str], roots: tuple[str, ...]) -> list[str]:
    """Import modules in a fresh interpreter and list which of some packages came with them."""
    code = f"import {', '.join(modules)}, sys; print(*sorted(set(sys.modules) & {set(roots)}))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_the_engine_never_imports_streamlit():
    assert len(ENGINE) > 15
    # With torch, which the engine does need: proof that the look is at what was imported.
    assert imported_by(ENGINE, ("streamlit", "ui", "pages", "torch")) == ["torch"]


def test_what_pages_and_command_line_start_with_imports_nothing_slow():
    assert imported_by(LIGHT, SLOW) == []


@cache
def imports(file: Path) -> frozenset[str]:
    """List what a file imports when it is imported itself: not in functions, nor for type checkers alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text(), str(file))]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                waiting += node.orelse
                continue
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return frozenset(found)


def way_to_torch(file: Path, seen: frozenset[str] = frozenset()) -> list[str]:
    """Follow the imports of a file through our own modules; return the chain that ends at torch, if there is one."""
    for name in sorted(imports(file)):
        if name.split(".")[0] in ("torch", "torchvision"):
            return [module_name(file), name]
        ours = PROJECT_ROOT / f"{name.replace('.', '/')}.py"
        if ours.is_file() and name not in seen:
            chain = way_to_torch(ours, seen | {name})
            if chain:
                return [module_name(file), *chain]
    return []


@pytest.mark.parametrize("file", PAGES, ids=module_name)
def test_no_page_imports_torch_at_module_level(file):
    assert way_to_torch(file) == []


@pytest.mark.parametrize("file", sources("engine/**/*.py"), ids=module_name)
def test_no_file_of_the_engine_names_the_pages(file):
    assert not [name for name in imports(file) if name.split(".")[0] in ("streamlit", "ui", "pages")]


def test_the_way_to_torch_is_found():
    assert way_to_torch(PROJECT_ROOT / "engine/inference/classifier.py")
    assert way_to_torch(PROJECT_ROOT / "engine/training/worker.py") == []
