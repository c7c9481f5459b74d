import io
import pickle
import random
import re
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from zip_files import (
    IN_DIRECTORY,
    IN_END,
    IN_LOCAL_HEADER,
    packed,
    patched,
    put_together,
    some_files,
    taken_apart,
    with_field,
)

from engine.base.errors import LoupeError
from engine.base.zips import MAX_TOTAL_BYTES, DamagedEntry, Entry, entries, read_entry

LIMIT = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pictures.zip"


def with_zip64(size: int, compressed: int, offset: int) -> bytes:
    """Make an archive whose one entry has its numbers in a zip64 extra field."""
    data, (record,) = taken_apart(packed({"one.png": b"one"}))
    for field, value in {"size": -1, "compressed": -1, "offset": -1, "extra length": 28}.items():
        place = IN_DIRECTORY[field]
        record = patched(record, place, value % (1 << 8 * struct.calcsize(place[1])))
    return put_together(data, [record + struct.pack("<2H3Q", 1, 24, size, compressed, offset)])


def many(count: int) -> bytes:
    """Make an archive of empty files, faster than zipfile does."""
    data, (record,) = taken_apart(packed({"00000.png": b""}))
    names = [b"%05d" % number for number in range(count)]
    return put_together(
        b"".join(data.replace(b"00000", name) for name in names),
        [
            patched(record.replace(b"00000", name), IN_DIRECTORY["offset"], number * len(data))
            for number, name in enumerate(names)
        ],
    )


def unpacked(path: Path) -> dict[str, bytes]:
    with path.open("rb", buffering=0) as file:
        return {entry.name: read_entry(file, entry, LIMIT) for entry in entries(path)}


def assert_same_as_zipfile(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        expected = [
            Entry(
                info.filename,
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type,
                info.CRC,
                stat.S_IFMT(info.external_attr >> 16),
            )
            for info in files
        ]
        assert list(entries(path)) == expected
        assert unpacked(path) == {info.filename: archive.read(info) for info in files}


def sentences(message: str) -> int:
    assert message.isprintable()
    assert message.endswith(".")
    return len(re.findall(r"\.(?= |$)", message))


def refusal(path: Path, content: bytes | None = None) -> str:
    """Check that an archive is refused before its first entry, and return why."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoupeError) as refused:
        next(entries(path))
    message = str(refused.value)
    assert 1 <= sentences(message) <= 2, message
    assert path.name in message or not path.name.isprintable()
    return message


def damage(path: Path, content: bytes) -> str:
    """Check that the first file of an archive is bad, that the others are well, and return why."""
    path.write_bytes(content)
    first, *others = entries(path)
    with path.open("rb", buffering=0) as file:
        with pytest.raises(DamagedEntry) as refused:
            read_entry(file, first, LIMIT)
        for entry in others:
            assert read_entry(file, entry, LIMIT) == some_files()[entry.name]
    message = str(refused.value)
    assert 1 <= sentences(message) <= 2, message
    return message


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 100], ids=["at the start", "behind a program"])
@pytest.mark.parametrize("comment", [b"", b"of a holiday", b"x" * 0xFFFF], ids=len)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_an_archive_is_read_as_zipfile_reads_it(path, method, comment, before):
    path.write_bytes(before + packed(method=method, comment=comment))
    assert_same_as_zipfile(path)
    assert unpacked(path) == some_files()


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 100], ids=["at the start", "behind a program"])
def test_a_large_archive_is_read_as_zipfile_reads_it(path, monkeypatch, before):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # large to zipfile, which then writes what it would for 4 GB
    content = packed()
    assert content.count(b"PK\6\6") == content.count(b"PK\6\7") == 1
    path.write_bytes(before + content)
    assert_same_as_zipfile(path)
    assert unpacked(path) == some_files()


def test_the_end_record_of_a_large_archive_may_have_data_behind_it(path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    content = packed()
    locator_at = content.index(b"PK\6\7")
    path.write_bytes(content[:locator_at] + b"of another software" + content[locator_at:])
    assert unpacked(path) == some_files()


def test_local_headers_may_be_those_of_large_files(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in some_files().items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert_same_as_zipfile(path)


class Pipe:
    """A file that can only be written to, from its start to its end."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, data: bytes) -> int:
        with self.path.open("ab") as file:
            return file.write(data)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_an_archive_that_was_written_into_a_pipe_is_read(path, method):
    with zipfile.ZipFile(Pipe(path), "w", method) as archive:
        for name, data in some_files().items():
            archive.writestr(name, data)
    assert path.read_bytes()[18:26] == bytes(8)  # sizes come behind the data
    assert_same_as_zipfile(path)


def test_folders_are_left_out(path):
    path.write_bytes(packed({"cats/": b"", "cats/one.png": b"one", "dogs\\": b"", "dogs\\two.png": b"two"}))
    assert unpacked(path) == {"cats/one.png": b"one", "dogs/two.png": b"two"}


def test_an_empty_archive_has_no_files(path):
    path.write_bytes(packed({}))
    assert list(entries(path)) == []


@pytest.mark.parametrize("end", [b"PK\5\6", b"PK\5\6" + bytes(18) + b"more", b"PK\5\6" * 16_000])
def test_a_comment_may_look_like_the_end_of_an_archive(path, end):
    path.write_bytes(packed(comment=b"a comment " + end))
    assert unpacked(path) == some_files()


def test_an_entry_survives_a_table_and_another_process(path):
    path.write_bytes(packed())
    for entry in entries(path):
        assert Entry(*entry.as_tuple()) == pickle.loads(pickle.dumps(entry)) == entry


def test_names_without_the_flag_are_utf_8_when_they_can_be_and_else_of_dos(path):
    content = packed({"caf__.png": b"macOS", "th_.png": b"DOS"})
    path.write_bytes(content.replace(b"caf__", "café".encode()).replace(b"th_", "thé".encode("cp437")))
    assert list(unpacked(path)) == ["café.png", "thé.png"]


def test_names_that_are_wrong_about_being_utf_8_are_read_all_the_same(path):
    path.write_bytes(packed({"é.png": b"one"}).replace("é".encode(), b"\x82x"))
    assert list(unpacked(path)) == ["éx.png"]


@pytest.mark.parametrize(("renamed", "expected"), [(b"#U72d0.png", "狐.png"), (b"cat---.png", "cat---.png")])
def test_the_extra_field_with_a_unicode_name_counts_while_it_fits_the_name(path, renamed, expected):
    info = zipfile.ZipInfo("#U72d0.png")
    name = b"\1" + struct.pack("<L", zlib.crc32(b"#U72d0.png")) + "狐.png".encode()
    info.extra = struct.pack("<2HL", 0x5455, 4, 0) + struct.pack("<2H", 0x7075, len(name)) + name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"fox")
    path.write_bytes(path.read_bytes().replace(b"#U72d0.png", renamed))
    assert unpacked(path) == {expected: b"fox"}


