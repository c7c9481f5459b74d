import streamlit as st

from engine.base.errors import LoupeError
from engine.base.machine import cores, gpu_name
from engine.data.catalogue import describe_datasets
from engine.recipes.recipe import find_recipe
from engine.runs.run import start
from ui.importing import NEW
from ui.state import enter, go, link
from ui.tables import rows_version, run_table, run_table_columns
from ui.wording import plain, show_problem

enter()

QUICK_START = "digits-quick"

st.title("Loupe")
st.markdown("Train an image classifier on your own machine, and look closely at what it gets wrong.")

with st.container(border=True):
    st.subheader("Quick start")
    st.markdown(
        "Train a small network on 1,437 scans of handwritten digits, test it on 360 others, and see its mistakes. "
        "It takes under a minute and downloads nothing."
    )
    if st.button("Train on the digits", type="primary", icon=":material/play_arrow:"):
        try:
            run = start(find_recipe(QUICK_START))
        except LoupeError as error:
            show_problem(error)
        else:
            go("train", run=run.id, then="gallery")

st.subheader("Recent runs")
runs = run_table(most=8)
if runs.empty:
    st.caption("None yet. The quick start above makes the first; the Train page has every setting.")
else:
    picked = st.dataframe(
        runs,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"recent-{rows_version(runs)}",
        placeholder="",
        **run_table_columns(),
    )
    st.caption("Select a row to open that run.")
    if picked.selection.rows:
        go("evaluate", run=runs.run[picked.selection.rows[0]])

st.subheader("Datasets")
for dataset in sorted(describe_datasets(), key=lambda described: not described["own"]):
    name, state = st.columns([4, 1], vertical_alignment="center")
    with name:
        st.markdown(f"**{plain(dataset['title'])}** · {plain(dataset['about'])}")
    with state:
        link("explore", "Explore" if dataset["present"] or dataset["own"] else "Get it", dataset=dataset["name"])

link("explore", "Import your own images: a folder or a zip, a folder for each class", **{"import": NEW})

gpu = gpu_name()
st.caption(f"This machine: {cores()} processor cores, {gpu or 'no NVIDIA GPU'}. Nothing leaves it.")
