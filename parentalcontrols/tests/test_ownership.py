"""Nobody sees another household's things, and nobody without a token sees anything.

Generated from the URLconf: a new route is covered by itself.
"""

from typing import Any
from uuid import uuid4

import pytest

from parentalcontrols.tests.cast import Cast, Device, assert_problem, everything_stored
from parentalcontrols.tests.routes import (
    BODIES,
    FIELDS,
    OPEN,
    ROUTES,
    Field,
    Route,
    answers_in,
    body_for,
    device_for,
    foreign_ids,
    own_ids,
)

WITH_IDS = [route for route in ROUTES if route.parameters]
ID_FIELDS = [field for field in FIELDS if field.schema.get("format") == "uuid"]
NO_IDS = ["5", "me", "x" * 36, "..", "%00", "%2e%2e%2fadmin", "null", "-1", "0" * 32, "a" * 3000]


def test_the_routes_are_found() -> None:
    assert {str(route) for route in ROUTES} >= {
        "POST /auth/register",
        "PUT /auth/profiles/{profile_id}/select",
        "POST /viewing-time/session/{session_id}/end",
    }
    assert {str(field) for field in ID_FIELDS} >= {
        "POST /viewing-time/heartbeat session_id",
        "POST /viewing-time/heartbeats heartbeats.0.profile_id",
    }


def test_the_table_of_good_bodies_holds_no_route_that_is_gone() -> None:
    assert BODIES.keys() == {(route.name, route.method) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_the_good_request_is_good(cast: Cast, route: Route) -> None:
    path, body = route.path(own_ids(cast)), body_for(route, cast)
    answer = device_for(route, cast).send(route.method, path, body)
    assert answer.status_code == (201 if route in CREATING else 200), answer.content


CREATING = [r for r in ROUTES if r.method == "POST" and r.name in {"register", "profiles"}]


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
def test_a_foreign_id_is_answered_like_a_missing_one(cast: Cast, route: Route) -> None:
    body = body_for(route, cast)
    own, foreign = own_ids(cast), foreign_ids(cast)
    before = everything_stored()
    for parameter in route.parameters:
        there = cast.phone.send(route.method, route.path(own | {parameter: uuid4()}), body)
        assert_problem(there, 404, "not_found")
        theirs = own | {parameter: foreign[parameter]}
        answer = cast.phone.send(route.method, route.path(theirs), body)
        assert answer.content == there.content
        assert answer.headers == there.headers
        if parameter == "profile_id":
            adult = own | {parameter: cast.foreign_adult.id}
            assert cast.phone.send(route.method, route.path(adult), body).content == there.content
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
def test_what_is_no_uuid_is_answered_like_a_missing_id(cast: Cast, route: Route) -> None:
    body = body_for(route, cast)
    own = own_ids(cast)
    before = everything_stored()
    for parameter in route.parameters:
        missing = cast.phone.send(route.method, route.path(own | {parameter: uuid4()}), body)
        mangled = [f"{own[parameter]}{end}" for end in ("x", "%00", "%0a", "%20", "/", "/..", ";")]
        for text in [*NO_IDS, *mangled, f"%7B{own[parameter]}%7D", own[parameter].hex]:
            answer = cast.phone.send(route.method, route.path(own | {parameter: text}), body)
            assert_problem(answer, 404, "not_found")
            assert answer.content == missing.content, text
    assert everything_stored() == before


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
def test_the_other_household_is_served_its_own(cast: Cast, route: Route) -> None:
    answer = cast.foreign_phone.send(
        route.method, route.path(foreign_ids(cast)), body_for(route, cast)
    )
    assert answer.status_code == 200, answer.content


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
def test_staff_is_no_member_of_a_household(cast: Cast, route: Route) -> None:
    from parentalcontrols import authentication

    device = Device(authentication.access_token(cast.staff))
    answer = device.send(route.method, route.path(own_ids(cast)), body_for(route, cast))
    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("field", ID_FIELDS, ids=str)
def test_a_foreign_id_in_a_body_is_answered_like_a_missing_one(cast: Cast, field: Field) -> None:
    route = field.route
    path = route.path(own_ids(cast))
    foreign: dict[str | int, Any] = {k: str(v) for k, v in foreign_ids(cast).items()}
    # Titles belong to nobody: one that cannot be started is as good as a foreign one.
    foreign["title_id"] = str(cast.withdrawn.id)
    bodies = [body_for(route, cast) for _ in range(2)]
    before = everything_stored()

    def told(body: Any, value: str) -> Any:
        answer = cast.phone.send(route.method, path, field.replaced(body, value))
        (told,) = answers_in(answer.json())
        error = told.get("error", told)
        assert (error["status"], error["code"]) == (404, "not_found")
        return told

    assert told(bodies[0], foreign[field.place[-1]]) == told(bodies[1], str(uuid4()))
    assert everything_stored() == before


@pytest.mark.parametrize("field", ID_FIELDS, ids=str)
def test_an_id_in_a_body_that_is_no_uuid_is_refused(cast: Cast, field: Field) -> None:
    route = field.route
    path = route.path(own_ids(cast))
    for text in ("", "5", "x" * 36, "null", "../" * 12, str(uuid4()) + "\n", "{" + "0" * 36 + "}"):
        answer = cast.phone.send(route.method, path, field.replaced(body_for(route, cast), text))
        (told,) = answers_in(answer.json())
        error = told.get("error", told)
        assert (error["status"], error["code"]) == (400, "invalid"), text
        assert [e["field"] for e in error["errors"]] == [field.place[-1]]


@pytest.mark.parametrize("route", [r for r in ROUTES if r.name not in OPEN], ids=str)
def test_without_a_token_nothing_is_answered(cast: Cast, route: Route) -> None:
    own, body = own_ids(cast), body_for(route, cast)
    before = everything_stored()
    for ids in (own, dict.fromkeys(own, uuid4())):
        answer = cast.anonymous.send(route.method, route.path(ids), body)
        document = assert_problem(answer, 401, "not_authenticated")
        assert "errors" not in document
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert everything_stored() == before


@pytest.mark.parametrize("route", [r for r in ROUTES if r.name not in OPEN], ids=str)
def test_without_a_token_a_bad_body_is_not_even_read(cast: Cast, route: Route) -> None:
    path = route.path(own_ids(cast))
    answer = cast.anonymous.send(route.method, path, raw=b"[" * 5000)
    assert_problem(answer, 401, "not_authenticated")


@pytest.mark.parametrize("route", [r for r in ROUTES if r.name in OPEN], ids=str)
def test_the_open_routes_answer_without_a_token_and_ignore_a_bad_one(
    cast: Cast, route: Route
) -> None:
    for device in (cast.anonymous, Device("not.a.token")):
        if route.name != "register":
            answer = device.send(route.method, route.path({}), body_for(route, cast))
            assert answer.status_code == 200, answer.content
        else:
            body = body_for(route, cast) | {"email": f"{uuid4()}@example.com"}
            assert device.send(route.method, route.path({}), body).status_code == 201
