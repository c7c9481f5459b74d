"""A run as it goes: polled while it is active, still once it has ended."""

import csv
import io

import streamlit as st

from engine.base.text import SPLIT_NAMES, format_bytes, format_duration, join_words, pluralize
from engine.data.catalogue import item_of
from engine.recipes.recipe import published
from engine.runs.log import History, best_epoch, history_rows
from engine.runs.records import Evaluating, Extracting, Preparing
from engine.runs.run import ACTIVE, Run, list_runs
from ui.advice import show_doctor
from ui.charts import curves, picture_config, rates
from ui.tables import STATUS_ICONS, beside_published, recipe_of, seconds_in_words
from ui.wording import plain, show_problem

# Every open tab polls, and on a small machine it takes from the training that it watches.
POLL_SECONDS = {"starting": 0.5, "queued": 2.0, "running": 2.0}
# The last record of a log is within so many bytes of its end.
TAIL_BYTES = 4096
NOT_YET, NONE = "...", "none"


def show_run(run: Run) -> str:
    """Show a run, and go on showing it by itself while it is active. Returns its status."""
    history = st.session_state.get("watched_history")
    if history is None or history.path != run.log:
        history = st.session_state.watched_history = run.history()
    status = run.status(history.read())
    st.fragment(_panel, run_every=POLL_SECONDS.get(status))(run, status)
    return status


def going_on(but: Run | None = None) -> dict[str, str]:
    """Return the status of all runs that are going on, or of all but one, by their ids."""
    found = {}
    for other in list_runs():
        if (but is None or other.id != but.id) and other.has_process():
            size = other.log.stat().st_size if other.log.exists() else 0
            found[other.id] = other.status(History(other.log, offset=max(0, size - TAIL_BYTES)).read())
    return found


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
            share, text = _progress(run, history, status)
            st.progress(share, text="Stopping: " + text if stopping else text)
        elif explanation := run.explain(history):
            show_problem(explanation)
        if status in ACTIVE or history.position:  # from the start, so that nothing moves when the first figures come
            _figures(run, history)
            _charts(run, history)
    if history.position or status == "failed":
        show_doctor(run, history)


def _progress(run: Run, history: History, status: str) -> tuple[float, str]:
    """Return how far the run is, 0 to 1, and say it."""
    started, position, last = history.started, history.position, history.last
    if status == "queued":
        return 0.0, _queue(run)
    if isinstance(last, Preparing) and last.total:
        text = f"Downloading: {last.done / 1e6:.1f} of {last.total / 1e6:.1f} MB"
        return last.done / last.total, text
    item = item_of(recipe_of(run).dataset)
    if isinstance(last, Extracting):
        rest = format_duration((last.total - last.done) * last.seconds / last.done)
        text = f"The frozen backbone is run on each {item} once: {last.done:,} of {last.total:,}, about {rest} left"
        return last.done / last.total, text
    if isinstance(last, Evaluating):
        text = f"Evaluating on the {SPLIT_NAMES[last.split]} {item}s: {last.done:,} of {last.total:,}"
        return last.done / last.total, text
    if not started or status == "starting":
        return 0.0, "Getting ready: loading PyTorch takes a few seconds"
    steps = started.epochs * started.steps_per_epoch
    if not position:
        return 0.0, f"Training on {pluralize(started.train_count, item)}: first of {steps:,} steps"
    epoch = min(len(history.epochs) + 1, started.epochs)
    pace = position.train_seconds / position.step
    of_run = format_duration(history.seconds_left() or 0)
    left = f"{of_run} left"
    if epoch < started.epochs and pace * started.steps_per_epoch >= 1:
        of_epoch = format_duration(pace * max(epoch * started.steps_per_epoch - position.step, 0))
        left = f"{of_epoch} of this epoch and {of_run} of the run left"
    text = f"Epoch {epoch:,} of {started.epochs:,}, step {position.step:,} of {steps:,}: about {left}"
    return min(position.step / steps, 1.0), text


def _queue(run: Run) -> str:
    """Say what a queued run waits for: the one that has the device, and those that were made earlier."""
    others = going_on(but=run)
    ahead = [name for name, status in others.items() if status == "running"]
    ahead += sorted(name for name, status in others.items() if status == "queued" and name < run.id)
    waited_for = f"waits for {plain(join_words(ahead))}" if ahead else "another run has the device"
    return f"Queued: {waited_for}. This one starts by itself when that ends."


