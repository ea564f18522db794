"""The drill of docs/runbooks.md: a base backup under load, a restore to a point in time, a ledger.

What was acknowledged before that point is there, to the microsecond; nothing of after it is. A
child's state changes with its own beats alone, which follow one another, so that the ledger knows
it after each; between the two acknowledgements around the point either may be the restored one.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
import redis

from parentalcontrols.config_cache import Known
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import PASSWORD
from pins.tests.service import LONG, PYTHON, ROOT, Line, Service, gunicorn
from tests.restore.cluster import Cluster, servers

CHILDREN = 4
_STATE = """
SELECT
    (SELECT json_agg(json_build_array(id, total_seconds, last_heartbeat_at, end_reason) ORDER BY id)
    FROM viewing_sessions WHERE profile_id = %(id)s)::text,
    (SELECT json_agg(json_build_array(used_seconds, educational_seconds, granted_seconds))
    FROM viewing_time_balances WHERE profile_id = %(id)s)::text,
    (SELECT count(*) FROM time_grants WHERE profile_id = %(id)s),
    (SELECT count(*) FROM audit_entries WHERE profile_id = %(id)s)
"""


@dataclass(frozen=True)
class Entry:
    """What was stored of a child once a request was acknowledged; instants by the same clock."""

    sent_at: float
    heard_at: float
    state: tuple[Any, ...]


@dataclass
class Child:
    """A child with a device, and the ledger of what was acknowledged."""

    id: str
    parent: str
    title: str
    entries: list[Entry] = field(default_factory=list)

    def play(self, service: Service, url: str, stop: threading.Event) -> None:
        """Beats, and is given time now and then, and writes down what is stored afterwards."""
        line = Line(service, self.parent)
        grant = f"/parental-controls/profiles/{self.id}/viewing-time/grant"
        beat = {"profile_id": self.id, "title_id": self.title, "device_id": "tv"}
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                sent_at = time.time()
                if len(self.entries) % 10 == 9:
                    told = line.post(grant, {"minutes": 15})
                else:
                    told = line.post("/viewing-time/heartbeat", beat)
                    beat |= {"session_id": told.body["session_id"]}
                heard_at = time.time()
                assert told.status == 200, told.body
                self.entries.append(Entry(sent_at, heard_at, state(connection, self.id)))
        line.close()

    def possible(self, at: float) -> list[tuple[Any, ...]]:
        """The states that a restore to that instant may find."""
        done = [entry for entry in self.entries if entry.heard_at <= at]
        under_way = [e for e in self.entries[len(done) :] if e.sent_at <= at]
        assert len(done) > 5
        assert len(under_way) <= 1
        assert len(self.entries) > len(done) + 5
        return [entry.state for entry in (done[-1], *under_way)]


def state(connection: psycopg.Connection[Any], child_id: str) -> tuple[Any, ...]:
    found = connection.execute(_STATE, {"id": child_id}).fetchone()
    assert found is not None
    return found


def manage(*arguments: str, **environment: str) -> str:
    """What a command of manage.py prints."""
    done = subprocess.run(
        [*PYTHON, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_child(service: Service, url: str) -> Child:
    credentials = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
    parent = service.post("/auth/register", credentials).json()["access_token"]
    profile = {"name": "Mia", "is_kids": True}
    child = service.post("/auth/profiles", profile, parent).json()["id"]
    title = str(uuid4())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO titles (id, title) VALUES (%s, 'cartoon')", [title])
    return Child(child, parent, title)


def cached(url: str, child: Child) -> Known | None:
    """What the cache knows of a child."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"*{child.id}"):
            value = client.get(key)
            assert isinstance(value, bytes)
            return msgspec.msgpack.decode(value, type=Known)
    return None


@pytest.fixture(scope="module")
def drill() -> Iterator[tuple[Cluster, str]]:
    with servers() as (cluster, valkey):
        yield cluster, valkey.url


def test_a_restore_to_a_point_in_time_has_what_was_acknowledged_before_it_and_no_more(
    drill: tuple[Cluster, str],
) -> None:
    cluster, cache = drill
    url, environment = cluster.url, {"DATABASE_URL": cluster.url, "REDIS_URL": cache}
    manage("migrate", "-v0", **environment)
    # Longer than the drill: what the cache knows must not run out by itself.
    serving = {"REDIS_URL": cache, "CONFIG_CACHE_SECONDS": "3600", "WORKERS": "2"}
    backup = Cluster(cluster.site, "restored")

    with gunicorn(url, **serving) as service:
        children = [make_child(service, url) for _ in range(CHILDREN)]
        stop = threading.Event()
        threads = [
            threading.Thread(target=child.play, args=(service, url, stop)) for child in children
        ]
        for thread in threads:
            thread.start()
        try:
            assert wait_until(lambda: all(len(c.entries) > 20 for c in children), LONG)
            cluster.run(
                *("pg_basebackup", "-h", cluster.site.sockets, "-U", "postgres"),
                *("-D", backup.data, "-X", "stream", "-c", "fast"),
            )
            after_backup = [len(child.entries) for child in children]
            _await_more(children, after_backup, 20)
            # The point: whatever is acknowledged by now has to be there.
            point = time.time()
            _await_more(children, [len(child.entries) for child in children], 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
        # After the point a parent ends an exemption, and the cache hears of it.
        changed = children[0]
        path = f"/parental-controls/profiles/{changed.id}/viewing-time"
        line = Line(service, changed.parent)
        assert line.send("PUT", path, {"educational_exempt": False}).status == 200
        beat = {"profile_id": changed.id, "title_id": changed.title, "device_id": "tv"}
        assert line.post("/viewing-time/heartbeat", beat).status == 200
        line.close()
    cluster.archive_all()
    cluster.stop()

    backup.run("pg_verifybackup", backup.data)
    backup.hold_back(
        restore_command=f"cp {cluster.archive}/%f %p",
        recovery_target_time=datetime.fromtimestamp(point, UTC).isoformat(),
        recovery_target_action="promote",
    )
    backup.start()
    try:
        with psycopg.connect(backup.url) as connection:
            for child in children:
                found = state(connection, child.id)
                assert found in child.possible(point)
            (latest,) = connection.execute(
                "SELECT max(last_heartbeat_at) FROM viewing_sessions"
            ).fetchone() or (None,)
            assert latest is not None
            assert latest.timestamp() <= point
        _the_cache_knows_what_never_happened(changed, cache, environment)
        with gunicorn(backup.url, **serving) as service:
            for child in children:
                body = {"profile_id": child.id, "title_id": child.title, "device_id": "tv"}
                answer = service.post("/viewing-time/heartbeat", body, child.parent)
                assert answer.status_code == 200
            known = cached(cache, changed)
            assert known is not None
            assert known.config is not None
            assert known.config.educational_exempt
        assert manage("erase_household", "--repeat", **environment) == "0 erased again\n"
    finally:
        backup.stop()


def _await_more(children: list[Child], since: list[int], count: int) -> None:
    """Waits until so many more requests of each child were acknowledged."""
    assert wait_until(
        lambda: all(
            len(child.entries) >= had + count for child, had in zip(children, since, strict=True)
        ),
        LONG,
    )


def _the_cache_knows_what_never_happened(
    child: Child, cache: str, environment: dict[str, str]
) -> None:
    """The restored database does not know of the change, and the cache does until it is emptied."""
    known = cached(cache, child)
    assert known is not None
    assert known.config is not None
    assert not known.config.educational_exempt
    assert manage("clear_config_cache", **environment) == "The cache is empty.\n"
    assert cached(cache, child) is None
