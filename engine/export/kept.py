"""Exports that are kept with their run: made once, by a process of its own, for pages to offer."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from engine.base.errors import LoupeError
from engine.base.paths import PROJECT_ROOT, child_environment, writing_folder
from engine.export.proof import Proof
from engine.runs.run import Run

ERROR = "error: "


@dataclass(frozen=True)
class CachedExport:
    """An export of a run's weights as they are now: its folder, and its proof."""

    folder: Path
    proof: Proof

    def write_zip(self, path: Path) -> None:
        """Write its files into a zip, in a folder of the run's name."""
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(self.folder.iterdir()):
                archive.write(file, f"{self.folder.parent.parent.name}/{file.name}")

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())


def _place(run: Run, format: str) -> tuple[Path, Path]:
    """Return where an export of a run is kept, and where it is written of which weights it is."""
    folder = run.path / "exports"
    return folder / format, folder / f"{format}.json"


def find_cached_export(run: Run, format: str) -> CachedExport | None:
    """Return the export that is kept of a run's weights; None where there is none, or it is of earlier weights."""
    folder, about = _place(run, format)
    try:
        known = json.loads(about.read_text())
        if known["weights"] == run.weights.stat().st_mtime_ns and folder.is_dir():
            return CachedExport(folder, Proof(**known["proof"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def make_cached_export(run: Run, format: str, tell: Callable[[str], object]) -> None:
    """Export a run in a process of its own, and keep it, telling what is being done; raises LoupeError if it fails.

    Whoever asked may be stopped meanwhile: the process then ends too. Who asks for what is being made waits for it.
    """
    folder, about = _place(run, format)
    with writing_folder(run.path):
        folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / f".{format}.lock"):
        if not find_cached_export(run, format):
            _make(run, format, folder, about, tell)


def _make(run: Run, format: str, folder: Path, about: Path, tell: Callable[[str], object]) -> None:
    weights = run.weights.stat().st_mtime_ns
    with writing_folder(run.path):
        about.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "export", run.id, "--format", format, "--json", str(folder)],
        cwd=PROJECT_ROOT,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            said = ""
            for line in process.stderr or ():
                said = line.strip()
                if not said.startswith(ERROR):
                    tell(said)
            document = process.stdout.read() if process.stdout else ""
            process.wait()
        finally:
            if process.returncode is None:
                process.terminate()  # and leaves nothing behind
    if process.returncode:
        raise LoupeError(said.removeprefix(ERROR) or "The export ended without a word: memory may have run out.")
    with writing_folder(run.path):
        about.write_text(json.dumps({"weights": weights, "proof": json.loads(document)["proof"]}) + "\n")
