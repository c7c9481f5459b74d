"""The evaluation of a run from all sides, and the images behind its figures."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import (
    Cell,
    Server,
    Traffic,
    address,
    assert_fits,
    matrix,
    number,
    open_page,
    tiles,
    wait_for_address,
    wait_until_settled,
)
from damage import change_predictions, copy_of
from playwright.sync_api import BrowserContext, Page, expect

from engine.evaluation.predictions import Predictions, load_predictions
from engine.evaluation.selection import in_order, select
from engine.runs.run import Run
from ui.pictures import SHORT
from ui.tables import label

Copy = Callable[..., Run]


@pytest.fixture(autouse=True)
def all_of_it_was_between_the_two_of_them(traffic: Traffic) -> Iterator[None]:
    yield
    assert traffic.beyond_this_machine() == []
    assert traffic.complaints == []


@pytest.fixture
def copy(finished: Run) -> Iterator[Copy]:
    """Make a copy of the finished run, with other answers if these are given, that is gone after the test."""
    made = []

    def make(change: Callable[[Predictions], dict] | None = None) -> Run:
        run = copy_of(finished, f"20200101-00000{len(made)}-digits-quick")
        made.append(run)
        if change:
            change_predictions(run, change)
        return run

    yield make
    for run in made:
        shutil.rmtree(run.path)


def answers_among(count: int) -> Callable[[Predictions], dict]:
    """Answer among so many classes, with names of all lengths: mostly right, else mostly the one opposite."""

    def change(predictions: Predictions) -> dict:
        random = np.random.default_rng(0)
        labels = np.arange(len(predictions)) % count
        luck = random.random(len(labels))
        elsewhere = np.where(luck < 0.9, count - 1 - labels, random.integers(0, count, len(labels)))
        answers = np.where(luck < 0.6, labels, elsewhere)
        names = [f"{number} {'<b>&*long_' * (number % 4)}".strip() for number in range(count)]
        sure = np.linspace(0.5, 0.9, len(labels), dtype=np.float32)
        probabilities = np.repeat((1 - sure[:, np.newaxis]) / count, count, axis=1)
        probabilities[np.arange(len(labels)), answers] += sure
        return {"classes": tuple(names), "labels": labels, "probabilities": probabilities}

    return change


def flipped(predictions: Predictions) -> dict:
    """Change eight of the right answers to wrong ones, and three of the wrong ones to right ones."""
    probabilities = predictions.probabilities.copy()
    for row in np.flatnonzero(predictions.correct)[:8]:
        probabilities[row] = np.roll(probabilities[row], 1)
    for row in np.flatnonzero(~predictions.correct)[:3]:
        probabilities[row] = np.eye(len(predictions.classes))[predictions.labels[row]]
    return {"probabilities": probabilities}


def predictions_of(run: Run) -> Predictions:
    return load_predictions(run.predictions("test"))


def view(page: Page, name: str) -> None:
    """Choose one of a few that are shown side by side."""
    page.get_by_test_id("stButtonGroup").get_by_role("radio", name=name, exact=True).click()
    wait_until_settled(page)


def find(cells: list[Cell], true: str, predicted: str) -> Cell:
    (cell,) = [cell for cell in cells if (cell.true, cell.predicted) == (true, predicted)]
    return cell


def expect_images_of(page: Page, run: Run, cell: Cell) -> None:
    """Wait until the gallery shows the images of a cell, and no others."""
    wait_for_address(page, "/gallery", true=cell.true, predicted=cell.predicted)
    assert address(page)[1] == {"run": run.id, "true": cell.true, "predicted": cell.predicted, "show": "all"}
    of = f"image{'' if cell.images == 1 else 's'} of true class {cell.true} taken for {cell.predicted}"
    if cell.images:
        expect(page.get_by_text(f"1 to {cell.images} of {cell.images} {of}", exact=True)).to_be_visible()
        expect(tiles(page)).to_have_count(cell.images)
        short = cell.true != cell.predicted and len(cell.true + cell.predicted) <= SHORT
        said = f"{cell.true} → {cell.predicted}" if short else cell.true
        assert set(tiles(page).locator("span:first-of-type").all_inner_texts()) == {said}
    else:
        expect(page.get_by_text(f"There are no {of}. Change or clear the filters above.")).to_be_visible()


def back_to(page: Page, path: str, **choices: str) -> None:
    page.go_back()
    wait_for_address(page, path, **choices)
    wait_until_settled(page)


# The confusion matrix


@pytest.mark.parametrize(
    ("classes", "width"),
    [
        (10, 1280),
        *(
            pytest.param(*each, marks=pytest.mark.sweep)
            for each in ((10, 420), (47, 1280), (47, 420), (100, 1280), (100, 420))
        ),
    ],
)
def test_every_cell_opens_its_own_images(server: Server, page: Page, copy: Copy, classes: int, width: int) -> None:
    run = copy(answers_among(classes))
    predictions = predictions_of(run)
    names, last = predictions.classes, classes - 1
    page.set_viewport_size({"width": width, "height": 900})
    open_page(page, f"{server.url}/evaluate?run={run.id}", "Evaluate")
    cells = matrix(page)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    assert [(cell.true, cell.predicted) for cell in cells] == [(true, answer) for true in names for answer in names]
    assert [cell.images for cell in cells] == counts.ravel().tolist()
    assert_fits(page, "the matrix")

    middle = classes // 2
    for true, predicted, corner in (
        (middle, middle, ""),
        (0, 0, "upper left"),
        (0, last, "upper right"),
        (last, 0, "lower left"),
        (last, last, "lower right"),
        (middle, middle - 1, "upper left"),
    ):
        cell = find(matrix(page), names[true], names[predicted])
        if corner:
            cell.click_corner(corner)
        else:
            cell.click_centre()
        expect_images_of(page, run, cell)
        back_to(page, "/evaluate", run=run.id)


def test_the_matrix_is_walked_with_the_keyboard(server: Server, page: Page, finished: Run) -> None:
    predictions = predictions_of(finished)
    open_page(page, f"{server.url}/evaluate?run={finished.id}", "Evaluate")
    cells = matrix(page)
    find(cells, "0", "0").mark.focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    cell = find(cells, "3", "1")
    expect(cell.mark).to_be_focused()
    expect(page.locator("td[tabindex='0']")).to_have_count(1)
    threes = int((predictions.labels == 3).sum())
    share = 100 * cell.images / threes
    expect(page.get_by_text(f"3 taken for 1: {cell.images} of {threes} images ({share:.1f}%)")).to_be_visible()
    page.keyboard.press("Enter")
    expect_images_of(page, finished, cell)


def test_with_mistakes_only_the_diagonal_does_nothing(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/evaluate?run={finished.id}", "Evaluate")
    wait_until_settled(page)
    view(page, "Mistakes only")
    wait_for_address(page, "/evaluate", cells="Mistakes only")
    expect(page.locator("td.blank")).to_have_count(10)
    cells = matrix(page)
    wrong = predictions_of(finished)
    assert sum(cell.images for cell in cells) == int((~wrong.correct).sum())
    find(cells, "4", "4").click_centre()
    find(cells, "4", "4").mark.press("Enter")
    wait_until_settled(page)
    assert address(page)[0] == "/evaluate"
    cell = max(cells, key=lambda cell: cell.images)
    cell.click_centre()
    expect_images_of(page, finished, cell)
    back_to(page, "/evaluate", cells="Mistakes only")
    expect(page.locator("td.blank")).to_have_count(10)


def test_similar_classes_side_by_side_open_their_own_images(server: Server, page: Page, copy: Copy) -> None:
    run = copy(answers_among(10))
    names = predictions_of(run).classes
    open_page(page, f"{server.url}/evaluate?run={run.id}", "Evaluate")
    before = {(cell.true, cell.predicted): cell.images for cell in matrix(page)}
    page.get_by_text("Similar classes side by side").click()
    expect(page.get_by_role("columnheader")).not_to_have_text(names)
    cells = matrix(page)
    order = list(dict.fromkeys(cell.true for cell in cells))
    assert sorted(order) == sorted(names)
    assert order != list(names)
    assert abs(order.index(names[0]) - order.index(names[9])) == 1, "each is taken for the other"
    assert {(cell.true, cell.predicted): cell.images for cell in cells} == before
    for cell in (cells[1], max(cells, key=lambda cell: cell.images * (cell.true != cell.predicted))):
        cell.click_centre()
        expect_images_of(page, run, cell)
        back_to(page, "/evaluate")
        assert [each.true for each in matrix(page)] == [each.true for each in cells], "the order is kept"


# The gallery


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def choices(page: Page) -> list[list[str]]:
    """Return all choices in a page's address, also those that are of two."""
    return page.evaluate("[...new URLSearchParams(location.search)]")


