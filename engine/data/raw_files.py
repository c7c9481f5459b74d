"""Reading datasets from the files that torchvision downloads, whoever put them in place."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.base.errors import LoupeError, reason_of
from engine.base.paths import data_root
from engine.data.catalogue import Source
from engine.data.dataset import Split

Reader = Callable[[list[Path]], tuple[np.ndarray, np.ndarray]]


def read_raw_files(source: Source) -> dict[str, Split]:
    """Read the training and test images of a dataset from its files, without asking for their checksums.

    Raises LoupeError when they are damaged, or are not what they should be.
    """
    root = data_root()
    try:
        splits = {
            split_name: _read_split(source, split_name, [root / file for file in files])
            for split_name, files in (("train", source.train_files), ("test", source.test_files))
        }
        shapes = [split.images.shape[1:] for split in splits.values()]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the train images are {shapes[0]}, the test images {shapes[1]}")
    except Exception as error:  # readers raise whatever the damage leads to
        raise LoupeError(
            f"The files of {source.title} in {root / source.folder} cannot be read ({reason_of(error)}). "
            "They may be cut short: delete them and get the dataset again."
        ) from error
    return splits


def _read_split(source: Source, split_name: str, paths: list[Path]) -> Split:
    images, labels = READERS[source.torchvision](paths)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"the {split_name} images are {images.dtype} of the shape {images.shape}")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"the {split_name} labels are {labels.dtype} of the shape {labels.shape}")
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{len(images)} {split_name} images, but {len(labels)} labels")
    labels = labels.astype(np.int64) - source.first_label
    if labels.min() < 0 or labels.max() >= len(source.classes):
        raise ValueError(f"a {split_name} label is not one of the {len(source.classes)} classes")
    # NumPy would write an array that is turned around byte by byte, which takes six times as long.
    return Split(np.ascontiguousarray(images), labels)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a file's name before what is wrong with it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path.name} has no {error}") from error
    except Exception as error:
        raise ValueError(f"{path.name}: {reason_of(error)}") from error


def _read_idx(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    image_file, label_file = paths
    with _naming(image_file):
        images = read_image_file(str(image_file)).numpy()[..., np.newaxis]
    with _naming(label_file):
        labels = read_label_file(str(label_file)).numpy()
    return images, labels


def _read_emnist(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read as MNIST, and turn the images upright: the files have their columns as rows."""
    images, labels = _read_idx(paths)
    return images.swapaxes(1, 2), labels


def _read_cifar(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for path in paths:
        with _naming(path), path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="latin1").load()
            images.append(batch["data"].reshape(-1, 3, 32, 32))
            labels.append(batch["labels"] if "labels" in batch else batch["fine_labels"])
    return np.concatenate(images).transpose(0, 2, 3, 1), np.concatenate(labels)


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles arrays in plain containers. Anything else that a pickle names might be code, and is refused."""

    ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),  # its name since NumPy 2
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


def _read_svhn(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat  # comes with scikit-learn

    (path,) = paths
    with _naming(path):
        content = loadmat(str(path), appendmat=False, variable_names=["X", "y"])
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].ravel()
    return images, np.where(labels == 10, 0, labels)  # 10 stands for the digit 0


READERS: dict[str, Reader] = {
    "MNIST": _read_idx,
    "KMNIST": _read_idx,
    "FashionMNIST": _read_idx,
    "EMNIST": _read_emnist,
    "CIFAR10": _read_cifar,
    "CIFAR100": _read_cifar,
    "SVHN": _read_svhn,
}
