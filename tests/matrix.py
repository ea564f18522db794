"""The whole suite on the versions that operators run: `make test-matrix`.

    python -m tests.matrix [--quick] [ROW...]     no row: pooled, others and newest

Each row is the whole suite once, so a row can have several parts: `others` is PostgreSQL 15,
Redis 7 and Django 6, `pooled` is PgBouncer, `newest` is what `make test` runs. A part can be asked
for alone, to find out whose a failure is: postgresql-15, redis-7, pgbouncer, django-6.

What lacks a program says so and is left out; anything that fails makes the exit code 1.
Debian 12 has PostgreSQL 15, Redis 7.0 and PgBouncer 1.18: apt-get install postgresql-15
redis-server pgbouncer. The row of Django 6 needs a Python 3.12 or newer, by the name of python3.14,
python3.13 or python3.12, pyenv's included, or in MATRIX_PYTHON; it makes an environment of its own
in `.matrix`. ARGS are pytest's, in the place of the whole suite.
"""

import argparse
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree  # nosec B405

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / ".matrix"
DJANGO_6 = "6.1.3"
#: What each row runs with --quick: the accounting, its SQL and races, outages, admin and plans.
QUICK = (
    "viewingtime/tests/test_statements.py",
    "viewingtime/tests/test_concurrency.py",
    "viewingtime/tests/test_agreement.py",
    "viewingtime/tests/test_outages.py",
    "viewingtime/tests/test_history.py",
    "viewingtime/tests/test_index_migration.py",
    "parentalcontrols/tests/test_config_cache_service.py",
    "parentalcontrols/tests/test_idempotency.py",
    "parentalcontrols/tests/test_contract.py",
    "parentalcontrols/tests/test_admin.py",
    "pins/tests/test_guessing.py",
    "adminmetrics/tests/test_rollup.py",
    "adminmetrics/tests/test_verify_indexes.py",
)


class Missing(Exception):
    """A row cannot run here; the sentence says what it lacks."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """With which Python and which variables a row runs, and what pytest is told besides."""

    python: str = sys.executable
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: tuple[str, ...] = ()


def newest() -> Setting:
    """What `make test` runs: PostgreSQL 18, Valkey 9, Django 5.2."""
    return Setting()


def postgresql_15() -> Setting:
    folder = Path("/usr/lib/postgresql/15/bin")
    if not (folder / "postgres").exists():
        raise Missing("there is no PostgreSQL 15 (Debian: postgresql-15)")
    return Setting(variables={"POSTGRES_BINARIES": str(folder)})


def redis_7() -> Setting:
    program = _program("redis-server", "redis-server")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if not re.search(r"v=7\.", version.stdout):
        raise Missing(f"{program} is no Redis 7")
    return Setting(variables={"CACHE_BINARY": program})


def pgbouncer() -> Setting:
    return Setting(variables={"POOLER_BINARY": _program("pgbouncer", "pgbouncer")})


def django_6() -> Setting:
    """An environment with the pinned requirements, but Django."""
    folder = FOLDER / "django-6"
    python, stamp = folder / "bin" / "python", folder / f"installed-{DJANGO_6}"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([_newer_python(), "-m", "venv", str(folder)], check=True)
        runtime = (PROJECT / "requirements.txt").read_text()
        pinned = FOLDER / "requirements.txt"
        pinned.write_text(re.sub(r"(?m)^Django==.*$", f"Django=={DJANGO_6}", runtime))
        # What checks types knows Django 5.2 alone, and is not needed to test.
        development = [
            line
            for line in (PROJECT / "requirements-dev.txt").read_text().splitlines()
            if not re.match(r"-r |django-stubs|djangorestframework-stubs|types-|mypy", line)
        ]
        (FOLDER / "requirements-dev.txt").write_text(
            "\n".join(["-r requirements.txt", *development])
        )
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(FOLDER / "requirements-dev.txt")], check=True)
        stamp.touch()
    # That compares what is installed with what is pinned.
    return Setting(str(python), options=("--deselect=parentalcontrols/tests/test_dependencies.py",))


PARTS: Mapping[str, Callable[[], Setting]] = {
    "newest": newest,
    "postgresql-15": postgresql_15,
    "redis-7": redis_7,
    "pgbouncer": pgbouncer,
    "django-6": django_6,
}
#: The rows that are run where none is asked for: together they have every part. What is tried
#: least otherwise comes first.
ROWS: Mapping[str, tuple[str, ...]] = {
    "pooled": ("pgbouncer",),
    "others": ("postgresql-15", "redis-7", "django-6"),
    "newest": ("newest",),
}


def made_of(row: str) -> tuple[Setting, list[str]]:
    """A row's parts together, and what is missing of them; `Missing` where nothing is left."""
    whole, missing = Setting(), []
    parts = ROWS.get(row, (row,))
    for part in parts:
        try:
            setting = PARTS[part]()
        except Missing as lack:
            missing.append(f"without {part}: {lack}")
            continue
        python = setting.python if setting.python != sys.executable else whole.python
        variables = {**whole.variables, **setting.variables}
        whole = Setting(python, variables, (*whole.options, *setting.options))
    if len(missing) == len(parts):
        raise Missing("; ".join(missing))
    return whole, missing


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"there is no {name} (Debian: {package})")
    return found


