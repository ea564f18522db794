"""The launcher and its servers, with the real programs; no Django database is needed.

`launcher run` is tried on a stand-in project: the same launcher and gunicorn configuration around
a `manage.py` and an application of a few lines.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from parentalcontrols import launcher
from parentalcontrols.embedded_servers import Postgres, Site, Valkey
from parentalcontrols.processes import ServerError, wait_until, write_private

# From Python 3.12 on a fork is warned of where the test runner has threads (pytest-xdist).
pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand over to nobody")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and death signals")

MANAGE = """
import os, sys, psycopg
if "SECRET_KEY" not in os.environ:
    sys.exit("Configuration: SECRET_KEY is not set: set it to a random string.")
print("manage.py", *sys.argv[1:])
if sys.argv[1] == "migrate":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS beats (n int)")
"""

WSGI = """
import json, os, socket, psycopg
from django.conf import settings
nowhere = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": nowhere}, WEB_PROCESS_STARTS=[], CLIENT_SECONDS=20)

def beat():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("INSERT INTO beats VALUES (1)")
        return connection.execute("SELECT count(*) FROM beats").fetchone()[0]

def answer(path, body):
    if path == "/api/v1/auth/login":
        return {"access_token": "a.b-c", "refresh_token": "no", "got": body}
    if path == "/api/v1/auth/profiles":
        return [{"id": "grown-up", "is_kids": False}, {"id": "kid", "is_kids": True}]
    if path == "/api/v1/viewing-time/heartbeat":
        return {"got": body}
    return {"beats": beat()} if path == "/beats" else {}

def application(environ, start_response):
    body = environ["wsgi.input"].read().decode()
    try:
        status, text = "200 OK", json.dumps(answer(environ["PATH_INFO"], body))
    except psycopg.Error as error:
        status, text = "503 Service Unavailable", str(error)
    start_response(status, [("Content-Type", "application/json")])
    return [text.encode()]
