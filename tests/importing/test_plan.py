import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    encode,
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
from PIL import Image

from engine.base.errors import LoupeError
from engine.base.paths import data_root
from engine.base.text import format_bytes
from engine.data.dataset import prepared_root
from engine.importing.plan import Progress, Request, check_request, plan_import
from engine.importing.write import import_dataset

PETS = pngs(f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(4))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write(tmp_path / "pets", PETS)


def refusal_of(name: str, path: Path, **settings) -> str:
    """Check that a request is refused before anything is read, whoever asks, and nothing is written."""
    request = Request(name, str(path), **settings)
    with pytest.raises(LoupeError) as refused:
        check_request(request)
    message = str(refused.value)
    assert refusal(import_dataset(request)) == message
    if "The name" not in message:  # a plan is whatever its name
        assert refusal(plan_import(request)) == message
    assert not data_root().exists() or left_behind() == [path.name for path in prepared_root().glob("[!.]*")]
    return message


# Requests


@pytest.mark.parametrize("name", ["mnist", "MNIST", "Fashion-mnist", "digits"])
def test_names_of_the_catalogue_are_taken(pets, name):
    assert refusal_of(name, pets) == f"The name {name} is already taken by another dataset. Choose another name."


@pytest.mark.parametrize("name", ["animals", "Animals"])
def test_names_of_datasets_that_are_here_are_taken(pets, name):
    (prepared_root() / "animals").mkdir(parents=True)
    assert "is already taken" in refusal_of(name, pets)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "..", "a/b", "a\\b", "-x", "a b", "a\n", "a.", "x" * 65, "a:b", "*", "../x", "\x1b[2J"]
)
def test_names_that_folders_should_not_have_are_refused(pets, name):
    assert "cannot be given to a dataset. Use up to 64 letters, digits" in refusal_of(name, pets)


@pytest.mark.parametrize("name", ["pets", "Füchse", "狐", "a.b-c_d", "2nd", "x" * 64])
def test_names_of_letters_in_any_language_are_taken(pets, name):
    check_request(Request(name, str(pets)))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fit": "stretch"}, "fit is 'stretch', but must be crop or pad."),
        ({"size": 7}, "The size is 7, but must be between 8 and 2048 pixels."),
        ({"size": 2049}, "The size is 2049, but must be between 8 and 2048 pixels."),
        ({"size": -1}, "The size is -1, but must be between 8 and 2048 pixels."),
        ({"test_share": -0.1}, "The test share is -0.1, but must be between 0 and 0.9."),
        ({"test_share": 0.91}, "The test share is 0.91, but must be between 0 and 0.9."),
        ({"test_share": float("nan")}, "The test share is nan, but must be between 0 and 0.9."),
        ({"seed": -1}, "The seed is -1, but must be 0 or a larger whole number."),
        ({"test": ".", "test_share": 0.2}, "There are test images of their own, and a test share too. Name one of"),
        ({"test": "/missing"}, "There is no /missing. Name a folder, a zip, a tar or a CSV manifest on this machine."),
    ],
)
def test_a_request_out_of_range_is_refused_with_the_range(pets, settings, reason):
    assert reason in refusal_of("pets", pets, **settings)


@pytest.mark.parametrize("settings", [{"size": 8}, {"size": 2048}, {"test_share": 0}, {"test_share": 0.9}])
def test_the_ends_of_the_ranges_are_good(pets, settings):
    check_request(Request("pets", str(pets), **settings))


def test_a_plan_writes_nothing(pets):
    result_of(plan_import(Request("pets", str(pets))))
    assert not data_root().exists()


# Images held back for testing


def held_back(folder: Path, **settings) -> set[str]:
    _, found = understand(folder, **settings)
    return {name for name, (split, _) in found.items() if split == "test"}


