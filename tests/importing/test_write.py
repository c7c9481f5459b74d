import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from full_disk import files_limited_to
from odd_pictures import EXIF_WITH_ORIENTATION, EXIF_WITHOUT_ORIENTATION, bitmap, jpeg_with_exif, transparent
from picture_files import (
    CRC,
    SIZE,
    assert_sentences,
    change_entry,
    encode,
    files_of,
    import_pictures,
    left_behind,
    noise,
    pack,
    png,
    png_of_size,
    pngs,
    refusal,
    result_of,
    understand,
    write,
)
from PIL import Image, ImageOps
from processes import folders, python, wait_until

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT, child_environment
from engine.commands.main import main
from engine.data.dataset import Dataset, _open, is_prepared, open_dataset, prepared_names, prepared_root
from engine.data.source_files import read_bad_files
from engine.images.pictures import MAX_FILE_BYTES, open_picture
from engine.importing.plan import Request, plan_import
from engine.importing.write import import_dataset

JPEG = encode(Image.fromarray(noise(0)), "JPEG")
BAD = {
    "empty.png": (b"", "The file is empty."),
    "text.png": (b"Dear reader", "This is not a picture that can be read."),
    "cut.png": (png()[:100], "The picture is damaged or cut short ("),
    "cut.jpg": (JPEG[: JPEG.index(b"\xff\xda") + 14], "The picture is damaged or cut short ("),  # before its pixels
    "wide.png": (png_of_size(20_000, 20_000), "The picture unpacks to far more pixels than a photograph has;"),
}
# The files of each class in their order: good and bad.
ORDERS = {
    "train/ants": "bbbbb",
    "train/cats": "bggggbgggbbbgggg",
    "train/dogs": "gggbbggggggggggb",
    "train/eels": "ggg",
    "val/cats": "bbb",
    "val/dogs": "bb",
    "test/ants": "b",
    "test/cats": "gggg",
    "test/dogs": "gbg",
}


def mixed_files() -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Make good and bad files of two splits; returns all of them, and the pixels of the good ones."""
    files, good = {}, {}
    bad_ones = list(BAD.items())
    for folder, order in ORDERS.items():
        for number, kind in enumerate(order):
            seed = len(files)
            if kind == "g":
                name = f"{folder}/{number:02}.png"
                files[name], good[name] = png(seed), noise(seed)
            else:
                kind_of_bad, (content, _) = bad_ones[seed % len(bad_ones)]
                files[f"{folder}/{number:02} {kind_of_bad}"] = content
    return files, good


FILES, GOOD = mixed_files()
CLASSES = ("cats", "dogs", "eels")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Dataset, Path, dict[str, str]]]]:
    """The same good and bad files imported from a folder and from an archive, with bad ones that only each can have.

    For each kind: the dataset, what it was imported from, and the bad files with the beginning of their reasons.
    """
    place = tmp_path_factory.mktemp("mixed")
    reasons = {name: BAD[name.split(" ", 1)[1]][1] for name in FILES if name not in GOOD}
    folder = write(place / "folder", FILES)
    cats = folder / "train" / "cats"
    os.mkfifo(cats / "00 pipe.png")
    (cats / "01 nothing.png").symlink_to(cats / "missing.png")
    (cats / "02 self.png").symlink_to(cats / "02 self.png")
    (cats / "loop").symlink_to(folder)
    with (cats / "99 large.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    in_folder = {
        "train/cats/00 pipe.png": "This is not a regular file.",
        "train/cats/01 nothing.png": "The file cannot be opened (No such file or directory).",
        "train/cats/02 self.png": "The file cannot be opened (Too many levels of symbolic links).",
        "train/cats/99 large.png": "The file is too large: over 400 MB.",
    }
    archive = pack(place / "archive.zip", FILES | {"train/cats/00 changed.png": png(3)})
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("train/dogs/99 bzip2.png", png(4), zipfile.ZIP_BZIP2)
    change_entry(archive, "train/cats/00 changed.png", CRC, 1)
    in_archive = {
        "train/cats/00 changed.png": "Its checksum is wrong: some of its bytes changed.",
        "train/dogs/99 bzip2.png": "It is compressed with bzip2, and only Deflate is read.",
    }
    with folders(place / "data", place / "runs"), pytest.MonkeyPatch.context() as patch:
        # So that some are bad at the beginning, in the middle and at the end, and some of bad files alone.
        patch.setattr("engine.importing.write.CHUNK_IMAGES", 3)
        made = {}
        for kind, path, others in (("folder", folder, in_folder), ("zip", archive, in_archive)):
            before = state_of(place / "folder"), archive.read_bytes()
            made[kind] = import_pictures(kind, path), path, reasons | others
            assert (state_of(place / "folder"), archive.read_bytes()) == before
        yield made


def state_of(folder: Path) -> dict[str, tuple]:
    """Return names, sizes and times of a folder's files, and the bytes of those that are small."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() and about.st_size < 1_000_000 else b""
        found[str(path)] = about.st_mode, about.st_size, about.st_mtime_ns, content
    return found


