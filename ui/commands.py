"""Work of the engine that a page waits for: the command line does it, in a process of its own.

PyTorch's memory and threads are then not the server's, and the page goes on answering.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from typing import IO, Any

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT, child_environment
from engine.recipes.recipe import FIELDS, RECIPES, Recipe

LAST_WORDS = 4096  # bytes of what a process has told that are looked at


def as_arguments(recipe: Recipe) -> list[str]:
    """Write a recipe as the command line takes it: a named one, and what was changed of it."""
    base = RECIPES[recipe.name]
    changed = [name for name in FIELDS if getattr(recipe, name) != getattr(base, name)]
    return [recipe.name, *(part for name in changed for part in ("--set", f"{name}={getattr(recipe, name)}"))]


class Command:
    """A command that runs in the background. Its process ends when it is let go of, as with a person's session."""

    def __init__(self, *arguments: str):
        self._document, self._told = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - its own
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", *arguments, "--json"],
            cwd=PROJECT_ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._document,
            stderr=self._told,
            start_new_session=True,
        )
        self.end = weakref.finalize(self, _end, self.process, self._document, self._told)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> str:
        """Return the latest line that the command has told of its progress, or its error."""
        # Not read as files are: that would move the place at which the process writes.
        size = os.fstat(self._told.fileno()).st_size
        lines = (
            os.pread(self._told.fileno(), LAST_WORDS, max(0, size - LAST_WORDS)).decode(errors="replace").split("\n")
        )
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def result(self) -> Any:
        """Return the document of a command that has ended; raises LoupeError for its error."""
        code, last = self.process.returncode, self.last_words()
        if code == 2:
            raise LoupeError(last.removeprefix("error: "))
        if code:
            raise LoupeError(
                f"The work ended with code {code} before it was done ({last or 'without a word'}). If memory ran out, "
                "choose a smaller batch_size."
            )
        self._document.seek(0)
        return json.load(self._document)


def _end(process: subprocess.Popen, *files: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for file in files:
        file.close()
