"""What a profile watched: `GET /parental-controls/profiles/{id}/history`."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from django.db import ProgrammingError, transaction
from django.http import HttpResponse
from pytest_django.fixtures import DjangoAssertNumQueries

from parentalcontrols import authentication
from parentalcontrols.models import Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    Device,
    assert_problem,
    balance_of,
    database_now,
    everything_stored,
    watch,
)
from viewingtime import history
from viewingtime.history import Place
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.tests import clock, stored

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


def ask(device: Device, profile: Profile, **query: Any) -> HttpResponse:
    path = f"/parental-controls/profiles/{profile.id}/history"
    return device.get(f"{path}?{urlencode(query)}")


def read(device: Device, profile: Profile, **query: Any) -> dict[str, Any]:
    answer = ask(device, profile, **query)
    assert answer.status_code == 200, answer.content
    return answer.json()


def pages(device: Device, profile: Profile, **query: Any) -> Iterator[dict[str, Any]]:
    """Every page, from the first to the last."""
    page = read(device, profile, **query)
    yield page
    while page["next_cursor"] is not None:
        page = read(device, profile, cursor=page["next_cursor"])
        yield page


def sessions_of(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [session for day in page["days"] for session in day["sessions"]]


def dates_of(page: dict[str, Any]) -> list[str]:
    return [day["date"] for day in page["days"]]


@pytest.fixture
def frozen(cast: Cast) -> Cast:
    """The cast on 20 March 2026 at noon; the child's day began at 06:00."""
    ViewingTimeConfig.objects.filter(profile=cast.child).update(reset_hour=6, timezone="UTC")
    clock.install()
    clock.set_to(NOON)
    return cast


# What is told


def test_a_day_tells_its_sessions_and_their_exact_sums(cast: Cast) -> None:
    first = watch(cast.phone, cast.child, cast.cartoon, 600)["session_id"]
    beat = cast.child_tv.beat(
        cast.child, cast.documentary, device_id="tablet", device_type="tablet"
    )
    watched = watch(cast.phone, cast.child, cast.documentary, 250)["session_id"]
    found = read(cast.phone, cast.child)
    assert found["profile_id"] == str(cast.child.id)
    assert found["next_cursor"] is None
    (day,) = found["days"]
    balance = balance_of(cast.child)
    assert day["date"] == balance.reset_date.isoformat()
    assert day["counted_minutes"] == round(float(balance.used_seconds) / 60, 2) >= 10
    assert day["educational_minutes"] == round(float(balance.educational_seconds) / 60, 2) >= 4.16
    total = balance.used_seconds + balance.educational_seconds
    assert day["total_minutes"] == round(float(total) / 60, 2)
    assert [one["session_id"] for one in day["sessions"]] == [watched, beat["session_id"], first]
    row = ViewingSession.objects.get(id=first)
    assert day["sessions"][2] == {
        "session_id": first,
        "title_id": str(cast.cartoon.id),
        "title_name": "The Paper Boat",
        "device_type": "web",
        "is_educational": False,
        "started_at": row.started_at.isoformat().replace("+00:00", "Z"),
        "ended_at": row.ended_at.isoformat().replace("+00:00", "Z"),
        "duration_minutes": round(float(row.total_seconds) / 60, 2),
    }
    assert (day["sessions"][1]["device_type"], day["sessions"][1]["is_educational"]) == (
        "tablet",
        True,
    )


def test_an_open_session_counts_what_is_credited(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.cartoon, 120)
    (day,) = read(cast.phone, cast.child)["days"]
    (session,) = day["sessions"]
    assert session["ended_at"] is None
    assert session["duration_minutes"] == day["total_minutes"] >= 2


def test_a_title_that_was_withdrawn_is_told_all_the_same(cast: Cast) -> None:
    # At noon the viewing day has the calendar's date, whatever time it is now.
    noon = (database_now() - DAY).replace(hour=12)
    stored.session(cast.child, cast.withdrawn, noon.date(), noon)
    (session,) = sessions_of(read(cast.phone, cast.child))
    assert session["title_name"] == "Gone"


def test_a_day_without_sessions_is_left_out(frozen: Cast) -> None:
    for back in (0, 2):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    assert dates_of(read(frozen.phone, frozen.child)) == ["2026-03-20", "2026-03-18"]


