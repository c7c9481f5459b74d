"""What the tests in a browser share: the server, and finding one's way on a page."""

import http.client
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright
from processes import python, wait_until

# Other work on the machine, torch above all, may take a page's time for long.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


class Server:
    """The app as people start it, with data and runs of its own."""

    process: subprocess.Popen

    def __init__(self, data: Path, runs: Path):
        self.data, self.runs = data, runs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        arguments = ("run", "streamlit_app.py", "--server.port", str(self.port), "--server.headless", "true")
        folders = {"LOUPE_DATA": str(self.data), "LOUPE_RUNS": str(self.runs)}
        with (self.runs.parent / "server.txt").open("a") as output:
            self.process = python(
                "-m", "streamlit", *arguments, env=os.environ | folders, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self.is_up)

    def is_up(self) -> bool:
        assert self.process.poll() is None, "the server has ended: see server.txt beside its runs"
        connection = http.client.HTTPConnection("localhost", self.port, timeout=5)
        try:
            connection.request("GET", "/_stcore/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def find_chromium() -> str | None:
    """Find a Chromium that is installed, or else the one that Playwright may have got."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        with sync_playwright() as playwright:
            found = shutil.which(playwright.chromium.executable_path)
    return found


# Where a page is. page.url lags behind what scripts do to the address.


def address(page: Page) -> tuple[str, dict[str, str]]:
    """Return the path and the choices of a page's address."""
    parts = urlsplit(page.evaluate("location.href"))
    return parts.path, dict(parse_qsl(parts.query))


def wait_for_address(page: Page, path: str, **choices: str) -> None:
    """Wait until a page is at a path, with these choices in its address at least."""
    page.wait_for_function(
        """([path, choices]) => location.pathname === path && Object.entries(choices).every(
            ([name, value]) => new URLSearchParams(location.search).get(name) === value)""",
        arg=[path, choices],
        timeout=PATIENCE,
    )


def wait_until_settled(page: Page) -> None:
    """Wait until a page has nothing left to do: not for one that watches a run, which always has."""
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached()
    expect(page.locator("[data-testid=stSkeleton], [data-stale=true]")).to_have_count(0)


def open_page(page: Page, url: str, title: str) -> None:
    page.goto(url)
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()


def follow(page: Page, name: str) -> None:
    """Follow a link of the sidebar."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    wait_for_address(page, f"/{name.lower()}")


# What is on a page


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix as it is drawn. mark: its place in the table."""

    true: str
    predicted: str
    images: int
    mark: Locator

    def click_centre(self) -> None:
        self.mark.click()

    def click_corner(self, corner: str = "lower right") -> None:
        """Click within a corner, two pixels from both sides."""
        box = self.mark.bounding_box()
        assert box
        across = box["width"] - 2 if "right" in corner else 2
        down = box["height"] - 2 if "lower" in corner else 2
        self.mark.click(position={"x": across, "y": down})


def matrix(page: Page) -> list[Cell]:
    """Return the cells of the confusion matrix, row by row, as they are drawn; it has to show counts."""
    wait_until_settled(page)
    grid = page.get_by_role("grid", name="confusion matrix")
    classes, counts = grid.evaluate(
        """(table) => {
            const [head, ...rows] = Array.from(table.rows, (row) => Array.from(row.cells).slice(1));
            return [head.map((cell) => cell.title), rows.map((row) => row.map((cell) => cell.textContent))];
        }"""
    )
    rows = grid.locator("tr")
    return [
        Cell(true, predicted, int(count.replace(",", "") or 0), rows.nth(down).locator("td").nth(across))
        for down, (true, row) in enumerate(zip(classes, counts, strict=True), start=1)
        for across, (predicted, count) in enumerate(zip(classes, row, strict=True))
    ]


def tiles(page: Page, name: str = "") -> Locator:
    """Return the tiles of the contact sheet of a name, or of all there are."""
    return (page.get_by_role("group", name=name) if name else page.locator(".sheet")).get_by_role("button")


def number(page: Page, pattern: str) -> int:
    """Return the number that a text on the page has where the pattern has a group."""
    text = page.get_by_test_id("stMain").get_by_text(re.compile(pattern)).first.inner_text()
    return int(re.search(pattern, text)[1].replace(",", ""))


def assert_fits(page: Page, view: str) -> None:
    """Assert that nothing of a page is wider than its window, and that nothing went wrong. view: named if so."""
    expect(page.get_by_test_id("stException")).to_have_count(0)
    for place in ("document.documentElement", "document.querySelector('[data-testid=stMain]')"):
        width, room = page.evaluate(f"[{place}.scrollWidth, {place}.clientWidth]")
        assert width <= room, f"{place} of {view}"
        assert room > 300


# Streamlit looks for its server below the page's path first, and then at the root.
KNOWN = re.compile(r"/\w+/_stcore/(health|host-config)$")


@dataclass
class Traffic:
    """What pages ask for, and what they complain of."""

    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.note)

    def note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not KNOWN.search(message.location["url"]):
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def beyond_this_machine(self) -> list[str]:
        places = [urlsplit(url) for url in self.asked]
        return [
            place.geturl()
            for place in places
            if place.scheme not in ("data", "blob") and place.hostname not in ("localhost", "127.0.0.1")
        ]
