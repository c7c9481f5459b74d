import json
import math
import time
from dataclasses import asdict, replace
from typing import get_args

import pytest

from engine.runs.records import (
    FINAL,
    KINDS,
    Cancelled,
    Ended,
    Epoch,
    Evaluated,
    Evaluating,
    Extracting,
    Failed,
    Finished,
    Preparing,
    Queued,
    Record,
    Resumed,
    Started,
    Step,
    Stopped,
    from_line,
    to_line,
)

STEP = Step(100, 1, 0.25, 0.9, 0.001, 5000.0, 1.5)
ENDED = {
    "epochs": 5,
    "step": 4685,
    "kept": "of the last step",
    "train_loss": 0.1,
    "train_accuracy": 1 / 3,
    "val_loss": None,
    "val_accuracy": None,
    "test_loss": 0.2,
    "test_accuracy": 0.95,
    "train_seconds": 60.0,
    "images_per_second": 5000.0,
}
EXAMPLES = [
    Preparing(1000, 11_594_722),
    Queued("cuda"),
    Started("digits", "0123", ["zwölf", '"'], 1294, 143, 360, 21, 12, 61_706, "cpu", 2, "float32", "2.0"),
    Resumed(40),
    STEP,
    Epoch(100, 1, 0.25, 0.9, 0.5, 0.8, 0.001, 5000.0, 1.5),
    Epoch(100, 1, 0.25, 0.9, None, None, 1e-300, 5000.0, 1.5),
    Step(100, 1, 0.25, 0.9, 0.001, 5000.0, 1.5, memory_mb=512.5),
    Extracting(64, 800, 2.125),
    Evaluated(14, "test", 0.7, 0.85),
    Evaluating("test", 500, 10_000),
    Finished(**ENDED),
    Stopped(**ENDED),
    Cancelled(),
    Failed("A sentence.", "memory"),
    Failed("A sentence.\nAnother\u2028one\r\n"),
]


def test_every_kind_has_an_example():
    assert {type(example) for example in EXAMPLES} == set(KINDS.values()) == set(get_args(Record))


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_is_a_line_and_back(record):
    line = to_line(record)
    assert line.endswith("\n")
    assert line.encode().splitlines() == [line.encode()[:-1]]
    for written in (line, line.encode(), line.strip()):
        again = from_line(written)
        assert (again, type(again)) == (record, type(record))


def test_a_line_says_what_it_is_and_when_it_was_written():
    before = round(time.time(), 3)
    line = json.loads(to_line(STEP))
    assert before <= line.pop("time") <= round(time.time(), 3)
    assert line == {"record": "step"} | asdict(STEP)


def test_keys_of_a_newer_loupe_are_left_out():
    line = json.loads(to_line(STEP)) | {"grad_norm": 0.5, "host": {"name": "a"}}
    assert from_line(json.dumps(line)) == STEP


@pytest.mark.parametrize("record", [STEP, Epoch(100, 1, 0.25, 0.9, 0.5, 0.8, 0.001, 5000.0, 1.5)])
def test_a_field_that_an_older_loupe_did_not_write_has_its_default(record):
    line = json.loads(to_line(replace(record, memory_mb=300.0)))
    assert from_line(json.dumps(line)).memory_mb == 300.0
    del line["memory_mb"]
    assert from_line(json.dumps(line)) == record
    assert from_line(json.dumps(line | {"memory_mb": "much"})) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("The loss was no longer a finite number at step 3: training has diverged. Start again.", "diverged"),
        ("The disk that holds /runs is full. Free some space and try again.", ""),
    ],
)
def test_a_failure_that_was_written_without_a_kind_is_read_with_what_its_sentence_says(error, kind):
    assert from_line(json.dumps({"record": "failed", "time": 1.0, "error": error})) == Failed(error, kind)
    # What is written is not second-guessed.
    assert from_line(json.dumps({"record": "failed", "error": error, "kind": "memory"})) == Failed(error, "memory")
    assert from_line(json.dumps({"record": "failed", "error": 3})) is None


@pytest.mark.parametrize("key", ["step", "train_loss", "record"])
def test_a_line_without_a_key_is_none(key):
    line = json.loads(to_line(STEP))
    del line[key]
    assert from_line(json.dumps(line)) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"record": "telepathy", "time": 1}',
        '{"record": ["step"]}',
        '{"record": null}',
        "{}",
        "[]",
        '"step"',
        "17",
        "null",
        "",
        "\n",
        "Traceback (most recent call last):",
        b"\xff\xfe\x00",
        b"\x00" * 40,
    ],
)
def test_a_line_that_is_no_record_is_none(line):
    assert from_line(line) is None


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_wherever_a_line_is_cut_it_is_none(record):
    line = to_line(record).strip().encode()
    assert [length for length in range(len(line)) if from_line(line[:length]) is not None] == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_refused(value):
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        to_line(replace(STEP, train_loss=value))


def test_the_last_records_are_those_that_nothing_follows():
    last = {type(example) for example in EXAMPLES if isinstance(example, FINAL)}
    assert last == {Finished, Stopped, Cancelled, Failed}
    assert {kind for kind in KINDS.values() if issubclass(kind, Ended)} == {Finished, Stopped}


@pytest.mark.parametrize(
    "wrong", [{"train_loss": "0.5"}, {"train_accuracy": None}, {"step": 1.5}, {"step": True}, {"epoch": [1]}]
)
def test_a_record_with_a_value_of_another_type_is_damaged(wrong):
    values = json.loads(to_line(Step(10, 1, 0.5, 0.9, 0.001, 1000.0, 2.5))) | wrong
    assert from_line(json.dumps(values)) is None


def test_a_whole_number_is_a_number():
    values = json.loads(to_line(Step(10, 1, 0.5, 0.9, 0.001, 1000.0, 2.5))) | {"train_loss": 1}
    assert from_line(json.dumps(values)) == Step(10, 1, 1, 0.9, 0.001, 1000.0, 2.5)
