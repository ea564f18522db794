"""The disk of the write-ahead log runs full while everybody plays."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, gunicorn
from tests.faults.evening import evening, skip
from tests.faults.stage import Stage, servers

_MEGABYTE = 1024 * 1024
_DISK_BYTES = 48 * _MEGABYTE
#: Of the log, so that PostgreSQL can do with the disk while it is its own.
_LOG_SETTINGS = {"min_wal_size": "4MB", "max_wal_size": "12MB"}


def test_a_full_disk_of_the_log_loses_nothing() -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        skip("wal-full", "only root can mount a small disk")
    with servers() as stage, small_disk(stage) as disk:
        stage.postgres.settings |= _LOG_SETTINGS
        stage.postgres.start()
        with (
            gunicorn(stage.postgres.url, WORKERS="2", REDIS_URL=stage.valkey.url) as service,
            evening("wal-full", stage, service) as playing,
        ):
            playing.play_on()
            with playing.fault():
                log_size = stage.postgres.home.parent.joinpath("logs", "postgres.log")
                before = log_size.stat().st_size
                fill(disk)
                write_until_it_fails(stage)

                def has_panicked() -> bool:
                    return b"PANIC" in log_size.read_bytes()[before:]

                assert wait_until(has_panicked, LONG)
                playing.endure()
                (disk / "ballast").unlink()
                ended = stage.postgres.ending()
                playing.figures["PostgreSQL"] = f"ended ({ended})" if ended else "went on by itself"
                if ended:
                    # A service manager's part.
                    stage.postgres.stop()
                    stage.postgres.start()


@contextmanager
def small_disk(stage: Stage) -> Iterator[Path]:
    """A disk of its own for the write-ahead log; PostgreSQL is stopped then."""
    stage.postgres.stop()
    disk = stage.folder / "small-disk"
    disk.mkdir()
    options = f"size={_DISK_BYTES},mode=0755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True, check=False
    )
    if done.returncode:
        skip("wal-full", "a small disk cannot be mounted here")
    try:
        log = stage.postgres.home / "cluster" / "pg_wal"
        subprocess.run(["cp", "-a", log, disk], check=True)
        shutil.rmtree(log)
        log.symlink_to(disk / "pg_wal")
        yield disk
    finally:
        stage.postgres.stop()
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    """Takes what is left of the disk."""
    left = os.statvfs(disk)
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, left.f_bavail * left.f_frsize)


def write_until_it_fails(stage: Stage) -> None:
    """Somebody writes much, as a report or a migration does."""
    with contextlib.suppress(psycopg.OperationalError), stage.connect() as database:
        database.execute("CREATE TABLE much (words text)")
        for _ in range(2 * _DISK_BYTES // _MEGABYTE):
            database.execute(
                "INSERT INTO much SELECT repeat(md5(n::text), 30) FROM generate_series(1, 1000) n"
            )
