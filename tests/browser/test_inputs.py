"""Drawing and pasting, on a page that has nothing else."""

import base64
import io
import itertools
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from browsing import Server, Traffic, assert_fits, open_page, wait_until_settled
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from processes import python, wait_until

from ui.drawing_pad import FORM, MOST, png_of

# What has arrived is on the page, as text.
SCRIPT = """
import base64

import streamlit as st

from ui.clipboard import paste_into
from ui.drawing_pad import drawing_pad


def inputs():
    st.title("Inputs")
    drawing = drawing_pad("pad", thickness=0.1)
    pictures = st.file_uploader("Pictures", type=["png"], accept_multiple_files=True, key="pictures", max_upload_size=1)
    paste_into("pictures", key="paste")
    st.text_input("Note")
    st.button("Run again")
    st.session_state["runs"] = st.session_state.get("runs", 0) + 1
    st.text(f"Run {st.session_state['runs']}")
    with st.container(key="drawing"):
        st.text(base64.b64encode(drawing or b"").decode())
    with st.container(key="names"):
        st.text(", ".join(picture.name for picture in pictures))
    with st.container(key="contents"):
        for picture in pictures:
            st.text(base64.b64encode(picture.getvalue()).decode())


def other():
    st.title("Other")


st.navigation([st.Page(inputs, title="Inputs", default=True), st.Page(other, title="Other")]).run()
"""

Line = list[tuple[float, float]]

BENT: Line = [(0.6, 0.2), (0.3, 0.6), (0.8, 0.6)]
UPRIGHT: Line = [(0.5, 0.3), (0.5, 0.9)]
DOT: Line = [(0.1, 0.1), (0.1, 0.1)]

COPY = """(parts) => navigator.clipboard.write([new ClipboardItem(Object.fromEntries(Object.entries(parts).map(
    ([type, content]) => [type, fetch(`data:${type};base64,${content}`).then((answer) => answer.blob())])))])"""


class Inputs(Server):
    """A server of the script."""

    def start(self) -> None:
        script = self.data.parent / "inputs.py"
        script.write_text(SCRIPT)
        arguments = ("run", str(script), "--server.port", str(self.port), "--server.headless", "true")
        with (self.runs.parent / "server.txt").open("a") as output:
            self.process = python("-m", "streamlit", *arguments, stdout=output, stderr=subprocess.STDOUT)
        wait_until(self.is_up)


