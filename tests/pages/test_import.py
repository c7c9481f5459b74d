"""Importing on the Explore page: the form, what is understood before anything is written, and the import as it goes."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from picture_files import assert_sentences, encode, left_behind, pack, pngs, write
from PIL import Image
from processes import wait_until
from screen import button, buttons, click, errors, go_to, links, open_page, show, shown, table, title, words

from engine.base.jobs import KILLED
from engine.base.paths import data_root
from engine.base.text import format_bytes
from engine.data.dataset import open_dataset, prepared_root
from engine.importing.import_job import find_import
from engine.importing.plan import Progress, Request

UNDERSTOOD = "**Understood as**"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 10 pictures of two classes, and a file that is no picture."""
    files = pngs([f"{label}/{number}.png" for label in ("*x*", "<b>") for number in range(5)], height=16, width=16)
    return write(tmp_path / "Holiday 2024", files | {"*x*/bad.png": b"no picture"})


GoingOn = Callable[..., AbstractContextManager[Path]]


def form(path: Path | str = "", **others: str):
    """Open the form, and type a path, and maybe more, into it."""
    app = open_page("explore", **{"import": "-"})
    if path:
        app.text_input("import-path").set_value(str(path))
        show(app)
    for key, value in others.items():
        field(app, key).set_value(value)
    return show(app) if others else app


def field(app, key: str):
    (found,) = [
        each for each in [*app.text_input, *app.number_input, *app.selectbox] if each.key.startswith(f"import-{key}")
    ]
    return found


def nothing_is_written() -> bool:
    return not data_root().exists()


# The form


def test_the_form_says_what_can_be_imported_and_writes_nothing() -> None:
    app = form()
    assert title(app) == "Import your own images"
    assert "**a folder for each class**" in words(app)
    assert "Nothing is written before you say so." in words(app)
    assert "Import" not in buttons(app)
    assert not errors(app)
    assert nothing_is_written()


def test_the_form_is_reached_from_a_dataset(digits) -> None:
    app = click(open_page("explore"), "Import your own images")
    assert title(app) == "Import your own images"
    assert app.query_params["import"] == "-"


def test_choosing_a_dataset_leaves_the_form(digits) -> None:
    app = form()
    app.sidebar.selectbox("dataset").select("MNIST")
    assert title(show(app)) == "MNIST"
    assert app.query_params == {"dataset": "mnist"}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_was_understood_is_shown_before_anything_is_written(pictures: Path, kind: str) -> None:
    path = pictures
    if kind == "zip":
        files = {str(path.relative_to(pictures)): path.read_bytes() for path in pictures.rglob("*.png")}
        path = pack(pictures.with_suffix(".zip"), files)
    app = form(path)
    said = words(app)
    assert not errors(app)
    assert f"{UNDERSTOOD} a folder for each class." in said
    counts = table(app)
    assert "**9 training, 2 test images** of 2 classes." in said
    assert counts.Class.tolist() == ["*x*", "<b>"]
    assert counts.Training.tolist() == [5, 4]
    assert counts.Test.tolist() == [1, 1]
    needed = format_bytes(11 * (16 * 16 * 3 + 200))
    assert f"This takes {needed} of the " in said
    assert "All images are 16 x 16 pixels, colour." in said
    assert (
        "20% of each class, at least one image where it has two, is held back for testing, drawn with seed 0." in said
    )
    assert button(app, "Import")
    assert field(app, "name").value == "holiday-2024"
    assert nothing_is_written()


def test_size_share_and_seed_change_what_is_understood(pictures: Path) -> None:
    app = form(pictures, size=32, share=0.4, seed=7, fit="pad")
    assert "They are brought to 32 x 32 pixels." in words(app)
    assert (
        "40% of each class, at least one image where it has two, is held back for testing, drawn with seed 7."
        in words(app)
    )
    assert table(app).Test.tolist() == [2, 2]


def test_the_values_that_become_black_and_white_are_told_and_can_be_given(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, 500, (6, 8, 8)).astype(np.uint16)
    files = {f"{'ab'[number % 2]}/{number}.png": encode(Image.fromarray(each)) for number, each in enumerate(values)}
    place = write(tmp_path / "rays", files)
    assert "by one scale for all: the value 200 becomes black, 499 white." in words(form(place))
    assert "Both values are needed" in words(form(place, low=0.0))
    given = form(place, low=0.0, high=4095.0)
    assert "the value 0 becomes black, 4095 white." in words(given)
    assert not errors(given)
    assert "must go from a lower value to a higher one" in assert_refused(form(place, low=9.0, high=3.0))


