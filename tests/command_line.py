"""The command line in a process of its own, and what it answers."""

import json
import subprocess
from dataclasses import dataclass

from processes import python


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self):
        """The one JSON document that is all of stdout."""
        return json.loads(self.stdout)


def begin(*arguments: str) -> subprocess.Popen:
    return python("-W", "error", "-m", "engine", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> Answer:
    with process:
        stdout, stderr = process.communicate(timeout=120)
    return Answer(process.returncode, stdout, stderr)


def command(*arguments: str) -> Answer:
    return finish(begin(*arguments))


def assert_refused(answer: Answer, reason: str) -> None:
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1 and answer.stderr.endswith("\n")
    assert reason in answer.stderr
