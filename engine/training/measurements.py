"""What this machine trains quickest with, as it was measured: kept until a person asks to have it measured again.

JSON beside the datasets, by machine and training. A file that is damaged or missing is as good as an empty one.
"""

import json
import platform
from pathlib import Path
from typing import Any

from filelock import FileLock

from engine.base.paths import data_root, replacing_file, writing_folder


def measurements_file() -> Path:
    return data_root() / "quickest.json"


def key_of(training: str) -> str:
    """Return what a measurement on this machine is kept under."""
    return f"{_machine()}{training}"


def _machine() -> str:
    return f"{platform.node()}, "


def read_measurements() -> dict[str, Any]:
    """Read what was measured, on this machine and on others that share the folder."""
    try:
        found = json.loads(measurements_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def keep_measurement(key: str, found: dict[str, Any], instead_of: Any = None) -> None:
    """Write down what was measured, unless another has in the meantime: equal runs that start together stay equal.

    instead_of: what was kept when measuring began. Raises OSError where the folder cannot be written.
    """
    with _locked():
        kept = read_measurements()
        if kept.get(key) == instead_of:
            _write(kept | {key: found})


def measurements_here() -> list[str]:
    """List what was measured on this machine, by key."""
    return [key for key in read_measurements() if key.startswith(_machine())]


def forget_measurements() -> int:
    """Forget what was measured on this machine, so that trainings measure it again; returns how many were kept.

    Raises LoupeError where the folder cannot be written.
    """
    here = measurements_here()
    if here:
        with writing_folder(data_root()), _locked():
            _write({key: found for key, found in read_measurements().items() if key not in here})
    return len(here)


def _locked() -> FileLock:
    """Keep others from writing between a look at the file and its replacement; raises OSError without a folder."""
    data_root().stat()  # the lock would make it
    return FileLock(data_root() / ".quickest.lock")


def _write(measurements: dict[str, Any]) -> None:
    with replacing_file(measurements_file()) as beside:
        beside.write_text(json.dumps(measurements, indent=1) + "\n")
