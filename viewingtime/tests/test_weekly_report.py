"""The week of a household's children: `GET /parental-controls/weekly-report`."""

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import gevent
import pytest
from pytest_django.fixtures import DjangoAssertNumQueries

from parentalcontrols import authentication, profiles
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    Device,
    assert_problem,
    everything_stored,
    make_account,
    watch,
)
from pins import audit
from viewingtime import grants, limits, reports
from viewingtime.models import ViewingTimeBalance
from viewingtime.tests import clock, stored

REPORT = "/parental-controls/weekly-report"
DAY = timedelta(days=1)
#: A Friday.
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
TODAY = NOON.date()
DATES = [(TODAY - back * DAY).isoformat() for back in range(6, -1, -1)]


def read(device: Device) -> dict[str, Any]:
    answer = device.get(REPORT)
    assert answer.status_code == 200, answer.content
    return answer.json()


def week_of(device: Device, profile: Profile) -> dict[str, Any]:
    (found,) = [p for p in read(device)["profiles"] if p["profile_id"] == str(profile.id)]
    return found


@pytest.fixture
def frozen(cast: Cast) -> Cast:
    """The cast on Friday, 20 March 2026, at noon; days begin at 06:00 UTC."""
    ViewingTimeConfig.objects.update(reset_hour=6, timezone="UTC")
    clock.install()
    clock.set_to(NOON)
    return cast


def day(
    profile: Profile,
    back: int,
    *watched: tuple[Title, float],
    limit: int | None = 7200,
    granted: float = 0,
    override: bool = False,
) -> None:
    """A viewing day some days ago, with what was watched of each title, in seconds."""
    used = exempt = 0.0
    for index, (title, seconds) in enumerate(watched):
        educational = seconds if title.is_educational else 0
        exempt, used = exempt + educational, used + seconds - educational
        stored.session(
            profile,
            title,
            TODAY - back * DAY,
            NOON - back * DAY + timedelta(minutes=index),
            seconds,
            educational_seconds=educational,
        )
    ViewingTimeBalance.objects.create(
        profile=profile,
        reset_date=TODAY - back * DAY,
        used_seconds=used,
        educational_seconds=exempt,
        granted_seconds=granted,
        is_unlimited_override=override,
        limit_seconds=limit,
    )


# What is told


def test_a_week_tells_seven_days_with_sums_and_limits(frozen: Cast) -> None:
    cartoon, documentary = frozen.cartoon, frozen.documentary
    day(frozen.child, 6, (cartoon, 3600), (documentary, 600))
    day(frozen.child, 2, (cartoon, 101), limit=3600, granted=900)
    day(frozen.child, 0, (documentary, 1200), (cartoon, 1800), (documentary, 60))
    report = read(frozen.phone)
    assert (report["week_start"], report["week_end"]) == (DATES[0], DATES[-1])
    week = report["profiles"][0]
    assert (week["profile_id"], week["profile_name"]) == (str(frozen.child.id), "Mia")
    assert [one["date"] for one in week["daily_totals"]] == DATES
    # Mia's config allows two hours on any day.
    nothing = {
        "minutes": 0.0,
        "counted_minutes": 0.0,
        "educational_minutes": 0.0,
        "limit_minutes": 120.0,
        "granted_minutes": 0.0,
        "is_unlimited_override": False,
    }
    told = [
        {"minutes": 70.0, "counted_minutes": 60.0, "educational_minutes": 10.0},
        {},
        {},
        {},
        {
            "minutes": 1.68,
            "counted_minutes": 1.68,
            "limit_minutes": 60.0,
            "granted_minutes": 15.0,
        },
        {},
        {"minutes": 51.0, "counted_minutes": 30.0, "educational_minutes": 21.0},
    ]
    assert week["daily_totals"] == [
        nothing | one | {"date": date_} for one, date_ in zip(told, DATES, strict=True)
    ]
    assert week["total_minutes"] == 122.68  # 7361 s
    assert week["educational_minutes"] == 31.0
    assert week["average_daily_minutes"] == 17.53  # 7361 s / 7
    # 5501 s of five days of the config, one balance of 7200 and one of 4500.
    assert week["limit_usage_percent"] == round(100 * 5501 / (6 * 7200 + 4500), 2)
    assert week["top_titles"] == [
        {"title_id": str(cartoon.id), "title_name": "The Paper Boat", "total_minutes": 91.68},
        {"title_id": str(documentary.id), "title_name": "How Bridges Stand", "total_minutes": 31.0},
    ]


