"""The JavaScript and the style sheets of our components are files of their own, and each of the files is used."""

import ast
import re
from collections.abc import Iterator

from engine.base.paths import PROJECT_ROOT
from ui.components import FOLDER

PAGES = {
    file.relative_to(PROJECT_ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for place in ("streamlit_app.py", "ui/**/*.py", "pages/**/*.py")
    for file in sorted(PROJECT_ROOT.glob(place))
}
# A module's export, an arrow function, a tag for either language, a rule's first declaration.
CODE = re.compile(r"export\s+default|=>|<(script|style)\b|\{\s*[\w-]+:\s")


def code_in_strings(tree: ast.Module) -> Iterator[int]:
    """Yield the lines on which a string begins, or a part of an f-string, that holds JavaScript or CSS."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.search(node.value):
            yield node.lineno


def components_of(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the components that a module registers when it is imported."""
    for node in tree.body:
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name("component"), args=[ast.Constant(str(name))])):
                yield name


def test_no_page_holds_javascript_or_css_in_a_string():
    assert [f"{file}, line {line}" for file, tree in PAGES.items() for line in code_in_strings(tree)] == []


def test_javascript_and_css_in_a_string_would_be_found():
    samples = [file.read_text(encoding="utf-8") for file in FOLDER.iterdir() if file.suffix in (".js", ".css")]
    assert samples
    assert [sample for sample in samples if not list(code_in_strings(ast.parse(repr(sample))))] == []
    assert list(code_in_strings(ast.parse('f"p {{ margin: {side}px; }}"')))


def test_each_file_belongs_to_a_component_that_a_page_shows():
    registered = [name for tree in PAGES.values() for name in components_of(tree)]
    files = [file.name for file in FOLDER.iterdir() if file.name not in ("__init__.py", "__pycache__")]
    assert sorted(files) == sorted(f"{name}.{kind}" for name in registered for kind in ("js", "css"))
