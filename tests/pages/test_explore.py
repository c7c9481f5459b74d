"""The Explore page, but for imports: what a dataset is, and its views."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import encode, import_pictures, noise, png, write
from PIL import Image
from processes import folders
from screen import (
    button,
    buttons,
    click,
    errors,
    figure,
    large_images,
    links,
    open_page,
    pick,
    show,
    shown,
    table,
    tiles,
    title,
    words,
)
from sklearn.datasets import load_digits, make_blobs

from engine.audit.inspection import DEFAULT_THRESHOLD, inspect
from engine.base.text import format_bytes
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import Dataset, Split, open_dataset, prepared_names, save_dataset
from engine.data.source_files import SourceFilesWriter, open_source_files, read_bad_files

IMAGES, AVERAGE, SHAPE, COPIES, ODD, BAD = ("Images", "Average", "Shape", "Copies and leaks", "Odd ones", "Bad files")
# Class names that would be markup, were they taken for it.
MARKUP = ("*x*", "<b>")

Save = Callable[..., Dataset]


@pytest.fixture
def save() -> Save:
    """Save a dataset of noise: labels by split, and images by split in place of the noise."""

    def make(name: str = "own", classes: tuple[str, ...] = ("a", "b", "c"), images=None, **labels) -> Dataset:
        splits = {
            split: Split((images or {}).get(split, np.random.randint(0, 256, (len(those), 8, 8, 1))), np.array(those))
            for split, those in labels.items()
        }
        splits = {name: Split(split.images.astype(np.uint8), split.labels) for name, split in splits.items()}
        save_dataset(name, classes, splits, "made by the tests")
        return open_dataset(name)

    return make


@pytest.fixture(scope="session")
def imported_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an import of pictures of many sizes and kinds in it: not to be written to."""
    folder = tmp_path_factory.mktemp("imported")
    files = {}
    for number in range(20):
        label = MARKUP[number % 2]
        height, width = 20 + number, 50 - 2 * number
        if number % 5:
            files[f"{label}/{number}.png"] = png(number, height, width)
        else:
            files[f"{label}/{number}.jpg"] = encode(Image.fromarray(noise(number, height, width, 1)), "JPEG")
    files[f"{MARKUP[0]}/_a_.png"] = b"no picture"
    files[f"{MARKUP[1]}/b.png"] = png(99)[:60]
    write(folder / "pictures", files)
    with folders(folder, folder / "runs"):
        import_pictures("own", folder / "pictures", size=12, test_share=0.25)
    return folder


@pytest.fixture
def imported(imported_data: Path, tmp_path: Path) -> Dataset:
    """The import, present for this test and its to change."""
    shutil.copytree(imported_data / "prepared" / "own", tmp_path / "data" / "prepared" / "own")
    return open_dataset("own")


def explore(name: str, view: str = IMAGES, **choices: str):
    return open_page("explore", dataset=name, view=view, **choices)


# Datasets


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_dataset_that_is_not_here_is_offered(name: str) -> None:
    source = CATALOGUE[name]
    app = open_page("explore", dataset=name)
    assert title(app) == source.title
    assert source.about in words(app)
    size = f"downloads {source.download_bytes / 1e6:.1f} MB once" if source.download_bytes else "downloads nothing"
    assert app.info[0].value == f"{source.title} is not prepared yet. Getting it {size}."
    assert button(app, f"Get {source.title}")
    assert not app.main.get("plotly_chart")
    assert app.query_params == {"dataset": name}


def test_the_catalogue_has_ten_datasets_and_all_are_in_the_choice() -> None:
    choice = open_page("explore").sidebar.selectbox("dataset")
    assert len(CATALOGUE) == 10
    assert choice.options == [source.title for source in CATALOGUE.values()]


def test_the_digits_are_got_with_the_button(execute_jobs: Callable[[], None]) -> None:
    app = click(open_page("explore"), "Get Digits")
    assert not app.error
    assert "Cancel" in buttons(app)
    assert "Cancel" in buttons(open_page("explore")), "another tab sees it too"
    assert "Preparing" in words(app)
    execute_jobs()
    show(app)
    assert not app.info
    assert "**1,437 train images and 360 test images** of 10 classes, 8 x 8 pixels, grey." in words(app)
    assert len(open_dataset("digits").splits["train"]) == 1437


def test_getting_a_dataset_can_be_cancelled(execute_jobs: Callable[[], None]) -> None:
    app = click(click(open_page("explore"), "Get Digits"), "Cancel")
    execute_jobs()
    assert "Get Digits" in buttons(show(app))
    assert not prepared_names()


