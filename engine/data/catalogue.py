"""The datasets that can be had, and getting them."""

from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import LoupeError
from engine.base.paths import data_root
from engine.base.text import join_words
from engine.data.dataset import open_dataset, prepared_names, prepared_root

DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
# Of the letters whose two cases differ in size alone, a class has both.
BALANCED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# fmt: off
CIFAR100 = (
    "apple", "aquarium fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple tree", "motorcycle", "mountain", "mouse", "mushroom", "oak tree", "orange", "orchid",
    "otter", "palm tree", "pear", "pickup truck", "pine tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow tree", "wolf",
    "woman", "worm",
)
# fmt: on


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    kind: ``images``, or ``table`` for rows of numbers.
    torchvision: the class of ``torchvision.datasets`` that downloads it; empty when nothing is downloaded.
    parts: what that class is asked for as its ``split``, where it has one.
    train_files, test_files: the files that each split is read from, below ``LOUPE_DATA``.
    companions: files that come with these, and without which torchvision itself would not open them.
    first_label: the number that the files give to the first class.
    archives: what is downloaded, below the root that torchvision is given.
    download_bytes: the size of the archives; 0 when nothing is downloaded.
    """

    title: str
    classes: tuple[str, ...]
    about: str
    kind: str = "images"
    torchvision: str = ""
    parts: tuple[str, ...] = ()
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    first_label: int = 0
    archives: tuple[str, ...] = ()
    download_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """All that must be in place, below ``LOUPE_DATA``."""
        return self.train_files + self.test_files

    @property
    def folder(self) -> Path:
        """The folder of its files below ``LOUPE_DATA``."""
        return Path(*self.files[:1]).parent


def _idx(start: str, packing: str = "") -> tuple[str, str]:
    return f"{start}-images-idx3-ubyte{packing}", f"{start}-labels-idx1-ubyte{packing}"


CATALOGUE = {
    "digits": Source(
        "Digits",
        DIGITS,
        "1,797 scans of handwritten digits, 8 x 8 pixels, from the UCI repository; comes with scikit-learn.",
    ),
    "blobs": Source(
        "Blobs",
        ("0", "1", "2"),
        "1,000 points of 4 numbers each in three clouds that overlap; drawn by scikit-learn's make_blobs.",
        kind="table",
    ),
    "mnist": Source(
        "MNIST",
        DIGITS,
        "70,000 handwritten digits, 28 x 28 pixels (LeCun, Cortes and Burges, 1998).",
        torchvision="MNIST",
        train_files=_idx("MNIST/raw/train"),
        test_files=_idx("MNIST/raw/t10k"),
        archives=_idx("MNIST/raw/train", ".gz") + _idx("MNIST/raw/t10k", ".gz"),
        download_bytes=11_594_722,
    ),
    "kmnist": Source(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        "70,000 cursive Japanese characters, 28 x 28 pixels (Clanuwat et al., 2018).",
        torchvision="KMNIST",
        train_files=_idx("KMNIST/raw/train"),
        test_files=_idx("KMNIST/raw/t10k"),
        archives=_idx("KMNIST/raw/train", ".gz") + _idx("KMNIST/raw/t10k", ".gz"),
        download_bytes=21_240_888,
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        "70,000 photographs of clothes, 28 x 28 pixels (Xiao, Rasul and Vollgraf, 2017).",
        torchvision="FashionMNIST",
        train_files=_idx("FashionMNIST/raw/train"),
        test_files=_idx("FashionMNIST/raw/t10k"),
        archives=_idx("FashionMNIST/raw/train", ".gz") + _idx("FashionMNIST/raw/t10k", ".gz"),
        download_bytes=30_878_645,
    ),
    "emnist-balanced": Source(
        "EMNIST Balanced",
        BALANCED,
        "131,600 handwritten digits and letters of 47 classes, 28 x 28 pixels (Cohen et al., 2017).",
        torchvision="EMNIST",
        parts=("balanced",),
        train_files=_idx("EMNIST/raw/emnist-balanced-train"),
        test_files=_idx("EMNIST/raw/emnist-balanced-test"),
        archives=("EMNIST/raw/gzip.zip",),
        download_bytes=561_753_746,
    ),
    "emnist-letters": Source(
        "EMNIST Letters",
        LETTERS,
        "145,600 handwritten letters, both cases in one class, 28 x 28 pixels (Cohen et al., 2017).",
        torchvision="EMNIST",
        parts=("letters",),
        train_files=_idx("EMNIST/raw/emnist-letters-train"),
        test_files=_idx("EMNIST/raw/emnist-letters-test"),
        first_label=1,
        archives=("EMNIST/raw/gzip.zip",),
        download_bytes=561_753_746,
    ),
    "cifar10": Source(
        "CIFAR-10",
        CIFAR10,
        "60,000 colour photographs of animals and vehicles, 32 x 32 pixels (Krizhevsky, 2009).",
        torchvision="CIFAR10",
        train_files=tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        test_files=("cifar-10-batches-py/test_batch",),
        companions=("cifar-10-batches-py/batches.meta",),
        archives=("cifar-10-python.tar.gz",),
        download_bytes=170_498_071,
    ),
    "cifar100": Source(
        "CIFAR-100",
        CIFAR100,
        "60,000 colour photographs of 100 kinds of things, 32 x 32 pixels (Krizhevsky, 2009).",
        torchvision="CIFAR100",
        train_files=("cifar-100-python/train",),
        test_files=("cifar-100-python/test",),
        companions=("cifar-100-python/meta",),
        archives=("cifar-100-python.tar.gz",),
        download_bytes=169_001_437,
    ),
    "svhn": Source(
        "SVHN",
        DIGITS,
        "99,289 digits of house numbers, cut out of street photographs, 32 x 32 pixels (Netzer et al., 2011).",
        torchvision="SVHN",
        parts=("train", "test"),
        train_files=("train_32x32.mat",),
        test_files=("test_32x32.mat",),
        archives=("train_32x32.mat", "test_32x32.mat"),
        download_bytes=182_040_794 + 64_275_384,
    ),
}


@dataclass(frozen=True)
class Progress:
    """How far getting a dataset is, in bytes; ``total`` is 0 while nothing is being downloaded.

    seconds_left: what the rest will take at the pace so far; None where that cannot be said.
    """

    done: int
    total: int
    seconds_left: float | None = None


def dataset_names() -> list[str]:
    """List the catalogue, then the datasets of the person's own."""
    return [*CATALOGUE, *_own_names()]