def test_a_share_of_each_class_is_held_back(tmp_path):
    counts = {"a": 20, "b": 10, "c": 3, "d": 2, "e": 1}
    folder = write(
        tmp_path, pngs(f"{label}/{number}.png" for label, count in counts.items() for number in range(count))
    )
    plan, _ = understand(folder)
    assert plan.counts == {"train": [16, 8, 2, 1, 1], "test": [4, 2, 1, 1, 0]}
    held_back = "of each class, at least one image where it has two, is held back for testing, drawn with seed"
    assert plan.notes == (f"20% {held_back} 0", "there are no test images of e")
    plan, _ = understand(folder, test_share=0.9, seed=3)
    assert plan.counts == {"train": [2, 1, 1, 1, 1], "test": [18, 9, 2, 1, 0]}
    assert f"90% {held_back} 3" in plan.notes


def test_the_seed_decides_what_is_held_back_and_nothing_else(tmp_path):
    files = pngs(f"{label}/{number}.png" for label in "ab" for number in range(30))
    folder = write(tmp_path / "folder", files)
    # Written in another order.
    archive = pack(tmp_path / "archive.zip", dict(reversed(files.items())))
    drawn = held_back(folder)
    assert held_back(folder) == held_back(archive) == drawn
    others = [held_back(folder, seed=seed) for seed in (1, 2)]
    assert others[0] != others[1]
    assert drawn not in others
    assert {len(each) for each in (drawn, *others)} == {12}


@pytest.mark.parametrize("second", ["test", "val"])
def test_of_a_source_with_splits_nothing_is_held_back_unasked(tmp_path, second):
    files = pngs(f"{split}/{label}/{i}.png" for split in ("train", second) for label in "ab" for i in range(4))
    plan, _ = understand(write(tmp_path, files))
    assert plan.counts == {"train": [4, 4], second: [4, 4]}
    if second == "val":
        plan, _ = understand(tmp_path, test_share=0.25)
        assert plan.counts == {"train": [3, 3], "val": [4, 4], "test": [1, 1]}


def test_nothing_is_held_back_where_the_share_is_none(pets):
    plan, _ = understand(pets, test_share=0)
    assert plan.counts == {"train": [4, 4]}
    assert "there is no test split: a model can be judged on validation images only" in plan.notes


# Size and channels


def of_sizes(folder: Path, *sizes: tuple[int, int]) -> Path:
    """Write pictures of some widths and heights, in two classes."""
    for number, (width, height) in enumerate(sizes):
        write(folder / "ab"[number % 2], {f"{number}.png": encode(Image.new("L", (width, height)))})
    return folder


@pytest.mark.parametrize("size", [(5, 6), (224, 224), (3, 200)])
def test_a_size_that_all_images_have_is_kept(tmp_path, size):
    plan, _ = understand(of_sizes(tmp_path, size, size))
    assert (plan.width, plan.height, plan.is_resized) == (*size, False)
    assert plan.smallest == plan.largest == size
    assert f"All images are {size[0]} x {size[1]} pixels, grey." in plan.in_words()
    assert f"They are kept at {size[0]} x {size[1]} pixels." in plan.in_words()


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(225, 225), (225, 225)], 224),
        ([(300, 200), (300, 200)], 160),
        ([(100, 120), (110, 100), (500, 100)], 96),
        ([(10, 12), (12, 10)], 32),
        ([(30, 30), (64, 70), (65, 64), (900, 1000)], 64),
    ],
)
def test_otherwise_the_largest_side_that_most_images_have_is_suggested(tmp_path, sizes, side):
    plan, _ = understand(of_sizes(tmp_path, *sizes))
    assert (plan.width, plan.height, plan.is_resized) == (side, side, True)
    assert plan.smallest == (min(width for width, _ in sizes), min(height for _, height in sizes))
    assert plan.largest == (max(width for width, _ in sizes), max(height for _, height in sizes))
    assert f"They are brought to {side} x {side} pixels." in plan.in_words()