def assert_good_files_are_in_their_rows(dataset: Dataset) -> None:
    for split, images in dataset.splits.items():
        expected = sorted(name for name in GOOD if name.startswith(f"{split}/"))
        assert files_of(dataset, split) == expected
        assert [dataset.classes[label] for label in images.labels] == [name.split("/")[1] for name in expected]
        np.testing.assert_array_equal(images.images, np.stack([GOOD[name] for name in expected]))


@pytest.mark.parametrize("kind", ["folder", "zip"])
class TestGoodAndBadFiles:
    @pytest.mark.slow
    def test_good_files_are_in_their_rows_with_their_labels(self, mixed, kind):
        dataset, _, _ = mixed[kind]
        assert_good_files_are_in_their_rows(dataset)
        assert {split: len(images) for split, images in dataset.splits.items()} == {"train": 27, "test": 6}

    @pytest.mark.slow
    def test_a_class_and_a_split_of_bad_files_alone_disappear(self, mixed, kind):
        dataset, _, _ = mixed[kind]
        assert dataset.classes == CLASSES
        assert list(dataset.splits) == ["train", "test"]
        assert dataset.class_counts() == {"train": [11, 13, 3], "test": [4, 2, 0]}
        assert not list(dataset.folder.glob("val*"))

    @pytest.mark.slow
    def test_bad_files_are_counted_and_listed_with_their_reasons(self, mixed, kind):
        dataset, _, reasons = mixed[kind]
        listed = {row["file"]: row["reason"] for row in read_bad_files(dataset)}
        assert dataset.bad_file_count == len(read_bad_files(dataset)) == len(listed) == len(reasons)
        assert set(listed) == set(reasons)
        for name, reason in reasons.items():
            assert listed[name].startswith(reason)
            assert_sentences(listed[name])

    def test_images_are_a_memory_map(self, mixed, kind):
        dataset, path, _ = mixed[kind]
        with folders(dataset.folder.parent.parent, path.parent):
            _open.cache_clear()
            again = open_dataset(dataset.name)
        assert again is not dataset
        assert isinstance(again.splits["train"].images, np.memmap)
        assert again.fingerprint == dataset.fingerprint


def test_a_class_of_which_nothing_can_be_read_is_named_first(tmp_path):
    files = pngs([f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(6)])
    place = write(tmp_path / "pets", files | {f"birds/{number}.png": b"no picture" for number in range(6)})
    plan, _ = understand(place)
    assert plan.notes[0].startswith("of birds no file that was looked at is a picture that can be read: This is not a")
    result = result_of(import_dataset(Request("pets", str(place))))
    said = "left out: birds, of which no file is a picture that can be read"
    assert result.notes[0] == said
    assert said in open_dataset("pets").source
    assert open_dataset("pets").classes == ("cats", "dogs")


def test_the_same_images_have_the_same_fingerprint_wherever_they_come_from(mixed):
    assert mixed["folder"][0].fingerprint == mixed["zip"][0].fingerprint


def test_the_source_of_a_dataset_tells_what_became_of_the_images(mixed):
    assert mixed["folder"][0].source == (
        "imported from folder; splits (train, val and test) with a folder for each class; kept at their size; "
        "left out: ants, of which no file is a picture that can be read; there are no test images of eels"
    )


# What pictures become

