import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.base.errors import LoupeError
from engine.data.catalogue import CATALOGUE
from engine.data.dataset import open_dataset
from engine.data.download import fetch
from engine.recipes.recipe import (
    ABOUT,
    FIELDS,
    MACHINE_FIELDS,
    MODELS,
    PUBLISHED,
    RECIPES,
    Recipe,
    change,
    find_recipe,
    from_dict,
    published,
    published_in_words,
)
from engine.runs.records import Evaluated
from engine.training.loop import Training, fit

LENET5 = RECIPES["mnist-lenet5"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("class_weights", "even", "class_weights is 'even', but must be one of none and balanced."),
        ("optimizer", "Adam", "optimizer is 'Adam', but must be one of sgd, adam and adamw."),
        ("epochs", 2.0, "epochs is 2.0, but must be a whole number."),
        ("epochs", True, "epochs is True, but must be a whole number."),
        ("epochs", None, "epochs is None, but must be a whole number."),
        ("learning_rate", True, "learning_rate is True, but must be a number."),
        ("learning_rate", "0.1", "learning_rate is '0.1', but must be a number."),
        ("shuffle", 1, "shuffle is 1, but must be true or false."),
        ("shuffle", "true", "shuffle is 'true', but must be true or false."),
        ("dataset", 7, "dataset is 7, but must be a word."),
        ("model", ["mlp"], "model is ['mlp'], but must be a word."),
        ("epochs", 0, "epochs is 0, but must be between 1 and 10000."),
        ("epochs", 10_001, "epochs is 10001, but must be between 1 and 10000."),
        ("batch_size", -1, "batch_size is -1, but must be between 1 and 65536."),
        ("learning_rate", 0, "learning_rate is 0.0, but must be between 1e-08 and 100.0."),
        ("validation_share", 0.95, "validation_share is 0.95, but must be between 0.0 and 0.9."),
        ("momentum", 1.0, "momentum is 1.0, but must be between 0.0 and 0.9999."),
        ("seed", 2**31, "seed is 2147483648, but must be between 0 and 2147483647."),
        ("learning_rate", math.nan, "learning_rate is nan, but must be between 1e-08 and 100.0."),
        ("learning_rate", math.inf, "learning_rate is inf, but must be between 1e-08 and 100.0."),
        ("weight_decay", -math.inf, "weight_decay is -inf, but must be between 0.0 and 10.0."),
    ],
)
def test_an_impossible_value_is_refused_with_the_possible_ones(field, value, message):
    with pytest.raises(LoupeError) as refused:
        Recipe(**{field: value})
    assert str(refused.value) == message


@pytest.mark.parametrize("name", [name for name, about in FIELDS.items() if about.metadata["low"] is not None])
def test_limits_themselves_are_possible(name):
    for limit in ("low", "high"):
        value = FIELDS[name].metadata[limit]
        settings = {name: type(FIELDS[name].default)(value)}
        if name == "patience":
            settings["validation_share"] = 0.1  # without which there is nothing to judge by
        if name == "warmup_epochs":
            settings["epochs"] = 10_000  # more than it
        assert getattr(Recipe(**settings), name) == value


def test_a_whole_number_will_do_for_a_number():
    assert Recipe(learning_rate=1).learning_rate == 1


def test_fields_that_need_each_other():
    with pytest.raises(LoupeError, match=r"^warmup_epochs is 5, but must be less than the 5 epochs of the run\.$"):
        Recipe(warmup_epochs=5, epochs=5)
    with pytest.raises(LoupeError, match=r"^keep is 'best', which needs validation images .* validation_share is 0\."):
        Recipe(keep="best")
    with pytest.raises(LoupeError, match=r"^patience is 3, which needs validation images .* validation_share is 0\."):
        Recipe(patience=3)
    with pytest.raises(LoupeError, match=r"augment has 'mirror'"):
        Recipe(augment="mirror")
    with pytest.raises(LoupeError, match=r"^There is no model 'lenet6'\. The nearest in name: lenet, lenet5 and .*\.$"):
        Recipe(model="lenet6")
    with pytest.raises(LoupeError, match=r"^nesterov needs momentum, but momentum is 0\."):
        Recipe(nesterov=True, momentum=0.0)
    assert Recipe(keep="best", validation_share=0.1, nesterov=True)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("epochs", "12", 12),
        ("epochs", " 12 ", 12),
        ("learning_rate", "3e-4", 0.0003),
        ("learning_rate", "1", 1.0),
        ("shuffle", "false", False),
        ("shuffle", "True", True),
        ("model", "mlp", "mlp"),
        ("epochs", 12, 12),
    ],
)
def test_text_becomes_a_value(field, text, value):
    changed = getattr(change(Recipe(), {field: text}), field)
    assert (changed, type(changed)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("epochs", "many", "a whole number"),
        ("epochs", "2.5", "a whole number"),
        ("epochs", "1e2", "a whole number"),
        ("epochs", "", "a whole number"),
        ("epochs", "true", "a whole number"),
        ("learning_rate", "nan", "a number"),
        ("learning_rate", "inf", "a number"),
        ("learning_rate", "1e999", "a number"),
        ("learning_rate", "0,1", "a number"),
        ("shuffle", "1", "true or false"),
        ("shuffle", "yes", "true or false"),
        ("shuffle", "", "true or false"),
    ],
)
def test_text_that_is_no_value_is_refused(field, text, expected):
    with pytest.raises(LoupeError) as refused:
        change(Recipe(), {field: text})
    assert str(refused.value) == f"{field} is {text!r}, but must be {expected}."


