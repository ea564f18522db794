"""Whoever asks, and whatever is sent: the answer is as the OpenAPI document says, and never a 500.

Schemathesis makes requests of the document, good ones and bad ones: every boundary of every value
(coverage), and random ones (fuzzing). The four who ask are a parent, a child's device, a stranger
with a household of their own, and somebody without a token. In an ordinary run each request is
asked by one of them; `SOAK_SECONDS=60` lets all four ask, and looks ten times as long.
"""

import zlib
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode

from parentalcontrols.tests.cast import Cast, Device, everything_stored, set_pin
from parentalcontrols.tests.routes import OPEN, ROUTES, Route, device_at, own_ids
from parentalcontrols.tests.test_schema import KEPT, SCHEMA, beats_in
from parentalcontrols.tests.test_scopes import DECIDED, OWN, WITH_PIN
from parentalcontrols.wsgi import application
from pins import verification
from pins.tests.service import SOAK_SECONDS

pytestmark = pytest.mark.django_db(transaction=True)
IS_LONG = SOAK_SECONDS > 6
NAMES = {(route.method, "/api/v1" + route.template): route for route in ROUTES}
WHO: dict[str, Callable[[Cast], Device]] = {
    "parent": lambda cast: cast.phone,
    "child": lambda cast: cast.child_tv,
    "stranger": lambda cast: cast.foreign_phone,
    "nobody": lambda cast: cast.anonymous,
}

told = schemathesis.openapi.from_wsgi(SCHEMA, application)
told.config.generation.update(modes=list(GenerationMode))
bounded = settings(
    max_examples=round(SOAK_SECONDS),
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def home(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Cast:
    """The household, with a PIN and a session, in which nobody waits for 200 ms."""
    monkeypatch.setattr(verification, "LEAST_SECONDS", 0.0)
    set_pin(cast.parent)
    return cast


def who_ask(case: schemathesis.Case) -> list[str]:
    """All four; in an ordinary run one of them, always the same for the same request."""
    if IS_LONG:
        return list(WHO)
    text = repr((case.path_parameters, case.query, case.body))
    return [list(WHO)[zlib.crc32(text.encode()) % len(WHO)]]


@told.parametrize()
@bounded
def test_whoever_asks_the_answer_is_as_told(home: Cast, case: schemathesis.Case) -> None:
    is_good = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if is_good:
        put_own_ids(home, case)
    for who in who_ask(case):
        device = WHO[who](home)
        if who == "parent":
            # What is for staff alone is asked for by staff.
            device = device_at(case.operation.path.removeprefix("/api/v1"), home)
        case.headers.pop("Authorization", None)
        if device.token is not None:
            case.headers["Authorization"] = f"Bearer {device.token}"
        before = everything_stored()
        answer = case.call_and_validate(checks=KEPT)
        route = NAMES.get((case.method.upper(), case.operation.path))
        if route is None:
            # A method that the document does not tell: HEAD and OPTIONS change nothing either.
            is_safe = case.method.upper() in {"HEAD", "OPTIONS"}
            assert answer.status_code in {401, 403, 404, 405} | ({200} if is_safe else set())
        elif refused := refusals(route, who, is_good):
            assert answer.status_code in refused, (who, answer.status_code)
        else:
            continue
        assert everything_stored() == before


def put_own_ids(home: Cast, case: schemathesis.Case) -> None:
    """Puts the parent's own things into a request: most of what is made up is nobody's."""
    known = {name: str(value) for name, value in own_ids(home).items()}
    known["title_id"] = str(home.cartoon.id)
    for place in (case.path_parameters, case.query, *beats_in(case.body)):
        for name in known.keys() & place.keys():
            place[name] = known[name]


def refusals(route: Route, who: str, is_good: bool) -> set[int]:
    """How a request has to be refused; nothing where it need not be."""
    if route.name in OPEN:
        return set()
    # Where path, head or body are bad, that may be told before who asks.
    bad: set[int] = set() if is_good else {400, 401, 404, 405, 413, 415}
    if who == "nobody":
        return {401} | bad
    if who == "child" and DECIDED[route.name, route.method] not in {OWN, WITH_PIN}:
        return {403} | bad
    if who == "stranger" and route.parameters:
        return {400, 404} | bad
    return set()


def test_all_four_ask_in_an_ordinary_run_too() -> None:
    counted = [zlib.crc32(repr(({}, {}, n)).encode()) % len(WHO) for n in range(200)]
    assert set(counted) == set(range(len(WHO)))


def test_those_who_ask_are_told_apart(home: Cast) -> None:
    """So that what is refused is refused for the token's sake."""
    asked: dict[str, Any] = {who: device(home).get("/auth/me") for who, device in WHO.items()}
    assert {who: answer.status_code for who, answer in asked.items()} == {
        "parent": 200,
        "child": 403,
        "stranger": 200,
        "nobody": 401,
    }
