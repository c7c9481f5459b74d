"""Processes of ours that go on when whoever started them is gone."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from engine.base.paths import PROJECT_ROOT, child_environment


def start_in_background(
    module: str, argument: str, output: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start ``python -m MODULE ARGUMENT`` in a session of its own, so that Ctrl+C on ours does not reach it.

    output: the file that gets what it prints. environment: what is to be set unless it is already.
    """
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", module, argument],
            cwd=PROJECT_ROOT,
            env={**(environment or {}), **child_environment()},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Whoever started it waits for its end: it is never left as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    return process
