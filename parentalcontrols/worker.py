"""gunicorn's gevent worker, with one write an answer and a stop that waits for nobody idle."""

import contextlib
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

import gevent
from gunicorn.workers.ggevent import GeventWorker

#: Seconds that connections without a request stay open when the worker is to stop: a player that
#: is about to beat is answered, and told to connect anew.
LINGER_SECONDS: Final = 1.0
#: Seconds that a request of the worker's own may take.
_REHEARSAL_SECONDS: Final = 2.0
#: Bytes of an answer that are held back to be sent with the rest.
_MOST_HELD: Final = 65536


class _OneWrite:
    """A client's socket that keeps what is sent until `flush`: headers and body in one packet."""

    __slots__ = ("_held", "_size", "_sock")

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._held: list[bytes] = []
        self._size = 0

    def sendall(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size > _MOST_HELD:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        self.flush()
        return self._sock.sendfile(*args, **kwargs)

    def flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
            self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Idle:
    """The wait for the next request on a connection: over after so many seconds, or at a stop."""

    __slots__ = ("_greenlet", "_timeout", "_worker")

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._greenlet = gevent.getcurrent()
        self._timeout = gevent.Timeout.start_new(
            worker.cfg.keepalive if worker.alive else LINGER_SECONDS
        )

    def __enter__(self) -> Self:
        self._worker.idle[self._greenlet] = self._timeout
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        del self._worker.idle[self._greenlet]
        self._timeout.close()
        return error is self._timeout


class Worker(GeventWorker):  # type: ignore[misc]
    """One process of greenlets. On a stop requests under way are finished and answered.

    gunicorn's own would wait `graceful_timeout` for every connection that a player keeps open
    between two beats.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: dict[gevent.Greenlet, gevent.Timeout] = {}

    def rehearse(self) -> None:
        """Answers a request that nobody sent: what reads and writes HTTP is made on first use."""
        client, served = socket.socketpair()
        client.settimeout(_REHEARSAL_SECONDS)
        with client, contextlib.suppress(OSError):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answering = gevent.spawn(self.handle, self.sockets[0], served, ("127.0.0.1", 0))
            while client.recv(_MOST_HELD):
                pass
            answering.join(_REHEARSAL_SECONDS)

    def timeout_ctx(self) -> _Idle:
        return _Idle(self)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        client = _OneWrite(sock)
        try:
            super().handle_request(listener_name, req, client, addr)
        finally:
            client.flush()

    def run(self) -> None:
        gevent.spawn(self._close_idle)
        super().run()

    def _close_idle(self) -> None:
        """Once the worker is to stop, ends the waits for a next request, after a while."""
        while self.alive:
            gevent.sleep(0.1)
        gevent.sleep(LINGER_SECONDS)
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < deadline:
            for greenlet, timeout in list(self.idle.items()):
                greenlet.kill(timeout, block=False)
            gevent.sleep(0.2)
