"""The PIN over HTTP: status, set, change, verify, reset, and what a PIN token is worth."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
import time_machine
from django.conf import settings as configured
from django.db import connection
from django.http import HttpResponse

from parentalcontrols import authentication
from parentalcontrols.models import Account, Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    PROBLEM_MEMBERS,
    Cast,
    Device,
    assert_problem,
    everything_stored,
    set_pin,
)
from pins import hashing, verification
from pins.models import AuditEntry, Pin, UsedPinToken
from viewingtime.models import TimeGrant
from viewingtime.tests import clock
from viewingtime.tests.test_concurrency import at_once

STATUS, SET = "/parental-controls/pin/status", "/parental-controls/pin"
VERIFY, RESET = "/parental-controls/pin/verify", "/parental-controls/pin/reset"
WRONG, NEW = "0815", "2580"
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
LOCK = timedelta(minutes=30)

#: What looks like a PIN, more or less, and is none.
NO_PINS = {
    "a number": 4711,
    "a small number": 12,
    "a fraction": 4711.0,
    "true": True,
    "a list": ["4711"],
    "an object": {"pin": "4711"},
    "nothing": "",
    "three digits": "471",
    "five digits": "47110",
    "Arabic-Indic digits": "٤٧١١",
    "Devanagari digits": "४७११",
    "full-width digits": "\uff14\uff17\uff11\uff11",
    "superscripts": "⁴⁷¹¹",
    "letters": "abcd",
    "hexadecimal": "0x12",
    "a sign before": "+471",
    "a minus before": "-471",
    "an underscore within": "4_71",
    "a decimal point": "47.1",
    "a newline after": "4711\n",
    "a carriage return after": "4711\r",
    "a space before": " 4711",
    "a space after": "4711 ",
    "a space within": "47 11",
    "spaces": "    ",
    "a NUL after": "4711\x00",
    "a NUL within": "47\x0011",
    "a combining mark": "4711\u0301",
    "a direction mark": "\u200e4711",
    "a hundred thousand digits": "4711" * 25_000,
}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an attempt takes at least is `test_hashing`'s."""
    monkeypatch.setattr(verification, "LEAST_SECONDS", 0.0)


@pytest.fixture
def noon(cast: Cast) -> None:
    """The database's clock stands at noon."""
    clock.install()
    clock.set_to(NOON)


def config_path(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time"


def ask_grant(device: Device, profile: Profile, **proof: Any) -> HttpResponse:
    return device.post(f"{config_path(profile)}/grant", {"minutes": 15, **proof})


def ask_change(device: Device, profile: Profile, **proof: Any) -> HttpResponse:
    return device.put(config_path(profile), {"weekday_limit_minutes": 60, **proof})


def verify(device: Device, pin: str = PIN) -> HttpResponse:
    return device.post(VERIFY, {"pin": pin})


def reset(device: Device, password: str = PASSWORD, new_pin: str = NEW) -> HttpResponse:
    return device.post(RESET, {"password": password, "new_pin": new_pin})


def token_of(device: Device, pin: str = PIN) -> str:
    answer = verify(device, pin)
    assert answer.status_code == 200, answer.content
    token: str = answer.json()["pin_token"]
    return token


def assert_done(answer: HttpResponse) -> None:
    """A good answer of the routes that set a PIN: one sentence, and nothing else."""
    assert answer.status_code == 200, answer.content
    assert answer.json().keys() == {"detail"}
    assert isinstance(answer.json()["detail"], str)


def assert_is_pin(device: Device, pin: str) -> None:
    assert verify(device, pin).status_code == 200


# Status


def test_without_a_pin_the_status_says_so(cast: Cast) -> None:
    assert cast.phone.get(STATUS).json() == {"has_pin": False, "locked_until": None}


def test_the_status_is_the_accounts_own(cast: Cast) -> None:
    set_pin(cast.parent)
    assert cast.phone.get(STATUS).json() == {"has_pin": True, "locked_until": None}
    assert cast.foreign_phone.get(STATUS).json() == {"has_pin": False, "locked_until": None}


def test_wrong_pins_do_not_show_in_the_status_before_they_lock(cast: Cast) -> None:
    set_pin(cast.parent)
    before = cast.phone.get(STATUS).content
    for _ in range(4):
        verify(cast.phone, WRONG)
    assert cast.phone.get(STATUS).content == before


def test_the_status_tells_of_a_lock_for_as_long_as_it_lasts(cast: Cast, noon: None) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast.phone, WRONG)
    locked = {"has_pin": True, "locked_until": "2026-03-28T12:30:00Z"}
    assert cast.phone.get(STATUS).json() == locked
    clock.set_to(NOON + LOCK)
    assert cast.phone.get(STATUS).json() == {"has_pin": True, "locked_until": None}


