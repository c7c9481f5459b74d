import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine.base.network import TIMEOUT_SECONDS, downloading


@pytest.fixture(params=[None, 7.5])
def before(request: pytest.FixtureRequest) -> Iterator[float | None]:
    kept = socket.getdefaulttimeout()
    socket.setdefaulttimeout(request.param)
    yield request.param
    socket.setdefaulttimeout(kept)


def test_the_timeout_of_sockets_is_as_it_was_after_a_download(before: float | None) -> None:
    with pytest.raises(KeyError), downloading:
        assert socket.getdefaulttimeout() == TIMEOUT_SECONDS
        raise KeyError
    assert socket.getdefaulttimeout() == before


def test_it_is_as_it_was_after_the_last_of_several_downloads_whichever_ends_first(before: float | None) -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(downloading)
    second.enter_context(downloading)
    first.close()
    assert socket.getdefaulttimeout() == TIMEOUT_SECONDS
    second.close()
    assert socket.getdefaulttimeout() == before
