import csv
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, assert_refused, begin, call, finish
from picture_files import encode, pack, write
from PIL import Image
from processes import folders, python, wait_until
from trained_runs import train_run

from engine.base.text import format_probability
from engine.data.dataset import open_dataset
from engine.data.download import fetch
from engine.evaluation.predictions import load_predictions
from engine.runs.run import Run


@dataclass(frozen=True)
class Predicted:
    """Answers of the command, and the folder of the pictures that they are of."""

    folder: Path
    answers: dict[str, Answer]

    @property
    def pictures(self) -> list[str]:
        return [str(self.folder / f"picture {number}.png") for number in range(3)]


@pytest.fixture(scope="module")
def predicted(trained: Run, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    folder = tmp_path_factory.mktemp("pictures")
    with folders(digits_data, trained.path.parent):
        test = open_dataset("digits").splits["test"]
        files = [encode(Image.fromarray(image[..., 0])) for image in test.images[:8]]
        write(folder, {f"picture {number}.png": content for number, content in enumerate(files[:3])})
        write(folder, {"broken.png": files[0][:60], "x[1].png": files[1], "\udcff.png": files[2]})
        labelled = {f"{test.labels[number]}/{number}.png": content for number, content in enumerate(files)}
        pack(write(folder / "labelled", labelled) / "packed.zip", labelled | {"readme.txt": b"", "in.zip": b""})
        (folder / "empty").mkdir()
        pictures = [str(folder / f"picture {number}.png") for number in range(3)]
        bad = [str(folder / "broken.png"), str(folder / "missing.png")]
        table = str(folder / "answers.csv")
        answers = {
            "text": call("predict", trained.id, *pictures),
            "json": call("predict", trained.id, *pictures, *bad, "--json", "--csv", table),
            "no table": call("predict", trained.id, pictures[0], "--csv", str(folder / "nowhere" / "answers.csv")),
            "full": call("predict", trained.id, *pictures, "--csv", "/dev/full"),
            "labelled": call(
                *("predict", trained.id, f"{folder}/labelled/", f"{folder}/labelled/packed.zip"),
                *("--csv", str(folder / "labelled.csv"), "--json"),
            ),
        }
    return Predicted(folder, answers)


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_predict_answers_as_the_evaluation_does(predicted: Predicted, trained: Run) -> None:
    rows = predicted.answers["json"].document
    bad = [str(predicted.folder / "broken.png"), str(predicted.folder / "missing.png")]
    assert [row["file"] for row in rows] == [*predicted.pictures, *bad]
    predictions = load_predictions(trained.predictions("test"))
    for row, probabilities in zip(rows[:3], predictions.probabilities[:3], strict=True):
        assert row.keys() == {"file", "label", "confidence", "top"}
        order = np.argsort(-probabilities)[:5]
        assert [best["label"] for best in row["top"]] == [str(index) for index in order]
        assert [best["confidence"] for best in row["top"]] == pytest.approx(probabilities[order].tolist(), abs=1e-6)
        assert all(best.keys() == {"label", "confidence"} for best in row["top"])
        assert {"label": row["label"], "confidence": row["confidence"]} == row["top"][0]


def test_predict_names_the_pictures_that_it_cannot_read(predicted: Predicted) -> None:
    answer = predicted.answers["json"]
    assert answer.code == 1
    broken, missing = answer.document[3:]
    assert broken.keys() == missing.keys() == {"file", "error"}
    assert broken["error"]
    assert missing["error"].startswith("There is no such file.")
    assert answer.stderr == "2 of 5 pictures could not be classified\n"


def test_predict_writes_a_table(predicted: Predicted) -> None:
    rows = table_of(predicted.folder / "answers.csv")
    assert list(rows[0]) == ["file", "label", "confidence", "error", "true", "notes"]
    for row, answer in zip(rows, predicted.answers["json"].document, strict=True):
        assert row == {name: str(answer.get(name, "")) for name in row}


def test_predict_answers_in_words(predicted: Predicted) -> None:
    answer = predicted.answers["text"]
    assert (answer.code, answer.stderr) == (0, "")
    expected = [
        f"{row['file']}: {row['label']} ({format_probability(row['confidence'])})"
        for row in predicted.answers["json"].document[:3]
    ]
    assert answer.stdout.splitlines() == expected


def test_predict_tells_how_many_are_right_where_folders_say_what_they_are(predicted: Predicted) -> None:
    answer = predicted.answers["labelled"]
    rows = [row for row in answer.document if "/packed.zip/" not in row["file"]]
    in_zip = [row for row in answer.document if "/packed.zip/" in row["file"]]
    assert (answer.code, len(rows), len(in_zip)) == (0, 8, 8)
    assert [{**row, "file": row["file"].replace("/packed.zip/", "/")} for row in in_zip] == rows
    assert all(row["file"].startswith(f"{predicted.folder}/labelled/{row['true']}/") for row in rows)
    right = sum(row["true"] == row["label"] for row in answer.document)
    # The zip that is in the folder is passed over there, as are two files in it.
    passed_over, told = answer.stderr.splitlines()
    assert passed_over == "passed over: 3 other files, no pictures"
    assert told.startswith(
        f"{right:,} of 16 right of those whose folder or name says what they are: {right / 16:.2%} ("
    )
    assert [row["true"] for row in table_of(predicted.folder / "labelled.csv")] == [
        row["true"] for row in answer.document
    ]


def test_predict_says_when_the_table_cannot_be_written(predicted: Predicted) -> None:
    assert_refused(predicted.answers["no table"], "answers.csv could not be written (No such file or directory)")
    assert_refused(predicted.answers["full"], "/dev/full could not be written (No space left on device)")


def test_predict_refuses_pictures_for_a_run_on_a_table(tmp_path: Path) -> None:
    fetch("blobs")
    run, _ = train_run(open_dataset("blobs"), scaling="dataset")
    picture = write(tmp_path, {"picture.png": encode(Image.new("L", (8, 8)))}) / "picture.png"
    assert_refused(
        call("predict", run.id, str(picture), "--json"),
        "This model classifies rows of 4 numbers, not pictures. Choose a run that was trained on images.",
    )


def test_predict_needs_no_dataset(predicted: Predicted, finished: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOUPE_DATA", str(tmp_path / "nothing"))
    answer = call("predict", finished.id, *predicted.pictures, "--json")
    assert answer.code == 0
    assert answer.document == predicted.answers["json"].document[:3]
    assert not (tmp_path / "nothing").exists()


def test_a_name_is_told_so_that_it_is_found_again(predicted: Predicted, finished: Run, tmp_path: Path) -> None:
    table, name = tmp_path / "answers.csv", str(predicted.folder / "\udcff.png")
    answer = call("predict", finished.id, name, str(predicted.folder / "x[[]1].png"), "--csv", str(table))
    assert answer.code == 0
    by_name, by_glob = answer.stdout.splitlines()
    assert by_name.startswith(f"{predicted.folder}/\\udcff.png: ")  # a terminal would not bear the byte
    assert by_glob.startswith(f"{predicted.folder}/x[1].png: ")
    assert table_of(table)[0]["file"] == name


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("empty", "There is no picture in it"),
        ("*.jpg", "No file matches this"),
        ("missing.zip", "There is no such file"),
    ],
)
def test_a_selection_without_pictures_is_a_row_with_its_reason(
    predicted: Predicted, finished: Run, path: str, reason: str
) -> None:
    answer = call("predict", finished.id, f"{predicted.folder}/{path}", "--json")
    (row,) = answer.document
    assert row.keys() == {"file", "error"}
    assert reason in row["error"]
    assert (answer.code, answer.stderr) == (1, "1 of 1 picture could not be classified\n")


