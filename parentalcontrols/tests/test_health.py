"""Is the process alive, is the service ready: `/livez` and `/readyz`."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from parentalcontrols.middleware import LengthMiddleware
from parentalcontrols.tests.cast import assert_problem

Mover = Callable[[int], None]


@pytest.fixture
def dead_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which somebody listens and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def database_at(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mover]:
    """Lets the service look for its database at another port."""

    def move(port: int) -> None:
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(connection.settings_dict, "PORT", str(port))

    yield move
    monkeypatch.undo()
    connection.close()


def move_cache(settings: Settings, port: int) -> None:
    """Lets the service look for its cache at another port."""
    default = settings.CACHES["default"] | {"LOCATION": f"redis://127.0.0.1:{port}/0"}
    settings.CACHES = {"default": default}


def ready() -> tuple[int, dict[str, str]]:
    answer = Client(raise_request_exception=False).get("/readyz")
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, answer.json()


def test_the_process_is_alive_without_asking_anybody() -> None:
    # Without the mark that allows it, a question to the database would raise.
    answer = Client().get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_with_database_and_cache_the_service_is_ready() -> None:
    assert ready() == (200, {"status": "ok", "database": "ok", "cache": "ok"})


@pytest.mark.django_db
@pytest.mark.parametrize("port", ["dead_port", "silent_port"])
def test_a_cache_that_is_away_is_named_and_makes_nothing_unready(
    request: pytest.FixtureRequest, settings: Settings, port: str
) -> None:
    move_cache(settings, request.getfixturevalue(port))
    started = time.monotonic()
    assert ready() == (200, {"status": "ok", "database": "ok", "cache": "unavailable"})
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("port", ["dead_port", "silent_port"])
def test_a_database_that_is_away_is_named_and_makes_the_service_unready(
    request: pytest.FixtureRequest, database_at: Mover, port: str
) -> None:
    database_at(request.getfixturevalue(port))
    started = time.monotonic()
    assert ready() == (503, {"status": "unavailable", "database": "unavailable", "cache": "ok"})
    assert time.monotonic() - started < 3
    assert Client().get("/livez").status_code == 200


def test_both_can_be_away(database_at: Mover, dead_port: int, settings: Settings) -> None:
    database_at(dead_port)
    move_cache(settings, dead_port)
    assert ready() == (
        503,
        {"status": "unavailable", "database": "unavailable", "cache": "unavailable"},
    )


def test_the_service_is_ready_again_by_itself(
    database_at: Mover, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    database_at(dead_port)
    assert ready()[0] == 503
    monkeypatch.undo()
    assert ready()[0] == 200


@pytest.mark.django_db
def test_nothing_of_the_inside_is_told() -> None:
    for path in ("/livez", "/readyz"):
        answer = Client().get(path)
        assert "Set-Cookie" not in answer.headers
        assert b"5432" not in answer.content
        assert b"postgres" not in answer.content


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_they_are_asked_with_get_or_head_alone(path: str) -> None:
    client = Client(raise_request_exception=False)
    assert client.head(path).status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = client.generic(method, path, b"{}", content_type="application/json")
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/livez/", "/readyz/", "/livez/x", "/health"])
def test_other_paths_are_not_found(path: str) -> None:
    assert_problem(Client().get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/livez", "/api/docs/", "/admin/login/", "/api/v1/nothing"])
@pytest.mark.django_db
def test_head_is_answered_like_get_without_a_body(path: str) -> None:
    # Not by the test client's own removal of the body: by the middleware.
    get, head = (Client().generic(method, path) for method in ("GET", "HEAD"))
    request = RequestFactory().head(path)
    answer = LengthMiddleware(lambda _: HttpResponse(b"four"))(request)
    assert (answer.content, answer["Content-Length"]) == (b"", "4")
    assert head.status_code == get.status_code
    assert head.content == b""


@pytest.mark.parametrize("path", ["/", "/api/docs"])
def test_the_services_own_address_leads_to_its_documentation(path: str) -> None:
    answer = Client().get(path)
    assert (answer.status_code, answer["Location"]) == (302, "/api/docs/")
