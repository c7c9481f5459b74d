import io
import json
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from picture_files import assert_sentences, encode, pack, png, pngs, write
from PIL import Image
from processes import LaunchedProcess, folders, jobs_in_this_process, wait_until, watching_launches

from engine.base.errors import LoupeError
from engine.base.jobs import KILLED
from engine.data.dataset import Dataset, open_dataset
from engine.images.sources import uploads_root
from engine.inference.batch import Pictures, classify_all
from engine.inference.classifier import load_classifier
from engine.inference.classify_job import (
    Classification,
    cancel_classification,
    delete_classification,
    find_classification,
    jobs_root,
    read_picture,
    read_rows,
    start_classification,
)
from engine.inference.novelty import open_novelty
from engine.runs.run import Run


@pytest.fixture
def run(trained: Run, digits: Dataset, tmp_path: Path) -> Run:
    """A finished run of this test's own, and its dataset."""
    return Run(shutil.copytree(trained.path, tmp_path / "runs" / trained.id))


@pytest.fixture
def pictures(digits: Dataset, tmp_path: Path) -> Path:
    """Digits in folders called after what they are, a bad file and one that is no picture."""
    test = digits.splits["test"]
    files = {
        f"{label}/{number}.png": encode(Image.fromarray(image[..., 0]))
        for number, (image, label) in enumerate(zip(test.images[:12], test.labels[:12], strict=True))
    }
    return write(tmp_path / "pictures", files | {"bad.png": b"no", "notes.txt": b""})


@pytest.fixture
def many(pictures: Path, tmp_path: Path) -> Path:
    """So many pictures that they are not done before a test has had its look."""
    content = (next(pictures.glob("*/0.png"))).read_bytes()
    return write(tmp_path / "many", {f"{number:05}.png": content for number in range(5000)})


@pytest.fixture
def launched() -> Iterator[type[LaunchedProcess]]:
    """Note the processes that are started; those that a test leaves are ended."""
    with watching_launches() as launched:
        yield launched
        if launched.latest.poll() is None:
            launched.latest.kill()
            launched.latest.wait()


def job_of(name: str) -> Classification:
    job = find_classification(name)
    assert job is not None
    return job


def folder_of(name: str) -> Path:
    (folder,) = jobs_root().glob(f"{name}~*")
    return folder


def finish(name: str) -> Classification:
    wait_until(lambda: not job_of(name).is_active)
    return job_of(name)


def wait_for_rows(name: str, count: int = 3) -> None:
    wait_until(lambda: len(read_rows(name)) >= count)


@pytest.fixture
def in_this_process() -> Iterator[None]:
    with jobs_in_this_process():
        yield


def left_behind() -> list[Path]:
    """List what is there of jobs, and of their uploads."""
    return [*jobs_root().glob("[!.]*"), *uploads_root().glob("*")]


# From start to end


@pytest.mark.processes
def test_a_job_answers_as_the_loop_does_and_is_found_by_its_id(run: Run, pictures: Path) -> None:
    name = start_classification(run, [str(pictures)], [], normalize=True)
    assert job_of(name).is_active
    job = finish(name)
    assert (job.error, job.was_cancelled, job.done, job.total, job.passed_over) == (None, False, 13, 13, 1)
    expected = [answer.as_row() for answer in classify_all(load_classifier(run), Pictures([str(pictures)]))]
    rows = read_rows(name)
    assert [f"{pictures.parent}/{row['file']}" for row in rows] == [row["file"] for row in expected]
    for row, plain in zip(rows, expected, strict=True):
        assert row.keys() == plain.keys()  # no features were computed, so nothing is told of distances
        assert {key: row.get(key) for key in ("label", "true", "notes", "size", "error", "thumbnail")} == {
            key: plain.get(key) for key in ("label", "true", "notes", "size", "error", "thumbnail")
        }
        assert row.get("confidence") == pytest.approx(plain.get("confidence"), abs=1e-6)


