"""Heartbeats at a fixed rate, whatever the answers do, by a process that costs little.

Open loop: beat k is due at t0 + k / rate, and its latency counts from that instant, also where it
had to wait because all connections were busy with earlier ones. A generator that waits for
answers before it sends would leave out the very beats that a stall delays (coordinated omission).

Plain sockets and `select`, whose timeout is exact to the microsecond (that of `epoll` and so of
asyncio is a whole millisecond), and requests that are bytes before the clock starts. No Django.

`LoadGenerator` starts the process and talks with it by lines of JSON; `python -m benchmarks.load`
is the process.
"""

import gc
import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from parentalcontrols.launcher import PROJECT
from parentalcontrols.processes import ServerError, end_process, spawn

PATH = "/api/v1/viewing-time/heartbeat"
#: Seconds without any answer after which beats that are under way count as lost.
PATIENCE_SECONDS = 10.0
#: The "status" of a beat that got no answer.
LOST = 0
#: Seconds between the order to start and the first beat.
_LEAD_SECONDS = 0.05
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_WILL_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Watcher:
    """A child at its player."""

    token: str
    profile_id: UUID


@dataclass(frozen=True, slots=True)
class Beats:
    """What became of the measured beats. Latencies in milliseconds from the scheduled instant.

    `began` and `ended` are instants of `time.perf_counter`, which all processes share. `late` is
    by how much the beats left after their instant, in milliseconds: the generator's own fault, or
    that of busy connections.
    """

    latencies: Sequence[float]
    late: Sequence[float]
    statuses: Mapping[str, int]
    began: float
    ended: float

    @property
    def refused(self) -> int:
        """Beats that were answered other than 200, or not at all."""
        return sum(count for status, count in self.statuses.items() if status != "200")


class Generator:
    """A process that sends requests, and obeys orders by lines of JSON."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _ask(self, **order: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the load generator has no pipes")
        line = b""
        with suppress(BrokenPipeError):
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            # Its traceback comes by the same pipe, and then the end.
            text = (line + stdout.read()).decode(errors="replace").strip()
            raise ServerError(f"The load generator failed:\n{text}") from None
        return answer


class LoadGenerator(Generator):
    """The process that sends heartbeats; made by `load_generator`."""

    def plan(
        self,
        *,
        host: str,
        port: int,
        connections: int,
        title_id: UUID,
        watchers: Sequence[Watcher],
    ) -> None:
        """Who beats, where, and over how many connections."""
        answer = self._ask(
            host=host,
            port=port,
            connections=connections,
            title_id=str(title_id),
            watchers=[(watcher.token, str(watcher.profile_id)) for watcher in watchers],
        )
        if answer["watchers"] != len(watchers):
            raise ServerError("The load generator misunderstood its plan.")

    def open_sessions(self) -> None:
        """Each child's first beat; raises ServerError where one is refused."""
        answer = self._ask(do="open")
        if set(answer["statuses"]) != {"200"}:
            raise ServerError(f"First beats were refused: {_told(answer['statuses'])}.")

    def beat(self, *, rate: float, seconds: float, settle: float) -> Beats:
        """Beats for `settle` + `seconds` at `rate` a second; only the latter are measured."""
        answer = self._ask(do="beat", rate=rate, seconds=seconds, settle=settle)
        return Beats(
            latencies=[microseconds / 1000 for microseconds in answer["latencies"]],
            late=[microseconds / 1000 for microseconds in answer["late"]],
            statuses=answer["statuses"],
            began=answer["began"],
            ended=answer["ended"],
        )


