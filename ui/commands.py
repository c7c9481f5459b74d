"""Work of the engine that a page waits for: the command line does it, in a process of its own.

PyTorch's memory and threads are then not the server's, and whoever leaves the page ends the work.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator
from typing import Any

from engine.errors import LoupeError
from engine.paths import PROJECT_ROOT, child_environment
from engine.recipes import FIELDS, RECIPES, Recipe


def as_arguments(recipe: Recipe) -> list[str]:
    """Write a recipe as the command line takes it: a named one, and what was changed of it."""
    base = RECIPES[recipe.name]
    changed = [name for name in FIELDS if getattr(recipe, name) != getattr(base, name)]
    return [recipe.name, *(part for name in changed for part in ("--set", f"{name}={getattr(recipe, name)}"))]


def run_command(*arguments: str) -> Generator[str, None, Any]:
    """Run a command, yielding what it tells of its progress; returns its document. Raises LoupeError for its error."""
    with tempfile.TemporaryFile("w+") as document:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", *arguments, "--json"],
            cwd=PROJECT_ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=document,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        last = ""
        try:
            assert process.stderr is not None
            with process.stderr as told:
                for line in told:
                    last = line.strip()
                    yield last
            process.wait()
        finally:
            process.kill()
            process.wait()
        if process.returncode == 2:
            raise LoupeError(last.removeprefix("error: "))
        if process.returncode:
            raise LoupeError(
                f"The work ended with code {process.returncode} before it was done ({last or 'without a word'}). "
                "If memory ran out, choose a smaller batch_size."
            )
        document.seek(0)
        return json.load(document)