@pytest.mark.processes
def test_progress_is_told_and_rows_are_read_as_they_come(run: Run, many: Path, launched) -> None:
    name = start_classification(run, [str(many)], [], normalize=True)
    seen = []
    while len(seen) < 5:
        job, rows = job_of(name), read_rows(name)
        assert (job.is_active, job.error, job.total) in ((True, None, 0), (True, None, 5000))
        if rows and (not seen or len(rows) > seen[-1]):
            assert [row["file"] for row in rows] == [f"many/{number:05}.png" for number in range(len(rows))]
            assert len(rows) >= job.done  # a row is there before it counts
            seen.append(len(rows))
    wait_until(lambda: job_of(name).seconds_left is not None)
    cancel_classification(name)
    assert finish(name).error is None


@pytest.mark.usefixtures("in_this_process")
def test_half_a_line_at_the_end_is_not_read(run: Run, pictures: Path) -> None:
    name = start_classification(run, [str(pictures / "bad.png")], [], normalize=True)
    finish(name)
    (row,) = read_rows(name)
    with (folder_of(name) / "rows.jsonl").open("ab") as file:
        file.write(json.dumps(row | {"file": "\u2028 next"}, ensure_ascii=False).encode()[:-5])
    assert read_rows(name) == [row]


@pytest.mark.processes
def test_a_cancelled_job_keeps_its_answers_so_far(run: Run, many: Path, launched) -> None:
    name = start_classification(run, [str(many)], [], normalize=True)
    wait_for_rows(name)
    cancel_classification(name)
    job = finish(name)
    assert (job.was_cancelled, job.error, job.total) == (True, None, 5000)
    assert 3 <= job.done < 5000
    assert len(read_rows(name)) == job.done
    assert launched.latest.wait() == 0


@pytest.mark.processes
def test_a_killed_job_says_so_and_keeps_its_answers(run: Run, many: Path, launched) -> None:
    name = start_classification(run, [str(many)], [], normalize=True)
    wait_for_rows(name)
    os.kill(launched.latest.pid, signal.SIGKILL)
    job = finish(name)
    assert (job.error, job.was_cancelled) == (KILLED, False)
    assert_sentences(KILLED)
    assert len(read_rows(name)) >= 3
    cancel_classification(name)
    delete_classification(name)
    assert (find_classification(name), read_rows(name), left_behind()) == (None, [], [])


@pytest.mark.processes
def test_a_job_deleted_while_it_runs_leaves_no_upload(run: Run, many: Path, launched) -> None:
    name = start_classification(run, [str(many)], [("1.png", io.BytesIO(png()))], normalize=True)
    wait_for_rows(name)
    delete_classification(name)
    assert find_classification(name) is None
    assert launched.latest.wait(60) == 0
    assert left_behind() == []


@pytest.mark.processes
def test_a_run_that_is_deleted_meanwhile_is_said(run: Run, pictures: Path) -> None:
    name = start_classification(run, [str(pictures)], [], normalize=True)
    shutil.rmtree(run.path)
    job = finish(name)
    assert job.error is not None
    assert f"There is no run {run.id!r}" in job.error
    assert (job.done, read_rows(name)) == (0, [])


# How pictures are called


HOSTILE = {
    "../../x.png": "x.png",
    "a/b.png": "b.png",
    "/etc/passwd.png": "passwd.png",
    "..": "..",
    "": "picture 5",
    "nul\0.png": "nul\0.png",
    "x." + "\0" * 5: "x." + "\0" * 5,
    "y." + "y" * 300: "y." + "y" * 300,
    "z" * 300 + ".png": "z" * 300 + ".png",
    "no suffix": "no suffix",
    "<b>猫</b>\n.png": "b>\n.png",
    "\ud800.png": "\\ud800.png",  # half a character
    "*.png": "*.png",
    "1.png": "1.png",
}


