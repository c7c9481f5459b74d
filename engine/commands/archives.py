"""Commands that take a run to another Loupe: write it to one file, and bring it in from there."""

import argparse
from pathlib import Path

from engine.base.text import format_bytes, printable
from engine.commands.command import AddCommand, Outcome, exit_on_sigterm
from engine.commands.progress import tell
from engine.runs.run import open_run


def add_commands(add_command: AddCommand) -> None:
    archiving = add_command("archive", archive)
    archiving.add_argument("run", metavar="RUN", help="the id of a run")
    archiving.add_argument("file", metavar="FILE", help="what to write, whose name ends in .zip")

    restoring = add_command("restore", restore)
    restoring.add_argument("file", metavar="FILE", help="the archive of a run")


def archive(args: argparse.Namespace) -> Outcome:
    """Write a run to one file, to be restored in another Loupe, with all that it takes to train it further."""
    from engine.runs.archive import archive_run

    run = open_run(args.run)
    archived = archive_run(run, Path(args.file))
    for sentence in archived.left_out:
        tell(sentence)
    document = {"run": run.id, "file": args.file, "bytes": archived.bytes, "files": archived.files}
    return Outcome(document, f"{run.id}: written to {printable(args.file)} ({format_bytes(archived.bytes)})")


def restore(args: argparse.Namespace) -> Outcome:
    """Bring in a run from its archive. Nothing in the file is executed, and no run is replaced."""
    from engine.runs.archive import restore_run

    exit_on_sigterm()
    run = restore_run(Path(args.file))
    status, files = run.status(), sorted(path.name for path in run.path.iterdir())
    return Outcome({"run": run.id, "status": status, "files": files}, f"{run.id}: restored, {status}")
