"""A household's data as a file: all of it, nobody else's, no secret, and a page at a time."""

import io
import json
import re
import resource
import stat
import tempfile
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from parentalcontrols import accounts
from parentalcontrols.models import Profile
from parentalcontrols.settings import Rate
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_problem,
    database_now,
    set_pin,
    watch,
)
from pins.models import AuditEntry, Pin
from viewingtime import exports
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance
from viewingtime.tests.stored import store
from viewingtime.tests.test_concurrency import in_thread

EXPORT = "/account/export"
#: What a member of the document is never called.
SECRETS = re.compile(r"hash|password|secret|token|pepper|fingerprint|version", re.IGNORECASE)


def read(device: Device) -> dict[str, Any]:
    answer = device.get(EXPORT)
    assert answer.status_code == 200
    content = b"".join(answer.streaming_content)
    assert int(answer.headers["Content-Length"]) == len(content)
    found: dict[str, Any] = json.loads(content, parse_float=Decimal)
    return found


def names(document: Any) -> set[str]:
    """Every name of a member, at any depth."""
    if isinstance(document, dict):
        return set(document) | {n for value in document.values() for n in names(value)}
    if isinstance(document, list):
        return {n for value in document for n in names(value)}
    return set()


@pytest.fixture
def evening(cast: Cast) -> Cast:
    """A household that watched, was given time, has a PIN and a child's device."""
    set_pin(cast.parent)
    pair = accounts.log_in(email=cast.parent.email, password=PASSWORD, address="192.0.2.1")
    cast.phone = Device(pair.access_token)
    watch(cast.child_tv, cast.child, cast.cartoon, 700)
    watch(cast.child_tv, cast.child, cast.documentary, 400)
    watch(cast.phone, cast.adult, cast.cartoon, 100)
    grant = f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant"
    for minutes in (15, None):
        assert cast.phone.post(grant, {"minutes": minutes}).status_code == 200
    watch(cast.foreign_phone, cast.foreign_child, cast.cartoon, 60)
    return cast


def test_everything_of_the_household_is_in_it_to_the_microsecond(evening: Cast) -> None:
    document = read(evening.phone)
    assert document["format"] == exports.FORMAT
    assert document["account"]["email"] == evening.parent.email
    assert document["pin"].keys() == {"created_at", "changed_at", "locked_until", "wrong_attempts"}
    own = list(Profile.objects.filter(account=evening.parent).order_by("created_at", "id"))
    assert [p["id"] for p in document["profiles"]] == [str(p.id) for p in own]
    assert [p["name"] for p in document["profiles"]] == ["Mia", "Noah", "Alex"]
    for told, profile in zip(document["profiles"], own, strict=True):
        assert (told["config"] is not None) == profile.is_kids
        sessions = ViewingSession.objects.filter(profile=profile).order_by("started_at", "id")
        assert [
            (s["session_id"], s["total_seconds"], s["educational_seconds"], s["title_name"])
            for s in told["sessions"]
        ] == [
            (str(s.id), s.total_seconds, s.educational_seconds, s.title.title)
            for s in sessions.select_related("title")
        ]
        balances = ViewingTimeBalance.objects.filter(profile=profile).order_by("reset_date")
        assert [(b["reset_date"], b["used_seconds"]) for b in told["balances"]] == [
            (str(b.reset_date), b.used_seconds) for b in balances
        ]
        grants = TimeGrant.objects.filter(profile=profile).order_by("granted_at", "id")
        assert [(g["id"], g["minutes"]) for g in told["grants"]] == [
            (str(g.id), g.minutes) for g in grants
        ]
    assert sum(len(p["sessions"]) for p in document["profiles"]) == 3
    entries = AuditEntry.objects.filter(account=evening.parent).order_by("id")
    assert [(e["id"], e["action"], e["after"]) for e in document["audit"]] == [
        (e.id, e.action, e.after) for e in entries
    ]
    assert {"pin_reset", "time_granted"} <= {e["action"] for e in document["audit"]}
    assert len(document["log_ins"]) == 1


def test_nothing_of_another_household_and_no_secret_is_in_it(evening: Cast) -> None:
    content = b"".join(evening.phone.get(EXPORT).streaming_content).decode()
    for foreign in (evening.outsider, evening.foreign_child, evening.foreign_adult):
        assert str(foreign.id) not in content
    assert evening.outsider.email not in content
    evening.parent.refresh_from_db()
    pin = Pin.objects.get(account=evening.parent)
    for secret in (evening.parent.password, pin.pin_hash, str(pin.version), PASSWORD, f'"{PIN}"'):
        assert secret not in content
    assert not [name for name in names(json.loads(content)) if SECRETS.search(name)]


def test_it_is_a_file_that_no_cache_keeps(evening: Cast) -> None:
    answer = evening.phone.get(EXPORT)
    assert re.fullmatch(
        r'attachment; filename="viewing-time-\d{4}-\d\d-\d\d\.json"',
        answer.headers["Content-Disposition"],
    )
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


