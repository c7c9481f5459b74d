"""What the tests of the pages share: opening a page as a browser would, and reading what it shows."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX
from streamlit.testing.v1 import AppTest, app_test

from engine.base.paths import PROJECT_ROOT
from ui.wording import WORD_JOINER

PAGES = ("home", "explore", "train", "evaluate", "gallery", "classify", "runs")


def open_page(page: str = "home", /, *, theme: str = "light", **choices: str | list[str]) -> AppTest:
    """Open a page of the app with choices in its URL, as a new tab of a browser does."""
    app = AppTest.from_file(PROJECT_ROOT / "streamlit_app.py", default_timeout=120)
    app.context["theme"] = theme
    app.query_params.update(choices)
    if page != "home":
        app.switch_page(f"pages/{page}.py")
    return show(app)


def show(app: AppTest) -> AppTest:
    """Run the app with what was done to its widgets. Whatever happens, no page raises."""
    return _run(app, app.run)


def _run(app: AppTest, run: Callable[[], object]) -> AppTest:
    """Run the app, and keep the pictures and files that it offers as ``app.media``: AppTest drops them.

    Each run but the first begins in the entry script, as on a server; AppTest would begin in that of the page.
    """

    def keep(storage) -> MediaFileManager:
        app.media = MediaFileManager(storage)
        return app.media

    def pages(*script, **options) -> PagesManager:
        PagesManager.uses_pages_directory = False if "entered" in app.session_state else None
        return PagesManager(*script, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_test, "MediaFileManager", keep)
        patch.setattr(app_test, "PagesManager", pages)
        run()
    assert not app.exception, "the traceback is in the captured output"
    return app


def go_to(app: AppTest, page: str, **choices: str | list[str]) -> AppTest:
    """Follow a link to another page, in the same session."""
    app.query_params = dict(choices)
    app.switch_page(f"pages/{page}.py")
    return show(app)


def click(app: AppTest, label: str) -> AppTest:
    button(app, label).click()
    return show(app)


def button(app: AppTest, label: str):
    (found,) = [each for each in app.button if each.label == label]
    return found


def buttons(app: AppTest) -> list[str]:
    return [each.label for each in app.button]


def title(app: AppTest) -> str:
    (found,) = app.title
    return found.value


def shown(markdown: str) -> str:
    """Return what Markdown made by ui.wording.plain looks like."""
    return re.sub(r"\\([^\w\s])", r"\1", markdown.replace(WORD_JOINER, "")).replace("\\_", "_")


def errors(app: AppTest) -> list[str]:
    return [shown(error.value) for error in app.error]


def words(app: AppTest) -> str:
    """All that a page says in its middle and in an open dialog, a line an element."""
    said = []
    for element in chain(app.main, *app.get("dialog")):
        if element.type == "metric":
            said.append(f"{element.label}: {element.value}")
        elif element.type == "progress":
            said.append(element.text)
        elif element.type in ("title", "subheader", "markdown", "caption", "info", "success", "error", "warning"):
            said.append(shown(element.value))
    return "\n".join(said)


def links(app: AppTest) -> dict[str, tuple[str, dict[str, Any]]]:
    """The links of a page by their labels: the page that each opens, and the choices in its URL, a range as a list."""
    return {label: (page, choices) for label, page, choices in all_links(app)}


def all_links(app: AppTest) -> list[tuple[str, str, dict[str, Any]]]:
    """The links of a page in their order, where several may have one label."""
    return [
        (
            link.proto.label,
            link.proto.page or "home",
            {
                name: values[0] if len(values) == 1 else values
                for name, values in parse_qs(link.proto.query_string).items()
            },
        )
        for link in app.main.get("page_link")
    ]


def follow(app: AppTest, label: str) -> AppTest:
    """Click a link of a page."""
    page, choices = links(app)[label]
    return go_to(app, page, **choices)


def select_rows(app: AppTest, *rows: int) -> AppTest:
    """Select rows of the page's table, as clicks do."""
    (table,) = app.dataframe
    app.session_state[table.key] = {"selection": {"rows": list(rows), "columns": []}}
    return show(app)


def chart(app: AppTest, key: str) -> Any:
    (found,) = [each for each in app.main.get("plotly_chart") if each.key == key]
    return found


