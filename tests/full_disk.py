"""A disk that is full: no file grows beyond a size."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from processes import python

from engine.runs.run import Run


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as none does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


EXECUTED_WITH_SMALL_FILES = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
del sys.argv[2]
runpy.run_module("engine.training.worker", run_name="__main__")
"""


def execute_with_small_files(run: Run, limit: int) -> int:
    arguments = "-c", EXECUTED_WITH_SMALL_FILES, str(run.path), str(limit)
    with run.output.open("wb") as output, python(*arguments, stderr=output) as process:
        return process.wait()
