"""A checkpoint without pickle: its tensors as safetensors, everything else as JSON, and back without a loss."""

import json
import math
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

# As safetensors calls them.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def read_checkpoint_file(path: Path) -> Any:
    """Read what torch.save has written, as data. Tensors are mapped from the file: it must stay while they are used.

    Raises whatever the damage leads to.
    """
    with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
        if any(record.CRC for record in archive.infolist()) and (damaged := archive.testzip()):
            raise ValueError(f"the checksum of {damaged} is wrong")
    return _required(torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def _required(state: Any) -> Any:
    """Raise ValueError for what no training has written, of whatever version."""
    if type(state) is not dict or "fingerprint" not in state:
        raise ValueError("it is not the state of a training")
    return state


def flatten_state(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Return a checkpoint's tensors by name, each in the order of its memory, and a document of JSON with the rest.

    What JSON does not know is an object with the name of its kind. Raises ValueError for anything but plain values.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple, str] = {}

    def name_of(tensor: Tensor, path: str) -> str:
        # What two names share is kept once, and shared again.
        same = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if tensor.numel() and same in names:
            return names[same]
        while path in tensors:  # of two keys of different types that read alike
            path += "'"
        names[same] = path
        tensors[path] = tensor
        return path

    def apart(value: Any, path: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is list:
            return [apart(item, f"{path}/{place}") for place, item in enumerate(value)]
        if kind is tuple:
            return {"tuple": [apart(item, f"{path}/{place}") for place, item in enumerate(value)]}
        if kind is dict or kind is OrderedDict:
            pairs = [[apart(key, path), apart(item, f"{path}/{key}".lstrip("/"))] for key, item in value.items()]
            if kind is dict:
                return {"dict": pairs}
            if vars(value).keys() - {"_metadata"}:
                raise ValueError(f"{path} has attributes of its own")
            # With the versions of a network's layers, which torch keeps there.
            return {"ordered": pairs, "metadata": apart(vars(value).get("_metadata"), f"{path}/_metadata")}
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.dtype not in DTYPES or value.is_neg() or value.is_meta:
                raise ValueError(f"{path} is a tensor of an unusual kind")
            # An axis of one element comes last of those with the same stride: with it all strides come back.
            shape, strides = value.shape, value.stride()
            order = sorted(range(value.dim()), key=lambda axis: (-strides[axis], -shape[axis]))
            in_memory = value.detach().permute(order)
            if not in_memory.is_contiguous():  # a part of another: it comes back as a tensor of its own
                order, in_memory = list(range(value.dim())), value.detach().contiguous()
            return {"tensor": name_of(in_memory, path), "order": order}
        raise ValueError(f"{path} is a {kind.__name__}")

    return tensors, apart(state, "")


def unflatten_state(tensors: Mapping[str, Tensor], document: Any) -> Any:
    """Undo ``flatten_state``. Raises ValueError or TypeError for what it has not made."""
    used = set()

    def together(part: Any) -> Any:
        match part:
            case list():
                return [together(item) for item in part]
            case {"tuple": list(items), **rest} if not rest:
                return tuple(together(item) for item in items)
            case {"dict": list(pairs), **rest} if not rest:
                return {together(key): together(value) for key, value in pairs}
            case {"ordered": list(pairs), "metadata": metadata, **rest} if not rest:
                made = OrderedDict((together(key), together(value)) for key, value in pairs)
                if metadata is not None:
                    vars(made)["_metadata"] = together(metadata)
                return made
            case {"float": "nan" | "inf" | "-inf" as written, **rest} if not rest:
                return float(written)
            case {"tensor": str(name), "order": list(order), **rest} if not rest and name in tensors:
                used.add(name)
                places = sorted(range(len(order)), key=order.__getitem__)
                return tensors[name].permute(places)
            case dict():
                raise ValueError(f"an object of it has the keys {', '.join(part)[:100]}")
        return part

    try:
        state = together(document)
    except (RecursionError, RuntimeError, KeyError) as error:  # of JSON that is nested too deep; of torch
        raise ValueError(type(error).__name__) from error
    if unused := tensors.keys() - used:
        raise ValueError(f"nothing in it names the tensor {min(unused)[:100]}")
    return _required(state)


def tensor_file(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Write a safetensors file piece by piece, without a copy of the tensors in memory."""
    header, offset = {}, 0
    # From the largest elements down, as safetensors does it, so that all of them are aligned.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    yield memoryview(len(written).to_bytes(8, "little") + written)
    for _, tensor in ordered:
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a safetensors file, which must stay while they are used."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
