"""Whatever is sent, the answer is a 4xx problem and nothing is changed.

The fields are those of the OpenAPI document, the routes those of the URLconf: new ones are
covered by themselves.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from psycopg.conninfo import make_conninfo

from parentalcontrols.models import Account
from parentalcontrols.tests.cast import (
    API,
    Cast,
    Device,
    assert_problem,
    beat_of,
    everything_stored,
)
from parentalcontrols.tests.routes import (
    FIELDS,
    METHODS,
    ROUTES,
    WITH_BODY,
    Field,
    Route,
    answers_in,
    body_for,
    device_at,
    own_ids,
)

# From Python 3.12 on a fork is warned of where the test runner has threads (pytest-xdist).
pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")

NESTED = b"[" * 5000 + b"]" * 5000
NO_OBJECTS = [
    *(b"", b" ", b"\x00", b"null", b"true", b"5", b"-0", b'"text"', b"[]", b"[{}]", b"NaN"),
    *(b"{", b"}", b"{}{}", b"{} x", b"{'a': 1}", b'{"a": 1,}', b'{"a" 1}', b"{a: 1}", b"<a/>"),
    *(b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 01}', b'{"a": 1e999}'),
    *(b'{"a": "\\ud800"}', b'{"a": "\\udc00\\ud800"}', b'{"\\ud800": 1}', b'{"a": "\\x"}'),
    *(b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xc0\x80"}', b'{"a": "\x00"}'),
    *(b'{"a": "\n"}', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\x1f\x8b\x08\x00", b"a=1&b=2"),
    *(NESTED, b"[" * 5000, b"{" * 5000, b'{"a":' * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000),
    *(b'{"a": ' + NESTED + b"}", b'{"a":' + b'[{"b":' * 5000, b"//\n{}", b"/**/{}"),
]
OTHER_TYPES = [
    *("text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded"),
    *("multipart/form-data; boundary=x", "multipart/form-data", "application/merge-patch+json"),
    *("application/jsonp", "application", "json", "/", ";", "", "application/json, text/plain"),
    *("\x80\xff", "x" * 3000, "application/octet-stream"),
]

NOBODY = "00000000-0000-4000-8000-00000000dead"
STATIC = "/static/admin/css/base.css"

TEXT = "x" * 10_000
WRONG: dict[str, list[Any]] = {
    "string": [5, 5.5, True, [], {}, ["x"], {"a": "b"}, 10**30, None, "\x00", "a\x00b", TEXT],
    "boolean": ["true", "false", "", "on", 1, 0, 1.0, [], {}, None, 10**30],
    "integer": [
        *("5", "15", "", "\u0661\u0665", 15.0, 15.5, 1e300, True, False, [], {}, [15], None),
        *(10**30, -(10**30), 2**31, -(2**31), 2**63, 2**64, -1),
    ],
    "array": [{}, "", "x", 5, True, None, {"0": {}}],
    "object": [[], "", "x", 5, True, None],
}


def send(cast: Cast, route: Route, **request: Any) -> Any:
    """A request to the parent's own things, whose body alone is hostile."""
    return cast.phone.send(route.method, route.path(own_ids(cast)), **request)


def padded(body: dict[str, Any], total: int) -> bytes:
    """A good body, padded by a field that is ignored to a total of bytes."""
    raw = json.dumps({**body, "padding": ""}).encode()
    return raw[:-2] + b"x" * (total - len(raw)) + raw[-2:]


# The body as a whole


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_that_is_no_json_object_is_refused(cast: Cast, route: Route) -> None:
    path = route.path(own_ids(cast))
    before = everything_stored()
    for raw in NO_OBJECTS:
        document = assert_problem(cast.phone.send(route.method, path, raw=raw), 400)
        assert document["code"] == "malformed", raw[:60]
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_good_body_with_something_hostile_in_it_is_refused(cast: Cast, route: Route) -> None:
    path = route.path(own_ids(cast))
    good = json.dumps(body_for(route, cast)).encode()[:-1]
    before = everything_stored()
    for extra in (b"NaN", b"Infinity", NESTED, b'"\\ud800"', b'"\xff"', b"1e999", b'{"a":' * 5000):
        raw = good + b', "ignored": ' + extra + b"}"
        assert_problem(cast.phone.send(route.method, path, raw=raw), 400, "malformed")
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_that_is_too_large_is_refused(cast: Cast, route: Route) -> None:
    path, body = route.path(own_ids(cast)), body_for(route, cast)
    before = everything_stored()
    for size in (settings.MAX_BODY_BYTES + 1, 3 * 1024 * 1024):
        raw = padded(body, size)
        assert len(raw) == size
        assert_problem(cast.phone.send(route.method, path, raw=raw), 413, "body_too_large")
        # A body that came in chunks has no length to tell.
        stream = {
            "wsgi.input": BytesIO(raw),
            "wsgi.input_terminated": True,
            "CONTENT_TYPE": "application/json",
        }
        assert_problem(cast.phone.send(route.method, path, **stream), 413, "body_too_large")
    assert everything_stored() == before


