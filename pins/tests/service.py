"""The real service in processes of its own, on a database of its own in the tests' server."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import psutil
import psycopg
import requests
from psycopg import sql
from psycopg.conninfo import make_conninfo

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API, PASSWORD

ROOT = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-W", "ignore"]
#: Seconds after which a test gives up waiting; nothing is expected to take that long.
LONG = 60.0


@contextmanager
def database() -> Iterator[str]:
    """The address of a migrated database, which is dropped afterwards."""
    server, name = os.environ["DATABASE_URL"], f"service_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = make_conninfo(server, dbname=name)
            subprocess.run(
                [*PYTHON, "manage.py", "migrate", "-v0"],
                cwd=ROOT,
                env={**os.environ, "DATABASE_URL": url},
                check=True,
            )
            yield url
        finally:
            dropping = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(dropping.format(sql.Identifier(name)))


@dataclass
class Service:
    """A running gunicorn."""

    url: str
    process: subprocess.Popen[bytes]

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def livez(self) -> requests.Response:
        return self._get("/livez")

    def is_ready(self) -> bool:
        try:
            return self._get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def _get(self, path: str) -> requests.Response:
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
