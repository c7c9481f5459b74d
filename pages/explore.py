import numpy as np
import streamlit as st

from engine.catalogue import find_source, get
from engine.dataset import Dataset, is_prepared, open_dataset
from engine.errors import LoupeError
from ui.charts import CONFIG, class_counts
from ui.contact_sheet import Tile, contact_sheet, enlarged
from ui.state import choose_dataset, enter, link
from ui.wording import plain, show_problem

enter()

SHEET = 48


def offer(name: str) -> None:
    """Offer to get a dataset that is not here, and show how far it is."""
    source = find_source(name)
    size = f"downloads {source.download_bytes / 1e6:.1f} MB once" if source.download_bytes else "downloads nothing"
    st.info(f"{source.title} is not prepared yet. Getting it {size}.", icon=":material/download:")
    if not st.button(f"Get {source.title}", type="primary", icon=":material/download:"):
        st.stop()
    bar = st.progress(0.0, text=f"Preparing {source.title}")
    try:
        for progress in get(name):
            if progress.total:
                text = f"Downloading {source.title}: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"
                bar.progress(progress.done / progress.total, text=text)
    except LoupeError as error:
        bar.empty()
        show_problem(error)
        st.stop()
    st.rerun()


def sample(dataset: Dataset) -> None:
    """Show random images of a class and split; a click shows one large."""
    choices = st.columns([2, 2, 1], vertical_alignment="bottom")
    shown = choices[0].selectbox("Class", ["all", *dataset.classes], key="class", bind="query-params")
    split_name = choices[1].selectbox("Split", list(dataset.splits), key="split", bind="query-params")
    seed = st.session_state.setdefault("sample_seed", 0)
    if choices[2].button("Others", icon=":material/shuffle:", help="Draw other images at random.", width="stretch"):
        seed = st.session_state.sample_seed = seed + 1
    split = dataset.splits[split_name]
    candidates = np.arange(len(split))
    if shown != "all":
        candidates = np.flatnonzero(split.labels == dataset.classes.index(shown))
    if not len(candidates):
        st.info(f"The {split_name} split has no image of the class {shown}.", icon=":material/info:")
        return
    drawn = np.sort(np.random.default_rng(seed).choice(candidates, min(SHEET, len(candidates)), replace=False))
    tiles = []
    for index in drawn:
        truth = dataset.classes[split.labels[index]]
        tiles.append(Tile(int(index), split.images[index], f"{truth}, image {index} of {split_name}", (truth,)))
    picked = contact_sheet(tiles, name=f"{split_name} images", key="sample")
    st.caption(f"{len(drawn)} of {len(candidates):,} images, drawn at random with seed {seed}.")
    if picked is not None:
        show_large(dataset, split_name, picked)


@st.dialog("One image")
def show_large(dataset: Dataset, split_name: str, index: int) -> None:
    split = dataset.splits[split_name]
    st.image(enlarged(split.images[index], 320))
    height, width, channels = dataset.image_shape
    st.markdown(
        f"Class **{dataset.classes[split.labels[index]]}** · image {index:,} of {len(split):,} in {split_name} · "
        f"{width} x {height} pixels, {'grey' if channels == 1 else 'colour'}"
    )


name = choose_dataset()
source = find_source(name)
st.title(source.title)
st.markdown(source.about)
if not is_prepared(name):
    offer(name)
try:
    dataset = open_dataset(name)
except LoupeError as error:
    show_problem(error)
    st.stop()

counts = dataset.class_counts()
totals = " and ".join(f"{sum(numbers):,} {split} images" for split, numbers in counts.items())
height, width, channels = dataset.image_shape
colour = "grey" if channels == 1 else "colour"
st.markdown(f"**{totals}** of {len(dataset.classes)} classes, {width} x {height} pixels, {colour}.")
st.subheader("Class counts")
st.plotly_chart(class_counts(dataset.classes, counts), config=CONFIG, key="counts")
smallest, largest = min(counts["train"]), max(counts["train"])
if smallest:
    st.caption(f"In training the largest class has {largest / smallest:.2f} times the images of the smallest.")
st.subheader("Images")
sample(dataset)
st.caption(f"Source: {plain(dataset.source)}.")
link("train", "Train on this dataset", dataset=name)
