"""History and report against a slow reading of the same sessions, by property.

The real rules produce the sessions, under a clock that the test sets: over changes of the local
clock, of limits, hours and zones, and over resets. The slow reading is written from domain.md
sections 5 and 8, in plain loops, and shares nothing with what it checks: it finds a session's day
by its start, in a chronicle of the days that it keeps itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_bakery import baker

from parentalcontrols import authentication, profiles
from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import Device
from parentalcontrols.viewing_day import Schedule, changed_schedules
from pins import audit
from viewingtime import grants, heartbeats, history, ledgers, limits
from viewingtime.heartbeats import Heartbeat
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.tests import clock

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk"),
    *("Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago"),
)
#: Some days before the clocks change in one of the zones.
STARTS = (
    datetime(2026, 3, 5, 11, tzinfo=UTC),
    datetime(2026, 3, 26, 20, 30, tzinfo=UTC),
    datetime(2026, 4, 2, 3, 15, tzinfo=UTC),
    datetime(2026, 10, 23, 1, 45, tzinfo=UTC),
    datetime(2026, 10, 30, 22, tzinfo=UTC),
)


# The slow reading


@cache
def reset(day: date, hour: int, zone: str) -> datetime:
    """The first instant at which the local clock has reached the hour of that date."""
    wanted = datetime(day.year, day.month, day.day, hour)
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < wanted:
        instant += QUARTER
    return instant


def own_day(now: datetime, hour: int, zone: str) -> date:
    """The date of the latest reset instant at or before now."""
    day = now.date() + 2 * DAY
    while reset(day, hour, zone) > now:
        day -= DAY
    return day


@dataclass
class Chronicle:
    """A child's viewing days, written down as they pass: date, start and end."""

    hour: int
    zone: str
    pending: tuple[int, str] | None = None
    days: list[tuple[date, datetime, datetime]] = field(default_factory=list)

    def natural(self, day: date) -> tuple[date, datetime, datetime]:
        return day, reset(day, self.hour, self.zone), reset(day + DAY, self.hour, self.zone)

    def recorded(self, now: datetime) -> None:
        """A balance row is there: from now on there is a running day, and those before it."""
        if not self.days:
            self.days.append(self.natural(own_day(now, self.hour, self.zone)))
            for _ in range(7):
                before = self.days[0][1] - timedelta(seconds=1)
                self.days.insert(0, self.natural(own_day(before, self.hour, self.zone)))

    def pass_to(self, now: datetime) -> None:
        """The running day ends at its reset, and what was set meanwhile rules from then on."""
        while self.days and self.days[-1][2] <= now:
            day, _, switch = self.days[-1]
            if self.pending is None:
                self.days.append(self.natural(own_day(switch, self.hour, self.zone)))
            else:
                (self.hour, self.zone), self.pending = self.pending, None
                first = max(own_day(switch, self.hour, self.zone), day + DAY)
                self.days.append((first, switch, reset(first + DAY, self.hour, self.zone)))

    def set_to(self, hour: int, zone: str) -> None:
        """A change of hour or zone waits for the reset, if a day is running."""
        if not self.days:
            self.hour, self.zone = hour, zone
        else:
            self.pending = None if (hour, zone) == (self.hour, self.zone) else (hour, zone)

    def day_of(self, instant: datetime) -> date:
        """The day that an instant lies in; there is exactly one."""
        (day,) = [day for day, starts_at, ends_at in self.days if starts_at <= instant < ends_at]
        return day

    def last_seven(self, now: datetime) -> list[date]:
        """The running day and the six before it, oldest first."""
        if not self.days:
            probe = Chronicle(self.hour, self.zone)
            probe.recorded(now)
            return [day for day, _, _ in probe.days[-7:]]
        return [day for day, _, _ in self.days[-7:]]


# The family


