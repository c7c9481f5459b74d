"""A real browser on a real server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import PATIENCE, Server, Traffic, find_chromium
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from processes import ending_its_runs

from engine.runs.run import Run, open_run

# No GPU, and nothing that a browser does on its own behalf.
CHROMIUM_SETTINGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def chromium() -> str:
    executable = find_chromium()
    if not executable:
        reason = "there is no Chromium: install one, or run: playwright install chromium"
        (pytest.fail if os.environ.get("LOUPE_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    return executable


@pytest.fixture(scope="session")
def server(chromium: str, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    runs = tmp_path_factory.mktemp("server") / "runs"
    server = Server(digits_data, runs)
    with ending_its_runs(digits_data, runs):
        server.start()
        yield server
        server.kill()


@pytest.fixture(autouse=True)
def folders_of_the_server(own_folders: None, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_DATA", str(server.data))
    monkeypatch.setenv("LOUPE_RUNS", str(server.runs))


@pytest.fixture
def finished(server: Server, trained: Run) -> Run:
    """A finished run, among those of the server."""
    shutil.copytree(trained.path, server.runs / trained.id, dirs_exist_ok=True)
    return open_run(trained.id)


# Not for the whole session: where it is, asyncio cannot be used by others.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_SETTINGS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrowserContext]:
    """A browser without a past; where the test fails, it leaves pictures of its pages in the test's folder."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    yield context
    if request.node.stash.get(FAILED, False):
        for number, page in enumerate(context.pages):
            page.screenshot(path=tmp_path / f"page-{number}.png", full_page=True)
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def traffic(page: Page) -> Traffic:
    """What the page asks for from now on, and what it complains of."""
    traffic = Traffic()
    traffic.watch(page)
    return traffic
