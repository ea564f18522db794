"""Extra time from a parent: `POST /parental-controls/profiles/{id}/viewing-time/grant`."""

from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse

from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    assert_invariant,
    assert_problem,
    balance_of,
    database_now,
    pass_time,
    watch,
)
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance


def ask(cast: Cast, profile: Profile, body: Any) -> HttpResponse:
    return cast.phone.post(f"/parental-controls/profiles/{profile.id}/viewing-time/grant", body)


def grant(cast: Cast, minutes: int | None) -> dict[str, Any]:
    answer = ask(cast, cast.child, {"minutes": minutes})
    assert answer.status_code == 200, answer.content
    return answer.json()


def set_limit(profile: Profile, minutes: int | None) -> None:
    ViewingTimeConfig.objects.filter(profile=profile).update(
        weekday_limit_minutes=minutes, weekend_limit_minutes=minutes
    )


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_minutes_are_added_to_what_remains(cast: Cast, minutes: int) -> None:
    assert grant(cast, minutes) == {
        "granted_minutes": minutes,
        "remaining_minutes": 120.0 + minutes,
        "is_unlimited_override": False,
    }


def test_null_is_unlimited_until_the_next_reset(cast: Cast) -> None:
    assert grant(cast, None) == {
        "granted_minutes": None,
        "remaining_minutes": None,
        "is_unlimited_override": True,
    }
    answer = cast.phone.beat(cast.child, cast.cartoon)
    assert answer["remaining_minutes"] is None
    assert answer["enforcement"] == "allowed"


@pytest.mark.parametrize("minutes", [0, -15, 1, 14, 16, 45, 90, 2**63, 10**30])
def test_other_amounts_are_refused(cast: Cast, minutes: int) -> None:
    document = assert_problem(ask(cast, cast.child, {"minutes": minutes}), 400, "invalid")
    assert {error["field"] for error in document["errors"]} == {"minutes"}
    assert not TimeGrant.objects.exists()
    assert not ViewingTimeBalance.objects.exists()


@pytest.mark.parametrize("minutes", ["15", 15.0, 15.5, True, [15], {}, ""])
def test_other_types_are_refused(cast: Cast, minutes: Any) -> None:
    assert_problem(ask(cast, cast.child, {"minutes": minutes}), 400, "invalid")
    assert not TimeGrant.objects.exists()


def test_missing_minutes_are_refused_for_they_are_not_unlimited(cast: Cast) -> None:
    document = assert_problem(ask(cast, cast.child, {"minute": 15}), 400, "invalid")
    assert [(e["field"], e["code"]) for e in document["errors"]] == [("minutes", "required")]
    assert not TimeGrant.objects.exists()


def test_an_adult_cannot_be_granted_anything(cast: Cast) -> None:
    for minutes in (15, None):
        assert_problem(ask(cast, cast.adult, {"minutes": minutes}), 400, "not_a_kids_profile")
    assert not TimeGrant.objects.exists()
    assert not ViewingTimeBalance.objects.exists()


def test_another_households_child_cannot_be_granted_anything(cast: Cast) -> None:
    assert_problem(ask(cast, cast.foreign_child, {"minutes": 15}), 404, "not_found")
    assert not TimeGrant.objects.exists()


def test_grants_add_up_and_each_answer_tells_its_own_minutes(cast: Cast) -> None:
    answers = [grant(cast, minutes) for minutes in (15, 60, 15)]
    assert [answer["granted_minutes"] for answer in answers] == [15, 60, 15]
    assert [answer["remaining_minutes"] for answer in answers] == [135.0, 195.0, 210.0]
    assert balance_of(cast.child).granted_seconds == 90 * 60


def test_every_grant_is_recorded(cast: Cast) -> None:
    grant(cast, 15)
    grant(cast, None)
    first, second = TimeGrant.objects.order_by("granted_at")
    assert (first.minutes, second.minutes) == (15, None)
    for recorded in (first, second):
        assert recorded.profile_id == cast.child.id
        assert recorded.account_id == cast.parent.id
        assert recorded.is_remote is True
        assert recorded.reset_date == balance_of(cast.child).reset_date
        assert database_now() - recorded.granted_at < timedelta(minutes=1)


def test_a_grant_makes_the_days_balance_with_its_limit(cast: Cast) -> None:
    grant(cast, 30)
    balance = balance_of(cast.child)
    assert (balance.limit_seconds, balance.granted_seconds) == (7200, 1800)
    assert (balance.used_seconds, balance.educational_seconds) == (0, 0)


def test_an_overrun_is_forgiven_before_the_minutes_are_added(cast: Cast) -> None:
    set_limit(cast.child, 15)
    blocked = watch(cast.phone, cast.child, cast.cartoon, 1100)
    assert blocked["enforcement"] == "blocked"
    used = balance_of(cast.child).used_seconds
    assert used > 15 * 60
    assert grant(cast, 15)["remaining_minutes"] == 15.0
    balance = balance_of(cast.child)
    assert balance.used_seconds == used
    # The overrun, used - 900, and then the 900 that were granted.
    assert balance.granted_seconds == used
    assert_invariant()


def test_a_child_that_was_blocked_plays_on_with_the_next_beat(cast: Cast) -> None:
    set_limit(cast.child, 15)
    blocked = watch(cast.phone, cast.child, cast.cartoon, 1100)
    grant(cast, 30)
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=blocked["session_id"])
    assert answer["enforcement"] == "allowed"
    assert answer["remaining_minutes"] == pytest.approx(30, abs=0.02)
    assert answer["session_id"] not in {None, blocked["session_id"]}


def test_what_remains_is_counted_after_the_tail_of_a_silent_session(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    pass_time(1000)
    assert grant(cast, 15)["remaining_minutes"] == pytest.approx(134.5, abs=0.01)
    session = ViewingSession.objects.get()
    assert session.end_reason == "stale"
    assert session.total_seconds == 30
    assert_invariant()


def test_under_an_override_a_finite_grant_is_recorded_and_remaining_stays_null(cast: Cast) -> None:
    grant(cast, None)
    assert grant(cast, 15) == {
        "granted_minutes": 15,
        "remaining_minutes": None,
        "is_unlimited_override": True,
    }
    assert balance_of(cast.child).granted_seconds == 900
    assert TimeGrant.objects.count() == 2


def test_without_a_limit_a_finite_grant_is_recorded_and_remaining_stays_null(cast: Cast) -> None:
    set_limit(cast.child, None)
    assert grant(cast, 30) == {
        "granted_minutes": 30,
        "remaining_minutes": None,
        "is_unlimited_override": False,
    }
    assert balance_of(cast.child).granted_seconds == 1800


def test_a_grant_is_for_the_running_day_alone(cast: Cast) -> None:
    grant(cast, None)
    day = balance_of(cast.child)
    day.reset_date -= timedelta(days=1)
    day.save()
    found = cast.phone.get(f"/viewing-time/balance/{cast.child.id}").json()
    assert found["is_unlimited_override"] is False
    assert (found["granted_minutes"], found["remaining_minutes"]) == (0.0, 120.0)


def test_a_siblings_balance_is_not_touched(cast: Cast) -> None:
    grant(cast, 60)
    assert not ViewingTimeBalance.objects.filter(profile=cast.sibling).exists()
