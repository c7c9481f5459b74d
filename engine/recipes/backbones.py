"""torchvision's networks for classification, and what is known of each without importing torchvision.

The figures are torchvision's own: ``python -m engine.recipes.backbones`` writes them from its weights' metadata into
``backbones.csv``, and a test compares the two.
"""

import csv
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

TABLE = Path(__file__).with_name("backbones.csv")


@dataclass(frozen=True)
class Backbone:
    """A network and its default weights, which were trained on ImageNet's 1,000 classes.

    parameters: with the head for those classes. gflops: work for one image, in 10^9 multiplications with an addition,
    at size. size: side of the square images, in pixels, that the weights are best at. smallest: the least side that
    torchvision names; fixed: it takes images of its size only. megabytes: of the file of weights (2^20 bytes).
    accuracy: published, on ImageNet's validation images. scaling: what its weights expect, as recipes call it. file:
    what the file of weights is called.
    """

    name: str
    parameters: int
    gflops: float
    megabytes: float
    size: int
    smallest: int
    fixed: bool
    accuracy: float
    scaling: str
    file: str

    def in_words(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} million parameters, {self.size} x {self.size} pixels, {self.gflops:g} GFLOPs "
            f"an image, {self.accuracy:.1%} on ImageNet"
        )


def _read() -> dict[str, Backbone]:
    with TABLE.open(newline="") as file:
        rows = [
            {about.name: _value(about.type, row[about.name]) for about in fields(Backbone)}
            for row in csv.DictReader(file)
        ]
    return {row["name"]: Backbone(**row) for row in rows}


def _value(kind, text: str):
    return text == "True" if kind is bool else kind(text)


def rank_for_images(image_shape: tuple[int, ...]) -> list[Backbone]:
    """List all, those first that suit images of a shape (height, width, channels).

    First those that take images as small, in two parts: those that no other beats in both work and accuracy, and the
    others. Each from the lightest on.
    """
    side = min(image_shape[:2])

    def rank(backbone: Backbone) -> tuple[bool, bool, float]:
        beaten = any(
            other.gflops <= backbone.gflops and other.accuracy > backbone.accuracy for other in BACKBONES.values()
        )
        return side < backbone.smallest, beaten, backbone.gflops

    return sorted(BACKBONES.values(), key=rank)


def from_torchvision() -> Iterable[Backbone]:
    """Read the table off torchvision; takes seconds."""
    from torchvision import models

    for name in models.list_models(module=models):
        weights = models.get_model_weights(name).DEFAULT
        seen, about = weights.transforms(), weights.meta
        (size,) = seen.crop_size
        fixed = name.startswith(("vit_", "maxvit_"))
        yield Backbone(
            name=name,
            parameters=about["num_params"],
            gflops=about["_ops"],
            megabytes=about["_file_size"],
            size=size,
            smallest=size if fixed else max(about["min_size"]),
            fixed=fixed,
            accuracy=round(about["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
            scaling={0.5: "half", 0.485: "imagenet"}[seen.mean[0]],
            file=weights.url.rsplit("/", 1)[1],
        )


if __name__ == "__main__":
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [about.name for about in fields(Backbone)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(backbone) for backbone in from_torchvision())
    sys.exit()

BACKBONES = _read()
