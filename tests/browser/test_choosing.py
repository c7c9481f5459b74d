"""Help in choosing the settings of a training: what augmentation does, a check, a learning rate, and the run doctor."""

import re

import pytest
from browsing import Server, address, open_page, wait_for_address, wait_until_settled
from playwright.sync_api import Page, expect
from processes import ending_its_runs, wait_until

from engine.recipes.recipe import change, find_recipe
from engine.runs.run import ACTIVE, Run, start

# Cheap to train: the browser shares the machine.
QUICK = change(find_recipe("digits-quick"), {"device": "cpu", "threads": 1})


def field(page: Page, label: str):
    return page.get_by_label(label, exact=True).first


@pytest.fixture
def too_slow(server: Server) -> Run:
    """A run whose learning rate is much too low."""
    with ending_its_runs(server.data, server.runs):
        run = start(change(QUICK, {"learning_rate": 1e-5}))
        wait_until(lambda: run.status() not in ACTIVE)
    return run


def images_of(page: Page) -> list[str]:
    return page.locator(".pairs img").evaluate_all("images => images.map(image => image.src)")


@pytest.mark.sweep
def test_the_preview_follows_the_fields(server: Server, page: Page) -> None:
    open_page(page, f"{server.url}/train?dataset=digits", "Train")
    expect(page.locator(".pairs img")).to_have_count(32)
    moved = images_of(page)
    page.get_by_role("spinbutton", name="Rotate (degrees)").fill("90")
    page.keyboard.press("Enter")
    expect(page.locator(".pairs img").nth(1)).not_to_have_attribute("src", moved[1])
    turned = images_of(page)
    assert [before == after for before, after in zip(moved, turned, strict=True)] == [True, False, False, False] * 8
    page.get_by_role("button", name="Other images").click()
    expect(page.locator(".pairs img").nth(0)).not_to_have_attribute("src", turned[0])


def test_a_check_answers_in_words_and_goes_when_the_settings_change(server: Server, page: Page) -> None:
    open_page(page, f"{server.url}/train?dataset=digits", "Train")
    page.get_by_role("button", name="One-minute check").click()
    expect(page.get_by_text(re.compile(r"The first loss is 2\.\d+; guessing among 10 classes"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"has 32 of 32 images right after \d+ steps: it can learn\."))).to_be_visible()
    expect(page.get_by_text(re.compile("It takes .* on this machine"))).to_be_visible()
    page.get_by_role("spinbutton", name="Epochs").fill("3")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Changed: epochs 3 (the recipe: 12).")).to_be_visible()
    expect(page.get_by_text(re.compile("It takes .* on this machine"))).to_have_count(0)


@pytest.mark.sweep
def test_a_learning_rate_is_found_and_taken(server: Server, page: Page) -> None:
    open_page(page, f"{server.url}/train?dataset=digits", "Train")
    rate = page.get_by_role("spinbutton", name="Learning rate")
    rate.fill("0.0001")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Changed: learning_rate 0.0001 (the recipe: 0.01).")).to_be_visible()
    page.get_by_role("button", name="Find a learning rate").click()
    take = page.get_by_role("button", name=re.compile(r"^\S*\s*Take 0\.\d+$"))
    expect(take).to_be_visible()
    found = float(take.inner_text().split()[-1])
    assert 0.001 < found < 0.1
    take.click()
    expect(rate).to_have_value(f"{found:g}")


@pytest.mark.sweep
def test_the_doctor_names_the_fault_and_opens_the_next_run(server: Server, page: Page, too_slow: Run) -> None:
    open_page(page, f"{server.url}/train?run={too_slow.id}", "Train")
    expect(page.get_by_text("The learning rate is too low")).to_be_visible()
    page.get_by_role("button", name="Next run with learning_rate 0.0001").click()
    wait_for_address(page, "/train", dataset="digits")
    expect(page.get_by_text(too_slow.id)).to_have_count(0)
    expect(page.get_by_role("spinbutton", name="Learning rate")).to_have_value("0.0001")
    wait_until_settled(page)
    assert "run" not in address(page)[1]


def test_a_network_is_compared_and_taken(server: Server, page: Page) -> None:
    open_page(page, f"{server.url}/train?dataset=digits", "Train")
    page.get_by_text("Compare torchvision's networks").click()
    table = page.get_by_test_id("stDataFrameResizable")
    expect(table).to_be_visible()
    wait_until_settled(page)
    table.click(position={"x": 15, "y": 52})  # the box of the first row: the table is one canvas
    expect(page.get_by_text(re.compile(r"torchvision's shufflenet_v2_x0_5: 1\.4 million parameters"))).to_be_visible()
