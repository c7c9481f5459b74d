"""How a run came about: the curves of its training."""

import streamlit as st

from engine.runs.log import best_epoch
from engine.runs.run import Run
from ui.charts import curves, picture_config
from ui.tables import history_of
from ui.wording import plain


def show_training(run: Run) -> None:
    history = history_of(run)
    if not history.epochs:
        st.info("The log of this run has no epochs, so there are no curves to show.", icon=":material/show_chart:")
        return
    loss, accuracy = st.columns(2)
    loss.plotly_chart(curves(history, "loss"), config=picture_config(f"{run.id}-loss"), key="loss")
    accuracy.plotly_chart(curves(history, "accuracy"), config=picture_config(f"{run.id}-accuracy"), key="accuracy")
    best = best_epoch(history)
    if best is not None and history.started:
        st.caption(
            f"Best epoch by validation: {best.epoch} of {len(history.epochs)}, {best.val_accuracy:.2%} of "
            f"{history.started.val_count:,} right."
        )
    if history.ended:
        st.caption(f"Kept: {plain(history.ended.kept)}.")