# Setting and changing


def test_a_first_pin_is_set_and_works(cast: Cast) -> None:
    assert_done(cast.phone.post(SET, {"new_pin": PIN}))
    assert cast.phone.get(STATUS).json()["has_pin"] is True
    assert_is_pin(cast.phone, PIN)
    assert_problem(verify(cast.phone, WRONG), 403, "incorrect_pin")


@pytest.mark.parametrize("pin", ["0000", "0007", "9999"])
def test_leading_zeros_belong_to_a_pin(cast: Cast, pin: str) -> None:
    assert_done(cast.phone.post(SET, {"new_pin": pin}))
    assert_is_pin(cast.phone, pin)


@pytest.mark.parametrize("current_pin", [WRONG, PIN, None])
def test_a_current_pin_is_ignored_where_none_is_set(cast: Cast, current_pin: str | None) -> None:
    assert_done(cast.phone.post(SET, {"new_pin": PIN, "current_pin": current_pin}))
    assert_is_pin(cast.phone, PIN)


def test_a_pin_is_changed_by_the_current_one(cast: Cast) -> None:
    set_pin(cast.parent)
    assert_done(cast.phone.post(SET, {"new_pin": NEW, "current_pin": PIN}))
    assert_problem(verify(cast.phone, PIN), 403, "incorrect_pin")
    assert_is_pin(cast.phone, NEW)


def test_a_pin_is_not_changed_by_a_wrong_one(cast: Cast) -> None:
    set_pin(cast.parent)
    answer = cast.phone.post(SET, {"new_pin": NEW, "current_pin": WRONG})
    assert_problem(answer, 403, "incorrect_pin")
    assert_is_pin(cast.phone, PIN)


def test_a_pin_is_not_changed_by_the_new_one(cast: Cast) -> None:
    set_pin(cast.parent)
    answer = cast.phone.post(SET, {"new_pin": NEW, "current_pin": NEW})
    assert_problem(answer, 403, "incorrect_pin")
    assert_problem(verify(cast.phone, NEW), 403, "incorrect_pin")


@pytest.mark.parametrize("body", [{}, {"current_pin": None}, {"pin": PIN}, {"old_pin": PIN}])
def test_a_pin_is_not_changed_without_the_current_one(cast: Cast, body: dict[str, Any]) -> None:
    set_pin(cast.parent)
    assert_problem(cast.phone.post(SET, {"new_pin": NEW, **body}), 403, "pin_required")
    assert_is_pin(cast.phone, PIN)


def test_a_pin_token_does_not_stand_for_the_current_pin(cast: Cast) -> None:
    set_pin(cast.parent)
    body = {"new_pin": NEW, "pin_token": token_of(cast.phone)}
    assert_problem(cast.phone.post(SET, body), 403, "pin_required")


def test_each_household_has_a_pin_of_its_own(cast: Cast) -> None:
    set_pin(cast.parent)
    set_pin(cast.outsider, NEW)
    assert_problem(verify(cast.phone, NEW), 403, "incorrect_pin")
    assert_problem(verify(cast.foreign_phone, PIN), 403, "incorrect_pin")
    assert_is_pin(cast.phone, PIN)
    assert_is_pin(cast.foreign_phone, NEW)


def test_what_is_stored_is_no_pin(cast: Cast) -> None:
    cast.phone.post(SET, {"new_pin": PIN})
    stored = Pin.objects.get().pin_hash
    assert stored.startswith("$2b$")
    assert PIN not in json.dumps(list(AuditEntry.objects.values()), default=str)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", STATUS, None),
        ("POST", SET, {"new_pin": NEW, "current_pin": PIN}),
        ("POST", RESET, {"password": PASSWORD, "new_pin": NEW}),
    ],
)
def test_a_childs_device_is_kept_from_all_but_verifying(
    cast: Cast, method: str, path: str, body: Any
) -> None:
    set_pin(cast.parent)
    stored = everything_stored()
    assert_problem(cast.child_tv.send(method, path, body), 403, "parent_required")
    assert_problem(cast.anonymous.send(method, path, body), 401)
    assert everything_stored() == stored


# What is no PIN


