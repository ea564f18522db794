"""What the token of a child's device is let in for: every route, decided one by one.

The routes are those of the URLconf: a new one fails here until somebody has decided.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from parentalcontrols import authentication
from parentalcontrols.models import Profile
from parentalcontrols.tests.cast import (
    PIN,
    Cast,
    Device,
    assert_problem,
    balance_of,
    beat_of,
    everything_stored,
    set_pin,
)
from parentalcontrols.tests.routes import (
    METHODS,
    PREFIX,
    ROUTES,
    Route,
    body_for,
    foreign_ids,
    own_ids,
)
from viewingtime.models import TimeGrant, ViewingSession

OPEN = "open"  # needs no token
PARENT = "parent_required"  # loosens, or tells of others
OWN = "own"  # for the device's own child
WITH_PIN = "with_pin"  # for the device's own child, with the PIN or what it bought

DECIDED: dict[tuple[str, str], str] = {
    ("register", "POST"): OPEN,
    ("login", "POST"): OPEN,
    ("refresh", "POST"): OPEN,
    ("me", "GET"): PARENT,
    ("profiles", "GET"): PARENT,
    ("profiles", "POST"): PARENT,
    ("select-profile", "PUT"): PARENT,
    ("profile-token", "POST"): PARENT,
    ("pin", "POST"): PARENT,
    ("pin-status", "GET"): PARENT,
    ("pin-verify", "POST"): OWN,
    ("pin-reset", "POST"): PARENT,
    ("audit", "GET"): PARENT,
    ("admin-metrics", "GET"): PARENT,
    ("viewing-time", "GET"): OWN,
    ("viewing-time", "PUT"): PARENT,
    ("history", "GET"): PARENT,
    ("weekly-report", "GET"): PARENT,
    ("grant", "POST"): WITH_PIN,
    ("balance", "GET"): OWN,
    ("playback-eligible", "GET"): OWN,
    ("heartbeat", "POST"): OWN,
    ("heartbeats", "POST"): OWN,
    ("end-session", "POST"): OWN,
    ("erase-profile", "POST"): PARENT,
    ("erase-account", "POST"): PARENT,
    ("export", "GET"): PARENT,
}
#: What is served beside the API, but for the admin's pages.
BESIDE = {"", "api/docs", "api/docs/", "api/schema/", "livez", "readyz", "metrics"}


def those(*decisions: str) -> list[Route]:
    return [r for r in ROUTES if DECIDED.get((r.name, r.method)) in decisions]


def ids_of(cast: Cast, profile: Profile, device: Device) -> dict[str, UUID]:
    """For each id in a path, one of that profile's."""
    session_id = device.beat(profile, cast.cartoon)["session_id"]
    return {"profile_id": profile.id, "session_id": UUID(session_id)}


def others_ids(cast: Cast) -> Iterator[dict[str, UUID]]:
    """The ids of everybody but the device's child, and some of nobody's."""
    yield ids_of(cast, cast.sibling, cast.phone)
    yield ids_of(cast, cast.adult, cast.phone)
    yield foreign_ids(cast)
    yield {"profile_id": uuid4(), "session_id": uuid4()}


