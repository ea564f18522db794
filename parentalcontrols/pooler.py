"""PgBouncer in transaction mode before a PostgreSQL of ours, by the files of `deploy/compose`.

For tests: `make test` with `POOLER_BINARY=/usr/sbin/pgbouncer` lets the service and the tests reach
their databases through it, those of servers that single tests start included. Like
`embedded_servers`, this knows nothing of Django.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from parentalcontrols.processes import (
    Hurry,
    Pause,
    ServerError,
    ServerUser,
    describe_ending,
    end_process,
    spawn,
    wait_until,
)

CONFIGURATION = Path(__file__).resolve().parent.parent / "deploy" / "compose"
READY_SECONDS = 30.0


class Pooler:
    """A PgBouncer that listens on a socket in `folder`, which belongs to `user`.

    `database_url` names the server, the role and its password. With a name of its own in
    `databases` the pooler knows that database alone, with `*` every one of the server.
    """

    name = "PgBouncer"

    def __init__(
        self,
        program: Path,
        folder: Path,
        database_url: str,
        *,
        user: ServerUser | None,
        log: Path,
        databases: str = "*",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program
        self._folder = folder
        self._database_url = database_url
        self._user = user
        self._log = log
        self._databases = databases
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the same database behind the pooler."""
        return make_conninfo(self._database_url, host=str(self._folder), port=6432)

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid if self._process else None

    def start(self, pause: Pause = time.sleep) -> None:
        """Start it and wait until it serves; ServerError when it does not."""
        address = conninfo_to_dict(self._database_url)
        # Its account may not reach a clone.
        copies = self._folder / "setup"
        copies.mkdir(exist_ok=True)
        for name in ("pgbouncer.ini", "pgbouncer-start"):
            shutil.copyfile(CONFIGURATION / name, copies / name)
        environment = {
            "PATH": f"{os.defpath}:/usr/sbin:/sbin",
            "PGBOUNCER": str(self._program),
            "DATABASE_HOST": str(address["host"]),
            "DATABASE_PORT": str(address["port"]),
            "DATABASE_NAME": self._databases,
            "DATABASE_USER": str(address["user"]),
            "DATABASE_PASSWORD": str(address["password"]),
            "LISTEN_ADDRESS": "",
            "SOCKET_FOLDER": str(self._folder),
            "RUNTIME_FOLDER": str(self._folder),
            **self._variables,
        }
        with open(self._log, "ab") as log:
            self._process = spawn(
                ["/bin/sh", copies / "pgbouncer-start"],
                death_signal=signal.SIGTERM,
                environment=environment,
                folder=self._folder,
                user=self._user,
                output=log,
            )
        came_up = wait_until(lambda: self._serves() or bool(self.ending()), READY_SECONDS, pause)
        if self.ending() or not came_up:
            how = self.ending() or f"not ready after {READY_SECONDS:.0f} s"
            self.stop()
            said = self._log.read_text(errors="replace")[-2000:]
            raise ServerError(f"PgBouncer did not start ({how}); {self._log} says:\n{said}")

    def stop(self, hurry: Hurry = lambda: False) -> None:
        """End it at once, with the connections of its clients."""
        if self._process:
            end_process(self._process, [(signal.SIGTERM, 10), (signal.SIGKILL, 5)], hurry)
            self._process = None
            shutil.rmtree(self._folder / "setup", ignore_errors=True)
            for name in ("pgbouncer.ini", "userlist.txt", ".s.PGSQL.6432"):
                (self._folder / name).unlink(missing_ok=True)

    def ending(self) -> str | None:
        """How it ended by itself, or None while it runs."""
        return describe_ending(self._process)

    def _serves(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True