def test_the_blobs_are_got_with_the_button(execute_jobs: Callable[[], None]) -> None:
    app = click(open_page("explore", dataset="blobs"), "Get Blobs")
    execute_jobs()
    show(app)
    assert not app.error
    assert "**850 train rows and 150 test rows** of 3 classes, 4 numbers each." in words(app)
    assert "times the training rows of class" in words(app)
    assert links(app) == {"Train on this dataset": ("train", {"dataset": "blobs"})}


def test_why_a_dataset_could_not_be_got_is_told(execute_jobs: Callable[[], None], tmp_path: Path) -> None:
    files = tmp_path / "data" / "MNIST" / "raw"
    files.mkdir(parents=True)
    for name in CATALOGUE["mnist"].files:
        (tmp_path / "data" / name).write_bytes(b"no images")
    app = click(open_page("explore", dataset="mnist"), "Get MNIST")
    execute_jobs()
    (error,) = errors(show(app))
    assert "train-images-idx3-ubyte" in error
    assert button(app, "Get MNIST")


def test_a_dataset_that_cannot_be_got_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    app = click(open_page("explore", dataset="digits"), "Get Digits")
    (error,) = errors(app)
    assert "cannot be written" in error
    assert "\n" not in error


def test_a_dataset_is_chosen_in_the_sidebar(digits: Dataset, make_colours) -> None:
    make_colours("kmnist")
    app = open_page("explore", dataset="digits", **{"class": "7"})
    app.sidebar.selectbox("dataset").select("KMNIST")
    show(app)
    assert app.query_params["dataset"] == "kmnist"
    assert "**90 train images and 30 test images** of 3 classes, 10 x 12 pixels, colour." in words(app)
    assert "48 of 90 train images" in words(app)
    assert app.selectbox("class").value is None


def test_ones_own_datasets_follow_the_catalogue_in_the_choice(make_colours) -> None:
    make_colours("x_1")
    make_colours("_b_")
    app = open_page("explore", dataset="_b_")
    assert app.sidebar.selectbox("dataset").options[-3:] == ["SVHN", "_b_", "x_1"]
    assert app.title[0].value == r"\_b\_"
    assert "Delete **_b_** from Loupe?" in words(app)


@pytest.mark.slow
def test_class_names_never_become_markup(save: Save) -> None:
    names = (*MARKUP, "$x$", ":red[y]", "[z](https://outside.example)")
    save(classes=names, train=[0, 0, 0, 1, 2, 2], test=[0])
    for view in (IMAGES, AVERAGE, SHAPE, COPIES, ODD):
        app = explore("own", view)
        for element in app.markdown:
            for name in names:
                assert name not in element.value
        assert "class *x* has" not in words(app)
        assert "**No training images** of :red[y] and [z](https://outside.example):" in words(app)


@pytest.mark.parametrize("name", ["nope", "*x*", "../../etc", "x" * 5000])
def test_an_unknown_dataset_is_told_and_another_shown(digits: Dataset, name: str) -> None:
    app = open_page("explore", dataset=name)
    assert title(app) == "Digits"
    assert app.query_params == {"dataset": "digits"}
    (info,) = app.info
    cut = name if len(name) <= 200 else name[:200] + "..."
    assert shown(info.value) == f"There is no dataset {cut} here. Shown is Digits."
    assert not show(app).info


@pytest.mark.parametrize("choices", [{}, {"dataset": ""}, {"dataset": "digits"}])
def test_where_no_unknown_dataset_is_asked_for_nothing_is_told(digits: Dataset, choices: dict[str, str]) -> None:
    assert not open_page("explore", **choices).info


