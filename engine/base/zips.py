"""Reading zip archives of any number of files in bounded memory.

Python's own zipfile makes a list of all entries, hundreds of megabytes for a million of them in every process that
opens the archive. Here the directory is walked as it is read, and an entry is a few numbers to read its file by.
"""

import stat
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.base.encodings import UNKNOWN, guess_encoding
from engine.base.errors import LoupeError, reason_of
from engine.base.text import printable

# More than anybody imports; an archive that claims more is broken or made to do harm.
MAX_TOTAL_BYTES = 1 << 40
STORED, DEFLATED = 0, 8
METHOD_NAMES = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}

# The records of the format, as in PKWARE's APPNOTE.TXT: 4.3.16, 4.3.15, 4.3.14, 4.3.12 and 4.3.7.
_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4x2H4x3L4H2x2L")
_LOCAL = struct.Struct("<4s22x2H")
_LONGEST_COMMENT = 0xFFFF
_LONGEST_CENTRAL = _CENTRAL.size + 3 * 0xFFFF  # with its name, extra field and comment
_ENCRYPTED, _UTF_8, _MASKED = 1 << 0, 1 << 11, 1 << 13
_IN_ZIP64 = 0xFFFFFFFF  # in the place of a number that takes more than 32 bits
_ZIP64_EXTRA, _UNICODE_PATH_EXTRA = 0x0001, 0x7075
_PIECE_BYTES = 1 << 18
# What most archives put between an entry's header and its data, besides the name, has place in this.
_EXTRA_BYTES = 64


class DamagedEntry(Exception):  # noqa: N818 - it is about the entry; the archive can still be read
    """One file of an archive cannot be had, and the others can. Its text says why, for the list of bad files."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive.

    name: as stored, with forward slashes. offset: of its local header from the start of the archive's file.
    compressed, size: bytes in the archive and unpacked. method: of compression, 0 or 8 when it can be read.
    crc: CRC-32 of the unpacked bytes. kind: Unix file type (``stat.S_IFMT``), 0 when the archive does not say.
    """

    name: str
    offset: int
    compressed: int
    size: int
    method: int
    crc: int
    kind: int = 0

    def as_tuple(self) -> tuple[str, int, int, int, int, int, int]:
        """Return the fields in their order, so that ``Entry(*fields)`` makes it again."""
        return self.name, self.offset, self.compressed, self.size, self.method, self.crc, self.kind


@dataclass(frozen=True)
class _Directory:
    """Where the central directory is. shift: bytes before the archive that its own offsets do not count."""

    start: int
    size: int
    shift: int
    count: int
    is_zip64: bool


def encoding_of_names(path: Path) -> str | None:
    """Return in which encoding the names of an archive are most likely that are not in UTF-8; None where all are.

    Raises LoupeError when the archive is damaged.
    """
    archive = printable(path.name)
    with _reading(archive), path.open("rb") as file:
        return guess_encoding(_names_in_no_utf_8(file, _find_directory(file, archive), archive))


def entries(path: Path, names_in: str | None = None) -> Iterator[Entry]:
    """Walk the files of an archive in the order of its directory; folders are left out.

    names_in: the encoding of names that are not in UTF-8, None for the one that is most likely.

    The whole directory is checked before the first file comes. Raises LoupeError when the archive is damaged, encrypted
    or in parts, or made to do harm: with names that lead out of its folder, or with more in it than its bytes can hold.
    """
    archive = printable(path.name)
    with _reading(archive), path.open("rb") as file:
        directory = _find_directory(file, archive)
        names_in = names_in or guess_encoding(_names_in_no_utf_8(file, directory, archive)) or UNKNOWN
        deque(_walk(file, directory, archive, names_in), maxlen=0)
        for entry in _walk(file, directory, archive, names_in):
            if not entry.name.endswith("/"):
                yield entry