@pytest.mark.parametrize(
    "path",
    [
        *(f"{API}/auth/me", f"{API}/auth/profiles/{NOBODY}/token", f"{API}/nothing", "/nothing"),
        *("/", "/livez", "/readyz", "/metrics", "/api/schema/", "/api/docs/"),
        *("/admin/", "/admin/login/", STATIC),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_a_body_that_is_too_large_is_refused_where_none_is_read(
    db: None, path: str, method: str
) -> None:
    http = Client()
    told = {"CONTENT_LENGTH": str(settings.MAX_BODY_BYTES + 1)}
    chunked = {
        "wsgi.input": BytesIO(b"x" * (settings.MAX_BODY_BYTES + 1)),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": "",
    }
    for environ in (told, chunked):
        answer = http.generic(method, path, **environ)
        assert answer.status_code == 413
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"]
        if method != "HEAD":
            assert_problem(answer, 413, "body_too_large")
    least = {"CONTENT_LENGTH": str(settings.MAX_BODY_BYTES)}
    assert http.generic(method, path, **least).status_code != 413


def test_a_page_of_another_origin_may_read_that_its_body_is_too_large(
    db: None, settings: Any
) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://player.example.com"]
    answer = Client().get(
        f"{API}/auth/me",
        headers={"Origin": "https://player.example.com"},
        CONTENT_LENGTH=str(settings.MAX_BODY_BYTES + 1),
    )
    assert answer.status_code == 413
    assert answer.headers["Access-Control-Allow-Origin"] == "https://player.example.com"


def test_a_body_of_the_greatest_size_is_read(cast: Cast) -> None:
    raw = padded(beat_of(cast.child, cast.cartoon), settings.MAX_BODY_BYTES)
    assert cast.phone.send("POST", "/viewing-time/heartbeat", raw=raw).status_code == 200


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_that_is_not_called_json_is_refused(cast: Cast, route: Route) -> None:
    path, body = route.path(own_ids(cast)), body_for(route, cast)
    before = everything_stored()
    for content_type in OTHER_TYPES:
        answer = cast.phone.send(route.method, path, body, content_type=content_type)
        assert_problem(answer, 415, "unsupported_media_type")
    assert everything_stored() == before


def test_json_may_have_parameters_and_capital_letters(cast: Cast) -> None:
    for content_type in ("application/json; charset=utf-8", "application/json;x=y"):
        answer = cast.phone.send(
            "POST",
            "/viewing-time/heartbeat",
            beat_of(cast.child, cast.cartoon),
            content_type=content_type,
        )
        assert answer.status_code == 200, content_type


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "²", "", "0", "5", "99999999999999999999"])
def test_a_length_that_lies_is_a_bad_request(cast: Cast, length: str) -> None:
    before = everything_stored()
    answer = cast.phone.send(
        "POST",
        "/viewing-time/heartbeat",
        beat_of(cast.child, cast.cartoon),
        CONTENT_LENGTH=length,
    )
    assert_problem(answer, 413 if len(length) > 10 else 400)
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_whose_end_is_missing_is_refused_even_if_it_is_json(
    cast: Cast, route: Route
) -> None:
    path, body = route.path(own_ids(cast)), body_for(route, cast)
    length = str(len(json.dumps(body)) + 1)
    before = everything_stored()
    answer = cast.phone.send(route.method, path, body, CONTENT_LENGTH=length)
    assert_problem(answer, 400, "malformed")
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_unknown_fields_are_ignored(cast: Cast, route: Route) -> None:
    body = body_for(route, cast) | {"id": 5, "is_staff": True, "__proto__": {}, "": None}
    assert send(cast, route, body=body).status_code in {200, 201}
    assert not Account.objects.exclude(id=cast.staff.id).filter(is_staff=True).exists()


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_of_a_key_that_is_there_twice_the_last_counts(cast: Cast, route: Route) -> None:
    body = body_for(route, cast)
    path = route.path(own_ids(cast))
    good = json.dumps(body)[1:-1]
    bad = ", ".join(f"{json.dumps(key)}: {{}}" for key in body)
    before = everything_stored()
    answer = cast.phone.send(route.method, path, raw=f"{{{good}, {bad}}}".encode())
    assert_problem(answer, 400, "invalid")
    assert everything_stored() == before
    answer = cast.phone.send(route.method, path, raw=f"{{{bad}, {good}}}".encode())
    assert answer.status_code in {200, 201}, answer.content