@pytest.mark.parametrize("value", NO_PINS.values(), ids=NO_PINS.keys())
def test_what_is_no_pin_is_refused_everywhere_and_counts_nowhere(cast: Cast, value: Any) -> None:
    set_pin(cast.parent)
    stored = everything_stored()
    grant = f"{config_path(cast.child)}/grant"
    for device, path, body, field in (
        (cast.phone, VERIFY, {"pin": value}, "pin"),
        (cast.child_tv, VERIFY, {"pin": value}, "pin"),
        (cast.phone, SET, {"new_pin": value, "current_pin": PIN}, "new_pin"),
        (cast.phone, SET, {"new_pin": NEW, "current_pin": value}, "current_pin"),
        (cast.phone, RESET, {"password": PASSWORD, "new_pin": value}, "new_pin"),
        (cast.phone, grant, {"minutes": 15, "pin": value}, "pin"),
        (cast.child_tv, grant, {"minutes": 15, "pin": value}, "pin"),
    ):
        answer = device.post(path, body)
        document = assert_problem(answer, 400, "invalid")
        assert {error["field"] for error in document["errors"]} == {field}
        assert PIN not in answer.content.decode()
    assert everything_stored() == stored


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        (VERIFY, {}, {"pin"}),
        (VERIFY, {"pin": None}, {"pin"}),
        (VERIFY, {"PIN": PIN}, {"pin"}),
        (SET, {"current_pin": PIN}, {"new_pin"}),
        (SET, {"new_pin": None, "current_pin": PIN}, {"new_pin"}),
        (RESET, {}, {"password", "new_pin"}),
        (RESET, {"password": PASSWORD}, {"new_pin"}),
        (RESET, {"new_pin": NEW}, {"password"}),
        (RESET, {"password": None, "new_pin": NEW}, {"password"}),
        (RESET, {"password": 12345678, "new_pin": NEW}, {"password"}),
        (RESET, {"password": "", "new_pin": NEW}, {"password"}),
        (RESET, {"password": "x" * 129, "new_pin": NEW}, {"password"}),
        (RESET, {"password": PASSWORD + "\x00", "new_pin": NEW}, {"password"}),
    ],
)
def test_what_is_missing_is_refused_by_name(
    cast: Cast, path: str, body: dict[str, Any], fields: set[str]
) -> None:
    set_pin(cast.parent)
    stored = everything_stored()
    document = assert_problem(cast.phone.post(path, body), 400, "invalid")
    assert {error["field"] for error in document["errors"]} == fields
    assert everything_stored() == stored


# Wrong, locked, unset


def test_a_right_pin_answers_a_token_and_nothing_else(cast: Cast) -> None:
    set_pin(cast.parent)
    for device in (cast.phone, cast.child_tv):
        answer = verify(device)
        assert answer.status_code == 200
        assert answer.json().keys() == {"verified", "pin_token"}
        assert answer.json()["verified"] is True


def test_every_wrong_pin_answers_the_same_whatever_tries_are_left(cast: Cast) -> None:
    set_pin(cast.parent)
    answers = [verify(device, WRONG) for device in [cast.phone, cast.child_tv] * 2 + [cast.phone]]
    document = assert_problem(answers[0], 403, "incorrect_pin")
    assert document.keys() == PROBLEM_MEMBERS
    assert not any(character.isdigit() for character in document["detail"])
    assert {answer.content for answer in answers} == {answers[0].content}
    assert len({json.dumps(sorted(answer.headers.items())) for answer in answers}) == 1
    assert_problem(verify(cast.phone, WRONG), 403, "pin_locked")


@pytest.mark.parametrize(
    ("passed", "retry_after"),
    [
        (timedelta(0), "1800"),
        (timedelta(microseconds=1), "1800"),
        (timedelta(seconds=1), "1799"),
        (timedelta(minutes=29, seconds=59, microseconds=1), "1"),
        (LOCK - timedelta(microseconds=1), "1"),
    ],
)
def test_a_locked_pin_tells_until_when_in_the_body_and_in_the_headers(
    cast: Cast, noon: None, passed: timedelta, retry_after: str
) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast.child_tv, WRONG)
    clock.set_to(NOON + passed)
    for answer in (
        verify(cast.phone),
        verify(cast.child_tv, WRONG),
        cast.phone.post(SET, {"new_pin": NEW, "current_pin": PIN}),
        ask_grant(cast.child_tv, cast.child, pin=PIN),
        ask_grant(cast.phone, cast.child, pin=WRONG),
    ):
        document = assert_problem(answer, 403, "pin_locked")
        assert document.keys() == PROBLEM_MEMBERS | {"locked_until"}
        assert document["locked_until"] == "2026-03-28T12:30:00Z"
        assert answer.headers["X-Locked-Until"] == document["locked_until"]
        # Who waits for so long, rounded up, finds the lock gone.
        assert answer.headers["Retry-After"] == retry_after
        assert cast.phone.get(STATUS).json()["locked_until"] == document["locked_until"]
    assert not TimeGrant.objects.exists()


