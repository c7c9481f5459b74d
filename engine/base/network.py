"""How long a server that says nothing is waited for."""

import socket
import threading

# A server that accepts the connection and then says nothing would otherwise be waited for without end.
TIMEOUT_SECONDS = 30


class _SocketTimeout:
    """The timeout of sockets while anything of this process is downloaded, by libraries that take none themselves.

    It is the whole process's: downloads in other threads share it, and with the last of them comes back what it was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._downloads = 0
        self._before: float | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._downloads:
                self._before = socket.getdefaulttimeout()
                socket.setdefaulttimeout(TIMEOUT_SECONDS)
            self._downloads += 1

    def __exit__(self, *reason: object) -> None:
        with self._lock:
            self._downloads -= 1
            if not self._downloads:
                socket.setdefaulttimeout(self._before)


downloading = _SocketTimeout()
