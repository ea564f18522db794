"""Metrics while servers and workers fail under load: no beat is refused, and each is counted."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import psycopg
import pytest

from adminmetrics.tests.test_workers import staff_token
from parentalcontrols.embedded_servers import Valkey
from parentalcontrols.processes import wait_until
from pins.tests.service import (
    LONG,
    SOAK_SECONDS,
    Home,
    Line,
    Service,
    Unanswered,
    gunicorn,
    own_servers,
)
from viewingtime.tests.village import BEAT

HOMES = 6
FLUSH_SECONDS = 1
#: Seconds for which a server is away.
AWAY_SECONDS = SOAK_SECONDS if SOAK_SECONDS > 20 else SOAK_SECONDS / 2
#: Seconds that a hand-over itself, and whoever waits for the processor, may take on top.
SLACK_SECONDS = 3


@dataclass
class Town:
    """A service of two workers with servers of its own, and what its players were answered.

    `heard_at`: when each beat was answered that was taken, in seconds since 1970.
    """

    valkey: Valkey
    database_url: str
    service: Service
    homes: list[Home]
    heard_at: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Every child beats as fast as it is answered, until the end of the block."""
        stop = threading.Event()
        with ThreadPoolExecutor(len(self.homes)) as pool:
            players = [pool.submit(self._play, home, stop) for home in self.homes]
            try:
                self.await_more()
                yield
                self.await_more()
            finally:
                stop.set()
        for player in players:
            player.result()

    def _play(self, home: Home, stop: threading.Event) -> None:
        line = Line(self.service, home.child_tv)
        body = {"profile_id": home.child, "title_id": home.title, "device_id": "tv"}
        while not stop.is_set():
            try:
                told = line.post(BEAT, body)
            except Unanswered:
                self.unanswered += 1
                continue
            if told.status == 200:
                self.heard_at.append(time.time())
            else:
                self.refused[told.status] += 1
        line.close()

    def await_more(self) -> None:
        wanted = len(self.heard_at) + 10 * len(self.homes)
        assert wait_until(lambda: len(self.heard_at) >= wanted, LONG)

    def counted(self) -> int:
        """What the service's own metrics say."""
        with psycopg.connect(self.database_url, autocommit=True) as staff:
            token = staff_token(self.service, staff)
        line = Line(self.service, token)
        try:
            told = line.send("GET", "/admin/metrics")
        finally:
            line.close()
        assert told.status == 200, told.body
        return int(told.body["heartbeat"]["total_processed"])

    def was_told_by(self, pid: int) -> bool:
        """Whether a worker has handed over what it counted, at least once."""
        with psycopg.connect(self.database_url) as database:
            query = "SELECT 1 FROM metric_processes WHERE worker = %s"
            return database.execute(query, [str(pid)]).fetchone() is not None

    def has_two_workers_without(self, pid: int) -> bool:
        workers = {worker.pid for worker in self.service.workers()}
        return len(workers) == 2 and pid not in workers

    def assert_exact(self) -> None:
        """Every beat was taken, and is counted once."""
        assert (self.refused, self.unanswered) == ({}, 0)
        assert wait_until(lambda: self.counted() >= len(self.heard_at), LONG)
        assert self.counted() == len(self.heard_at)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, Valkey, dict[str, str]]]:
    """The database's address, the cache, and the variables that name it."""
    with own_servers() as (_, valkey, environment):
        yield environment.pop("DATABASE_URL"), valkey, environment


@pytest.fixture
def town(servers: tuple[str, Valkey, dict[str, str]]) -> Iterator[Town]:
    database_url, valkey, environment = servers
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("TRUNCATE metric_rollups, metric_processes")
    flush = str(FLUSH_SECONDS)
    with gunicorn(
        database_url,
        WORKERS="2",
        METRICS_FLUSH_SECONDS=flush,
        DEMO="true",
        # Every town registers the same people.
        RATELIMIT_ENABLED="false",
        **environment,
    ) as service:
        homes = [Home.made_by(service, database_url) for _ in range(HOMES)]
        yield Town(valkey, database_url, service, homes)


def test_with_the_cache_killed_every_beat_is_taken_and_counted(town: Town) -> None:
    with town.playing():
        psutil.Process(town.valkey.pid).kill()
        assert wait_until(lambda: town.service.get("/readyz").json()["cache"] != "ok", LONG)
        time.sleep(AWAY_SECONDS)
        town.valkey.stop()
        town.valkey.start()
        assert wait_until(lambda: town.service.get("/readyz").json()["cache"] == "ok", LONG)
    town.assert_exact()


@pytest.mark.parametrize("way", ["held", "refused"])
def test_while_roll_ups_cannot_be_written_every_beat_is_taken_and_counted_afterwards(
    town: Town, way: str
) -> None:
    failing, mending = {
        # Behind a pooler a transaction that does nothing would be ended.
        "held": (
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; "
            "LOCK TABLE metric_rollups IN EXCLUSIVE MODE",
            "COMMIT",
        ),
        "refused": (
            "REVOKE INSERT, UPDATE ON metric_rollups FROM CURRENT_USER",
            "GRANT INSERT, UPDATE ON metric_rollups TO CURRENT_USER",
        ),
    }[way]
    with psycopg.connect(town.database_url, autocommit=True) as somebody, town.playing():
        assert wait_until(lambda: town.counted() > 0, LONG)
        somebody.execute(failing)
        time.sleep(AWAY_SECONDS)
        # The pages tell what was handed over before, rather than nothing.
        before, taken = town.counted(), len(town.heard_at)
        assert 0 < before < taken
        town.await_more()
        assert town.counted() == before
        somebody.execute(mending)
    town.assert_exact()


def test_a_worker_that_is_killed_under_load_loses_the_counts_of_its_last_seconds_at_most(
    town: Town,
) -> None:
    with town.playing():
        time.sleep(AWAY_SECONDS)
        victim = town.service.workers()[0]
        assert wait_until(lambda: town.was_told_by(victim.pid), LONG)
        killed_at = time.time()
        victim.kill()
        assert wait_until(lambda: town.has_two_workers_without(victim.pid), LONG)
    assert not town.refused
    # All others hand over whatever they counted when they end.
    town.service.process.terminate()
    town.service.process.wait(LONG)
    with psycopg.connect(town.database_url) as database:
        (counted,) = database.execute(
            "SELECT sum(count)::bigint FROM metric_rollups WHERE name = 'heartbeats'"
        ).fetchone()
        (handed_over_at,) = database.execute(
            "SELECT extract(epoch FROM seen_at)::float8 FROM metric_processes WHERE worker = %s",
            [str(victim.pid)],
        ).fetchone()
    assert handed_over_at >= killed_at - FLUSH_SECONDS - SLACK_SECONDS
    # What the victim handed over was counted up to a moment before.
    since = [at for at in town.heard_at if handed_over_at - 1 < at < killed_at + 1]
    taken = len(town.heard_at)
    assert len(since) < taken
    assert taken - len(since) <= counted <= taken + town.unanswered
