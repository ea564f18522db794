"""How many beats a step takes: as many as fit, whatever it is that costs time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewingtime.pace import LEAST_BEATS, MOST_BEATS, STEP_SECONDS, Pace

DEADLINE = 1.8
STEPS = st.tuples(st.integers(1, 500), st.floats(0, 3), st.booleans())


def run(pace: Pace, own: float, each: float, *, steps: int, waiting: int = 300) -> list[int]:
    """So many steps of a database that needs `own` seconds for each, and `each` for a beat.

    A step is cut off when the deadline of all in it is over. Beats that each step booked.
    """
    booked = []
    for _ in range(steps):
        beats = min(waiting, pace.most_beats)
        seconds = own + each * beats
        pace.note(beats, min(seconds, DEADLINE), cut_off=seconds > DEADLINE)
        booked.append(beats if seconds <= DEADLINE else 0)
    return booked


@pytest.mark.parametrize("own", [0.005, 0.05, 0.37, 0.45, 0.6, 0.9])
@pytest.mark.parametrize("at_first", [1, 8, 50])
def test_where_only_steps_cost_they_become_large(own: float, at_first: int) -> None:
    pace = Pace()
    pace.note(at_first, 0.004)
    run(pace, own, 0, steps=4, waiting=at_first)
    booked = run(pace, own, 0, steps=40)[10:]
    # A smaller one now and then finds out whether that would be shorter by now.
    assert sum(booked) / len(booked) >= 250
    assert min(booked) >= 100


@pytest.mark.parametrize("each", [0.01, 0.02, 0.08])
def test_where_each_beat_costs_steps_become_short(each: float) -> None:
    pace = Pace()
    pace.note(1, 0.004)
    run(pace, 0, each, steps=5)
    taken = run(pace, 0, each, steps=40)
    assert max(taken) * each <= 3 * STEP_SECONDS
    # No time is lost to the search: most are near what is wanted.
    assert sum(beats * each <= 1.3 * STEP_SECONDS for beats in taken) >= 32


@pytest.mark.parametrize("own", [0.05, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("each", [0.002, 0.005, 0.01])
def test_a_mixture_is_booked_in_time_and_at_a_good_part_of_what_is_possible(
    own: float, each: float
) -> None:
    pace = Pace()
    run(pace, own, each, steps=12)
    taken = run(pace, own, each, steps=40)
    assert 0 not in taken
    seconds = sum(own + each * beats for beats in taken)
    assert sum(taken) / seconds >= 300 / (own + 300 * each) / 5
    assert seconds / 40 <= 1.0


@given(beats=st.integers(1, 500), seconds=st.floats(0, STEP_SECONDS), before=st.lists(STEPS))
def test_a_step_in_time_never_makes_the_next_smaller(
    beats: int, seconds: float, before: list[tuple[int, float, bool]]
) -> None:
    pace = Pace()
    for others, took, was_cut_off in before:
        pace.note(others, took, cut_off=was_cut_off)
    most = pace.most_beats
    pace.note(beats, seconds)
    assert pace.most_beats >= most


@given(before=st.lists(STEPS), deadline=st.floats(0.5, 2))
def test_after_anything_a_step_takes_some_and_whoever_just_came_is_taken(
    before: list[tuple[int, float, bool]], deadline: float
) -> None:
    pace = Pace()
    for beats, seconds, was_cut_off in before:
        pace.note(beats, seconds, cut_off=was_cut_off)
        assert LEAST_BEATS <= pace.most_beats <= MOST_BEATS
        assert 0 <= pace.margin(deadline) < deadline


@given(before=st.lists(STEPS))
def test_whatever_was_before_all_are_taken_soon_after_it_is_over(
    before: list[tuple[int, float, bool]],
) -> None:
    pace = Pace()
    for beats, seconds, was_cut_off in before:
        pace.note(beats, seconds, cut_off=was_cut_off)
    run(pace, 0.004, 0.0001, steps=25, waiting=500)
    assert pace.most_beats == MOST_BEATS


def test_one_beat_that_takes_long_says_nothing_of_many() -> None:
    pace = Pace()
    pace.note(1, 0.05)
    assert pace.most_beats == MOST_BEATS


def test_a_full_request_alone_bounds_the_next_step_by_its_pace() -> None:
    pace = Pace()
    pace.note(1, 0.005)
    pace.note(500, 0.6)
    assert 300 <= pace.most_beats < 400


def test_what_is_refused_without_waiting_tells_nothing() -> None:
    pace = Pace()
    pace.note(200, 0.001, cut_off=True)
    assert pace.most_beats == MOST_BEATS