def test_lists_longer_than_a_page_come_whole_and_once(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE_ROWS", 7)
    now = database_now()
    # In threes of the same start: pages end within them.
    store(cast.child, [cast.cartoon], count=100, newest=now, over=timedelta(days=60))
    TimeGrant.objects.bulk_create(
        TimeGrant(
            profile=cast.child,
            account=cast.parent,
            reset_date=now.date(),
            minutes=15,
            is_remote=True,
            granted_at=now - timedelta(hours=n // 3),
        )
        for n in range(20)
    )
    for n in range(8):
        accounts.log_in(email=cast.parent.email, password=PASSWORD, address=f"192.0.2.{n}")
    document = read(cast.phone)
    child = document["profiles"][0]
    for member, key, count in (
        ("sessions", "session_id", 100),
        ("grants", "id", 20),
        ("balances", "reset_date", ViewingTimeBalance.objects.filter(profile=cast.child).count()),
    ):
        assert len(child[member]) == count
        assert len({row[key] for row in child[member]}) == count
    starts = [datetime.fromisoformat(s["started_at"]) for s in child["sessions"]]
    assert starts == sorted(starts)
    assert len({one["id"] for one in document["log_ins"]}) == len(document["log_ins"]) == 8


@pytest.mark.django_db(transaction=True)
def test_all_of_it_is_of_one_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = Cast()
    watch(cast.child_tv, cast.child, cast.cartoon, 60)
    before = exports._write_list

    def meanwhile(add: Any, name: str, pages: Any) -> None:
        """Somebody watches, is renamed and is given time between any two lists."""

        def change() -> None:
            watch(cast.child_tv, cast.child, cast.cartoon, 10)
            Profile.objects.filter(id=cast.sibling.id).update(name="another")

        in_thread(change).result(timeout=60)
        before(add, name, pages)

    monkeypatch.setattr(exports, "_write_list", meanwhile)
    document = json.loads(b"".join(exports.export(cast.parent.id).parts()), parse_float=Decimal)
    child, sibling, _ = document["profiles"]
    (session,) = child["sessions"]
    (balance,) = child["balances"]
    assert session["total_seconds"] == balance["used_seconds"]
    assert ViewingSession.objects.filter(profile=cast.child).count() > 1
    assert sibling["name"] == "Noah"


@pytest.mark.django_db(transaction=True)
def test_it_writes_nothing() -> None:
    cast = Cast()
    statements: list[str] = []

    def noted(execute: Any, query: str, *rest: Any) -> Any:
        statements.append(query)
        return execute(query, *rest)

    with connection.execute_wrapper(noted):
        exports.export(cast.parent.id)
    assert statements[0] == "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    assert {query.split()[0] for query in statements[1:]} == {"SELECT"}


def test_one_more_than_the_limit_is_told_when_to_ask_again(cast: Cast, settings: Any) -> None:
    settings.RATELIMITS = {**settings.RATELIMITS, "EXPORT": Rate(2, 3600)}
    for _ in range(2):
        assert cast.phone.get(EXPORT).status_code == 200
    answer = cast.phone.get(EXPORT)
    assert_problem(answer, 429, "too_many_requests")
    assert 3500 < int(answer.headers["Retry-After"]) <= 3600
    # It is each household's own.
    assert cast.foreign_phone.get(EXPORT).status_code == 200


def test_more_at_once_than_a_process_reads_are_refused_and_not_counted(cast: Cast) -> None:
    with exports.turn(), exports.turn():
        assert_problem(cast.phone.get(EXPORT), 503, "unavailable")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM rate_limit_windows WHERE name = 'EXPORT'")
        assert cursor.fetchone() == (0,)
    assert cast.phone.get(EXPORT).status_code == 200


def test_without_room_for_temporary_files_it_is_unavailable(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exports, "_MEMORY_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert_problem(cast.phone.get(EXPORT), 503, "unavailable")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cast.phone.get(EXPORT).status_code == 200


def test_a_large_household_is_no_larger_in_memory(cast: Cast) -> None:
    """A hundred thousand sessions are 35 MB; the process grows by a part of that."""
    exports.export(cast.parent.id)
    store(
        cast.child,
        [cast.cartoon, cast.documentary],
        count=100_000,
        newest=database_now(),
        over=timedelta(days=90),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = exports.export(cast.parent.id)
    size = sum(len(part) for part in found.parts())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert size == found.size > 25_000_000
    assert grown < 15_000  # kB


def test_the_command_writes_the_same_to_a_file_of_its_own(evening: Cast, tmp_path: Path) -> None:
    target = tmp_path / "household.json"
    call_command("export_household", evening.parent.email.upper(), "--output", target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    told = json.loads(target.read_text())
    asked = json.loads(b"".join(evening.phone.get(EXPORT).streaming_content))
    assert told | {"exported_at": 0} == asked | {"exported_at": 0}
    with pytest.raises(CommandError, match="cannot be made"):
        call_command("export_household", str(evening.parent.id), "--output", target)
    with pytest.raises(CommandError, match="no such account"):
        call_command("export_household", "nobody@example.com")


def test_the_command_prints_the_same_wherever_its_parts_end(
    evening: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    Profile.objects.filter(id=evening.child.id).update(name="Zoë 👧🏽")
    # Within every letter that takes more than one byte.
    monkeypatch.setattr(exports, "_PART_BYTES", 1)
    printed = io.StringIO()
    call_command("export_household", evening.parent.email, stdout=printed)
    told = json.loads(printed.getvalue())
    assert "Zoë 👧🏽" in {profile["name"] for profile in told["profiles"]}


def test_an_account_that_is_gone_has_none(cast: Cast) -> None:
    with transaction.atomic():
        cast.outsider.delete()
    assert_problem(cast.foreign_phone.get(EXPORT), 401, "not_authenticated")
