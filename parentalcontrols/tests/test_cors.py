"""Which web pages of other origins may call the API."""

import pytest
from django.http import HttpResponse
from pytest_django.fixtures import Settings

from parentalcontrols.tests.cast import Cast, Device, assert_problem

PLAYER = "https://player.example.com"
LOGIN = "/auth/login"


@pytest.fixture(autouse=True)
def _one_origin(settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [PLAYER]


def preflight(path: str, origin: str, method: str = "POST") -> HttpResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return Device().send("OPTIONS", path, headers=headers)


@pytest.mark.parametrize("path", [LOGIN, "/viewing-time/heartbeat", "/auth/me"])
def test_a_page_of_an_allowed_origin_may_ask(path: str) -> None:
    answer = preflight(path, PLAYER)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PLAYER
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"authorization", "content-type"} <= set(allowed)
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "origin" in answer.headers["Vary"].lower()


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://player.example.com",
        "https://player.example.com:8443",
        "https://player.example.com.evil.example",
        "null",
        "",
    ],
)
def test_a_page_of_another_origin_may_not(origin: str) -> None:
    assert "Access-Control-Allow-Origin" not in preflight(LOGIN, origin).headers
    answer = Device().send("POST", LOGIN, {}, headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_and_errors_can_be_read_by_the_page(cast: Cast) -> None:
    for device, status in ((cast.phone, 200), (cast.anonymous, 401)):
        answer = device.send("GET", "/auth/me", headers={"Origin": PLAYER})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == PLAYER
        exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert {"Retry-After", "X-Locked-Until", "Content-Disposition"} <= exposed
    assert_problem(answer, 401)


def test_cookies_are_never_asked_for(cast: Cast) -> None:
    answer = cast.phone.send("GET", "/auth/me", headers={"Origin": PLAYER})
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Set-Cookie" not in answer.headers


def test_the_admin_is_not_for_other_origins(cast: Cast) -> None:
    answer = cast.anonymous.http.get("/admin/login/", headers={"Origin": PLAYER})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_configured_origins_nobody_else_may_ask(settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = []
    assert "Access-Control-Allow-Origin" not in preflight(LOGIN, PLAYER).headers