@pytest.mark.sweep
def test_a_filter_is_in_the_address_and_outlives_a_reload(server: Server, page: Page, finished: Run) -> None:
    predictions = predictions_of(finished)
    open_page(page, f"{server.url}/gallery?run={finished.id}", "Gallery")
    choose(page, "Show", "all")
    wait_for_address(page, "/gallery", show="all")
    expect(page.get_by_text("1 to 60 of 360 images", exact=True)).to_be_visible()
    page.get_by_test_id("stPagination").get_by_role("button", name="4").click()
    expect(page.get_by_text("181 to 240 of 360 images", exact=True)).to_be_visible()
    wait_until_settled(page)
    assert ["page", "4"] in choices(page)

    # The keyboard moves the slider, and the first page is open again.
    low = page.get_by_role("slider").first
    low.focus()
    for _ in range(35):
        low.press("ArrowRight")
    sure = int((predictions.confidence >= 0.35).sum())
    expect(page.get_by_text(f"1 to 60 of {sure} images at a confidence of 0.35 to 1", exact=True)).to_be_visible()
    choose(page, "True class", "5")
    count = len(select(predictions, true="5", confidence=(0.35, 1)))
    words = f"1 to {count} of {count} images of true class 5 at a confidence of 0.35 to 1"
    expect(page.get_by_text(words, exact=True)).to_be_visible()
    expect(tiles(page)).to_have_count(count)
    wait_until_settled(page)
    asked = choices(page)
    assert sorted(asked) == [
        ["confidence", "0.35"],
        ["confidence", "1"],
        ["run", finished.id],
        ["show", "all"],
        ["true", "5"],
    ]
    shown = tiles(page).all_inner_texts()

    page.reload()
    expect(page.get_by_text(words, exact=True)).to_be_visible()
    expect(tiles(page)).to_have_count(count)
    wait_until_settled(page)
    assert tiles(page).all_inner_texts() == shown
    assert choices(page) == asked


