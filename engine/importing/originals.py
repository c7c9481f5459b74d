"""The files that a dataset was imported from, read again as they are: what is true of them is true of its images."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files
from engine.images.containers import COMPRESSED_TAR, kind_of_file
from engine.images.kinds import suffix
from engine.images.sources import Folder, Source, find, open_source
from engine.importing.layout import MANIFEST_SUFFIXES, normalized


def read_originals(dataset: Dataset, split: str, rows: Iterable[int]) -> dict[int, bytes]:
    """Return the contents of the files that images of a split were, by row.

    Left out is what is not there any more, or has another size by now.
    """
    origins = open_source_files(dataset, split)
    if origins is None:
        return {}
    wanted = {row: origins.of(row) for row in rows}
    found: dict[int, bytes] = {}
    for source in _sources(dataset, split):
        with closing(source):
            places = _places(source, {about["file"] for about in wanted.values()})
            for row, about in wanted.items():
                if row in found or about["file"] not in places:
                    continue
                try:
                    content = source.read(places[about["file"]])
                except LoupeError:
                    continue
                if len(content) == about["bytes"]:
                    found[row] = content
    return found


def _sources(dataset: Dataset, split: str) -> Iterator[Source]:
    # Where there are two, the second is of the test images alone.
    of_split = dataset.imported_from[-1:] if split == "test" else dataset.imported_from[:1]
    for path in map(Path, of_split):
        try:
            find(str(path))
            if path.is_dir():
                yield Folder(path)
            elif suffix(path.name) in MANIFEST_SUFFIXES:
                yield Folder(path.parent)
            elif kind_of_file(path) != COMPRESSED_TAR:  # which would be decompressed for a few pictures
                yield open_source(path)
        except (LoupeError, OSError):
            continue


def _places(source: Source, names: set[str]) -> dict[str, bytes]:
    """Return where some files of a source are read, by name."""
    if isinstance(source, Folder):  # not all of it is listed for a few
        return {name: name.encode() for name in names}
    listed = ((normalized(file.name), file.place) for file in source.files())
    return {name: place for name, place in listed if name in names}