def test_the_eighth_day_and_tomorrow_are_left_out(frozen: Cast) -> None:
    day(frozen.child, 7, (frozen.cartoon, 60))
    day(frozen.sibling, 0, (frozen.cartoon, 30))
    # As if the next day had begun and the clock had been set back.
    week = week_of(frozen.phone, frozen.child)
    assert (week["total_minutes"], week["top_titles"]) == (0.0, [])
    ViewingTimeBalance.objects.filter(profile=frozen.child).update(reset_date=TODAY + DAY)
    assert week_of(frozen.phone, frozen.child)["daily_totals"][-1]["date"] == "2026-03-21"
    assert read(frozen.phone)["week_end"] == "2026-03-21"
    assert read(frozen.phone)["week_start"] == DATES[0]


def test_it_agrees_with_the_balance_to_the_hundredth(frozen: Cast) -> None:
    for seconds in (0.3, 7.7, 61.004, 299.996):
        watch(frozen.phone, frozen.child, frozen.cartoon, seconds)
        watch(frozen.phone, frozen.child, frozen.documentary, seconds / 3)
        clock.set_to(NOON + timedelta(seconds=seconds))
        balance = frozen.phone.get(f"/viewing-time/balance/{frozen.child.id}").json()
        today = week_of(frozen.phone, frozen.child)["daily_totals"][-1]
        assert today["counted_minutes"] == balance["used_minutes"] > 0
        assert today["educational_minutes"] == balance["educational_minutes"]
        assert today["limit_minutes"] == balance["limit_minutes"]
        assert today["granted_minutes"] == balance["granted_minutes"]


def test_children_come_in_the_households_order_and_nobody_else_does(frozen: Cast) -> None:
    for profile in (frozen.adult, frozen.foreign_child):
        stored.session(profile, frozen.cartoon, TODAY, NOON)
    report = read(frozen.phone)
    assert [p["profile_name"] for p in report["profiles"]] == ["Mia", "Noah"]
    assert [p["total_minutes"] for p in report["profiles"]] == [0.0, 0.0]
    assert [p["profile_name"] for p in read(frozen.foreign_phone)["profiles"]] == ["Olga"]


def test_a_household_without_children_has_todays_date_and_no_profiles(frozen: Cast) -> None:
    device = Device(authentication.access_token(make_account("alone@example.com")))
    clock.set_to(datetime(2026, 3, 20, 23, 59, 59, tzinfo=UTC))
    today = {"week_start": "2026-03-20", "week_end": "2026-03-20", "profiles": []}
    assert read(device) == today


def test_the_report_is_the_parents(frozen: Cast) -> None:
    assert_problem(frozen.child_tv.get(REPORT), 403, "parent_required")
    assert_problem(frozen.anonymous.get(REPORT), 401, "not_authenticated")


# Limits


def test_a_week_that_nothing_limited_has_no_usage(frozen: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=frozen.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=None
    )
    day(frozen.child, 3, (frozen.cartoon, 600), limit=None)
    day(frozen.child, 1, (frozen.cartoon, 600), limit=3600, override=True)
    week = week_of(frozen.phone, frozen.child)
    assert week["limit_usage_percent"] is None
    assert [one["limit_minutes"] for one in week["daily_totals"]] == [None] * 5 + [60.0, None]
    assert week["daily_totals"][5]["is_unlimited_override"] is True
    assert week["total_minutes"] == 20.0


