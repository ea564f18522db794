"""How request bodies are read: JSON objects only, bounded, and nothing that JSON does not know."""

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

import msgspec
from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from parentalcontrols.problems import Problem


def read_body(stream: IO[bytes] | None, content_length: str | None) -> bytes:
    """The body, at most `MAX_BODY_BYTES` of it; more is a 413, which `is_too_long` could not tell.

    One that does not come in time is a 408, any other that cannot be read a 400.
    """
    limit = settings.MAX_BODY_BYTES
    told = int(content_length) if content_length and content_length.isdecimal() else None
    try:
        body = stream.read(limit + 1) if stream is not None else b""
    except Exception as error:
        # Django tells a stream's error as the cause of its own.
        if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
            raise Problem(408) from None
        # The client went away, or its chunks are none: each server has its own errors for that.
        raise ParseError("The request's body cannot be read.") from None
    if len(body) > limit:
        raise Problem(413)
    if told is not None and len(body) < told:
        # Its end is missing, even if what came is JSON (RFC 9112 section 8).
        raise ParseError("The request's body is shorter than its length.")
    return body


class _Unreadable:
    """A body whose reading failed. A server's own stream would be at its end the next time, as if
    what had come by then were all.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, size: int = -1) -> bytes:
        raise self._error

    def readline(self, size: int = -1) -> bytes:
        raise self._error


def read_ahead(environ: dict[str, Any]) -> None:
    """Reads a body before a request begins, which then holds nothing while a client sends.

    One that is too long is left for `is_too_long` to tell, one that cannot be read for `read_body`
    to refuse.
    """
    most: int = settings.MAX_BODY_BYTES
    length: str = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and len(length) < 12:
        size = int(length)
    elif not length and environ.get("wsgi.input_terminated"):
        size = most + 1
    else:
        return
    if size > most + 1 or isinstance(environ["wsgi.input"], BytesIO):
        return
    try:
        environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(size))
    except Exception as error:
        environ["wsgi.input"] = _Unreadable(error)


def is_too_long(environ: Mapping[str, Any]) -> bool:
    """Whether a body is longer than `MAX_BODY_BYTES`: by its length, or by what was read ahead."""
    length: str = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        return int(length) > settings.MAX_BODY_BYTES
    read = environ.get("wsgi.input")
    return isinstance(read, BytesIO) and read.getbuffer().nbytes > settings.MAX_BODY_BYTES


#: How deep an object's lists and objects may be nested, itself included.
MOST_DEPTH = 32


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; anything else is a 400 (NaN, deep nesting, lone surrogates)."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ParseError("The request's body is not JSON.") from None
    if not isinstance(document, dict):
        raise ParseError("The request's body is no JSON object.")
    if _is_deep(document):
        raise ParseError(f"The request's body is nested deeper than {MOST_DEPTH}.")
    return document


def _is_deep(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


class JSONRequest(Request):
    """A request whose `data` is the JSON object of its body; no body is no object: a 400."""

    def _load_stream(self) -> None:
        """DRF looks at the length alone; a chunked body has none."""
        environ = self._request.META
        if environ.get("wsgi.input_terminated") and not environ.get("CONTENT_LENGTH"):
            self._stream = environ["wsgi.input"]
        else:
            super()._load_stream()  # type: ignore[misc]

    def _parse(self) -> Any:
        if self.stream is None:
            raise ParseError("The request has no body.")
        return super()._parse()  # type: ignore[misc]


class StrictJSONParser(BaseParser):
    """DRF's parser for `application/json`."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A JSON object as a dictionary; raises `ParseError` (400) and `Problem` (413)."""
        length = parser_context["request"].META.get("CONTENT_LENGTH") if parser_context else None
        return decode_object(read_body(stream, length))


class JSONOnlyNegotiation(DefaultContentNegotiation):
    """The API speaks JSON, whatever an `Accept` header asks for."""

    def select_renderer(  # type: ignore[override]
        self, request: Request, renderers: list[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type or ""
