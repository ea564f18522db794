"""Beats that are taken together by a real service: none waits for, or suffers from, another."""

from collections import Counter

import pytest

from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import Service
from viewingtime.models import ViewingSession
from viewingtime.tests.village import BEAT, at_the_same_time, children

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
