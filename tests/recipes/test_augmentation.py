import re

import pytest

from engine.base.errors import LoupeError
from engine.recipes.augmentation import Augmentation, parse_augmentation


def refusal(text: str) -> str:
    with pytest.raises(LoupeError) as refused:
        parse_augmentation(text)
    message = str(refused.value)
    assert len(re.findall(r"\.(?= |$)", message)) == 1
    for known in (
        "flip (alone)",
        "shift=0..64 (whole pixels",
        "rotate=0..180 (degrees",
        "crop=0.1..1 (",
        "erase=0..0.9",
    ):
        assert known in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Augmentation()),
        (" , ", Augmentation()),
        ("flip", Augmentation(flip=True)),
        ("flip=true", Augmentation(flip=True)),
        ("flip=false", Augmentation()),
        ("shift=2", Augmentation(shift=2)),
        ("shift=0 rotate=0 crop=1 erase=0", Augmentation()),
        ("Erase=.25,CROP=0.8, rotate=10\n shift=2  Flip", Augmentation(True, 2, 10.0, 0.8, 0.25)),
        ("shift=64 rotate=180 crop=0.1 erase=0.9", Augmentation(False, 64, 180.0, 0.1, 0.9)),
    ],
)
def test_words_say_what_is_to_be_done(text, expected):
    assert parse_augmentation(text) == expected


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (Augmentation(), ""),
        (Augmentation(flip=True, shift=2), "flip shift=2"),
        (Augmentation(True, 2, 10.0, 0.8, 0.25), "flip shift=2 rotate=10 crop=0.8 erase=0.25"),
        (Augmentation(rotate=12.3456789), "rotate=12.3456789"),
        (Augmentation(erase=0.00001), "erase=1e-05"),
        (Augmentation(rotate=10), "rotate=10"),
    ],
)
def test_the_text_of_an_augmentation_reads_back_as_the_same(augmentation, expected):
    assert str(augmentation) == expected
    assert parse_augmentation(expected) == augmentation


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("blur=2", "augment has 'blur=2'"),
        ("shift = 2", "shift has no value"),
        ("= 2", "augment has '='"),
        ("flip flip", "augment has flip twice"),
        ("shift=2 flip shift=2", "augment has shift twice"),
        ("shift", "shift has no value"),
        ("rotate=", "rotate has no value"),
        ("flip=", "flip has no value"),
        ("flip=1", "flip is '1'"),
        ("shift=2.5", "shift is '2.5'"),
        ("rotate=10°", "rotate is '10°'"),
        ("shift=-1", "shift is -1"),
        ("shift=65", "shift is 65"),
        ("rotate=181", "rotate is 181.0"),
        ("rotate=nan", "rotate is nan"),
        ("rotate=inf", "rotate is inf"),
        ("crop=0.09", "crop is 0.09"),
        ("crop=1.1", "crop is 1.1"),
        ("erase=0.95", "erase is 0.95"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_is_known(text, mistake):
    assert refusal(text).startswith(f"{mistake}, but augmentation must be ")


@pytest.mark.parametrize("settings", [{"shift": -1}, {"rotate": float("nan")}, {"crop": 0.0}, {"erase": 1.0}])
def test_an_augmentation_out_of_range_cannot_be_made(settings):
    with pytest.raises(LoupeError, match="but augmentation must be"):
        Augmentation(**settings)
