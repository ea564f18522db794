"""A child's day as a picture: where its sessions lie, and how high the line climbs."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from parentalcontrols.viewing_day import Schedule, ViewingDay
from viewingtime import timelines
from viewingtime.ledger import Balance
from viewingtime.timelines import BOTTOM, LEFT, RIGHT, TOP, Timeline, Watched

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
DAY = ViewingDay(date(2026, 1, 5), START, START + timedelta(hours=24))
HOUR = timedelta(hours=1)
WIDE = RIGHT - LEFT


def watched(hour: float, counted: float = 0, exempt: float = 0, **fields: Any) -> Watched:
    """A session that began so many hours into the day; hours counted and exempt."""
    starts_at = START + hour * HOUR
    values = {
        "title": "The Paper Boat",
        "starts_at": starts_at,
        "ends_at": starts_at + (counted + exempt) * HOUR,
        "counted": counted * HOUR,
        "exempt": exempt * HOUR,
        "is_open": False,
    }
    return Watched(**values | fields)


def draw(*sessions: Watched, hour: float = 12, **balance: Any) -> Timeline:
    """The picture of the day, so many hours into it."""
    used = sum((session.counted for session in sessions), timedelta())
    values = {"used": used, "limit": 2 * HOUR} | balance
    return timelines.timeline(
        DAY, Balance(DAY.date, **values), sessions, now=START + hour * HOUR, zone=UTC
    )


def points(picture: Timeline) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in picture.used.split()]


def test_a_session_lies_where_it_was_in_the_day() -> None:
    (bar,) = draw(watched(6, counted=1)).bars
    assert bar.x == LEFT + WIDE / 4
    assert bar.width == pytest.approx(WIDE / 24, abs=0.02)
    assert bar.label == "The Paper Boat, 12:00 to 13:00, 1:00 watched"


def test_the_line_climbs_by_what_counted_and_not_by_what_was_exempt() -> None:
    picture = draw(watched(2, counted=1), watched(4, exempt=2), watched(8, counted=1))
    heights = [y for _, y in points(picture)]
    middle = BOTTOM - (BOTTOM - TOP) / 2
    assert heights == [BOTTOM, BOTTOM, middle, middle, middle, middle, TOP, TOP]
    assert [bar.is_exempt for bar in picture.bars] == [False, True, False]
    assert picture.summary == "3 sessions: 2:00 used of a limit of 2:00, 2:00 more were exempt."


def test_the_line_never_goes_back() -> None:
    xs = [x for x, _ in points(draw(watched(1, counted=0.5), watched(2, counted=1), hour=9))]
    assert xs == sorted(xs)


def test_extra_time_raises_the_limit() -> None:
    picture = draw(watched(1, counted=1), granted=HOUR)
    assert picture.limit.label == "limit 3:00"
    assert picture.limit.place == TOP


@pytest.mark.parametrize(
    ("hours", "marks"),
    [
        (0.5, ["0:00", "0:10", "0:20", "0:30"]),
        (2, ["0:00", "0:30", "1:00", "1:30", "2:00"]),
        (2.25, ["0:00", "0:30", "1:00", "1:30", "2:00"]),
        (24, ["0:00", "6:00", "12:00", "18:00", "24:00"]),
        (70, ["0:00", "70:00"]),
    ],
)
def test_amounts_are_marked_at_round_ones(hours: float, marks: list[str]) -> None:
    picture = draw(limit=hours * HOUR)
    assert [mark.label for mark in picture.heights] == marks
    assert picture.heights[0].place == BOTTOM
    assert all(mark.place >= TOP for mark in picture.heights)


def test_without_a_limit_none_is_drawn() -> None:
    for balance in ({"limit": None}, {"is_unlimited_override": True}):
        picture = draw(watched(1, counted=1), **balance)
        assert picture.limit is None
        assert "no limit" in picture.summary


def test_a_day_without_anything_is_a_flat_line_up_to_now() -> None:
    picture = draw(hour=6)
    assert points(picture) == [(LEFT, BOTTOM), (LEFT + WIDE / 4, BOTTOM)]
    assert picture.bars == []
    assert picture.summary == "0 sessions: 0:00 used of a limit of 2:00."


def test_an_overrun_stays_within_the_picture() -> None:
    picture = draw(watched(1, counted=3))
    assert min(y for _, y in points(picture)) == TOP
    assert picture.limit.place > TOP


def test_a_very_short_session_can_still_be_seen() -> None:
    (bar,) = draw(watched(1, counted=0.001)).bars
    assert bar.width == 2


def test_an_open_session_says_so() -> None:
    (bar,) = draw(watched(1, counted=1, is_open=True)).bars
    assert "still open" in bar.label


def test_hours_are_told_by_the_childs_clock_on_a_day_of_25_hours_too() -> None:
    zone = ZoneInfo("Europe/Berlin")
    day = Schedule.of(0, "Europe/Berlin").bounds(date(2026, 10, 25))
    picture = timelines.timeline(day, Balance(day.date), [], now=day.starts_at, zone=zone)
    assert [mark.label for mark in picture.hours] == [
        *("00:00", "02:00", "05:00", "08:00", "11:00", "14:00", "17:00", "20:00", "23:00"),
    ]
