"""Giving a model pictures of one's own, and taking it away."""

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Server, Traffic, address, assert_fits, open_page, wait_for_address, wait_until_settled
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from engine.data.dataset import open_dataset
from engine.evaluation.predictions import load_predictions
from engine.runs.run import Run


@pytest.fixture(autouse=True)
def all_of_it_was_between_the_two_of_them(traffic: Traffic) -> Iterator[None]:
    yield
    assert traffic.beyond_this_machine() == []
    assert traffic.complaints == []


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def digit_files(count: int) -> list[dict]:
    """Return test images as a browser is given files."""
    images = open_dataset("digits").splits["test"].images
    return [
        {"name": f"no {row}.png", "mimeType": "image/png", "buffer": png(images[row, ..., 0])} for row in range(count)
    ]


def open_classify(page: Page, server: Server, run: Run, way: str = "Files") -> None:
    open_page(page, f"{server.url}/classify?run={run.id}&from={way}", "Classify")
    wait_until_settled(page)


def answer(page: Page) -> str:
    """Return the answer on the card of the picture that is looked into."""
    heading = page.get_by_role("heading", level=3)
    expect(heading).to_have_count(1)
    return heading.inner_text()


def test_an_uploaded_picture_is_answered_as_in_the_evaluation(page: Page, server: Server, finished: Run) -> None:
    open_classify(page, server, finished)
    page.locator("input[type=file]").set_input_files(digit_files(1))
    expect(page.get_by_text("As the model sees it: 8\u00a0x\u00a08")).to_be_visible()
    expect(page.get_by_text("Bright where the evidence is")).to_be_visible()
    expect(page.get_by_text(re.compile("Like what it was trained on|Unlike anything in training"))).to_be_visible()
    assert answer(page) == str(load_predictions(finished.predictions("test")).predicted[0])
    for width in (1280, 420):
        page.set_viewport_size({"width": width, "height": 900})
        wait_until_settled(page)
        assert_fits(page, f"an answer at {width}")


def test_what_is_no_picture_is_told_in_a_sentence(page: Page, server: Server, finished: Run) -> None:
    open_classify(page, server, finished)
    name = "<img src=x onerror=alert(1)>**猫**.png"
    page.locator("input[type=file]").set_input_files([{"name": name, "mimeType": "image/png", "buffer": b"nothing"}])
    problem = page.get_by_role("alert").first
    expect(problem).to_contain_text("This is not a picture that can be read.")
    expect(problem).to_contain_text(name)


def test_a_drawing_is_answered(page: Page, server: Server, finished: Run) -> None:
    open_classify(page, server, finished, "Draw")
    box = page.locator("canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8, steps=10)
    page.mouse.up()
    expect(page.get_by_text("Read as dark ink on light")).to_be_visible()
    assert answer(page) in "0123456789"
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("heading", level=3)).to_have_count(0)


def test_a_camera_that_is_refused_is_no_dead_end(page: Page, server: Server, finished: Run) -> None:
    open_classify(page, server, finished, "Camera")
    expect(page.get_by_text("Where that was refused, allow it beside the page's address")).to_be_visible()
    page.get_by_role("radio", name="Files").or_(page.get_by_role("button", name="Files")).first.click()
    expect(page.locator("input[type=file]")).to_be_attached()


def test_many_pictures_are_classified_while_the_page_is_left_and_found_again(
    page: Page, server: Server, finished: Run
) -> None:
    open_classify(page, server, finished)
    page.locator("input[type=file]").set_input_files(digit_files(60))
    page.wait_for_function("new URLSearchParams(location.search).has('job')")
    job = address(page)[1]["job"]
    page.reload()
    expect(page.get_by_role("button", name="Classify others")).to_be_visible()
    expect(page.get_by_text("60 pictures classified")).to_be_visible()
    wait_for_address(page, "/classify", job=job)
    with page.expect_download() as download:
        page.get_by_role("button", name="Answers as CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    labels = [line.split(",")[1] for line in lines[1:]]
    assert labels == [str(label) for label in load_predictions(finished.predictions("test")).predicted[:60]]
    page.get_by_role("button", name="Classify others").click()
    expect(page.locator("input[type=file]")).to_be_attached()


@pytest.mark.sweep
def test_a_model_is_taken_away_and_answers_alike_on_its_own(
    page: Page, context: BrowserContext, server: Server, finished: Run, tmp_path: Path
) -> None:
    open_page(page, f"{server.url}/evaluate?run={finished.id}&look=Take+away", "Evaluate")
    page.get_by_role("button", name="Export as ONNX").click()
    expect(page.get_by_text("loaded again in a process without Loupe")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("^download ONNX|ONNX, ")).click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    exported = tmp_path / finished.id
    assert sorted(path.name for path in exported.iterdir()) == ["MODEL_CARD.md", "model.onnx", "predict.py"]
    pictures = []
    for given in digit_files(5):
        (tmp_path / given["name"]).write_bytes(given["buffer"])
        pictures.append(str(tmp_path / given["name"]))
    ended = subprocess.run(
        [sys.executable, "-I", str(exported / "predict.py"), "--json", *pictures],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(ended.stdout)
    expected = load_predictions(finished.predictions("test"))
    assert [row["label"] for row in rows] == [str(label) for label in expected.predicted[:5]]
    assert [row["confidence"] for row in rows] == pytest.approx(expected.confidence[:5].tolist(), abs=1e-4)
    with page.expect_download() as download:
        page.get_by_role("button", name="Training script").click()
    script = Path(download.value.path()).read_text()
    assert "import torch" in script
    assert "import engine" not in script