def test_a_lock_ends_when_it_said(cast: Cast, noon: None) -> None:
    set_pin(cast.parent)
    clock.set_to(NOON + timedelta(microseconds=1))
    for _ in range(5):
        verify(cast.phone, WRONG)
    locked_until = datetime.fromisoformat(verify(cast.phone).json()["locked_until"])
    assert locked_until == NOON + LOCK + timedelta(microseconds=1)
    clock.set_to(locked_until)
    assert_is_pin(cast.phone, PIN)


def test_without_a_pin_there_is_none_to_verify_or_to_grant_by(cast: Cast) -> None:
    for _ in range(6):
        assert_problem(verify(cast.phone), 400, "pin_not_set")
        assert_problem(verify(cast.child_tv), 400, "pin_not_set")
        assert_problem(ask_grant(cast.child_tv, cast.child, pin=PIN), 400, "pin_not_set")
        assert_problem(ask_grant(cast.phone, cast.child, pin=PIN), 400, "pin_not_set")
    assert not TimeGrant.objects.exists()
    assert not Pin.objects.exists()


# Resetting by the password


def test_a_forgotten_pin_is_reset_by_the_password(cast: Cast) -> None:
    set_pin(cast.parent)
    assert_done(reset(cast.phone))
    assert_problem(verify(cast.phone, PIN), 403, "incorrect_pin")
    assert_is_pin(cast.phone, NEW)


def test_a_reset_sets_a_first_pin_too(cast: Cast) -> None:
    assert_done(reset(cast.phone))
    assert_is_pin(cast.phone, NEW)
    assert cast.foreign_phone.get(STATUS).json()["has_pin"] is False


@pytest.mark.parametrize(
    "password", ["watch-together-8", "Watch-Together-7", " watch-together-7", PIN, "x"]
)
def test_a_wrong_password_resets_nothing(cast: Cast, password: str) -> None:
    set_pin(cast.parent)
    pins = list(Pin.objects.values())
    document = assert_problem(reset(cast.phone, password), 403, "incorrect_password")
    assert document.keys() == PROBLEM_MEMBERS
    assert list(Pin.objects.values()) == pins


def test_a_reset_lifts_the_lock_and_starts_a_fresh_count(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast.phone, WRONG)
    assert_done(reset(cast.phone))
    assert cast.phone.get(STATUS).json() == {"has_pin": True, "locked_until": None}
    for _ in range(4):
        assert_problem(verify(cast.phone, PIN), 403, "incorrect_pin")
    assert_is_pin(cast.phone, NEW)


def test_a_wrong_password_leaves_the_lock(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast.phone, WRONG)
    assert_problem(reset(cast.phone, "not-the-password"), 403, "incorrect_password")
    assert_problem(verify(cast.phone), 403, "pin_locked")


def test_after_five_wrong_passwords_every_password_is_refused_for_a_time(
    cast: Cast, noon: None
) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        assert_problem(reset(cast.phone, "not-the-password"), 403, "incorrect_password")
    clock.set_to(NOON + timedelta(minutes=10))
    for password in ("not-the-password", PASSWORD):
        answer = reset(cast.phone, password)
        assert_problem(answer, 429, "too_many_requests")
        assert answer.headers["Retry-After"] == str(20 * 60)
    assert_is_pin(cast.phone, PIN)
    # What was refused did not prolong it.
    clock.set_to(NOON + LOCK)
    assert_done(reset(cast.phone))


