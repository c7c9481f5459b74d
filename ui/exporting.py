"""Taking a run's model away: each format is made when it is asked for, proved, and offered for download."""

import tempfile
from functools import partial
from pathlib import Path

import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import format_bytes
from engine.export.export_job import CachedExport, cancel_export, export_state, find_cached_export, start_export
from engine.runs.run import ACTIVE, Run
from ui.jobs import Work, watch
from ui.wording import plain, show_problem

# Of a download Streamlit has several copies in memory for a moment.
LARGEST_DOWNLOAD = 1 << 29
MODELS = {
    "onnx": (
        "ONNX",
        "The model as one file for onnxruntime, on any system and in any language: pictures of any size in, "
        "probabilities out. With a short **predict.py**, which needs only onnxruntime, numpy and pillow, and a card.",
    ),
    "torch": (
        "PyTorch",
        "The same as a torch.export program, which runs without the code of the network; with the weights as "
        "safetensors, **predict.py** and a card.",
    ),
}


def show_exports(run: Run) -> None:
    """Offer a run's model in each format, and the script that trains it again."""
    if not run.weights.exists() or run.status() in ACTIVE:
        st.caption("This run has no finished model to take away.")
        return
    for format in MODELS:
        _show_export(run, format)
    button, words = st.columns([1, 2], vertical_alignment="center")
    button.download_button(
        "Training script",
        lambda: _script(run),
        f"train-{run.id}.py",
        "text/x-python",
        icon=":material/code:",
        on_click="ignore",
        width="stretch",
        key="export-script",
    )
    words.markdown(
        "One plain PyTorch script, readable from top to bottom, that trains the same network with the same settings "
        "without Loupe's code. A dataset that was imported it reads where Loupe keeps it: a line at its top says where."
    )


def _show_export(run: Run, format: str) -> None:
    """Offer the kept export in a format for download; without one, show its progress or a button to make it."""
    name, about = MODELS[format]
    state = export_state(run, format)
    if state and state.is_running:
        st.markdown(about)
        watch(partial(_look, run, format), partial(cancel_export, run, format), f"cancel-{format}")
        return
    button, words = st.columns([1, 2], vertical_alignment="center")
    words.markdown(about)
    if kept := find_cached_export(run, format):
        _offer(run, format, kept, button)
        words.caption(f":material/verified: {plain(kept.proof.in_words())}")
    else:
        if button.button(f"Export as {name}", icon=":material/ios_share:", width="stretch", key=f"export-{format}"):
            try:
                start_export(run, format)
            except LoupeError as error:
                show_problem(error)
                return
            st.rerun()
        if state and state.error:
            show_problem(state.error)


def _look(run: Run, format: str) -> Work | None:
    state = export_state(run, format)
    if state is None or not state.is_running:
        return None
    said = state.progress or "getting ready: this takes some seconds"
    return Work(f"**{MODELS[format][0]}**", said)


def _offer(run: Run, format: str, kept: CachedExport, place) -> None:
    if kept.bytes > LARGEST_DOWNLOAD:
        place.caption(f"Too large for a browser ({format_bytes(kept.bytes)}). It is in {plain(kept.folder)}.")
        return
    place.download_button(
        f"{MODELS[format][0]}, {format_bytes(kept.bytes)}",
        lambda: _zipped(kept),
        f"{run.id}-{format}.zip",
        "application/zip",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
        key=f"download-{format}",
    )


def _zipped(kept: CachedExport) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.zip"
        kept.write_zip(path)
        return path.read_bytes()


def _script(run: Run) -> str:
    from engine.export.script import script_of

    return script_of(run)
