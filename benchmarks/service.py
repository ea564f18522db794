"""The service to be measured: real servers, real web processes, and households that beat.

The database is as durable as in production (`fsync` is on, unlike in the tests' servers), since a
heartbeat is answered after its commit. Everything is thrown away in the end, and no server of
the caller's is ever touched: DATABASE_URL and REDIS_URL of the environment are not used.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import django
import psutil

from benchmarks.load import Watcher
from parentalcontrols.embedded_servers import THROWAWAY_PREFIX, Postgres, Site, Valkey
from parentalcontrols.launcher import (
    MARK,
    Gunicorn,
    Options,
    run_manage,
    throwaway_environment,
)
from parentalcontrols.processes import ServerError, lock_file

#: Of accounts that live for minutes.
PASSWORD = "seven-quiet-evenings"
#: What the service runs with, besides what the caller's environment says.
FIXED = {
    # Long benchmarks outlive an hour.
    "ACCESS_TOKEN_SECONDS": "86400",
    # What is measured is the work, not the refusal of too much of it.
    "RATELIMIT_ENABLED": "false",
    "WORKERS": "2",
    "THREADS": "16",
}
#: Settings that the results name, where this version has them.
NAMED_SETTINGS = (
    "HASHING_NICENESS",
    "HASHING_SLOTS",
    "HASHING_THREADS",
    "PASSWORD_BCRYPT_ROUNDS",
    "PIN_BCRYPT_ROUNDS",
    "REQUEST_DEADLINE_MS",
)
NAMED_SERVER_SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
)


@dataclass(frozen=True, slots=True)
class Household:
    """An account with one child, and a token that speaks for the parent."""

    account_id: UUID
    email: str
    child_id: UUID
    token: str

    @property
    def watcher(self) -> Watcher:
        return Watcher(self.token, self.child_id)


@dataclass(frozen=True, slots=True)
class Stage:
    """Running servers with a filled database. Django is set up for them in this process."""

    folder: Path
    environment: Mapping[str, str]
    households: list[Household]
    title_id: UUID

    def settings(self) -> dict[str, Any]:
        """The settings in force, of the application and of the database server."""
        from django.conf import settings
        from django.db import connection

        named = {name: getattr(settings, name, None) for name in NAMED_SETTINGS}
        named |= {name: self.environment[name] for name in FIXED}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name",
                [list(NAMED_SERVER_SETTINGS)],
            )
            return {"service": named, "postgresql": dict(cursor.fetchall())}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the web processes answer, and the process that is their parent."""

    host: str
    port: int
    master: psutil.Process

    def workers(self) -> list[psutil.Process]:
        """The web processes that answer now."""
        return self.master.children()


def stop_on_sigterm() -> None:
    """Lets SIGTERM end the benchmark as Ctrl-C does, so that nothing is left running."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


@contextmanager
def stage(*, children: int, knobs: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """Servers, tables and households, gone after the block; `knobs` are environment variables.

    Once per process, because Django is. Raises ServerError with a sentence.
    """
    with _durable_servers() as (folder, postgres, valkey):
        environment = throwaway_environment(postgres, valkey) | FIXED | dict(knobs or {})
        # Only checks want the application that this brings in.
        environment.pop("LINT_MIGRATIONS", None)
        environment[MARK] = str(folder)
        with open(folder / "manage.log", "ab") as log:
            run_manage(["migrate", "--noinput"], environment, time.sleep, log)
        os.environ.clear()
        os.environ.update(environment, DJANGO_SETTINGS_MODULE="parentalcontrols.settings")
        django.setup()
        households, title_id = _fill(children)
        yield Stage(folder, environment, households, title_id)


@contextmanager
def serving(stage: Stage, *, knobs: Mapping[str, str] | None = None) -> Iterator[Address]:
    """Web processes with the project's gunicorn.conf.py on a free port, for the block.

    `knobs` are environment variables of theirs. Raises ServerError when they do not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = Options(
        host="127.0.0.1",
        port=port,
        workers=int(stage.environment["WORKERS"]),
        threads=int(stage.environment["THREADS"]),
        data_dir=stage.folder,
        demo=False,
    )
    gunicorn = Gunicorn(
        options,
        {
            **stage.environment,
            "PORT": str(port),
            "BIND_HOST": options.host,
            "WORKER_CLASS": "gevent",
            **(knobs or {}),
        },
    )
    try:
        gunicorn.start()
        problem = gunicorn.wait_until_ready(time.sleep)
        if problem:
            raise ServerError(f"/readyz answers {problem} instead of 200.")
        yield Address(options.host, port, psutil.Process(gunicorn.master))
    finally:
        gunicorn.stop()


