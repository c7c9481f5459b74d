import base64
import io
import re
import shutil
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from answers import predictions_of
from PIL import Image
from sklearn import metrics

from engine.audit.inspection import inspect
from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.source_files import SourceFilesWriter
from engine.evaluation.calibration import answered_above, at_temperature, expected_calibration_error, fit_temperature
from engine.evaluation.metrics import most_confused, wilson_interval
from engine.evaluation.predictions import Predictions, load_predictions
from engine.export.report import LARGEST_PICTURE, check_target, report_html, write_report
from engine.recipes.recipe import Recipe, change, find_recipe, published_in_words
from engine.runs.log import best_epoch
from engine.runs.run import Run, create_run

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page taken apart; refuses one whose elements are not closed in their order."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections = {"": ""}
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.sections = {name: " ".join(text.split()) for name, text in self.sections.items()}

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open or "title" in self._open:
            return
        if self._open[-1:] == ["h2"]:
            self.sections[data] = ""
        self.sections[list(self.sections)[-1]] += f" {data}"
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] = " ".join(f"{self.tables[-1][-1][-1]} {data}".split())

    @property
    def text(self) -> str:
        return " ".join(self.sections.values())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(run: Run, predictions: Predictions, dataset: Dataset | None = None) -> Page:
    return Page(report_html(run, predictions, dataset))


def run_of(**changes: object) -> Run:
    """A run that has not begun."""
    return create_run(change(find_recipe("digits-quick"), changes))


def on_colours(labels: list[int], predicted: list[int], dataset: Dataset) -> Predictions:
    probabilities = np.full((len(labels), 3), 0.1, np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.8
    indices = np.arange(len(labels))
    return Predictions("test", "test", probabilities, np.array(labels), indices, dataset.classes, dataset.fingerprint)


@pytest.fixture
def test_answers(trained: Run) -> Predictions:
    return load_predictions(trained.predictions("test"))


@pytest.fixture
def page(trained: Run, test_answers: Predictions, digits: Dataset) -> Page:
    return page_of(trained, test_answers, digits)


def decoded(url: str) -> Image.Image:
    kind, content = url.split(",")
    assert re.fullmatch(r"data:image/(png|jpeg);base64", kind)
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.slow
def test_the_headline_has_its_denominators(page: Page, trained: Run, test_answers: Predictions) -> None:
    head, right = page.sections[""], int(test_answers.correct.sum())
    low, high = wilson_interval(right, 360)
    assert 0 < right < 360
    assert head.startswith(f"{trained.id} convnet on digits, 360 test images. Trained on ")
    assert "with the recipe digits-quick; finished." in head
    assert f"{right / 360:.2%} {right} of 360 images right 95% interval {low:.2%} to {high:.2%}" in head
    assert f"Mistakes {360 - right} of 360" in head
    within_five = metrics.top_k_accuracy_score(test_answers.labels, test_answers.probabilities, k=5, normalize=False)
    assert f"Right among the first five {within_five / 360:.2%} ({within_five:.0f} of 360)" in head
    balanced = metrics.balanced_accuracy_score(test_answers.labels, test_answers.predicted)
    assert f"Balanced accuracy {balanced:.2%}, the mean recall of the 10 classes that have images here" in head
    commonest = np.bincount(test_answers.labels).max()
    assert f"Always the commonest class {commonest / 360:.2%} would be right ({commonest} of 360)" in head
    assert "Published" not in head and "Without copies" not in head


def test_what_was_published_stands_beside_it(test_answers: Predictions) -> None:
    recipe = find_recipe("cifar10-blitz")
    assert published_in_words(recipe)
    assert f"Published {published_in_words(recipe)}" in page_of(create_run(recipe), test_answers).sections[""]


def test_the_matrix_counts_what_scikit_learn_counts(page: Page, test_answers: Predictions) -> None:
    names, *rows = page.tables[0]
    assert names == ["", *test_answers.classes]
    assert [row[0] for row in rows] == list(test_answers.classes)
    counts = [[int(cell.replace(",", "") or 0) for cell in row[1:]] for row in rows]
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(test_answers.labels, test_answers.predicted))