@pytest.mark.slow
def test_more_files_than_16_bits_count_are_read_without_zip64(path):
    path.write_bytes(many(65_537))
    assert sum(1 for _ in entries(path)) == 65_537


@pytest.mark.slow
def test_walking_many_entries_takes_little_memory(path):
    path.write_bytes(many(10_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in entries(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 2e6  # zipfile's list takes 6 MB
    finally:
        tracemalloc.stop()


class CountingFile(io.BytesIO):
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize(("extra_bytes", "reads"), [(0, 1), (28, 1), (20_000, 2)])
def test_a_file_is_read_in_one_piece_or_two(path, extra_bytes, reads):
    info = zipfile.ZipInfo("one.png")
    info.extra = struct.pack("<2H", 0xCAFE, extra_bytes) + bytes(extra_bytes) if extra_bytes else b""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, some_files()["cats/one.jpg"])
    file = CountingFile(path.read_bytes())
    (entry,) = entries(path)
    assert read_entry(file, entry, LIMIT) == some_files()["cats/one.jpg"]
    assert file.reads == reads


def test_what_is_no_archive_is_refused(path, tmp_path):
    for content in (b"", b"PK", b"Dear reader, this is a letter.", bytes(100_000), packed()[:-1], packed()[:-30]):
        assert refusal(path, content).startswith("pictures.zip is not a zip archive, or it is cut short:")
    path.unlink()
    assert "(No such file or directory)" in refusal(path)
    assert "(Is a directory)" in refusal(tmp_path)


def test_an_archive_without_its_beginning_is_refused(path):
    assert "bytes before its directory are missing" in refusal(path, packed()[100:])


def encrypted_from_the_second_on() -> bytes:
    data, (first, second, *others) = taken_apart(packed())
    return put_together(data, [first, patched(second, IN_DIRECTORY["flags"], 1), *others])


@pytest.mark.parametrize(
    "content",
    [with_field("flags", 1 << 0), with_field("flags", 1 << 13), encrypted_from_the_second_on()],
    ids=["encrypted", "masked", "one of them"],
)
def test_encryption_is_refused(path, content):
    assert refusal(path, content) == (
        "The zip archive pictures.zip is encrypted, and archives are read without a password. "
        "Unpack it and import its folder, or pack it again without a password."
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../evil.png", "../evil.png"),
        ("cats/../../evil.png", "cats/../../evil.png"),
        ("cats/..", "cats/.."),
        ("../", "../"),
        ("..\\evil.png", "../evil.png"),
        ("cats\\..\\..\\evil.png", "cats/../../evil.png"),
        ("/etc/x", "/etc/x"),
        ("\\\\server\\share\\x", "//server/share/x"),
        ("C:\\x", "C:/x"),
        ("c:x.png", "c:x.png"),
        ("../\x1b[2J\n\u202egnp.png", r"../\x1b[2J\n\u202egnp.png"),
        ("../" + "x" * 1000, "../" + "x" * 197 + "..."),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(path, name, told):
    message = refusal(path, packed({"cats/one.png": b"one", name: b"evil"}))
    assert message.startswith(f"The zip archive pictures.zip holds {told}, which would unpack outside its folder.")


@pytest.mark.parametrize("name", ["...", "cats/..one.png", "cats/one..", "cats: one.png", "./one.png"])
def test_names_that_only_look_like_leading_out_are_read(path, name):
    path.write_bytes(packed({name: b"one"}))
    assert unpacked(path) == {name: b"one"}


def test_the_name_of_the_archive_cannot_steer_a_terminal(tmp_path):
    message = refusal(tmp_path / "\x1b[2J\n.zip", with_field("flags", 1))
    assert message.startswith(r"The zip archive \x1b[2J\n.zip is encrypted")


def overlapping(order: list[int]) -> bytes:
    """Have the entries of a directory be the entries of these indices in another, under names of their own."""
    data, records = taken_apart(packed({f"{number}.png": bytes([number]) * 50 for number in range(3)}))
    return put_together(
        data,
        [re.sub(rb"\d\.png", b"%d.png" % number, records[index]) for number, index in enumerate(order)],
    )


@pytest.mark.parametrize(
    "content",
    [
        overlapping([0, 0]),
        overlapping([0, 1, 2, 0]),
        b"#!/bin/sh\n" * 100 + overlapping([0, 1, 2, 0]),
        with_field("compressed", 600),
        with_field("compressed", 0xFFFFFFFE),
        with_field("offset", 40),
        with_field("offset", 0xFFFFFFFE),
        with_zip64(3, 3, 2**64 - 1),
        with_zip64(3, 2**63, 0),
        with_zip64(3, 2**64 - 1, 0),
    ],
    ids=[
        "one after the other",
        "far apart",
        "behind a program",
        "into the next",
        "too long",
        "shifted",
        "too far",
        "offset -1",
        "huge",
        "length -1",
    ],
)
def test_entries_that_share_bytes_or_have_none_are_refused(path, content):
    message = refusal(path, content)
    assert message.startswith("The zip archive pictures.zip claims more compressed bytes than it has (at ")
    assert message.endswith("Get it from a source that you trust.")


def test_entries_in_any_order_are_read(path):
    path.write_bytes(overlapping([2, 0, 1]))
    assert unpacked(path) == {"0.png": b"\2" * 50, "1.png": b"\0" * 50, "2.png": b"\1" * 50}


def test_claiming_more_than_the_most_is_refused(path):
    path.write_bytes(with_zip64(MAX_TOTAL_BYTES, 5, 0))
    assert [entry.size for entry in entries(path)] == [MAX_TOTAL_BYTES]
    for size in (MAX_TOTAL_BYTES + 1, 2**64 - 1):
        assert "claims to unpack to more than 1,099,511,627,776 bytes" in refusal(path, with_zip64(size, 5, 0))


def part_of_a_large_one() -> bytes:
    content = packed({})
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 0, 0, 0, 0)
    return zip64 + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2) + content


@pytest.mark.parametrize(
    "content",
    [with_field("disk", 1), patched(packed({}), IN_END["disk"], 1), part_of_a_large_one()],
    ids=["of an entry", "at the end", "large"],
)
def test_a_part_of_several_is_refused(path, content):
    assert "is one part of several" in refusal(path, content)


def with_huge_end(count: int, size: int, offset: int) -> bytes:
    data, records = taken_apart(packed())
    directory = b"".join(records)
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data + directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data + directory + zip64 + locator + end


def with_garbage() -> bytes:
    data, records = taken_apart(packed())
    return put_together(data, [records[0], b"\xff" * len(records[1]), *records[2:]])


def with_end(field: str, change: int) -> bytes:
    """Change a number at the end of an archive by this much."""
    content = packed()
    place = IN_END[field]
    at = len(content) - 22
    changed = patched(content, place, struct.unpack_from(place[1], content, at + place[0])[0] + change, at)
    return patched(changed, (8, "<H"), struct.unpack_from("<H", changed, at + 10)[0], at)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_garbage(), "its directory holds something else than entries"),
        (with_field("name length", 0), "its directory holds"),
        (with_field("name length", 0xFFFF), "its directory is cut short"),
        (with_field("extra length", 0xFFFF), "its directory is cut short"),
        (with_field("comment length", 0xFFFF), "its directory is cut short"),
        (with_field("size", 0xFFFFFFFF), "a size in its directory is missing"),
        (with_field("offset", 0xFFFFFFFF), "a size in its directory is missing"),
        (packed({"one?.png": b""}).replace(b"?", b"\0"), "an entry without a proper name"),
        (with_field("comment length", 12, with_field("name length", 0)), "an entry without a proper name"),
        (with_end("count", 1), "4 entries in its directory, and 5 expected"),
        (with_end("size", -1), "something else than entries"),
        (with_end("size", 1 << 20), "bytes before its directory are missing"),
        (with_end("offset", 1 << 20), "bytes before its directory are missing"),
        (with_huge_end(5, 0, 0), "0 entries in its directory, and 5 expected"),
        (with_huge_end(4, 2**64 - 1, 0), "bytes before its directory are missing"),
        (with_huge_end(4, 10, 2**64 - 1), "bytes before its directory are missing"),
        (with_huge_end(4, 200, 0).replace(b"PK\6\6", b"PK\6\0"), "the end of its directory is missing"),
        (with_huge_end(4, 200, 0).replace(b"PK\6\7", b"PK\6\0"), "bytes before its directory are missing"),
    ],
)
def test_a_damaged_directory_is_refused(path, content, reason):
    message = refusal(path, content)
    assert message.startswith("The zip archive pictures.zip is damaged: ")
    assert reason in message