def _own_names() -> list[str]:
    return [name for name in prepared_names() if name not in CATALOGUE]


def title_of(name: str) -> str:
    """Return what to call a dataset, which need not be here any more."""
    return CATALOGUE[name].title if name in CATALOGUE else name


def kind_of(name: str) -> str:
    """Return the kind of a dataset that need not be here: ``images`` or ``table``. What people import is images."""
    return CATALOGUE[name].kind if name in CATALOGUE else "images"


def item_of(name: str) -> str:
    """Name what a dataset consists of, in the singular."""
    return "row" if kind_of(name) == "table" else "image"


def find_source(name: str) -> Source:
    """Look up a dataset of the catalogue; raises LoupeError for any other."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name in _own_names():
        raise LoupeError(f"{name} was imported on this machine, and cannot be downloaded. Import it again.")
    raise LoupeError(f"There is no dataset {name!r}. Known datasets: {join_words(dataset_names())}.")


def describe_datasets() -> list[dict]:
    """Describe every dataset of the catalogue, then those of the person's own, and what is here, as plain data."""
    here = prepared_names()
    return [_describe(name, source, name in here) for name, source in CATALOGUE.items()] + [
        _describe(name, None, True) for name in here if name not in CATALOGUE
    ]


def _describe(name: str, source: Source | None, present: bool) -> dict:
    described = {
        "name": name,
        "title": title_of(name),
        "kind": source.kind if source else "images",
        "classes": list(source.classes) if source else [],
        "download_bytes": source.download_bytes if source else 0,
        "about": source.about if source else "",
        "own": source is None,
        "present": present,
        "images": {},
        "bad_files": 0,
    }
    if not present:
        return described
    try:
        dataset = open_dataset(name)
    except LoupeError as error:
        return described | {"present": False, "error": str(error)}
    described["images"] = {split: len(images) for split, images in dataset.splits.items()}
    described["bad_files"] = dataset.bad_file_count
    if source is None:
        described |= {"kind": dataset.kind, "classes": list(dataset.classes), "about": dataset.source}
    return described


def seconds_left(first: Progress, now: Progress, elapsed: float) -> float | None:
    """Estimate the seconds until the rest has come, from what came in the seconds since ``first`` was measured."""
    arrived = now.done - first.done
    return (now.total - now.done) * elapsed / arrived if arrived > 0 else None


def download_folder(name: str) -> Path:
    """Return where an unfinished download of a dataset is kept; datasets of one archive share it."""
    return prepared_root() / f".{find_source(name).torchvision or name}.download"


def download_progress(name: str) -> Progress:
    """Read off the disk how much of a download has arrived."""
    source = find_source(name)
    arrived = sum(_size(download_folder(name) / archive) for archive in source.archives)
    return Progress(min(arrived, source.download_bytes), source.download_bytes if arrived else 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # not begun, or moved into place
        return 0


def manual_download_help(name: str) -> str:
    """Say how to get a dataset by hand."""
    source = find_source(name)
    return (
        f"Connect to the internet and try again, or copy its files into {data_root() / source.folder}; "
        "the digits dataset needs no download"
    )
