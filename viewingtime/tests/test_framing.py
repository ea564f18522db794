"""Requests whose parts can be read in two ways, at the paths where beats are read before Django."""

import json
import re
import socket
from typing import Any

import pytest

from parentalcontrols.tests.cast import API
from pins.tests.service import LONG, Service
from viewingtime.models import ViewingSession
from viewingtime.tests.village import BEAT, Child, children

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def child() -> Child:
    (found,) = children(1)
    return found


def raw_beat(child: Child, *headers: str, line: str = f"POST {API}{BEAT} HTTP/1.1") -> bytes:
    """The head of a beat, without anything that tells how long its body is."""
    usual = ("Host: here", f"Authorization: Bearer {child.token}", "Content-Type: application/json")
    return "\r\n".join([line, *usual, *headers, "", ""]).encode("latin-1")


def say(service: Service, text: bytes) -> list[tuple[int, Any]]:
    """Status and document of every answer to what is sent on one connection."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LONG) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        told = b""
        try:
            while data := line.recv(65536):
                told += data
        except ConnectionResetError:
            pass
    answers = []
    while told:
        head, _, told = told.partition(b"\r\n\r\n")
        (length,) = re.findall(rb"(?i)content-length: (\d+)", head) or [b"0"]
        body, told = told[: int(length)], told[int(length) :]
        is_json = b"json" in head.lower()
        answers.append((int(head.split()[1]), json.loads(body) if is_json else body))
    return answers


def body_of(child: Child) -> bytes:
    return json.dumps(child.beat()).encode()


def test_beats_one_after_the_other_on_one_connection_are_answered_in_order(
    served: Service, child: Child
) -> None:
    """Pipelined: the next one is sent before the first is answered."""
    good = body_of(child)
    bad = b'{"profile_id": 5}'
    sent = b"".join(
        raw_beat(child, f"Content-Length: {len(body)}") + body for body in (good, bad, good, bad)
    )
    assert [status for status, _ in say(served, sent)] == [200, 400, 200, 400]


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: {n}", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: {n}"),
        ("Content-Length: {n}", "Transfer-Encoding: identity"),
        ("Content-Length: {n}", "Transfer-Encoding: xchunked"),
        ("Content-Length: {n}", "Transfer-Encoding: chunked, chunked"),
        ("Content-Length: {n}", "Transfer-Encoding:\x0bchunked"),
        ("Content-Length: {n}", "Transfer-Encoding : chunked"),
        ("Content-Length: {n}", " Transfer-Encoding: chunked"),
        ("Content-Length: {n}", "X: y\r\n Transfer-Encoding: chunked"),
        ("Content-Length: {n}", "Content-Length: {n}"),
        ("Content-Length: {n}", "Content-Length: 0"),
        ("Content-Length: {n}, {n}",),
        ("Content-Length: +{n}",),
        ("Content-Length: 0x{n}",),
        ("Content-Length: -{n}",),
        ("Content-Length: {n}_0",),
        ("Content-Length: \xb2",),
        ("Content_Length: {n}", "Content-Length: {n}"),
        ("Content-Length: {n}", "X-Nul: a\x00b"),
        ("Content-Length: {n}", "X-Bare: a\rb"),
        ("Content-Length: {n}", "Host: elsewhere"),
        ("Content-Length: {n}", "Content-Type: text/plain"),
        ("Content-Length: {n}", "Authorization"),
        ("Content-Length: {n}", *(f"X-Many-{n}: x" for n in range(70))),
        ("Content-Length: {n}", "X-Long: " + "x" * 9000),
    ],
    ids=lambda headers: ascii(" / ".join(headers))[:70],
)
def test_a_frame_that_can_be_read_in_two_ways_is_refused(
    served: Service, child: Child, headers: tuple[str, ...]
) -> None:
    """And what follows it on the connection is not read at all."""
    body = body_of(child)
    told = [header.replace("{n}", str(len(body))) for header in headers]
    smuggled = raw_beat(child, f"Content-Length: {len(body)}") + body
    answers = say(served, raw_beat(child, *told) + body + smuggled)
    if "Content_Length: {n}" in headers:
        # A name with an underscore is as if it had not been there.
        assert [status for status, _ in answers] in ([200, 200], [400])
        return
    assert len(answers) <= 1
    assert all(400 <= status < 502 for status, _ in answers)
    assert not ViewingSession.objects.exists()


@pytest.mark.parametrize(
    "line",
    [
        f"post {API}{BEAT} HTTP/1.1",
        f"Post {API}{BEAT} HTTP/1.1",
        f"POST {API}{BEAT} HTTP/2.0",
        f"POST {API}{BEAT} HTTP/1.15",
        f"POST {API}{BEAT} http/1.1",
        f"POST {API}{BEAT}",
        f"POST  {API}{BEAT} HTTP/1.1",
        f"POST\t{API}{BEAT}\tHTTP/1.1",
        f"POST {API}{BEAT}\xff HTTP/1.1",
        f"POST {API}{BEAT}\x00 HTTP/1.1",
        f"POST {API}{BEAT}?{'x' * 9000} HTTP/1.1",
        f"POST {'x' * 9000} HTTP/1.1",
    ],
    ids=lambda line: ascii(line)[:50],
)
def test_a_request_line_that_is_none_is_refused(served: Service, child: Child, line: str) -> None:
    body = body_of(child)
    answers = say(served, raw_beat(child, f"Content-Length: {len(body)}", line=line) + body)
    assert len(answers) <= 1
    assert all(400 <= status < 506 for status, _ in answers)
    assert not ViewingSession.objects.exists()


@pytest.mark.parametrize(
    "line",
    [
        f"POST http://elsewhere.example{API}{BEAT} HTTP/1.1",
        f"POST {API}{BEAT}?title_id=x HTTP/1.1",
        f"POST {API}{BEAT} HTTP/1.0",
    ],
)
def test_other_ways_to_write_a_request_are_the_same_beat(
    served: Service, child: Child, line: str
) -> None:
    body = body_of(child)
    answers = say(served, raw_beat(child, f"Content-Length: {len(body)}", line=line) + body)
    assert [status for status, _ in answers] == [200]


def test_a_body_of_http_1_0_without_a_length_is_none(served: Service, child: Child) -> None:
    line = f"POST {API}{BEAT} HTTP/1.0"
    answers = say(served, raw_beat(child, line=line) + body_of(child))
    assert answers[0][0] == 400
    assert not ViewingSession.objects.exists()


@pytest.mark.parametrize(
    "header",
    [
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: PUT",
        "X-Method-Override: GET",
        "X-Original-URL: /admin/",
        "X-Rewrite-URL: /admin/",
        "X-Forwarded-Prefix: /admin",
        "Content-Encoding: identity",
        "Connection: Authorization",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "Cookie: sessionid=x",
        "Script-Name: /api",
    ],
)
def test_headers_that_other_servers_obey_make_no_difference(
    served: Service, child: Child, header: str
) -> None:
    body = body_of(child)
    answers = say(served, raw_beat(child, f"Content-Length: {len(body)}", header) + body)
    final = [answer for status, answer in answers if status != 100]
    assert len(final) == 1
    assert "session_id" in str(final[0])
    assert ViewingSession.objects.filter(profile=child.profile).count() == 1
