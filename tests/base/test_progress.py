import pytest

from engine.base.progress import result_of


def test_progress_is_told_and_the_result_returned():
    def work():
        yield 1
        yield 2
        return "done"

    told = []
    assert result_of(work(), told.append) == "done"
    assert told == [1, 2]


def test_what_goes_wrong_comes_through():
    def work():
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        result_of(work(), lambda progress: None)
