from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Never

import streamlit as st

from engine.base.errors import LoupeError
from engine.data.catalogue import kind_of
from engine.inference.classify_job import find_classification, read_picture, start_classification
from ui.classifying.answers import show_bad, show_one, show_table
from ui.classifying.inputs import Given, choose_pictures
from ui.classifying.likeness import show_likeness
from ui.classifying.single import classify_one, show_evidence
from ui.classifying.watching import rows_of_job, show_end, show_progress
from ui.gallery.features import open_classifier
from ui.state import choose_run, enter, head, link
from ui.tables import recipe_of
from ui.wording import show_problem

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier

enter()


def start(paths: tuple[str, ...] = (), uploads: tuple[tuple[str, BinaryIO], ...] = ()) -> Never:
    """Classify many pictures in the background, and look at that."""
    st.query_params["job"] = start_classification(run, paths, uploads, normalize)
    st.rerun()


def look_into(classifier: "Classifier", given: Given) -> None:
    """Show one picture with its answer."""
    row, look = classify_one(run, given, normalize)
    if look is None:
        show_bad(given.name, row["error"])
        return
    show_one(
        given.name,
        look,
        row.get("true"),
        partial(show_evidence, run, classifier, look),
        partial(show_likeness, run, classifier, look.seen),
    )


run = choose_run("Classify")
head("Classify", run)
if not run.weights.exists():
    st.info("This run has no model yet. Choose another in the sidebar, or watch this one.", icon=":material/info:")
    link("train", "Watch this run", run=run.id)
    st.stop()
if kind_of(recipe_of(run).dataset) == "table":
    st.info(
        "This run classifies rows of numbers, not pictures. Choose a run in the sidebar that was trained on images.",
        icon=":material/info:",
    )
    link("gallery", "See the rows that it classified", run=run.id, show="all")
    st.stop()
classifier = open_classifier(run)
if classifier is None:
    st.stop()
preprocessing = classifier.preprocessing
job = find_classification(st.query_params.get("job", ""))
if job and job.request.run != run.id:  # another was chosen meanwhile
    if job.is_active:
        st.info("Another run is still classifying pictures.", icon=":material/hourglass_top:")
        link("classify", "See how far it is, or cancel it", run=job.request.run, job=job.id)
    else:
        st.query_params.pop("job")
    job = None
normalize = job.request.normalize if job else True
if preprocessing.ink and not job:
    normalize = st.toggle(
        "Read ink on paper",
        value=True,
        key="ink",
        help="The training images are light strokes on dark. A photographed or drawn character is turned so, cropped "
        "to its ink and centred like them; a picture of their size that is so already is left as it is.",
    )
if job and job.is_active:
    show_progress(job)
    st.stop()
given = [] if job else choose_pictures(run, preprocessing, start)
rows = rows_of_job(job.id, job.done) if job else []
if job:
    show_end(job, rows)
if not rows and not given:
    st.stop()
if job:
    chosen = rows[show_table(rows, job.id)]
    if "error" in chosen:
        show_bad(chosen["file"], chosen["error"])
        st.stop()
    try:
        look_into(classifier, Given(chosen["file"], read_picture(job, chosen["file"]), true=chosen.get("true")))
    except LoupeError as error:
        show_problem(error)
elif len(given) > 1:
    rows = [classify_one(run, each, normalize)[0] for each in given]
    look_into(classifier, given[show_table(rows, "answers")])
else:
    look_into(classifier, given[0])
