"""Our own Streamlit components: the JavaScript and the style sheet of each, as files in this folder."""

from pathlib import Path

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

FOLDER = Path(__file__).parent


def component(name: str) -> ComponentRenderer:
    """Register the component of NAME.js and NAME.css as ``loupe_NAME``; returns the function that shows it.

    Call it at the top of a module: the files are then read once, and not at each rerun of a page.
    """
    # As text: Streamlit takes paths from installed packages alone.
    js, css = ((FOLDER / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component(f"loupe_{name}", css=css, js=js)
