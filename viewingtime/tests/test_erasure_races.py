"""While somebody is erased the others go on, and nothing that is under way brings anything back."""

import itertools
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction

from parentalcontrols.models import Account, IdempotencyKey, Profile
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    assert_invariant,
    beat_of,
    database_now,
)
from pins import audit, verification
from pins.tests.service import LONG, Line, Service, Unanswered, database_of_tests
from viewingtime import erasure, grants, ledgers
from viewingtime.models import ViewingSession
from viewingtime.tests.stored import store
from viewingtime.tests.test_concurrency import in_thread
from viewingtime.tests.test_erasure import ERASE, erase_path, grant_path, mentions


def somebody_waits() -> bool:
    """Whether somebody waits for a lock in the tests' database.

    By a connection of its own: within a transaction the answer would stay the first one.
    """
    with psycopg.connect(database_of_tests(), autocommit=True) as watcher:
        (count,) = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone() or (0,)
    return bool(count)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("whole", [False, True], ids=["a profile", "an account"])
def test_whatever_is_under_way_nothing_comes_back(whole: bool, served: Service) -> None:
    """Beats, grants, configs, tokens and new profiles while it is erased, on three processes."""
    for _ in range(5):
        _race(served, whole=whole)


def _race(served: Service, *, whole: bool) -> None:
    cast = Cast()
    newest = database_now() - timedelta(days=2)
    store(cast.child, [cast.cartoon], count=900, newest=newest, over=timedelta(days=30))
    stop = threading.Event()
    statuses: dict[str, set[int]] = {}
    begun = threading.Semaphore(0)

    def play(name: str, token: str, calls: list[tuple[str, str, Any]]) -> None:
        line = Line(served, token)
        told = statuses.setdefault(name, set())
        for n, (method, path, body) in enumerate(itertools.cycle(calls)):
            if stop.is_set():
                break
            try:
                told.add(line.send(method, path, body).status)
            except Unanswered:
                told.add(0)
            if n == 2:
                begun.release()
        line.close()

    phone, tv = cast.phone.token or "", cast.child_tv.token or ""
    beat = beat_of(cast.child, cast.cartoon)
    sibling = beat_of(cast.sibling, cast.cartoon)
    config = f"/parental-controls/profiles/{cast.child.id}/viewing-time"
    players: dict[str, tuple[str, list[tuple[str, str, Any]]]] = {
        "tv": (tv, [("POST", "/viewing-time/heartbeat", beat | {"device_id": "tv"})]),
        "tablet": (phone, [("POST", "/viewing-time/heartbeat", beat | {"device_id": "tablet"})]),
        "both": (phone, [("POST", "/viewing-time/heartbeats", {"heartbeats": [beat, sibling]})]),
        "sibling": (phone, [("POST", "/viewing-time/heartbeat", sibling)]),
        "foreign": (
            cast.foreign_phone.token or "",
            [("POST", "/viewing-time/heartbeat", beat_of(cast.foreign_child, cast.cartoon))],
        ),
        "parent": (
            phone,
            [
                ("POST", grant_path(cast.child), {"minutes": 15}),
                ("PUT", config, {"weekday_limit_minutes": 60}),
                ("POST", f"/auth/profiles/{cast.child.id}/token", None),
                ("PUT", config, {"weekday_limit_minutes": None}),
            ],
        ),
    }
    if whole:
        players["maker"] = (phone, [("POST", "/auth/profiles", {"name": "New", "is_kids": True})])
    threads = [
        threading.Thread(target=play, args=(name, *player)) for name, player in players.items()
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert begun.acquire(timeout=LONG)
        line = Line(served, phone)
        path, body = erase_path(cast.child), {}
        if whole:
            path, body = ERASE, {"password": PASSWORD}
        told = line.post(path, body)
        ended_at = time.monotonic()
        # 503 where the makers of profiles, or somebody's lock, came first each time.
        while told.status == 503:
            assert time.monotonic() < ended_at + LONG
            told = line.post(path, body)
        assert told.status == 200, told.body
        assert line.post("/viewing-time/heartbeat", beat).status in {401, 404}
        # Those that were under way come to their end.
        time.sleep(0.3)
        line.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join(LONG)
    gone = [cast.child.id] if not whole else [cast.child.id, cast.sibling.id, cast.parent.id]
    assert wait_until(lambda: set(mentions(*gone)) <= {"erasures"}, LONG), mentions(*gone)
    assert statuses["foreign"] == {200}
    assert statuses["tv"] <= {200, 401, 404, 503}
    assert statuses["parent"] <= {200, 401, 404, 503}
    if whole:
        assert statuses["maker"] <= {201, 401, 404, 503}
        assert not Profile.objects.filter(account_id=cast.parent.id).exists()
    else:
        assert statuses["sibling"] == {200}
        assert ViewingSession.objects.filter(profile=cast.sibling, ended_at=None).count() == 1
    assert_invariant()
    Account.objects.all().delete()
    Profile.objects.all().delete()
    cast.cartoon.delete()


@pytest.mark.django_db(transaction=True)
def test_a_grant_that_takes_an_old_key_over_and_an_erasure_do_not_wait_for_each_other() -> None:
    """The grant holds its key and waits for the profile; the erasure keeps to that order."""
    cast = Cast()
    held, go = threading.Event(), threading.Event()

    def grant() -> str:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM idempotency_keys FOR UPDATE")
            held.set()
            go.wait(LONG)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM (SELECT FROM profiles WHERE id = %s FOR NO KEY UPDATE)"
                    " AS p",
                    [cast.child.id],
                )
                return str(cursor.fetchone()[0])

    headers = {"Idempotency-Key": "k"}
    cast.phone.send("POST", grant_path(cast.child), {"minutes": 15}, headers=headers)
    granting = in_thread(grant)
    assert held.wait(LONG)
    erasing = in_thread(
        lambda: erasure.erase_account(account_id=cast.parent.id, actor=audit.OPERATOR)
    )

    assert wait_until(somebody_waits, LONG)
    go.set()
    assert granting.result(LONG) == "1"
    assert erasing.result(LONG).deleted["idempotency_keys"] == 1


