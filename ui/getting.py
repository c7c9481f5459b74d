"""Getting a dataset of the catalogue: offered, and watched while it comes."""

from functools import partial

import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_duration
from engine.data.catalogue import CATALOGUE
from engine.data.download_job import cancel_download, find_download, forget_download, progress_of, start_download
from ui.jobs import Work, watch
from ui.wording import show_problem


def offer_download(name: str) -> None:
    """Offer to get a dataset that is not here, or show how far getting it is."""
    source = CATALOGUE[name]
    state = find_download(name)
    if state and state.is_running:
        watch(partial(_look, name), partial(cancel_download, name), "cancel-download", "Leaves nothing behind.")
        return
    size = f"downloads {source.download_bytes / 1e6:.1f} MB once" if source.download_bytes else "downloads nothing"
    st.info(f"{source.title} is not prepared yet. Getting it {size}.", icon=":material/download:")
    if st.button(f"Get {source.title}", type="primary", icon=":material/download:"):
        forget_download(name)
        try:
            start_download(name)
        except LoupeError as error:
            show_problem(error)
        else:
            st.rerun()
    elif state and state.error:
        show_problem(state.error)


def _look(name: str) -> Work | None:
    state = find_download(name)
    if state is None or not state.is_running:
        return None
    title = f"**{CATALOGUE[name].title}**"
    progress = progress_of(state)
    if not progress.total:
        return Work(title, "Preparing")
    left = "" if progress.seconds_left is None else f", about {format_duration(progress.seconds_left)} left"
    done = f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"
    return Work(title, f"Downloading {done}{left}", progress.done / progress.total)
