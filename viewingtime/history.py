"""What a profile watched, newest first, a page at a time (domain.md section 8). Locks nothing.

A reading keeps to what was there when its first page was read: sessions that start meanwhile are
neither listed on its later pages nor counted in their days.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from parentalcontrols.models import Profile
from parentalcontrols.problems import invalid
from viewingtime import ledgers, read_sql
from viewingtime.ledger import ADULT

#: Viewing days that are told unless others are asked for, and the most that may be.
USUAL_DAYS = 30
MOST_DAYS = 90
#: Sessions on a page.
PAGE_SESSIONS = 100

#: How long before its date in UTC a session of a viewing day may start, and how long after.
#: In the easternmost zone the day begins 14 hours before; a week more is for a clock that was
#: stepped back, because then sessions stay in the latest day that was recorded. In the westernmost
#: zone the day ends at 23:00 of the next date, 59 hours after; no change of schedule ends it later.
STARTS_BEFORE = timedelta(days=8)
STARTS_AFTER = timedelta(days=3)

_LAST_ID = UUID(int=2**128 - 1)


class Key(NamedTuple):
    """Where a session stands among all: by its start, then by its id."""

    started_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reading of some viewing days, both ends included, has come to.

    `top` is the newest session of the reading, `last` the one that was listed last; both are None
    at the start.
    """

    from_date: date
    to_date: date
    top: Key | None = None
    last: Key | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A session; an open one (`ended_at` None) counts what is credited by now."""

    id: UUID
    title_id: UUID
    title_name: str
    device_type: str
    is_educational: bool
    started_at: datetime
    ended_at: datetime | None
    total: timedelta


@dataclass(frozen=True, slots=True)
class Day:
    """A viewing day: the exact sums of all its sessions, and those of them on this page."""

    date: date
    total: timedelta
    educational: timedelta
    sessions: tuple[Watched, ...]

    @property
    def counted(self) -> timedelta:
        """What was not exempt from the limit."""
        return self.total - self.educational


@dataclass(frozen=True, slots=True)
class Page:
    """Days with sessions, newest first; `next` is None where nothing is left."""

    days: tuple[Day, ...]
    next: Place | None


def first_place(profile: Profile, *, from_date: date | None, to_date: date | None) -> Place:
    """Where a reading of those viewing days starts; a 400 `Problem` names the day that is wrong.

    Without `to_date` up to the running day, for which one query is made; without `from_date` the
    30 days that end there.
    """
    if to_date is None:
        to_date = _running_day(profile)
    if from_date is None:
        from_date = date.fromordinal(max(1, to_date.toordinal() - USUAL_DAYS + 1))
    if from_date > to_date:
        detail = f"This is after {to_date}, the last day."
        raise invalid([{"field": "from_date", "code": "after_the_last_day", "detail": detail}])
    if not is_readable(from_date, to_date):
        detail = f"This is more than {MOST_DAYS} days up to {to_date}, the last one."
        raise invalid([{"field": "from_date", "code": "too_many_days", "detail": detail}])
    return Place(from_date, to_date)


def is_readable(from_date: date, to_date: date) -> bool:
    """Whether these are days in order, and no more than may be asked for."""
    return 0 <= (to_date - from_date).days < MOST_DAYS


def _running_day(profile: Profile) -> date:
    """The viewing day by the database's clock."""
    viewer = ADULT
    if profile.is_kids:
        viewer = ledgers.viewer_of(getattr(profile, "viewing_time_config", None))
    _, balance = ledgers.read_balance(profile.id, viewer)
    return balance.reset_date


def started_between(first: date, last: date) -> tuple[datetime, datetime]:
    """The half-open range in which the sessions of those viewing days start, in any zone."""
    return _instant(first, -STARTS_BEFORE), _instant(last, STARTS_AFTER)


def _instant(day: date, by: timedelta) -> datetime:
    """So long after the day's midnight in UTC, as far as datetimes go."""
    try:
        return datetime.combine(day, time(), UTC) + by
    except OverflowError:
        return (datetime.min if by < timedelta(0) else datetime.max).replace(tzinfo=UTC)


def page_statement(*, profile_id: UUID, place: Place, size: int) -> tuple[str, dict[str, Any]]:
    """The statement that reads `size` sessions from there on, and its parameters."""
    range_starts, range_ends = started_between(place.from_date, place.to_date)
    beyond = Key(range_ends, _LAST_ID)
    top, last = place.top or beyond, place.last or beyond
    return read_sql.HISTORY_PAGE, {
        "profile_id": profile_id,
        "from_date": place.from_date,
        "to_date": place.to_date,
        "range_starts": range_starts,
        "range_ends": range_ends,
        "before": STARTS_BEFORE,
        "after": STARTS_AFTER,
        "top_at": top.started_at,
        "top_id": top.id,
        "last_at": last.started_at,
        "last_id": last.id,
        "size": size,
    }


def read(*, profile_id: UUID, place: Place, size: int) -> Page:
    """The `size` sessions from there on; one statement."""
    # One more than a page holds tells whether anything is left.
    statement, parameters = page_statement(profile_id=profile_id, place=place, size=size + 1)
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    totals: dict[date, tuple[timedelta, timedelta]] = {}
    listed: dict[date, list[Watched]] = {}
    for row in rows[:size]:
        id_, title_id, name, device, is_educational, day, started_at, ended_at, *sums = row
        total, day_total, day_educational = map(ledgers.amount, sums)
        session = Watched(id_, title_id, name, device, is_educational, started_at, ended_at, total)
        totals[day] = day_total, day_educational
        listed.setdefault(day, []).append(session)
    days = tuple(Day(day, *totals[day], tuple(listed[day])) for day in sorted(listed, reverse=True))
    if len(rows) <= size:
        return Page(days, None)
    keys = [Key(row[6], row[0]) for row in (rows[0], rows[size - 1])]
    return Page(days, Place(place.from_date, place.to_date, place.top or keys[0], keys[1]))
