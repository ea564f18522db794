"""The viewing day (domain.md section 5): every zone, 2015 to 2035, and changes of the schedule.

What the code answers is held against a reckoning that shares nothing with it: the zone as a list
of stretches with one UTC offset each, found by bisection, and, for a changed schedule, a clock
that is advanced from reset to reset.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parentalcontrols.viewing_day import (
    ADULT_SCHEDULE,
    Schedule,
    ViewingDay,
    changed_schedules,
    is_weekend,
    reset_instant,
    timezone_names,
)

TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

ZONES = sorted(timezone_names())
# Names are counted so that a broken zone database cannot make "every zone" mean "none".
MANY_ZONES = 500
FIRST_INSTANT = datetime(2015, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(2035, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
# The reckoning looks a little further on both sides: a day may begin in the year before.
RECKONED_FROM = datetime(2014, 12, 1, tzinfo=UTC)
RECKONED_DAYS = (datetime(2036, 2, 1, tzinfo=UTC) - RECKONED_FROM).days
RECKONED = tuple(RECKONED_FROM + day * DAY for day in range(RECKONED_DAYS + 1))


# The reckoning


@dataclass(frozen=True)
class Stretch:
    """A stretch of time in which a zone keeps one offset; `start` included, `end` not."""

    start: datetime
    end: datetime
    offset: timedelta


def offset_at(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


@cache
def stretches(timezone: str) -> tuple[Stretch, ...]:
    zone = ZoneInfo(timezone)
    found: list[Stretch] = []
    start, offset, before = RECKONED[0], offset_at(RECKONED[0], zone), RECKONED[0]
    for instant in RECKONED[1:]:
        seen = offset_at(instant, zone)
        if seen != offset:
            early, late = before, instant
            while late - early > SECOND:
                middle = early + SECOND * ((late - early) // SECOND // 2)
                if offset_at(middle, zone) == offset:
                    early = middle
                else:
                    late = middle
            found.append(Stretch(start, late, offset))
            start, offset = late, seen
        before = instant
    return (*found, Stretch(start, RECKONED[-1], offset))


def reckoned_reset(day: date, hour: int, timezone: str) -> datetime:
    """The first instant at which the local clock has reached `hour`:00 of `day`."""
    target = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    pieces = stretches(timezone)
    # No clock is further than 26 hours from UTC; what lies before that cannot have reached it.
    first = bisect_right(pieces, target - 26 * HOUR, key=lambda piece: piece.end)
    for piece in pieces[first:]:
        reached = max(piece.start, target - piece.offset)
        if reached < piece.end:
            return reached
    raise AssertionError("outside of what is reckoned")


def reckoned_day(now: datetime, hour: int, timezone: str) -> date:
    """The date of the latest reset at or before `now`."""
    around = [(now + shift * DAY).date() for shift in range(-3, 4)]
    return max(day for day in around if reckoned_reset(day, hour, timezone) <= now)


def scanned_reset(day: date, hour: int, timezone: str) -> datetime:
    """The same by brute force: every minute is asked what the local clock shows."""
    target = datetime(day.year, day.month, day.day, hour)
    zone = ZoneInfo(timezone)
    instant = target.replace(tzinfo=UTC) - 16 * HOUR
    while instant.astimezone(zone).replace(tzinfo=None) < target:
        instant += MINUTE
    return instant


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc]


zones = st.sampled_from(ZONES)
hours = st.integers(0, 23)
instants = st.datetimes(
    FIRST_INSTANT.replace(tzinfo=None), LAST_INSTANT.replace(tzinfo=None), timezones=st.just(UTC)
)
dates = st.dates(date(2015, 1, 1), date(2035, 12, 31))


@st.composite
def telling_instants(draw: st.DrawFn, timezone: str) -> datetime:
    """An instant anywhere, or within two days of a change of the zone's clock."""
    turns = [piece.start for piece in stretches(timezone)[1:]]
    turns = [turn for turn in turns if FIRST_INSTANT + 3 * DAY < turn < LAST_INSTANT - 3 * DAY]
    if not turns or draw(st.booleans()):
        return draw(instants)
    turn = draw(st.sampled_from(turns))
    return turn + draw(st.timedeltas(-2 * DAY, 2 * DAY))


