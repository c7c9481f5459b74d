"""What the tests of exports share: names that are hard to show, and exporting."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from picture_files import result_of
from torch import nn

from engine.export.exporting import Export, export
from engine.runs.run import Run

# Names of classes may be anything.
HOSTILE = ("<b>red</b> | `x` *y* _z_ [a](b) &amp; $c$", "绿色\n# green\x1b[2J", 'blue \\ " ' + "very " * 60)


@dataclass(frozen=True)
class Exported:
    """A run's export to a folder."""

    run: Run
    folder: Path
    done: Export

    @property
    def model(self) -> Path:
        return self.done.files[0]


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