class Family:
    """A child that watches, its parent's device, and the chronicle of its days."""

    def __init__(self, now: datetime, hour: int, zone: str) -> None:
        self.now = now
        self.account = baker.make(Account, email=f"{uuid4()}@example.com", is_active=True)
        self.caller = Caller(self.account.id, self.account.token_version, "account")
        self.phone = Device(authentication.access_token(self.account))
        self.child = profiles.create(account=self.account, name="Mia", is_kids=True)
        self.titles = [
            baker.make(Title, title=name, is_educational=name == "Bees", artwork_url="")
            for name in ("Ants", "Bees", "Cats", "Ants", "Dogs")
        ]
        self.session_id: UUID | None = None
        self.chronicle = Chronicle(hour, zone)
        clock.install()
        clock.set_to(now)
        self.change({"reset_hour": hour, "timezone": zone})

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        clock.set_to(self.now)
        self.chronicle.pass_to(self.now)

    def noted(self) -> None:
        if ViewingTimeBalance.objects.filter(profile=self.child).exists():
            self.chronicle.recorded(self.now)

    def beat(self, title: int, device: str, *, goes_on: bool, is_paused: bool = False) -> None:
        beat = Heartbeat(
            self.child.id,
            self.titles[title].id,
            device,
            session_id=self.session_id if goes_on else None,
            is_paused=is_paused,
        )
        (answer,) = heartbeats.process([beat], self.caller)
        self.session_id = answer.session_id
        self.noted()

    def cross(self, before: float, after: float, title: int) -> None:
        """Watches over the next reset."""
        config = ViewingTimeConfig.objects.get(profile=self.child)
        schedule = ledgers.viewer_of(config).schedule
        latest = ViewingTimeBalance.objects.filter(profile=self.child).order_by("-reset_date")
        day = schedule.viewing_day(self.now, latest.values_list("reset_date", flat=True).first())
        self.pass_time(max(0.0, (day.ends_at - self.now).total_seconds() - before))
        self.beat(title, "tv", goes_on=False)
        self.pass_time(before + after)
        self.beat(title, "tv", goes_on=True)

    def end(self) -> None:
        if self.session_id is not None:
            heartbeats.end(self.session_id, self.caller)

    def sweep(self) -> None:
        ledgers.close_silent()

    def grant(self, minutes: int | None) -> None:
        grants.grant(
            profile_id=self.child.id,
            account_id=self.account.id,
            minutes=minutes,
            is_remote=True,
            actor=audit.OPERATOR,
        )
        self.noted()

    def change(self, changes: dict[str, Any]) -> None:
        config = limits.change(
            profile_id=self.child.id,
            account_id=self.account.id,
            changes=changes,
            actor=audit.OPERATOR,
        )
        self.chronicle.set_to(config.reset_hour, config.timezone)

    # What the slow reading makes of it

    def watched(self) -> list[tuple[date, ViewingSession]]:
        """Every session with its day, newest first."""
        rows = list(ViewingSession.objects.filter(profile=self.child))
        rows.sort(key=lambda row: (row.started_at, row.id), reverse=True)
        return [(self.chronicle.day_of(row.started_at), row) for row in rows]

    def allowed(self, day: date) -> tuple[Fraction | None, Fraction, bool]:
        """Limit and grants in seconds, and whether nothing limited the day."""
        for row in ViewingTimeBalance.objects.filter(profile=self.child, reset_date=day):
            limit = None if row.limit_seconds is None else Fraction(row.limit_seconds)
            return limit, Fraction(row.granted_seconds), row.is_unlimited_override
        config = ViewingTimeConfig.objects.get(profile=self.child)
        is_weekend = day.strftime("%a") in {"Sat", "Sun"}
        minutes = config.weekend_limit_minutes if is_weekend else config.weekday_limit_minutes
        return None if minutes is None else Fraction(60 * minutes), Fraction(0), False


def is_minutes(told: float, seconds: Fraction) -> bool:
    """Whether a figure is that many minutes, rounded to 2 decimals."""
    return abs(Fraction(told) - seconds / 60) <= Fraction(1, 200) + Fraction(1, 10**9)


def sums(rows: list[ViewingSession]) -> tuple[Fraction, Fraction]:
    """All seconds, and the exempt ones."""
    total = exempt = Fraction(0)
    for row in rows:
        total += Fraction(row.total_seconds)
        exempt += Fraction(row.educational_seconds)
    return total, exempt


# What is checked


