"""Workers that are killed, replaced and stopped under load: what was answered is stored, once."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import psutil
import pytest

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import (
    LONG,
    SOAK_SECONDS,
    Line,
    Service,
    Unanswered,
    database_of_tests,
    gunicorn,
)
from viewingtime.models import ViewingSession
from viewingtime.tests.village import BEAT, Child, children, instant, told_session

pytestmark = pytest.mark.django_db(transaction=True)
KILLS = max(3, round(SOAK_SECONDS / 3))
RELOADS = max(1, round(SOAK_SECONDS / 20))
PLAYERS = 24
#: Seconds within which a service that is told to stop has ended, idle connections or not.
STOP_SECONDS = 10.0


class Player:
    """Beats without a pause for one child, and keeps what it was told."""

    def __init__(self, child: Child, service: Service) -> None:
        self.child = child
        self.line = Line(service, child.token)
        self.session: str | None = None
        #: Per session when the last beat was sent that was answered with success.
        self.sent_at: dict[str, int] = {}
        self.outcomes: Counter[str] = Counter()
        self.began_at = time.time_ns() // 1000

    def play(self, stop: threading.Event) -> None:
        used = 0.0
        while not stop.is_set():
            try:
                told = self.line.post(BEAT, self.child.beat(self.session))
            except Unanswered:
                self.outcomes["unanswered"] += 1
                stop.wait(0.02)
                continue
            if told.status != 200:
                assert told.is_honest_refusal, told
                self.outcomes["refused"] += 1
                stop.wait(0.02)
                continue
            self.outcomes["taken"] += 1
            assert told.body["enforcement"] == "allowed"
            assert told.body["used_minutes"] >= used
            used = told.body["used_minutes"]
            self.session = str(told_session(told))
            self.sent_at[self.session] = told.sent_at
            if self.outcomes["taken"] % 20 == 0:
                # The next connection may be another worker's.
                self.line.close()
        self.line.close()

    def judge(self) -> None:
        """Every beat that was answered is stored, and no time is counted twice."""
        rows = {str(s.id): s for s in ViewingSession.objects.filter(profile=self.child.profile)}
        for session, sent_at in self.sent_at.items():
            assert rows[session].last_heartbeat_at >= instant(sent_at)
        for row in rows.values():
            until = row.ended_at or row.last_heartbeat_at
            assert row.total_seconds == exactly(until - row.started_at)
        total = exactly(timedelta(microseconds=time.time_ns() // 1000 - self.began_at))
        assert sum(row.total_seconds for row in rows.values()) <= total
        assert sum(row.ended_at is None for row in rows.values()) == 1


def exactly(amount: timedelta) -> Decimal:
    """Seconds, to the microsecond."""
    return Decimal(amount // timedelta(microseconds=1)) / 1_000_000


class Crowd:
    """Players who play at the same time."""

    def __init__(self, players: list[Player]) -> None:
        self.players = players

    @property
    def outcomes(self) -> Counter[str]:
        return sum((player.outcomes for player in self.players), Counter())

    def await_more(self, beats: int = 5 * PLAYERS) -> None:
        """Waits until so many more beats were taken."""
        wanted = self.outcomes["taken"] + beats
        assert wait_until(lambda: self.outcomes["taken"] >= wanted, LONG)


@contextmanager
def crowd(service: Service) -> Iterator[Crowd]:
    """Players, inside; afterwards they are judged."""
    players = [Player(child, service) for child in children(PLAYERS)]
    stop = threading.Event()
    with ThreadPoolExecutor(PLAYERS) as pool:
        playing = [pool.submit(player.play, stop) for player in players]
        try:
            yield Crowd(players)
        finally:
            stop.set()
        for future in playing:
            future.result()
    for player in players:
        player.judge()
    assert_invariant()


def connections_of(worker: psutil.Process) -> int:
    return sum(c.status == psutil.CONN_ESTABLISHED for c in worker.net_connections("tcp"))


def pids(service: Service) -> set[int]:
    return {worker.pid for worker in service.workers()}


def test_of_workers_that_are_killed_no_answered_beat_is_lost_and_none_counts_twice(
    transactional_db: None,
) -> None:
    choose = random.Random(0)
    with gunicorn(database_of_tests(), WORKERS="2") as service, crowd(service) as playing:
        for round_ in range(KILLS):
            playing.await_more(choose.randrange(1, 8 * PLAYERS))
            victim = choose.choice(service.workers())
            if round_ % 2 == 0:
                # One that answers, not one that is still starting.
                victim = max(service.workers(), key=connections_of)
            victim.kill()

            def is_replaced(dead: int = victim.pid) -> bool:
                return len(pids(service) - {dead}) == 2

            # Nobody but the service does anything about it.
            assert wait_until(is_replaced, LONG)
        playing.await_more()
        assert playing.outcomes["unanswered"] >= 1


def test_a_reload_under_load_answers_every_beat(transactional_db: None) -> None:
    with gunicorn(database_of_tests(), WORKERS="2") as service, crowd(service) as playing:
        for _ in range(RELOADS):
            playing.await_more()
            before = pids(service)
            service.process.send_signal(signal.SIGHUP)

            def is_replaced(before: set[int] = before) -> bool:
                now = pids(service)
                return len(now) == 2 and now.isdisjoint(before)

            assert wait_until(is_replaced, LONG)
        playing.await_more()
        assert playing.outcomes["unanswered"] == 0


def test_a_stop_under_load_ends_soon_although_idle_connections_are_open(
    transactional_db: None,
) -> None:
    (idle_child,) = children(1)
    with gunicorn(database_of_tests(), WORKERS="2") as service:
        idle_child.connect(service, 40)
        try:
            for line in idle_child.lines[::2]:
                assert line.post(BEAT, idle_child.beat()).status == 200
            with crowd(service) as playing:
                playing.await_more()
                began = time.monotonic()
                service.process.send_signal(signal.SIGTERM)
                assert wait_until(lambda: service.process.poll() is not None, LONG)
                assert time.monotonic() - began < STOP_SECONDS
        finally:
            idle_child.hang_up()
        assert service.process.returncode == 0


def test_a_stop_that_finds_a_worker_starting_ends_soon_too(transactional_db: None) -> None:
    with gunicorn(database_of_tests(), WORKERS="2") as service:
        (victim, *_) = service.workers()
        victim.kill()
        assert wait_until(lambda: len(pids(service) - {victim.pid}) == 2, LONG)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: service.process.poll() is not None, LONG)
        assert time.monotonic() - began < STOP_SECONDS


def test_at_a_stop_a_kept_connection_is_answered_and_told_to_connect_anew(
    transactional_db: None,
) -> None:
    (child,) = children(1)
    with gunicorn(database_of_tests(), WORKERS="1") as service:
        child.connect(service)
        (line,) = child.lines
        session = told_session(line.post(BEAT, child.beat()))
        (worker,) = service.workers()
        service.process.send_signal(signal.SIGTERM)
        connection = None
        while connection != "close":
            told = line.post(BEAT, child.beat(session))
            assert told_session(told) == session
            connection = told.headers["Connection"]
        line.close()
        # The last one gone, nothing is waited for.
        assert wait_until(lambda: not psutil.pid_exists(worker.pid), STOP_SECONDS)
    row = ViewingSession.objects.get(id=session)
    assert row.last_heartbeat_at >= instant(told.sent_at)


def test_files_are_served_whole(served: Service) -> None:
    for path in (
        "/static/admin/css/base.css",
        "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css",
    ):
        answer = served.get(path)
        assert answer.status_code == 200
        assert len(answer.content) == int(answer.headers["Content-Length"]) > 1000
        assert answer.headers["Content-Type"].startswith("text/css")
