"""The command line as a whole: ``python -m engine COMMAND``, the headless twin of the pages over the same engine."""

import argparse
import io
import json
import os
import sys

from engine.base.errors import LoupeError, reason_of
from engine.commands import archives, datasets, evaluation, export, predict, recipes, training
from engine.commands.command import Action
from engine.runs.run import WORKER_ENVIRONMENT

# In the order in which --help lists their commands.
GROUPS = (datasets, recipes, training, evaluation, archives, predict, export)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as everywhere."""

    def error(self, message: str):
        raise LoupeError(f"{message}. See {self.prog} --help.")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m engine", description="Train image classifiers and look at what they get wrong.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(name: str, action: Action) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=action.__doc__, description=action.__doc__)
        added.add_argument("--json", action="store_true", help="print one JSON document on stdout, and nothing else")
        added.set_defaults(action=action)
        return added

    for group in GROUPS:
        group.add_commands(add_command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Execute the command that some arguments name, those of the process by default; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a file's name may be anything
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Before torch is loaded. Threads that spin beside those that open pictures take many times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", WORKER_ENVIRONMENT["GOMP_SPINCOUNT"])
    try:
        args = build_parser().parse_args(arguments)
        outcome = args.action(args)
        if args.json:
            print(json.dumps(outcome.document, indent=1, ensure_ascii=False, allow_nan=False))
        elif outcome.text:
            print(outcome.text)
        return outcome.exit_code
    except LoupeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 141
    except OSError as error:
        print(f"error: {reason_of(error)}. Check the files and folders that are named, and the disk.", file=sys.stderr)
        return 2
