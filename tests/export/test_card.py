"""The card says what the model is good for, and shows every name as the text that it is."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from damage import change_predictions
from exports import HOSTILE, PROOF

from engine.base.text import printable
from engine.data.dataset import delete_dataset
from engine.evaluation.metrics import wilson_interval
from engine.evaluation.predictions import load_predictions, save_predictions
from engine.export.card import model_card, plain
from engine.recipes.recipe import change
from engine.runs.run import Run


@pytest.fixture
def grey(copied: Callable[[str], Run]) -> Run:
    return copied("grey")


def card(run: Run, model: str = "model.onnx") -> str:
    return model_card(run, model, PROOF)


def sections(text: str) -> dict[str, str]:
    """Part a card at its headings."""
    _, *parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def unescaped(text: str) -> str:
    """Read Markdown that has nothing but text in it."""
    found = re.sub(r"\\([!-/:-@\[-`{-~])", lambda each: f"\0{each[1]}", text)
    assert not re.search(r"(?<!\0)[\\`*_\[\]<>|~$&]", found), text
    return found.replace("\0", "")


def test_it_has_all_that_a_reader_asks(grey: Run) -> None:
    text = card(grey)
    assert text.startswith(
        f"# convnet on digits\n\nAn image classifier, trained and exported by Loupe. Run `{grey.id}`"
    )
    parts = sections(text)
    assert list(parts) == [
        "How good it is",
        "What it takes and gives",
        "What it was trained on",
        "Limits",
        "Proof of the export",
        "Settings",
    ]
    assert PROOF.in_words() in parts["Proof of the export"]
    assert "above 0.0001 would have stopped" in parts["Proof of the export"]
    assert "(batch, height, width, 1), grey, of any size" in parts["What it takes and gives"]
    assert "in the shape of 8 x 8 " in parts["What it takes and gives"]
    assert "light strokes on dark" in parts["What it takes and gives"]
    assert "Classes (10): 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in parts["What it takes and gives"]
    assert "pip install onnxruntime numpy pillow\npython predict.py PICTURE" in parts["What it takes and gives"]
    history = grey.history()
    assert f"{history.started.train_count:,} images to train on" in parts["What it was trained on"]
    assert f"Fingerprint of the data: `{history.started.fingerprint}`" in parts["What it was trained on"]
    assert "The dataset digits has 1,437 training images and 360 test images." in parts["What it was trained on"]
    for name, value in (
        ("model", "convnet"),
        ("epochs", "2"),
        ("learning_rate", str(grey.read_recipe().learning_rate)),
    ):
        assert re.search(rf"^\| {name} \| {re.escape(plain(value))}", parts["Settings"], re.MULTILINE), name


def test_it_tells_the_accuracy_with_its_interval_and_the_worst_classes(grey: Run) -> None:
    predictions = load_predictions(grey.predictions("test"))
    right = int((predictions.probabilities.argmax(axis=1) == predictions.labels).sum())
    low, high = wilson_interval(right, 360)
    parts = sections(card(grey))
    assert f"**{right / 360:.2%}** of the test images: {right} of 360 right" in parts["How good it is"]
    assert f"(95% interval {low:.2%} to {high:.2%}, Wilson)" in parts["How good it is"]
    most = np.bincount(predictions.labels).max() / 360
    assert f"commonest class would be right on {most:.2%}" in parts["How good it is"]
    correct = predictions.probabilities.argmax(axis=1) == predictions.labels
    recalls = [correct[predictions.labels == label].mean() for label in range(10)]
    worst = int(np.argmin(recalls))
    count = (predictions.labels == worst).sum()
    assert f"Recognised least: {worst} ({recalls[worst]:.1%} of {count})" in parts["Limits"]
    confused = re.findall(r"(\d) taken for (\d) \((\d+) of (\d+)\)", parts["Limits"])
    assert confused
    for truth, answer, times, total in confused:
        of_truth = predictions.labels == int(truth)
        assert int(times) == (predictions.probabilities.argmax(axis=1)[of_truth] == int(answer)).sum()
        assert int(total) == of_truth.sum()


def test_of_a_program_of_torch_it_says_so(grey: Run) -> None:
    takes = sections(card(grey, "model.pt2"))["What it takes and gives"]
    assert "pip install torch numpy pillow" in takes and "`loupe.json`" in takes and "onnxruntime" not in takes


def test_of_rows_it_speaks_of_rows(run_of, at) -> None:
    parts = sections(card(at(run_of("rows"))))
    assert "- In, `rows`: float32, (batch, 4)." in parts["What it takes and gives"]
    assert "python predict.py FILE.csv" in parts["What it takes and gives"]
    assert "image" not in parts["Limits"] and "of the test rows" in parts["How good it is"]


def test_names_are_shown_as_the_text_that_they_are(copied) -> None:
    run = copied("colour")
    text = card(run)
    assert text.isprintable() or not [each for each in text if not each.isprintable() and each != "\n"]
    (line,) = re.findall(r"^Classes \(3\): (.*)\.$", text, re.MULTILINE)
    assert unescaped(line) == ", ".join(printable(name) for name in HOSTILE)
    (line,) = re.findall(r"^- Recognised least: (.*)\.$", text, re.MULTILINE)
    assert all(printable(name) in unescaped(line) for name in HOSTILE)
    assert re.findall("^#+ .*", text, re.MULTILINE) == ["# convnet on colours"] + [
        f"## {name}" for name in sections(text)
    ]


def test_settings_cannot_break_out_of_their_table(grey: Run) -> None:
    weights = "/a|b/<script>`x`\n\n# y/w.pth"
    grey.write_recipe(change(grey.read_recipe(), {"weights": weights, "freeze": "backbone"}))
    rows = sections(card(grey))["Settings"].strip().splitlines()
    (row,) = [row for row in rows if row.startswith("| weights |")]
    assert unescaped(row[len("| weights | ") : -2]) == printable(weights)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


@pytest.mark.parametrize("case", ["none", "damaged"])
def test_without_predictions_it_says_that_nothing_was_measured(case: str, grey: Run) -> None:
    for split in ("val", "test"):
        grey.predictions(split).unlink() if case == "none" else grey.predictions(split).write_bytes(b"damaged")
    text = card(grey)
    assert "Not measured" in sections(text)["How good it is"]
    assert "Recognised least" not in text and "Confused most" not in text


def test_of_validation_images_it_says_that_they_were_chosen_by(grey: Run) -> None:
    grey.predictions("test").unlink()
    grey.write_recipe(replace(grey.read_recipe(), keep="best", validation_share=0.1))
    good = sections(card(grey))["How good it is"]
    assert "of the validation images" in good and "used to choose the weights by" in good


def test_without_its_dataset_it_says_so(grey: Run) -> None:
    delete_dataset("digits")
    assert "The dataset digits was not there when this was written." in card(grey)


def test_a_class_without_test_images_is_not_among_the_worst(grey: Run) -> None:
    def without_nines(predictions) -> dict:
        kept = predictions.labels != 9
        return {
            "labels": predictions.labels[kept],
            "probabilities": predictions.probabilities[kept],
            "indices": predictions.indices[kept],
        }

    change_predictions(grey, without_nines)
    (line,) = re.findall("^- Recognised least: .*", card(grey), re.MULTILINE)
    assert " 9 (" not in line


def test_where_all_is_right_nothing_is_confused(grey: Run) -> None:
    predictions = load_predictions(grey.predictions("test"))
    answers = np.eye(10, dtype=np.float32)[predictions.labels]
    save_predictions(replace(predictions, probabilities=answers), grey.predictions("test"))
    text = card(grey)
    assert "**100.00%**" in text and "Confused most" not in text