def test_images_are_stepped_through_with_keys_and_buttons(server: Server, page: Page, finished: Run) -> None:
    predictions = predictions_of(finished)
    wrong = in_order(predictions, select(predictions, right=False), "most confident")

    def expect_image(place: int) -> None:
        row = int(wrong[place])
        wait_for_address(page, "/gallery", image=str(row))
        expect(page.get_by_text(f"{place + 1} of {len(wrong)} mistakes", exact=True)).to_be_visible()
        truth, answer = (predictions.classes[labels[row]] for labels in (predictions.labels, predictions.predicted))
        verdict = re.compile(rf"^{truth}, .*taken for {answer} with")
        expect(page.get_by_test_id("stMarkdown").filter(has_text=verdict)).to_be_visible()
        wait_until_settled(page)

    open_page(page, f"{server.url}/gallery?run={finished.id}", "Gallery")
    tiles(page).nth(1).click()
    expect_image(1)
    expect(tiles(page, "nearest training images")).to_have_count(12)
    page.keyboard.press("ArrowRight")
    expect_image(2)
    page.keyboard.press("ArrowLeft")
    expect_image(1)
    page.get_by_role("button", name="Previous").click()
    expect_image(0)
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.get_by_role("button", name="Next").click()
    expect_image(1)

    # Keys that are meant for a field are not those that step.
    evidence = page.get_by_label("Evidence for", exact=True)
    evidence.click()
    evidence.press_sequentially("the")
    for key in ("ArrowLeft", "ArrowRight", "ArrowDown", "Enter", "ArrowRight"):
        evidence.press(key)
    expect_image(1)
    strength = page.get_by_role("slider", name="Strength")
    strength.focus()
    strength.press("ArrowRight")
    expect(strength).to_have_value("0.65")
    expect_image(1)

    page.get_by_role("heading", name="Gallery").click()
    page.keyboard.press("Backspace")
    expect(tiles(page)).to_have_count(len(wrong))
    wait_until_settled(page)
    assert address(page) == ("/gallery", {"run": finished.id})


