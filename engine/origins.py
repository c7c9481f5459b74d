"""What the images of an import were before they became arrays: one Arrow file beside each split's images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.dataset import Dataset

if TYPE_CHECKING:
    import pyarrow

BAD_FILES = "bad-files.csv"


class OriginsWriter:
    """Writes the files of a split in the order of its images, some at a time."""

    def __init__(self, folder: Path, split: str):
        import pyarrow

        columns = {"file": "string", "bytes": "int64", "width": "int32", "height": "int32", "mode": "string"}
        self._schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
        self._writer = pyarrow.ipc.new_file(str(_path(folder, split)), self._schema)

    def write(self, rows: Sequence[tuple[str, int, int, int, str]]) -> None:
        """Write rows of file name, bytes, width, height and Pillow's mode."""
        import pyarrow

        values = zip(zip(*rows, strict=True), self._schema.types, strict=True)
        columns = [pyarrow.array(column, kind) for column, kind in values]
        self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class Origins:
    """The files that a split's images came from; memory-mapped, so that only what is looked at is read."""

    def __init__(self, table: pyarrow.Table):
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def column(self, name: str) -> np.ndarray:
        """Return ``bytes``, ``width``, ``height`` or ``mode`` of every image."""
        return self._table[name].to_numpy()

    def of(self, index: int) -> dict:
        """Return file, bytes, width, height and mode of one image."""
        return self._table.slice(index, 1).to_pylist()[0]


def open_origins(dataset: Dataset, split: str) -> Origins | None:
    """Return what a split's images were; None for datasets that were not imported from files."""
    path = _path(dataset.folder, split)
    try:
        return _open(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=16)
def _open(path: Path, changed: int) -> Origins:
    import pyarrow

    return Origins(pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all())


def original_sizes(dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Return widths and heights of the images of each split as they were; None where that is not known."""
    sizes = {}
    for split in dataset.splits:
        origins = open_origins(dataset, split)
        if origins is None:
            return None
        sizes[split] = (origins.column("width"), origins.column("height"))
    return sizes


def read_bad_files(dataset: Dataset) -> list[dict[str, str]]:
    """List the files that the import had to leave out: file and reason."""
    try:
        with (dataset.folder / BAD_FILES).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _path(folder: Path, split: str) -> Path:
    return folder / f"{split}-files.arrow"
