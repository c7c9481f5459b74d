import streamlit as st

from engine.base.errors import LoupeError
from engine.runs.run import delete_run, open_run
from ui.archiving import bring_in, offer_archive
from ui.exporting import show_exports
from ui.state import enter, go, link
from ui.tables import rows_version, run_table, run_table_columns
from ui.wording import plain, show_problem

enter()


@st.dialog("Delete for good?")
def confirm(names: list[str]) -> None:
    what = names[0] if len(names) == 1 else f"these {len(names)} runs"
    st.markdown(f"This deletes {plain(what)} with model, log and predictions. It cannot be undone.")
    if len(names) > 1:
        st.markdown("\n".join(f"- {plain(name)}" for name in names))
    yes, no = st.columns(2)
    if no.button("Keep", width="stretch"):
        st.rerun()
    if yes.button("Delete", type="primary", icon=":material/delete:", width="stretch"):
        problems = []
        for name in names:
            try:
                delete_run(open_run(name))
            except LoupeError as error:
                problems.append(str(error))
        st.session_state.problems = problems
        st.rerun()


@st.dialog("Take the model away", width="large")
def take_away(name: str) -> None:
    st.caption(plain(name))
    show_exports(open_run(name))


st.title("Runs")
for problem in st.session_state.pop("problems", []):
    show_problem(problem)
table = run_table()
if table.empty:
    st.info("There are no runs yet. The quick start makes the first in under a minute.", icon=":material/info:")
    link("home", "Go to the quick start")
    bring_in()
    st.stop()
picked = st.dataframe(
    table,
    hide_index=True,
    on_select="rerun",
    selection_mode="multi-row",
    placeholder="",
    key=f"runs-{rows_version(table)}",
    **run_table_columns(),
)
chosen = [table.run[row] for row in picked.selection.rows]
watch, evaluate, compare, export, archive, delete = st.columns(6)
if watch.button("Curves", icon=":material/show_chart:", disabled=len(chosen) != 1, width="stretch"):
    go("train", run=chosen[0])
if evaluate.button("Evaluate", icon=":material/rule:", disabled=len(chosen) != 1, width="stretch"):
    go("evaluate", run=chosen[0])
if compare.button("Compare", icon=":material/compare:", disabled=len(chosen) != 2, width="stretch"):
    go("evaluate", run=chosen[0], look="Compare", **{"with": chosen[1]})
if export.button("Export", icon=":material/ios_share:", disabled=len(chosen) != 1, width="stretch"):
    take_away(chosen[0])
offer_archive(archive, chosen)
if delete.button("Delete", icon=":material/delete:", disabled=not chosen, width="stretch"):
    confirm(chosen)
if not chosen:
    st.caption("Select a run to open, export or archive it, two to compare them, or several to delete them.")
bring_in()
