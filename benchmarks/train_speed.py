"""Compare Loupe's training loop with the loop that tutorials teach, and with the most that the model allows.

    python -m benchmarks.train_speed [--recipe mnist-lenet5] [--dataset NAME] [--seconds 4] [--repeats 7]

Three loops over the same data, model, batch and optimiser take turns in one process:

- plain: as the tutorials write it: a DataLoader over single pictures with ``ToTensor`` (and ``Normalize`` where the
  recipe scales), float32, torch's own layers, memory format and number of threads;
- limit: Loupe's model, precision, threads and memory format on one constant batch in memory: no data, no figures;
- Loupe: the training loop as a run executes it.

Each repeat gives one ratio to each of the first two. ``--dataset`` takes a recipe to other prepared data of the same
shape, where its own is not at hand: the pace does not depend on what the pictures show.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.environment import describe_machine, start_as_a_run_does
from engine.data.dataset import Dataset as StoredDataset
from engine.data.dataset import open_dataset
from engine.data.download_job import get_dataset
from engine.networks.models import build_model
from engine.recipes.recipe import RECIPES, Recipe, change, find_recipe
from engine.training import tuning
from engine.training.loop import Training, fit

WARM_UP_SECONDS = 0.5


class Pictures(Dataset):
    """Pictures one at a time, each made and transformed as torchvision's MNIST and CIFAR10 do."""

    def __init__(self, stored: StoredDataset, transform):
        split = stored.splits["train"]
        self.images = split.images.squeeze(3) if stored.image_shape[2] == 1 else split.images
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def plain_loop(recipe: Recipe, stored: StoredDataset) -> Iterator[nn.Module]:
    """Train as the tutorials do, for ever, yielding the model after each step."""
    torch.manual_seed(recipe.seed)
    steps: list = [transforms.ToTensor()]
    if recipe.scaling == "half":
        steps.append(transforms.Normalize((0.5,) * stored.image_shape[2], (0.5,) * stored.image_shape[2]))
    loader = DataLoader(
        Pictures(stored, transforms.Compose(steps)),
        batch_size=recipe.batch_size,
        shuffle=recipe.shuffle,
        drop_last=recipe.drop_last,
    )
    model = build_model(recipe.model, stored.image_shape, len(stored.classes))
    with_plain_layers(model)
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    criterion = nn.CrossEntropyLoss()
    running_loss, running_correct = 0.0, 0
    while True:
        for images, labels in loader:
            logits = model(images)
            loss = criterion(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            running_correct += (logits.argmax(1) == labels).sum().item()
            yield model


def with_plain_layers(model: nn.Module) -> None:
    """Put torch's own layers where Loupe's model has faster equals: the tutorial does not have those."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:
            plain: nn.Module = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size)
            plain.load_state_dict(layer.state_dict())
            setattr(model, name, plain)


def limit_loop(recipe: Recipe, stored: StoredDataset) -> Iterator[None]:
    """Make the same step on one constant batch, yielding after each."""
    training = Training(recipe, stored, torch.device(recipe.device))
    split = stored.splits["train"]
    images = torch.from_numpy(split.images[: recipe.batch_size].copy()).to(recipe.device)
    pixels = training.in_memory_order(training.preprocess(images))
    labels = torch.from_numpy(split.labels[: recipe.batch_size]).to(recipe.device)
    model, optimizer = training.model.train(), training.optimizer
    while True:
        with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            logits = model(pixels)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield None


def loupe_loop(recipe: Recipe, stored: StoredDataset) -> Iterator:
    return fit(Training(change(recipe, {"epochs": 1000}), stored, torch.device(recipe.device)), stored)


def images_per_second(steps: Iterator, seconds: float, batch_size: int) -> float:
    _run(steps, WARM_UP_SECONDS)
    began = time.perf_counter()
    count = _run(steps, seconds)
    return count * batch_size / (time.perf_counter() - began)


def _run(steps: Iterator, seconds: float) -> int:
    until = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < until:
        next(steps)
        count += 1
    return count


def spread(values: list[float], form: str = ",.2f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist-lenet5", choices=[n for n in RECIPES if n != "blobs-mlp"])
    parser.add_argument("--dataset", help="prepared data of the same shape, in place of the recipe's")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loop in each repeat")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    start_as_a_run_does()

    recipe = find_recipe(args.recipe)
    if args.dataset:
        recipe = change(recipe, {"dataset": args.dataset})
    for _ in get_dataset(recipe.dataset):
        pass
    stored = open_dataset(recipe.dataset)
    default_threads = torch.get_num_threads()
    recipe = tuning.resolve(tuning.choose_device(recipe), stored)
    paces: dict[str, list[float]] = {"plain": [], "limit": [], "Loupe": []}
    for _ in range(args.repeats):
        for name, loop in (("plain", plain_loop), ("limit", limit_loop), ("Loupe", loupe_loop)):
            plainly = replace(recipe, threads=default_threads, convolutions="onednn")
            tuning.apply_settings(plainly if name == "plain" else recipe)
            paces[name].append(images_per_second(loop(recipe, stored), args.seconds, recipe.batch_size))

    print(describe_machine())
    print(
        f"{recipe.name}, batch {recipe.batch_size}; Loupe: {recipe.threads} threads, {recipe.precision}, "
        f"{recipe.convolutions} convolutions, {recipe.device}; n = {args.repeats}, median (lowest to highest)"
    )
    for name, values in paces.items():
        print(f"{name}, images/s".ljust(22), spread(values, ",.0f"))
    for name in ("plain", "limit"):
        ratios = [ours / theirs for ours, theirs in zip(paces["Loupe"], paces[name], strict=True)]
        print(f"Loupe / {name}".ljust(22), spread(ratios))


if __name__ == "__main__":
    main()
