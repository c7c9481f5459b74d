import streamlit as st

from engine.base.errors import LoupeError
from engine.base.text import join_words, pluralize, printable
from engine.data.catalogue import CATALOGUE, title_of
from engine.data.dataset import Dataset, delete_dataset, is_prepared, open_dataset
from engine.data.source_files import BAD_FILES, read_bad_files
from ui.explorer.averages import show_averages
from ui.explorer.balance import show_balance
from ui.explorer.copies import show_copies, show_odd
from ui.explorer.look import show_sample, take_choices
from ui.explorer.points import show_points, show_rows
from ui.explorer.shapes import show_shapes
from ui.getting import offer_download
from ui.importing import NEW, show_import
from ui.state import choose_dataset, enter, go, link
from ui.wording import plain, show_problem

enter()

BAD_FILES_SHOWN = 1000


def show_bad_files(dataset: Dataset) -> None:
    bad_files = read_bad_files(dataset)
    if not bad_files:
        show_problem(
            f"The list of bad files is not in {dataset.folder} any more. "
            "To have it, delete the dataset and import the pictures again."
        )
        return
    st.markdown(
        f"**{pluralize(len(bad_files), 'file')}** of the import could not be used; all others were. To have them "
        "too, mend them where they are, delete this dataset below, and import it again."
    )
    st.dataframe(
        bad_files[:BAD_FILES_SHOWN],
        hide_index=True,
        column_config={
            "file": st.column_config.TextColumn("File", width="small"),
            "reason": st.column_config.TextColumn("Reason", width="large"),
        },
        placeholder="",
    )
    if len(bad_files) > BAD_FILES_SHOWN:
        st.caption(f"The first {BAD_FILES_SHOWN:,}; the file has all.")
    content = (dataset.folder / BAD_FILES).read_bytes()
    st.download_button("Bad files as CSV", content, f"{dataset.name}-{BAD_FILES}", icon=":material/download:")


def offer_deletion(name: str) -> None:
    with st.popover("Delete this dataset", icon=":material/delete:"):
        st.markdown(f"Delete **{plain(name)}** from Loupe? The pictures that it was imported from stay where they are.")
        if st.button("Delete", type="primary"):
            try:
                delete_dataset(name)
            except LoupeError as error:
                show_problem(error)
            else:
                go("explore")


VIEWS = {
    "images": ("Images", show_sample),
    "average": ("Average", show_averages),
    "shape": ("Shape", show_shapes),
    "copies": ("Copies and leaks", show_copies),
    "odd": ("Odd ones", show_odd),
    "bad": ("Bad files", show_bad_files),
}
TABLE_VIEWS = {"points": ("Points", show_points), "rows": ("Table", show_rows)}

asked, wanted = st.query_params.get("import"), st.query_params.get("dataset")
name = choose_dataset()
if st.sidebar.button("Import your own images", icon=":material/add_photo_alternate:", width="stretch"):
    go("explore", **{"import": NEW})
if asked:
    show_import(asked)
    st.stop()
st.title(plain(title_of(name)))
if wanted and wanted != name:
    st.info(
        f"There is no dataset {plain(printable(wanted))} here. Shown is {plain(title_of(name))}.",
        icon=":material/info:",
    )
if name in CATALOGUE:
    st.markdown(CATALOGUE[name].about)
    if not is_prepared(name):
        offer_download(name)
        st.stop()
try:
    dataset = open_dataset(name)
except LoupeError as error:
    show_problem(error)
    if name not in CATALOGUE:
        offer_deletion(name)
    st.stop()

what = "images" if dataset.kind == "images" else "rows"
totals = join_words(f"{len(split):,} {split_name} {what}" for split_name, split in dataset.splits.items())
if dataset.kind == "images":
    height, width, channels = dataset.image_shape
    size = f"{width} x {height} pixels, {'grey' if channels == 1 else 'colour'}"
else:
    size = f"{dataset.splits['train'].images.shape[1]} numbers each"
bad = f" {pluralize(dataset.bad_file_count, 'bad file')} left out." if dataset.bad_file_count else ""
st.markdown(f"**{totals}** of {len(dataset.classes)} classes, {size}.{bad}")
show_balance(dataset)
views = dict(VIEWS if dataset.kind == "images" else TABLE_VIEWS)
if not dataset.bad_file_count:
    views.pop("bad", None)
view = st.segmented_control(
    "Look at",
    list(views),
    default=None if "view" in take_choices() else next(iter(views)),  # Streamlit warns of two values
    format_func=lambda view: views[view][0],
    key="view",
    required=True,
    bind="query-params",
)
views[view or next(iter(views))][1](dataset)
st.caption(f"Source: {plain(dataset.source)}.")
link("train", "Train on this dataset", dataset=name)
if name not in CATALOGUE:
    offer_deletion(name)
