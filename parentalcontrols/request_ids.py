"""Which request a log line and a problem belong to: `X-Request-ID`, the client's own or a new one.

A leaf: it imports nothing of ours.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from os import urandom

from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
_META = "HTTP_X_REQUEST_ID"

#: What is taken over from a client, and from a proxy in front: nothing that could break a log
#: line or a header.
_is_good = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def current() -> str | None:
    """The id of the running request; None outside of requests."""
    return _current.get()


def _chosen(sent: str | None) -> str:
    """The id that was sent, if that is a good one, or a new one."""
    return sent if sent is not None and _is_good(sent) else urandom(16).hex()


def begin(sent: str | None) -> Token[str | None]:
    """From now on a request runs, outside of the middleware; give what this answers to `end`."""
    return _current.set(_chosen(sent))


def end(token: Token[str | None]) -> None:
    """The request that `begin` began is over."""
    _current.reset(token)


@contextmanager
def resumed(request_id: str | None) -> Iterator[None]:
    """Inside, what is done is done for that request, by whoever does it."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)


class RequestIdMiddleware:
    """Names every request, and tells the name with every answer. The outermost middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = _chosen(request.META.get(_META))
        with resumed(request_id):
            response = self.get_response(request)
        response.headers[HEADER] = request_id
        return response


class RequestIdFilter(logging.Filter):
    """Gives every log record of a request its `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = _current.get()
        if request_id is not None:
            record.request_id = request_id
        return True
