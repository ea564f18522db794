"""`make run`, `make test` and `make lint`: the service with everything that it needs.

    python -m parentalcontrols.launcher run            serve, until Ctrl-C or SIGTERM
    python -m parentalcontrols.launcher test ARGS...   pytest on throw-away servers
    python -m parentalcontrols.launcher manage ARGS... manage.py on throw-away servers
    python -m parentalcontrols.launcher with PROGRAM ARGS...   any program on such servers

`run` reads PORT (8000), DATA_DIR (.data), WORKERS (2) and BIND_HOST (127.0.0.1). Where
DATABASE_URL or REDIS_URL is set that server is used and none is started. Without either it is the
demo: the secrets are made once and kept in DATA_DIR, and a family is there to try it with.

Django is never imported here: it runs in child processes, with an environment made for them.
"""

import collections
import contextlib
import dataclasses
import http.client
import ipaddress
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from parentalcontrols.embedded_servers import (
    Postgres,
    Server,
    Site,
    Valkey,
    make_data_dir,
    throwaway_servers,
)
from parentalcontrols.processes import (
    Hurry,
    Pause,
    ServerError,
    adopt_orphans,
    describe_ending,
    end_leftovers,
    end_process,
    lock_file,
    spawn,
    wait_until,
    write_private,
)

PROJECT = Path(__file__).resolve().parent.parent
SECRET_NAMES = ("SECRET_KEY", "TOKEN_SIGNING_KEY", "PIN_PEPPER")
# With these a shell reaches a running service.
SERVICE_NAMES = ("DATABASE_URL", "REDIS_URL", "BASE_URL", *SECRET_NAMES, "DEMO")
# Tells that a shell has them from the services file of a demo: the data folder of that demo.
SOURCED = "SERVICES_ENV_OF"
# Tells the processes of this data folder from those of another; children inherit it.
MARK = "LAUNCHER_DATA_DIR"

READY_SECONDS = 60.0
WATCH_SECONDS = 0.2
RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0

DEMO_TITLE = "00000000-0000-4000-8000-000000000001"
DEMO_PARENT = ("parent@example.com", "watch-together-7")
DEMO_STAFF = ("staff@example.com", "read-the-gauges-7")


class StopRequest(BaseException):
    """Ctrl-C or SIGTERM came; no `except Exception` on the way may swallow it."""


class StopSignals:
    """Counts the requests to stop, so that they take effect only where we look.

    An exception out of a signal handler could strike between the start of a child and the line
    that remembers it.
    """

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def pause(self, seconds: float) -> None:
        """Sleep; raises StopRequest when somebody wants us to stop."""
        if not self.count:
            time.sleep(seconds)
        if self.count:
            raise StopRequest

    def hurry(self) -> bool:
        """Whether somebody asked twice."""
        return self.count > 1


def say(text: str = "") -> None:
    print(text, flush=True)


def is_yes(text: str) -> bool:
    """Whether a variable's text switches something on, as the settings read it."""
    return text.strip().lower() in {"1", "true", "yes", "on"}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the environment asks of `run`."""

    host: str
    port: int
    workers: int
    threads: int
    data_dir: Path
    demo: bool

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Options":
        """Read and check the variables; ServerError with a sentence when one is wrong."""

        def number(name: str, default: int, most: int) -> int:
            text = environment.get(name) or str(default)
            if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
                raise ServerError(f"{name} must be a whole number from 1 to {most}, not {text!r}.")
            return int(text)

        own_servers = not environment.get("DATABASE_URL") and not environment.get("REDIS_URL")
        host = environment.get("BIND_HOST") or "127.0.0.1"
        if own_servers and not environment.get("DEMO") and not is_loopback(host):
            raise ServerError(
                f"BIND_HOST={host} would open the demo, whose passwords everybody can read, to the "
                "network: set DEMO=true as well if you mean it."
            )
        return cls(
            host=host,
            port=number("PORT", 8000, 65535),
            workers=number("WORKERS", 2, 256),
            threads=number("THREADS", 16, 1024),
            data_dir=Path(environment.get("DATA_DIR") or ".data").absolute(),
            demo=is_yes(environment.get("DEMO") or str(own_servers)),
        )

    @property
    def local_host(self) -> str:
        """The address at which this machine reaches the service."""
        with contextlib.suppress(ValueError):  # a name
            address = ipaddress.ip_address(self.host)
            if address.is_unspecified:
                return "127.0.0.1" if address.version == 4 else "::1"
        return self.host

    @property
    def url(self) -> str:
        host = f"[{self.local_host}]" if ":" in self.local_host else self.local_host
        return f"http://{host}:{self.port}"


def make_secret() -> str:
    """64 characters that are safe in an URL and in a shell."""
    return secrets.token_urlsafe(48)


def read_variables(path: Path) -> dict[str, str]:
    """The variables of a file of shell-quoted `NAME=value` lines, `export` or not."""
    words = shlex.split(path.read_text(), comments=True) if path.exists() else []
    return dict(word.split("=", 1) for word in words if "=" in word)


def kept_secrets(path: Path) -> dict[str, str]:
    """The demo's secrets: made on the first start, the same ever after."""
    known = read_variables(path)
    missing = {name: make_secret() for name in SECRET_NAMES if not known.get(name)}
    if missing:
        known |= missing
        write_private(path, "".join(f"{n}={shlex.quote(v)}\n" for n, v in known.items()))
    return {name: known[name] for name in SECRET_NAMES}


