"""Loupe: train an image classifier and look closely at what it gets wrong. Start: streamlit run streamlit_app.py"""

import os

import streamlit as st

from engine.runs.run import WORKER_ENVIRONMENT
from ui.state import PAGES, note_arrival

# Before PyTorch comes with the first page that asks a model: an image is there in two thirds of the time.
os.environ.setdefault("GOMP_SPINCOUNT", WORKER_ENVIRONMENT["GOMP_SPINCOUNT"])

st.set_page_config(page_title="Loupe", page_icon="ui/loupe.png", layout="wide")
st.session_state.entered = True
st.logo("ui/loupe.png", size="large")
page = st.navigation(list(PAGES.values()))
note_arrival(page.title)
page.run()