def test_test_images_may_be_elsewhere(pictures: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", pngs(["*x*/9.png", "<b>/9.png", "<b>/8.png"], height=16, width=16))
    app = form(pictures, test=str(other))
    assert table(app).Training.tolist() == [6, 5]
    assert table(app).Test.tolist() == [1, 2]


@pytest.mark.parametrize("written", ['"{}"', "'{}'", ' "{}" ', "file://{}", "file://localhost{}", "'FILE://{}'"])
def test_a_path_that_was_pasted_is_understood(pictures: Path, written: str) -> None:
    path = str(pictures).replace(" ", "%20") if "file" in written.lower() else str(pictures)
    app = form(written.format(path), test=written.format(path))
    assert not errors(app)
    assert table(app).Training.tolist() == table(app).Test.tolist() == [6, 5]
    assert field(app, "name").value == "holiday-2024"


@pytest.mark.parametrize("path", ['"', "'/a\"", "/a%20b", "/a'", "file:/a", "file://elsewhere/a"])
def test_what_only_looks_pasted_is_left_as_it_is(path: str) -> None:
    assert path in assert_refused(form(path, name="pictures"))


def test_another_name_does_not_have_the_files_read_again(pictures: Path) -> None:
    app = form(pictures)
    before = words(app)
    for path in pictures.rglob("*.png"):
        path.unlink()
    field(app, "name").set_value("other")
    assert words(show(app)) == before


@pytest.mark.parametrize("path", ["/nowhere/at/all", "*nope*", "/dev/null", "x" * 5000])
def test_a_path_that_leads_nowhere_is_refused_in_a_sentence(path: str) -> None:
    assert_refused(form(path, name="pictures"))


def assert_refused(app) -> str:
    assert UNDERSTOOD not in words(app)
    return assert_not_offered(app)


def assert_not_offered(app) -> str:
    (error,) = errors(app)
    assert_sentences(error)
    assert "Import" not in buttons(app)
    assert nothing_is_written()
    return error


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pets", pngs(["cats/1.png", "cats/2.png"]))
    assert "There is one class only, cats," in assert_refused(form(path))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "letters", {"a/letter.txt": b"Dear", "b/letter.txt": b"Dear"})
    assert "There are no class folders with images in" in assert_refused(form(path))


@pytest.mark.parametrize("name", ["digits", "MNIST"])
def test_a_name_that_is_taken_is_refused(pictures: Path, name: str) -> None:
    app = form(pictures, name=name)
    error = assert_not_offered(app)
    assert UNDERSTOOD in words(app)  # the plan does not wait for a name
    assert error == f"The name {name} is already taken by another dataset. Choose another name."


def test_a_name_is_checked_before_there_is_a_path() -> None:
    assert "already taken" in assert_not_offered(form(name="digits"))


def test_the_name_that_is_suggested_is_free(tmp_path: Path, make_colours, going_on: GoingOn) -> None:
    path = write(tmp_path / "pets", pngs([f"{label}/{number}.png" for label in "ab" for number in range(3)]))
    make_colours("pets")
    app = form(path)
    assert field(app, "name").value == "pets-2"
    assert button(app, "Import")
    assert not errors(app)
    with going_on("pets-2"):
        assert field(form(path), "name").value == "pets-3"


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "-x"])
def test_a_name_that_no_dataset_can_have_is_refused(pictures: Path, name: str) -> None:
    assert "cannot be given to a dataset" in assert_not_offered(form(pictures, name=name))


def test_a_path_outside_the_folders_that_are_allowed_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "allowed").mkdir()
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", str(tmp_path / "allowed"))
    error = assert_refused(form(pictures))
    assert error.startswith(f"{pictures} is outside the folders that may be imported from: {tmp_path / 'allowed'}.")
    pictures.rename(tmp_path / "allowed" / "pictures")
    assert UNDERSTOOD in words(form(tmp_path / "allowed" / "pictures"))


def test_data_that_cannot_be_written_is_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    app = form(pictures)
    if "Import" in buttons(app):
        click(app, "Import")
    (error,) = errors(app)
    assert_sentences(error)


# An upload


def test_an_uploaded_zip_is_understood_and_can_be_exchanged(tmp_path: Path) -> None:
    content = pack(tmp_path / "pets.zip", pngs([f"{c}/{n}.png" for c in "ab" for n in range(4)])).read_bytes()
    app = form()
    app.main.get("button_group")[0].set_value("Upload a zip or tar")
    show(app)
    assert not (prepared_root() / ".uploads").exists()
    app.file_uploader[0].set_value(("pets.zip", content, "application/zip"))
    show(app)
    assert "pets.zip is uploaded." in words(app)
    assert UNDERSTOOD in words(app)
    assert field(app, "name").value == "pets"
    (kept,) = (prepared_root() / ".uploads").glob("*/*")
    assert kept.read_bytes() == content
    click(app, "Upload another")
    assert list((prepared_root() / ".uploads").iterdir()) == []
    assert UNDERSTOOD not in words(app)


def test_an_upload_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    app = form()
    app.main.get("button_group")[0].set_value("Upload a zip or tar")
    show(app).file_uploader[0].set_value(("pets.zip", b"This is no archive.", "application/zip"))
    (error,) = errors(show(app))
    assert_sentences(error)
    assert "Import" not in buttons(app)


# An import


