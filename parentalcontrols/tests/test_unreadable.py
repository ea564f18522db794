"""Requests that gunicorn cannot read: neither its log nor its answer repeats what was sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API
from parentalcontrols.tests.test_slow_clients import connect, everything, head_of
from pins.tests.service import LONG, Service, database_of_tests, gunicorn

SECRET = "geheim-1234"
BODY = f'{{"email": "anna@example.com", "password": "{SECRET}"}}'.encode()
#: What is sent, the status of the last answer, and the kind that is logged.
UNREADABLE = {
    "the rest of a body": (
        head_of("POST", f"{API}/auth/login", "Content-Type: application/json", "Content-Length: 5")
        + BODY
        + head_of("GET", "/livez"),
        400,
        "InvalidRequestMethod",
    ),
    "a header without a colon": (
        head_of("GET", "/livez", f"Authorization Bearer {SECRET}"),
        400,
        "InvalidHeader",
    ),
    "a version that does not exist": (
        f"GET /livez?token={SECRET} HTTP/9.9\r\nHost: here\r\n\r\n".encode(),
        400,
        "InvalidHTTPVersion",
    ),
    "a header that is too long": (
        head_of("GET", "/livez", f"Authorization: Bearer {SECRET * 1000}"),
        431,
        "LimitRequestHeaders",
    ),
    "a line that is too long": (head_of("GET", "/livez?" + SECRET * 1000), 414, "LimitRequestLine"),
}


@pytest.fixture(params=["gevent", "gthread"])
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    """A service of one process, and the file of its log, which tells everything."""
    file: IO[bytes]
    path = tmp_path / "log"
    names = {"WORKER_CLASS": request.param, "LOG_LEVEL": "DEBUG", "WORKERS": "1"}
    with (
        path.open("wb") as file,
        gunicorn(database_of_tests(), stderr=file, **names) as service,
    ):
        yield service, path


def test_nothing_of_them_is_repeated(transactional_db: None, logged: tuple[Service, Path]) -> None:
    service, path = logged
    for what, (sent, status, kind) in UNREADABLE.items():
        with connect(service) as client:
            client.sendall(sent)
            answers = everything(client)
        assert b"HTTP/1.1 " in answers, (what, path.read_text())
        head, _, body = answers[answers.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), (what, answers)
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        assert json.loads(body)["status"] == status
        assert SECRET.encode() not in answers
        assert wait_until(lambda kind=kind: f'"kind": "{kind}"' in path.read_text(), LONG), what
    # A head that ends too early is told at the level of debugging.
    with connect(service) as client:
        client.sendall(head_of("GET", "/livez", f"Authorization: Bearer {SECRET}")[:-2])
    assert wait_until(lambda: "NoMoreData" in path.read_text(), LONG)
    text = path.read_text()
    assert SECRET not in text
    assert "anna@example.com" not in text


def test_every_line_is_an_object(transactional_db: None, logged: tuple[Service, Path]) -> None:
    service, path = logged
    with connect(service) as client:
        client.sendall(b"{\r\n\r\n")
        everything(client)
    assert wait_until(lambda: "invalid_request" in path.read_text(), LONG)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"invalid_request"} < {line["message"] for line in lines}
    assert {"gunicorn.error", "parentalcontrols.unreadable"} <= {line["logger"] for line in lines}
