import io
import lzma
import tarfile
from pathlib import Path

import pytest

from engine.base import tars
from engine.base.errors import LoupeError
from engine.base.tars import Member, decompress, is_compressed_tar, is_tar, members, read_member

FILES = {"cats/1.png": b"one", "dogs/2.png": b"two" * 500, "dogs/" + "long" * 60 + ".png": b""}


def pack(path: Path, files: dict[str, bytes], mode: str = "w", extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra or ():
            tar.addfile(member)
    return path


def special(name: str, kind: bytes, leads_to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, leads_to
    return member


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_files_of_a_tar_are_walked_and_read(tmp_path, form):
    files = {name: content for name, content in FILES.items() if form != tarfile.USTAR_FORMAT or len(name) < 100}
    with tarfile.open(tmp_path / "pets.tar", "w", format=form) as tar:
        tar.addfile(special("cats", tarfile.DIRTYPE))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = list(members(tmp_path / "pets.tar"))
    with (tmp_path / "pets.tar").open("rb") as file:
        assert {member.name: read_member(file, member.offset, member.size) for member in found} == files


def test_links_and_special_files_are_told_and_not_followed(tmp_path):
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}
    path = pack(tmp_path / "a.tar", {}, extra=[special(name, kind, "/etc/passwd") for name, kind in kinds.items()])
    assert list(members(path)) == [
        Member("link", 0, 0, "It is a symbolic link and not a file with content. Pack the file itself."),
        Member("hard", 0, 0, "It is a hard link and not a file with content. Pack the file itself."),
        Member("pipe", 0, 0, "It is a special file and not one with plain content. Pack the file itself."),
        Member("device", 0, 0, "It is a special file and not one with plain content. Pack the file itself."),
    ]


@pytest.mark.parametrize("name", ["/etc/1.png", "../1.png", "cats/../../1.png", "..\\1.png", "C:/1.png"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    with pytest.raises(LoupeError, match="would unpack outside its folder"):
        list(members(pack(tmp_path / "a.tar", {name: b""})))


@pytest.mark.parametrize("end", [600, 1024 + 100, 1536 + 200])
def test_a_tar_that_is_cut_short_is_told(tmp_path, end):
    path = pack(tmp_path / "a.tar", FILES)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(LoupeError, match="is damaged or cut short"):
        list(members(path))


def test_a_header_of_many_bytes_is_not_read(tmp_path):
    path = pack(tmp_path / "a.tar", {"1.png": b""}, extra=[special("x", tarfile.GNUTYPE_LONGNAME)])
    content = bytearray(path.read_bytes())
    member = special("x", tarfile.GNUTYPE_LONGNAME)
    member.size = 3 << 20
    path.write_bytes(bytes(content[:512]) + member.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20))
    with pytest.raises(LoupeError, match="damaged"):
        list(members(path))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_known_and_decompressed_to_the_plain_one(tmp_path, mode):
    path, plain = pack(tmp_path / "a", FILES, mode), tmp_path / "plain.tar"
    assert is_compressed_tar(path)
    decompress(path, plain)
    assert [member.name for member in members(plain)] == list(FILES)
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LoupeError, match="The tar archive cut is damaged or cut short"):
        decompress(cut, plain)


def test_what_is_no_tar_is_known(tmp_path):
    (tmp_path / "a.xz").write_bytes(lzma.compress(b"text" * 1000))
    assert not is_compressed_tar(tmp_path / "a.xz")
    assert not is_compressed_tar(pack(tmp_path / "a.tar", FILES))
    assert is_tar((tmp_path / "a.tar").read_bytes())
    assert not is_tar(bytes(512))
    assert not is_tar(b"PK\3\4")


def test_an_archive_that_is_made_to_fill_a_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "LARGER_ANYWAY", 1000)
    path = pack(tmp_path / "a.tgz", {"1.png": bytes(3 << 20)}, "w:gz")
    with pytest.raises(LoupeError, match="as archives do that are made to fill a disk"):
        decompress(path, tmp_path / "plain.tar")


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "LEFT_FREE", 1 << 62)
    with pytest.raises(LoupeError, match="is too full to unpack"):
        decompress(pack(tmp_path / "a.tgz", FILES, "w:gz"), tmp_path / "plain.tar")
