"""What takes long to make and several tests read: made once, for all workers and sessions."""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from engine.base.paths import PROJECT_ROOT

CACHE = PROJECT_ROOT / ".pytest_cache" / "loupe"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that ``make`` fills, kept from one session to the next until a source that decides it changes."""
    folder = CACHE / f"{name}-{digest_of_sources(make.__code__.co_filename)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock"):  # other workers want it too
        if not folder.exists():
            for outdated in CACHE.glob(f"{name}-*"):
                shutil.rmtree(outdated)
            _fill(folder, make)
    return folder


def made_within(kept: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that ``make`` fills from what was made once, and that goes when that goes."""
    folder = kept / name
    with FileLock(kept / f"{name}.lock"):
        if not folder.exists():
            _fill(folder, make)
    return folder


def _fill(folder: Path, make: Callable[[Path], None]) -> None:
    make(beside := folder.with_name(f".{folder.name}.{os.getpid()}"))
    beside.rename(folder)


@cache
def digest_of_sources(maker: str) -> str:
    """Hash what decides the outcome: the file of the tests that makes it, the engine's sources, and the packages."""
    digest = hashlib.sha256("".join(map(version, ("torch", "onnxscript"))).encode())
    engine = PROJECT_ROOT / "engine"
    for file in (Path(maker), *sorted(engine.rglob("*.py")), *sorted(engine.rglob("*.jinja"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