# Field by field


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_value_of_another_type_is_refused_and_never_converted(cast: Cast, field: Field) -> None:
    (kind,) = field.types - {"null"} or {"object"}
    path = field.route.path(own_ids(cast))
    body = body_for(field.route, cast)
    before = everything_stored()
    tried = 0
    for value in WRONG[kind]:
        if value is None and "null" in field.types:
            continue
        answer = cast.phone.send(field.route.method, path, field.replaced(body, value))
        if answer.status_code == 200 and "error" in answers_in(answer.json())[0]:
            # A batch is answered beat by beat.
            error = answers_in(answer.json())[0]["error"]
        else:
            error = assert_problem(answer, 400)
        assert (error["status"], error["code"]) == (400, "invalid"), value
        named = {entry["field"] for entry in error["errors"]}
        assert len(named) == 1, (value, named)
        assert field.name.endswith(named.pop())
        tried += 1
    assert tried
    assert everything_stored() == before


@pytest.mark.parametrize("field", [f for f in FIELDS if "string" in f.types], ids=str)
def test_a_lone_surrogate_or_a_bad_byte_in_a_text_is_refused(cast: Cast, field: Field) -> None:
    path = field.route.path(own_ids(cast))
    body = json.dumps(field.replaced(body_for(field.route, cast), "@HERE@")).encode()
    before = everything_stored()
    for text in (
        b"\\ud800",
        b"a\\udfffb",
        b"\\udc00\\ud800",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc0\x80",
    ):
        answer = cast.phone.send(field.route.method, path, raw=body.replace(b"@HERE@", text))
        assert_problem(answer, 400, "malformed")
    assert everything_stored() == before


# Methods, headers, paths


@pytest.mark.parametrize("template", sorted({route.template for route in ROUTES}))
def test_another_method_is_refused_and_the_right_ones_are_told(cast: Cast, template: str) -> None:
    allowed = {route.method for route in ROUTES if route.template == template}
    path = template.format(**own_ids(cast))
    before = everything_stored()
    for method in {*METHODS, "TRACE", "PROPFIND", "MKCOL"} - allowed:
        answer = device_at(template, cast).send(method, path, {})
        assert_problem(answer, 405, "method_not_allowed")
        told = set(answer.headers["Allow"].split(", "))
        assert told - {"OPTIONS", "HEAD"} == allowed
    assert everything_stored() == before


@pytest.mark.parametrize("template", sorted({route.template for route in ROUTES}))
def test_head_and_options_change_nothing(cast: Cast, template: str) -> None:
    gets = any(route.template == template and route.method == "GET" for route in ROUTES)
    path = template.format(**own_ids(cast))
    before = everything_stored()
    phone = device_at(template, cast)
    head = phone.send("HEAD", path)
    assert head.status_code == (200 if gets else 405)
    assert head.content == b""
    assert phone.send("OPTIONS", path).status_code == 200
    for device in (cast.anonymous, Device("x")):
        assert device.send("OPTIONS", path).status_code in {200, 401}
    assert everything_stored() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "text/html"},
        {"Accept": "image/png;q=x, \x80"},
        {"Accept": ""},
        {"Accept-Language": "x" * 2000},
        {"Accept-Charset": "utf-16"},
        {"Cookie": "sessionid=x; csrftoken=\x80; =; a"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Forwarded-For": "' OR 1=1 --"},
        {"X-Forwarded-Host": "evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Range": "bytes=0-1"},
        {"If-Modified-Since": "yesterday"},
        {"If-Match": "*"},
        {"Content-Encoding": "gzip"},
        {"Idempotency-Key": "\x80" * 500},
    ],
    ids=lambda headers: repr(headers)[:30],
)
def test_strange_headers_make_no_difference(cast: Cast, headers: dict[str, str]) -> None:
    path = f"/viewing-time/balance/{cast.child.id}"
    usual = cast.phone.get(path)
    answer = cast.phone.send("GET", path, headers=headers)
    assert answer.status_code == 200
    assert answer.content == usual.content
    assert answer.headers["Content-Type"] == "application/json"
    assert_problem(cast.anonymous.send("GET", path, headers=headers), 401)


