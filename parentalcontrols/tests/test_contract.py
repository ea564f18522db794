"""The HTTP contract that existing players rely on (T025): field names, types, status codes.

Against a running server, over real HTTP. A field that is told below is never renamed, dropped or
retyped; a new one has to be added here.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from pytest_django.live_server_helper import LiveServer

from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.tests.cast import PASSWORD, Cast, beat_of, pass_time
from parentalcontrols.tests.routes import ROUTES
from viewingtime.models import ViewingTimeBalance

Check = Callable[[Any], bool]
PROBLEM = "application/problem+json"


# What a value may be. JSON knows no difference between 2 and 2.0: minutes are numbers.


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def minutes(value: Any) -> bool:
    """A number, rounded to 2 decimals."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value >= 0
        and round(value, 2) == value
    )


def seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def uuid(value: Any) -> bool:
    return isinstance(value, str) and str(UUID(value)) == value


def moment(value: Any) -> bool:
    """RFC 3339, in UTC."""
    return (
        isinstance(value, str)
        and value.endswith("Z")
        and "T" in value
        and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    )


def one_of(*values: Any) -> Check:
    return lambda value: value in values and type(value) in {type(v) for v in values}


def nullable(check: Check) -> Check:
    return lambda value: value is None or check(value)


PAIR: dict[str, Check] = {
    "access_token": text,
    "refresh_token": text,
    "token_type": one_of("bearer"),
}
ACCOUNT: dict[str, Check] = {"id": uuid, "email": text, "is_admin": flag, "created_at": moment}
PROFILE: dict[str, Check] = {
    "id": uuid,
    "name": text,
    "is_kids": flag,
    "parental_rating": nullable(text),
    "avatar_url": nullable(text),
}
CONFIG: dict[str, Check] = {
    "profile_id": uuid,
    "profile_name": text,
    "weekday_limit_minutes": nullable(whole),
    "weekend_limit_minutes": nullable(whole),
    "reset_hour": whole,
    "educational_exempt": flag,
    "timezone": text,
    "updated_at": moment,
}
GRANT: dict[str, Check] = {
    "granted_minutes": nullable(whole),
    "remaining_minutes": nullable(minutes),
    "is_unlimited_override": flag,
}
BALANCE: dict[str, Check] = {
    "profile_id": uuid,
    "is_child_profile": flag,
    "has_limits": flag,
    "used_minutes": minutes,
    "educational_minutes": minutes,
    "granted_minutes": minutes,
    "limit_minutes": nullable(minutes),
    "remaining_minutes": nullable(minutes),
    "is_unlimited_override": flag,
    "next_reset_at": nullable(moment),
    "warning_threshold_minutes": one_of([15, 5]),
}
ELIGIBILITY: dict[str, Check] = {
    "eligible": flag,
    "remaining_minutes": nullable(minutes),
    "reason": one_of(None, "viewing_time_exhausted"),
    "next_reset_at": nullable(moment),
}
HEARTBEAT: dict[str, Check] = {
    "session_id": nullable(uuid),
    "enforcement": one_of("allowed", "warning_15", "warning_5", "blocked"),
    "remaining_minutes": nullable(minutes),
    "used_minutes": minutes,
    "is_educational": flag,
    "reason": one_of(None, "viewing_time_exhausted", "session_ended", "superseded"),
    "next_heartbeat_seconds": whole,
}
END: dict[str, Check] = {"session_id": uuid, "total_seconds": seconds, "ended_at": moment}
PROBLEM_DOCUMENT: dict[str, Check] = {
    "type": text,
    "title": text,
    "status": whole,
    "detail": text,
    "code": text,
}
FIELD_ERROR: dict[str, Check] = {
    "field": lambda value: isinstance(value, str),
    "code": text,
    "detail": text,
}

#: The routes whose contract is tested below, by name and method.
TESTED = {
    *(("register", "POST"), ("login", "POST"), ("refresh", "POST"), ("me", "GET")),
    *(("profiles", "GET"), ("profiles", "POST"), ("select-profile", "PUT")),
    *(("viewing-time", "GET"), ("viewing-time", "PUT"), ("grant", "POST")),
    *(("balance", "GET"), ("playback-eligible", "GET")),
    *(("heartbeat", "POST"), ("heartbeats", "POST"), ("end-session", "POST")),
}


def assert_shape(document: Any, shape: dict[str, Check]) -> None:
    """Exactly these fields, each of its type."""
    assert isinstance(document, dict)
    assert document.keys() == shape.keys()
    for name, check in shape.items():
        assert check(document[name]), f"{name}: {document[name]!r}"


