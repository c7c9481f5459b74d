"""Help in choosing the settings of a training: the one-minute check, the learning-rate finder, and the run doctor."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from engine.advice.advice_job import ask, find_answer
from engine.advice.doctor import Finding, diagnose
from engine.base.errors import LoupeError
from engine.base.jobs import Job, JobState
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.recipe import Recipe, change
from engine.runs.log import History
from engine.runs.records import FINAL
from engine.runs.run import Run
from ui.charts import CONFIG, rate_curve
from ui.jobs import Work, watch
from ui.recipe_form import fill_form, in_short
from ui.tables import recipe_of
from ui.wording import plain, show_problem

# What can be asked before a training, as engine.advice.advice_job calls it.
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
    """Show a button for each question; returns the question whose button was pressed."""
    asked = None
    for question, (title, icon, help) in QUESTIONS.items():
        if st.button(title, icon=icon, help=help, key=f"ask-{question}"):
            asked = question
    return asked


def show_advice(recipe: Recipe, asked: str | None) -> None:
    """Start what was asked about a recipe, and show the answers that there are for it."""
    _end_what_is_not_about(recipe)
    if asked:
        try:
            ask(asked, recipe)
        except LoupeError as error:
            show_problem(error)
        st.session_state["asked"] = asked, recipe
    for question in QUESTIONS:
        if (job := find_answer(question, recipe)) and (state := job.state()):
            _show_answer(recipe, question, job, state)


def _end_what_is_not_about(recipe: Recipe) -> None:
    """End what this session asked about another recipe, since nobody waits for it any more."""
    question, before = st.session_state.get("asked", ("", recipe))
    if before == recipe:
        return
    del st.session_state["asked"]
    job = find_answer(question, before)
    if job and job != find_answer(question, recipe) and (state := job.state()) and state.is_running:
        job.delete()


def _show_answer(recipe: Recipe, question: str, job: Job, state: JobState) -> None:
    title = QUESTIONS[question][0]
    if state.is_running:
        watch(partial(_look, title, job), job.delete, f"cancel-{question}")
        return
    with st.container(border=True):
        st.markdown(f"**{title}**, asked at {job.started:%H:%M}")
        if state.error:
            show_problem(state.error)
        elif question == "rehearse":
            _show_checks(state.result)
        else:
            _show_rates(recipe, state.result)


def _look(title: str, job: Job) -> Work | None:
    state = job.state()
    if state is None or not state.is_running:
        return None
    return Work(f"**{title}**", state.progress or "starting")


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
