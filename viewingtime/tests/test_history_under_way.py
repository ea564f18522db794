"""A long history, read page after page while the child goes on watching."""

import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from parentalcontrols.authentication import Caller
from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.tests.cast import Cast, assert_invariant, database_now
from viewingtime import heartbeats
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.tests import stored
from viewingtime.tests.test_history import pages, sessions_of

STORED, ARRIVING = 5_000, 200
HOUR = timedelta(hours=1)


@pytest.mark.django_db(transaction=True)
def test_five_thousand_sessions_are_read_once_each_while_two_hundred_more_arrive(
    cast: Cast,
) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=None
    )
    reset_hour = ViewingTimeConfig.objects.get(profile=cast.child).reset_hour
    stored.store(
        cast.child,
        [cast.cartoon, cast.documentary],
        count=STORED,
        newest=database_now() - HOUR,
        # The day began at least 11 hours ago: 29 days back is the first of the thirty.
        over=timedelta(days=29),
        reset_hour=reset_hour,
    )
    ids = {str(id_) for id_ in ViewingSession.objects.values_list("id", flat=True)}
    expected = expected_sums()
    assert len(ids) == STORED
    assert len(expected) == 30

    listed: list[str] = []
    lasted: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    caller = Caller(cast.parent.id, cast.parent.token_version, "account")
    may_arrive = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as pool:
        arrived: Future[int] = pool.submit(arrive, cast, caller, may_arrive)
        try:
            for page in pages(cast.phone, cast.child):
                # From here on the next ones arrive, while the next page is read.
                may_arrive.release(ARRIVING // (STORED // 100))
                listed += [session["session_id"] for session in sessions_of(page)]
                for day in page["days"]:
                    lasted[day["date"]].add(sums_of(day))
        finally:
            may_arrive.release(ARRIVING)
        assert arrived.result(timeout=60) == ARRIVING

    assert len(listed) == len(set(listed)) == STORED
    assert set(listed) == ids
    # The same on every page that showed the day, and exact.
    assert lasted == {day: {sums} for day, sums in expected.items()}

    anew = [s["session_id"] for page in pages(cast.phone, cast.child) for s in sessions_of(page)]
    assert len(anew) == len(set(anew)) == STORED + ARRIVING
    assert anew[ARRIVING:] == listed
    assert_invariant()


def arrive(cast: Cast, caller: Caller, may_arrive: threading.Semaphore) -> int:
    """Opens session after session, each on another device; by a connection of its own."""
    try:
        for number in range(ARRIVING):
            assert may_arrive.acquire(timeout=60)
            beat = Heartbeat(cast.child.id, cast.cartoon.id, f"device {number}")
            (answer,) = heartbeats.process([beat], caller)
            assert isinstance(answer, Answer)
        return ARRIVING
    finally:
        connection.close()


def expected_sums() -> dict[str, tuple[float, ...]]:
    """What each day has to tell, by its balance."""
    return {
        balance.reset_date.isoformat(): tuple(
            minutes(seconds)
            for seconds in (
                balance.used_seconds + balance.educational_seconds,
                balance.educational_seconds,
                balance.used_seconds,
            )
        )
        for balance in ViewingTimeBalance.objects.all()
    }


def sums_of(day: dict[str, Any]) -> tuple[float, ...]:
    return day["total_minutes"], day["educational_minutes"], day["counted_minutes"]


def minutes(seconds: Decimal) -> float:
    return round(float(seconds) / 60, 2)
