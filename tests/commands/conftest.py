"""A run for the commands to find."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import folders

from engine.runs.run import Run


@pytest.fixture
def finished(trained: Run, digits_data: Path) -> Iterator[Run]:
    """A finished run where commands find it, and its dataset: neither is to be written to."""
    with folders(digits_data, trained.path.parent):
        yield trained
