import numpy as np
import pytest
import torch

from engine.base.errors import LoupeError
from engine.data.dataset import Dataset, Split, open_dataset, save_dataset
from engine.data.splits import require_all_classes, train_validation_indices
from engine.recipes.recipe import Recipe


@pytest.mark.parametrize(("count", "share", "seed"), [(1437, 0.1, 42), (60_000, 1 / 6, 0), (10, 0.25, 7)])
def test_hold_back_draws_as_random_split(make_colours, count: int, share: float, seed: int) -> None:
    dataset = make_colours(train=count, height=1, width=1)
    train_indices, val_indices = train_validation_indices(dataset, Recipe(validation_share=share, split_seed=seed))
    held = round(count * share)
    expected = torch.utils.data.random_split(
        range(count), [count - held, held], generator=torch.Generator().manual_seed(seed)
    )
    assert train_indices.tolist() == list(expected[0].indices)
    assert val_indices.tolist() == list(expected[1].indices)


def test_nothing_is_held_back_without_a_share(make_colours) -> None:
    train_indices, val_indices = train_validation_indices(make_colours(train=5), Recipe())
    assert train_indices.tolist() == [0, 1, 2, 3, 4]
    assert val_indices.tolist() == []


@pytest.mark.parametrize(("count", "share"), [(1437, 0.0001), (2, 0.9)])
def test_a_share_that_leaves_nothing_is_refused(make_colours, count: int, share: float) -> None:
    with pytest.raises(LoupeError, match=rf"validation_share is {share:g}, .* {count} training images"):
        train_validation_indices(make_colours(train=count, height=1, width=1), Recipe(validation_share=share))


def lacking(train: list[int], **others: list[int]) -> Dataset:
    """Make a dataset of the classes a, b and c with these labels in its splits."""

    def drawn(labels: list[int]) -> Split:
        return Split(np.random.randint(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8), np.array(labels))

    save_dataset("lacking", ("a", "b", "c"), {name: drawn(ls) for name, ls in ({"train": train} | others).items()}, "")
    return open_dataset("lacking")


def check(recipe: Recipe, dataset: Dataset) -> None:
    require_all_classes(dataset, recipe, *train_validation_indices(dataset, recipe))


@pytest.mark.parametrize(("split", "what"), [("test", "3 test images"), ("val", "3 validation images")])
def test_a_class_that_is_asked_for_but_not_taught_is_refused(split: str, what: str) -> None:
    with pytest.raises(LoupeError) as refused:
        check(Recipe(), lacking([0, 1] * 10, **{split: [0, 2, 1, 2, 2]}))
    assert str(refused.value) == (
        f"The class 'c' has {what} but none to train on, so it cannot be learned. "
        "Add training images of it, or import the dataset without it."
    )


def test_a_class_whose_images_are_all_held_back_is_refused() -> None:
    dataset = lacking([2] + [0, 1] * 10, test=[0, 1, 2])
    refused, taught = 0, 0
    for seed in range(20):
        chosen = Recipe(validation_share=0.5, split_seed=seed)
        if 0 in train_validation_indices(dataset, chosen)[0]:
            taught += 1
            check(chosen, dataset)
            continue
        refused += 1
        with pytest.raises(LoupeError) as raised:
            check(chosen, dataset)
        assert str(raised.value) == (
            "The class 'c' has 1 validation image but none to train on, so it cannot be learned. "
            "All its images were held back: lower validation_share, or set another split_seed."
        )
    assert refused and taught
