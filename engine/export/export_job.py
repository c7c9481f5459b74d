"""An export as a job of its own, kept with its run: made once, for pages to offer."""

import sys
import zipfile
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.base.errors import LoupeError
from engine.base.jobs import Job, JobState, find_job, run_job, start_job
from engine.export.exporting import export
from engine.export.proof import Proof
from engine.runs.run import WORKER_ENVIRONMENT, Run, open_run


@dataclass(frozen=True)
class CachedExport:
    """An export of a run's weights as they are now: its folder, and its proof."""

    run: Run
    folder: Path
    proof: Proof

    def write_zip(self, path: Path) -> None:
        """Write its files into a zip, in a folder of the run's name."""
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(self.folder.iterdir()):
                archive.write(file, f"{self.run.id}/{file.name}")

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())


def start_export(run: Run, format: str) -> None:
    """Start to export a run in a format, ``onnx`` or ``torch``, in the background; one that is going on goes on.

    Raises LoupeError for a run that is gone.
    """
    if not run.path.is_dir():
        raise LoupeError(f"The run {run.id} is not there any more, so it cannot be exported. Choose another.")
    request = {"run": str(run.path), "format": format}
    start_job(_place(run, format), "engine.export.export_job", request, WORKER_ENVIRONMENT)


def export_state(run: Run, format: str) -> JobState | None:
    """Return how the latest export of a run in a format stands: its progress is a sentence; None without one."""
    job = find_job(_place(run, format))
    return job.state() if job else None


def cancel_export(run: Run, format: str) -> None:
    if job := find_job(_place(run, format)):
        job.delete()


def find_cached_export(run: Run, format: str) -> CachedExport | None:
    """Return the export that is kept of a run's weights; None where there is none, or it is of earlier weights."""
    job = find_job(_place(run, format))
    state = job.state() if job else None
    if not job or not state or state.status != "finished":
        return None
    folder = _files(job.folder)
    try:
        if state.result["weights"] == run.weights.stat().st_mtime_ns and folder.is_dir():
            return CachedExport(run, folder, Proof(**state.result["proof"]))
    except (OSError, TypeError, KeyError):
        pass
    return None


def _place(run: Run, format: str) -> Path:
    return run.path / "exports" / format


def _files(folder: Path) -> Path:
    return folder / "files"


def _export(folder: Path, request: dict[str, str]) -> Generator[str, None, dict[str, Any]]:
    run = open_run(request["run"])
    weights = run.weights.stat().st_mtime_ns if run.weights.exists() else None
    done = yield from export(run, request["format"], _files(folder))
    return {"weights": weights, "proof": asdict(done.proof)}


def execute(folder: Path) -> None:
    """Run an export that was started, to its end; one that was cancelled leaves nothing."""
    state = run_job(folder, partial(_export, folder))
    if state and state.status == "stopped":
        Job(folder).delete()


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
