"""Zip archives, and what is wrong with some: fields of their directories changed by hand."""

import io
import random
import struct
import zipfile

# Where a field is in an entry of the directory, and in a local header; and its format.
IN_DIRECTORY = {
    "flags": (8, "<H"),
    "method": (10, "<H"),
    "crc": (16, "<L"),
    "compressed": (20, "<L"),
    "size": (24, "<L"),
    "name length": (28, "<H"),
    "extra length": (30, "<H"),
    "comment length": (32, "<H"),
    "disk": (34, "<H"),
    "offset": (42, "<L"),
}
IN_LOCAL_HEADER = {"compressed": (18, "<L"), "size": (22, "<L"), "name length": (26, "<H"), "extra length": (28, "<H")}
IN_END = {"disk": (4, "<H"), "count": (10, "<H"), "size": (12, "<L"), "offset": (16, "<L")}


def some_files() -> dict[str, bytes]:
    random_state = random.Random(0)
    return {
        "cats/one.jpg": random_state.randbytes(500),
        "cats/two.png": bytes(3000),
        "dogs/empty.png": b"",
        "Füchse/狐.png": b"fox" * 40,
    }


def packed(files: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in (some_files() if files is None else files).items():
            archive.writestr(name, data)
        archive.comment = comment
    return content.getvalue()


def patched(content: bytes, place: tuple[int, str], value: int, start: int = 0) -> bytes:
    changed = bytearray(content)
    struct.pack_into(place[1], changed, start + place[0], value)
    return bytes(changed)


def taken_apart(content: bytes) -> tuple[bytes, list[bytes]]:
    """Split an archive without a comment into what is before its directory and the entries of that."""
    size, offset = struct.unpack_from("<2L", content, len(content) - 10)
    directory = content[offset : offset + size]
    return content[:offset], [b"PK\1\2" + record for record in directory.split(b"PK\1\2")[1:]]


def put_together(data: bytes, records: list[bytes]) -> bytes:
    directory = b"".join(records)
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, len(records) & 0xFFFF, len(records) & 0xFFFF, len(directory), len(data), 0
    )
    return data + directory + end


def with_field(field: str, value: int, content: bytes | None = None) -> bytes:
    """Change a field of the first entry in the directory of an archive."""
    data, (first, *others) = taken_apart(content or packed())
    return put_together(data, [patched(first, IN_DIRECTORY[field], value), *others])
