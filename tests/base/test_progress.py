import pytest

from engine.base.progress import run_to_end


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
