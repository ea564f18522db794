"""A grant that is sent twice is given once: the header `Idempotency-Key`."""

import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import RequestFactory
from pytest_django.fixtures import Settings

from parentalcontrols import authentication, idempotency
from parentalcontrols.models import IdempotencyKey, Profile
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import (
    PIN,
    Cast,
    Device,
    assert_problem,
    balance_of,
    database_now,
    everything_stored,
    set_pin,
)
from pins.models import AuditAction, AuditEntry
from viewingtime.models import TimeGrant
from viewingtime.tests.test_concurrency import at_once, in_thread

KEY = "5f0e6c2a-retry"
VERIFY = "/parental-controls/pin/verify"


def path_of(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time/grant"


def ask(device: Device, profile: Profile, body: Any, key: str | None = KEY) -> HttpResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return device.send("POST", path_of(profile), body, headers=headers)


def give(device: Device, profile: Profile, body: Any, key: str | None = KEY) -> dict[str, Any]:
    answer = ask(device, profile, body, key)
    assert answer.status_code == 200, answer.content
    return answer.json()


def grants_recorded() -> int:
    return AuditEntry.objects.filter(action=AuditAction.TIME_GRANTED).count()


def let_hours_pass(hours: float) -> None:
    """Makes every key that much older."""
    IdempotencyKey.objects.update(created_at=database_now() - timedelta(hours=hours))


# A repeat


@pytest.mark.parametrize("minutes", [15, 30, None])
def test_a_repeat_is_answered_the_same_and_gives_nothing(cast: Cast, minutes: int | None) -> None:
    first = ask(cast.phone, cast.child, {"minutes": minutes})
    assert first.status_code == 200
    assert first.json()["granted_minutes"] == minutes
    before = everything_stored()
    for _ in range(3):
        again = ask(cast.phone, cast.child, {"minutes": minutes})
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert everything_stored() == before
    assert TimeGrant.objects.count() == grants_recorded() == 1


def test_a_repeat_tells_what_remained_then_not_what_remains_now(cast: Cast) -> None:
    first = give(cast.phone, cast.child, {"minutes": 15})
    give(cast.phone, cast.child, {"minutes": 60}, key=None)
    assert give(cast.phone, cast.child, {"minutes": 15}) == first
    assert first["remaining_minutes"] == 135.0
    assert balance_of(cast.child).granted_seconds == 75 * 60


def test_a_body_that_says_the_same_otherwise_is_the_same(cast: Cast) -> None:
    first = cast.phone.send(
        "POST",
        path_of(cast.child),
        raw=b'{"minutes": 15, "pin": null, "note": {"a": 1, "b": [2]}}',
        headers={"Idempotency-Key": KEY},
    )
    again = cast.phone.send(
        "POST",
        path_of(cast.child).replace(str(cast.child.id), str(cast.child.id).upper()),
        raw=b' {"note":{"b":[2],"a":1},\n"pin":null,"\\u006dinutes":15}',
        headers={"idempotency-key": KEY},
    )
    assert (again.status_code, again.content) == (200, first.content)
    assert TimeGrant.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {"minutes": 30},
        {"minutes": None},
        {"minutes": 15, "note": "another"},
        {"minutes": 15, "Minutes": 15},
    ],
    ids=str,
)
def test_another_body_under_the_same_key_is_refused(cast: Cast, body: dict[str, Any]) -> None:
    give(cast.phone, cast.child, {"minutes": 15})
    before = everything_stored()
    for _ in range(2):
        assert_problem(ask(cast.phone, cast.child, body), 400, "idempotency_key_reused")
    assert everything_stored() == before
    # The first one's repeat is not harmed by it.
    assert give(cast.phone, cast.child, {"minutes": 15})["granted_minutes"] == 15


def test_without_a_key_every_request_counts(cast: Cast) -> None:
    for _ in range(2):
        give(cast.phone, cast.child, {"minutes": 15}, key=None)
    assert TimeGrant.objects.count() == 2
    assert not IdempotencyKey.objects.exists()


def test_another_key_is_another_grant(cast: Cast) -> None:
    for key in ("a", "A", "aa", "a a", "0"):
        give(cast.phone, cast.child, {"minutes": 15}, key=key)
    assert TimeGrant.objects.count() == 5


# Whose key it is


def test_a_siblings_grant_under_the_same_key_is_another_one(cast: Cast) -> None:
    for profile in (cast.child, cast.sibling):
        for _ in range(2):
            give(cast.phone, profile, {"minutes": 15})
        assert balance_of(profile).granted_seconds == 900


