"""What the proxy passes on and what it sends again: two instances note what comes."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from pins.tests.service import LONG, Service
from tests.topology.house import proxy

BASE = "/api/v1"
SENT_AGAIN = {
    "heartbeat": ("POST", f"{BASE}/viewing-time/heartbeat"),
    "heartbeats": ("POST", f"{BASE}/viewing-time/heartbeats"),
    "end-session": ("POST", f"{BASE}/viewing-time/session/{uuid4()}/end"),
    "balance": ("GET", f"{BASE}/viewing-time/balance/{uuid4()}"),
}
SENT_ONCE = {
    "grant": ("POST", f"{BASE}/parental-controls/profiles/{uuid4()}/viewing-time/grant"),
    "config": ("PUT", f"{BASE}/parental-controls/profiles/{uuid4()}/viewing-time"),
}


class Instance(ThreadingHTTPServer):
    """Notes what it is sent; one that `dies` is ready, and ends each request without an answer."""

    daemon_threads = True

    def __init__(self, *, dies: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dies = dies
        self.heard: list[_Handler] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Instance
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_question = self.path == "/readyz"
        if not is_question:
            self.server.heard.append(self)
        if self.server.dies and not is_question:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@dataclass
class Front:
    """The proxy, and who stands behind it."""

    service: Service
    well: Instance
    dying: Instance
    statuses: list[int] = field(default_factory=list)

    def send(self, method: str, path: str, **headers: str) -> int:
        """The status of what is sent as it is written here."""
        line = HTTPConnection(urlsplit(self.service.url).netloc, timeout=LONG)
        try:
            body = None if method == "GET" else b"{}"
            line.request(method, path, body, {"Content-Type": "application/json", **headers})
            self.statuses.append(line.getresponse().status)
        finally:
            line.close()
        return self.statuses[-1]


@pytest.fixture
def front() -> Iterator[Front]:
    with ExitStack() as stack:
        instances = [Instance(dies=False), Instance(dies=True)]
        for instance in instances:
            Thread(target=instance.serve_forever, daemon=True).start()
            stack.callback(instance.server_close)
            stack.callback(instance.shutdown)
        service = stack.enter_context(proxy(*(instance.address for instance in instances)))
        yield Front(service, *instances)


@pytest.mark.parametrize("name", SENT_AGAIN)
def test_what_may_be_sent_twice_is_when_its_instance_died_under_it(front: Front, name: str) -> None:
    for _ in range(4):
        front.send(*SENT_AGAIN[name])
    assert front.statuses == [200] * 4
    assert len(front.well.heard) == 4
    assert front.dying.heard


@pytest.mark.parametrize("name", SENT_ONCE)
def test_whatever_else_may_have_been_done_is_not(front: Front, name: str) -> None:
    for _ in range(4):
        front.send(*SENT_ONCE[name])
    assert sorted(front.statuses) == [200, 200, 503, 503]
    assert len(front.well.heard) == len(front.dying.heard) == 2


def test_what_a_client_says_of_its_address_is_not_passed_on(front: Front) -> None:
    said = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Forwarded-Proto")
    claims = dict(zip(said, ("192.0.2.1", "192.0.2.1", "for=192.0.2.1", "https"), strict=True))
    assert front.send(*SENT_AGAIN["heartbeat"], **claims) == 200
    (heard,) = front.well.heard
    assert [heard.headers.get_all(name) for name in said] == [["127.0.0.1"], None, None, ["http"]]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/metrics?x=1", "/%6detrics", "/%6C%69vez"]
)
def test_what_is_for_operators_is_passed_on_in_no_spelling(front: Front, path: str) -> None:
    assert front.send("GET", path) == 404
    assert not front.well.heard
    assert not front.dying.heard
