"""Reading tar archives of any number of files in bounded memory, and unpacking compressed ones to a plain one.

A plain tar is read where its files lie. A compressed one can be read from its start only, so that it is decompressed
first, to one file: nothing of it is ever unpacked under a name that it gives.
"""

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.base.errors import LoupeError, reason_of
from engine.base.text import format_bytes, printable
from engine.base.zips import MAX_TOTAL_BYTES

# Of a file's name and the like at the most, in the headers of an archive.
MOST_HEADER_BYTES = 1 << 20
# Photographs hardly get smaller, drawings by a hundred times at the most; archives made to fill a disk by a thousand.
MOST_TIMES_LARGER = 200
LARGER_ANYWAY = 100_000_000
LEFT_FREE = 1_000_000_000  # bytes of the disk
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of a tar archive: its name, where its bytes begin and how many they are.

    problem: why it has no bytes of its own.
    """

    name: str
    offset: int
    size: int
    problem: str | None = None


class _Headers(io.FileIO):
    """The file of an archive, of which only headers are read: their sizes are what the archive claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return super().read(size) or b""


def is_tar(start: bytes) -> bool:
    """Tell whether the first 512 bytes of a file are those of a tar archive."""
    try:
        tarfile.TarInfo.frombuf(start[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def is_compressed_tar(path: Path) -> bool:
    """Tell whether a file is a tar archive compressed by gzip, bzip2 or xz."""
    try:
        with _decompressed(path) as file:
            return is_tar(file.read(512))
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
        return False


def members(path: Path) -> Iterator[Member]:
    """Walk the files of a plain tar archive; folders are left out.

    Raises LoupeError when it is damaged, or holds names that lead out of its folder.
    """
    archive = printable(path.name)
    try:
        length = path.stat().st_size
        with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or all would be kept
                if not member.isdir():
                    yield _checked(member, archive, length)
            file.seek(tar.offset)
            if file.read(512).strip(b"\0"):
                raise _damage(archive)
    except LoupeError:
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damage(archive) from error
    except OSError as error:
        raise LoupeError(
            f"The tar archive {archive} cannot be read ({error.strerror or reason_of(error)}). "
            "Check that the file is there and may be read."
        ) from error


def _checked(member: tarfile.TarInfo, archive: str, length: int) -> Member:
    name = member.name.replace("\\", "/")
    if name.startswith("/") or (name[1:2] == ":" and name[0].isalpha()) or ".." in name.split("/"):
        raise LoupeError(
            f"The tar archive {archive} holds {printable(name)}, which would unpack outside its folder. "
            "Get the archive from a source that you trust, or pack it again."
        )
    if member.issym() or member.islnk():
        kind = "symbolic" if member.issym() else "hard"
        return Member(name, 0, 0, f"It is a {kind} link and not a file with content. Pack the file itself.")
    if not member.isreg() or member.issparse():
        return Member(name, 0, 0, "It is a special file and not one with plain content. Pack the file itself.")
    if member.offset_data + member.size > length:
        raise _damage(archive)
    return Member(name, member.offset_data, member.size)


def read_member(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read bytes of an open plain archive. Raises LoupeError when it ends before them."""
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise LoupeError("The archive ends before it. Get a whole copy of the archive.")
    return content


def decompress(path: Path, to: Path) -> None:
    """Write the plain tar of a compressed one. Raises LoupeError when it is damaged, or has no room on the disk."""
    archive = printable(path.name)
    most = min(MOST_TIMES_LARGER * path.stat().st_size + LARGER_ANYWAY, MAX_TOTAL_BYTES)
    written = 0
    with to.open("wb") as plain:
        try:
            with _decompressed(path) as file:
                while piece := file.read(PIECE_BYTES):
                    written += len(piece)
                    if written > most:
                        raise LoupeError(
                            f"The tar archive {archive} unpacks to more than {format_bytes(most)}, as archives do that "
                            "are made to fill a disk. Get it from a source that you trust, or import its folder."
                        )
                    if shutil.disk_usage(to.parent).free < LEFT_FREE:
                        raise LoupeError(
                            f"The disk that holds {to.parent} is too full to unpack {archive}. Free some space, or "
                            "unpack it elsewhere and import its folder."
                        )
                    plain.write(piece)
        except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            raise _damage(archive) from error
        except OSError as error:
            if error.errno is None:  # as bz2 tells of damage
                raise _damage(archive) from error
            raise


def _decompressed(path: Path) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(path)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(path)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(path)
    raise ValueError("not compressed by gzip, bzip2 or xz")


def _damage(archive: str) -> LoupeError:
    return LoupeError(f"The tar archive {archive} is damaged or cut short. Get a whole copy of it.")
