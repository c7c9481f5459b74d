"""What holds for every page in a browser."""

import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from browsing import (
    Server,
    Traffic,
    address,
    assert_fits,
    follow,
    open_page,
    tiles,
    wait_for_address,
    wait_until_settled,
)
from damage import copy_of
from playwright.sync_api import Page, expect

from engine.runs.run import Run
from ui.wording import WORD_JOINER

TITLES = {
    "": "Loupe",
    "explore": "Digits",
    "train": "Train",
    "evaluate": "Evaluate",
    "gallery": "Gallery",
    "classify": "Classify",
    "runs": "Runs",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "train" else pytest.mark.sweep) for name in TITLES]
)
def test_a_page_fits_a_narrow_window_and_asks_only_this_machine(
    server: Server, page: Page, traffic: Traffic, finished: Run, name: str
) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    page.emulate_media(color_scheme="dark")
    open_page(page, f"{server.url}/{name}?run={finished.id}", TITLES[name])
    wait_until_settled(page)
    assert_fits(page, name)
    expect(page.get_by_role("heading", level=1)).to_be_in_viewport()
    assert traffic.beyond_this_machine() == []
    assert traffic.complaints == []
    assert f"{server.url}/{name}?run={finished.id}" in traffic.asked
    assert f"ws://localhost:{server.port}/_stcore/stream" in traffic.asked


def test_the_run_that_is_looked_at_is_kept_from_page_to_page(server: Server, page: Page, finished: Run) -> None:
    newer = copy_of(finished, "29990101-000000-digits-quick")
    open_page(page, f"{server.url}/evaluate?run={finished.id}", "Evaluate")
    for name in ("Classify", "Gallery"):
        follow(page, name)  # at once, while the last page may still be at work
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        expect(page.get_by_text(f"{finished.id} ·")).to_be_visible()
        wait_for_address(page, f"/{name.lower()}", run=finished.id)
    shutil.rmtree(newer.path)


def test_the_filters_of_the_gallery_are_in_its_address(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/gallery?run={finished.id}&show=all", "Gallery")
    expect(tiles(page)).to_have_count(60)
    page.get_by_label("True class").click()
    page.get_by_role("option", name="5").click()
    wait_for_address(page, "/gallery", true="5")
    assert address(page)[1] == {"run": finished.id, "show": "all", "true": "5"}
    expect(tiles(page)).to_have_count(37)
    expect(tiles(page).filter(has_text=re.compile("^5"))).to_have_count(37)


def test_the_page_of_the_gallery_is_in_its_address(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/gallery?run={finished.id}&show=all&page=6", "Gallery")
    expect(page.get_by_text("301 to 360 of 360 images")).to_be_visible()
    page.get_by_test_id("stPagination").get_by_role("button", name="5").click()
    expect(page.get_by_text("241 to 300 of 360 images")).to_be_visible()
    page.wait_for_function("new URLSearchParams(location.search).get('page') === '5'")
    page.get_by_label("True class").click()
    page.get_by_role("option", name="5").click()
    expect(page.get_by_text("1 to 37 of 37 images of true class 5")).to_be_visible()
    wait_for_address(page, "/gallery", true="5")
    page.wait_for_function("!new URLSearchParams(location.search).has('page')")


def test_a_tile_is_reached_and_opened_with_the_keyboard(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/gallery?run={finished.id}&show=all", "Gallery")
    first, second = tiles(page).nth(0), tiles(page).nth(1)
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(second).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(first).not_to_be_focused()
    second.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 of 360 images", exact=True)).to_be_visible()


def test_a_row_of_the_table_opens_its_run_and_the_way_back_leads_home(
    server: Server, page: Page, finished: Run
) -> None:
    open_page(page, server.url, "Loupe")
    # It is drawn on a canvas: the boxes to tick are its first column, below one row of titles.
    page.get_by_test_id("stDataFrameResizable").click(position={"x": 15, "y": 52})
    wait_for_address(page, "/evaluate")
    page.go_back()
    wait_for_address(page, "/")
    expect(page.get_by_role("button", name="Train on the digits")).to_be_visible()


MARKUP = (
    "![a](https://outside.example/x.png) [b](https://outside.example) :red[**c**] :material/home: www.outside.example"
)


@pytest.mark.parametrize("name", ["train", "evaluate", "gallery"])
def test_text_of_an_address_is_shown_as_it_is(
    server: Server, page: Page, traffic: Traffic, finished: Run, name: str
) -> None:
    open_page(page, f"{server.url}/{name}?run={quote(MARKUP)}", TITLES[name])
    alert = page.get_by_test_id("stAlert").first
    expect(alert).to_be_visible()
    assert MARKUP in alert.inner_text().replace(WORD_JOINER, "")
    assert alert.get_by_role("link").count() == alert.get_by_role("img", include_hidden=False).count() == 0
    wait_until_settled(page)
    assert traffic.beyond_this_machine() == []


def test_a_new_server_that_is_first_asked_for_a_page_goes_through_the_entry_script(
    digits_data: Path, tmp_path: Path, page: Page
) -> None:
    server = Server(digits_data, tmp_path / "runs")
    server.start()
    try:
        open_page(page, f"{server.url}/explore?dataset=digits", "Digits")
        links = page.get_by_test_id("stSidebarNav").get_by_role("link")
        # Before each, the name of its icon, which its font draws as a picture.
        titles = ("Home", "Explore", "Train", "Evaluate", "Gallery", "Classify", "Runs")
        expect(links).to_have_text([re.compile(f"{title}$") for title in titles])
        assert address(page) == ("/explore", {"dataset": "digits"})
    finally:
        server.kill()
