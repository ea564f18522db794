"""Makes roll-ups coarser as they age; no count is ever lost, only when it was, by which worker."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection

from adminmetrics import sql
from adminmetrics.models import Resolution

#: Rows of one transaction.
BATCH_ROWS: Final = 5000


@dataclass(frozen=True, slots=True)
class Folded:
    """What was done to how many rows."""

    kind: str
    rows: int


def prune(*, batch: int = BATCH_ROWS) -> Iterator[Folded]:
    """Minutes become hours, hours days, days a count of all time; `batch` rows at a time.

    Each of an instance. By the database's clock and the settings' retention, in whole hours and
    days. Outside of a transaction each batch commits by itself. Safe twice at once and beside
    hand-overs, which write rows that are too young for it.
    """
    now = _now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    oldest_minute = hour - timedelta(days=settings.METRICS_MINUTE_DAYS)
    oldest_hour = day - timedelta(days=settings.METRICS_HOUR_DAYS)
    oldest_day = day - timedelta(days=settings.METRICS_DAY_DAYS)
    minute, hours, days, ever = Resolution.MINUTE, Resolution.HOUR, Resolution.DAY, Resolution.EVER
    yield Folded("minutes folded into hours", _fold(minute, hours, "hour", oldest_minute, batch))
    yield Folded("hours folded into days", _fold(hours, days, "day", oldest_hour, batch))
    yield Folded("days folded into all time", _fold(days, ever, "day", oldest_day, batch))
    with connection.cursor() as cursor:
        cursor.execute(sql.FORGET_PROCESSES, {"before": oldest_minute})
        (rows,) = cursor.fetchone()
    yield Folded("worker processes forgotten", rows)


def _fold(fine: int, coarse: int, unit: str, before: datetime, batch: int) -> int:
    """How many rows were moved, batch after batch."""
    total: int = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                sql.FOLD,
                {
                    "fine": int(fine),
                    "coarse": int(coarse),
                    "unit": unit,
                    "before": before,
                    "batch": batch,
                },
            )
            (rows,) = cursor.fetchone()
        total += int(rows)
        if rows < batch:
            return total


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
    found: datetime = now
    return found
