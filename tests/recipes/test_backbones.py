import re
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import python
from torchvision import models

import engine.recipes.backbones
from engine.recipes.backbones import BACKBONES, TABLE, Backbone, from_torchvision, rank_for_images


def test_the_table_is_what_torchvision_says_and_in_its_order() -> None:
    assert list(from_torchvision()) == list(BACKBONES.values())
    assert list(BACKBONES) == models.list_models(module=models)
    assert len(BACKBONES) == 80


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_is_described_as_its_default_weights_are(name: str) -> None:
    backbone, weights = BACKBONES[name], models.get_model_weights(name).DEFAULT
    about, seen = weights.meta, weights.transforms()
    assert (backbone.name, backbone.parameters) == (name, about["num_params"])
    assert (backbone.gflops, backbone.megabytes) == (about["_ops"], about["_file_size"])
    assert backbone.accuracy * 100 == pytest.approx(about["_metrics"]["ImageNet-1K"]["acc@1"])
    assert [backbone.size] == seen.crop_size
    assert len(about["categories"]) == 1000
    mean = {"imagenet": [0.485, 0.456, 0.406], "half": [0.5, 0.5, 0.5]}[backbone.scaling]
    std = {"imagenet": [0.229, 0.224, 0.225], "half": [0.5, 0.5, 0.5]}[backbone.scaling]
    assert (list(seen.mean), list(seen.std)) == (mean, std)
    least = about["min_size"]
    assert backbone.smallest == (backbone.size if backbone.fixed else max(least))
    assert backbone.smallest <= backbone.size
    # A hash before the ending is what a download is checked by.
    assert weights.url.endswith(f"/{backbone.file}") and re.search(r"-[0-9a-f]{8,}\.pth$", backbone.file)


def test_no_two_backbones_share_a_file_of_weights() -> None:
    assert len({backbone.file for backbone in BACKBONES.values()}) == len(BACKBONES)


def test_a_backbone_is_told_in_words() -> None:
    assert BACKBONES["resnet50"].in_words() == (
        "25.6 million parameters, 224 x 224 pixels, 4.089 GFLOPs an image, 80.9% on ImageNet"
    )
    assert BACKBONES["efficientnet_v2_l"].in_words() == (
        "118.5 million parameters, 480 x 480 pixels, 56.08 GFLOPs an image, 85.8% on ImageNet"
    )


def is_beaten(backbone: Backbone) -> bool:
    """Tell whether another network is better with no more work."""
    as_light = [other for other in BACKBONES.values() if other.gflops <= backbone.gflops]
    return max(other.accuracy for other in as_light) > backbone.accuracy


@pytest.mark.parametrize("shape", [(224, 224, 3), (600, 800, 3), (48, 90, 3), (90, 48, 1), (28, 28, 1), (8, 8, 1)])
def test_those_are_first_that_take_the_images_and_are_best_at_their_work(shape: tuple[int, int, int]) -> None:
    listed = rank_for_images(shape)
    assert sorted(each.name for each in listed) == sorted(BACKBONES)
    side = min(shape[:2])
    groups = [
        [each for each in listed if (each.smallest <= side) == takes and is_beaten(each) == beaten]
        for takes, beaten in ((True, False), (True, True), (False, False), (False, True))
    ]
    assert listed == [each for group in groups for each in group]
    for group in groups:
        assert [each.gflops for each in group] == sorted(each.gflops for each in group)
    # Of those that nothing beats, more work is always worth more accuracy.
    assert all(lighter.accuracy < heavier.accuracy for lighter, heavier in zip(groups[0], groups[0][1:], strict=False))
    assert groups[0] and groups[1]


def test_small_images_have_networks_last_that_do_not_take_them() -> None:
    of_digits = [each.name for each in rank_for_images((8, 8, 1))]
    of_photographs = [each.name for each in rank_for_images((224, 224, 3))]
    assert of_digits != of_photographs
    for name in ("alexnet", "vit_b_16", "maxvit_t", "inception_v3", "densenet121"):
        assert of_digits.index(name) > of_digits.index("resnet152"), name
    assert of_photographs.index("alexnet") < of_photographs.index("resnet152")


@pytest.mark.processes
def test_the_table_can_be_written_anew(tmp_path: Path) -> None:
    copy = Path(shutil.copy(engine.recipes.backbones.__file__, tmp_path))
    with python(str(copy)) as process:
        assert process.wait(120) == 0
    assert (tmp_path / TABLE.name).read_bytes() == TABLE.read_bytes()


def modules_imported_by(*arguments: str) -> set[str]:
    with python("-X", "importtime", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return {line.rsplit("|", 1)[1].strip() for line in stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments",
    [("-m", "engine", "models"), ("-m", "engine", "models", "--json"), ("-c", "import engine.recipes.recipe")],
)
def test_the_networks_are_told_without_importing_torch(arguments: tuple[str, ...]) -> None:
    imported = modules_imported_by(*arguments)
    assert "engine.recipes.backbones" in imported
    assert not {name for name in imported if name.split(".")[0] in ("torch", "torchvision", "sklearn", "scipy")}