@st.composite
def places(draw: st.DrawFn) -> tuple[str, int, datetime]:
    timezone = draw(zones)
    return timezone, draw(hours), draw(telling_instants(timezone))


# One hour in one zone


def test_every_zone_of_the_database_is_offered() -> None:
    assert len(ZONES) > MANY_ZONES
    assert {*TELLING_ZONES} <= timezone_names()
    assert not {"Factory", "localtime", "posixrules"} & timezone_names()


@given(place=places())
@settings(deadline=None, max_examples=300)
def test_now_lies_in_its_viewing_day(place: tuple[str, int, datetime]) -> None:
    timezone, hour, now = place
    schedule = Schedule.of(hour, timezone)
    day = schedule.viewing_day(now)
    assert day.starts_at <= now < day.ends_at
    assert now < schedule.next_reset_at(now) == day.ends_at
    assert schedule.bounds(day.date) == day
    assert day.date == reckoned_day(now, hour, timezone)


@given(place=places(), later=st.timedeltas(timedelta(0), 400 * DAY))
@settings(deadline=None, max_examples=200)
def test_a_later_instant_is_never_in_an_earlier_viewing_day(
    place: tuple[str, int, datetime], later: timedelta
) -> None:
    timezone, hour, now = place
    schedule = Schedule.of(hour, timezone)
    assert schedule.viewing_day(now).date <= schedule.viewing_day(now + later).date
    assert schedule.viewing_day(now).date <= schedule.viewing_day(now + later / 400).date


@given(place=places(), share=st.floats(0, 1))
@settings(deadline=None, max_examples=300)
def test_a_viewing_day_is_constant_up_to_its_end_and_changes_exactly_there(
    place: tuple[str, int, datetime], share: float
) -> None:
    timezone, hour, now = place
    schedule = Schedule.of(hour, timezone)
    day = schedule.viewing_day(now)
    inside = min(day.starts_at + share * (day.ends_at - day.starts_at), day.ends_at - TICK)
    for instant in (day.starts_at, inside, day.ends_at - TICK):
        assert schedule.viewing_day(instant) == day
    following = schedule.viewing_day(day.ends_at)
    assert following.date > day.date
    assert following.starts_at == day.ends_at
    assert schedule.viewing_day(day.starts_at - TICK).date < day.date


@given(timezone=zones, day=dates, hour=hours)
@example(timezone="America/Nuuk", day=date(2024, 3, 30), hour=23)
@example(timezone="Australia/Lord_Howe", day=date(2024, 10, 6), hour=2)
@example(timezone="Africa/Casablanca", day=date(2024, 3, 10), hour=2)
@example(timezone="Asia/Pyongyang", day=date(2018, 5, 4), hour=23)
@settings(deadline=None, max_examples=60)
def test_a_reset_is_the_first_minute_at_which_the_local_clock_has_reached_its_hour(
    timezone: str, day: date, hour: int
) -> None:
    expected = scanned_reset(day, hour, timezone)
    assert reset_instant(day, hour, timezone) == expected
    assert reckoned_reset(day, hour, timezone) == expected


