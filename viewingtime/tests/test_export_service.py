"""An export by the running service: greenlets, pooled connections, a client that reads slowly."""

import json
import os
import socket
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API, Cast, beat_of, database_now
from pins.tests.service import LONG, Line, Service, database_of_tests
from viewingtime.tests.stored import store

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc"),
]

SESSIONS = 100_000
_AT_WORK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name = 'viewingtime' AND (state <> 'idle' OR backend_xmin IS NOT NULL)
"""


def memory(service: Service) -> int:
    """What all workers together hold, in bytes."""
    return sum(worker.memory_info().rss for worker in service.workers())


def ask(service: Service, token: str) -> tuple[socket.socket, bytes]:
    """Sends the request on a connection that takes little at a time; what came up to the body."""
    address = urlsplit(service.url)
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    line.settimeout(LONG)
    line.connect((address.hostname, address.port))
    request = (
        f"GET {API}/account/export HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    line.sendall(request.encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += line.recv(4096)
    return line, received


def rest(line: socket.socket) -> bytes:
    parts = []
    while part := line.recv(1 << 20):
        parts.append(part)
    line.close()
    return b"".join(parts)


def at_work(connection: psycopg.Connection[Any]) -> int:
    (count,) = connection.execute(_AT_WORK).fetchone() or (0,)
    return int(count)


def test_a_client_that_reads_slowly_keeps_nothing_of_the_database(served: Service) -> None:
    cast = Cast()
    store(
        cast.child,
        [cast.cartoon],
        count=SESSIONS,
        newest=database_now() - timedelta(days=2),
        over=timedelta(days=60),
    )
    before = memory(served)
    line, received = ask(served, cast.phone.token or "")
    assert received.startswith(b"HTTP/1.1 200")
    with psycopg.connect(database_of_tests(), autocommit=True) as connection:
        # Most of it was not read by us yet, and all of it was by the service.
        assert wait_until(lambda: at_work(connection) == 0, LONG)
    player = Line(served, cast.phone.token or "")
    assert player.post("/viewing-time/heartbeat", beat_of(cast.child, cast.cartoon)).status == 200
    player.close()
    head, body = received.split(b"\r\n\r\n", 1)
    body += rest(line)
    grown = memory(served) - before
    length = next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:"))
    assert int(length.split(b":")[1]) == len(body) > 40_000_000
    child = json.loads(body)["profiles"][0]
    assert len({one["session_id"] for one in child["sessions"]}) == SESSIONS
    assert grown < 30_000_000


def test_whoever_hangs_up_leaves_nothing_behind(served: Service) -> None:
    cast = Cast()
    store(
        cast.child,
        [cast.cartoon],
        count=SESSIONS,
        newest=database_now() - timedelta(days=2),
        over=timedelta(days=60),
    )

    def unnamed_files() -> int:
        """Files that the workers hold open and that have no name any more."""
        descriptors = [
            descriptor
            for worker in served.workers()
            for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir()
        ]
        found = 0
        for descriptor in descriptors:
            with suppress(FileNotFoundError):
                found += os.readlink(descriptor).startswith(f"{tempfile.gettempdir()}/#")
        return found

    before = unnamed_files()
    line, _ = ask(served, cast.phone.token or "")
    assert unnamed_files() == before + 1
    line.close()
    assert wait_until(lambda: unnamed_files() <= before, LONG)
    with psycopg.connect(database_of_tests(), autocommit=True) as connection:
        assert wait_until(lambda: at_work(connection) == 0, LONG)