def test_ink_is_left_as_it_is_when_that_is_asked(finished: Run, tmp_path: Path) -> None:
    strokes = open_dataset("digits").splits["test"].images[0, ..., 0].repeat(10, axis=0).repeat(10, axis=1)
    page = tmp_path / "page.png"
    Image.fromarray(np.pad(255 - strokes, 40, constant_values=255)).save(page)
    (read,) = call("predict", finished.id, str(page), "--json").document
    (as_it_is,) = call("predict", finished.id, str(page), "--json", "--no-ink").document
    assert len(read["notes"]) == 1
    assert "notes" not in as_it_is
    assert read["top"] != as_it_is["top"]


# A list on standard input, and answers as they come


def begin_with_list(run: Run, *arguments: str, **settings) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return python("-W", "error", "-m", "engine", "predict", run.id, "-", *arguments, **pipes | settings)


def give(process: subprocess.Popen, line: bytes) -> None:
    process.stdin.buffer.write(line)
    process.stdin.flush()


@pytest.mark.processes
def test_each_path_of_a_list_is_answered_while_the_list_is_still_open(
    predicted: Predicted, finished: Run, tmp_path: Path
) -> None:
    table = tmp_path / "answers.csv"
    first, second, third = (os.fsencode(path) for path in predicted.pictures)
    expected = predicted.answers["text"].stdout.splitlines()
    with begin_with_list(finished, "--csv", str(table)) as process:
        give(process, first + b"\n")
        assert process.stdout.readline() == expected[0] + "\n"
        assert len(table_of(table)) == 1
        give(process, b"\n\r\n" + second + b"\r\n")
        assert process.stdout.readline() == expected[1] + "\n"
        assert [row["file"] for row in table_of(table)] == predicted.pictures[:2]
        give(process, third[:10])
        give(process, third[10:] + b"\n" + os.fsencode(predicted.folder) + b"/\xff.png\n")
        assert process.stdout.readline() == expected[2] + "\n"
        assert process.stdout.readline().startswith(f"{predicted.folder}/\\udcff.png: ")
        give(process, b"not/there\0.png\nnowhere.png")  # without an end of the line
        rest, errors = process.communicate(timeout=120)
    assert rest.splitlines() == [
        "not/there\\x00.png: error: There is no such file. Check its name and folder.",
        "nowhere.png: error: There is no such file. Check its name and folder.",
    ]
    assert errors == "2 of 6 pictures could not be classified\n"
    assert (process.returncode, len(table_of(table))) == (1, 6)