@pytest.mark.sweep
def test_keys_that_walk_a_sheet_do_not_step(server: Server, page: Page, finished: Run) -> None:
    open_page(page, f"{server.url}/gallery?run={finished.id}&show=all&image=7", "Gallery")
    nearest = tiles(page, "nearest training images")
    expect(nearest).to_have_count(12)
    wait_until_settled(page)
    nearest.first.focus()
    for place in (1, 2):
        page.keyboard.press("ArrowRight")
        expect(nearest.nth(place)).to_be_focused()
        wait_until_settled(page)
    assert address(page)[1]["image"] == "7"
    nearest.last.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    wait_until_settled(page)
    assert address(page)[1]["image"] == "7"


@pytest.mark.sweep
def test_a_box_on_the_map_shows_the_mistakes_within(server: Server, page: Page, copy: Copy) -> None:
    run = copy()
    open_page(page, f"{server.url}/gallery?run={run.id}", "Gallery")
    wait_until_settled(page)
    view(page, "Map")
    expect(page.get_by_text(re.compile("^Shown: all images.*of the variance of 128 features"))).to_be_visible()
    plot = page.get_by_test_id("stPlotlyChart")
    expect(plot.locator(".points path")).to_have_count(360)
    plot.scroll_into_view_if_needed()
    plot.locator("[data-title='Box Select']").click()
    frame = plot.locator(".nsewdrag").first.bounding_box()
    left, top = frame["x"] + 0.1 * frame["width"], frame["y"] + 0.1 * frame["height"]
    right, bottom = frame["x"] + 0.6 * frame["width"], frame["y"] + 0.7 * frame["height"]
    mistakes = plot.locator(".points path").evaluate_all(
        """marks => marks.filter((mark) => mark.__data__.data).map((mark) => {
            const { x, y, width, height } = mark.getBoundingClientRect();
            return { row: mark.__data__.data[0], x: x + width / 2, y: y + height / 2 };
        })"""
    )
    assert {mistake["row"] for mistake in mistakes} == set(np.flatnonzero(~predictions_of(run).correct).tolist())

    def within(margin: int) -> set[int]:
        """Return the rows that are in the box, made wider by so many pixels."""
        return {
            each["row"]
            for each in mistakes
            if left - margin < each["x"] < right + margin and top - margin < each["y"] < bottom + margin
        }

    assert 0 < len(within(-3)) <= len(within(3)) < len(mistakes)
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, bottom, steps=4)
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()
    expect(page.get_by_text("mistakes in the region")).to_be_visible()
    expect(tiles(page)).to_have_count(number(page, r"of (\d+) mistakes in the region"))
    shown = set(tiles(page).evaluate_all("tiles => tiles.map(tile => Number(tile.dataset.index))"))
    assert within(-3) <= shown <= within(3), "give or take those on its border"

    view(page, "t-SNE of the features")
    page.get_by_role("button", name="Place 360 points by t-SNE").click()
    expect(page.get_by_text("distances between far groups mean little in t-SNE")).to_be_visible()
    expect(plot.locator(".points path")).to_have_count(360)
    assert (run.path / "tsne-test.npz").is_file()
    page.reload()
    expect(plot.locator(".points path")).to_have_count(360)
    expect(page.get_by_role("button", name="Place 360 points by t-SNE")).to_have_count(0)


# The other views of the Evaluate page


@pytest.mark.sweep
def test_two_runs_are_compared_image_by_image(server: Server, page: Page, finished: Run, copy: Copy) -> None:
    other = copy(flipped)
    open_page(page, f"{server.url}/evaluate?run={other.id}", "Evaluate")
    wait_until_settled(page)
    view(page, "Compare")
    choose(page, "Compare with", label(finished.id))
    wait_for_address(page, "/evaluate", look="Compare", **{"with": finished.id})
    sentence = re.compile(
        r"This run is right on 3 images that .* gets wrong, and wrong on 8 that .* gets right: 1\.4 points worse"
    )
    expect(page.get_by_text(sentence)).to_be_visible()
    expect(tiles(page, "fixed")).to_have_count(3)
    expect(tiles(page, "broken")).to_have_count(8)
    broken = np.flatnonzero(predictions_of(finished).correct)[:8]
    wait_until_settled(page)
    tiles(page, "broken").nth(5).click()
    wait_for_address(page, "/gallery", run=other.id, image=str(broken[5]), show="all")
    truth = predictions_of(other).classes[predictions_of(other).labels[broken[5]]]
    verdict = re.compile(rf"^{truth}, .*taken for \d with")
    expect(page.get_by_test_id("stMarkdown").filter(has_text=verdict)).to_be_visible()
    back_to(page, "/evaluate", look="Compare", **{"with": finished.id})
    expect(tiles(page, "broken")).to_have_count(8)
    expect(page.get_by_text(sentence)).to_be_visible()


