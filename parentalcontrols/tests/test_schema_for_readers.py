"""The OpenAPI document is enough for who writes a client and has nothing else."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from parentalcontrols.tests.routes import OPEN, ROUTES, Route, document
from parentalcontrols.tests.test_scopes import OWN, WITH_PIN, those

OPENAPI = document()
SCHEMAS: dict[str, dict[str, Any]] = OPENAPI["components"]["schemas"]
Place = tuple[str, str]

formats = FormatChecker()
formats.checks("date-time", ValueError)(
    lambda value: not isinstance(value, str) or bool(datetime.fromisoformat(value))
)


def operation_of(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = OPENAPI["paths"]["/api/v1" + route.template][route.method.lower()]
    return found


def referred(schema: dict[str, Any]) -> dict[str, Any]:
    """The component that a schema stands for, alone or beside null; else itself."""
    for option in (schema, *schema.get("oneOf", ()), *schema.get("allOf", ())):
        if "$ref" in option:
            return SCHEMAS[option["$ref"].rsplit("/", 1)[1]]
    return schema


def bodies() -> Iterator[tuple[Route, str, dict[str, Any]]]:
    """Every JSON body that is told: of which route, `request` or its status, and what is told."""
    for route in ROUTES:
        operation = operation_of(route)
        told = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for place, body in told.items():
            for kind, content in body.get("content", {}).items():
                if kind.endswith("json"):
                    yield route, place, content


# Words


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_operation_says_what_it_does_and_whose_token_it_needs(route: Route) -> None:
    operation = operation_of(route)
    assert re.fullmatch(r"[A-Z].{2,60}[^.\s]", operation["summary"])
    needs = operation["description"].partition(".")[0]
    assert needs.startswith("Needs ")
    assert ("no token" in needs) == (route.name in OPEN)
    assert ("account token" in needs) == (route.name not in OPEN)
    assert ("profile token" in needs) == (route in those(OWN, WITH_PIN))
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]


def test_no_two_operations_are_summed_up_alike() -> None:
    summaries = [operation_of(route)["summary"] for route in ROUTES]
    assert len(set(summaries)) == len(summaries)


def test_every_field_is_described_by_itself_or_by_what_it_is() -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in SCHEMAS.items()
        for field, told in schema.get("properties", {}).items()
        if not (told.get("description") or referred(told).get("description"))
    ]
    assert silent == []


def test_no_value_is_described_by_its_own_name() -> None:
    for name, schema in SCHEMAS.items():
        for value, meaning in re.findall(r"\* `(\w+)` - (.+)", schema.get("description", "")):
            assert meaning != value, name


def test_every_part_is_described_and_in_use() -> None:
    told = {tag["name"]: tag["description"] for tag in OPENAPI["tags"]}
    assert told.keys() == {tag for route in ROUTES for tag in operation_of(route)["tags"]}
    assert all(told.values())


def test_who_has_nothing_else_learns_to_sign_in_and_what_refusals_mean() -> None:
    text = OPENAPI["info"]["description"]
    for word in (
        *("/api/v1/auth/login", "Authorization: Bearer", "parent_required"),
        *("application/problem+json", "Idempotency-Key", "Retry-After", "/api/docs/"),
    ):
        assert word in text


def test_whatever_a_description_names_exists() -> None:
    """Fields, values, operations and the codes of problems."""
    api = (Path(settings.BASE_DIR) / "docs/api.md").read_text()
    known = set(re.findall(r"`(\w+)`", api)) | {operation_of(r)["operationId"] for r in ROUTES}
    for schema in SCHEMAS.values():
        known |= schema.get("properties", {}).keys() | set(schema.get("enum", ()))
    texts = [OPENAPI["info"]["description"]]
    texts += [operation_of(route)["description"] for route in ROUTES]
    texts += [
        told.get("description", "")
        for schema in SCHEMAS.values()
        for told in (schema, *schema.get("properties", {}).values())
    ]
    named = {name for text in texts for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", text)}
    assert len(named) >= 20
    assert named - known == set()


# Examples


def exact(schemas: dict[str, Any]) -> dict[str, Any]:
    """The components, with no field let pass that they do not tell."""
    return {
        name: {**schema, "additionalProperties": False} if "properties" in schema else schema
        for name, schema in schemas.items()
    }


def validate(value: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": {"schemas": exact(SCHEMAS)}}
    Draft202012Validator(whole, format_checker=formats).validate(value)


def test_examples_are_as_their_schemas_say() -> None:
    for route, place, content in bodies():
        for name, shown in content.get("examples", {}).items():
            try:
                validate(shown["value"], content["schema"])
            except ValidationError as error:
                pytest.fail(f"{route} {place} {name}: {error.message}")


@pytest.mark.parametrize(
    "wrong",
    [{"detail": 5}, {"detail": "x", "details": "y"}, {}],
)
def test_an_example_that_is_not_would_be_found(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(wrong, {"$ref": "#/components/schemas/Detail"})


def test_every_request_and_every_problem_has_an_example() -> None:
    silent = [
        f"{route} {place}"
        for route, place, content in bodies()
        if not content.get("examples") and (place == "request" or place >= "400")
    ]
    assert silent == []


def test_most_answers_have_an_example() -> None:
    silent = {
        route.name
        for route, place, content in bodies()
        if place.startswith("2") and not content.get("examples")
    }
    assert silent <= {"me", "audit", "admin-metrics", "history", "weekly-report", "export"}


def example_of(route: Route, status: str) -> dict[str, Any]:
    ((_, shown),) = operation_of(route)["responses"][status]["content"]["application/problem+json"][
        "examples"
    ].items()
    value: dict[str, Any] = {**shown["value"]}
    assert value.pop("request_id")
    return value


@pytest.mark.parametrize("route", [r for r in ROUTES if r.name not in OPEN], ids=str)
def test_who_has_no_token_gets_the_problem_that_is_shown(route: Route) -> None:
    path = "/api/v1" + route.path(dict.fromkeys(route.parameters, uuid4()))
    answer = Client().generic(route.method, path)
    assert answer.status_code == 401
    found = answer.json()
    assert found.pop("request_id")
    assert found == example_of(route, "401")


def test_what_a_player_gets_in_an_outage_is_shown() -> None:
    for route in ROUTES:
        shown = example_of(route, "503")
        if route.name in {"heartbeat", "heartbeats", "end-session"}:
            assert (shown["enforcement"], shown["reason"]) == ("blocked", "unavailable")
        elif route.name == "playback-eligible":
            assert (shown["eligible"], shown["reason"]) == (False, "unavailable")
        else:
            assert not {"enforcement", "eligible", "reason"} & shown.keys()