class Home:
    """The cast, with a parent's device that speaks to the running server."""

    def __init__(self, server: LiveServer, cast: Cast) -> None:
        self.server = server
        self.cast = cast
        self.token: str | None = cast.phone.token
        self.conversation = requests.Session()

    def send(self, method: str, path: str, **request: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= request.pop("headers", {})
        return self.conversation.request(
            method, f"{self.server.url}{path}", headers=headers, timeout=30, **request
        )

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The JSON of an answer to a call of the API that has to have that status."""
        answer = self.send(method, "/api/v1" + path, json=body)
        assert answer.status_code == status, answer.text
        expected = "application/json" if status < 400 else PROBLEM
        assert answer.headers["Content-Type"] == expected
        return answer.json()

    def refused(self, method: str, path: str, body: Any, *, status: int, code: str) -> Any:
        """A problem that has to have that status and code."""
        document = self.ask(method, path, body, status=status)
        assert (document["status"], document["code"]) == (status, code)
        errors = document.pop("errors", None)
        assert_shape(document, PROBLEM_DOCUMENT)
        if status == 400 and code == "invalid":
            assert errors
            for error in errors:
                assert_shape(error, FIELD_ERROR)
        else:
            assert errors is None
        return errors


@pytest.fixture
def home(live_server: LiveServer, cast: Cast) -> Home:
    return Home(live_server, cast)


def test_every_route_is_tested_here() -> None:
    assert {(route.name, route.method) for route in ROUTES} == TESTED
    assert {str(route) for route in ROUTES} == {
        "POST /auth/register",
        "POST /auth/login",
        "POST /auth/refresh",
        "GET /auth/me",
        "GET /auth/profiles",
        "POST /auth/profiles",
        "PUT /auth/profiles/{profile_id}/select",
        "GET /parental-controls/profiles/{profile_id}/viewing-time",
        "PUT /parental-controls/profiles/{profile_id}/viewing-time",
        "POST /parental-controls/profiles/{profile_id}/viewing-time/grant",
        "GET /viewing-time/balance/{profile_id}",
        "GET /viewing-time/playback-eligible/{profile_id}",
        "POST /viewing-time/heartbeat",
        "POST /viewing-time/heartbeats",
        "POST /viewing-time/session/{session_id}/end",
    }


def test_register_log_in_refresh_and_me(home: Home) -> None:
    home.token = None
    credentials = {"email": "New@example.com", "password": "watch-together-8"}
    assert_shape(home.ask("POST", "/auth/register", credentials, status=201), PAIR)
    errors = home.refused("POST", "/auth/register", credentials, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["email"]
    pair = home.ask("POST", "/auth/login", credentials)
    assert_shape(pair, PAIR)
    wrong = credentials | {"password": "watch-together-9"}
    home.refused("POST", "/auth/login", wrong, status=401, code="wrong_login")
    used = {"refresh_token": pair["refresh_token"]}
    pair = home.ask("POST", "/auth/refresh", used)
    assert_shape(pair, PAIR)
    home.refused("POST", "/auth/refresh", used, status=401, code="not_authenticated")

    home.refused("GET", "/auth/me", None, status=401, code="not_authenticated")
    home.token = pair["access_token"]
    me = home.ask("GET", "/auth/me")
    assert_shape(me, ACCOUNT)
    assert (me["email"], me["is_admin"]) == ("new@example.com", False)


@pytest.mark.parametrize("password", ["short-7", "x" * 129, "password"])
def test_register_bounds_the_password(home: Home, password: str) -> None:
    body = {"email": "new@example.com", "password": password}
    errors = home.refused("POST", "/auth/register", body, status=400, code="invalid")
    assert {error["field"] for error in errors} == {"password"}


def test_profiles_and_select(home: Home) -> None:
    listed = home.ask("GET", "/auth/profiles")
    assert isinstance(listed, list)
    assert len(listed) == 3
    for profile in listed:
        assert_shape(profile, PROFILE)
        assert home.ask("PUT", f"/auth/profiles/{profile['id']}/select") == profile
    body = {"name": "Lena", "is_kids": True, "parental_rating": "PG"}
    made = home.ask("POST", "/auth/profiles", body, status=201)
    assert_shape(made, PROFILE)
    assert made.items() >= body.items()
    assert home.ask("GET", "/auth/profiles") == [*listed, made]
    errors = home.refused("POST", "/auth/profiles", {"name": 5}, status=400, code="invalid")
    assert {(e["field"], e["code"]) for e in errors} == {
        ("name", "invalid"),
        ("is_kids", "required"),
    }
    path = f"/auth/profiles/{home.cast.foreign_child.id}/select"
    home.refused("PUT", path, None, status=404, code="not_found")


def test_viewing_time_config(home: Home) -> None:
    path = f"/parental-controls/profiles/{home.cast.sibling.id}/viewing-time"
    config = home.ask("GET", path)
    assert_shape(config, CONFIG)
    assert config["profile_id"] == str(home.cast.sibling.id)
    changed = home.ask("PUT", path, {"weekday_limit_minutes": None, "timezone": "Europe/Berlin"})
    assert_shape(changed, CONFIG)
    assert changed["weekday_limit_minutes"] is None
    assert changed["timezone"] == "Europe/Berlin"
    assert changed["weekend_limit_minutes"] == config["weekend_limit_minutes"] == 180
    errors = home.refused("PUT", path, {"reset_hour": "6"}, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["reset_hour"]
    adult = f"/parental-controls/profiles/{home.cast.adult.id}/viewing-time"
    home.refused("GET", adult, None, status=404, code="not_found")
    home.refused("PUT", adult, {}, status=404, code="not_found")


def test_grant(home: Home) -> None:
    path = f"/parental-controls/profiles/{home.cast.child.id}/viewing-time/grant"
    granted = home.ask("POST", path, {"minutes": 30})
    assert_shape(granted, GRANT)
    assert granted["granted_minutes"] == 30
    assert granted["remaining_minutes"] == 150
    unlimited = home.ask("POST", path, {"minutes": None})
    assert_shape(unlimited, GRANT)
    assert unlimited == {
        "granted_minutes": None,
        "remaining_minutes": None,
        "is_unlimited_override": True,
    }
    for body in ({}, {"minutes": 20}, {"minutes": "15"}):
        home.refused("POST", path, body, status=400, code="invalid")
    adult = f"/parental-controls/profiles/{home.cast.adult.id}/viewing-time/grant"
    home.refused("POST", adult, {"minutes": 15}, status=400, code="not_a_kids_profile")


def test_balance(home: Home) -> None:
    cast = home.cast
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(100)
    cast.phone.beat(cast.child, cast.cartoon, session_id=session)
    for profile in (cast.child, cast.sibling, cast.adult):
        found = home.ask("GET", f"/viewing-time/balance/{profile.id}")
        assert_shape(found, BALANCE)
        assert found["profile_id"] == str(profile.id)
        assert found["is_child_profile"] is profile.is_kids
        assert (found["next_reset_at"] is None) is not profile.is_kids
    path = f"/viewing-time/balance/{cast.foreign_child.id}"
    home.refused("GET", path, None, status=404, code="not_found")


def test_playback_eligible(home: Home) -> None:
    cast = home.cast
    path = f"/viewing-time/playback-eligible/{cast.child.id}"
    for query in ("", f"?title_id={cast.cartoon.id}"):
        found = home.ask("GET", path + query)
        assert_shape(found, ELIGIBILITY)
        assert found["eligible"] is True
    cast.phone.beat(cast.child, cast.cartoon)
    ViewingTimeBalance.objects.update(limit_seconds=0)
    found = home.ask("GET", path)
    assert_shape(found, ELIGIBILITY)
    assert (found["eligible"], found["reason"]) == (False, "viewing_time_exhausted")
    assert home.ask("GET", f"{path}?title_id={cast.documentary.id}")["eligible"] is True
    adult = home.ask("GET", f"/viewing-time/playback-eligible/{cast.adult.id}")
    assert_shape(adult, ELIGIBILITY)
    home.refused("GET", f"{path}?title_id={uuid4()}", None, status=404, code="not_found")
    errors = home.refused("GET", f"{path}?title_id=5", None, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["title_id"]


def test_heartbeat(home: Home) -> None:
    cast, path = home.cast, "/viewing-time/heartbeat"
    first = home.ask("POST", path, beat_of(cast.child, cast.cartoon))
    assert_shape(first, HEARTBEAT)
    assert first["next_heartbeat_seconds"] == 30
    pass_time(30)
    beat = beat_of(
        cast.child,
        cast.cartoon,
        session_id=first["session_id"],
        device_type="tv",
        is_paused=True,
    )
    second = home.ask("POST", path, beat)
    assert_shape(second, HEARTBEAT)
    assert second["session_id"] == first["session_id"]
    ViewingTimeBalance.objects.update(limit_seconds=0)
    blocked = home.ask("POST", path, beat)
    assert_shape(blocked, HEARTBEAT)
    assert (blocked["enforcement"], blocked["reason"]) == ("blocked", "viewing_time_exhausted")
    none = home.ask("POST", path, beat_of(cast.child, cast.cartoon))
    assert_shape(none, HEARTBEAT)
    assert none["session_id"] is None
    assert_shape(home.ask("POST", path, beat_of(cast.adult, cast.documentary)), HEARTBEAT)
    home.refused("POST", path, beat_of(cast.child, cast.withdrawn), status=404, code="not_found")
    errors = home.refused("POST", path, beat | {"device_id": 5}, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["device_id"]


def test_heartbeats(home: Home) -> None:
    cast, path = home.cast, "/viewing-time/heartbeats"
    beats = [
        beat_of(cast.child, cast.cartoon),
        beat_of(cast.foreign_child, cast.cartoon),
        {"profile_id": 5},
        beat_of(cast.sibling, cast.documentary),
    ]
    answer = home.ask("POST", path, {"heartbeats": beats})
    assert answer.keys() == {"results"}
    good, foreign, bad, other = answer["results"]
    assert_shape(good, HEARTBEAT)
    assert_shape(other, HEARTBEAT)
    error = {"status": whole, "code": text, "detail": text}
    assert foreign.keys() == bad.keys() == {"error"}
    for detail in bad["error"].pop("errors"):
        assert_shape(detail, FIELD_ERROR)
    assert_shape(foreign["error"], error)
    assert_shape(bad["error"], error)
    assert (foreign["error"]["status"], bad["error"]["status"]) == (404, 400)
    for wrong in ([], [beats[0]] * 501):
        home.refused("POST", path, {"heartbeats": wrong}, status=400, code="invalid")


def test_session_end(home: Home) -> None:
    cast = home.cast
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(12)
    path = f"/viewing-time/session/{session}/end"
    ended = home.ask("POST", path)
    assert_shape(ended, END)
    assert ended["session_id"] == session
    assert ended["total_seconds"] == pytest.approx(12, abs=2)
    assert home.ask("POST", path) == ended
    missing = f"/viewing-time/session/{uuid4()}/end"
    home.refused("POST", missing, None, status=404, code="not_found")


def test_the_usual_problems(home: Home) -> None:
    heartbeat = "/viewing-time/heartbeat"
    home.refused("DELETE", heartbeat, None, status=405, code="method_not_allowed")
    home.refused("GET", "/nothing", None, status=404, code="not_found")
    home.refused("GET", "/viewing-time/balance/5", None, status=404, code="not_found")
    for data, content_type, status, code in (
        (b"no json", "application/json", 400, "malformed"),
        (b"[]", "application/json", 400, "malformed"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ):
        answer = home.send(
            "POST", "/api/v1" + heartbeat, data=data, headers={"Content-Type": content_type}
        )
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == PROBLEM
        assert_shape(answer.json(), PROBLEM_DOCUMENT)
        assert answer.json()["code"] == code
    home.token = "no.good.token"
    answer = home.send("GET", "/api/v1/auth/me")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_times_are_told_in_utc_whatever_the_childs_zone(home: Home) -> None:
    cast = home.cast
    ViewingTimeConfig.objects.filter(profile=cast.child).update(timezone="Asia/Kathmandu")
    found = home.ask("GET", f"/viewing-time/balance/{cast.child.id}")
    assert moment(found["next_reset_at"])
    resets = datetime.fromisoformat(found["next_reset_at"])
    # Kathmandu is 5 hours and 45 minutes ahead.
    assert resets.astimezone(UTC).minute == 15


def test_a_players_evening(home: Home) -> None:
    """Register, make a child, play, pause, end: what a new household does first."""
    home.token = None
    credentials = {"email": "evening@example.com", "password": PASSWORD}
    home.token = home.ask("POST", "/auth/register", credentials, status=201)["access_token"]
    child = home.ask("POST", "/auth/profiles", {"name": "Ida", "is_kids": True}, status=201)
    beat = {
        "profile_id": child["id"],
        "title_id": str(home.cast.cartoon.id),
        "device_id": "tablet-1",
    }
    session = home.ask("POST", "/viewing-time/heartbeat", beat)["session_id"]
    paused = beat | {"session_id": session, "is_paused": True}
    assert home.ask("POST", "/viewing-time/heartbeat", paused)["enforcement"] == "allowed"
    home.ask("POST", f"/viewing-time/session/{session}/end")
    found = home.ask("GET", f"/viewing-time/balance/{child['id']}")
    assert found["used_minutes"] < 1
    after = home.ask("POST", "/viewing-time/heartbeat", paused)
    assert (after["enforcement"], after["reason"]) == ("blocked", "session_ended")


def test_the_pages_beside_the_api(home: Home) -> None:
    home.token = None
    live = home.send("GET", "/livez")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    ready = home.send("GET", "/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "database": "ok", "cache": "ok"}
    schema = home.send("GET", "/api/schema/")
    assert schema.status_code == 200
    assert schema.json()["openapi"].startswith("3.1")
    docs = home.send("GET", "/api/docs/")
    assert docs.status_code == 200
    assert docs.headers["Content-Type"].startswith("text/html")
