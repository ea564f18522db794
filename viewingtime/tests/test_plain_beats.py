"""The shorter way of a heartbeat answers what the view answers, whatever is sent."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import OperationalError, close_old_connections, transaction
from django.test import RequestFactory
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from parentalcontrols import authentication, wsgi
from parentalcontrols.tests.cast import API, Cast, beat_of, database_now
from viewingtime import gathering, heartbeats, plain_beats
from viewingtime.tests import clock

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning"),
]
BEAT, BEATS = "/viewing-time/heartbeat", "/viewing-time/heartbeats"
#: What a client sees of an answer besides its status and body.
HEADERS = (
    "Content-Type",
    "Cache-Control",
    "Content-Length",
    "Retry-After",
    "WWW-Authenticate",
    "X-Content-Type-Options",
    "Referrer-Policy",
    "Cross-Origin-Opener-Policy",
    "X-Frame-Options",
    "Strict-Transport-Security",
    "Vary",
)
SOME = hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Environ = dict[str, Any]
Answer = tuple[str, list[str | None], bytes]


def environ(
    path: str, raw: bytes, token: str | None = None, method: str = "POST", **fields: Any
) -> Callable[[], Environ]:
    """Makes what a server hands over for a request, anew for each one who reads it.

    A field that is None is left out.
    """
    request = RequestFactory().generic(method, API + path, raw, content_type="application/json")
    made = dict(request.environ)
    if token is not None:
        made["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    # Without one each answer has another.
    made["HTTP_X_REQUEST_ID"] = "the-request"
    made |= fields
    made = {name: value for name, value in made.items() if value is not None}
    return lambda: {**made, "wsgi.input": io.BytesIO(raw)}


class Doors:
    """Both ways into the service, with the clock stopped and nothing that one leaves behind."""

    def __init__(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cast = cast
        self.token = authentication.access_token(cast.parent)
        clock.install()
        clock.set_to(database_now())
        self.session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
        self.taken = 0
        self._ids: Iterator[UUID] = iter(())
        monkeypatch.setattr(heartbeats, "uuid4", lambda: next(self._ids))
        plain = plain_beats.answer

        def counted(*arguments: Any) -> Any:
            answer = plain(*arguments)
            self.taken += answer is not None
            return answer

        monkeypatch.setattr(wsgi, "_plain", counted)

    def through(self, application: Any, request: Callable[[], Environ]) -> Answer:
        told: list[Any] = []
        self._ids = (UUID(int=n) for n in range(1, 1000))
        with _kept_connection(), transaction.atomic():
            answer = application(request(), lambda *head, **_: told.extend(head))
            body = b"".join(answer)
            transaction.set_rollback(True)
        status, headers = told
        found = {name.lower(): value for name, value in headers}
        assert found["content-security-policy"].count("default-src 'none'") == 1
        return status, [found.get(name.lower()) for name in HEADERS], body

    def agree(self, request: Callable[[], Environ]) -> Answer:
        """What both answer."""
        answer = self.through(wsgi.application, request)
        assert answer == self.through(wsgi._django, request)
        return answer

    def agree_on_the_short_way(self, request: Callable[[], Environ]) -> Answer:
        """The same, of a request that Django never saw."""
        taken = self.taken
        answer = self.agree(request)
        assert self.taken == taken + 1
        return answer

    def beat(self, **fields: Any) -> dict[str, Any]:
        usual = beat_of(self.cast.child, self.cast.cartoon, session_id=self.session)
        return {**usual, **fields}


@pytest.fixture
def doors(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Doors:
    assert isinstance(wsgi._django, WSGIHandler)
    return Doors(cast, monkeypatch)


@contextmanager
def _kept_connection() -> Iterator[None]:
    """The connection is in the test's transaction; Django would drop it with each request."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    try:
        yield
    finally:
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)


def raw(body: Any) -> bytes:
    return json.dumps(body).encode()


# Good ones


def test_good_beats_of_every_kind(doors: Doors) -> None:
    cast = doors.cast
    for body in (
        doors.beat(),
        doors.beat(is_paused=True, device_type="tv"),
        doors.beat(session_id=None),
        doors.beat(device_id="another"),
        doors.beat(title_id=str(cast.documentary.id)),
        beat_of(cast.adult, cast.cartoon),
        doors.beat(position_seconds=5, nested={"a": [1, None, "é"]}),
    ):
        status, _, content = doors.agree_on_the_short_way(environ(BEAT, raw(body), doors.token))
        assert status == "200 OK"
        assert UUID(json.loads(content)["session_id"])
    batch = {"heartbeats": [doors.beat(), doors.beat(profile_id=str(uuid4())), doors.beat()]}
    status, _, content = doors.agree_on_the_short_way(environ(BEATS, raw(batch), doors.token))
    assert status == "200 OK"
    assert ["error" in result for result in json.loads(content)["results"]] == [False, True, False]


