"""The weekly report: every child's last seven viewing days (domain.md section 8).

Two queries for any number of children; they lock nothing.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import OuterRef, Subquery

from parentalcontrols.models import Profile
from parentalcontrols.viewing_day import Schedule
from viewingtime import ledgers, read_sql
from viewingtime.heartbeats import ClockTimestamp
from viewingtime.history import started_between
from viewingtime.ledger import ZERO, Viewer
from viewingtime.models import ViewingTimeBalance

T = TypeVar("T")

DAYS = 7
TOP_TITLES = 3

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Day:
    """A child's viewing day: what its sessions lasted, and the limit that was in force.

    `limit` None is unlimited. `used` is what the balance counts against limit and grants.
    """

    date: date
    total: timedelta
    educational: timedelta
    used: timedelta
    granted: timedelta
    limit: timedelta | None
    is_unlimited_override: bool

    @property
    def counted(self) -> timedelta:
        """What was not exempt from the limit."""
        return self.total - self.educational

    @property
    def allowed(self) -> timedelta | None:
        """Limit and grants; None on a day that nothing limited."""
        if self.limit is None or self.is_unlimited_override:
            return None
        return self.limit + self.granted


@dataclass(frozen=True, slots=True)
class TopTitle:
    """A title, and how long it was watched in the week."""

    id: UUID
    name: str
    total: timedelta


@dataclass(frozen=True, slots=True)
class Child:
    """A child's week: its days, oldest first, and the titles that it watched most."""

    profile_id: UUID
    name: str
    days: tuple[Day, ...]
    top_titles: tuple[TopTitle, ...]

    @property
    def total(self) -> timedelta:
        """What was watched in all."""
        return sum((day.total for day in self.days), start=ZERO)

    @property
    def educational(self) -> timedelta:
        """What of it was exempt from the limit."""
        return sum((day.educational for day in self.days), start=ZERO)

    @property
    def daily_average(self) -> timedelta:
        """The total over the days of the week."""
        return self.total / DAYS

    @property
    def limit_usage_percent(self) -> float | None:
        """What was used of limits and grants; None where no day was limited. 2 decimals."""
        limited = [(day.used, day.allowed) for day in self.days if day.allowed is not None]
        allowed = sum((amount for _, amount in limited), start=ZERO)
        if not allowed:
            return None
        return round(100 * sum((used for used, _ in limited), start=ZERO) / allowed, 2)


@dataclass(frozen=True, slots=True)
class Report:
    """The children of a household, oldest profile first; the earliest and latest day of all."""

    week_start: date
    week_end: date
    children: tuple[Child, ...]


class _Balance(msgspec.Struct):
    used: int
    granted: int
    is_unlimited_override: bool
    limit_seconds: int | None


class _DayRow(msgspec.Struct):
    profile_id: UUID
    reset_date: date
    total: int
    educational: int
    balance: _Balance | None


class _TitleRow(msgspec.Struct):
    profile_id: UUID
    title_id: UUID
    title: str
    total: int


_decode_days = msgspec.json.Decoder(list[_DayRow]).decode
_decode_titles = msgspec.json.Decoder(list[_TitleRow]).decode


def last_days(schedule: Schedule, now: datetime, latest_day: date | None) -> list[date]:
    """The seven viewing days that end with the running one, oldest first.

    The day before a day is the one that ruled until its start: a date that a change of zone
    skipped is none.
    """
    day = schedule.viewing_day(now, latest_day)
    days = [day.date]
    while len(days) < DAYS:
        day = schedule.viewing_day(day.starts_at - _MICROSECOND)
        days.append(day.date)
    return days[::-1]


def weekly(account_id: UUID) -> Report:
    """The report of an account as it stands now; a child without a config has the defaults."""
    children = (
        Profile.objects.filter(account_id=account_id, is_kids=True)
        .select_related("viewing_time_config")
        .only("name", *("viewing_time_config__" + name for name in ledgers.CONFIG_FIELDS))
        .annotate(
            now=ClockTimestamp(),
            latest_day=Subquery(
                ViewingTimeBalance.objects.filter(profile_id=OuterRef("id"))
                .order_by("-reset_date")
                .values("reset_date")[:1]
            ),
        )
        .order_by("created_at", "id")
    )
    names: dict[UUID, str] = {}
    viewers: dict[UUID, Viewer] = {}
    weeks: dict[UUID, list[date]] = {}
    for child in giving_way(children):
        viewer = ledgers.viewer_of(getattr(child, "viewing_time_config", None))
        names[child.id] = child.name
        viewers[child.id] = viewer
        weeks[child.id] = last_days(viewer.schedule, child.now, child.latest_day)
    if not weeks:
        today = _today()
        return Report(today, today, ())
    sql, parameters = statement(weeks)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        day_rows, title_rows = cursor.fetchone()
    days = {(row.profile_id, row.reset_date): row for row in _decode_days(day_rows)}
    titles: dict[UUID, list[TopTitle]] = defaultdict(list)
    for row in _decode_titles(title_rows):
        top = TopTitle(row.title_id, row.title, ledgers.amount(row.total))
        titles[row.profile_id].append(top)
    return Report(
        week_start=min(week[0] for week in weeks.values()),
        week_end=max(week[-1] for week in weeks.values()),
        children=tuple(
            Child(
                profile_id=id_,
                name=names[id_],
                days=tuple(_day(days[id_, day], viewers[id_]) for day in week),
                top_titles=tuple(titles[id_]),
            )
            for id_, week in giving_way(weeks.items())
        ),
    )


def giving_way(items: Iterable[T]) -> Iterator[T]:
    """The same items; after each, heartbeats that came meanwhile go first.

    A report of many children is a tenth of a second of work.
    """
    for item in items:
        yield item
        time.sleep(0)


def statement(weeks: Mapping[UUID, Sequence[date]]) -> tuple[str, dict[str, Any]]:
    """The statement that reads what some children watched on these days, and its parameters."""
    ranges = [started_between(min(week), max(week)) for week in weeks.values()]
    return read_sql.WEEKLY_REPORT, {
        "profile_ids": list(weeks),
        "range_starts": [starts_at for starts_at, _ in ranges],
        "range_ends": [ends_at for _, ends_at in ranges],
        "day_profile_ids": [id_ for id_, week in weeks.items() for _ in week],
        "days": [day for week in weeks.values() for day in week],
        "top": TOP_TITLES,
    }


def _day(row: _DayRow, viewer: Viewer) -> Day:
    """A day as its balance has it; without one nothing was granted and today's config limits."""
    kept = row.balance
    return Day(
        date=row.reset_date,
        total=ledgers.amount(row.total),
        educational=ledgers.amount(row.educational),
        used=ledgers.amount(0 if kept is None else kept.used),
        granted=ledgers.amount(0 if kept is None else kept.granted),
        limit=(
            viewer.limit(row.reset_date) if kept is None else ledgers.limit_of(kept.limit_seconds)
        ),
        is_unlimited_override=kept is not None and kept.is_unlimited_override,
    )


def _today() -> date:
    """The date in UTC by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute(read_sql.CLOCK)
        (now,) = cursor.fetchone()
    today: date = now.astimezone(UTC).date()
    return today