WIDE, HIGH = 24, 16
BLOCKS = np.zeros((HIGH, WIDE, 3), np.uint8)  # blocks of 8 pixels, which JPEG keeps
BLOCKS[:8], BLOCKS[8:] = (200, 60, 40), (40, 60, 200)
BLOCKS[:8, 16:] = (30, 160, 60)
UPRIGHT = Image.fromarray(BLOCKS)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(UPRIGHT.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0, exif=exif)


def animated(format: str) -> bytes:
    other = Image.new("RGB", UPRIGHT.size, (255, 255, 255))
    return encode(
        UPRIGHT, format, save_all=True, append_images=[other, UPRIGHT.rotate(180)], **LOSSLESS.get(format, {})
    )


LOSSLESS = {"WEBP": {"lossless": True}}
GREY_BLOCKS = BLOCKS[..., 0]
HOLE = np.zeros((HIGH, WIDE), bool)
HOLE[4:12, 4:12] = True
ON_WHITE = np.where(HOLE[..., None], 255, BLOCKS).astype(np.uint8)


def with_a_hole() -> Image.Image:
    return Image.fromarray(np.dstack([BLOCKS, np.where(HOLE, 0, 255).astype(np.uint8)]))


def palette_with_a_hole() -> bytes:
    image = Image.fromarray(np.where(HOLE, 3, (BLOCKS[..., 0] > 100) * 1 + (BLOCKS[..., 1] > 100) * 2).astype(np.uint8))
    image.putpalette([40, 60, 200, 200, 60, 40, 30, 160, 60, 0, 0, 0])
    return encode(image, transparency=3)


def in_three_channels(grey: np.ndarray) -> np.ndarray:
    return grey[..., None].repeat(3, axis=2)


KINDS_OF_PICTURES: dict[str, tuple[bytes, np.ndarray, int]] = {
    "alpha.png": (encode(with_a_hole()), ON_WHITE, 1),
    "animated.gif": (animated("GIF"), BLOCKS, 1),
    "animated.webp": (animated("WEBP"), BLOCKS, 1),
    "bits.png": (encode(Image.fromarray(BLOCKS[..., 0] > 100)), in_three_channels((BLOCKS[..., 0] > 100) * 255), 0),
    "cmyk.jpg": (encode(UPRIGHT.convert("CMYK"), "JPEG", quality=95), BLOCKS, 6),
    "deep.png": (encode(Image.fromarray(GREY_BLOCKS.astype(np.uint16) * 257)), in_three_channels(GREY_BLOCKS), 1),
    "grey.png": (encode(Image.fromarray(GREY_BLOCKS)), in_three_channels(GREY_BLOCKS), 0),
    "palette.png": (palette_with_a_hole(), ON_WHITE, 1),
    "plain.bmp": (encode(UPRIGHT, "BMP"), BLOCKS, 0),
    "turned.jpg": (turned(), BLOCKS, 6),
    "turned, with odd EXIF.jpg": (
        jpeg_with_exif(UPRIGHT.transpose(Image.Transpose.ROTATE_90), EXIF_WITH_ORIENTATION["a resolution in words"]),
        BLOCKS,
        6,
    ),
    "unread EXIF.png": (encode(UPRIGHT, exif=EXIF_WITHOUT_ORIENTATION["no header"]), BLOCKS, 0),
    "without its end.jpg": (encode(UPRIGHT, "JPEG", quality=95, subsampling=0)[:-2], BLOCKS, 6),
    "without its end, progressive.jpg": (
        encode(UPRIGHT, "JPEG", quality=95, subsampling=0, progressive=True)[:-2],
        BLOCKS,
        6,
    ),
    "unused alpha.bmp": (bitmap(BLOCKS, 0), BLOCKS, 0),
    "unused alpha.png": (transparent(BLOCKS, "PNG"), BLOCKS, 0),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    place = tmp_path_factory.mktemp("kinds")
    files = {f"a/{name}": content for name, (content, _, _) in KINDS_OF_PICTURES.items()} | {"b/1.png": encode(UPRIGHT)}
    with folders(place / "data", place / "runs"):
        yield import_pictures("kinds", write(place / "pictures", files), test_share=0)


@pytest.mark.parametrize("name", KINDS_OF_PICTURES)
def test_pictures_of_every_kind_become_what_a_person_sees(kinds, name):
    _, expected, tolerance = KINDS_OF_PICTURES[name]
    found = kinds.splits["train"].images[files_of(kinds, "train").index(f"a/{name}")]
    assert found.shape == (HIGH, WIDE, 3)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=tolerance)


