"""The player that `manage.py play` plays with: its evenings, its clock, its own reckoning."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from viewingtime.player import evening, reckoning
from viewingtime.player.evening import Act, Plot
from viewingtime.player.reckoning import Reckoning, Rules, Screen, ScreenTime, Sent, Told

EIGHT = datetime(2027, 3, 3, 20, tzinfo=UTC)
CARTOON = reckoning.Title(UUID(int=1), is_educational=False)
DOCUMENTARY = reckoning.Title(UUID(int=2), is_educational=True)


def at(seconds):
    """An instant so many seconds after eight in the evening."""
    return EIGHT + timedelta(seconds=seconds)


class Bench:
    """A reckoning with a service at its side that answers as it is told."""

    def __init__(self, *, is_kids=True, limit_seconds=None):
        limit = None if limit_seconds is None else timedelta(seconds=limit_seconds)
        self.reckoning = Reckoning(Rules(is_kids=is_kids, limit=limit))

    def beat(
        self,
        seconds,
        session_id=None,
        *,
        answer=None,
        verdict="allowed",
        reason=None,
        title=CARTOON,
        device="tv",
        is_paused=False,
    ):
        """The complaint about a beat; without an `answer` the service answers the id it got."""
        return self.reckoning.beat(
            Sent(title, device, session_id, is_paused),
            Told(answer or session_id, verdict, reason, title.is_educational),
            at(seconds),
        )

    def seconds(self, session_id):
        return self.reckoning.total(session_id).total_seconds()


# The evening


@pytest.mark.parametrize("plot", Plot)
@pytest.mark.parametrize("seconds", [6, 180, 1000, 7200])
def test_an_evening_fills_its_time_exactly_whatever_happens_in_it(plot, seconds):
    for seed in range(20):
        steps = evening.plan(plot, seconds=seconds, chance=random.Random(seed))
        assert sum(step.seconds for step in steps) == pytest.approx(seconds)
        assert all(step.seconds >= 0 for step in steps)


def test_a_usual_evening_holds_every_incident_once():
    steps = evening.plan(Plot.USUAL, seconds=180, chance=random.Random(1))
    acts = [step.act for step in steps]
    assert acts[0] is Act.BEGIN
    assert acts[-1] is Act.STOP
    assert sorted(acts) == sorted(set(Act) - {Act.BEGIN_UNHEARD, Act.VANISH})


def test_what_belongs_together_stays_together():
    for seed in range(50):
        steps = evening.plan(Plot.USUAL, seconds=180, chance=random.Random(seed))
        acts = [step.act for step in steps]
        for first, second in [
            (Act.PAUSE, Act.RESUME),
            (Act.LOSE_CONNECTION, Act.RECONNECT),
            (Act.CRASH, Act.RESTART),
        ]:
            assert acts[acts.index(first) + 1] is second


def test_the_same_seed_gives_the_same_evening_and_another_one_another():
    def acts(seed):
        return [s.act for s in evening.plan(Plot.USUAL, seconds=180, chance=random.Random(seed))]

    assert acts(4) == acts(4)
    assert len({tuple(acts(seed)) for seed in range(30)}) > 10


def test_a_careless_child_begins_twice_and_leaves_without_a_word():
    steps = evening.plan(Plot.CARELESS, seconds=180, chance=random.Random(1))
    assert steps[0].act is Act.BEGIN_UNHEARD
    assert steps[-1].act is Act.VANISH


def test_no_lost_connection_ends_where_a_rounding_decides_what_it_means():
    for seconds in range(60, 7200, 37):
        steps = evening.plan(Plot.USUAL, seconds=seconds, chance=random.Random(1))
        lost = next(step.seconds for step in steps if step.act is Act.LOSE_CONNECTION)
        assert abs(lost - evening.SILENCE_SECONDS) >= evening.SILENCE_MARGIN_SECONDS
        assert lost <= evening.LONGEST_LOST_CONNECTION_SECONDS


def test_every_third_family_has_two_kids_and_an_adult():
    sizes = [len(evening.household(number, seconds=180)) for number in range(1, 7)]
    assert sizes == [1, 1, 3, 1, 1, 3]
    plots = [member.plot for member in evening.household(3, seconds=180)]
    assert plots == [Plot.USUAL, Plot.USUAL, Plot.ADULT]


def test_adults_stay_away_when_their_viewing_day_would_end():
    members = evening.household(3, seconds=180, has_adults=False)
    assert [member.name for member in members] == ["kid 1", "kid 2"]


@pytest.mark.parametrize(
    ("seconds", "has_regular_titles", "plot"),
    [
        (960, True, Plot.USUAL),
        (961, True, Plot.EXHAUSTING),
        (961, False, Plot.USUAL),
    ],
)
def test_a_child_runs_out_of_time_only_where_that_can_happen(seconds, has_regular_titles, plot):
    members = evening.household(5, seconds=seconds, has_regular_titles=has_regular_titles)
    assert members[0].plot is plot


def test_players_start_spread_over_one_beat():
    assert evening.start_offsets(4, beat=10) == [0, 2.5, 5, 7.5]


# The own clock


def test_the_screen_knows_how_long_it_played_and_stood_still():
    screen = ScreenTime(at(0))
    screen.show(Screen.PLAYING, at(10))
    screen.show(Screen.PAUSED, at(40))
    screen.show(Screen.PLAYING, at(45))
    screen.show(Screen.DARK, at(65))
    screen.show(Screen.PLAYING, at(100))
    screen.show(Screen.DARK, at(101))
    assert screen.playing == timedelta(seconds=51)
    assert screen.paused == timedelta(seconds=5)


# The rules, by the player's own reckoning


def test_beats_count_the_time_between_them_whatever_their_number():
    bench, session = Bench(), uuid4()
    assert bench.beat(0, answer=session) is None
    for beat in range(1, 101):
        assert bench.beat(beat / 2, session) is None
    assert bench.seconds(session) == 50


def test_a_lost_connection_of_five_minutes_counts_in_full():
    bench, session = Bench(), uuid4()
    bench.beat(0, answer=session)
    assert bench.beat(300, session) is None
    assert bench.seconds(session) == 300


def test_a_longer_silence_ends_the_session_30_s_after_its_last_beat():
    bench, session, fresh = Bench(), uuid4(), uuid4()
    bench.beat(0, answer=session)
    bench.beat(20, session)
    assert bench.beat(330, session, answer=fresh) is None
    assert bench.seconds(session) == 50
    assert bench.seconds(fresh) == 0


def test_a_pause_counts_for_five_minutes():
    bench, session = Bench(), uuid4()
    bench.beat(0, answer=session)
    for seconds in range(10, 1000, 30):
        bench.beat(seconds, session, is_paused=True)
    bench.beat(1000, session)
    assert bench.seconds(session) == 310
    bench.beat(1030, session)
    assert bench.seconds(session) == 340


@pytest.mark.parametrize(("restart", "counted"), [(25, 25), (30, 30), (45, 30)])
def test_a_restart_ends_the_old_session_30_s_after_its_last_beat_at_most(restart, counted):
    bench, old, new = Bench(), uuid4(), uuid4()
    bench.beat(0, answer=old)
    assert bench.beat(restart, answer=new) is None
    assert bench.seconds(old) == counted


def test_another_device_takes_over_and_the_old_one_is_told_so():
    bench, old, new = Bench(), uuid4(), uuid4()
    bench.beat(0, answer=old)
    assert bench.beat(10, answer=new, device="tablet") is None
    assert bench.beat(11, old, verdict="blocked", reason="superseded") is None
    bench.beat(20, new, device="tablet")
    assert (bench.seconds(old), bench.seconds(new)) == (10, 10)


def test_the_devices_of_an_adult_play_side_by_side():
    bench, one, other = Bench(is_kids=False), uuid4(), uuid4()
    bench.beat(0, answer=one)
    assert bench.beat(10, answer=other, device="tablet") is None
    assert bench.beat(20, one) is None
    assert bench.seconds(one) == 20


def test_another_title_is_another_session():
    bench, cartoon, documentary = Bench(), uuid4(), uuid4()
    bench.beat(0, answer=cartoon)
    assert bench.beat(10, cartoon, answer=documentary, title=DOCUMENTARY) is None
    bench.beat(30, documentary, title=DOCUMENTARY)
    assert (bench.seconds(cartoon), bench.seconds(documentary)) == (10, 20)


def test_the_end_counts_up_to_itself_and_a_second_one_nothing():
    bench, session = Bench(), uuid4()
    bench.beat(0, answer=session)
    bench.reckoning.end(session, at(12))
    bench.reckoning.end(session, at(15))
    assert bench.seconds(session) == 12
    assert bench.reckoning.leeway(session) == timedelta(0)


def test_an_end_that_was_sent_again_leaves_open_which_of_the_two_was_taken():
    bench, session = Bench(), uuid4()
    bench.beat(0, answer=session)
    bench.reckoning.end(session, at(12), unheard_since=at(9))
    assert bench.reckoning.leeway(session) == timedelta(seconds=3)


def test_a_child_that_is_not_blocked_when_its_time_is_up_is_a_surprise():
    bench, session = Bench(limit_seconds=60), uuid4()
    bench.beat(0, answer=session, verdict="warning_5")
    assert bench.beat(60.5, session, verdict="warning_5") is None
    assert bench.beat(62, session, verdict="warning_5") == (
        "a beat was answered warning_5, not blocked (viewing_time_exhausted)"
    )


def test_a_child_that_is_blocked_before_its_time_is_up_is_a_surprise():
    bench, session = Bench(limit_seconds=60), uuid4()
    bench.beat(0, answer=session, verdict="warning_5")
    assert "blocked" in bench.beat(58, session, verdict="blocked", reason="viewing_time_exhausted")


def test_a_child_without_time_opens_nothing_but_a_documentary():
    bench, session, documentary = Bench(limit_seconds=60), uuid4(), uuid4()
    bench.beat(0, answer=session, verdict="warning_5")
    over = {"verdict": "blocked", "reason": "viewing_time_exhausted"}
    assert bench.beat(60.1, session, **over) is None
    assert bench.beat(65, **over) is None
    assert bench.beat(70, answer=documentary, title=DOCUMENTARY) is None
    assert bench.seconds(session) == pytest.approx(60.1)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"answer": uuid4()}, "another session"),
        ({"verdict": "blocked", "reason": "session_ended"}, "session_ended"),
    ],
)
def test_an_answer_that_the_rules_do_not_give_is_a_surprise(answer, complaint):
    bench, session = Bench(), uuid4()
    bench.beat(0, answer=session)
    assert complaint in bench.beat(10, session, **answer)
