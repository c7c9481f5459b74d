"""The files of a model, read as those who get them would: with onnxruntime, torch and safetensors alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exports import EXPORTS, HOSTILE
from picture_files import assert_sentences
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model

from engine.base.errors import LoupeError
from engine.export import formats
from engine.export.formats import write_onnx, write_program
from engine.inference.classifier import Classifier, load_classifier
from engine.runs.run import Run

BATCHES = [(1, 1, 1), (3, 1, 50), (1, 50, 1), (7, 45, 57), (2, 333, 222), (1, 1500, 2000)]

Answer = Callable[[np.ndarray], np.ndarray]


def open_onnx(path: Path) -> tuple[Answer, dict[str, str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda batch: session.run(None, {name: batch})[0], session.get_modelmeta().custom_metadata_map


def open_program(path: Path) -> tuple[Answer, dict[str, str]]:
    about = {"loupe.json": ""}
    model = torch.export.load(path, extra_files=about).module()
    return lambda batch: model(torch.from_numpy(batch)).detach().numpy(), json.loads(about["loupe.json"])


OPEN: dict[str, Callable[[Path], tuple[Answer, dict[str, str]]]] = {"onnx": open_onnx, "torch": open_program}


def answers(classifier: Classifier, batch: np.ndarray) -> np.ndarray:
    return np.concatenate(list(classifier.probabilities(batch)))


@pytest.mark.parametrize(("kind", "format"), EXPORTS)
def test_a_model_answers_as_the_run_does_on_batches_of_every_size(kind: str, format: str, export_of) -> None:
    exported = export_of(kind, format)
    answer, _ = OPEN[format](exported.model)
    classifier = load_classifier(exported.run)
    shape = classifier.preprocessing.shape
    if kind == "rows":
        batches = [np.random.normal(size=(count, *shape)).astype(np.float32) for count in (1, 2, 1000)]
    else:
        sizes = [*BATCHES, (5, *shape[:2])]
        batches = [np.random.randint(0, 256, (*size, shape[2]), np.uint8) for size in sizes]
    for batch in batches:
        found = answer(batch)
        assert (found.dtype, found.shape) == (np.float32, (len(batch), len(classifier.classes)))
        np.testing.assert_allclose(found, answers(classifier, batch), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "format"), EXPORTS)
def test_the_file_knows_its_classes_and_preprocessing(kind: str, format: str, export_of) -> None:
    exported = export_of(kind, format)
    _, about = OPEN[format](exported.model)
    expected = json.loads(json.dumps(load_classifier(exported.run).preprocessing.as_dict()))
    assert about["run"] == exported.run.id
    assert json.loads(about["classes"]) == expected.pop("classes")
    assert json.loads(about["preprocessing"]) == expected
    if kind == "colour":
        assert json.loads(about["classes"]) == list(HOSTILE)


@pytest.mark.parametrize(
    ("kind", "name", "type", "shape"),
    [
        ("grey", "images", onnx.TensorProto.UINT8, ["batch", "height", "width", 1]),
        ("colour", "images", onnx.TensorProto.UINT8, ["batch", "height", "width", 3]),
        ("rows", "rows", onnx.TensorProto.FLOAT, ["batch", 4]),
    ],
)
def test_a_graph_says_what_it_takes_and_gives(kind: str, name: str, type: int, shape: list, export_of) -> None:
    model = onnx.load(export_of(kind, "onnx").model)
    onnx.checker.check_model(model, full_check=True)
    assert {each.version for each in model.opset_import if not each.domain} == {20}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, taken.type.tensor_type.elem_type, sides(taken)) == (name, type, shape)
    assert (given.name, given.type.tensor_type.elem_type) == ("probabilities", onnx.TensorProto.FLOAT)
    assert sides(given)[0] == "batch"


def sides(value: Any) -> list[int | str]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_the_bare_weights_fit_the_network_that_they_are_of(export_of) -> None:
    exported = export_of("transferred", "torch")
    about = json.loads((exported.folder / "weights.json").read_text(encoding="utf-8"))
    assert (about["run"], about["model"], about["head"]) == (exported.run.id, "resnet18", "linear")
    preprocessing = about["preprocessing"]
    assert "classes" not in preprocessing
    model = get_model("resnet18", num_classes=len(about["classes"])).eval()
    model.load_state_dict(load_file(exported.folder / "weights.safetensors"))
    images = np.random.randint(0, 256, (4, *preprocessing["shape"]), np.uint8)
    seen = torch.from_numpy(images / 255 - preprocessing["mean"]) / torch.tensor(preprocessing["std"])
    with torch.inference_mode():
        found = model(seen.permute(0, 3, 1, 2).float()).softmax(dim=1)
    np.testing.assert_allclose(found, answers(load_classifier(exported.run), images), rtol=0, atol=1e-4)


def test_what_is_larger_than_an_onnx_file_can_be_is_told_where_to_go(copied) -> None:
    run = copied("rows")
    os.truncate(run.weights, 2_100_000_000)  # all but the beginning is a hole, and takes no room
    with pytest.raises(LoupeError) as refused:
        write_onnx(run, run.path / "model.onnx")
    assert_sentences(str(refused.value))
    assert "take 2.1 GB" in str(refused.value) and "--format torch" in str(refused.value)


class Undecided(nn.Module):
    """A model that looks at its input to decide what to do, which no graph can hold."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.float().mean(dim=(1, 2)) if inputs.sum() > 7 else inputs.float().amax(dim=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_onnx, write_program])
def test_a_network_that_cannot_be_exported_is_refused_in_a_sentence(
    write: Callable[[Run, Path], None], run_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(formats, "load_portable", lambda run: Undecided())
    with pytest.raises(LoupeError) as refused:
        write(run_of("grey"), tmp_path / "model")
    message = str(refused.value)
    assert message.startswith("The model convnet") and "cannot be exported" in message
    assert "(Could not guard on data-dependent expression" in message and "Try the other format" in message
    assert message.isprintable()
    assert not (tmp_path / "model").exists()
    assert capsys.readouterr() == ("", "")