def test_the_limit_of_passwords_is_the_accounts_and_lifts_no_pins_lock(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        reset(cast.phone, "not-the-password")
    assert_problem(reset(cast.phone), 429)
    assert_done(reset(cast.foreign_phone))
    assert_is_pin(cast.phone, PIN)


def test_with_limits_switched_off_every_password_is_tried(cast: Cast, settings: Any) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        reset(cast.phone, "not-the-password")
    assert_problem(reset(cast.phone), 429)
    settings.RATELIMIT_ENABLED = False
    for _ in range(6):
        assert_problem(reset(cast.phone, "not-the-password"), 403, "incorrect_password")
    assert_done(reset(cast.phone))


def test_the_right_password_clears_the_count_of_wrong_ones(cast: Cast) -> None:
    for _ in range(3):
        for _ in range(4):
            assert_problem(reset(cast.phone, "not-the-password"), 403, "incorrect_password")
        assert_done(reset(cast.phone))


def test_a_body_that_is_refused_is_no_guess_at_the_password(cast: Cast) -> None:
    for _ in range(6):
        assert_problem(reset(cast.phone, "not-the-password", "12345"), 400, "invalid")
    assert_done(reset(cast.phone))


@pytest.mark.django_db(transaction=True)
def test_of_parallel_passwords_five_are_tried(settings: Any) -> None:
    settings.HASHING_SLOTS, settings.HASHING_THREADS = 64, 32
    hashing._hashers_of.cache_clear()
    account = Account.objects.create_user("parent@example.com", PASSWORD)
    phone = Device(authentication.access_token(account))
    calls = [lambda n=n: reset(phone, f"not-the-password-{n}").json()["code"] for n in range(30)]
    outcomes = at_once(*calls)
    hashing._hashers_of.cache_clear()
    assert sorted(outcomes) == ["incorrect_password"] * 5 + ["too_many_requests"] * 25
    assert_problem(reset(phone), 429)


# What is never told


def test_neither_pin_nor_hash_nor_password_is_in_an_answer_the_logs_or_the_audit(
    cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [
        cast.phone.post(SET, {"new_pin": PIN}),
        cast.phone.get(STATUS),
        verify(cast.phone, WRONG),
        cast.phone.post(SET, {"new_pin": NEW, "current_pin": WRONG}),
        cast.phone.post(SET, {"new_pin": f"{PIN}{NEW}", "current_pin": f"{WRONG} "}),
        ask_grant(cast.child_tv, cast.child, pin=WRONG),
    ]
    secrets = [PIN, NEW, WRONG, PASSWORD, "not-the-password", Pin.objects.get().pin_hash]
    answers += [
        cast.phone.post(SET, {"new_pin": NEW, "current_pin": PIN}),
        reset(cast.phone, "not-the-password"),
        reset(cast.phone),
    ]
    secrets.append(Pin.objects.get().pin_hash)
    told = [answer.content.decode() for answer in answers]
    told += [record.getMessage() for record in caplog.records]
    told.append(str(list(AuditEntry.objects.values_list("action", "before", "after", "device"))))
    assert [(text, secret) for text in told for secret in secrets if secret in text] == []


def test_a_token_holds_neither_the_pin_nor_its_hash(cast: Cast) -> None:
    set_pin(cast.parent)
    for device in (cast.phone, cast.child_tv):
        claims = claims_of(token_of(device))
        assert PIN not in claims.values()
        assert Pin.objects.get().pin_hash not in claims.values()


# PIN tokens


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed(claims: dict[str, Any], key: str | None = None, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key or configured.TOKEN_SIGNING_KEY, algorithm)


def assert_void(cast: Cast, token: Any) -> None:
    """A token is refused by all that take one, and changes nothing."""
    stored = everything_stored()
    for answer in (
        ask_change(cast.phone, cast.child, pin_token=token),
        ask_grant(cast.phone, cast.child, pin_token=token),
        ask_grant(cast.child_tv, cast.child, pin_token=token),
    ):
        document = assert_problem(answer, 403, "pin_token_invalid")
        assert document.keys() == PROBLEM_MEMBERS
    assert everything_stored() == stored


def test_a_parents_token_is_good_again_and_again(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.phone)
    for profile in (cast.child, cast.sibling, cast.child):
        assert ask_change(cast.phone, profile, pin_token=token).status_code == 200
        assert ask_grant(cast.phone, profile, pin_token=token).status_code == 200
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200
    assert set(TimeGrant.objects.values_list("is_remote", flat=True)) == {False}


def test_a_token_is_good_for_five_minutes(cast: Cast) -> None:
    set_pin(cast.parent)
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False):
        parents, childs = token_of(cast.phone), token_of(cast.child_tv)
    with time_machine.travel(now + timedelta(seconds=299), tick=False):
        assert ask_change(cast.phone, cast.child, pin_token=parents).status_code == 200
    with time_machine.travel(now + timedelta(seconds=301), tick=False):
        assert_void(cast, parents)
        assert_void(cast, childs)
    with time_machine.travel(now + timedelta(seconds=299), tick=False):
        assert ask_grant(cast.child_tv, cast.child, pin_token=childs).status_code == 200


@pytest.mark.parametrize(
    "replace",
    [
        lambda cast: cast.phone.post(SET, {"new_pin": NEW, "current_pin": PIN}),
        lambda cast: cast.phone.post(SET, {"new_pin": PIN, "current_pin": PIN}),
        lambda cast: reset(cast.phone),
        lambda cast: reset(cast.phone, new_pin=PIN),
    ],
    ids=["change", "change to the same", "reset", "reset to the same"],
)
def test_a_new_pin_voids_the_tokens_of_the_old_one(
    cast: Cast, replace: Callable[[Cast], HttpResponse]
) -> None:
    set_pin(cast.parent)
    parents, childs = token_of(cast.phone), token_of(cast.child_tv)
    assert_done(replace(cast))
    assert_void(cast, parents)
    assert_void(cast, childs)


def test_a_token_outlives_a_lock_and_is_no_guess(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.phone)
    for _ in range(5):
        verify(cast.child_tv, WRONG)
    assert ask_grant(cast.phone, cast.child, pin_token=token).status_code == 200
    assert_problem(verify(cast.phone), 403, "pin_locked")


def test_bad_tokens_do_not_count_as_wrong_pins(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(6):
        assert_problem(ask_grant(cast.phone, cast.child, pin_token="x"), 403, "pin_token_invalid")
    assert_is_pin(cast.phone, PIN)


def test_another_households_token_is_void(cast: Cast) -> None:
    set_pin(cast.parent)
    set_pin(cast.outsider)
    assert_void(cast, token_of(cast.foreign_phone))
    theirs = Pin.objects.get(account=cast.outsider)
    ours = Pin.objects.get(account=cast.parent)
    for account, pin in ((cast.parent, theirs), (cast.outsider, ours)):
        claims = {"sub": str(account.id), "pinver": str(pin.version)}
        assert_void(cast, authentication.encode("pin", 300, **claims))


def test_without_a_pin_every_token_is_void(cast: Cast) -> None:
    claims = {"sub": str(cast.parent.id), "pinver": str(uuid4())}
    assert_void(cast, authentication.encode("pin", 300, **claims))
    assert_void(cast, "x")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_token_that_was_tampered_with_is_void(cast: Cast, place: int) -> None:
    set_pin(cast.parent)
    parts = token_of(cast.phone).split(".")
    middle = len(parts[place]) // 2
    other = "A" if parts[place][middle] != "A" else "B"
    parts[place] = parts[place][:middle] + other + parts[place][middle + 1 :]
    assert_void(cast, ".".join(parts))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"exp": None},
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"token_type": "access"},
        {"token_type": "refresh"},
        {"token_type": None},
        {"sub": None},
        {"sub": "no uuid"},
        {"sub": 7},
        {"pinver": None},
        {"pinver": "no uuid"},
        {"pinver": 7},
        {"pinver": ["x"]},
        {"pid": None},
        {"pid": "no uuid"},
        {"pid": 7},
        {"jti": None},
        {"jti": "no uuid"},
    ],
    ids=str,
)
def test_a_token_with_other_claims_is_void(cast: Cast, change: dict[str, Any]) -> None:
    set_pin(cast.parent)
    claims = claims_of(token_of(cast.phone)) | change
    if change != {"pid": None}:
        claims = {name: value for name, value in claims.items() if value is not None}
    assert_void(cast, signed(claims))


