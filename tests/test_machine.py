from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import LoupeError
from engine.machine import cores, gpu_name, has_bfloat16, resolve
from engine.recipes import Recipe


def test_resolve_makes_the_automatic_choices() -> None:
    resolved = resolve(Recipe(learning_rate=0.5))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = "bfloat16" if has_bfloat16(device) else "float32"
    assert resolved == Recipe(learning_rate=0.5, device=device, threads=cores(), precision=precision)


def test_resolve_keeps_what_was_chosen() -> None:
    chosen = Recipe(name="mine", epochs=7, device="cpu", threads=3, precision="bfloat16")
    assert resolve(chosen) == chosen
    assert resolve(replace(chosen, precision="float32")).precision == "float32"


def test_what_was_resolved_stays_as_it_is() -> None:
    resolved = resolve(Recipe())
    assert resolve(resolved) == resolved


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(LoupeError, match="device is 'cuda', but no GPU"):
        resolve(Recipe(device="cuda"))


def test_a_process_may_use_at_least_one_core() -> None:
    assert cores() >= 1


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
