"""Work that tells how far it is: generators that yield progress, and return what they were for."""

import threading
from collections.abc import Callable, Generator
from typing import TypeVar

Progress = TypeVar("Progress")
Result = TypeVar("Result")

LOOK_EVERY_SECONDS = 0.2


def run_to_end(steps: Generator[Progress, None, Result], tell: Callable[[Progress], object]) -> Result:
    """Run work to its end, telling its progress; returns its result."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as ended:
            return ended.value
        tell(progress)


def in_thread(work: Callable[[], Result]) -> Generator[None, None, Result]:
    """Do work that tells nothing in a thread, yielding a few times a second; returns its result, or raises its error.

    The thread does not keep the process alive: what is closed early goes on only until the process ends.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_EVERY_SECONDS)
        yield
    if errors:
        # Not kept here: its traceback has this frame, and what it holds open would be closed only by the next sweep
        # of the garbage collector.
        raise errors.pop()
    return results[0]
