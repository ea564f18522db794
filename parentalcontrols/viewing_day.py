"""The viewing day: pure calendar rules (domain.md section 5). No ORM, no clock of its own.

A *reset instant* of a schedule is, for each local date, the first instant at which the local
clock has reached that date's `reset_hour`:00. The viewing day at an instant is the date of the
latest reset instant at or before it. A `Schedule` is a sequence of segments, because a change of
the hour or the zone takes effect only at the next reset.

Instants are aware datetimes in UTC; dates are viewing days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Self
from zoneinfo import ZoneInfo, available_timezones

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
#: Names in the zone database that are no place's civil time.
_NOT_A_PLACE = frozenset({"Factory", "localtime", "posixrules"})


@lru_cache(maxsize=1)
def timezone_names() -> frozenset[str]:
    """Every IANA zone a config may name."""
    return frozenset(available_timezones() - _NOT_A_PLACE)


@lru_cache(maxsize=4096)
def reset_instant(day: date, reset_hour: int, timezone: str) -> datetime:
    """The first instant at which the clock in `timezone` has reached `reset_hour`:00 of `day`.

    An hour that occurs twice counts at its first occurrence, one that is skipped at the first
    instant after the gap, even if that is on a later date.
    """
    zone = ZoneInfo(timezone)
    wall = datetime.combine(day, time(reset_hour), zone)
    instant = wall.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return instant
    # The hour is skipped. Read with the offset after the gap it lies before the gap's instant,
    # read with the one before it lies after; between the two the clock jumps, at a whole second.
    early, late = wall.replace(fold=1).astimezone(UTC), instant
    target = wall.replace(tzinfo=None)
    while late - early > _SECOND:
        middle = early + _SECOND * ((late - early) // _SECOND // 2)
        if middle.astimezone(zone).replace(tzinfo=None) >= target:
            late = middle
        else:
            early = middle
    return late


def _own_day(now: datetime, reset_hour: int, timezone: str) -> date:
    """The date of the latest reset instant at or before `now`, of one hour in one zone."""
    # Where a zone's date was set back, a later date than the local one may have begun already.
    day = now.astimezone(ZoneInfo(timezone)).date() + _DAY
    while reset_instant(day, reset_hour, timezone) > now:
        day -= _DAY
    return day


def is_weekend(day: date) -> bool:
    """Saturday and Sunday, by the viewing day's own weekday."""
    return day.weekday() >= 5


@dataclass(frozen=True, slots=True)
class ViewingDay:
    """A viewing day: its date, and the reset instants at which it starts and ends."""

    date: date
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time under one reset hour and zone.

    It starts at `starts_at` with the viewing day `first_day`; both are None for the first one,
    which has no beginning.
    """

    reset_hour: int
    timezone: str
    starts_at: datetime | None = None
    first_day: date | None = None

    def own_day(self, now: datetime) -> date:
        """The viewing day at `now` if this segment rules it."""
        day = _own_day(now, self.reset_hour, self.timezone)
        return day if self.first_day is None else max(day, self.first_day)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a profile's viewing days start and end: one segment after the other, at least one."""

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, reset_hour: int, timezone: str, earlier: Sequence[Mapping[str, Any]] = ()) -> Self:
        """The schedule of a config: its hour and zone, and what `earlier_schedules` holds.

        Each earlier entry: `reset_hour`, `timezone`, `last_day` (ISO date) and `ends_at` (ISO
        instant). Zones are IANA names; an unknown one raises `ZoneInfoNotFoundError`.
        """
        segments: list[Segment] = []
        starts_at: datetime | None = None
        last_day: date | None = None
        for entry in (*earlier, {"reset_hour": reset_hour, "timezone": timezone}):
            segment = Segment(entry["reset_hour"], entry["timezone"])
            if starts_at is not None and last_day is not None:
                # The first day under a schedule is the later of its own day at the switch and
                # the day after the last one, so that no viewing day repeats.
                first_day = max(segment.own_day(starts_at), last_day + _DAY)
                segment = Segment(segment.reset_hour, segment.timezone, starts_at, first_day)
            segments.append(segment)
            if "ends_at" in entry:
                starts_at = datetime.fromisoformat(entry["ends_at"])
                last_day = date.fromisoformat(entry["last_day"])
        return cls(tuple(segments))

    def viewing_day(self, now: datetime, not_before: date | None = None) -> ViewingDay:
        """The viewing day at `now`.

        `not_before` is the latest day that has been recorded already: a clock that was stepped
        back does not bring an earlier day back.
        """
        index = 0
        for later, segment in enumerate(self.segments[1:], start=1):
            if segment.starts_at is not None and segment.starts_at <= now:
                index = later
        day = self.segments[index].own_day(now)
        return self.bounds(day if not_before is None else max(day, not_before))

    def next_reset_at(self, now: datetime) -> datetime:
        """The instant after `now` at which the viewing day changes."""
        return self.viewing_day(now).ends_at

    def bounds(self, day: date) -> ViewingDay:
        """The viewing day of that date with its two instants."""
        index = 0
        for later, segment in enumerate(self.segments[1:], start=1):
            if segment.first_day is not None and segment.first_day <= day:
                index = later
        segment = self.segments[index]
        starts_at = reset_instant(day, segment.reset_hour, segment.timezone)
        if segment.starts_at is not None and day == segment.first_day:
            starts_at = segment.starts_at
        ends_at = reset_instant(day + _DAY, segment.reset_hour, segment.timezone)
        if index + 1 < len(self.segments):
            switch = self.segments[index + 1].starts_at
            if switch is not None:
                ends_at = min(ends_at, switch)
        return ViewingDay(day, starts_at, ends_at)


#: The viewing day of adults, who have no config (domain.md section 3).
ADULT_SCHEDULE = Schedule((Segment(6, "UTC"),))

#: How long a replaced schedule is remembered. The weekly report needs it longest: it steps back
#: over seven days, and with a change in each of them none is longer than 73 hours.
_REMEMBERED = timedelta(days=28)


def changed_schedules(
    *,
    reset_hour: int,
    timezone: str,
    earlier: Sequence[Mapping[str, Any]],
    new_reset_hour: int,
    new_timezone: str,
    now: datetime,
    latest_day: date | None,
) -> list[dict[str, Any]]:
    """What `earlier_schedules` becomes when the hour or the zone is set anew at `now`.

    The running day keeps its end; of several changes within one day the last wins. `latest_day`
    is the profile's latest recorded day; None means that it has no running day, and the change
    applies at once.
    """
    if latest_day is None:
        return []
    schedule = Schedule.of(reset_hour, timezone, earlier)
    running = schedule.viewing_day(now, not_before=latest_day)
    entries = [dict(entry) for entry in earlier]
    current = {"reset_hour": reset_hour, "timezone": timezone}
    if entries and running.date <= date.fromisoformat(entries[-1]["last_day"]):
        # The set values are not in force yet: what they were to replace still is. By the running
        # day and not by `now`, which a clock that was stepped back can put before the switch.
        pending = entries.pop()
        current = {"reset_hour": pending["reset_hour"], "timezone": pending["timezone"]}
    kept = [e for e in entries if datetime.fromisoformat(e["ends_at"]) > now - _REMEMBERED]
    if current == {"reset_hour": new_reset_hour, "timezone": new_timezone}:
        return kept
    return [
        *kept,
        {
            **current,
            "last_day": running.date.isoformat(),
            "ends_at": running.ends_at.isoformat(),
        },
    ]
