"""Deletes what has run out and is good for nothing any more.

Nothing here decides whether something still holds: each of these rows says so itself to whoever
reads it, and is as good as gone from that instant on. A run that comes late or not at all costs
space alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from parentalcontrols import idempotency
from pins import sql as pins_sql

#: Rows of one transaction: few enough that its locks are short.
BATCH_ROWS: Final = 5000

# Each statement deletes a batch of one table, oldest first, and answers how many rows that were
# and when the last of them ran out: the next batch starts there, so that it does not read again
# what the ones before it deleted. The range is by the index on the instant, the deletion by the
# primary key.
#
# A row that somebody holds is left for the next run: it is being prolonged, or another run
# deletes it. So no statement waits for a lock, and none can be part of a circle. One that was
# prolonged after the statement had begun is read anew under its lock, and stays.

#: Log-ins and devices whose youngest refresh token ran out; a revoked one is kept until then.
DELETE_REFRESH_FAMILIES = """
WITH expired AS MATERIALIZED (
    SELECT id
    FROM refresh_families
    WHERE expires_at >= %(since)s::timestamptz AND expires_at <= statement_timestamp()
    ORDER BY expires_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM refresh_families AS f USING expired AS e WHERE f.id = e.id
    RETURNING f.expires_at
)
SELECT count(*), max(expires_at) FROM deleted
"""

#: Answers that are not repeated any more.
DELETE_IDEMPOTENCY_KEYS = """
WITH expired AS MATERIALIZED (
    SELECT id
    FROM idempotency_keys
    WHERE created_at >= %(since)s::timestamptz
        AND created_at <= statement_timestamp() - make_interval(hours => %(hours)s)
    ORDER BY created_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM idempotency_keys AS k USING expired AS e WHERE k.id = e.id
    RETURNING k.created_at
)
SELECT count(*), max(created_at) FROM deleted
"""

#: Windows that are over: the next try starts a new one, with a row or without.
DELETE_RATE_LIMIT_WINDOWS = """
WITH expired AS MATERIALIZED (
    SELECT id
    FROM rate_limit_windows
    WHERE ends_at >= %(since)s::timestamptz AND ends_at <= statement_timestamp()
    ORDER BY ends_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM rate_limit_windows AS w USING expired AS e WHERE w.id = e.id
    RETURNING w.ends_at
)
SELECT count(*), max(ends_at) FROM deleted
"""

_STATEMENTS: Final[tuple[tuple[str, str, Mapping[str, Any]], ...]] = (
    ("refresh families", DELETE_REFRESH_FAMILIES, {}),
    ("idempotency keys", DELETE_IDEMPOTENCY_KEYS, {"hours": idempotency.HOURS}),
    ("rate-limit windows", DELETE_RATE_LIMIT_WINDOWS, {}),
    ("used PIN tokens", pins_sql.DELETE_USED_TOKENS, {}),
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of a kind were deleted."""

    kind: str
    rows: int


def prune(*, batch: int = BATCH_ROWS) -> Iterator[Pruned]:
    """Deletes what has run out, kind after kind as they are asked for, `batch` rows at a time.

    Outside of a transaction every batch commits by itself: what was deleted before an
    interruption stays deleted. Safe beside itself and beside everybody else; locks no row that
    still holds.
    """
    for kind, statement, parameters in _STATEMENTS:
        yield Pruned(kind, _delete(statement, batch=batch, **parameters))


def _delete(statement: str, *, batch: int, **parameters: Any) -> int:
    """How many rows one statement deleted, sent until it finds less than a batch."""
    total = 0
    since: Any = "-infinity"
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, {**parameters, "since": since, "batch": batch})
            rows, last = cursor.fetchone()
        total += int(rows)
        if rows < batch:
            return total
        since = last
