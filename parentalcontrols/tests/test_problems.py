"""One shape for every error of every path: RFC 9457 `application/problem+json`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.test import Client
from rest_framework import exceptions

from parentalcontrols import problems, profiles, request_ids
from parentalcontrols.problems import Problem
from parentalcontrols.tests.cast import PROBLEM_MEMBERS, Cast, assert_problem


@pytest.fixture
def browser(db: None) -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture
def running_request() -> Iterator[str]:
    """The id of a request that runs."""
    token = request_ids.begin("the-request")
    yield "the-request"
    request_ids.end(token)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nothing",
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/",
            "/api/v2/auth/me",
            "/nothing",
            "/favicon.ico",
        ),
        *("/static/nothing.js", "/api/nothing", "/api/schema", "/api/v1/nothing.html"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
def test_a_path_that_does_not_exist_is_a_problem(browser: Client, path: str, accept: str) -> None:
    assert_problem(browser.get(path, headers={"Accept": accept}), 404, "not_found")


@pytest.mark.parametrize("path", ["/api/docs/", "/api/schema/", "/livez", "/readyz"])
def test_a_method_that_is_not_allowed_is_a_problem_on_pages_too(browser: Client, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = browser.generic(method, path, b"{}", content_type="application/json")
        assert_problem(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]


def test_a_fault_of_ours_is_a_problem_that_tells_nothing(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_account: Any) -> None:
        raise RuntimeError("the secret is 12345")

    monkeypatch.setattr(profiles, "of_account", fail)
    answer = cast.phone.get("/auth/profiles")
    assert_problem(answer, 500, "internal_error")
    assert b"12345" not in answer.content
    assert b"Traceback" not in answer.content
    assert "the secret is 12345" in caplog.text, "the operator needs to know"


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_away_is_503_with_a_time_to_come_back(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(_account: Any) -> None:
        raise error('connection to "10.0.0.7" failed: password wrong')

    monkeypatch.setattr(profiles, "of_account", fail)
    answer = cast.phone.get("/auth/profiles")
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert b"10.0.0.7" not in answer.content


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (exceptions.ParseError("Not JSON."), 400, "malformed"),
        (SuspiciousOperation("x"), 400, "bad_request"),
        (exceptions.NotAuthenticated(), 401, "not_authenticated"),
        (exceptions.AuthenticationFailed(), 401, "not_authenticated"),
        (PermissionDenied("x"), 403, "forbidden"),
        (exceptions.PermissionDenied(), 403, "forbidden"),
        (Http404("x"), 404, "not_found"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.MethodNotAllowed("GET"), 405, "method_not_allowed"),
        (exceptions.NotAcceptable(), 406, "not_acceptable"),
        (RequestDataTooBig("x"), 413, "body_too_large"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.Throttled(90), 429, "too_many_requests"),
        (exceptions.Throttled(), 429, "too_many_requests"),
        (OperationalError("x"), 503, "unavailable"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_every_exception_has_its_problem(
    running_request: str, error: Exception, status: int, code: str
) -> None:
    problem = problems.as_problem(error)
    assert problem is not None
    answer = problems.response(problem)
    document = assert_problem(answer, status, code)
    assert document["title"]
    assert document["detail"].endswith(".")
    if status in {429, 503}:
        assert int(answer.headers["Retry-After"]) >= 1
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_throttled_client_is_told_how_long_to_wait() -> None:
    problem = problems.as_problem(exceptions.Throttled(90))
    assert problem is not None
    assert problem.headers["Retry-After"] == "90"


def test_what_is_nobodys_exception_is_passed_on() -> None:
    assert problems.as_problem(ValueError("x")) is None
    assert problems.exception_handler(ValueError("x"), {}) is None


def test_nested_errors_are_told_by_their_place() -> None:
    error = exceptions.ValidationError(
        {
            "name": ["Too long.", "Too odd."],
            "beats": [{}, {"device": ["Missing."]}],
            "non_field_errors": [exceptions.ErrorDetail("All wrong.", code="all_wrong")],
        }
    )
    problem = problems.as_problem(error)
    assert problem is not None
    assert problem.errors == [
        {"field": "name", "code": "invalid", "detail": "Too long."},
        {"field": "name", "code": "invalid", "detail": "Too odd."},
        {"field": "beats.1.device", "code": "invalid", "detail": "Missing."},
        {"field": "", "code": "all_wrong", "detail": "All wrong."},
    ]


def test_a_problem_has_members_and_headers_of_its_own(running_request: str) -> None:
    problem = Problem(
        403,
        "pin_locked",
        "Too many tries.",
        members={"locked_until": "2026-01-05T12:00:00Z"},
        headers={"Retry-After": "7"},
    )
    answer = problems.response(problem)
    assert assert_problem(answer, 403, "pin_locked") == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "Too many tries.",
        "code": "pin_locked",
        "request_id": running_request,
        "locked_until": "2026-01-05T12:00:00Z",
    }
    assert answer.headers["Retry-After"] == "7"


def test_errors_are_told_where_there_are_some_and_nowhere_else(cast: Cast) -> None:
    missing = json.loads(cast.phone.get("/nothing").content)
    assert missing.keys() == PROBLEM_MEMBERS
    invalid = assert_problem(cast.phone.post("/auth/profiles", {}), 400, "invalid")
    assert invalid.keys() == PROBLEM_MEMBERS | {"errors"}
    assert {(e["field"], e["code"]) for e in invalid["errors"]} == {
        ("name", "required"),
        ("is_kids", "required"),
    }
