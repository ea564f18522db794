"""The player's routes: one heartbeat, a batch of them, and the end of a session."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    assert_invariant,
    assert_problem,
    balance_of,
    beat_of,
    database_now,
    everything_stored,
    pass_time,
    watch,
)
from viewingtime.models import ViewingSession, ViewingTimeBalance

BEAT = "/viewing-time/heartbeat"
BATCH = "/viewing-time/heartbeats"


def set_limit(profile: Profile, minutes: int | None) -> None:
    ViewingTimeConfig.objects.filter(profile=profile).update(
        weekday_limit_minutes=minutes, weekend_limit_minutes=minutes
    )


def watched_seconds() -> float:
    return float(sum(ViewingSession.objects.values_list("total_seconds", flat=True)))


def send_batch(cast: Cast, *beats: Any) -> list[dict[str, Any]]:
    answer = cast.phone.post(BATCH, {"heartbeats": beats})
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


# One beat


def test_a_first_beat_opens_a_session_and_credits_nothing(cast: Cast) -> None:
    answer = cast.phone.beat(cast.child, cast.cartoon, device_type="tv")
    session = ViewingSession.objects.get()
    assert answer == {
        "session_id": str(session.id),
        "enforcement": "allowed",
        "remaining_minutes": 120.0,
        "used_minutes": 0.0,
        "is_educational": False,
        "reason": None,
        "next_heartbeat_seconds": 30,
    }
    assert (session.profile_id, session.title_id) == (cast.child.id, cast.cartoon.id)
    assert (session.device_id, session.device_type) == ("living-room-tv", "tv")
    assert session.ended_at is None
    assert abs(database_now() - session.started_at) < timedelta(minutes=1)


def test_the_next_beat_credits_the_time_that_went_by(cast: Cast) -> None:
    first = cast.phone.beat(cast.child, cast.cartoon)
    pass_time(45)
    second = cast.phone.beat(cast.child, cast.cartoon, session_id=first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert second["used_minutes"] == pytest.approx(0.75, abs=0.02)
    assert second["remaining_minutes"] == pytest.approx(119.25, abs=0.02)
    assert_invariant()


def test_the_device_type_is_web_where_none_is_told(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    assert ViewingSession.objects.get().device_type == "web"


@pytest.mark.parametrize("device_type", ["tv", "mobile", "tablet", "web"])
def test_every_device_type_is_kept(cast: Cast, device_type: str) -> None:
    cast.phone.beat(cast.child, cast.cartoon, device_type=device_type)
    assert ViewingSession.objects.get().device_type == device_type


def test_a_session_id_of_null_is_the_same_as_none(cast: Cast) -> None:
    assert cast.phone.beat(cast.child, cast.cartoon, session_id=None)["session_id"] is not None


def test_ids_may_have_capital_letters(cast: Cast) -> None:
    first = cast.phone.beat(cast.child, cast.cartoon)
    beat = beat_of(cast.child, cast.cartoon, session_id=first["session_id"])
    capitals = {key: v.upper() if key.endswith("_id") else v for key, v in beat.items()}
    capitals["device_id"] = beat["device_id"]
    assert cast.phone.post(BEAT, capitals).json()["session_id"] == first["session_id"]


@pytest.mark.parametrize("length", [1, 100])
def test_a_device_id_has_1_to_100_characters_of_any_script(cast: Cast, length: int) -> None:
    cast.phone.beat(cast.child, cast.cartoon, device_id="電" * length)
    assert ViewingSession.objects.get().device_id == "電" * length


@pytest.mark.parametrize("device_id", ["", "x" * 101, "電" * 101, "tv\x00", None, 5, ["tv"]])
def test_other_device_ids_are_refused(cast: Cast, device_id: Any) -> None:
    answer = cast.phone.post(BEAT, beat_of(cast.child, cast.cartoon, device_id=device_id))
    document = assert_problem(answer, 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["device_id"]
    assert not ViewingSession.objects.exists()


def test_every_bad_field_is_named(cast: Cast) -> None:
    document = assert_problem(
        cast.phone.post(BEAT, {"profile_id": 5, "device_type": "car", "is_paused": "true"}), 400
    )
    assert {(error["field"], error["code"]) for error in document["errors"]} == {
        ("profile_id", "invalid"),
        ("title_id", "required"),
        ("device_id", "required"),
        ("device_type", "invalid"),
        ("is_paused", "invalid"),
    }


def test_a_documentary_is_told_to_be_educational_and_costs_nothing(cast: Cast) -> None:
    answer = watch(cast.phone, cast.child, cast.documentary, 200)
    assert answer["is_educational"] is True
    assert answer["used_minutes"] == 0.0
    assert answer["remaining_minutes"] == 120.0
    assert balance_of(cast.child).educational_seconds == pytest.approx(200, abs=2)
    assert_invariant()


def test_an_adult_is_always_allowed_and_counted_nowhere(cast: Cast) -> None:
    answer = watch(cast.phone, cast.adult, cast.cartoon, 250)
    assert answer["enforcement"] == "allowed"
    assert answer["remaining_minutes"] is None
    assert answer["used_minutes"] == 0.0
    # The adults' day may change in between, which makes two sessions of one.
    assert watched_seconds() == pytest.approx(250, abs=2)
    assert not ViewingTimeBalance.objects.exists()


@pytest.mark.parametrize(
    ("left", "enforcement", "next_beat"),
    [
        (920, "allowed", 20),
        (905, "allowed", 5),
        (900, "warning_15", 30),
        (310, "warning_15", 10),
        (300, "warning_5", 30),
        (12, "warning_5", 12),
    ],
)
def test_the_answer_warns_and_the_next_beat_lands_on_the_next_threshold(
    cast: Cast, left: int, enforcement: str, next_beat: int
) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    ViewingTimeBalance.objects.update(used_seconds=7200 - left)
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=session_id)
    assert answer["enforcement"] == enforcement
    # The test itself takes a moment.
    assert next_beat - 2 <= answer["next_heartbeat_seconds"] <= next_beat
    assert answer["reason"] is None


def test_the_beat_that_finds_the_time_used_up_ends_the_session(cast: Cast) -> None:
    set_limit(cast.child, 15)
    answer = watch(cast.phone, cast.child, cast.cartoon, 1000)
    assert answer["enforcement"] == "blocked"
    assert answer["reason"] == "viewing_time_exhausted"
    assert answer["remaining_minutes"] == 0.0
    session = ViewingSession.objects.get()
    assert answer["session_id"] == str(session.id)
    assert session.end_reason == "exhausted"
    assert_invariant()


def test_a_blocked_child_opens_no_session(cast: Cast) -> None:
    set_limit(cast.child, 15)
    watch(cast.phone, cast.child, cast.cartoon, 1000)
    answer = cast.phone.beat(cast.child, cast.cartoon)
    assert answer["enforcement"] == "blocked"
    assert answer["reason"] == "viewing_time_exhausted"
    assert answer["session_id"] is None
    assert ViewingSession.objects.count() == 1


def test_a_paused_beat_counts_up_to_five_minutes(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon, is_paused=True)["session_id"]
    for _ in range(3):
        pass_time(200)
        answer = cast.phone.beat(cast.child, cast.cartoon, session_id=session_id, is_paused=True)
    assert answer["used_minutes"] == pytest.approx(5, abs=0.02)
    assert_invariant()


def test_another_title_ends_the_session_and_opens_one(cast: Cast) -> None:
    first = cast.phone.beat(cast.child, cast.cartoon)
    pass_time(60)
    second = cast.phone.beat(cast.child, cast.documentary, session_id=first["session_id"])
    assert second["session_id"] != first["session_id"]
    assert second["is_educational"] is True
    ended = ViewingSession.objects.get(id=first["session_id"])
    assert ended.end_reason == "title_changed"
    assert ended.total_seconds == pytest.approx(60, abs=2)


def test_another_device_supersedes_the_first(cast: Cast) -> None:
    first = cast.phone.beat(cast.child, cast.cartoon, device_id="tv")
    second = cast.phone.beat(cast.child, cast.cartoon, device_id="tablet")
    assert second["enforcement"] == "allowed"
    answer = cast.phone.beat(
        cast.child, cast.cartoon, device_id="tv", session_id=first["session_id"]
    )
    assert (answer["enforcement"], answer["reason"]) == ("blocked", "superseded")
    assert ViewingSession.objects.filter(ended_at=None).count() == 1


@pytest.mark.parametrize("field", ["profile_id", "title_id", "session_id"])
def test_an_unknown_id_is_not_found_and_changes_nothing(cast: Cast, field: str) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    before = everything_stored()
    beat = beat_of(cast.child, cast.cartoon, session_id=session_id) | {field: str(uuid4())}
    assert_problem(cast.phone.post(BEAT, beat), 404, "not_found")
    assert everything_stored() == before


def test_a_withdrawn_title_cannot_be_started_but_runs_on(cast: Cast) -> None:
    answer = cast.phone.post(BEAT, beat_of(cast.child, cast.withdrawn))
    assert_problem(answer, 404, "not_found")
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    cast.cartoon.withdrawn_at = database_now()
    cast.cartoon.save()
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=session_id)
    assert answer["enforcement"] == "allowed"


def test_a_siblings_session_is_not_the_childs(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.sibling, cast.cartoon)["session_id"]
    answer = cast.phone.post(BEAT, beat_of(cast.child, cast.cartoon, session_id=session_id))
    assert_problem(answer, 404, "not_found")


# A batch


def test_a_batch_answers_one_result_per_beat_in_order(cast: Cast) -> None:
    results = send_batch(
        cast,
        beat_of(cast.sibling, cast.documentary),
        beat_of(cast.child, cast.cartoon),
        beat_of(cast.adult, cast.cartoon),
    )
    assert [result["is_educational"] for result in results] == [True, False, False]
    owners = [ViewingSession.objects.get(id=r["session_id"]).profile_id for r in results]
    assert owners == [cast.sibling.id, cast.child.id, cast.adult.id]


def test_a_batch_of_one_answers_what_a_single_beat_answers(cast: Cast) -> None:
    single = cast.phone.beat(cast.child, cast.cartoon)
    (result,) = send_batch(cast, beat_of(cast.child, cast.cartoon, session_id=single["session_id"]))
    assert result.keys() == single.keys()
    assert result["session_id"] == single["session_id"]


def test_good_and_bad_beats_keep_their_places(cast: Cast) -> None:
    good = beat_of(cast.child, cast.cartoon)
    results = send_batch(
        cast,
        "no beat at all",
        good,
        {"profile_id": str(cast.child.id)},
        beat_of(cast.foreign_child, cast.cartoon),
        beat_of(cast.sibling, cast.withdrawn),
        None,
        beat_of(cast.sibling, cast.cartoon),
        [good],
        good | {"is_paused": "true"},
    )
    statuses = [result.get("error", {}).get("status") for result in results]
    assert statuses == [400, None, 400, 404, 404, 400, None, 400, 400]
    for result in results:
        if "error" in result:
            assert result.keys() == {"error"}
            assert result["error"].keys() >= {"status", "code", "detail"}
    fields = {error["field"] for error in results[2]["error"]["errors"]}
    assert fields == {"title_id", "device_id"}
    assert ViewingSession.objects.count() == 2


def test_beats_of_one_child_are_taken_in_list_order(cast: Cast) -> None:
    results = send_batch(
        cast,
        beat_of(cast.child, cast.cartoon, device_id="tv"),
        beat_of(cast.child, cast.cartoon, device_id="tablet"),
        beat_of(cast.child, cast.documentary, device_id="phone"),
    )
    assert len({result["session_id"] for result in results}) == 3
    sessions = [ViewingSession.objects.get(id=result["session_id"]) for result in results]
    assert [s.end_reason for s in sessions] == ["superseded", "superseded", None]


def test_copies_of_a_beat_in_one_batch_credit_the_time_once(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(60)
    beat = beat_of(cast.child, cast.cartoon, session_id=session_id)
    results = send_batch(cast, *[beat] * 20)
    assert {result["used_minutes"] for result in results} == {results[0]["used_minutes"]}
    assert balance_of(cast.child).used_seconds == pytest.approx(60, abs=2)
    assert_invariant()


def test_a_batch_of_500_is_answered_and_one_of_501_refused(cast: Cast) -> None:
    beat = beat_of(cast.child, cast.cartoon)
    assert len(send_batch(cast, *[beat] * 500)) == 500
    before = everything_stored()
    document = assert_problem(cast.phone.post(BATCH, {"heartbeats": [beat] * 501}), 400)
    assert [error["field"] for error in document["errors"]] == ["heartbeats"]
    assert everything_stored() == before


@pytest.mark.parametrize("body", [{"heartbeats": []}, {"heartbeats": {}}, {"heartbeats": None}, {}])
def test_a_batch_without_beats_is_refused(cast: Cast, body: Any) -> None:
    document = assert_problem(cast.phone.post(BATCH, body), 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["heartbeats"]


def test_a_batch_of_nothing_but_bad_beats_is_answered(cast: Cast) -> None:
    results = send_batch(cast, {}, 5)
    assert [result["error"]["code"] for result in results] == ["invalid", "invalid"]


# The end of a session


def test_the_end_credits_up_to_now(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(50)
    answer = cast.phone.post(f"/viewing-time/session/{session_id}/end")
    assert answer.status_code == 200
    document = answer.json()
    assert document.keys() == {"session_id", "total_seconds", "ended_at"}
    assert document["session_id"] == session_id
    assert document["total_seconds"] == pytest.approx(50, abs=2)
    assert database_now() - datetime.fromisoformat(document["ended_at"]) < timedelta(minutes=1)
    assert ViewingSession.objects.get().end_reason == "stopped"
    assert_invariant()


def test_ending_twice_answers_the_same(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(10)
    first = cast.phone.post(f"/viewing-time/session/{session_id}/end")
    before = everything_stored()
    second = cast.phone.post(f"/viewing-time/session/{session_id}/end")
    assert second.content == first.content
    assert everything_stored() == before


@pytest.mark.parametrize("body", [None, {}, {"anything": 5}])
def test_the_end_needs_no_body(cast: Cast, body: Any) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    assert cast.phone.post(f"/viewing-time/session/{session_id}/end", body).status_code == 200


def test_the_end_of_a_session_that_went_silent_is_the_stale_one(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(3600)
    document = cast.phone.post(f"/viewing-time/session/{session_id}/end").json()
    assert document["total_seconds"] == 30.0
    session = ViewingSession.objects.get()
    assert session.end_reason == "stale"
    assert datetime.fromisoformat(document["ended_at"]) == session.ended_at
    assert_invariant()


def test_a_beat_after_the_end_is_blocked_and_credits_nothing(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    cast.phone.post(f"/viewing-time/session/{session_id}/end")
    pass_time(100)
    before = everything_stored()
    answer = cast.phone.beat(cast.child, cast.cartoon, session_id=session_id)
    assert (answer["enforcement"], answer["reason"]) == ("blocked", "session_ended")
    assert everything_stored() == before


def test_an_adults_session_ends_too(cast: Cast) -> None:
    session_id = cast.phone.beat(cast.adult, cast.cartoon)["session_id"]
    pass_time(20)
    document = cast.phone.post(f"/viewing-time/session/{session_id}/end").json()
    assert document["session_id"] == session_id
    assert watched_seconds() == pytest.approx(20, abs=2)
    assert not ViewingSession.objects.filter(ended_at=None).exists()
    assert not ViewingTimeBalance.objects.exists()
