"""What the tests of exports share: names that are hard to show, exporting, and the style of what is written."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from picture_files import result_of
from ruff.__main__ import find_ruff_bin
from torch import nn

from engine.base.paths import PROJECT_ROOT
from engine.export.exporting import Export, export
from engine.export.proof import Proof
from engine.runs.run import Run

# Names of classes may be anything.
HOSTILE = ("<b>red</b> | `x` *y* _z_ [a](b) &amp; $c$", "绿色\n# green\x1b[2J", 'blue \\ " ' + "very " * 60)

PROOF = Proof(100, "test images of digits", 16, 2.5e-6, 0)

# Each kind of model, and each format: to parametrize by. Their other combinations are swept over.
EXPORTS = [
    ("grey", "onnx"),
    ("colour", "onnx"),
    ("transferred", "torch"),
    ("rows", "onnx"),
    pytest.param("grey", "torch", marks=pytest.mark.sweep),
    pytest.param("colour", "torch", marks=pytest.mark.sweep),
    pytest.param("transferred", "onnx", marks=pytest.mark.sweep),
    pytest.param("rows", "torch", marks=pytest.mark.sweep),
]


@dataclass(frozen=True)
class Exported:
    """A run's export to a folder: its model's file there, and what proved it."""

    run: Run
    model: Path
    proof: Proof

    @property
    def folder(self) -> Path:
        return self.model.parent


ExportOf = Callable[[str, str], Exported]


def export_to(run: Run, format: str, path: Path) -> Export:
    return result_of(export(run, format, path))


def left_in(folder: Path) -> list[str]:
    """List all that is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def damaged(model: nn.Module) -> nn.Module:
    """Change the last bias of a model, so that it answers a little otherwise."""
    *_, last = model.parameters()
    with torch.no_grad():
        last[0] += 0.01
    return model


def assert_in_the_projects_style(text: str) -> None:
    """Hold a program that was written to the linter and the formatter."""
    for command in (["check"], ["format", "--check", "--diff"]):
        settings = ["--config", str(PROJECT_ROOT / "pyproject.toml"), "--no-cache", "--stdin-filename", "written.py"]
        found = subprocess.run(
            [find_ruff_bin(), *command, *settings, "-"], input=text, capture_output=True, encoding="utf-8", check=False
        )
        assert found.returncode == 0, f"{found.stdout}\n{found.stderr}\n{text}"