def test_around_every_change_of_every_clock_the_resets_are_where_they_belong() -> None:
    turns = 0
    for timezone in ZONES:
        pieces = stretches(timezone)
        for before, after in pairwise(pieces):
            if not FIRST_INSTANT <= after.start <= LAST_INSTANT:
                continue
            turns += 1
            shown = (after.start + before.offset).replace(tzinfo=None)
            shows = (after.start + after.offset).replace(tzinfo=None)
            first, last = min(shown, shows), max(shown, shows)
            # The hours that are skipped or doubled, and their neighbours; the common one.
            near = {(first + step * HOUR).hour for step in range(-1, 3)}
            for hour in sorted(near | {6}):
                schedule = Schedule.of(hour, timezone)
                resets = []
                for shift in range(-1, (last.date() - first.date()).days + 2):
                    day = first.date() + shift * DAY
                    reset = reset_instant(day, hour, timezone)
                    assert reset == reckoned_reset(day, hour, timezone), (timezone, hour, day)
                    resets.append(reset)
                assert resets == sorted(resets), (timezone, hour, shown)
                # The reset next to the change is the one that could be taken for another.
                reset = min(resets, key=lambda at, turn=after.start: abs(at - turn))
                day = reckoned_day(reset, hour, timezone)
                today = schedule.viewing_day(reset)
                assert (today.date, today.starts_at) == (day, reset), (timezone, hour, reset)
                eve = schedule.viewing_day(reset - TICK)
                assert (eve.date, eve.ends_at) == (day - DAY, reset), (timezone, hour, reset)
    assert turns > 5000


def test_every_zone_has_its_whole_calendar_in_order() -> None:
    for index, timezone in enumerate(ZONES):
        # A stride that no month, week or season divides, another hour for each zone.
        hour = index % 24
        schedule = Schedule.of(hour, timezone)
        for number in range(index % 97, 7665, 97):
            day = date(2015, 1, 2) + number * DAY
            reset = reset_instant(day, hour, timezone)
            assert reset == reckoned_reset(day, hour, timezone)
            assert schedule.viewing_day(reset).date == day
            assert schedule.next_reset_at(reset - TICK) == reset


def test_an_hour_that_is_skipped_is_reached_at_the_first_instant_after_the_gap() -> None:
    # In Berlin 02:00 to 03:00 is missing on 29 March 2026.
    assert reset_instant(date(2026, 3, 29), 2, "Europe/Berlin") == utc(2026, 3, 29, 1)
    assert reset_instant(date(2026, 3, 29), 3, "Europe/Berlin") == utc(2026, 3, 29, 1)


def test_in_nuuk_in_spring_the_hour_before_midnight_is_reached_on_the_next_day() -> None:
    # 23:00 to 24:00 of Saturday is missing: the day begins when the clock shows Sunday 00:00.
    schedule = Schedule.of(23, "America/Nuuk")
    reset = utc(2026, 3, 29, 1)
    assert reset.astimezone(ZoneInfo("America/Nuuk")).replace(tzinfo=None) == datetime(2026, 3, 29)
    assert schedule.viewing_day(reset - TICK).date == date(2026, 3, 27)
    saturday = schedule.viewing_day(reset)
    assert saturday == ViewingDay(date(2026, 3, 28), reset, utc(2026, 3, 30, 0))
    # Who resets at midnight starts Sunday at that very instant.
    assert reset_instant(date(2026, 3, 29), 0, "America/Nuuk") == reset


def test_an_hour_that_occurs_twice_counts_at_its_first_occurrence() -> None:
    schedule = Schedule.of(2, "Europe/Berlin")
    first, second = utc(2026, 10, 25, 0), utc(2026, 10, 25, 1)
    assert {at.astimezone(ZoneInfo("Europe/Berlin")).hour for at in (first, second)} == {2}
    assert schedule.viewing_day(first - TICK).date == date(2026, 10, 24)
    assert schedule.viewing_day(first) == schedule.viewing_day(second)
    assert schedule.viewing_day(first).starts_at == first


def test_a_second_midnight_does_not_start_the_day_again() -> None:
    # In Havana 01:00 goes back to 00:00 of the same date.
    schedule = Schedule.of(0, "America/Havana")
    midnight = reset_instant(date(2026, 11, 1), 0, "America/Havana")
    assert midnight == utc(2026, 11, 1, 4)
    assert schedule.viewing_day(midnight).date == date(2026, 11, 1)
    assert schedule.viewing_day(midnight + HOUR) == schedule.viewing_day(midnight)


