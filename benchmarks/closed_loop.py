"""GET requests over and over, by a process that costs little.

Closed loop: each of n keep-alive connections sends the next request as soon as the one before is
answered. That tells how long an answer takes and how many come in a second; what a stall does to
those who come at their own pace only an open loop tells (`benchmarks.load`).

`reader` starts the process and talks with it by lines of JSON; `python -m benchmarks.closed_loop`
is the process.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from benchmarks.load import (
    LOST,
    PATIENCE_SECONDS,
    Connection,
    Generator,
    generator_process,
)


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked for, and by whom."""

    path: str
    token: str


@dataclass(frozen=True, slots=True)
class Reads:
    """What became of the measured requests. Latencies in milliseconds, from sent to complete."""

    latencies: Sequence[float]
    statuses: Mapping[str, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return len(self.latencies) / self.seconds

    @property
    def refused(self) -> dict[str, int]:
        """How many were answered other than 200, by status; 0 is no answer."""
        return {status: count for status, count in self.statuses.items() if status != "200"}


class Reader(Generator):
    """The process that reads; made by `reader`."""

    def read(
        self,
        *,
        host: str,
        port: int,
        pages: Sequence[Page],
        connections: int,
        seconds: float,
        settle: float,
    ) -> Reads:
        """Reads pages in turn for `settle` + `seconds`; only the latter are measured."""
        answer = self._ask(
            host=host,
            port=port,
            pages=[(page.path, page.token) for page in pages],
            connections=connections,
            seconds=seconds,
            settle=settle,
        )
        return Reads(
            latencies=[microseconds / 1000 for microseconds in answer["latencies"]],
            statuses=answer["statuses"],
            seconds=seconds,
        )


@contextmanager
def reader(environment: Mapping[str, str]) -> Iterator[Reader]:
    """A process that reads, until the end of the block."""
    with generator_process("benchmarks.closed_loop", environment) as process:
        yield Reader(process)


# --- The process ----------------------------------------------------------------------------


def _requests(order: Mapping[str, Any]) -> list[bytes]:
    return [
        (
            f"GET {path} HTTP/1.1\r\n"
            f"Host: {order['host']}:{order['port']}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode("ascii")
        for path, token in order["pages"]
    ]


def _read(order: Mapping[str, Any]) -> dict[str, Any]:
    clock = time.perf_counter
    requests = cycle(_requests(order))
    address = (order["host"], order["port"])
    idle = [Connection(address) for _ in range(order["connections"])]
    busy: dict[socket.socket, Connection] = {}
    sent_at: dict[socket.socket, float] = {}
    statuses: Counter[str] = Counter()
    latencies: list[int] = []
    measured_from = clock() + order["settle"]
    until = measured_from + order["seconds"]

    def note(status: int, sent: float, answered: float) -> None:
        # A refusal while things settle spoils the run as well.
        if measured_from <= sent and answered <= until:
            statuses[str(status)] += 1
            if status != LOST:
                latencies.append(round((answered - sent) * 1e6))
        elif status != 200:
            statuses[str(status)] += 1

    while idle or busy:
        while idle:
            connection, now = idle.pop(), clock()
            if now >= until:
                connection.close()
            elif connection.send(next(requests), 0) and connection.sock is not None:
                busy[connection.sock] = connection
                sent_at[connection.sock] = now
            else:
                connection.close()
                note(LOST, now, now)
                # It goes on with a new connection, but never in a busy loop.
                time.sleep(0.1)
                idle.append(connection)
        if not busy:
            continue
        ready, _, _ = select.select(list(busy), [], [], PATIENCE_SECONDS)
        if not ready:
            for sock, connection in busy.items():
                connection.close()
                note(LOST, sent_at[sock], clock())
            break
        for sock in ready:
            connection = busy[sock]
            answer = connection.receive()
            if answer is None:
                continue
            del busy[sock]
            note(answer[0], sent_at.pop(sock), clock())
            if answer[0] == LOST:
                connection.close()
            idle.append(connection)
    return {"latencies": latencies, "statuses": statuses}


def main() -> None:
    """Obeys orders from standard input, one a line, until its end."""
    gc.disable()
    for line in sys.stdin:
        print(json.dumps(_read(json.loads(line))), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
