"""A sheet of paper to draw on, with mouse, finger or pen."""

import base64
import binascii

import streamlit as st

from ui.components import component

# A drawing takes about 10 kB; whatever is far beyond that did not come from the pad.
MOST = 1_000_000
FORM = "data:image/png;base64,"

_component = component("drawing_pad")


def drawing_pad(key: str, thickness: float) -> bytes | None:
    """Show a sheet to draw on; returns the drawing as a PNG, black on white, or None while nothing is drawn.

    thickness: of the stroke, in parts of the sheet's side.
    """
    held = png_of(st.session_state.get(key, {}).get("drawing")) is not None
    data = {"key": key, "thickness": thickness, "held": held}
    return png_of(_component(data=data, key=key, on_drawing_change=lambda: None).drawing)


def png_of(value: object) -> bytes | None:
    """Return the PNG that a browser sent as a data URL, or None where it sent anything else."""
    if not isinstance(value, str) or len(value) > MOST or not value.startswith(FORM):
        return None
    try:
        content = base64.b64decode(value.removeprefix(FORM), validate=True)
    except binascii.Error:
        return None
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None