def test_a_beat_of_what_is_not_there(doors: Doors) -> None:
    cast = doors.cast
    for body in (
        doors.beat(profile_id=str(uuid4())),
        doors.beat(profile_id=str(cast.foreign_child.id)),
        doors.beat(title_id=str(uuid4())),
        doors.beat(session_id=str(uuid4())),
        doors.beat(title_id=str(cast.withdrawn.id), session_id=None),
    ):
        status, _, _ = doors.agree_on_the_short_way(environ(BEAT, raw(body), doors.token))
        assert status == "404 Not Found"


def test_https_is_told_to_those_who_come_by_it(
    doors: Doors, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SECURE_HSTS_SECONDS = 31536000
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    told = [*plain_beats._HEADERS, ("Strict-Transport-Security", "max-age=31536000")]
    monkeypatch.setattr(plain_beats, "_HTTPS_HEADERS", told)
    # Django reads the seconds when it is loaded.
    monkeypatch.setattr(wsgi, "_django", WSGIHandler())
    for proto, is_told in (("https", True), ("http", False), ("https, http", True), (None, False)):
        request = environ(BEAT, raw(doors.beat()), doors.token, HTTP_X_FORWARDED_PROTO=proto)
        _, headers, _ = doors.agree_on_the_short_way(request)
        assert ("max-age=31536000" in headers) is is_told


# Bad ones

DEVICES = [
    *(
        '"',
        "\\",
        '\\"',
        "{}",
        "{a,b}",
        ",",
        "'",
        "NULL",
        "null",
        " ",
        "\t\n",
        "%s",
        "%(days)s",
        "$1",
    ),
    *("🦊", "é", "\u202e", "\ufeff", "\ue000", "\U0010ffff", "x" * 100, "🦊" * 100, "", "x" * 101),
    *("a\x00b", "\x00", "\x7f", "\x1f"),
]


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: ascii(device[:8]))
def test_any_device(doors: Doors, device: str) -> None:
    for session in (None, doors.session):
        for encode in (True, False):
            body = json.dumps(doors.beat(device_id=device, session_id=session), ensure_ascii=encode)
            doors.agree(environ(BEAT, body.encode(), doors.token))


HOSTILE = [
    *(b"NaN", b"1e999", b'"\xff"', b'"\\ud800"', b'"\xed\xa0\x80"', b"01", b'"\n"', b"[" * 5000),
    *(b"[" * 5000 + b"]" * 5000, b'{"\xff": 1}', b'{"a":' * 3000 + b"1" + b"}" * 3000, b"-", b""),
]


@pytest.mark.parametrize("path", [BEAT, BEATS])
@pytest.mark.parametrize("extra", HOSTILE, ids=lambda value: repr(value[:12]))
def test_something_hostile_in_a_field_that_is_ignored(
    doors: Doors, path: str, extra: bytes
) -> None:
    beat = raw(doors.beat())
    good = beat if path == BEAT else b'{"heartbeats": [' + beat + b"]}"
    inside = beat[:-1] + b', "ignored": ' + extra + b"}"
    bodies = [
        good[:-1] + b', "ignored": ' + extra + b"}",
        b'{"ignored": ' + extra + b", " + good[1:],
        inside if path == BEAT else b'{"heartbeats": [' + inside + b"]}",
    ]
    for body in bodies:
        status, _, _ = doors.agree(environ(path, body, doors.token))
        assert status == "400 Bad Request"


def test_wrong_fields(doors: Doors) -> None:
    for field in doors.beat():
        for value in (None, 5, 5.5, True, "", "x", [], {}, "\x00", "é" * 200, 2**70):
            beat = doors.beat(**{field: value})
            doors.agree(environ(BEAT, raw(beat), doors.token))
            many = {"heartbeats": [doors.beat(), beat]}
            doors.agree(environ(BEATS, raw(many), doors.token))
        less = doors.beat()
        del less[field]
        doors.agree(environ(BEAT, raw(less), doors.token))


def test_batches_of_every_size(doors: Doors) -> None:
    for count in (0, 1, 2, 500, 501):
        body = {"heartbeats": [doors.beat()] * count}
        status, _, _ = doors.agree(environ(BEATS, raw(body), doors.token))
        assert status.startswith("200" if 1 <= count <= 500 else "400")
    for body in (
        {},
        {"heartbeats": None},
        {"heartbeats": {}},
        {"heartbeats": [5, [], doors.beat()]},
    ):
        doors.agree(environ(BEATS, raw(body), doors.token))


