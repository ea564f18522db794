"""Parallel guesses at a PIN, on every path and over several processes: five are evaluated."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests
from django.test import override_settings
from model_bakery import baker

from parentalcontrols import profiles
from parentalcontrols.models import Account
from parentalcontrols.problems import Problem
from parentalcontrols.tests.cast import PASSWORD, PIN, Device, set_pin
from pins import audit, hashing, verification
from pins.models import Pin
from pins.tests.service import LONG, Home, Service, database, gunicorn
from viewingtime.tests.test_concurrency import at_once

GUESSES = 200
FAILURES_TO_LOCK = 5
LOCK_SECONDS = 30 * 60
#: Every path that is sent a PIN, and who is there: the parent's device or the child's.
PATHS = ("verify", "verify by the child", "change", "grant", "grant by the child")


def wrong_pins() -> Iterator[str]:
    """All PINs but the right one."""
    return (f"{number:04}" for number in range(10_000) if f"{number:04}" != PIN)


def try_pin(service: Service, home: Home, path: str, pin: str) -> requests.Response:
    """Sends a PIN by one of `PATHS`."""
    grant = f"/parental-controls/profiles/{home.child}/viewing-time/grant"
    match path:
        case "verify":
            return service.post("/parental-controls/pin/verify", {"pin": pin}, home.parent)
        case "verify by the child":
            return service.post("/parental-controls/pin/verify", {"pin": pin}, home.child_tv)
        case "change":
            body = {"new_pin": "0000", "current_pin": pin}
            return service.post("/parental-controls/pin", body, home.parent)
        case "grant":
            return service.post(grant, {"minutes": None, "pin": pin}, home.parent)
        case "grant by the child":
            return service.post(grant, {"minutes": None, "pin": pin}, home.child_tv)
    raise AssertionError(path)


def outcome(answer: requests.Response) -> str:
    """The code of a refusal, which is one of those that a guess may get, in its full shape."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    code: str = document["code"]
    assert (answer.status_code, code) in {
        (403, "incorrect_pin"),
        (403, "pin_locked"),
        (503, "unavailable"),
    }
    if code == "pin_locked":
        assert 0 < int(answer.headers["Retry-After"]) <= LOCK_SECONDS
        assert answer.headers["X-Locked-Until"] == document["locked_until"]
        assert datetime.fromisoformat(document["locked_until"]).tzinfo is not None
    else:
        assert "locked_until" not in document
        assert "X-Locked-Until" not in answer.headers
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) > 0
    return code


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture(scope="module")
def services(database_url: str) -> Iterator[list[Service]]:
    """Two instances of two worker processes each, as they are served, bcrypt's cost included."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(gunicorn(database_url, WORKERS="2", THREADS="12")) for _ in range(2)
        ]


def test_of_200_guesses_at_four_processes_five_are_evaluated_and_then_the_right_pin_is_refused(
    services: list[Service], database_url: str
) -> None:
    home = Home.made_by(services[0], database_url)
    home.set_pin(services[0], PIN)
    barrier = threading.Barrier(GUESSES)

    def guess(service: Service, path: str, pin: str) -> str:
        barrier.wait(LONG)
        return outcome(try_pin(service, home, path, pin))

    with ThreadPoolExecutor(GUESSES) as pool:
        guesses = zip(cycle(services), cycle(PATHS), islice(wrong_pins(), GUESSES), strict=False)
        running = [pool.submit(guess, *each) for each in guesses]
        outcomes = Counter(future.result(LONG) for future in running)
    assert outcomes.total() == GUESSES
    assert outcomes["incorrect_pin"] == FAILURES_TO_LOCK
    assert outcomes["pin_locked"] > 0

    refusals = {outcome(try_pin(s, home, path, PIN)) for s in services for path in PATHS}
    assert refusals == {"pin_locked"}
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT attempts_reserved FROM pins").fetchall() == [(5,)]
        assert connection.execute("SELECT count(*) FROM time_grants").fetchone() == (0,)
        actions = "SELECT action FROM audit_entries WHERE action LIKE 'pin%' ORDER BY id"
        assert connection.execute(actions).fetchall() == [("pin_set",), ("pin_locked",)]

    # The PIN is what it was, and the lock goes with a reset alone.
    reset = {"password": PASSWORD, "new_pin": PIN}
    assert services[1].post("/parental-controls/pin/reset", reset, home.parent).status_code == 200
    assert try_pin(services[0], home, "verify by the child", PIN).status_code == 200


@pytest.fixture
def wide_queue() -> Iterator[None]:
    """So many places and threads that what decides is the database."""
    with override_settings(HASHING_SLOTS=2 * GUESSES, HASHING_THREADS=GUESSES // 2):
        hashing._hashers_of.cache_clear()
        yield
    hashing._hashers_of.cache_clear()


@pytest.mark.django_db(transaction=True)
def test_of_200_guesses_that_meet_in_the_database_five_are_evaluated(wide_queue: None) -> None:
    account = baker.make(Account, email=f"{uuid4()}@example.com", is_active=True)
    set_pin(account)
    guesses = wrong_pins()

    def guess(pin: str) -> str:
        with pytest.raises(Problem) as refused:
            verification.check(account.id, pin, actor=audit.OPERATOR)
        return refused.value.code

    def guess_twice(first: str, second: str) -> list[str]:
        return [guess(first), guess(second)]

    # A hundred connections, and two guesses on each.
    pairs = [(next(guesses), next(guesses)) for _ in range(GUESSES // 2)]
    answers: list[Any] = at_once(*[lambda pair=pair: guess_twice(*pair) for pair in pairs])
    assert Counter(code for both in answers for code in both) == {
        "incorrect_pin": FAILURES_TO_LOCK,
        "pin_locked": GUESSES - FAILURES_TO_LOCK,
    }
    assert Pin.objects.get().attempts_reserved == FAILURES_TO_LOCK
    with pytest.raises(Problem) as refused:
        verification.check(account.id, PIN, actor=audit.OPERATOR)
    assert refused.value.code == "pin_locked"


@pytest.mark.django_db(transaction=True)
def test_of_guesses_over_http_on_all_paths_at_once_five_are_evaluated(wide_queue: None) -> None:
    account = Account.objects.create_user("parent@example.com", PASSWORD)
    child = profiles.create(account=account, name="Mia", is_kids=True)
    set_pin(account)
    log_in = {"email": account.email, "password": PASSWORD}
    phone = Device(Device().post("/auth/login", log_in).json()["access_token"])
    tv = Device(phone.post(f"/auth/profiles/{child.id}/token").json()["access_token"])
    grant = f"/parental-controls/profiles/{child.id}/viewing-time/grant"
    calls = []
    for pin in islice(wrong_pins(), 8):
        calls += [
            lambda pin=pin: phone.post("/parental-controls/pin/verify", {"pin": pin}),
            lambda pin=pin: tv.post("/parental-controls/pin/verify", {"pin": pin}),
            lambda pin=pin: phone.post(
                "/parental-controls/pin", {"new_pin": "0000", "current_pin": pin}
            ),
            lambda pin=pin: tv.post(grant, {"minutes": 15, "pin": pin}),
            lambda pin=pin: phone.post(grant, {"minutes": 15, "pin": pin}),
        ]
    answers: list[Any] = at_once(*calls)
    assert Counter(answer.json()["code"] for answer in answers) == {
        "incorrect_pin": FAILURES_TO_LOCK,
        "pin_locked": len(calls) - FAILURES_TO_LOCK,
    }
