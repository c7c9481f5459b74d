class LoupeError(ValueError):
    """A mistake or mishap that a person can mend.

    Its text is one sentence or two for the screen: what happened, what was expected, what to do.
    """


def reason_of(error: BaseException) -> str:
    """Put what another library's error says into one line, for the brackets of a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def listed(names) -> str:
    """Join names for a sentence: ``a, b and c``."""
    names = [str(name) for name in names]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else "nothing"]))
