import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_files import encode, pack, png, write
from PIL import Image, features

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT
from engine.images.kinds import START_BYTES, is_picture, kind_of, suffix
from engine.images.pictures import SUFFIXES
from engine.images.sources import open_source

SMOOTH = Image.fromarray(np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3).astype(np.uint8))
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO")


def told(path: Path) -> dict[str, bool | str | None]:
    """Tell of each file of a source whether it is a picture, or why it is not read."""
    source = open_source(path)
    found: dict[str, bool | str | None] = {}
    for file in source.files():
        try:
            found[file.name] = is_picture(source, file)
        except LoupeError as error:
            found[file.name] = str(error)
    source.close()
    return found


@pytest.mark.parametrize("name", [*FORMATS, "AVIF"])
def test_the_first_bytes_tell_what_pillow_opens(name):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert kind_of(encode(SMOOTH, name)[:START_BYTES]) == "picture"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P",
        b"text",
        b"Pets and more",
        b"BMW is a car",
        b"GIFT",
        b"\0\0\1\0",
        b"RIFF1234WAVEfmt ",
        b"%PDF-1.4",
        b"PK\3\4",
    ],
)
def test_other_first_bytes_are_of_no_picture(content):
    assert kind_of(content) is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"8BPS\0\1", "PSD"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"<svg>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF", "EPS"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (b"\0\0\0\x18ftypcrx ", "camera raw"),
    ],
)
def test_pictures_that_are_not_read_are_told_by_their_first_bytes(content, kind):
    assert kind_of(content) == kind


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_with_unknown_suffixes_are_told_by_their_content(tmp_path, kind):
    files = {
        "1.jfif": encode(SMOOTH, "JPEG"),
        "2": png(),
        "3.jpg?w=100": encode(SMOOTH, "JPEG") + bytes(100_000),
        "4.what": b"text",
        "5.png": b"not read",
        "6.txt": png(),
        "7.NEF": encode(SMOOTH, "TIFF"),
        "8.psd": b"8BPS\0\1",
        "9.svg": encode(SMOOTH, "JPEG"),  # what opens is a picture, whatever its name
    }
    found = told(write(tmp_path / "files", files) if kind == "folder" else pack(tmp_path / "files.zip", files))
    assert found == {
        "1.jfif": True,
        "2": True,
        "3.jpg?w=100": True,
        "4.what": None,
        "5.png": True,
        "6.txt": False,
        "7.NEF": "This is a camera raw picture, which is not read. Save it as PNG or JPEG.",
        "8.psd": "This is a PSD picture, which is not read. Save it as PNG or JPEG.",
        "9.svg": True,
    }


@pytest.mark.processes
def test_heic_is_named_with_what_it_takes_where_it_is_not_there(tmp_path):
    write(tmp_path, {"1.HEIC": b"\0\0\0\x18ftypheic" + bytes(64), "2": b"\0\0\0\x18ftypheic" + bytes(64)})
    code = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'pillow_heif' else find(name)\n"
        "from pathlib import Path\n"
        "from engine.base.errors import LoupeError\n"
        "from engine.images.kinds import is_picture\n"
        "from engine.images.sources import open_source\n"
        "source = open_source(Path(sys.argv[1]))\n"
        "for file in source.files():\n"
        "    try:\n"
        "        print(is_picture(source, file))\n"
        "    except LoupeError as error:\n"
        "        print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    needed = "This is a HEIC picture, which needs pillow-heif. Run pip install pillow-heif and start again, or save it"
    assert ended.stdout.count(needed) == 2


def test_a_suffix_is_that_of_the_last_part_of_a_name():
    assert [suffix(name) for name in ("a/b.PNG", "a.b/c", ".png", "a.tar.gz")] == ["png", "", "", "gz"]
    assert "jfif" not in SUFFIXES