def check_report(family: Family) -> None:
    answer = family.phone.get("/parental-controls/weekly-report")
    assert answer.status_code == 200, answer.content
    report = answer.json()
    (week,) = report["profiles"]
    days = family.chronicle.last_seven(family.now)
    assert [one["date"] for one in week["daily_totals"]] == [day.isoformat() for day in days]
    assert (report["week_start"], report["week_end"]) == (str(days[0]), str(days[-1]))
    watched = family.watched()
    all_used = all_allowed = Fraction(0)
    for told, day in zip(week["daily_totals"], days, strict=True):
        total, exempt = sums([row for own, row in watched if own == day])
        limit, granted, override = family.allowed(day)
        assert is_minutes(told["minutes"], total)
        assert is_minutes(told["educational_minutes"], exempt)
        assert is_minutes(told["counted_minutes"], total - exempt)
        assert told["limit_minutes"] == (None if limit is None else float(limit / 60))
        assert is_minutes(told["granted_minutes"], granted)
        assert told["is_unlimited_override"] is override
        if limit is not None and not override:
            all_used += total - exempt
            all_allowed += limit + granted
    rows = [row for own, row in watched if own in days]
    total, exempt = sums(rows)
    assert is_minutes(week["total_minutes"], total)
    assert is_minutes(week["educational_minutes"], exempt)
    assert is_minutes(week["average_daily_minutes"], total / 7)
    if all_allowed:
        usage = 100 * all_used / all_allowed
        assert abs(Fraction(week["limit_usage_percent"]) - usage) <= Fraction(6, 1000)
    else:
        assert week["limit_usage_percent"] is None
    by_title = [
        (-sums([row for row in rows if row.title_id == title.id])[0], title.title, str(title.id))
        for title in family.titles
    ]
    first = sorted(entry for entry in by_title if entry[0])[:3]
    assert [title["title_id"] for title in week["top_titles"]] == [id_ for _, _, id_ in first]
    for told, (seconds, name, _) in zip(week["top_titles"], first, strict=True):
        assert told["title_name"] == name
        assert is_minutes(told["total_minutes"], -seconds)