def test_a_clock_that_stops_short_of_midnight_has_not_reached_it() -> None:
    # In Nuuk in autumn the last hour of Saturday is lived through twice before Sunday begins.
    schedule = Schedule.of(0, "America/Nuuk")
    sunday = schedule.viewing_day(utc(2026, 10, 25, 2))
    assert (sunday.date, sunday.starts_at) == (date(2026, 10, 25), utc(2026, 10, 25, 2))
    assert schedule.viewing_day(utc(2026, 10, 25, 1)).date == date(2026, 10, 24)
    # For a reset at 23:00 the first of the two counts.
    late = Schedule.of(23, "America/Nuuk").viewing_day(utc(2026, 10, 25, 1))
    assert (late.date, late.starts_at) == (date(2026, 10, 24), utc(2026, 10, 25, 0))


def test_a_date_that_is_set_back_does_not_bring_yesterday_back() -> None:
    # In Newfoundland the clock used to go back at 00:01, into the evening before.
    schedule = Schedule.of(0, "America/St_Johns")
    turn = utc(2010, 11, 7, 2, 31)
    assert turn.astimezone(ZoneInfo("America/St_Johns")).date() == date(2010, 11, 6)
    today = schedule.viewing_day(turn)
    assert (today.date, today.starts_at) == (date(2010, 11, 7), turn - MINUTE)
    assert schedule.viewing_day(turn - MINUTE) == schedule.viewing_day(turn + HOUR) == today


def test_a_date_that_a_zone_skipped_has_no_instant_of_its_own() -> None:
    # Samoa went from 29 to 31 December 2011.
    schedule = Schedule.of(6, "Pacific/Apia")
    skipped = reset_instant(date(2011, 12, 30), 6, "Pacific/Apia")
    assert skipped == utc(2011, 12, 30, 10)
    assert schedule.viewing_day(skipped - TICK).date == date(2011, 12, 29)
    assert schedule.viewing_day(skipped).date == date(2011, 12, 30)
    midnight = Schedule.of(0, "Pacific/Apia")
    assert midnight.viewing_day(skipped - TICK).date == date(2011, 12, 29)
    assert midnight.viewing_day(skipped).date == date(2011, 12, 31)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        Schedule.of(6, "Europe/Atlantis").viewing_day(utc(2026, 3, 2))


def test_fridays_allowance_lasts_until_saturdays_reset() -> None:
    schedule = Schedule.of(6, "Europe/Berlin")
    saturday = reset_instant(date(2026, 3, 7), 6, "Europe/Berlin")
    monday = reset_instant(date(2026, 3, 9), 6, "Europe/Berlin")
    assert not is_weekend(schedule.viewing_day(saturday - TICK).date)
    assert is_weekend(schedule.viewing_day(saturday).date)
    assert is_weekend(schedule.viewing_day(monday - TICK).date)
    assert not is_weekend(schedule.viewing_day(monday).date)


@given(day=dates)
@settings(deadline=None, max_examples=50)
def test_the_weekend_is_saturday_and_sunday(day: date) -> None:
    assert is_weekend(day) == (day.strftime("%u") in "67")


def test_an_adults_day_begins_at_six_by_utc() -> None:
    day = ADULT_SCHEDULE.viewing_day(utc(2026, 3, 3, 5, 59, 59))
    assert day == ViewingDay(date(2026, 3, 2), utc(2026, 3, 2, 6), utc(2026, 3, 3, 6))


# Changes of the schedule