def _told(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


@contextmanager
def load_generator(environment: Mapping[str, str]) -> Iterator[LoadGenerator]:
    """A load generator in a process of its own, until the end of the block."""
    with generator_process("benchmarks.load", environment) as process:
        yield LoadGenerator(process)


@contextmanager
def generator_process(
    module: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a module and talks by its pipes, until the end of the block."""
    process = spawn(
        [sys.executable, "-m", module],
        death_signal=signal.SIGTERM,
        environment=environment,
        folder=PROJECT,
        stdin=subprocess.PIPE,
        output=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.stdin:
            with suppress(BrokenPipeError):
                process.stdin.close()
        end_process(process, [(signal.SIGTERM, 5), (signal.SIGKILL, 5)])


# --- The process ----------------------------------------------------------------------------


class Connection:
    """A keep-alive connection with one request under way at most."""

    __slots__ = ("_address", "_body_at", "_buffer", "_expected", "beat", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._buffer = bytearray()
        self._body_at = 0
        self._expected = 0
        self.beat = 0
        self.sock: socket.socket | None = None

    def send(self, request: bytes, beat: int) -> bool:
        """Sends a request, over a new connection where there is none; whether that went well."""
        self.beat = beat
        self._body_at = 0
        self._buffer.clear()
        try:
            if self.sock is None:
                self.sock = socket.create_connection(self._address, timeout=PATIENCE_SECONDS)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock.setblocking(False)
            # Nothing else is under way: it fits the empty buffer of the socket.
            return self.sock.send(request) == len(request)
        except OSError:
            return False

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body once they are complete, None before; `LOST` when it was cut off."""
        if self.sock is None:
            return LOST, b""
        try:
            received = self.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            received = b""
        if not received:
            return LOST, b""
        buffer = self._buffer
        buffer += received
        if not self._body_at:
            self._body_at = buffer.find(b"\r\n\r\n") + 4
            if self._body_at < 4:
                self._body_at = 0
                return None
            length = _CONTENT_LENGTH.search(buffer, 0, self._body_at)
            chunked = _CHUNKED.search(buffer, 0, self._body_at)
            if length is None and chunked is None:
                return LOST, b""
            self._expected = 0 if length is None else self._body_at + int(length[1])
        if self._expected:
            if len(buffer) < self._expected:
                return None
            body = bytes(buffer[self._body_at :])
        else:
            # Our bodies are JSON without line ends: nothing but the last chunk looks like it.
            if not buffer.endswith(_LAST_CHUNK):
                return None
            body = _unchunked(bytes(buffer[self._body_at :]))
        status = int(buffer[9:12])
        if _WILL_CLOSE.search(buffer, 0, self._body_at):
            self.close()
        return status, body

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def _unchunked(raw: bytes) -> bytes:
    """The body that came in chunks."""
    parts = []
    while raw:
        size, _, rest = raw.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        raw = rest[length + 2 :] if length else b""
    return b"".join(parts)


#: Called with the beat's number, its status, its body, when it was due, sent and answered.
_Note = Callable[[int, int, bytes, float, float, float], None]


class _Sender:
    """Sends beats when they are due and takes their answers, all in one thread."""

    def __init__(self, address: tuple[str, int], connections: int) -> None:
        # In turn, so that every connection, and with it every worker, gets its share.
        self._free = deque(Connection(address) for _ in range(connections))

    def reconnect(self) -> None:
        """Connections that were idle for long may have been closed by the service meanwhile."""
        for connection in self._free:
            connection.close()

    def run(self, requests: Sequence[bytes], interval: float, start: float, note: _Note) -> None:
        """Sends request k at `start` + k * `interval`, until the last one is answered or lost."""
        clock = time.perf_counter
        free, busy = self._free, dict[socket.socket, Connection]()
        waiting: deque[int] = deque()
        sent_at = [0.0] * len(requests)
        upcoming, answered_at = 0, start
        while upcoming < len(requests) or waiting or busy:
            now = clock()
            while upcoming < len(requests) and start + upcoming * interval <= now:
                waiting.append(upcoming)
                upcoming += 1
            while waiting and free:
                beat, connection = waiting.popleft(), free.popleft()
                sent_at[beat] = clock()
                if connection.send(requests[beat], beat) and connection.sock is not None:
                    busy[connection.sock] = connection
                else:
                    self._lose(connection, start + beat * interval, sent_at[beat], note)
            if upcoming < len(requests):
                timeout = max(0.0, start + upcoming * interval - clock())
            else:
                timeout = max(0.0, answered_at + PATIENCE_SECONDS - clock())
            ready, _, _ = select.select(list(busy), [], [], timeout)
            for sock in ready:
                connection = busy[sock]
                answer = connection.receive()
                if answer is None:
                    continue
                del busy[sock]
                answered_at = clock()
                due = start + connection.beat * interval
                if answer[0] == LOST:
                    self._lose(connection, due, sent_at[connection.beat], note)
                    continue
                note(connection.beat, *answer, due, sent_at[connection.beat], answered_at)
                free.append(connection)
            if upcoming == len(requests) and clock() - max(answered_at, start) > PATIENCE_SECONDS:
                for connection in busy.values():
                    due = start + connection.beat * interval
                    self._lose(connection, due, sent_at[connection.beat], note)
                busy.clear()

    def _lose(self, connection: Connection, due: float, sent: float, note: _Note) -> None:
        connection.close()
        note(connection.beat, LOST, b"", due, sent, time.perf_counter())
        self._free.append(connection)


class _Household:
    """Every child's request, with the session that its first beat opened."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.address = (plan["host"], plan["port"])
        self._title_id = plan["title_id"]
        self._watchers: list[tuple[str, str]] = plan["watchers"]
        self._requests: list[bytes] = []
        self._beats_sent = 0

    def __len__(self) -> int:
        return len(self._watchers)

    def open(self, sender: _Sender) -> dict[str, Any]:
        """Sends the first beats as fast as the connections allow."""
        statuses: Counter[str] = Counter()
        sessions: list[str | None] = [None] * len(self)

        def note(beat: int, status: int, body: bytes, *_: float) -> None:
            statuses[str(status)] += 1
            if status == 200:
                sessions[beat] = json.loads(body)["session_id"]

        sender.reconnect()
        sender.run(self._made([None] * len(self)), 0.0, time.perf_counter(), note)
        self._requests = self._made(sessions)
        return {"statuses": statuses}

    def beat(self, sender: _Sender, order: Mapping[str, Any]) -> dict[str, Any]:
        """Sends steady beats, child after child, and goes on there the next time."""
        settling = round(order["settle"] * order["rate"])
        count = settling + round(order["seconds"] * order["rate"])
        first, size = self._beats_sent, len(self)
        requests = [self._requests[(first + number) % size] for number in range(count)]
        self._beats_sent += count
        statuses: Counter[str] = Counter()
        latencies: list[int] = []
        late: list[int] = []

        def note(
            beat: int, status: int, _body: bytes, due: float, sent: float, answered: float
        ) -> None:
            # A refusal while things settle spoils the run as well.
            if beat >= settling or status != 200:
                statuses[str(status)] += 1
            if beat >= settling and status != LOST:
                latencies.append(round((answered - due) * 1e6))
                late.append(round((sent - due) * 1e6))

        start = time.perf_counter() + _LEAD_SECONDS
        sender.run(requests, 1 / order["rate"], start, note)
        return {
            "latencies": latencies,
            "late": late,
            "statuses": statuses,
            "began": start + settling / order["rate"],
            "ended": start + count / order["rate"],
        }

    def _made(self, sessions: Sequence[str | None]) -> list[bytes]:
        made = []
        for (token, profile_id), session_id in zip(self._watchers, sessions, strict=True):
            beat = {
                "profile_id": profile_id,
                "title_id": self._title_id,
                "device_id": "tv",
                "device_type": "tv",
                "session_id": session_id,
            }
            body = json.dumps(beat)
            head = (
                f"POST {PATH} HTTP/1.1\r\n"
                f"Host: {self.address[0]}:{self.address[1]}\r\n"
                f"Authorization: Bearer {token}\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            made.append((head + body).encode("ascii"))
        return made


def main() -> None:
    """Obeys orders from standard input, one a line, until its end."""
    plan = json.loads(sys.stdin.readline())
    household = _Household(plan)
    sender = _Sender(household.address, plan["connections"])
    # What is made here lives to the end; a collection would delay the beats that are due.
    gc.disable()
    print(json.dumps({"watchers": len(household)}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = household.open(sender) if order["do"] == "open" else household.beat(sender, order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
