"""Beats as players send them, answered before Django: nothing of a request but its beats.

A web process asks `answer` for every request before it makes one of Django's out of it. What is
plain (a JSON body of known length, a bearer token, no browser's `Origin`) is decoded, gathered and
answered here. Whatever is out of the ordinary, wrong, or refused for the token's sake is passed on
from the same body, and told by the usual view: there is one place that words a refusal.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

import msgspec
from django.conf import settings
from django.urls import reverse
from rest_framework.exceptions import AuthenticationFailed

from adminmetrics import recorder
from parentalcontrols import problems, request_ids
from parentalcontrols.authentication import access_token, read_access_token
from viewingtime import gathering
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import ZERO, Balance, told
from viewingtime.serializers import decode_heartbeats, encode_answers
from viewingtime.views import PlayerView

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

#: The paths that are answered here, and whether they take a batch.
PATHS: Final = {reverse("heartbeat"): False, reverse("heartbeats"): True}
#: What every answer of the API carries (`SecurityMiddleware` and others set it for the rest).
_HEADERS: Final = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Vary", "origin"),
]
#: And where the client came by HTTPS, if the service is for HTTPS alone.
_HTTPS_HEADERS: Final = [
    *_HEADERS,
    ("Strict-Transport-Security", f"max-age={settings.SECURE_HSTS_SECONDS}"),
]


def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes] | None:
    """The answer to a plain request; None for any other, which can still be read."""
    is_batch = PATHS.get(environ["PATH_INFO"])
    if is_batch is None or not _is_plain(environ):
        return None
    length = int(environ["CONTENT_LENGTH"])
    try:
        body = environ["wsgi.input"].read(length)
    except Exception:
        # The client went away, or sends nonsense: each server has its own errors for that.
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    beats = decode_heartbeats(body, is_batch=is_batch) if len(body) == length else None
    if beats is None:
        return None
    token = request_ids.begin(environ.get("HTTP_X_REQUEST_ID"))
    try:
        status, headers, content = _answered(beats, environ, is_batch=is_batch)
    except AuthenticationFailed:
        return None
    finally:
        request_ids.end(token)
    start_response(status, [*headers, ("Content-Length", str(len(content)))])
    return [content]


def _answered(
    beats: Sequence[Heartbeat], environ: Mapping[str, Any], *, is_batch: bool
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status, headers and body; raises `AuthenticationFailed`."""
    headers = [*_headers(environ), (request_ids.HEADER, request_ids.current() or "")]
    try:
        caller = read_access_token(environ["HTTP_AUTHORIZATION"][7:])
        answers = gathering.process(beats, caller)
        content = encode_answers(answers, is_batch=is_batch)
    except AuthenticationFailed:
        raise
    except Exception as error:
        refused = problems.exception_handler(error, {"view": PlayerView})
        if refused is None:
            refused = problems.response(problems.fault(error))
        recorder.refusal(refused.status_code, refused.code)
        status = f"{refused.status_code} {refused.reason_phrase}"
        return status, [*headers[1:], *refused.headers.items()], refused.content
    return "200 OK", headers, content


def rehearse() -> None:
    """Takes the way of a beat once, with a token of nobody: what is made on first use is there."""
    nobody = SimpleNamespace(id=uuid4(), is_active=True, token_version=0)
    beat = {"profile_id": uuid4(), "title_id": uuid4(), "device_id": "tv", "session_id": uuid4()}
    body = msgspec.json.encode(beat)
    environ = {
        "PATH_INFO": reverse("heartbeat"),
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {access_token(nobody)}",
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
    }
    answer(environ, lambda _status, _headers: None)
    blocked = told(
        session_id=None,
        balance=Balance(date.min, limit=ZERO),
        is_educational=False,
        is_exempt=False,
    )
    encode_answers([blocked], is_batch=False)


def _is_plain(environ: Mapping[str, Any]) -> bool:
    length: str = environ.get("CONTENT_LENGTH") or ""
    return (
        environ["REQUEST_METHOD"] == "POST"
        and environ.get("CONTENT_TYPE") == "application/json"
        and environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer ")
        and "HTTP_ORIGIN" not in environ
        and length.isdecimal()
        and int(length) <= settings.MAX_BODY_BYTES
    )


def _headers(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not settings.SECURE_HSTS_SECONDS:
        return _HEADERS
    scheme: str = environ.get("HTTP_X_FORWARDED_PROTO", environ["wsgi.url_scheme"])
    return _HTTPS_HEADERS if scheme.split(",", 1)[0].strip() == "https" else _HEADERS
