import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from engine.base.errors import LoupeError
from engine.networks.model_file import load_model, load_preprocessing, save_model
from engine.networks.models import HiddenHead, build_model, head_path
from engine.networks.preprocessing import Preprocessing
from engine.recipes.recipe import Recipe

OF_IMAGES = Preprocessing((28, 24, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), ("red", "green", "blå"))
OF_ROWS = Preprocessing((4,), (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0), ("0", "1"))
GREY_SEEN_AS_COLOUR = Preprocessing((32, 32, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), ("a", "b"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "my-run"
    folder.mkdir()
    return folder / "weights.safetensors"


def saved(path: Path, recipe: Recipe, preprocessing: Preprocessing) -> nn.Module:
    model = build_model(recipe.model, preprocessing.model_shape, len(preprocessing.classes), recipe.head)
    save_model(path, model.state_dict(), recipe, preprocessing)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "hidden"])
@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [
        ("convnet", OF_IMAGES),
        ("mlp", OF_ROWS),
        ("mobilenet_v3_small", GREY_SEEN_AS_COLOUR),
        ("squeezenet1_1", GREY_SEEN_AS_COLOUR),
        ("shufflenet_v2_x0_5", GREY_SEEN_AS_COLOUR),
        ("mnasnet0_5", GREY_SEEN_AS_COLOUR),
    ],
)
def test_a_model_comes_back_as_it_was(path: Path, name: str, preprocessing: Preprocessing, head: str) -> None:
    recipe = Recipe(model=name, head=head)
    before = saved(path, recipe, preprocessing)
    random_state = torch.get_rng_state()
    after, found = load_model(path)
    assert found == preprocessing == load_preprocessing(path)
    assert isinstance(after.get_submodule(head_path(after)), HiddenHead) == (head == "hidden")
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(value, before.state_dict()[key]) for key, value in after.state_dict().items())
    torch.set_rng_state(random_state)
    shape = preprocessing.model_shape
    inputs = torch.rand(3, *((shape[2], *shape[:2]) if len(shape) == 3 else shape))
    assert torch.equal(after.eval()(inputs), before(inputs))


def test_weights_in_another_memory_order_come_back_as_they_were(path: Path) -> None:
    model = build_model("convnet", OF_IMAGES.model_shape, 3).to(memory_format=torch.channels_last)
    assert not model[4].weight.is_contiguous()
    save_model(path, model.state_dict(), Recipe(model="convnet"), OF_IMAGES)
    after, _ = load_model(path)
    assert torch.equal(after[4].weight, model[4].weight)


def test_what_is_beside_the_weights_can_be_read_by_others(path: Path) -> None:
    saved(path, Recipe(model="convnet", head="hidden"), OF_IMAGES)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert {name: metadata[name] for name in ("format", "model", "head")} == {
        "format": "1",
        "model": "convnet",
        "head": "hidden",
    }
    assert json.loads(metadata["preprocessing"])["classes"] == ["red", "green", "blå"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def rewritten(path: Path, **changes: str | None) -> None:
    """Write a model's file anew with other values beside the same weights; None leaves one out."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | changes
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    save_file(weights, path, {name: value for name, value in metadata.items() if value is not None})


def test_a_model_saved_before_there_were_other_heads_has_a_linear_one(path: Path) -> None:
    before = saved(path, Recipe(model="convnet"), OF_IMAGES)
    rewritten(path, head=None)
    after, _ = load_model(path)
    assert torch.equal(after[-1].weight, before[-1].weight)


def test_a_model_saved_when_there_were_images_only_is_read(path: Path) -> None:
    saved(path, Recipe(model="convnet"), OF_IMAGES)
    values = OF_IMAGES.as_dict()
    height, width, channels = values.pop("shape")
    rewritten(path, preprocessing=json.dumps(values | {"height": height, "width": width, "channels": channels}))
    assert load_preprocessing(path) == OF_IMAGES


def assert_refused(path: Path, reason: str) -> None:
    for load in (load_model, load_preprocessing):
        with pytest.raises(LoupeError) as refused:
            load(path)
        message = str(refused.value)
        assert re.fullmatch(
            r"weights.safetensors of the run my-run cannot be used: it is damaged, or not a file of weights "
            rf"\(.*{re.escape(reason)}.*\)\. Nothing in it was run\. Train the recipe again\.",
            message,
        ), message


def test_a_newer_format_is_refused(path: Path) -> None:
    saved(path, Recipe(model="convnet"), OF_IMAGES)
    rewritten(path, format="2")
    assert_refused(path, "its format is 2, not 1")


@pytest.mark.parametrize("value", [None, "", "[]", "{", '{"shape": [4]}', '{"wings": 2}'])
def test_a_preprocessing_that_makes_no_sense_is_refused(path: Path, value: str | None) -> None:
    saved(path, Recipe(model="convnet"), OF_IMAGES)
    rewritten(path, preprocessing=value)
    assert_refused(path, "")


def test_weights_from_elsewhere_are_refused(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)
    assert_refused(path, "its format is None, not 1")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused(path: Path, share: float) -> None:
    saved(path, Recipe(model="convnet"), OF_IMAGES)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "")


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(path: Path, trap) -> None:
    path.write_bytes(pickle.dumps(trap))
    assert_refused(path, "")
    torch.save({"weight": trap}, path)
    assert_refused(path, "")
    assert not trap.sprung


@pytest.mark.parametrize("changes", [{"model": "lenet5"}, {"model": "nope"}, {"head": "hidden"}])
def test_weights_of_another_network_than_is_said_are_refused(path: Path, changes: dict[str, str]) -> None:
    saved(path, Recipe(model="convnet"), OF_IMAGES)
    rewritten(path, **changes)
    with pytest.raises(LoupeError, match=r"^weights.safetensors of the run my-run cannot be used"):
        load_model(path)
    assert load_preprocessing(path) == OF_IMAGES


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    assert_refused(path, "No such file")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "weights.safetensors"
    with pytest.raises(LoupeError, match=rf"^{re.escape(str(place.parent))} cannot be written"):
        save_model(place, {"weight": torch.zeros(3)}, Recipe(), OF_IMAGES)
