"""The environment of a run's process, for benchmarks: what is measured there is to be what a run does."""

import os
import platform
import sys

import torch

from engine.base import machine
from engine.runs.run import WORKER_ENVIRONMENT


def start_as_a_run_does() -> None:
    """Start this program again with a run's environment, unless it has it: the C library looks only at the start."""
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | WORKER_ENVIRONMENT)


def describe_machine() -> str:
    return (
        f"{machine.processor_name()}, {machine.cores()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