def write_services_file(path: Path, environment: Mapping[str, str]) -> None:
    """Write what a shell has to source so that `manage.py` reaches the running service."""
    names = [*SERVICE_NAMES, "ALLOWED_HOSTS", SOURCED]
    lines = [f"export {n}={shlex.quote(environment[n])}\n" for n in names if environment.get(n)]
    write_private(path, "".join(lines))


def without_sourced(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment as it was before its shell sourced the services file of a demo.

    Else a demo that is started from such a shell would take the other one's servers for its own.
    """
    if SOURCED not in environment:
        return dict(environment)
    return {n: v for n, v in environment.items() if n not in {*SERVICE_NAMES, SOURCED}}


def check_port(options: Options) -> None:
    """ServerError with a sentence when nobody can listen on the port."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
            probe.listen(1)
        except OSError as error:
            raise ServerError(
                f"Port {options.port} of {options.host} cannot be used "
                f"({(error.strerror or str(error)).lower()}); "
                "choose another one, for example: make run PORT=8001"
            ) from None


def error_of(text: str) -> str:
    """The error that a traceback ends with, all its lines."""
    return re.split(r"^(?=[A-Za-z_][\w.]*: )", text, flags=re.MULTILINE)[-1]


def run_manage(
    arguments: Sequence[str], environment: Mapping[str, str], pause: Pause, log: IO[bytes]
) -> None:
    """Run one command of `manage.py` quietly; what it printed goes to the log.

    Raises ServerError with its words when it fails, without the traceback when it left one.
    """
    with tempfile.TemporaryFile() as output:
        process = spawn(
            [sys.executable, "manage.py", *arguments],
            death_signal=signal.SIGTERM,
            environment=environment,
            folder=PROJECT,
            output=output,
        )
        try:
            while process.poll() is None:
                pause(WATCH_SECONDS / 4)
        finally:
            end_process(process, [(signal.SIGTERM, 10), (signal.SIGKILL, 5)])
        output.seek(0)
        printed = output.read()
    log.write(printed)
    if process.returncode != 0:
        text = printed.decode(errors="replace").strip()
        if "OperationalError" in text:
            text = (
                f"The database of DATABASE_URL does not answer as it should; nothing is served.\n"
                f"{error_of(text)}"
            )
        elif "Traceback (most recent call last)" in text:
            text = f"{error_of(text)}\nThe whole story is in {log.name}."
        ending = describe_ending(process)
        raise ServerError(text or f"manage.py {arguments[0]} failed ({ending}).")


class Gunicorn:
    """The web server: a master process and its workers."""

    name = "gunicorn"

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        self._options = options
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, pause: Pause = time.sleep) -> None:
        """Start the master; ServerError when a killed one's workers do not let go of the port."""
        end_marked_processes(self._options.data_dir, pause)
        self._process = spawn(
            [
                *(sys.executable, "-m", "gunicorn", "parentalcontrols.wsgi:application"),
                *("-c", PROJECT / "parentalcontrols" / "gunicorn.conf.py"),
            ],
            death_signal=signal.SIGTERM,
            environment=self._environment,
            folder=PROJECT,
        )

    def stop(self, hurry: Hurry = lambda: False) -> None:
        """Let requests under way finish within 30 s, at once when hurried."""
        if self._process:
            end_process(self._process, [(signal.SIGTERM, 35), (signal.SIGKILL, 5)], hurry)
            self._process = None
            end_marked_processes(self._options.data_dir, time.sleep, grace=0.5)

    @property
    def master(self) -> int:
        """The process id of the master; LookupError where it does not run."""
        if self._process is None:
            raise LookupError("The web server does not run.")
        return self._process.pid

    def ending(self) -> str | None:
        """How the master ended by itself, or None while it runs."""
        return describe_ending(self._process)

    def wait_until_ready(self, pause: Pause) -> str | None:
        """Wait for the first 200; None, or what it answered instead until we lost patience.

        Raises ServerError when gunicorn ends meanwhile.
        """
        answer = "nothing"

        def ready() -> bool:
            nonlocal answer
            answer = self._ask()
            return answer == "200" or self.ending() is not None

        came_up = wait_until(ready, READY_SECONDS, pause)
        if self.ending():
            raise ServerError(f"gunicorn did not start ({self.ending()}).")
        return None if came_up else answer

    def _ask(self) -> str:
        """The status of `/readyz`, or of `/livez` where there is none."""
        allowed = self._environment.get("ALLOWED_HOSTS", "").split(",")[0].strip().lstrip(".*")
        headers = {"Host": allowed} if allowed else {}
        status = "nothing"
        for path in ("/readyz", "/livez"):
            connection = http.client.HTTPConnection(
                self._options.local_host, self._options.port, timeout=5
            )
            try:
                connection.request("GET", path, headers=headers)
                status = str(connection.getresponse().status)
            except (OSError, http.client.HTTPException):
                return "nothing"
            finally:
                connection.close()
            if status != "404":
                break
        return status


