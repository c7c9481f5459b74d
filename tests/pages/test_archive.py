import io
import os
import zipfile
from pathlib import Path

import pytest
from damage import DAMAGE, copy_of, die_in_training
from screen import errors, links, open_page, select_rows, show, shown, stored, title, words
from screen import follow as follow_link

from engine.base.text import format_bytes
from engine.runs.archive import archive_run
from engine.runs.run import Run, delete_run, list_runs


def archive_button(app):
    (found,) = [each for each in app.main.get("download_button") if each.label == "Archive"]
    return found


def take_archive(app) -> bytes:
    """Click the button that makes the archive of the chosen run."""
    return stored(app, app.media.execute_deferred(archive_button(app).proto.deferred_file_id))


def bring_in(app, content: bytes, name: str = "run.zip"):
    app.file_uploader[0].set_value((name, content, "application/zip"))
    return show(app)


@pytest.fixture
def archive(finished: Run, tmp_path: Path) -> bytes:
    """The archive of a finished run that is not here any more."""
    archive_run(finished, tmp_path / "taken.zip")
    delete_run(finished)
    return (tmp_path / "taken.zip").read_bytes()


def test_a_run_is_taken_away(finished: Run, tmp_path: Path) -> None:
    app = select_rows(open_page("runs"), 0)
    assert archive_button(app).proto.help == "The whole run as one file, to go on with in another Loupe."
    content = take_archive(app)
    archive_run(finished, tmp_path / "own.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as taken, zipfile.ZipFile(tmp_path / "own.zip") as own:
        names = [name for name in own.namelist() if name != "loupe-run.json"]
        assert taken.namelist() == own.namelist()
        assert [taken.read(name) for name in names] == [own.read(name) for name in names]


def test_it_is_offered_for_one_run_that_is_not_going_on(finished: Run) -> None:
    copy_of(finished, "20000101-000000-digits-quick")
    app = open_page("runs")
    for rows, disabled in {(): True, (0,): False, (1,): False, (0, 1): True}.items():
        button = archive_button(select_rows(app, *rows))
        assert button.proto.disabled == disabled
        assert not disabled or button.proto.help == "Select one run."
    die_in_training(finished)
    with finished.lock():
        button = archive_button(select_rows(open_page("runs"), 0))
        assert (button.proto.disabled, button.proto.help) == (True, "It is still going on.")


def test_a_run_that_is_too_large_for_a_browser_is_left_to_the_terminal(finished: Run) -> None:
    os.truncate(finished.weights, 600_000_000)  # without taking up disk
    button = archive_button(select_rows(open_page("runs"), 0))
    assert button.proto.disabled
    size = format_bytes(sum(file.stat().st_size for file in finished.path.iterdir()))
    assert shown(button.proto.help) == (
        f"Its {size} are too much for a browser. In a terminal: python -m engine archive {finished.id} FILE.zip"
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_any_run_it_is_offered_or_said_why_not(finished: Run, damage: str) -> None:
    DAMAGE[damage](finished)
    app = select_rows(open_page("runs"), 0)
    button = archive_button(app)
    if damage in ("no recipe", "no JSON in the recipe", "a recipe of a newer Loupe", "an empty directory"):
        assert button.proto.disabled and "recipe.json" in button.proto.help
    else:
        assert zipfile.ZipFile(io.BytesIO(take_archive(app))).testzip() is None


def test_what_was_left_out_is_told(finished: Run) -> None:
    finished.checkpoint.write_bytes(b"damaged")
    app = select_rows(open_page("runs"), 0)
    take_archive(app)
    (error,) = errors(show(app))
    assert error.startswith("checkpoint.pt is damaged (BadZipFile), and was left out")
    assert errors(show(app)) == [], "told once"


def test_what_went_wrong_is_told(finished: Run) -> None:
    app = select_rows(open_page("runs"), 0)
    die_in_training(finished)
    with finished.lock():
        with pytest.raises(Exception, match="still going on"):
            take_archive(app)
        (error,) = errors(show(app))
    assert error.startswith(f"The run {finished.id} is still going on.")


def test_a_run_is_brought_in_where_there_is_none(archive: bytes, finished: Run) -> None:
    app = open_page("runs")
    assert not list_runs()
    bring_in(app, archive)
    assert list_runs() == [finished]
    assert app.dataframe[0].value.run.tolist() == [finished.id]
    assert f"The run {finished.id} is here now." in words(app)
    assert links(app) == {
        "Its training curves": ("train", {"run": finished.id}),
        "Its evaluation": ("evaluate", {"run": finished.id}),
    }
    assert "is here now" not in words(show(app)), "told once"


@pytest.mark.parametrize(("label", "page"), [("Its training curves", "Train"), ("Its evaluation", "Evaluate")])
def test_a_run_that_was_brought_in_is_opened(archive: bytes, finished: Run, label: str, page: str) -> None:
    other = "20990101-000000-digits-quick"
    app = follow_link(bring_in(open_page("runs"), archive), label)
    assert title(app) == page
    assert finished.id in words(app) and other not in words(app)


def test_a_run_is_brought_in_beside_others(finished: Run, tmp_path: Path) -> None:
    archive_run(finished, tmp_path / "taken.zip")
    other = copy_of(finished, "20000101-000000-digits-quick")
    delete_run(finished)
    bring_in(open_page("runs"), (tmp_path / "taken.zip").read_bytes())
    assert list_runs() == [finished, other]


def test_a_run_that_is_here_is_not_replaced(finished: Run, tmp_path: Path) -> None:
    archive_run(finished, tmp_path / "taken.zip")
    app = bring_in(open_page("runs"), (tmp_path / "taken.zip").read_bytes())
    expected = f"The run {finished.id} is here already, and an archive replaces nothing."
    assert errors(app) == [expected]
    assert app.file_uploader[0].value is None, "it is let go of"
    assert errors(show(app)) == [], "told once"


@pytest.mark.parametrize(
    "name",
    ["run.zip", "../../run.zip", "...zip", "x" * 300 + ".zip", "a\x1bb.zip", "狐" * 100 + ".zip", "**bold**.zip"],
)
def test_what_is_no_archive_is_refused_whatever_its_name(finished: Run, name: str) -> None:
    (error,) = errors(bring_in(open_page("runs"), b"text", name))
    assert "is not a zip archive, or it is cut short" in error
    assert list_runs() == [finished]


def test_an_archive_with_code_in_it_is_refused_and_not_run(archive: bytes, trap) -> None:
    import torch

    code = io.BytesIO()
    torch.save({"fingerprint": trap}, code)
    content = io.BytesIO(archive)
    with zipfile.ZipFile(content, "a") as file:
        file.writestr("checkpoint.pt", code.getvalue())
    (error,) = errors(bring_in(open_page("runs"), content.getvalue()))
    assert error.startswith("run.zip is not restored: it holds checkpoint.pt, which is not part of a run.")
    assert not trap.sprung and not list_runs()
