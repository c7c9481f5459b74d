"""What this machine is and has: its device, cores, memory. Imports torch only where it is asked for that."""

import errno
import os
import platform
import resource
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """Return how many processes wanted each core over the last minute."""
    return os.getloadavg()[0] / cores()


def has_bfloat16(device: str) -> bool:
    """Tell whether the device computes in bfloat16 itself; emulated, it is slower than float32."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, feature, lambda: False)() for feature in features)


def peak_memory(device: str) -> float:
    """Return the most memory, in MB, that this process has had so far: on a GPU its tensors', else all of it."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    try:  # resource's figure is also at least that of the process that started this one
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
        return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except (OSError, ValueError):
        pass
    # In bytes on macOS, in units of 1,024 elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def available_memory(device: str) -> float | None:
    """Return the bytes of memory that are free for another program, of the GPU or the machine; None if unknown."""
    if device == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024.0
    except (OSError, ValueError, KeyError):
        return None
    try:  # a container may be granted less
        granted = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(free, granted - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        return free


@cache
def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory, of the machine or its GPU, was not enough: torch says so in several ways."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # as of a memory map
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(
        # The last is oneDNN's, of memory that it did not get.
        sign in str(error)
        for sign in ("can't allocate memory", "out of memory", "could not create a primitive")
    )


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
