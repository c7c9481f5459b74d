"""A run that takes longer than any page, tab or server."""

import csv
import os
import re
from collections.abc import Iterator

import pytest
from browsing import PATIENCE, Server, address, follow, number, open_page, wait_for_address, wait_until_settled
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect
from processes import ending_its_runs, wait_until, watching_launches

from engine.recipes.recipe import change, find_recipe
from engine.runs.run import Run, list_runs, open_run, start

STEP = r"step ([\d,]+) of"


@pytest.fixture(scope="module")
def runs_end(server: Server) -> Iterator[None]:
    with ending_its_runs(server.data, server.runs):
        yield


@pytest.fixture
def going_on(runs_end: None) -> Run:
    """A run in mid-training that would go on for hours; tests share it as long as it does."""
    run = next((run for run in list_runs() if run.status() == "running"), None)
    if not run:
        with watching_launches() as launched:
            run = start(change(find_recipe("digits-quick"), {"epochs": 10_000, "log_every": 50}))
        os.setpriority(os.PRIO_PROCESS, launched.latest.pid, 19)  # the browser comes first
    wait_until(lambda: run.history().epochs)
    return run


def stop(page: Page) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name="Stop").click()  # Streamlit has one too


def expect_progress(page: Page) -> None:
    """Wait until a page has shown the run at two steps, by itself."""
    expect(page.get_by_test_id("stMain").get_by_text(re.compile(STEP))).to_be_visible()
    before = number(page, STEP)
    page.wait_for_function(
        "([before, pattern]) => Number(document.body.innerText.match(pattern)?.[1].replaceAll(',', '')) > before",
        arg=[before, STEP],
    )


def test_a_page_finds_its_run_when_it_is_reloaded_and_so_does_a_second_tab(
    server: Server, context: BrowserContext, page: Page, going_on: Run
) -> None:
    open_page(page, f"{server.url}/train?run={going_on.id}", "Train")
    expect_progress(page)
    page.reload()
    expect(page.get_by_text(f"{going_on.id} · running")).to_be_visible()
    assert address(page) == ("/train", {"run": going_on.id})

    second = context.new_page()
    open_page(second, f"{server.url}/train", "Train")
    wait_for_address(second, "/train", run=going_on.id)
    expect(second.get_by_text(f"{going_on.id} · running")).to_be_visible()
    expect_progress(second)
    expect_progress(page)


@pytest.mark.sweep
def test_a_second_run_waits_for_the_first(server: Server, page: Page, going_on: Run) -> None:
    open_page(page, f"{server.url}/train", "Train")
    wait_for_address(page, "/train", run=going_on.id)
    page.get_by_role("button", name="Start training").click()
    wait_until(lambda: list_runs()[0] != going_on)
    second = list_runs()[0]
    wait_for_address(page, "/train", run=second.id)
    expect(page.get_by_text(f"{second.id} · queued")).to_be_visible()
    expect(page.get_by_text(f"Queued: waits for {going_on.id}.")).to_be_visible()
    expect(page.get_by_role("link", name=f"Also going on: {going_on.id} (running)")).to_be_visible()
    stop(page)
    expect(page.get_by_text(f"{second.id} · stopped")).to_be_visible()
    expect(page.get_by_text("Stopped before its first step, so there is no model.")).to_be_visible()
    assert going_on.status() == "running"


@pytest.mark.sweep
def test_a_run_is_stopped_and_has_a_model(server: Server, page: Page, going_on: Run) -> None:
    open_page(page, f"{server.url}/train", "Train")
    stop(page)
    expect(page.get_by_text(f"{going_on.id} · stopped")).to_be_visible()
    ended = going_on.history().ended
    expect(page.get_by_text(f"{ended.epochs} of 10,000 epochs finished.")).to_be_visible()
    page.get_by_role("link", name="Evaluate it").click()
    wait_for_address(page, "/evaluate", run=going_on.id)
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(f"{ended.test_accuracy:.2%}")
    follow(page, "Classify")
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()


def status_of(page: Page, run: Run, status: str) -> None:
    expect(page.get_by_text(f"{run.id} · {status}")).to_be_visible()


def set_number(page: Page, label: str, number: int) -> None:
    field = page.get_by_role("spinbutton", name=label, exact=True)
    field.fill(str(number))
    field.press("Enter")
    wait_until_settled(page)


@pytest.mark.sweep
def test_a_run_from_its_start_to_more_epochs_than_it_was_to_have(server: Server, runs_end: None, page: Page) -> None:
    with ending_its_runs(server.data, server.runs):
        pass  # or it would wait for the one that other tests share
    open_page(page, f"{server.url}/train?dataset=digits", "Train")
    set_number(page, "Epochs", 9000)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_function("new URLSearchParams(location.search).has('run')", timeout=PATIENCE)
    run = open_run(address(page)[1]["run"])
    expect_progress(page)

    # The page is opened again.
    page.reload()
    status_of(page, run, "running")
    expect_progress(page)

    # The server is, too, and the run does not wait for it.
    server.kill()
    epochs = len(run.history().epochs)
    wait_until(lambda: len(run.history().epochs) > epochs)
    assert run.status() == "running"
    server.start()
    expect_progress(page)
    assert address(page)[1]["run"] == run.id

    # Stopped, and resumed where it was.
    stop(page)
    status_of(page, run, "stopped")
    stopped_at = run.history().ended.step
    page.get_by_role("button", name="Resume").click()
    expect_progress(page)
    assert number(page, STEP) > stopped_at
    stop(page)
    status_of(page, run, "stopped")

    # Further, by so few epochs that it gets to its end, and further again.
    for more in (2, 1):
        made = len(run.history().epochs)
        set_number(page, "More epochs", more)
        page.get_by_role("button", name="Train further").click()
        expect(page.get_by_text(f"{made + more:,} of {made + more:,} epochs finished.")).to_be_visible()
        status_of(page, run, "finished")
        assert run.status() == "finished"
        assert len(run.history().epochs) == made + more


@pytest.mark.sweep
def test_charts_are_saved_as_pictures_and_the_history_as_a_table(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/train?run={finished.id}", "Train")
    wait_until_settled(page)
    cameras = page.locator(".modebar-btn[data-title^='Download']")
    expect(cameras.nth(3)).to_be_attached()
    saved = set()
    for camera in cameras.all():  # there may be one more, of the search for a learning rate that another test has left
        with page.expect_download() as download:
            camera.click()
        saved.add(download.value.suggested_filename)
        with Image.open(download.value.path()) as picture:
            assert picture.width > 600, "twice the size on the page"
    assert {f"{finished.id}-{name}.png" for name in ("loss", "accuracy", "learning-rate", "pace")} <= saved
    with page.expect_download() as download:
        page.get_by_role("button", name="History as CSV").click()
    assert download.value.suggested_filename == f"{finished.id}-history.csv"
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    history = finished.history()
    assert len(rows) == len(history.steps) + len(history.epochs)
    assert float(rows[-1]["val_accuracy"]) == history.epochs[-1].val_accuracy
