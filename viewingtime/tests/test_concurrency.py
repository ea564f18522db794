"""Races, with real threads that each own a connection to a real server."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.db.models import F, Sum
from model_bakery import baker

from parentalcontrols import profiles
from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Title, ViewingTimeConfig
from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from pins import audit
from viewingtime import grants, heartbeats, ledger, ledgers, limits, sql
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer, Enforcement
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance

pytestmark = pytest.mark.django_db(transaction=True)


class Household:
    """An account with children, and beats for them."""

    def __init__(self, children: int = 1) -> None:
        self.account = baker.make(Account, email=f"{uuid4()}@example.com", is_active=True)
        self.caller = Caller(self.account.id, self.account.token_version, "account")
        self.children = [
            profiles.create(account=self.account, name=f"child {n}", is_kids=True).id
            for n in range(children)
        ]
        self.title = baker.make(Title, title="cartoon", artwork_url="").id

    def beat(self, child: UUID, session_id: UUID | None = None, device: str = "tv") -> Heartbeat:
        return Heartbeat(child, self.title, device, session_id=session_id)

    def send(self, *beats: Heartbeat) -> list[Answer]:
        answers = heartbeats.process(beats, self.caller)
        assert all(isinstance(answer, Answer) for answer in answers)
        return answers

    def grant(self, child: UUID, minutes: int | None = 15) -> grants.Granted:
        return grants.grant(
            profile_id=child,
            account_id=self.account.id,
            minutes=minutes,
            is_remote=True,
            actor=audit.OPERATOR,
        )

    def change(self, child: UUID, changes: dict[str, Any]) -> ViewingTimeConfig:
        return limits.change(
            profile_id=child, account_id=self.account.id, changes=changes, actor=audit.OPERATOR
        )

    def open(self, child: UUID) -> UUID:
        session_id = self.send(self.beat(child))[0].session_id
        assert session_id is not None
        return session_id


def pass_time(seconds: float) -> None:
    """Moves everything that was watched back, as if that time had passed."""
    by = timedelta(seconds=seconds)
    ViewingSession.objects.update(
        started_at=F("started_at") - by, last_heartbeat_at=F("last_heartbeat_at") - by
    )


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Runs the calls at the same moment, each in a thread with a connection of its own."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, c) for c in calls]]


def assert_invariant() -> None:
    """Per child and day: the sessions' totals are what the balance says, to the microsecond."""
    sessions = {
        (row["profile_id"], row["reset_date"]): row["total"]
        for row in ViewingSession.objects.filter(is_kids=True)
        .values("profile_id", "reset_date")
        .annotate(total=Sum("total_seconds"))
    }
    balances = {
        (b.profile_id, b.reset_date): b.used_seconds + b.educational_seconds
        for b in ViewingTimeBalance.objects.all()
    }
    assert {k: v for k, v in sessions.items() if v} == {k: v for k, v in balances.items() if v}


@pytest.fixture
def home() -> Iterator[Household]:
    yield Household()
    assert_invariant()


def test_32_racing_first_beats_leave_one_open_session(home: Household) -> None:
    child = home.children[0]
    at_once(*[lambda n=n: home.send(home.beat(child, device=f"device {n}")) for n in range(32)])
    assert ViewingSession.objects.filter(ended_at=None).count() == 1
    assert ViewingSession.objects.filter(end_reason="superseded").count() == 31


def test_50_copies_of_one_beat_credit_the_interval_once(home: Household) -> None:
    child = home.children[0]
    session_id = home.open(child)
    pass_time(100)
    before = ViewingSession.objects.get()
    at_once(*[lambda: home.send(home.beat(child, session_id)) for _ in range(50)])
    after = ViewingSession.objects.get()
    elapsed = after.last_heartbeat_at - before.last_heartbeat_at
    assert after.total_seconds == before.total_seconds + Decimal(
        elapsed // timedelta(microseconds=1)
    ) / Decimal(1_000_000)
    assert 100 <= after.total_seconds < 110


def test_copies_of_a_beat_that_changes_the_title_open_one_session(home: Household) -> None:
    child = home.children[0]
    session_id = home.open(child)
    pass_time(60)
    other = baker.make(Title, title="other", artwork_url="").id
    beat = Heartbeat(child, other, "tv", session_id=session_id)
    answers = at_once(*[lambda: home.send(beat)[0].session_id for _ in range(16)])
    assert len(set(answers)) == 1
    assert ViewingSession.objects.count() == 2


def test_opposed_batches_of_100_do_not_deadlock() -> None:
    home = Household(children=100)
    sessions = {child: home.open(child) for child in home.children}
    pass_time(30)
    steady = [home.beat(child, sessions[child]) for child in home.children]
    # Half of these are steady, half open a session anew: both paths cross each other.
    mixed = [
        home.beat(child, sessions[child] if n % 2 else None)
        for n, child in enumerate(home.children)
    ]

    def send_all(beats: list[Heartbeat]) -> None:
        for _ in range(5):
            home.send(*beats)

    at_once(
        lambda: send_all(steady),
        lambda: send_all(steady[::-1]),
        lambda: send_all(mixed),
        lambda: send_all(mixed[::-1]),
        lambda: ledgers.close_silent(batch=7),
    )
    assert ViewingSession.objects.filter(ended_at=None).count() == 100
    assert_invariant()


