"""A run as it goes: polled while it is active, still once it has ended."""

import streamlit as st

from engine.log import History
from engine.recipes import published_in_words
from engine.records import Evaluating, Preparing
from engine.runs import ACTIVE, Run
from engine.words import duration
from ui.charts import CONFIG, curves
from ui.tables import SPLIT_NAMES, STATUS_ICONS
from ui.wording import plain, show_problem

# Every open tab polls, and on a small machine it takes from the training that it watches.
POLL_SECONDS = {"starting": 0.5, "queued": 1.0, "running": 1.0}


def show_run(run: Run) -> str:
    """Show a run, and go on showing it by itself while it is active. Returns its status."""
    history = st.session_state.get("watched_history")
    if history is None or history.path != run.log:
        history = st.session_state.watched_history = run.history()
    status = run.status(history.read())
    st.fragment(_panel, run_every=POLL_SECONDS.get(status))(run, status)
    return status


def _panel(run: Run, drawn_status: str) -> None:
    history: History = st.session_state.watched_history
    status = run.status(history.read())
    if status != drawn_status:
        st.rerun()  # the whole page: the timer changes or goes, and so does what is offered
    with st.container(border=True):
        heading, button = st.columns([4, 1], vertical_alignment="center")
        heading.markdown(f"{STATUS_ICONS[status]} **{plain(run.id)}** · {status}")
        if status in ACTIVE:
            stopping = run.stop_file.exists()
            button.button(
                "Stopping" if stopping else "Stop",
                icon=":material/stop:",
                disabled=stopping,
                on_click=run.request_stop,
                help="Ends the training at its next step. The model so far is kept and evaluated.",
                width="stretch",
                key="stop",
            )
            share, text = _progress(history, status)
            st.progress(share, text="Stopping: " + text if stopping else text)
        elif explanation := run.explain(history):
            show_problem(explanation)
        if history.started:
            _figures(run, history)
            loss, accuracy = st.columns(2)
            with loss:
                st.plotly_chart(curves(history, "loss"), config=CONFIG, key="loss")
            with accuracy:
                st.plotly_chart(curves(history, "accuracy"), config=CONFIG, key="accuracy")


def _progress(history: History, status: str) -> tuple[float, str]:
    """Return how far the run is, 0 to 1, and say it."""
    started, position, last = history.started, history.position, history.last
    if status == "queued":
        return 0.0, "Queued: another run has the device. This one starts by itself when that ends."
    if isinstance(last, Preparing) and last.total:
        text = f"Getting the dataset: {last.done / 1e6:.1f} of {last.total / 1e6:.1f} MB"
        return last.done / last.total, text
    if isinstance(last, Evaluating):
        text = f"Evaluating on the {SPLIT_NAMES[last.split]} images: {last.done:,} of {last.total:,}"
        return last.done / last.total, text
    if not started:
        return 0.0, "Getting ready: loading PyTorch takes a few seconds"
    steps = started.epochs * started.steps_per_epoch
    if not position:
        return 0.0, f"Training on {started.train_count:,} images: first of {steps:,} steps"
    left = duration(history.seconds_left() or 0)
    epoch = min(len(history.epochs) + 1, started.epochs)
    text = f"Epoch {epoch} of {started.epochs}, step {position.step:,} of {steps:,}: about {left} of training left"
    return position.step / steps, text


def _figures(run: Run, history: History) -> None:
    position, ended = history.position, history.ended
    source = ended or position
    if not source or not history.started:
        return
    shown = [
        ("Training loss", f"{source.train_loss:.4g}", "Cross-entropy in nats, mean over the latest steps."),
        ("Training accuracy", f"{source.train_accuracy:.2%}", "Of the images in the latest steps."),
        ("Pace", f"{source.images_per_second:,.0f}/s", "Training images a second, validation left out."),
    ]
    if history.started.val_count:
        best = max((epoch.val_accuracy for epoch in history.epochs if epoch.val_accuracy is not None), default=None)
        about = f"Highest so far, on the {history.started.val_count:,} images that are held back from training."
        shown.append(("Validation, best", "..." if best is None else f"{best:.2%}", about))
    if history.started.test_count:
        test = ended.test_accuracy if ended else None
        about = f"On {history.started.test_count:,} test images, once, at the end: nothing is chosen by it."
        shown.append(("Test accuracy", "..." if test is None else f"{test:.2%}", about))
    with st.container(horizontal=True):  # wraps where it is narrow
        for label, value, about in shown:
            st.metric(label, value, help=about, width=136)
    if ended:
        figures = published_in_words(run.recipe)
        reference = f" Published: {figures}." if figures else ""
        st.caption(
            f"{duration(ended.train_seconds)} of training, {ended.epochs} of {history.started.epochs} epochs finished. "
            f"Kept: {plain(ended.kept)}.{reference}"
        )
