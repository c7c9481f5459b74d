"""The networks to choose from, in words and as a table."""

import streamlit as st

from engine.base.paths import weights_folder
from engine.base.text import pluralize
from engine.data.catalogue import kind_of
from engine.data.dataset import is_prepared, open_dataset
from engine.recipes.backbones import BACKBONES, rank_for_images
from engine.recipes.recipe import MODELS, Recipe
from engine.recipes.weights import ImageNetWeights
from engine.runs.run import starting_weights


def about_model(recipe: Recipe) -> str:
    """Describe a recipe's network, and what becomes of the images on their way to it."""
    if recipe.model in MODELS:
        return MODELS[recipe.model]
    backbone = BACKBONES[recipe.model]
    said = f"torchvision's {backbone.name}: {backbone.in_words()}."
    if starting_weights(recipe) == ImageNetWeights() and (side := _side(recipe)) and 2 * side < backbone.size:
        said += (
            f" It sees {side} x {side} pixels here; its weights were trained with {backbone.size} x {backbone.size}: "
            "a larger size makes better features, and takes longer."
        )
    return said


def about_features(recipe: Recipe) -> str:
    """Say what becomes of a frozen backbone's features: whether they are computed once, or in each epoch."""
    if recipe.freeze == "none":
        return ""
    if recipe.freeze != "backbone":
        first = pluralize(recipe.frozen_epochs, "epoch")
        once = "each image goes through it once" if recipe.keeps_features else "changed images go through it each time"
        return f"The backbone is frozen for {first}, in which {once}. After that it is trained too, which takes longer."
    if not recipe.augment:
        return (
            "Frozen and without augmentation, the backbone sees each image once. Its features are kept: other "
            "trainings on them take seconds."
        )
    if recipe.views:
        return (
            f"The backbone sees {pluralize(recipe.views, 'changed version')} of each training image once, and the "
            "epochs take them in turn. Their features are kept."
        )
    return (
        "With augmentation and views 0 the frozen backbone sees newly changed images in each epoch, which takes long "
        "each time. With views 5, say, it sees five changed versions of each image once, and their features are kept."
    )


def _side(recipe: Recipe) -> int | None:
    """Return the shorter side of what a network of torchvision's sees, in pixels; None while that is not known."""
    if recipe.size or not is_prepared(recipe.dataset):
        return recipe.size or None
    return max(min(open_dataset(recipe.dataset).image_shape[:2]), BACKBONES[recipe.model].smallest)


def compare_networks(recipe: Recipe) -> None:
    """Offer a table of torchvision's networks, those first that suit the dataset; a row that is selected is taken."""
    if recipe.model == "mlp" and kind_of(recipe.dataset) == "table":
        return
    folded = st.expander("Compare torchvision's networks", on_change="rerun", key="networks")
    if not folded.open:
        return
    with folded:
        rows = rank_for_images(
            open_dataset(recipe.dataset).image_shape if is_prepared(recipe.dataset) else (224, 224, 3)
        )
        key = f"{recipe.name}:networks"
        st.dataframe(
            [
                {
                    "Network": each.name,
                    "Accuracy": 100 * each.accuracy,
                    "Work": each.gflops,
                    "Parameters": each.parameters / 1e6,
                    "Image": each.size,
                    "Least": each.smallest,
                    "Weights": each.megabytes,
                    "Here": (weights_folder() / each.file).exists(),
                }
                for each in rows
            ],
            hide_index=True,
            height=388,
            on_select=lambda: _take(recipe, key, [each.name for each in rows]),
            selection_mode="single-row",
            key=key,
            placeholder="",
            column_config=COLUMNS,
        )
        st.caption(
            "Accuracy and sizes are torchvision's own figures for its weights. First those that no other beats in both "
            "work and accuracy, from the lightest on. Select a row to take that network."
        )


def _take(recipe: Recipe, key: str, names: list[str]) -> None:
    chosen = st.session_state[key].selection.rows
    if chosen:
        st.session_state[f"{recipe.name}:model"] = names[chosen[0]]


_number = st.column_config.NumberColumn
COLUMNS = {
    "Accuracy": _number("ImageNet", format="%.1f%%", help="Of ImageNet's 50,000 validation images, 1,000 classes."),
    "Work": _number("GFLOPs", format="%.2f", help="Work for one image, in 10^9 multiplications with an addition."),
    "Parameters": _number("Parameters", format="%.1f M", help="In millions, with the head for 1,000 classes."),
    "Image": _number("Image", format="%d px", help="Side of the images that the weights are best at."),
    "Least": _number("At least", format="%d px", help="Side of the smallest images that it takes."),
    "Weights": _number("Weights", format="%.0f MiB", help="What is downloaded the first time."),
    "Here": st.column_config.CheckboxColumn("Here", help="Whether its weights are on this machine."),
}