def test_the_size_that_is_asked_for_is_taken(tmp_path):
    plan, _ = understand(of_sizes(tmp_path, (20, 20), (20, 20)), size=20)
    assert (plan.width, plan.height, plan.is_resized) == (20, 20, False)
    plan, _ = understand(tmp_path, size=100)
    assert (plan.width, plan.height, plan.is_resized) == (100, 100, True)


def test_pictures_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, format in (("a/1.jpg", "JPEG"), ("b/2.png", "PNG")):
        write(tmp_path, {name: encode(Image.new("RGB", (30, 20)), format, exif=exif)})
    plan, _ = understand(tmp_path)
    assert (plan.width, plan.height) == (20, 30)


def test_grey_is_found_however_it_is_stored(tmp_path):
    grey = noise(0, 40, 40, 1)
    write(
        tmp_path,
        {
            "a/1.png": encode(Image.fromarray(grey)),
            "a/2.png": encode(Image.fromarray(grey).convert("RGB")),
            "a/3.jpg": encode(Image.fromarray(grey).convert("RGB"), "JPEG", quality=60),
            "b/4.png": encode(Image.fromarray(grey).convert("LA")),
            "b/5.png": encode(Image.fromarray(grey.astype(np.uint16) * 257)),
            "b/6.gif": encode(Image.fromarray(grey), "GIF"),
        },
    )
    plan, _ = understand(tmp_path)
    assert plan.channels == 1
    assert any(sentence.endswith("pixels, grey.") for sentence in plan.in_words())


def test_one_image_in_colour_is_enough_for_three_channels(tmp_path):
    write(tmp_path, pngs((f"{label}/{number}.png" for label in "ab" for number in range(20)), channels=1))
    assert understand(tmp_path)[0].channels == 1
    write(tmp_path, {"b/colour.png": png()})
    plan, _ = understand(tmp_path)
    assert plan.channels == 3
    assert any(sentence.endswith("pixels, colour.") for sentence in plan.in_words())


def test_of_many_images_some_are_looked_at(pets, monkeypatch):
    monkeypatch.setattr("engine.importing.plan.LOOKED_AT", 5)
    plan, _ = understand(pets)
    assert plan.looked_at == 5
    assert plan.in_words()[0] == "Of 5 looked at all are 5 x 6 pixels, colour."


def test_images_that_are_bad_do_not_matter_to_the_size(pets):
    write(pets, {"cats/bad.png": b"no", "dogs/empty.png": b"", "dogs/large.png": png_of_size(20_000, 20_000)})
    plan, _ = understand(pets)
    assert (plan.width, plan.height, plan.looked_at) == (5, 6, 11)


def test_warnings_of_pillow_are_kept_from_the_person(pets):
    # It warns from 89 million pixels on; the limit that counts is ours.
    write(pets, {"cats/large.png": png_of_size(9_500, 10_000)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan, _ = understand(pets)
    assert [str(warning.message) for warning in told] == []
    assert plan.largest == (9_500, 10_000)


# The disk


def test_what_is_needed_and_free_on_the_disk_is_told(pets):
    plan, _ = understand(pets)
    assert 8 * 5 * 6 * 3 <= plan.bytes_needed <= 8 * (5 * 6 * 3 + 1000)
    assert plan.bytes_free > plan.bytes_needed
    assert (
        f"This takes {format_bytes(plan.bytes_needed)} of the {format_bytes(plan.bytes_free)} that"
        in plan.in_words()[2]
    )


@pytest.mark.slow
def test_a_set_that_does_not_fit_on_the_disk_is_refused_before_it_is_begun(pets, monkeypatch):
    usage = shutil.disk_usage(pets)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=50_000_000))
    request = Request("pets", str(pets), size=2048)
    message = refusal(plan_import(request))
    assert message == (
        f"The disk that holds {prepared_root()} is too full: 8 images of 2048 x 2048 pixels need 100.7 MB, "
        "and 50.0 MB are free. Free some space, or import them smaller."
    )
    assert refusal(import_dataset(request)) == message
    assert left_behind() == []
    result_of(plan_import(Request("pets", str(pets), size=1024)))


