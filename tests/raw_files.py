"""Small files of the datasets that are downloaded, in the formats of their sources."""

import pickle
from pathlib import Path

import numpy as np

from engine.data.catalogue import CATALOGUE
from engine.data.dataset import Split

TYPES = {np.dtype(np.uint8): 8, np.dtype(np.float32): 13}


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array as MNIST's files are: two zeros, the type, the dimensions, each big-endian, then the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    path.write_bytes(bytes([0, 0, TYPES[array.dtype], array.ndim]) + sizes + array.tobytes())


def write_idx_pair(start: Path, images: np.ndarray, labels: np.ndarray) -> None:
    write_idx(start.with_name(f"{start.name}-images-idx3-ubyte"), images)
    write_idx(start.with_name(f"{start.name}-labels-idx1-ubyte"), labels.astype(np.uint8))


def python2_string(content: bytes) -> bytes:
    return b"T" + len(content).to_bytes(4, "little") + content


def python2_integer(value: int) -> bytes:
    return b"J" + int(value).to_bytes(4, "little", signed=True)


def python2_batch(data: np.ndarray, labels: np.ndarray, key: bytes = b"labels") -> bytes:
    """Pickle a batch of CIFAR as Python 2 and its NumPy did, with strings of bytes and numbers for truth values."""
    return b"".join(
        [
            b"\x80\x02}(",
            python2_string(b"data"),
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string(b"b") + b"\x87R",
            b"(K\x01(" + b"".join(map(python2_integer, data.shape)) + b"t",
            b"cnumpy\ndtype\n" + python2_string(data.dtype.str[1:].encode()) + b"K\x00K\x01\x87R",
            b"(K\x03" + python2_string(data.dtype.str[:1].encode()) + b"NNN" + 2 * python2_integer(-1) + b"K\x00tb",
            b"\x89" + python2_string(data.tobytes()) + b"tb",
            python2_string(key) + b"](" + b"".join(map(python2_integer, labels)) + b"eu.",
        ]
    )


def write_batch(path: Path, images: np.ndarray, labels: np.ndarray, key: bytes = b"labels") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_batch(images.transpose(0, 3, 1, 2).reshape(len(images), -1), labels, key))


def write_mat(path: Path, **arrays: np.ndarray) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(str(path), arrays, do_compression=True)


def write_files(name: str, root: Path) -> dict[str, Split]:
    """Write the files of a small dataset, 40 and 10 images, as they are unpacked. Returns what is to be read of them.

    The classes' first and last are among the labels; what is not fixed by a format is 6 pixels high and 5 wide.
    """
    shape = (32, 32, 3) if name in ("cifar10", "cifar100", "svhn") else (6, 5, 1)
    splits = {
        part: Split(
            np.random.randint(0, 256, (count, *shape)).astype(np.uint8),
            np.linspace(0, len(CATALOGUE[name].classes) - 1, count).round().astype(np.int64),
        )
        for part, count in (("train", 40), ("test", 10))
    }
    for part, split in splits.items():
        images, labels = split.images, split.labels
        match name:
            case "mnist" | "kmnist" | "fashion-mnist":
                folder = root / {"mnist": "MNIST", "kmnist": "KMNIST", "fashion-mnist": "FashionMNIST"}[name] / "raw"
                write_idx_pair(folder / {"train": "train", "test": "t10k"}[part], images[..., 0], labels)
            case "emnist-balanced" | "emnist-letters":
                first = 1 if name == "emnist-letters" else 0
                upended = images[..., 0].transpose(0, 2, 1)
                write_idx_pair(root / "EMNIST" / "raw" / f"{name}-{part}", upended, labels + first)
            case "cifar10":
                folder, fifths = root / "cifar-10-batches-py", np.arange(40).reshape(5, 8)
                if part == "test":
                    write_batch(folder / "test_batch", images, labels)
                else:
                    for number, fifth in enumerate(fifths, start=1):
                        write_batch(folder / f"data_batch_{number}", images[fifth], labels[fifth])
                (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane"]}, protocol=2))
            case "cifar100":
                write_batch(root / "cifar-100-python" / part, images, labels, b"fine_labels")
                meta = {"fine_label_names": ["apple"]}
                (root / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta, protocol=2))
            case "svhn":
                ten_for_zero = np.where(labels == 0, 10, labels).astype(np.uint8)[:, np.newaxis]
                write_mat(root / f"{part}_32x32.mat", X=images.transpose(1, 2, 3, 0), y=ten_for_zero)
    return splits