def test_another_household_knows_nothing_of_a_key(cast: Cast) -> None:
    give(cast.phone, cast.child, {"minutes": 15})
    for _ in range(2):
        assert give(cast.foreign_phone, cast.foreign_child, {"minutes": 30})["granted_minutes"]
    assert balance_of(cast.foreign_child).granted_seconds == 1800
    assert balance_of(cast.child).granted_seconds == 900


def test_a_foreign_key_opens_no_foreign_answer(cast: Cast) -> None:
    give(cast.phone, cast.child, {"minutes": 15})
    answer = ask(cast.foreign_phone, cast.child, {"minutes": 15})
    assert_problem(answer, 404, "not_found")


def test_a_childs_device_without_the_pin_gets_no_parents_answer(cast: Cast) -> None:
    give(cast.phone, cast.child, {"minutes": 15})
    answer = ask(cast.child_tv, cast.child, {"minutes": 15})
    assert_problem(answer, 403, "parent_required")


# For how long


def test_a_key_is_good_for_a_day_and_new_after_it(cast: Cast) -> None:
    first = give(cast.phone, cast.child, {"minutes": 15})
    let_hours_pass(23.99)
    assert give(cast.phone, cast.child, {"minutes": 15}) == first
    let_hours_pass(24)
    second = give(cast.phone, cast.child, {"minutes": 15})
    assert second["remaining_minutes"] == first["remaining_minutes"] + 15
    assert give(cast.phone, cast.child, {"minutes": 15}) == second
    assert TimeGrant.objects.count() == 2
    assert IdempotencyKey.objects.count() == 1


def test_after_a_day_a_key_may_be_for_something_else(cast: Cast) -> None:
    give(cast.phone, cast.child, {"minutes": 15})
    let_hours_pass(25)
    assert give(cast.phone, cast.child, {"minutes": 60})["granted_minutes"] == 60
    answer = ask(cast.phone, cast.child, {"minutes": 15})
    assert_problem(answer, 400, "idempotency_key_reused")


@pytest.mark.django_db(transaction=True)
def test_of_copies_that_find_an_old_key_one_takes_it_over(cast: Cast) -> None:
    first = give(cast.phone, cast.child, {"minutes": 15})
    let_hours_pass(30)
    answers = at_once(*[lambda: give(cast.phone, cast.child, {"minutes": 15}) for _ in range(12)])
    assert all(answer == answers[0] != first for answer in answers)
    assert TimeGrant.objects.count() == 2


# At the same time


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("minutes", [15, None])
def test_20_copies_at_once_are_one_grant_and_one_answer(cast: Cast, minutes: int | None) -> None:
    for turn in range(3):
        key = f"{KEY}-{turn}"
        copies = [
            lambda key=key: ask(Device(cast.phone.token), cast.child, {"minutes": minutes}, key)
            for _ in range(20)
        ]
        answers = at_once(*copies)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert TimeGrant.objects.count() == grants_recorded() == turn + 1
    assert balance_of(cast.child).granted_seconds == 3 * 60 * (minutes or 0)


@pytest.mark.django_db(transaction=True)
def test_two_bodies_at_once_under_one_key_are_one_grant(cast: Cast) -> None:
    for turn in range(3):
        key = f"{KEY}-{turn}"
        calls = [
            lambda key=key, m=minutes: ask(
                Device(cast.phone.token), cast.child, {"minutes": m}, key
            )
            for minutes in (15, 30) * 5
        ]
        answers = at_once(*calls)
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [400] * 5
        granted = {answer.content for answer in answers if answer.status_code == 200}
        assert len(granted) == 1
        assert TimeGrant.objects.count() == turn + 1