def grant_path(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time/grant"


# Every route


def test_every_route_is_decided() -> None:
    assert DECIDED.keys() == {(route.name, route.method) for route in ROUTES}


def test_more_is_kept_from_a_child_than_is_let_through() -> None:
    """The tables below are not empty, whatever the routes are called."""
    assert len(those(PARENT)) >= 10
    assert len(those(OWN)) == 7
    assert len(those(WITH_PIN)) == 1


@pytest.mark.parametrize("route", those(OWN), ids=str)
def test_a_childs_device_is_let_in_for_its_own_child(cast: Cast, route: Route) -> None:
    answer = cast.child_tv.send(route.method, route.path(own_ids(cast)), body_for(route, cast))
    assert answer.status_code == 200, answer.content
    answered = answer.json()
    for told in answered.get("results", [answered]):
        assert "error" not in told
        assert told.get("profile_id", str(cast.child.id)) == str(cast.child.id)


@pytest.mark.parametrize("route", those(PARENT), ids=str)
def test_what_is_the_parents_is_refused_to_a_childs_device(cast: Cast, route: Route) -> None:
    """And nothing is told by the refusal: not who is there, not whether the body was good."""
    own, body = own_ids(cast), body_for(route, cast)
    everybody = [own, *others_ids(cast)]
    before = everything_stored()
    usual = cast.child_tv.send(route.method, route.path(own), body)
    assert_problem(usual, 403, "parent_required")
    for ids in everybody:
        for sent in ({"body": body}, {"raw": b"[" * 5000}, {"raw": b""}):
            answer = cast.child_tv.send(route.method, route.path(ids), **sent)
            assert answer.status_code == 403
            assert answer.content == usual.content
    assert everything_stored() == before


@pytest.mark.parametrize("route", those(WITH_PIN), ids=str)
def test_a_childs_device_without_the_pin_gives_nothing(cast: Cast, route: Route) -> None:
    set_pin(cast.parent)
    path = route.path(own_ids(cast))
    before = everything_stored()
    nothing = {"pin": None, "pin_token": None, "is_remote": True, "scope": "account"}
    for minutes in (15, 30, 60, None):
        for extra in ({}, nothing):
            answer = cast.child_tv.send(route.method, path, {"minutes": minutes, **extra})
            assert_problem(answer, 403, "parent_required")
    assert everything_stored() == before


@pytest.mark.parametrize("route", those(WITH_PIN), ids=str)
def test_a_childs_device_with_the_pin_is_let_in_for_its_own_child(cast: Cast, route: Route) -> None:
    set_pin(cast.parent)
    path = route.path(own_ids(cast))
    assert cast.child_tv.send(route.method, path, {"minutes": 15, "pin": PIN}).status_code == 200
    verified = cast.child_tv.post("/parental-controls/pin/verify", {"pin": PIN}).json()
    body = {"minutes": 15, "pin_token": verified["pin_token"]}
    assert cast.child_tv.send(route.method, path, body).status_code == 200
    assert balance_of(cast.child).granted_seconds == 1800


@pytest.mark.parametrize("route", [r for r in those(OWN, WITH_PIN) if r.parameters], ids=str)
def test_other_ids_are_not_there_for_a_childs_device(cast: Cast, route: Route) -> None:
    body = body_for(route, cast)
    if DECIDED[route.name, route.method] == WITH_PIN:
        body |= {"pin": set_pin(cast.parent)}
    everybody = list(others_ids(cast))
    before = everything_stored()
    missing = cast.child_tv.send(route.method, route.path(everybody[-1]), body)
    assert_problem(missing, 404, "not_found")
    for ids in everybody:
        answer = cast.child_tv.send(route.method, route.path(ids), body)
        assert answer.status_code == 404, route.path(ids)
        assert answer.content == missing.content
    assert everything_stored() == before


@pytest.mark.parametrize("route", those(OPEN), ids=str)
def test_an_open_route_answers_a_childs_device_like_anybody(cast: Cast, route: Route) -> None:
    answer = cast.child_tv.send(route.method, route.path({}), body_for(route, cast))
    assert answer.status_code in {200, 201}, answer.content


@pytest.mark.parametrize("template", sorted({route.template for route in ROUTES}))
def test_no_other_method_lets_a_childs_device_in(cast: Cast, template: str) -> None:
    """Neither one that is not served nor HEAD and OPTIONS, nor a header that names another."""
    routes = [route for route in ROUTES if route.template == template]
    path, before = routes[0].path(own_ids(cast)), everything_stored()
    for method in {*METHODS, "TRACE", "CONNECT", "PURGE"} - {route.method for route in routes}:
        answer = cast.child_tv.send(method, path, {})
        assert answer.status_code in {403, 405}, (method, answer.content)
    is_the_parents = all(DECIDED[r.name, r.method] == PARENT for r in routes if r.method == "GET")
    head = cast.child_tv.send("HEAD", path)
    if any(route.method == "GET" for route in routes):
        assert head.status_code == (403 if is_the_parents else 200)
    else:
        assert head.status_code in {403, 405}
    assert head.content == b""
    assert everything_stored() == before


def test_a_header_that_names_another_method_changes_nothing(cast: Cast) -> None:
    path = f"/parental-controls/profiles/{cast.child.id}/viewing-time"
    names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    before = everything_stored()
    headers = dict.fromkeys(names, "PUT")
    body = {"weekday_limit_minutes": None}
    answer = cast.child_tv.send("GET", path, body, headers=headers)
    assert answer.json()["weekday_limit_minutes"] == 120
    answer = cast.child_tv.send("GET", f"{path}?_method=PUT", body)
    assert answer.json()["weekday_limit_minutes"] == 120
    assert everything_stored() == before


# Ids in bodies


@pytest.mark.parametrize("name", ["sibling", "adult", "foreign_child", "foreign_adult"])
def test_a_childs_device_beats_for_nobody_else(cast: Cast, name: str) -> None:
    profile = getattr(cast, name)
    device = cast.foreign_phone if name.startswith("foreign") else cast.phone
    session = device.beat(profile, cast.cartoon)["session_id"]
    before = everything_stored()
    for fields in ({}, {"session_id": session}):
        body = beat_of(profile, cast.cartoon, **fields)
        answer = cast.child_tv.post("/viewing-time/heartbeat", body)
        assert_problem(answer, 404, "not_found")
    assert_problem(cast.child_tv.post(f"/viewing-time/session/{session}/end"), 404, "not_found")
    assert everything_stored() == before


@pytest.mark.parametrize("name", ["sibling", "adult", "foreign_child"])
def test_somebody_elses_session_is_none_of_the_childs(cast: Cast, name: str) -> None:
    device = cast.foreign_phone if name.startswith("foreign") else cast.phone
    theirs = device.beat(getattr(cast, name), cast.cartoon)["session_id"]
    mine = cast.child_tv.beat(cast.child, cast.cartoon)["session_id"]
    before = everything_stored()
    crossed = [
        beat_of(cast.child, cast.cartoon, session_id=theirs),
        beat_of(getattr(cast, name), cast.cartoon, session_id=mine),
    ]
    for body in crossed:
        answer = cast.child_tv.post("/viewing-time/heartbeat", body)
        assert_problem(answer, 404, "not_found")
    answer = cast.child_tv.post("/viewing-time/heartbeats", {"heartbeats": crossed})
    assert [result["error"]["status"] for result in answer.json()["results"]] == [404, 404]
    assert everything_stored() == before


def test_in_a_batch_of_a_childs_device_its_own_beats_alone_are_taken(cast: Cast) -> None:
    theirs = cast.phone.beat(cast.sibling, cast.cartoon)["session_id"]
    adults = cast.phone.beat(cast.adult, cast.cartoon)["session_id"]
    mine = cast.child_tv.beat(cast.child, cast.cartoon)["session_id"]
    sessions = ViewingSession.objects.count()
    beats = [
        beat_of(cast.sibling, cast.cartoon, session_id=theirs),
        beat_of(cast.child, cast.cartoon, session_id=mine),
        beat_of(cast.adult, cast.cartoon, session_id=adults),
        beat_of(cast.adult, cast.cartoon),
        beat_of(cast.child, cast.cartoon, session_id=theirs),
        beat_of(cast.foreign_child, cast.cartoon),
        beat_of(cast.child, cast.cartoon, session_id=mine),
    ]
    answer = cast.child_tv.post("/viewing-time/heartbeats", {"heartbeats": beats})
    results = answer.json()["results"]
    statuses = [result.get("error", {}).get("status") for result in results]
    assert statuses == [404, None, 404, 404, 404, 404, None]
    assert {results[index]["session_id"] for index in (1, 6)} == {mine}
    assert ViewingSession.objects.count() == sessions
    assert not ViewingSession.objects.exclude(ended_at=None).exists()


def test_a_parents_pin_token_for_one_child_gives_the_siblings_device_nothing(cast: Cast) -> None:
    set_pin(cast.parent)
    child_token = cast.child_tv.post("/parental-controls/pin/verify", {"pin": PIN}).json()
    body = {"minutes": 15, "pin_token": child_token["pin_token"]}
    tv = Device(authentication.access_token(cast.parent, profile_id=cast.sibling.id))
    assert_problem(tv.post(grant_path(cast.sibling), body), 403, "pin_token_invalid")
    assert_problem(tv.post(grant_path(cast.child), body), 404, "not_found")
    assert not TimeGrant.objects.exists()
    # It was not spent by that.
    assert cast.child_tv.post(grant_path(cast.child), body).status_code == 200


# Beside the API


def pages(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every path outside of the API, as the URLconf writes it."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from pages(pattern.url_patterns, path)
        elif not path.startswith(PREFIX):
            yield path, pattern


def test_every_page_beside_the_api_is_known() -> None:
    assert {path for path, _ in pages() if not path.startswith("admin/")} == BESIDE


@pytest.mark.parametrize("path", sorted(BESIDE))
def test_a_childs_token_makes_no_difference_beside_the_api(cast: Cast, path: str) -> None:
    usual = Client().get(f"/{path}")
    answer = Client().get(f"/{path}", headers={"Authorization": f"Bearer {cast.child_tv.token}"})
    assert (answer.status_code, answer.content) == (usual.status_code, usual.content)
    assert answer.status_code in {200, 302}


def test_no_token_opens_a_page_of_the_admin(cast: Cast) -> None:
    plain = [path for path, _ in pages() if path.startswith("admin/") and "<" not in path]
    closed = [p for p in plain if p not in {"admin/login/", "admin/logout/"} and "(?P" not in p]
    assert len(closed) > 10
    staff = authentication.access_token(cast.staff)
    for token in (cast.child_tv.token, cast.phone.token, staff):
        for path in closed:
            answer = Client().get(f"/{path}", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 302, path
            assert answer.headers["Location"].startswith("/admin/login/"), path