def test_it_leads_to_a_training_on_the_dataset(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    assert links(app) == {"Train on this dataset": ("train", {"dataset": "digits"})}


@pytest.mark.slow
def test_where_a_dataset_comes_from_is_told(digits: Dataset, imported: Dataset) -> None:
    assert f"Source: {digits.source}." in words(open_page("explore", dataset="digits"))
    assert "Source: imported from pictures; a folder for each class;" in words(open_page("explore", dataset="own"))


@pytest.mark.parametrize("view", [IMAGES, AVERAGE, SHAPE, COPIES, ODD])
@pytest.mark.parametrize("file", ["dataset.json", "train-images.npy", "test-labels.npy"])
def test_a_damaged_dataset_is_told(digits_data: Path, tmp_path: Path, view: str, file: str) -> None:
    folder = tmp_path / "data" / "prepared" / "digits"
    shutil.copytree(digits_data / "prepared" / "digits", folder)
    (folder / file).write_bytes(b"damaged")
    (error,) = errors(explore("digits", view))
    assert error.startswith("The prepared dataset digits is damaged (")
    assert error.endswith(f"Delete {folder}, then get or import it again.")


@pytest.mark.slow
def test_a_dataset_of_ones_own_is_deleted_and_its_pictures_are_not(imported: Dataset, imported_data: Path) -> None:
    app = explore("own", AVERAGE)
    click(app, "Delete")
    assert not imported.folder.exists()
    assert title(app) == "Digits"
    assert app.query_params["dataset"] == "digits"
    assert len([path for path in (imported_data / "pictures").rglob("*") if path.is_file()]) == 22


def test_a_dataset_of_the_catalogue_is_not_to_be_deleted(digits: Dataset) -> None:
    assert "Delete" not in buttons(open_page("explore", dataset="digits"))


@pytest.mark.slow
def test_a_dataset_that_has_been_deleted_elsewhere_is_told(imported: Dataset) -> None:
    app = explore("own")
    shutil.rmtree(imported.folder)
    click(app, "Delete")
    assert title(app) == "Digits"


# Balance


def test_class_counts_are_those_of_scikit_learn(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    bars = {bar["name"]: bar["y"] for bar in figure(app, "counts")["data"]}
    counts = np.bincount(load_digits().target)
    assert list(bars) == ["train", "test"]
    np.testing.assert_array_equal(np.add(bars["train"], bars["test"]), counts)
    assert (sum(bars["train"]), sum(bars["test"])) == (1437, 360)
    ratio = max(bars["train"]) / min(bars["train"])
    assert f"has {ratio:.2f} times the training images of class" in words(app)


def labels_of_classes(app) -> tuple[str, bool, dict[str, str]]:
    """Return the title of the axis, whether it has labels, and those that are not the names themselves."""
    axis = figure(app, "counts")["layout"]["xaxis"]
    return axis["title"].get("text", ""), axis["showticklabels"], axis.get("labelalias", {})


def test_few_short_names_of_classes_are_written_whole(digits: Dataset) -> None:
    assert labels_of_classes(open_page("explore", dataset="digits")) == ("class", True, {})


def test_long_names_of_classes_are_cut_and_keep_bars_of_their_own(save: Save) -> None:
    names = ("a", "<b> of the longest name", "<b> of the longest game")
    save(classes=names, train=[0, 1, 1, 2, 2, 2])
    app = explore("own", SHAPE)
    cut = "&lt;b&gt; of the lo…"
    aliases = {name.replace("<b>", "&lt;b&gt;"): cut for name in names[1:]}
    assert labels_of_classes(app) == ("", True, aliases)
    (bars,) = figure(app, "counts")["data"]
    assert dict(zip(bars["x"], bars["y"], strict=True)) == dict(zip(("a", *aliases), (1, 2, 3), strict=True))
    assert bars["customdata"] == bars["x"]
    assert bars["hovertemplate"] == "%{customdata}: %{y:,} images"


@pytest.mark.parametrize(
    ("count", "expected"), [(12, ("class", True, {})), (60, ("", True, {})), (61, ("", False, {}))]
)
def test_many_classes_have_no_axis_title_and_more_have_no_labels(save: Save, count: int, expected) -> None:
    save(classes=tuple(str(label) for label in range(count)), train=range(count))
    assert labels_of_classes(explore("own", SHAPE)) == expected


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((7, 7, 7), "**Balanced**: every class has 7 training images."),
        ((8, 6, 7), "**Nearly balanced**: class a has 1.33 times the training images of class b (8 to 6)."),
        ((6, 9, 6), "**Nearly balanced**: class b has 1.50 times the training images of class a (9 to 6)."),
        (
            (1000, 4, 600),
            "**Imbalanced**: class a has 250.00 times the training images of class b (1,000 to 4). Always answering a "
            "would already be right on 62.3% of them: look at each class's recall, not at accuracy alone.",
        ),
        ((5, 0, 5), "**No training images** of b: a model cannot learn what it never sees."),
        ((5, 0, 0), "**No training images** of b and c: a model cannot learn what it never sees."),
    ],
)
def test_balance_is_told_in_words_with_its_ratio(save: Save, counts: tuple[int, ...], sentence: str) -> None:
    save(train=np.repeat(np.arange(3), counts))
    said = words(explore("own", SHAPE)).splitlines()
    assert sentence in said


def test_classes_that_a_split_lacks_are_told(save: Save) -> None:
    save(train=[0, 1, 2], val=[0, 1], test=[1, 1])
    said = words(explore("own", SHAPE))
    assert "The validation split has no images of c. The test split has no images of a and c." in said


