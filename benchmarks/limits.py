"""What PostgreSQL itself can do on this machine, in this run: the physical limit of heartbeats.

pgbench, with prepared statements, on tables of the shape of ours with a thousand rows: one
statement that updates a session by its id and upserts its day's balance, and the same for fifty
sessions at once. Neither checks anything; no service that has to can be faster.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from parentalcontrols.embedded_servers import program_of_postgres
from parentalcontrols.processes import ServerError

CLIENTS: Final = 16
#: How many sessions the larger statement takes at once.
GATHERED: Final = 50

_TABLES = """
CREATE SCHEMA pgbench_limit;
CREATE TABLE pgbench_limit.sessions (LIKE viewing_sessions INCLUDING ALL);
CREATE TABLE pgbench_limit.balances (LIKE viewing_time_balances INCLUDING ALL);
INSERT INTO pgbench_limit.sessions (
    id, profile_id, title_id, is_kids, device_id, reset_date, started_at, last_heartbeat_at
)
SELECT
    ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
    ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
    gen_random_uuid(), true, 'tv', DATE '2026-01-01', now(), now()
FROM generate_series(1, 1000) AS n;
INSERT INTO pgbench_limit.balances (profile_id, reset_date, limit_seconds)
SELECT profile_id, reset_date, 7200 FROM pgbench_limit.sessions;
"""
_BOOKED = """
INSERT INTO pgbench_limit.balances AS b (profile_id, reset_date, used_seconds)
SELECT profile_id, DATE '2026-01-01', 30 FROM updated
ON CONFLICT (profile_id, reset_date) DO UPDATE SET
    used_seconds = b.used_seconds + excluded.used_seconds
RETURNING b.used_seconds;
"""
_ONE = f"""\\set n random(1, 1000)
WITH updated AS (
    UPDATE pgbench_limit.sessions
    SET last_heartbeat_at = clock_timestamp(), total_seconds = total_seconds + 30
    WHERE id = ('00000000-0000-4000-8000-' || lpad((:n)::text, 12, '0'))::uuid
    RETURNING profile_id
)
{_BOOKED}"""  # nosec B608
_MANY = f"""\\set n random(0, {1000 // GATHERED - 1})
WITH wanted AS (
    SELECT id FROM unnest(ARRAY(
        SELECT ('00000000-0000-4000-8000-' || lpad((:n * {GATHERED} + k)::text, 12, '0'))::uuid
        FROM generate_series(1, {GATHERED}) AS k
    )) AS id
),
updated AS (
    UPDATE pgbench_limit.sessions AS s
    SET last_heartbeat_at = clock_timestamp(), total_seconds = total_seconds + 30
    FROM wanted WHERE s.id = wanted.id
    RETURNING profile_id
)
{_BOOKED}"""  # nosec B608


class Limits:
    """pgbench's tables and scripts; made by `limits`."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._one, self._many = folder / "one.sql", folder / "many.sql"
        self._one.write_text(_ONE, encoding="utf-8")
        self._many.write_text(_MANY, encoding="utf-8")

    def one_by_one(self, seconds: float) -> float:
        """Heartbeats a second, a statement each."""
        return self._run(self._one, seconds)

    def gathered(self, seconds: float) -> float:
        """Heartbeats a second, fifty a statement."""
        return GATHERED * self._run(self._many, seconds)

    def _run(self, script: Path, seconds: float) -> float:
        program = program_of_postgres("pgbench")
        done = subprocess.run(
            [
                *(program, "--no-vacuum", "--protocol=prepared", f"--file={script}"),
                *(f"--client={CLIENTS}", "--jobs=2", f"--time={max(1, round(seconds))}"),
                # Two transactions that take the same fifty in another order are tried again.
                *("--max-tries=10", self._url),
            ],
            env={**os.environ, "LD_LIBRARY_PATH": str(program.parent.parent / "lib")},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
        if done.returncode or found is None:
            raise ServerError(f"pgbench failed:\n{done.stderr[-2000:]}")
        return float(found[1])


@contextmanager
def limits(url: str, folder: Path) -> Iterator[Limits]:
    """The limit's tables, beside ours on the same server, for the block."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        cursor.execute("VACUUM (ANALYZE) pgbench_limit.sessions, pgbench_limit.balances")
    try:
        yield Limits(url, folder)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA pgbench_limit CASCADE")
