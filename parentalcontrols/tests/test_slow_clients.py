"""Clients that send and read byte by byte: the others do not notice, and they are cut off."""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API, Cast, database_now
from pins.tests.service import LONG, Line, Service, await_warm, database_of_tests, gunicorn
from viewingtime.models import ViewingSession
from viewingtime.tests.village import BEAT, children

pytestmark = pytest.mark.django_db(transaction=True)
#: What a client of these tests may take, and how much longer a busy machine may.
SECONDS, GRACE = 1.0, 20.0
#: A file, and how often it makes more than the kernels hold between two sockets.
OFTEN = 6
#: More than the service takes of a body and the kernels hold between two sockets.
MUCH = 128 * 1024 * 1024
LARGE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@contextmanager
def one_worker(**environment: str) -> Iterator[Service]:
    with gunicorn(
        database_of_tests(), WORKERS="1", METRICS_ENABLED="false", **environment
    ) as service:
        yield service


@pytest.fixture(scope="module")
def impatient(django_db_setup: None) -> Iterator[Service]:
    """A service of one process that gives its clients a second."""
    with one_worker(CLIENT_SECONDS=str(round(SECONDS))) as service:
        await_warm(database_of_tests(), 1)
        yield service


@pytest.fixture(scope="module")
def patient(django_db_setup: None) -> Iterator[Service]:
    """The same that gives them as long as ever."""
    with one_worker() as service:
        await_warm(database_of_tests(), 1)
        yield service


def connect(service: Service, buffer: int | None = None) -> socket.socket:
    """A connection, whose end of it takes in `buffer` bytes without being read."""
    host, port = service.url.removeprefix("http://").split(":")
    opened = socket.socket()
    if buffer is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    opened.settimeout(LONG)
    opened.connect((host, int(port)))
    return opened


