"""How request bodies are read: JSON objects only, bounded, and nothing that JSON does not know."""

from collections.abc import Mapping
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
    """The body, at most `MAX_BODY_BYTES` of it; more is a 413, whatever its length claims."""
    limit = settings.MAX_BODY_BYTES
    if content_length and content_length.isdigit() and int(content_length) > limit:
        raise Problem(413)
    body = stream.read(limit + 1) if stream is not None else b""
    if len(body) > limit:
        raise Problem(413)
    return body


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; anything else is a 400 (NaN, deep nesting, lone surrogates)."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ParseError("The request's body is not JSON.") from None
    if not isinstance(document, dict):
        raise ParseError("The request's body is no JSON object.")
    return document


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
