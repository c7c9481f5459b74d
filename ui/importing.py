"""Importing a person's own pictures: the form, what was understood, and the import as it goes."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from engine.base.encodings import ENCODINGS
from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.base.text import SPLIT_NAMES
from engine.data.dataset import is_prepared, prepared_names
from engine.images.pictures import FITS
from engine.importing.import_job import (
    ImportState,
    cancel_import,
    delete_upload,
    find_import,
    forget_import,
    list_imports,
    place_for_upload,
    start_import,
)
from engine.importing.layout import LAYOUTS
from engine.importing.plan import (
    DEFAULT_TEST_SHARE,
    HIGHEST_SIDE,
    LOWEST_SIDE,
    Plan,
    Progress,
    Request,
    plan_import,
    require_free_name,
)
from ui.jobs import Work, watch
from ui.state import go, link
from ui.wording import plain, show_problem

NEW = "-"  # not the name of any dataset
MAX_UPLOAD_MB = 4000
ARCHIVES = ["zip", "tar", "tgz", "gz", "tbz2", "bz2", "txz", "xz"]
LAYOUT_WORDS = {"splits": "Splits, with a folder for each class in them", "classes": "Classes"}
FIT_WORDS = {"crop": "Cut out the middle", "pad": "Keep all, pad with black"}


def show_import(asked: str) -> None:
    """Show the import that the URL names: one that is going on, one that failed, or the form for a new one."""
    st.title("Import your own images")
    imports = list_imports()
    if asked != NEW and asked in (*imports, *prepared_names()):
        _watch(asked)
        return
    st.query_params["import"] = NEW  # an import that was cancelled is not there any more
    for name in imports:
        link("explore", f"An import of {plain(name)} is here too", **{"import": name})
    _form()


def _form() -> None:
    cancelled = st.session_state.pop("import-cancelled", None)
    if cancelled:
        st.info(f"The import of {plain(cancelled)} was cancelled. Nothing of it was kept.", icon=":material/check:")
    st.markdown(
        "From a folder, a zip or a tar with **a folder for each class**, with train, val and test folders above them "
        "if there are splits; or from a CSV that lists them as `file,label` or `file,label,split`. Nothing is changed "
        "there."
    )
    where = st.segmented_control(
        "Where are they?",
        ("On this machine", "Upload a zip or tar"),
        default="On this machine",
        required=True,
        key="import-from",
    )
    if where == "Upload a zip or tar":
        path = _upload()
    else:
        path = as_path(
            st.text_input(
                "Folder, zip, tar or CSV",
                key="import-path",
                placeholder="/home/me/pictures",
                help="A path on this machine.",
            )
        )
    columns = st.columns(2)
    name = (
        columns[0]
        .text_input(
            "Name of the dataset",
            value=_suggested_name(path),
            key=f"import-name-{path}",
            max_chars=64,
            help="Letters, digits, dashes, dots and underscores.",
        )
        .strip()
    )
    can_be_named = bool(name)
    try:
        if name:
            require_free_name(name)
    except LoupeError as error:
        can_be_named = False
        with columns[0]:
            show_problem(error)
    test = as_path(
        columns[1].text_input(
            "Test images, if they are elsewhere",
            key="import-test",
            placeholder="none",
            help="A folder, a zip or a tar on this machine.",
        )
    )
    with st.expander("Size and splits"):
        request = _settings(name, path, test or None)
    if not path or not name:
        st.caption("Name a folder, zip, tar or CSV to see what is in it. Nothing is written before you say so.")
        return
    _plan(request, can_be_named)


def _settings(name: str, path: str, test: str | None) -> Request:
    columns = st.columns(4, vertical_alignment="bottom")
    size = columns[0].number_input(
        "Size (pixels)",
        LOWEST_SIDE,
        HIGHEST_SIDE,
        value=None,
        placeholder="as suggested",
        key="import-size",
        help="Side of the square that every image is brought to. Empty: kept where all agree and are small.",
    )
    fit = columns[1].selectbox("Other shapes", FITS, format_func=lambda fit: FIT_WORDS[fit], key="import-fit")
    share = columns[2].number_input(
        "Test share",
        0.0,
        0.9,
        value=None,
        step=0.05,
        placeholder=f"{DEFAULT_TEST_SHARE:g}, or as it is",
        key="import-share",
        help=f"Held back of each class for testing. Empty: {DEFAULT_TEST_SHARE:g}, or nothing of a source with splits.",
    )
    seed = columns[3].number_input("Seed", 0, 2**31 - 1, key="import-seed", help="Decides which images are held back.")
    layout = st.selectbox(
        "Folders are",
        LAYOUTS,
        index=None,
        placeholder="as their names and what is in them tell",
        format_func=lambda layout: LAYOUT_WORDS[layout],
        key="import-layout",
        help="Whether the top folders are splits or classes. Needed only where they could be either.",
    )
    names_in = st.selectbox(
        "Names in",
        ENCODINGS,
        index=None,
        placeholder="as is most likely",
        format_func=lambda encoding: ENCODINGS[encoding],
        key="import-encoding",
        help="How file names in a zip are encoded that are not in UTF-8.",
    )
    fewest = st.number_input(
        "Fewest images of a class",
        1,
        10**6,
        key="import-fewest",
        help="Classes with fewer images are left out.",
    )
    levels = _levels(st.columns(2))
    return Request(name, path, test, size, fit, share, int(seed), levels, layout, names_in, int(fewest))


def _levels(columns: Sequence[DeltaGenerator]) -> tuple[float, float] | None:
    """Ask which values become black and white; None if they are to be found from the pictures."""
    settings: dict[str, Any] = {"value": None, "placeholder": "found from all pictures", "format": "%g"}
    about = "For pictures of more than 8 bits, such as X-rays and microscope images. 8-bit pictures are not changed."
    low = columns[0].number_input("Value that becomes black", key="import-low", help=about, **settings)
    high = columns[1].number_input("Value that becomes white", key="import-high", help=about, **settings)
    if low is not None and high is not None:
        return low, high
    if low is not None or high is not None:
        st.warning("Both values are needed. With only one, it is ignored and the range is found from all pictures.")
    return None


def _upload() -> str:
    """Take an archive; it is written to the disk at once, and let go of in memory."""
    kept = st.session_state.get("import-upload")
    if kept and Path(kept).exists():
        st.caption(f":material/check: {plain(Path(kept).name)} is uploaded.")
        if st.button("Upload another", icon=":material/upload:"):
            delete_upload(Path(kept))
            st.session_state["import-upload"] = None
            st.rerun()
        return kept
    # Another key lets go of the file, which Streamlit keeps in memory.
    number = st.session_state.setdefault("import-uploads", 0)
    file = st.file_uploader("A zip or tar", type=ARCHIVES, max_upload_size=MAX_UPLOAD_MB, key=f"import-file-{number}")
    st.caption("Large ones are quicker from a path on this machine: an upload passes through memory.")
    if file is None:
        return ""
    try:
        place = place_for_upload(file.name)
        with place.open("wb") as written:
            shutil.copyfileobj(file, written)
    except (LoupeError, OSError) as error:
        show_problem(error)
        return ""
    st.session_state["import-uploads"] = number + 1
    st.session_state["import-upload"] = str(place)
    return st.rerun()


def as_path(typed: str) -> str:
    """Make a path of what was typed or pasted: file managers and shells give quotes around it, or a file URL."""
    path = typed.strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
        path = path[1:-1].strip()
    url = re.fullmatch(r"file://(?:localhost)?(/.*)", path, re.IGNORECASE | re.DOTALL)
    return unquote(url[1]) if url else path


def _suggested_name(path: str) -> str:
    """Make a name of a path's last part; a number is added to one that is taken."""
    stem = Path(path).stem.removesuffix(".tar") if path else ""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in stem.lower())
    name = name.strip("-_.")[:64]
    imports = list_imports()
    for free in (name, *(f"{name[:60]}-{number}" for number in range(2, 100))) if name else ():
        try:
            require_free_name(free)
        except LoupeError:
            continue
        if free not in imports:
            return free
    return name