def test_pictures_of_every_kind_are_none_of_them_bad(kinds):
    assert (kinds.bad_file_count, read_bad_files(kinds)) == (0, [])
    assert kinds.image_shape == (HIGH, WIDE, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("fit", "channels"), [("crop", 3), ("pad", 1)])
def test_pictures_of_all_sizes_are_brought_to_one(tmp_path, fit, channels):
    sizes = [(40, 40), (30, 70), (71, 33), (20, 20), (9, 100)]
    pictures = {}
    for seed, (height, width) in enumerate(sizes):
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        waves = [127 + 100 * np.sin(3 * x + 4 * y + seed + shade) for shade in range(channels)]
        pictures[f"{'ab'[seed % 2]}/{seed}.png"] = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8).squeeze())
    source = write(tmp_path, {name: encode(picture) for name, picture in pictures.items()})
    dataset = import_pictures("sized", source, size=24, fit=fit, test_share=0)
    assert dataset.image_shape == (24, 24, channels)
    for name, found in zip(files_of(dataset, "train"), dataset.splits["train"].images, strict=True):
        picture = pictures[name]
        if fit == "crop":
            reference = ImageOps.fit(picture, (24, 24), Image.Resampling.BILINEAR)
        else:
            scaled = ImageOps.contain(picture, (24, 24), Image.Resampling.BILINEAR)
            reference = Image.new(picture.mode, (24, 24))
            reference.paste(scaled, ((24 - scaled.width) // 2, (24 - scaled.height) // 2))
        difference = np.abs(found.astype(int) - np.asarray(reference).reshape(24, 24, channels))
        assert difference.max() <= 4, name
    how = {"crop": "shorter side resized, middle cut out", "pad": "longer side resized, padded with black"}[fit]
    assert how in dataset.source


# Refused


def assert_refused(request: Request) -> str:
    before = left_behind()
    message = refusal(import_dataset(request))
    assert left_behind() == before
    assert not is_prepared(request.name)
    return message


@pytest.mark.slow
def test_of_what_cannot_be_planned_nothing_is_left(tmp_path):
    assert_refused(Request("pets", str(write(tmp_path / "pets", pngs(["cats/1.png"])))))
    assert_refused(Request("pets", str(tmp_path / "missing")))


@pytest.mark.slow
def test_an_archive_that_lies_about_a_size_is_refused_whole(tmp_path):
    files = {"a/1.png": png(), "b/2.png": png(1), "b/3.bmp": encode(Image.new("RGB", (600, 600)), "BMP")}
    path = pack(tmp_path / "pets.zip", files)
    change_entry(path, "b/3.bmp", SIZE, 600_000)
    request = Request("pets", str(path), test_share=0)
    result_of(plan_import(request))  # what is looked at first does not tell
    assert "b/3.bmp in the zip archive unpacks to more than the 600,000 bytes that it claims" in assert_refused(request)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (("train/b/2.png", "test/b/4.png"), "Of all classes in {path} only a has images that could be read"),
        (("train/a/1.png", "train/b/2.png"), "None of the training images in {path} could be read."),
    ],
)
def test_too_few_images_that_can_be_read_are_refused(tmp_path, bad, reason):
    files = pngs(["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"], height=60, width=60)
    files |= {name: files[name][:5000] for name in bad}  # looked at, they seem well
    path = write(tmp_path / "pets", files)
    assert reason.format(path=path) in assert_refused(Request("pets", str(path)))


@pytest.mark.slow
def test_links_that_lead_out_of_the_allowed_folders_are_left_out(tmp_path, monkeypatch):
    write(tmp_path / "outside", {"1.png": png(9)})
    allowed = write(tmp_path / "allowed", pngs(["a/1.png", "b/2.png"]))
    (allowed / "a" / "0.png").symlink_to(tmp_path / "outside" / "1.png")
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", str(allowed))
    dataset = import_pictures("pets", allowed, test_share=0)
    assert files_of(dataset, "train") == ["a/1.png", "b/2.png"]
    (bad,) = read_bad_files(dataset)
    assert bad["file"] == "a/0.png"
    assert "It is a link to outside the folders that may be imported from" in bad["reason"]
    assert "is outside the folders" in assert_refused(Request("others", str(tmp_path / "outside")))


