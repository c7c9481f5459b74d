import numpy as np
import pytest
from picture_files import encode, import_pictures, noise, png, write
from PIL import Image

from engine.data.dataset import Dataset
from engine.data.source_files import open_source_files, original_sizes, read_bad_files

PICTURES = {
    "a/1.png": encode(Image.new("RGBA", (31, 11))),
    "a/3.jpg": encode(Image.fromarray(noise(1, 30, 12, 1)), "JPEG"),
    "b/1.png": encode(Image.fromarray(noise(2, 13, 13, 1)).convert("P")),
    "b/2.png": encode(Image.fromarray(noise(3, 14, 40, 1).astype(np.uint16))),
    "b/4.png": png(4, 15, 41),
}
BAD = {"a/0.png": b"", "a/2.png": b"no", "b/3.png": png(5, 60, 60)[:3000], "b/5.png": b""}
EXPECTED = [
    ("a/1.png", 31, 11, "RGBA"),
    ("a/3.jpg", 12, 30, "L"),
    ("b/1.png", 13, 13, "P"),
    ("b/2.png", 40, 14, "I;16"),
    ("b/4.png", 41, 15, "RGB"),
]


@pytest.fixture
def imported(tmp_path) -> Dataset:
    return import_pictures("pictures", write(tmp_path / "pictures", PICTURES | BAD), test_share=0)


@pytest.mark.slow
def test_each_image_knows_the_file_that_it_came_from_without_the_bad_ones(imported):
    origins = open_source_files(imported, "train")
    assert len(origins) == len(imported.splits["train"]) == len(EXPECTED)
    for row, (file, width, height, mode) in enumerate(EXPECTED):
        about = {"file": file, "bytes": len(PICTURES[file]), "width": width, "height": height, "mode": mode}
        assert origins.of(row) == about
    np.testing.assert_array_equal(origins.column("bytes"), [len(PICTURES[file]) for file, _, _, _ in EXPECTED])
    np.testing.assert_array_equal(origins.column("mode"), [mode for _, _, _, mode in EXPECTED])
    widths, heights = original_sizes(imported)["train"]
    np.testing.assert_array_equal(widths, [width for _, width, _, _ in EXPECTED])
    np.testing.assert_array_equal(heights, [height for _, _, height, _ in EXPECTED])
    assert sorted(row["file"] for row in read_bad_files(imported)) == sorted(BAD)


def test_images_that_came_from_no_files_have_no_origins(colours):
    assert open_source_files(colours, "train") is None
    assert original_sizes(colours) is None
    assert read_bad_files(colours) == []