def _plan(request: Request, can_be_named: bool) -> None:
    """Say what was understood, and where the name can be given, offer to import it."""
    place = st.empty()
    try:
        plan = st.session_state.get("import-plan")
        nameless = replace(request, name="")
        if plan is None or plan[0] != nameless:
            plan = st.session_state["import-plan"] = (nameless, _make_plan(request, place))
    except LoupeError as error:
        place.empty()
        show_problem(error)
        return
    place.empty()
    _show_plan(plan[1])
    if can_be_named and st.button("Import", type="primary", icon=":material/download:"):
        try:
            start_import(request)
        except LoupeError as error:
            show_problem(error)
        else:
            for key in ("import-plan", "import-upload"):
                st.session_state.pop(key, None)
            go("explore", **{"import": request.name})


def _make_plan(request: Request, place) -> Plan:
    def tell(progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 0.0
        place.progress(share, text=progress.in_words())

    return run_to_end(plan_import(request), tell)


def _show_plan(plan: Plan) -> None:
    with st.container(border=True):
        st.markdown(f"**Understood as** {plain(plan.layout)}.")
        images = ", ".join(f"{count:,} {SPLIT_NAMES[split]}" for split, count in plan.images.items())
        st.markdown(f"**{images} images** of {len(plan.classes):,} classes.")
        rows = [
            {"Class": name}
            | {SPLIT_NAMES[split].capitalize(): numbers[label] for split, numbers in plan.counts.items()}
            for label, name in enumerate(plan.classes)
        ]
        number = st.column_config.NumberColumn(format="localized")
        st.dataframe(
            rows,
            hide_index=True,
            height=min(36 * (len(rows) + 1), 320),
            column_config={SPLIT_NAMES[split].capitalize(): number for split in plan.counts},
            placeholder="",
        )
        st.markdown("\n".join(f"- {plain(sentence)}" for sentence in plan.in_words()))


def _watch(name: str) -> None:
    """Show an import as it goes; when it has ended well, open its dataset."""
    state = find_import(name)
    if state is None:
        if is_prepared(name):
            go("explore", dataset=name)
        go("explore", **{"import": NEW})
    if state.error is None:
        watch(partial(_look, name), partial(_cancel, name), "cancel-import", "Leaves nothing behind.")
        return
    with st.container(border=True):
        heading, button = st.columns([4, 1], vertical_alignment="center")
        heading.markdown(_title(state))
        show_problem(state.error)
        if button.button("Dismiss", icon=":material/close:", width="stretch"):
            forget_import(name)
            st.rerun()


def _look(name: str) -> Work | None:
    state = find_import(name)
    if state is None or state.error is not None:
        return None
    progress = state.progress
    if progress is None:
        return Work(_title(state), "Getting ready")
    share = progress.done / progress.total if progress.total else 0.0
    return Work(_title(state), progress.in_words(), share)


def _title(state: ImportState) -> str:
    return f"**{plain(state.request.name)}** from {plain(state.request.path)}"


def _cancel(name: str) -> None:
    cancel_import(name)
    st.session_state["import-cancelled"] = name
