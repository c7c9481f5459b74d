"""Progress, told on stderr: stdout is for results."""

import sys
import time
from collections.abc import Callable
from typing import Any


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def once_a_second(in_words: Callable[[Any], str]) -> Callable[[Any], None]:
    """Return a function that tells the progress it is called with: the first, then at most one a second."""
    told = 0.0

    def tell_now_and_then(progress: Any) -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            tell(in_words(progress))
            told = time.monotonic()

    return tell_now_and_then