@pytest.mark.parametrize("claimed", [0, 100, 100_000])
def test_a_file_that_unpacks_to_more_than_it_claims_is_refused_and_not_unpacked(path, claimed):
    content = packed({"one.png": bytes(20_000_000)})
    content = patched(with_field("size", claimed, content), IN_LOCAL_HEADER["size"], claimed)
    path.write_bytes(with_field("crc", zlib.crc32(bytes(claimed)), content))
    (entry,) = entries(path)
    tracemalloc.start()
    try:
        with path.open("rb", buffering=0) as file, pytest.raises(LoupeError) as refused:
            read_entry(file, entry, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert message.startswith(f"one.png in the zip archive unpacks to more than the {claimed:,} bytes that it claims")
    assert sentences(message) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_one_byte_more_than_it_claims_is_refused(path, method):
    path.write_bytes(with_field("size", 499, packed(method=method)))
    with path.open("rb", buffering=0) as file, pytest.raises(LoupeError, match="more than the 499 bytes"):
        read_entry(file, next(entries(path)), LIMIT)


def test_what_is_too_long_before_it_is_unpacked_is_not_read():
    file = CountingFile(bytes(100))
    with pytest.raises(DamagedEntry, match="too large: 2,097,152 bytes, and at most 1,048,576 are read"):
        read_entry(file, Entry("one.png", 0, 2 * LIMIT, 100, zipfile.ZIP_DEFLATED, 0), LIMIT)
    assert file.reads == 0


def scratched(method: int, at: int, scratch: bytes) -> bytes:
    content = packed(method=method)
    start = 30 + len("cats/one.jpg") + at
    return content[:start] + scratch + content[start + len(scratch) :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (scratched(zipfile.ZIP_STORED, 10, b"scratch"), "Its checksum is wrong"),
        (scratched(zipfile.ZIP_DEFLATED, 10, b"scratch"), "Its checksum is wrong"),
        (scratched(zipfile.ZIP_DEFLATED, 0, b"\xff" * 9), "Its compressed bytes are damaged"),
        (with_field("crc", 1), "Its checksum is wrong"),
        (with_field("size", 501), "It ends after 500 of its 501 bytes."),
        (with_field("compressed", 400), "It ends after 395 of its 500 bytes."),
        (with_field("size", 501, packed(method=zipfile.ZIP_STORED)), "It ends after 500 of its 501 bytes."),
        (patched(packed(), (0, "<L"), 0), "Its header in the archive is damaged."),
        (patched(packed(), IN_LOCAL_HEADER["extra length"], 0xFFFF), "It ends after 0 of its 500 bytes."),
        (with_field("method", 14), "It is compressed with LZMA, and only Deflate is read."),
        (with_field("method", 77), "It is compressed with method 77, and only Deflate is read."),
        (with_field("size", LIMIT + 1), "It is too large: 1,048,577 bytes, and at most 1,048,576 are read."),
    ],
)
def test_a_bad_file_is_told_and_the_others_are_read(path, content, reason):
    assert damage(path, content).startswith(reason)


