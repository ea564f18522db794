"""What docker-compose.yml starts, as plain processes: the same programs, files and variables.

PostgreSQL and Valkey are the tests' own; in front of them stand PgBouncer, two instances of the
service with two workers each, and HAProxy. What an instance is told is read from the compose file;
addresses alone are others.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from psycopg.conninfo import conninfo_to_dict

from parentalcontrols.pooler import Pooler
from parentalcontrols.processes import ServerUser, wait_until
from pins.tests.service import LONG, PYTHON, Service

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
CONFIGURATION = ROOT / "deploy" / "compose"
WORKERS = 2
#: Seconds within which an instance that is told to stop has ended (its `stop_grace_period`).
STOP_SECONDS = 40.0


def program(name: str) -> str:
    """Where a program is; skips the test that needs it where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def composed(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment that docker-compose.yml gives a service, with `variables` as its .env."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[3] or ""
        if found[2] == ":?" and not variables.get(name):
            raise AssertionError(f"{name}: {default}")
        return variables.get(name) or default

    given: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][service]["environment"]
    pattern = re.compile(r"\$\{([A-Z_0-9]+)(:-|:\?)?([^}]*)\}")
    return {name: pattern.sub(value, str(text)) for name, text in given.items()}


@dataclass
class Instance:
    """A gunicorn that is stopped, killed and started again on one port."""

    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it; answers before it is ready."""
        command = ["-m", "gunicorn", "parentalcontrols.wsgi:application"]
        self.process = subprocess.Popen(
            [*PYTHON, *command, "-c", "parentalcontrols/gunicorn.conf.py"],
            cwd=ROOT,
            env=self.environment | {"PORT": str(self.port)},
        )

    def is_ready(self) -> bool:
        try:
            return requests.get(f"http://{self.address}/readyz", timeout=LONG).ok
        except requests.ConnectionError:
            return False

    def processes(self) -> list[psutil.Process]:
        """The master and its workers."""
        assert self.process is not None
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def serves(self) -> bool:
        """Whether somebody (the proxy) has a connection to each of its workers, kept open."""
        return all(
            any(c.status == psutil.CONN_ESTABLISHED for c in worker.net_connections("tcp"))
            for worker in self.processes()[1:]
        )

    def kill(self) -> None:
        """Ends all its processes at once, as the end of its host would."""
        for process in self.processes():
            process.kill()
        assert self.process is not None
        self.process.wait(LONG)

    def stop(self) -> int:
        """Stops it as `docker stop` does; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@dataclass
class House:
    """The whole topology, running."""

    front: Service
    instances: list[Instance]
    pooler: Pooler
    environment: dict[str, str]

    def migrate(self, *target: str) -> None:
        """The step `migrate` of the compose file: directly on PostgreSQL."""
        subprocess.run(
            [*PYTHON, "manage.py", "migrate", "--noinput", "-v0", *target],
            cwd=ROOT,
            env=self.environment,
            check=True,
        )


@contextmanager
def proxy(web1: str, web2: str) -> Iterator[Service]:
    """The proxy of the compose file in front of two addresses."""
    port = free_port()
    given = {"LISTEN": f"127.0.0.1:{port}", "ERRORS": str(CONFIGURATION), "TLS_CERTIFICATE": ""}
    process = subprocess.Popen(
        [program("haproxy"), "-db", "-f", str(CONFIGURATION / "haproxy.cfg")],
        env={"PATH": os.environ["PATH"], "WEB1": web1, "WEB2": web2, **given},
    )
    front = Service(f"http://127.0.0.1:{port}", process)

    def is_open() -> bool:
        try:
            return requests.get(f"{front.url}/livez", timeout=LONG).status_code == 404
        except requests.ConnectionError:
            return False

    try:
        assert wait_until(is_open, LONG)
        yield front
    finally:
        process.kill()
        process.wait(LONG)


@contextmanager
def house(database_url: str) -> Iterator[House]:
    """The topology in front of a migrated database."""
    pgbouncer = Path(program("pgbouncer"))
    program("haproxy")
    password = str(conninfo_to_dict(database_url)["password"])
    with tempfile.TemporaryDirectory(prefix="topology-") as name:
        folder = Path(name)
        # PgBouncer refuses to be root.
        user = ServerUser(65534, 65534) if os.geteuid() == 0 else None
        if user:
            os.chown(folder, user.uid, user.gid)
        database = str(conninfo_to_dict(database_url)["dbname"])
        log = folder / "pgbouncer.log"
        pooler = Pooler(pgbouncer, folder, database_url, user=user, log=log, databases=database)
        told = composed("web1", {"SERVICE_PASSWORD": password, "VALKEY_PASSWORD": "unused"})
        told |= {
            "REDIS_URL": os.environ["REDIS_URL"],
            "TRUSTED_PROXIES": "127.0.0.1",
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
            "METRICS_TOKEN": "a-token-of-the-topology-0123456789-abcdefgh",
            "WORKERS": str(WORKERS),
        }
        inherited = {k: v for k, v in os.environ.items() if k != "SERVING"}
        instances = [
            Instance(
                free_port(),
                inherited | told | {"DATABASE_URL": pooler.url, "INSTANCE_NAME": f"web{n}"},
            )
            for n in (1, 2)
        ]
        try:
            pooler.start()
            for instance in instances:
                instance.start()
            for instance in instances:
                assert wait_until(instance.is_ready, LONG)
            with proxy(*(instance.address for instance in instances)) as front:
                yield House(front, instances, pooler, inherited | {"DATABASE_URL": database_url})
        finally:
            for instance in instances:
                if instance.process is not None and instance.process.poll() is None:
                    instance.stop()
            pooler.stop()
