"""Loupe: train an image classifier and look closely at what it gets wrong. Start: streamlit run streamlit_app.py"""

import streamlit as st

from ui.state import PAGES

st.set_page_config(page_title="Loupe", page_icon="ui/loupe.png", layout="wide")
st.session_state.entered = True
st.logo("ui/loupe.png", size="large")
st.navigation(list(PAGES.values())).run()
