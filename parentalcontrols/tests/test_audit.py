"""What loosened or tightened a household's limits: recorded with it, kept, and shown to it."""

import base64
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.http import HttpResponse
from pytest_django import DjangoAssertNumQueries

from parentalcontrols import profiles
from parentalcontrols.models import Account, Profile, RefreshFamily, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_problem,
    balance_of,
    database_now,
    everything_stored,
    set_pin,
    watch,
)
from pins import audit
from pins.audit import PAGE_ENTRIES
from pins.models import AuditAction, AuditEntry, Pin
from viewingtime.models import TimeGrant
from viewingtime.tests.test_concurrency import at_once

AUDIT = "/parental-controls/audit"
PIN_PATH = "/parental-controls/pin"


def page(device: Device, cursor: str | None = None) -> dict[str, Any]:
    answer = device.get(AUDIT if cursor is None else f"{AUDIT}?cursor={cursor}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def latest(device: Device) -> dict[str, Any]:
    """The newest entry that a household is shown."""
    newest: dict[str, Any] = page(device)["entries"][0]
    return newest


def good(answer: HttpResponse) -> Any:
    assert answer.status_code in {200, 201}, answer.content
    return answer.json()


def config_path(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time"


def grant(device: Device, profile: Profile, minutes: int | None = 15, **more: Any) -> HttpResponse:
    return device.post(f"{config_path(profile)}/grant", {"minutes": minutes, **more})


def logged_in(cast: Cast) -> Device:
    """A phone of the parent's that has logged in, as real ones have."""
    body = {"email": cast.parent.email, "password": PASSWORD}
    return Device(good(Device().post("/auth/login", body))["access_token"])


class Recorded:
    """The entries that are added in a block, and the time it took by the database's clock."""

    def __init__(self) -> None:
        self.last = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
        self.began = database_now()

    @property
    def entries(self) -> list[AuditEntry]:
        found = list(AuditEntry.objects.filter(id__gt=self.last).order_by("id"))
        for entry in found:
            assert self.began <= entry.at <= database_now()
        return found

    @property
    def only(self) -> AuditEntry:
        (entry,) = self.entries
        return entry


@contextmanager
def failing_at(part: str) -> Iterator[None]:
    """The server is lost at the statement that holds that text."""

    def refuse(execute: Any, query: str, *rest: Any) -> Any:
        if part in query:
            raise OperationalError("the server is gone")
        return execute(query, *rest)

    with connection.execute_wrapper(refuse):
        yield


# What is recorded


def test_a_remote_grant_tells_who_by_what_and_from_what_to_what(cast: Cast) -> None:
    phone = logged_in(cast)
    good(grant(phone, cast.child, 30))
    recorded = Recorded()
    headers = {"User-Agent": "Family App/3.1 (Alex's phone)"}
    path = f"{config_path(cast.child)}/grant"
    good(phone.send("POST", path, {"minutes": 15}, headers=headers))
    entry = recorded.only
    assert (entry.action, entry.actor) == ("time_granted", "account")
    assert (entry.account_id, entry.actor_id) == (cast.parent.id, cast.parent.id)
    assert entry.profile_id == cast.child.id
    assert entry.login_id == RefreshFamily.objects.get().id
    assert entry.device == "Family App/3.1 (Alex's phone)"
    assert entry.before == {"granted_seconds": 1800, "is_unlimited_override": False}
    assert entry.after == {
        "granted_seconds": 2700,
        "is_unlimited_override": False,
        "minutes": 15,
        "is_remote": True,
        "reset_date": balance_of(cast.child).reset_date.isoformat(),
    }
    assert entry.at == TimeGrant.objects.latest("granted_at").granted_at


def test_a_grant_on_the_childs_device_names_the_child_and_the_device(cast: Cast) -> None:
    set_pin(cast.parent)
    pair = good(cast.phone.post(f"/auth/profiles/{cast.child.id}/token"))
    family = RefreshFamily.objects.get()
    pair |= good(Device().post("/auth/refresh", {"refresh_token": pair["refresh_token"]}))
    recorded = Recorded()
    good(grant(Device(pair["access_token"]), cast.child, None, pin=PIN))
    entry = recorded.only
    assert (entry.action, entry.actor) == ("time_granted", "profile")
    assert (entry.account_id, entry.actor_id) == (cast.parent.id, cast.child.id)
    assert entry.login_id == family.id
    assert entry.before == {"granted_seconds": 0, "is_unlimited_override": False}
    assert entry.after is not None
    assert entry.after["minutes"] is None
    assert entry.after["is_remote"] is False
    assert entry.after["is_unlimited_override"] is True


def test_the_parent_with_the_pin_is_still_the_parent(cast: Cast) -> None:
    set_pin(cast.parent)
    recorded = Recorded()
    good(grant(cast.phone, cast.child, 15, pin=PIN))
    entry = recorded.only
    assert (entry.actor, entry.actor_id) == ("account", cast.parent.id)
    assert entry.after is not None
    assert entry.after["is_remote"] is False


def test_what_is_forgiven_is_recorded_as_given(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=15, weekend_limit_minutes=15
    )
    watch(cast.phone, cast.child, cast.cartoon, 1100)
    used = float(balance_of(cast.child).used_seconds)
    recorded = Recorded()
    good(grant(cast.phone, cast.child, 15))
    entry = recorded.only
    assert entry.before is not None
    assert entry.after is not None
    assert entry.before["granted_seconds"] == 0
    assert entry.after["granted_seconds"] == pytest.approx(used, abs=1e-6)
    assert used > 1000


def test_a_change_of_a_config_tells_the_changed_fields_alone(cast: Cast) -> None:
    phone = logged_in(cast)
    recorded = Recorded()
    changes = {
        "weekday_limit_minutes": 60,
        "weekend_limit_minutes": None,
        "reset_hour": 6,
        "timezone": "UTC",
        "educational_exempt": True,
    }
    good(phone.put(config_path(cast.sibling), changes))
    entry = recorded.only
    assert (entry.action, entry.actor) == ("config_changed", "account")
    assert (entry.actor_id, entry.profile_id) == (cast.parent.id, cast.sibling.id)
    assert entry.login_id == RefreshFamily.objects.get().id
    assert entry.before == {"weekday_limit_minutes": 120, "weekend_limit_minutes": 180}
    assert entry.after == {"weekday_limit_minutes": 60, "weekend_limit_minutes": None}


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("weekday_limit_minutes", 120, None),
        ("weekend_limit_minutes", 180, 15),
        ("reset_hour", 6, 0),
        ("timezone", "UTC", "Asia/Kathmandu"),
        ("educational_exempt", True, False),
    ],
)
def test_each_field_of_a_config_is_told_when_it_changes(
    cast: Cast, field: str, before: Any, after: Any
) -> None:
    recorded = Recorded()
    good(cast.phone.put(config_path(cast.sibling), {field: after}))
    assert (recorded.only.before, recorded.only.after) == ({field: before}, {field: after})
    good(cast.phone.put(config_path(cast.sibling), {field: before}))
    assert recorded.entries[1].after == {field: before}


