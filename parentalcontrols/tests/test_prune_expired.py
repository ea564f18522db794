"""`manage.py prune_expired`: what has run out goes, what still holds stays."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from parentalcontrols import accounts, expiry, idempotency
from parentalcontrols.models import Account, IdempotencyKey, RateLimitWindow, RefreshFamily
from parentalcontrols.tests.cast import database_now, make_account
from pins.models import AuditEntry, UsedPinToken

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def account() -> Account:
    return make_account("parent@example.com")


def make_family(account: Account, expires_at: datetime, **fields: Any) -> RefreshFamily:
    return RefreshFamily.objects.create(
        account=account, current_token_id=uuid4(), expires_at=expires_at, **fields
    )


def make_key(account: Account, created_at: datetime) -> IdempotencyKey:
    return IdempotencyKey.objects.create(
        account=account,
        route="grant",
        key=str(uuid4()),
        fingerprint=b"f",
        answer={},
        created_at=created_at,
    )


def make_window(ends_at: datetime) -> RateLimitWindow:
    return RateLimitWindow.objects.create(
        name="LOGIN_ACCOUNT", subject=uuid4().bytes, ends_at=ends_at, count=3
    )


def make_used_token(expires_at: datetime) -> UsedPinToken:
    return UsedPinToken.objects.create(token_id=uuid4(), expires_at=expires_at)


def prune(**options: Any) -> str:
    out = StringIO()
    call_command("prune_expired", stdout=out, **options)
    return out.getvalue()


def counts(report: str) -> dict[str, int]:
    lines = dict(line.split(": ") for line in report.splitlines())
    return {kind: int(rest.removesuffix(" deleted")) for kind, rest in lines.items()}


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls answer, all made at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one.result(timeout=60) for one in [pool.submit(run, call) for call in calls]]


def test_of_each_kind_what_has_run_out_goes_and_the_rest_stays(account):
    now = database_now()
    make_family(account, now - SECOND)
    make_family(account, now - 40 * DAY, revoked_at=now - 60 * DAY)
    make_key(account, now - DAY - SECOND)
    make_window(now - SECOND)
    make_used_token(now - HOUR - SECOND)

    families = {make_family(account, now + MINUTE), make_family(account, now + 30 * DAY)}
    revoked = make_family(account, now + MINUTE, revoked_at=now - 60 * DAY)
    keys = {make_key(account, now - DAY + MINUTE), make_key(account, now)}
    windows = {make_window(now + MINUTE), make_window(now + DAY)}
    # Spent, run out by our clock, and maybe not yet by that of another host.
    used = {make_used_token(now - HOUR + MINUTE), make_used_token(now + 5 * MINUTE)}

    assert prune() == (
        "refresh families: 2 deleted\n"
        "idempotency keys: 1 deleted\n"
        "rate-limit windows: 1 deleted\n"
        "used PIN tokens: 1 deleted\n"
    )
    assert set(RefreshFamily.objects.all()) == families | {revoked}
    assert set(IdempotencyKey.objects.all()) == keys
    assert set(RateLimitWindow.objects.all()) == windows
    assert set(UsedPinToken.objects.all()) == used


def test_a_second_run_finds_nothing(account):
    make_family(account, database_now() - SECOND)
    assert counts(prune())["refresh families"] == 1
    assert set(counts(prune()).values()) == {0}


def test_accounts_audit_and_log_ins_in_force_are_left_alone(account):
    pair = accounts.log_in(
        email="parent@example.com", password="watch-together-7", address="192.0.2.1"
    )
    AuditEntry.objects.create(
        account=account, action="pin_set", actor="account", at=database_now() - 400 * DAY
    )
    prune()
    assert Account.objects.get() == account
    assert AuditEntry.objects.count() == 1
    assert accounts.refresh(token=pair.refresh_token, address="192.0.2.1").token_type == "bearer"


@pytest.mark.parametrize("batch", [1, 3, 4, 12, 13, 5000])
def test_whatever_the_batch_everything_goes_once(account, batch):
    now = database_now()
    # Several ran out at one and the same instant, which no batch ends at by itself.
    RefreshFamily.objects.bulk_create(
        RefreshFamily(
            account=account, current_token_id=uuid4(), expires_at=now - (n // 5) * MINUTE - SECOND
        )
        for n in range(12)
    )
    stays = make_family(account, now + HOUR)
    assert counts(prune(batch=batch))["refresh families"] == 12
    assert set(RefreshFamily.objects.all()) == {stays}


def test_a_batch_is_one_statement_and_its_own_transaction(account, monkeypatch):
    now = database_now()
    for n in range(7):
        make_family(account, now - n * MINUTE - SECOND)
    with CaptureQueriesContext(connection) as queries:
        prune(batch=3)
    on_families = [one["sql"] for one in queries if "refresh_families" in one["sql"]]
    # Three, three and the one that is left; nothing around them.
    assert len(on_families) == 3
    assert not [one for one in queries if "BEGIN" in one["sql"] or "SAVEPOINT" in one["sql"]]


def test_batches_before_an_interruption_stay_deleted(account):
    now = database_now()
    for n in range(6):
        make_family(account, now - n * MINUTE - SECOND)
    left = 2

    def interrupted(execute, *arguments):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return execute(*arguments)

    with connection.execute_wrapper(interrupted), pytest.raises(KeyboardInterrupt):
        list(expiry.prune(batch=2))
    assert RefreshFamily.objects.count() == 2
    assert counts(prune(batch=2))["refresh families"] == 2


def test_a_batch_that_is_no_batch_is_one_row(account):
    make_family(account, database_now() - SECOND)
    assert counts(prune(batch=0))["refresh families"] == 1


def test_two_at_once_delete_every_row_once(account):
    now = database_now()
    RefreshFamily.objects.bulk_create(
        RefreshFamily(account=account, current_token_id=uuid4(), expires_at=now - n * SECOND)
        for n in range(1, 401)
    )
    UsedPinToken.objects.bulk_create(
        UsedPinToken(token_id=uuid4(), expires_at=now - HOUR - n * SECOND) for n in range(1, 401)
    )
    reports = in_threads(*[lambda: counts(prune(batch=7)) for _ in range(4)])
    assert sum(report["refresh families"] for report in reports) == 400
    assert sum(report["used PIN tokens"] for report in reports) == 400
    assert not RefreshFamily.objects.exists()
    assert not UsedPinToken.objects.exists()


def test_what_somebody_holds_is_left_for_the_next_run_without_waiting(account):
    now = database_now()
    held = make_family(account, now - 2 * MINUTE)
    make_family(account, now - MINUTE)
    with transaction.atomic():
        RefreshFamily.objects.select_for_update().get(id=held.id)
        (report,) = in_threads(lambda: counts(prune()))
        assert report["refresh families"] == 1
    assert set(RefreshFamily.objects.all()) == {held}
    assert counts(prune())["refresh families"] == 1


def test_a_key_that_is_taken_over_meanwhile_stays(account):
    """The claim of an old key makes it a new one: it waits here until the deletion has looked."""
    old = make_key(account, database_now() - 2 * DAY)
    key = idempotency.Key(account.id, old.route, old.key, b"new")
    with transaction.atomic():
        assert key.claim() is None
        (report,) = in_threads(lambda: counts(prune()))
        assert report["idempotency keys"] == 0
        key.keep({"granted_minutes": 15})
    assert key.answer() == {"granted_minutes": 15}
    assert counts(prune())["idempotency keys"] == 0


def test_a_key_may_be_claimed_anew_while_it_is_deleted(account):
    old = make_key(account, database_now() - 2 * DAY)
    key = idempotency.Key(account.id, old.route, old.key, b"new")
    started = threading.Event()

    def claim() -> Any:
        try:
            with transaction.atomic():
                started.set()
                claimed = key.claim()
                key.keep({})
                return claimed
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert [one.rows for one in expiry.prune() if one.kind == "idempotency keys"] == [1]
            claimed: Future[Any] = pool.submit(claim)
            assert started.wait(30)
        assert claimed.result(timeout=60) is None
    assert key.answer() == {}


INDEXES = {
    "refresh families": "ix_refresh_families_expires",
    "idempotency keys": "ix_idempotency_created",
    "rate-limit windows": "ix_rate_limit_ends",
    "used PIN tokens": "ix_used_pin_tokens_expires",
}


@pytest.mark.parametrize("kind", INDEXES)
def test_the_range_is_served_by_its_index_in_order(kind):
    (statement, parameters) = next(
        (statement, parameters)
        for name, statement, parameters in expiry._STATEMENTS
        if name == kind
    )
    with transaction.atomic(), connection.cursor() as cursor:
        # Tables of a test are too small for any plan but one that reads them whole.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute(
            "EXPLAIN " + statement, {**parameters, "since": "-infinity", "batch": expiry.BATCH_ROWS}
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert f"Index Scan using {INDEXES[kind]}" in plan
    assert "Index Cond: ((" in plan
    assert "Sort" not in plan
