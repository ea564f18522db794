"""A database that hangs or is restarted while many players beat: honest, in time, nothing lost."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from parentalcontrols.embedded_servers import Postgres
from parentalcontrols.processes import wait_until
from pins.tests.service import (
    LONG,
    Home,
    Line,
    Service,
    Told,
    Unanswered,
    gunicorn,
    hung,
    own_servers,
    server_processes,
)
from viewingtime.tests.village import BEAT, at_the_same_time, instant

#: Seconds within which a player is answered, come what may (domain.md section 4).
DEADLINE = 2.0
#: Seconds within which the service heals by itself once a server is back.
RECOVERY = 5.0
HOMES, LINES = 6, 5


@dataclass
class Evening:
    """A service with a database of its own, and players in front of it."""

    postgres: Postgres
    service: Service
    homes: list[Home]
    told: list[Told] = field(default_factory=list)

    def beats(self) -> list[tuple[Line, dict[str, Any]]]:
        """One for each child on each of its lines."""
        return [
            (
                Line(self.service, home.child_tv),
                {"profile_id": home.child, "title_id": home.title, "device_id": "tv"},
            )
            for home in self.homes
            for _ in range(LINES)
        ]

    def is_well(self) -> bool:
        return all(home.beat(self.service).status_code == 200 for home in self.homes)

    def assert_exact(self) -> None:
        """Sessions add up to the balances, and each counts what has passed, once."""
        with psycopg.connect(self.postgres.url) as database:
            # A beat that nobody waits for any more may be booked at this moment.
            database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            sums = database.execute(
                "SELECT profile_id, sum(total_seconds) FROM viewing_sessions GROUP BY profile_id"
            ).fetchall()
            balances = database.execute(
                "SELECT profile_id, sum(used_seconds + educational_seconds) "
                "FROM viewing_time_balances GROUP BY profile_id"
            ).fetchall()
            assert sorted(sums) == sorted(balances)
            sessions = database.execute(
                "SELECT coalesce(ended_at, last_heartbeat_at) - started_at, total_seconds "
                "FROM viewing_sessions"
            ).fetchall()
        for elapsed, total in sessions:
            assert total == Decimal(elapsed // timedelta(microseconds=1)) / 1_000_000


@pytest.fixture(scope="module")
def evening() -> Iterator[Evening]:
    with (
        own_servers() as (postgres, _, environment),
        gunicorn(
            environment.pop("DATABASE_URL"), WORKERS="2", DEMO="true", **environment
        ) as service,
    ):
        yield Evening(
            postgres, service, [Home.made_by(service, postgres.url) for _ in range(HOMES)]
        )


@pytest.mark.parametrize("kind", ["first", "first, with idle connections in the pool", "steady"])
def test_with_the_database_hung_all_of_a_crowd_are_refused_in_time_and_it_heals(
    evening: Evening, kind: str
) -> None:
    assert wait_until(evening.is_well, LONG)
    beats = evening.beats()
    if kind == "steady":
        for line, body in beats:
            body["session_id"] = line.post(BEAT, body).body["session_id"]
    elif kind != "first":
        # One of a transaction that fails is not to be taken for one that has begun.
        pages = at_the_same_time(
            [lambda home=home: balance(evening, home) for home in evening.homes * 3]
        )
        assert set(pages) == {200}
    with hung(evening.postgres):
        for _ in range(2):
            told = at_the_same_time(
                [lambda line=line, body=body: line.post(BEAT, body) for line, body in beats]
            )
            for answer in told:
                assert answer.is_honest_refusal
                assert answer.heard_at - answer.sent_at < DEADLINE * 1_000_000
    assert wait_until(evening.is_well, RECOVERY)
    told = at_the_same_time(
        [lambda line=line, body=body: line.post(BEAT, body) for line, body in beats]
    )
    assert Counter(answer.status for answer in told) == {200: len(beats)}
    for line, _ in beats:
        line.close()
    evening.assert_exact()


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_database_that_is_restarted_under_load_loses_nothing_and_heals(
    evening: Evening, way: str
) -> None:
    assert wait_until(evening.is_well, LONG)
    stop = threading.Event()
    last: dict[str, int] = {}
    outcomes: Counter[str] = Counter()

    def play(line: Line, body: dict[str, Any]) -> None:
        while not stop.is_set():
            try:
                told = line.post(BEAT, body)
            except Unanswered:
                outcomes["unanswered"] += 1
                continue
            if told.status == 200:
                outcomes["taken"] += 1
                body["session_id"] = told.body["session_id"]
                last[body["session_id"]] = told.sent_at
            else:
                assert told.is_honest_refusal
                outcomes["refused"] += 1
                stop.wait(0.05)

    # One line a child: who beats without its answer in hand is another test's matter.
    beats = evening.beats()
    playing_lines, idle = beats[::LINES], beats[1::LINES]
    with ThreadPoolExecutor(HOMES) as pool:
        playing = [pool.submit(play, *beat) for beat in playing_lines]

        def await_more() -> None:
            wanted = outcomes["taken"] + 10 * HOMES
            assert wait_until(lambda: outcomes["taken"] >= wanted, LONG)

        await_more()
        # Connections of ordinary requests, which are in the pool when the database goes.
        pages = at_the_same_time(
            [lambda home=home: balance(evening, home) for home in evening.homes * 3]
        )
        assert set(pages) == {200}
        if way == "killed":
            for process in server_processes(evening.postgres):
                process.kill()
        evening.postgres.stop()
        evening.postgres.start()
        began = time.monotonic()
        before = outcomes["taken"]
        assert wait_until(lambda: outcomes["taken"] > before + HOMES, RECOVERY)
        assert wait_until(evening.is_well, RECOVERY - (time.monotonic() - began))
        # An ordinary request finds no connection of before the restart.
        pages = at_the_same_time(
            [lambda home=home: balance(evening, home) for home in evening.homes * 3]
        )
        assert set(pages) == {200}
        await_more()
        stop.set()
        for future in playing:
            future.result()
    for line, _ in [*playing_lines, *idle]:
        line.close()
    assert outcomes["unanswered"] == 0
    with psycopg.connect(evening.postgres.url) as database:
        for session, sent_at in last.items():
            (beaten_at,) = database.execute(
                "SELECT last_heartbeat_at FROM viewing_sessions WHERE id = %s", [session]
            ).fetchone()
            assert beaten_at >= instant(sent_at)
    evening.assert_exact()


def balance(evening: Evening, home: Home) -> int:
    line = Line(evening.service, home.parent)
    try:
        return line.send("GET", f"/viewing-time/balance/{home.child}").status
    finally:
        line.close()
