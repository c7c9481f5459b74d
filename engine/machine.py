"""What this machine runs a training with: device, threads and number format. Imports torch only to resolve."""

import os
import shutil
import subprocess
from dataclasses import replace
from functools import cache

from engine.errors import LoupeError
from engine.recipes import Recipe


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with its automatic choices made, so that the run can be repeated as it was."""
    import torch

    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise LoupeError("device is 'cuda', but no GPU that torch can use was found. Set device to 'cpu' or 'auto'.")
    precision = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    return replace(recipe, device=device, precision=precision, threads=recipe.threads or cores())


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bfloat16(device: str) -> bool:
    """Tell whether the device computes in bfloat16 itself; emulated, it is slower than float32."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, feature, lambda: False)() for feature in features)


@cache
def gpu_name() -> str | None:
    """Return the name of this machine's first NVIDIA GPU as its driver tells it, without importing torch."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return None
    try:
        command = [tool, "--query-gpu=name", "--format=csv,noheader"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(listing.strip().splitlines()), None)
