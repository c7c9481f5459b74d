import csv
import io
import re

import numpy as np
import pytest
from browsing import (
    Server,
    Traffic,
    address,
    follow,
    matrix,
    open_page,
    tiles,
    wait_for_address,
    wait_until_settled,
)
from PIL import Image
from playwright.sync_api import Page, expect

from engine.data.dataset import open_dataset
from engine.evaluation.predictions import load_predictions
from engine.runs.run import list_runs


def test_from_the_quick_start_to_a_picture_of_ones_own(server: Server, page: Page, traffic: Traffic) -> None:
    # Home, and the quick start.
    open_page(page, server.url, "Loupe")
    page.get_by_role("button", name="Train on the digits").click()
    wait_for_address(page, "/train", then="gallery")
    run = list_runs()[0]
    assert address(page) == ("/train", {"run": run.id, "then": "gallery"})
    expect(page.get_by_text(run.id).first).to_be_visible()
    expect(page.get_by_test_id("stProgress")).to_be_visible()

    # It ends by itself, and its mistakes are shown.
    wait_for_address(page, "/gallery", run=run.id)
    expect(page.get_by_role("heading", name="Gallery")).to_be_visible()
    predictions = load_predictions(run.predictions("test"))
    wrong = len(predictions) - int(predictions.correct.sum())
    expect(page.get_by_text(f"{wrong} mistakes in 360 test images.")).to_be_visible()
    expect(tiles(page)).to_have_count(wrong)

    # The way back does not lead here again.
    page.go_back()
    wait_for_address(page, "/train", run=run.id)
    expect(page.get_by_role("link", name="See its mistakes")).to_be_visible()

    # The evaluation of the same run.
    follow(page, "Evaluate")
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(f"{predictions.accuracy:.2%}")
    expect(page.get_by_text(f"{360 - wrong} of 360, 95% interval")).to_be_visible()
    assert address(page) == ("/evaluate", {"run": run.id})
    cells = matrix(page)
    assert sum(cell.images for cell in cells) == 360

    # A cell, clicked on its number, opens its images.
    (threes,) = [cell for cell in cells if cell.true == cell.predicted == "3"]
    threes.click_centre()
    wait_for_address(page, "/gallery", true="3", predicted="3", show="all")
    assert address(page)[1] == {"run": run.id, "true": "3", "predicted": "3", "show": "all"}
    expect(tiles(page)).to_have_count(threes.images)
    expect(tiles(page).filter(has_text=re.compile("^3[^→]*$"))).to_have_count(threes.images)

    # Back, and another cell, clicked near its corner: the fullest one that is not of the diagonal.
    page.go_back()
    wait_for_address(page, "/evaluate")
    cell = max((cell for cell in matrix(page) if cell.true != cell.predicted), key=lambda cell: cell.images)
    cell.click_corner()
    wait_for_address(page, "/gallery", true=cell.true, predicted=cell.predicted, show="all")
    if cell.images:
        expect(tiles(page)).to_have_count(cell.images)
        expect(tiles(page).filter(has_text=f"{cell.true} → {cell.predicted}")).to_have_count(cell.images)
    else:
        expect(page.get_by_text(f"There are no images of true class {cell.true} taken for")).to_be_visible()

    # A tile opens its image, large.
    page.goto(f"{server.url}/gallery?run={run.id}&show=all&true=7")
    tiles(page).nth(4).click()
    sevens = int((predictions.labels == predictions.classes.index("7")).sum())
    expect(page.get_by_text(f"5 of {sevens} images of true class 7")).to_be_visible()
    expect(page.get_by_text("7 (true)")).to_be_visible()
    shown = page.get_by_test_id("stImage").locator("img").first.bounding_box()
    assert shown["width"] == pytest.approx(shown["height"])
    assert shown["width"] > 200, "25 times that of the file"
    wait_until_settled(page)
    page.keyboard.press("Backspace")
    expect(tiles(page)).to_have_count(sevens)

    # Pictures of one's own: a digit, and what is none.
    follow(page, "Classify")
    wait_for_address(page, "/classify", run=run.id)
    row = int(np.flatnonzero(predictions.correct)[0])
    picture = io.BytesIO()
    Image.fromarray(open_dataset("digits").splits["test"].images[predictions.indices[row], ..., 0]).save(picture, "PNG")
    page.locator("input[type=file]").set_input_files(
        [
            {"name": "digit.png", "mimeType": "image/png", "buffer": picture.getvalue()},
            {"name": "text.png", "mimeType": "image/png", "buffer": b"This is no picture."},
            {"name": "empty.png", "mimeType": "image/png", "buffer": b""},
        ]
    )
    answer = predictions.classes[predictions.predicted[row]]
    expect(page.get_by_test_id("stMain").get_by_role("heading", name=answer, exact=True)).to_be_visible()
    expect(page.get_by_text("As it came: 8\u00a0x\u00a08 pixels")).to_be_visible()
    wait_until_settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Answers as CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [(line["file"], line["label"]) for line in rows] == [
        ("digit.png", answer),
        ("text.png", ""),
        ("empty.png", ""),
    ]

    # All of it was between the two of them.
    assert traffic.beyond_this_machine() == []
    assert traffic.complaints == []