def test_a_change_that_changes_nothing_is_no_entry(cast: Cast) -> None:
    set_pin(cast.parent)
    token = good(cast.phone.post(f"{PIN_PATH}/verify", {"pin": PIN}))["pin_token"]
    same = {"weekday_limit_minutes": 120, "reset_hour": 6, "timezone": "UTC"}
    recorded = Recorded()
    for changes in ({}, same, {"unknown": 5}):
        good(cast.phone.put(config_path(cast.sibling), {**changes, "pin_token": token}))
    assert recorded.entries == []


def test_pins_are_recorded_when_set_changed_and_reset(cast: Cast) -> None:
    phone = logged_in(cast)
    recorded = Recorded()
    good(phone.post(PIN_PATH, {"new_pin": PIN}))
    good(phone.post(PIN_PATH, {"new_pin": "2580", "current_pin": PIN}))
    good(phone.post(f"{PIN_PATH}/reset", {"password": PASSWORD, "new_pin": PIN}))
    entries = recorded.entries
    assert [entry.action for entry in entries] == ["pin_set", "pin_changed", "pin_reset"]
    for entry in entries:
        assert (entry.actor, entry.actor_id) == ("account", cast.parent.id)
        assert entry.login_id == RefreshFamily.objects.get().id
        assert (entry.profile_id, entry.before, entry.after) == (None, None, None)