def _figures(run: Run, history: History) -> None:
    started, ended, item = history.started, history.ended, item_of(recipe_of(run).dataset)
    position = history.position
    source = ended or position
    best = best_epoch(history)
    test = ended.test_accuracy if ended else None
    val_count, test_count = (started.val_count, started.test_count) if started else (None, None)
    memory = position.memory_mb if position else 0.0
    where = "its tensors have had on the GPU" if started and started.device == "cuda" else "its process has had"
    if not val_count:
        about_best = f"No {item}s are held back from training, so no epoch is chosen."
    else:
        about_best = f"Of the best epoch so far, on the {pluralize(val_count, item)} held back from training."
    with st.container(horizontal=True):  # wraps where it is narrow
        for label, value, about in (
            (
                "Training loss",
                f"{source.train_loss:.4g}" if source else NOT_YET,
                "Cross-entropy in nats, mean over the latest steps; at the end that of the weights kept.",
            ),
            ("Training accuracy", f"{source.train_accuracy:.2%}" if source else NOT_YET, f"Of the same {item}s."),
            (
                f"Best, epoch {best.epoch:,}" if best else "Best epoch",
                f"{best.val_accuracy:.2%}" if best else NOT_YET if val_count or not started else NONE,
                f"Validation accuracy. {about_best}",
            ),
            (
                "Test accuracy",
                f"{test:.2%}" if test is not None else NOT_YET if test_count or not started else NONE,
                f"On {pluralize(test_count or 0, f'test {item}')}, once, at the end: nothing is chosen by it.",
            ),
            (
                f"{item.capitalize()}s a second",
                f"{source.images_per_second:,.0f}" if source else NOT_YET,
                "In training steps; evaluation is left out.",
            ),
            (
                "Training time",
                seconds_in_words(source.train_seconds) if source else NOT_YET,
                "Time in training steps: without loading, evaluation and saving.",
            ),
            ("Memory", _memory(memory) if memory else NOT_YET, f"The most that {where} so far."),
        ):
            st.metric(label, value, help=about, width=160)


def _memory(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB" if megabytes < 999.5 else format_bytes(megabytes * 1e6)


def _charts(run: Run, history: History) -> None:
    left, right = st.columns(2)
    left.plotly_chart(curves(history, "loss"), config=picture_config(f"{run.id}-loss"), key="loss")
    right.plotly_chart(curves(history, "accuracy"), config=picture_config(f"{run.id}-accuracy"), key="accuracy")
    left, right = st.columns(2)
    left.plotly_chart(
        rates(history, "learning_rate", "learning rate"),
        config=picture_config(f"{run.id}-learning-rate"),
        key="learning_rate",
    )
    right.plotly_chart(
        rates(history, "images_per_second", f"{item_of(recipe_of(run).dataset)}s a second"),
        config=picture_config(f"{run.id}-pace"),
        key="pace",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "History as CSV",
            lambda: history_csv(history),
            f"{run.id}-history.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            help="A row for each step that was logged, each epoch and each evaluation.",
            key="history",
        )
        st.caption("The camera above a chart saves it as a picture.", width="content")
    if ended := history.ended:
        made = f"{ended.epochs:,} of {pluralize(history.started.epochs, 'epoch')}" if history.started else "?"
        st.caption(f"{seconds_in_words(ended.train_seconds)} of training, {made} finished. Kept: {plain(ended.kept)}.")
    for sentence in about_backbone(run, history):
        st.caption(plain(sentence))
    if figures := published(recipe_of(run)):
        st.table(beside_published(history, figures), border="horizontal", hide_index=True, width="content")
        st.caption(f"Published: {plain(figures['source'])}.")


def about_backbone(run: Run, history: History) -> list[str]:
    """Say what a run started from, how long its features took, and what a frozen backbone means."""
    recipe, said = recipe_of(run), []
    if history.started and history.started.note:
        said.append(history.started.note)
    if recipe.freeze != "none":
        how_long = "" if recipe.freeze == "backbone" else f" for {pluralize(recipe.frozen_epochs, 'epoch')}"
        said.append(f"The backbone is frozen{how_long}, its batch norm and dropout too: they work as in use.")
    if history.extractions:
        count = sum(each.total for each in history.extractions)
        seconds = sum(each.seconds for each in history.extractions)
        said.append(
            f"The backbone made {count:,} sets of features, one for each image or version of it, in "
            f"{seconds_in_words(seconds)}, which is not in the training time; later runs find them ready."
        )
    return said


def history_csv(history: History) -> str:
    """Write all logged figures as a table."""
    rows = history_rows(history)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["record"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
