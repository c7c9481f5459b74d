import csv
import io
import json
from pathlib import Path

import pytest

from engine.runs.log import History, history_rows
from engine.runs.records import Epoch, Evaluated, Record, Started, Step, to_line
from engine.runs.run import Run

KEYS = [
    *("record", "step", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss"),
    *("test_accuracy", "learning_rate", "images_per_second", "train_seconds", "memory_mb"),
]
STARTED = Started("digits", "abc", list("01"), 1280, 100, 2000, 20, 2, 1000, "cpu", 2, "float32", "2.0")


def history_of(folder: Path, *records: Record) -> History:
    (folder / "log.jsonl").write_text("".join(to_line(record) for record in records))
    return History(folder / "log.jsonl").read()


def test_there_is_a_row_for_each_step_evaluation_and_epoch_in_their_order(tmp_path: Path) -> None:
    history = history_of(
        tmp_path,
        STARTED,
        Step(10, 1, 0.9, 0.5, 0.01, 100.0, 1.0, 700.0),
        Step(20, 1, 0.8, 0.6, 0.02, 110.0, 2.0, 710.0),
        Evaluated(20, "test", 0.75, 0.65),
        Epoch(20, 1, 0.85, 0.55, 0.7, 0.66, 0.02, 105.0, 2.0, 720.0),
        Evaluated(21, "val", 0.7, 0.7),
    )
    rows = history_rows(history)
    assert [(row["record"], row["step"], row["epoch"]) for row in rows] == [
        ("step", 10, 1),
        ("step", 20, 1),
        ("evaluated", 20, 1),
        ("epoch", 20, 1),
        ("evaluated", 21, 2),
    ]
    assert [list(row) for row in rows] == [KEYS] * 5
    said = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert said[0] == {
        "record": "step",
        "step": 10,
        "epoch": 1,
        "train_loss": 0.9,
        "train_accuracy": 0.5,
        "learning_rate": 0.01,
        "images_per_second": 100.0,
        "train_seconds": 1.0,
        "memory_mb": 700.0,
    }
    assert said[2] == {"record": "evaluated", "step": 20, "epoch": 1, "test_loss": 0.75, "test_accuracy": 0.65}
    assert (said[3]["val_loss"], said[3]["val_accuracy"], said[3]["memory_mb"]) == (0.7, 0.66, 720.0)
    assert said[4] == {"record": "evaluated", "step": 21, "epoch": 2, "val_loss": 0.7, "val_accuracy": 0.7}


@pytest.mark.parametrize("records", [(), (STARTED,)])
def test_a_history_without_figures_has_no_rows(tmp_path: Path, records: tuple[Record, ...]) -> None:
    assert history_rows(history_of(tmp_path, *records)) == []


def test_without_its_beginning_an_evaluation_has_no_epoch(tmp_path: Path) -> None:
    (row,) = history_rows(history_of(tmp_path, Evaluated(21, "val", 0.7, 0.7)))
    assert (row["step"], row["epoch"]) == (21, None)


def test_the_rows_of_a_run_are_those_of_its_log(trained: Run) -> None:
    logged = [json.loads(line) for line in trained.log.read_text().splitlines()]
    wanted = [record for record in logged if record["record"] in ("step", "evaluated", "epoch")]
    rows = history_rows(trained.history())
    assert len(rows) == len(wanted) > 5
    for row, record in zip(rows, wanted, strict=True):
        assert {name: row[name] for name in record if name != "time"} == {
            name: value for name, value in record.items() if name != "time"
        }


def test_the_rows_make_a_csv(trained: Run) -> None:
    rows = history_rows(trained.history())
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS)
    writer.writeheader()
    writer.writerows(rows)
    read = list(csv.DictReader(text.getvalue().splitlines()))
    assert [float(row["train_loss"]) for row in read] == [row["train_loss"] for row in rows]
