"""Many pictures that are classified in the background: how far it is, and the answers."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from engine.base.text import format_duration, pluralize
from engine.inference.classify_job import (
    Classification,
    cancel_classification,
    delete_classification,
    find_classification,
    read_rows,
)
from ui.jobs import Work, watch
from ui.wording import plain, show_problem


def show_progress(job: Classification) -> None:
    """Show how far a job is, until it ends."""
    cancel = partial(cancel_classification, job.id)
    watch(partial(_look, job.id), cancel, "cancel-classification", "Keeps the answers so far.")


def _look(name: str) -> Work | None:
    job = find_classification(name)
    if job is None or not job.is_active:
        return None
    title = f"**Classifying** {_what(job)}"
    if not job.total:
        return Work(title, "Counting pictures")
    if not job.done:
        return Work(title, f"Loading the model, then {pluralize(job.total, 'picture')}")
    left = f", {format_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
    return Work(title, f"{job.done:,} of {pluralize(job.total, 'picture')}{left}", job.done / job.total)


def _what(job: Classification) -> str:
    names = [name for _, name in job.request.paths]
    return plain(names[0]) if len(names) == 1 else f"{len(names):,} files"


def show_end(job: Classification, rows: Sequence[dict]) -> None:
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
        st.caption(f"Passed over: {pluralize(job.passed_over, 'other file')}, no pictures.")


def _leave(job: str) -> None:
    delete_classification(job)
    st.query_params.pop("job", None)


# A table, for those who look at the answers again and again; the key has how many there are.
@st.cache_data(max_entries=4, show_spinner=False)
def rows_of_job(job: str, done: int) -> list[dict]:
    return read_rows(job)