def test_who_watched_nothing_has_no_days(cast: Cast) -> None:
    assert read(cast.phone, cast.child) == {
        "profile_id": str(cast.child.id),
        "days": [],
        "next_cursor": None,
    }


def test_a_child_without_a_config_has_a_history_and_gets_none(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.cartoon, 60)
    ViewingTimeConfig.objects.all().delete()
    before = everything_stored()
    assert len(sessions_of(read(cast.phone, cast.child))) == 1
    assert everything_stored() == before


def test_an_adults_days_begin_at_six_utc(frozen: Cast) -> None:
    adult = {"device_id": "phone"}
    clock.set_to(datetime(2026, 3, 20, 5, 59, tzinfo=UTC))
    first = frozen.phone.beat(frozen.adult, frozen.cartoon, **adult)["session_id"]
    clock.set_to(datetime(2026, 3, 20, 6, 1, tzinfo=UTC))
    frozen.phone.beat(frozen.adult, frozen.cartoon, session_id=first, **adult)
    new, old = read(frozen.phone, frozen.adult)["days"]
    assert (new["date"], new["total_minutes"]) == ("2026-03-20", 1.0)
    assert (old["date"], old["total_minutes"]) == ("2026-03-19", 1.0)
    assert old["counted_minutes"] == 1.0
    assert old["sessions"][0]["session_id"] == first


# Which days


def test_without_days_the_last_thirty_are_told(frozen: Cast) -> None:
    for back in (0, 1, 29, 30):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    assert dates_of(read(frozen.phone, frozen.child)) == ["2026-03-20", "2026-03-19", "2026-02-19"]


def test_before_the_reset_the_last_day_is_yesterdays(frozen: Cast) -> None:
    for back in (0, 1, 30):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    clock.set_to(datetime(2026, 3, 20, 5, 59, 59, tzinfo=UTC))
    assert dates_of(read(frozen.phone, frozen.child)) == ["2026-03-19", "2026-02-18"]


def test_both_ends_of_the_asked_days_belong_to_them(frozen: Cast) -> None:
    for back in range(6):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    found = read(frozen.phone, frozen.child, from_date="2026-03-16", to_date="2026-03-18")
    assert dates_of(found) == ["2026-03-18", "2026-03-17", "2026-03-16"]
    assert dates_of(read(frozen.phone, frozen.child, from_date="2026-03-19")) == [
        "2026-03-20",
        "2026-03-19",
    ]
    assert dates_of(read(frozen.phone, frozen.child, to_date="2026-03-16")) == [
        "2026-03-16",
        "2026-03-15",
    ]


def test_the_last_day_alone_is_told_with_the_twenty_nine_before_it(frozen: Cast) -> None:
    for back in (40, 69, 70):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    last = NOON.date() - 40 * DAY
    assert dates_of(read(frozen.phone, frozen.child, to_date=last)) == [
        last.isoformat(),
        (last - 29 * DAY).isoformat(),
    ]


def test_ninety_days_may_be_asked_for_and_no_more(frozen: Cast) -> None:
    today = NOON.date()
    for query in ({"to_date": today}, {}):
        assert read(frozen.phone, frozen.child, from_date=today - 89 * DAY, **query)["days"] == []
        problem = assert_problem(
            ask(frozen.phone, frozen.child, from_date=today - 90 * DAY, **query), 400, "invalid"
        )
        assert [(e["field"], e["code"]) for e in problem["errors"]] == [
            ("from_date", "too_many_days")
        ]


def test_days_in_the_wrong_order_are_refused(frozen: Cast) -> None:
    for query in (
        {"from_date": "2026-03-19", "to_date": "2026-03-18"},
        {"from_date": "2026-03-21"},
        {"from_date": "9999-12-31"},
    ):
        problem = assert_problem(ask(frozen.phone, frozen.child, **query), 400, "invalid")
        assert [(e["field"], e["code"]) for e in problem["errors"]] == [
            ("from_date", "after_the_last_day")
        ]


def test_the_first_and_the_last_dates_there_are_overflow_nothing(cast: Cast) -> None:
    for query in (
        {"to_date": "0001-01-01"},
        {"to_date": "0001-01-20"},
        {"from_date": "0001-01-01", "to_date": "0001-01-01"},
        {"from_date": "9999-12-31", "to_date": "9999-12-31"},
        {"to_date": "9999-12-31"},
    ):
        assert read(cast.phone, cast.child, **query)["days"] == []