def test_days_without_limit_or_under_an_override_are_left_out_of_the_usage(frozen: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=frozen.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=60
    )
    # Saturday and Sunday, without rows, are the only other days that are limited.
    day(frozen.child, 0, (frozen.cartoon, 5000), limit=None)
    day(frozen.child, 1, (frozen.cartoon, 5000), limit=3600, override=True)
    day(frozen.child, 2, (frozen.cartoon, 1800), (frozen.documentary, 999), limit=3600)
    week = week_of(frozen.phone, frozen.child)
    assert week["limit_usage_percent"] == round(100 * 1800 / (3 * 3600), 2)


def test_usage_may_be_more_than_all(frozen: Cast) -> None:
    for back in range(7):
        day(frozen.child, back, (frozen.cartoon, 1000), limit=900)
    assert week_of(frozen.phone, frozen.child)["limit_usage_percent"] == 111.11


def test_each_day_keeps_the_limit_that_was_in_force(frozen: Cast) -> None:
    """A change reaches the running day, and the days without a row, but no day that was."""
    day(frozen.child, 1, (frozen.cartoon, 60), limit=2700)
    frozen.phone.beat(frozen.child, frozen.cartoon)
    limits.change(
        profile_id=frozen.child.id,
        account_id=frozen.parent.id,
        changes={"weekday_limit_minutes": 30, "weekend_limit_minutes": 45},
        actor=audit.OPERATOR,
    )
    grants.grant(
        profile_id=frozen.child.id,
        account_id=frozen.parent.id,
        minutes=15,
        is_remote=True,
        actor=audit.OPERATOR,
    )
    days = week_of(frozen.phone, frozen.child)["daily_totals"]
    # From Saturday to Friday.
    assert [one["limit_minutes"] for one in days] == [45.0, 45.0, 30.0, 30.0, 30.0, 45.0, 30.0]
    assert [one["granted_minutes"] for one in days] == [0.0] * 6 + [15.0]


def test_a_child_without_a_config_has_the_defaults_and_gets_none(frozen: Cast) -> None:
    ViewingTimeConfig.objects.all().delete()
    before = everything_stored()
    days = week_of(frozen.phone, frozen.child)["daily_totals"]
    assert [one["limit_minutes"] for one in days] == [180.0] * 2 + [120.0] * 5
    assert everything_stored() == before


# Titles


def test_three_titles_are_told_by_time_then_name_then_id(frozen: Cast) -> None:
    names = ["Zebra", "Apple", "Mango", "Apple", "Long", "Never"]
    titles = [Title.objects.create(title=name) for name in names]
    lasted = [60, 60, 60, 60, 61, 0]
    day(frozen.child, 1, *zip(titles, lasted, strict=True))
    day(frozen.child, 0, (titles[4], 61))
    apples = sorted((titles[1], titles[3]), key=lambda title: title.id)
    top = week_of(frozen.phone, frozen.child)["top_titles"]
    assert [title["title_id"] for title in top] == [str(title.id) for title in (titles[4], *apples)]
    assert [title["total_minutes"] for title in top] == [2.03, 1.0, 1.0]


def test_a_title_without_a_counted_second_is_none_of_the_top(frozen: Cast) -> None:
    day(frozen.child, 0, (frozen.cartoon, 0), (frozen.documentary, 1))
    top = week_of(frozen.phone, frozen.child)["top_titles"]
    assert [title["title_name"] for title in top] == ["How Bridges Stand"]


# Days


