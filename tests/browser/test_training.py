"""A run that takes longer than any page, tab or server."""

import os
import re
from collections.abc import Iterator

import pytest
from browsing import Server, address, follow, number, open_page, wait_for_address
from playwright.sync_api import BrowserContext, Page, expect
from processes import ending_its_runs, wait_until, watching_launches

from engine.recipes import change, find_recipe
from engine.runs import Run, list_runs, start

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


def test_a_run_goes_on_without_the_server_and_the_page_finds_it(server: Server, page: Page, going_on: Run) -> None:
    open_page(page, f"{server.url}/train?run={going_on.id}", "Train")
    expect_progress(page)
    server.kill()
    epochs = len(going_on.history().epochs)
    wait_until(lambda: len(going_on.history().epochs) > epochs)
    assert going_on.status() == "running"
    server.start()
    expect_progress(page)
    assert address(page) == ("/train", {"run": going_on.id})


def test_a_second_run_waits_for_the_first(server: Server, page: Page, going_on: Run) -> None:
    open_page(page, f"{server.url}/train", "Train")
    wait_for_address(page, "/train", run=going_on.id)
    page.get_by_role("button", name="Start training").click()
    wait_until(lambda: list_runs()[0] != going_on)
    second = list_runs()[0]
    wait_for_address(page, "/train", run=second.id)
    expect(page.get_by_text(f"{second.id} · queued")).to_be_visible()
    expect(page.get_by_text("Queued: another run has the device.")).to_be_visible()
    expect(page.get_by_role("link", name=f"Also going on: {going_on.id} (running)")).to_be_visible()
    stop(page)
    expect(page.get_by_text(f"{second.id} · stopped")).to_be_visible()
    expect(page.get_by_text("Stopped before its first step, so there is no model.")).to_be_visible()
    assert going_on.status() == "running"


def test_a_run_is_stopped_and_has_a_model(server: Server, page: Page, going_on: Run) -> None:
    open_page(page, f"{server.url}/train", "Train")
    stop(page)
    expect(page.get_by_text(f"{going_on.id} · stopped")).to_be_visible()
    ended = going_on.history().ended
    expect(page.get_by_text(f"{ended.epochs} of 10000 epochs finished.")).to_be_visible()
    page.get_by_role("link", name="Evaluate it").click()
    wait_for_address(page, "/evaluate", run=going_on.id)
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(f"{ended.test_accuracy:.2%}")
    follow(page, "Classify")
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()
