"""Where the pictures of an import are read from: a folder, or an archive, no file of which is unpacked to the disk."""

import heapq
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from engine.base.errors import LoupeError, reason_of
from engine.base.paths import writing_folder
from engine.base.tars import decompress, members, read_member
from engine.base.text import printable
from engine.base.zips import DamagedEntry, Entry, entries, read_entry, read_start
from engine.data.dataset import prepared_root
from engine.images.containers import COMPRESSED_TAR, TAR, kind_of_file
from engine.images.pictures import MAX_FILE_BYTES, SUFFIXES

# What systems and programs leave among the pictures: neither classes nor bad files.
LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
# The sizes of a picture stand this far into its file at most, but for rare ones: after EXIF with its thumbnail.
HEADER_BYTES = 1 << 19
TABLE_SUFFIXES = (".csv", ".tsv")
# Folders of tar archives that were decompressed begin with this, and go on with the number of the process.
DECOMPRESSED = "decompressed-"
LEADS_OUTSIDE = "It is a link to outside the folders that may be imported from."


class UnsafeSourceError(LoupeError):
    """A source is made to do harm: it is not one file of it that is left out."""


class File(NamedTuple):
    """A file of a source: its name below the source, with forward slashes; its bytes; where ``read`` finds it.

    problem: why what is there, a folder that cannot be read, say, holds files that are not listed.
    """

    name: str
    size: int
    place: bytes
    problem: str | None = None


class Source(Protocol):
    """path: what a person named. file: what other processes open, the same but for what had to be decompressed."""

    path: Path
    file: Path

    def files(self) -> Iterator[File]:
        """List all files but those left by systems, however many there are."""

    def read(self, place: bytes) -> bytes:
        """Read a whole file. Raises LoupeError when this one is bad, HarmfulSourceError when none is to be read."""

    def open(self, place: bytes) -> BinaryIO:
        """Open a file for reading."""

    def start(self, place: bytes, count: int = HEADER_BYTES) -> BinaryIO:
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
            f"There is no {printable(named)}. Name a folder, a zip, a tar or a CSV manifest on this machine."
        ) from None
    except LoupeError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise LoupeError(
            f"{printable(named)} cannot be opened ({reason}). Check its name and its permissions."
        ) from error
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        raise LoupeError(
            f"{printable(named)} is neither a folder nor a file. Name a folder, a zip, a tar or a CSV manifest."
        )
    if kind == stat.S_IFREG and path.suffix.lower()[1:] in SUFFIXES:
        raise LoupeError(f"{printable(named)} is a picture: name the folder that it is in.")
    if kind == stat.S_IFREG and path.suffix.lower() not in TABLE_SUFFIXES:
        _kind_of(path)
    return path


def _kind_of(path: Path) -> str:
    try:
        return kind_of_file(path)
    except OSError as error:
        raise LoupeError(
            f"{printable(str(path))} cannot be opened ({error.strerror}). Check its name and its permissions."
        ) from error


def open_source(path: Path, names_in: str | None = None) -> Source:
    """Open what ``find`` returned. names_in: encoding of the names in a zip that are not UTF-8, None to find it out.

    Raises LoupeError when it is not there any more, or may not be read."""
    path = find(str(path))
    try:
        if path.is_dir():
            return Folder(path)
        kind = _kind_of(path)
        if kind == COMPRESSED_TAR:
            return DecompressedTar(path)
        return Tar(path) if kind == TAR else Archive(path, names_in)
    except OSError as error:
        raise LoupeError(
            f"{printable(str(path))} cannot be opened ({error.strerror}). Check its name and its permissions."
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
    if not _is_allowed(path):
        allowed = ", ".join(printable(str(root)) for root in import_roots())
        raise LoupeError(
            f"{printable(str(path))} is outside the folders that may be imported from: {allowed}. "
            "Copy it there, or have LOUPE_IMPORT_ROOTS changed."
        )


def _is_allowed(path: Path) -> bool:
    roots = import_roots()
    real = Path(os.path.realpath(path))  # resolve() fails at a link to itself
    return not roots or any(real.is_relative_to(root) for root in (*roots, uploads_root().resolve()))


def is_left_by_systems(name: str) -> bool:
    return any((part[:1] == "." != part) or part in LEFT_BY_SYSTEMS for part in name.lower().split("/"))


class Folder:
    def __init__(self, path: Path):
        self.path = self.file = path
        self._confined = bool(import_roots())

    def files(self) -> Iterator[File]:
        """List the files, those in each folder once, whatever links lead to it.

        Raises LoupeError when the whole folder cannot be read; one in it that cannot be read is listed as a file.
        """
        entered: set[tuple[int, int]] = set()
        folders = [""]
        links: list[str] = []  # entered after all others, in order, so that a folder has its own name before a link's
        while folders or links:
            name = folders.pop() if folders else heapq.heappop(links)
            try:
                about = os.stat(self._path_of(name))  # noqa: PTH116
                if (about.st_dev, about.st_ino) not in entered:
                    entered.add((about.st_dev, about.st_ino))
                    yield from self._in_folder(name, folders, links)
            except OSError as error:
                if not name:
                    raise LoupeError(
                        f"The folder {printable(str(self.path))} cannot be read ({error.strerror}). Change its "
                        "permissions."
                    ) from error
                yield File(name, 0, os.fsencode(name), f"The folder cannot be read ({error.strerror}).")

    def _in_folder(self, folder: str, folders: list[str], links: list[str]) -> Iterator[File]:
        """List the files in a folder, and note the folders in it."""
        with os.scandir(self._path_of(folder)) as found:
            for entry in found:
                if is_left_by_systems(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    is_folder = entry.is_dir()
                    size = 0 if is_folder else entry.stat().st_size
                except OSError:  # a link to nothing or to itself, say: reading it tells
                    is_folder, size = False, 0
                if not is_folder:
                    yield File(name, size, os.fsencode(name))
                elif not entry.is_symlink():
                    folders.append(name)
                elif self._confined and not _is_allowed(Path(entry.path)):
                    yield File(name, 0, os.fsencode(name), LEADS_OUTSIDE)
                else:
                    heapq.heappush(links, name)

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path, name) if name else str(self.path)  # noqa: PTH118

    def read(self, place: bytes) -> bytes:
        with self._opened(place) as file:
            return file.read()

    def open(self, place: bytes) -> BinaryIO:
        with self._opened(place) as file:
            return open(os.dup(file.fileno()), "rb")  # noqa: PTH123

    def start(self, place: bytes, count: int = HEADER_BYTES) -> BinaryIO:
        return self.open(place)  # of a file on a disk no more is read than is asked for

    def close(self) -> None:
        pass

    @contextmanager
    def _opened(self, place: bytes) -> Iterator[BinaryIO]:
        path = self.path / os.fsdecode(place)
        if self._confined and not _is_allowed(path):
            raise LoupeError(LEADS_OUTSIDE)
        try:
            # Without O_NONBLOCK a named pipe would be waited for without end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise LoupeError(
                f"The file cannot be opened ({error.strerror}). Check that it is there and may be read."
            ) from error
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise LoupeError("This is not a regular file. Put a picture in its place, or remove it.")
            if about.st_size > MAX_FILE_BYTES:
                raise LoupeError(
                    f"The file is too large: over {MAX_FILE_BYTES // 1_000_000} MB. Make it smaller first."
                )
        except BaseException:
            os.close(descriptor)
            raise
        with os.fdopen(descriptor, "rb") as file:
            try:
                yield file
            except OSError as error:
                raise LoupeError(f"The file cannot be read ({error.strerror}). Check its disk.") from error


