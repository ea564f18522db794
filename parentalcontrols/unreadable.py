"""Requests that gunicorn cannot read: what is logged and answered repeats nothing of them.

What looks like one may be the rest of a body with a password, or a header with a token.
"""

import logging
from contextlib import suppress
from typing import Any, Final

from gunicorn import util
from gunicorn.http import errors

#: Their statuses; all others are a 400.
_STATUSES: Final = {
    errors.ExpectationFailed: 417,
    errors.ForbiddenProxyRequest: 403,
    errors.LimitRequestHeaders: 431,
    errors.LimitRequestLine: 414,
    errors.UnsupportedTransferCoding: 501,
}
_OURS: Final = (
    errors.ConfigurationProblem,
    errors.InvalidResponseHeader,
    errors.InvalidResponseHeaderName,
)

logger = logging.getLogger(__name__)


class Refusing:
    """What a worker of gunicorn does with them: a line with the kind, and a problem document."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers instead of the application; called by gunicorn where the exception is caught."""
        # Not before: the master, too, imports this module, and must not load the settings.
        from parentalcontrols import request_ids

        token = request_ids.begin(None)
        try:
            answer = _answer(exc, addr[0] if addr else None)
        finally:
            request_ids.end(token)
        with suppress(OSError):
            util.write_nonblock(client, answer)


def _answer(exc: BaseException, address: str | None) -> bytes:
    """The answer to a request that failed outside of the application, whose kind is logged."""
    from parentalcontrols import request_ids
    from parentalcontrols.problems import Problem, fault, response

    if isinstance(exc, errors.ParseException) and not isinstance(exc, _OURS):
        logger.warning("invalid_request", extra={"kind": type(exc).__name__, "address": address})
        problem = Problem(_STATUSES.get(type(exc), 400))
    else:
        problem = fault(exc)
    told = response(problem)
    told["Connection"] = "close"
    told["Cache-Control"] = "no-store"
    told["Content-Length"] = str(len(told.content))
    told[request_ids.HEADER] = str(request_ids.current())
    head = f"HTTP/1.1 {told.status_code} {told.reason_phrase}\r\n".encode()
    return head + told.serialize_headers() + b"\r\n\r\n" + told.content