def test_each_child_has_the_days_of_its_own_zone(frozen: Cast) -> None:
    configs = ViewingTimeConfig.objects
    configs.filter(profile=frozen.child).update(timezone="Pacific/Kiritimati", reset_hour=0)
    configs.filter(profile=frozen.sibling).update(timezone="Pacific/Pago_Pago", reset_hour=23)
    report = read(frozen.phone)
    mia, noah = report["profiles"]
    # 02:00 of the 21st there, and 01:00 of the 20th, before the reset, here.
    assert mia["daily_totals"][-1]["date"] == report["week_end"] == "2026-03-21"
    assert noah["daily_totals"][-1]["date"] == "2026-03-19"
    assert noah["daily_totals"][0]["date"] == report["week_start"] == "2026-03-13"


def test_a_date_that_a_change_of_zone_skipped_is_no_day(frozen: Cast) -> None:
    """Nor is it forgotten by changes that come later in the week."""
    ViewingTimeConfig.objects.filter(profile=frozen.child).update(timezone="Pacific/Pago_Pago")
    for changed_at, changes in (
        (datetime(2026, 3, 13, 20, tzinfo=UTC), {"timezone": "Pacific/Kiritimati"}),
        (datetime(2026, 3, 18, 20, tzinfo=UTC), {"reset_hour": 7}),
        (datetime(2026, 3, 19, 20, tzinfo=UTC), {"reset_hour": 8}),
    ):
        clock.set_to(changed_at)
        frozen.phone.beat(frozen.child, frozen.cartoon)
        limits.change(
            profile_id=frozen.child.id,
            account_id=frozen.parent.id,
            changes=changes,
            actor=audit.OPERATOR,
        )
    days = [date_["date"] for date_ in week_of(frozen.phone, frozen.child)["daily_totals"]]
    # The 14th was over in the new zone when the 13th ended in the old one.
    assert days == ["2026-03-13", *(f"2026-03-{day}" for day in range(15, 21))]


# What it costs


def test_the_report_is_three_queries_for_no_child_or_one_or_a_hundred(
    frozen: Cast, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account: Account = make_account("many@example.com")
    device = Device(authentication.access_token(account))
    for more in (0, 1, 99):
        for number in range(more):
            child = profiles.create(account=account, name=f"child {number}", is_kids=True)
            day(child, 1, (frozen.cartoon, 60), (frozen.documentary, 30))
        with django_assert_num_queries(3):
            found = read(device)["profiles"]
    assert len(found) == 100
    assert {(p["total_minutes"], len(p["top_titles"])) for p in found} == {(1.5, 2)}


def test_heartbeats_have_their_turn_after_each_child(
    frozen: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    account: Account = make_account("many@example.com")
    for number in range(30):
        profiles.create(account=account, name=f"child {number}", is_kids=True)
    turns = 0

    def beat() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    # As in a worker of greenlets.
    monkeypatch.setattr(time, "sleep", gevent.sleep)
    beating = gevent.spawn(beat)
    found = read(Device(authentication.access_token(account)))["profiles"]
    beating.kill()
    assert len(found) == 30
    assert turns > 2 * 30


def test_of_titles_the_id_and_the_name_alone_are_read(frozen: Cast) -> None:
    day(frozen.child, 1, (frozen.cartoon, 60))
    with stored.titles_for_names_alone():
        (title,) = week_of(frozen.phone, frozen.child)["top_titles"]
    assert title["title_name"] == "The Paper Boat"


@pytest.mark.parametrize("children", [1, 2, 40])
def test_sessions_are_found_by_the_index_for_few_children_and_for_all(
    frozen: Cast, children: int
) -> None:
    people = [
        profiles.create(account=frozen.parent, name=f"child {number}", is_kids=True)
        for number in range(40)
    ]
    for profile in people:
        stored.store(
            profile, [frozen.cartoon, frozen.documentary], count=600, newest=NOON, over=90 * DAY
        )
    stored.analyze()
    week = [date.fromisoformat(text) for text in DATES]
    statement, parameters = reports.statement({p.id: week for p in people[:children]})
    stored.assert_found_by_the_index(stored.plan_of(statement, parameters))
