"""Which random changes training images get, read from and written as one line such as ``flip shift=2 rotate=10``."""

from dataclasses import Field, dataclass, field, fields
from typing import Any

from engine.base.errors import LoupeError
from engine.base.text import join_words


def _field(default: Any, unit: str, low: float = 0, high: float = 1) -> Any:
    return field(default=default, metadata={"unit": unit, "low": low, "high": high})


@dataclass(frozen=True)
class Augmentation:
    """How far images may be changed; each image draws its own change. The defaults change nothing.

    flip: left and right are exchanged in half of the images.
    shift: the longest way up or down, and left or right, in pixels.
    rotate: the largest angle either way, in degrees.
    crop: the least share of the sides that is cut out, and then brought back to the full size.
    erase: the side of a square that is wiped out, as a share of the image's shorter side.
    Raises LoupeError for a number out of its range.
    """

    flip: bool = _field(False, "alone")
    shift: int = _field(0, "pixels either way", high=64)
    rotate: float = _field(0.0, "degrees either way", high=180)
    crop: float = _field(1.0, "least share of the sides that is kept", low=0.1)
    erase: float = _field(0.0, "side of a square, as a share of the shorter side", high=0.9)

    def __post_init__(self):
        for about in fields(self):
            if not about.metadata["low"] <= getattr(self, about.name) <= about.metadata["high"]:  # nor is nan
                raise _refused(f"{about.name} is {getattr(self, about.name)}")

    def __str__(self) -> str:
        """Write only what differs from the defaults, as ``parse_augmentation`` reads it."""
        words = []
        for about in fields(self):
            value = getattr(self, about.name)
            if value != about.default:
                words.append(about.name if about.name == "flip" else f"{about.name}={_number(value)}")
        return " ".join(words)


FIELDS: dict[str, Field] = {about.name: about for about in fields(Augmentation)}


def parse_augmentation(text: str) -> Augmentation:
    """Read words such as ``flip shift=2``, with spaces or commas between them; no words mean no augmentation.

    Raises LoupeError for a name that is unknown or repeated, and for a number that is none or out of its range.
    """
    values: dict[str, Any] = {}
    for word in text.lower().replace(",", " ").split():
        name, equals, value = word.partition("=")
        if name not in FIELDS:
            raise _refused(f"augment has {word!r}")
        if name in values:
            raise _refused(f"augment has {name} twice")
        values[name] = _value(name, value if equals or name != "flip" else "true")
    return Augmentation(**values)


def _value(name: str, text: str) -> bool | int | float:
    kind: Any = type(FIELDS[name].default)
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise _refused(f"{name} is {text!r}" if text else f"{name} has no value") from None


def _refused(mistake: str) -> LoupeError:
    known = join_words(
        f"{name} ({about.metadata['unit']})"
        if name == "flip"
        else f"{name}={about.metadata['low']:g}..{about.metadata['high']:g} ({_unit(about)})"
        for name, about in FIELDS.items()
    )
    return LoupeError(f"{mistake}, but augmentation must be words out of {known}, each at most once.")


def _unit(about: Field) -> str:
    whole = "whole " if isinstance(about.default, int) else ""
    return whole + about.metadata["unit"]


def _number(value: float) -> str:
    """Write a number as short as it reads back the same."""
    return repr(value).removesuffix(".0")
