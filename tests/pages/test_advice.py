"""What is asked about a recipe on the Train page before it is trained."""

from collections.abc import Callable

import pytest
from screen import buttons, click, errors, open_page, show, words

from engine.data.dataset import Dataset

pytestmark = pytest.mark.usefixtures("digits")
CHECK, RATE = "One-minute check", "Find a learning rate"


def page(**query: str):
    return open_page("train", recipe="digits-quick", **query)


@pytest.mark.slow
def test_a_check_is_answered_and_found_again(execute_jobs: Callable[[], None]) -> None:
    app = click(page(), CHECK)
    assert "Starting" in words(app)
    assert "Cancel" in buttons(page()), "another tab sees it too"
    execute_jobs()
    for each in (show(app), page()):
        assert "Cancel" not in buttons(each)
        assert "**Majority.** Always answering " in words(each)
        assert "**Memory.** " in words(each)


@pytest.mark.slow
def test_a_rate_is_found_whatever_the_rate_is(execute_jobs: Callable[[], None]) -> None:
    app = click(page(), RATE)
    execute_jobs()
    assert show(app).get("plotly_chart")
    app.number_input("digits-quick:learning_rate").set_value(0.5)
    assert show(app).get("plotly_chart")
    taken = next(label for label in buttons(app) if label.startswith("Take "))
    click(app, taken)
    assert app.number_input("digits-quick:learning_rate").value == float(taken.removeprefix("Take "))


@pytest.mark.slow
def test_what_is_cancelled_is_not_answered(execute_jobs: Callable[[], None]) -> None:
    app = click(click(page(), CHECK), "Cancel")
    execute_jobs()
    assert "Cancel" not in buttons(show(app))
    assert "**Memory.** " not in words(app)


@pytest.mark.slow
def test_a_recipe_that_is_changed_ends_what_was_asked_of_it(execute_jobs: Callable[[], None]) -> None:
    app = click(page(), CHECK)
    app.number_input("digits-quick:epochs").set_value(3)
    assert "Cancel" not in buttons(show(app))
    assert "Cancel" not in buttons(page()), "nobody waits for it"


@pytest.mark.slow
def test_why_there_is_no_answer_is_told(digits: Dataset, execute_jobs: Callable[[], None]) -> None:
    app = click(page(), RATE)
    (digits.folder / "train-images.npy").write_bytes(b"damaged")
    (digits.folder / "dataset.json").touch()
    execute_jobs()
    assert any("digits is damaged" in error for error in errors(show(app)))
