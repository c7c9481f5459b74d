import re
from pathlib import Path

import pytest
from command_line import assert_refused, call
from picture_files import png, pngs, write

from engine.data.catalogue import CATALOGUE
from engine.data.dataset import open_dataset, prepared_root
from engine.data.source_files import BAD_FILES


def test_datasets_lists_them(digits) -> None:
    answer = call("datasets", "--json")
    assert answer.code == 0
    assert [dataset["name"] for dataset in answer.document] == list(CATALOGUE)
    for dataset in answer.document:
        assert {"name", "present", "kind", "classes", "images", "bad_files"} <= dataset.keys()
    here = {dataset["name"]: dataset for dataset in answer.document}
    assert here["digits"]["present"] is True
    assert here["digits"]["images"] == {"train": 1437, "test": 360}
    assert here["digits"]["classes"] == list("0123456789")
    assert (here["digits"]["kind"], here["digits"]["bad_files"]) == ("images", 0)
    assert (here["mnist"]["present"], here["mnist"]["images"]) == (False, {})

    lines = call("datasets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert lines[0].split()[1] == "here"


@pytest.mark.processes
def test_get_prepares_a_dataset_once() -> None:
    answer = call("get", "digits", "--json")
    assert answer.code == 0
    assert answer.document["images"] == {"train": 1437, "test": 360}
    assert (answer.document["name"], answer.document["present"]) == ("digits", True)
    assert len(open_dataset("digits").splits["train"]) == 1437
    again = call("get", "digits")
    assert again.code == 0
    assert again.stdout == "digits: 1,437 train images and 360 test images of 10 classes\n"


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """A folder of two classes with ten pictures each, and an empty file."""
    names = [f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(10)]
    return str(write(tmp_path / "pictures", pngs(names) | {"dogs/bad.png": b""}))


@pytest.mark.slow
def test_import_makes_a_dataset_of_a_folder(pictures: str) -> None:
    answer = call("import", "pets", pictures, "--size", "8", "--json")
    assert answer.code == 0
    dataset = open_dataset("pets")
    (note,) = answer.document["notes"]
    assert note.startswith("20% of each class")
    assert answer.document == {
        "name": "pets",
        "present": True,
        "notes": [note],
        "classes": ["cats", "dogs"],
        "images": {"train": 17, "test": 3},
        "image_shape": [8, 8, 3],
        "bad_files": 1,
        "source": dataset.source,
    }
    assert {split: len(stored) for split, stored in dataset.splits.items()} == answer.document["images"]

    in_words = call("import", "animals", pictures, "--test-share", "0.5")
    counts, noted = in_words.stdout.splitlines()
    assert counts == (
        "animals: 10 train images and 10 test images of 2 classes, 5 x 6 pixels; 1 bad file left out, "
        f"listed in {open_dataset('animals').folder / BAD_FILES}"
    )
    assert noted.startswith("50% of each class")
    assert re.match(r"Listing files\n", in_words.stderr)
    assert_refused(call("import", "pets", pictures), "The name pets is already taken by another dataset.")


def test_a_dry_run_of_an_import_says_what_was_understood_and_writes_nothing(pictures: str) -> None:
    answer = call("import", "pets", pictures, "--dry-run", "--json")
    assert (answer.code, answer.stderr) == (0, "")
    assert answer.document["classes"] == ["cats", "dogs"]
    assert answer.document["images"] == {"train": 17, "test": 4}  # that one is bad shows when all are opened
    lines = call("import", "pets", pictures, "--dry-run").stdout.splitlines()
    assert lines[0] == "pets: a folder for each class"
    assert lines[1:3] == ["train  17 images: cats 8, dogs 9", "test   4 images: cats 2, dogs 2"]
    assert lines[-1] == "nothing was written"
    assert not prepared_root().exists()


@pytest.mark.slow
def test_check_names_copies_by_their_files(tmp_path: Path) -> None:
    files = pngs([f"{split}/{label}/{n}.png" for split in ("train", "test") for label in "ab" for n in range(3)])
    copied = png(0)  # as train/a/0.png is
    folder = write(tmp_path / "pictures", files | {"train/b/copy.png": copied, "test/a/copy.png": copied})
    assert call("import", "pets", str(folder)).code == 0
    answer = call("check", "pets", "--json")
    assert answer.code == 0
    assert {"threshold", "exact", "near", "odd", "leaked_test", "bad_files"} == answer.document.keys()
    assert len(answer.document["exact"]) == 2
    assert len(answer.document["leaked_test"]) == 1

    again = call("check", "pets", "--threshold", "3")
    assert (again.code, again.stderr) == (0, "")  # what was found is kept
    counts, leaks, *told = again.stdout.splitlines()
    assert counts == "pets: 2 pairs of exact copies, 0 of near copies (up to 3 bits apart), 0 odd images, 0 bad files"
    assert leaks == "1 of 7 test images have a copy in train"
    assert told == [
        "exact: train 0 (a, train/a/0.png) and train 6 (b, train/b/copy.png), labelled differently",
        "exact: train 0 (a, train/a/0.png) and test 3 (a, test/a/copy.png)",
    ]


@pytest.mark.parametrize("threshold", ["-1", "65"])
def test_check_refuses_a_threshold_of_more_bits_than_there_are(threshold: str) -> None:
    assert_refused(
        call("check", "digits", "--threshold", threshold), f"--threshold is {threshold}, but must be between"
    )
