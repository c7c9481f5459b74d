import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from picture_files import CRC, FLAGS, SIZE, assert_sentences, change_entry, pack, png, pngs, write

from engine.base.errors import LoupeError
from engine.images.pictures import MAX_FILE_BYTES
from engine.images.sources import Archive, File, Folder, UnsafeSourceError, find, open_source, uploads_root
from engine.importing.plan import Request, check_request

FILES = {"cats/1.png": b"one", "cats/more/2.png": b"second", "dogs/3.png": b""}
as_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def refusal(do, *arguments) -> str:
    with pytest.raises(LoupeError) as refused:
        do(*arguments)
    assert_sentences(str(refused.value))
    return str(refused.value)


def names(source) -> list[str]:
    return sorted(file.name for file in source.files())


def reason_for(folder: Path, name: str) -> str:
    """Return why a file of a folder cannot be read, whichever way it is read; it is listed all the same."""
    source = Folder(folder)
    (place,) = [file.place for file in source.files() if file.name == name]
    reasons = {refusal(source.read, place), refusal(source.open, place), refusal(source.start, place)}
    (reason,) = reasons
    return reason


@pytest.mark.parametrize("kind", [Folder, Archive])
def test_files_are_listed_with_their_sizes_and_read(tmp_path, kind):
    path = write(tmp_path / "pets", FILES) if kind is Folder else pack(tmp_path / "pets.zip", FILES)
    source = open_source(path)
    assert isinstance(source, kind)
    listed = list(source.files())
    assert {file.name: file.size for file in listed} == {name: len(content) for name, content in FILES.items()}
    for name, _, place, _ in listed:
        assert source.read(place) == FILES[name]
        with source.open(place) as opened, source.start(place) as started:
            assert opened.read() == FILES[name]
            assert started.read() == FILES[name]
    source.close()


def test_of_a_large_file_in_an_archive_the_start_is_unpacked(tmp_path):
    content = bytes(3_000_000)
    source = open_source(pack(tmp_path / "large.zip", {"large.tif": content}))
    (file,) = source.files()
    with source.start(file.place) as start:
        assert 100_000 < len(start.read()) < 1_000_000
    assert source.read(file.place) == content
    source.close()


def test_what_lies_open_in_an_archive_has_no_dot_before_it(tmp_path):
    source = open_source(pack(tmp_path / "pets.zip", {"./cats/1.png": b"one", "./.hidden/2.png": b""}))
    assert names(source) == ["cats/1.png"]
    source.close()


@pytest.mark.parametrize(
    "name",
    [".git/1.png", "a/.DS_Store", "__MACOSX/1.png", "a/Thumbs.db", "a/THUMBS.DB", "desktop.ini", "a/@eaDir/1.png"],
)
def test_what_systems_leave_is_not_listed(tmp_path, name):
    files = {name: b"x", "a/1.png": b"x"}
    assert names(open_source(write(tmp_path / "folder", files))) == ["a/1.png"]
    archive = open_source(pack(tmp_path / "archive.zip", files))
    assert names(archive) == ["a/1.png"]
    archive.close()


# Files that cannot be read


def test_links_are_followed_but_not_in_circles(tmp_path):
    folder = write(tmp_path / "pets", {"cats/1.png": b"one"})
    (folder / "cats" / "up").symlink_to(folder)
    (folder / "cats" / "self").symlink_to(folder / "cats")
    (folder / "dogs").symlink_to(write(tmp_path / "elsewhere", {"2.png": b"two"}))
    assert names(open_source(folder)) == ["cats/1.png", "dogs/2.png"]


def test_folders_that_all_link_to_each_other_are_listed_once_by_their_own_names(tmp_path):
    folders = [tmp_path / str(number) for number in range(9)]
    for folder in folders:
        write(folder, {"1.png": b""})
    for folder in folders:
        for other in folders:
            if other != folder:
                (folder / f"to {other.name}").symlink_to(other)
    assert names(open_source(tmp_path)) == [f"{folder.name}/1.png" for folder in folders]