def end_marked_processes(data_dir: Path, pause: Pause, grace: float = 10) -> None:
    """End the web workers and commands that a killed launcher or master of this folder left."""
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}

    def find() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid not in ourselves and process.environ().get(MARK) == str(data_dir):
                    found.append(process)
        return found

    end_leftovers(find, [(signal.SIGTERM, grace), (signal.SIGKILL, 10)], pause)


@dataclasses.dataclass
class Run:
    """One `make run`, from the lock on the data folder to its release."""

    options: Options
    environment: dict[str, str]
    signals: StopSignals
    servers: list[Server] = dataclasses.field(default_factory=list)  # in the order of their start
    restarts: dict[str, collections.deque[float]] = dataclasses.field(default_factory=dict)

    @property
    def services_file(self) -> Path:
        return self.options.data_dir / "services.env"

    def serve(self) -> None:
        """Start everything and keep it running; ends by StopRequest or ServerError alone."""
        try:
            self._start_servers()
            self._prepare_environment()
            self._prepare_database()
            gunicorn = Gunicorn(self.options, self.environment)
            write_services_file(self.services_file, self.environment)
            self.servers.append(gunicorn)
            gunicorn.start(self.signals.pause)
            problem = gunicorn.wait_until_ready(self.signals.pause)
            if problem:
                say(
                    f"gunicorn runs, but {self.options.url}/readyz answers {problem} instead of "
                    "200; its log lines above may say why."
                )
            say(welcome(self.options))
            while True:
                self.signals.pause(WATCH_SECONDS)
                self._revive()
        finally:
            self._stop()

    def _start(self, server: Server) -> None:
        self.servers.append(server)  # first: what failed half-way has to be stopped, too
        server.start(self.signals.pause)

    def _start_servers(self) -> None:
        options, environment = self.options, self.environment
        end_marked_processes(options.data_dir, self.signals.pause)
        check_port(options)
        if environment.get("DATABASE_URL") and environment.get("REDIS_URL"):
            return
        site = Site.at(options.data_dir)
        if not environment.get("DATABASE_URL"):
            # A connection per thread, and some for commands and tests beside it.
            connections = max(100, options.workers * options.threads + 40)
            postgres = Postgres(site, max_connections=connections)
            self._start(postgres)
            environment["DATABASE_URL"] = postgres.url
            if postgres.notice:
                say(postgres.notice)
            say(f"PostgreSQL is ready, its data is in {postgres.home}")
        if not environment.get("REDIS_URL"):
            valkey = Valkey(site)
            self._start(valkey)
            environment["REDIS_URL"] = valkey.url
            say("Valkey is ready")

    def _prepare_environment(self) -> None:
        options, environment = self.options, self.environment
        environment |= {
            "PORT": str(options.port),
            "BIND_HOST": options.host,
            "WORKERS": str(options.workers),
            "THREADS": str(options.threads),
            "DATA_DIR": str(options.data_dir),
            "BASE_URL": environment.get("BASE_URL") or options.url,
            MARK: str(options.data_dir),
        }
        if options.demo:
            environment["DEMO"] = "true"
            if len(self.servers) == 2:  # both are ours
                environment[SOURCED] = str(options.data_dir)
            for name, value in kept_secrets(options.data_dir / "secrets.env").items():
                environment[name] = environment.get(name) or value

    def _prepare_database(self) -> None:
        with open(self.options.data_dir / "logs" / "manage.log", "ab") as log:
            run_manage(["migrate", "--noinput"], self.environment, self.signals.pause, log)
            say("The database's tables are up to date")
            if self.options.demo:
                run_manage(["seed_demo"], self.environment, self.signals.pause, log)
                # A command of its own: what was watched is no affair of this package.
                demo_history = ["generate_history", "--demo"]
                run_manage(demo_history, self.environment, self.signals.pause, log)
                say("The demo's family and titles are there")

    def _revive(self) -> None:
        """Restart what ended by itself; ServerError when that happens over and over."""
        for server in self.servers:
            ending = server.ending()
            while ending:
                self._count_restart(server.name, ending)
                say(f"{server.name} ended unexpectedly ({ending}); restarting it")
                try:
                    server.start(self.signals.pause)
                    ending = None
                except ServerError as error:
                    say(str(error))
                    ending = "it did not start"

    def _count_restart(self, name: str, ending: str) -> None:
        recent = self.restarts.setdefault(name, collections.deque())
        now = time.monotonic()
        while recent and now - recent[0] > RESTART_WINDOW_SECONDS:
            recent.popleft()
        if len(recent) >= RESTARTS:
            raise ServerError(
                f"{name} ended again ({ending}), after {RESTARTS} restarts within a minute; "
                f"giving up. Logs are in {self.options.data_dir / 'logs'}."
            )
        recent.append(now)

    def _stop(self) -> None:
        """Stop in the reverse order of the start: no request loses its database."""
        for server in reversed(self.servers):
            try:
                server.stop(self.signals.hurry)
            except (ServerError, OSError) as error:
                say(f"{server.name}: {error}")
        self.services_file.unlink(missing_ok=True)


