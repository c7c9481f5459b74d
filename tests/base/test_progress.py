import threading

import pytest

from engine.base.progress import in_thread, run_to_end


def test_progress_is_told_and_the_result_returned():
    def work():
        yield 1
        yield 2
        return "done"

    told = []
    assert run_to_end(work(), told.append) == "done"
    assert told == [1, 2]


def test_what_goes_wrong_comes_through():
    def work():
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_to_end(work(), lambda progress: None)


@pytest.mark.slow
def test_work_in_a_thread_yields_until_it_is_done():
    go_on = threading.Event()
    steps = in_thread(lambda: go_on.wait(60) and threading.current_thread())
    next(steps)
    go_on.set()
    assert run_to_end(steps, lambda nothing: None) is not threading.current_thread()


def test_what_goes_wrong_in_a_thread_comes_through():
    with pytest.raises(ZeroDivisionError):
        run_to_end(in_thread(lambda: 1 / 0), lambda nothing: None)