@contextmanager
def _durable_servers() -> Iterator[tuple[Path, Postgres, Valkey]]:
    """Both servers in a temporary folder, with PostgreSQL's own defaults for durability."""
    # The name and the lock let a later start clear away what a killed benchmark left.
    folder = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX)).resolve()
    with lock_file(folder / "lock"):
        try:
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            site = Site.at(folder, private=folder)
            postgres, valkey = Postgres(site, max_connections=200), Valkey(site)
            try:
                postgres.start()
                valkey.start()
                yield folder, postgres, valkey
            finally:
                valkey.stop()
                postgres.stop()
        finally:
            shutil.rmtree(folder)


def _fill(children: int) -> tuple[list[Household], UUID]:
    """Households with one child each, and the title that all of them watch."""
    from django.contrib.auth.hashers import make_password
    from django.db import connection, transaction

    from parentalcontrols.authentication import access_token
    from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig

    # One hash for all: a thousand would take a minute.
    password = make_password(PASSWORD)
    accounts = [
        Account(email=f"family-{number}@example.com", password=password)
        for number in range(1, children + 1)
    ]
    profiles = [Profile(account=account, name="Mia", is_kids=True) for account in accounts]
    configs = [
        ViewingTimeConfig(
            profile=profile,
            **_long_day(),
        )
        for profile in profiles
    ]
    with transaction.atomic():
        title = Title.objects.create(title="A long evening")
        Account.objects.bulk_create(accounts, batch_size=1000)
        Profile.objects.bulk_create(profiles, batch_size=1000)
        ViewingTimeConfig.objects.bulk_create(configs, batch_size=1000)
    with connection.cursor() as cursor:
        # Autovacuum would do so a minute later, in the midst of the measurement.
        cursor.execute("VACUUM (ANALYZE) accounts, profiles, viewing_time_configs, titles")
    households = [
        Household(account.id, account.email, profile.id, access_token(account))
        for account, profile in zip(accounts, profiles, strict=True)
    ]
    return households, title.id


def one_household(children: int) -> list[Household]:
    """One account with many children, who can beat in one batch."""
    from parentalcontrols.authentication import access_token
    from parentalcontrols.models import Account, Profile, ViewingTimeConfig

    account = Account.objects.create_user(f"home-{children}@example.com")
    profiles = Profile.objects.bulk_create(
        Profile(account=account, name=f"child {n}", is_kids=True) for n in range(children)
    )
    ViewingTimeConfig.objects.bulk_create(
        ViewingTimeConfig(profile=profile, **_long_day()) for profile in profiles
    )
    token = access_token(account)
    return [Household(account.id, account.email, profile.id, token) for profile in profiles]


def _long_day() -> dict[str, Any]:
    """Limits of a day that neither ends nor is used up while beats are measured."""
    reset_hour = (datetime.now(UTC).hour + 12) % 24
    return {
        "weekday_limit_minutes": 480,
        "weekend_limit_minutes": 480,
        "reset_hour": reset_hour,
    }


def first_beats(
    address: Address, households: Sequence[Household], title_id: UUID
) -> list[dict[str, Any]]:
    """Opens a session for each child over HTTP; the bodies of their next beats."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    beats = []
    for household in households:
        beat: dict[str, Any] = {
            "profile_id": str(household.child_id),
            "title_id": str(title_id),
            "device_id": "tv",
            "device_type": "tv",
        }
        connection.request(
            "POST",
            "/api/v1/viewing-time/heartbeat",
            json.dumps(beat),
            {"Content-Type": "application/json", "Authorization": f"Bearer {household.token}"},
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200 or answer["session_id"] is None:
            raise ServerError(f"A first beat was answered {response.status}: {answer}.")
        beats.append(beat | {"session_id": answer["session_id"], "is_paused": False})
    connection.close()
    return beats


def count_sessions() -> int:
    """How many sessions there are; steady beats make none."""
    from viewingtime.models import ViewingSession

    return ViewingSession.objects.count()
