"""Runs as files: one is taken away as an archive, and one that was made elsewhere is brought in."""

import tempfile
from functools import partial
from pathlib import Path

import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_bytes, printable
from engine.runs.archive import archive_run, restore_run
from engine.runs.run import ACTIVE, open_run
from ui.importing import MAX_UPLOAD_MB
from ui.state import link
from ui.tables import recipe_of
from ui.wording import plain, show_problem

# Of a download Streamlit has four copies in memory for a moment, and one until the page that offers it is left.
LARGEST_DOWNLOAD = 1 << 29


def offer_archive(place, chosen: list[str]) -> None:
    """Offer the archive of the one run that is chosen, made when it is asked for."""
    name = chosen[0] if len(chosen) == 1 else ""
    why_not = _why_not(name) if name else "Select one run."
    # A list of the session's, which the download reaches without it: that runs in a thread of its own.
    told = st.session_state.setdefault("archive-told", [])
    place.download_button(
        "Archive",
        partial(_archive, name, told),
        f"{name or 'run'}.zip",
        "application/zip",
        icon=":material/archive:",
        disabled=bool(why_not),
        help=why_not or "The whole run as one file, to go on with in another Loupe.",
        on_click="ignore",
        width="stretch",
    )
    while told:
        show_problem(told.pop(0))


def _why_not(name: str) -> str:
    try:
        run = open_run(name)
        if run.status() in ACTIVE:
            return "It is still going on."
        recipe_of(run)  # raises when it is damaged
        size = sum(path.stat().st_size for path in run.path.iterdir())
    except (LoupeError, OSError) as error:
        return plain(error)
    if size > LARGEST_DOWNLOAD:
        return (
            f"Its {format_bytes(size)} are too much for a browser. In a terminal: "
            f"python -m engine archive {plain(name)} FILE.zip"
        )
    return ""


def _archive(name: str, told: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.zip"
        try:
            told += archive_run(open_run(name), path).left_out
        except LoupeError as error:
            told.append(str(error))
            raise
        return path.read_bytes()


def bring_in() -> None:
    """Take an archive and make a run of it; afterwards say which run that is, or what was the matter."""
    st.subheader("Bring in a run")
    if problem := st.session_state.pop("restore-problem", None):
        show_problem(problem)
    if name := st.session_state.pop("restored", None):
        st.success(f"The run {plain(name)} is here now.", icon=":material/check:")
        link("train", "Its training curves", run=name)
        link("evaluate", "Its evaluation", run=name)
    # Another key lets go of the file, which Streamlit keeps in memory.
    number = st.session_state.setdefault("restore-uploads", 0)
    file = st.file_uploader("The archive of a run", type="zip", max_upload_size=MAX_UPLOAD_MB, key=f"restore-{number}")
    st.caption(
        "A zip that Archive, or python -m engine archive, has made here or elsewhere. Nothing in it is executed, and "
        "no run is replaced."
    )
    if file is None:
        return
    try:
        with st.spinner("Looking through it"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{printable(Path(file.name).stem)[:60]}.zip"
            path.write_bytes(file.getbuffer())
            st.session_state["restored"] = restore_run(path).id
    except (LoupeError, OSError) as error:
        st.session_state["restore-problem"] = str(error)
    st.session_state["restore-uploads"] = number + 1
    st.rerun()
