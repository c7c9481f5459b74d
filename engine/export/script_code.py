"""Python text as formatters write it."""

import ast
import re

LINE_LENGTH = 120


def call(name: str, arguments: list[str], after: str = "") -> str:
    """Write a call on one line, or where that is too long as formatters break it."""
    line = f"{name}({', '.join(arguments)}){after}"
    if len(line) <= LINE_LENGTH:
        return line
    inner = f"    {', '.join(arguments)}"
    if len(inner) > LINE_LENGTH and len(arguments) > 1:
        inner = "\n".join(f"    {argument}," for argument in arguments)
    return f"{name}(\n{inner}\n){after}"


def quoted(text: str) -> str:
    """Write a string as formatters do: in double quotes, or in single ones where that saves escapes."""
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text.replace("\\", r"\\")
    )
    if '"' in text and "'" not in text:
        return f"'{escaped}'"
    double = escaped.replace('"', r"\"")
    return f'"{double}"'


def names_in(code: str) -> set[str]:
    """Return every name that a piece of code uses, or gives to something."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def with_blank_lines(code: str) -> str:
    """Put two blank lines around definitions, and one between all else that is apart."""
    found = [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", code) if paragraph.strip()]
    written, was_definition = found[0], False
    for paragraph in found[1:]:
        inside = paragraph.startswith(" ")
        defines = re.search(r"^(def|class|@)", paragraph, re.MULTILINE) is not None
        written += ("\n\n" if inside or not (defines or was_definition) else "\n\n\n") + paragraph
        was_definition = was_definition if inside else defines
    return written + "\n"
