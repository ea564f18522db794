"""What a child with the device in hand tries against the clock: none of it makes the day longer."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.tests.cast import (
    Cast,
    Device,
    assert_invariant,
    assert_problem,
    balance_of,
    beat_of,
    database_now,
    watch,
)
from parentalcontrols.tests.test_profile_tokens import without_key
from viewingtime.models import ViewingSession
from viewingtime.tests import clock

pytestmark = pytest.mark.django_db
BEAT, BEATS = "/viewing-time/heartbeat", "/viewing-time/heartbeats"
LONG_AGO, FAR_AHEAD = "2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


class Evening:
    """The child's TV, and the database's clock, which stands still until it is moved."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        clock.install()
        self.now = database_now()
        clock.set_to(self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        clock.set_to(self.now)

    def send(self, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.cast.child_tv.send("POST", BEAT, body, headers=headers)
        assert answer.status_code == 200, answer.content
        return dict(answer.json())

    def used(self) -> Decimal:
        return Decimal(balance_of(self.cast.child).used_seconds)


@pytest.fixture
def evening(cast: Cast) -> Evening:
    return Evening(cast)


@pytest.mark.parametrize("instant", [LONG_AGO, FAR_AHEAD, 0, -1, 10**12, "yesterday", None])
def test_an_instant_that_the_client_tells_decides_nothing(evening: Evening, instant: Any) -> None:
    told = dict.fromkeys(
        ("at", "now", "timestamp", "started_at", "last_heartbeat_at", "paused_at", "ended_at"),
        instant,
    )
    told |= {"total_seconds": 0, "used_seconds": 0, "reset_date": "2001-01-01", "timezone": "Asia"}
    headers = {"Date": "Mon, 01 Jan 2001 00:00:00 GMT", "X-Timestamp": "0", "Age": "-5"}
    cast = evening.cast
    session = evening.send(beat_of(cast.child, cast.cartoon) | told, **headers)["session_id"]
    evening.pass_time(200)
    evening.send(beat_of(cast.child, cast.cartoon, session_id=session) | told, **headers)
    assert evening.used() == 200
    end = cast.child_tv.post(f"/viewing-time/session/{session}/end", told)
    assert end.status_code == 200
    assert evening.used() == 200


def test_the_clock_of_a_web_process_decides_nothing_either(evening: Evening) -> None:
    cast = evening.cast
    session = evening.send(beat_of(cast.child, cast.cartoon))["session_id"]
    evening.pass_time(60)
    for minutes in (-9, 9):
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes)):
            evening.send(beat_of(cast.child, cast.cartoon, session_id=session))
    assert evening.used() == 60


def test_old_beats_that_are_sent_again_give_nothing_back_and_take_nothing_twice(
    evening: Evening,
) -> None:
    cast = evening.cast
    recorded = [beat_of(cast.child, cast.cartoon)]
    session = evening.send(recorded[0])["session_id"]
    for number in range(6):
        evening.pass_time(100)
        body = beat_of(cast.child, cast.cartoon, session_id=session, is_paused=bool(number % 2))
        recorded.append(body)
        evening.send(body)
    watched = evening.used()
    assert watched == 600
    for body in (*recorded[1:], *reversed(recorded[1:])):
        evening.send(body)
        assert evening.used() == watched
    batch = {"heartbeats": recorded[1:] * 80}
    assert cast.child_tv.post(BEATS, batch).status_code == 200
    assert evening.used() == watched
    assert_invariant()


def test_a_used_up_day_stays_used_up_whatever_is_sent_again(cast: Cast) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=15, weekend_limit_minutes=15
    )
    last = watch(cast.child_tv, cast.child, cast.cartoon, 15 * 60 + 30)
    assert last["enforcement"] == "blocked"
    sessions = [str(s.id) for s in ViewingSession.objects.filter(profile=cast.child)]
    stood = balance_of(cast.child).used_seconds
    for session in (*sessions, None):
        for device in ("living-room-tv", "a-second-one", "x" * 100):
            for is_paused in (False, True):
                answer = cast.child_tv.beat(
                    cast.child,
                    cast.cartoon,
                    session_id=session,
                    device_id=device,
                    is_paused=is_paused,
                )
                assert answer["enforcement"] == "blocked"
    for session in sessions:
        cast.child_tv.post(f"/viewing-time/session/{session}/end")
    assert balance_of(cast.child).used_seconds == stood
    assert not ViewingSession.objects.filter(profile=cast.child, ended_at=None).exists()


def test_a_siblings_time_is_out_of_reach_however_the_token_is_bent(cast: Cast) -> None:
    """By the sibling's id in path, body, batch, query, and in a token that nobody signed."""
    theirs = cast.phone.beat(cast.sibling, cast.cartoon)["session_id"]
    swapped = [Device(t) for t in without_key(str(cast.child_tv.token), pid=str(cast.sibling.id))]
    assert swapped
    for device, status in ((cast.child_tv, 404), *((liar, 401) for liar in swapped)):
        for fields in ({}, {"session_id": theirs}):
            body = beat_of(cast.sibling, cast.cartoon, **fields)
            assert_problem(device.post(BEAT, body), status)
        assert_problem(device.get(f"/viewing-time/balance/{cast.sibling.id}"), status)
        assert_problem(device.post(f"/viewing-time/session/{theirs}/end"), status)
    for body in (
        beat_of(cast.child, cast.cartoon, session_id=theirs),
        beat_of(cast.child, cast.cartoon) | {"session_id": theirs, "pid": str(cast.sibling.id)},
    ):
        assert_problem(cast.child_tv.post(BEAT, body), 404)
    query = f"/viewing-time/balance/{cast.child.id}?profile_id={cast.sibling.id}"
    assert cast.child_tv.get(query).json()["profile_id"] == str(cast.child.id)
    open_session = ViewingSession.objects.get(id=theirs)
    assert open_session.ended_at is None
    assert open_session.total_seconds == 0
