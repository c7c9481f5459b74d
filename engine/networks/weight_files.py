"""Files of pretrained weights, as they are found in the world: read as data, and matched to a network."""

import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engine.base.errors import LoupeError
from engine.base.machine import is_out_of_memory
from engine.base.text import join_words, pluralize, printable

# Under what name a checkpoint keeps its weights, beside the optimizer and the like: the first that is there counts.
NESTS = ("state_dict", "model_state_dict", "model", "model_state", "net", "weights", "params", "ema")
LONGEST_HEADER = 100_000_000  # bytes, safetensors' own bound
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # a number near the beginning of what torch wrote before 1.6
WANTED = "Choose a file of weights: .pth or .pt of torch, or .safetensors."
SAVE_WEIGHTS = "Where it was made, save the weights with torch.save(model.state_dict(), ...) and choose that file."
OTHER_FILES = {
    b"\x89HDF": f"a Keras or HDF5 file. {WANTED}",
    b"version https://git-lfs": "a pointer of Git LFS in its place. Fetch the file itself with git lfs pull.",
    b"<": "a web page. Download the file itself.",
    b"\xff\xd8\xff": f"a JPEG picture. {WANTED}",
    b"\x89PNG": f"a PNG picture. {WANTED}",
    b"\x1f\x8b": "a gzip archive. Unpack it first.",
    b"\x80": f"a pickle that torch.save has not written. Nothing in it was run. {SAVE_WEIGHTS}",
}
# Names that torchvision's published files still have, and what they have become (densenet.py, vision_transformer.py).
FORMER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name. The file is data: nothing in it can run.

    What kind of file it is, of torch or safetensors, is told by its content. Tensors are on the CPU and mapped from
    the file where that can be, so it must stay as it is while they are used. Raises LoupeError.
    """
    place = printable(str(path))
    start, size = _look_at(path, place)
    try:
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
            content = _read_safetensors(path)
        elif start.startswith(b"PK\x03\x04"):
            content = _read_zip(path, place)
        elif start.startswith(b"\x80") and LEGACY in start:
            with path.open("rb") as file:
                content = _load(file)
        else:
            kinds = [kind for sign, kind in OTHER_FILES.items() if start.startswith(sign)]
            raise LoupeError(f"{place} is no file of weights, but {kinds[0] if kinds else f'something else. {WANTED}'}")
    except LoupeError:
        raise
    except Exception as error:  # torch, zipfile and safetensors raise whatever the damage leads to
        if is_out_of_memory(error) and not _is_absurd(error, size):
            raise
        raise LoupeError(_refusal(place, error)) from error
    tensors = _tensors(content)
    if not tensors:
        held = f" It holds: {_first_names(list(content))}." if isinstance(content, Mapping) else ""
        raise LoupeError(
            f"{place} has no tensors by name, neither directly nor as its state_dict.{held} {SAVE_WEIGHTS}"
        )
    return tensors


def fit_weights(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    head: str,
    unused: tuple[str, ...],
    source: str,
    model: str,
) -> tuple[dict[str, Tensor], str]:
    """Choose what a network takes from the tensors of a file.

    wanted: the network's state_dict. head: path of its last layers, such as ``fc`` or ``classifier.3``; they are taken
    only if all of them fit. unused: starts of names that the network never has, such as ``AuxLogits.``. source, model:
    what file and network are called in messages. Returns tensors with the names, shapes and types of ``wanted``, and a
    sentence that says what was taken. Raises LoupeError when anything but the head does not fit.
    """
    found = _named_as(wanted, found)
    of_head = [name for name in wanted if name.startswith(f"{head}.")]
    of_backbone = [name for name in wanted if not name.startswith(f"{head}.")]
    if trouble := _mismatches(found, wanted, of_backbone, model):
        raise LoupeError(f"{source} does not fit {model}: {trouble}. Choose the network that it was made for.")
    keeps_head = not _mismatches(found, wanted, of_head, model)
    # With the network's own versions of its layers: MNASNet refuses names that come without.
    taken: OrderedDict[str, Tensor] = OrderedDict()
    taken._metadata = getattr(wanted, "_metadata", None)  # type: ignore[attr-defined]
    for name in of_backbone + of_head * keeps_head:
        if name not in found or _difference(found[name], wanted[name]):  # a count of batches
            continue
        taken[name] = found[name].to(wanted[name].dtype)
        if not _is_finite(taken[name]):
            raise LoupeError(
                f"{name} in {source} has values that are not numbers, or infinite: the file is damaged, or the "
                "training that it is from had diverged. Choose another file."
            )
    told = f"{pluralize(len(taken), 'tensor')} of {source} were taken{_about_head(found, wanted, head, keeps_head)}"
    others = [name for name in found if name not in wanted and not name.startswith((f"{head}.", *unused))]
    if others:
        told += f"; it has {pluralize(len(others), 'other')} that {model} does not have: {_first_names(others)}"
    return taken, f"{told}."


def _look_at(path: Path, place: str) -> tuple[bytes, int]:
    """Return how a file begins, and its size."""
    try:
        if path.is_dir():
            raise LoupeError(f"{place} is a folder. {WANTED}")
        size = path.stat().st_size
        if not path.is_file():  # a pipe would be waited for without end
            raise LoupeError(f"{place} is not a regular file. {WANTED}")
        with path.open("rb") as file:
            start = file.read(64)
    except PermissionError:
        raise LoupeError(f"{place} may not be read. Change its permissions, or copy it.") from None
    except (FileNotFoundError, NotADirectoryError):
        raise LoupeError(f"There is no file {place}. Check its name and folder.") from None
    except OSError as error:
        raise LoupeError(f"{place} cannot be read ({error.strerror}). {WANTED}") from error
    if not start:
        raise LoupeError(f"{place} is empty. Get a whole copy of it.")
    return start, size


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def _read_zip(path: Path, place: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename.partition("/")[2] for record in records]
        if "constants.pkl" in names:
            raise LoupeError(f"{place} is a TorchScript archive: a program, and nothing in it was run. {SAVE_WEIGHTS}")
        # torch packs nothing, and what is packed cannot be mapped.
        if "data.pkl" not in names or any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise LoupeError(f"{place} is a zip archive, but not one that torch.save has written. {WANTED}")
        # torch does not look at the checksums; without them (torch.serialization.set_crc32_options) all are zero.
        if any(record.CRC for record in records) and (damaged := archive.testzip()):
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    if path.suffix == ".safetensors":  # by which torch would go
        with path.open("rb") as file:
            return _load(file)
    return _load(path, mmap=True)


def _load(file: Any, **options: Any) -> Any:
    # The settings of a training with torchvision's reference scripts: a bag of values, without code of its own.
    with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that may be read or not; they are, or the error tells
        return torch.load(file, map_location="cpu", weights_only=True, **options)


def _is_absurd(error: Exception, size: int) -> bool:
    """Tell whether more memory was asked for than the file has bytes: it is damaged."""
    asked = re.search(r"allocate (\d+) bytes", str(error))
    return asked is not None and int(asked[1]) > size


def _refusal(place: str, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        code = re.search(r"GLOBAL (\S+)", str(error))
        needs = f" (it needs {printable(code[1])})" if code else ""
        return (
            f"{place} holds more than weights{needs}, such as a whole pickled model, or is damaged. Nothing in it was "
            f"run. {SAVE_WEIGHTS}"
        )
    return f"{place} is damaged or cut short ({type(error).__name__}). Nothing in it was run. Get a whole copy of it."


def _tensors(content: Any, depth: int = 3) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint: those of the first nest that has more than the level above it."""
    if not isinstance(content, Mapping) or not depth:  # a mapping may hold itself
        return {}
    own = {name: value.detach() for name, value in content.items() if isinstance(name, str) and _is_plain(value)}
    nests = (_tensors(content.get(name), depth - 1) for name in NESTS)
    return next((nest for nest in nests if len(nest) > len(own)), own)