@pytest.mark.parametrize("field", ["from_date", "to_date"])
@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "today", "2026-02-30", "2026-13-01", "0000-01-01", "10000-01-01", "20260320"),
        *("2026-W12-5", "2026-3-2", "2026-03-20T00:00:00Z", "2026-03-20 ", "\x00", "-1", "1e9"),
        *("٢٠٢٦-٠٣-٢٠", "2026-03-20\n", "x" * 5000, "null", "[]"),
    ],
)
def test_what_is_no_date_is_refused(cast: Cast, field: str, text: str) -> None:
    problem = assert_problem(ask(cast.phone, cast.child, **{field: text}), 400, "invalid")
    assert [error["field"] for error in problem["errors"]] == [field]


def test_a_day_is_found_whole_in_the_farthest_zones_and_after_a_clock_was_set_back(
    frozen: Cast,
) -> None:
    """However far from its date in UTC a session of a viewing day starts."""
    day = date(2026, 3, 10)
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    starts = [
        midnight - timedelta(hours=14),
        midnight + timedelta(hours=59) - timedelta(microseconds=1),
        midnight - timedelta(days=7),
    ]
    for started_at in starts:
        stored.session(frozen.child, frozen.cartoon, day, started_at, 30)
    for other in (day - DAY, day + DAY):
        stored.session(frozen.child, frozen.cartoon, other, midnight, 30)
    (found,) = read(frozen.phone, frozen.child, from_date=day, to_date=day)["days"]
    assert found["total_minutes"] == 1.5
    assert len(found["sessions"]) == 3


# Paging