def welcome(options: Options) -> str:
    """What a newcomer needs: addresses, in the demo also logins and three commands to paste."""
    lines = [
        "",
        f"  Service    {options.url}/",
        f"  API docs   {options.url}/api/docs/",
        f"  Admin      {options.url}/admin/",
    ]
    if options.demo:
        api = f"{options.url}/api/v1"
        (email, password), json_type = DEMO_PARENT, "-H 'Content-Type: application/json'"
        bearer = '-H "Authorization: Bearer $TOKEN"'
        pick_token = r"""sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"""
        pick_child = (
            "python3 -c 'import json, sys; "
            'print(next(p["id"] for p in json.load(sys.stdin) if p["is_kids"]))\''
        )
        login = f"""'{{"email": "{email}", "password": "{password}"}}'"""
        beat = (
            r'"{\"profile_id\": \"$CHILD\", '
            rf'\"title_id\": \"{DEMO_TITLE}\", \"device_id\": \"my-tv\"}}"'
        )
        lines += [
            f"  Parent     {' / '.join(DEMO_PARENT)}",
            f"  Staff      {' / '.join(DEMO_STAFF)}",
            "",
            "Try it: log in, pick the first child, send a heartbeat for it.",
            "",
            f"TOKEN=$(curl -s {api}/auth/login {json_type} -d {login} | {pick_token})",
            f"CHILD=$(curl -s {api}/auth/profiles {bearer} | {pick_child})",
            f"curl -s {api}/viewing-time/heartbeat {bearer} {json_type} -d {beat}; echo",
        ]
    return "\n".join([*lines, "", "Ctrl-C stops everything."])


