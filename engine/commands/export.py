"""The command that takes a model away: a graph, a program, or a script that trains it again."""

import argparse
import os
from pathlib import Path

from engine.base.errors import LoupeError
from engine.base.progress import run_to_end
from engine.base.text import format_bytes, printable
from engine.commands.command import AddCommand, Outcome, exit_on_sigterm
from engine.commands.progress import tell
from engine.runs.run import open_run


def add_commands(add_command: AddCommand) -> None:
    exporting = add_command("export", export_model)
    exporting.add_argument("run", metavar="RUN", help="the id of a run")
    exporting.add_argument("--format", choices=("onnx", "torch", "script"), required=True, help="what to write")
    exporting.add_argument(
        "path", metavar="PATH", help="a file such as model.onnx, or a folder, which gets all that is needed to use it"
    )


def export_model(args: argparse.Namespace) -> Outcome:
    """Take a run's model away as an ONNX graph, a torch program, or a plain PyTorch script that trains it again."""
    from engine.export.exporting import check_target, export

    exit_on_sigterm()
    if not args.path.strip():
        raise LoupeError("No place was named to export to. Name a file such as model.onnx, or a folder.")
    path = Path(os.path.abspath(os.path.expanduser(args.path)))  # noqa: PTH100, PTH111 - a link stays what it is
    check_target(path, args.format)
    run = open_run(args.run)
    done = run_to_end(export(run, args.format, path), tell)
    text = "\n".join(f"written: {printable(str(file))} ({format_bytes(file.stat().st_size)})" for file in done.files)
    if done.proof:
        text += f"\n{done.proof.in_words()}"
    return Outcome({"run": run.id, "format": args.format} | done.as_document(), text)