@pytest.mark.django_db(transaction=True)
def test_copies_with_the_pin_are_one_grant_too(cast: Cast) -> None:
    set_pin(cast.parent)
    body = {"minutes": 15, "pin": PIN}
    token = cast.child_tv.token
    answers = at_once(*[lambda: ask(Device(token), cast.child, body) for _ in range(4)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert TimeGrant.objects.get().is_remote is False


@pytest.mark.django_db(transaction=True)
def test_copies_with_a_pin_token_that_is_good_once_are_one_grant_and_one_answer(cast: Cast) -> None:
    set_pin(cast.parent)
    pin_token = cast.child_tv.post(VERIFY, {"pin": PIN}).json()["pin_token"]
    body = {"minutes": 15, "pin_token": pin_token}
    token = cast.child_tv.token
    answers = at_once(*[lambda: ask(Device(token), cast.child, body) for _ in range(12)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert TimeGrant.objects.count() == 1


def somebody_waits() -> bool:
    """Whether a transaction of this database waits for another one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
            " WHERE NOT l.granted AND a.datname = current_database())"
        )
        return bool(cursor.fetchone()[0])


class Halted:
    """A grant that stops before its answer is kept, in a thread, until it is told how to end."""

    def __init__(self, call: Callable[[], HttpResponse]) -> None:
        self.arrived, self.released = threading.Event(), threading.Event()
        self.fails = False
        self.call = call
        self.answer = in_thread(self.run)
        assert self.arrived.wait(20)

    def run(self) -> HttpResponse:
        with connection.execute_wrapper(self.before):
            return self.call()

    def before(self, execute: Any, query: str, *rest: Any) -> Any:
        if query == idempotency.KEEP:
            self.arrived.set()
            assert self.released.wait(20)
            if self.fails:
                raise OperationalError("the server is gone")
        return execute(query, *rest)

    def release(self, *, fails: bool = False) -> HttpResponse:
        self.fails = fails
        self.released.set()
        answer: HttpResponse = self.answer.result(timeout=20)
        return answer


@pytest.mark.django_db(transaction=True)
def test_a_copy_waits_while_the_first_is_under_way_and_gets_its_answer(cast: Cast) -> None:
    def call() -> HttpResponse:
        return ask(Device(cast.phone.token), cast.child, {"minutes": 15})

    first = Halted(call)
    copy = in_thread(call)
    assert wait_until(somebody_waits, 10)
    assert not copy.done()
    assert not TimeGrant.objects.exists()
    answer = first.release()
    assert answer.status_code == 200
    assert copy.result(timeout=20).content == answer.content
    assert TimeGrant.objects.count() == grants_recorded() == 1


@pytest.mark.django_db(transaction=True)
def test_a_copy_that_waited_for_one_that_failed_does_it_itself(cast: Cast) -> None:
    def call() -> HttpResponse:
        return ask(Device(cast.phone.token), cast.child, {"minutes": 15})

    first = Halted(call)
    copy = in_thread(call)
    assert wait_until(somebody_waits, 10)
    assert_problem(first.release(fails=True), 503, "unavailable")
    answer = copy.result(timeout=20)
    assert answer.status_code == 200
    assert answer.json()["remaining_minutes"] == 135.0
    assert TimeGrant.objects.count() == grants_recorded() == 1
    assert call().content == answer.content


@pytest.mark.django_db(transaction=True)
def test_another_body_that_waited_is_refused_once_the_first_is_done(cast: Cast) -> None:
    first = Halted(lambda: ask(Device(cast.phone.token), cast.child, {"minutes": 15}))
    other = in_thread(lambda: ask(Device(cast.phone.token), cast.child, {"minutes": 30}))
    assert wait_until(somebody_waits, 10)
    assert not other.done()
    assert first.release().status_code == 200
    assert_problem(other.result(timeout=20), 400, "idempotency_key_reused")
    assert TimeGrant.objects.get().minutes == 15


@pytest.mark.django_db(transaction=True)
def test_a_key_under_way_holds_up_neither_a_sibling_nor_another_household(cast: Cast) -> None:
    first = Halted(lambda: ask(Device(cast.phone.token), cast.child, {"minutes": 15}))
    try:
        for device, profile in (
            (cast.phone, cast.sibling),
            (cast.foreign_phone, cast.foreign_child),
        ):
            done = in_thread(lambda d=device, p=profile: ask(Device(d.token), p, {"minutes": 30}))
            assert done.result(timeout=10).status_code == 200
    finally:
        assert first.release().status_code == 200


# What failed


def test_what_failed_leaves_the_key_as_it_was(cast: Cast) -> None:
    set_pin(cast.parent)
    good = {"minutes": 15, "pin": PIN}
    nobody = Device("not.a.token")
    of_nobody = Device(authentication.access_token(cast.staff))
    failures = [
        (cast.child_tv, cast.child, good | {"pin": "0000"}, 403, "incorrect_pin"),
        (cast.child_tv, cast.child, {"minutes": 15}, 403, "parent_required"),
        (cast.phone, cast.child, {"minutes": 15, "pin_token": "x"}, 403, "pin_token_invalid"),
        (cast.phone, cast.child, {"minutes": 16}, 400, "invalid"),
        (cast.phone, cast.child, {}, 400, "invalid"),
        (cast.phone, cast.adult, {"minutes": 15}, 400, "not_a_kids_profile"),
        (cast.phone, cast.foreign_child, {"minutes": 15}, 404, "not_found"),
        (cast.phone, Profile(), {"minutes": 15}, 404, "not_found"),
        (nobody, cast.child, {"minutes": 15}, 401, "not_authenticated"),
        (of_nobody, cast.child, {"minutes": 15}, 404, "not_found"),
    ]
    for device, profile, body, status, code in failures:
        assert_problem(ask(device, profile, body), status, code)
        assert not IdempotencyKey.objects.exists(), code
    assert give(cast.child_tv, cast.child, good)["granted_minutes"] == 15
    assert TimeGrant.objects.count() == 1


def test_a_failure_after_a_success_under_the_same_key_harms_nothing(cast: Cast) -> None:
    first = give(cast.phone, cast.child, {"minutes": 15})
    assert_problem(ask(cast.phone, cast.child, {"minutes": 16}), 400, "invalid")
    assert_problem(ask(Device("x"), cast.child, {"minutes": 15}), 401)
    assert give(cast.phone, cast.child, {"minutes": 15}) == first


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "ä", "\u00ff", "schl\u00fcssel", "a\tb", "a\x7f", "漢字", "🔑"]
)
def test_what_is_no_key_is_refused_before_anything_is_done(cast: Cast, key: str) -> None:
    # As a server hands the bytes of a header on.
    header = key.encode().decode("latin-1")
    before = everything_stored()
    document = assert_problem(ask(cast.phone, cast.child, {"minutes": 15}, header), 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["Idempotency-Key"]
    assert everything_stored() == before


@pytest.mark.parametrize("key", ["x", "x" * 255, 'a key; with, "everything" ~!\'%00$1', "0", "%"])
def test_any_printable_text_of_ascii_is_a_key(cast: Cast, key: str) -> None:
    for _ in range(2):
        give(cast.phone, cast.child, {"minutes": 15}, key)
    assert TimeGrant.objects.count() == 1


@pytest.mark.parametrize("depth", [100, 400, 800, 880, 900, 910, 920, 940, 960, 1000])
@pytest.mark.parametrize("open_close", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_body_that_is_nested_deep_is_no_fault_of_ours(
    cast: Cast, depth: int, open_close: tuple[bytes, bytes]
) -> None:
    inner = open_close[0] * depth + b"1" + open_close[1] * depth
    raw = b'{"minutes": 15, "ignored": ' + inner + b"}"
    answer = cast.phone.send("POST", path_of(cast.child), raw=raw, headers={"Idempotency-Key": KEY})
    assert answer.status_code in {200, 400}, answer.content[:200]
    assert TimeGrant.objects.count() == (answer.status_code == 200)


# With the PIN, or what it bought


def test_a_repeat_is_answered_although_its_pin_token_is_spent(cast: Cast) -> None:
    set_pin(cast.parent)
    pin_token = cast.child_tv.post(VERIFY, {"pin": PIN}).json()["pin_token"]
    body = {"minutes": 15, "pin_token": pin_token}
    first = give(cast.child_tv, cast.child, body)
    assert give(cast.child_tv, cast.child, body) == first
    for key in (None, "another"):
        assert_problem(ask(cast.child_tv, cast.child, body, key), 403, "pin_token_invalid")
    assert give(cast.child_tv, cast.child, body) == first
    assert TimeGrant.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_grant_that_failed_gives_key_and_pin_token_back(cast: Cast) -> None:
    set_pin(cast.parent)
    pin_token = cast.child_tv.post(VERIFY, {"pin": PIN}).json()["pin_token"]
    body = {"minutes": 15, "pin_token": pin_token}
    halted = Halted(lambda: ask(Device(cast.child_tv.token), cast.child, body))
    assert_problem(halted.release(fails=True), 503, "unavailable")
    assert not IdempotencyKey.objects.exists()
    assert give(cast.child_tv, cast.child, body)["remaining_minutes"] == 135.0


def test_a_used_key_tells_nothing_of_the_pin(cast: Cast) -> None:
    """Else a key that was seen would be a way to guess on, past the count and past the lock.

    What is asked for is compared, not what proves that it may be: whatever is guessed, the answer
    is the first one, and nothing is given or counted.
    """
    set_pin(cast.parent)
    good = {"minutes": 15, "pin": PIN}
    first = ask(cast.child_tv, cast.child, good)
    assert first.status_code == 200
    other = ask(cast.child_tv, cast.child, {"minutes": 30, "pin": PIN})
    assert_problem(other, 400, "idempotency_key_reused")
    before = everything_stored()
    for guess in ("0000", "1111", "2222", "3333", "4444", "5555", PIN):
        answer = ask(cast.child_tv, cast.child, good | {"pin": guess})
        assert (answer.status_code, answer.content) == (200, first.content)
        answer = ask(cast.child_tv, cast.child, {"minutes": 30, "pin": guess})
        assert (answer.status_code, answer.content) == (400, other.content)
    for _ in range(5):
        assert_problem(ask(cast.child_tv, cast.child, {"minutes": 15, "pin": "0000"}, None), 403)
    locked = everything_stored()
    for guess in ("0000", PIN):
        answer = ask(cast.child_tv, cast.child, good | {"pin": guess})
        assert (answer.status_code, answer.content) == (200, first.content)
    assert everything_stored() == locked
    assert locked["time_grants"] == before["time_grants"]
    assert TimeGrant.objects.count() == 1


def test_a_key_that_is_new_excuses_no_wrong_pin(cast: Cast) -> None:
    set_pin(cast.parent)
    for number in range(5):
        answer = ask(cast.child_tv, cast.child, {"minutes": 15, "pin": "0000"}, f"key {number}")
        assert_problem(answer, 403, "incorrect_pin")
    answer = ask(cast.child_tv, cast.child, {"minutes": 15, "pin": PIN}, "key")
    assert_problem(answer, 403, "pin_locked")
    assert not IdempotencyKey.objects.exists()


def test_a_repeat_with_the_pin_gets_the_first_answer_although_the_pin_changed(cast: Cast) -> None:
    set_pin(cast.parent)
    body = {"minutes": 15, "pin": PIN}
    first = give(cast.child_tv, cast.child, body)
    assert give(cast.child_tv, cast.child, body) == first
    set_pin(cast.parent, "2580")
    assert give(cast.child_tv, cast.child, body) == first
    assert give(cast.child_tv, cast.child, {"minutes": 15, "pin": "2580"}) == first
    assert TimeGrant.objects.count() == 1


def test_nothing_that_is_kept_lets_the_pin_be_read(cast: Cast) -> None:
    set_pin(cast.parent)
    body = {"minutes": 15, "pin": PIN}
    give(cast.child_tv, cast.child, body)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT to_jsonb(k) - 'created_at' - 'id', k.fingerprint FROM idempotency_keys AS k"
        )
        ((row, fingerprint),) = cursor.fetchall()
    kept = json.loads(row) if isinstance(row, str) else row
    assert kept.keys() == {"account_id", "route", "key", "fingerprint", "answer"}
    assert kept["key"] == KEY
    assert "pin" not in json.dumps(kept["answer"])
    assert len(fingerprint) == 32
    # Not even who has the secret as well: it is the same whatever the PIN, and without one.
    give(cast.phone, cast.child, {"minutes": 15}, "another key")
    without = IdempotencyKey.objects.get(key="another key")
    assert bytes(without.fingerprint) == bytes(fingerprint)
    # And it is no plain hash, by which a body could be tried out.
    for text in (b'{"minutes":15}', b'{"minutes": 15}'):
        for digest in (hashlib.sha256, hashlib.sha3_256, hashlib.blake2s):
            assert digest(text).digest() != bytes(fingerprint)
        for key in (b"", b"idempotency", KEY.encode(), cast.parent.id.bytes):
            assert hmac.digest(key, text, "sha256") != bytes(fingerprint)


@pytest.mark.django_db
def test_the_fingerprint_depends_on_a_secret(settings: Settings) -> None:
    request = RequestFactory().post("/", headers={"Idempotency-Key": KEY})

    def fingerprint() -> bytes:
        account_id = Profile().id
        body = {"minutes": 15, "pin": PIN}
        key = idempotency.key_of(request, account_id=account_id, route="grant", body=body)
        assert key is not None
        return key.fingerprint

    first = fingerprint()
    assert fingerprint() == first
    settings.SECRET_KEY = django_settings.SECRET_KEY[::-1]
    assert fingerprint() != first


def test_a_browser_of_an_allowed_origin_may_send_the_header(cast: Cast, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://player.example.com"]
    answer = Device().send(
        "OPTIONS",
        path_of(cast.child),
        headers={
            "Origin": "https://player.example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        },
    )
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
    assert {"authorization", "content-type", "idempotency-key"} <= set(allowed)