def run() -> int:
    """Serve until somebody wants us to stop; the exit code."""
    signals = StopSignals()
    environment = without_sourced(os.environ)
    options = Options.read(environment)
    make_data_dir(options.data_dir)
    options = dataclasses.replace(options, data_dir=options.data_dir.resolve())
    (options.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
    lock_path = options.data_dir / "lock"
    try:
        lock = lock_file(lock_path)
    except BlockingIOError:
        raise ServerError(
            f"{options.data_dir} is in use by another launcher (process "
            f"{lock_path.read_text().strip()}); stop that one, or choose another folder, for "
            "example: make run DATA_DIR=.data2 PORT=8001"
        ) from None
    with lock:
        try:
            Run(options, environment, signals).serve()
        except StopRequest:
            say("\nStopped.")
    return 0


def throwaway_environment(postgres: Postgres, valkey: Valkey) -> dict[str, str]:
    """The environment of a test or a check: nothing of a real instance is left in it."""
    scrubbed = {
        MARK,
        "DEMO",
        "SERVING",
        "BASE_URL",
        "DATA_DIR",
        "PORT",
        "BIND_HOST",
        "TEST_DATABASE_NAME",
        "DATABASE_PREPARED",
        "DATABASE_POOLED",
    }
    environment = {name: value for name, value in os.environ.items() if name not in scrubbed}
    if postgres.pooler:
        environment["DATABASE_PREPARED"] = "false"
    return environment | {
        "DATABASE_URL": postgres.service_url,
        "REDIS_URL": valkey.url,
        "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver",
        "LINT_MIGRATIONS": "1",
        **{name: make_secret() for name in SECRET_NAMES},
    }


def run_on_throwaway_servers(arguments: Sequence[str]) -> int:
    """Run a program on servers of its own; its exit code, 128 + n after signal n."""
    signals = StopSignals()
    adopt_orphans()
    try:
        with throwaway_servers(signals.pause) as (postgres, valkey):
            process = spawn(
                arguments,
                death_signal=signal.SIGTERM,
                environment=throwaway_environment(postgres, valkey),
                folder=PROJECT,
                stdin=None,  # ours, as it talks with the terminal, Ctrl-C included
                own_session=False,
            )
            _wait_for_program(process, signals)
            pooler = postgres.pooler.pid if postgres.pooler else None
            _end_orphans({postgres.pid, valkey.pid, pooler})
    except StopRequest:
        return 130
    code: int = process.returncode
    return 128 - code if code < 0 else code


def _wait_for_program(process: subprocess.Popen[bytes], signals: StopSignals) -> None:
    """Wait; when asked to stop give it the time to clean up after itself."""
    wait_until(lambda: process.poll() is not None or signals.count > 0, float("inf"))
    if process.poll() is None:
        # The terminal's Ctrl-C reached it, too, and a second one would cut its clean-up short.
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(0) == os.getpgrp():
                wait_until(lambda: process.poll() is not None or signals.hurry(), 20)
        end_process(
            process,
            [(signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5)],
            signals.hurry,
        )


def _end_orphans(spared: set[int | None]) -> None:
    """End what a crashed program left running; on Linux it has become ours."""

    def find() -> list[psutil.Process]:
        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if child.pid not in spared and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        return found

    end_leftovers(find, [(signal.SIGTERM, 5), (signal.SIGKILL, 5)])


def main(arguments: Sequence[str]) -> int:
    """Carry out one of the commands above; the exit code."""
    command, *rest = [*arguments, ""][: len(arguments) or 1]
    commands: dict[str, Callable[[], int]] = {
        "run": run,
        "test": lambda: run_on_throwaway_servers([sys.executable, "-m", "pytest", *rest]),
        "manage": lambda: run_on_throwaway_servers([sys.executable, "manage.py", *rest]),
        "with": lambda: run_on_throwaway_servers(rest),
    }
    if command not in commands or (command == "run" and rest) or (command == "with" and not rest):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    try:
        return commands[command]()
    except ServerError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or command}: {error.strerror or error}", file=sys.stderr)
    except StopRequest:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