@pytest.mark.slow
def test_a_full_disk_in_mid_import_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*arguments) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(tmp_path / "pets", pngs(["a/1.png", "b/2.png"]))
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert assert_refused(Request("pets", str(path))) == (
        f"The disk that holds {prepared_root()} is full. Free some space and try again."
    )


@pytest.mark.slow
def test_a_limit_of_the_file_size_is_told_and_nothing_is_left(tmp_path):
    path = write(tmp_path / "pets", pngs(["a/1.png", "b/2.png"]))
    with files_limited_to(500_000):
        told = assert_refused(Request("pets", str(path), size=1000))
    assert told.startswith(f"{prepared_root()} cannot be written (File too large).")
    assert left_behind() == []


@pytest.mark.slow
def test_a_second_import_of_a_name_waits_for_none_and_the_first_goes_on(tmp_path):
    request = Request("pets", str(write(tmp_path / "pets", pngs(["a/1.png", "b/2.png"]))))
    steps = import_dataset(request)
    next(steps)
    assert "is being made right now" in refusal(import_dataset(request))
    result_of(steps)
    assert prepared_names() == ["pets"]
    assert "is already taken" in refusal(import_dataset(request))


@pytest.mark.slow
def test_after_a_refusal_the_name_can_be_used(tmp_path):
    with pytest.raises(LoupeError) as refused:  # kept, with all that it holds
        result_of(import_dataset(Request("pets", str(write(tmp_path / "bad", {"a/1.png": b"", "b/2.png": b""})))))
    import_pictures("pets", write(tmp_path / "good", pngs(["a/1.png", "b/2.png"])))
    assert "None of the 2 files" in str(refused.value)


# Imports that end early


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of pictures enough for some chunks, and the fingerprint of what becomes of it undisturbed."""
    place = tmp_path_factory.mktemp("many")
    files = {f"{'abc'[number % 3]}/{number}.png": png(number) for number in range(600)}
    files["b/bad.png"] = b""
    with folders(place / "data", place / "runs"):
        dataset = import_pictures("many", write(place / "pictures", files))
        assert (dataset.bad_file_count, sum(map(len, dataset.splits.values()))) == (1, 600)
    return place / "pictures", dataset.fingerprint


STEPWISE = """
import sys
from engine.importing.write import import_dataset
from engine.importing.plan import Request
for progress in import_dataset(Request("many", sys.argv[1])):
    print(progress.stage, progress.done, flush=True)
    sys.stdin.readline()
"""


def living(group: int) -> list[str]:
    """List the processes of a group that have not ended."""
    listing = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [pid for pgid, state, pid in rows if int(pgid) == group and not state.startswith("Z")]


@pytest.mark.processes
@pytest.mark.parametrize(
    "moment",
    [
        "Decoding 256",
        pytest.param("Listing files 0", marks=pytest.mark.sweep),
        pytest.param("Finishing 601", marks=pytest.mark.sweep),
    ],
)
def test_a_killed_import_leaves_no_dataset_and_no_process_and_can_be_repeated(many, moment):
    path, fingerprint = many
    with python(
        "-c", STEPWISE, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        while (line := process.stdout.readline()) != f"{moment}\n":
            assert line
            process.stdin.write("\n")
            process.stdin.flush()
        if moment.startswith("Decoding"):
            assert len(living(process.pid)) > 1
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not living(process.pid))

    assert prepared_names() == []
    assert all(path.name.startswith(".") for path in prepared_root().iterdir())
    dataset = import_pictures("many", path)
    assert dataset.fingerprint == fingerprint
    assert left_behind() == ["many"]


@pytest.mark.processes
def test_a_worker_that_is_killed_changes_nothing(many):
    path, fingerprint = many
    steps = import_dataset(Request("many", str(path)))
    for progress in steps:
        if progress.stage == "Decoding":
            workers = multiprocessing.active_children()
            os.kill(workers[0].pid, signal.SIGKILL)
            break
    result_of(steps)
    dataset = open_dataset("many")
    assert dataset.fingerprint == fingerprint
    assert dataset.bad_file_count == 1


# Found by the processes that decode, and not by this one, which has started already.
CRASHING = """
import os
import PIL.Image
open_image = PIL.Image.open
def open_or_crash(file, *arguments, **settings):
    if b"crash" in file.getvalue():
        os._exit(1)
    return open_image(file, *arguments, **settings)