def test_text_is_held_to_the_limits_too():
    with pytest.raises(LoupeError, match=r"^epochs is 0, but must be between 1 and 10000\.$"):
        change(Recipe(), {"epochs": "0"})


@pytest.mark.parametrize("field", ["lr", "name", "Epochs", ""])
def test_an_unknown_field_is_answered_with_the_known_ones(field):
    with pytest.raises(LoupeError) as refused:
        change(Recipe(), {"epochs": 1, field: "x"})
    message = str(refused.value)
    assert message.startswith(f"There is no recipe field {field!r}. Known fields: dataset, model, weights, ")
    assert message.endswith(" and device.")


def test_change_leaves_the_rest_and_the_original_alone():
    changed = change(LENET5, {"epochs": "1", "shuffle": "false"})
    assert changed == replace(LENET5, epochs=1, shuffle=False)
    assert LENET5.epochs == 5
    assert change(LENET5, {}) == LENET5


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    assert from_dict(json.loads(json.dumps(RECIPES[name].as_dict()))) == RECIPES[name]


def test_a_written_recipe_is_checked_as_any_other():
    with pytest.raises(LoupeError, match=r"^The recipe has a field 'dropout' that this Loupe does not know\. Known: "):
        from_dict({"dropout": 0.5})
    with pytest.raises(LoupeError, match=r"^epochs is '5', but must be a whole number\.$"):
        from_dict({"epochs": "5"})


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    assert find_recipe("digits-quick") is RECIPES["digits-quick"]
    with pytest.raises(LoupeError) as refused:
        find_recipe("mnist-lenet")
    assert str(refused.value) == (
        f"There is no recipe 'mnist-lenet'. Known recipes: {', '.join([*RECIPES][:-1])} and {[*RECIPES][-1]}."
    )


def test_blobs_mlp_has_the_settings_of_its_tutorial():
    mlp = RECIPES["blobs-mlp"]
    assert (mlp.dataset, mlp.model, mlp.scaling) == ("blobs", "mlp", "unit")
    assert (mlp.optimizer, mlp.learning_rate, mlp.momentum, mlp.schedule) == ("sgd", 0.01, 0.0, "constant")
    assert (mlp.batch_size, mlp.epochs, mlp.drop_last, mlp.shuffle) == (64, 10, False, False)
    assert (mlp.validation_share, mlp.keep, mlp.log_every, mlp.evaluate_every) == (0.0, "last", 1, 14)
    figures = published(mlp)
    assert (figures["train_loss"], figures["train_accuracy"]) == (0.147, 0.991)
    assert (figures["test_loss"], figures["test_accuracy"]) == (0.153, 0.98)
    assert published_in_words(mlp).startswith("98.00% test accuracy, 99.10% training accuracy (the ")


@pytest.mark.slow
def test_blobs_mlp_comes_to_the_figures_that_are_published_for_it():
    fetch("blobs")
    dataset = open_dataset("blobs")
    ends = []
    for seed in range(5):
        chosen = replace(RECIPES["blobs-mlp"], seed=seed, device="cpu")
        training = Training(chosen, dataset, torch.device("cpu"))
        records = [record for record in fit(training, dataset) if record]
        evaluated = [record for record in records if isinstance(record, Evaluated)]
        assert [(record.step, record.split) for record in evaluated] == [(14 * n, "test") for n in range(1, 11)]
        ends.append((training.last.train_accuracy, evaluated[-1].accuracy))
    train_accuracy, test_accuracy = np.median(ends, axis=0)
    assert train_accuracy == pytest.approx(0.991, abs=0.02)
    assert test_accuracy == pytest.approx(0.980, abs=0.02)


def test_mnist_lenet5_has_the_settings_of_its_tutorial():
    assert (LENET5.dataset, LENET5.model, LENET5.scaling) == ("mnist", "lenet5", "unit")
    assert (LENET5.optimizer, LENET5.learning_rate, LENET5.schedule) == ("adam", 0.001, "constant")
    assert (LENET5.batch_size, LENET5.epochs, LENET5.drop_last, LENET5.shuffle) == (64, 5, True, True)
    assert (LENET5.validation_share, LENET5.keep, LENET5.log_every) == (0.0, "last", 100)
    assert (LENET5.weight_decay, LENET5.label_smoothing, LENET5.augment) == (0.0, 0.0, "")
    assert published(LENET5)["test_accuracy"] == 1 - 0.0095