def test_of_many_classes_that_are_lacking_some_are_named(save: Save) -> None:
    save(classes=tuple("abcdefghij"), train=[0, 1])
    assert "**No training images** of c, d, e, f, g and 3 more:" in words(explore("own", SHAPE))


# Images


def drawn(app) -> list[int]:
    return [tile["index"] for tile in tiles(app)]


def test_images_are_those_of_the_dataset(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    found = tiles(app)
    assert len({tile["index"] for tile in found}) == 48
    assert "48 of 1,437 train images, drawn at random with seed 0." in words(app)
    for tile in found:
        np.testing.assert_array_equal(tile["image"], digits.splits["train"].images[tile["index"]])
        truth = str(digits.splits["train"].labels[tile["index"]])
        assert tile["lines"] == [truth]
        assert tile["title"] == f"{truth}, image {tile['index']} of train"


def test_class_and_split_are_those_of_the_url(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits", split="test", **{"class": "7"})
    assert "36 of 36 test images of 7" in words(app)
    assert sorted(drawn(app)) == np.flatnonzero(digits.splits["test"].labels == 7).tolist()
    assert button(app, "More").disabled


def test_class_and_split_are_those_that_are_chosen(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    app.selectbox("split").select("test")
    app.selectbox("class").select("7")
    assert drawn(show(app)) == drawn(open_page("explore", dataset="digits", split="test", **{"class": "7"}))


def test_the_seed_is_that_of_the_url(digits: Dataset) -> None:
    first = drawn(open_page("explore", dataset="digits", seed="7"))
    assert first == drawn(open_page("explore", dataset="digits", seed="7"))
    assert set(first) != set(drawn(open_page("explore", dataset="digits")))


def test_again_draws_others_with_the_next_seed(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    first = drawn(app)
    click(app, "Again")
    assert set(drawn(app)) != set(first)
    assert "drawn at random with seed 1." in words(app)
    assert app.query_params["seed"] == "1"
    assert drawn(app) == drawn(open_page("explore", dataset="digits", seed="1"))


def test_after_the_highest_seed_again_draws_with_the_lowest(digits: Dataset) -> None:
    app = click(open_page("explore", dataset="digits", seed="999999"), "Again")
    assert "drawn at random with seed 0." in words(app)


@pytest.mark.slow
def test_more_shows_more_of_the_same_draw(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits", seed="3")
    first = drawn(app)
    click(app, "More")
    assert app.query_params["shown"] == "96"
    assert len(set(drawn(app))) == 96
    assert drawn(app)[:48] == first
    assert drawn(app) == drawn(open_page("explore", dataset="digits", seed="3", shown="96"))
    most = open_page("explore", dataset="digits", seed="3", shown="9999")
    assert len(set(drawn(most))) == 480
    assert drawn(most)[:48] == first
    assert button(most, "More").disabled


@pytest.mark.parametrize(
    "choices",
    [
        {"class": "ten"},
        {"class": ""},
        {"split": "val"},
        {"seed": "-1"},
        {"seed": "x"},
        {"shown": "0"},
        {"shown": "-5"},
        {"shown": "²"},
        {"shown": "0" * 5000},
        {"view": "nope"},
    ],
)
def test_what_does_not_exist_is_passed_over(digits: Dataset, choices: dict[str, str]) -> None:
    assert drawn(open_page("explore", dataset="digits", **choices)) == drawn(open_page("explore", dataset="digits"))


def test_a_class_without_images_is_told(save: Save) -> None:
    save(train=[0, 1, 2, 0], test=[0, 1, 0, 1])
    app = explore("own", split="test", **{"class": "c"})
    assert app.info[0].value == "The test split has no image of the class c."


@pytest.mark.slow
def test_an_image_is_shown_large_with_all_that_is_known_of_it(imported: Dataset) -> None:
    app = explore("own", split="test", seed="1")
    index = drawn(app)[2]
    pick(app, index)
    assert len(large_images(app)) == 1
    was = open_source_files(imported, "test").of(index)
    said = words(app)
    assert f"Class: **{imported.classes[imported.splits['test'].labels[index]]}**" in said
    assert f"Place: **index {index} of the {len(imported.splits['test'])} images in test**" in said
    assert "Size: **12 x 12 pixels, colour**" in said
    assert f"File: **{was['file']}**" in said
    size = f"{was['width']} x {was['height']} pixels, {was['mode']}, {format_bytes(was['bytes'])}"
    assert f"Originally: **{size}**" in said
    assert not large_images(show(app))


def test_an_image_of_an_array_has_no_file(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    pick(app, drawn(app)[0])
    assert "Place: **index" in words(app)
    assert "File" not in words(app)


# Averages


@pytest.mark.parametrize("split", ["train", "test"])
def test_averages_are_those_of_numpy(digits: Dataset, split: str) -> None:
    app = explore("digits", AVERAGE, split=split)
    stored = digits.splits[split]
    deviations = []
    for label, tile in enumerate(tiles(app, "mean images")):
        images = stored.images[stored.labels == label].astype(np.float64)
        assert np.abs(tile["image"] - images.mean(axis=0)).max() <= 0.5001
        variation = np.sqrt(images.var(axis=0).mean())
        assert tile["lines"] == [f"{label}", f"±{variation:.0f} levels"]
        deviations.append(images.std(axis=0))
    scale = 255 / np.max(deviations)
    for tile, deviation in zip(tiles(app, "variation of each class"), deviations, strict=True):
        assert np.abs(tile["image"] - scale * deviation).max() <= 0.501
    by_variation = np.argsort([np.square(deviation).mean() for deviation in deviations])
    assert f"Of these, **{by_variation[0]}** varies least," in words(app)
    assert f"**{by_variation[-1]}** most," in words(app)
    assert f"Of all {len(stored):,} {split} images of these classes." in words(app)


@pytest.mark.slow
@pytest.mark.parametrize("sheet", ["mean images", "variation of each class"])
def test_a_class_leads_to_its_images(digits: Dataset, sheet: str) -> None:
    app = explore("digits", AVERAGE, split="test")
    pick(app, 7, sheet)
    assert "36 of 36 test images of 7" in words(app)
    assert sorted(drawn(app)) == np.flatnonzero(digits.splits["test"].labels == 7).tolist()
    show(app)
    assert "36 of 36 test images of 7" in words(app)


@pytest.mark.slow
def test_of_many_classes_the_averages_come_page_by_page(save: Save) -> None:
    names = tuple(f"class {number}" for number in range(130))
    save(classes=names, train=np.arange(260) % 130)
    app = explore("own", AVERAGE)
    seen = []
    for page in (1, 2, 3):
        app.main.pagination[0].select(page)
        seen += [tile["lines"][0] for tile in tiles(show(app), "mean images")]
    assert seen == list(names)
    assert app.main.pagination[0].num_pages == 3


def test_classes_without_images_have_no_average(save: Save) -> None:
    save(train=[0, 1, 1], test=[2, 2])
    assert [tile["index"] for tile in tiles(explore("own", AVERAGE), "mean images")] == [0, 1]
    said = words(explore("own", AVERAGE, split="test"))
    assert "Of all 2 test images" in said
    assert "varies least" not in said  # there is none to compare it with


def test_images_that_are_all_alike_vary_nowhere(save: Save) -> None:
    save(train=[0, 0, 1, 1], images={"train": np.full((4, 8, 8, 1), 9)})
    app = explore("own", AVERAGE)
    assert {tile["image"].max() for tile in tiles(app, "variation of each class")} == {0}


# Shape


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_files_of_an_import_are_told_as_numpy_does(imported: Dataset, split: str) -> None:
    app = explore("own", SHAPE, split=split)
    origins = open_source_files(imported, split)
    width, height, sizes = (origins.column(name) for name in ("width", "height", "bytes"))
    measures = {
        "width (pixels)": width,
        "height (pixels)": height,
        "aspect (width / height)": width / height,
        "file size (kB)": sizes / 1000,
    }
    for key, values in measures.items():
        (bars,) = figure(app, key)["data"]
        counts, edges = np.histogram(values, 40)
        assert bars["y"] == counts.tolist()
        assert sum(bars["y"]) == len(imported.splits[split])
        np.testing.assert_allclose(bars["x"], (edges[1:] + edges[:-1]) / 2)
    modes = origins.column("mode").astype(str).tolist()
    said = words(app)
    median = f"Median {np.median(width):.0f} x {np.median(height):.0f} pixels"
    assert f"{median}; a median of {format_bytes(np.median(sizes))} a file, {format_bytes(sizes.sum())} in all." in said
    assert f"colour {modes.count('RGB')}, grey {modes.count('L')}." in said
    assert f"Of {len(modes)} {split} images, as they were. Here all are 12 x 12, three channels (colour)." in said


def test_images_that_came_as_arrays_are_told(digits: Dataset) -> None:
    app = explore("digits", SHAPE)
    assert "These images came as arrays: all are 8 x 8 pixels with one channel (grey)" in words(app)
    assert {each.key for each in app.main.get("plotly_chart")} == {"counts", "levels"}


def test_files_that_are_all_of_one_size_are_told_without_a_chart(tmp_path: Path, imported_data: Path) -> None:
    shutil.copytree(imported_data / "prepared" / "own", tmp_path / "data" / "prepared" / "own")
    dataset = open_dataset("own")
    writer = SourceFilesWriter(dataset.folder, "train")
    writer.write([(f"{number}.png", 500, 30, 20, "I;16") for number in range(len(dataset.splits["train"]))])
    writer.close()
    app = explore("own", SHAPE)
    assert "All were 30 x 20 pixels; a median of 500 bytes a file" in words(app)
    assert "Kinds: grey, 16 bits" in words(app)
    assert {each.key for each in app.main.get("plotly_chart")} == {"counts", "levels"}


@pytest.mark.parametrize("name", ["digits", "colours"])
def test_levels_mean_and_deviation_are_those_that_a_training_scales_by(digits: Dataset, colours, name: str) -> None:
    from engine.networks.preprocessing import preprocessing_for

    dataset = open_dataset(name)
    app = explore(name, SHAPE)
    scaled = preprocessing_for(dataset, "dataset")
    figures = table(app)
    assert figures.Mean.tolist() == pytest.approx(scaled.mean)
    assert figures.Deviation.tolist() == pytest.approx(scaled.std)
    assert figures.Channel.tolist() == (["grey"] if name == "digits" else ["red", "green", "blue"])
    pixels = dataset.splits["train"].images.reshape(-1, dataset.image_shape[2])
    for channel, line in enumerate(figure(app, "levels")["data"]):
        expected = 100 * np.bincount(pixels[:, channel], minlength=256) / len(pixels)
        np.testing.assert_allclose(line["y"], expected)
        assert sum(line["y"]) == pytest.approx(100)


# Copies and leaks


@pytest.fixture
def planted(save: Save) -> Dataset:
    """A dataset with three leaks among 20 test images, and two exact copies that are none."""
    train, test = (np.stack([noise(seed + number, 16, 16) for number in range(n)]) for seed, n in ((0, 60), (100, 20)))
    train_labels, test_labels = np.arange(60) % 3, np.arange(20) % 3
    test[0], test_labels[0] = train[5], train_labels[5]
    test[1], test_labels[1] = train[6], (train_labels[6] + 1) % 3
    lighter = 0.85 * train[7] + 30 + np.random.normal(0, 12, train[7].shape)
    test[2], test_labels[2] = lighter.round().clip(0, 255), train_labels[7]
    train[9], train_labels[9] = train[8], train_labels[8]
    test[19], test_labels[19] = test[18], test_labels[18]
    return save(images={"train": train, "test": test}, train=train_labels, test=test_labels)


def near_distance(dataset: Dataset) -> int:
    steps = inspect(dataset)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            (near,) = ended.value.near_within(DEFAULT_THRESHOLD)
            return near.distance


def test_planted_leaks_are_told_with_their_number(planted: Dataset) -> None:
    app = explore("own", COPIES)
    said = words(app)
    assert "**3 of 20 test images have a twin in train** (15.00%)." in said
    assert (
        "4 exact copies (the same pixels) and 1 pair of near copies; **1 pair with different labels**, "
        "of which one must be wrong." in said
    )
    found = tiles(app)
    assert [tile["lines"][2] for tile in found] == ["exact copies"] * 4 + [found[4]["lines"][2]]
    assert {tuple(line.partition(":")[0] for line in tile["lines"][:2]) for tile in found} == {
        ("train 5", "test 0"),
        ("train 6", "test 1"),
        ("train 8", "train 9"),
        ("test 18", "test 19"),
        ("train 7", "test 2"),
    }
    assert [tile["mark"] for tile in found].count("wrong") == 1
    for tile in found:
        (first, second) = (line.partition(":")[0].split() for line in tile["lines"][:2])
        image = tile["image"]
        np.testing.assert_array_equal(image[:, :16], planted.splits[first[0]].images[int(first[1])])
        np.testing.assert_array_equal(image[:, -16:], planted.splits[second[0]].images[int(second[1])])


@pytest.mark.slow
def test_the_threshold_is_that_of_the_url(planted: Dataset) -> None:
    distance = near_distance(planted)
    assert distance > 0
    within = explore("own", COPIES, threshold=str(distance))
    assert "**3 of 20 test images have a twin in train**" in words(within)
    assert tiles(within)[-1]["lines"][2].startswith(f"{distance} bit")
    below = explore("own", COPIES, threshold=str(distance - 1))
    assert "**2 of 20 test images have a twin in train**" in words(below)
    assert "0 pairs of near copies" in words(below)
    within.slider("threshold").set_value(distance - 1)
    assert words(show(within)) == words(below)


@pytest.mark.parametrize(
    ("which", "places"),
    [
        ("one in train, one in test", {("train 5", "test 0"), ("train 6", "test 1"), ("train 7", "test 2")}),
        ("with different labels", {("train 6", "test 1")}),
    ],
)
def test_pairs_are_filtered_by_the_url(planted: Dataset, which: str, places: set[tuple[str, str]]) -> None:
    app = explore("own", COPIES, pairs=which)
    assert {tuple(line.partition(":")[0] for line in tile["lines"][:2]) for tile in tiles(app)} == places
    assert "**3 of 20 test images" in words(app)  # whatever is shown


@pytest.mark.parametrize("choices", [{"pairs": "nope"}, {"threshold": "65"}, {"threshold": "-1"}, {"threshold": "x"}])
def test_filters_that_do_not_exist_are_passed_over(planted: Dataset, choices: dict[str, str]) -> None:
    assert words(explore("own", COPIES, **choices)) == words(explore("own", COPIES))


def test_a_single_leak_is_told_in_the_singular(save: Save) -> None:
    train, test = (np.stack([noise(seed + number, 8, 8, 1) for number in range(9)]) for seed in (0, 100))
    train, test = train[..., np.newaxis], test[..., np.newaxis]
    test[4] = train[2]
    save(images={"train": train, "test": test}, train=np.arange(9) % 3, test=np.arange(9) % 3)
    said = words(explore("own", COPIES))
    assert "**1 of 9 test images has a twin in train** (11.11%)." in said
    assert "they can make a test accuracy look better than it is, by up to that share." in said
    assert "1 exact copy (the same pixels)" in said


@pytest.mark.slow
def test_many_pairs_come_page_by_page(save: Save) -> None:
    images = np.stack([noise(number, 8, 8, 1) for number in range(60)])[..., np.newaxis]
    save(images={"train": images, "test": images}, train=np.arange(60) % 3, test=np.arange(60) % 3)
    app = explore("own", COPIES)
    seen = []
    for page in (1, 2, 3):
        app.main.pagination[0].select(page)
        seen += [tile["lines"][0].partition(":")[0] for tile in tiles(show(app))]
    assert seen == [f"train {number}" for number in range(60)]
    app.selectbox("pairs").select("with different labels")
    assert "No copies to show (with different labels)." in words(show(app))


def test_a_pair_is_shown_large(planted: Dataset) -> None:
    app = explore("own", COPIES)
    (different,) = [tile["index"] for tile in tiles(app) if tile["mark"]]
    pick(app, different)
    one, other = large_images(app)
    assert one == other
    names = [planted.classes[planted.splits[split].labels[index]] for split, index in (("train", 6), ("test", 1))]
    assert f"**{names[0]}** · image 6 of train" in words(app)
    assert f"**{names[1]}** · image 1 of test" in words(app)
    assert "Exact copies, but with **different labels**." in words(app)


def test_a_pair_on_a_later_page_is_the_one_that_was_clicked(save: Save) -> None:
    images = np.stack([noise(number, 8, 8, 1) for number in range(60)])[..., np.newaxis]
    save(images={"train": images, "test": images}, train=np.arange(60) % 3, test=np.arange(60) % 3)
    app = explore("own", COPIES)
    app.main.pagination[0].select(2)
    pick(show(app), 30)
    assert "image 30 of train" in words(app)


def test_a_dataset_without_copies_or_without_a_test_split_is_told(save: Save) -> None:
    images = np.stack([noise(number, 8, 8, 1) for number in range(20)])[..., np.newaxis]
    save("clean", images={"train": images[:15], "test": images[15:]}, train=np.arange(15) % 3, test=np.arange(5) % 3)
    said = words(explore("clean", COPIES))
    assert "**No leak**: none of the 5 test images has a copy among the training images." in said
    assert "No copies to show (all pairs)." in said
    save("trained", images={"train": images}, train=np.arange(20) % 3)
    assert "There is no test split that training images could have leaked into." in words(explore("trained", COPIES))


# Odd ones


def test_a_planted_blank_image_is_the_oddest(save: Save) -> None:
    images = np.stack([noise(number, 16, 16) for number in range(40)])
    images[23] = 128
    dataset = save(images={"train": images}, train=np.arange(40) % 3)
    app = explore("own", ODD)
    assert "**1 odd image** of 40, the worst first." in words(app)
    (tile,) = tiles(app)
    assert tile["lines"] == ["blank", f"train 23: {dataset.classes[23 % 3]}"]
    assert (tile["image"] == 128).all()
    pick(app, tile["index"])
    assert "Place: **index 23 of the 40 images in train**" in words(app)
    assert "Odd: **blank: every pixel is" in words(app)


def test_a_dataset_without_odd_images_is_told(save: Save) -> None:
    images = np.stack([noise(number, 16, 16) for number in range(40)])
    save(images={"train": images}, train=np.arange(40) % 3)
    assert "Of 40 images none is blank, extremely dark or bright" in words(explore("own", ODD))


@pytest.mark.slow
def test_shapes_before_the_import_are_looked_at(tmp_path: Path) -> None:
    files = {f"{'ab'[number % 2]}/{number}.png": png(number, 20, 20) for number in range(15)}
    files["a/wide.png"] = png(99, 12, 120)
    import_pictures("own", write(tmp_path / "pictures", files), size=12, test_share=0)
    app = explore("own", ODD)
    assert "odd shape: 120 x 12 pixels" in tiles(app)[0]["title"]


# Bad files


def test_bad_files_are_listed_with_their_reasons(imported: Dataset) -> None:
    app = explore("own", BAD)
    assert "of 2 classes, 12 x 12 pixels, colour. 2 bad files left out." in words(app)
    assert "**2 files** of the import could not be used; all others were." in words(app)
    listed = table(app)
    assert listed.file.tolist() == [f"{MARKUP[0]}/_a_.png", f"{MARKUP[1]}/b.png"]
    assert listed.reason.tolist() == [row["reason"] for row in read_bad_files(imported)]
    assert listed.reason[0].startswith("This is not a picture that can be read.")
    (download,) = app.get("download_button")
    assert download.label == "Bad files as CSV"
    with (imported.folder / "bad-files.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == listed.to_dict("records")


def test_a_list_of_bad_files_that_is_gone_is_told(imported: Dataset) -> None:
    (imported.folder / "bad-files.csv").unlink()
    (error,) = errors(explore("own", BAD))
    assert error.startswith(f"The list of bad files is not in {imported.folder} any more.")


def test_where_no_file_was_bad_there_is_no_such_view(digits: Dataset) -> None:
    app = explore("digits", BAD)
    assert BAD not in app.main.get("button_group")[0].options
    assert "48 of 1,437 train images" in words(app)


# Tables


@pytest.fixture
def blobs() -> Dataset:
    from engine.data.download import fetch

    fetch("blobs")
    return open_dataset("blobs")


def test_points_are_the_rows_in_their_principal_components(blobs: Dataset) -> None:
    from sklearn.decomposition import PCA

    app = explore("blobs", "Points")
    pca = PCA(2).fit(blobs.splits["train"].images.astype(np.float64))
    assert f"{pca.explained_variance_ratio_.sum():.0%} of their variance" in words(app)
    drawn_points = {
        trace["name"]: np.stack([trace["x"], trace["y"]], axis=1) for trace in figure(app, "points")["data"]
    }
    assert len(drawn_points) == 6
    for split_name, split in blobs.splits.items():
        for label, name in enumerate(blobs.classes):
            expected = pca.transform(split.images[split.labels == label].astype(np.float64))
            found = drawn_points[f"{name}, {split_name}"]
            np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)  # signs are arbitrary


@pytest.mark.parametrize(("split", "count"), [("train", 850), ("test", 150)])
def test_rows_are_those_of_scikit_learn(blobs: Dataset, split: str, count: int) -> None:
    rows, labels = make_blobs(n_samples=1000, n_features=4, centers=3, cluster_std=2.5, random_state=95)
    known = {row.astype(np.float32).tobytes(): label for row, label in zip(rows, labels, strict=True)}
    app = explore("blobs", "Table", split=split)
    shown = table(app)
    assert f"{count} of {count} {split} rows." in words(app)
    values = shown.drop(columns="class").to_numpy(np.float32)
    assert values.shape == (count, 4)
    assert [known[row.tobytes()] for row in values] == shown["class"].astype(int).tolist()


@pytest.mark.parametrize("choices", [{"view": IMAGES}, {"view": "nope"}, {"split": "val", "view": "Table"}])
def test_on_a_table_what_does_not_exist_is_passed_over(blobs: Dataset, choices: dict[str, str]) -> None:
    app = open_page("explore", dataset="blobs", **choices)
    expected = "850 of 850 train rows" if choices["view"] == "Table" else "Each point is a row"
    assert expected in words(app)


def test_from_a_view_of_images_to_a_table_and_back(blobs: Dataset, digits: Dataset) -> None:
    app = explore("digits", AVERAGE)
    app.sidebar.selectbox("dataset").select("Blobs")
    assert "Each point is a row" in words(show(app))
    app.sidebar.selectbox("dataset").select("Digits")
    assert "48 of 1,437 train images" in words(show(app))