@pytest.fixture(scope="module")
def inputs(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    folder = tmp_path_factory.mktemp("inputs")
    inputs = Inputs(folder / "data", folder / "runs")
    inputs.start()
    yield inputs
    inputs.kill()


@pytest.fixture
def sheet(inputs: Inputs, page: Page, traffic: Traffic) -> Iterator[Page]:
    """The page with its empty sheet; it has not complained when the test ends."""
    open_inputs(page, inputs)
    yield page
    assert traffic.complaints == []
    assert traffic.beyond_this_machine() == []


def open_inputs(page: Page, inputs: Inputs) -> None:
    open_page(page, inputs.url, "Inputs")
    wait_until_settled(page)
    expect(page.get_by_label("Sheet to draw on: empty")).to_be_visible()


def strokes(page: Page, many: str):
    return page.get_by_label(f"Sheet to draw on: {many}")


def by_hand(page: Page, line: Line) -> list[dict[str, float]]:
    """Return the places on the screen that a hand passes as it draws a line."""
    box = page.locator("canvas").bounding_box()
    assert box
    places = [
        np.array(start) + (np.array(end) - start) * step
        for start, end in itertools.pairwise(line)
        for step in np.linspace(0, 1, 9)
    ]
    return [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in places]


def draw(page: Page, line: Line, halfway: Callable[[], object] = lambda: None) -> None:
    start, *others = by_hand(page, line)
    page.mouse.move(**start)
    page.mouse.down()
    for number, place in enumerate(others):
        if number == len(others) // 2:
            halfway()
        page.mouse.move(**place)
    page.mouse.up()


def received(page: Page) -> bytes:
    return base64.b64decode(page.locator(".st-key-drawing").inner_text())


def pixels(picture: bytes, mode: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert(mode))


def is_ink_of(drawing: bytes, *lines: Line) -> bool:
    """Tell whether there is ink along all of the lines, and none elsewhere."""
    if not drawing:
        return False
    ink = pixels(drawing, "L") < 128
    assert ink.shape == (280, 280)
    spots = (np.indices(ink.shape)[::-1].transpose(1, 2, 0) + 0.5) / 280
    distance = np.full(ink.shape, np.inf)
    for start, end in itertools.chain.from_iterable(map(itertools.pairwise, lines)):
        way = np.subtract(end, start)
        share = ((spots - start) @ way / max(way @ way, 1e-9)).clip(0, 1)
        distance = np.minimum(distance, np.linalg.norm(spots - start - share[..., None] * way, axis=2))
    # Half the thickness, 0.05, with some room: where a line turns it is rounded.
    return bool(ink[distance < 0.035].all() and not ink[distance > 0.055].any())


def wait_for_ink_of(page: Page, *lines: Line) -> None:
    wait_until(lambda: is_ink_of(received(page), *lines))


def test_ink_is_where_it_was_drawn(sheet: Page) -> None:
    draw(sheet, BENT)
    wait_for_ink_of(sheet, BENT)
    draw(sheet, UPRIGHT)
    wait_for_ink_of(sheet, BENT, UPRIGHT)
    draw(sheet, DOT)
    wait_for_ink_of(sheet, BENT, UPRIGHT, DOT)
    # Black on white, and nothing shines through.
    assert pixels(received(sheet), "RGBA")[..., 3].min() == 255


@pytest.mark.sweep
def test_a_stroke_that_leaves_the_sheet_goes_on_until_it_is_ended(sheet: Page) -> None:
    draw(sheet, [(0.5, 0.5), (1.5, 0.5), (1.5, 0.2), (0.5, 0.2)])
    wait_for_ink_of(sheet, [(0.5, 0.5), (1.5, 0.5)], [(1.5, 0.2), (0.5, 0.2)])


def test_a_stroke_goes_on_while_the_page_runs_again(sheet: Page) -> None:
    draw(sheet, BENT)
    wait_for_ink_of(sheet, BENT)

    def run_again() -> None:
        sheet.get_by_role("button", name="Run again").evaluate("button => button.click()")
        expect(sheet.get_by_text("Run 3")).to_be_visible()
        assert is_ink_of(received(sheet), BENT)

    draw(sheet, UPRIGHT, halfway=run_again)
    wait_for_ink_of(sheet, BENT, UPRIGHT)


def test_strokes_in_quick_succession_are_sent_as_one_drawing(inputs: Inputs, page: Page) -> None:
    page.clock.install()
    open_inputs(page, inputs)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    draw(page, BENT)
    page.clock.run_for(200)
    draw(page, UPRIGHT, halfway=lambda: page.clock.run_for(1000))
    page.clock.resume()
    wait_for_ink_of(page, BENT, UPRIGHT)
    expect(page.get_by_text("Run 2")).to_be_visible()


@pytest.mark.sweep
def test_strokes_are_taken_back_one_by_one_or_all_at_once(sheet: Page) -> None:
    for line in (BENT, UPRIGHT, DOT):
        draw(sheet, line)
    wait_for_ink_of(sheet, BENT, UPRIGHT, DOT)
    sheet.keyboard.press("Control+z")
    wait_for_ink_of(sheet, BENT, UPRIGHT)
    sheet.keyboard.press("Tab")
    expect(sheet.get_by_role("button", name="Undo")).to_be_focused()
    sheet.keyboard.press("Enter")
    wait_for_ink_of(sheet, BENT)
    draw(sheet, UPRIGHT)
    sheet.get_by_role("button", name="Clear").click()
    expect(strokes(sheet, "empty")).to_be_visible()
    wait_until(lambda: received(sheet) == b"")
    expect(sheet.get_by_role("button", name="Clear")).to_be_focused()
    sheet.get_by_role("button", name="Undo").press("Enter")
    draw(sheet, DOT)
    wait_for_ink_of(sheet, DOT)


def test_a_finger_draws_on_a_narrow_screen_without_moving_the_page(inputs: Inputs, browser: Browser) -> None:
    context = browser.new_context(
        viewport={"width": 420, "height": 500}, has_touch=True, device_scale_factor=2, color_scheme="dark"
    )
    page = context.new_page()
    open_inputs(page, inputs)
    fingers = context.new_cdp_session(page)
    # To the upper edge: elsewhere the same gesture would scroll the page.
    start, *others = by_hand(page, [(0.5, 0.9), (0.5, 0.1)])
    fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [start]})
    for place in others:
        fingers.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [place]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_for_ink_of(page, [(0.5, 0.9), (0.5, 0.1)])
    assert page.get_by_test_id("stMain").evaluate(
        "main => [main.scrollTop, main.scrollHeight > main.clientHeight]"
    ) == [
        0,
        True,
    ]
    assert page.locator("canvas").evaluate("canvas => canvas.width / canvas.clientWidth") == 2
    assert_fits(page, "the narrow page")
    context.close()