def test_the_guess_that_locks_a_pin_is_recorded_and_no_other(cast: Cast) -> None:
    set_pin(cast.parent)
    recorded = Recorded()
    for _ in range(4):
        cast.phone.post(f"{PIN_PATH}/verify", {"pin": "0000"})
    assert recorded.entries == []
    assert_problem(grant(cast.child_tv, cast.child, 15, pin="0000"), 403, "incorrect_pin")
    for _ in range(2):
        assert_problem(grant(cast.child_tv, cast.child, 15, pin=PIN), 403, "pin_locked")
    entry = recorded.only
    assert (entry.action, entry.actor, entry.actor_id) == ("pin_locked", "profile", cast.child.id)
    assert entry.after is not None
    until = datetime.fromisoformat(entry.after["locked_until"])
    assert until == Pin.objects.get().locked_until
    status = good(cast.phone.get(f"{PIN_PATH}/status"))
    assert status["locked_until"] == entry.after["locked_until"]


def test_a_new_profile_is_new_time_to_watch_and_recorded(cast: Cast) -> None:
    recorded = Recorded()
    made = good(cast.phone.post("/auth/profiles", {"name": "Ida", "is_kids": False}))
    entry = recorded.only
    assert (entry.action, entry.actor) == ("profile_created", "account")
    assert entry.profile_id == UUID(made["id"])
    assert (entry.before, entry.after) == (None, {"name": "Ida", "is_kids": False})


def test_a_token_for_a_childs_device_is_recorded_and_its_renewal_is_not(cast: Cast) -> None:
    recorded = Recorded()
    pair = good(cast.phone.post(f"/auth/profiles/{cast.child.id}/token"))
    good(Device().post("/auth/refresh", {"refresh_token": pair["refresh_token"]}))
    entry = recorded.only
    assert (entry.action, entry.actor) == ("profile_token_issued", "account")
    assert entry.profile_id == cast.child.id


def test_what_was_refused_is_recorded_nowhere(cast: Cast) -> None:
    recorded = Recorded()
    cast.phone.post("/auth/profiles", {"name": 5})
    cast.phone.post(f"/auth/profiles/{cast.adult.id}/token")
    cast.phone.post(f"/auth/profiles/{cast.foreign_child.id}/token")
    cast.phone.put(config_path(cast.child), {"reset_hour": 24})
    cast.phone.put(config_path(cast.foreign_child), {"reset_hour": 5})
    grant(cast.phone, cast.child, 20)
    grant(cast.phone, cast.adult)
    grant(cast.phone, cast.child, 15, pin=PIN)
    grant(cast.phone, cast.child, 15, pin_token="x")
    grant(cast.child_tv, cast.child)
    cast.phone.post(f"{PIN_PATH}/reset", {"password": "not-the-password", "new_pin": PIN})
    assert recorded.entries == []


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("", ""),
        ("x" * 500, "x" * 200),
        ("TV\x00\x1b[31m\x7f 5", "TV[31m 5"),
        ("Fern\u202eseher\x85", "Fernseher"),
    ],
)
def test_a_device_is_called_as_it_calls_itself_within_bounds(
    cast: Cast, agent: str, device: str
) -> None:
    recorded = Recorded()
    path = f"{config_path(cast.child)}/grant"
    answer = cast.phone.send("POST", path, {"minutes": 15}, HTTP_USER_AGENT=agent)
    assert answer.status_code == 200
    assert recorded.only.device == device


# In the same transaction


