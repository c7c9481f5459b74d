"""What imports what: the engine's packages in their order, no page in the engine, and torch only where it is needed."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from engine.base.paths import PROJECT_ROOT

# A package imports from itself and from those below it, functions' own imports included.
PACKAGES = (
    "commands",
    "export",
    "advice",
    "training",
    "inference",
    "runs",
    "importing",
    "networks",
    "images",
    "evaluation",
    "audit",
    "data",
    "recipes",
    "base",
)
MOST_AT_THE_TOP = 20
SLOW = ("torch", "torchvision", "sklearn", "scipy", "pandas", "pyarrow")
# What pages and the command line start with: with these, nothing slow may come.
LIGHT = (
    "engine.__main__",
    "engine.advice.advice_job",
    "engine.advice.doctor",
    "engine.audit.inspection",
    "engine.base.machine",
    "engine.data.catalogue",
    "engine.data.dataset",
    "engine.data.download_job",
    "engine.data.source_files",
    "engine.data.statistics",
    "engine.evaluation.calibration",
    "engine.evaluation.comparison",
    "engine.evaluation.metrics",
    "engine.evaluation.predictions",
    "engine.evaluation.selection",
    "engine.evaluation.summary",
    "engine.export.exporting",
    "engine.export.export_job",
    "engine.export.report",
    "engine.images.ink",
    "engine.images.pictures",
    "engine.images.pixels",
    "engine.importing.import_job",
    "engine.importing.plan",
    "engine.importing.write",
    "engine.inference.classify_job",
    "engine.inference.embedding",
    "engine.recipes.backbones",
    "engine.recipes.recipe",
    "engine.runs.archive",
    "engine.runs.log",
    "engine.runs.records",
    "engine.runs.run",
    "engine.training.measurements",
    "engine.training.worker",
)


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources(*places: str) -> list[Path]:
    return [file for place in places for file in sorted(PROJECT_ROOT.glob(place))]


ENGINE = {module_name(file): file for file in sources("engine/**/*.py")}
PAGES = sources("streamlit_app.py", "ui/**/*.py", "pages/**/*.py")


def imported_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that import statements name, and with ``from``, the names as well: these may be modules."""
    for node in nodes:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                raise AssertionError(f"a relative import in line {node.lineno}: write the whole name")


@cache
def every_import(file: Path) -> frozenset[str]:
    """List what a file imports anywhere: in functions and for type checkers too."""
    return frozenset(imported_names(ast.walk(ast.parse(file.read_text(), str(file)))))


@cache
def imports_on_import(file: Path) -> frozenset[str]:
    """List what a file imports when it is imported itself: not in functions, nor for type checkers alone."""

    def executed(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                parts: Iterable[ast.AST] = node.orelse
            case _:
                parts = ast.iter_child_nodes(node)
        for part in parts:
            yield from executed(part)

    return frozenset(imported_names(executed(ast.parse(file.read_text(), str(file)))))


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_allowed(importer: str, imported: str) -> bool:
    """Tell whether the table lets one of the engine's modules import another; ``__main__`` may import anything."""
    above, below = package_of(importer), package_of(imported)
    if above not in PACKAGES or below not in PACKAGES:
        return above == "__main__" and below in PACKAGES
    return PACKAGES.index(above) <= PACKAGES.index(below)


@pytest.mark.slow
def test_a_package_imports_only_from_those_below_it():
    tops = sorted({package_of(module) for module in ENGINE} - {""})
    print(f"{len(tops)} packages and modules at the top of engine/: {', '.join(tops)}")
    offenders = [
        f"{importer} imports {imported}"
        for importer, file in ENGINE.items()
        for imported in sorted(every_import(file) & ENGINE.keys())
        if not is_allowed(importer, imported)
    ]
    assert offenders == []
    assert len(ENGINE) > 60
    assert len(tops) <= MOST_AT_THE_TOP


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the names of a circle, the first at the end again; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.slow
def test_there_is_no_circle():
    graph = {module: set(every_import(file) & ENGINE.keys()) - {module} for module, file in ENGINE.items()}
    assert circle(graph) == []


def test_offenders_and_circles_would_be_found():
    assert is_allowed("engine.training.loop", "engine.base.text")
    assert not is_allowed("engine.base.text", "engine.training.loop")
    assert not is_allowed("engine.data.dataset", "engine.somewhere")
    assert [set(pair) for pair in pairwise(circle({"a": {"b"}, "b": {"a"}}))] == [{"a", "b"}] * 2
    late = ast.parse("def f():\n    from engine.training import loop")
    assert set(imported_names(ast.walk(late))) == {"engine.training", "engine.training.loop"}


def imported_by(modules: Iterable[str], roots: tuple[str, ...]) -> list[str]:
    """Import modules in a fresh interpreter and list which of some packages came with them."""
    code = f"import {', '.join(modules)}, sys; print(*sorted(set(sys.modules) & {set(roots)}))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.processes
def test_the_engine_never_imports_the_pages():
    roots = ("streamlit", "ui", "pages")
    offenders = [
        module for module, file in ENGINE.items() for name in every_import(file) if name.split(".")[0] in roots
    ]
    assert offenders == []
    # With torch, which the engine does need: proof that the look is at what was imported.
    assert imported_by(ENGINE, (*roots, "torch")) == ["torch"]


@pytest.mark.processes
def test_what_pages_and_command_line_start_with_imports_nothing_slow():
    assert imported_by(LIGHT, SLOW) == []


def way_to_torch(file: Path, seen: frozenset[str] = frozenset()) -> list[str]:
    """Follow the imports of a file through our own modules; return the chain that ends at torch, if there is one."""
    for name in sorted(imports_on_import(file)):
        if name.split(".")[0] in ("torch", "torchvision"):
            return [module_name(file), name]
        ours = PROJECT_ROOT / f"{name.replace('.', '/')}.py"
        if ours.is_file() and name not in seen:
            chain = way_to_torch(ours, seen | {name})
            if chain:
                return [module_name(file), *chain]
    return []


def test_no_page_imports_torch_at_module_level():
    assert [chain for file in PAGES if (chain := way_to_torch(file))] == []


@pytest.mark.parametrize(
    ("module", "finds"), [("engine.inference.classifier", True), ("engine.training.worker", False)]
)
def test_the_way_to_torch_is_found(module: str, finds: bool):
    assert bool(way_to_torch(ENGINE[module])) == finds


# In programs that tests execute as well, which are strings.
IMPORT_OF_A_TEST_MODULE = re.compile(r"^[ \t]*(?:from|import)[ \t](?:.*[ .,])?test_\w+", re.MULTILINE)


def test_no_test_module_imports_another():
    assert IMPORT_OF_A_TEST_MODULE.search("import a\n    from data.test_splits import CLASSES")
    assert IMPORT_OF_A_TEST_MODULE.search("from data import test_splits")
    files = sources("tests/**/*.py")
    offenders = [
        f"{module_name(file)}: {found[0].strip()}"
        for file in files
        if file != Path(__file__)
        for found in IMPORT_OF_A_TEST_MODULE.finditer(file.read_text())
    ]
    assert offenders == []
    assert len(files) > 60
