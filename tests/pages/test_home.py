from pathlib import Path

import pytest
from damage import copy_of, die_at_once, fail, without_line
from screen import button, click, errors, links, open_page, select_rows, show, title, words

from engine.base.machine import cores
from engine.data.catalogue import CATALOGUE
from engine.recipes.recipe import RECIPES
from engine.runs.run import Run, list_runs, open_run


def test_without_a_run_it_says_how_to_make_one() -> None:
    app = open_page()
    assert title(app) == "Loupe"
    assert "It takes under a minute and downloads nothing." in words(app)
    assert "None yet. The quick start above makes the first" in words(app)
    assert button(app, "Train on the digits")
    assert not app.dataframe


def test_the_numbers_of_the_quick_start_are_those_of_the_digits(digits) -> None:
    train, test = (len(digits.splits[split]) for split in ("train", "test"))
    assert f"on {train:,} scans of handwritten digits, test it on {test:,} others" in words(open_page())


def test_it_says_what_the_machine_is() -> None:
    assert f"This machine: {cores()} processor cores" in words(open_page())


@pytest.mark.parametrize("here", [False, True])
def test_every_dataset_is_linked(here: bool, request: pytest.FixtureRequest) -> None:
    if here:
        request.getfixturevalue("digits")
    app = open_page()
    shown = [(link.proto.label, link.proto.query_string) for link in app.main.get("page_link")]
    *datasets, own = shown
    assert datasets == [("Explore" if here and name == "digits" else "Get it", f"dataset={name}") for name in CATALOGUE]
    assert own == ("Import your own images: a folder or a zip, a folder for each class", "import=-")
    assert {page for page, _ in links(app).values()} == {"explore"}


def test_a_damaged_dataset_is_to_be_got_again(digits, tmp_path: Path) -> None:
    (tmp_path / "data" / "prepared" / "digits" / "dataset.json").write_text("{")
    assert "Explore" not in links(open_page())


def test_recent_runs_are_listed(finished: Run) -> None:
    failed, died = (copy_of(finished, f"{year}0101-000000-digits-quick") for year in (2001, 2000))
    fail(failed)
    die_at_once(died)
    table = open_page().dataframe[0].value
    assert table.run.tolist() == [finished.id, failed.id, died.id]
    assert table.status.tolist() == ["finished", "failed", "died"]
    assert table.recipe.tolist() == ["digits-quick"] * 3
    newest = table.iloc[0]
    assert newest.percent == pytest.approx(100 * finished.history().ended.test_accuracy)
    assert newest["count"] == "360 test images"
    assert newest.epochs == 2
    assert newest.seconds == finished.history().ended.train_seconds
    assert list(newest.curve) == [step.train_accuracy for step in finished.history().steps]
    assert table.percent.isna().tolist() == [False, True, True]


def test_an_accuracy_without_its_denominator_is_not_shown(finished: Run) -> None:
    without_line(finished, "started")
    (row,) = open_page().dataframe[0].value.itertuples()
    assert row.status == "finished"
    assert row.percent is None
    assert row.count is None


def test_only_the_newest_runs_are_listed(finished: Run) -> None:
    made = [copy_of(finished, f"200001{day:02}-000000-digits-quick").id for day in range(1, 11)]
    assert open_page().dataframe[0].value.run.tolist() == [finished.id, *reversed(made[3:])]


def test_a_row_opens_its_run(finished: Run) -> None:
    older = copy_of(finished, "20000101-000000-digits-quick")
    app = select_rows(open_page(), 1)
    assert title(app) == "Evaluate"
    assert app.query_params == {"run": older.id}


def test_a_row_opens_no_other_run_when_a_new_one_has_moved_the_rows(finished: Run) -> None:
    app = open_page()
    copy_of(finished, "29990101-000000-digits-quick")
    app = select_rows(app, 0)
    assert title(app) == "Loupe"
    assert len(app.dataframe[0].value) == 2


def test_the_quick_start_trains(launches) -> None:
    app = click(open_page(), "Train on the digits")
    (run,) = list_runs()
    assert run.read_recipe().name == "digits-quick"
    assert run.read_recipe().dataset == "digits"
    assert run.read_recipe().epochs == RECIPES["digits-quick"].epochs
    assert title(app) == "Train"
    assert app.query_params == {"run": run.id, "then": "gallery"}
    assert run.id in words(app)
    assert button(app, "Stop")
    assert open_run(run.id).has_process()


def test_runs_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, where a folder should be")
    app = click(open_page(), "Train on the digits")
    assert title(app) == "Loupe"
    (error,) = errors(app)
    assert error.startswith(f"{tmp_path / 'runs'} cannot be written (")
    assert errors(show(app)) == []
