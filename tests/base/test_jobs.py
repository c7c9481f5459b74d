import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import python, wait_until, watching_launches

from engine.base.errors import LoupeError
from engine.base.jobs import KILLED, Job, JobState, delete_old_jobs, find_job, list_jobs, run_job, start_job

pytestmark = pytest.mark.processes

Start = Callable[..., Job]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "count"


@pytest.fixture
def start(place: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a job that counts; whatever a test leaves running ends with it."""

    def start(to: int = 3, **what: int) -> Job:
        job = start_job(place, "tests.counting_job", {"to": to, "folder": str(tmp_path), **what})
        assert job
        return job

    yield start
    for job in list_jobs(place.parent).values():
        job.request_stop()
        wait_until(lambda job=job: not (state := job.state()) or not state.is_running)


def state_of(job: Job) -> JobState:
    state = job.state()
    assert state
    return state


def end_of(job: Job) -> JobState:
    wait_until(lambda: not state_of(job).is_running)
    return state_of(job)


def test_a_job_tells_progress_and_its_result(start: Start, place: Path, tmp_path: Path) -> None:
    job = start(5, wait=3)
    assert state_of(job).status == "running"
    wait_until(lambda: state_of(job).progress == 3)
    (tmp_path / "go on").touch()
    ended = end_of(job)
    assert (ended.status, ended.progress, ended.result, ended.error) == ("finished", 4, {"counted": 5}, None)
    assert ended.request == {"to": 5, "folder": str(tmp_path), "wait": 3}
    assert (tmp_path / "closed").exists()
    assert find_job(place) == list_jobs(place.parent)["count"] == job
    # Any other process sees the same, and goes by the place alone.
    look = f"from engine.base.jobs import *; from pathlib import Path; print(find_job(Path({str(place)!r})).state())"
    with python("-c", look, stdout=subprocess.PIPE) as other:
        assert other.communicate()[0] == f"{ended}\n"


def test_one_job_runs_at_a_place_and_the_next_replaces_it(start: Start, place: Path, tmp_path: Path) -> None:
    first = start(5, wait=3)
    assert start_job(place, "tests.counting_job", {}) is None
    (tmp_path / "go on").touch()
    end_of(first)
    second = start(2)
    assert second.folder != first.folder
    assert not first.folder.exists()
    assert first.state() is None
    assert end_of(second).result == {"counted": 2}


def test_of_many_who_start_at_once_one_does(place: Path, tmp_path: Path) -> None:
    request = {"to": 5, "wait": 3, "folder": str(tmp_path)}
    with ThreadPoolExecutor(4) as pool:
        started = [pool.submit(start_job, place, "tests.counting_job", request) for _ in range(4)]
        jobs = [job for each in started if (job := each.result())]
    (tmp_path / "go on").touch()
    assert len(jobs) == 1
    assert end_of(jobs[0]).status == "finished"


@pytest.mark.parametrize("where", [{"wait": 3}, {"hang": 3}])
def test_a_job_that_is_stopped_ends_at_its_next_step_or_within_a_long_one(
    start: Start, tmp_path: Path, where: dict
) -> None:
    job = start(5, **where)
    wait_until(lambda: (tmp_path / "hanging").exists() or state_of(job).progress == 3)
    job.request_stop()
    ended = end_of(job)
    assert (ended.status, ended.result, ended.error) == ("stopped", None, None)
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize("where", [{"wait": 3}, {"hang": 3}])
def test_a_job_that_is_deleted_while_it_runs_ends_and_leaves_nothing(
    start: Start, place: Path, tmp_path: Path, where: dict
) -> None:
    with watching_launches() as launched:
        job = start(5, **where)
    wait_until(lambda: (tmp_path / "hanging").exists() or state_of(job).progress == 3)
    job.delete()
    assert (job.state(), find_job(place)) == (None, None)
    another = start(2)  # before it has noticed
    wait_until(lambda: launched.latest.poll() is not None)
    assert end_of(another).result == {"counted": 2}
    wait_until(lambda: not job.folder.exists())


def test_why_a_job_failed_is_told(start: Start) -> None:
    ended = end_of(start(5, fail=2))
    assert (ended.status, ended.progress, ended.error) == ("failed", 1, "The count failed. Count again.")


def test_an_error_that_was_not_expected_is_told_with_its_place(start: Start) -> None:
    job = start(5, crash=2)
    assert end_of(job).error == (
        "It ended with an error that Loupe did not expect: KeyError: 'no such number'. "
        f"The whole of it is in {job.output}."
    )
    assert "Traceback" in job.output.read_text()


def test_a_job_whose_process_died_says_so(start: Start) -> None:
    ended = end_of(start(5, die=2))
    assert (ended.status, ended.error) == ("failed", KILLED)


def test_a_job_that_is_killed_says_so_and_another_can_be_started(start: Start) -> None:
    with watching_launches() as launched:
        job = start(5, wait=3)
    wait_until(lambda: state_of(job).progress == 3)
    os.kill(launched.latest.pid, signal.SIGKILL)
    ended = end_of(job)
    assert (ended.status, ended.progress, ended.error) == ("failed", 3, KILLED)
    assert end_of(start(2)).status == "finished"


def test_a_job_is_executed_once(start: Start, tmp_path: Path) -> None:
    job = start(5, wait=3)
    wait_until(lambda: state_of(job).progress == 3)

    def work(request: dict) -> Iterator[int]:
        raise AssertionError("another process executes it")
        yield

    assert run_job(job.folder, work) is None
    assert state_of(job).is_running


def test_a_job_that_was_deleted_before_its_process_came_is_not_made_anew(place: Path) -> None:
    def work(request: dict) -> Iterator[int]:
        raise AssertionError("there is nothing to do")
        yield

    assert run_job(place.with_name("count~1"), work) is None
    assert not place.parent.exists()


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_job_that_never_started_has_ended_whatever_the_clock_says(place: Path, hours: int) -> None:
    job = Job(place.with_name("count~1"))
    job.folder.mkdir(parents=True)
    job.request_file.write_text("{}")
    assert state_of(job).is_running
    then = time.time() + hours * 3600
    os.utime(job.request_file, (then, then))
    assert state_of(job).error == KILLED


@pytest.mark.parametrize("content", ["", "{", None])
def test_a_request_that_cannot_be_read_is_no_job(start: Start, content: str | None) -> None:
    job = start(2)
    end_of(job)
    if content is None:
        job.request_file.unlink()
    else:
        job.request_file.write_text(content)
    assert job.state() is None


def test_what_cannot_be_read_of_how_it_went_is_left_out(start: Start) -> None:
    job = start(2)
    end_of(job)
    (job.folder / "progress.json").write_text("{")
    assert (state_of(job).status, state_of(job).progress) == ("finished", None)
    (job.folder / "ended.json").write_text(json.dumps([]))
    assert (state_of(job).status, state_of(job).error) == ("failed", KILLED)


def test_old_jobs_are_deleted_but_not_one_that_runs(start: Start, place: Path, tmp_path: Path) -> None:
    running = start(5, wait=3)
    wait_until(lambda: state_of(running).progress == 3)
    old = Job(shutil.copytree(running.folder, place.with_name("old~1"), ignore=shutil.ignore_patterns("lock")))
    for job in (running, old):
        os.utime(job.folder, (1, 1))
    assert delete_old_jobs(place.parent, 60) == ["old"]
    assert (old.folder.exists(), state_of(running).is_running) == (False, True)
    assert delete_old_jobs(place.parent / "nowhere", 60) == []


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoupeError, match=r"file cannot be written"):
        start_job(tmp_path / "file" / "count", "tests.counting_job", {})
    assert find_job(tmp_path / "file" / "count") is None
    assert list_jobs(tmp_path / "file") == {}
