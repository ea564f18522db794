"""Beats as players send them, answered before Django: nothing of a request but its beats.

A web process asks `answer` for every request before it makes one of Django's out of it. What is
plain (a JSON body of known length, a bearer token, no browser's `Origin`) is decoded, gathered and
answered here. Whatever is out of the ordinary, wrong, or refused for the token's sake is passed on
from the same body, and told by the usual view: there is one place that words a refusal.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from django.conf import settings
from django.urls import reverse
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import problems
from parentalcontrols.authentication import read_access_token
from viewingtime import gathering
from viewingtime.serializers import decode_heartbeats, encode_answers
from viewingtime.views import PlayerView

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

#: The paths that are answered here, and whether they take a batch.
PATHS: Final = {reverse("heartbeat"): False, reverse("heartbeats"): True}
#: What every answer of the API carries (`SecurityMiddleware` and others set it for the rest).
_HEADERS: Final = [
    ("Content-Type", "application/json"),
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
    try:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    except Exception:
        # The client went away, or sends nonsense: each server has its own errors for that.
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    beats = decode_heartbeats(body, is_batch=is_batch)
    if beats is None:
        return None
    try:
        caller = read_access_token(environ["HTTP_AUTHORIZATION"][7:])
        answers = gathering.process(beats, caller)
        content = encode_answers(answers, is_batch=is_batch)
    except AuthenticationFailed:
        return None
    except Exception as error:
        refused = problems.exception_handler(error, {"view": PlayerView})
        if refused is None:
            refused = problems.response(problems.fault(error))
        start_response(
            f"{refused.status_code} {refused.reason_phrase}",
            [
                *(header for header in _headers(environ) if header[0] != "Content-Type"),
                *refused.headers.items(),
                ("Content-Length", str(len(refused.content))),
            ],
        )
        return [refused.content]
    start_response("200 OK", [*_headers(environ), ("Content-Length", str(len(content)))])
    return [content]


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