@pytest.mark.django_db(transaction=True)
def test_the_kept_answer_of_a_grant_that_had_the_child_first_goes_along() -> None:
    cast = Cast()
    held, go = threading.Event(), threading.Event()

    def grant() -> None:
        with transaction.atomic():
            IdempotencyKey.objects.create(
                account=cast.parent,
                route=grants.route(cast.child.id),
                key="k",
                fingerprint=b"a body",
                answer={},
            )
            ledgers.hold([cast.child.id])
            held.set()
            go.wait(LONG)

    granting = in_thread(grant)
    assert held.wait(LONG)
    erasing = in_thread(
        lambda: erasure.erase_profile(
            profile_id=cast.child.id, account_id=cast.parent.id, actor=audit.OPERATOR
        )
    )
    assert wait_until(somebody_waits, LONG)
    go.set()
    granting.result(LONG)
    assert erasing.result(LONG).deleted["idempotency_keys"] == 1
    assert mentions(cast.child.id) == {"erasures": 1}


@pytest.mark.django_db(transaction=True)
def test_a_pin_that_is_set_meanwhile_is_not_left_behind() -> None:
    cast = Cast()

    with transaction.atomic():
        erasure.erase_account(account_id=cast.parent.id, actor=audit.OPERATOR)
        pending = in_thread(
            lambda: verification.overwrite(cast.parent.id, PIN, actor=audit.OPERATOR)
        )
        assert wait_until(somebody_waits, LONG)
    with pytest.raises(IntegrityError):
        pending.result(LONG)
    assert mentions(cast.parent.id) == {"erasures": 1}