@contextmanager
def standard_input(folder: Path, content: str) -> Iterator[None]:
    file = folder / "list.txt"
    file.write_text(content)
    with file.open() as lines, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", lines)
        yield


def test_a_list_may_name_folders_and_stand_among_paths_and_is_one_document(
    predicted: Predicted, finished: Run, tmp_path: Path
) -> None:
    folder = predicted.folder / "labelled" / "packed.zip"
    first, *_ = predicted.pictures
    with standard_input(tmp_path, f"{folder}\n{first}"):
        answer = call("predict", finished.id, "-", first, "--json")
    names = [row["file"] for row in answer.document]
    assert len(names) == 10
    assert names[-2:] == [first, first]
    assert all(name.startswith(f"{folder}/") for name in names[:-2])


def test_a_list_without_a_path_or_no_list_at_all_is_refused(finished: Run, tmp_path: Path, monkeypatch) -> None:
    for content, options in (("", ["--json"]), ("\n\r\n\n", [])):
        with standard_input(tmp_path, content):
            answer = call("predict", finished.id, "-", *options)
        assert_refused(answer, "No picture was named: the list on standard input is empty.")
    monkeypatch.setattr("sys.stdin", None)  # as Python has it where the descriptor is closed
    assert_refused(call("predict", finished.id, "-"), "There is no standard input to read the list of pictures from.")


@pytest.mark.processes
def test_ctrl_c_ends_it_at_once_also_while_it_waits_for_the_list(predicted: Predicted, finished: Run) -> None:
    waiting = begin_with_list(finished)
    busy = begin("predict", finished.id, *predicted.pictures * 5000)
    give(waiting, os.fsencode(predicted.pictures[0]) + b"\n")
    for process in (waiting, busy):
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
    # The list is still open: nothing but Ctrl+C ends it.
    assert waiting.wait(60) == 130
    for process in (waiting, busy):
        answer = finish(process)
        assert (answer.code, answer.stderr) == (130, "")
        assert len(answer.stdout.splitlines()) < 10_000