@pytest.mark.usefixtures("in_this_process")
def test_uploads_are_kept_under_names_of_our_own_and_told_under_theirs(run: Run, pictures: Path) -> None:
    (one,) = pictures.glob("*/1.png")
    uploads = [(name, io.BytesIO(one.read_bytes())) for name in HOSTILE]
    name = start_classification(run, [], uploads, normalize=True)
    kept = sorted(uploads_root().glob("*/*"))
    assert len(kept) == len(HOSTILE)
    assert all(path.name.isalnum() or path.name.partition(".")[2] == "png" for path in kept)
    job = finish(name)
    rows = read_rows(name)
    assert [row["file"] for row in rows] == list(HOSTILE.values())
    assert all("error" not in row for row in rows)
    assert rows[-1]["true"] == "1"
    assert read_picture(job, "no suffix") == one.read_bytes()
    delete_classification(name)
    assert left_behind() == []


@pytest.mark.usefixtures("in_this_process")
def test_a_zip_that_was_uploaded_is_called_as_it_was(run: Run, pictures: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOUPE_IMPORT_ROOTS", str(tmp_path / "elsewhere"))  # which is for paths that people name
    (one,) = pictures.glob("*/1.png")
    packed = pack(tmp_path / "packed.zip", {"1/a.png": one.read_bytes(), "b.png": b"no"})
    with packed.open("rb") as content:
        name = start_classification(run, [str(pictures)], [("my digits.zip", content)], normalize=True)
    job = finish(name)
    folder, first, second = read_rows(name)
    assert (first["file"], first["true"], "error" in first) == ("my digits.zip/1/a.png", "1", False)
    assert (second["file"], "error" in second) == ("my digits.zip/b.png", True)
    assert read_picture(job, first["file"]) == one.read_bytes()
    assert "outside the folders that may be imported from" in folder["error"]


@pytest.mark.usefixtures("in_this_process")
def test_uploads_of_one_name_are_told_apart(run: Run) -> None:
    files = [png(seed, 8, 8, 1) for seed in range(3)]
    name = start_classification(run, [], [("image.png", io.BytesIO(content)) for content in files], normalize=True)
    job = finish(name)
    names = [row["file"] for row in read_rows(name)]
    assert names == ["image.png", "image (2).png", "image (3).png"]
    assert [read_picture(job, each) for each in names] == files


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("pets", ["pets/cat.png", "pets/deep/dog.png"]),
        ("pets/", ["pets/cat.png", "pets/deep/dog.png"]),
        ("pets/**/*.png", ["FOLDER/pets/cat.png", "FOLDER/pets/deep/dog.png"]),
        ("pets/*", ["FOLDER/pets/cat.png", "FOLDER/pets/deep/dog.png"]),
        ("pets/cat.png", ["cat.png"]),
        ("pets/missing*", ["missing*"]),
    ],
)
def test_pictures_at_a_path_are_found_again_by_their_names(
    run: Run, tmp_path: Path, path: str, names: list[str]
) -> None:
    files = pngs(["cat.png", "deep/dog.png"])
    write(tmp_path / "pets", files)
    name = start_classification(run, [f"{tmp_path}/{path}"], [], normalize=True)
    job = finish(name)
    told = [row["file"] for row in read_rows(name)]
    assert told == [each.replace("FOLDER", str(tmp_path)) for each in names]
    for each in told:
        content = next((content for file, content in files.items() if each.endswith(file)), None)
        if content:
            assert read_picture(job, each) == content
    shutil.rmtree(tmp_path / "pets")
    with pytest.raises(LoupeError) as gone:
        read_picture(job, told[0])
    assert_sentences(str(gone.value))


@pytest.mark.usefixtures("in_this_process")
def test_a_selection_without_pictures_is_one_row(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    name = start_classification(run, [str(tmp_path / "empty")], [], normalize=True)
    job = finish(name)
    (row,) = read_rows(name)
    assert (job.done, job.total, job.error) == (1, 1, None)
    assert row["error"].startswith("There is no picture in it")


# Which jobs there are


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../..", "../../etc", "/etc", "a/b", "nope", "nul\0", "\n", "x" * 5000, "*", "20261121-000000"],
)
def test_an_id_that_is_none_finds_nothing(run: Run, name: str) -> None:
    jobs_root().mkdir()
    for folder in (jobs_root(), jobs_root().parent, jobs_root().parent.parent):
        (folder / "request.json").write_text(json.dumps({"run": run.id, "paths": [], "normalize": True}))
    assert find_classification(name) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"run": 1, "paths": 2, "normalize": 3}', b"\xff"])
