import os
from dataclasses import replace

import pytest
from trained_runs import train_run

from engine.advice.advice_job import KEPT_SECONDS, ask, find_answer
from engine.data.dataset import Dataset, Split, save_dataset
from engine.recipes.recipe import Recipe


@pytest.fixture(autouse=True)
def not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked waits for its process: these tests are about where it is found."""
    monkeypatch.setattr("engine.base.jobs.start_in_background", lambda *about: None)


def test_what_was_asked_is_found_by_the_recipe_alone(colours: Dataset) -> None:
    recipe = Recipe(dataset="colours", model="mlp")
    assert find_answer("rehearse", recipe) is None
    ask("rehearse", recipe)
    assert find_answer("rehearse", replace(recipe))
    assert find_answer("find-rate", recipe) is None
    assert find_answer("rehearse", replace(recipe, learning_rate=0.5)) is None
    ask("find-rate", recipe)
    assert find_answer("find-rate", replace(recipe, learning_rate=0.5)), "it tries them all"


def test_an_answer_is_not_that_of_another_dataset_of_the_same_name(colours: Dataset) -> None:
    recipe = Recipe(dataset="colours", model="mlp")
    ask("rehearse", recipe)
    split = colours.splits["train"]
    save_dataset("colours", ("a", "b", "c"), {"train": Split(split.images, split.labels)}, "the tests")
    assert find_answer("rehearse", recipe) is None


def test_an_answer_is_not_that_of_other_weights(colours: Dataset) -> None:
    run = train_run(colours)[0]
    recipe = Recipe(dataset="colours", model="mlp", weights=run.id)
    ask("rehearse", recipe)
    assert find_answer("rehearse", recipe)
    os.utime(run.weights, (1, 1))
    assert find_answer("rehearse", recipe) is None


def test_an_old_answer_is_not_found(colours: Dataset) -> None:
    recipe = Recipe(dataset="colours", model="mlp")
    ask("rehearse", recipe)
    job = find_answer("rehearse", recipe)
    assert job
    began = int(job.folder.name.rpartition("~")[2]) - KEPT_SECONDS * 1_000_000_000
    job.folder.rename(job.folder.with_name(f"{job.folder.name.partition('~')[0]}~{began}"))
    assert find_answer("rehearse", recipe) is None
