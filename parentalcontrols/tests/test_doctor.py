"""The doctor finds what is broken, each thing broken for real, and tells no secret."""

import json
import os
import subprocess
import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django_redis import get_redis_connection

from parentalcontrols import doctor
from parentalcontrols.doctor import Finding, State, database
from parentalcontrols.doctor.clocks import judged_skew
from parentalcontrols.tests.cast import database_now
from pins.tests.service import PYTHON, ROOT, database_of_tests
from viewingtime.tests import clock

pytestmark = pytest.mark.django_db


def found(name: str) -> Finding:
    (finding,) = doctor.examine(name)
    assert bool(finding.advice) == (finding.state is not State.OK)
    return finding


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYTHON, "manage.py", "doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_left_unknown_where_both_servers_answer() -> None:
    findings = list(doctor.examine())
    assert len(findings) >= 18
    assert not [finding for finding in findings if finding.state is State.UNKNOWN]
    assert len({finding.name for finding in findings}) == len(findings)
    assert all(finding.found for finding in findings)


# The database


def test_a_database_that_is_away_is_a_problem_and_the_others_are_looked_at() -> None:
    password = "a-word-that-is-never-told"
    done = run("--json", DATABASE_URL=f"postgresql://nobody:{password}@127.0.0.1:1/none")
    assert done.returncode == 2
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert states["database"] == "problem"
    assert states["migrations"] == states["database clock"] == "unknown"
    assert states["cache"] == states["cache round trip"] == states["secrets"] == "ok"
    assert password not in done.stdout + done.stderr


def test_a_migration_that_was_not_applied_is_named() -> None:
    recorder = MigrationRecorder(connection)
    assert found("migrations").state is State.OK
    recorder.record_applied("pins", "0999_of_another_version")
    assert found("migrations").state is State.WARNING
    recorder.record_unapplied("pins", "0999_of_another_version")
    latest = max(name for app, name in recorder.applied_migrations() if app == "viewingtime")
    recorder.record_unapplied("viewingtime", latest)
    finding = found("migrations")
    assert finding.state is State.PROBLEM
    assert f"viewingtime.{latest}" in finding.found
    assert "migrate" in finding.advice


def test_an_index_that_is_missing_is_named() -> None:
    assert found("indexes").state is State.OK
    execute("DROP INDEX ix_vs_profile_started")
    finding = found("indexes")
    assert finding.state is State.PROBLEM
    assert "ix_vs_profile_started" in finding.found
    assert "verify_indexes" in finding.advice


@pytest.mark.parametrize(
    ("seconds", "state"),
    [(0, State.OK), (3, State.WARNING), (-3, State.WARNING), (60, State.PROBLEM)],
)
def test_a_clock_that_is_off_is_told(seconds: int, state: State) -> None:
    now = database_now()
    if seconds:
        clock.install()
        clock.set_to(now + timedelta(seconds=seconds))
    assert found("database clock").state is state


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert judged_skew(1.4, 2.0, "it").state is State.OK
    assert judged_skew(2.4, 2.0, "it").state is State.WARNING


def test_a_commit_that_is_not_waited_for_is_a_problem() -> None:
    assert "synchronous_commit" not in found("database durability").found
    execute("SET LOCAL synchronous_commit = off")
    finding = found("database durability")
    assert finding.state is State.PROBLEM
    assert "synchronous_commit" in finding.found


def test_more_processes_than_there_are_connections_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for workers, state in (("1", State.OK), ("7", State.WARNING), ("50", State.PROBLEM)):
        monkeypatch.setenv("WORKERS", workers)
        assert found("database connections").state is state, workers


def test_a_pooler_is_told_by_whose_process_answers() -> None:
    is_pooled = bool(os.environ.get("POOLER_BINARY"))
    finding = found("connection pooler")
    assert finding.state is State.OK
    assert (finding.found == "none") is not is_pooled
    for is_there, prepared, state in (
        (True, True, State.WARNING),
        (True, False, State.OK),
        (False, False, State.WARNING),
    ):
        judged = database.judged_pooler(is_there=is_there, prepared=prepared)
        assert judged.state is state
    assert "DATABASE_PREPARED=false" in database.judged_pooler(is_there=True, prepared=True).advice


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_stays_open_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LONG_TRANSACTION", -1)
    with psycopg.connect(database_of_tests()) as other:
        other.execute("SELECT 1")
        assert found("long transactions").state is State.WARNING
    monkeypatch.undo()
    assert found("long transactions").state is State.OK