def test_a_cells_shade_is_the_root_of_its_share_of_the_row() -> None:
    # 100 of a class: 81, 18 and 1 of them are answered 0, 1 and 2.
    predictions = predictions_of([0] * 100, [0] * 81 + [1] * 18 + [2])
    page = page_of(run_of(), predictions)
    cells = [
        attrs for attrs in page.all("td") if "recognised" in attrs.get("title", "") or "taken" in attrs.get("title", "")
    ]
    assert [(cell["class"], cell["title"]) for cell in cells] == [
        ("s8 truth", "ant, recognised: 81 of 100"),
        ("s4", "ant taken for bee: 18 of 100"),
        ("s1", "ant taken for cat: 1 of 100"),
    ]


@pytest.mark.parametrize(("count", "cells"), [(10, "large"), (47, "small"), (100, "tiny"), (130, "tiny")])
def test_a_matrix_of_many_classes_stays_readable_and_small(count: int, cells: str) -> None:
    labels = np.arange(20 * count) % count
    predicted = np.where(np.random.rand(len(labels)) < 0.7, labels, np.random.randint(0, count, len(labels)))
    probabilities = np.full((len(labels), count), 0.001, np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.9
    classes = tuple(f"class {number}" for number in range(count))
    html = report_html(run_of(), Predictions("test", "test", probabilities, labels, labels, classes, "0123"), None)
    page = Page(html)
    assert len(html) < 1_000_000
    assert page.all("table")[0]["class"] == f"matrix {cells}"
    _, *rows = page.tables[0]
    shown = [int(row[0].removeprefix("class ")) for row in rows]
    assert len(shown) == min(count, 120) and shown == sorted(shown)
    matrix = metrics.confusion_matrix(labels, predicted)[np.ix_(shown, shown)]
    if cells == "tiny":
        assert not any(cell for row in rows for cell in row[1:])
    else:
        np.testing.assert_array_equal([[int(cell or 0) for cell in row[1:]] for row in rows], matrix)
    titled = [attrs for attrs in page.all("td") if re.search(r": \d+ of 20$", attrs.get("title", ""))]
    assert len(titled) == (matrix > 0).sum()
    assert ("Of the 130 classes those 120 are shown that have most to do with mistakes." in page.text) == (count > 120)


@pytest.mark.slow
def test_a_cut_matrix_keeps_the_classes_with_most_mistakes() -> None:
    labels = np.repeat(np.arange(130), 2)
    predicted = labels.copy()
    predicted[250:] = 0  # classes 125 to 129 are all taken for 0
    probabilities = np.full((260, 130), 0.001, np.float32)
    probabilities[np.arange(260), predicted] = 0.8
    classes = tuple(map(str, range(130)))
    page = page_of(run_of(), Predictions("test", "test", probabilities, labels, labels, classes, "0123"))
    assert [row[0] for row in page.tables[0][1:]] == [*map(str, range(115)), "125", "126", "127", "128", "129"]


def test_each_class_has_scikit_learns_scores_with_their_counts(page: Page, test_answers: Predictions) -> None:
    header, *rows, macro, weighted = page.tables[1]
    assert header == ["class", "images", "recall", "95% interval", "precision", "F1"]
    labels, predicted = test_answers.labels, test_answers.predicted
    expected = metrics.classification_report(labels, predicted, output_dict=True, zero_division=0)
    for label, row in enumerate(rows):
        scores = expected[str(label)]
        right, support = int((predicted[labels == label] == label).sum()), int((labels == label).sum())
        low, high = wilson_interval(right, support)
        assert row == [
            str(label),
            f"{support}",
            f"{scores['recall']:.2%}",
            f"{right} of {support}",
            f"{low:.2%} to {high:.2%}",
            f"{scores['precision']:.2%}",
            f"{right} of {(predicted == label).sum()}",
            f"{scores['f1-score']:.2%}",
        ]
    for name, row in (("macro", macro), ("weighted", weighted)):
        scores = expected[f"{name} avg"]
        assert row[0].startswith(f"{name} average") and row[1] == "360"
        assert [row[2], row[5], row[7]] == [f"{scores[key]:.2%}" for key in ("recall", "precision", "f1-score")]


def test_what_was_never_there_or_never_answered_is_said() -> None:
    rows = page_of(run_of(), predictions_of([0, 0, 1], [0, 2, 0])).tables[1]
    by_class = {row[0]: row[1:] for row in rows}
    assert by_class["bee"] == ["1", "0.00%", "0 of 1", "0.00% to 79.35%", "never answered", "0.00%"]
    assert by_class["cat"] == ["0", "there are none here", "0.00%", "0 of 1", "0.00%"]
    assert by_class["dog"] == ["0", "there are none here", "never answered", "0.00%"]


def test_the_most_confused_are_told_in_words_with_their_pictures(
    page: Page, test_answers: Predictions, digits: Dataset
) -> None:
    pairs = most_confused(test_answers, 8)
    assert len(pairs) > 3
    for true, predicted, count, total in pairs:
        assert f"{true} taken for {predicted}: {count} of {total} images" in page.sections["Most confused"]
    true, predicted, count, _ = pairs[0]
    mistakes = np.flatnonzero((test_answers.labels == int(true)) & (test_answers.predicted == int(predicted)))
    surest = mistakes[np.argsort(-test_answers.confidence[mistakes], kind="stable")][:6]
    for picture, row in zip(page.all("img"), surest, strict=False):
        stored = digits.splits["test"].images[test_answers.indices[row]][..., 0]
        np.testing.assert_array_equal(np.asarray(decoded(picture["src"])), stored)
        assert picture["alt"].startswith(f"Image {row} of the test split: {true}, taken for {predicted} with ")
    assert len(page.all("img")) == sum(min(pair[2], 6) for pair in pairs) + 24


@pytest.mark.slow
def test_the_highest_losses_are_pictures_of_those_very_images(
    page: Page, test_answers: Predictions, digits: Dataset
) -> None:
    probabilities = test_answers.probabilities.astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    of_each = [
        metrics.log_loss([label], [answer], labels=range(10))
        for label, answer in zip(test_answers.labels, probabilities, strict=True)
    ]
    worst = np.argsort(-np.array(of_each), kind="stable")[:24]
    pictures = page.all("img")[-24:]
    for picture, row in zip(pictures, worst, strict=True):
        stored = digits.splits["test"].images[test_answers.indices[row]][..., 0]
        np.testing.assert_array_equal(np.asarray(decoded(picture["src"])), stored)
    section = page.sections["Highest loss"]
    assert section.startswith("Highest loss The 24 images of 360 whose true class got the least probability")
    frames = [attrs["class"] for attrs in page.all("figure")[-24:]]
    assert frames == ["right" if test_answers.correct[row] else "wrong" for row in worst]
    wrong = next(row for row in worst if not test_answers.correct[row])
    true, answer = (test_answers.classes[label[wrong]] for label in (test_answers.labels, test_answers.predicted))
    assert f"{true} → {answer} {test_answers.confidence[wrong]:.1%} no. {test_answers.indices[wrong]}" in section


def test_calibration_is_told_with_the_temperature_of_the_validation_images(
    page: Page, trained: Run, test_answers: Predictions
) -> None:
    validation = load_predictions(trained.predictions("val"))
    temperature = fit_temperature(validation)
    before, after = (
        100 * expected_calibration_error(each) for each in (test_answers, at_temperature(test_answers, temperature))
    )
    section = page.sections["How far confidence can be trusted"]
    assert f"On average, accuracy is {before:.2f} points away from confidence" in section
    assert f"A temperature of {temperature:.3g}, fitted to the {len(validation)} validation images" in section
    assert f"would make it {after:.2f} points" in section
    assert page_of(trained, validation).text.count("temperature") == 0, "of the images that it is fitted to"


def test_without_validation_predictions_there_is_no_temperature(
    trained: Run, test_answers: Predictions, tmp_path: Path
) -> None:
    copy = Run(tmp_path / trained.id)
    shutil.copytree(trained.path, copy.path)
    for spoil in (lambda path: path.write_bytes(b"nonsense"), lambda path: path.unlink()):
        spoil(copy.predictions("val"))
        section = page_of(copy, test_answers).sections["How far confidence can be trusted"]
        assert "points away" in section and "temperature" not in section


def test_accuracy_is_given_at_some_coverages(page: Page, test_answers: Predictions) -> None:
    header, *rows = page.tables[2]
    assert header == ["confidence at least", "answered", "right, of those", "95% interval"]
    assert [row[0] for row in rows] == ["0.5", "0.8", "0.9", "0.95", "0.99"]
    for row in rows:
        answered = answered_above(test_answers, float(row[0]))
        assert answered.answered > 0
        assert row[1:5] == [
            f"{answered.answered / 360:.2%}",
            f"{answered.answered} of 360",
            f"{answered.right / answered.answered:.2%}",
            f"{answered.right} of {answered.answered}",
        ]


def test_training_is_told_with_its_curves_and_best_epoch(page: Page, trained: Run) -> None:
    history, section = trained.history(), page.sections["Training"]
    best = best_epoch(history)
    assert best and best.val_accuracy == max(epoch.val_accuracy or 0 for epoch in history.epochs)
    assert f"Best epoch by validation: {best.epoch}, with {best.val_accuracy:.2%} right of 144." in section
    assert "1,293 training images, 144 validation and 360 test images; " in section
    assert "Machine: cpu, 1 thread, " in section
    about = [attrs["aria-label"] for attrs in page.all("svg")]
    assert about[2:] == ["Loss by epoch.", "Accuracy by epoch."]
    stars = [attrs for attrs in page.all("path") if attrs.get("d", "").startswith("M0,-9")]
    assert len(stars) == 4  # in each of two charts and its legend


@pytest.mark.slow
def test_the_curves_bear_many_epochs_and_losses_of_any_size(
    trained: Run, test_answers: Predictions, tmp_path: Path
) -> None:
    copy = Run(tmp_path / trained.id)
    shutil.copytree(trained.path, copy.path)
    history = copy.history()
    lines = copy.log.read_text().splitlines()
    (line,) = [line for line in lines if '"epoch"' in line and '"epoch": 1' in line and '"val_loss"' in line]
    many = [
        line.replace('"epoch": 1', f'"epoch": {number}', 1).replace(
            f'"step": {history.epochs[0].step}', f'"step": {number * 100}'
        )
        for number in range(1, 2001)
    ]
    many[7] = re.sub(r'"train_loss": [^,]+', '"train_loss": 3e30', many[7])
    copy.log.write_text("\n".join([*(line for line in lines if '"started"' in line), *many]) + "\n")
    assert len(copy.history().epochs) == 2000
    html = report_html(copy, test_answers, None)
    assert len(html) < 150_000
    assert "nan" not in html.lower()


def test_every_setting_is_listed(page: Page, trained: Run) -> None:
    section = page.sections["Settings"]
    for about in fields(Recipe):
        assert f" {about.name} " in f" {section} "
    assert " epochs 2 " in section and " batch_size 64 images " in section and " shuffle true " in section
    assert section.endswith("Made by Loupe.")


def test_nothing_is_fetched_and_nothing_is_run(trained: Run, test_answers: Predictions, digits: Dataset) -> None:
    html = report_html(trained, test_answers, digits)
    page = Page(html)
    sources = [
        attrs[name]
        for _, attrs in page.elements
        for name in ("src", "href", "srcset", "data", "action")
        if name in attrs
    ]
    assert len(sources) > 24
    assert all(source.startswith("data:image/") for source in sources)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[^\"]*", "", html))
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_one_evaluation_makes_one_report(trained: Run, test_answers: Predictions, digits: Dataset) -> None:
    assert report_html(trained, test_answers, digits) == report_html(trained, test_answers, digits)


