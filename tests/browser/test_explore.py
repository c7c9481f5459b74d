"""From pictures of one's own to a dataset that is looked at from all sides."""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Server, Traffic, assert_fits, open_page, tiles, wait_for_address, wait_until_settled
from picture_files import encode, import_pictures, pack, png, write
from PIL import Image
from playwright.sync_api import Page, expect

from engine.data.dataset import open_dataset, prepared_root

# What a name may hold, and what is never to become markup or a request.
CLASSES = ("*cats*", "<b>dogs")
VIEWS = ("Images", "Average", "Shape", "Copies and leaks", "Odd ones", "Bad files")


def picture_files() -> dict[str, bytes]:
    """Make 30 pictures to train on and 10 to test on, of two classes: one of the latter is a copy, and one is bad."""
    files = {}
    for number in range(40):
        split = "train" if number < 30 else "test"
        files[f"{split}/{CLASSES[number % 2]}/{number}.png"] = png(number, 24, 24)
    files[f"test/{CLASSES[1]}/31.png"] = files[f"train/{CLASSES[1]}/5.png"]
    files[f"train/{CLASSES[0]}/blank.png"] = encode(Image.new("RGB", (24, 24), (9, 9, 9)))
    files[f"train/{CLASSES[0]}/bad.png"] = b"no picture"
    return files


@pytest.fixture
def no_imports(server: Server) -> Iterator[None]:
    """Leave the data of the server as they were: other tests share them."""
    yield
    for folder in prepared_root().iterdir():
        if folder.name not in ("digits", ".digits.lock"):
            shutil.rmtree(folder, ignore_errors=True)


def look_at(page: Page, view: str) -> None:
    page.get_by_test_id("stButtonGroup").get_by_role("radio", name=view, exact=True).click()
    wait_until_settled(page)


