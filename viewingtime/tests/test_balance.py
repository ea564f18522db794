"""What a profile has used and what is left: `GET /viewing-time/balance/{profile_id}`."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    assert_invariant,
    balance_of,
    database_now,
    pass_time,
    watch,
)
from viewingtime.models import ViewingTimeBalance


def balance(cast: Cast, profile: Profile) -> dict[str, object]:
    answer = cast.phone.get(f"/viewing-time/balance/{profile.id}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_an_adult_is_unlimited_and_has_no_day(cast: Cast) -> None:
    assert balance(cast, cast.adult) == {
        "profile_id": str(cast.adult.id),
        "is_child_profile": False,
        "has_limits": False,
        "used_minutes": 0.0,
        "educational_minutes": 0.0,
        "granted_minutes": 0.0,
        "limit_minutes": None,
        "remaining_minutes": None,
        "is_unlimited_override": False,
        "next_reset_at": None,
        "warning_threshold_minutes": [15, 5],
    }


def test_an_adult_that_watches_stays_without_a_balance(cast: Cast) -> None:
    watch(cast.phone, cast.adult, cast.cartoon, 120)
    assert balance(cast, cast.adult)["used_minutes"] == 0.0
    assert not ViewingTimeBalance.objects.exists()


def test_a_child_that_watched_nothing_has_its_whole_limit_and_no_row(cast: Cast) -> None:
    found = balance(cast, cast.child)
    assert found["is_child_profile"] is True
    assert found["has_limits"] is True
    assert found["used_minutes"] == 0.0
    assert found["limit_minutes"] == found["remaining_minutes"] == 120.0
    assert not ViewingTimeBalance.objects.exists()


def test_the_weekend_limit_rules_on_saturday_and_sunday_alone(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=45, weekend_limit_minutes=90
    )
    cast.phone.beat(cast.child, cast.cartoon)
    is_weekend = balance_of(cast.child).reset_date.isoweekday() >= 6
    assert balance(cast, cast.child)["limit_minutes"] == (90.0 if is_weekend else 45.0)


def test_the_next_reset_is_the_coming_reset_hour_in_the_childs_zone(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        timezone="Asia/Kolkata", reset_hour=7
    )
    now = database_now()
    # 07:00 in Kolkata is 01:30 UTC, all year round.
    today = now.replace(hour=1, minute=30, second=0, microsecond=0)
    expected = today if today > now else today + timedelta(days=1)
    assert datetime.fromisoformat(str(balance(cast, cast.child)["next_reset_at"])) == expected


def test_what_was_watched_is_used_and_no_longer_remaining(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.cartoon, 600)
    found = balance(cast, cast.child)
    assert found["used_minutes"] == pytest.approx(10, abs=0.05)
    assert found["remaining_minutes"] == pytest.approx(110, abs=0.05)
    assert found["educational_minutes"] == 0.0
    assert_invariant()


def test_exempt_time_is_educational_and_leaves_the_limit_alone(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.documentary, 600)
    found = balance(cast, cast.child)
    assert found["educational_minutes"] == pytest.approx(10, abs=0.05)
    assert found["used_minutes"] == 0.0
    assert found["remaining_minutes"] == 120.0
    assert_invariant()


def test_remaining_is_never_told_below_zero(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    ViewingTimeBalance.objects.update(limit_seconds=60, used_seconds=300)
    found = balance(cast, cast.child)
    assert found["remaining_minutes"] == 0.0
    assert found["used_minutes"] == 5.0


def test_an_unlimited_day_has_no_limits_and_still_counts(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=None
    )
    watch(cast.phone, cast.child, cast.cartoon, 120)
    found = balance(cast, cast.child)
    assert found["has_limits"] is False
    assert found["limit_minutes"] is None
    assert found["remaining_minutes"] is None
    assert found["used_minutes"] == pytest.approx(2, abs=0.05)
    assert found["next_reset_at"] is not None


def test_the_sum_of_the_days_grants_is_told(cast: Cast) -> None:
    for minutes in (15, 30):
        cast.phone.post(
            f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant", {"minutes": minutes}
        )
    found = balance(cast, cast.child)
    assert found["granted_minutes"] == 45.0
    assert found["remaining_minutes"] == 165.0
    assert found["limit_minutes"] == 120.0


def test_an_override_leaves_the_limit_visible_and_nothing_limited(cast: Cast) -> None:
    cast.phone.post(
        f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant", {"minutes": None}
    )
    found = balance(cast, cast.child)
    assert found["is_unlimited_override"] is True
    assert found["has_limits"] is False
    assert found["limit_minutes"] == 120.0
    assert found["remaining_minutes"] is None


def test_a_new_day_starts_with_nothing_used(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.cartoon, 600)
    ViewingTimeBalance.objects.update(reset_date=date(2020, 1, 6))
    found = balance(cast, cast.child)
    assert found["used_minutes"] == 0.0
    assert found["remaining_minutes"] == 120.0


def test_minutes_are_rounded_to_two_decimals(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    ViewingTimeBalance.objects.update(used_seconds=100)
    assert balance(cast, cast.child)["used_minutes"] == 1.67
    assert balance(cast, cast.child)["remaining_minutes"] == 118.33


def test_a_missing_config_is_made_once_with_the_defaults(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.sibling).delete()
    for _ in range(2):
        assert balance(cast, cast.sibling)["limit_minutes"] in {120.0, 180.0}
    config = ViewingTimeConfig.objects.get(profile=cast.sibling)
    assert (config.weekday_limit_minutes, config.weekend_limit_minutes) == (120, 180)
    assert (config.reset_hour, config.timezone, config.educational_exempt) == (6, "UTC", True)


def test_asking_changes_nothing(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(40)
    before = balance(cast, cast.child)
    assert before == balance(cast, cast.child)
    assert before["used_minutes"] == 0.0
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=session_id)
    assert answer["used_minutes"] == pytest.approx(40 / 60, abs=0.05)


def test_next_reset_is_told_in_utc(cast: Cast) -> None:
    told = str(balance(cast, cast.child)["next_reset_at"])
    assert told.endswith("Z")
    assert datetime.fromisoformat(told).tzinfo == UTC


def test_one_look_up_of_each_kind_answers(cast: Cast, django_assert_num_queries: Any) -> None:
    # The account, the profile with its config, the day; and the title that is to be played.
    with django_assert_num_queries(3):
        cast.phone.get(f"/viewing-time/balance/{cast.child.id}")
    with django_assert_num_queries(4):
        cast.phone.get(
            f"/viewing-time/playback-eligible/{cast.child.id}?title_id={cast.cartoon.id}"
        )
