import mmap
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import python

from engine.base.machine import available_memory, cores, gpu_name, is_out_of_memory, processor_name


def test_a_process_may_use_at_least_one_core() -> None:
    assert cores() >= 1


PEAKS = """
from engine.base.machine import peak_memory
print(peak_memory("cpu"))
held = bytearray(b"x") * 300_000_000
print(peak_memory("cpu"))
del held
print(peak_memory("cpu"))
"""


@pytest.mark.processes
def test_the_most_memory_that_this_process_has_had_is_told_in_megabytes() -> None:
    with python("-c", PEAKS, stdout=subprocess.PIPE) as process:
        before, holding, after = map(float, process.communicate()[0].split())
    assert 5 < before < 200
    assert holding - before == pytest.approx(300, abs=10)
    assert after == pytest.approx(holding, abs=10)


def test_a_processor_has_a_name() -> None:
    assert processor_name().strip()
    assert "\n" not in processor_name()


TOO_MUCH = 1 << 60


@pytest.mark.parametrize(
    "use_too_much",
    [
        lambda: bytearray(TOO_MUCH),
        lambda: np.ones(TOO_MUCH, np.uint8),
        lambda: torch.ones(TOO_MUCH, dtype=torch.uint8),
        lambda: mmap.mmap(-1, TOO_MUCH),
    ],
    ids=["python", "numpy", "torch", "memory map"],
)
def test_too_little_memory_is_told_from_other_errors(use_too_much) -> None:
    with pytest.raises(Exception) as raised:
        use_too_much()
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    "fail", [lambda: torch.ones(2, 3) @ torch.ones(2, 3), lambda: Path("/nowhere").read_text(), lambda: 1 / 0]
)
def test_other_errors_are_not_too_little_memory(fail) -> None:
    with pytest.raises(Exception) as raised:
        fail()
    assert not is_out_of_memory(raised.value)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is all that programs are looked for in."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    gpu_name.cache_clear()
    yield folder
    gpu_name.cache_clear()


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        (None, None),
        ("echo NVIDIA A100; echo NVIDIA T4", "NVIDIA A100"),
        ("exit 0", None),
        ("echo no devices were found; exit 6", None),
    ],
)
def test_a_gpu_is_named_as_its_driver_names_it(programs: Path, driver: str | None, name: str | None) -> None:
    if driver:
        tool = programs / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{driver}\n")
        tool.chmod(0o755)
    assert gpu_name() == name


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells")
def test_what_is_held_is_no_longer_free() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    before = available_memory("cpu")
    assert before and 0 < before <= total
    held = bytearray(b"x") * 1_000_000_000
    holding = available_memory("cpu")
    # Others come and go on the same machine.
    assert holding and before - holding == pytest.approx(len(held), rel=0.8)


MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


@pytest.mark.parametrize(
    ("meminfo", "granted", "used", "free"),
    [
        (MEMINFO, None, None, 8_000_000 * 1024.0),
        (MEMINFO, "max", "5000", 8_000_000 * 1024.0),
        (MEMINFO, "2000000000", "500000000", 1_500_000_000.0),  # a container is granted less
        (MEMINFO, "90000000000", "500000000", 8_000_000 * 1024.0),
        (MEMINFO, "2000000000", None, 8_000_000 * 1024.0),
        ("MemTotal:       32000000 kB\n", None, None, None),
        (None, None, None, None),  # as on macOS
    ],
)
def test_free_memory_is_that_of_the_machine_or_of_the_container(
    monkeypatch: pytest.MonkeyPatch, meminfo: str | None, granted: str | None, used: str | None, free: float | None
) -> None:
    said = {
        "/proc/meminfo": meminfo,
        "/sys/fs/cgroup/memory.max": granted,
        "/sys/fs/cgroup/memory.current": used,
    }
    read_text = Path.read_text

    def read(path: Path, *arguments, **options) -> str:
        if str(path) not in said:
            return read_text(path, *arguments, **options)
        text = said[str(path)]
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert available_memory("cpu") == free


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_free_memory_of_a_gpu_shrinks_by_what_is_held_there() -> None:
    before = available_memory("cuda")
    held = torch.empty(500_000_000, dtype=torch.uint8, device="cuda")
    assert before and before - available_memory("cuda") >= held.numel() * 0.9