def test_kmnist_lenet_has_the_settings_of_its_tutorial():
    lenet = RECIPES["kmnist-lenet"]
    assert (lenet.dataset, lenet.model, lenet.scaling) == ("kmnist", "lenet", "unit")
    assert (lenet.optimizer, lenet.learning_rate, lenet.schedule) == ("adam", 0.001, "constant")
    assert (lenet.batch_size, lenet.epochs, lenet.drop_last, lenet.shuffle) == (64, 10, False, True)
    assert (lenet.validation_share, lenet.split_seed, lenet.keep) == (0.25, 42, "last")
    figures = published(lenet)
    assert (figures["test_accuracy"], figures["val_accuracy"], figures["train_seconds"]) == (0.95, 0.9823, 160)
    assert tuple(figures["per_class"]) == CATALOGUE["kmnist"].classes


def test_cifar10_blitz_has_the_settings_of_its_tutorial():
    blitz = RECIPES["cifar10-blitz"]
    assert (blitz.dataset, blitz.model, blitz.scaling) == ("cifar10", "cifar-net", "half")
    assert (blitz.optimizer, blitz.learning_rate, blitz.momentum, blitz.nesterov) == ("sgd", 0.01, 0.9, False)
    assert (blitz.batch_size, blitz.epochs, blitz.shuffle, blitz.validation_share) == (4, 2, True, 0.0)
    assert (blitz.log_every, blitz.keep) == (2000, "last")
    figures = published(blitz)
    assert figures["test_accuracy"] == 0.27
    assert tuple(figures["per_class"]) == CATALOGUE["cifar10"].classes
    assert sum(figures["per_class"].values()) / 10 == pytest.approx(0.284)


def test_what_is_published_belongs_to_the_untouched_recipe():
    figures = published(LENET5)
    assert figures
    assert published(change(LENET5, {"device": "cpu", "threads": 3, "precision": "float32"})) == figures
    assert published(change(LENET5, {"epochs": 6})) is None
    assert published(change(LENET5, {"dataset": "fashion-mnist"})) is None


def test_published_figures_are_said_with_their_source():
    said = published_in_words(RECIPES["kmnist-lenet"])
    assert said.startswith(
        "95.00% test accuracy, 98.23% validation accuracy, 99.67% training accuracy, in about 2 min 40 s ("
    )
    assert published_in_words(Recipe()) is None


def test_a_recipe_written_before_there_was_other_augmentation_is_read():
    old = RECIPES["digits-quick"].as_dict()
    del old["augment"]
    assert from_dict(old | {"shift": 1}) == RECIPES["digits-quick"]
    assert from_dict(old | {"shift": 0}).augment == ""


def another(field: str) -> object:
    """Return a possible value that is not the recipe's."""
    value, about = getattr(LENET5, field), FIELDS[field].metadata
    if about["choices"]:
        return next(choice for choice in about["choices"] if choice != value)
    if isinstance(value, bool):
        return not value
    if field == "augment":
        return "flip"
    if isinstance(value, str):
        return "another"
    return about["high"] if value == about["low"] else about["low"]


@pytest.mark.parametrize("field", FIELDS)
def test_published_figures_are_only_for_what_they_were_published_for(field):
    changes = {field: another(field)}
    if field in ("keep", "patience"):
        changes["validation_share"] = 0.1  # without which "best" is not possible
    if field == "freeze":
        changes |= {"freeze": "backbone", "weights": "backbone.pth"}  # new weights are not frozen
    if field == "warmup_epochs":
        changes["epochs"] = 10_000  # more than it
    assert (published(replace(LENET5, **changes)) is not None) == (field in MACHINE_FIELDS)


def test_nothing_is_published_for_a_recipe_of_ones_own():
    assert published(Recipe()) is None
    assert published(RECIPES["digits-quick"]) is None


def test_the_tables_agree():
    from engine.networks import models

    assert list(RECIPES) == [recipe.name for recipe in RECIPES.values()]
    assert list(ABOUT) == list(RECIPES)
    assert set(PUBLISHED) <= set(RECIPES)
    assert set(MODELS) == set(models.MODELS)
    assert {recipe.dataset for recipe in RECIPES.values()} <= {*CATALOGUE, ""}
    assert set(FIELDS) >= MACHINE_FIELDS
    assert all("source" in figures for figures in PUBLISHED.values())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_explained(name):
    about = FIELDS[name].metadata
    assert about["help"].endswith(".")
    assert about["help"][0].isupper()
    default = FIELDS[name].default
    if about["choices"]:
        assert default in about["choices"]
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        assert about["low"] <= default <= about["high"]
