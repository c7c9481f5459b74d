"""The command line, in this process or in one of its own, and what it answers."""

import io
import json
import os
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from processes import python

from engine.commands.main import main


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self):
        """The one JSON document that is all of stdout."""
        return json.loads(self.stdout)


def call(*arguments: str) -> Answer:
    """Execute a command in this process, which need not load everything anew; leaves the process as it was."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with patch.dict(os.environ), redirect_stdout(stdout), redirect_stderr(stderr):
            code = main(list(arguments))
    except SystemExit as left:  # as --help does
        code = left.code
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    return Answer(code, *(stream.buffer.getvalue().decode() for stream in (stdout, stderr)))


def begin(*arguments: str) -> subprocess.Popen:
    """Start a command in a process of its own."""
    return python("-W", "error", "-m", "engine", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> Answer:
    with process:
        stdout, stderr = process.communicate(timeout=120)
    return Answer(process.returncode, stdout, stderr)


def command(*arguments: str) -> Answer:
    """Execute a command in a process of its own."""
    return finish(begin(*arguments))


def assert_refused(answer: Answer, reason: str) -> None:
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1 and answer.stderr.endswith("\n")
    assert reason in answer.stderr