def _is_plain(value: Any) -> bool:
    """Tell whether something is a tensor whose values can be copied as they are."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
    )


def _named_as(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of today, without the prefix that wrappers such as DataParallel put before them."""
    renamed = {}
    for name, value in found.items():
        now = name
        for former, today in FORMER_NAMES:
            now = former.sub(today, now)
        renamed[now] = value
    prefixes = Counter({"": 0})
    for name in renamed:
        prefixes.update(name[: dot.end()] for dot in re.finditer(r"^|\.", name) if name[dot.end() :] in wanted)
    # The one without which most names are the network's; of equals the first, so that none goes without need.
    prefix = max(prefixes, key=prefixes.__getitem__)
    if prefixes[prefix] < len(wanted) / 2:  # the path of a part that is named alike by chance, not a wrapper's
        return renamed
    kept = {name: value for name, value in renamed.items() if not name.startswith(prefix)}
    return kept | {name.removeprefix(prefix): value for name, value in renamed.items() if name.startswith(prefix)}


def _mismatches(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], names: list[str], model: str) -> str:
    """Say which of the names do not fit, at most three of them; nothing when all do."""
    if found and names and not any(name in found for name in names):
        return (
            f"none of its {pluralize(len(found), 'tensor')} has the name of one of {model}'s (it begins with "
            f"{printable(next(iter(found)))}; {model} with {names[0]})"
        )
    # torch counts the batches for nothing but a momentum of None, and older files do not have it.
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    missing = [name for name in names if name not in found]
    told = [
        f"{name} is {pair[0]} in the file and {pair[1]} in {model}"
        for name in names
        if name in found and (pair := _difference(found[name], wanted[name]))
    ]
    count = len(told) + len(missing)
    told = told[: 2 if missing else 3]
    left = missing[: 3 - len(told)]
    more = count - len(told) - len(left)
    told += [f"missing: {', '.join(left)}"] * bool(left) + [f"and {more:,} more"] * bool(more)
    return "; ".join(told)