def test_a_damaged_request_is_no_job(content: bytes) -> None:
    folder = jobs_root() / "20261121-000000-01234567~1"
    folder.mkdir(parents=True)
    (folder / "request.json").write_bytes(content)
    assert find_classification("20261121-000000-01234567") is None


@pytest.mark.processes
def test_jobs_of_yesterday_are_deleted_when_another_starts_but_not_one_that_goes_on(
    run: Run, pictures: Path, many: Path, launched
) -> None:
    old = start_classification(run, [], [("1.png", io.BytesIO(png()))], normalize=True)
    finish(old)
    going_on = start_classification(run, [str(many)], [], normalize=True)
    wait_for_rows(going_on, 1)
    long_ago = time.time() - 25 * 3600
    os.utime(folder_of(old), (long_ago, long_ago))
    new = start_classification(run, [str(pictures / "bad.png")], [], normalize=True)
    assert find_classification(old) is None
    assert {path.name.partition("~")[0] for path in left_behind()} == {going_on, new}
    cancel_classification(going_on)
    finish(going_on)
    long_ago = time.time() - 25 * 3600
    os.utime(folder_of(going_on), (long_ago, long_ago))
    finish(new)
    with jobs_in_this_process():
        start_classification(run, [], [], normalize=True)
    assert find_classification(going_on) is None
    assert find_classification(new) is not None


# How unlike the training images they are


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_distances_are_told_once_features_are_there(run: Run, pictures: Path, tmp_path: Path) -> None:
    novelty = open_novelty(run, load_classifier(run))
    deque(novelty.features.fill(novelty.rows), maxlen=0)
    noise = encode(Image.fromarray(np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8) * 255))
    write(pictures, {"noise.png": noise})
    name = start_classification(run, [str(pictures)], [], normalize=False)
    finish(name)
    rows = {Path(row["file"]).name: row for row in read_rows(name)}
    assert "distance" not in rows.pop("bad.png")
    threshold = novelty.threshold().distance
    for answer in classify_all(load_classifier(run), Pictures([str(pictures)]), normalize=False):
        if answer.seen is not None:
            row = rows[Path(answer.file).name]
            assert row["distance"] == pytest.approx(novelty.nearest(answer.seen).distance, rel=1e-4)
            assert row["unlike"] is (row["distance"] > threshold)
    assert sum(row["unlike"] for row in rows.values()) <= 3
    assert rows["noise.png"]["unlike"]


@pytest.mark.processes
def test_without_its_dataset_a_job_answers_without_distances(run: Run, pictures: Path, many: Path, launched) -> None:
    novelty = open_novelty(run, load_classifier(run))
    deque(novelty.features.fill(novelty.rows), maxlen=0)
    # Deleted while it is at work, and before.
    name = start_classification(run, [str(many)], [], normalize=True)
    wait_for_rows(name)
    shutil.rmtree(open_dataset("digits").folder)
    wait_until(lambda: "distance" not in read_rows(name)[-1])
    cancel_classification(name)
    assert finish(name).error is None
    rows = read_rows(name)
    assert "distance" in rows[0]
    assert all("label" in row for row in rows)

    name = start_classification(run, [str(pictures)], [], normalize=True)
    job = finish(name)
    assert (job.error, job.done) == (None, 13)
    assert not any("distance" in row for row in read_rows(name))


def test_a_folder_of_runs_that_cannot_be_made_is_said(run: Run, digits_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with folders(digits_data, tmp_path / "file"), pytest.raises(LoupeError) as refused:
        start_classification(run, [], [], normalize=True)
    assert "file/.classified cannot be written (Not a directory)" in str(refused.value)
