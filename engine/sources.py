"""Where the pictures of an import are read from: a folder, or a zip archive that is never unpacked to the disk."""

import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from engine.dataset import prepared_root
from engine.errors import LoupeError, reason_of
from engine.pictures import MAX_FILE_BYTES
from engine.words import shown
from engine.zips import DamagedEntry, Entry, entries, read_entry, read_start

# What systems and programs leave among the pictures: neither classes nor bad files.
LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
# The sizes of a picture stand this far into its file at most, but for rare ones: after EXIF with its thumbnail.
HEADER_BYTES = 1 << 19


class HarmfulSourceError(LoupeError):
    """A source is made to do harm: it is not one file of it that is left out."""


class File(NamedTuple):
    """A file of a source: its name below the source, with forward slashes; its bytes; where ``read`` finds it."""

    name: str
    size: int
    place: bytes


class Source(Protocol):
    path: Path

    def files(self) -> Iterator[File]:
        """List all files but those left by systems, however many there are."""

    def read(self, place: bytes) -> bytes:
        """Read a whole file. Raises LoupeError when this one is bad, HarmfulSourceError when none is to be read."""

    def open(self, place: bytes) -> BinaryIO:
        """Open a file for reading."""

    def start(self, place: bytes) -> BinaryIO:
        """Open the first bytes of a file at least, enough for the header of a picture."""

    def close(self) -> None:
        """Close what is open."""


def find(named: str) -> Path:
    """Return the path that a person named. Raises LoupeError when nothing is there, or nothing to be imported."""
    path = Path(os.path.expanduser(named))  # noqa: PTH111 - it leaves alone what it cannot expand
    try:
        require_allowed(path)
        kind = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise LoupeError(
            f"There is no {shown(named)}. Name a folder, a zip or a CSV manifest on this machine."
        ) from None
    except LoupeError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise LoupeError(f"{shown(named)} cannot be opened ({reason}). Check its name and its permissions.") from error
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        raise LoupeError(f"{shown(named)} is neither a folder nor a file. Name a folder, a zip or a CSV manifest.")
    return path


def open_source(path: Path) -> Source:
    """Open what ``find`` returned. Raises LoupeError when it is not there any more, or may not be read."""
    path = find(str(path))
    try:
        return Folder(path) if path.is_dir() else Archive(path)
    except OSError as error:
        raise LoupeError(
            f"{shown(str(path))} cannot be opened ({error.strerror}). Check its name and its permissions."
        ) from error


def uploads_root() -> Path:
    """Return the folder of archives that came through a browser and wait to be imported."""
    return prepared_root() / ".uploads"


def import_roots() -> list[Path]:
    """Return the folders of ``LOUPE_IMPORT_ROOTS``, which imports are confined to; none: they are not."""
    named = os.environ.get("LOUPE_IMPORT_ROOTS", "")
    return [Path(root).expanduser().resolve() for root in named.split(os.pathsep) if root]


def require_allowed(path: Path) -> None:
    """Raise LoupeError for a path outside the folders that imports are confined to, links followed."""
    roots = import_roots()
    real = Path(os.path.realpath(path))  # resolve() fails at a link to itself
    if roots and not any(real.is_relative_to(root) for root in (*roots, uploads_root().resolve())):
        allowed = ", ".join(shown(str(root)) for root in roots)
        raise LoupeError(
            f"{shown(str(path))} is outside the folders that may be imported from: {allowed}. "
            "Copy it there, or have LOUPE_IMPORT_ROOTS changed."
        )


def is_left_by_systems(name: str) -> bool:
    return any((part[:1] == "." != part) or part in LEFT_BY_SYSTEMS for part in name.lower().split("/"))


class Folder:
    def __init__(self, path: Path):
        self.path = path
        self._confined = bool(import_roots())

    def files(self) -> Iterator[File]:
        return self._below(self.path, "", frozenset())

    def _below(self, folder: Path, prefix: str, parents: frozenset[Path]) -> Iterator[File]:
        real = folder.resolve()
        if real in parents:  # a link to a folder that it is in
            return
        try:
            found = os.scandir(folder)
        except OSError as error:
            raise LoupeError(
                f"The folder {shown(str(folder))} cannot be read ({error.strerror}). Change its permissions."
            ) from error
        with found:
            for entry in found:
                name = prefix + entry.name
                if is_left_by_systems(entry.name):
                    continue
                try:
                    is_folder, size = entry.is_dir(), entry.stat().st_size
                except OSError:  # a link to nothing or to itself, say: reading it tells
                    is_folder, size = False, 0
                if is_folder:
                    yield from self._below(Path(entry.path), f"{name}/", parents | {real})
                else:
                    yield File(name, size, os.fsencode(name))

    def read(self, place: bytes) -> bytes:
        with self._opened(place) as file:
            return file.read()

    def open(self, place: bytes) -> BinaryIO:
        with self._opened(place) as file:
            return open(os.dup(file.fileno()), "rb")  # noqa: PTH123

    start = open  # of a file on a disk no more is read than is asked for

    def close(self) -> None:
        pass

    @contextmanager
    def _opened(self, place: bytes) -> Iterator[BinaryIO]:
        path = self.path / os.fsdecode(place)
        if self._confined:
            require_allowed(path)
        try:
            # Without O_NONBLOCK a named pipe would be waited for without end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise LoupeError(
                f"The file cannot be opened ({error.strerror}). Check that it is there and may be read."
            ) from error
        with open(descriptor, "rb") as file:  # noqa: PTH123
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise LoupeError("This is not a regular file. Put a picture in its place, or remove it.")
            if about.st_size > MAX_FILE_BYTES:
                raise LoupeError(
                    f"The file is too large: over {MAX_FILE_BYTES // 1_000_000} MB. Make it smaller first."
                )
            try:
                yield file
            except OSError as error:
                raise LoupeError(f"The file cannot be read ({error.strerror}). Check its disk.") from error


class Archive:
    """A zip archive. Open in each process of its own: its position is shared."""

    def __init__(self, path: Path):
        self.path = path
        # Unbuffered: an entry is read at once and no further.
        self._file = path.open("rb", buffering=0)

    def files(self) -> Iterator[File]:
        for entry in entries(self.path):
            if not is_left_by_systems(entry.name):
                yield File(entry.name.removeprefix("./"), entry.size, json.dumps(entry.as_tuple()).encode())

    def read(self, place: bytes) -> bytes:
        with _telling_damage():
            return read_entry(self._file, Entry(*json.loads(place)), MAX_FILE_BYTES)

    def open(self, place: bytes) -> BinaryIO:
        return io.BytesIO(self.read(place))

    def start(self, place: bytes) -> BinaryIO:
        with _telling_damage():
            return io.BytesIO(read_start(self._file, Entry(*json.loads(place)), HEADER_BYTES, MAX_FILE_BYTES))

    def close(self) -> None:
        self._file.close()


@contextmanager
def _telling_damage() -> Iterator[None]:
    try:
        yield
    except DamagedEntry as error:
        raise LoupeError(str(error)) from error
    except LoupeError as error:
        raise HarmfulSourceError(str(error)) from error
