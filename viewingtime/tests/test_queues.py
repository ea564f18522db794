"""Who waits for whom in a queue: nobody for those of another household, whatever they claim."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from adminmetrics import recorder
from parentalcontrols.authentication import Caller
from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import Line, database_of_tests, gunicorn
from viewingtime import gathering, heartbeats
from viewingtime.gathering import MOST_REQUESTS_OF_ONE, _Gathering, _Queue, _Waiting
from viewingtime.heartbeats import Heartbeat, Request
from viewingtime.ledger import Answer
from viewingtime.tests.test_concurrency import Household
from viewingtime.tests.village import BEAT, children, told_session


def waiting(account_id: UUID, *profile_ids: UUID, device_of: UUID | None = None) -> _Waiting:
    """A request of an account; `device_of`: of that child's device."""
    scope = "account" if device_of is None else "profile"
    caller = Caller(account_id, 0, scope, profile_id=device_of)
    title_id = uuid4()
    return _Waiting(Request([Heartbeat(p, title_id, "tv") for p in profile_ids], caller), object())


def queue_of(*requests: _Waiting) -> _Queue:
    queue = _Queue("arriving", lambda batch: True, lambda: None, one_each=True)
    for request in requests:
        assert queue.put(request)
    return queue


def end_of(queue: _Queue, batch: Sequence[_Waiting]) -> None:
    for request in batch:
        queue._busy -= request.claims


def test_a_step_takes_a_child_once_however_many_strangers_name_it() -> None:
    home, stranger, child = uuid4(), uuid4(), uuid4()
    own, again = waiting(home, child), waiting(home, child, uuid4())
    foreign = waiting(stranger, child)
    queue = queue_of(foreign, own, again)
    batch = queue._take()
    assert batch == [foreign, own]
    assert queue._take() == []
    end_of(queue, batch)
    assert queue._take() == [again]


def test_a_childs_device_waits_for_its_own_child_alone() -> None:
    home, child, sibling = uuid4(), uuid4(), uuid4()
    prying = waiting(home, sibling, device_of=child)
    own, siblings = waiting(home, child), waiting(home, sibling)
    assert queue_of(prying, siblings, own)._take() == [prying, siblings]


def test_of_one_child_only_so_many_wait_and_all_others_find_room() -> None:
    home, child, sibling = uuid4(), uuid4(), uuid4()
    queue = queue_of(*(waiting(home, child) for _ in range(MOST_REQUESTS_OF_ONE)))
    assert not queue.put(waiting(home, child))
    assert not queue.put(waiting(home, sibling, child))
    assert queue.put(waiting(home, sibling))
    assert queue.put(waiting(uuid4(), child))
    (first, *_) = queue._take()
    assert first.request.heartbeats[0].profile_id == child
    assert queue.put(waiting(home, child))
    assert not queue.put(waiting(home, child))


def test_who_went_away_or_waited_too_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    home, child = uuid4(), uuid4()
    gone = [waiting(home, child) for _ in range(MOST_REQUESTS_OF_ONE)]
    queue = queue_of(*gone)
    monkeypatch.setattr(gathering, "_wake", lambda waiting: None)
    for n, request in enumerate(gone):
        if n % 2:
            request.done = None
        else:
            request.since -= 60
    assert queue._take() == []
    assert queue._wanted == {}
    assert queue.put(waiting(home, child))


def test_the_gauge_is_what_waits_in_all_queues_when_it_is_read() -> None:
    queues = _Gathering()
    recorder.reset(is_on=True)
    recorder.measured(recorder.HEARTBEAT_QUEUE, queues.depth)
    try:
        for queue in (queues.arriving, queues.arriving, queues.deciding, queues.held):
            assert queue.put(waiting(uuid4(), uuid4()))
        assert recorder.read().gauges[recorder.HEARTBEAT_QUEUE] == 4
        assert len(queues.arriving._take()) == 2
        assert recorder.read().gauges[recorder.HEARTBEAT_QUEUE] == 2
        assert len(queues.deciding._take()) == len(queues.held._take()) == 1
        assert recorder.read().gauges[recorder.HEARTBEAT_QUEUE] == 0
    finally:
        recorder.reset()


@pytest.mark.django_db(transaction=True)
def test_of_two_accounts_that_beat_for_one_child_in_a_statement_its_own_is_credited() -> None:
    home, stranger = Household(), Household()
    beat = home.beat(home.children[0], home.open(home.children[0]))
    own, foreign = Request([beat], home.caller), Request([beat], stranger.caller)
    heartbeats.credit([foreign, own])
    assert isinstance(own.answers[0], Answer)
    assert isinstance(foreign.answers[0], Problem)
    assert foreign.answers[0].status == 404
    assert_invariant()


@pytest.mark.django_db(transaction=True)
def test_strangers_who_name_a_child_keep_its_beats_from_nothing() -> None:
    child, stranger, other = children(3)
    module = "viewingtime.tests.small_queues:application"
    with gunicorn(database_of_tests(), application=module, WORKERS="1") as service:
        for each in (child, other):
            each.connect(service)
        lines = [Line(service, stranger.token) for _ in range(12)]
        for line in lines:
            assert line.post(BEAT, child.beat()).status == 404
        beats = [c.beat(told_session(c.lines[0].post(BEAT, c.beat()))) for c in (child, other)]
        for each, beat in zip((child, other), beats, strict=True):
            assert each.lines[0].post(BEAT, beat).status == 200
        with ThreadPoolExecutor(20) as pool:
            with (
                psycopg.connect(database_of_tests(), autocommit=True) as watch,
                psycopg.connect(database_of_tests()) as holder,
            ):
                holder.execute("LOCK TABLE viewing_sessions IN ACCESS EXCLUSIVE MODE")
                blocking = pool.submit(other.lines[0].post, BEAT, beats[1])
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                assert wait_until(lambda: watch.execute(waits).fetchone() == (1,), 1.0)
                foreign = [pool.submit(line.post, BEAT, child.beat()) for line in lines]
                # As many as may wait for one child do, the others are sent away.
                assert wait_until(lambda: sum(f.done() for f in foreign) == 7, 1.0)
                own = pool.submit(child.lines[0].post, BEAT, beats[0])
            assert own.result().status == 200
            assert blocking.result().status == 200
            told = [future.result() for future in foreign]
        for line in (*lines, *child.lines, *other.lines):
            line.close()
    assert sorted(t.status for t in told) == [404] * 5 + [503] * 7
    assert all(t.is_honest_refusal for t in told if t.status == 503)
    assert_invariant()
