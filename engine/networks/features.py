"""What a frozen backbone makes of a dataset's images: computed once, and kept beside the dataset for all who ask."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from engine.base.errors import LoupeError
from engine.base.paths import writing_folder
from engine.data.dataset import Dataset, Split
from engine.networks.augment import augment
from engine.networks.inference import as_tensor, batch_size_for
from engine.recipes.augmentation import Augmentation

FORMAT = 1
# Beside one dataset so much is kept; what was not used for longest goes first.
KEPT_BYTES = 16 << 30


@dataclass(frozen=True)
class View:
    """One changed version of every image: the random numbers of an image follow from these and its place alone."""

    augmentation: Augmentation
    seed: int
    number: int

    def of(self, images: Tensor, indices: np.ndarray) -> Tensor:
        """Change stored images, uint8 (count, height, width, channels), each as its index says."""
        return torch.cat(
            [
                augment(image[np.newaxis], self.augmentation, self._random(index))
                for image, index in zip(images, indices.tolist(), strict=True)
            ]
        )

    def _random(self, index: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed} view {self.number} {index}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Extractor:
    """A backbone that is not going to change, with its preprocessing: images in, features out.

    width: how many features an image has. precision: ``float32``, or ``bfloat16`` for the backbone's computations;
    features are float32 either way.
    """

    def __init__(self, backbone: nn.Module, width: int, preprocess: nn.Module, precision: str):
        self.backbone = backbone.eval()
        self.width = width
        self.preprocess = preprocess
        self.precision = precision
        self.device = next(backbone.parameters()).device

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Return features, float32 (batch, features), of stored images."""
        inputs = self.preprocess(images.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.backbone(inputs).float()

    @cached_property
    def digest(self) -> str:
        """What the features depend on, apart from the images: weights, preprocessing, precision."""
        size = getattr(self.preprocess, "size", ())
        padded = " pad" if getattr(self.preprocess, "fit", "crop") == "pad" else ""
        digest = hashlib.blake2b(f"{self.precision} {self.device.type} {size}{padded}".encode(), digest_size=16)
        for part in (self.preprocess, self.backbone):
            for name, value in part.state_dict().items():
                digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


class Features:
    """The features of one split, float32 (count, features), as a file that fills up as they are asked for.

    A second file has a byte for each image, 1 once its row is there: a process that is killed loses what it was at,
    and no more. Another backbone, other images or another view have files of their own; labels do not matter.
    """

    def __init__(self, dataset: Dataset, split: str, extractor: Extractor, view: View | None = None):
        self.stored: Split = dataset.splits[split]
        self.extractor = extractor
        self.view = view
        self.width = extractor.width
        changed = f"{view.augmentation} {view.seed} {view.number}" if view else ""
        named = json.dumps([FORMAT, dataset.images_fingerprint, split, extractor.digest, self.width, changed])
        name = hashlib.blake2b(named.encode(), digest_size=12).hexdigest()
        self.values = dataset.folder / f"features-{split}-{name}.f32"
        self.there = self.values.with_suffix(".there")

    @property
    def bytes(self) -> int:
        return len(self.stored) * self.width * 4

    @property
    def exist(self) -> bool:
        """Whether both files are there and whole: one alone, or cut short by whatever it was, says nothing."""
        try:
            return self.values.stat().st_size == self.bytes and self.there.stat().st_size == len(self.stored)
        except FileNotFoundError:
            return False

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Return which of some images, by index, have no features yet, in order."""
        indices = np.sort(indices)
        return indices[np.fromfile(self.there, dtype=np.uint8)[indices] == 0] if self.exist else indices

    def fill(self, indices: np.ndarray) -> Iterator[int]:
        """Compute what is missing of the features of some images, yielding after each batch how many it had."""
        folder = self.values.parent
        if not folder.is_dir():  # a lock would make it anew
            raise LoupeError(f"The dataset {folder.name} was deleted in the meantime. Bring it back and try again.")
        with writing_folder(folder), FileLock(self.values.with_suffix(".lock")):
            if not self.exist:
                self._make_room()
                self._make_empty()
            os.utime(self.values)
            with self.values.open("r+b") as values, self.there.open("r+b") as there:
                missing = self.missing(indices)
                at_once = batch_size_for(self.extractor.preprocess)
                for start in range(0, len(missing), at_once):
                    batch = missing[start : start + at_once]
                    rows = self._compute(batch).cpu().numpy()
                    # Written, not through a memory map: that would be killed where a disk is full.
                    for index, row in zip(batch.tolist(), rows, strict=True):
                        _write(values.fileno(), row.tobytes(), index * row.nbytes)
                    _mark(there.fileno(), batch)
                    yield len(batch)

    def _compute(self, batch: np.ndarray) -> Tensor:
        images = as_tensor(self.stored.images[batch])
        return self.extractor.features(self.view.of(images, batch) if self.view else images)

    def _make_empty(self) -> None:
        with self.values.open("wb") as values:
            values.truncate(self.bytes)
        unfinished = self.there.with_suffix(".unfinished")
        unfinished.write_bytes(bytes(len(self.stored)))
        unfinished.replace(self.there)  # it says that both files are whole

    def _make_room(self) -> None:
        """Delete the features beside the dataset that were not used for longest, until these fit."""
        others = sorted(self.values.parent.glob("features-*.f32"), key=lambda path: path.stat().st_mtime)
        total = self.bytes + sum(path.stat().st_size for path in others)
        while others and total > KEPT_BYTES:
            oldest = others.pop(0)
            try:
                with FileLock(oldest.with_suffix(".lock"), blocking=False):
                    total -= oldest.stat().st_size
                    # The locks stay: others may wait for them.
                    for path in (oldest.with_suffix(".there"), oldest):
                        path.unlink(missing_ok=True)
            except Timeout:  # another process fills it
                continue

    def open(self) -> Tensor:
        """Return all rows as a tensor over the file, which is not to be written to; those not filled are 0."""
        return as_tensor(np.memmap(self.values, np.float32, "r", shape=(len(self.stored), self.width)))


def _write(file: int, content: bytes, place: int) -> None:
    """Write all of something into an open file: where a disk gets full, a part of it is written first, and no error."""
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def _mark(file: int, batch: np.ndarray) -> None:
    """Note that the rows of a batch are there. All in one: what is left to do after a kill are whole batches again.

    Of many a network, the last bits of an image's features depend on those that it is computed with.
    """
    first, last = int(batch[0]), int(batch[-1])
    stretch = np.frombuffer(os.pread(file, last + 1 - first, first), np.uint8).copy()
    stretch[batch - first] = 1
    _write(file, stretch.tobytes(), first)
