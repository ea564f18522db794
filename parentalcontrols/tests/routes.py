"""Every route below `/api/v1`, found in the URLconf, and a good request for each.

Tests that are generated from this cover a new route by themselves; one that is not in `BODIES`
fails them until it is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator

from parentalcontrols.tests.cast import PASSWORD, Cast, Device, beat_of, set_pin

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREFIX = "api/v1/"
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


@dataclass(frozen=True)
class Route:
    """One method of one path; `template` starts below `/api/v1` and has `{name}` for an id."""

    name: str
    method: str
    template: str

    def __str__(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.template)

    def path(self, ids: dict[str, Any]) -> str:
        return self.template.format(**ids)


def _walk(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, path)
        else:
            yield path, pattern


def _routes() -> Iterator[Route]:
    for path, pattern in _walk(get_resolver().url_patterns):
        if path.startswith(PREFIX):
            template = _PARAMETER.sub(r"{\1}", path.removeprefix(PREFIX.rstrip("/")))
            for method in METHODS:
                if hasattr(pattern.callback.view_class, method.lower()):
                    yield Route(pattern.name, method, template)


ROUTES = list(_routes())
#: What needs no token.
OPEN = {"register", "login", "refresh"}
#: What is for staff alone.
STAFF = {"admin-metrics"}


def _beat(cast: Cast) -> dict[str, Any]:
    session_id = own_ids(cast)["session_id"]
    return beat_of(
        cast.child, cast.cartoon, session_id=session_id, device_type="tv", is_paused=False
    )


#: A good body for each route, by name and method; None where a route reads none.
BODIES: dict[tuple[str, str], Callable[[Cast], Any]] = {
    ("register", "POST"): lambda cast: {"email": "new@example.com", "password": PASSWORD},
    ("login", "POST"): lambda cast: {"email": cast.parent.email, "password": PASSWORD},
    ("refresh", "POST"): lambda cast: {
        "refresh_token": Device()
        .post("/auth/login", {"email": cast.parent.email, "password": PASSWORD})
        .json()["refresh_token"]
    },
    ("me", "GET"): lambda cast: None,
    ("profiles", "GET"): lambda cast: None,
    ("profiles", "POST"): lambda cast: {
        "name": "New",
        "is_kids": True,
        "parental_rating": "PG",
        "avatar_url": "https://example.com/new.png",
    },
    ("select-profile", "PUT"): lambda cast: None,
    ("profile-token", "POST"): lambda cast: None,
    ("pin", "POST"): lambda cast: {"new_pin": "2580", "current_pin": set_pin(cast.parent)},
    ("pin-status", "GET"): lambda cast: None,
    ("pin-verify", "POST"): lambda cast: {"pin": set_pin(cast.parent)},
    ("pin-reset", "POST"): lambda cast: {"password": PASSWORD, "new_pin": "2580"},
    ("audit", "GET"): lambda cast: None,
    ("admin-metrics", "GET"): lambda cast: None,
    ("viewing-time", "GET"): lambda cast: None,
    ("viewing-time", "PUT"): lambda cast: {
        "weekday_limit_minutes": 60,
        "weekend_limit_minutes": None,
        "reset_hour": 5,
        "timezone": "Europe/Berlin",
        "educational_exempt": False,
    },
    ("history", "GET"): lambda cast: None,
    ("weekly-report", "GET"): lambda cast: None,
    ("grant", "POST"): lambda cast: {"minutes": 15},
    ("balance", "GET"): lambda cast: None,
    ("playback-eligible", "GET"): lambda cast: None,
    ("heartbeat", "POST"): _beat,
    ("heartbeats", "POST"): lambda cast: {"heartbeats": [_beat(cast)]},
    ("end-session", "POST"): lambda cast: None,
    ("erase-profile", "POST"): lambda cast: {"pin_token": None},
    ("erase-account", "POST"): lambda cast: {"password": PASSWORD, "pin_token": None},
    ("export", "GET"): lambda cast: None,
}


def own_ids(cast: Cast) -> dict[str, UUID]:
    """For each id in a path, one that is the parent's."""
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    return {"profile_id": cast.child.id, "session_id": UUID(session_id)}


def foreign_ids(cast: Cast) -> dict[str, UUID]:
    """For each id in a path, one that is the outsider's."""
    session_id = cast.foreign_phone.beat(cast.foreign_child, cast.cartoon)["session_id"]
    return {"profile_id": cast.foreign_child.id, "session_id": UUID(session_id)}


def body_for(route: Route, cast: Cast) -> Any:
    """A good body for a route."""
    assert (route.name, route.method) in BODIES, f"{route} needs a good body in routes.BODIES"
    return BODIES[route.name, route.method](cast)


def device_for(route: Route, cast: Cast) -> Device:
    """The phone of whoever a route is for."""
    return cast.staff_phone if route.name in STAFF else cast.phone


def device_at(template: str, cast: Cast) -> Device:
    """The phone of whoever a path is for."""
    return next(device_for(route, cast) for route in ROUTES if route.template == template)


def answers_in(body: Any) -> list[Any]:
    """What an answer says of each beat, for a batch's answer; else of the request."""
    return body["results"] if isinstance(body, dict) and "results" in body else [body]


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return found


@dataclass(frozen=True)
class Field:
    """A place in a route's body: keys and indexes on the way, and what the schema says of it."""

    route: Route
    place: tuple[str | int, ...]
    schema: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.route} {'.'.join(map(str, self.place))}"

    @property
    def name(self) -> str:
        return ".".join(map(str, self.place))

    @property
    def types(self) -> set[str]:
        options = [self.schema, *self.schema.get("oneOf", ())]
        types = [option.get("type", []) for option in options]
        return {t for one in types for t in ([one] if isinstance(one, str) else one)}

    def replaced(self, body: Any, value: Any) -> Any:
        """The body with another value in that place; the body itself is changed."""
        *way, last = self.place
        inner = body
        for step in way:
            inner = inner[step]
        inner[last] = value
        return body


def fields() -> list[Field]:
    """Every field of every body, as the OpenAPI document tells them."""
    openapi = document()
    found = []
    for route in ROUTES:
        operation = openapi["paths"]["/api/v1" + route.template][route.method.lower()]
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            found += list(_fields(route, openapi, schema, ()))
    return found


def _resolved(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = openapi["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for option in schema.get("allOf", ()):
        schema = _resolved(openapi, option) | schema
    if "oneOf" in schema:
        schema = schema | {"oneOf": [_resolved(openapi, option) for option in schema["oneOf"]]}
    return schema


def _fields(
    route: Route, openapi: dict[str, Any], schema: dict[str, Any], place: tuple[str | int, ...]
) -> Iterator[Field]:
    schema = _resolved(openapi, schema)
    if place:
        yield Field(route, place, schema)
    for name, inner in schema.get("properties", {}).items():
        yield from _fields(route, openapi, inner, (*place, name))
    if "items" in schema:
        yield from _fields(route, openapi, schema["items"], (*place, 0))


FIELDS = fields()
#: The routes that read a body.
WITH_BODY = list(dict.fromkeys(field.route for field in FIELDS))
