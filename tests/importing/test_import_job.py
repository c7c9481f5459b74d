import os
import signal
from pathlib import Path

import pytest
from picture_files import assert_sentences, left_behind, pack, pngs, write
from processes import wait_until, watching_launches

from engine.base.errors import LoupeError
from engine.base.jobs import KILLED
from engine.data.dataset import open_dataset, prepared_names, prepared_root
from engine.images.sources import uploads_root
from engine.importing.import_job import (
    cancel_import,
    find_import,
    forget_import,
    list_imports,
    place_for_upload,
    start_import,
)
from engine.importing.plan import Request

PETS = pngs(f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(5))


pytestmark = pytest.mark.processes


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write(tmp_path / "pets", PETS)


def has_ended(name: str) -> bool:
    job = find_import(name)
    return job is None or job.error is not None


def end_of(name: str) -> str | None:
    """Wait for the end of an import; returns the reason why it failed."""
    wait_until(lambda: has_ended(name))
    job = find_import(name)
    return job.error if job else None


def refusal(request: Request) -> str:
    with pytest.raises(LoupeError) as refused:
        start_import(request)
    assert_sentences(str(refused.value))
    return str(refused.value)


def test_an_import_goes_on_by_itself_and_its_progress_is_seen(pets):
    request = Request("pets", str(pets), size=40, seed=2)
    start_import(request)
    # Another page asks, and may start no other.
    job = find_import("pets")
    assert (job.request, job.error) == (request, None)
    assert list_imports() == ["pets"]
    assert refusal(request) == "A dataset named pets is being imported. Wait for its end."
    told = set()
    while (job := find_import("pets")) is not None:
        assert job.error is None
        if job.progress:
            told.add(job.progress.stage)
    assert told
    assert find_import("pets") is None
    assert list_imports() == []
    dataset = open_dataset("pets")
    assert dataset.image_shape == (40, 40, 3)
    assert "drawn with seed 2" in dataset.source
    wait_until(lambda: left_behind() == ["pets"])
    assert "is already taken" in refusal(request)


def test_what_can_be_told_at_once_is_and_no_process_is_started(pets, tmp_path):
    assert "is already taken" in refusal(Request("mnist", str(pets)))
    assert "There is no" in refusal(Request("pets", str(tmp_path / "missing")))
    assert not prepared_root().exists()


def test_a_cancelled_import_leaves_nothing(pets):
    start_import(Request("pets", str(pets)))
    cancel_import("pets")
    assert end_of("pets") is None
    wait_until(lambda: left_behind() == [])
    assert prepared_names() == []
    cancel_import("pets")  # that has ended


def test_a_failed_import_keeps_its_reason_until_that_is_noted(tmp_path):
    path = write(tmp_path / "pets", {"cats/1.png": b"no", "dogs/2.png": b"no"})
    start_import(Request("pets", str(path)))
    reason = end_of("pets")
    assert reason.startswith("None of the 2 files that were looked at in ")
    assert_sentences(reason)
    assert list_imports() == ["pets"]
    assert prepared_names() == []
    forget_import("pets")
    assert (find_import("pets"), left_behind()) == (None, [])

    write(path, PETS)  # and it can be tried again
    start_import(Request("pets", str(path)))
    assert end_of("pets") is None
    assert prepared_names() == ["pets"]


def test_an_import_that_was_killed_is_told_and_can_be_started_again(pets):
    with watching_launches() as launched:
        start_import(Request("pets", str(pets)))
    wait_until(lambda: find_import("pets").progress)
    os.kill(launched.latest.pid, signal.SIGKILL)
    assert end_of("pets") == KILLED
    assert prepared_names() == []
    start_import(Request("pets", str(pets)))
    assert end_of("pets") is None
    assert prepared_names() == ["pets"]


def test_an_archive_that_was_uploaded_is_deleted_after_its_import():
    path = pack(place_for_upload("../../pets.zip"), PETS)
    assert (path.name, path.parent.parent) == ("pets.zip", uploads_root())
    assert place_for_upload("pets.zip") != path
    start_import(Request("pets", str(path)))
    assert end_of("pets") is None
    wait_until(lambda: not path.parent.exists())
    assert "imported from pets.zip" in open_dataset("pets").source


def test_uploads_that_nobody_imported_are_deleted_after_a_day():
    old, new = (pack(place_for_upload(name), PETS) for name in ("old.zip", "new.zip"))
    two_days_ago = old.stat().st_mtime - 2 * 24 * 3600
    os.utime(old.parent, (two_days_ago, two_days_ago))
    other = place_for_upload("other.zip")
    assert set(uploads_root().iterdir()) == {new.parent, other.parent}


def test_a_name_without_an_import_has_none():
    assert find_import("pets") is None
    assert list_imports() == []
    forget_import("pets")
