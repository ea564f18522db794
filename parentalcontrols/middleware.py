"""Middleware that keeps the API's requests light and its answers in one shape."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from adminmetrics import recorder
from parentalcontrols import parsers, problems

ADMIN_PREFIX = "/admin/"


def _is_page(request: HttpRequest) -> bool:
    """Whether a person's browser shows the path, with cookies and all."""
    return request.path.startswith(ADMIN_PREFIX) or request.path == ADMIN_PREFIX.rstrip("/")


class _AdminOnly:
    """Skips a middleware of Django's on every path that is not the admin's."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_page(request):
            answer: HttpResponseBase = super().__call__(request)  # type: ignore[misc]
            return answer
        passed: HttpResponseBase = self.get_response(request)
        return passed


class AdminSessionMiddleware(_AdminOnly, SessionMiddleware):
    """Sessions for the admin alone."""


class AdminCommonMiddleware(_AdminOnly, CommonMiddleware):
    """Redirects to the path with a slash for the admin alone."""


class AdminCsrfViewMiddleware(_AdminOnly, CsrfViewMiddleware):
    """CSRF protection where cookies authenticate; the API knows bearer tokens only."""

    def process_view(self, request, callback, callback_args, callback_kwargs):  # type: ignore[no-untyped-def]
        if not _is_page(request):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)


class AdminAuthenticationMiddleware(_AdminOnly, AuthenticationMiddleware):
    """The signed-in member of staff, for the admin alone."""

    def process_view(self, request, view_func, view_args, view_kwargs):  # type: ignore[no-untyped-def]
        return None


class AdminMessageMiddleware(_AdminOnly, MessageMiddleware):
    """Messages for the admin alone."""


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]
    """Static files; a request with too long a body goes on to `BodyLimitMiddleware`."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if parsers.is_too_long(request.META):
            passed: HttpResponseBase = self.get_response(request)
            return passed
        answer: HttpResponseBase = super().__call__(request)
        return answer


class LengthMiddleware:
    """Tells the length of every answer that is whole: the server would send it in chunks else.

    Answers HEAD like GET, without the body (RFC 9110 section 9.3.2); servers complain else.
    """

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponse | StreamingHttpResponse]
    ) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        response = self.get_response(request)
        if isinstance(response, StreamingHttpResponse):
            if request.method == "HEAD":
                response.streaming_content = ()
            return response
        if "Content-Length" not in response.headers:
            response.headers["Content-Length"] = str(len(response.content))
        if request.method == "HEAD":
            length = response.headers["Content-Length"]
            response.content = b""
            response.headers["Content-Length"] = length
        return response


class NoStoreMiddleware:
    """Lets nobody keep an answer that does not say how long it is good: it may be private."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


class RefusalMiddleware:
    """Counts problems by their codes, and faults of ours."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code >= 400:
            recorder.refusal(response.status_code, getattr(response, "code", "other"))
        return response


class BodyLimitMiddleware:
    """Refuses too long a body on every path, whether or not anything there would read it.

    Within all that give an answer its headers, so that a browser may read the refusal.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if parsers.is_too_long(request.META):
            return problems.response(problems.Problem(413))
        return self.get_response(request)


class ProblemMiddleware:
    """Turns what no view caught into a problem: errors keep one shape on every path."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Django's hook for exceptions of views that are not DRF's."""
        problem = problems.as_problem(error)
        if problem is None:
            return None
        if not _is_page(request):
            return problems.response(problem)
        if problem.status != HTTPStatus.SERVICE_UNAVAILABLE:
            # Django's admin has pages for the rest.
            return None
        return HttpResponse(
            f"{problem.detail}\n",
            status=problem.status,
            headers=problem.headers,
            content_type="text/plain; charset=utf-8",
        )
