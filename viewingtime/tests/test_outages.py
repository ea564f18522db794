"""What a player is told while a server is away: real processes, stopped and hung for real."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests

from parentalcontrols.embedded_servers import Postgres, Valkey, throwaway_servers
from parentalcontrols.launcher import throwaway_environment
from parentalcontrols.processes import wait_until
from pins.tests.service import hung

ROOT = Path(__file__).resolve().parents[2]
#: Seconds within which a player is answered, come what may (domain.md section 4).
DEADLINE = 2.0
#: Seconds within which the service heals by itself once a server is back.
RECOVERY = 5.0


@dataclass
class Service:
    """A running service of its own, with a household and a title."""

    postgres: Postgres
    valkey: Valkey
    url: str
    http: requests.Session = field(default_factory=requests.Session)
    child: str = ""
    title: str = field(default_factory=lambda: str(uuid4()))

    def prepare(self) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as database:
            database.execute("INSERT INTO titles (id, title) VALUES (%s, 'cartoon')", [self.title])
        credentials = {"email": f"{uuid4()}@example.com", "password": "a long way home"}
        answer = self.post("/auth/register", credentials)
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self.child = self.post("/auth/profiles", {"name": "Mia", "is_kids": True}).json()["id"]

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return self.http.post(f"{self.url}/api/v1{path}", json=body, timeout=20)

    def get(self, path: str) -> requests.Response:
        return self.http.get(f"{self.url}{path}", timeout=20)

    def beat(self) -> requests.Response:
        body = {"profile_id": self.child, "title_id": self.title, "device_id": "tv"}
        return self.post("/viewing-time/heartbeat", body)

    def eligible(self) -> requests.Response:
        return self.get(f"/api/v1/viewing-time/playback-eligible/{self.child}")

    def assert_unavailable(self) -> None:
        """A beat and an eligibility question are refused in time, in the documented shape."""
        for ask, members in (
            (self.beat, {"enforcement": "blocked", "reason": "unavailable"}),
            (self.eligible, {"eligible": False, "reason": "unavailable"}),
        ):
            began = time.monotonic()
            answer = ask()
            assert time.monotonic() - began < DEADLINE
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert members.items() <= answer.json().items()

    def assert_recovers(self) -> None:
        """Within five seconds beats are answered again, by every thread."""
        assert wait_until(lambda: self.beat().status_code == 200, RECOVERY)
        assert {self.beat().status_code for _ in range(40)} == {200}
        assert self.eligible().json()["eligible"] is True


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with throwaway_servers() as (postgres, valkey):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            **{k: v for k, v in os.environ.items() if k != "TEST_DATABASE_NAME"},
            **throwaway_environment(postgres, valkey),
            "DEMO": "true",
            "PORT": str(port),
            "WORKERS": "1",
            "THREADS": "3",
        }
        python = [sys.executable, "-W", "ignore"]
        subprocess.run(
            [*python, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True
        )
        command = ["-m", "gunicorn", "parentalcontrols.wsgi:application"]
        server = subprocess.Popen(
            [*python, *command, "-c", "parentalcontrols/gunicorn.conf.py"],
            cwd=ROOT,
            env=environment,
        )
        try:
            running = Service(postgres, valkey, f"http://127.0.0.1:{port}")

            def is_ready() -> bool:
                try:
                    return running.get("/readyz").status_code == 200
                except requests.ConnectionError:
                    return False

            assert wait_until(is_ready, 30)
            running.prepare()
            yield running
        finally:
            server.terminate()
            server.wait(40)


def test_with_the_database_stopped_a_beat_is_blocked_in_time_and_heals(service: Service) -> None:
    assert service.beat().status_code == 200
    service.postgres.stop()
    try:
        for _ in range(4):
            service.assert_unavailable()
        ready = service.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["database"] == "unavailable"
        assert service.get("/livez").status_code == 200
    finally:
        service.postgres.start()
    service.assert_recovers()
    assert service.get("/readyz").status_code == 200


def test_with_the_database_hung_a_beat_is_blocked_in_time_and_heals(service: Service) -> None:
    assert service.beat().status_code == 200
    with hung(service.postgres):
        # More often than there are threads: connections that are there, and those to be made.
        for _ in range(4):
            service.assert_unavailable()
    service.assert_recovers()


def test_a_beat_that_waits_for_a_lock_is_blocked_in_time_and_writes_nothing(
    service: Service,
) -> None:
    count = "SELECT count(*), sum(total_seconds) FROM viewing_sessions"
    with psycopg.connect(service.postgres.url) as holder:
        holder.execute("SELECT FROM profiles FOR UPDATE")
        before = holder.execute(count).fetchone()
        began = time.monotonic()
        answer = service.beat()
        assert time.monotonic() - began < DEADLINE
        assert answer.status_code == 503
        assert answer.json()["enforcement"] == "blocked"
        # Once the service has given up, nothing is left that would write later.
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        def nobody_waits() -> bool:
            with psycopg.connect(service.postgres.url) as other:
                return other.execute(waiting).fetchone() == (0,)

        assert wait_until(nobody_waits, DEADLINE)
    with psycopg.connect(service.postgres.url) as other:
        assert other.execute(count).fetchone() == before
    service.assert_recovers()


def test_with_the_cache_stopped_everything_works(service: Service) -> None:
    service.valkey.stop()
    try:
        began = time.monotonic()
        assert service.beat().status_code == 200
        assert service.eligible().json()["eligible"] is True
        config = f"/api/v1/parental-controls/profiles/{service.child}/viewing-time"
        assert service.get(config).status_code == 200
        assert service.get("/api/v1/auth/me").status_code == 200
        assert time.monotonic() - began < DEADLINE
        ready = service.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {"status": "ok", "database": "ok", "cache": "unavailable"}
    finally:
        service.valkey.start()
    assert wait_until(lambda: service.get("/readyz").json()["cache"] == "ok", RECOVERY)
