"""Servers that a scenario may do anything to, and households in front of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import psycopg

from parentalcontrols.authentication import access_token
from parentalcontrols.embedded_servers import THROWAWAY_PREFIX, Postgres, Site, Valkey
from parentalcontrols.processes import lock_file, wait_until
from pins.tests.service import migrate, server_processes

_HOUSEHOLDS = """
WITH account AS (
    INSERT INTO accounts (id, email, password, is_superuser)
    SELECT %(account)s, %(email)s, '!', false
),
profile AS (
    INSERT INTO profiles (id, account_id, name, is_kids)
    SELECT unnest(%(children)s::uuid[]), %(account)s, 'Mia', true
),
config AS (
    INSERT INTO viewing_time_configs (
        profile_id, weekday_limit_minutes, weekend_limit_minutes, reset_hour
    )
    SELECT unnest(%(children)s::uuid[]), %(minutes)s, %(minutes)s, %(reset_hour)s
)
INSERT INTO titles (id, title, is_educational) VALUES (%(title)s, 'A long way', %(learns)s)
"""
_WATCHED = """
WITH day AS (
    SELECT ((clock_timestamp() - make_interval(hours => %(reset_hour)s)) AT TIME ZONE 'UTC')::date
        AS reset_date, clock_timestamp() - interval '60 seconds' AS ended_at
),
session AS (
    INSERT INTO viewing_sessions (
        id, profile_id, title_id, is_kids, device_id, reset_date, started_at, last_heartbeat_at,
        ended_at, end_reason, total_seconds
    )
    SELECT
        gen_random_uuid(), %(child)s, %(title)s, true, 'tv', reset_date,
        ended_at - make_interval(secs => %(seconds)s), ended_at, ended_at, 'stopped', %(seconds)s
    FROM day
)
INSERT INTO viewing_time_balances (profile_id, reset_date, used_seconds, limit_seconds)
SELECT %(child)s, reset_date, %(seconds)s, %(minutes)s * 60 FROM day
"""


@dataclass(frozen=True)
class Household:
    """An account whose children all watch one title; `minutes` a day were allowed at first."""

    account: UUID
    children: list[UUID]
    title: UUID
    token: str
    minutes: int

    @property
    def child(self) -> UUID:
        """The only child."""
        (child,) = self.children
        return child


class DurablePostgres(Postgres):
    """PostgreSQL with its own defaults for durability, and an environment for its processes."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, max_connections=MAX_CONNECTIONS)
        self.environment: dict[str, str] = {}
        self.settings = {"fsync": "on", "full_page_writes": "on"}

    def _settings(self) -> list[str]:
        # Of two values for one name the last counts.
        own = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        return [*super()._settings(), *own]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self.environment

    def kill(self) -> None:
        """Ends all of them at once, without a chance to do anything."""
        for process in server_processes(self):
            process.kill()
        # What is left is a folder; this lets go of it.
        self.stop()


#: Of the database server; the service takes some 20 a process at the most.
MAX_CONNECTIONS = 100


@dataclass
class Stage:
    """Servers of the scenarios' own; nothing of the tests' is on them."""

    folder: Path
    postgres: DurablePostgres
    valkey: Valkey
    reset_hour: int = field(default_factory=lambda: (datetime.now(UTC).hour + 12) % 24)

    @property
    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.postgres.url, "REDIS_URL": self.valkey.url}

    def connect(self) -> psycopg.Connection:
        """A connection of one's own."""
        return psycopg.connect(self.postgres.url, autocommit=True)

    def household(
        self,
        children: int = 1,
        *,
        minutes: int = 480,
        watched: float = 0,
        learns: bool = False,
    ) -> Household:
        """A household; each child has watched so many seconds of its minutes a day."""
        home = Household(
            account=uuid4(),
            children=[uuid4() for _ in range(children)],
            title=uuid4(),
            token="",
            minutes=minutes,
        )
        names = {
            "account": home.account,
            "email": f"{home.account}@example.com",
            "children": home.children,
            "title": home.title,
            "minutes": minutes,
            "learns": learns,
            "reset_hour": self.reset_hour,
        }
        with self.connect() as database:
            database.execute(_HOUSEHOLDS, names)
            for child in home.children if watched else ():
                database.execute(_WATCHED, {**names, "child": child, "seconds": watched})
        account = SimpleNamespace(id=home.account, is_active=True, token_version=0)
        return Household(
            home.account, home.children, home.title, access_token(account), home.minutes
        )

    def await_idle(self, seconds: float) -> bool:
        """Whether nobody is at work any more: beats whose players gave up are booked or not."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        with self.connect() as database:
            return wait_until(lambda: database.execute(query).fetchone() == (0,), seconds)


@contextmanager
def servers(postgres_environment: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """Both servers with tables, in a temporary folder that goes with them."""
    folder = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX)).resolve()
    # The lock lets a later start clear away what a killed run left.
    with lock_file(folder / "lock"):
        try:
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            site = Site.at(folder, throwaway=True)
            stage = Stage(folder, DurablePostgres(site), Valkey(site))
            stage.postgres.environment.update(postgres_environment or {})
            try:
                stage.postgres.start()
                stage.valkey.start()
                migrate(**stage.environment)
                yield stage
            finally:
                stage.valkey.stop()
                stage.postgres.stop()
        finally:
            shutil.rmtree(folder)