@pytest.mark.parametrize("key", ["SECRET_KEY", "PIN_PEPPER"])
def test_a_token_of_another_key_is_void(cast: Cast, key: str) -> None:
    set_pin(cast.parent)
    claims = claims_of(token_of(cast.phone))
    assert_void(cast, signed(claims, getattr(configured, key)))
    assert_void(cast, signed(claims, algorithm="HS512"))
    assert_void(cast, jwt.encode(claims, "", "none"))


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "..", "Bearer x", "é.ü.ß", "🎬", "x" * 4096, "null"]
)
def test_what_is_no_token_is_void(cast: Cast, token: str) -> None:
    set_pin(cast.parent)
    assert_void(cast, token)


@pytest.mark.parametrize("token", [5, True, ["x"], {}, "", "x" * 4097, "a\x00b"], ids=repr)
def test_what_cannot_be_a_token_is_refused_as_a_value(cast: Cast, token: Any) -> None:
    set_pin(cast.parent)
    stored = everything_stored()
    for answer in (
        ask_change(cast.phone, cast.child, pin_token=token),
        ask_grant(cast.phone, cast.child, pin_token=token),
        ask_grant(cast.child_tv, cast.child, pin_token=token),
    ):
        document = assert_problem(answer, 400, "invalid")
        assert {error["field"] for error in document["errors"]} == {"pin_token"}
    assert everything_stored() == stored


def test_tokens_of_other_kinds_are_no_pin_tokens(cast: Cast) -> None:
    set_pin(cast.parent)
    log_in = {"email": cast.parent.email, "password": PASSWORD}
    pair = cast.anonymous.post("/auth/login", log_in).json()
    for token in (pair["access_token"], pair["refresh_token"], cast.phone.token):
        assert_void(cast, token)


