"""What a measurement ran on, and who used the processors meanwhile."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from parentalcontrols.launcher import PROJECT

PACKAGES = ("Django", "djangorestframework", "gunicorn", "gevent", "psycopg", "bcrypt")
#: Who uses the processors; "others" are the processes that are not ours, and the hypervisor.
USERS = ("web", "database", "load", "others")


def described(folder: Path) -> dict[str, Any]:
    """The machine, and the file system that holds the database in `folder`."""
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "ram_gib": psutil.virtual_memory().total / 2**30,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file_system": _file_system(folder),
        "load_average_before": os.getloadavg()[0],
    }


def software() -> dict[str, Any]:
    """Python and the packages that matter for speed, and the commit of this checkout."""
    versions: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    status = _git("status", "--porcelain")
    return versions | {
        "commit": _git("rev-parse", "HEAD"),
        "has_uncommitted_changes": None if status is None else bool(status),
    }


def _git(*arguments: str) -> str | None:
    """What git prints; None where this is no checkout, or there is no git."""
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run(
        [program, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _cores() -> int | None:
    """The cores that we may use; a container often has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str | None:
    """The kind of file system: a durable write to memory costs nothing and proves nothing."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[path] for path in (folder, *folder.parents) if path in mounts), None)


@dataclass(frozen=True, slots=True)
class CpuClock:
    """Seconds of processor time used so far, by user."""

    at: float
    seconds: Mapping[str, float]

    @classmethod
    def read(cls, *, load_pid: int) -> "CpuClock":
        """The clock now, for the processes that descend from this one."""
        used = dict.fromkeys(USERS, 0.0)
        benchmark = psutil.Process()
        own = benchmark.cpu_times()
        ours = own.user + own.system
        for process in benchmark.children(recursive=True):
            with suppress(psutil.Error):
                times, name = process.cpu_times(), process.name()
                # Of a server process that has ended its parent knows; here none ends meanwhile.
                spent = times.user + times.system
                ours += spent
                if process.pid == load_pid:
                    used["load"] += spent
                elif name == "postgres":
                    used["database"] += spent
                elif name != "valkey-server":
                    used["web"] += spent
        used["others"] = _machine_seconds() - ours
        return cls(time.perf_counter(), used)

    def cores_since(self, earlier: "CpuClock") -> dict[str, float]:
        """How many cores each user kept busy on average in between."""
        elapsed = self.at - earlier.at
        return {
            user: max(0.0, (self.seconds[user] - earlier.seconds[user]) / elapsed) for user in USERS
        }


def connections_per_worker(port: int) -> list[int]:
    """How many connections to the port each worker holds that has any, in a lasting order.

    Workers race for new connections, and the race is not even: one of two may get most.
    """
    counts = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            held = sum(
                bool(connection.laddr) and connection.laddr.port == port
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_ESTABLISHED
            )
            if held:
                counts.append(held)
    return counts


def _machine_seconds() -> float:
    """All cores' busy time, what the hypervisor kept from us included."""
    times = psutil.cpu_times()
    # A guest's time is in `user` already.
    idle = {"idle", "iowait", "guest", "guest_nice"}
    return sum(float(value) for name, value in times._asdict().items() if name not in idle)