@pytest.mark.parametrize("lost_at", ["audit_entries", "UPDATE idempotency_keys"])
def test_a_grant_that_is_rolled_back_leaves_no_entry_and_no_grant(cast: Cast, lost_at: str) -> None:
    before = everything_stored()
    with failing_at(lost_at):
        answer = cast.phone.send(
            "POST",
            f"{config_path(cast.child)}/grant",
            {"minutes": 15},
            headers={"Idempotency-Key": "x"},
        )
    assert_problem(answer, 503, "unavailable")
    assert everything_stored() == before


def test_nothing_is_done_that_cannot_be_recorded(cast: Cast) -> None:
    set_pin(cast.parent)
    token = good(cast.phone.post(f"{PIN_PATH}/verify", {"pin": PIN}))["pin_token"]
    before = everything_stored()
    attempts = ("pins",)
    for method, path, body in (
        ("PUT", config_path(cast.child), {"reset_hour": 1, "pin_token": token}),
        ("POST", "/auth/profiles", {"name": "Ida", "is_kids": True}),
        ("POST", f"/auth/profiles/{cast.child.id}/token", None),
        ("POST", f"{config_path(cast.child)}/grant", {"minutes": 15, "pin_token": token}),
    ):
        with failing_at("audit_entries"):
            assert_problem(cast.phone.send(method, path, body), 503, "unavailable")
        assert everything_stored() == before, path
    old = Pin.objects.get()
    for path, body in (
        (PIN_PATH, {"new_pin": "2580", "current_pin": PIN}),
        (f"{PIN_PATH}/reset", {"new_pin": "2580", "password": PASSWORD}),
    ):
        with failing_at("audit_entries"):
            assert_problem(cast.phone.post(path, body), 503, "unavailable")
        now = Pin.objects.get()
        assert (now.pin_hash, now.version, now.changed_at) == (
            old.pin_hash,
            old.version,
            old.changed_at,
        )
    after = everything_stored()
    for table in attempts:
        before.pop(table)
        after.pop(table)
    assert after == before


@pytest.mark.parametrize("guess", ["0000", PIN])
def test_a_lock_that_cannot_be_recorded_is_none_and_tells_nothing(cast: Cast, guess: str) -> None:
    set_pin(cast.parent)
    verify = f"{PIN_PATH}/verify"
    for _ in range(4):
        assert_problem(cast.phone.post(verify, {"pin": "0000"}), 403, "incorrect_pin")
    with failing_at("audit_entries"):
        assert_problem(cast.phone.post(verify, {"pin": guess}), 503, "unavailable")
    assert good(cast.phone.get(f"{PIN_PATH}/status"))["locked_until"] is None
    recorded = Recorded()
    assert_problem(cast.phone.post(verify, {"pin": "0000"}), 403, "incorrect_pin")
    assert recorded.only.action == "pin_locked"
    assert_problem(cast.phone.post(verify, {"pin": PIN}), 403, "pin_locked")


def test_a_first_pin_that_cannot_be_recorded_is_not_set(cast: Cast) -> None:
    with failing_at("audit_entries"):
        assert_problem(cast.phone.post(PIN_PATH, {"new_pin": PIN}), 503, "unavailable")
    assert good(cast.phone.get(f"{PIN_PATH}/status"))["has_pin"] is False


@pytest.mark.django_db(transaction=True)
def test_of_racing_first_pins_one_is_recorded_as_set(cast: Cast) -> None:
    recorded = Recorded()
    token = cast.phone.token
    answers = at_once(
        *[
            lambda n=n: Device(token).post(PIN_PATH, {"new_pin": f"258{n}"}).status_code
            for n in range(4)
        ]
    )
    assert sorted(answers) == [200, 403, 403, 403]
    assert recorded.only.action == "pin_set"


# Append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET device = 'another'",
        "UPDATE audit_entries SET at = at WHERE false",
        "UPDATE audit_entries SET account_id = gen_random_uuid()",
        "DELETE FROM audit_entries",
        "DELETE FROM audit_entries WHERE id = (SELECT max(id) FROM audit_entries)",
        "DELETE FROM ONLY audit_entries USING accounts AS a WHERE a.id = account_id",
        "WITH gone AS (DELETE FROM audit_entries RETURNING *) SELECT count(*) FROM gone",
        "INSERT INTO audit_entries SELECT * FROM audit_entries"
        " ON CONFLICT (id) DO UPDATE SET device = 'another'",
        "MERGE INTO audit_entries AS e USING accounts AS a ON a.id = e.account_id"
        " WHEN MATCHED THEN DELETE",
    ],
)
def test_no_statement_changes_or_deletes_an_entry(cast: Cast, statement: str) -> None:
    before = list(AuditEntry.objects.order_by("id").values())
    assert before
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert list(AuditEntry.objects.order_by("id").values()) == before