@pytest.mark.sweep
def test_the_sheet_stays_as_it_is_when_the_page_runs_again_or_is_left(sheet: Page) -> None:
    canvas = sheet.locator("canvas").element_handle()
    draw(sheet, BENT)
    wait_for_ink_of(sheet, BENT)
    sheet.get_by_role("button", name="Run again").click()
    expect(sheet.get_by_text("Run 3")).to_be_visible()
    assert canvas.evaluate("canvas => canvas.isConnected")
    assert is_ink_of(received(sheet), BENT)
    for name in ("Other", "Inputs"):
        sheet.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
        expect(sheet.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(strokes(sheet, "1 stroke")).to_be_visible()
    wait_for_ink_of(sheet, BENT)
    draw(sheet, UPRIGHT)
    wait_for_ink_of(sheet, BENT, UPRIGHT)


@pytest.mark.parametrize(
    "value",
    [None, 7, {"drawing": FORM}, "", FORM, FORM + "not base64", "data:text/html;base64,PGI+", FORM + "R0lGODlh"],
)
def test_what_is_no_drawing_is_not_taken(value: object) -> None:
    assert png_of(value) is None


def test_a_drawing_is_taken_up_to_a_size() -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(MOST // 2)
    assert png_of(FORM + base64.b64encode(content).decode()) == content
    assert png_of(FORM + base64.b64encode(content * 2).decode()) is None


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8))


def encoded(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


@pytest.fixture
def clipboard(inputs: Inputs, context: BrowserContext) -> None:
    """The page may read and write the clipboard."""
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=inputs.url)


def assert_came(page: Page, picture: Image.Image, name: str) -> None:
    """Assert that a picture is the one that has come. Its pixels: browsers write its file anew."""
    expect(page.locator(".st-key-names")).to_have_text(name)
    latest = page.locator(".st-key-contents").inner_text().split()[-1]
    assert np.array_equal(pixels(base64.b64decode(latest), "RGB"), np.asarray(picture))


def test_a_picture_is_pasted_with_the_keyboard_anywhere_on_the_page(
    clipboard: None, sheet: Page, picture: Image.Image
) -> None:
    sheet.evaluate(COPY, {"image/png": encoded(picture)})
    sheet.keyboard.press("Control+v")
    assert_came(sheet, picture, "pasted-1.png")
    turned = picture.transpose(Image.Transpose.ROTATE_180)
    sheet.evaluate(COPY, {"image/png": encoded(turned)})
    sheet.get_by_label("Note").press("Control+v")
    assert_came(sheet, turned, "pasted-1.png, pasted-2.png")


def test_a_picture_is_pasted_with_the_button(clipboard: None, sheet: Page, picture: Image.Image) -> None:
    button = sheet.get_by_role("button", name="Paste a picture")
    sheet.evaluate("navigator.clipboard.writeText('only words')")
    button.click()
    said = "There is no picture in the clipboard. Copy one, then press this again."
    expect(sheet.get_by_text(said)).to_be_visible()
    sheet.evaluate(COPY, {"image/png": encoded(picture)})
    button.click()
    assert_came(sheet, picture, "pasted-1.png")
    expect(sheet.get_by_text(said)).to_have_count(0)


def test_text_is_left_to_the_field_that_it_is_pasted_into(clipboard: None, sheet: Page, picture: Image.Image) -> None:
    both = {"text/plain": base64.b64encode(b"a word").decode(), "image/png": encoded(picture)}
    sheet.evaluate(COPY, both)
    sheet.get_by_label("Note").press("Control+v")
    sheet.keyboard.press("Enter")
    expect(sheet.get_by_label("Note")).to_have_value("a word")
    expect(sheet.get_by_text("Run 2")).to_be_visible()
    expect(sheet.locator(".st-key-names")).to_have_text("")
    sheet.get_by_label("Note").blur()
    sheet.keyboard.press("Control+v")
    assert_came(sheet, picture, "pasted-1.png")


def test_a_clipboard_that_may_not_be_read_is_told(sheet: Page) -> None:
    sheet.get_by_role("button", name="Paste a picture").click()
    said = "The browser does not let this page read the clipboard. Press Ctrl+V instead."
    expect(sheet.get_by_text(said)).to_be_visible()


def test_a_picture_that_is_too_large_is_told_and_left_out(clipboard: None, sheet: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    sheet.evaluate(COPY, {"image/png": encoded(Image.fromarray(noise))})
    sheet.keyboard.press("Control+v")
    expect(sheet.get_by_text("File must be 1.0MB or smaller.")).to_be_visible()
    expect(sheet.locator(".st-key-names")).to_have_text("")


def test_pictures_are_pasted_no_longer_where_there_is_no_uploader(
    clipboard: None, sheet: Page, picture: Image.Image
) -> None:
    sheet.get_by_test_id("stSidebarNav").get_by_role("link", name="Other").click()
    expect(sheet.get_by_role("heading", name="Other", level=1)).to_be_visible()
    wait_until_settled(sheet)
    sheet.evaluate(COPY, {"image/png": encoded(picture)})
    sheet.keyboard.press("Control+v")
    sheet.get_by_test_id("stSidebarNav").get_by_role("link", name="Inputs").click()
    expect(sheet.get_by_role("button", name="Paste a picture")).to_be_visible()
    wait_until_settled(sheet)
    sheet.keyboard.press("Control+v")
    assert_came(sheet, picture, "pasted-1.png")
