"""Deletes what was watched so long ago that no history shows it (domain.md section 8).

Balances, grants and the audit stay: sums of a day are kept for good, only its single sessions go.
A run that comes late or not at all costs space alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Subquery

from parentalcontrols.models import Profile
from viewingtime import ledgers
from viewingtime.heartbeats import ClockTimestamp
from viewingtime.ledger import ADULT
from viewingtime.models import ViewingTimeBalance

#: Rows of one transaction: few enough that its locks are short.
BATCH_ROWS: Final = 5000
#: Profiles that are looked at together.
PROFILES: Final = 1000
#: A session may have started so long after the first kept day's present beginning: under an
#: earlier schedule days began elsewhere, by as much as the longest of them.
_PADDING: Final = timedelta(hours=73)

#: Deletes a batch of the sessions of some profiles that are not kept.
#:
#: Locks the sessions that it deletes and nothing else; those that somebody holds it leaves for
#: the next run. So it never waits, and can be part of no circle. Who waits for one of these finds
#: it gone, and answers that it does not exist. Profile after profile, the range of each by
#: `ix_vs_profile_started`; an open session is left to `close_stale_sessions`.
#: Answers how many, and the last profile by id that had some. With ids in order, the ones before
#: it are done, and the next batch begins with it.
DELETE_SESSIONS = """
WITH old AS MATERIALIZED (
    SELECT s.id, p.profile_id
    FROM unnest(
        %(profile_ids)s::uuid[], %(first_kept)s::date[], %(before)s::timestamptz[]
    ) AS p (profile_id, first_kept, before)
    CROSS JOIN LATERAL (
        SELECT id
        FROM viewing_sessions
        WHERE profile_id = p.profile_id
            AND started_at < p.before
            AND reset_date < p.first_kept
            AND ended_at IS NOT NULL
        LIMIT %(batch)s
        FOR UPDATE SKIP LOCKED
    ) AS s
    LIMIT %(batch)s
),
deleted AS (
    DELETE FROM viewing_sessions AS s USING old AS o WHERE s.id = o.id
    RETURNING o.profile_id
)
SELECT count(*), (array_agg(profile_id ORDER BY profile_id DESC))[1] FROM deleted
"""

#: How many sessions of some profiles the statement above would find; locks nothing.
COUNT_SESSIONS = """
SELECT count(*)
FROM unnest(
    %(profile_ids)s::uuid[], %(first_kept)s::date[], %(before)s::timestamptz[]
) AS p (profile_id, first_kept, before)
CROSS JOIN LATERAL (
    SELECT
    FROM viewing_sessions
    WHERE profile_id = p.profile_id
        AND started_at < p.before
        AND reset_date < p.first_kept
        AND ended_at IS NOT NULL
    OFFSET 0
) AS s
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """From which viewing day on a profile's sessions are kept, and before when the others began."""

    profile_id: UUID
    first_day: date
    before: datetime


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many profiles were looked through since the last report, and sessions deleted."""

    profiles: int
    sessions: int


def prune(
    *, days: int, batch: int = BATCH_ROWS, profiles: int = PROFILES, dry_run: bool = False
) -> Iterator[Pruned]:
    """Deletes the sessions of viewing days before the last `days`, as it is asked for reports.

    Each profile's running day counts, by its own schedule and the database's clock. Outside of a
    transaction every batch commits by itself: what was deleted before an interruption stays
    deleted. Safe beside itself and beside beats; locks the rows alone that it deletes. A dry run
    counts them and deletes nothing.
    """
    after = UUID(int=0)
    while kept := _kept(after=after, days=days, profiles=profiles):
        after = kept[-1].profile_id
        if dry_run:
            yield Pruned(len(kept), _count(kept))
            continue
        while kept:
            deleted, last = _delete(kept, batch)
            if deleted < batch:
                yield Pruned(len(kept), deleted)
                break
            rest = [one for one in kept if one.profile_id >= last]
            yield Pruned(len(kept) - len(rest), deleted)
            kept = rest


def _kept(*, after: UUID, days: int, profiles: int) -> list[Kept]:
    """What is kept of the next profiles by id; one query, no lock."""
    latest = ViewingTimeBalance.objects.filter(profile=OuterRef("id")).order_by("-reset_date")
    found = (
        Profile.objects.filter(id__gt=after)
        .order_by("id")
        .select_related("viewing_time_config")
        .annotate(now=ClockTimestamp(), latest_day=Subquery(latest.values("reset_date")[:1]))
    )
    kept = []
    for profile in found[:profiles]:
        config = getattr(profile, "viewing_time_config", None)
        schedule = (ledgers.viewer_of(config) if profile.is_kids else ADULT).schedule
        running = schedule.viewing_day(profile.now, profile.latest_day)
        first_day = running.date - timedelta(days=days)
        before = schedule.bounds(first_day).starts_at + _PADDING
        kept.append(Kept(profile.id, first_day, before))
    return kept


def _parameters(kept: list[Kept]) -> dict[str, list[UUID] | list[date] | list[datetime]]:
    return {
        "profile_ids": [one.profile_id for one in kept],
        "first_kept": [one.first_day for one in kept],
        "before": [one.before for one in kept],
    }


def _delete(kept: list[Kept], batch: int) -> tuple[int, UUID]:
    """How many sessions one batch deleted, and the last profile that had some."""
    with connection.cursor() as cursor:
        cursor.execute(DELETE_SESSIONS, {**_parameters(kept), "batch": batch})
        rows, last = cursor.fetchone()
    return int(rows), last


def _count(kept: list[Kept]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SESSIONS, _parameters(kept))
        return int(cursor.fetchone()[0])
