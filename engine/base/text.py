"""Saying numbers and names as people do, on pages and in a terminal alike."""

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}

UNITS = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


def pluralize(count: int, noun: str) -> str:
    """Say how many of something there are: ``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def join_words(names) -> str:
    """Join names for a sentence: ``a, b and c``."""
    names = [str(name) for name in names]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else "nothing"]))


def format_duration(seconds: float) -> str:
    """Say a time as people do: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        count, unit, rest, smaller = whole // 60, "min", whole % 60, "s"
    else:
        count, unit, rest, smaller = whole // 3600, "h", whole % 3600 // 60, "min"
    return f"{count} {unit}" + (f" {rest} {smaller}" if rest else "")


def format_bytes(count: float) -> str:
    """Say a number of bytes with a unit that fits."""
    if count < 1000:
        return f"{count:,.0f} bytes"
    unit, size = next(((unit, size) for unit, size in UNITS if count < 999.95 * size), UNITS[-1])
    return f"{count / size:,.1f} {unit}"


def escape_undecodable(name: str) -> str:
    """Write the name of a file, which need not be text in any encoding, as text: what is none is escaped."""
    return name.encode(errors="backslashreplace").decode()


def printable(name: str) -> str:
    """Write a name for a message: on one line, cut to 200 characters, with what could steer a terminal escaped."""
    cut = name if len(name) <= 200 else f"{name[:200]}..."
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in cut
    )


def format_probability(probability: float) -> str:
    """Say a probability in percent, and that it is 0% or 100% only where it is."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= probability < 1 else f"{probability:.1%}"
