"""The files that a dataset was imported from are read again as they are, or not at all."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from picture_files import files_of, import_pictures, png, pngs, put, write

from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.importing.originals import read_originals

FILES = pngs([f"{label}/{number}.png" for label in ("cat", "d\u00f6g") for number in range(5)])


def contents(dataset: Dataset, split: str) -> dict[str, bytes]:
    names = files_of(dataset, split)
    return {names[row]: content for row, content in read_originals(dataset, split, range(len(names))).items()}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_each_image_has_its_own_file(kind: str, tmp_path: Path) -> None:
    dataset = import_pictures("pets", put(kind, tmp_path, FILES))
    assert contents(dataset, "train") | contents(dataset, "test") == FILES


def test_files_of_a_manifest_are_found_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", {f"{number}.png": png(number) for number in range(8)})
    lines = [f"{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(8)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines]))
    dataset = import_pictures("pets", folder / "labels.csv")
    assert len(contents(dataset, "train") | contents(dataset, "test")) == 8


def test_test_images_are_not_taken_for_training_images_of_the_same_name(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train", FILES), write(tmp_path / "test", pngs(FILES, channels=1))
    dataset = import_pictures("pets", train, test=str(test))
    assert contents(dataset, "train") == FILES
    assert contents(dataset, "test") == pngs(FILES, channels=1)


def test_what_is_gone_or_has_changed_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", FILES)
    dataset = import_pictures("pets", folder, test_share=0)
    (folder / "cat" / "0.png").unlink()
    (folder / "cat" / "1.png").write_bytes(b"another")
    assert contents(dataset, "train").keys() == FILES.keys() - {"cat/0.png", "cat/1.png"}
    shutil.rmtree(folder)
    assert contents(dataset, "train") == {}


def test_a_dataset_that_was_not_imported_has_none() -> None:
    save_dataset("drawn", ("thing",), {"train": Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, int))}, "drawn")
    assert read_originals(open_dataset("drawn"), "train", [0]) == {}