class Archive:
    """A zip archive. Open in each process of its own: its position is shared."""

    def __init__(self, path: Path, names_in: str | None = None):
        self.path = self.file = path
        self._names_in = names_in
        # Unbuffered: an entry is read at once and no further.
        self._file = path.open("rb", buffering=0)

    def files(self) -> Iterator[File]:
        for entry in entries(self.path, self._names_in):
            if not is_left_by_systems(entry.name):
                yield File(entry.name.removeprefix("./"), entry.size, json.dumps(entry.as_tuple()).encode())

    def read(self, place: bytes) -> bytes:
        with _telling_damage():
            return read_entry(self._file, Entry(*json.loads(place)), MAX_FILE_BYTES)

    def open(self, place: bytes) -> BinaryIO:
        return io.BytesIO(self.read(place))

    def start(self, place: bytes, count: int = HEADER_BYTES) -> BinaryIO:
        with _telling_damage():
            return io.BytesIO(read_start(self._file, Entry(*json.loads(place)), count, MAX_FILE_BYTES))

    def close(self) -> None:
        self._file.close()


class Tar:
    """A tar archive without compression. Open in each process of its own: its position is shared."""

    def __init__(self, path: Path):
        self.path = self.file = path
        self._opened = path.open("rb")

    def files(self) -> Iterator[File]:
        for member in members(self.file):
            name = member.name.removeprefix("./")
            if not is_left_by_systems(name):
                place = json.dumps((member.offset, member.size)).encode()
                yield File(name, member.size, place, member.problem)

    def read(self, place: bytes) -> bytes:
        offset, size = json.loads(place)
        if size > MAX_FILE_BYTES:
            raise LoupeError(f"The file is too large: over {MAX_FILE_BYTES // 1_000_000} MB. Make it smaller first.")
        return read_member(self._opened, offset, size)

    def open(self, place: bytes) -> BinaryIO:
        return io.BytesIO(self.read(place))

    def start(self, place: bytes, count: int = HEADER_BYTES) -> BinaryIO:
        offset, size = json.loads(place)
        return io.BytesIO(read_member(self._opened, offset, min(size, count)))

    def close(self) -> None:
        self._opened.close()


class DecompressedTar(Tar):
    """A compressed tar archive, decompressed to a file below the data folder, which is deleted when this is closed."""

    def __init__(self, path: Path):
        with writing_folder(uploads_root()):
            uploads_root().mkdir(parents=True, exist_ok=True)
            _sweep_decompressed()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{DECOMPRESSED}{os.getpid()}-", dir=uploads_root()))
            try:
                decompress(path, self._folder / "plain.tar")
                super().__init__(self._folder / "plain.tar")
            except BaseException:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        self.path = path

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep_decompressed() -> None:
    """Delete what processes that were killed have left decompressed."""
    for left in uploads_root().glob(f"{DECOMPRESSED}*"):
        process = left.name.removeprefix(DECOMPRESSED).partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OSError):  # not ours
            continue


@contextmanager
def _telling_damage() -> Iterator[None]:
    try:
        yield
    except DamagedEntry as error:
        raise LoupeError(str(error)) from error
    except LoupeError as error:
        raise UnsafeSourceError(str(error)) from error