@pytest.mark.parametrize("host", ["a b", "a\x00b", "[::1", "x" * 300, "/", "évil", ""])
def test_a_host_that_is_none_is_no_fault_of_ours(cast: Cast, host: str) -> None:
    answer = cast.phone.send("GET", "/auth/me", headers={"Host": host})
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        assert_problem(answer, 400)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/auth", "/auth/", "/auth/me/", "/auth//me", "//auth/me", "/AUTH/ME"),
        *("/auth/me%00", "/auth/me%0a", "/auth/me;x", "/auth/me.json", "/../../etc/passwd"),
        *("/%2e%2e/%2e%2e/readyz", "/auth/me/../../../admin/", "/%ff%fe", "/%", "/%zz", "/\\"),
        *("/viewing-time/balance/", "/viewing-time/balance/%7Bprofile_id%7D", "/" + "x" * 4000),
        *("/auth/profiles/1/select", "/auth/profiles/../me", "/viewing-time/session//end"),
    ],
)
def test_paths_that_do_not_exist_are_not_found(cast: Cast, path: str) -> None:
    for device in (cast.phone, cast.anonymous):
        assert_problem(device.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "query", ["?", "?format=xml", "?format=api", "?%ff=%fe", "?a=%00", "?" + "a&" * 500, "?[]={}"]
)
def test_queries_that_nobody_asked_for_are_ignored(cast: Cast, query: str) -> None:
    assert cast.phone.get("/auth/me" + query).content == cast.phone.get("/auth/me").content


# By the server that runs in production


@pytest.fixture
def server(transactional_db: None) -> Iterator[tuple[str, int]]:
    """gunicorn with the configuration of `make run`; the address it listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = make_conninfo(os.environ["DATABASE_URL"], dbname=connection.settings_dict["NAME"])
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "-c", "parentalcontrols/gunicorn.conf.py"),
            "parentalcontrols.wsgi:application",
        ],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "DATABASE_URL": database,
            "PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "WORKERS": "1",
            "THREADS": "2",
            "LOG_LEVEL": "INFO",
            "DEMO": "1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "Listening at" in line:
                break
        else:
            pytest.fail("".join(seen))
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.communicate(timeout=30)


def ask(server: tuple[str, int], body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """A log-in that is sent as it is; the status and the document of the answer."""
    conversation = http.client.HTTPConnection(*server, timeout=30)
    try:
        conversation.request(
            "POST",
            f"{API}/auth/login",
            body=body,
            headers={"Content-Type": "application/json", **headers},
            encode_chunked=headers.get("Transfer-Encoding") == "chunked",
        )
        answer = conversation.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        conversation.close()


def say(server: tuple[str, int], text: bytes) -> bytes:
    """The first line of what is answered to bytes that need not be HTTP."""
    with socket.create_connection(server, timeout=30) as conversation:
        conversation.sendall(text)
        conversation.shutdown(socket.SHUT_WR)
        return conversation.makefile("rb").readline()


def test_the_real_server_reads_chunks_and_bounds_them(server: tuple[str, int]) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    status, document = ask(server, iter([b'{"email":', b' "a@example.com"}']), **chunked)
    assert (status, document["code"]) == (400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["password"]

    credentials = json.dumps({"email": "a@example.com", "password": "wrong"}).encode()
    status, document = ask(server, iter([credentials]), **chunked)
    assert (status, document["code"]) == (401, "wrong_login")

    status, document = ask(server, iter([b" " * 65536] * 48), **chunked)
    assert (status, document["code"]) == (413, "body_too_large")

    status, document = ask(server, b" " * (3 * 1024 * 1024))
    assert (status, document["code"]) == (413, "body_too_large")

    status, document = ask(server, b"[" * 5000)
    assert (status, document["code"]) == (400, "malformed")


def test_the_real_server_refuses_what_is_no_http(server: tuple[str, int]) -> None:
    head = f"POST {API}/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    for rest in (
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "Content-Length: -2\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
        "Content-Length: 50\r\n\r\n{}",
        "Bad Header: x\r\n\r\n",
        "X-Long: " + "x" * 10_000 + "\r\n\r\n",
        "\r\n",
    ):
        status = say(server, (head + rest).encode())
        assert status == b"" or status.split()[1].startswith(b"4"), (rest, status)
    for text in (b"\x00" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"x" * 9000):
        status = say(server, text)
        assert status == b"" or status.split()[1].startswith(b"4"), (text, status)