def test_a_reading_goes_on_over_the_reset_with_the_days_it_began_with(
    frozen: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_SESSIONS", 1)
    for back in (0, 29):
        stored.session(frozen.child, frozen.cartoon, NOON.date() - back * DAY, NOON - back * DAY)
    first = read(frozen.phone, frozen.child)
    clock.set_to(NOON + DAY)
    last = read(frozen.phone, frozen.child, cursor=first["next_cursor"])
    assert (dates_of(first), dates_of(last)) == (["2026-03-20"], ["2026-02-19"])
    assert last["next_cursor"] is None


@pytest.mark.parametrize("count", [99, 100, 101, 200, 201])
def test_there_is_a_next_page_exactly_when_something_is_left(frozen: Cast, count: int) -> None:
    newest = NOON - timedelta(hours=1)
    stored.store(
        frozen.child, [frozen.cartoon], count=count, newest=newest, over=timedelta(days=20)
    )
    sizes = [len(sessions_of(page)) for page in pages(frozen.phone, frozen.child)]
    assert sizes == [100] * (count // 100) + ([count % 100] if count % 100 else [])


def test_a_days_sums_are_the_same_on_every_page_that_shows_it(frozen: Cast) -> None:
    stored.store(
        frozen.child,
        [frozen.cartoon, frozen.documentary],
        count=350,
        newest=NOON,
        over=timedelta(hours=5),
    )
    days = [page["days"] for page in pages(frozen.phone, frozen.child)]
    assert [len(found) for found in days] == [1, 1, 1, 1]
    sums = {(d["total_minutes"], d["educational_minutes"], d["counted_minutes"]) for (d,) in days}
    balance = ViewingTimeBalance.objects.get(profile=frozen.child)
    counted, educational = float(balance.used_seconds), float(balance.educational_seconds)
    assert sums == {tuple(round(x / 60, 2) for x in (counted + educational, educational, counted))}


def test_what_starts_meanwhile_is_neither_listed_nor_counted_until_it_is_read_anew(
    frozen: Cast,
) -> None:
    stored.store(frozen.child, [frozen.cartoon], count=150, newest=NOON, over=timedelta(hours=5))
    first = read(frozen.phone, frozen.child)
    clock.set_to(NOON + timedelta(minutes=1))
    new = frozen.phone.beat(frozen.child, frozen.cartoon)["session_id"]
    clock.set_to(NOON + timedelta(minutes=2))
    frozen.phone.beat(frozen.child, frozen.cartoon, session_id=new)
    second = read(frozen.phone, frozen.child, cursor=first["next_cursor"])
    assert second["days"][0]["total_minutes"] == first["days"][0]["total_minutes"]
    assert new not in {session["session_id"] for session in sessions_of(second)}
    anew = read(frozen.phone, frozen.child)
    assert sessions_of(anew)[0]["session_id"] == new
    grown = anew["days"][0]["total_minutes"] - first["days"][0]["total_minutes"]
    assert grown == pytest.approx(1, abs=0.011)


def test_of_two_that_start_at_the_same_instant_the_one_that_came_later_waits_too(
    frozen: Cast,
) -> None:
    stored.store(frozen.child, [frozen.cartoon], count=150, newest=NOON, over=timedelta(hours=5))
    first = read(frozen.phone, frozen.child)
    top = datetime.fromisoformat(sessions_of(first)[0]["started_at"])
    late = UUID(int=2**128 - 1)
    stored.session(frozen.child, frozen.cartoon, NOON.date(), top, 3600, id=late)
    second = read(frozen.phone, frozen.child, cursor=first["next_cursor"])
    assert second["days"][0]["total_minutes"] == first["days"][0]["total_minutes"]
    assert sessions_of(read(frozen.phone, frozen.child))[0]["session_id"] == str(late)


def test_days_beside_a_cursor_have_to_be_its_own(frozen: Cast) -> None:
    stored.store(frozen.child, [frozen.cartoon], count=150, newest=NOON, over=timedelta(days=20))
    days = {"from_date": "2026-02-19", "to_date": "2026-03-20"}
    cursor = read(frozen.phone, frozen.child)["next_cursor"]
    alone = read(frozen.phone, frozen.child, cursor=cursor)
    assert read(frozen.phone, frozen.child, cursor=cursor, **days) == alone
    assert len(sessions_of(alone)) == 50
    for field in days:
        answer = ask(frozen.phone, frozen.child, cursor=cursor, **{field: "2026-03-01"})
        problem = assert_problem(answer, 400, "invalid")
        assert [(e["field"], e["code"]) for e in problem["errors"]] == [(field, "not_the_cursors")]
    answer = ask(frozen.phone, frozen.child, cursor=cursor, from_date="2026-03-01", to_date="x")
    assert_problem(answer, 400, "invalid")


# Who may


def test_history_is_the_parents_and_the_households_own(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.cartoon, 60)
    assert_problem(ask(cast.child_tv, cast.child), 403, "parent_required")
    assert_problem(ask(cast.anonymous, cast.child), 401, "not_authenticated")
    staff = Device(authentication.access_token(cast.staff))
    for device in (cast.foreign_phone, staff):
        assert_problem(ask(device, cast.child), 404, "not_found")
    missing = Profile(id=uuid4())
    assert ask(cast.phone, cast.foreign_adult).content == ask(cast.phone, missing).content


# What it costs


def test_a_page_is_one_query_beside_token_profile_and_today(
    frozen: Cast, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    stored.store(frozen.child, [frozen.cartoon], count=350, newest=NOON, over=timedelta(days=20))
    with django_assert_num_queries(4):
        page = read(frozen.phone, frozen.child)
    with django_assert_num_queries(3):
        read(frozen.phone, frozen.child, cursor=page["next_cursor"])
    with django_assert_num_queries(3):
        read(frozen.phone, frozen.child, from_date="2026-03-01", to_date="2026-03-20")


def test_of_titles_the_id_and_the_name_alone_are_read(frozen: Cast) -> None:
    stored.session(frozen.child, frozen.cartoon, NOON.date(), NOON)
    with stored.titles_for_names_alone():
        (session,) = sessions_of(read(frozen.phone, frozen.child))
        with pytest.raises(ProgrammingError), transaction.atomic():
            Title.objects.values_list("synopsis").first()
    assert session["title_name"] == "The Paper Boat"


def test_pages_are_found_by_the_index_and_sorted_in_memory(frozen: Cast) -> None:
    for profile in (frozen.child, frozen.sibling, frozen.foreign_child, frozen.adult):
        stored.store(
            profile,
            [frozen.cartoon, frozen.documentary],
            count=8_000,
            newest=NOON,
            over=timedelta(days=120),
        )
    stored.analyze()
    place: Place | None = Place(date(2026, 2, 19), date(2026, 3, 20))
    for _ in range(3):
        assert place is not None
        statement, parameters = history.page_statement(
            profile_id=frozen.child.id, place=place, size=101
        )
        nodes = stored.plan_of(statement, parameters)
        stored.assert_found_by_the_index(nodes)
        assert nodes[0]["Actual Rows"] == 101
        place = history.read(profile_id=frozen.child.id, place=place, size=100).next
