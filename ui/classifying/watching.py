"""Many pictures that are classified in the background: how far it is, and the answers."""

from collections.abc import Sequence

import streamlit as st

from engine.base.text import format_duration, pluralize
from engine.inference.classify_job import Job, cancel_job, delete_job, find_job, read_rows
from ui.wording import plain, show_problem

POLL_SECONDS = 0.5


def show_progress(job: Job) -> None:
    """Show how far a job is, until it ends."""
    st.fragment(_panel, run_every=POLL_SECONDS)(job.id)


def _panel(name: str) -> None:
    job = find_job(name)
    if job is None or not job.is_active:
        st.rerun()
    with st.container(border=True):
        heading, button = st.columns([4, 1], vertical_alignment="center")
        heading.markdown(f"**Classifying** {_what(job)}")
        button.button("Cancel", icon=":material/close:", on_click=cancel_job, args=(name,), width="stretch")
        if not job.total:
            st.progress(0.0, text="Counting pictures")
        elif not job.done:
            st.progress(0.0, text=f"Loading the model, then {pluralize(job.total, 'picture')}")
        else:
            left = f", {format_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
            st.progress(min(job.done / job.total, 1.0), text=f"{job.done:,} of {pluralize(job.total, 'picture')}{left}")


def _what(job: Job) -> str:
    names = [name for _, name in job.request.paths]
    return plain(names[0]) if len(names) == 1 else f"{len(names):,} files"


def show_end(job: Job, rows: Sequence[dict]) -> None:
    """Say how a job ended, and offer to go on with others."""
    left, right = st.columns([4, 1], vertical_alignment="center")
    bad = sum("error" in row for row in rows)
    but = f", and {bad:,} that could not be" if bad else ""
    left.markdown(f"**{_what(job)}**: {pluralize(len(rows) - bad, 'picture')} classified{but}")
    right.button("Classify others", icon=":material/add:", on_click=_leave, args=(job.id,), width="stretch")
    if job.error:
        show_problem(job.error)
    elif job.was_cancelled:
        st.info(
            f"Cancelled after {job.done:,} of {pluralize(job.total, 'picture')}; the answers so far are below.",
            icon=":material/info:",
        )
    if job.passed_over:
        st.caption(f"Passed over: {pluralize(job.passed_over, 'file')} whose names are not those of pictures.")


def _leave(job: str) -> None:
    delete_job(job)
    st.query_params.pop("job", None)


# A table, for those who look at the answers again and again; the key has how many there are.
@st.cache_data(max_entries=4, show_spinner=False)
def rows_of_job(job: str, done: int) -> list[dict]:
    return read_rows(job)