@contextmanager
def _reading(archive: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoupeError(
            f"The zip archive {archive} cannot be read ({error.strerror or reason_of(error)}). "
            "Check that the file is there and may be read."
        ) from error


def read_start(file: BinaryIO, entry: Entry, count: int, limit: int) -> bytes:
    """Read and unpack the first bytes of a file of an open archive: ``count`` of them, or all there are.

    What comes is not checked. Raises DamagedEntry as ``read_entry`` does.
    """
    if entry.size <= count or entry.kind or entry.method not in (STORED, DEFLATED) or entry.size > limit:
        return read_entry(file, entry, limit)
    file.seek(entry.offset)
    wanted = min(count, entry.compressed)
    block = file.read(_LOCAL.size + len(entry.name) + _EXTRA_BYTES + wanted)
    if len(block) < _LOCAL.size:
        raise DamagedEntry("The archive ends before it. Get a whole copy of the archive.")
    _, name_length, extra_length = _LOCAL.unpack_from(block)
    start = _LOCAL.size + name_length + extra_length
    if (missing := start + wanted - len(block)) > 0:
        block += file.read(missing)
    content = block[start:]
    if entry.method == STORED:
        return content[:count]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, count)
    except zlib.error:
        raise DamagedEntry("Its compressed bytes are damaged. Get a whole copy of the archive.") from None


def read_entry(file: BinaryIO, entry: Entry, limit: int) -> bytes:
    """Read and unpack a file of an open archive.

    file: opened with ``buffering=0`` it is read no further than needed. limit: bytes, for the unpacked file.
    Raises DamagedEntry when this file cannot be had, LoupeError when it shows that the archive is made to do harm.
    """
    name, size, compressed = entry.name, entry.size, entry.compressed
    if entry.kind and entry.kind != stat.S_IFREG:
        kind = "a symbolic link" if entry.kind == stat.S_IFLNK else "a special file of Unix"
        raise DamagedEntry(f"It is {kind} and not a file with content. Pack the file itself.")
    if entry.method not in (STORED, DEFLATED):
        method = METHOD_NAMES.get(entry.method, f"method {entry.method}")
        raise DamagedEntry(f"It is compressed with {method}, and only Deflate is read. Pack it again with Deflate.")
    # What Deflate cannot make smaller it makes longer, by an eighth at the very most.
    if size > limit or compressed > limit + limit // 8 + 1024:
        raise DamagedEntry(
            f"It is too large: {max(size, compressed):,} bytes, and at most {limit:,} are read. Make it smaller first."
        )

    file.seek(entry.offset)
    block = file.read(_LOCAL.size + len(name) + _EXTRA_BYTES + compressed)
    if len(block) < _LOCAL.size:
        raise DamagedEntry("The archive ends before it. Get a whole copy of the archive.")
    signature, name_length, extra_length = _LOCAL.unpack_from(block)
    if signature != b"PK\x03\x04":
        raise DamagedEntry("Its header in the archive is damaged. Get a whole copy of the archive.")
    start = _LOCAL.size + name_length + extra_length
    if (missing := start + compressed - len(block)) > 0:
        block += file.read(missing)
    content = block[start : start + compressed]
    if entry.method == DEFLATED:
        try:
            # One byte more than it claims shows that there is more, and is all that is unpacked of it.
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except zlib.error:
            raise DamagedEntry("Its compressed bytes are damaged. Get a whole copy of the archive.") from None
    if len(content) > size:
        raise LoupeError(
            f"{printable(name)} in the zip archive unpacks to more than the {size:,} bytes that it claims, as in "
            "archives that are made to fill a disk. Get the archive from a source that you trust."
        )
    if len(content) < size:
        raise DamagedEntry(f"It ends after {len(content):,} of its {size:,} bytes. Get a whole copy of the archive.")
    if zlib.crc32(content) != entry.crc:
        raise DamagedEntry("Its checksum is wrong: some of its bytes changed. Get a whole copy of the archive.")
    return content


