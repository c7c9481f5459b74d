"""Where things live, and how files are replaced."""

import errno
import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.base.errors import LoupeError, reason_of
from engine.base.text import printable

# The names that ``replacing_file`` writes under: of the file, the process and the thread.
UNFINISHED = re.compile(r"\..+\.\d+-\d+", re.DOTALL)

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def data_root() -> Path:
    """Return ``LOUPE_DATA``, the folder of datasets, laid out as torchvision's ``root``."""
    return _place("LOUPE_DATA", "data")


def weights_folder() -> Path:
    """Return the folder of downloaded weights."""
    return data_root() / "weights"


def runs_root() -> Path:
    """Return ``LOUPE_RUNS``, the folder with one directory per run."""
    return _place("LOUPE_RUNS", "runs")


def _place(variable: str, default: str) -> Path:
    named = os.environ.get(variable)
    # os.path's, which leaves alone what it cannot expand
    return Path(os.path.expanduser(named)).resolve() if named else PROJECT_ROOT / default  # noqa: PTH111


def child_environment() -> dict[str, str]:
    """Return the environment for a process of ours, which starts in the project's folder."""
    return os.environ | {"LOUPE_DATA": str(data_root()), "LOUPE_RUNS": str(runs_root())}


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` once it is whole."""
    # Two sessions of one server are threads of one process.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def clear_unfinished_files(folder: Path) -> None:
    """Delete the files that killed processes were about to put into place in a folder; raises OSError where it cannot.

    Folders and the hidden files of others, an editor's say, stay.
    """
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file."""
    try:
        with path.open("rb") as file:
            # Shared, so that those who only look do not take each other for the one who holds it.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def writing_file(path: Path) -> Iterator[None]:
    """Turn a file that a person named and that cannot be written into a sentence."""
    try:
        yield
    except OSError as error:
        raise LoupeError(
            f"{printable(str(path))} could not be written ({error.strerror or reason_of(error)}). Name a file in a "
            "folder that can be, with room for it."
        ) from error


@contextmanager
def writing_folder(folder: Path) -> Iterator[None]:
    """Turn a folder that cannot be written, or a full disk, into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LoupeError(f"The disk that holds {folder} is full. Free some space and try again.") from error
        raise LoupeError(
            f"{folder} cannot be written ({error.strerror}). Loupe keeps what it makes there: make it writable, "
            "or point LOUPE_DATA and LOUPE_RUNS at folders that are."
        ) from error