# Words


def test_progress_is_told_in_words():
    assert Progress("Listing files", 0, 0).in_words() == "Listing files"
    assert Progress("Listing files", 2000, 0).in_words() == "Listing files: 2,000"
    assert Progress("Decoding", 0, 4000).in_words() == "Decoding: 0 of 4,000 images"
    progress = Progress("Decoding", 1000, 4000, bad=1, seconds=1.5, since=750)
    assert (progress.images_per_second, progress.seconds_left) == (500, 6)
    assert progress.in_words() == "Decoding: 1,000 of 4,000 images, 1 bad file, 500 a second, about 6 s left"


def test_a_plan_is_plain_data(pets):
    plan, _ = understand(pets)
    document = json.loads(json.dumps(plan.as_document()))
    assert document["classes"] == ["cats", "dogs"]
    assert document["counts"] == {"train": [3, 3], "test": [1, 1]}
    assert document["images"] == {"train": 6, "test": 2}
    assert (document["height"], document["width"], document["channels"]) == (6, 5, 3)


@pytest.mark.parametrize(("path", "test"), [("", None), (" ", None), ("pets", "")])
def test_an_empty_path_is_refused(pets, path, test):
    request = Request("pets", str(pets) if path == "pets" else path, test=test)
    with pytest.raises(LoupeError, match=r"^The path is empty\. Name a folder"):
        check_request(request)


def test_a_plan_tells_of_what_it_could_not_read(tmp_path):
    files = pngs(["a/1.png", "a/2.png", "b/1.png", "b/2.png"]) | {"a/3.png": b"", "b/3.png": b"no"}
    plan, _ = understand(write(tmp_path, files))
    assert len(plan.unreadable) == 2
    assert "2 of the 6 that were looked at cannot be read. The first: " in " ".join(plan.in_words())
    assert plan.unreadable[0] in " ".join(plan.in_words())


def test_of_many_classes_the_largest_and_the_smallest_are_told(tmp_path: Path) -> None:
    names = [f"{label:03}/{number}.png" for label in range(60) for number in range(1 + label % 7)]
    plan, _ = understand(write(tmp_path / "signs", dict.fromkeys(names, png())), test_share=0)
    sizes = [1 + label % 7 for label in range(60)]
    told = plan.counts_in_words("train")
    assert told.startswith("60 classes, the largest 006 7, 013 7, 020 7, the smallest ")
    assert told.endswith(f"; {sum(size < 5 for size in sizes)} of fewer than 5 images and 60 of fewer than 20 images")
    assert plan.as_document()["counts"] == {"train": sizes}


def test_classes_of_few_images_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    names = [
        f"{label}/{number}.png" for label, count in (("a", 2), ("b", 5), ("c", 1), ("d", 6)) for number in range(count)
    ]
    place = write(tmp_path / "pets", pngs(names))
    plan, files = understand(place, test_share=0, min_images=5)
    assert (plan.classes, plan.small, plan.counts) == (("b", "d"), ("a", "c"), {"train": [5, 6]})
    assert "left out: 2 classes of fewer than 5 images, a, c" in plan.notes
    assert {name[0] for name in files} == {"b", "d"}
    assert refusal_of("pets", place, min_images=0) == "The fewest images of a class are 0, but must be 1 or more."
    assert "There is one class only" in refusal(plan_import(Request("pets", str(place), min_images=6)))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_what_is_held_back_of_a_class_does_not_depend_on_how_files_are_listed(share: float, tmp_path: Path) -> None:
    files = pngs([f"{label}/{number}.png" for label in ("10", "9", "B", "a") for number in range(7)])
    backwards = dict(sorted(files.items(), reverse=True))
    places = write(tmp_path / "pets", files), pack(tmp_path / "1.zip", files), pack(tmp_path / "2.zip", backwards)
    found = [understand(place, test_share=share)[1] for place in places]
    assert found[0] == found[1] == found[2]