def test_names_of_classes_are_text_whatever_they_are(trained: Run, test_answers: Predictions, digits: Dataset) -> None:
    plain = page_of(trained, test_answers, digits)
    names = (*(f"{HOSTILE}{number}" for number in range(8)), "two\nlines\x1b[2J", "\u202egnp.exe")
    page = page_of(trained, replace(test_answers, classes=names), digits)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.tables[0][0] == ["", *names[:8], "two\\nlines\\x1b[2J", "\\u202egnp.exe"]
    assert f"{HOSTILE}3 taken for" in page.text or f"{HOSTILE}5 taken for" in page.text


def test_names_of_files_and_runs_are_text_whatever_they_are(colours: Dataset) -> None:
    files = SourceFilesWriter(colours.folder, "test")
    files.write([(f'cats/{HOSTILE}/"><img src=x>{index}.png', 10, 10, 12, "RGB") for index in range(30)])
    files.close()
    run = run_of(dataset="colours")
    run.write_recipe(replace(run.read_recipe(), name=HOSTILE))
    labels = [0, 1, 2] * 10
    page = page_of(run, on_colours(labels, [1, *labels[1:]], colours), colours)
    assert len(page.all("img")) == 1 + 24
    assert page.all("script") == []
    assert page.all("figure")[0]["title"] == f'cats/{HOSTILE}/"><img src=x>0.png'
    assert 'red → green 80.0% "><img src=x>0.png' in page.sections["Highest loss"]
    assert f"with the recipe {HOSTILE}; " in page.text