"""


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Poll until `condition` is true; the test fails when it is not so in time."""
    assert wait_until(lambda: bool(condition()), seconds), f"not within {seconds} s"


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every running process that has to do with a data folder, by any sign of it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            signs = [process.cwd(), *process.cmdline(), *process.environ().values()]
            mine = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if mine and any(str(folder) in sign for sign in signs):
                found.append(process)
    return found


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module", autouse=True)
def servers_of_the_packages() -> Iterator[None]:
    """These tests are about the servers that come with the launcher, whatever others run on."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POSTGRES_BINARIES", "CACHE_BINARY", "POOLER_BINARY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that `nobody` can reach, too, with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="launcher-test-", dir="/tmp")).resolve()
    path.chmod(0o755)
    yield path
    for process in processes_of(path):
        with contextlib.suppress(psutil.Error):
            process.kill()
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def made_data() -> Iterator[Path]:
    """A data folder that is made once, because that takes longest."""
    with tempfile.TemporaryDirectory(prefix="launcher-test-", dir="/tmp") as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        server = Postgres(Site.at(path / "data", throwaway=True))
        server.start()
        server.stop()
        yield path / "data"


@pytest.fixture
def used_data(folder: Path, made_data: Path) -> Path:
    """A data folder that has been used before, for one test alone."""
    subprocess.run(["cp", "-a", made_data, folder / "data"], check=True)
    return folder / "data"


@pytest.fixture
def postgres(made_data: Path) -> Iterator[Postgres]:
    """A server with the data of the tests before this one: each has tables of its own."""
    server = Postgres(Site.at(made_data, throwaway=True))
    server.start()
    yield server
    server.stop()


def test_the_application_is_no_superuser_and_needs_its_password(postgres: Postgres) -> None:
    rights = "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    assert query(postgres.url, rights) == [(False, True)]
    assert query(postgres.url, "SHOW listen_addresses") == [("",)]
    for stranger in ("viewingtime:wrong@", "postgres:wrong@", "postgres@"):
        with pytest.raises(psycopg.OperationalError, match=r"password"):
            query(re.sub(r"//.*?@", f"//{stranger}", postgres.url), "SELECT 1")

    # Text sorts alike on every machine.
    locale = "SELECT datlocprovider, datlocale, pg_encoding_to_char(encoding) FROM pg_database"
    assert set(query(postgres.url, locale)) == {("b", "C.UTF-8", "UTF8")}


def test_data_survives_a_stop_and_a_kill(postgres: Postgres) -> None:
    query(postgres.url, "CREATE TABLE kept AS SELECT 1 AS n")
    postgres.stop()
    postgres.start()
    query(postgres.url, "INSERT INTO kept VALUES (2)")

    os.kill(postgres.pid or 0, signal.SIGKILL)
    eventually(postgres.ending)
    assert postgres.ending() == "signal 9"
    postgres.start()
    assert query(postgres.url, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_a_lost_password_is_replaced_and_the_data_kept(postgres: Postgres) -> None:
    query(postgres.url, "CREATE TABLE also_kept AS SELECT 1 AS n")
    postgres.stop()
    (postgres.home / "password").unlink()
    postgres.start()
    assert query(postgres.url, "SELECT n FROM also_kept") == [(1,)]
    assert stat.S_IMODE((postgres.home / "password").stat().st_mode) == 0o600


def test_a_pid_file_that_names_a_living_stranger_does_not_matter(postgres: Postgres) -> None:
    postgres.stop()
    (postgres.home / "cluster" / "postmaster.pid").write_text(f"{os.getppid()}\n")
    postgres.start()
    assert query(postgres.url, "SELECT 1") == [(1,)]
    assert psutil.pid_exists(os.getppid())


def test_one_cluster_has_one_owner(postgres: Postgres, made_data: Path) -> None:
    with pytest.raises(ServerError, match="in use by another launcher"):
        Postgres(Site.at(made_data, throwaway=True)).start()
    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_servers_side_by_side_do_not_mix(postgres: Postgres, folder: Path) -> None:
    site = Site.at(folder / "other data, with spaces", throwaway=True)
    other, valkey = Postgres(site), Valkey(site)
    try:
        other.start()
        valkey.start()
        query(other.url, "CREATE TABLE mine ()")
        assert query(postgres.url, "SELECT to_regclass('mine')") == [(None,)]
    finally:
        valkey.stop()
        other.stop()
    assert not site.sockets.exists()
    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_the_cache_wants_a_password_and_comes_back_at_its_place(folder: Path) -> None:
    valkey = Valkey(Site.at(folder / "data", throwaway=True))

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(valkey.socket_path))
            connection.sendall(b"GET key\r\n")
            return connection.recv(100)

    valkey.start()
    try:
        url = valkey.url
        assert ask().startswith(b"-NOAUTH")
        assert valkey.url.split(":")[2].split("@")[0] not in " ".join(
            psutil.Process(valkey.pid).cmdline()
        )
        os.kill(valkey.pid or 0, signal.SIGKILL)
        eventually(valkey.ending)
        valkey.start()
        assert valkey.url == url
        assert ask().startswith(b"-NOAUTH")
    finally:
        valkey.stop()
    assert processes_of(folder) == []


ORPHAN_MAKER = """
import os, signal, sys
from pathlib import Path
from parentalcontrols import embedded_servers, processes
processes._libc = None  # as on a system without death signals
site = embedded_servers.Site.at(Path(sys.argv[1]), throwaway=True)
postgres, valkey = embedded_servers.Postgres(site), embedded_servers.Valkey(site)
postgres.start()
valkey.start()
print(postgres.pid, valkey.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_orphans_of_a_killed_launcher_are_stopped_and_their_data_taken_over(
    folder: Path, used_data: Path
) -> None:
    made = subprocess.run(
        [sys.executable, "-c", ORPHAN_MAKER, str(used_data)],
        cwd=launcher.PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    orphans = [psutil.Process(int(pid)) for pid in made.stdout.split()]
    assert [orphan.is_running() for orphan in orphans] == [True, True]

    site = Site.at(used_data, throwaway=True)
    postgres, valkey = Postgres(site), Valkey(site)
    try:
        postgres.start()
        valkey.start()
        assert query(postgres.url, "SELECT current_database()") == [("viewingtime",)]
        running = [o for o in orphans if o.is_running() and o.status() != psutil.STATUS_ZOMBIE]
        assert running == []
    finally:
        valkey.stop()
        postgres.stop()
    assert processes_of(folder) == []


@as_root
def test_what_nobody_cannot_reach_moves_to_a_private_folder_and_back_it_is_found(
    folder: Path,
) -> None:
    home, private = folder / "home", folder / "private"
    home.mkdir(mode=0o700)
    private.mkdir()
    data = home / "data"
    for expected in ([(0,)], [(1,)]):
        server = Postgres(Site.at(data, throwaway=True, private=private))
        server.start()
        query(server.url, "CREATE TABLE IF NOT EXISTS kept (n int)")
        assert query(server.url, "SELECT count(*) FROM kept") == expected
        query(server.url, "INSERT INTO kept VALUES (1)")
        assert server.home.parent == private
        server.stop()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700

    # A data folder that was removed takes its database out of use, but never deletes it.
    shutil.rmtree(data)
    server = Postgres(Site.at(data, throwaway=True, private=private))
    server.start()
    try:
        assert query(server.url, "SELECT to_regclass('kept')") == [(None,)]
        assert server.notice
        assert "kept aside" in server.notice
    finally:
        server.stop()


@as_root
def test_a_cluster_whose_folder_was_closed_to_nobody_moves_with_its_data(
    folder: Path, used_data: Path
) -> None:
    home, private = folder / "home", folder / "private"
    home.mkdir()
    private.mkdir()
    used_data.rename(home / "data")
    for mode in (0o755, 0o700):
        home.chmod(mode)
        server = Postgres(Site.at(home / "data", throwaway=True, private=private))
        server.start()
        try:
            query(server.url, "CREATE TABLE IF NOT EXISTS moved (n int)")
            query(server.url, "INSERT INTO moved VALUES (1)")
            (count,) = query(server.url, "SELECT count(*) FROM moved")
        finally:
            server.stop()
    assert count == (2,)
    assert server.home.parent == private


def test_secrets_are_made_once_and_for_the_owner_alone(folder: Path) -> None:
    path = folder / "secrets.env"
    first = launcher.kept_secrets(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(first) == {"SECRET_KEY", "TOKEN_SIGNING_KEY", "PIN_PEPPER"}
    assert len(set(first.values())) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{64}", value) for value in first.values())
    assert launcher.kept_secrets(path) == first

    write_private(path, f"SECRET_KEY={first['SECRET_KEY']}\n")
    assert launcher.kept_secrets(path)["SECRET_KEY"] == first["SECRET_KEY"]


def test_the_services_file_means_the_same_to_a_shell(folder: Path) -> None:
    path = folder / "services.env"
    values = {
        "DATABASE_URL": "postgresql://u:p@/d?host=/a b&port=5432",
        "REDIS_URL": "unix://:p@/x?db=0",
        "SECRET_KEY": 'it\'s "$HOME" `id` \\ ;#\nnext',
        "ALLOWED_HOSTS": "*,a.example",
    }
    launcher.write_services_file(path, values | {"HOME": "not ours", "DEMO": ""})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = subprocess.run(
        ["bash", "-c", f". {shlex.quote(str(path))}; env -0"],
        env={"PATH": os.environ["PATH"], "HOME": "kept"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    seen = dict(pair.split("=", 1) for pair in shown.split("\0") if "=" in pair)
    assert {name: seen[name] for name in values} == values
    assert seen["HOME"] == "kept"
    assert "DEMO" not in seen
    assert launcher.read_variables(path) == values


def test_a_demo_started_from_a_shell_that_sourced_another_ones_file_has_servers_of_its_own(
    folder: Path,
) -> None:
    sourced = {"DATABASE_URL": "postgresql:///d", "DEMO": "true", launcher.SOURCED: str(folder)}
    assert launcher.without_sourced({"PORT": "8001", **sourced}) == {"PORT": "8001"}
    # What an operator set stays.
    own = {"DATABASE_URL": "postgresql:///d", "DEMO": "true"}
    assert launcher.without_sourced(own) == own


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "a.example"])
def test_the_demo_does_not_open_itself_to_the_network_unasked(host: str) -> None:
    with pytest.raises(ServerError, match="set DEMO=true"):
        launcher.Options.read({"BIND_HOST": host})
    assert launcher.Options.read({"BIND_HOST": host, "DEMO": "true"}).host == host
    assert launcher.Options.read({"BIND_HOST": host, "DATABASE_URL": "postgresql:///x"})


def test_of_a_traceback_only_the_error_is_told() -> None:
    text = (
        "Traceback (most recent call last):\n  File x\nOSError: a\n\nTraceback ...\nb.Error: c\n\td"
    )
    assert launcher.error_of(text) == "b.Error: c\n\td"


@pytest.mark.parametrize("port", ["0", "65536", "eight", "80 80", "-1", "٨٠"])
def test_a_port_that_is_none_is_refused_with_a_sentence(port: str) -> None:
    with pytest.raises(ServerError, match="PORT must be a whole number from 1 to 65535"):
        launcher.Options.read({"PORT": port})


def test_the_demo_is_on_only_without_servers_of_ones_own() -> None:
    assert launcher.Options.read({}).demo
    assert launcher.Options.read({"DATABASE_URL": "", "REDIS_URL": ""}).demo
    assert not launcher.Options.read({"DATABASE_URL": "postgresql:///x"}).demo
    assert not launcher.Options.read({"REDIS_URL": "redis://x"}).demo
    assert launcher.Options.read({"DATABASE_URL": "postgresql:///x", "DEMO": "true"}).demo
    assert not launcher.Options.read({"DEMO": "false"}).demo


# --- `launcher run` and `launcher test` on a stand-in project ---------------------------------


class Project:
    """A stand-in project with the real launcher in it, and its data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.code = folder / "code"
        package = self.code / "parentalcontrols"
        package.mkdir(parents=True)
        for name in (
            *("__init__", "launcher", "embedded_servers", "pooler", "processes"),
            *("gunicorn.conf", "gunicorn_logs", "logs", "unreadable", "worker"),
        ):
            shutil.copy(launcher.PROJECT / "parentalcontrols" / f"{name}.py", package)
        (package / "wsgi.py").write_text(WSGI)
        (package / "settings.py").touch()
        (self.code / "manage.py").write_text(MANAGE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        defaults = {"PORT": str(self.port), "DATA_DIR": str(self.data), "TMPDIR": str(self.folder)}
        return subprocess.Popen(
            [sys.executable, "-m", "parentalcontrols.launcher", *(arguments or ("run",))],
            cwd=self.code,
            env=kept | {"WORKERS": "1", "THREADS": "2"} | defaults | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_and_wait(self) -> subprocess.Popen[str]:
        process = self.start()
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline() if process.stdout else "")
            assert lines[-1], process.communicate()
        self.output = "".join(lines)
        return process

    def beats(self) -> int:
        """Count one more beat by way of the web server and the database; 0 while it is away."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/beats", timeout=5
            ) as response:
                return int(re.sub(r"\D", "", response.read().decode()))
        except OSError:
            return 0


@pytest.fixture
def project(folder: Path) -> Project:
    return Project(folder)


@pytest.fixture
def used_project(project: Project, used_data: Path) -> Project:
    """A project that has been run before."""
    assert used_data == project.data
    return project


def finish(process: subprocess.Popen[str], number: signal.Signals | None = None) -> tuple[str, str]:
    if number:
        process.send_signal(number)
    return process.communicate(timeout=40)


@on_linux
def test_a_run_heals_itself_and_ends_without_a_trace(project: Project) -> None:
    process = project.start_and_wait()
    assert project.beats() == 1
    services = project.data / "services.env"
    assert launcher.read_variables(services)["BASE_URL"] == f"http://127.0.0.1:{project.port}"
    assert stat.S_IMODE(services.stat().st_mode) == 0o600

    def server(name: str) -> psutil.Process | None:
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.Error):
                if name in " ".join([child.name(), *child.cmdline()]):
                    return child
        return None

    counted = 1
    for name in ("postgres", "valkey-server", "gunicorn"):
        victim = server(name)
        assert victim
        victim.kill()
        # A killed master's workers may answer for a moment; only its successor counts.
        eventually(lambda name=name, victim=victim: server(name) not in {None, victim})
        eventually(lambda counted=counted: project.beats() > counted)
        counted = project.beats()

    output, _ = finish(process, signal.SIGTERM)
    assert process.returncode == 0
    assert output.count("ended unexpectedly (signal 9); restarting it") == 3
    assert not services.exists()
    assert processes_of(project.folder) == []


def test_a_demo_is_migrated_then_seeded_then_given_a_history(used_project: Project) -> None:
    finish(used_project.start_and_wait(), signal.SIGTERM)
    assert (used_project.data / "logs" / "manage.log").read_text().splitlines() == [
        "manage.py migrate --noinput",
        "manage.py seed_demo",
        "manage.py generate_history --demo",
    ]


@on_linux
def test_after_a_kill_of_the_launcher_the_next_run_has_all_data(used_project: Project) -> None:
    process = used_project.start_and_wait()
    assert used_project.beats() == 1
    process.kill()
    process.communicate()

    process = used_project.start_and_wait()
    assert used_project.beats() == 2
    finish(process, signal.SIGINT)
    assert process.returncode == 0
    assert processes_of(used_project.folder) == []


def test_a_second_run_on_the_same_data_and_one_on_the_same_port_are_refused(
    used_project: Project,
) -> None:
    process = used_project.start_and_wait()
    for variables, sentence in (
        ({}, f"is in use by another launcher (process {process.pid})"),
        (
            {"DATA_DIR": str(used_project.folder / "other")},
            f"Port {used_project.port} of 127.0.0.1",
        ),
    ):
        second = used_project.start(**variables)
        output, errors = finish(second)
        assert second.returncode == 1
        assert sentence in errors
        assert "Traceback" not in output + errors
    assert used_project.beats() == 1
    finish(process, signal.SIGTERM)
    assert processes_of(used_project.folder) == []


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_three_commands_work_when_pasted(used_project: Project) -> None:
    process = used_project.start_and_wait()
    commands = used_project.output[
        used_project.output.index("TOKEN=") : used_project.output.index("Ctrl-C")
    ]
    assert len(commands.strip().splitlines()) == 3
    shown = subprocess.run(
        ["bash", "-c", f'{commands}\necho "$TOKEN $CHILD"'],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert r"\"profile_id\": \"kid\"" in shown
    assert shown.splitlines()[-1] == "a.b-c kid"
    finish(process, signal.SIGTERM)


def test_a_missing_setting_ends_the_start_with_the_sentence_alone(used_project: Project) -> None:
    process = used_project.start(REDIS_URL="redis://127.0.0.1:1/0")
    output, errors = finish(process)
    assert process.returncode == 1
    assert errors == "Configuration: SECRET_KEY is not set: set it to a random string.\n"
    assert "Traceback" not in output
    assert not (used_project.data / "secrets.env").exists()
    assert processes_of(used_project.folder) == []


@on_linux
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("assert not __import__('psycopg').connect(__import__('os').environ['DATABASE_URL'])", 1),
        ("__import__('os').kill(__import__('os').getpid(), 9)", 137),
    ],
)
def test_a_test_run_answers_like_its_tests_and_leaves_nothing(
    project: Project, body: str, code: int
) -> None:
    (project.code / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    process = project.start("test", "-q", "-p", "no:cacheprovider")
    finish(process)
    assert process.returncode == code
    assert processes_of(project.folder) == []
    assert list(project.folder.glob("viewingtime-*")) == []


@on_linux
def test_an_interrupted_test_run_leaves_nothing(project: Project) -> None:
    (project.code / "test_it.py").write_text(
        "import subprocess, sys, time\n"
        "def test_it():\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    open('reached', 'w').close()\n"
        "    time.sleep(600)\n"
    )
    process = project.start("test", "-q", "-p", "no:cacheprovider")
    eventually((project.code / "reached").exists)
    finish(process, signal.SIGTERM)
    assert process.returncode not in {0, 1}
    assert processes_of(project.folder) == []
    assert list(project.folder.glob("viewingtime-*")) == []