def figure(app: AppTest, key: str) -> dict[str, Any]:
    """What a Plotly chart is drawn from, its arrays as lists."""

    def listed(part: dict[str, Any]) -> Any:
        return np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"]).tolist() if "bdata" in part else part

    return json.loads(chart(app, key).proto.spec, object_hook=listed)


def select_points(app: AppTest, key: str, rows: Iterable[int]) -> AppTest:
    """Draw a loop around the points of these rows in a chart, as a browser reports it: AppTest has no way to."""
    points = [{"customdata": [int(row), "", "", ""]} for row in rows]
    selection = {"points": points, "point_indices": [], "box": [], "lasso": []}
    states = app._tree.get_widget_states()
    states.widgets.add(id=chart(app, key).proto.id, string_value=json.dumps({"selection": selection}))
    return _run(app, lambda: app._run(states))


def matrix(app: AppTest) -> dict[str, Any]:
    """What the confusion matrix is made from, in the order that it is shown in: counts and shades as arrays."""
    ((_, data),) = components(app, "loupe_confusion_matrix")
    return data | {name: np.array(data[name]) for name in ("counts", "totals", "shades", "order")}


def pick_cell(app: AppTest, row: int, column: int) -> AppTest:
    """Click a cell of the confusion matrix by its place, as a browser reports it: by the classes shown there."""
    ((component, data),) = components(app, "loupe_confusion_matrix")
    return trigger(app, component, "cell", [data["order"][row], data["order"][column]])


def components(app: AppTest, name: str) -> list[tuple[Any, dict[str, Any]]]:
    """The components of a kind, each with what it is made from."""
    return [
        (each, json.loads(each.proto.json))
        for each in app.main.get("bidi_component")
        if each.proto.component_name == name
    ]


def trigger(app: AppTest, component: Any, event: str, value: Any) -> AppTest:
    """Do what a browser does when a component reports an event: AppTest has no way to."""
    states = app._tree.get_widget_states()
    states.widgets.add(
        id=f"{STREAMLIT_INTERNAL_KEY_PREFIX}_{component.proto.id}__events",
        json_trigger_value=json.dumps([{"event": event, "value": value}]),
    )
    return _run(app, lambda: app._run(states))


def tiles(app: AppTest, name: str = "") -> list[dict[str, Any]]:
    """What a contact sheet is made from: for each tile index, title, lines, mark and image, as an array.

    name: of the sheet, where there are several.
    """
    _, data = sheet(app, name)
    return [tile | {"image": decoded(tile["image"])} for tile in data["tiles"]]


def sheet(app: AppTest, name: str = "") -> tuple[Any, dict[str, Any]]:
    """The contact sheet of a name, or the only one there is, and what it is made from."""
    sheets = components(app, "loupe_contact_sheet")
    (found,) = [(each, data) for each, data in sheets if not name or data["name"] == name]
    return found


def sheets(app: AppTest) -> list[str]:
    """The names of the contact sheets of a page."""
    return [data["name"] for _, data in components(app, "loupe_contact_sheet")]


def pick(app: AppTest, index: int, name: str = "") -> AppTest:
    """Click the tile of an index."""
    component, data = sheet(app, name)
    assert index in [tile["index"] for tile in data["tiles"]]
    return trigger(app, component, "picked", index)


def table(app: AppTest) -> pd.DataFrame:
    """The one table of a page."""
    (found,) = app.main.dataframe
    return found.value


def large_images(app: AppTest) -> list[str]:
    """Where the images of an open dialog are; the same images are in the same place."""
    return [url for dialog in app.get("dialog") for image in dialog.get("image") for url in image.value]


def pictures(app: AppTest) -> list[np.ndarray]:
    """The large images of a page, as they are shown: arrays (height, width, channels)."""
    return [pixels_of(stored(app, url)) for image in app.main.get("image") for url in image.value]


def download(app: AppTest, label: str) -> str:
    """Click a button that makes a file when it is clicked; returns the file's text."""
    (found,) = [each for each in app.main.get("download_button") if each.label == label]
    return stored(app, app.media.execute_deferred(found.proto.deferred_file_id)).decode()


def stored(app: AppTest, url: str) -> bytes:
    return app.media._storage.get_file(url.rpartition("/")[2]).content


def decoded(url: str) -> np.ndarray:
    return pixels_of(base64.b64decode(url.partition(",")[2]))


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
