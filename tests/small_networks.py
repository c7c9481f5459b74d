"""Small networks that have seen some images, and what their last layers are given."""

import numpy as np
import torch
from torch import nn

from engine.data.dataset import Dataset
from engine.inference.classifier import Classifier
from engine.networks.features import Extractor
from engine.networks.models import backbone_of, build_model, feature_count
from engine.networks.preprocessing import build_preprocess, preprocessing_for


def after_some_images(model: nn.Module, side: int = 24, channels: int = 3) -> nn.Module:
    """Give batch norm figures of its own."""
    with torch.no_grad():
        for _ in range(5):
            model.train()(torch.randn(16, channels, side, side))
    return model


def network(seed: int = 0, num_classes: int = 3, head: str = "linear") -> nn.Module:
    """A convnet for colour images that has seen some: its batch norm has figures of its own."""
    torch.manual_seed(seed)
    model = build_model("convnet", (12, 10, 3), num_classes, head)
    with torch.no_grad():
        model(torch.rand(20, 3, 12, 10))
    return model


def extractor_of(
    dataset: Dataset,
    model: nn.Module | None = None,
    *,
    scaling: str = "unit",
    size: tuple[int, int] | None = None,
    precision: str = "float32",
) -> Extractor:
    model = model or network()
    preprocess = build_preprocess(preprocessing_for(dataset, scaling, size))
    return Extractor(backbone_of(model), feature_count(model), preprocess, precision)


def own_features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """What the head of a network, its last layer, is given for some images."""
    given: list[torch.Tensor] = []
    hook = classifier.model[-1].register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    list(classifier.probabilities(images))
    hook.remove()
    return torch.cat(given).numpy()
