"""How pictures come in: files, a folder on this machine, the camera, a drawing, or test images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from engine.base.errors import LoupeError
from engine.data.dataset import is_prepared, open_dataset
from engine.images.pictures import HEIF_SUFFIXES, SUFFIXES
from engine.runs.run import Run
from ui.clipboard import paste_into
from ui.drawing_pad import drawing_pad
from ui.importing import as_path
from ui.state import choose_view, link, whole_number
from ui.tables import recipe_of
from ui.wording import plain, show_problem

if TYPE_CHECKING:
    from engine.networks.preprocessing import Preprocessing

FILES, FOLDER, CAMERA, DRAWING, TEST = "Files", "Folder", "Camera", "Draw", "Test images"
# More are classified in the background.
AT_ONCE = 20
MAX_UPLOAD_MB = 400
TEST_IMAGES = 12
# Of pads: thinner and thicker strokes are as good, but look unlike a pen's.
STROKE = 0.06
FIT_SENTENCES = {
    "crop": "Each picture is cropped to the middle, in the shape of the training images, and resized.",
    "pad": "The whole picture is resized and padded with black, as the training images were.",
}
MOST_DRAWS = 1_000_000


@dataclass(frozen=True)
class Given:
    """A picture that was given: what it is called, and its file, or its pixels where it is one of a dataset.

    true: the class that it is known to be.
    """

    name: str
    content: bytes | None = None
    pixels: np.ndarray | None = None
    true: str | None = None


def choose_pictures(run: Run, preprocessing: "Preprocessing", start: Callable[..., None]) -> list[Given]:
    """Let the person give pictures; returns a few, and has ``start`` take many: paths, or names with contents."""
    height, width, channels = preprocessing.image_shape
    can_draw = channels == 1 and max(height, width) <= 64
    ways = [FILES, FOLDER, CAMERA, *([DRAWING] if can_draw else []), TEST]
    match choose_view("Where the pictures come from", ways, "from"):
        case "Folder":
            _take_folder(start)
            return []
        case "Camera":
            return _take_photograph()
        case "Draw":
            return _take_drawing(preprocessing)
        case "Test images":
            return _take_test_images(run)
        case _:
            return _take_files(run, preprocessing, start)


def _take_files(run: Run, preprocessing: "Preprocessing", start: Callable[..., None]) -> list[Given]:
    # Another key lets go of files that were handed over, which Streamlit keeps in memory.
    key = f"pictures-{st.session_state.get('pictures handed over', 0)}"
    files = st.file_uploader(
        "Pictures, or a zip of them",
        type=[*dict.fromkeys((*SUFFIXES, *HEIF_SUFFIXES)), "zip"],
        accept_multiple_files=True,
        max_upload_size=MAX_UPLOAD_MB,
        key=key,
    )
    paste_into(key, key="paste")
    if not files:
        st.caption(f"{FIT_SENTENCES[preprocessing.fit]} A picture is recognised best when it looks like those.")
        link("explore", "See what the training images look like", dataset=recipe_of(run).dataset)
        return []
    if len(files) > AT_ONCE or any(file.name.lower().endswith(".zip") for file in files):
        st.session_state["pictures handed over"] = st.session_state.get("pictures handed over", 0) + 1
        start(uploads=[(file.name, file) for file in files])
    return [Given(file.name, file.getvalue()) for file in files]


def _take_folder(start: Callable[..., None]) -> None:
    with st.form("folder", border=False):
        column, button = st.columns([4, 1], vertical_alignment="bottom")
        typed = column.text_input(
            "Folder, zip or picture",
            key="folder",
            placeholder="/home/me/pictures",
            help="A path on the machine that Loupe runs on; * and ** match names, as in pictures/**/*.jpg.",
        )
        asked = button.form_submit_button("Classify", icon=":material/play_arrow:", width="stretch", type="primary")
    st.caption("Any number of pictures, in its folders too. Folders called after a class give their accuracy as well.")
    if not asked:
        return
    path = as_path(typed)
    if not path:
        show_problem("No folder was named. Type the path of one, or drop files under Files.")
        return
    start(paths=[path])


def _take_photograph() -> list[Given]:
    photograph = st.camera_input("A photograph", key="camera")
    st.caption(
        "The browser asks whether it may use the camera. Where that was refused, allow it beside the page's address "
        "and load the page again; or take a picture with a phone and drop it under Files. Browsers give the camera "
        "only to pages of this machine and to those that are encrypted."
    )
    return [Given("photograph", photograph.getvalue())] if photograph else []


def _take_drawing(preprocessing: "Preprocessing") -> list[Given]:
    what = "one of: " + ", ".join(plain(name) for name in preprocessing.classes[:50])
    st.caption(f"Draw {what}.")
    drawing = drawing_pad("drawing", STROKE)
    return [Given("drawing", drawing)] if drawing else []


def _take_test_images(run: Run) -> list[Given]:
    name = recipe_of(run).dataset
    if not is_prepared(name):
        show_problem(
            f"The dataset {name} is not here any more. Get or import it again on the Explore page, or classify files."
        )
        return []
    try:
        dataset = open_dataset(name)
    except LoupeError as error:
        show_problem(error)
        return []
    split = next(name for name in ("test", "val", "train") if name in dataset.splits)
    stored = dataset.splits[split]
    seed = _seed()
    column, words = st.columns([1, 3], vertical_alignment="center")
    column.button("Draw others", icon=":material/casino:", on_click=_draw_others, args=(seed + 1,), width="stretch")
    chosen = np.random.default_rng(seed).permutation(len(stored))[:TEST_IMAGES]
    words.caption(f"{len(chosen)} of the {len(stored):,} {split} images of {plain(dataset.name)}, drawn at random.")
    return [
        Given(f"{split} image {index:,}", pixels=stored.images[index], true=dataset.classes[stored.labels[index]])
        for index in chosen.tolist()
    ]


def _seed() -> int:
    try:
        return whole_number(st.query_params.get("draw", "0"), MOST_DRAWS)
    except ValueError:
        return 0


def _draw_others(seed: int) -> None:
    st.query_params["draw"] = str(seed % MOST_DRAWS)
