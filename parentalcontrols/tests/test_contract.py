"""The HTTP contract that existing players rely on (T025): field names, types, status codes.

Against a running server, over real HTTP. A field that is told below is never renamed, dropped or
retyped; a new one has to be added here.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from pytest_django.live_server_helper import LiveServer

from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    beat_of,
    database_now,
    pass_time,
    set_pin,
)
from parentalcontrols.tests.routes import ROUTES
from pins.models import ActorKind, AuditAction
from viewingtime.models import TimeGrant, ViewingTimeBalance

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


def number(value: Any) -> bool:
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


def day(value: Any) -> bool:
    """A date alone."""
    return isinstance(value, str) and date.fromisoformat(value).isoformat() == value


def one_of(*values: Any) -> Check:
    return lambda value: value in values and type(value) in {type(v) for v in values}


def nullable(check: Check) -> Check:
    return lambda value: value is None or check(value)


PAIR: dict[str, Check] = {
    "access_token": text,
    "refresh_token": text,
    "token_type": one_of("bearer"),
}
PROFILE_PAIR: dict[str, Check] = {**PAIR, "scope": one_of("profile"), "profile_id": uuid}
PIN_STATUS: dict[str, Check] = {"has_pin": flag, "locked_until": nullable(moment)}
PIN_VERIFIED: dict[str, Check] = {"verified": one_of(True), "pin_token": text}
DETAIL: dict[str, Check] = {"detail": text}
AUDIT_PAGE: dict[str, Check] = {
    "entries": lambda value: isinstance(value, list),
    "next_cursor": nullable(text),
}
AUDIT_ENTRY: dict[str, Check] = {
    "id": whole,
    "at": moment,
    "action": one_of(*AuditAction.values),
    "profile_id": nullable(uuid),
    "actor": one_of(*ActorKind.values),
    "actor_id": nullable(uuid),
    "login_id": nullable(uuid),
    "device": lambda value: isinstance(value, str),
    "before": nullable(lambda value: isinstance(value, dict)),
    "after": nullable(lambda value: isinstance(value, dict)),
}
METRICS: dict[str, Check] = {
    "uptime_seconds": number,
    "as_of": nullable(moment),
    "since": nullable(moment),
    "heartbeat": lambda value: isinstance(value, dict),
    "config_cache": lambda value: isinstance(value, dict),
    "weekly_report": lambda value: isinstance(value, dict),
}
HEARTBEAT_METRICS: dict[str, Check] = {
    "total_processed": whole,
    "avg_db_ops_per_heartbeat": number,
    "avg_duration_ms": number,
    "max_duration_ms": number,
    "p95_duration_ms": number,
    "p99_duration_ms": number,
}
CONFIG_CACHE_METRICS: dict[str, Check] = {
    "hit_rate": lambda value: number(value) and value <= 1,
    "total_hits": whole,
    "total_misses": whole,
    "total_invalidations": whole,
    "current_size": nullable(whole),
    "max_size": whole,
}
WEEKLY_REPORT_METRICS: dict[str, Check] = {
    "total_generated": whole,
    "avg_db_ops": number,
    "p95_duration_ms": number,
    "p99_duration_ms": number,
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
HISTORY: dict[str, Check] = {
    "profile_id": uuid,
    "days": lambda value: isinstance(value, list),
    "next_cursor": nullable(text),
}
HISTORY_DAY: dict[str, Check] = {
    "date": day,
    "total_minutes": minutes,
    "educational_minutes": minutes,
    "counted_minutes": minutes,
    "sessions": lambda value: isinstance(value, list) and bool(value),
}
HISTORY_SESSION: dict[str, Check] = {
    "session_id": uuid,
    "title_id": uuid,
    "title_name": text,
    "device_type": one_of("tv", "mobile", "tablet", "web"),
    "is_educational": flag,
    "started_at": moment,
    "ended_at": nullable(moment),
    "duration_minutes": minutes,
}
REPORT: dict[str, Check] = {
    "week_start": day,
    "week_end": day,
    "profiles": lambda value: isinstance(value, list),
}
REPORT_PROFILE: dict[str, Check] = {
    "profile_id": uuid,
    "profile_name": text,
    "daily_totals": lambda value: isinstance(value, list) and len(value) == 7,
    "average_daily_minutes": minutes,
    "total_minutes": minutes,
    "educational_minutes": minutes,
    "limit_usage_percent": nullable(minutes),
    "top_titles": lambda value: isinstance(value, list) and len(value) <= 3,
}
REPORT_DAY: dict[str, Check] = {
    "date": day,
    "minutes": minutes,
    "counted_minutes": minutes,
    "educational_minutes": minutes,
    "limit_minutes": nullable(minutes),
    "granted_minutes": minutes,
    "is_unlimited_override": flag,
}
TOP_TITLE: dict[str, Check] = {"title_id": uuid, "title_name": text, "total_minutes": minutes}
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
EXPORT: dict[str, Check] = {
    "format": one_of("viewing-time-export/1"),
    "exported_at": moment,
    "account": lambda value: isinstance(value, dict),
    "pin": nullable(lambda value: isinstance(value, dict)),
    "log_ins": lambda value: isinstance(value, list),
    "audit": lambda value: isinstance(value, list),
    "profiles": lambda value: isinstance(value, list),
}
EXPORT_PROFILE: dict[str, Check] = {
    **PROFILE,
    "created_at": moment,
    "config": nullable(lambda value: isinstance(value, dict)),
    "balances": lambda value: isinstance(value, list),
    "grants": lambda value: isinstance(value, list),
    "sessions": lambda value: isinstance(value, list),
}
EXPORT_SESSION: dict[str, Check] = {
    "session_id": uuid,
    "title_id": uuid,
    "title_name": text,
    "device_id": text,
    "device_type": one_of("tv", "mobile", "tablet", "web"),
    "is_educational": flag,
    "reset_date": day,
    "started_at": moment,
    "last_heartbeat_at": moment,
    "paused_at": nullable(moment),
    "ended_at": nullable(moment),
    "end_reason": nullable(text),
    "total_seconds": seconds,
    "educational_seconds": seconds,
}
RECEIPT: dict[str, Check] = {
    "receipt_id": uuid,
    "erased_at": moment,
    "deleted": lambda value: all(whole(count) for count in value.values()),
}
PROBLEM_DOCUMENT: dict[str, Check] = {
    "type": text,
    "title": text,
    "status": whole,
    "detail": text,
    "code": text,
    "request_id": text,
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
    *(("profile-token", "POST"), ("pin", "POST"), ("pin-status", "GET")),
    *(("pin-verify", "POST"), ("pin-reset", "POST"), ("audit", "GET")),
    ("admin-metrics", "GET"),
    *(("viewing-time", "GET"), ("viewing-time", "PUT"), ("grant", "POST")),
    *(("balance", "GET"), ("playback-eligible", "GET")),
    *(("history", "GET"), ("weekly-report", "GET")),
    *(("heartbeat", "POST"), ("heartbeats", "POST"), ("end-session", "POST")),
    *(("export", "GET"), ("erase-profile", "POST"), ("erase-account", "POST")),
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
        "POST /auth/profiles/{profile_id}/token",
        "GET /parental-controls/pin/status",
        "POST /parental-controls/pin",
        "POST /parental-controls/pin/verify",
        "POST /parental-controls/pin/reset",
        "GET /parental-controls/audit",
        "GET /admin/metrics",
        "GET /parental-controls/profiles/{profile_id}/viewing-time",
        "PUT /parental-controls/profiles/{profile_id}/viewing-time",
        "POST /parental-controls/profiles/{profile_id}/viewing-time/grant",
        "GET /parental-controls/profiles/{profile_id}/history",
        "GET /parental-controls/weekly-report",
        "GET /viewing-time/balance/{profile_id}",
        "GET /viewing-time/playback-eligible/{profile_id}",
        "POST /viewing-time/heartbeat",
        "POST /viewing-time/heartbeats",
        "POST /viewing-time/session/{session_id}/end",
        "GET /account/export",
        "POST /account/erase",
        "POST /auth/profiles/{profile_id}/erase",
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


def test_profile_token(home: Home) -> None:
    cast = home.cast
    pair = home.ask("POST", f"/auth/profiles/{cast.child.id}/token")
    assert_shape(pair, PROFILE_PAIR)
    assert pair["profile_id"] == str(cast.child.id)
    next_pair = home.ask("POST", "/auth/refresh", {"refresh_token": pair["refresh_token"]})
    assert_shape(next_pair, PAIR)
    adult = f"/auth/profiles/{cast.adult.id}/token"
    home.refused("POST", adult, None, status=400, code="not_a_kids_profile")
    foreign = f"/auth/profiles/{cast.foreign_child.id}/token"
    home.refused("POST", foreign, None, status=404, code="not_found")
    home.token = next_pair["access_token"]
    assert_shape(home.ask("GET", f"/viewing-time/balance/{cast.child.id}"), BALANCE)
    home.refused("GET", "/auth/me", None, status=403, code="parent_required")
    home.refused("POST", adult, None, status=403, code="parent_required")


def test_setting_and_changing_the_pin(home: Home) -> None:
    path = "/parental-controls/pin"
    status = home.ask("GET", f"{path}/status")
    assert_shape(status, PIN_STATUS)
    assert status == {"has_pin": False, "locked_until": None}
    # Ignored, because none is set.
    first = {"new_pin": PIN, "current_pin": "0000"}
    assert_shape(home.ask("POST", path, first), DETAIL)
    assert home.ask("GET", f"{path}/status") == {"has_pin": True, "locked_until": None}
    home.refused("POST", path, {"new_pin": "2580"}, status=403, code="pin_required")
    assert_shape(home.ask("POST", path, {"new_pin": "2580", "current_pin": PIN}), DETAIL)
    home.refused("POST", f"{path}/verify", {"pin": PIN}, status=403, code="incorrect_pin")
    for field in ("new_pin", "current_pin"):
        for value in (
            4711,
            "471",
            "47111",
            "47 1",
            "\uff14\uff17\uff11\uff11",
            "4711\n",
            ["4711"],
            True,
            "",
        ):
            body = {"new_pin": "4711", "current_pin": "2580", field: value}
            errors = home.refused("POST", path, body, status=400, code="invalid")
            assert [error["field"] for error in errors] == [field], value


def test_verifying_the_pin(home: Home) -> None:
    path = "/parental-controls/pin/verify"
    home.refused("POST", path, {"pin": PIN}, status=400, code="pin_not_set")
    set_pin(home.cast.parent)
    assert_shape(home.ask("POST", path, {"pin": PIN}), PIN_VERIFIED)
    for body in ({}, {"pin": 4711}, {"pin": None}, {"pin": "abcd"}):
        errors = home.refused("POST", path, body, status=400, code="invalid")
        assert [error["field"] for error in errors] == ["pin"]
    for _ in range(5):
        home.refused("POST", path, {"pin": "0000"}, status=403, code="incorrect_pin")
    answer = home.send("POST", "/api/v1" + path, json={"pin": PIN})
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == PROBLEM
    locked = answer.json()
    assert_shape(locked, {**PROBLEM_DOCUMENT, "locked_until": moment})
    assert locked["code"] == "pin_locked"
    assert answer.headers["X-Locked-Until"] == locked["locked_until"]
    assert 1795 <= int(answer.headers["Retry-After"]) <= 1800
    until = datetime.fromisoformat(locked["locked_until"])
    assert timedelta(minutes=29) < until - database_now() <= timedelta(minutes=30)
    status = home.ask("GET", "/parental-controls/pin/status")
    assert_shape(status, PIN_STATUS)
    assert status == {"has_pin": True, "locked_until": locked["locked_until"]}


def test_resetting_the_pin(home: Home) -> None:
    path = "/parental-controls/pin/reset"
    good = {"password": PASSWORD, "new_pin": "2580"}
    wrong = good | {"password": "not-the-password"}
    home.refused("POST", path, wrong, status=403, code="incorrect_password")
    assert_shape(home.ask("POST", path, good), DETAIL)
    verified = home.ask("POST", "/parental-controls/pin/verify", {"pin": "2580"})
    assert_shape(verified, PIN_VERIFIED)
    for name, value in (("new_pin", "258"), ("password", 5), ("password", "")):
        errors = home.refused("POST", path, good | {name: value}, status=400, code="invalid")
        assert [error["field"] for error in errors] == [name]
    for _ in range(5):
        home.refused("POST", path, wrong, status=403, code="incorrect_password")
    answer = home.send("POST", "/api/v1" + path, json=good)
    assert answer.status_code == 429
    assert_shape(answer.json(), PROBLEM_DOCUMENT)
    assert answer.json()["code"] == "too_many_requests"
    assert 1790 <= int(answer.headers["Retry-After"]) <= 1800


def test_audit(home: Home) -> None:
    child = home.cast.child.id
    home.ask("POST", f"/parental-controls/profiles/{child}/viewing-time/grant", {"minutes": 15})
    page = home.ask("GET", "/parental-controls/audit")
    assert_shape(page, AUDIT_PAGE)
    assert page["next_cursor"] is None
    for entry in page["entries"]:
        assert_shape(entry, AUDIT_ENTRY)
    granted = page["entries"][0]
    assert (granted["action"], granted["actor"]) == ("time_granted", "account")
    assert granted["profile_id"] == str(child)
    assert granted["actor_id"] == str(home.cast.parent.id)
    errors = home.refused(
        "GET", "/parental-controls/audit?cursor=x", None, status=400, code="invalid"
    )
    assert [error["field"] for error in errors] == ["cursor"]


def test_metrics(home: Home) -> None:
    home.refused("GET", "/admin/metrics", None, status=403, code="staff_required")
    home.token = home.cast.staff_phone.token
    metrics = home.ask("GET", "/admin/metrics?since=2026-01-05T12:00:00%2B01:00")
    assert_shape(metrics, METRICS)
    assert metrics["since"] == "2026-01-05T11:00:00Z"
    assert_shape(metrics["heartbeat"], HEARTBEAT_METRICS)
    assert_shape(metrics["config_cache"], CONFIG_CACHE_METRICS)
    assert_shape(metrics["weekly_report"], WEEKLY_REPORT_METRICS)
    errors = home.refused("GET", "/admin/metrics?since=now", None, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["since"]


def test_viewing_time_config_with_a_pin(home: Home) -> None:
    set_pin(home.cast.parent)
    path = f"/parental-controls/profiles/{home.cast.sibling.id}/viewing-time"
    change = {"weekday_limit_minutes": 60}
    home.refused("PUT", path, change, status=403, code="pin_required")
    bad = change | {"pin_token": "no.good.token"}
    home.refused("PUT", path, bad, status=403, code="pin_token_invalid")
    errors = home.refused("PUT", path, change | {"pin_token": 5}, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["pin_token"]
    token = home.ask("POST", "/parental-controls/pin/verify", {"pin": PIN})["pin_token"]
    changed = home.ask("PUT", path, change | {"pin_token": token})
    assert_shape(changed, CONFIG)
    assert changed["weekday_limit_minutes"] == 60


def test_grant_with_the_pin_on_the_childs_device(home: Home) -> None:
    set_pin(home.cast.parent)
    path = f"/parental-controls/profiles/{home.cast.child.id}/viewing-time/grant"
    home.token = home.cast.child_tv.token
    home.refused("POST", path, {"minutes": 15}, status=403, code="parent_required")
    wrong = {"minutes": 15, "pin": "0000"}
    home.refused("POST", path, wrong, status=403, code="incorrect_pin")
    bad = {"minutes": 15, "pin_token": "no.good.token"}
    home.refused("POST", path, bad, status=403, code="pin_token_invalid")
    granted = home.ask("POST", path, {"minutes": 15, "pin": PIN})
    assert_shape(granted, GRANT)
    assert granted["remaining_minutes"] == 135
    token = home.ask("POST", "/parental-controls/pin/verify", {"pin": PIN})["pin_token"]
    by_token = home.ask("POST", path, {"minutes": 15, "pin_token": token})
    assert_shape(by_token, GRANT)
    assert by_token["remaining_minutes"] == 150
    assert [grant.is_remote for grant in TimeGrant.objects.all()] == [False, False]
    for name, value in (("pin", 4711), ("pin", "471"), ("pin_token", 5), ("pin_token", "")):
        body = {"minutes": 15, name: value}
        errors = home.refused("POST", path, body, status=400, code="invalid")
        assert [error["field"] for error in errors] == [name]


def test_grant_with_an_idempotency_key(home: Home) -> None:
    path = f"/api/v1/parental-controls/profiles/{home.cast.child.id}/viewing-time/grant"

    def ask(minutes: int, key: str = "a key") -> requests.Response:
        return home.send("POST", path, json={"minutes": minutes}, headers={"Idempotency-Key": key})

    first, second = ask(15), ask(15)
    assert_shape(first.json(), GRANT)
    assert (second.status_code, second.json()) == (200, first.json())
    reused = ask(30)
    assert reused.status_code == 400
    assert_shape(reused.json(), PROBLEM_DOCUMENT)
    assert reused.json()["code"] == "idempotency_key_reused"
    bad = ask(15, "x" * 256)
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid")
    assert [error["field"] for error in bad.json()["errors"]] == ["Idempotency-Key"]
    assert TimeGrant.objects.count() == 1


def test_too_many_log_ins_are_told_when_to_come_back(home: Home) -> None:
    home.token = None
    wrong = {"email": "parent@example.com", "password": "not-the-password"}
    for _ in range(10):
        home.refused("POST", "/auth/login", wrong, status=401, code="wrong_login")
    answer = home.send("POST", "/api/v1/auth/login", json=wrong)
    assert answer.status_code == 429
    assert answer.headers["Content-Type"] == PROBLEM
    assert_shape(answer.json(), PROBLEM_DOCUMENT)
    assert answer.json()["code"] == "too_many_requests"
    assert 890 <= int(answer.headers["Retry-After"]) <= 900


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


def test_history(home: Home) -> None:
    cast = home.cast
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(100)
    cast.phone.beat(cast.child, cast.documentary, session_id=session)
    cast.phone.beat(cast.adult, cast.cartoon)
    for profile, count in ((cast.child, 2), (cast.adult, 1), (cast.sibling, 0)):
        found = home.ask("GET", f"/parental-controls/profiles/{profile.id}/history")
        assert_shape(found, HISTORY)
        assert found["profile_id"] == str(profile.id)
        assert found["next_cursor"] is None
        assert [len(one["sessions"]) for one in found["days"]] == [count] * bool(count)
        for one in found["days"]:
            assert_shape(one, HISTORY_DAY)
            for listed in one["sessions"]:
                assert_shape(listed, HISTORY_SESSION)
    path = f"/parental-controls/profiles/{cast.child.id}/history"
    for field, value in (("from_date", "1"), ("to_date", ""), ("cursor", "x"), ("format", "xml")):
        query = f"{path}?{field}={value}"
        errors = home.refused("GET", query, None, status=400, code="invalid")
        assert [error["field"] for error in errors] == [field]
    foreign = f"/parental-controls/profiles/{cast.foreign_child.id}/history"
    home.refused("GET", foreign, None, status=404, code="not_found")


def test_weekly_report(home: Home) -> None:
    cast = home.cast
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(100)
    cast.phone.beat(cast.child, cast.cartoon, session_id=session)
    report = home.ask("GET", "/parental-controls/weekly-report")
    assert_shape(report, REPORT)
    assert [child["profile_name"] for child in report["profiles"]] == ["Mia", "Noah"]
    for child in report["profiles"]:
        assert_shape(child, REPORT_PROFILE)
        for one in child["daily_totals"]:
            assert_shape(one, REPORT_DAY)
        for title in child["top_titles"]:
            assert_shape(title, TOP_TITLE)
    assert [len(child["top_titles"]) for child in report["profiles"]] == [1, 0]
    query = "/parental-controls/weekly-report?format=xml"
    errors = home.refused("GET", query, None, status=400, code="invalid")
    assert [error["field"] for error in errors] == ["format"]


@pytest.mark.parametrize("name", ["history", "weekly-report"])
def test_a_table_as_a_file(home: Home, name: str) -> None:
    home.cast.phone.beat(home.cast.child, home.cast.cartoon)
    child = f"profiles/{home.cast.child.id}/" if name == "history" else ""
    path = f"/api/v1/parental-controls/{child}{name}"
    by_query = home.send("GET", f"{path}?format=csv")
    by_header = home.send("GET", path, headers={"Accept": "text/csv"})
    assert by_query.status_code == by_header.status_code == 200
    assert by_query.content == by_header.content
    assert by_query.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert by_query.headers["Content-Disposition"].startswith(f'attachment; filename="{name}-')


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


def test_export_and_erasure(home: Home) -> None:
    cast = home.cast
    cast.phone.beat(cast.child, cast.cartoon)
    found = home.ask("GET", "/account/export")
    assert_shape(found, EXPORT)
    for profile in found["profiles"]:
        assert_shape(profile, EXPORT_PROFILE)
    assert_shape(found["profiles"][0]["sessions"][0], EXPORT_SESSION)

    receipt = home.ask("POST", f"/auth/profiles/{cast.child.id}/erase", {})
    assert_shape(receipt, RECEIPT)
    assert receipt["deleted"].items() >= {"profiles": 1, "sessions": 1, "balances": 1}.items()
    foreign = f"/auth/profiles/{cast.foreign_child.id}/erase"
    home.refused("POST", foreign, {}, status=404, code="not_found")

    erase = "/account/erase"
    home.refused("POST", erase, {"password": "?"}, status=403, code="incorrect_password")
    set_pin(cast.parent)
    home.refused("POST", erase, {"password": PASSWORD}, status=403, code="pin_required")
    token = home.ask("POST", "/parental-controls/pin/verify", {"pin": PIN})["pin_token"]
    receipt = home.ask("POST", erase, {"password": PASSWORD, "pin_token": token})
    assert_shape(receipt, RECEIPT)
    assert receipt["deleted"].items() >= {"accounts": 1, "profiles": 2, "pins": 1}.items()
    home.refused("GET", "/auth/me", None, status=401, code="not_authenticated")


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