@pytest.mark.slow
def test_large_pictures_are_small_in_the_report(make_colours) -> None:
    dataset = make_colours(height=300, width=400)
    labels = [0, 1, 2] * 10
    run = run_of(dataset="colours")
    html = report_html(run, on_colours(labels, [1, *labels[1:]], dataset), dataset)
    picture = decoded(Page(html).all("img")[0]["src"])
    assert (picture.format, picture.size) == ("JPEG", (LARGEST_PICTURE, LARGEST_PICTURE * 3 // 4))
    assert 'class="pixelated"' not in html
    assert len(html) < 1_500_000


def test_without_the_dataset_the_images_are_listed(trained: Run, test_answers: Predictions, page: Page) -> None:
    without = page_of(trained, test_answers, None)
    assert without.all("img") == []
    for section in ("Most confused", "Highest loss"):
        assert (
            "The dataset digits was not there when this was written, so there are no pictures."
            in without.sections[section]
        )
    worst = int(test_answers.losses.argmax())
    header, first, *others = without.tables[2]
    assert header == ["image of the test split", "true", "predicted", "confidence", "loss (nats)"]
    true, answer = (test_answers.classes[label[worst]] for label in (test_answers.labels, test_answers.predicted))
    assert first[:3] == [f"{test_answers.indices[worst]}", true, f"✗ {answer}"]
    assert float(first[4]) == pytest.approx(test_answers.losses[worst], rel=0.01)
    assert len(others) == 23
    assert without.sections[""] == page.sections[""]


def test_pictures_of_another_version_of_the_dataset_are_not_shown(
    trained: Run, test_answers: Predictions, digits: Dataset
) -> None:
    changed = page_of(trained, replace(test_answers, fingerprint="another"), digits)
    assert changed.all("img") == []
    assert "The dataset digits has changed since the run was evaluated, so there are no pictures." in changed.text


def test_rows_of_a_table_are_called_rows() -> None:
    run = create_run(find_recipe("blobs-mlp"))
    save_dataset(
        "blobs",
        ("a", "b", "c", "d"),
        {
            "train": Split(np.zeros((4, 2), np.float32), np.arange(4)),
            "test": Split(np.ones((3, 2), np.float32), np.arange(3)),
        },
        "generated",
        kind="table",
    )
    predictions = predictions_of([0, 1, 2], [0, 1, 3])
    dataset = open_dataset("blobs")
    for page in (
        page_of(run, replace(predictions, fingerprint=dataset.fingerprint), dataset),
        page_of(run, predictions, None),  # it is known of a dataset that is not here, too
    ):
        assert "2 of 3 rows right" in page.text
        assert "cat taken for dog: 1 of 1 row" in page.text
        assert "image" not in page.text and "picture" not in page.text
        assert page.all("img") == []


def test_a_run_without_mistakes_says_so(trained: Run, test_answers: Predictions, digits: Dataset) -> None:
    right = test_answers.subset(test_answers.correct)
    page = page_of(trained, right, digits)
    assert page.sections["Most confused"] == f"Most confused There is not one mistake in these {len(right)} images."
    assert f"Mistakes 0 of {len(right)}" in page.text
    assert {attrs["class"] for attrs in page.all("figure")} == {"right"}


@pytest.mark.parametrize("answer", [0, 1])
def test_one_image_is_enough(colours: Dataset, answer: int) -> None:
    page = page_of(run_of(dataset="colours"), on_colours([0], [answer], colours), colours)
    assert f"{1 - answer} of 1 image right" in page.text
    assert "The 1 image of 1 whose true class" in page.sections["Highest loss"]
    assert "The log of this run has no finished epoch." in page.sections["Training"]
    assert len(page.all("img")) == 1 + answer


@pytest.mark.slow
def test_copies_in_the_training_set_are_counted_out() -> None:
    random_state = np.random.default_rng(0)
    images = random_state.integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    splits = {"train": Split(images[:20], np.arange(20) % 3), "test": Split(images[15:], np.arange(25) % 3)}
    save_dataset("leaking", ("red", "green", "blue"), splits, "generated")
    dataset = open_dataset("leaking")
    labels = (np.arange(25) % 3).tolist()
    predictions = on_colours(labels, [*labels[:7], *[(label + 1) % 3 for label in labels[7:11]], *labels[11:]], dataset)
    run = run_of(dataset="leaking")
    assert "Without copies" not in page_of(run, predictions, dataset).text, "nobody has looked for them"
    assert inspect_fully(dataset) == [0, 1, 2, 3, 4]
    low, high = wilson_interval(16, 20)
    assert (
        f"Without copies 80.00% (16 of 20, 95% interval {low:.2%} to {high:.2%}), when the 5 images are left out that "
        "have an equal or nearly equal one in the training set"
    ) in page_of(run, predictions, dataset).text
    only_copies = predictions.subset(np.arange(5))
    for others in (
        predictions.subset(np.arange(5, 25)),
        only_copies,
        replace(predictions, split="val", stored_in="train"),
    ):
        assert "Without copies" not in page_of(run, others, dataset).text
    assert "Without copies" not in page_of(run, replace(predictions, fingerprint="another"), dataset).text


def inspect_fully(dataset: Dataset) -> list[int]:
    return run_to_end(inspect(dataset), lambda progress: None).leaked_test(0)


def test_a_report_is_written_and_replaced(trained: Run, test_answers: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "report.HTML"
    path.write_text("an older one")
    write_report(trained, test_answers, None, path)
    assert path.read_text(encoding="utf-8") == report_html(trained, test_answers, None)
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["report.HTML"]


def test_only_files_of_html_are_written(trained: Run, test_answers: Predictions, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    thesis = tmp_path / "thesis.doc"
    thesis.write_text("years of work")
    too_long = tmp_path / f"{'a' * 300}.html"
    for path, reason in (
        (thesis, "only a file whose name ends in .html is written or replaced"),
        (tmp_path / "report", "only a file whose name ends in .html is written or replaced"),
        (tmp_path / "folder.html", "is a folder, and a report is a file"),
        (tmp_path / "nowhere" / "report.html", "There is no folder"),
        (too_long, "could not be written (File name too long)"),
    ):
        with pytest.raises(LoupeError, match=re.escape(reason)):
            write_report(trained, test_answers, None, path)
        if path != too_long:
            with pytest.raises(LoupeError, match=re.escape(reason)):
                check_target(path)
    assert thesis.read_text() == "years of work"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.html", "thesis.doc"]
