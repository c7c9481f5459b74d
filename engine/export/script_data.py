"""The data of a run as code: loading it, scaling, resizing, and what augmentation does to it."""

import textwrap
from typing import Any

from engine.base.errors import LoupeError
from engine.data.catalogue import CATALOGUE, title_of
from engine.export.script_code import LINE_LENGTH, call
from engine.export.script_subject import Subject
from engine.networks.preprocessing import Preprocessing, middle_box, padded_box


def data_parts(subject: Subject) -> dict[str, Any]:
    seen, augmentation = subject.preprocessing, subject.augmentation
    return {
        "data": _data(subject),
        "scaling": _scaling(seen),
        "resize": _resize(subject),
        "cut": _cut(subject),
        "padded": _padded(subject),
        "grey_to_colour": subject.is_of_images and seen.shape[2] == 1 and len(seen.mean) == 3,
        "augmentation": augmentation,
        "cropped": augmentation.crop < 1,
        "turned": augmentation.rotate > 0 or augmentation.crop < 1,
        "transform": _transform(subject) if subject.augments else "",
    }


def _data(subject: Subject) -> dict[str, str]:
    """Return the code that loads a dataset's splits as tensors, and what they are in words."""
    name = subject.recipe.dataset
    if name == "digits":
        return {
            "about": "grey levels from 0 to 16, brought to 0..255; a fifth is for testing.",
            "code": textwrap.dedent("""\
                digits = load_digits()
                images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
                parts = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
                train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)"""),
        }
    if name == "blobs":
        return {
            "about": "points of four numbers in three clouds that overlap.",
            "code": textwrap.dedent("""\
                points, labels = make_blobs(n_samples=1000, n_features=4, centers=3, cluster_std=2.5, random_state=95)
                parts = train_test_split(points.astype(np.float32), labels, test_size=0.15, random_state=95)
                train_rows, test_rows, train_labels, test_labels = map(torch.from_numpy, parts)"""),
        }
    if name in CATALOGUE:
        return _torchvision_data(name)
    items = subject.items
    kind = "whole numbers from 0 to 255" if items == "images" else "float32"
    turned = ".permute(0, 3, 1, 2)" if items == "images" else ""
    shape = "count, channels, height, width" if items == "images" else "count, features"
    loads = "\n".join(f'{split}_{items}, {split}_labels = load("{split}")' for split in subject.stored_splits)
    return {
        "about": "arrays that Loupe has prepared, one of each split.",
        "code": textwrap.dedent(f'''\
            def load(split):
                """Return {items}, {kind} ({shape}), and labels."""
                {items} = torch.from_numpy(np.load(DATASET / f"{{split}}-images.npy")){turned}
                return {items}, torch.from_numpy(np.load(DATASET / f"{{split}}-labels.npy"))

            ''')
        + loads,
    }


def _torchvision_data(name: str) -> dict[str, str]:
    source = CATALOGUE[name]
    cls = source.torchvision
    if cls == "SVHN":
        options = ['split="train"', 'split="test"']
        images, labels = "torch.from_numpy({}.data)", "torch.from_numpy({}.labels)"
    else:
        part = f'split="{source.parts[0]}", ' if source.parts else ""
        options = [f"{part}train=True", f"{part}train=False"]
        if cls.startswith("CIFAR"):
            images, labels = "torch.from_numpy({}.data).permute(0, 3, 1, 2)", "torch.tensor({}.targets)"
        elif cls == "EMNIST":
            images, labels = "{}.data.transpose(1, 2).unsqueeze(1)", "{}.targets"
        else:
            images, labels = "{}.data.unsqueeze(1)", "{}.targets"
        if source.first_label:
            labels += f" - {source.first_label}"
    lines = [
        f"{split}_set = datasets.{cls}(DATA, {option}, download=True)"
        for split, option in zip(("train", "test"), options, strict=True)
    ]
    for split in ("train", "test"):
        pair = [code.format(f"{split}_set") for code in (images, labels)]
        line = f"{split}_images, {split}_labels = {', '.join(pair)}"
        apart = [f"{split}_images = {pair[0]}", f"{split}_labels = {pair[1]}"]
        lines += [line] if len(line) <= LINE_LENGTH else apart
    about = f"{title_of(name)}, whole numbers from 0 to 255 (count, channels, height, width)."
    if cls == "EMNIST":
        about = f"{title_of(name)}, whole numbers from 0 to 255; its files have the columns of an image as rows."
    return {"about": about, "code": "\n".join(lines)}


def _scaling(seen: Preprocessing) -> str:
    """Write the mean and deviation that values are scaled by; empty where they are left as they are, or 0..1."""
    mean, std = ([float(f"{value:.7g}") for value in values] for values in (seen.mean, seen.std))
    if set(mean) == {0.0} and set(std) == {1.0}:
        return ""
    if not seen.is_of_images:
        return "\n".join([_tensor("MEAN", mean), _tensor("STD", std)])
    if len(set(mean)) == len(set(std)) == 1:
        return f"MEAN, STD = {mean[0]!r}, {std[0]!r}"
    shape = f".view({len(mean)}, 1, 1).to(device)"
    return "\n".join([_tensor("MEAN", mean, shape), _tensor("STD", std, shape)])


def _tensor(name: str, values: list[float], shape: str = "") -> str:
    return call(f"{name} = torch.tensor", [f"[{', '.join(map(repr, values))}]"], shape)


def _resize(subject: Subject) -> str:
    """Return the size that images are brought to, as code; empty where they have it."""
    if not subject.is_of_images:
        return ""
    height, width = subject.preprocessing.shape[:2]
    return "" if subject.stored_size == (height, width) else f"({height}, {width})"


def _cut(subject: Subject) -> str | None:
    """Return the rows and columns of the middle that is resized; empty for all, None where that is not known."""
    if not _resize(subject) or subject.preprocessing.fit == "pad":
        return ""
    wanted = subject.preprocessing.image_shape[:2]
    if subject.stored_size is None and wanted[0] == wanted[1]:
        return None
    height, width = _known_size(subject)
    top, left, rows, columns = middle_box(height, width, wanted)
    if (rows, columns) == (height, width):
        return ""
    return f"{_slice(top, rows, height)}, {_slice(left, columns, width)}"


def _padded(subject: Subject) -> dict[str, tuple[int, ...]] | None:
    """Return the size that images are resized to, and the black beside them; None where they fill all of it."""
    if not _resize(subject) or subject.preprocessing.fit != "pad":
        return None
    height, width = subject.preprocessing.image_shape[:2]
    top, left, rows, columns = padded_box(*_known_size(subject), (height, width))
    beside = (left, width - columns - left, top, height - rows - top)
    return {"size": (rows, columns), "beside": beside} if any(beside) else None


def _known_size(subject: Subject) -> tuple[int, int]:
    if subject.stored_size is None:
        raise LoupeError(
            f"The dataset {subject.recipe.dataset} is not here any more, so how its images are resized is not known. "
            "Import it again, then write the script again."
        )
    return subject.stored_size


def _slice(first: int, count: int, length: int) -> str:
    return ":" if count == length else f"{first}:{first + count}"


def _transform(subject: Subject) -> str:
    """Return the six numbers of affine_grid: where to look, as x and y from -1 to 1."""
    if not subject.augmentation.rotate:
        return "share, zero, x, zero, share, y"
    x, y = ("x", "y") if subject.augmentation.crop < 1 else ("zero", "zero")
    up, down = ("-sin", "sin") if subject.is_square else ("-sin * height / width", "sin * width / height")
    return f"cos, {up}, {x}, {down}, cos, {y}"
