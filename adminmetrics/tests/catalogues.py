"""What the tests of the audit share: running it, damaging tables, and mending them by its SQL."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection

from adminmetrics.declarations import declared_models

#: Three thousand households of four, with sessions of which few are open: large enough for the
#: planner to choose indexes by itself.
FILL = """
INSERT INTO accounts (id, password, is_superuser, email)
SELECT md5('a' || n)::uuid, '', false, n || '@example.com' FROM generate_series(1, 3000) AS n;
INSERT INTO titles (id, title)
SELECT md5('t' || n)::uuid, 'title ' || n FROM generate_series(1, 3000) AS n;
INSERT INTO profiles (id, account_id, name, is_kids)
SELECT md5('p' || n)::uuid, md5('a' || (n + 3) / 4)::uuid, 'profile', n % 4 <> 0
FROM generate_series(1, 12000) AS n;
INSERT INTO viewing_time_configs (profile_id) SELECT id FROM profiles WHERE is_kids;
INSERT INTO viewing_sessions (
    id, profile_id, title_id, is_kids, device_id, reset_date, started_at, last_heartbeat_at,
    ended_at, end_reason
)
SELECT
    md5('s' || n)::uuid, md5('p' || n % 12000 + 1)::uuid, md5('t' || n % 3000 + 1)::uuid,
    (n % 12000 + 1) % 4 <> 0, 'tv', date '2026-11-01' - n / 12000,
    timestamptz '2026-11-01' - make_interval(mins => n), timestamptz '2026-11-01',
    CASE WHEN n > 200 THEN timestamptz '2026-11-01' END, CASE WHEN n > 200 THEN 'stopped' END
FROM generate_series(1, 60000) AS n;
INSERT INTO viewing_time_balances (profile_id, reset_date)
SELECT DISTINCT profile_id, reset_date FROM viewing_sessions WHERE is_kids;
ANALYZE
"""


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def verify(*arguments: str) -> tuple[int, str]:
    """The command's exit code and what it prints."""
    out = StringIO()
    try:
        call_command("verify_indexes", *arguments, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


def verified() -> tuple[int, dict[str, Any]]:
    """The command's exit code and its report for machines."""
    code, printed = verify("--json")
    return code, json.loads(printed)


def mend() -> list[str]:
    """Runs what `--fix-sql` prints, statement by statement as psql does; answers them."""
    _, printed = verify("--fix-sql")
    statements = [line for line in printed.splitlines() if line and not line.startswith("--")]
    run(*statements)
    return statements


def interrupted(build: str, *, table: str) -> None:
    """Interrupts the build of an index while it waits for somebody who writes to the table."""
    somebody = connection.copy()
    try:
        with somebody.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        run("SET lock_timeout = '500ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            run(build)
    finally:
        somebody.close()
        run("SET lock_timeout = 0")
    left = "SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass AND NOT indisvalid"
    assert rows(left.format(table)) == [(1,)]


def state() -> list[object]:
    """What an audit must leave as it is: rows, relations, and the settings of the session."""
    versions = "SELECT xmin::text, ctid::text, t::text FROM {} AS t ORDER BY 2"
    tables = [model._meta.db_table for model in declared_models()]
    return [rows(versions.format(table)) for table in tables] + [
        rows("SELECT oid, relfilenode, relname FROM pg_class ORDER BY oid"),
        rows("SHOW enable_seqscan"),
        rows("SHOW statement_timeout"),
        rows("SHOW transaction_read_only"),
    ]
