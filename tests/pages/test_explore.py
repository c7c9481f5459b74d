import numpy as np
import pytest
from screen import button, click, errors, figure, links, open_page, show, tiles, title, words
from sklearn.datasets import load_digits

from engine.catalogue import CATALOGUE
from engine.dataset import Dataset, Split, open_dataset, save_dataset


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


def test_the_digits_are_got_with_the_button() -> None:
    app = click(open_page("explore"), "Get Digits")
    assert not app.error
    assert not app.info
    assert "**1,437 train images and 360 test images** of 10 classes, 8 x 8 pixels, grey." in words(app)
    assert len(open_dataset("digits").splits["train"]) == 1437


def test_a_dataset_that_cannot_be_got_is_told(tmp_path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    app = click(open_page("explore", dataset="digits"), "Get Digits")
    (error,) = errors(app)
    assert "cannot be written" in error
    assert "\n" not in error


def test_class_counts_are_those_of_scikit_learn(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    bars = {bar["name"]: bar["y"] for bar in figure(app, "counts")["data"]}
    counts = np.bincount(load_digits().target)
    assert list(bars) == ["train", "test"]
    np.testing.assert_array_equal(np.add(bars["train"], bars["test"]), counts)
    assert (sum(bars["train"]), sum(bars["test"])) == (1437, 360)
    ratio = max(bars["train"]) / min(bars["train"])
    assert f"the largest class has {ratio:.2f} times the images of the smallest" in words(app)
    assert f"Source: {digits.source}." in words(app)


def test_it_leads_to_a_training_on_the_dataset(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    assert links(app) == {"Train on this dataset": ("train", {"dataset": "digits"})}


def test_images_are_those_of_the_dataset(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits")
    shown = tiles(app)
    assert len({tile["index"] for tile in shown}) == 48
    assert "48 of 1,437 images, drawn at random with seed 0." in words(app)
    for tile in shown:
        np.testing.assert_array_equal(tile["image"], digits.splits["train"].images[tile["index"]])
        truth = str(digits.splits["train"].labels[tile["index"]])
        assert tile["lines"] == [truth]
        assert tile["title"] == f"{truth}, image {tile['index']} of train"


def test_class_and_split_are_those_of_the_url(digits: Dataset) -> None:
    app = open_page("explore", dataset="digits", split="test", **{"class": "7"})
    assert "36 of 36 images" in words(app)
    assert [tile["index"] for tile in tiles(app)] == np.flatnonzero(digits.splits["test"].labels == 7).tolist()


@pytest.mark.parametrize("choices", [{"class": "ten"}, {"split": "val"}, {"class": ""}])
def test_a_class_or_split_that_does_not_exist_is_passed_over(digits: Dataset, choices: dict[str, str]) -> None:
    assert "48 of 1,437 images" in words(open_page("explore", dataset="digits", **choices))


def test_an_unknown_dataset_is_passed_over() -> None:
    app = open_page("explore", dataset="nope")
    assert title(app) == "Digits"
    assert app.query_params == {"dataset": "digits"}


def test_other_images_are_drawn_and_the_same_by_the_same_seed(digits: Dataset) -> None:
    def drawn(app) -> list[int]:
        return [tile["index"] for tile in tiles(app)]

    app = open_page("explore", dataset="digits")
    first = drawn(app)
    assert first == drawn(open_page("explore", dataset="digits"))
    second = drawn(click(app, "Others"))
    assert set(second) != set(first)
    assert "drawn at random with seed 1." in words(app)
    assert drawn(click(app, "Others")) != second


def test_a_dataset_is_chosen_in_the_sidebar(digits: Dataset, make_colours) -> None:
    make_colours("kmnist")
    app = open_page("explore", dataset="digits", **{"class": "7"})
    app.sidebar.selectbox[0].select("KMNIST")
    show(app)
    assert app.query_params["dataset"] == "kmnist"
    assert "**90 train images and 30 test images** of 3 classes, 10 x 12 pixels, colour." in words(app)
    assert "48 of 90 images" in words(app)
    assert app.selectbox("class").value == "all"


def test_a_class_without_images_is_told() -> None:
    images = np.zeros((4, 8, 8, 1), np.uint8)
    splits = {"train": Split(images, np.array([0, 1, 2, 0])), "test": Split(images, np.array([0, 1, 0, 1]))}
    save_dataset("kmnist", ("o", "ki", "su"), splits, "made up")
    app = open_page("explore", dataset="kmnist", split="test", **{"class": "su"})
    assert app.info[0].value == "The test split has no image of the class su."
    assert "the largest class has 2.00 times" in words(app)


def test_a_class_that_is_not_trained_on_is_not_divided_by() -> None:
    images = np.zeros((4, 8, 8, 1), np.uint8)
    save_dataset("kmnist", ("o", "ki", "su"), {"train": Split(images, np.array([0, 1, 1, 0]))}, "made up")
    assert "the largest class" not in words(open_page("explore", dataset="kmnist"))


@pytest.mark.parametrize("file", ["dataset.json", "train-images.npy", "test-labels.npy"])
def test_a_damaged_dataset_is_told(digits: Dataset, tmp_path, file: str) -> None:
    folder = tmp_path / "data" / "prepared" / "digits"
    (folder / file).write_bytes(b"damaged")
    (folder / "dataset.json").touch()  # this process has it open
    (error,) = errors(open_page("explore", dataset="digits"))
    assert error.startswith("The prepared dataset digits is damaged (")
    assert error.endswith(f"Delete {folder} and get it again.")