def test_a_role_that_may_not_write_is_told_where() -> None:
    assert found("rights of the role").state is State.OK
    execute("REVOKE DELETE ON titles FROM CURRENT_USER")
    finding = found("rights of the role")
    assert finding.state is State.PROBLEM
    assert finding.found.endswith("titles")


@pytest.fixture
def wrong_zones(tmp_path: Path) -> Iterator[None]:
    """A host that takes Berlin to be in Japan."""
    folder = tmp_path / "Europe"
    folder.mkdir()
    import importlib.resources

    tokyo = importlib.resources.files("tzdata.zoneinfo.Asia").joinpath("Tokyo").read_bytes()
    (folder / "Berlin").write_bytes(tokyo)
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()


def test_zones_that_differ_are_counted(wrong_zones: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from parentalcontrols.doctor import tables

    monkeypatch.setattr(tables, "_NAMED", 10_000)
    finding = found("time zones")
    assert finding.state is State.WARNING
    assert "Europe/Berlin" in finding.found


# The cache


def test_a_cache_that_is_away_is_a_problem_and_the_others_are_looked_at() -> None:
    password = "a-word-that-is-never-told"
    cache = f"redis://:{password}@127.0.0.1:1/0"
    done = run(DATABASE_URL=database_of_tests(), REDIS_URL=cache)
    assert done.returncode == 2
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert any(line.startswith("problem  cache: it does not answer") for line in lines)
    assert any(line.startswith("unknown  cache memory: ") for line in lines)
    assert any(line.startswith("ok       migrations: ") for line in lines)
    assert password not in done.stdout + done.stderr


def test_a_cache_that_refuses_when_it_is_full_is_a_problem() -> None:
    client = get_redis_connection("default")
    before = client.config_get("maxmemory*")
    try:
        client.config_set("maxmemory", "0")
        assert found("cache memory").state is State.WARNING
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "noeviction")
        assert found("cache memory").state is State.PROBLEM
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert found("cache memory").state is State.OK
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            client.config_set(name, before[name])


def test_the_round_trip_leaves_nothing_behind() -> None:
    assert found("cache round trip").state is State.OK
    assert not list(get_redis_connection("default").scan_iter("*doctor*"))


# The settings and this host


def test_the_demo_is_no_production(settings: Any) -> None:
    settings.DEMO = False
    assert found("demo and debug").state is State.OK
    for name in ("DEMO", "DEBUG"):
        setattr(settings, name, True)
        finding = found("demo and debug")
        assert finding.state is State.PROBLEM
        assert name in finding.found


def test_hosts_are_named(settings: Any) -> None:
    for hosts, state in (
        (["*"], State.PROBLEM),
        (["localhost"], State.WARNING),
        (["tv.example.com", "localhost"], State.OK),
    ):
        settings.ALLOWED_HOSTS = hosts
        assert found("hosts").state is state


def test_without_https_it_warns(settings: Any) -> None:
    for is_on, state in ((True, State.OK), (False, State.WARNING)):
        settings.HTTPS_ONLY = is_on
        assert found("https").state is state


def test_a_secret_for_two_things_or_a_short_one_is_named_and_not_told(settings: Any) -> None:
    values = [f"{letter}-secret-of-its-own-" + letter * 40 for letter in "abcd"]
    settings.SECRET_KEY, settings.TOKEN_SIGNING_KEY, settings.PIN_PEPPER = values[:3]
    settings.METRICS_TOKEN = values[3]
    assert found("secrets").state is State.OK
    settings.METRICS_TOKEN = values[2]
    equal = found("secrets")
    assert equal.state is State.PROBLEM
    assert "PIN_PEPPER" in equal.found
    assert "METRICS_TOKEN" in equal.found
    settings.METRICS_TOKEN = "short-but-good-enough-0123456789"
    short = found("secrets")
    assert short.state is State.WARNING
    assert short.found.endswith("METRICS_TOKEN")
    for finding in (equal, short):
        for value in (*values, settings.METRICS_TOKEN):
            assert value not in finding.found + finding.advice


def test_static_files_are_collected(settings: Any, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path / "staticfiles"
    assert found("static files").state is State.WARNING
    call_command("collectstatic", interactive=False, verbosity=0)
    assert found("static files").state is State.OK


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert found("room for temporary files").state is State.PROBLEM
