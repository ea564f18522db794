"""May playback start now? `GET /viewing-time/playback-eligible/{profile_id}`."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from parentalcontrols.models import Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import Cast, assert_problem, everything_stored, watch
from viewingtime.models import ViewingTimeBalance


def path_of(profile: Profile, title_id: UUID | str | None = None) -> str:
    query = "" if title_id is None else f"?title_id={title_id}"
    return f"/viewing-time/playback-eligible/{profile.id}{query}"


def ask(cast: Cast, profile: Profile, title: Title | None = None) -> dict[str, Any]:
    answer = cast.phone.get(path_of(profile, None if title is None else title.id))
    assert answer.status_code == 200, answer.content
    return answer.json()


def use_up(cast: Cast) -> None:
    """Plays until the child has nothing left."""
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=15, weekend_limit_minutes=15
    )
    assert watch(cast.phone, cast.child, cast.cartoon, 1200)["enforcement"] == "blocked"


def test_an_adult_may_always(cast: Cast) -> None:
    assert ask(cast, cast.adult, cast.cartoon) == {
        "eligible": True,
        "remaining_minutes": None,
        "reason": None,
        "next_reset_at": None,
    }


def test_a_child_with_time_left_may(cast: Cast) -> None:
    found = ask(cast, cast.child)
    assert found["eligible"] is True
    assert found["remaining_minutes"] == 120.0
    assert found["reason"] is None
    balance = cast.phone.get(f"/viewing-time/balance/{cast.child.id}").json()
    assert found["next_reset_at"] == balance["next_reset_at"]


def test_a_child_without_time_may_not_until_the_reset(cast: Cast) -> None:
    use_up(cast)
    for title in (None, cast.cartoon):
        found = ask(cast, cast.child, title)
        assert found["eligible"] is False
        assert found["remaining_minutes"] == 0.0
        assert found["reason"] == "viewing_time_exhausted"
        assert found["next_reset_at"] is not None


def test_an_exempt_title_may_start_at_zero(cast: Cast) -> None:
    use_up(cast)
    found = ask(cast, cast.child, cast.documentary)
    assert found["eligible"] is True
    assert found["remaining_minutes"] == 0.0
    assert found["reason"] is None
    answer = cast.phone.beat(cast.child, cast.documentary)
    assert answer["enforcement"] == "allowed"


def test_a_documentary_is_like_any_title_where_it_is_not_exempt(cast: Cast) -> None:
    use_up(cast)
    ViewingTimeConfig.objects.filter(profile=cast.child).update(educational_exempt=False)
    assert ask(cast, cast.child, cast.documentary)["eligible"] is False


def test_without_a_limit_a_child_may(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=None
    )
    found = ask(cast, cast.child)
    assert (found["eligible"], found["remaining_minutes"]) == (True, None)


def test_under_an_override_a_child_may(cast: Cast) -> None:
    use_up(cast)
    cast.phone.post(
        f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant", {"minutes": None}
    )
    found = ask(cast, cast.child)
    assert (found["eligible"], found["remaining_minutes"]) == (True, None)


def test_an_unknown_title_is_not_found(cast: Cast) -> None:
    for profile in (cast.child, cast.adult):
        assert_problem(cast.phone.get(path_of(profile, uuid4())), 404, "not_found")


def test_a_withdrawn_title_cannot_be_started_and_so_is_not_found(cast: Cast) -> None:
    unknown = cast.phone.get(path_of(cast.child, uuid4()))
    withdrawn = cast.phone.get(path_of(cast.child, cast.withdrawn.id))
    assert_problem(withdrawn, 404, "not_found")
    assert withdrawn.content == unknown.content


@pytest.mark.parametrize(
    "title_id", ["", "5", "null", "not-a-uuid", "x" * 36, "%00", "%ff", "..%2f..", "0" * 5000]
)
def test_a_title_id_that_is_no_uuid_is_refused(cast: Cast, title_id: str) -> None:
    document = assert_problem(cast.phone.get(path_of(cast.child, title_id)), 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["title_id"]


def test_a_title_id_may_have_capital_letters(cast: Cast) -> None:
    capitals = str(cast.documentary.id).upper()
    assert cast.phone.get(path_of(cast.child, capitals)).status_code == 200


def test_another_households_child_is_not_found_whatever_the_title(cast: Cast) -> None:
    missing = cast.phone.get(path_of(Profile()))
    for title_id in (None, cast.cartoon.id, uuid4()):
        answer = cast.phone.get(path_of(cast.foreign_child, title_id))
        assert_problem(answer, 404, "not_found")
        assert answer.content == missing.content


def test_asking_changes_nothing(cast: Cast) -> None:
    before = everything_stored()
    ask(cast, cast.child, cast.cartoon)
    ask(cast, cast.adult)
    assert everything_stored() == before
    assert not ViewingTimeBalance.objects.exists()
