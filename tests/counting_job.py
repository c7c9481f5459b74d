"""Work for the tests of jobs, ``python -m tests.counting_job FOLDER``: it counts, and does what else it is asked to."""

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path

from engine.base.errors import LoupeError
from engine.base.jobs import run_job


def count(request: dict) -> Generator[int, None, dict]:
    """Count to ``to``; on the way wait at a number, and fail, crash, hang or be killed, as the request has it."""
    folder = Path(request["folder"])
    try:
        for number in range(request["to"]):
            if number == request.get("wait"):
                while not (folder / "go on").exists():
                    yield number
                    time.sleep(0.01)
            if number == request.get("fail"):
                raise LoupeError("The count failed. Count again.")
            if number == request.get("crash"):
                raise KeyError("no such number")
            if number == request.get("die"):
                os._exit(7)
            if number == request.get("hang"):
                (folder / "hanging").touch()
                while True:
                    time.sleep(0.01)
            yield number
    finally:
        (folder / "closed").touch()
    return {"counted": request["to"]}


if __name__ == "__main__":
    run_job(Path(sys.argv[1]), count)