PIL.Image.open = open_or_crash
"""


@pytest.mark.processes
def test_a_picture_that_its_decoder_crashes_at_is_bad_and_the_others_are_well(tmp_path, monkeypatch):
    files = pngs(f"{label}/{number}.png" for label in "ab" for number in range(4))
    path = write(tmp_path / "pets", files | {"a/2.png": files["a/2.png"] + b"crash"})
    write(tmp_path / "startup", {"sitecustomize.py": CRASHING.encode()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "startup"))
    dataset = import_pictures("pets", path, test_share=0)
    good = sorted(set(files) - {"a/2.png"})
    assert files_of(dataset, "train") == good
    seeds = [list(files).index(name) for name in good]
    np.testing.assert_array_equal(dataset.splits["train"].images, np.stack([noise(seed) for seed in seeds]))
    (bad,) = read_bad_files(dataset)
    assert bad["file"] == "a/2.png"
    assert bad["reason"].startswith("The process that decoded it was killed")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["Listing files", "Decoding", "Finishing"])
def test_an_import_that_is_closed_leaves_nothing(many, moment):
    steps = import_dataset(Request("many", str(many[0])))
    for progress in steps:
        if progress.stage == moment:
            steps.close()
    assert left_behind() == []
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_what_a_killed_import_of_another_name_left_is_deleted_and_what_is_being_made_is_not(tmp_path):
    for name in ("killed", "going-on", "mnist"):
        (prepared_root() / f".{name}.unfinished").mkdir(parents=True)
    with FileLock(prepared_root() / ".going-on.lock"):
        import_pictures("pets", write(tmp_path / "pets", pngs(["a/1.png", "b/2.png"])))
    left = sorted(path.name for path in prepared_root().glob(".*.unfinished"))
    assert left == [".going-on.unfinished", ".mnist.unfinished"]


# Memory

BOUNDED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
import numpy as np
from engine.data.dataset import open_dataset
from engine.importing.write import import_dataset
from engine.importing.plan import Request
for progress in import_dataset(Request("large", sys.argv[2], size=int(sys.argv[3]), test_share=0)):
    pass
images = open_dataset("large").splits["train"].images
print(images.shape, images.nbytes, sum(int(image[0, 0, 0]) for image in images))
try:
    np.ones(images.shape, np.uint8)
except MemoryError:
    print("too large")
"""


@pytest.mark.processes
def test_a_set_that_is_larger_than_memory_is_imported_and_opened(tmp_path):
    colours = {
        f"{'ab'[shade % 2]}/{shade}.png": encode(Image.new("RGB", (8, 8), (shade, 9, 99))) for shade in range(30)
    }
    path = write(tmp_path / "large", colours)
    limit = 180_000_000
    arguments = [sys.executable, "-c", BOUNDED, str(limit), str(path), "1448"]
    environment = child_environment() | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        arguments, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.stderr == ""
    opened, refused = ended.stdout.splitlines()
    assert opened == f"(30, 1448, 1448, 3) {30 * 1448 * 1448 * 3} {sum(range(30))}"
    assert limit < 30 * 1448 * 1448 * 3
    assert refused == "too large"


# The command line


@pytest.mark.slow
def test_the_command_line_imports_and_tells_what_it_made(tmp_path, capsys):
    files = pngs(f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(5))
    path = pack(tmp_path / "pets.zip", files | {"cats/bad.png": b"no"})
    assert main(["import", "pets", str(path), "--test-share", "0.4", "--seed", "3", "--json"]) == 0
    stdout, stderr = capsys.readouterr()
    assert all(re.match("Listing|Dividing|Looking|Decoding|Finishing", line) for line in stderr.splitlines())
    document = json.loads(stdout)
    dataset = open_dataset("pets")
    assert document["images"] == {"train": len(dataset.splits["train"]), "test": len(dataset.splits["test"])}
    assert (document["name"], document["classes"], document["bad_files"]) == ("pets", ["cats", "dogs"], 1)
    assert document["image_shape"] == [6, 5, 3]
    assert "drawn with seed 3" in document["source"]
    assert document["source"] == dataset.source


