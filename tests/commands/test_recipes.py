from dataclasses import fields

from command_line import assert_refused, call

from engine.base.paths import weights_folder
from engine.data.download import fetch
from engine.recipes.backbones import BACKBONES, rank_for_images
from engine.recipes.recipe import MODELS, RECIPES, Recipe, published


def test_recipes_lists_their_fields_and_what_is_published() -> None:
    answer = call("recipes", "--json")
    assert answer.code == 0
    names = {about.name for about in fields(Recipe)}
    for recipe in answer.document:
        assert recipe.keys() == names | {"published"}
        original = RECIPES[recipe["name"]]
        assert recipe == original.as_dict() | {"published": published(original)}
    assert [recipe["name"] for recipe in answer.document] == list(RECIPES)

    text = call("recipes").stdout
    assert all(name in text for name in RECIPES)


def test_models_lists_loupes_own_and_then_torchvisions_that_suit_a_dataset(digits) -> None:
    weights_folder().mkdir()
    (weights_folder() / BACKBONES["resnet18"].file).write_bytes(b"")
    for arguments, shape in (((), (224, 224, 3)), (("--dataset", "digits"), (8, 8, 1))):
        answer = call("models", *arguments, "--json")
        assert (answer.code, answer.stderr) == (0, "")
        own, theirs = answer.document[: len(MODELS)], answer.document[len(MODELS) :]
        assert own == [{"name": name, "about": about} for name, about in MODELS.items()]
        assert [model["name"] for model in theirs] == [each.name for each in rank_for_images(shape)]
        for model in theirs:
            backbone = BACKBONES[model["name"]]
            assert model["about"] == backbone.in_words()
            assert (model["parameters"], model["accuracy"]) == (backbone.parameters, backbone.accuracy)
            assert model["weights_here"] == (model["name"] == "resnet18")
    lines = call("models").stdout.splitlines()
    assert len(lines) == len(MODELS) + len(BACKBONES)
    assert lines[0].split()[:2] == ["convnet", "Three"]
    (resnet18,) = [line for line in lines if line.startswith("resnet18 ")]
    assert resnet18 == f"{'resnet18':20} {BACKBONES['resnet18'].in_words()}, weights here"
    assert "".join(lines).count("weights here") == 1


def test_models_for_a_table_are_refused() -> None:
    fetch("blobs")
    assert_refused(call("models", "--dataset", "blobs"), "blobs is a table of 4 numbers a row, and this needs images")