def _newer_python() -> str:
    """A Python that Django 6 runs on, one that can make environments."""
    wanted = ["python3.14", "python3.13", "python3.12"]
    # pyenv's own names stand for nothing until a version is chosen.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    kept = [str(path) for name in wanted for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    named = os.environ.get("MATRIX_PYTHON")
    for name in [named] if named else [*wanted, *kept]:
        found = shutil.which(name)
        code = "import ensurepip, ssl, sys; sys.exit(sys.version_info < (3, 12))"
        if found and subprocess.run([found, "-c", code], check=False).returncode == 0:
            return found
    raise Missing("there is no Python 3.12 or newer with venv; name one by MATRIX_PYTHON")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing failed; a row that cannot run here is no failure."""
        return self.failed == 0 and (self.passed > 0 or self.note.startswith("skipped"))


def run(row: str, arguments: list[str]) -> Outcome:
    """Runs a row; its output goes to the terminal, failures by name into the outcome's note."""
    FOLDER.mkdir(exist_ok=True)
    report = FOLDER / f"{row}.xml"
    report.unlink(missing_ok=True)
    try:
        setting, missing = made_of(row)
    except Missing as lack:
        return Outcome(row, note=f"skipped: {lack}")
    print(f"--- {row}", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [
            *(setting.python, "-m", "parentalcontrols.launcher", "test", "-q"),
            # Each of the two takes whole modules, with what their tests share.
            *("-n", "2", "--dist", "worksteal"),
            # A pooler keeps connections to the tests' database, which nobody needs to drop.
            *("--reuse-db", f"--junitxml={report}", *setting.options, *arguments),
        ],
        cwd=PROJECT,
        env={**os.environ, **setting.variables},
        check=False,
    )
    seconds = time.monotonic() - began
    if not report.exists():
        return Outcome(row, failed=1, seconds=seconds, note=f"ended with {done.returncode}")
    outcome = read(row, report)
    told = [outcome.note or (f"ended with {done.returncode}" if done.returncode else ""), *missing]
    note = "; ".join(filter(None, told))
    failed = outcome.failed or int(done.returncode != 0)
    return dataclasses.replace(outcome, failed=failed, seconds=seconds, note=note)


def read(row: str, report: Path) -> Outcome:
    """The counts of pytest's report, and the names of what failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))  # nosec B314
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    return Outcome(
        row,
        passed=len(cases) - len(failed) - len(skipped),
        failed=len(failed),
        skipped=len(skipped),
        note=" ".join(f"{c.get('classname')}::{c.get('name')}" for c in failed),
    )


def main() -> int:
    """Runs the rows that were asked for and tells what became of them."""
    parser = argparse.ArgumentParser(description="The suite on other versions of everything.")
    known = list(dict.fromkeys([*ROWS, *PARTS]))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="a representative part of the suite")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(known):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    arguments = shlex.split(os.environ.get("ARGS", "")) or (list(QUICK) if options.quick else [])
    outcomes = [run(row, arguments) for row in options.rows or ROWS]
    print(f"\n{'row':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'minutes':>9}")
    for told in outcomes:
        figures = f"{told.passed:>8}{told.failed:>8}{told.skipped:>9}{told.seconds / 60:>9.1f}"
        print(f"{told.row:<16}{figures}  {told.note}".rstrip())
    return 0 if all(told.is_good for told in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
