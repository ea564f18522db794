"""A child's viewing day as a picture: sessions along the day, and what was used against the limit.

Places only; `templates/admin/viewingtime/timeline.html` draws them. All units are those of its
view box.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from parentalcontrols.viewing_day import ViewingDay
from viewingtime.ledger import Balance

#: The picture and the place of the day in it.
WIDTH, HEIGHT = 960, 250
LEFT, RIGHT, TOP, BOTTOM = 70, 925, 24, 165
#: The strip of sessions below.
STRIP, STRIP_HEIGHT = 185, 22
_HOURS = 3
#: What marks of amounts may be apart.
_STEPS = [timedelta(minutes=minutes) for minutes in (10, 15, 30, 60, 120, 180, 360)]


@dataclass(frozen=True, slots=True)
class Watched:
    """A session as far as the picture tells it."""

    title: str
    starts_at: datetime
    ends_at: datetime
    counted: timedelta
    exempt: timedelta
    is_open: bool

    @property
    def total(self) -> timedelta:
        return self.counted + self.exempt

    @property
    def is_exempt(self) -> bool:
        """Whether most of it was exempt from the limit."""
        return self.exempt > self.counted


@dataclass(frozen=True, slots=True)
class Bar:
    """A session in the strip."""

    x: float
    width: float
    is_exempt: bool
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the picture with its text."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything that the template draws; `used` are the points of a line, as SVG has them."""

    bars: Sequence[Bar]
    hours: Sequence[Mark]
    heights: Sequence[Mark]
    used: str
    limit: Mark | None
    now: Mark | None
    summary: str


def timeline(
    day: ViewingDay,
    balance: Balance,
    sessions: Sequence[Watched],
    *,
    now: datetime,
    zone: tzinfo,
) -> Timeline:
    """The picture of a viewing day at an instant, by the clocks of a zone.

    `sessions` in the order of their starts.
    """
    length = day.ends_at - day.starts_at
    allowed = None
    if balance.limit is not None and not balance.is_unlimited_override:
        allowed = balance.limit + balance.granted
    most = max(allowed or timedelta(), balance.used, timedelta(minutes=30))

    def x(instant: datetime) -> float:
        share = (instant - day.starts_at) / length
        return round(LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT), 2)

    def y(amount: timedelta) -> float:
        return round(BOTTOM - min(amount / most, 1.0) * (BOTTOM - TOP), 2)

    points = [(float(LEFT), float(BOTTOM))]
    used = timedelta()
    for session in sessions:
        points.append((x(session.starts_at), y(used)))
        used += session.counted
        points.append((x(session.ends_at), y(used)))
    points.append((x(min(max(now, day.starts_at), day.ends_at)), y(used)))
    return Timeline(
        bars=[
            _bar(session, x(session.starts_at), x(session.ends_at), zone) for session in sessions
        ],
        hours=_hours(day, x, zone),
        heights=[Mark(y(amount), _told(amount)) for amount in _heights(most)],
        used=" ".join(f"{a:g},{b:g}" for a, b in points),
        limit=None if allowed is None else Mark(y(allowed), f"limit {_told(allowed)}"),
        now=Mark(x(now), "now") if day.starts_at <= now < day.ends_at else None,
        summary=_summary(balance, allowed, sessions),
    )


def _bar(session: Watched, start: float, end: float, zone: tzinfo) -> Bar:
    ends_at = session.ends_at.astimezone(zone)
    ending = "still open" if session.is_open else f"to {ends_at:%H:%M}"
    starts_at = session.starts_at.astimezone(zone)
    return Bar(
        x=start,
        width=max(round(end - start, 2), 2.0),
        is_exempt=session.is_exempt,
        label=f"{session.title}, {starts_at:%H:%M} {ending}, {_told(session.total)} watched",
    )


def _hours(day: ViewingDay, x: Callable[[datetime], float], zone: tzinfo) -> list[Mark]:
    """A mark every few hours from the day's start on."""
    marks = []
    at = day.starts_at
    while at <= day.ends_at:
        marks.append(Mark(x(at), f"{at.astimezone(zone):%H:%M}"))
        at += timedelta(hours=_HOURS)
    return marks


def _heights(most: timedelta) -> list[timedelta]:
    """Round amounts from nothing up to the most, six of them at the most."""
    step = next((step for step in _STEPS if most <= 5 * step), most)
    return [step * count for count in range(most // step + 1)]


def _told(amount: timedelta) -> str:
    """An amount of time as h:mm."""
    minutes = round(amount.total_seconds() / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def _summary(balance: Balance, allowed: timedelta | None, sessions: Sequence[Watched]) -> str:
    """What the picture shows, in words."""
    count = len(sessions)
    told = "1 session" if count == 1 else f"{count} sessions"
    exempt = sum((session.exempt for session in sessions), timedelta())
    limit = "no limit" if allowed is None else f"a limit of {_told(allowed)}"
    rest = f", {_told(exempt)} more were exempt" if exempt else ""
    return f"{told}: {_told(balance.used)} used of {limit}{rest}."