def pages_of(family: Family, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    path = f"/parental-controls/profiles/{family.child.id}/history"
    while True:
        answer = family.phone.get(f"{path}?{urlencode(query)}")
        assert answer.status_code == 200, answer.content
        yield answer.json()
        if answer.json()["next_cursor"] is None:
            return
        query = {"cursor": answer.json()["next_cursor"]}


def check_history(family: Family, first: date, last: date, query: dict[str, Any]) -> None:
    wanted = [(day, row) for day, row in family.watched() if first <= day <= last]
    listed = []
    for page in pages_of(family, query):
        dates = [day["date"] for day in page["days"]]
        assert dates == sorted(set(dates), reverse=True)
        for day in page["days"]:
            total, exempt = sums([row for own, row in wanted if str(own) == day["date"]])
            assert is_minutes(day["total_minutes"], total)
            assert is_minutes(day["educational_minutes"], exempt)
            assert is_minutes(day["counted_minutes"], total - exempt)
            listed += [(day["date"], session) for session in day["sessions"]]
    assert [(day, session["session_id"]) for day, session in listed] == [
        (str(day), str(row.id)) for day, row in wanted
    ]
    names = {str(title.id): title.title for title in family.titles}
    for (_, told), (_, row) in zip(listed, wanted, strict=True):
        assert is_minutes(told["duration_minutes"], Fraction(row.total_seconds))
        assert datetime.fromisoformat(told["started_at"]) == row.started_at
        assert (told["ended_at"] is None) is (row.ended_at is None)
        assert told["title_name"] == names[told["title_id"]]
        assert told["is_educational"] is row.is_educational


configs = st.one_of(
    st.fixed_dictionaries({"timezone": st.sampled_from(ZONES)}),
    st.fixed_dictionaries({"reset_hour": st.sampled_from((0, 2, 6, 13, 23))}),
    st.fixed_dictionaries(
        {
            "weekday_limit_minutes": st.sampled_from((15, 60, None)),
            "weekend_limit_minutes": st.sampled_from((15, None)),
        }
    ),
    st.fixed_dictionaries({"educational_exempt": st.booleans()}),
)
titles = st.integers(0, 4)
events = st.one_of(
    st.tuples(
        st.just("pass_time"),
        st.sampled_from((0.25, 29.123456, 30, 61, 299.9, 1000, 20_000, 50_000, 86_400, 200_000)),
    ),
    st.tuples(st.just("beat"), titles, st.sampled_from(("tv", "tablet")), st.booleans()),
    st.tuples(st.just("go_on"), titles, st.booleans()),
    st.tuples(st.just("cross"), st.floats(0.5, 140), st.floats(0, 140), titles),
    st.tuples(st.just("grant"), st.sampled_from((15, 60, None))),
    st.tuples(st.just("change"), configs),
    st.tuples(st.sampled_from(("end", "sweep"))),
)


def live(family: Family, event: tuple[Any, ...]) -> None:
    match event:
        case ("beat", title, device, is_paused):
            family.beat(title, device, goes_on=False, is_paused=is_paused)
        case ("go_on", title, is_paused):
            family.pass_time(200)
            family.beat(title, "tv", goes_on=True, is_paused=is_paused)
        case (name, *arguments):
            getattr(family, name)(*arguments)


@given(
    start=st.sampled_from(STARTS),
    hour=st.sampled_from((0, 2, 6, 23)),
    zone=st.sampled_from(ZONES),
    lived=st.lists(events, min_size=5, max_size=30),
    span=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_history_and_report_are_what_a_slow_reading_makes_of_the_same_sessions(
    start: datetime, hour: int, zone: str, lived: list[tuple[Any, ...]], span: tuple[int, int]
) -> None:
    with transaction.atomic(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE_SESSIONS", 3)
        family = Family(start, hour, zone)
        for event in lived:
            live(family, event)
        check_report(family)
        today = family.chronicle.last_seven(family.now)[-1]
        check_history(family, today - 29 * DAY, today, {})
        last = today - span[0] * DAY
        first = last - span[1] * DAY
        check_history(family, first, last, {"from_date": first, "to_date": last})
        transaction.set_rollback(True)


def test_a_week_of_daily_changes_is_told_day_by_day() -> None:
    """Over the date line and back, with another hour each time: the longest week there is."""
    family = Family(STARTS[0], 0, "Pacific/Kiritimati")
    for turn in range(24):
        family.beat(turn % 5, "tv", goes_on=False)
        zone = ("Pacific/Pago_Pago", "Pacific/Kiritimati", "Europe/Berlin")[turn % 3]
        family.change({"timezone": zone, "reset_hour": (23, 0, 13, 6)[turn % 4]})
        family.cross(60, 45, turn % 5)
        check_report(family)
        today = family.chronicle.last_seven(family.now)[-1]
        check_history(family, today - 29 * DAY, today, {})
    assert all(before[2] == after[1] for before, after in pairwise(family.chronicle.days))


# Where sessions of a day start

hours = st.integers(0, 23)


@given(
    start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    hour=hours,
    zone=st.sampled_from(ZONES),
    changes=st.lists(
        st.tuples(st.integers(0, 80), hours, st.sampled_from(ZONES)), min_size=1, max_size=8
    ),
)
@settings(deadline=None, max_examples=200)
def test_whatever_is_changed_a_day_lies_within_the_padding_of_its_date(
    start: datetime, hour: int, zone: str, changes: list[tuple[int, int, str]]
) -> None:
    earlier: list[dict[str, Any]] = []
    now = start
    for wait, new_hour, new_zone in changes:
        now += timedelta(hours=wait)
        latest = Schedule.of(hour, zone, earlier).viewing_day(now).date
        earlier = changed_schedules(
            reset_hour=hour,
            timezone=zone,
            earlier=earlier,
            new_reset_hour=new_hour,
            new_timezone=new_zone,
            now=now,
            latest_day=latest,
        )
        hour, zone = new_hour, new_zone
        schedule = Schedule.of(hour, zone, earlier)
        for step in range(0, 120, 5):
            day = schedule.viewing_day(now + timedelta(hours=step))
            midnight = datetime(day.date.year, day.date.month, day.date.day, tzinfo=UTC)
            assert midnight - timedelta(hours=14) <= day.starts_at
            assert day.ends_at <= midnight + timedelta(hours=59)
    assert timedelta(hours=14) <= history.STARTS_BEFORE
    assert timedelta(hours=59) <= history.STARTS_AFTER
