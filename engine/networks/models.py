"""The networks, by name. Each adapts to the images and classes of a dataset, or says why it cannot."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.base.errors import LoupeError
from engine.recipes.backbones import BACKBONES
from engine.recipes.recipe import check_model


def build_model(name: str, sample_shape: tuple[int, ...], num_classes: int, head: str = "linear") -> nn.Module:
    """Build a network with fresh weights from torch's random state.

    sample_shape: height, width, channels of an image, or the features of a row. head: as recipes name it. The network
    maps float (batch, channels, height, width), or (batch, features), to logits (batch, num_classes).
    """
    model = _with_linear_head(name, sample_shape, num_classes)
    if head == "hidden":
        model.set_submodule(head_path(model), HiddenHead(feature_count(model), num_classes))
    return model


def _with_linear_head(name: str, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    check_model(name)
    if len(sample_shape) == 3:
        height, width, channels = sample_shape
        if name in BACKBONES:
            return _torchvision_model(name, num_classes)
        return MODELS[name]((height, width, channels), num_classes)
    (features,) = sample_shape
    if name != "mlp":
        raise LoupeError(
            f"{name} needs images, but this dataset is a table of {features} numbers a row. Choose the model mlp."
        )
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, num_classes))


def _torchvision_model(name: str, num_classes: int) -> nn.Module:
    """Build one of torchvision's networks, for three channels, whose last linear layer tells the classes apart."""
    from torchvision import models  # takes seconds

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Without the classifiers at half its depth, which are for training on millions of images; their weights expect
        # pixels from -1 to 1, and this makes those of ImageNet's scaling.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    elif name.startswith("vit_"):
        options = {"image_size": BACKBONES[name].size}
    model = models.get_model(name, num_classes=num_classes, **options)
    if name.startswith("squeezenet"):
        # Its own head makes the average of each class over the image, cut off at 0 so that a class may never learn.
        pooled = (nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
        model.classifier = nn.Sequential(*pooled)
    return model


class HiddenHead(nn.Sequential):
    """The head of the transfer-learning tutorial: 512 units with ReLU and dropout, then the classes."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, num_classes))


def head_path(model: nn.Module) -> str:
    """Return the path of the head: the module that tells the classes apart by the features that all else makes."""
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    hidden = [path for path, module in model.named_modules() if isinstance(module, HiddenHead)]
    return (hidden or linear)[-1]


def feature_count(model: nn.Module) -> int:
    """Return how many features a network's head is given."""
    head = model.get_submodule(head_path(model))
    return next(module.in_features for module in head.modules() if isinstance(module, nn.Linear))


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the network without its head, which makes features, float (batch, features); it shares all weights."""
    backbone = sharing_copy(model)
    backbone.set_submodule(head_path(model), nn.Identity())
    return backbone


def sharing_copy(model: nn.Module) -> nn.Module:
    """Return a network of modules of its own, to change or to put hooks on, with the very weights and buffers."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


class WholeConv2d(nn.Conv2d):
    """A convolution over inputs of exactly its kernel's size, computed as the matrix product that it then is.

    Same weights, same function; on a CPU a third of the time of oneDNN's convolution at this shape.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose output is multiplied by a fixed number."""

    def __init__(self, in_features: int, out_features: int, factor: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.factor


def lenet5(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling in place of tanh and subsampling."""
    height, width, channels = image_shape
    _need_size("lenet5", 28, image_shape)
    rows, columns = ((side // 2 - 4) // 2 - 4 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        (WholeConv2d if rows == columns == 1 else nn.Conv2d)(16, 120, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(120 * rows * columns, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )


def lenet(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The wider LeNet of the KMNIST tutorial: 20 and 50 filters without padding, then 500 units."""
    _need_size("lenet", 16, image_shape)
    return nn.Sequential(
        nn.Conv2d(image_shape[2], 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * _pixels_left(image_shape), 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    )


def cifar_net(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network of PyTorch's 60-minute blitz for CIFAR-10: LeNet-5's widths without padding."""
    _need_size("cifar-net", 16, image_shape)
    return nn.Sequential(
        nn.Conv2d(image_shape[2], 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * _pixels_left(image_shape), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )


def convnet_fast(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Four convolutions with batch norm, the first 5x5, and two poolings early on: for digits, quick to learn."""
    _need_size("convnet-fast", 20, image_shape)
    rows, columns = ((side - 4) // 2 // 2 - 2 for side in image_shape[:2])
    return nn.Sequential(
        *_block(image_shape[2], 16, kernel=5, padding=0, pool=True),
        *_block(16, 32),
        *_block(32, 64, pool=True),
        *_block(64, 64, padding=0),
        nn.Flatten(),
        nn.Linear(64 * rows * columns, num_classes),
    )


def resnet_fast(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A small residual network after the ResNet-9 of speed contests, for a processor: a quarter of its width.

    Most of the work is done where pooling has left a sixteenth of the pixels. Takes any size.
    """
    height, width, channels = image_shape
    layers: list[nn.Module] = []
    for before, after, pools, residual in (
        (channels, 16, True, False),
        (16, 32, True, False),
        (32, 64, False, True),
        (64, 128, True, True),
    ):
        pool = pools and min(height, width) >= 4
        layers += _block(before, after, pool=pool)
        if residual:
            layers.append(Residual(*_block(after, after)))
        if pool:
            height, width = height // 2, width // 2
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), ScaledLinear(128, num_classes, 0.125))


def convnet(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Three 3x3 convolution blocks with batch norm, then the average over the image: takes any size."""
    height, width, channels = image_shape
    widths = (channels, 32, 64, 128)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


def mlp(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A multilayer perceptron: one hidden layer of 128 units over all pixels."""
    height, width, channels = image_shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(height * width * channels, 128), nn.ReLU(), nn.Linear(128, num_classes)
    )


def _need_size(name: str, smallest: int, image_shape: tuple[int, int, int]) -> None:
    height, width, _ = image_shape
    if min(height, width) < smallest:
        raise LoupeError(
            f"{name} needs images of at least {smallest} x {smallest} pixels, but these are {width} x {height}. "
            "Choose the model convnet or mlp, which take any size."
        )


def _pixels_left(image_shape: tuple[int, int, int]) -> int:
    """Count what two rounds leave of an image's pixels, each losing 4 rows and columns and then pooling by 2."""
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in image_shape[:2])
    return rows * columns


def _block(before: int, after: int, kernel: int = 3, padding: int = 1, pool: bool = False) -> list[nn.Module]:
    # Pooling comes before batch norm and ReLU, which then work on a quarter of the pixels: training on two cores
    # measured 4 % (a residual network) and 12 % (a plain one) faster than with pooling last.
    return [
        nn.Conv2d(before, after, kernel, padding=padding, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


Builder = Callable[[tuple[int, int, int], int], nn.Module]
MODELS: dict[str, Builder] = {
    "convnet": convnet,
    "convnet-fast": convnet_fast,
    "resnet-fast": resnet_fast,
    "lenet5": lenet5,
    "lenet": lenet,
    "cifar-net": cifar_net,
    "mlp": mlp,
}


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def layer_table(model: nn.Module, sample_shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """List a network's layers in the order in which they run, and leave the network as it was.

    sample_shape: height, width and channels of an image, or the features of a row. The rows returned have ``layer``
    (path and kind in words), ``output`` (its shape without the batch) and ``parameters``. A layer that runs twice has
    two rows, and its parameters count in the first; one that does not run has none.
    """
    rows: list[dict[str, Any]] = []
    counted: set[Tensor] = set()
    paths = {module: path for path, module in model.named_modules()}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        new = set(module.parameters()) - counted
        counted.update(new)
        path, words = paths[module], _in_words(module)
        rows.append(
            {
                "layer": f"{path}: {words}" if path else words,
                "output": tuple(output.shape[1:]),
                "parameters": sum(parameter.numel() for parameter in new),
            }
        )

    zeros = torch.zeros(1, *sample_shape)
    if len(sample_shape) == 3:
        zeros = zeros.permute(0, 3, 1, 2)
    if (parameter := next(model.parameters(), None)) is not None:
        zeros = zeros.to(parameter)
    # A network in training may hold layers that are not, such as a frozen batch norm: each gets its own mode back.
    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(note) for module in model.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            model.eval()(zeros)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return rows


def _in_words(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d():
            rows, columns = layer.kernel_size
            return f"convolution {layer.out_channels}@{rows}x{columns}"
        case ScaledLinear():
            return f"linear {layer.out_features}, times {layer.factor:g}"
        case nn.Linear():
            return f"linear {layer.out_features}"
        case nn.BatchNorm2d():
            return "batch norm"
        case nn.MaxPool2d():
            return f"max pooling {layer.kernel_size}"
        case nn.AdaptiveMaxPool2d():
            return "largest of the image"
        case nn.AdaptiveAvgPool2d():
            return "average of the image"
        case nn.Dropout():
            return f"dropout {layer.p:g}"
        case nn.Flatten():
            return "flatten"
        case _:
            return type(layer).__name__
