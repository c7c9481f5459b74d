import streamlit as st

from engine.evaluation.predictions import Predictions
from engine.evaluation.summary import evaluation
from engine.runs.run import Run
from ui.evaluation.certainty import show_certainty
from ui.evaluation.classes import show_classes
from ui.evaluation.comparing import show_comparison
from ui.evaluation.confusions import show_confusions
from ui.evaluation.headline import show_headline
from ui.evaluation.takeaway import show_downloads
from ui.evaluation.training import show_training
from ui.state import choose_run, choose_view, enter, head, keep_view, open_predictions
from ui.tables import state_of

enter()

VIEWS = ("Confusions", "Classes", "Confidence", "Training", "Compare", "Take away")


@st.cache_data(max_entries=20, show_spinner=False)
def evaluate(run: str, split: str, state: tuple[int, int], _predictions: Predictions) -> dict:
    return evaluation(run, _predictions)


def show(view: str, run: Run, predictions: Predictions, result: dict) -> None:
    match view:
        case "Classes":
            show_classes(run, predictions, result)
        case "Confidence":
            show_certainty(run, predictions)
        case "Training":
            show_training(run)
        case "Compare":
            show_comparison(run, predictions)
        case "Take away":
            show_downloads(run, predictions, result)
        case _:
            show_confusions(run, predictions)


run = choose_run("Evaluate")
keep_view(f"the evaluation of {run.id}", ("look", "cells", "similar", "above", "with"))
head("Evaluate", run)
predictions = open_predictions(run)
result = evaluate(run.id, predictions.split, state_of(run.predictions(predictions.split)), predictions)
show_headline(run, predictions, result)
show(choose_view("Look at", VIEWS, "look"), run, predictions, result)
