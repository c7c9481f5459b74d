"""Work in the background as every page shows it: how far it is, and a way to end it."""

from collections.abc import Callable
from typing import NamedTuple

import streamlit as st

from ui.wording import plain

POLL_SECONDS = 0.5


class Work(NamedTuple):
    """How far work is. title: Markdown. text: what is being done. share: of all of it, 0 to 1; None if not known."""

    title: str
    text: str
    share: float | None = None


def watch(look: Callable[[], Work | None], cancel: Callable[[], None], key: str, help: str | None = None) -> None:
    """Show work as it goes, looking again and again; the page runs anew once ``look`` finds it has ended.

    The page is not held up meanwhile, and work goes on when it is left. help: what comes of cancelling.
    """
    st.fragment(_panel, run_every=POLL_SECONDS)(look, cancel, key, help)


def _panel(look: Callable[[], Work | None], cancel: Callable[[], None], key: str, help: str | None) -> None:
    work = look()
    if work is None:
        st.rerun()
    with st.container(border=True):
        heading, button = st.columns([4, 1], vertical_alignment="center")
        heading.markdown(work.title)
        button.button("Cancel", icon=":material/close:", on_click=cancel, width="stretch", help=help, key=key)
        text = f"{work.text[:1].upper()}{work.text[1:]}"
        if work.share is None:
            st.markdown(f":material/hourglass_top: {plain(text)}")
        else:
            st.progress(min(work.share, 1.0), text=text)
