"""Runs that are trained in the process of the tests."""

import torch

from engine.data.dataset import Dataset
from engine.networks.model_file import save_model
from engine.recipes.recipe import Recipe
from engine.runs.run import Run, create_run
from engine.training.loop import Training, fit


def train_run(dataset: Dataset, **settings) -> tuple[Run, Training]:
    """Make a run with weights as its process would, but here."""
    defaults = {"model": "mlp", "epochs": 2, "precision": "float32", "device": "cpu", "validation_share": 0.1}
    run = create_run(Recipe(dataset=dataset.name, **defaults | settings))
    training = Training(run.read_recipe(), dataset, torch.device("cpu"))
    for _ in fit(training, dataset):
        pass
    save_model(run.weights, training.kept_weights(), run.read_recipe(), training.preprocessing)
    return run, training
