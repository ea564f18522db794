"""A TCP proxy in front of a unix socket that is slow, or swallows what it is given."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: Seconds after which a direction that is quiet looks whether it is over.
_POLL_SECONDS: Final = 0.2


class Proxy:
    """Passes on bytes in both directions, `delay` seconds late each way.

    With `swallows` it goes on accepting connections and bytes, and passes on nothing; what was
    swallowed is lost, and its connections are ended when it passes on again.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.swallows = False
        self._is_over = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        # Wakes who waits for a connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @staticmethod
    def _start(target: object, *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        while not self._is_over:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._target))
            except OSError:
                client.close()
                continue
            for origin, goal in ((client, server), (server, client)):
                self._start(self._pass_on, origin, goal)

    def _pass_on(self, origin: socket.socket, goal: socket.socket) -> None:
        has_swallowed = False
        origin.settimeout(_POLL_SECONDS)
        try:
            while not self._is_over:
                if has_swallowed and not self.swallows:
                    return
                try:
                    data = origin.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    return
                if self.swallows:
                    has_swallowed = True
                    continue
                if self.delay:
                    time.sleep(self.delay)
                goal.sendall(data)
        except OSError:
            return
        finally:
            for end in (origin, goal):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
