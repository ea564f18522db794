"""The real service in processes of its own, on a database of its own in the tests' server."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import psutil
import psycopg
import requests
from django.conf import settings
from django.db import connection as of_the_tests
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from parentalcontrols.embedded_servers import Postgres, Valkey, throwaway_servers
from parentalcontrols.launcher import throwaway_environment
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API, PASSWORD

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-W", "ignore"]
#: Seconds after which a test gives up waiting; nothing is expected to take that long.
LONG = 60.0
#: For how long players play and servers are disturbed; a thorough run takes 60.
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))


@contextmanager
def database() -> Iterator[str]:
    """The address of a migrated database, which is dropped afterwards."""
    server, name = os.environ["DATABASE_URL"], f"service_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = make_conninfo(server, dbname=name)
            migrate(DATABASE_URL=url)
            yield url
        finally:
            dropping = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(dropping.format(sql.Identifier(name)))


def database_of_tests() -> str:
    """The address of the database that the running test's models are in."""
    return make_conninfo(os.environ["DATABASE_URL"], dbname=of_the_tests.settings_dict["NAME"])


@contextmanager
def own_servers() -> Iterator[tuple[Postgres, Valkey, dict[str, str]]]:
    """Servers that a test may stop and freeze, migrated, and the variables that name them."""
    with throwaway_servers() as (postgres, valkey):
        names = throwaway_environment(postgres, valkey)
        environment = {key: names[key] for key in ("DATABASE_URL", "REDIS_URL")}
        migrate(**environment)
        yield postgres, valkey, environment


def server_processes(server: Postgres | Valkey) -> list[psutil.Process]:
    """A running server's process and all its children."""
    assert server.pid is not None
    first = psutil.Process(server.pid)
    return [first, *first.children(recursive=True)]


@contextmanager
def hung(server: Postgres | Valkey) -> Iterator[None]:
    """Stops a server's processes where they are, and lets them go on afterwards."""
    processes = server_processes(server)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def await_warm(database_url: str, workers: int) -> None:
    """Waits until each process has the connections of its queues, and none is at work."""
    wanted = workers * (settings.HEARTBEAT_CREDITORS + settings.HEARTBEAT_DECIDERS + 1)
    query = (
        "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'viewingtime' "
        "AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:

        def is_so() -> bool:
            total, busy = connection.execute(query).fetchone() or (0, 0)
            if os.environ.get("POOLER_BINARY"):
                total = _clients_of_pooler(database_url)
            return bool(total >= wanted and not busy)

        assert wait_until(is_so, LONG)


def _clients_of_pooler(database_url: str) -> int:
    """How many connections a pooler has from the service: its own to the database are fewer."""
    name = conninfo_to_dict(database_url)["dbname"]
    admin = make_conninfo(database_url, dbname="pgbouncer")
    with psycopg.connect(admin, autocommit=True) as connection:
        cursor = psycopg.ClientCursor(connection, row_factory=dict_row)
        clients = cursor.execute("SHOW CLIENTS").fetchall()
    return sum(c["database"] == name and c["application_name"] == "viewingtime" for c in clients)


def migrate(**environment: str) -> None:
    """Makes the tables of the database that the variables name."""
    subprocess.run(
        [*PYTHON, "manage.py", "migrate", "-v0"],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )


class Unanswered(Exception):
    """The connection ended before an answer came; what became of the request nobody knows."""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. Instants in microseconds since 1970, by the machine's clock: the database's, too.

    The request was under way from `sent_at` to `heard_at`.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    sent_at: int
    heard_at: int

    @property
    def is_honest_refusal(self) -> bool:
        """Whether it is the 503 that a player is owed (domain.md section 4)."""
        return (
            self.status == 503
            and int(self.headers["Retry-After"]) > 0
            and self.headers["Content-Type"] == "application/problem+json"
            and (self.body["enforcement"], self.body["reason"]) == ("blocked", "unavailable")
        )


class Line:
    """A player's connection, which is kept alive; for one thread at a time."""

    def __init__(self, service: "Service", token: str) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=LONG)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: Any = None) -> Told:
        """An answer to a POST below `/api/v1`; raises `Unanswered`, and connects anew then."""
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Told:
        """The same for any method; `headers` are added."""
        raw = json.dumps({} if body is None else body).encode()
        sent_at = time.time_ns() // 1000
        try:
            self._http.request(method, API + path, raw, self._headers | headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unanswered from error
        heard_at = time.time_ns() // 1000 + 1
        return Told(response.status, response.headers, json.loads(content), sent_at, heard_at)

    def connect(self) -> None:
        """Opens the connection, if it is not open."""
        if self._http.sock is None:
            self._http.connect()

    def close(self) -> None:
        """Ends the connection, whatever is under way."""
        self._http.close()


@dataclass
class Service:
    """A running gunicorn."""

    url: str
    process: subprocess.Popen[bytes]

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def livez(self) -> requests.Response:
        return self.get("/livez")

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> requests.Response:
        """A page, on a connection of its own."""
        headers = {"Connection": "close"}
        return requests.get(f"{self.url}{path}", headers=headers, timeout=LONG)

    def post(self, path: str, body: dict[str, Any], token: str | None = None) -> requests.Response:
        """A request on a connection of its own; `path` starts below `/api/v1`."""
        # A greenlet whose connection is kept alive keeps its worker from stopping.
        headers = {"Connection": "close"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return requests.post(f"{self.url}{API}{path}", json=body, headers=headers, timeout=LONG)


@contextmanager
def gunicorn(
    database_url: str,
    *options: str,
    application: str = "parentalcontrols.wsgi:application",
    stderr: IO[bytes] | None = None,
    **environment: str,
) -> Iterator[Service]:
    """The service, ready to answer; `options` are gunicorn's. It logs to `stderr`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "gunicorn", application]
    process = subprocess.Popen(
        [*PYTHON, *command, "-c", "parentalcontrols/gunicorn.conf.py", *options],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url, "PORT": str(port), **environment},
        stderr=stderr,
    )
    try:
        service = Service(f"http://127.0.0.1:{port}", process)
        assert wait_until(service.is_ready, LONG)
        yield service
    finally:
        process.terminate()
        process.wait(LONG)


@dataclass
class Home:
    """A household of a running service, with a child's device."""

    parent: str
    child: str
    child_tv: str
    title: str = field(default_factory=lambda: str(uuid4()))

    @classmethod
    def made_by(cls, service: Service, database_url: str) -> "Home":
        credentials = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
        parent = service.post("/auth/register", credentials).json()["access_token"]
        profile = {"name": "Mia", "is_kids": True}
        child = service.post("/auth/profiles", profile, parent).json()["id"]
        token = service.post(f"/auth/profiles/{child}/token", {}, parent).json()["access_token"]
        home = cls(parent, child, token)
        with psycopg.connect(database_url, autocommit=True) as connection:
            insert = "INSERT INTO titles (id, title) VALUES (%s, 'cartoon')"
            connection.execute(insert, [home.title])
        return home

    def set_pin(self, service: Service, pin: str) -> None:
        answer = service.post("/parental-controls/pin", {"new_pin": pin}, self.parent)
        assert answer.status_code == 200, answer.text

    def beat(self, service: Service) -> requests.Response:
        body = {"profile_id": self.child, "title_id": self.title, "device_id": "tv"}
        return service.post("/viewing-time/heartbeat", body, self.child_tv)