def test_the_bar_and_the_row_of_a_class_open_its_images(server: Server, page: Page, finished: Run) -> None:
    predictions = predictions_of(finished)
    open_page(page, f"{server.url}/evaluate?run={finished.id}", "Evaluate")
    wait_until_settled(page)
    view(page, "Classes")
    bars = page.get_by_test_id("stPlotlyChart").locator(".bars .point path")
    expect(bars).to_have_count(10)
    bars.nth(3).click(force=True)  # a layer above catches the mouse for all of them
    expect_class(page, predictions, "3")
    back_to(page, "/evaluate", run=finished.id, look="Classes")
    expect(bars).to_have_count(10)
    # The table is drawn on a canvas: the boxes to tick are its first column, below one row of titles.
    page.get_by_test_id("stDataFrameResizable").first.click(position={"x": 15, "y": 52})
    expect_class(page, predictions, "0")
    back_to(page, "/evaluate", run=finished.id, look="Classes")
    expect(bars).to_have_count(10)
    wait_until_settled(page)
    assert address(page)[0] == "/evaluate"


def expect_class(page: Page, predictions: Predictions, name: str) -> None:
    wait_for_address(page, "/gallery", true=name, show="all", sort="highest loss")
    count = int((predictions.labels == predictions.classes.index(name)).sum())
    expect(page.get_by_text(f"1 to {count} of {count} images of true class {name}", exact=True)).to_be_visible()
    expect(tiles(page)).to_have_count(count)


def test_the_report_opens_from_a_file_and_asks_for_nothing(
    server: Server, context: BrowserContext, page: Page, finished: Run, tmp_path: Path
) -> None:
    open_page(page, f"{server.url}/evaluate?run={finished.id}&look=Take away", "Evaluate")
    wait_until_settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Report as HTML").click()
    assert download.value.suggested_filename == f"{finished.id}-test.html"
    file = tmp_path / "report.html"
    download.value.save_as(file)

    report, asked = context.new_page(), Traffic()
    asked.watch(report)
    report.goto(file.as_uri())
    expect(report.get_by_role("heading", name=finished.id, level=1)).to_be_visible()
    predictions = predictions_of(finished)
    expect(report.locator(".accuracy b")).to_have_text(f"{predictions.accuracy:.2%}")
    report.wait_for_load_state("networkidle")
    pictures = report.locator("img")
    assert pictures.count() > 20
    assert all(pictures.evaluate_all("pictures => pictures.map(picture => picture.naturalWidth > 0)"))
    assert [url for url in asked.asked if not url.startswith("data:")] == [file.as_uri()]
    assert asked.complaints == []


@pytest.mark.sweep
def test_every_view_fits_a_narrow_window(server: Server, page: Page, copy: Copy) -> None:
    run = copy(answers_among(10))
    page.set_viewport_size({"width": 420, "height": 800})
    open_page(page, f"{server.url}/evaluate?run={run.id}", "Evaluate")
    for name in ("Classes", "Confidence", "Training", "Compare", "Take away", "Confusions"):
        wait_until_settled(page)
        view(page, name)
        assert_fits(page, name)
    for cells in ("Shares of each row", "Mistakes only"):
        view(page, cells)
        assert_fits(page, cells)
    open_page(page, f"{server.url}/gallery?run={run.id}&show=all", "Gallery")
    wait_until_settled(page)
    assert_fits(page, "the contact sheet")
    tiles(page).first.click()
    expect(page.get_by_role("heading", name="Nearest training images")).to_be_visible()
    wait_until_settled(page)
    assert_fits(page, "one image")
    open_page(page, f"{server.url}/gallery?run={run.id}&show=all&as=Map", "Gallery")
    expect(page.get_by_test_id("stPlotlyChart").locator(".points path")).to_have_count(360)
    wait_until_settled(page)
    assert_fits(page, "the map")
