"""What holds for the app as a whole: its pages, whatever there is to show, and its settings."""

import tomllib
from itertools import cycle

import pytest
from damage import DAMAGE, copy_of
from screen import PAGES, errors, links, open_page, title, words

from engine.base.paths import PROJECT_ROOT, runs_root
from engine.runs.run import Run

ABOUT_A_RUN = ("evaluate", "gallery", "classify")
CONFIG = tomllib.loads((PROJECT_ROOT / ".streamlit" / "config.toml").read_text())


def test_every_file_in_pages_is_a_page() -> None:
    assert sorted(PAGES) == sorted(file.stem for file in (PROJECT_ROOT / "pages").glob("*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_without_any_run_or_dataset(page: str) -> None:
    app = open_page(page)
    assert not app.error
    if page in ABOUT_A_RUN:
        assert words(app) == (
            f"{page.capitalize()}\nThere is no trained model yet. The quick start trains one in under a minute."
        )
        assert links(app) == {"Go to the quick start": ("home", {})}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_a_finished_run(page: str, theme: str, finished: Run) -> None:
    app = open_page(page, theme=theme, run=finished.id)
    assert title(app)
    assert not app.error
    if page in ABOUT_A_RUN:
        assert finished.id in words(app)


# Each damage on one page: all read a run by the same functions.
@pytest.mark.parametrize(("damage", "page"), list(zip(DAMAGE, cycle(PAGES), strict=False)))
def test_a_page_shows_a_run_whatever_became_of_it(page: str, damage: str, finished: Run) -> None:
    DAMAGE[damage](finished)
    app = open_page(page, run=finished.id)
    assert title(app)
    assert "\n" not in "".join(errors(app))
    assert "Traceback" not in words(app)


@pytest.mark.parametrize(
    ("page", "damage", "sentence"),
    [
        ("evaluate", "no recipe", "The run {} has no recipe.json, so nothing is known of it. Delete the run."),
        ("classify", "no JSON in the recipe", "recipe.json of the run {} cannot be used (Expecting property name"),
        (
            "train",
            "a recipe of a newer Loupe",
            "recipe.json of the run {} cannot be used (The recipe has a field 'wings'",
        ),
    ],
)
def test_a_run_with_a_damaged_recipe_is_told(page: str, damage: str, sentence: str, finished: Run) -> None:
    DAMAGE[damage](finished)
    (error,) = errors(open_page(page, run=finished.id))
    assert error.startswith(sentence.format(finished.id))


@pytest.mark.parametrize("page", [*ABOUT_A_RUN, "train"])
def test_a_run_that_is_not_there_is_told(page: str, finished: Run) -> None:
    app = open_page(page, run="nope")
    (error,) = errors(app)
    assert error.startswith(f"There is no run 'nope' in {runs_root()}. The newest: {finished.id}.")
    if page in ABOUT_A_RUN:
        assert error.endswith("Shown below is the newest.")
        assert app.query_params["run"] == finished.id
        assert finished.id in words(app)


@pytest.mark.parametrize("name", ["..", "../../etc", "/etc/passwd", "a\0b", "x" * 5000, "**bold**", "$x^2$"])
def test_a_run_with_an_odd_name_is_told(name: str, finished: Run) -> None:
    assert errors(open_page("evaluate", run=name))[0].startswith("There is no run ")


@pytest.mark.parametrize("page", ABOUT_A_RUN)
def test_a_run_is_chosen_in_the_sidebar(page: str, finished: Run) -> None:
    other = copy_of(finished, finished.id.replace("digits-quick", "digits-quick-2"))  # made in the same second
    app = open_page(page, run=finished.id)
    assert app.query_params["run"] == finished.id
    choice = app.sidebar.selectbox[0]
    assert len(set(choice.options)) == 2
    choice.select_index(0).run()
    assert not app.exception
    assert app.query_params["run"] == other.id
    assert f"{other.id} " in words(app)


def test_without_a_choice_the_newest_run_is_shown(finished: Run) -> None:
    newest = copy_of(finished, "29990101-000000-digits-quick")
    app = open_page("evaluate")
    assert newest.id in words(app)
    assert app.query_params == {"run": newest.id}


# Settings


def test_the_app_is_for_this_machine_alone() -> None:
    assert CONFIG["server"]["address"] == "localhost"
    assert CONFIG["server"]["enableXsrfProtection"] is True
    assert CONFIG["server"]["enableCORS"] is True
    # The server's limit holds for all uploads, whatever a widget allows.
    assert CONFIG["server"]["maxUploadSize"] == 4000
    assert CONFIG["server"]["showEmailPrompt"] is False
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["client"]["showErrorDetails"] == "none"


def test_the_settings_are_those_that_streamlit_reads() -> None:
    from streamlit import config

    for section in ("server", "browser", "client"):
        for name, value in CONFIG[section].items():
            assert config.get_option(f"{section}.{name}") == value


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("place", ["page", "sidebar"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme: str, place: str) -> None:
    colours = dict(CONFIG["theme"][theme])
    if place == "sidebar":
        colours |= colours["sidebar"]
    for foreground, background in (
        (colours["textColor"], colours["backgroundColor"]),
        (colours["textColor"], colours["secondaryBackgroundColor"]),
        (colours["linkColor"], colours["backgroundColor"]),
        (colours["linkColor"], colours["secondaryBackgroundColor"]),
        ("#FFFFFF", colours["primaryColor"]),
    ):
        assert contrast(foreground, background) >= 4.5, (foreground, background)
