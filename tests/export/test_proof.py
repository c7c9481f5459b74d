"""An export that does not answer as the run does, for whatever reason, is found out."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import EXPORTS, Exported, damaged, export_to, left_in
from picture_files import assert_sentences, encode, import_pictures, write
from PIL import Image
from torch.nn import functional
from trained_runs import train_run

from engine.base.errors import LoupeError
from engine.data.dataset import delete_dataset
from engine.export import proof
from engine.export.proof import Proof, prove
from engine.inference.batch import Pictures, classify_all
from engine.inference.classifier import load_classifier
from engine.networks import preprocessing as preprocessing_module
from engine.networks.model_file import load_model, save_model
from engine.runs.run import Run


def refusal(run: Run, model: Path) -> str:
    with pytest.raises(LoupeError) as refused:
        prove(run, model)
    assert_sentences(str(refused.value))
    assert str(refused.value).startswith("The export was given up, and nothing of it kept: ")
    return str(refused.value)


PROVED_ON = {
    "grey": ("test images of digits", 100, 16),
    "colour": ("test images of colours", 100, 16),
    "transferred": ("test images of photographs", 24, 16),
    "rows": ("test rows of blobs", 100, 0),
}


@pytest.mark.parametrize(("kind", "format"), EXPORTS)
def test_every_kind_of_model_is_proved(kind: str, format: str, export_of) -> None:
    proof = export_of(kind, format).proof
    assert (proof.inputs, proof.images, proof.resized) == PROVED_ON[kind]
    assert 0 <= proof.largest <= 1e-4
    assert proof.different == 0


def test_a_proof_is_told_in_words() -> None:
    assert Proof(100, "test images of digits", 16, 2.5e-6, 1).in_words() == (
        "On 100 test images of digits, and on 16 of other sizes made of them, loaded again in a process without Loupe: "
        "the largest difference in probability from the run's own answers is 2.5e-06, and 1 of 116 answers is "
        "different."
    )
    assert Proof(50, "test rows of blobs", 0, 0.0, 0).in_words() == (
        "On 50 test rows of blobs, loaded again in a process without Loupe: the largest difference in probability from "
        "the run's own answers is 0.0e+00, and 0 of 50 answers are different."
    )


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("grey", "generated images (the dataset is not here)"),
        ("rows", "generated rows (the dataset is not here)"),
    ],
)
def test_without_the_dataset_it_is_proved_on_what_is_generated(kind: str, inputs: str, copied, export_of) -> None:
    run = copied(kind)
    delete_dataset(run.read_recipe().dataset)
    proved = prove(run, export_of(kind, "onnx").model)
    assert (proved.images, proved.inputs) == (100, inputs)


@pytest.mark.parametrize("kind", ["grey", "rows"])
def test_a_model_of_other_weights_is_refused(kind: str, copied, export_of) -> None:
    run = copied(kind)
    model, preprocessing = load_model(run.weights)
    save_model(run.weights, damaged(model).state_dict(), run.read_recipe(), preprocessing)
    message = refusal(run, export_of(kind, "onnx").model)
    (difference,) = re.findall(r"its probabilities differ from the run's by up to ([\d.]+) on test", message)
    assert 1e-4 < float(difference) < 0.01
    assert "0.0001 is the most that is let through" in message


def test_a_model_that_errs_only_on_images_that_it_resizes_is_refused(export_of, at, monkeypatch) -> None:
    def blurred(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return functional.interpolate(pixels.float(), size=size, mode="bilinear", align_corners=False)

    exported: Exported = export_of("grey", "onnx")
    monkeypatch.setattr(
        preprocessing_module, "resample", blurred
    )  # the run's own answers become others than the model's
    assert re.search(r"by up to [\d.]+ on images of 45 x 57 pixels", refusal(at(exported.run), exported.model))


def wide_pictures() -> dict[str, bytes]:
    """Pictures of 160 x 40 pixels whose class can be told near one end alone, by folders."""
    random, files = np.random.default_rng(0), {}
    for label, start in (("left", 0), ("right", 124)):
        for number in range(40):
            pixels = random.integers(90, 140, (40, 160, 3)).astype(np.uint8)
            x = start + int(random.integers(2, 14))
            pixels[8:32, x : x + 20] = 250
            files[f"{label}/{number}.png"] = encode(Image.fromarray(pixels))
    return files


@pytest.fixture
def run_on_wide(tmp_path: Path) -> Run:
    """A run on wide pictures that were imported from a folder, and padded."""
    dataset = import_pictures("ends", write(tmp_path / "ends", wide_pictures()), fit="pad", size=32)
    run, _ = train_run(dataset, model="convnet", epochs=12, learning_rate=0.01, seed=1)
    return run


@pytest.mark.processes
def test_files_that_were_imported_are_answered_as_in_the_evaluation(run_on_wide: Run, tmp_path: Path) -> None:
    export_to(run_on_wide, "onnx", tmp_path / "model.onnx")
    proof = prove(run_on_wide, tmp_path / "model.onnx")
    assert (proof.images, proof.files, proof.agreeing) == (16, 16, 16)
    assert "Of the files, 16 of 16 are answered as in the evaluation." in proof.in_words()
    answers = classify_all(load_classifier(run_on_wide), Pictures([str(tmp_path / "ends")]))
    assert sum(answer.top[0]["label"] == answer.true for answer in answers) >= 78


@pytest.mark.processes
def test_a_model_that_sees_files_otherwise_than_its_training_did_is_refused(run_on_wide: Run, tmp_path: Path) -> None:
    model, preprocessing = load_model(run_on_wide.weights)
    cropping = replace(preprocessing, fit="crop")
    save_model(run_on_wide.weights, model.state_dict(), run_on_wide.read_recipe(), cropping)
    with pytest.raises(LoupeError, match=r"of 16 files that were imported, \d+ get another answer than in the eval"):
        export_to(run_on_wide, "onnx", tmp_path / "model.onnx")


def test_a_model_of_other_classes_is_refused(run_of, export_of, copied) -> None:
    run = copied("grey")
    model, preprocessing = load_model(run.weights)
    weights = model.state_dict()
    weights |= {name: value[:-1] for name, value in weights.items() if value.dim() and len(value) == 10}
    save_model(run.weights, weights, run.read_recipe(), replace(preprocessing, classes=preprocessing.classes[:-1]))
    message = refusal(run, export_of("grey", "onnx").model)
    assert "it answers with an array of shape (100, 10) where (100, 9) is expected" in message


def test_a_model_whose_answers_are_no_numbers_is_refused(copied, export_of) -> None:
    run = copied("colour")
    model, preprocessing = load_model(run.weights)
    save_model(run.weights, {n: v * torch.nan for n, v in model.state_dict().items()}, run.read_recipe(), preprocessing)
    with pytest.raises(LoupeError, match="its training has diverged"):
        prove(run, export_of("colour", "onnx").model)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["model.onnx", pytest.param("model.pt2", marks=pytest.mark.sweep)])
def test_a_file_that_does_not_run_is_refused_with_the_last_words_of_its_process(
    name: str, run_of, at, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"damaged")
    assert "it does not run on its own (" in refusal(at(run_of("grey")), tmp_path / name)


REPLAYS = {
    "crashes": ("import os; os.abort()", 60, "it does not run on its own (it printed nothing)"),
    "fails": (
        "raise ValueError('no \\x1b operator')",
        60,
        "it does not run on its own (ValueError: no \\x1b operator)",
    ),
    "hangs": ("import time; time.sleep(3600)", 1, "it did not answer within 1 seconds"),
    "has Loupe at hand": ("import engine", 60, "ModuleNotFoundError: No module named 'engine'"),
}


@pytest.mark.parametrize("case", REPLAYS)
def test_a_process_without_an_answer_is_no_proof(
    case: str, export_of, at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: Exported = export_of("grey", "onnx")
    text, seconds, reason = REPLAYS[case]
    (tmp_path / "replay.py").write_text(text)
    monkeypatch.setattr(proof, "REPLAY", tmp_path / "replay.py")
    monkeypatch.setattr(proof, "SECONDS", seconds)
    assert reason in refusal(at(exported.run), exported.model)


def test_nothing_is_left_in_the_folder_for_temporary_files(
    export_of, at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export_of("grey", "onnx")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shutil.copy(exported.model, tmp_path / "model.onnx")
    proved = prove(at(exported.run), tmp_path / "model.onnx")
    assert np.isfinite(proved.largest)
    assert left_in(tmp_path) == ["model.onnx"]
