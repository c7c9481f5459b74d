from dataclasses import replace

import pytest
from damage import DAMAGE, copy_of, die_at_once, die_in_training, fail
from screen import button, buttons, click, errors, links, open_page, select_rows, show, title, words

from engine.runs.run import Run, list_runs


@pytest.fixture
def others(finished: Run) -> list[Run]:
    """Three runs beside the finished one, all older."""
    failed, died, interrupted = [copy_of(finished, f"2000010{day}-000000-digits-quick") for day in (3, 2, 1)]
    fail(failed)
    die_at_once(died)
    die_in_training(interrupted)
    return [failed, died, interrupted]


def delete(app, *rows: int):
    """Select rows and press Delete; what asks for confirmation is open then."""
    select_rows(app, *rows)
    return click(app, "Delete")


def confirm(app, answer: str):
    """Answer what asks for confirmation. A dialog is a fragment, which the test has to keep open itself."""
    first, *_ = [each for each in app.button if each.label == "Delete"]
    first.click()
    [each for each in app.button if each.label == answer][-1].click()
    return show(app)


def test_without_a_run_it_says_how_to_make_one() -> None:
    app = open_page("runs")
    assert app.info[0].value == "There are no runs yet. The quick start makes the first in under a minute."
    assert links(app) == {"Go to the quick start": ("home", {})}


def test_all_runs_are_listed(finished: Run, others: list[Run]) -> None:
    table = open_page("runs").dataframe[0].value
    assert table.run.tolist() == [finished.id, *[run.id for run in others]]
    assert table.status.tolist() == ["finished", "failed", "died", "died"]
    assert table.epochs.tolist() == [2, 0, 0, 1]
    assert table["count"][0] == "360 test images"
    assert table["count"].isna().tolist() == [False, True, True, True]


def test_runs_that_go_on_are_listed_as_such(finished: Run) -> None:
    die_in_training(finished)
    with finished.lock():
        assert open_page("runs").dataframe[0].value.status.tolist() == ["running"]


def test_a_recipe_that_was_changed_is_listed_as_it_is_now(finished: Run) -> None:
    assert open_page("runs").dataframe[0].value.recipe.tolist() == ["digits-quick"]
    finished.write_recipe(replace(finished.read_recipe(), name="mine"))
    assert open_page("runs").dataframe[0].value.recipe.tolist() == ["mine"]
    (finished.path / "recipe.json").write_text("{")
    assert open_page("runs").dataframe[0].value.status.tolist() == ["damaged"]


@pytest.mark.parametrize(("rows", "enabled"), [((), []), ((1,), [0, 1, 3, 4]), ((0, 2), [2, 4]), ((0, 1, 2), [4])])
def test_what_can_be_done_depends_on_how_many_are_chosen(finished: Run, others, rows, enabled) -> None:
    app = select_rows(open_page("runs"), *rows)
    assert buttons(app) == ["Curves", "Evaluate", "Compare", "Export", "Delete"]
    assert [number for number, each in enumerate(app.button) if not each.disabled] == enabled


@pytest.mark.parametrize(("label", "page"), [("Curves", "Train"), ("Evaluate", "Evaluate")])
def test_a_run_is_opened(finished: Run, others: list[Run], label: str, page: str) -> None:
    app = click(select_rows(open_page("runs"), 1), label)
    assert title(app) == page
    assert app.query_params == {"run": others[0].id}
    assert others[0].id in words(app)


def test_two_runs_are_compared(finished: Run) -> None:
    other = copy_of(finished, "20000104-000000-digits-quick")
    app = click(select_rows(open_page("runs"), 0, 1), "Compare")
    assert app.query_params == {"run": finished.id, "look": "Compare", "with": other.id}
    assert "This run is right on the same images as digits-quick, 04 Jan 00:00:00: no difference" in words(app)


def test_a_run_without_an_evaluation_cannot_be_compared_and_says_so(finished: Run, others: list[Run]) -> None:
    app = click(select_rows(open_page("runs"), 0, 1), "Compare")
    (error,) = errors(app)
    assert error.startswith(f"The run {others[0].id} has no predictions-test.npz")
    assert "There is no other evaluated run on digits." in words(app)


def test_a_run_is_deleted_once_that_is_confirmed(finished: Run, others: list[Run]) -> None:
    app = delete(open_page("runs"), 1)
    assert f"This deletes {others[0].id} with model, log and predictions. It cannot be undone." in words(app)
    assert len(list_runs()) == 4
    confirm(app, "Delete")
    assert list_runs() == [finished, *others[1:]]
    assert app.dataframe[0].value.run.tolist() == [finished.id, *[run.id for run in others[1:]]]
    assert button(app, "Delete").disabled, "nothing is selected any more"
    assert not app.error


def test_several_runs_are_deleted_at_once(finished: Run, others: list[Run]) -> None:
    app = delete(open_page("runs"), 0, 1, 3)
    assert "This deletes these 3 runs" in words(app)
    assert all(run.id in words(app) for run in (finished, others[0], others[2]))
    assert others[1].id not in words(app)
    confirm(app, "Delete")
    assert list_runs() == [others[1]]


def test_a_run_is_kept(finished: Run) -> None:
    app = confirm(delete(open_page("runs"), 0), "Keep")
    assert list_runs() == [finished]
    assert len(app.dataframe[0].value) == 1


def test_a_run_that_is_going_on_is_not_deleted(finished: Run, others: list[Run]) -> None:
    with others[2].lock():
        app = confirm(delete(open_page("runs"), 0, 3), "Delete")
    assert errors(app) == [f"The run {others[2].id} is still going on. Stop it first, then delete it."]
    assert list_runs() == others
    assert errors(show(app)) == [], "told once"


def test_a_run_that_somebody_else_has_deleted_is_told(finished: Run) -> None:
    app = delete(open_page("runs"), 0)
    other = copy_of(finished, "20000101-000000-digits-quick")
    finished.path.rename(finished.path.with_name(".gone"))
    confirm(app, "Delete")
    assert list_runs() == [other], "a selection goes by row, and this is another table"


def test_a_selection_does_not_move_to_another_run(finished: Run) -> None:
    app = select_rows(open_page("runs"), 0)
    assert not button(app, "Delete").disabled
    copy_of(finished, "29990101-000000-digits-quick")
    assert button(show(app), "Delete").disabled


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_run_can_be_deleted(finished: Run, damage: str) -> None:
    DAMAGE[damage](finished)
    confirm(delete(open_page("runs"), 0), "Delete")
    assert list_runs() == []
