"""What a command is: a function of its arguments, and what it ends with."""

import argparse
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """What ``--json`` prints, what is printed without it, if anything, and the exit code."""

    document: object
    text: str
    exit_code: int = 0


Action = Callable[[argparse.Namespace], Outcome]

# Adds a command, which its action's docstring describes, and returns its parser for the arguments.
AddCommand = Callable[[str, Action], argparse.ArgumentParser]


def exit_on_sigterm() -> None:
    """Have SIGTERM end this process as Ctrl+C does: with all that is cleaned up on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