def test_a_file_of_just_the_limit_is_read(path):
    path.write_bytes(packed({"one.png": bytes(1000)}))
    with path.open("rb", buffering=0) as file:
        (entry,) = entries(path)
        assert read_entry(file, entry, 1000) == bytes(1000)
        with pytest.raises(DamagedEntry, match="too large: 1,000 bytes, and at most 999"):
            read_entry(file, entry, 999)


def test_an_archive_that_lost_its_end_since_it_was_walked_has_bad_files(path):
    path.write_bytes(packed())
    first, second, *_ = entries(path)
    path.write_bytes(path.read_bytes()[: second.offset])
    with path.open("rb", buffering=0) as file:
        assert read_entry(file, first, LIMIT) == some_files()["cats/one.jpg"]
        with pytest.raises(DamagedEntry, match="The archive ends before it"):
            read_entry(file, second, LIMIT)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(stat.S_IFLNK, "It is a symbolic link"), (stat.S_IFIFO, "It is a special file of Unix")],
)
def test_links_and_special_files_are_listed_and_not_read(path, kind, reason):
    info = zipfile.ZipInfo("cats/one.jpg")
    info.external_attr = (kind | 0o644) << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(info, b"/etc/passwd")
        archive.writestr("cats/two.png", some_files()["cats/two.png"])
    assert damage(path, content.getvalue()).startswith(reason)