def _find_directory(file: BinaryIO, archive: str) -> _Directory:
    """Read the records at the end of an archive; what is before its start is passed over."""
    length = file.seek(0, 2)
    tail_start = max(0, length - _END.size - _LONGEST_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    # The comment may hold the signature too: the record is where its comment reaches to the end of the file.
    while at >= 0 and (len(tail) < at + _END.size or len(tail) != at + _END.size + _END.unpack_from(tail, at)[-1]):
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if at < 0:
        raise LoupeError(
            f"{archive} is not a zip archive, or it is cut short: the directory of its files, which comes last, "
            "is missing. Get a whole copy of it."
        )
    _, disk, first_disk, disk_count, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    zip64 = _zip64_end(file, end, archive)
    if zip64:
        end, disk, first_disk, disk_count, count, size, offset = zip64
    if disk or first_disk or disk_count != count:
        raise _in_parts(archive)
    start = end - size
    if start < 0 or start < offset:
        raise _damage(archive, "bytes before its directory are missing")
    return _Directory(start, size, start - offset, count, zip64 is not None)


def _zip64_end(file: BinaryIO, end: int, archive: str) -> tuple[int, int, int, int, int, int, int] | None:
    """Read the end record of a large archive: where it is, then its disks, counts, size and offset."""
    locator_at = end - _ZIP64_LOCATOR.size
    if locator_at < _ZIP64_END.size:
        return None
    file.seek(locator_at)
    signature, disk, stated, disks = _ZIP64_LOCATOR.unpack(file.read(_ZIP64_LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if disk or disks > 1:
        raise _in_parts(archive)
    # Right before the locator, or, when other software put data of its own in between, where that says.
    for at in (locator_at - _ZIP64_END.size, stated):
        if at + _ZIP64_END.size <= locator_at:
            file.seek(at)
            fields = _ZIP64_END.unpack(file.read(_ZIP64_END.size))
            if fields[0] == b"PK\x06\x06":
                return at, *fields[4:]
    raise _damage(archive, "the end of its directory is missing")


def _names_in_no_utf_8(file: BinaryIO, directory: _Directory, archive: str) -> Iterator[bytes]:
    for numbers, name, extra in _records(file, directory, archive):
        if not name.isascii():
            unicode_path = next((data for tag, data in _extras(extra) if tag == _UNICODE_PATH_EXTRA), b"")
            current = _current(name, numbers[0], unicode_path)
            try:
                current.decode()
            except UnicodeDecodeError:
                yield current


def _walk(file: BinaryIO, directory: _Directory, archive: str, names_in: str) -> Iterator[Entry]:
    """Read and check the entries of a directory, folders too."""
    count = total = claimed = last_start = last_end = 0
    first = directory.start
    for numbers, name_bytes, extra in _records(file, directory, archive):
        flags, method, crc, compressed, size, disk, attributes, offset = numbers
        if flags & (_ENCRYPTED | _MASKED):
            raise LoupeError(
                f"The zip archive {archive} is encrypted, and archives are read without a password. "
                "Unpack it and import its folder, or pack it again without a password."
            )
        unicode_path = b""
        for tag, data in _extras(extra) if extra else ():
            if tag == _ZIP64_EXTRA:
                size, compressed, offset = _widened(data, size, compressed, offset)
            elif tag == _UNICODE_PATH_EXTRA:
                unicode_path = data
        if size == _IN_ZIP64 or compressed == _IN_ZIP64 or offset == _IN_ZIP64:
            raise _damage(archive, "a size in its directory is missing")
        if disk not in (0, 0xFFFF):
            raise _in_parts(archive)
        name = _decoded(_current(name_bytes, flags, unicode_path), archive, names_in).replace("\\", "/")
        if not name or "\0" in name:
            raise _damage(archive, "its directory holds an entry without a proper name")
        if name[0] == "/" or (name[1:2] == ":" and name[0].isalpha()) or (".." in name and ".." in name.split("/")):
            raise LoupeError(
                f"The zip archive {archive} holds {printable(name)}, which would unpack outside its folder. "
                "Get the archive from a source that you trust, or pack it again."
            )
        count += 1
        total += size
        if total > MAX_TOTAL_BYTES:
            raise LoupeError(
                f"The zip archive {archive} claims to unpack to more than {MAX_TOTAL_BYTES:,} bytes, the most that is "
                "read. Check where it comes from, or split it into smaller ones."
            )
        # Archives made to fill a disk have many entries unpack the same bytes. Neighbours are compared, and all
        # together cannot have more bytes than there are: that takes no memory.
        start = offset + directory.shift
        end = start + _LOCAL.size + compressed
        claimed += end - start
        if start < first:
            first = start
        if end > directory.start or (start < last_end and last_start < end):
            raise _overlap(archive, name)
        last_start, last_end = start, end
        yield Entry(name, start, compressed, size, method, crc, stat.S_IFMT(attributes >> 16))
    if count and claimed > directory.start - first:
        raise _overlap(archive, name)
    # Software that knows no zip64 writes the low 16 bits of a larger number.
    if count != directory.count and (directory.is_zip64 or count & 0xFFFF != directory.count):
        raise _damage(archive, f"{count:,} entries in its directory, and {directory.count:,} expected")


def _records(
    file: BinaryIO, directory: _Directory, archive: str
) -> Iterator[tuple[tuple[int, int, int, int, int, int, int, int], bytes, bytes]]:
    """Read a directory a piece at a time: an entry's numbers, its name and its extra field."""
    buffer, at, left = b"", 0, directory.size
    file.seek(directory.start)
    while left or at < len(buffer):
        if left and len(buffer) - at < _LONGEST_CENTRAL:
            piece = file.read(min(left, _PIECE_BYTES))
            buffer, at, left = buffer[at:] + piece, 0, left - len(piece) if piece else 0
        name_at = at + _CENTRAL.size
        if name_at > len(buffer):
            raise _damage(archive, "its directory is cut short")
        fields = _CENTRAL.unpack_from(buffer, at)
        if fields[0] != b"PK\x01\x02":
            raise _damage(archive, "its directory holds something else than entries")
        extra_at = name_at + fields[6]
        comment_at = extra_at + fields[7]
        at = comment_at + fields[8]
        if at > len(buffer):
            raise _damage(archive, "its directory is cut short")
        yield fields[1:6] + fields[9:], buffer[name_at:extra_at], buffer[extra_at:comment_at]


def _extras(field: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(field):
        tag, length = struct.unpack_from("<2H", field, at)
        yield tag, field[at + 4 : at + 4 + length]
        at += 4 + length


def _widened(data: bytes, *numbers: int) -> list[int]:
    """Replace the numbers that take more than 32 bits; the extra field has only those, in this order."""
    wide = iter(struct.unpack_from(f"<{len(data) // 8}Q", data))
    return [next(wide, number) if number == _IN_ZIP64 else number for number in numbers]


def _current(name: bytes, flags: int, unicode_path: bytes) -> bytes:
    # Version 1 of the field, then a checksum: when software renamed the entry and passed over the field, it is old.
    if not flags & _UTF_8 and unicode_path[:1] == b"\1" and unicode_path[1:5] == zlib.crc32(name).to_bytes(4, "little"):
        return unicode_path[5:]
    return name


def _decoded(name: bytes, archive: str, names_in: str) -> str:
    """Make text of a name. Separators are looked for in the text: in some encodings letters hold their bytes."""
    try:
        # Also without the flag, which macOS does not set: hardly any text in another encoding is valid UTF-8.
        return name.decode()
    except UnicodeDecodeError:
        try:
            return name.decode(names_in)
        except UnicodeDecodeError:
            raise LoupeError(
                f"Not all names in the zip archive {archive} are in {names_in}. Name another encoding, or none."
            ) from None


def _damage(archive: str, reason: str) -> LoupeError:
    return LoupeError(f"The zip archive {archive} is damaged: {reason}. Get a whole copy of it.")


def _in_parts(archive: str) -> LoupeError:
    return LoupeError(
        f"The zip archive {archive} is one part of several, or its directory is damaged. "
        "Join its parts into one archive first."
    )


def _overlap(archive: str, name: str) -> LoupeError:
    return LoupeError(
        f"The zip archive {archive} claims more compressed bytes than it has (at {printable(name)}), as archives do "
        "that are made to fill a disk. Get it from a source that you trust."
    )