@pytest.mark.processes
def test_an_import_ends_at_its_dataset(pictures: Path) -> None:
    app = click(form(pictures), "Import")
    assert app.query_params["import"] == "holiday-2024"
    assert button(app, "Cancel")
    assert f"**holiday-2024** from {pictures}" in words(app)
    wait_until(lambda: find_import("holiday-2024") is None)
    show(app)
    assert title(app) == "holiday-2024"
    assert app.query_params["dataset"] == "holiday-2024"
    assert "import" not in app.query_params
    dataset = open_dataset("holiday-2024")
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 8, "test": 2}
    assert "**8 train images and 2 test images** of 2 classes, 16 x 16 pixels, colour. 1 bad file left out." in words(
        app
    )
    wait_until(lambda: not list(prepared_root().glob(".*import*")))

    # The form is empty again, and its name is taken.
    click(app, "Import your own images")
    assert not app.main.dataframe
    assert "is already taken" in errors(form(pictures, name="holiday-2024"))[0]


def test_an_import_that_is_cancelled_leaves_nothing(pictures: Path, execute_jobs: Callable[[], None]) -> None:
    app = click(form(pictures, name="pets"), "Import")
    click(app, "Cancel")
    execute_jobs()
    show(app)
    assert title(app) == "Import your own images"
    assert app.query_params["import"] == "-"
    assert button(app, "Import")  # of what is named in it still
    assert not (prepared_root() / "pets").exists()
    assert left_behind() == []


@pytest.fixture
def going_on() -> GoingOn:
    """Stand in for the process of an import, which holds a lock and writes down how far it is."""

    @contextmanager
    def stand_in(name: str = "pets", progress: Progress | None = None) -> Iterator[Path]:
        folder = prepared_root() / f".{name}.import~1"
        folder.mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(asdict(Request(name, "/home/me/*pets*"))))
        if progress:
            (folder / "progress.json").write_text(json.dumps(asdict(progress)))
        (folder / "started").touch()
        with FileLock(folder / "lock"):
            yield folder

    return stand_in


def test_a_second_session_finds_an_import_that_goes_on(going_on: GoingOn) -> None:
    progress = Progress("Reading", 500, 2000, bad=1, seconds=5)
    with going_on(progress=progress):
        app = open_page("explore", **{"import": "pets"})
        said = words(app)
        assert "**pets** from /home/me/*pets*" in said
        assert "Reading: 500 of 2,000 images, 1 bad file" in said
        assert progress.in_words() in said
        assert button(app, "Cancel")
        assert "Import" not in buttons(app)


def test_an_import_that_has_just_begun_says_so(going_on: GoingOn) -> None:
    with going_on():
        assert "Getting ready" in words(open_page("explore", **{"import": "pets"}))


def test_the_form_leads_to_imports_that_are_here(going_on: GoingOn) -> None:
    with going_on("x_1"), going_on("_b_"):
        found = links(form())
    assert {(page, choices["import"]) for page, choices in found.values()} == {("explore", "x_1"), ("explore", "_b_")}
    assert {shown(label) for label in found} == {"An import of x_1 is here too", "An import of _b_ is here too"}


def test_cancel_asks_the_import_to_end(going_on: GoingOn) -> None:
    with going_on() as folder:
        app = open_page("explore", **{"import": "pets"})
        assert not (folder / "stop").exists()
        click(app, "Cancel")
        assert (folder / "stop").exists()


def test_the_name_of_an_import_that_goes_on_cannot_be_given_again(pictures: Path, going_on: GoingOn) -> None:
    with going_on():
        app = form(pictures, name="pets")
        click(app, "Import")
        assert errors(app) == ["A dataset named pets is being imported. Wait for its end."]


def test_a_failed_import_says_why_until_it_is_dismissed(going_on: GoingOn) -> None:
    with going_on() as folder:
        error = "None of the *training* images could be read. Check that they are pictures."
        (folder / "ended.json").write_text(json.dumps({"status": "failed", "result": None, "error": error}))
    app = open_page("explore", **{"import": "pets"})
    assert errors(app) == [error]
    assert "Cancel" not in buttons(app)
    click(app, "Dismiss")
    assert not folder.exists()
    assert title(app) == "Import your own images"
    assert "Nothing is written before you say so." in words(app)
    assert not errors(app)


def test_an_import_whose_process_was_killed_is_told(going_on: GoingOn) -> None:
    with going_on():
        app = open_page("explore", **{"import": "pets"})
    assert not errors(app)
    (error,) = errors(show(app))
    assert error == KILLED
    assert button(app, "Dismiss")


def test_an_import_that_has_ended_leads_to_its_dataset(make_colours) -> None:
    make_colours("pets")
    app = open_page("explore", **{"import": "pets"})
    assert title(app) == "pets"
    assert app.query_params["dataset"] == "pets"


@pytest.mark.parametrize("name", ["nope", "", "../pets", "/etc", "x" * 5000, "\0", "*x*"])
def test_an_import_that_does_not_exist_is_passed_over(name: str) -> None:
    app = open_page("explore", **{"import": name})
    assert title(app) == ("Import your own images" if name else "Digits")
    assert not errors(app)


def test_while_an_import_goes_on_datasets_can_be_looked_at(digits, going_on: GoingOn) -> None:
    with going_on():
        app = open_page("explore", **{"import": "pets"})
        assert title(go_to(app, "explore", dataset="digits")) == "Digits"
