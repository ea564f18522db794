"""Every error the API answers, as RFC 9457 `application/problem+json`, from one place.

A leaf: of ours it imports `request_ids` alone. Members: `type, title, status, detail, code`, the
`request_id` of the running request, and `errors` (`[{field, code, detail}]`) for validation; some
problems carry members of their own.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from psycopg.errors import ForeignKeyViolation
from rest_framework import exceptions

from parentalcontrols import request_ids

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
#: Seconds after which a client may ask again when the service cannot answer now.
RETRY_AFTER = 2

#: Headers that a status is never sent without (RFC 9110 sections 10.2.3 and 11.6.1).
_HEADERS = {
    401: {"WWW-Authenticate": 'Bearer realm="api"'},
    503: {"Retry-After": str(RETRY_AFTER)},
}

#: The sentences of problems that are told by their status alone.
_SENTENCES = {
    400: ("bad_request", "The request is not understood."),
    401: ("not_authenticated", "A valid token is needed."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is no such thing here."),
    405: ("method_not_allowed", "This method is not allowed here."),
    406: ("not_acceptable", "The answer is not available in the asked form."),
    408: ("request_timeout", "The request's body did not come in time."),
    413: ("body_too_large", "The request's body is too large."),
    414: ("request_line_too_long", "The request's first line is too long."),
    415: ("unsupported_media_type", "The request's body must be application/json."),
    417: ("expectation_failed", "What the request expects cannot be done."),
    429: ("too_many_requests", "Too many requests; try again later."),
    431: ("headers_too_large", "The request's headers are too many or too long."),
    500: ("internal_error", "Something went wrong on our side."),
    501: ("not_implemented", "The request's transfer coding is not known."),
    503: ("unavailable", "The service cannot answer right now; try again shortly."),
}


class Problem(Exception):
    """A refusal with its status, a stable snake_case `code` and one sentence for people.

    `errors`: entries of `field`, `code`, `detail`. `members` are added to the document as they are.
    """

    def __init__(
        self,
        status: int,
        code: str | None = None,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        usual_code, usual_detail = _SENTENCES[status]
        self.status = status
        self.code = code or usual_code
        self.detail = detail or usual_detail
        self.errors = list(errors)
        self.headers = {**_HEADERS.get(status, {}), **(headers or {})}
        self.members = dict(members or {})
        super().__init__(self.detail)

    def document(self) -> dict[str, Any]:
        """The problem as RFC 9457 has it."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }
        if self.errors:
            document["errors"] = self.errors
        return document


class ProblemResponse(JsonResponse):
    """A problem as an answer; tells its code to whoever counts."""

    def __init__(self, document: Mapping[str, Any], *, code: str, **options: Any) -> None:
        super().__init__(document, **options)
        self.code = code


def not_found() -> Problem:
    """What is missing and what belongs to somebody else: one and the same answer."""
    return Problem(404)


def invalid(errors: Sequence[Mapping[str, str]]) -> Problem:
    """Values that are refused, each with its field."""
    return Problem(400, "invalid", "The request holds values that are not valid.", errors=errors)


def unavailable(members: Mapping[str, Any] | None = None) -> Problem:
    """The service cannot answer now, and says so."""
    return Problem(503, members=members)


def fault(error: BaseException) -> Problem:
    """A fault of ours, logged: what no other problem stands for."""
    logger.error("internal_error", exc_info=error)
    return Problem(500)


def as_problem(error: Exception) -> Problem | None:
    """The problem that an exception stands for; None where it is a fault of ours."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            return invalid(list(_validation_errors(error.detail)))
        case exceptions.ParseError():
            return Problem(400, "malformed", str(error.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Problem(401)
        case exceptions.MethodNotAllowed():
            return Problem(405)
        case exceptions.NotAcceptable():
            return Problem(406)
        case exceptions.UnsupportedMediaType():
            return Problem(415)
        case exceptions.Throttled():
            return Problem(
                429, headers={"Retry-After": str(math.ceil(getattr(error, "wait", None) or 1))}
            )
        case Http404() | exceptions.NotFound():
            return not_found()
        case exceptions.PermissionDenied() if error.get_codes() != error.default_code:
            # A permission that names its reason.
            return Problem(403, str(error.get_codes()), str(error.detail))
        case PermissionDenied() | exceptions.PermissionDenied():
            return Problem(403)
        case RequestDataTooBig():
            return Problem(413)
        case SuspiciousOperation():
            return Problem(400)
        case IntegrityError() if isinstance(error.__cause__, ForeignKeyViolation):
            # What it was to belong to was deleted meanwhile.
            return not_found()
        case OperationalError() | InterfaceError():
            # The kind alone: a driver's message can hold addresses and values.
            cause = type(error.__cause__ or error).__name__
            logger.warning("database_unavailable", extra={"cause": cause})
            return unavailable()
    return None


def _validation_errors(detail: Any, field: str = "") -> Iterator[dict[str, str]]:
    """Flattens DRF's nested details; a place in a list or an object is written `a.0.b`."""
    if isinstance(detail, Mapping):
        for name, value in detail.items():
            own = "" if name == "non_field_errors" else str(name)
            yield from _validation_errors(value, ".".join(filter(None, (field, own))))
    elif isinstance(detail, (list, tuple)):
        for index, value in enumerate(detail):
            nested = isinstance(value, (Mapping, list, tuple))
            yield from _validation_errors(value, f"{field}.{index}" if nested else field)
    else:
        code = getattr(detail, "code", None) or "invalid"
        yield {"field": field, "code": str(code), "detail": str(detail)}


def exception_handler(error: Exception, context: Mapping[str, Any]) -> ProblemResponse | None:
    """DRF's hook: every exception of a view becomes a problem; None passes faults of ours on.

    The answer is JSON whatever the view itself would render.
    """
    problem = as_problem(error)
    if problem is None:
        return None
    if problem.status == 503:
        # A question about a child's time is answered "blocked" when it cannot be answered
        # (domain.md section 4).
        problem.members.update(getattr(context.get("view"), "unavailable_members", {}))
    return response(problem)


def response(problem: Problem) -> ProblemResponse:
    """A problem as an answer, with the id by which its request is found in the logs."""
    document = problem.document()
    if (request_id := request_ids.current()) is not None:
        document["request_id"] = request_id
    return ProblemResponse(
        document,
        code=problem.code,
        status=problem.status,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's `handler400`."""
    return response(Problem(413 if isinstance(exception, RequestDataTooBig) else 400))


def permission_denied(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's `handler403`."""
    return response(Problem(403))


def page_not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's `handler404`."""
    return response(not_found())


def server_error(request: HttpRequest) -> JsonResponse:
    """Django's `handler500`."""
    return response(Problem(500))