def test_other_heads(doors: Doors) -> None:
    """Whatever is unusual in a request's head."""
    good, token = raw(doors.beat()), doors.token
    heads: list[dict[str, Any]] = [
        *({"method": method} for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")),
        *(
            {"CONTENT_TYPE": kind}
            for kind in (
                *("application/json; charset=utf-8", "application/json;", "APPLICATION/JSON"),
                *(
                    "text/plain",
                    "",
                    None,
                    "application/json, text/plain",
                    "\x80",
                    " application/json",
                ),
            )
        ),
        *({"HTTP_ORIGIN": origin} for origin in ("https://example.com", "null", "")),
        *(
            {"HTTP_AUTHORIZATION": value}
            for value in (
                *(None, "", "Bearer", "Bearer ", f"bearer {token}", f"Bearer  {token}"),
                *(
                    f"Bearer {token} ",
                    f"Bearer {token} x",
                    f"Basic {token}",
                    f"Bearer {token[:-1]}",
                ),
                *(f"Bearer {token}é", "Bearer " + "x" * 9000, "Bearer a.b.c", f"Token {token}"),
            )
        ),
        *(
            {"CONTENT_LENGTH": length}
            for length in ("-1", "x", "1e3", "²", "٣", "0", "5", "+5", "")
        ),
        {"CONTENT_LENGTH": str(len(good) + 10)},
        {"CONTENT_LENGTH": "99999999999999999999"},
        {
            "CONTENT_LENGTH": None,
            "wsgi.input_terminated": True,
            "HTTP_TRANSFER_ENCODING": "chunked",
        },
        {"CONTENT_LENGTH": None},
        {"HTTP_ACCEPT": "text/html"},
        {"HTTP_ACCEPT_ENCODING": "gzip"},
        {"QUERY_STRING": "format=xml&x=%00"},
        {"HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE"},
        {"HTTP_EXPECT": "100-continue"},
        {"HTTP_HOST": "a b"},
    ]
    for head in heads:
        method = head.pop("method", "POST")
        doors.agree(environ(BEAT, good, doors.token, method, **head))


def test_other_tokens(doors: Doors) -> None:
    cast = doors.cast
    gone = authentication.access_token(cast.outsider)
    cast.outsider.is_active = False
    cast.outsider.save()
    tokens = [
        authentication.access_token(cast.parent, profile_id=cast.child.id),
        authentication.access_token(cast.parent, profile_id=cast.sibling.id),
        authentication.access_token(cast.parent, profile_id=uuid4()),
        authentication.access_token(cast.staff),
        gone,
        authentication.encode(
            authentication.ACCESS, -1, sub=str(cast.parent.id), ver=0, scope="account"
        ),
        authentication.encode(authentication.REFRESH, 60, sub=str(cast.parent.id), ver=0),
    ]
    statuses = []
    for token in tokens:
        status, _, _ = doors.agree(environ(BEAT, raw(doors.beat()), token))
        statuses.append(int(status[:3]))
        doors.agree(environ(BEATS, raw({"heartbeats": [doors.beat(), doors.beat()]}), token))
        doors.agree(environ(BEATS, raw({"heartbeats": [5]}), token))
    assert statuses == [200, 404, 401, 404, 401, 401, 401]


def test_huge_bodies(doors: Doors, settings: Any) -> None:
    limit = settings.MAX_BODY_BYTES
    good = raw(doors.beat(padding=""))
    for size in (limit - 1, limit, limit + 1, 2 * limit):
        body = good[:-2] + b"x" * (size - len(good)) + good[-2:]
        status, _, _ = doors.agree(environ(BEAT, body, doors.token))
        assert status.startswith("200" if size <= limit else "413")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OperationalError("gone"), "503 Service Unavailable"),
        (RuntimeError(), "500 Internal Server Error"),
    ],
)
def test_what_goes_wrong_with_us(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(gathering, "process", fail)
    for path, body in ((BEAT, doors.beat()), (BEATS, {"heartbeats": [doors.beat()]})):
        answer = doors.agree_on_the_short_way(environ(path, raw(body), doors.token))
        assert answer[0] == status
        document = json.loads(answer[2])
        if status.startswith("503"):
            assert (document["enforcement"], document["reason"]) == ("blocked", "unavailable")


TEXTS = st.text(max_size=110)
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = ["profile_id", "title_id", "device_id", "device_type", "session_id", "is_paused", "extra"]


@given(
    changes=st.dictionaries(st.sampled_from(NAMES), JSONS, max_size=2),
    device=TEXTS,
    is_ascii=st.booleans(),
    cut=st.none() | st.tuples(st.integers(0, 400), st.binary(max_size=3)),
)
@example(changes={}, device="tv", is_ascii=True, cut=None)
@SOME
def test_any_body(
    doors: Doors,
    changes: dict[str, Any],
    device: str,
    is_ascii: bool,
    cut: tuple[int, bytes] | None,
) -> None:
    text = json.dumps(doors.beat(**{"device_id": device} | changes), ensure_ascii=is_ascii)
    body = text.encode(errors="surrogatepass")
    if cut is not None:
        place, noise = cut
        body = body[:place] + noise + body[place:]
    doors.agree(environ(BEAT, body, doors.token))
    doors.agree(environ(BEATS, b'{"heartbeats": [' + body + b"]}", doors.token))