def head_of(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


def post_of(path: str, token: str, *headers: str) -> bytes:
    return head_of(
        "POST",
        API + path,
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        *headers,
    )


def trickle(client: socket.socket, byte: bytes = b"x") -> tuple[bytes, float]:
    """Sends a byte every 50 ms until something is answered; that, and after how many seconds."""
    began = time.monotonic()
    while time.monotonic() - began < LONG:
        if select.select([client], [], [], 0.05)[0]:
            return everything(client), time.monotonic() - began
        try:
            client.sendall(byte)
        except OSError:
            return b"", time.monotonic() - began
    pytest.fail("It may go on for ever.")


def sent_until_cut_off(client: socket.socket, piece: bytes) -> int:
    """Sends pieces until the other end is gone, or takes `MUCH`; how many bytes it took."""
    for sent in range(0, MUCH, len(piece)):
        try:
            client.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return sent
    return MUCH


def everything(client: socket.socket) -> bytes:
    """What is still sent, up to the end of the connection."""
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def opened_at(service: Service) -> int:
    """How many connections its process has."""
    (worker,) = service.workers()
    port = int(service.url.rsplit(":", 1)[1])
    return sum(
        found.laddr.port == port and found.status == "ESTABLISHED"
        for found in worker.net_connections("tcp")
    )


# They are cut off


def test_a_head_that_does_not_end_is_cut_off(impatient: Service) -> None:
    for begun in (b"G", head_of("GET", API + "/auth/me")[:-2] + b"X-Slow: "):
        with connect(impatient) as client:
            client.sendall(begun)
            answer, seconds = trickle(client)
            assert answer == b""
            assert 0.9 * SECONDS < seconds < SECONDS + GRACE


@pytest.mark.parametrize("framing", ["Content-Length: 500", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [BEAT, "/auth/profiles"])
def test_a_body_that_does_not_end_is_told_so_and_cut_off(
    impatient: Service, cast: Cast, path: str, framing: str
) -> None:
    with connect(impatient) as client:
        begun = b'{"name": "' if "Length" in framing else b'1f4\r\n{"name": "'
        client.sendall(post_of(path, str(cast.phone.token), framing) + begun)
        answer, seconds = trickle(client)
        assert 0.9 * SECONDS < seconds < SECONDS + GRACE
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    document = json.loads(body)
    assert (document["status"], document["code"]) == (408, "request_timeout")


def test_who_does_not_read_the_answer_is_cut_off(impatient: Service) -> None:
    with connect(impatient, buffer=2048) as client:
        client.sendall(head_of("GET", LARGE) * OFTEN)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert wait_until(lambda: opened_at(impatient) == 0, SECONDS + GRACE)
        length = len(impatient.get(LARGE).content)
        assert 0 < len(everything(client)) < length * OFTEN


def test_what_is_left_of_a_body_that_was_refused_is_not_waited_for(
    impatient: Service, cast: Cast
) -> None:
    with connect(impatient) as client:
        client.sendall(post_of("/auth/profiles", str(cast.phone.token), "Content-Length: 9999999"))
        client.sendall(b"{")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        _, seconds = trickle(client)
        assert seconds < SECONDS + GRACE


def test_who_sends_too_much_hears_so_and_may_ask_again(patient: Service) -> None:
    """Also where no body is asked for, with a length and in chunks."""
    sent = b"x" * (3 * 1024 * 1024)
    chunk = b"%x\r\n%b\r\n" % (len(sent), sent)
    with connect(patient) as client:
        for framing, body in (
            (f"Content-Length: {len(sent)}", sent),
            ("Transfer-Encoding: chunked", chunk + b"0\r\n\r\n"),
        ):
            client.sendall(head_of("GET", "/livez", framing) + body)
            assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        client.sendall(head_of("GET", "/livez"))
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("framing", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/livez", LARGE, API + "/auth/profiles"])
def test_who_sends_without_end_is_cut_off(patient: Service, path: str, framing: str) -> None:
    """After some of it, and not when the time for it is over."""
    piece = b"x" * 65536
    if "chunked" in framing:
        piece = b"10000\r\n%b\r\n" % piece
    with connect(patient) as client:
        client.sendall(head_of("POST", path, framing))
        assert sent_until_cut_off(client, piece) < MUCH
    assert patient.get("/livez").status_code == 200


def test_who_is_in_no_hurry_between_two_requests_is_not_cut_off(
    impatient: Service, cast: Cast
) -> None:
    """A player is silent for thirty seconds between two beats."""
    with connect(impatient) as client:
        for _ in range(2):
            client.sendall(head_of("GET", "/livez"))
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            # Nothing comes, not even the end of the connection.
            assert select.select([client], [], [], 2 * SECONDS)[0] == []


def test_a_beat_in_two_parts_is_a_beat(impatient: Service) -> None:
    (child,) = children(1)
    body = json.dumps(child.beat()).encode()
    for cut in (1, len(body) // 2, len(body) - 1):
        with connect(impatient) as client:
            client.sendall(post_of(BEAT, child.token, f"Content-Length: {len(body)}"))
            client.sendall(body[:cut])
            assert select.select([client], [], [], 0.1)[0] == []
            client.sendall(body[cut:])
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


# The others do not notice


class Trickle(threading.Thread):
    """Sends a byte to each of its connections now and then, for as long as it is wanted."""

    def __init__(self, clients: list[socket.socket]) -> None:
        super().__init__(daemon=True)
        self._clients = clients
        self._is_over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            for client in self._clients:
                client.sendall(b"x")
            self.sent += 1

    def end(self) -> None:
        self._is_over.set()
        self.join(LONG)


def test_beats_are_answered_in_time_while_200_slow_clients_are_served(cast: Cast) -> None:
    """Without a limit that would cut any of them off meanwhile."""
    everybody = children(8)
    token = str(cast.phone.token)
    with one_worker() as service, ExitStack() as opened:

        def clients(count: int, begun: bytes, buffer: int | None = None) -> list[socket.socket]:
            found = [opened.enter_context(connect(service, buffer)) for _ in range(count)]
            for client in found:
                client.sendall(begun)
            return found

        senders = [
            *clients(50, head_of("GET", API + "/auth/me")[:-2] + b"X-Slow: "),
            *clients(50, post_of(BEAT, everybody[0].token, "Content-Length: 100000") + b"{"),
            *clients(50, post_of("/auth/profiles", token, "Content-Length: 100000") + b"{"),
        ]
        readers = clients(50, head_of("GET", LARGE) * OFTEN, buffer=2048)
        for reader in readers:
            assert reader.recv(8) == b"HTTP/1.1"
        slow = Trickle(senders)
        slow.start()
        try:
            sessions: list[str | None] = [None] * len(everybody)
            for child in everybody:
                child.connect(service)
            for _ in range(10):
                for place, child in enumerate(everybody):
                    began = time.monotonic()
                    told = child.lines[0].post(BEAT, child.beat(sessions[place]))
                    assert time.monotonic() - began < 2.0
                    assert told.status == 200
                    sessions[place] = told.body["session_id"]
                assert ask(service, token) == 200
            assert wait_until(lambda: slow.sent >= 2, LONG)
            assert opened_at(service) >= 200
        finally:
            slow.end()
            for child in everybody:
                child.hang_up()


def ask(service: Service, token: str) -> int:
    """A request that needs the database; its status."""
    return Line(service, token).send("GET", "/auth/me").status


def test_bodies_that_are_slow_keep_no_connection_to_the_database(cast: Cast) -> None:
    token = str(cast.phone.token)
    with one_worker(DATABASE_POOL_SIZE="1") as service, ExitStack() as opened:
        # Its queues have three of four, and the one that is left is for a request.
        for _ in range(8):
            client = opened.enter_context(connect(service))
            client.sendall(post_of("/auth/profiles", token, "Content-Length: 100") + b"{")
        for _ in range(3):
            assert ask(service, token) == 200


def test_a_file_that_is_read_slowly_keeps_no_connection_to_the_database(cast: Cast) -> None:
    cast.cartoon.title = "x" * 250
    cast.cartoon.save()
    now = database_now()
    ViewingSession.objects.bulk_create(
        ViewingSession(
            profile=cast.adult,
            title=cast.cartoon,
            device_id="tv",
            is_kids=False,
            reset_date=(now - timedelta(days=2)).date(),
            started_at=now - timedelta(days=2),
            last_heartbeat_at=now - timedelta(days=2),
            ended_at=now - timedelta(days=2),
            end_reason="stopped",
            total_seconds=Decimal(0),
            educational_seconds=Decimal(0),
        )
        for _ in range(20_000)
    )
    token = str(cast.phone.token)
    path = f"{API}/parental-controls/profiles/{cast.adult.id}/history?format=csv"
    with one_worker(DATABASE_POOL_SIZE="1") as service, ExitStack() as opened:
        for _ in range(8):
            client = opened.enter_context(connect(service, buffer=2048))
            client.sendall(head_of("GET", path, f"Authorization: Bearer {token}"))
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        for _ in range(3):
            assert ask(service, token) == 200
        assert opened_at(service) >= 8


# There are only so many


def test_of_too_many_connections_those_go_that_wait_longest_for_a_request(cast: Cast) -> None:
    (child,) = children(1)
    with one_worker(WORKER_CONNECTIONS="20") as service, ExitStack() as opened:
        child.connect(service)
        (line,) = child.lines
        told = line.post(BEAT, child.beat())
        idle: list[Any] = []
        for _ in range(60):
            idle.append(opened.enter_context(connect(service)))
            told = line.post(BEAT, child.beat(told.body["session_id"]))
            assert told.status == 200
        # Who beats was never the one that waits longest; of the others the youngest are left.
        assert wait_until(lambda: opened_at(service) <= 20, LONG)
        still = [client for client in idle if not select.select([client], [], [], 0)[0]]
        assert 10 < len(still) <= 19
        assert still == idle[-len(still) :]
        line.close()


def test_of_too_many_slow_clients_the_oldest_go_and_the_others_are_served(cast: Cast) -> None:
    """Also where none of them would be cut off for a long time."""
    (child,) = children(1)
    begun = post_of(BEAT, child.token, "Content-Length: 100000") + b"{"
    with one_worker(WORKER_CONNECTIONS="20") as service, ExitStack() as opened:
        told = None
        for number in range(60):
            client = opened.enter_context(connect(service, buffer=2048))
            client.sendall(head_of("GET", LARGE) * OFTEN if number % 2 else begun)
            if number % 2:
                assert client.recv(8) == b"HTTP/1.1"
            with closing(Line(service, child.token)) as line:
                session = None if told is None else told.body["session_id"]
                told = line.post(BEAT, child.beat(session))
                assert told.status == 200
        assert wait_until(lambda: opened_at(service) <= 20, LONG)
