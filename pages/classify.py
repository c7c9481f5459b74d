import hashlib
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from engine.catalogue import kind_of
from engine.errors import LoupeError
from engine.pictures import SUFFIXES, open_picture
from engine.predictions import top
from engine.runs import Run
from engine.words import sure
from ui.charts import CONFIG, probability_bars
from ui.contact_sheet import enlarged
from ui.state import choose_run, enter, head, link
from ui.wording import plain, show_problem

enter()

CARDS = 10
SIDE = 224


@st.cache_data(max_entries=500, show_spinner="Loading the model and classifying")
def classify(digest: str, weights: tuple[str, int], _content: bytes, _run: Run) -> dict:
    """Classify one picture; kept by the digest of its content and the state of the weights."""
    from engine.classifier import load_classifier

    classifier = load_classifier(_run)
    try:
        probabilities, seen = classifier.classify(open_picture(_content, classifier.preprocessing.image_shape[2]))
        original = Image.fromarray(open_picture(_content, 3))
    except LoupeError as error:
        return {"error": str(error)}
    size = original.size
    original.thumbnail((SIDE, SIDE))
    return {"top": top(probabilities, classifier.classes), "seen": seen, "original": np.asarray(original), "size": size}


def card(name: str, answer: dict) -> None:
    """Show one picture: as it came, as the model sees it, and the answer."""
    with st.container(border=True):
        if "error" in answer:
            show_problem(f"{name}: {answer['error']}")
            return
        original, seen, chart = st.columns([1, 1, 2])
        width, height = answer["size"]
        original.image(enlarged(answer["original"], SIDE))
        original.caption(f"{plain(name)}, {width:,} x {height:,} pixels")
        rows, columns = answer["seen"].shape[:2]
        seen.image(enlarged(answer["seen"], SIDE))
        seen.caption(f"As the model sees it: {columns} x {rows} pixels")
        best = answer["top"][0]
        chart.markdown(f"### {plain(best['label'])}\nwith {sure(best['confidence'])} confidence")
        chart.plotly_chart(probability_bars(answer["top"]), config=CONFIG, key=f"top-{name}-{answer['key']}")


def results(names: list[str], answers: list[dict]) -> None:
    table = pd.DataFrame(
        {
            "file": names,
            "label": [answer["top"][0]["label"] if "top" in answer else None for answer in answers],
            "confidence": [answer["top"][0]["confidence"] if "top" in answer else None for answer in answers],
            "error": [answer.get("error") for answer in answers],
        }
    )
    if len(names) > 1:
        titles: dict[str, Any] = {
            "file": "File",
            "label": "Label",
            "confidence": st.column_config.NumberColumn("Confidence", format="percent"),
            "error": "Reason it was not classified",
        }
        st.dataframe(table, hide_index=True, column_config=titles, placeholder="")
    st.download_button("Answers as CSV", table.to_csv(index=False), "answers.csv", icon=":material/download:")


run = choose_run("Classify")
head("Classify", run)
if not run.weights.exists():
    st.info("This run has no model yet. Choose another in the sidebar, or watch this one.", icon=":material/info:")
    link("train", "Watch this run", run=run.id)
    st.stop()
if kind_of(run.recipe.dataset) == "table":
    st.info(
        "This run classifies rows of numbers, not pictures. Choose a run in the sidebar that was trained on images.",
        icon=":material/info:",
    )
    link("gallery", "See the rows that it classified", run=run.id, show="all")
    st.stop()
files = st.file_uploader("Pictures to classify", type=SUFFIXES, accept_multiple_files=True, max_upload_size=50)
st.caption(
    "The middle of each picture is cut out in the shape of the training images and resized. "
    "A picture is recognised best when it looks like those."
)
if not files:
    link("explore", "See what the training images look like", dataset=run.recipe.dataset)
    st.stop()
weights = (str(run.weights), run.weights.stat().st_mtime_ns)
answers = []
try:
    for number, file in enumerate(files):
        content = file.getvalue()
        answer = classify(hashlib.sha256(content).hexdigest(), weights, content, run)
        answers.append(answer | {"key": number})
except LoupeError as error:
    show_problem(error)
    st.stop()
names = [file.name for file in files]
results(names, answers)
pages = -(-len(files) // CARDS)
first = CARDS * (st.pagination(pages, key="cards") - 1) if pages > 1 else 0
for name, answer in zip(names[first : first + CARDS], answers[first : first + CARDS], strict=True):
    card(name, answer)
