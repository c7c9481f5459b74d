"""Measure how long the Evaluate and Gallery pages take, in the server and in a browser, and the server's memory.

    python -m benchmarks.page_speed [--quick] [--only times|photographs|memory] [--runs 12]

Everything is made in a temporary folder: 60,000 training and 10,000 test images of 28 x 28 pixels in 10 classes, 10,000
of each in 100 classes, and LeNet-5 trained on both for so short that over a thousand mistakes are left; 300 photographs
of 224 x 224 pixels with a frozen ResNet-50 of random weights. Memory is measured on copies of the first run, each with
weights of its own, so that each has features of its own.

- server: from the message that asks for a page run to the one that says that it is done. A client that does nothing
  else takes them from the server's websocket, each time in a new session, while no browser is at work: what a browser
  would add by drawing what has come so far is not the server's.
- load: from the start of the navigation to a settled page: the script is not running, nothing is stale or a
  placeholder, all charts, cells, tiles and pictures that are expected are there, and a frame has passed since. The
  browser's cache of files is filled by then, but for the first time; the session is new each time.
- press: from the press of the mouse or the key, in the session as it is, to the page so settled.

All of it beside the same of a page of a second server that has but a title and a button: that is Streamlit itself. The
pages and the plain one take turns; the first round, in which nothing is cached and modules are imported, is apart.

Memory is as Linux tells it: all that the process has in use (Rss), the same with what several processes share divided
among them (Pss), and what is no file's (Anonymous); pages of files are shared, and may go at any time.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import environ
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import streamlit
import torch
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from safetensors import safe_open
from safetensors.numpy import save_file
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from torchvision import models
from websockets.sync.client import connect

from benchmarks.environment import describe_machine
from benchmarks.kill_resume import wait_for_end
from benchmarks.train_speed import spread
from benchmarks.transfer_speed import make_photographs, make_weights
from engine.base.machine import load_average
from engine.base.paths import PROJECT_ROOT, child_environment
from engine.data.dataset import Split, open_dataset, save_dataset
from engine.evaluation.comparison import compare
from engine.evaluation.metrics import confusion_matrix
from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.selection import in_order
from engine.recipes.recipe import change, find_recipe
from engine.runs.run import Run, start

SIDE = 28
PHOTOGRAPHS = 300
PATIENCE_MS = 120_000
CHROMIUM_SETTINGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# The targets, in ms; the server's is for each view of Evaluate.
PAGE_RUN, CELL, IMAGE, HUNDRED = 400, 700, 700, 1000
MEMORY_MB = 300  # for each run that is opened

PLAIN = """
import streamlit as st

st.session_state.number = st.session_state.get("number", 0) + 1
st.title(f"Run {st.session_state.number}")
st.button("Again")
"""

PLOT, GRID, TILE = ".js-plotly-plot:has(.main-svg)", "[data-testid=data-grid-canvas]", ".sheet button"
PICTURE = "[data-testid=stImage] img"
WAYS = ("the first tile of a session", "ArrowRight", "another tile")

# Looks at the page once a frame. Components draw in roots of their own.
WATCH = (
    f"const PATIENCE = {PATIENCE_MS};"
    + """
const loupe = window.loupe = {};
for (const name of ["pointerdown", "keydown"])
  addEventListener(name, (event) => { loupe.began ??= event.timeStamp; }, true);