def test_neither_does_the_orm(cast: Cast) -> None:
    before = list(AuditEntry.objects.order_by("id").values())
    entry = AuditEntry.objects.latest("id")
    entry.device = "another"
    queryset = AuditEntry.objects.all()
    for change in (
        entry.save,
        entry.delete,
        queryset.delete,
        lambda: queryset.update(device="another"),
        lambda: AuditEntry.objects.bulk_update([entry], ["device"]),
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()
    assert list(AuditEntry.objects.order_by("id").values()) == before


def test_what_was_recorded_outlives_profile_and_account(cast: Cast) -> None:
    good(grant(cast.phone, cast.child))
    before = list(AuditEntry.objects.order_by("id").values())
    Profile.objects.get(id=cast.child.id).delete()
    assert latest(cast.phone)["profile_id"] == str(cast.child.id)
    Account.objects.get(id=cast.parent.id).delete()
    assert list(AuditEntry.objects.order_by("id").values()) == before


# Reading


def record_many(account: Account, count: int, since: int = 0) -> list[int]:
    """Adds that many entries, each with a number; answers the numbers."""
    for number in range(since, since + count):
        audit.record(
            account_id=account.id,
            actor=audit.OPERATOR,
            action=AuditAction.CONFIG_CHANGED,
            after={"number": number},
        )
    return list(range(since, since + count))


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    return [e["after"]["number"] for e in entries if e["action"] == "config_changed"]


def test_entries_are_told_newest_first_and_whole(cast: Cast) -> None:
    good(cast.phone.put(config_path(cast.sibling), {"reset_hour": 5}))
    good(grant(cast.phone, cast.child))
    entries = page(cast.phone)["entries"]
    told = [entry["action"] for entry in entries]
    assert told == ["time_granted", "config_changed", *["profile_created"] * 3]
    assert [entry["id"] for entry in entries] == sorted((e["id"] for e in entries), reverse=True)
    moments = [datetime.fromisoformat(entry["at"]) for entry in entries]
    assert moments == sorted(moments, reverse=True)
    assert [entry["actor"] for entry in entries] == ["account"] * 2 + ["operator"] * 3
    assert entries[-1]["after"] == {"name": "Mia", "is_kids": True}
    assert (entries[1]["before"], entries[1]["after"]) == ({"reset_hour": 6}, {"reset_hour": 5})


@pytest.mark.parametrize(
    ("extra", "sizes"),
    [
        (-1, [PAGE_ENTRIES - 1]),
        (0, [PAGE_ENTRIES]),
        (1, [PAGE_ENTRIES, 1]),
        (PAGE_ENTRIES, [PAGE_ENTRIES, PAGE_ENTRIES]),
        (PAGE_ENTRIES + 1, [PAGE_ENTRIES, PAGE_ENTRIES, 1]),
    ],
)
def test_the_last_page_is_told_to_be_the_last(cast: Cast, extra: int, sizes: list[int]) -> None:
    account = Account.objects.create_user("many@example.com", PASSWORD)
    token = good(Device().post("/auth/login", {"email": account.email, "password": PASSWORD}))
    device = Device(token["access_token"])
    assert page(device) == {"entries": [], "next_cursor": None}
    record_many(account, PAGE_ENTRIES + extra)
    found, cursor = [], None
    for size in sizes:
        told = page(device, cursor)
        assert len(told["entries"]) == size
        found += numbers(told["entries"])
        cursor = told["next_cursor"]
    assert cursor is None
    assert found == list(range(PAGE_ENTRIES + extra))[::-1]


def test_paging_on_while_entries_are_added_tells_none_twice_and_leaves_none_out(cast: Cast) -> None:
    there = record_many(cast.parent, 3 * PAGE_ENTRIES + 7)
    record_many(cast.outsider, 20)
    seen, cursors = [], [None]
    while len(cursors) < 10:
        told = page(cast.phone, cursors[-1])
        seen += numbers(told["entries"])
        if told["next_cursor"] is None:
            break
        cursors.append(told["next_cursor"])
        record_many(cast.parent, 30, since=1000 * len(cursors))
        record_many(cast.outsider, 5, since=1000 * len(cursors))
    assert seen == there[::-1]
    assert len(cursors) == 4
    # Whoever begins again sees the new ones first.
    assert numbers(page(cast.phone)["entries"])[0] == 1000 * 4 + 29
    # And a page that is asked for again is the same.
    assert numbers(page(cast.phone, cursors[2])["entries"]) == seen[2 * PAGE_ENTRIES :][:50]


@pytest.mark.django_db(transaction=True)
def test_pages_that_are_read_while_grants_are_given_hold_every_entry_once(cast: Cast) -> None:
    there = record_many(cast.parent, 4 * PAGE_ENTRIES)
    token = cast.phone.token
    children = [
        profiles.create(account=cast.parent, name=f"child {n}", is_kids=True) for n in range(4)
    ]

    def give(child: Profile) -> None:
        for _ in range(8):
            assert grant(Device(token), child).status_code == 200

    def read() -> list[int]:
        seen: list[int] = []
        device, cursor = Device(token), None
        for _ in range(20):
            told = page(device, cursor)
            seen += numbers(told["entries"])
            cursor = told["next_cursor"]
            if cursor is None:
                return seen
        raise AssertionError("there is no end")

    readers = at_once(*[lambda c=c: give(c) for c in children], read, read)[-2:]
    assert readers == [there[::-1]] * 2
    given = AuditEntry.objects.filter(action=AuditAction.TIME_GRANTED)
    assert given.count() == TimeGrant.objects.count() == 32


def test_another_household_sees_nothing_of_it(cast: Cast) -> None:
    record_many(cast.parent, PAGE_ENTRIES + 5)
    theirs = page(cast.foreign_phone)
    assert {entry["after"]["name"] for entry in theirs["entries"]} == {"Olga", "Otto"}
    assert theirs["next_cursor"] is None
    # Nor by the household's own cursor, or one that is made up.
    cursor = page(cast.phone)["next_cursor"]
    for made in (cursor, base64.urlsafe_b64encode(b"9" * 18).decode()):
        for entry in page(cast.foreign_phone, made)["entries"]:
            assert entry["after"]["name"] in {"Olga", "Otto"}


def test_a_childs_device_sees_nothing_of_it(cast: Cast) -> None:
    record_many(cast.parent, PAGE_ENTRIES + 5)
    cursor = page(cast.phone)["next_cursor"]
    for path in (AUDIT, f"{AUDIT}?cursor={cursor}", f"{AUDIT}?cursor=x"):
        assert_problem(cast.child_tv.get(path), 403, "parent_required")
    assert_problem(cast.anonymous.get(AUDIT), 401, "not_authenticated")


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "5", "null", "MTA", "MTA==", "M T A=", "=", "====", "ä", "%00", "%F0%9F%8E%AC"),
        *(encoded("-1"), encoded("+1"), encoded(" 1"), encoded("1 "), encoded("1\n"), encoded("")),
        *(encoded("1.0"), encoded("1e3"), encoded("0x1"), encoded("1_0"), encoded("NaN")),
        *(encoded("\u0661"), encoded("9" * 19), encoded("9" * 400), encoded("1 OR 1=1")),
        *(encoded("1;--"), "x" * 5000),
    ],
)
def test_what_is_no_cursor_is_refused(cast: Cast, cursor: str) -> None:
    document = assert_problem(cast.phone.get(f"{AUDIT}?cursor={cursor}"), 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["cursor"]


def test_the_farthest_cursors_are_answered(cast: Cast) -> None:
    for text, count in (("0", 0), ("1", 0), ("9" * 18, 3)):
        assert len(page(cast.phone, encoded(text))["entries"]) == count


def test_a_page_is_one_query(cast: Cast, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    record_many(cast.parent, 2 * PAGE_ENTRIES)
    with django_assert_num_queries(1):
        first = audit.read(account_id=cast.parent.id, before=None)
    assert first.next_before is not None
    with django_assert_num_queries(1):
        second = audit.read(account_id=cast.parent.id, before=first.next_before)
    assert len(second.entries) == PAGE_ENTRIES
    # One more to know who asks.
    with django_assert_num_queries(2):
        page(cast.phone)


# What no entry holds


def leaves(document: Any) -> Iterator[Any]:
    """Every key and every value in a document."""
    if isinstance(document, dict):
        yield from itertools.chain.from_iterable(leaves(v) for v in document.values())
        yield from document.keys()
    elif isinstance(document, list):
        yield from itertools.chain.from_iterable(leaves(value) for value in document)
    else:
        yield document


def is_id_or_instant(value: Any) -> bool:
    """Which hold any digits, by chance."""
    for read in (UUID, datetime.fromisoformat):
        with suppress(ValueError, TypeError, AttributeError):
            read(value)
            return True
    return False


def test_no_entry_holds_a_pin_a_password_a_hash_or_a_token(cast: Cast) -> None:
    phone = logged_in(cast)
    good(phone.post(PIN_PATH, {"new_pin": PIN}))
    good(phone.post(PIN_PATH, {"new_pin": "2580", "current_pin": PIN}))
    pair = good(phone.post(f"/auth/profiles/{cast.child.id}/token"))
    tv = Device(pair["access_token"])
    bought = good(tv.post(f"{PIN_PATH}/verify", {"pin": "2580"}))["pin_token"]
    good(grant(tv, cast.child, 15, pin="2580"))
    good(grant(tv, cast.child, 15, pin_token=bought))
    parents = good(phone.post(f"{PIN_PATH}/verify", {"pin": "2580"}))["pin_token"]
    change = {"reset_hour": 1, "educational_exempt": False, "pin_token": parents}
    good(phone.put(config_path(cast.child), change))
    for _ in range(5):
        assert_problem(tv.post(f"{PIN_PATH}/verify", {"pin": "0369"}), 403)
    good(phone.post(f"{PIN_PATH}/reset", {"password": PASSWORD, "new_pin": "1470"}))
    account = Account.objects.get(id=cast.parent.id)
    secrets = [
        *(PIN, "2580", "0369", "1470", PASSWORD, account.password, Pin.objects.get().pin_hash),
        *(phone.token, pair["access_token"], pair["refresh_token"], bought, parents),
    ]
    told = page(phone)["entries"]
    stored = list(AuditEntry.objects.filter(account_id=account.id).values())
    assert {entry["action"] for entry in told} >= {
        *("pin_set", "pin_changed", "pin_reset", "pin_locked", "time_granted"),
        *("config_changed", "profile_token_issued", "profile_created"),
    }
    texts = [
        str(leaf)
        for document in (told, json.loads(json.dumps(stored, default=str)))
        for leaf in leaves(document)
        if isinstance(leaf, str) and not is_id_or_instant(leaf)
    ]
    assert "Mia" in texts
    for text in texts:
        assert not any(secret in text for secret in secrets), text
        assert "$2b$" not in text
        assert "bcrypt" not in text
        assert not text.startswith("eyJ")
    numbers_told = list(leaves([e["before"] for e in told] + [e["after"] for e in told]))
    assert not {4711, 2580, 369, 1470} & {n for n in numbers_told if isinstance(n, int | float)}


def test_the_instant_of_a_grant_is_the_databases_under_its_lock(cast: Cast) -> None:
    good(grant(cast.phone, cast.child))
    told = datetime.fromisoformat(latest(cast.phone)["at"])
    assert told == TimeGrant.objects.get().granted_at
    assert timedelta(0) <= database_now() - told < timedelta(minutes=1)
