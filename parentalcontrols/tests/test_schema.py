"""The OpenAPI document tells the truth, and the page that shows it needs nobody else."""

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import schemathesis
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from parentalcontrols import profiles
from parentalcontrols.models import Profile
from parentalcontrols.tests.cast import Cast, Device
from parentalcontrols.tests.routes import OPEN, ROUTES, device_at, document
from parentalcontrols.wsgi import application
from pins.tests.service import SOAK_SECONDS

SCHEMA, DOCS = "/api/schema/", "/api/docs/"
#: What may be asked for as a file for spreadsheets, too.
AS_FILES = ("/history", "/weekly-report")


@pytest.fixture
def openapi() -> dict[str, Any]:
    answer = Client().get(SCHEMA)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


def operations(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    }


# The document


def test_it_is_made_once_and_may_be_kept(
    openapi: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("That takes so long that heartbeats wait.")

    monkeypatch.setattr(SchemaGenerator, "get_schema", never)
    answer = Client().get(SCHEMA, {"version": "2", "lang": "de"})
    assert answer.json() == openapi
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    tag = answer.headers["ETag"]
    kept = Client().get(SCHEMA, headers={"If-None-Match": tag})
    assert (kept.status_code, kept.content, kept.headers["ETag"]) == (304, b"", tag)
    changed = Client().get(SCHEMA, headers={"If-None-Match": '"another"'})
    assert changed.json() == openapi
    head = Client().head(SCHEMA)
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", tag)
    assert head.headers["Content-Length"] == str(len(answer.content))


def test_the_document_is_valid_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1.")
    validate_schema(openapi)


def test_the_generator_has_nothing_to_complain_about(capsys: pytest.CaptureFixture[str]) -> None:
    document()
    assert capsys.readouterr().err == ""


def test_every_route_is_told_and_no_other(openapi: dict[str, Any]) -> None:
    told = {(method, path.removeprefix("/api/v1")) for method, path in operations(openapi)}
    assert told == {(route.method, route.template) for route in ROUTES}


def test_names_are_unique_and_can_be_read(openapi: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(openapi).values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in ids)
    for name in openapi["components"]["schemas"]:
        assert re.fullmatch(r"([A-Z][a-z]+)+", name), name
        assert "RequestRequest" not in name
        assert "Serializer" not in name


def test_ids_in_paths_are_uuids(openapi: dict[str, Any]) -> None:
    for operation in operations(openapi).values():
        in_path = [p for p in operation.get("parameters", ()) if p["in"] == "path"]
        for parameter in in_path:
            assert parameter["required"] is True
            assert parameter["schema"] == {"type": "string", "format": "uuid"}


def test_every_operation_tells_its_problems(openapi: dict[str, Any]) -> None:
    for (method, path), operation in operations(openapi).items():
        told = operation["responses"]
        assert {"413", "503"} <= told.keys()
        assert "415" in told or "requestBody" not in operation, (method, path)
        assert ("404" in told) or ("{" not in path), (method, path)
        for status, response in told.items():
            expected = ["application/json"] if status < "300" else ["application/problem+json"]
            if status < "300" and path.endswith(AS_FILES):
                expected.append("text/csv")
            assert list(response["content"]) == expected, (method, path, status)


def test_every_operation_but_the_open_ones_asks_for_a_token(openapi: dict[str, Any]) -> None:
    names = {(route.method, "/api/v1" + route.template): route.name for route in ROUTES}
    assert openapi["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for key, operation in operations(openapi).items():
        needed = [] if names[key] in OPEN else [{"bearer": []}]
        assert operation.get("security", []) == needed, key


def test_every_answer_tells_all_its_fields_as_there(openapi: dict[str, Any]) -> None:
    """But for a batch's result, which is one of two, and what some problems alone carry."""
    optional = {
        (name, field)
        for name, schema in openapi["components"]["schemas"].items()
        if not name.endswith("Request")
        for field in schema.get("properties", {}).keys() - set(schema.get("required", ()))
    }
    kept = {(name, field) for name, field in optional if name != "HeartbeatResult"}
    rare = ("errors", "locked_until", "enforcement", "eligible", "reason")
    assert kept == {("HeartbeatError", "errors"), *(("Problem", field) for field in rare)}


# The service does what the document says

told = schemathesis.openapi.from_wsgi(SCHEMA, application)
KEPT = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
    schemathesis.checks.not_a_server_error,
]
#: Every boundary of every value is left to the test above, and to that of the roles.
at_random = schemathesis.openapi.from_wsgi(SCHEMA, application)
at_random.config.phases.update(phases=["examples", "fuzzing"])
bounded = settings(
    max_examples=round(2 * SOAK_SECONDS),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.django_db(transaction=True)
@told.parametrize()
@bounded
def test_whatever_is_sent_the_answer_is_as_told(cast: Cast, case: schemathesis.Case) -> None:
    rejection = [checks.negative_data_rejection]
    if case.operation.path.endswith("/heartbeats"):
        # A bad beat of a batch is told in its place, and the batch is 200.
        rejection = []
    # In the case itself: else an unknown parameter, which is ignored, is told apart from a bad
    # value no more, because the token is missing as well.
    case.headers["Authorization"] = f"Bearer {token_for(cast, case)}"
    case.call_and_validate(checks=KEPT + rejection)


@pytest.mark.django_db(transaction=True)
@at_random.parametrize()
@bounded
def test_it_is_so_with_values_that_exist_too(cast: Cast, case: schemathesis.Case) -> None:
    if not Profile.objects.filter(id=cast.child.id).exists():
        # An example before this one erased it.
        cast.child = profiles.create(account=cast.parent, name="Mia", is_kids=True)
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    known = {
        "profile_id": str(cast.child.id),
        "title_id": str(cast.cartoon.id),
        "session_id": session_id,
        "timezone": "Europe/Berlin",
    }
    for place in (case.path_parameters, case.query, *beats_in(case.body)):
        for name in known.keys() & place.keys():
            place[name] = known[name]
    headers = {"Authorization": f"Bearer {token_for(cast, case)}"}
    case.call_and_validate(headers=headers, checks=KEPT)


def token_for(cast: Cast, case: schemathesis.Case) -> str | None:
    """That of whoever the path is for."""
    return device_at(case.operation.path.removeprefix("/api/v1"), cast).token


def beats_in(body: Any) -> list[dict[str, Any]]:
    """A body that is an object, and those of its list of beats."""
    if not isinstance(body, dict):
        return []
    beats = body.get("heartbeats")
    return [body, *(b for b in beats if isinstance(b, dict))] if isinstance(beats, list) else [body]


# The page


class Loads(HTMLParser):
    """What a page loads, and what it would run or style by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self._open = tag
        for name in ("src", "href"):
            if values.get(name):
                self.sources.append(str(values[name]))
        self.inline += [name for name in values if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


@pytest.fixture
def page() -> Loads:
    answer = Client().get(DOCS)
    assert answer.status_code == 200
    return Loads(answer.content.decode())


def test_the_page_loads_from_our_own_host_alone(page: Loads) -> None:
    assert len(page.sources) >= 4
    for source in page.sources:
        address = urlsplit(urljoin(DOCS, source))
        assert (address.scheme, address.netloc) == ("", ""), source
        answer = Client().get(address.path + (f"?{address.query}" if address.query else ""))
        assert answer.status_code == 200, source
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in {"text/javascript", "application/javascript", "text/css", "image/png"}
        assert answer.getvalue(), source


def test_the_page_needs_no_exception_from_the_content_security_policy(page: Loads) -> None:
    assert page.inline == []
    for path in (DOCS, DOCS + "?script="):
        policy = Client().get(path).headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert "https:" not in policy
        assert "*" not in policy
        directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["script-src"] == directives["style-src"] == "'self'"


def test_the_script_of_the_page_asks_for_our_document(page: Loads) -> None:
    (script,) = [source for source in page.sources if source.startswith(DOCS)]
    text = Client().get(script).content.decode()
    assert f'url: "{SCHEMA}"' in text.replace("\\u002D", "-")
    assert not re.findall(r"https?://", text)


def test_page_and_document_set_no_cookie_and_ask_no_database() -> None:
    # Without the mark that allows it, a question to the database would raise.
    for path in (SCHEMA, DOCS, DOCS + "?script="):
        assert "Set-Cookie" not in Client().get(path).headers


def test_a_token_makes_no_difference_to_either() -> None:
    for path in (SCHEMA, DOCS):
        usual = Client().get(path)
        answer = Device("not.a.token").http.get(path, headers={"Authorization": "Bearer x"})
        assert answer.status_code == 200
        assert answer.content == usual.content


def test_the_document_can_be_asked_for_in_one_form_alone() -> None:
    usual = json.loads(Client().get(SCHEMA).content)
    for accept in ("application/yaml", "text/html", "*/*"):
        answer = Client().get(SCHEMA, headers={"Accept": accept})
        assert json.loads(answer.content) == usual