const all = (selector) => [document, ...[...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
  .map((host) => host.shadowRoot).filter(Boolean)].flatMap((root) => [...root.querySelectorAll(selector)]);
const settled = ({ path, says, shown }) => location.pathname === path
  && document.querySelector("[data-test-script-state=notRunning]")
  && !document.querySelector("[data-testid=stSkeleton], [data-stale=true]")
  && all("h1, h3, [data-testid=stCaptionContainer]").some((element) => element.textContent.trim().startsWith(says))
  && Object.entries(shown).every(([selector, count]) => all(selector).length === count)
  && all("img").every((image) => image.complete);
loupe.watch = (sight, began) => {
  loupe.began = began;
  loupe.progress = new Set();
  loupe.took = new Promise((resolve, reject) => {
    const until = performance.now() + PATIENCE;
    const look = () => {
      if (performance.now() > until) return reject(new Error(`never settled: ${JSON.stringify(sight)}`));
      for (const bar of all("[data-testid=stProgress]")) loupe.progress.add(bar.textContent);
      if (loupe.began === undefined || !settled(sight)) requestAnimationFrame(look);
      else requestAnimationFrame(() => resolve(performance.now() - loupe.began));
    };
    look();
  });
};
"""
)


@dataclass(frozen=True)
class Sight:
    """What a settled page is known by: its path, how a title or caption begins, and what is shown, how often."""

    path: str
    says: str
    shown: dict[str, int] = field(default_factory=dict)


class Times:
    """Times in ms by kind and name, in the order in which they were taken."""

    def __init__(self) -> None:
        self.of: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def print(self, targets: dict[tuple[str, str], int]) -> None:
        """Print all as a table; of each kind ``plain`` is what the others are compared to."""
        print(f"{'':54}{'first':>7}  {'median (lowest to highest), ms':32}{'/ plain':>8}  target")
        for (kind, name), values in self.of.items():
            plain, target = self.of[kind, "plain"][1:], targets.get((kind, name))
            ratio = np.median(values[1:]) / np.median(plain)
            reached = "reached" if target and np.median(values[1:]) < target else "MISSED"
            said = f"under {target}, {reached}" if target else ""
            print(f"{f'{kind}, {name}':54}{values[0]:7,.0f}  {spread(values[1:], ',.0f'):32}{ratio:8.1f}  {said}")


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen

    def address(self, page: str, **choices: str) -> str:
        return f"{self.url}/{page}?{urlencode(choices)}"

    def seconds_of_page_run(self, page: str, **choices: str) -> float:
        """Ask for a page in a new session, as a browser does; return how long the server took until it was all sent."""
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = urlencode(choices)
        stream = self.url.replace("http", "ws", 1) + "/_stcore/stream"
        with connect(stream, origin=self.url, max_size=None, compression=None) as connection:
            began = time.perf_counter()
            connection.send(message.SerializeToString())
            for received in connection:
                answer = ForwardMsg.FromString(received)
                # A page may end a run early, and ask for another.
                if (
                    answer.WhichOneof("type") == "script_finished"
                    and answer.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
                ):
                    return time.perf_counter() - began
        raise SystemExit(f"The server closed the connection while it ran {page}.")

    def memory(self) -> dict[str, float]:
        """Return its memory in MB by Linux's names."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        figures = {name: int(value.split()[0]) * 1024 / 1e6 for name, value in (line.split(":") for line in lines)}
        return {name: figures[name] for name in ("Rss", "Pss", "Anonymous")}


@contextmanager
def serving(script: Path, folder: Path) -> Iterator[Server]:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.port", str(port), "--server.headless", "true"]
    with (folder / "server.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(script), *options],
            cwd=PROJECT_ROOT,
            env=child_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Server(f"http://localhost:{port}", process)
        while not is_up(server):
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


def is_up(server: Server) -> bool:
    if server.process.poll() is not None:
        raise SystemExit("The server has ended before it was up.")
    try:
        return urlopen(f"{server.url}/_stcore/health", timeout=5).status == 200
    except URLError:
        return False


# What is measured


def make_images(name: str, classes: int, counts: dict[str, int], own: float) -> None:
    """Prepare a dataset of grey squares under noise. own: the part of them that does not follow from the class."""
    random = np.random.default_rng(0)
    typical = random.uniform(0, 255, (classes, 7, 7))
    splits = {}
    for split, count in counts.items():
        labels, images = np.arange(count) % classes, np.empty((count, SIDE, SIDE, 1), np.uint8)
        for first in range(0, count, 10_000):
            part = labels[first : first + 10_000]
            squares = (1 - own) * typical[part] + own * random.uniform(0, 255, (len(part), 7, 7))
            large = squares.repeat(SIDE // 7, axis=1).repeat(SIDE // 7, axis=2)
            noisy = large + random.normal(0, 25, large.shape)
            images[first : first + 10_000, ..., 0] = noisy.clip(0, 255)
        splits[split] = Split(images, labels)
    names = tuple(f"class {number}" for number in range(classes))
    save_dataset(name, names, splits, "generated by benchmarks.page_speed")


def make_ten() -> None:
    make_images("ten", 10, {"train": 60_000, "test": 10_000}, own=0.7)


def train(recipe: str, **settings: object) -> Run:
    run = start(change(find_recipe(recipe), settings))
    if wait_for_end(run) != "finished":
        raise SystemExit(run.explain(run.history()))
    return run


def train_on_photographs(folder: Path) -> Run:
    weights, model = folder / "resnet50.pth", models.resnet50()
    make_photographs("photographs", PHOTOGRAPHS)
    make_weights(weights, model, "photographs")
    return train("folder-quick", dataset="photographs", model="resnet50", weights=str(weights), epochs=1)


def copy_with_own_weights(run: Run, number: int) -> Run:
    """Copy a run; its weights are a little larger, so that no features of another are taken for its own."""
    other = Run(run.path.with_name(f"{run.id}-{number}"))
    shutil.copytree(run.path, other.path)
    with safe_open(run.weights, "numpy") as file:
        about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    larger = {
        name: value * np.float32(1 + number / 1000) if value.dtype == np.float32 else value
        for name, value in weights.items()
    }
    save_file(larger, other.weights, about)
    return other


def forget_features(dataset: str) -> None:
    for file in open_dataset(dataset).folder.glob("features-*"):
        file.unlink()


def predictions_of(run: Run) -> Predictions:
    return load_predictions(run.predictions("test" if run.predictions("test").exists() else "val"))


# How it is measured


@contextmanager
def new_context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(WATCH)
    yield context
    context.close()


def load(page: Page, url: str, sight: Sight) -> float:
    """Load a page by its address; returns the ms until it has settled."""
    page.goto(url, wait_until="commit")
    page.evaluate("sight => loupe.watch(sight, 0)", asdict(sight))
    return page.evaluate("() => loupe.took")


def press(page: Page, action: Callable[[], None], sight: Sight) -> float:
    """Do something on a page; returns the ms from the press of mouse or key until it has settled."""
    page.evaluate("sight => loupe.watch(sight)", asdict(sight))
    action()
    return page.evaluate("() => loupe.took")


def evaluate_views(run: Run, other: Run) -> dict[str, Sight]:
    """Say what each view of Evaluate shows of a run of few classes."""
    predictions = predictions_of(run)
    comparison = compare(predictions_of(other), predictions)
    flips = min(36, len(comparison.fixed)) + min(36, len(comparison.broken))
    sights = {
        "Confusions": ("Confusion matrix", {"td": len(predictions.classes) ** 2, ".sheet": 5, TILE: 25}),
        "Classes": ("Share of each class", {PLOT: 1, GRID: 2}),
        "Confidence": ("Is its confidence to be trusted?", {PLOT: 2}),
        "Training": ("Kept:", {PLOT: 2}),
        "Compare": ("Where they differ", {PLOT: 1, TILE: flips}),
        "Take away": ("Evaluate", {"[data-testid=stDownloadButton]": 5}),
    }
    gone = {"td": 0, PLOT: 0, GRID: 0}
    return {name: Sight("/evaluate", says, gone | shown) for name, (says, shown) in sights.items()}


def one_image(run: Run, place: int) -> Sight:
    """Say what the gallery of all images shows of the one at a place, from 1."""
    says = f"{place:,} of {len(predictions_of(run)):,} images"
    return Sight("/gallery", says, {PICTURE: 2, PLOT: 1, TILE: 12})


def compute_features(page: Page, server: Server, run: Run) -> tuple[float, int]:
    """Have the features of a run's training images computed on the page; returns ms and how often progress was told.

    What takes long is offered by a button, whose press is what begins it; what does not is done as the page loads.
    """
    url = server.address("gallery", run=run.id, show="all", image=str(row_at(run, 1)))
    page.goto(url, wait_until="commit")
    page.evaluate("sight => loupe.watch(sight, 0)", asdict(one_image(run, 1)))
    button = page.get_by_role("button", name="through the network")
    page.locator(TILE).first.or_(button).wait_for()
    taken = press(page, button.click, one_image(run, 1)) if button.is_visible() else page.evaluate("() => loupe.took")
    return taken, page.evaluate("loupe.progress.size")


def row_at(run: Run, place: int) -> int:
    """Return the row of the image at a place in the gallery of all images, from 1."""
    predictions = predictions_of(run)
    return int(in_order(predictions, np.arange(len(predictions)), "most confident")[place - 1])


def measure_evaluate(page: Page, server: Server, run: Run, other: Run, times: Times) -> None:
    """Take each view of Evaluate once: by the server alone, by its address, and by a click."""
    views, choices = evaluate_views(run, other), {"run": run.id, "with": other.id}
    page.goto("about:blank")
    for name in views:
        seconds = server.seconds_of_page_run("evaluate", look=name, **choices)
        times.of["server", f"Evaluate, {name}"].append(1000 * seconds)
    for name, sight in views.items():
        taken = load(page, server.address("evaluate", look=name, **choices), sight)
        times.of["load", f"Evaluate, {name}"].append(taken)
    for name, sight in views.items():  # the last was Take away
        view = page.get_by_test_id("stButtonGroup").first.get_by_text(name, exact=True)
        times.of["press", f"Evaluate, {name}"].append(press(page, view.click, sight))


def measure_gallery(page: Page, server: Server, run: Run, times: Times) -> None:
    """Take once the gallery, and the way from a cell of the matrix to its filled gallery."""
    predictions = predictions_of(run)
    page.goto("about:blank")
    times.of["server", "Gallery"].append(1000 * server.seconds_of_page_run("gallery", run=run.id))
    wrong = int((~predictions.correct).sum())
    mistakes = Sight("/gallery", f"1 to 60 of {wrong:,} mistakes", {TILE: 60})
    times.of["load", "Gallery"].append(load(page, server.address("gallery", run=run.id), mistakes))

    matrix = confusion_matrix(predictions)
    np.fill_diagonal(matrix, 0)
    true, predicted = np.unravel_index(matrix.argmax(), matrix.shape)
    count, classes = int(matrix.max()), predictions.classes
    shown = min(count, 60)
    words = f"1 to {shown} of {count:,} images of true class {classes[true]} taken for {classes[predicted]}"
    load(page, server.address("evaluate", run=run.id), Sight("/evaluate", "Evaluate", {"td": matrix.size}))
    cell = page.locator("table[role=grid] td").nth(int(true) * len(classes) + int(predicted))
    filled = Sight("/gallery", words, {TILE: shown})
    times.of["press", "a cell of the matrix to its gallery"].append(press(page, cell.click, filled))


def measure_one_image(page: Page, server: Server, run: Run, what: str, times: Times) -> None:
    """Take one image with saliency and neighbours once, whose features are there: by a click, and by a key."""
    page.goto("about:blank")
    # Other images each time: what is known of one is kept.
    place = 4 * len(times.of["server", what]) + 1
    image = {"run": run.id, "show": "all", "image": str(row_at(run, place + 3))}
    times.of["server", what].append(1000 * server.seconds_of_page_run("gallery", **image))
    count = len(predictions_of(run))
    shown = min(count, 60)
    gallery = Sight("/gallery", f"1 to {shown} of {count:,} images", {TILE: shown})
    load(page, server.address("gallery", run=run.id, show="all"), gallery)

    def take(how: str, action: Callable[[], None], place: int) -> None:
        times.of["press", f"{what}, by {how}"].append(press(page, action, one_image(run, place)))

    take("the first tile of a session", page.locator(TILE).nth(place - 1).click, place)
    take("ArrowRight", lambda: page.keyboard.press("ArrowRight"), place + 1)
    press(page, page.get_by_role("button", name="All of them").click, gallery)
    take("another tile", page.locator(TILE).nth(place + 1).click, place + 2)


def measure_hundred(page: Page, server: Server, run: Run, times: Times) -> None:
    """Take the matrix of 100 classes once: by its address, and by a click from another page."""
    classes = len(predictions_of(run).classes)
    whole, name = Sight("/evaluate", "Confusion matrix", {"td": classes**2}), f"the matrix of {classes} classes"
    page.goto("about:blank")
    times.of["server", name].append(1000 * server.seconds_of_page_run("evaluate", run=run.id))
    times.of["load", name].append(load(page, server.address("evaluate", run=run.id), whole))
    load(page, server.address("gallery", run=run.id), Sight("/gallery", "Gallery", {TILE: 60}))
    link = page.get_by_test_id("stSidebarNav").get_by_role("link", name="Evaluate")
    times.of["press", name].append(press(page, link.click, whole))


def measure_plain(page: Page, plain: Server, times: Times) -> None:
    page.goto("about:blank")
    times.of["server", "plain"].append(1000 * plain.seconds_of_page_run(""))
    times.of["load", "plain"].append(load(page, plain.url, Sight("/", "Run 1")))
    times.of["press", "plain"].append(press(page, page.get_by_role("button", name="Again").click, Sight("/", "Run 2")))


def measure_times(browser: Browser, folder: Path, repeats: int) -> None:
    make_ten()
    make_images("hundred", 100, {"train": 10_000, "test": 10_000}, own=0.5)
    other, run = (train("mnist-lenet5", dataset="ten", epochs=1, seed=seed) for seed in (0, 1))
    hundred = train("mnist-lenet5", dataset="hundred", epochs=4)
    wrong = [int((~predictions_of(each).correct).sum()) for each in (run, hundred)]
    print(f"mistakes: {wrong[0]:,} of 10,000 in 10 classes, {wrong[1]:,} of 10,000 in 100\n", flush=True)

    times, features, told = Times(), [], []
    with with_plain(folder) as (server, plain), new_context(browser) as context:
        page = context.new_page()
        for _ in range(1 + repeats):
            measure_plain(page, plain, times)
            measure_evaluate(page, server, run, other, times)
            measure_gallery(page, server, run, times)
            measure_hundred(page, server, hundred, times)
        for _ in range(3):
            forget_features("ten")
            taken, often = compute_features(page, server, run)
            features.append(taken / 1000)
            told.append(often)
        for _ in range(1 + repeats):
            measure_one_image(page, server, run, "one image", times)
    targets = {key: PAGE_RUN for key in times.of if key[0] == "server" and key[1].startswith("Evaluate")}
    targets |= {("press", "a cell of the matrix to its gallery"): CELL}
    targets |= {("press", f"one image, by {how}"): IMAGE for how in WAYS}
    targets |= {(kind, "the matrix of 100 classes"): HUNDRED for kind in ("load", "press")}
    times.print(targets)
    print(
        f"\nfeatures of 60,000 images, on the page, n = {len(features)}: {spread(features, '.1f')} s; "
        f"progress was told {min(told)} times or more\n"
    )


def measure_photographs(browser: Browser, folder: Path, repeats: int) -> None:
    run, times = train_on_photographs(folder), Times()
    with with_plain(folder) as (server, plain), new_context(browser) as context:
        page = context.new_page()
        taken, told = compute_features(page, server, run)
        for _ in range(1 + repeats):
            measure_plain(page, plain, times)
            measure_one_image(page, server, run, "one photograph", times)
    times.print({("press", f"one photograph, by {how}"): IMAGE for how in WAYS})
    print(
        f"\nfeatures of the training photographs, on the page: {taken / 1000:.1f} s; progress was told {told} times\n"
    )


@contextmanager
def with_plain(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Start Loupe's server and one with a plain page."""
    script = folder / "plain.py"
    script.write_text(PLAIN)
    with serving(PROJECT_ROOT / "streamlit_app.py", folder) as server, serving(script, folder) as plain:
        yield server, plain


def measure_memory(browser: Browser, folder: Path, count: int) -> None:
    """Open runs one after the other, each in a session of its own, and print the server's memory after each."""
    make_ten()
    run = train("mnist-lenet5", dataset="ten", epochs=1)
    runs = [copy_with_own_weights(run, number) for number in range(1, count + 1)]
    print(f"{'memory of the server, MB':30}{'Rss':>8}{'Pss':>8}{'Anonymous':>11}")
    anonymous: list[float] = []

    def tell(what: str) -> None:
        memory = server.memory()
        anonymous.append(memory["Anonymous"])
        print(f"{what:30}{memory['Rss']:8,.0f}{memory['Pss']:8,.0f}{memory['Anonymous']:11,.0f}", flush=True)

    with serving(PROJECT_ROOT / "streamlit_app.py", folder) as server:
        tell("started")
        server.seconds_of_page_run("")
        tell("its first page, Home")
        for number, run in enumerate(runs, start=1):
            with new_context(browser) as context:
                look_all_over(context.new_page(), server, run)
            tell(f"run {number}" + (", with PyTorch's import" if number == 1 else ""))
    first, *more = np.diff(anonymous)[1:]
    print(
        f"Anonymous memory grew by {first:,.0f} MB with the first run, PyTorch's import included, and by "
        f"{spread(more, ',.0f')} MB with each after that: to be less than {MEMORY_MB}."
    )


def look_all_over(page: Page, server: Server, run: Run) -> None:
    """Open a run's Evaluate page, its gallery, one image with saliency and neighbours, and its map."""
    load(page, server.address("evaluate", run=run.id), Sight("/evaluate", "Evaluate", {"td": 100, TILE: 25}))
    load(page, server.address("gallery", run=run.id), Sight("/gallery", "Gallery", {TILE: 60}))
    compute_features(page, server, run)
    chart = Sight("/gallery", "Gallery", {PLOT: 1, "[data-testid=stProgress]": 0})
    load(page, server.address("gallery", run=run.id, **{"as": "Map"}), chart)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds after the first in place of 7, and 4 runs")
    parser.add_argument("--only", choices=("times", "photographs", "memory"), help="one of the three parts")
    parser.add_argument("--runs", type=int, default=12, help="that are opened for the server's memory")
    args = parser.parse_args()
    repeats, runs = (3, 4) if args.quick else (7, args.runs)
    torch.manual_seed(0)

    with TemporaryDirectory(ignore_cleanup_errors=True) as name, sync_playwright() as playwright:
        folder = Path(name)
        environ.update({"LOUPE_DATA": str(folder / "data"), "LOUPE_RUNS": str(folder / "runs")})
        installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=installed, args=CHROMIUM_SETTINGS)
        print(
            f"{describe_machine()}, Streamlit {streamlit.__version__}, Chromium {browser.version}; "
            f"load of each core before: {load_average():.1f}; n = {repeats} after the first"
        )
        if args.only in (None, "times"):
            measure_times(browser, folder, repeats)
        if args.only in (None, "photographs"):
            measure_photographs(browser, folder, repeats)
        if args.only in (None, "memory"):
            measure_memory(browser, folder, runs)
        browser.close()


if __name__ == "__main__":
    main()
