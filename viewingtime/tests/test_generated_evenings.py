"""Made-up evenings keep every rule, without a database: `viewingtime.generator.evenings`."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from parentalcontrols.viewing_day import Schedule
from viewingtime.generator.evenings import Catalogue, Day, Device, Film, Habits, days_of
from viewingtime.generator.households import households
from viewingtime.ledger import ADULT, Viewer

SECOND = 1_000_000
FILMS = [Film(f"{n:032x}", is_educational=n % 4 == 0) for n in range(12)]
TV, TABLET = Device("living-room-tv", "tv"), Device("tablet", "tablet")
# The clocks go forward in America on 8 March, in Europe on 29 March.
MARCH = [date(2026, 3, 1) + timedelta(days=n) for n in range(31)]
OCTOBER = [date(2026, 10, 10) + timedelta(days=n) for n in range(30)]
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Asia/Kolkata")


def habits(
    *,
    zone: str = "Europe/Berlin",
    reset_hour: int = 6,
    limit: int | None = 60,
    is_exempt: bool = True,
    films: list[Film] = FILMS,
) -> Habits:
    minutes = None if limit is None else timedelta(minutes=limit)
    viewer = Viewer(
        is_kids=True,
        weekday_limit=minutes,
        weekend_limit=minutes,
        educational_exempt=is_exempt,
        schedule=Schedule.of(reset_hour, zone),
    )
    return Habits(viewer, films, [TV, TV, TABLET])


def made(
    one: Habits, *, sessions: int = 120, dates: list[date] = MARCH, seed: int = 1
) -> list[Day]:
    return list(days_of(one, dates=dates, sessions=sessions, rng=random.Random(seed)))


def many() -> Iterator[tuple[Habits, list[Day]]]:
    """Households of chance, few and many sessions, in spring and in autumn."""
    found = households(kids=60, has_adults=True, catalogue=Catalogue.of(FILMS), seed="many")
    for number, household in enumerate(found):
        for person in household.people:
            for dates in (MARCH, OCTOBER):
                sessions = (3, 90, 400, 5000)[number % 4]
                days = made(person.habits, sessions=sessions, dates=dates, seed=number)
                yield person.habits, days


def test_there_are_exactly_as_many_sessions_as_asked_for():
    for number in (0, 1, 29, 120, 5000):
        assert sum(len(day.sessions) for day in made(habits(), sessions=number)) == number


def test_the_same_seed_makes_the_same_evenings_and_another_one_others():
    assert made(habits()) == made(habits())
    assert made(habits()) != made(habits(), seed=2)


def test_sessions_follow_each_other_within_their_viewing_day():
    for one, days in many():
        for day in days:
            length = (day.day.ends_at - day.day.starts_at) // timedelta(microseconds=1)
            before = 0
            for session in day.sessions:
                assert before <= session.started <= session.last_beat <= session.ended <= length
                assert session.started < session.ended
                before = session.ended
                started = day.day.starts_at + timedelta(microseconds=session.started)
                assert one.viewer.schedule.viewing_day(started) == day.day


def test_what_is_counted_is_what_the_sessions_last():
    for one, days in many():
        for day in days:
            exempt = sum(session.total for session in day.sessions if session.is_exempt)
            assert exempt == day.educational
            assert sum(session.total for session in day.sessions) == day.used + exempt
            for session in day.sessions:
                assert session.is_exempt == one.viewer.exempts(session.film.is_educational)
                assert 0 < session.total <= session.ended - session.started
                # Only of a pause less counts than went by, and five minutes of it do.
                if session.total < session.ended - session.started:
                    assert session.total > 300 * SECOND


def test_nobody_starts_to_watch_without_time_and_nobody_overruns_it_by_more_than_a_second():
    seen = {"exhausted": 0, "grants": 0, "unlimited": 0}
    for one, days in many():
        for day in days:
            if day.limit is None:
                assert not day.grants
                assert not day.granted
                continue
            assert day.limit == one.viewer.limit(day.day.date) // timedelta(microseconds=1)
            seen["unlimited"] += day.is_unlimited
            if day.is_unlimited:
                assert [given.minutes for given in day.grants] == [None]
                continue
            # Play the day again, with the grants when they were given.
            left, granted, waiting = day.limit, 0, list(day.grants)
            for session in day.sessions:
                while waiting and waiting[0].at <= session.started:
                    minutes = waiting.pop(0).minutes
                    # An overrun is forgiven first.
                    more = max(0, -left) + minutes * 60 * SECOND
                    granted += more
                    left += more
                    seen["grants"] += 1
                if session.is_exempt:
                    continue
                assert left > 0
                left -= session.total
                assert (left <= 0) == (session.reason == "exhausted")
                assert left > -SECOND
                seen["exhausted"] += session.reason == "exhausted"
            assert not waiting
            assert granted == day.granted
            assert left == day.remaining
    assert all(count > 20 for count in seen.values()), seen


def test_each_end_is_what_its_reason_says():
    seen = set()
    for _, days in many():
        for day in days:
            for session, after in pairwise([*day.sessions, None]):
                seen.add(session.reason)
                match session.reason:
                    case "stale":
                        assert session.ended - session.last_beat == 30 * SECOND
                    case "superseded":
                        assert session.ended - session.last_beat < 30 * SECOND
                        assert after.started == session.ended
                        assert after.device != session.device
                    case "title_changed":
                        assert after.started == session.last_beat == session.ended
                        assert after.device == session.device
                        assert after.film != session.film
                    case "reset":
                        assert after is None
                    case _:
                        assert session.last_beat == session.ended
    assert seen == {"stopped", "stale", "superseded", "title_changed", "exhausted", "reset"}


def test_who_watches_across_the_reset_goes_on_in_the_next_day():
    crossings = 0
    for seed in range(20):
        # Breakfast: at seven the day begins.
        days = made(habits(zone="Asia/Tokyo", reset_hour=7, limit=240), seed=seed)
        for before, after in pairwise(days):
            last, first = before.sessions[-1], after.sessions[0]
            if last.reason != "reset":
                continue
            crossings += 1
            assert before.day.ends_at == after.day.starts_at
            assert last.ended == 24 * 3600 * SECOND
            assert (first.started, first.film, first.device) == (0, last.film, last.device)
        assert days[-1].sessions[-1].reason != "reset"
    assert crossings > 10


@pytest.mark.parametrize("reset_hour", range(24))
@pytest.mark.parametrize("zone", ZONES)
def test_whatever_the_zone_and_hour_people_watch_when_they_are_awake(zone, reset_hour):
    from zoneinfo import ZoneInfo

    for dates in (MARCH, OCTOBER):
        for day in made(habits(zone=zone, reset_hour=reset_hour), dates=dates):
            for session in day.sessions:
                started = day.day.starts_at + timedelta(microseconds=session.started)
                # An hour of grace where the clocks change in between.
                assert 5 <= started.astimezone(ZoneInfo(zone)).hour <= 21


def test_without_anything_educational_a_used_up_day_ends_or_goes_on_by_a_grant():
    plain = [film for film in FILMS if not film.is_educational]
    days = made(habits(limit=15, films=plain), sessions=1000)
    assert not any(day.educational for day in days)
    assert any(given.minutes for day in days for given in day.grants)


def test_without_the_exemption_what_is_educational_counts_like_the_rest():
    days = made(habits(is_exempt=False))
    assert any(session.film.is_educational for day in days for session in day.sessions)
    assert not any(day.educational for day in days)


def test_weekends_see_more_than_weekdays_and_some_days_are_off():
    days = made(habits(limit=None), sessions=2000)
    weekend = [len(day.sessions) for day in days if day.day.date.weekday() >= 5]
    weekday = [len(day.sessions) for day in days if day.day.date.weekday() < 5]
    assert sum(weekend) / len(weekend) > 1.2 * sum(weekday) / len(weekday)
    assert len(days) < len(MARCH)


def test_an_adult_has_no_limit_and_the_days_of_adults():
    days = made(Habits(ADULT, FILMS, [TV]))
    assert {day.limit for day in days} == {None}
    assert {day.day.starts_at.hour for day in days} == {6}
    assert not any(session.is_exempt for day in days for session in day.sessions)
    assert days[0].day.starts_at.tzinfo is UTC
    assert isinstance(days[0].day.starts_at, datetime)