@pytest.mark.processes
def test_a_reader_that_has_seen_enough_ends_it_quietly(predicted: Predicted, finished: Run, tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    begun = [
        begin("predict", finished.id, *predicted.pictures * 1000),
        begin("predict", finished.id, *predicted.pictures * 1000, "--csv", str(table)),
    ]
    for process in begun:
        process.stdout.readline()
        process.stdout.close()
        with process:
            assert process.stderr.read() == ""
        assert process.returncode == 141
    assert 1 <= len(table_of(table)) < 3000


# Memory

MEASURED = """
import sys
from engine.commands.main import main
from engine.base.machine import peak_memory

code = main(sys.argv[1:])
print(peak_memory("cpu"), file=sys.stderr)
sys.exit(code)
"""


def begin_measured(*arguments: str) -> subprocess.Popen:
    return python("-W", "error", "-c", MEASURED, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def peak_of(process: subprocess.Popen) -> tuple[Answer, float]:
    """Wait for a process; returns its answer, and the most memory that it had, in MB."""
    answer = finish(process)
    return answer, float(answer.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def baseline(predicted: Predicted, trained: Run, digits_data: Path) -> float:
    """The most memory, in MB, that it takes to answer for three small pictures."""
    with folders(digits_data, trained.path.parent):
        answer, peak = peak_of(begin_measured("predict", trained.id, *predicted.pictures))
    assert answer.code == 0
    return peak


@pytest.mark.sweep
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_memory_does_not_grow_with_the_number_of_pictures(
    predicted: Predicted, finished: Run, baseline: float, tmp_path: Path
) -> None:
    content, many = Path(predicted.pictures[0]).read_bytes(), tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"{number:05}.png", b"no" if number % 100 == 7 else content)
    answer, peak = peak_of(begin_measured("predict", finished.id, str(many)))
    lines = answer.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{many}/{number:05}.png" for number in range(10_000)]
    assert sum(": error: This is not a picture" in line for line in lines) == 100
    assert (answer.code, peak < baseline + 50) == (1, True)


@pytest.mark.sweep
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_photographs_of_144_million_pixels_are_answered_one_decoded_at_a_time(
    finished: Run, baseline: float, tmp_path: Path
) -> None:
    large = Image.linear_gradient("L").resize((12_000, 12_000)).convert("RGB")
    large.save(tmp_path / "1.png", compress_level=1)
    large.save(tmp_path / "2.jpg")
    del large
    (tmp_path / "3.png").hardlink_to(tmp_path / "1.png")
    answer, peak = peak_of(begin_measured("predict", finished.id, str(tmp_path), "--json", "--no-ink"))
    assert answer.code == 0
    rows = answer.document
    assert [Path(row["file"]).name for row in rows] == ["1.png", "2.jpg", "3.png"]
    assert rows[0]["top"] == rows[2]["top"]
    assert rows[1]["top"][0]["confidence"] == pytest.approx(rows[0]["top"][0]["confidence"], abs=0.02)
    # Pillow takes 576 MB for one.
    assert 400 < peak - baseline < 1000


@pytest.mark.processes
def test_a_deflate_bomb_is_a_row_and_takes_no_memory(
    predicted: Predicted, finished: Run, baseline: float, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("1.png", Path(predicted.pictures[0]).read_bytes())
        with archive.open("2.png", "w", force_zip64=True) as file:
            for _ in range(50):
                file.write(bytes(10_000_000))  # 500 MB in 2 MB
        archive.writestr("3.png", Path(predicted.pictures[0]).read_bytes())
    answer, peak = peak_of(begin_measured("predict", finished.id, str(bomb)))
    first, refused, last = answer.stdout.splitlines()
    assert "2.png: error: It is too large: 500,000,000 bytes" in refused
    assert first.partition(": ")[2] == last.partition(": ")[2]
    assert (answer.code, peak < baseline + 100) == (1, True)


@pytest.mark.processes
def test_rows_are_written_while_it_is_still_going_on(predicted: Predicted, finished: Run, tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    process = begin("predict", finished.id, *predicted.pictures * 2000, "--json", "--csv", str(table))
    wait_until(lambda: table.exists() and len(table_of(table)) >= 3)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    answer = finish(process)
    assert (answer.code, answer.stdout, answer.stderr) == (130, "", "")  # half a document is none
    assert 3 <= len(table_of(table)) < 6000
