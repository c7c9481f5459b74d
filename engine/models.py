"""The networks, by name. Each adapts to the images and classes of a dataset, or says why it cannot."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from engine.errors import LoupeError
from engine.words import listed


def build_model(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build a network with fresh weights from torch's random state.

    image_shape: height, width, channels. The network maps float (batch, channels, height, width) to
    logits (batch, num_classes).
    """
    if name not in MODELS:
        raise LoupeError(f"There is no model {name!r}. Known models: {listed(MODELS)}.")
    return MODELS[name](image_shape, num_classes)


class WholeConv2d(nn.Conv2d):
    """A convolution over inputs of exactly its kernel's size, computed as the matrix product that it then is.

    Same weights, same function; on a CPU a third of the time of oneDNN's convolution at this shape.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


def lenet5(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling in place of tanh and subsampling."""
    height, width, channels = image_shape
    rows, columns = ((side // 2 - 4) // 2 - 4 for side in (height, width))
    if rows < 1 or columns < 1:
        raise LoupeError(
            f"lenet5 needs images of at least 28 x 28 pixels, but these are {width} x {height}. "
            "Choose the model convnet or mlp, which take any size."
        )
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


Builder = Callable[[tuple[int, int, int], int], nn.Module]
MODELS: dict[str, Builder] = {"convnet": convnet, "lenet5": lenet5, "mlp": mlp}


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
