"""Help in choosing the settings of a training: the one-minute check, the learning-rate finder, and the run doctor."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from engine.advice.doctor import Finding, diagnose
from engine.base.errors import LoupeError
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.recipe import Recipe, change
from engine.runs.log import History
from engine.runs.records import FINAL
from engine.runs.run import Run, require_sources
from ui.charts import CONFIG, rate_curve
from ui.commands import Command, as_arguments
from ui.recipe_form import fill_form, in_short
from ui.tables import recipe_of
from ui.wording import plain, show_problem

# What can be asked before a training, by the command that answers.
QUESTIONS = {
    "rehearse": (
        "One-minute check",
        ":material/fact_check:",
        "Tries these settings for a moment, and says what to expect.",
    ),
    "find-rate": ("Find a learning rate", ":material/speed:", "Trains for a moment at rising rates; keeps nothing."),
}
STEPS_BETWEEN = 50  # that were logged, or an epoch, between two looks of the doctor at a run
VERDICTS = {"good": ":material/check:", "look": ":material/visibility:", "bad": ":material/error:"}


def offer_advice() -> str | None:
    """Show a button for each question; returns the command of the one that was pressed."""
    asked = None
    for command, (title, icon, help) in QUESTIONS.items():
        if st.button(title, icon=icon, help=help, key=f"ask-{command}"):
            asked = command
    return asked


def show_advice(recipe: Recipe, asked: str | None) -> None:
    """Answer what is asked about a recipe, and go on showing the answer as long as the recipe stays as it is."""
    state = st.session_state
    if asked:
        state.pop("advice", None)
        _end_work()
        try:
            require_sources(recipe)
            state.work = {"command": asked, "recipe": recipe, "work": Command(asked, *as_arguments(recipe))}
        except LoupeError as error:
            state.advice = {"command": asked, "recipe": recipe, "error": str(error)}
    if "work" in state and state.work["recipe"] != recipe:
        _end_work()
    if "work" in state:
        _wait()
    told = state.get("advice")
    if not told or not _is_about(told, recipe):
        return
    if "error" in told:
        show_problem(told["error"])
        return
    with st.container(border=True):
        st.markdown(f"**{QUESTIONS[told['command']][0]}**")
        if told["command"] == "rehearse":
            _show_checks(told["answer"])
        else:
            _show_rates(recipe, told["answer"])


def _is_about(told: dict[str, Any], recipe: Recipe) -> bool:
    """Tell whether an answer is about a recipe: that of the rate finder is, whatever the rate."""
    if told["command"] == "find-rate":
        recipe = replace(recipe, learning_rate=told["recipe"].learning_rate)
    return told["recipe"] == recipe


@st.fragment(run_every=0.5)  # not waited for here: the page and its run would stand still
def _wait() -> None:
    waiting = st.session_state.get("work")
    if not waiting:
        return
    work: Command = waiting["work"]
    if work.has_ended():
        advice = {name: waiting[name] for name in ("command", "recipe")}
        try:
            advice["answer"] = work.result()
        except LoupeError as error:
            advice["error"] = str(error)
        st.session_state.advice = advice
        _end_work()
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        title = QUESTIONS[waiting["command"]][0]
        st.markdown(f":material/hourglass_top: {title}: {plain(work.last_words() or 'starting')}", width="content")
        st.button("Cancel", on_click=_end_work, key="cancel-work")
    if "work" not in st.session_state:  # cancelled
        st.rerun()


def _end_work() -> None:
    """End what is under way, if anything is; also of those who have left for another page."""
    waiting = st.session_state.pop("work", None)
    if waiting:
        waiting["work"].end()


def _show_checks(checks: list[dict[str, str]]) -> None:
    for check in checks:
        st.markdown(f"{VERDICTS[check['verdict']]} **{check['name'].capitalize()}.** {plain(check['text'])}")


def _show_rates(recipe: Recipe, curve: dict[str, Any]) -> None:
    st.plotly_chart(rate_curve(curve, recipe.learning_rate), config=CONFIG, key="rate-curve")
    found = curve["suggestion"]
    if found == recipe.learning_rate:
        st.markdown(f"{plain(curve['reason'])} The learning rate is {found:g} already.")
        return
    st.markdown(plain(curve["reason"]))
    if found:
        st.button(
            f"Take {found:g}",
            icon=":material/check:",
            on_click=fill_form,
            args=(replace(recipe, learning_rate=found),),
            help=f"Sets the learning rate above to it, in place of {recipe.learning_rate:g}.",
            key="take-rate",
        )


def show_doctor(run: Run, history: History) -> None:
    """Show what is the matter with a run by its own figures, and offer the next one with the change made."""
    # Not at every look at a run that goes on: with 12,600 steps it takes 25 ms.
    end = history.last if isinstance(history.last, FINAL) else None
    seen = run.id, len(history.epochs), len(history.steps) // STEPS_BETWEEN, end
    recipe = recipe_of(run)
    if st.session_state.get("diagnosed", (None, []))[0] != seen:
        counts = _training_counts(history, recipe)
        st.session_state.diagnosed = seen, diagnose(recipe, history, counts)
    findings = st.session_state.diagnosed[1]
    if not findings:
        if history.ended:
            st.caption("The run doctor has found nothing: the curves show no overfitting, and the rate seems right.")
        return
    st.markdown(":material/stethoscope: **Run doctor**")
    for number, finding in enumerate(findings):
        _show_finding(recipe, finding, number)


def _show_finding(recipe: Recipe, finding: Finding, number: int) -> None:
    with st.container(border=True):
        st.markdown(f"**{plain(finding.title)}** {plain(finding.evidence)}")
        if not finding.change:
            st.caption(plain(finding.advice))
            return
        changed = ", ".join(f"{name} {in_short(value)}" for name, value in finding.change.items())
        with st.container(horizontal=True, vertical_alignment="center"):
            wanted = st.button(
                f"Next run with {plain(changed)}",
                icon=":material/edit:",
                on_click=fill_form,
                args=(change(recipe, finding.change),),
                key=f"finding-{number}",
            )
            st.caption(plain(finding.advice))
        if wanted:
            st.query_params.pop("run", None)  # so that the form is what the page begins with
            st.rerun()


def _training_counts(history: History, recipe: Recipe) -> Mapping[str, int] | None:
    """Count the training images of each class; None where the dataset is gone, or another by now."""
    if not is_prepared(recipe.dataset):
        return None
    try:
        dataset = open_dataset(recipe.dataset)
    except LoupeError:
        return None
    if history.started and history.started.fingerprint != dataset.fingerprint:
        return None
    return dict(zip(dataset.classes, dataset.class_counts()["train"], strict=True))
