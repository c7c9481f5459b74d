import os

import pytest

from engine.base.text import (
    escape_undecodable,
    format_bytes,
    format_duration,
    format_probability,
    join_words,
    pluralize,
    printable,
)


@pytest.mark.parametrize(("count", "words"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (12_345, "12,345 files")])
def test_one_is_counted_without_an_s(count, words):
    assert pluralize(count, "file") == words


@pytest.mark.parametrize(
    ("names", "words"),
    [([], "nothing"), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"), ([1, 2], "1 and 2")],
)
def test_names_are_joined_as_in_a_sentence(names, words):
    assert join_words(names) == words
    assert join_words(iter(names)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (41.6, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (360_000, "100 h"),
    ],
)
def test_a_time_is_said_as_people_do(seconds, words):
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_900, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (3_000_000_000_000, "3.0 TB"),
        (5e15, "5,000.0 TB"),
    ],
)
def test_bytes_are_said_with_a_unit_that_fits(count, words):
    assert format_bytes(count) == words


def test_a_name_in_a_message_stays_on_one_line_and_steers_no_terminal():
    assert printable("Füchse 狐.png") == "Füchse 狐.png"
    assert printable("a\nb\x1b[2J\u202ec") == "a\\nb\\x1b[2J\\u202ec"
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 200 + "..."
    assert printable("\n" * 500).isprintable()


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "0.0%"),
        (1e-7, "<0.1%"),
        (0.0005, "0.1%"),
        (0.5, "50.0%"),
        (0.9994, "99.9%"),
        (0.9995, ">99.9%"),
        (0.9999999, ">99.9%"),
        (1.0, "100.0%"),
    ],
)
def test_only_what_is_certain_is_said_to_be(probability, said):
    assert format_probability(probability) == said


def test_a_name_that_is_no_text_is_written_as_text():
    assert escape_undecodable("Kätzchen 猫.png") == "Kätzchen 猫.png"
    assert escape_undecodable(os.fsdecode(b"caf\xe9.png")) == "caf\\udce9.png"
    assert escape_undecodable(os.fsdecode(b"caf\xe9.png")).encode() == rb"caf\udce9.png"
