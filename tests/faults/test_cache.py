"""Valkey is killed, hung, slow or unreachable while everybody plays: an outage to nobody."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psutil
import pytest
from redis import Redis

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Line, Service, gunicorn, hung
from tests.faults.books import DEADLINES, SECOND
from tests.faults.evening import FAULT_SECONDS, evening
from tests.faults.proxy import Proxy
from tests.faults.stage import Household, Stage
from viewingtime.tests.village import BEAT

#: Changes while Valkey hangs, each after another number of others.
ROUNDS = max(4, round(FAULT_SECONDS))


def test_a_kill_of_valkey_refuses_no_beat(stage: Stage, undying: Service) -> None:
    with evening("valkey-killed", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            psutil.Process(stage.valkey.pid).kill()
            stage.valkey.stop()
            playing.endure()
            stage.valkey.start()
    assert playing.refused == 0


def test_a_valkey_that_hangs_refuses_no_beat(stage: Stage, undying: Service) -> None:
    with evening("valkey-hung", stage, undying) as playing:
        playing.play_on()
        with playing.fault(), hung(stage.valkey):
            playing.endure()
    assert playing.refused == 0


@dataclass
class Pair:
    """Two instances: limits are changed at one, and a child plays at the other."""

    stage: Stage
    home: Household
    cache: Redis
    parent: Line
    player: Line
    session_id: str | None = None

    def is_cached(self) -> bool:
        """Whether there is an entry of the first child, not just the place of one."""
        child = self.home.children[0]
        values = [self.cache.get(key) for key in self.cache.scan_iter(f"*configs*{child}")]
        return any(isinstance(v, bytes) and not v.startswith(b"lease ") for v in values)

    def is_playing(self) -> bool:
        """Beats for the session that is open; only such a beat is judged by what the cache has."""
        beat: dict[str, Any] = {
            "profile_id": str(self.home.children[0]),
            "title_id": str(self.home.title),
            "device_id": "tv",
            "session_id": self.session_id,
        }
        told = self.player.post(BEAT, beat)
        assert told.status == 200
        self.session_id = told.body["session_id"]
        return bool(told.body["enforcement"] != "blocked")

    def change(self, child: UUID, *, is_exempt: bool) -> None:
        """Is answered in time, whatever becomes of the cache."""
        told = self.parent.send("PUT", config_path(child), {"educational_exempt": is_exempt})
        assert told.status == 200
        assert told.heard_at - told.sent_at < DEADLINES["beat"] * SECOND


@pytest.fixture
def pair(stage: Stage) -> Iterator[Pair]:
    """Two children who have used up their time, and learn."""
    home = stage.household(2, minutes=15, watched=900, learns=True)
    with (
        gunicorn(stage.postgres.url, WORKERS="1", REDIS_URL=stage.valkey.url) as changing,
        gunicorn(stage.postgres.url, WORKERS="1", REDIS_URL=stage.valkey.url) as quiet,
        closing(Line(changing, home.token)) as parent,
        closing(Line(quiet, home.token)) as player,
        Redis(
            unix_socket_path=str(stage.valkey.socket_path), password=stage.valkey.password
        ) as cache,
    ):
        yield Pair(stage, home, cache, parent, player)


def test_a_change_made_while_valkey_hung_is_known_to_who_noticed_nothing(pair: Pair) -> None:
    """Limits are changed at one instance; nobody beats at the other until Valkey goes on."""
    child, sibling = pair.home.children
    for round_ in range(ROUNDS):
        pair.change(child, is_exempt=True)
        # The quiet one is back from the round before, and what was set there is in the cache.
        assert wait_until(lambda: pair.is_playing() and pair.is_cached(), LONG)
        with hung(pair.stage.valkey):
            # On a connection that is there an invalidation is heard when Valkey goes on. That
            # of the second change needs another one, and is lost.
            for changed in (*[sibling] * (1 + round_ % 2), child):
                pair.change(changed, is_exempt=changed is sibling)
        assert not pair.is_playing(), round_


@contextmanager
def paused(cache: Redis) -> Iterator[None]:
    """As in a failover: readers are answered, and writers wait."""
    cache.execute_command("CLIENT", "PAUSE", round(LONG * 1000), "WRITE")
    try:
        yield
    finally:
        cache.execute_command("CLIENT", "UNPAUSE")


@contextmanager
def without_replicas(cache: Redis) -> Iterator[None]:
    """Readers are answered, and writers refused."""
    cache.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        cache.config_set("min-replicas-to-write", 0)


@contextmanager
def replicating(cache: Redis) -> Iterator[None]:
    """The same by one that became a replica, of a server that is not there."""
    cache.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        cache.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("read_only", [paused, without_replicas, replicating])
def test_a_change_made_while_valkey_takes_no_write_is_known_to_all_when_it_is_answered(
    pair: Pair, read_only: Callable[[Redis], AbstractContextManager[None]]
) -> None:
    child = pair.home.children[0]
    pair.change(child, is_exempt=True)
    assert wait_until(lambda: pair.is_playing() and pair.is_cached(), LONG)
    with read_only(pair.cache):
        pair.change(child, is_exempt=False)
        assert not pair.is_playing()
        pair.change(child, is_exempt=True)
        assert pair.is_playing()
        pair.change(child, is_exempt=False)
    assert not pair.is_playing()
    assert wait_until(lambda: not pair.is_playing() and pair.is_cached(), LONG)


def config_path(child: UUID) -> str:
    return f"/parental-controls/profiles/{child}/viewing-time"


def test_a_valkey_that_is_slow_or_unreachable_refuses_no_beat(stage: Stage) -> None:
    with (
        Proxy(stage.valkey.socket_path) as proxy,
        gunicorn(
            stage.postgres.url,
            WORKERS="2",
            REDIS_URL=f"redis://:{stage.valkey.password}@127.0.0.1:{proxy.port}/0",
        ) as service,
        evening("valkey-slow", stage, service) as playing,
    ):
        playing.play_on()
        # Slow, but answering within the time that is waited for it; then slower than that.
        for delay in (0.05, 0.2):
            with playing.fault():
                proxy.delay = delay
                playing.endure()
                proxy.delay = 0.0
            playing.play_on()
        with playing.fault():
            proxy.swallows = True
            playing.endure()
            proxy.swallows = False
    assert playing.refused == 0