@dataclass
class Config:
    """What is kept of a config, as its row keeps it."""

    reset_hour: int = 6
    timezone: str = "UTC"
    earlier: list[dict[str, Any]] = field(default_factory=list)
    latest_day: date | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.reset_hour, self.timezone, self.earlier)

    def day(self, now: datetime) -> ViewingDay:
        return self.schedule.viewing_day(now, self.latest_day)

    def watch(self, now: datetime) -> None:
        self.latest_day = self.day(now).date

    def change(self, now: datetime, hour: int, timezone: str) -> None:
        entries = changed_schedules(
            reset_hour=self.reset_hour,
            timezone=self.timezone,
            earlier=self.earlier,
            new_reset_hour=hour,
            new_timezone=timezone,
            now=now,
            latest_day=self.latest_day,
        )
        # It is kept as JSON.
        self.earlier = json.loads(json.dumps(entries))
        assert self.earlier == entries
        self.reset_hour, self.timezone = hour, timezone


@dataclass
class Reckoning:
    """The same rules, lived through: a clock that goes from one reset to the next."""

    in_force: tuple[int, str]
    day: ViewingDay
    pending: tuple[int, str] | None = None

    @classmethod
    def at(cls, now: datetime, hour: int, timezone: str) -> "Reckoning":
        today = reckoned_day(now, hour, timezone)
        starts_at = reckoned_reset(today, hour, timezone)
        ends_at = reckoned_reset(today + DAY, hour, timezone)
        return cls((hour, timezone), ViewingDay(today, starts_at, ends_at))

    def advance(self, now: datetime) -> list[ViewingDay]:
        """The days that end at or before `now`."""
        passed = []
        while (switch := self.day.ends_at) <= now:
            passed.append(self.day)
            self.in_force, self.pending = self.pending or self.in_force, None
            first = max(reckoned_day(switch, *self.in_force), self.day.date + DAY)
            self.day = ViewingDay(first, switch, reckoned_reset(first + DAY, *self.in_force))
        return passed

    def change(self, hour: int, timezone: str) -> None:
        self.pending = (hour, timezone) if (hour, timezone) != self.in_force else None


@dataclass(frozen=True)
class Step:
    """After a while the child watches, perhaps, and then the config is changed, perhaps."""

    after: timedelta
    watches: bool
    change: tuple[int, str] | None


# Far apart over the date line, near each other, with odd offsets and with odd clock changes.
TELLING_ZONES = [
    "UTC",
    "Pacific/Apia",
    "Pacific/Pago_Pago",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
    "America/Nuuk",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Europe/Berlin",
]
steps = st.builds(
    Step,
    after=st.one_of(
        st.timedeltas(timedelta(0), 6 * HOUR),
        st.timedeltas(timedelta(0), 60 * HOUR),
        st.timedeltas(timedelta(0), 30 * DAY),
    ),
    watches=st.booleans(),
    change=st.none() | st.tuples(hours, st.sampled_from(TELLING_ZONES) | zones),
)
starts = st.datetimes(datetime(2015, 1, 5), datetime(2034, 6, 1), timezones=st.just(UTC))


