"""gunicorn's gevent worker: one write an answer, a stop that waits for nobody idle, and clients
that have so long for what they send and take.
"""

import errno
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final

import gevent
from gevent import socket
from gunicorn.http.errors import ParseException
from gunicorn.workers.ggevent import GeventWorker

from parentalcontrols.unreadable import Refusing

#: Seconds that connections without a request stay open when the worker is to stop: a player that
#: is about to beat is answered, and told to connect anew.
LINGER_SECONDS: Final = 1.0
#: Seconds that a request of the worker's own may take.
_REHEARSAL_SECONDS: Final = 2.0
#: Bytes of an answer that are held back to be sent with the rest.
_MOST_HELD: Final = 65536
#: Bytes of an answer that a client has to take within its time.
_PIECE: Final = 65536
#: Bytes of a body that nobody read which are taken nevertheless: who is still sending hears the
#: answer that way. As much as `MAX_BODY_BYTES` can be.
_MOST_DISCARDED: Final = 16 * 1024 * 1024
#: Of all connections that a worker may have, the part beyond which old ones make room.
_FULL: Final = 0.9


class SlowClient(TimeoutError):
    """The client did not send its request's body in time."""


class _Client:
    """A client's socket, whose other end has `seconds` for a head, a body, or a piece of an answer.

    In between it may be silent for as long as a connection is kept alive.
    """

    __slots__ = ("_deadline", "_is_sending", "_keepalive", "_request", "_seconds", "_sock")

    def __init__(self, sock: Any, *, seconds: float, keepalive: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._keepalive = keepalive
        self._request: Any = None
        self._is_sending = False
        self._deadline: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is no request."""
        return self._request is None

    def begin(self, request: Any) -> None:
        """A request's head has come; what is received now is its body."""
        self._request = request
        self._deadline = time.monotonic() + self._seconds

    def end(self) -> None:
        """A request was answered; what is received now is the next one's head."""
        self._request = None
        self._deadline = None

    def recv(self, size: int) -> bytes:
        """Raises `SlowClient` within a body, else answers nothing, once the time is over."""
        left = self._keepalive
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            data: bytes = self._sock.recv(size)
        except TimeoutError:
            if self._request is None:
                return b""
            self._request.force_close()
            raise SlowClient from None
        except OSError as error:
            # How gevent tells of `hang_up`.
            if error.errno == errno.EBADF and self._request is None:
                return b""
            raise
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        return data

    def sendall(self, data: bytes) -> None:
        """Raises `ConnectionResetError` where a piece is not taken in time."""
        rest = memoryview(data)
        with self._sending():
            while rest:
                self._sock.settimeout(self._seconds)
                self._sock.sendall(rest[:_PIECE])
                rest = rest[_PIECE:]

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        """The same for a file."""
        with self._sending():
            self._sock.settimeout(self._seconds)
            return self._sock.sendfile(*args, **kwargs)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        self._is_sending = True
        try:
            yield
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "a client does not read") from None
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # How gevent tells of `hang_up`.
            raise ConnectionResetError(errno.ECONNRESET, "a client had to go") from None
        finally:
            self._is_sending = False

    def hang_up(self) -> None:
        """Ends a wait for what the client sends, or for it to take an answer.

        A request that is there already is still answered.
        """
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR if self._is_sending else socket.SHUT_RD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _OneWrite:
    """A client's socket that keeps what is sent until `flush`: headers and body in one packet."""

    __slots__ = ("_client", "_held", "_size")

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._held: list[bytes] = []
        self._size = 0

    def sendall(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size > _MOST_HELD:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> Any:
        self.flush()
        return self._client.sendfile(*args, **kwargs)

    def flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
            self._client.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _discard_rest(req: Any) -> None:
    """Takes what the application left of a body, a part of it; with more the connection ends.

    gunicorn's own would take whatever comes, for as long as the client has for its next head.
    """
    if getattr(req.body.reader, "length", None) == 0:
        # Of a body of known length all has come: every beat's.
        return
    left = _MOST_DISCARDED
    with suppress(OSError, ParseException):
        while left > 0 and not req.body.failed:
            data = req.body.read(_PIECE)
            if not data:
                return
            left -= len(data)
    req.force_close()


class Worker(Refusing, GeventWorker):  # type: ignore[misc]
    """One process of greenlets. On a stop requests under way are finished and answered.

    gunicorn's own would wait `graceful_timeout` for every connection that a player keeps open
    between two beats, and without end for a client that sends or reads byte by byte.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client_seconds = 0.0
        self._most = max(1, int(self.worker_connections * _FULL))
        #: Every connection, that first whose last request was answered longest ago.
        self.clients: dict[_Client, None] = {}

    def rehearse(self) -> None:
        """Answers a request that nobody sent: what reads and writes HTTP is made on first use."""
        client, served = socket.socketpair()
        client.settimeout(_REHEARSAL_SECONDS)
        with client, suppress(OSError):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answering = gevent.spawn(self.handle, self.sockets[0], served, ("127.0.0.1", 0))
            while client.recv(_MOST_HELD):
                pass
            answering.join(_REHEARSAL_SECONDS)

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Nothing: a `_Client` keeps the time itself."""
        return nullcontext()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serves a connection; where there are too many, one that is idle or slow has to go."""
        if len(self.clients) >= self._most:
            oldest = next(iter(self.clients))
            del self.clients[oldest]
            oldest.hang_up()
        known = _Client(client, seconds=self._client_seconds, keepalive=self.cfg.keepalive)
        self.clients[known] = None
        try:
            super().handle(listener, known, addr)
        finally:
            self.clients.pop(known, None)

    def handle_request(self, listener_name: Any, req: Any, sock: _Client, addr: Any) -> None:
        sock.begin(req)
        client = _OneWrite(sock)
        try:
            super().handle_request(listener_name, req, client, addr)
        finally:
            client.flush()
            _discard_rest(req)
            sock.end()
            if self.clients.pop(sock, self) is None:
                self.clients[sock] = None

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Not before: the master, too, imports this module, and must not load the settings.
        from django.conf import settings

        self._client_seconds = float(settings.CLIENT_SECONDS)

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
            for client in list(self.clients):
                if client.is_idle:
                    client.hang_up()
            gevent.sleep(0.2)
