class LoupeError(ValueError):
    """A mistake or mishap that a person can mend.

    Its text is one sentence or two for the screen: what happened, what was expected, what to do.
    """


class DivergedError(LoupeError):
    """A training has diverged: what it makes is no longer finite numbers."""


def reason_of(error: BaseException) -> str:
    """Put what another library's error says into one line, for the brackets of a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__