@given(
    start=starts,
    first=st.tuples(hours, st.sampled_from(TELLING_ZONES)),
    life=st.lists(steps, min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=250)
def test_whatever_is_changed_the_days_are_those_of_a_clock_that_lives_through_it(
    start: datetime, first: tuple[int, str], life: Sequence[Step]
) -> None:
    config, now = Config(*first), start
    reckoning = Reckoning.at(now, *first)
    # A probe a day after the last change sees the new schedule.
    for step in (*life, Step(timedelta(hours=50), False, None)):
        now += step.after
        passed = reckoning.advance(now)
        for day in passed[-3:]:
            # What is over stays where it was: sessions that are still open need its end.
            assert config.schedule.bounds(day.date).ends_at == day.ends_at
        assert config.day(now) == reckoning.day
        if step.watches:
            config.watch(now)
        if step.change is None:
            continue
        config.change(now, *step.change)
        if config.latest_day is None:
            # There is no running day: the change applies at once.
            reckoning = Reckoning.at(now, *step.change)
            assert config.earlier == []
        else:
            reckoning.change(*step.change)
        running = config.day(now)
        assert running == reckoning.day
        assert config.schedule.viewing_day(running.ends_at - TICK) == running
        following = replace(reckoning)
        following.advance(running.ends_at)
        assert config.schedule.viewing_day(running.ends_at) == following.day
        assert following.day.date > running.date


@given(
    start=starts,
    first=st.tuples(hours, st.sampled_from(TELLING_ZONES)),
    changes=st.lists(
        st.tuples(st.timedeltas(timedelta(0), 40 * HOUR), hours, st.sampled_from(TELLING_ZONES)),
        min_size=1,
        max_size=6,
    ),
)
@settings(deadline=None, max_examples=150)
def test_under_changes_no_viewing_day_repeats_and_none_overlaps(
    start: datetime, first: tuple[int, str], changes: Sequence[tuple[timedelta, int, str]]
) -> None:
    config, now = Config(*first), start
    config.watch(now)
    seen = [config.day(now)]
    for after, hour, timezone in changes:
        target = now + after
        while seen[-1].ends_at <= target:
            now = seen[-1].ends_at
            config.watch(now)
            seen.append(config.day(now))
        now = target
        config.change(now, hour, timezone)
        assert config.day(now) == seen[-1]
    for _ in range(4):
        seen.append(config.schedule.viewing_day(seen[-1].ends_at))
    for earlier, later in pairwise(seen):
        assert earlier.date < later.date
        assert earlier.starts_at < earlier.ends_at == later.starts_at
        assert config.schedule.viewing_day(later.starts_at) == later
        assert config.schedule.viewing_day(later.ends_at - TICK) == later


def watched(hour: int, timezone: str, now: datetime) -> Config:
    """A config whose child has watched at `now`."""
    config = Config(hour, timezone)
    config.watch(now)
    return config


def test_with_the_reset_moved_from_six_to_eight_tuesday_ends_on_wednesday_at_eight() -> None:
    monday_noon = utc(2026, 3, 2, 12)
    config = watched(6, "UTC", monday_noon)
    config.change(monday_noon, 8, "UTC")
    monday, tuesday = date(2026, 3, 2), date(2026, 3, 3)
    six, eight = utc(2026, 3, 3, 6), utc(2026, 3, 4, 8)
    assert config.day(monday_noon) == ViewingDay(monday, utc(2026, 3, 2, 6), six)
    assert config.day(six - TICK).date == monday
    assert config.day(six) == ViewingDay(tuesday, six, eight)
    assert config.day(eight - TICK).date == tuesday
    assert config.day(eight) == ViewingDay(date(2026, 3, 4), eight, utc(2026, 3, 5, 8))


def test_with_the_new_reset_earlier_than_the_old_the_next_day_is_the_shorter_one() -> None:
    monday_noon = utc(2026, 3, 2, 12)
    config = watched(8, "UTC", monday_noon)
    config.change(monday_noon, 6, "UTC")
    assert config.day(monday_noon).ends_at == utc(2026, 3, 3, 8)
    assert config.day(utc(2026, 3, 3, 8)) == ViewingDay(
        date(2026, 3, 3), utc(2026, 3, 3, 8), utc(2026, 3, 4, 6)
    )


def test_a_profile_that_never_had_a_balance_row_changes_at_once() -> None:
    now = utc(2026, 3, 2, 7)
    config = Config(6, "UTC")
    assert config.day(now).date == date(2026, 3, 2)
    config.change(now, 8, "UTC")
    assert config.earlier == []
    assert config.day(now) == ViewingDay(date(2026, 3, 1), utc(2026, 3, 1, 8), utc(2026, 3, 2, 8))


def test_of_several_pending_changes_the_last_wins() -> None:
    now = utc(2026, 3, 2, 12)
    config = watched(6, "UTC", now)
    config.change(now, 20, "Asia/Tokyo")
    config.change(now + HOUR, 3, "America/Lima")
    config.change(now + 2 * HOUR, 8, "UTC")
    once = watched(6, "UTC", now)
    once.change(now + 2 * HOUR, 8, "UTC")
    assert config.schedule == once.schedule


def test_a_pending_change_that_is_taken_back_leaves_no_trace() -> None:
    now = utc(2026, 3, 2, 12)
    config = watched(6, "UTC", now)
    config.change(now, 20, "Asia/Tokyo")
    config.change(now + HOUR, 6, "UTC")
    assert config.schedule == Schedule.of(6, "UTC")


def test_setting_what_is_set_already_changes_nothing() -> None:
    now = utc(2026, 3, 2, 12)
    config = watched(6, "UTC", now)
    config.change(now, 6, "UTC")
    assert config.earlier == []
    config.change(now, 8, "UTC")
    pending = list(config.earlier)
    config.change(now + HOUR, 8, "UTC")
    assert config.earlier == pending


def test_a_child_that_watched_last_week_has_todays_day_as_its_running_one() -> None:
    config = watched(6, "UTC", utc(2026, 2, 23, 12))
    now = utc(2026, 3, 2, 12)
    config.change(now, 8, "UTC")
    assert config.day(now) == ViewingDay(date(2026, 3, 2), utc(2026, 3, 2, 6), utc(2026, 3, 3, 6))
    assert config.day(utc(2026, 3, 3, 6)).ends_at == utc(2026, 3, 4, 8)


def test_what_is_remembered_of_earlier_schedules_is_plain_json() -> None:
    now = utc(2026, 3, 2, 12)
    config = watched(6, "Europe/Berlin", now)
    config.change(now, 8, "Asia/Tokyo")
    assert config.earlier == [
        {
            "reset_hour": 6,
            "timezone": "Europe/Berlin",
            "last_day": "2026-03-02",
            "ends_at": "2026-03-03T05:00:00+00:00",
        }
    ]


def test_what_is_remembered_of_earlier_schedules_does_not_grow_for_ever() -> None:
    now = utc(2026, 1, 5, 12)
    config = Config()
    for turn in range(60):
        config.watch(now)
        config.change(now, 6 + turn % 2 * 2, "UTC")
        now += DAY
    assert len(config.earlier) < 40


def test_a_move_westward_over_the_date_line_makes_the_longest_day_about_49_hours() -> None:
    # From UTC+14 in summer to UTC-11: the date that has been is not lived through again.
    now = utc(2020, 1, 10, 0)
    config = watched(6, "Pacific/Apia", now)
    running = config.day(now)
    assert running.date == date(2020, 1, 10)
    config.change(now, 6, "Pacific/Pago_Pago")
    assert config.day(now) == running
    first = config.day(running.ends_at)
    assert first.date == date(2020, 1, 11)
    assert first.ends_at == reckoned_reset(date(2020, 1, 12), 6, "Pacific/Pago_Pago")
    assert first.ends_at - first.starts_at == 49 * HOUR


def test_a_move_eastward_over_the_date_line_skips_a_date_and_repeats_none() -> None:
    now = utc(2026, 3, 2, 20)
    config = watched(6, "Pacific/Pago_Pago", now)
    running = config.day(now)
    assert running.date == date(2026, 3, 2)
    config.change(now, 6, "Pacific/Kiritimati")
    first = config.day(running.ends_at)
    assert first.date == date(2026, 3, 4)
    assert first.ends_at == reckoned_reset(date(2026, 3, 5), 6, "Pacific/Kiritimati")
    assert first.ends_at - first.starts_at == 23 * HOUR


@given(
    start=starts,
    hour=hours,
    old=st.sampled_from(TELLING_ZONES) | zones,
    new=st.sampled_from(TELLING_ZONES) | zones,
)
@settings(deadline=None, max_examples=150)
def test_no_move_at_the_same_hour_makes_a_day_much_longer_than_two(
    start: datetime, hour: int, old: str, new: str
) -> None:
    config = watched(hour, old, start)
    config.change(start, hour, new)
    first = config.day(config.day(start).ends_at)
    # 26 hours lie between the furthest zones, and clocks may change meanwhile.
    assert timedelta(0) < first.ends_at - first.starts_at <= 52 * HOUR


# A clock that was stepped back


@given(place=places(), back=st.timedeltas(timedelta(0), 3 * DAY))
@settings(deadline=None, max_examples=100)
def test_a_clock_that_was_stepped_back_does_not_bring_an_earlier_day_back(
    place: tuple[str, int, datetime], back: timedelta
) -> None:
    timezone, hour, now = place
    schedule = Schedule.of(hour, timezone)
    latest = schedule.viewing_day(now)
    assert schedule.viewing_day(now - back, latest.date) == latest
    # A day that was recorded long ago holds nothing up.
    assert schedule.viewing_day(now, latest.date - DAY) == latest
    assert schedule.viewing_day(now, None) == latest


def test_a_change_while_the_clock_is_behind_keeps_the_end_of_the_recorded_day() -> None:
    six = utc(2026, 3, 3, 6)
    config = watched(6, "UTC", six)
    config.change(six - 10 * SECOND, 8, "UTC")
    tuesday = ViewingDay(date(2026, 3, 3), six, utc(2026, 3, 4, 6))
    assert config.day(six - 10 * SECOND) == tuesday
    assert config.day(six + HOUR) == tuesday


def test_a_clock_that_falls_back_before_a_switch_does_not_undo_it() -> None:
    monday_noon = utc(2026, 3, 2, 12)
    config = watched(6, "UTC", monday_noon)
    config.change(monday_noon, 8, "UTC")
    six = utc(2026, 3, 3, 6)
    config.watch(six)
    tuesday = ViewingDay(date(2026, 3, 3), six, utc(2026, 3, 4, 8))
    assert config.day(six - 10 * SECOND) == tuesday
    config.change(six - 10 * SECOND, 10, "UTC")
    for instant in (six - 10 * SECOND, six, utc(2026, 3, 4, 7, 59)):
        assert config.day(instant) == tuesday
    wednesday = config.day(utc(2026, 3, 4, 8))
    assert wednesday == ViewingDay(date(2026, 3, 4), utc(2026, 3, 4, 8), utc(2026, 3, 5, 10))


@given(
    start=starts,
    first=st.tuples(hours, st.sampled_from(TELLING_ZONES)),
    life=st.lists(
        st.tuples(
            # None: on the spot where the running day ends.
            st.none()
            | st.timedeltas(timedelta(0), 30 * HOUR)
            | st.timedeltas(-10 * SECOND, 10 * SECOND)
            | st.timedeltas(-3 * HOUR, timedelta(0)),
            hours,
            st.sampled_from(TELLING_ZONES),
        ),
        min_size=1,
        max_size=8,
    ),
)
@example(
    start=utc(2026, 3, 2, 12),
    first=(6, "UTC"),
    life=[(timedelta(0), 8, "UTC"), (None, 8, "UTC"), (-10 * SECOND, 10, "UTC")],
)
@settings(deadline=None, max_examples=150)
def test_changes_under_a_clock_that_steps_back_make_no_other_days_than_under_one_that_waits(
    start: datetime,
    first: tuple[int, str],
    life: Sequence[tuple[timedelta | None, int, str]],
) -> None:
    config, now = Config(*first), start
    reckoning = Reckoning.at(now, *first)
    config.watch(now)
    for after, hour, timezone in life:
        now = reckoning.day.ends_at if after is None else now + after
        reckoning.advance(now)
        config.watch(now)
        assert config.day(now) == reckoning.day
        config.change(now, hour, timezone)
        reckoning.change(hour, timezone)
        assert config.day(now) == reckoning.day
        following = replace(reckoning)
        following.advance(reckoning.day.ends_at)
        assert config.day(reckoning.day.ends_at) == following.day