@pytest.mark.slow
def test_folders_nested_deeper_than_a_path_can_name_are_one_bad_file(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("abcd", dir_fd=here)
        below = os.open("abcd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    write(tmp_path, {"abcd/1.png": b""})
    *others, deepest = sorted(open_source(tmp_path).files(), key=lambda file: len(file.name))
    # Python, and with it pytest, cannot delete what is nested so deeply.
    subprocess.run(["rm", "-rf", str(tmp_path / "abcd")], check=True)
    assert others == [File("abcd/1.png", 0, b"abcd/1.png")]
    assert deepest.problem == "The folder cannot be read (File name too long)."
    assert deepest.name.count("/") > 500


def test_a_folder_read_as_a_file_is_a_bad_file_and_nothing_stays_open(tmp_path):
    (tmp_path / "cats").mkdir()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    for read in (Folder(tmp_path).read, Folder(tmp_path).open):
        assert refusal(read, b"cats").startswith("This is not a regular file.")
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_link_to_nothing_or_to_itself_is_a_bad_file(tmp_path):
    (tmp_path / "nothing.png").symlink_to(tmp_path / "missing.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert reason_for(tmp_path, "nothing.png").startswith("The file cannot be opened (No such file or directory).")
    assert reason_for(tmp_path, "self.png").startswith("The file cannot be opened (Too many levels of symbolic links).")


def test_a_pipe_or_a_device_is_a_bad_file_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zeros.png"):
        assert reason_for(tmp_path, name).startswith("This is not a regular file.")


def test_a_file_larger_than_the_most_is_a_bad_file(tmp_path):
    for name, size in (("most.png", MAX_FILE_BYTES), ("more.png", MAX_FILE_BYTES + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    assert reason_for(tmp_path, "more.png") == "The file is too large: over 400 MB. Make it smaller first."
    Folder(tmp_path).start(b"most.png").close()


@as_a_user
def test_a_file_that_may_not_be_read_is_a_bad_file(tmp_path):
    write(tmp_path, {"secret.png": b"x"})
    (tmp_path / "secret.png").chmod(0)
    assert reason_for(tmp_path, "secret.png").startswith("The file cannot be opened (Permission denied).")


@as_a_user
def test_a_folder_or_an_archive_that_may_not_be_read_is_refused(tmp_path):
    folder, archive = write(tmp_path / "pets", FILES), pack(tmp_path / "pets.zip", FILES)
    folder.chmod(0)
    archive.chmod(0)
    assert "cannot be read (Permission denied)" in refusal(names, open_source(folder))
    assert "cannot be opened (Permission denied)" in refusal(open_source, archive)
    folder.chmod(0o700)


@as_a_user
def test_a_folder_in_another_that_may_not_be_read_is_one_bad_file(tmp_path):
    folder = write(tmp_path, FILES)
    (folder / "cats").chmod(0)
    unread, other = sorted(open_source(folder).files())
    (folder / "cats").chmod(0o700)
    assert unread == File("cats", 0, b"cats", "The folder cannot be read (Permission denied).")
    assert other.name == "dogs/3.png"


def test_bad_files_of_an_archive_are_told_and_the_others_are_read(tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("good.png", "changed.png", "longer.png"):
            archive.writestr(name, b"content")
        archive.writestr("bzip2.png", b"content", zipfile.ZIP_BZIP2)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "good.png")
    change_entry(path, "changed.png", CRC, 1)
    change_entry(path, "longer.png", SIZE, 8)
    source = open_source(path)
    places = {file.name: file.place for file in source.files()}
    assert source.read(places.pop("good.png")) == b"content"
    reasons = {name: refusal(source.read, place) for name, place in places.items()}
    assert "checksum is wrong" in reasons["changed.png"]
    assert "ends after 7 of its 8 bytes" in reasons["longer.png"]
    assert "compressed with bzip2" in reasons["bzip2.png"]
    assert "symbolic link" in reasons["link.png"]
    assert len(reasons) == 4
    source.close()


def test_a_file_that_unpacks_to_more_than_it_claims_makes_the_whole_archive_harmful(tmp_path):
    path = pack(tmp_path / "pets.zip", {"1.png": png()})
    change_entry(path, "1.png", SIZE, 10)
    source = open_source(path)
    (file,) = source.files()
    with pytest.raises(UnsafeSourceError):
        source.read(file.place)
    source.close()


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "C:/1.png", "cats/../../1.png"])
def test_an_archive_with_names_that_lead_out_of_it_is_refused(tmp_path, name):
    source = open_source(pack(tmp_path / "pets.zip", {"cats/0.png": b"", name: b""}))
    assert "would unpack outside its folder" in refusal(names, source)
    source.close()


def test_an_encrypted_archive_is_refused(tmp_path):
    path = pack(tmp_path / "pets.zip", FILES)
    change_entry(path, "cats/1.png", FLAGS, 1)
    source = open_source(path)
    assert "is encrypted" in refusal(names, source)
    source.close()


# What a person names


@pytest.mark.slow
def test_what_is_named_is_found_from_the_home_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "pets", FILES)
    assert find("~/pets") == tmp_path / "pets"


UNPACK = "which is not read. Unpack it and import the folder, or pack it as a zip or a tar."
SAVE = (
    "and what is taken is a folder, a zip, a tar or a CSV. Save its images as picture files, in a folder for each "
    "class, and import the folder."
)
LIST = (
    "is a text, and what is taken is a folder, a zip, a tar or a CSV. If it lists pictures, write file,label as its "
    "first line, with a comma between the two in each, and save it with the suffix .csv."
)


def arrays() -> bytes:
    content = io.BytesIO()
    np.savez(content, x_train=np.zeros((2, 8, 8)), y_train=np.arange(2))
    return content.getvalue()


@pytest.mark.parametrize("name", ["missing", "pets/cats/1.png/2.png", "~nobody-at-all/pets", "missing.csv"])
def test_what_is_not_there_is_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(write(tmp_path, {"pets/cats/1.png": b""}))
    assert refusal(find, name) == f"There is no {name}. Name a folder, a zip, a tar or a CSV manifest on this machine."


def test_what_cannot_be_named_is_told(tmp_path):
    assert "cannot be opened (File name too long)" in refusal(find, "x" * 5000)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert "cannot be opened (Too many levels of symbolic links)" in refusal(find, str(tmp_path / "self"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1.JPG", b"", "is a picture: name the folder that it is in."),
        ("pets.tar", b"", "is empty. Name a folder, a zip, a tar or a CSV of pictures."),
        ("pets.zip", b"Rar!\x1a\7\0" + bytes(50), f"is a RAR archive, {UNPACK}"),
        ("pets.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50), f"is a 7z archive, {UNPACK}"),
        ("pets.gz", gzip.compress(b"text", mtime=0), f"is a file compressed by gzip, {UNPACK}"),
        ("train.parquet", b"PAR1" + bytes(200) + b"PAR1", f"is a Parquet file, {SAVE}"),
        ("digits.mat", b"MATLAB 5.0 MAT-file" + bytes(300), f"is a MATLAB file, {SAVE}"),
        ("digits.h5", b"\x89HDF\r\n\x1a\n" + bytes(300), f"is an HDF5 file, {SAVE}"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3" + bytes(100), f"is an IDX file, {SAVE}"),
        ("set.npz", arrays(), f"is a NumPy archive of arrays (.npz), {SAVE}"),
        ("labels.txt", b"images/0.jpg 0\nimages/1.jpg 1\n", LIST),
        ("labels.txt", "größe.jpg 0\n".encode() * 200, LIST),
        ("blob", b"\1\2\3" * 100, "is a file of another kind. Name a folder, a zip, a tar or a CSV of pictures."),
    ],
)
def test_a_whole_file_of_another_kind_is_told_by_its_content(tmp_path, name, content, reason):
    write(tmp_path, {name: content})
    assert refusal(find, str(tmp_path / name)) == f"{tmp_path / name} {reason}"
    assert refusal(open_source, tmp_path / name) == f"{tmp_path / name} {reason}"
    assert find(str(write(tmp_path / "folders" / name, FILES))).is_dir()


# Imports that are confined to some folders


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that imports are confined to, with another; outside of them is ``outside``."""
    for name in ("allowed", "also"):
        write(tmp_path / name / "pets", pngs(["cats/1.png", "dogs/2.png"]))
    write(tmp_path / "outside", pngs(["cats/1.png", "dogs/2.png"]))
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", f"{tmp_path / 'allowed'}{os.pathsep}{tmp_path / 'also'}")
    return tmp_path / "allowed"


@pytest.mark.parametrize("path", ["allowed", "allowed/pets", "also/pets/cats"])
def test_folders_inside_the_allowed_ones_are_opened(confined, path):
    assert find(str(confined.parent / path)) == confined.parent / path


@pytest.mark.parametrize(
    "path", ["outside", "allowed/../outside", "allowed/link", "allowed/link/cats", "allowed-too", "missing", "."]
)
def test_what_is_outside_the_allowed_folders_is_refused_with_their_names(confined, path):
    (confined / "link").symlink_to(confined.parent / "outside")
    (confined.parent / "allowed-too").mkdir()
    named = confined.parent / path
    message = refusal(find, str(named))
    assert message.startswith(
        f"{named} is outside the folders that may be imported from: {confined}, {confined.parent / 'also'}."
    )
    assert refusal(open_source, named) == message
    for request in (Request("pets", str(named)), Request("pets", str(confined), test=str(named))):
        assert refusal(check_request, request) == message


def test_a_file_that_a_link_leads_outside_to_is_a_bad_file(confined):
    (confined / "pets" / "cats" / "link.png").symlink_to(confined.parent / "outside" / "cats" / "1.png")
    (confined / "pets" / "eels").symlink_to(confined.parent / "outside" / "cats")
    (confined / "pets" / "self.png").symlink_to(confined / "pets" / "self.png")
    for name in ("cats/link.png", "eels"):
        reason = "It is a link to outside the folders that may be imported from."
        assert reason_for(confined / "pets", name) == reason
    assert names(Folder(confined / "pets")) == ["cats/1.png", "cats/link.png", "dogs/2.png", "eels", "self.png"]
    assert "Too many levels of symbolic links" in reason_for(confined / "pets", "self.png")
    assert Folder(confined / "pets").read(b"cats/1.png") == png(0)


def test_a_link_into_an_allowed_folder_is_opened(confined):
    link = confined.parent / "link"
    link.symlink_to(confined / "pets")
    assert find(str(link)) == link


def test_what_came_through_the_browser_is_opened_wherever_imports_are_confined_to(confined):
    uploads_root().mkdir(parents=True)
    archive = pack(uploads_root() / "pets.zip", FILES)
    assert find(str(archive)) == archive
    with pytest.raises(LoupeError, match="outside the folders that may be imported from"):
        find(f"{uploads_root()}/../../..")


def test_a_path_that_no_file_can_have_is_told():
    with pytest.raises(LoupeError, match="cannot be opened"):
        find("a\0b")


def test_a_file_of_a_source_says_where_it_is(tmp_path):
    (file,) = open_source(write(tmp_path, {"cats/1.png": b"one"})).files()
    assert file == File("cats/1.png", 3, b"cats/1.png")


# Tar archives


def pack_tar(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_read_as_a_folder_is_and_leaves_nothing_behind(tmp_path, mode):
    files = {"./cats/1.png": b"one", "./.hidden": b"", "dogs/2.png": b"two" * 1000}
    path = pack_tar(tmp_path / "pets.tar", files, mode)
    source = open_source(find(str(path)))
    assert (source.path, source.file == path) == (path, mode == "w")
    listed = {file.name: file for file in source.files()}
    assert list(listed) == ["cats/1.png", "dogs/2.png"]
    assert source.read(listed["dogs/2.png"].place) == b"two" * 1000
    with source.open(listed["cats/1.png"].place) as file:
        assert file.read() == b"one"
    with source.start(listed["dogs/2.png"].place, 4) as file:
        assert file.read() == b"twot"
    again = open_source(source.file)  # as other processes do
    assert again.read(listed["cats/1.png"].place) == b"one"
    again.close()
    source.close()
    assert not list(uploads_root().glob("*"))


def test_a_damaged_compressed_tar_leaves_nothing_behind_and_what_killed_processes_left_is_deleted(tmp_path):
    path = pack_tar(tmp_path / "pets.tgz", {"1.png": bytes(range(256)) * 50}, "w:gz")
    path.write_bytes(path.read_bytes()[:-8])
    left = uploads_root() / "decompressed-99999999-abc"  # more than any process has
    left.mkdir(parents=True)
    assert "is damaged or cut short" in refusal(open_source, path)
    assert not list(uploads_root().glob("*"))