def _difference(found: Tensor, wanted: Tensor) -> tuple[str, str] | None:
    """Say the shapes of two tensors, or else their types, if one cannot take the place of the other."""
    if found.shape != wanted.shape:
        return _shape(found), _shape(wanted)
    if found.is_floating_point() != wanted.is_floating_point():
        return str(found.dtype).removeprefix("torch."), str(wanted.dtype).removeprefix("torch.")
    return None


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # Their least and largest, as NaN passes through both: without a copy of the tensor.
    return all(bound.isfinite() for bound in torch.aminmax(tensor))


def _about_head(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], head: str, kept: bool) -> str:
    before, now = _classes(found, head), _classes(wanted, head)
    if kept:
        return f", its head for {now:,} classes among them"
    if before is None:
        return f"; it has no head, and a new one for {now:,} classes begins untrained"
    if before == now:
        return f"; its head for {before:,} classes has other layers, and was replaced by a new one"
    return f"; its head for {before:,} classes was replaced by a new one for {now:,}"


def _classes(tensors: Mapping[str, Tensor], head: str) -> int | None:
    """Count the answers of a head: the rows of its last layer. None if there is no head."""
    # safetensors does not keep the order; of numbers the longer one comes later.
    names = [name for name, value in tensors.items() if name.startswith(f"{head}.") and value.dim()]
    last = max(names, key=lambda name: [(len(part), part) for part in name.split(".")], default=None)
    return None if last is None else len(tensors[last])


def _first_names(names: list[Any]) -> str:
    """List names as a file has them, three of them and a count of the rest."""
    told = [printable(str(name)) for name in names[:3]]
    return join_words([*told, f"{len(names) - 3:,} more"] if len(names) > 3 else told)
