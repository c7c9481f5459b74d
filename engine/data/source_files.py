"""What the images of an import were before they became arrays: two files beside each split's images."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.dataset import Dataset

BAD_FILES = "bad-files.csv"


# A row of fixed size for each image; its name ends there in the file of all names, and begins where the last one ends.
RECORD = np.dtype([("bytes", "<i8"), ("width", "<i4"), ("height", "<i4"), ("mode", "S8"), ("name_end", "<i8")])


class SourceFilesWriter:
    """Writes what the images of a split were, in their order, some at a time."""

    def __init__(self, folder: Path, split: str):
        records, names = _paths(folder, split)
        self._records, self._names = records.open("wb"), names.open("wb")

    def write(self, rows: Sequence[tuple[str, int, int, int, str]]) -> None:
        """Write rows of file name, bytes, width, height and Pillow's mode."""
        records = np.empty(len(rows), RECORD)
        for row, (name, size, width, height, mode) in enumerate(rows):
            self._names.write(name.encode())
            records[row] = (size, width, height, mode.encode(), self._names.tell())
        self._records.write(records.tobytes())

    def close(self) -> None:
        self._records.close()
        self._names.close()


class SourceFiles:
    """What the images of a split were; memory-mapped, so that only what is looked at is read."""

    def __init__(self, records: Path, names: Path):
        self._records = np.memmap(records, RECORD, "r")
        self._names = names

    def __len__(self) -> int:
        return len(self._records)

    def column(self, name: str) -> np.ndarray:
        """Return ``bytes``, ``width``, ``height`` or ``mode`` of every image."""
        values = np.asarray(self._records[name])
        return values.astype(str) if name == "mode" else values

    def of(self, index: int) -> dict:
        """Return file, bytes, width, height and mode of one image."""
        record = self._records[index]
        with self._names.open("rb") as file:
            start = int(self._records["name_end"][index - 1]) if index else 0
            file.seek(start)
            name = file.read(int(record["name_end"]) - start).decode()
        numbers = {column: int(record[column]) for column in ("bytes", "width", "height")}
        return {"file": name} | numbers | {"mode": record["mode"].decode()}


def open_source_files(dataset: Dataset, split: str) -> SourceFiles | None:
    """Return what a split's images were; None for datasets that were not imported from files."""
    records, names = _paths(dataset.folder, split)
    return SourceFiles(records, names) if records.exists() else None


def original_sizes(dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Return widths and heights of the images of each split as they were; None where that is not known."""
    sizes = {}
    for split in dataset.splits:
        origins = open_source_files(dataset, split)
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


def _paths(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / f"{split}-origins.bin", folder / f"{split}-names.txt"
