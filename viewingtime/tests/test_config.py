"""A child's limits and the start of its day: `/parental-controls/profiles/{id}/viewing-time`."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.http import HttpResponse

from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    assert_problem,
    balance_of,
    database_now,
    pass_time,
    watch,
)
from viewingtime.models import ViewingTimeBalance


def path_of(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time"


def get(cast: Cast, profile: Profile) -> dict[str, Any]:
    answer = cast.phone.get(path_of(profile))
    assert answer.status_code == 200, answer.content
    return answer.json()


def put(cast: Cast, profile: Profile, **changes: Any) -> dict[str, Any]:
    answer = cast.phone.put(path_of(profile), changes)
    assert answer.status_code == 200, answer.content
    return answer.json()


def refused(cast: Cast, **changes: Any) -> list[dict[str, str]]:
    """The errors of a change that is refused, and leaves everything as it was."""
    before = get(cast, cast.child)
    document = assert_problem(cast.phone.put(path_of(cast.child), changes), 400, "invalid")
    assert get(cast, cast.child) == before
    return document["errors"]


def balance(cast: Cast, profile: Profile) -> dict[str, Any]:
    return cast.phone.get(f"/viewing-time/balance/{profile.id}").json()


# What is told


def test_a_new_child_has_the_defaults(cast: Cast) -> None:
    found = get(cast, cast.sibling)
    assert datetime.fromisoformat(found.pop("updated_at")) <= database_now()
    assert found == {
        "profile_id": str(cast.sibling.id),
        "profile_name": "Noah",
        "weekday_limit_minutes": 120,
        "weekend_limit_minutes": 180,
        "reset_hour": 6,
        "educational_exempt": True,
        "timezone": "UTC",
    }


def test_a_missing_config_is_made_once_with_the_defaults(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).delete()
    first = get(cast, cast.child)
    assert first["reset_hour"] == 6
    assert get(cast, cast.child) == first
    assert ViewingTimeConfig.objects.filter(profile=cast.child).count() == 1


def test_a_change_makes_a_missing_config(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).delete()
    found = put(cast, cast.child, weekday_limit_minutes=60)
    assert (found["weekday_limit_minutes"], found["weekend_limit_minutes"]) == (60, 180)
    assert get(cast, cast.child) == found


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_an_adult_has_none(cast: Cast, method: str) -> None:
    missing = cast.phone.send(method, path_of(Profile()), {"reset_hour": 5})
    adult = cast.phone.send(method, path_of(cast.adult), {"reset_hour": 5})
    assert_problem(adult, 404, "not_found")
    assert adult.content == missing.content


# What is changed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weekday_limit_minutes", 45),
        ("weekday_limit_minutes", None),
        ("weekend_limit_minutes", 15),
        ("weekend_limit_minutes", 480),
        ("weekend_limit_minutes", None),
        ("reset_hour", 0),
        ("reset_hour", 23),
        ("timezone", "Pacific/Kiritimati"),
        ("timezone", "America/Argentina/ComodRivadavia"),
        ("educational_exempt", False),
    ],
)
def test_a_change_of_one_field_leaves_the_others(cast: Cast, field: str, value: Any) -> None:
    before = get(cast, cast.sibling)
    after = put(cast, cast.sibling, **{field: value})
    assert after == get(cast, cast.sibling)
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == {**before, field: value}


def test_all_fields_change_together(cast: Cast) -> None:
    changes = {
        "weekday_limit_minutes": 90,
        "weekend_limit_minutes": None,
        "reset_hour": 4,
        "educational_exempt": False,
        "timezone": "Europe/Berlin",
    }
    assert put(cast, cast.sibling, **changes).items() >= changes.items()
    assert get(cast, cast.sibling).items() >= changes.items()


def test_an_empty_change_changes_nothing(cast: Cast) -> None:
    before = get(cast, cast.child)
    after = put(cast, cast.child)
    del before["updated_at"], after["updated_at"]
    assert after == before


def test_unknown_fields_and_those_that_only_answers_have_are_ignored(cast: Cast) -> None:
    before = get(cast, cast.child)
    after = put(cast, cast.child, profile_id="x", profile_name="Eve", bedtime="20:00")
    assert after["profile_id"] == before["profile_id"]
    assert after["profile_name"] == before["profile_name"] == "Mia"
    assert Profile.objects.get(id=cast.child.id).name == "Mia"


# What is refused


@pytest.mark.parametrize("field", ["weekday_limit_minutes", "weekend_limit_minutes"])
@pytest.mark.parametrize(
    "value", [0, -15, 1, 14, 16, 100, 479, 481, 495, 10**6, 2**31, 2**63, 10**30, 30.0, "30", True]
)
def test_a_limit_is_null_or_a_multiple_of_15_from_15_to_480(
    cast: Cast, field: str, value: Any
) -> None:
    assert {error["field"] for error in refused(cast, **{field: value})} == {field}


@pytest.mark.parametrize("value", [-1, 24, 100, 2**31, 6.0, 6.5, "6", None, True, []])
def test_the_reset_hour_is_a_whole_number_from_0_to_23(cast: Cast, value: Any) -> None:
    assert {error["field"] for error in refused(cast, reset_hour=value)} == {"reset_hour"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Mars/Olympus",
        "europe/berlin",
        " UTC",
        "UTC ",
        "UTC+1",
        "+01:00",
        "Europe/Berlin/",
        "/Europe/Berlin",
        "../UTC",
        "posix/UTC",
        "right/UTC",
        "localtime",
        "Europe",
        "posixrules",
        "tzdata.zi",
        "U\x00TC",
        "x" * 100,
        0,
        None,
        ["UTC"],
    ],
)
def test_the_timezone_is_an_iana_name(cast: Cast, value: Any) -> None:
    assert {error["field"] for error in refused(cast, timezone=value)} == {"timezone"}


@pytest.mark.parametrize("value", ["true", "yes", 1, 0, None, {}])
def test_the_exemption_is_true_or_false(cast: Cast, value: Any) -> None:
    errors = refused(cast, educational_exempt=value)
    assert {error["field"] for error in errors} == {"educational_exempt"}


def test_one_bad_field_keeps_the_good_ones_out_too(cast: Cast) -> None:
    errors = refused(cast, weekday_limit_minutes=30, reset_hour=24, timezone="nowhere")
    assert {error["field"] for error in errors} == {"reset_hour", "timezone"}


# When it takes effect


def test_a_lower_limit_takes_effect_at_once_and_blocks_the_next_beat(cast: Cast) -> None:
    answer = watch(cast.phone, cast.child, cast.cartoon, 1200)
    assert answer["enforcement"] == "allowed"
    put(cast, cast.child, weekday_limit_minutes=15, weekend_limit_minutes=15)
    assert balance_of(cast.child).limit_seconds == 15 * 60
    assert balance(cast, cast.child)["remaining_minutes"] == 0.0
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=answer["session_id"])
    assert answer["enforcement"] == "blocked"
    assert answer["reason"] == "viewing_time_exhausted"


def test_a_higher_limit_lets_a_child_go_on_at_once(cast: Cast) -> None:
    put(cast, cast.child, weekday_limit_minutes=15, weekend_limit_minutes=15)
    blocked = watch(cast.phone, cast.child, cast.cartoon, 1200)
    assert blocked["enforcement"] == "blocked"
    put(cast, cast.child, weekday_limit_minutes=60, weekend_limit_minutes=60)
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=blocked["session_id"])
    assert answer["enforcement"] == "allowed"
    assert answer["session_id"] != blocked["session_id"]


def test_no_limit_at_all_takes_effect_at_once(cast: Cast) -> None:
    answer = watch(cast.phone, cast.child, cast.cartoon, 60)
    put(cast, cast.child, weekday_limit_minutes=None, weekend_limit_minutes=None)
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=answer["session_id"])
    assert answer["remaining_minutes"] is None
    assert balance_of(cast.child).limit_seconds is None


def test_the_limit_of_the_other_half_of_the_week_leaves_today_alone(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    is_weekend = balance_of(cast.child).reset_date.isoweekday() >= 6
    other = "weekday_limit_minutes" if is_weekend else "weekend_limit_minutes"
    put(cast, cast.child, **{other: 15})
    assert balance_of(cast.child).limit_seconds == 120 * 60


def test_a_change_leaves_the_days_that_are_over_alone(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    today = balance_of(cast.child)
    ViewingTimeBalance.objects.create(
        profile=cast.child, reset_date=today.reset_date - timedelta(days=7), limit_seconds=7200
    )
    put(cast, cast.child, weekday_limit_minutes=30, weekend_limit_minutes=30)
    limits = ViewingTimeBalance.objects.order_by("reset_date").values_list("limit_seconds")
    assert [seconds for (seconds,) in limits] == [7200, 1800]


def test_without_the_exemption_a_documentary_counts_from_the_next_beat_on(cast: Cast) -> None:
    answer = watch(cast.phone, cast.child, cast.documentary, 60)
    put(cast, cast.child, educational_exempt=False)
    pass_time(120)
    cast.phone.beat(cast.child, cast.documentary, session_id=answer["session_id"])
    found = balance(cast, cast.child)
    assert found["educational_minutes"] == pytest.approx(1, abs=0.05)
    assert found["used_minutes"] == pytest.approx(2, abs=0.05)


def test_a_new_schedule_waits_for_the_end_of_the_running_day(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    before = balance(cast, cast.child)
    told = put(cast, cast.child, reset_hour=3, timezone="Asia/Tokyo")
    assert (told["reset_hour"], told["timezone"]) == (3, "Asia/Tokyo")
    assert get(cast, cast.child) == told
    assert balance(cast, cast.child) == before


def test_after_the_running_day_the_new_schedule_rules(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    ends_at = datetime.fromisoformat(balance(cast, cast.child)["next_reset_at"])
    put(cast, cast.child, reset_hour=(ends_at.hour + 2) % 24)
    # Everything that is stored, two days earlier: as if two days had gone by.
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    (replaced,) = config.earlier_schedules
    day = balance_of(cast.child)
    assert datetime.fromisoformat(replaced["ends_at"]) == ends_at
    assert replaced["last_day"] == day.reset_date.isoformat()
    day.reset_date -= timedelta(days=2)
    day.save()
    replaced["ends_at"] = (ends_at - timedelta(days=2)).isoformat()
    replaced["last_day"] = day.reset_date.isoformat()
    config.save()
    pass_time(2 * 86400)
    found = balance(cast, cast.child)
    # The old reset is 11 to 12 hours ahead; the new one comes two hours after it.
    assert datetime.fromisoformat(found["next_reset_at"]) == ends_at + timedelta(hours=2)
    assert found["used_minutes"] == 0.0


def test_a_child_without_a_running_day_has_the_new_schedule_at_once(cast: Cast) -> None:
    before = datetime.fromisoformat(balance(cast, cast.child)["next_reset_at"])
    put(cast, cast.child, reset_hour=(before.hour + 3) % 24)
    after = datetime.fromisoformat(balance(cast, cast.child)["next_reset_at"])
    assert after == before + timedelta(hours=3)


def test_a_change_makes_no_balance_row(cast: Cast) -> None:
    put(cast, cast.child, weekday_limit_minutes=30, reset_hour=5)
    assert not ViewingTimeBalance.objects.exists()


def test_another_household_cannot_change_it(cast: Cast) -> None:
    before = get(cast, cast.child)
    answer: HttpResponse = cast.foreign_phone.put(path_of(cast.child), {"reset_hour": 1})
    assert_problem(answer, 404, "not_found")
    assert get(cast, cast.child) == before
