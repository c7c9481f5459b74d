"""Work that tells how far it is: generators that yield progress, and return what they were for."""

from collections.abc import Callable, Generator
from typing import TypeVar

Progress = TypeVar("Progress")
Result = TypeVar("Result")


def run_to_end(steps: Generator[Progress, None, Result], tell: Callable[[Progress], object]) -> Result:
    """Run work to its end, telling its progress; returns its result."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as ended:
            return ended.value
        tell(progress)