def test_a_pin_token_is_no_access_token_and_no_refresh_token(cast: Cast) -> None:
    set_pin(cast.parent)
    for token in (token_of(cast.phone), token_of(cast.child_tv)):
        bearer = Device(token)
        assert_problem(bearer.get("/auth/me"), 401)
        assert_problem(verify(bearer), 401)
        assert_problem(bearer.get(f"/viewing-time/balance/{cast.child.id}"), 401)
        refresh = {"refresh_token": token}
        assert_problem(cast.anonymous.post("/auth/refresh", refresh), 401)


# Tokens that a child's device obtained


def test_a_childs_token_is_good_for_one_grant(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200
    assert_void(cast, token)
    assert TimeGrant.objects.get().is_remote is False


def test_a_childs_token_is_spent_on_whatever_device_it_is_used(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    assert ask_grant(cast.phone, cast.child, pin_token=token).status_code == 200
    assert_void(cast, token)


def test_each_childs_token_is_spent_for_itself(cast: Cast) -> None:
    set_pin(cast.parent)
    tokens = [token_of(cast.child_tv) for _ in range(2)]
    for token in tokens:
        assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200
    for token in tokens:
        assert_void(cast, token)


def test_a_childs_token_changes_no_config_in_whosever_hands(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    before = list(ViewingTimeConfig.objects.order_by("pk").values())
    answer = ask_change(cast.phone, cast.child, pin_token=token)
    assert_problem(answer, 403, "pin_token_invalid")
    answer = ask_change(cast.child_tv, cast.child, pin_token=token)
    assert_problem(answer, 403, "parent_required")
    assert list(ViewingTimeConfig.objects.order_by("pk").values()) == before
    # And it is not spent by that.
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200


def test_a_childs_token_grants_a_sibling_nothing(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    siblings = Device(authentication.access_token(cast.parent, profile_id=cast.sibling.id))
    for device in (cast.phone, siblings):
        answer = ask_grant(device, cast.sibling, pin_token=token)
        assert_problem(answer, 403, "pin_token_invalid")
    assert_problem(ask_grant(cast.child_tv, cast.sibling, pin_token=token), 404)
    assert not TimeGrant.objects.exists()
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200


@contextmanager
def failing_grants() -> Iterator[None]:
    """The database cannot write a grant, for as long as this lasts."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON time_grants EXECUTE FUNCTION public.fail()"
        )
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER fail ON time_grants")
            cursor.execute("DROP FUNCTION fail()")


def test_a_grant_that_is_rolled_back_gives_the_childs_token_back(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    stored = everything_stored()
    with failing_grants():
        assert_problem(ask_grant(cast.child_tv, cast.child, pin_token=token), 503)
    assert everything_stored() == stored
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200
    assert_void(cast, token)


def test_a_grant_that_is_refused_does_not_spend_the_childs_token(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    assert_problem(ask_grant(cast.child_tv, cast.child, pin_token=token, minutes=17), 400)
    assert_problem(ask_grant(cast.phone, cast.adult, pin_token=token), 400, "not_a_kids_profile")
    assert_problem(ask_grant(cast.phone, cast.foreign_child, pin_token=token), 404)
    wrong = ask_grant(cast.child_tv, cast.child, pin_token=token, pin=WRONG)
    assert_problem(wrong, 403, "incorrect_pin")
    assert not UsedPinToken.objects.exists()
    assert ask_grant(cast.child_tv, cast.child, pin_token=token).status_code == 200


def test_a_spent_token_is_remembered_until_it_would_have_run_out(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    ask_grant(cast.child_tv, cast.child, pin_token=token)
    spent = UsedPinToken.objects.get()
    claims = claims_of(token)
    assert str(spent.token_id) == claims["jti"]
    assert spent.expires_at.timestamp() == claims["exp"]


@pytest.mark.django_db(transaction=True)
def test_of_racing_grants_by_one_childs_token_one_is_made() -> None:
    cast = Cast()
    set_pin(cast.parent)
    token = token_of(cast.child_tv)
    calls = [
        lambda device=device: ask_grant(device, cast.child, pin_token=token).json().get("code")
        for device in [cast.child_tv, cast.phone] * 6
    ]
    outcomes = at_once(*calls)
    assert outcomes.count(None) == 1
    assert outcomes.count("pin_token_invalid") == len(calls) - 1
    assert TimeGrant.objects.count() == 1


# What needs the PIN


def test_until_there_is_a_pin_a_config_is_changed_without(cast: Cast) -> None:
    assert ask_change(cast.phone, cast.child).status_code == 200
    assert ask_change(cast.phone, cast.child, pin_token=None).status_code == 200


@pytest.mark.parametrize("proof", [{}, {"pin_token": None}, {"pin": PIN}])
def test_once_there_is_a_pin_a_config_is_not_changed_without_its_token(
    cast: Cast, proof: dict[str, Any]
) -> None:
    set_pin(cast.parent)
    stored = everything_stored()
    assert_problem(ask_change(cast.phone, cast.child, **proof), 403, "pin_required")
    assert_problem(cast.phone.put(config_path(cast.child), proof), 403, "pin_required")
    assert everything_stored() == stored


def test_a_pin_token_is_in_no_config(cast: Cast) -> None:
    set_pin(cast.parent)
    answer = ask_change(cast.phone, cast.child, pin_token=token_of(cast.phone))
    assert answer.status_code == 200
    assert "pin_token" not in answer.json()


def test_on_the_childs_device_a_grant_needs_the_pin(cast: Cast) -> None:
    set_pin(cast.parent)
    for proof in ({}, {"pin": None}, {"pin_token": None}, {"pin": None, "pin_token": None}):
        answer = ask_grant(cast.child_tv, cast.child, **proof)
        assert_problem(answer, 403, "parent_required")
    assert not TimeGrant.objects.exists()
    assert ask_grant(cast.child_tv, cast.child, pin=PIN).status_code == 200
    assert TimeGrant.objects.get().is_remote is False


def test_from_the_parents_device_a_grant_needs_no_pin_but_one_that_is_sent_is_checked(
    cast: Cast,
) -> None:
    set_pin(cast.parent)
    assert ask_grant(cast.phone, cast.child).status_code == 200
    assert ask_grant(cast.phone, cast.child, pin=None, pin_token=None).status_code == 200
    assert set(TimeGrant.objects.values_list("is_remote", flat=True)) == {True}
    assert_problem(ask_grant(cast.phone, cast.child, pin=WRONG), 403, "incorrect_pin")
    assert TimeGrant.objects.count() == 2
    assert ask_grant(cast.phone, cast.child, pin=PIN).status_code == 200
    assert TimeGrant.objects.filter(is_remote=False).count() == 1


def test_of_a_pin_and_a_token_both_have_to_be_right(cast: Cast) -> None:
    set_pin(cast.parent)
    token = token_of(cast.phone)
    answer = ask_grant(cast.phone, cast.child, pin=WRONG, pin_token=token)
    assert_problem(answer, 403, "incorrect_pin")
    answer = ask_grant(cast.phone, cast.child, pin=PIN, pin_token="x")
    assert_problem(answer, 403, "pin_token_invalid")
    assert not TimeGrant.objects.exists()
    assert ask_grant(cast.phone, cast.child, pin=PIN, pin_token=token).status_code == 200


def test_somebody_elses_pin_grants_nothing_and_costs_no_try(cast: Cast) -> None:
    set_pin(cast.parent)
    set_pin(cast.outsider, NEW)
    for pin in (PIN, NEW):
        assert_problem(ask_grant(cast.foreign_phone, cast.child, pin=pin), 404)
    assert_problem(ask_grant(cast.child_tv, cast.sibling, pin=WRONG), 404)
    assert_problem(ask_grant(cast.phone, cast.adult, pin=WRONG), 400, "not_a_kids_profile")
    assert set(Pin.objects.values_list("attempts_reserved", flat=True)) == {0}
    assert not TimeGrant.objects.exists()


def test_a_used_idempotency_key_is_no_way_to_guess_the_pin_uncounted(cast: Cast) -> None:
    set_pin(cast.parent)

    def repeat(pin: str) -> HttpResponse:
        path = f"{config_path(cast.child)}/grant"
        headers = {"Idempotency-Key": "evening"}
        return cast.child_tv.send("POST", path, {"minutes": 15, "pin": pin}, headers=headers)

    first = repeat(PIN)
    assert first.status_code == 200
    stored = everything_stored()
    for pin in ("0000", "0001", WRONG, PIN, NEW):
        answer = repeat(pin)
        assert (answer.status_code, answer.content) == (200, first.content)
    assert everything_stored() == stored
    assert TimeGrant.objects.count() == 1


def test_a_wrong_pin_uses_no_idempotency_key_up(cast: Cast) -> None:
    set_pin(cast.parent)
    headers = {"Idempotency-Key": "evening"}
    path = f"{config_path(cast.child)}/grant"
    answers = [
        cast.child_tv.send("POST", path, {"minutes": 15, "pin": pin}, headers=headers)
        for pin in (WRONG, WRONG, PIN)
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 200]
    assert TimeGrant.objects.count() == 1