def flipped(content: bytes, random_state: random.Random) -> bytes:
    place = random_state.randrange(len(content))
    return content[:place] + bytes([content[place] ^ random_state.randrange(1, 256)]) + content[place + 1 :]


def cut(content: bytes, random_state: random.Random) -> bytes:
    return content[: random_state.randrange(len(content))]


def with_piece_missing(content: bytes, random_state: random.Random) -> bytes:
    start, length = random_state.randrange(len(content)), random_state.randrange(1, 20)
    return content[:start] + content[start + length :]


@pytest.mark.parametrize("harm", [flipped, cut, with_piece_missing])
@pytest.mark.parametrize("large", [False, True])
def test_whatever_the_damage_it_is_told(path, monkeypatch, harm: Callable, large: bool):
    files = {"cats/": b"", "cats/one.png": b"one" * 9, "Füchse/狐.png": b"", "three.png": bytes(range(30))}
    if large:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    content = packed(files, comment=b"of a holiday")
    random_state = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(200):
        path.write_bytes(harm(content, random_state))
        try:
            found = list(entries(path))
        except LoupeError:
            refusal(path)
            outcomes["refused"] += 1
            continue
        with path.open("rb", buffering=0) as file:
            for entry in found:
                try:
                    # What passes its checksum is what was packed.
                    assert read_entry(file, entry, LIMIT) in files.values()
                    outcomes["read"] += 1
                except LoupeError:
                    outcomes["refused"] += 1
                except DamagedEntry:
                    outcomes["damaged"] += 1
    assert outcomes["refused"] > 10
    assert harm is not flipped or min(outcomes["damaged"], outcomes["read"]) > 10