def test_a_dry_run_tells_what_was_understood_and_writes_nothing(tmp_path, capsys):
    path = write(tmp_path / "pets", pngs(f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(5)))
    assert main(["import", "pets", str(path), "--dry-run"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[0] == "pets: a folder for each class"
    assert lines[1:3] == ["train  8 images: cats 4, dogs 4", "test   2 images: cats 1, dogs 1"]
    assert lines[-1] == "nothing was written"
    assert not prepared_root().exists()


# What is decided for all images, by all of them


def deep(kind: str, mean: float, seed: int) -> bytes:
    values = np.random.default_rng(seed).normal(mean, 12, (9, 11)).round()
    match kind:
        case "png":
            return encode(Image.fromarray(values.astype(np.uint16)))
        case "signed":
            return encode(Image.fromarray(values.astype(np.int32)), "TIFF")
        case _:
            return encode(Image.fromarray(values.astype(np.float32)), "TIFF")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "means"), [("png", (300, 440)), ("signed", (-100, -700)), ("float", (225, 245))])
def test_pictures_of_more_than_8_bits_have_one_scale(kind: str, means: tuple[int, int], tmp_path: Path) -> None:
    files = {f"{mean}/{seed}.{kind}.tif": deep(kind, mean, seed) for mean in means for seed in range(12)}
    files = {name.replace(".png.tif", ".png"): content for name, content in files.items()}
    dataset = import_pictures("rays", write(tmp_path / "rays", files), test_share=0)
    stored = dict(zip(files_of(dataset, "train"), dataset.splits["train"].images, strict=True))
    levels = {mean: np.mean([stored[name] for name in files if name.startswith(f"{mean}/")]) for mean in means}
    assert 5 < levels[min(means)] < levels[max(means)] < 250
    assert levels[max(means)] - levels[min(means)] > 40
    # As predict sees the very files.
    for name, content in files.items():
        assert np.array_equal(open_picture(content, 1, dataset.levels).pixels, stored[name])
    low, high = dataset.levels
    assert f"values from {low:g} to {high:g} brought to 8 bits" in dataset.source


def test_the_range_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    files = {f"{mean}/{seed}.png": deep("png", mean, seed) for mean in (300, 440) for seed in range(3)}
    dataset = import_pictures("rays", write(tmp_path / "rays", files), levels=(0, 4095), test_share=0)
    assert dataset.levels == (0, 4095)
    assert dataset.splits["train"].images[:3].mean() == pytest.approx(300 / 4095 * 255, abs=0.5)


def test_of_pictures_of_8_bits_there_are_no_levels(tmp_path: Path) -> None:
    assert import_pictures("pets", write(tmp_path / "pets", pngs(["a/1.png", "b/1.png"]))).levels is None


@pytest.mark.parametrize(
    ("odd", "shape"),
    [(png(1, channels=3), (6, 5, 3)), (png(1, 40, 50, 1), (32, 32, 1)), (deep("png", 300, 1), (32, 32, 1))],
    ids=["colour", "size", "deep"],
)
def test_one_picture_that_was_not_looked_at_for_the_plan_counts_too(
    odd: bytes, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.importing.plan.LOOKED_AT", 2)
    files = pngs([f"{label}/{number}.png" for label in "ab" for number in range(20)], channels=1)
    place = write(tmp_path / "pets", files)
    for number in range(20):  # one at a time, until it is none of the two that are looked at
        name = f"a/{number}.png"
        write(place, files | {name: odd})
        plan, _ = understand(place, test_share=0)
        if (plan.height, plan.width, plan.channels) == (6, 5, 1):
            break
        write(place, {name: files[name]})
    dataset = import_pictures("pets", place, test_share=0)
    assert dataset.image_shape == shape
    assert (dataset.levels is not None) == (odd == deep("png", 300, 1))