def test_a_beat_that_waited_for_the_profile_sees_the_session_that_was_opened_meanwhile(
    home: Household,
) -> None:
    """The snapshot of the statement that waits is older than what it waits for."""
    child = home.children[0]
    first = home.open(child)
    pass_time(400)
    # The session is stale: of all the beats that find it so, one opens a fresh session, and the
    # others go on with that one.
    answers = at_once(*[lambda: home.send(home.beat(child, first))[0] for _ in range(24)])
    assert len({answer.session_id for answer in answers}) == 1
    assert {answer.enforcement for answer in answers} == {Enforcement.ALLOWED}
    assert ViewingSession.objects.count() == 2
    assert ViewingSession.objects.get(id=first).total_seconds == 30


def test_racing_grants_beats_and_ends_lose_nothing(home: Household) -> None:
    child = home.children[0]
    for _ in range(10):
        session_id = home.open(child)
        pass_time(20)
        at_once(
            *[lambda: home.grant(child) for _ in range(2)],
            *[lambda s=session_id: home.send(home.beat(child, s)) for _ in range(3)],
            lambda s=session_id: heartbeats.end(s, home.caller),
            ledgers.close_silent,
        )
        assert_invariant()
    assert TimeGrant.objects.count() == 20
    assert ViewingTimeBalance.objects.get().granted_seconds == 20 * 15 * 60


def test_a_new_limit_is_in_force_for_a_day_that_begins_at_the_same_moment(home: Household) -> None:
    child = home.children[0]
    both = {"weekday_limit_minutes": 30, "weekend_limit_minutes": 30}
    for round_ in range(20):
        ViewingTimeBalance.objects.all().delete()
        ViewingSession.objects.all().delete()
        minutes = 15 + 15 * (round_ % 10)
        both = {"weekday_limit_minutes": minutes, "weekend_limit_minutes": minutes}
        at_once(
            lambda: home.send(home.beat(child)),
            lambda changes=both: home.change(child, changes),
        )
        assert ViewingTimeBalance.objects.get().limit_seconds == minutes * 60


def test_a_missing_config_is_made_once_with_the_defaults(home: Household) -> None:
    child = home.children[0]
    ViewingTimeConfig.objects.all().delete()
    at_once(*[lambda: home.send(home.beat(child)) for _ in range(8)])
    assert ViewingTimeConfig.objects.get().weekday_limit_minutes == 120


def test_an_outdated_reader_holds_no_balance_while_it_asks_for_the_session_it_missed(
    home: Household,
) -> None:
    """A grant waits for the profile, a session opens, and its first steady beat comes at once."""
    child = home.children[0]
    heartbeats.end(home.open(child), home.caller)
    outdated, beating = threading.Event(), threading.Event()
    rounds: list[int] = []

    def between_rounds(execute: Any, query: str, *rest: Any) -> Any:
        if query == sql.LOCK_AND_READ:
            rounds.append(len(rounds))
            if len(rounds) == 2:
                outdated.set()
                assert beating.wait(10)
        return execute(query, *rest)

    def give() -> object:
        with connection.execute_wrapper(between_rounds):
            return home.grant(child)

    def beat_in_between(session_id: UUID) -> object:
        assert outdated.wait(10)
        try:
            return home.send(home.beat(child, session_id))
        finally:
            beating.set()

    with transaction.atomic():
        held = ledgers.hold([child])
        granted = in_thread(give)
        assert wait_until(somebody_waits_for_a_lock, 10)
        after, answer = ledger.transition(
            held.ledgers[child],
            held.viewers[child],
            ledger.Beat(ledger.Title(home.title), "tv"),
            held.now,
            uuid4,
        )
        ledgers.write_back(held, {child: after})
    assert answer.session_id is not None
    beat = in_thread(lambda: beat_in_between(answer.session_id))
    granted.result(timeout=20)
    beat.result(timeout=20)
    assert len(rounds) == 2


@pytest.mark.direct("it sets a limit of its own session")
def test_a_batch_tells_what_it_credited_when_another_child_is_stuck() -> None:
    home = Household(children=2)
    free, stuck = home.children
    session_id = home.open(free)
    pass_time(60)
    with transaction.atomic():
        ledgers.hold([stuck])

        def send() -> list[object]:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = 200")
            return heartbeats.process([home.beat(free, session_id), home.beat(stuck)], home.caller)

        credited, refused = in_thread(send).result(timeout=20)
    assert isinstance(credited, Answer)
    assert credited.used >= timedelta(seconds=60)
    assert isinstance(refused, Problem)
    assert refused.status == 503
    assert_invariant()


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Runs a call in a thread with a connection of its own."""
    pool = ThreadPoolExecutor(1)

    def run() -> Any:
        try:
            return call()
        finally:
            connection.close()

    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        # Here: other tests run in other databases of the same server.
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN ("
            "SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
            "WHERE d.datname = current_database())"
        )
        return bool(cursor.fetchone() != (0,))