def test_a_zip_is_uploaded_understood_imported_and_explored(
    server: Server, page: Page, traffic: Traffic, no_imports: None, tmp_path: Path
) -> None:
    archive = pack(tmp_path / "Our pets.zip", picture_files())
    open_page(page, f"{server.url}/explore?dataset=digits", "Digits")
    page.get_by_role("button", name="Import your own images").click()
    expect(page.get_by_role("heading", name="Import your own images", level=1)).to_be_visible()
    wait_for_address(page, "/explore", **{"import": "-"})

    # What was understood of it, before anything is imported.
    page.get_by_text("Upload a zip or tar", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_test_id("stFileUploaderDropzone").locator("button").click()
    chooser.value.set_files(archive)
    expect(page.get_by_text("splits (train and test) with a folder for each class")).to_be_visible()
    expect(page.get_by_text("All images are 24 x 24 pixels, colour.")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name of the dataset")).to_have_value("our-pets")
    assert not (prepared_root() / "our-pets").exists()

    # It is imported while the page watches, and then looked at.
    page.get_by_role("button", name="Import", exact=True).click()
    wait_for_address(page, "/explore", dataset="our-pets")
    expect(page.get_by_role("heading", name="our-pets", level=1)).to_be_visible()
    expect(page.get_by_text("31 train images and 10 test images of 2 classes, 24 x 24 pixels, colour.")).to_be_visible()
    expect(page.get_by_text("1 bad file left out.")).to_be_visible()
    assert list((prepared_root() / ".uploads").iterdir()) == []
    expect(tiles(page)).to_have_count(31)
    page.go_back()
    wait_until_settled(page)
    expect(page.get_by_test_id("stException")).to_have_count(0)

    # Its images, one of them large.
    open_page(page, f"{server.url}/explore?dataset=our-pets&split=test", "our-pets")
    expect(tiles(page)).to_have_count(10)
    tiles(page).first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("File: test/")).to_be_visible()
    expect(dialog.get_by_text(re.compile("Originally: 24 x 24 pixels, RGB, .* kB"))).to_be_visible()
    assert dialog.get_by_test_id("stImage").locator("img").bounding_box()["width"] == 312
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    # The mean of a class, which leads to its images.
    look_at(page, "Average")
    expect(tiles(page, "mean images")).to_have_count(2)
    tiles(page, "variation of each class").nth(1).click()
    expect(page.get_by_text(f"5 of 5 test images of {CLASSES[1]}, drawn")).to_be_visible()
    expect(tiles(page)).to_have_count(5)
    wait_for_address(page, "/explore", dataset="our-pets", split="test", **{"class": CLASSES[1]})

    look_at(page, "Shape")
    expect(page.get_by_text("All were 24 x 24 pixels")).to_be_visible()
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(2)

    # The copy that was planted.
    look_at(page, "Copies and leaks")
    expect(page.get_by_text("1 of 10 test images has a twin in train (10.00%).")).to_be_visible()
    expect(tiles(page)).to_have_count(1)
    tiles(page).first.click()
    expect(page.get_by_role("dialog").get_by_text("· test/<b>dogs/31.png")).to_be_visible()
    page.keyboard.press("Escape")

    look_at(page, "Odd ones")
    expect(tiles(page)).to_have_count(1)
    expect(tiles(page).first).to_contain_text("blank")

    look_at(page, "Bad files")
    with page.expect_download() as download:
        page.get_by_role("button", name="Bad files as CSV").click()
    assert download.value.suggested_filename == "our-pets-bad-files.csv"
    (row,) = csv.DictReader(download.value.path().read_text().splitlines())
    assert row["file"] == f"train/{CLASSES[0]}/bad.png"
    assert row["reason"].startswith("This is not a picture that can be read.")

    # All of it was between the two of them, also where a name is markup.
    assert traffic.beyond_this_machine() == []
    assert traffic.complaints == []


@pytest.mark.sweep
def test_a_folder_is_imported_by_its_path_and_its_dataset_deleted(
    server: Server, page: Page, traffic: Traffic, no_imports: None, tmp_path: Path
) -> None:
    pictures = write(tmp_path / "pets", picture_files())
    open_page(page, f"{server.url}/explore?import=-", "Import your own images")
    path = page.get_by_role("textbox", name="Folder, zip, tar or CSV")
    path.fill("/nowhere/at/all")
    path.press("Enter")
    expect(page.get_by_text("There is no /nowhere/at/all. Name a folder, a zip, a tar or a CSV")).to_be_visible()
    path.fill(str(pictures))
    path.press("Enter")
    page.get_by_role("button", name="Import", exact=True).click()
    wait_for_address(page, "/explore", dataset="pets")
    expect(page.get_by_text("31 train images and 10 test images")).to_be_visible()
    assert len(open_dataset("pets").splits["train"]) == 31

    page.get_by_role("button", name="Delete this dataset").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("heading", name="Digits", level=1)).to_be_visible()
    assert not (prepared_root() / "pets").exists()
    assert len([file for file in pictures.rglob("*") if file.is_file()]) == 42
    assert traffic.complaints == []


@pytest.mark.sweep
def test_every_view_fits_a_narrow_window(server: Server, page: Page, no_imports: None, tmp_path: Path) -> None:
    files = {name.replace("cats", "cats" * 12): content for name, content in picture_files().items()}
    import_pictures("animals", write(tmp_path / "pets", files))
    page.set_viewport_size({"width": 420, "height": 800})
    open_page(page, f"{server.url}/explore?dataset=animals", "animals")
    for view in VIEWS:
        look_at(page, view)
        assert_fits(page, view)
    open_page(page, f"{server.url}/explore?import=-", "Import your own images")
    path = page.get_by_role("textbox", name="Folder, zip, tar or CSV")
    path.fill(str(tmp_path / "pets"))
    path.press("Enter")
    expect(page.get_by_text("Understood as")).to_be_visible()
    wait_until_settled(page)
    assert_fits(page, "import")
