"""Compare Loupe's training loop with the loop that tutorials teach, on the same model and data, in one process.

    python -m benchmarks.train_speed [--recipe mnist-lenet5] [--steps 200] [--repeats 7]

The plain loop is a DataLoader over torchvision's MNIST with ToTensor, the same model, batch and optimiser, float32,
as in PyTorch's own tutorials. The two run in alternation; each repeat gives one ratio of images a second. Needs the
data set: ``LOUPE_DATA`` holding ``MNIST/raw``, or the internet.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator

from engine.runs import WORKER_ENVIRONMENT

os.environ.update(WORKER_ENVIRONMENT)  # before torch is imported, as for a run; both loops have it

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from engine import machine
from engine.catalogue import get
from engine.dataset import open_dataset
from engine.models import build_model
from engine.paths import data_root
from engine.recipes import Recipe, find_recipe
from engine.training import Training, fit

WARM_UP_STEPS = 10


def plain_loop(recipe: Recipe) -> Iterator[None]:
    """Train as the tutorials do, yielding after each step."""
    torch.manual_seed(recipe.seed)
    loader = DataLoader(
        MNIST(data_root(), train=True, transform=ToTensor()),
        batch_size=recipe.batch_size,
        shuffle=recipe.shuffle,
        drop_last=recipe.drop_last,
    )
    model = build_model(recipe.model, (28, 28, 1), 10)
    replace_whole_convolutions(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    criterion = nn.CrossEntropyLoss()
    running_loss, running_correct = 0.0, 0
    for images, labels in loader:
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        running_correct += (logits.argmax(1) == labels).sum().item()
        yield None


def replace_whole_convolutions(model: nn.Module) -> None:
    """Put torch's own convolution where Loupe's model has a faster equal: the tutorial does not have that."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Conv2d):
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding)
            plain.load_state_dict(layer.state_dict())
            setattr(model, name, plain)


def images_per_second(steps: Iterator, count: int, batch_size: int) -> float:
    for _ in range(WARM_UP_STEPS):
        next(steps)
    began = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * batch_size / (time.perf_counter() - began)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8,.2f}  ({min(values):,.2f} to {max(values):,.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist-lenet5", choices=["mnist-lenet5"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    recipe = machine.resolve(find_recipe(args.recipe))
    for _ in get(recipe.dataset):
        pass
    dataset = open_dataset(recipe.dataset)
    torch.set_num_threads(recipe.threads)
    plain, ours = [], []
    for _ in range(args.repeats):
        plain.append(images_per_second(plain_loop(recipe), args.steps, recipe.batch_size))
        training = Training(recipe, dataset, torch.device(recipe.device))
        ours.append(images_per_second(fit(training, dataset), args.steps, recipe.batch_size))
    ratios = [fast / slow for fast, slow in zip(ours, plain, strict=True)]

    print(
        f"{platform.processor() or platform.machine()}, {recipe.threads} threads, {recipe.precision}, {recipe.device}"
    )
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{recipe.name}, {args.steps} steps of {recipe.batch_size}, n = {args.repeats}, median (lowest to highest)")
    print(f"plain loop, images/s   {spread(plain)}")
    print(f"Loupe, images/s        {spread(ours)}")
    print(f"ratio                  {spread(ratios)}")


if __name__ == "__main__":
    main()
