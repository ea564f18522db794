"""Beats that are taken together by a real service: none waits for, or suffers from, another."""

import json
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from parentalcontrols import authentication
from parentalcontrols.models import Profile, Title
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API, assert_invariant
from pins.tests.service import LONG, Line, Service, Told, database_of_tests, gunicorn
from viewingtime.models import ViewingSession
from viewingtime.tests.village import (
    BEAT,
    BEATS,
    Child,
    assert_invariant_meanwhile,
    at_the_same_time,
    children,
    is_quiet,
    poisoned,
    told_session,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("kind", ["first", "steady", "changing"])
def test_all_of_many_beats_for_one_child_at_once_are_answered(served: Service, kind: str) -> None:
    """Every one of them wants the same child's lock, in every process."""
    (child,) = children(1)
    child.connect(served, 60)
    try:
        session = child.lines[0].post(BEAT, child.beat()).body["session_id"]
        beats = [
            child.beat(
                None if kind == "first" else session,
                title_id=str(child.titles[n % 3 if kind == "changing" else 0].id),
            )
            for n in range(60)
        ]
        calls = [
            lambda line=line, beat=beat: line.post(BEAT, beat)
            for line, beat in zip(child.lines, beats, strict=True)
        ]
        told = at_the_same_time(calls)
    finally:
        child.hang_up()
    assert Counter(answer.status for answer in told) == {200: 60}
    assert ViewingSession.objects.filter(ended_at=None).count() == 1
    (open_one,) = ViewingSession.objects.filter(ended_at=None)
    if kind == "steady":
        elapsed = open_one.last_heartbeat_at - open_one.started_at
        assert float(open_one.total_seconds) == elapsed.total_seconds()
    assert_invariant()


# One that fails, or is stuck


@pytest.fixture
def poison(transactional_db: None) -> Iterator[None]:
    """From now on whatever writes a session of the device `poison` fails."""
    with poisoned("poison"):
        yield


def send_all(people: Sequence[Child], beats: Sequence[dict[str, Any]]) -> list[Told]:
    """A beat for each child at the same moment, on the first line of each."""
    calls = [
        lambda line=child.lines[0], beat=beat: line.post(BEAT, beat)
        for child, beat in zip(people, beats, strict=True)
    ]
    return at_the_same_time(calls)


@pytest.fixture
def people(served: Service, transactional_db: None) -> Iterator[list[Child]]:
    """Children with an open line each."""
    people = children(24)
    for child in people:
        child.connect(served)
    yield people
    for child in people:
        child.hang_up()


def test_a_beat_that_fails_takes_no_other_with_it(people: list[Child], poison: None) -> None:
    for _ in range(3):
        opened = send_all(people, [child.beat() for child in people])
        beats = [child.beat(told_session(told)) for child, told in zip(people, opened, strict=True)]
        assert {told.status for told in send_all(people, beats)} == {200}
        # One that is steady but for the device, one that opens a session.
        beats[3] |= {"device_id": "poison"}
        beats[11] |= {"device_id": "poison", "session_id": None}
        for _ in range(5):
            told = send_all(people, beats)
            statuses = [answer.status for answer in told]
            assert statuses.count(200) == len(people) - 2
            for answer in (told[3], told[11]):
                assert answer.status == 500
                assert answer.body["code"] == "internal_error"
    assert_invariant()


def test_a_steady_beat_that_fails_takes_no_other_with_it(people: list[Child]) -> None:
    opened = send_all(people, [child.beat(device_id=f"tv {n}") for n, child in enumerate(people)])
    beats = [
        child.beat(told_session(told), device_id=f"tv {n}")
        for n, (child, told) in enumerate(zip(people, opened, strict=True))
    ]
    with poisoned("tv 7"):
        for _ in range(8):
            statuses = [told.status for told in send_all(people, beats)]
            assert statuses.pop(7) == 500
            assert set(statuses) == {200}
    assert {told.status for told in send_all(people, beats)} == {200}
    assert_invariant()


@pytest.mark.parametrize("poisoned", [{17}, {0, 17, 18, 39}])
@pytest.mark.parametrize("is_steady", [True, False])
def test_a_beat_that_fails_takes_no_other_of_its_request_with_it(
    served: Service, poison: None, poisoned: set[int], is_steady: bool
) -> None:
    account = children(1)[0].account
    made = Profile.objects.bulk_create(
        Profile(account=account, name=f"child {n}", is_kids=True) for n in range(40)
    )
    title = str(Title.objects.create(title="cartoon").id)
    line = Line(served, authentication.access_token(account))
    beats = [
        {"profile_id": str(p.id), "title_id": title, "device_id": f"tv {n}"}
        for n, p in enumerate(made)
    ]
    try:
        opened = line.post(BEATS, {"heartbeats": beats}).body["results"]
        for beat, result in zip(beats, opened, strict=True):
            beat["session_id"] = result["session_id"]
        for n in poisoned:
            beats[n]["device_id"] = "poison"
        if not is_steady:
            for beat in beats:
                beat["session_id"] = None
        told = line.post(BEATS, {"heartbeats": beats})
        assert told.status == 200
        for n, result in enumerate(told.body["results"]):
            if n in poisoned:
                assert result["error"]["code"] == "internal_error"
            else:
                assert (result["session_id"] == opened[n]["session_id"]) is is_steady
    finally:
        line.close()
    assert_invariant()


#: What a transaction holds of a child: its profile, or all that one which hangs may have locked.
HOLDS = {
    "profile": ["SELECT FROM profiles WHERE id = ANY(%s) FOR UPDATE"],
    "everything": [
        "SELECT FROM profiles WHERE id = ANY(%s) FOR NO KEY UPDATE",
        "SELECT FROM viewing_sessions WHERE profile_id = ANY(%s) FOR UPDATE",
        "SELECT FROM viewing_time_balances WHERE profile_id = ANY(%s) FOR UPDATE",
    ],
}


@pytest.mark.parametrize("held", list(HOLDS))
@pytest.mark.parametrize("kind", ["first", "steady"])
def test_children_that_somebody_holds_delay_nobody_elses_beat(
    people: list[Child], held: str, kind: str
) -> None:
    opened = send_all(people, [child.beat() for child in people])
    sessions = [told_session(told) for told in opened]
    stuck, free = people[:12], people[12:]
    with psycopg.connect(database_of_tests()) as holder, ThreadPoolExecutor(len(stuck)) as pool:
        for statement in HOLDS[held]:
            holder.execute(statement, [[child.id for child in stuck]])
        # Titles change, so that nothing of these is steady.
        waiting = [
            pool.submit(child.lines[0].post, BEAT, child.beat(title_id=str(child.titles[1].id)))
            for child in stuck
        ]
        for _ in range(3):
            beats = [
                child.beat(session if kind == "steady" else None)
                for child, session in zip(free, sessions[12:], strict=True)
            ]
            for told in send_all(free, beats):
                assert told.status == 200
                assert told.heard_at - told.sent_at < 1_000_000
            sessions[12:] = [told_session(told) for told in send_all(free, beats)]
        for future in waiting:
            told = future.result()
            assert told.is_honest_refusal
            assert told.heard_at - told.sent_at < 2_000_000
    for told in send_all(people, [child.beat() for child in people]):
        assert told.status == 200
    assert_invariant()


def test_a_balance_that_an_operator_holds_delays_nobody_elses_beat(people: list[Child]) -> None:
    beats = [child.beat(told_session(child.lines[0].post(BEAT, child.beat()))) for child in people]
    assert {told.status for told in send_all(people, beats)} == {200}
    with psycopg.connect(database_of_tests()) as holder:
        holder.execute(
            "SELECT FROM viewing_time_balances WHERE profile_id = %s FOR UPDATE", [people[5].id]
        )
        for _ in range(3):
            told = send_all(people, beats)
            assert told.pop(5).is_honest_refusal
            for answer in told:
                assert answer.status == 200
                assert answer.heard_at - answer.sent_at < 1_500_000
    assert {told.status for told in send_all(people, beats)} == {200}
    assert_invariant()


def test_a_batch_tells_what_is_free_although_one_balance_is_held(
    served: Service, transactional_db: None
) -> None:
    account = children(1)[0].account
    made = Profile.objects.bulk_create(
        Profile(account=account, name=f"child {n}", is_kids=True) for n in range(20)
    )
    title = str(Title.objects.create(title="cartoon").id)
    beats = [{"profile_id": str(p.id), "title_id": title, "device_id": "tv"} for p in made]
    line = Line(served, authentication.access_token(account))
    try:
        opened = line.post(BEATS, {"heartbeats": beats}).body["results"]
        for beat, result in zip(beats, opened, strict=True):
            beat["session_id"] = result["session_id"]
        with psycopg.connect(database_of_tests()) as holder:
            holder.execute(
                "SELECT FROM viewing_time_balances WHERE profile_id = %s FOR UPDATE", [made[2].id]
            )
            told = line.post(BEATS, {"heartbeats": beats})
        assert told.status == 200
        results = told.body["results"]
        assert results.pop(2)["error"]["status"] == 503
        assert {result["enforcement"] for result in results} == {"allowed"}
    finally:
        line.close()
    assert_invariant()


def test_a_batch_tells_what_is_free_although_one_child_one_child_is_held(served: Service) -> None:
    account = children(1)[0].account
    made = Profile.objects.bulk_create(
        Profile(account=account, name=f"child {n}", is_kids=True) for n in range(5)
    )
    title = str(Title.objects.create(title="cartoon").id)
    beats = [{"profile_id": str(p.id), "title_id": title, "device_id": "tv"} for p in made]
    line = Line(served, authentication.access_token(account))
    try:
        with psycopg.connect(database_of_tests()) as holder:
            holder.execute("SELECT FROM profiles WHERE id = %s FOR UPDATE", [made[2].id])
            told = line.post(BEATS, {"heartbeats": beats})
        assert told.status == 200
        assert told.heard_at - told.sent_at < 2_000_000
        results = told.body["results"]
        assert results.pop(2)["error"]["status"] == 503
        assert {result["enforcement"] for result in results} == {"allowed"}
    finally:
        line.close()
    assert_invariant()


def test_a_held_child_that_is_let_go_is_answered(people: list[Child]) -> None:
    child = people[0]
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(database_of_tests()) as holder:
            holder.execute("SELECT FROM profiles WHERE id = %s FOR UPDATE", [child.id])
            waiting = pool.submit(child.lines[0].post, BEAT, child.beat())
            assert send_all(people[1:], [c.beat() for c in people[1:]])[0].status == 200
        assert waiting.result().status == 200
    assert_invariant()


# Alone, gone, and too many


def test_a_beat_alone_on_an_idle_server_waits_for_no_company(people: list[Child]) -> None:
    (line,) = people[0].lines
    session = told_session(line.post(BEAT, people[0].beat()))
    for _ in range(20):
        told = line.post(BEAT, people[0].beat(session))
        assert told_session(told) == session
        assert told.heard_at - told.sent_at < 1_000_000


def test_clients_that_go_away_do_no_harm(people: list[Child], served: Service) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for child in people:
        body = json.dumps(child.beat()).encode()
        head = (
            f"POST {API}{BEAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {child.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        whole = head.encode() + body
        for sent in (whole, whole[:-1], whole[:40], whole):
            with socket.create_connection((host, int(port))) as gone:
                gone.sendall(sent)
    for told in send_all(people, [child.beat() for child in people]):
        assert told.status == 200
    assert_invariant_meanwhile()
    assert wait_until(is_quiet, LONG)


def test_what_the_queues_do_not_hold_is_refused_at_once_and_the_rest_is_served(
    transactional_db: None,
) -> None:
    people = children(60)
    module = "viewingtime.tests.small_queues:application"
    with gunicorn(database_of_tests(), application=module, WORKERS="1") as service:
        for child in people:
            child.connect(service)
        told = send_all(people, [child.beat() for child in people])
        while not all(answer.status == 200 for answer in told):
            told = send_all(people, [child.beat() for child in people])
        beats = [child.beat(told_session(t)) for child, t in zip(people, told, strict=True)]
        with ThreadPoolExecutor(len(people)) as pool:
            with psycopg.connect(database_of_tests()) as holder:
                holder.execute("LOCK TABLE viewing_sessions IN ACCESS EXCLUSIVE MODE")
                sent = [
                    pool.submit(child.lines[0].post, BEAT, beat)
                    for child, beat in zip(people, beats, strict=True)
                ]
                # All that are not refused are in the statement that waits, or in the queue.
                assert wait_until(lambda: sum(future.done() for future in sent) >= 10, 1.0)
            answers = [future.result() for future in sent]
        for child in people:
            child.hang_up()
    refused = [told for told in answers if told.status == 503]
    assert len(refused) >= 10
    for answer in refused:
        assert answer.is_honest_refusal
        assert answer.heard_at - answer.sent_at < 1_500_000
    served_ones = [told for told in answers if told.status == 200]
    assert len(served_ones) >= 20
    assert len(served_ones) + len(refused) == len(people)
    assert_invariant()
