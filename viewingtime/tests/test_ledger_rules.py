"""The rules of accounting and enforcement, sentence by sentence (domain.md sections 2, 3, 4, 6).

Each test is an example of one sentence. What only a database can show (locks, commits, races,
timeouts) and what needs a PIN is tested where it is built; the properties over random evenings
are in test_ledger_properties.py.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from typing import Any
from uuid import UUID

import pytest

from parentalcontrols.viewing_day import Schedule
from viewingtime.ledger import (
    ADULT,
    Answer,
    Balance,
    Beat,
    End,
    Enforcement,
    Ledger,
    Reason,
    Session,
    SessionNotFound,
    Title,
    TitleNotFound,
    Viewer,
    close_silent,
    end_session,
    grant,
    is_steady,
    transition,
)

CARTOON = Title(UUID(int=0xCA))
FILM = Title(UUID(int=0xF1))
DOCUMENTARY = Title(UUID(int=0xD0), is_educational=True)

# A Monday in the middle of its viewing day, and its end: the reset at 06:00 UTC.
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
TO_RESET = 18 * 3600

CHILD = Viewer(
    is_kids=True,
    weekday_limit=timedelta(minutes=120),
    weekend_limit=timedelta(minutes=180),
    educational_exempt=True,
    schedule=Schedule.of(6, "UTC"),
)
UNLIMITED = replace(CHILD, weekday_limit=None, weekend_limit=None)
NOT_EXEMPT = replace(CHILD, educational_exempt=False)


def seconds(amount: float) -> timedelta:
    return timedelta(seconds=amount)


def at(second: float) -> datetime:
    """The instant so many seconds after Monday noon."""
    return NOON + seconds(second)


class Life:
    """One profile, played by hand; every instant is in seconds from Monday noon."""

    def __init__(self, viewer: Viewer = CHILD) -> None:
        self.viewer = viewer
        self.ledger = Ledger()
        self._ids = count(1)

    def new_id(self) -> UUID:
        return UUID(int=next(self._ids))

    def beat(
        self,
        second: float,
        session: UUID | None = None,
        *,
        title: Title | None = CARTOON,
        device: str = "tv",
        paused: bool = False,
    ) -> Answer:
        beat = Beat(title, device, "web", session, paused)
        self.ledger, answer = transition(self.ledger, self.viewer, beat, at(second), self.new_id)
        return answer

    def opened(self, second: float, **beat: Any) -> UUID:
        """The session that a beat without an id opens."""
        answer = self.beat(second, **beat)
        assert answer.reason is None
        assert answer.session_id is not None
        return answer.session_id

    def beats(self, seconds_: range, session: UUID, **beat: Any) -> Answer:
        for second in seconds_:
            answer = self.beat(second, session, **beat)
        return answer

    def end(self, second: float, session: UUID) -> Session:
        self.ledger, ended = end_session(self.ledger, self.viewer, session, at(second), self.new_id)
        return ended

    def grant(self, second: float, minutes: int | None) -> Balance:
        self.ledger, balance = grant(self.ledger, self.viewer, minutes, at(second))
        return balance

    def sweep(self, second: float) -> None:
        self.ledger = close_silent(self.ledger, self.viewer, at(second))

    def set_limit(self, limit: timedelta | None, day: date = MONDAY) -> None:
        """A change of the config, which updates the running day's balance too."""
        self.viewer = replace(self.viewer, weekday_limit=limit)
        balances = dict(self.ledger.balances)
        if day in balances:
            balances[day] = replace(balances[day], limit=limit)
        self.ledger = Ledger(self.ledger.sessions, balances)

    def watched(self, amount: timedelta, day: date = MONDAY) -> None:
        """The child has watched that much before, with a session that it ended."""
        session = Session(
            id=self.new_id(),
            title_id=CARTOON.id,
            device_id="tv",
            device_type="web",
            is_educational=False,
            reset_date=day,
            started_at=at(0) - amount,
            last_heartbeat_at=at(0),
            ended_at=at(0),
            end_reason=End.STOPPED,
            total=amount,
        )
        balance = Balance(day, used=amount, limit=self.viewer.limit(day))
        self.ledger = Ledger(
            {**self.ledger.sessions, session.id: session}, {**self.ledger.balances, day: balance}
        )

    def session(self, session: UUID | None) -> Session:
        assert session is not None
        return self.ledger.sessions[session]

    def total(self, session: UUID | None) -> float:
        return self.session(session).total.total_seconds()

    def reason(self, session: UUID | None) -> str | None:
        return self.session(session).end_reason

    def ended(self, session: UUID | None) -> float:
        """When it ended, in seconds from Monday noon."""
        ended_at = self.session(session).ended_at
        assert ended_at is not None
        return (ended_at - NOON).total_seconds()

    def used(self, day: date = MONDAY) -> float:
        return self.ledger.balances[day].used.total_seconds()

    def educational(self, day: date = MONDAY) -> float:
        return self.ledger.balances[day].educational.total_seconds()

    @property
    def open(self) -> list[UUID]:
        return [s.id for s in self.ledger.sessions.values() if s.ended_at is None]

    def assert_books_agree(self) -> None:
        days = {s.reset_date for s in self.ledger.sessions.values()} | {*self.ledger.balances}
        for day in days:
            watched = [s for s in self.ledger.sessions.values() if s.reset_date == day]
            balance = self.ledger.balances[day]
            assert sum((s.total for s in watched), timedelta(0)) == (
                balance.used + balance.educational
            )


def almost_out(left: float, viewer: Viewer = CHILD) -> Life:
    """A child with `left` seconds left at Monday noon."""
    life = Life(viewer)
    limit = viewer.limit(MONDAY)
    assert limit is not None
    life.watched(limit - seconds(left))
    return life


# Section 2. A credit is the time since the last beat


def test_a_sessions_first_beat_credits_nothing_and_makes_the_days_row() -> None:
    life = Life()
    answer = life.beat(0)
    assert life.total(answer.session_id) == 0
    assert life.ledger.balances == {MONDAY: Balance(MONDAY, limit=timedelta(minutes=120))}
    assert answer.used == timedelta(0)
    assert answer.remaining == timedelta(minutes=120)


def test_a_beat_credits_the_time_since_the_last_one_and_not_a_constant() -> None:
    life = Life()
    session = life.opened(0)
    assert life.beat(17.25, session).used == seconds(17.25)
    assert life.beat(60, session).used == seconds(60)
    assert life.total(session) == 60


def test_a_hundred_beats_half_a_second_apart_are_fifty_seconds() -> None:
    life = Life()
    session = life.opened(0)
    for number in range(1, 101):
        life.beat(number / 2, session)
    assert life.total(session) == life.used() == 50


def test_a_credit_is_exact_below_the_millisecond() -> None:
    life = Life()
    session = life.opened(0)
    for number in range(1, 1001):
        life.beat(number * 0.0301, session)
    assert life.ledger.balances[MONDAY].used == timedelta(milliseconds=30100)


def test_copies_of_one_beat_credit_the_interval_once() -> None:
    life = Life()
    session = life.opened(0)
    answers = [life.beat(30, session) for _ in range(50)]
    assert life.total(session) == life.used() == 30
    assert all(answer == answers[0] for answer in answers)


def test_copies_of_a_first_beat_credit_nothing() -> None:
    life = Life()
    for _ in range(32):
        last = life.beat(0)
    assert life.open == [last.session_id]
    assert life.used() == 0


def test_a_retried_beat_changes_nothing_beyond_elapsed_time() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(30, session)
    life.beat(32, session)
    life.beat(60, session)
    assert life.total(session) == 60


# Section 2. A clock that was stepped back


@pytest.mark.parametrize("back", [0.001, 3, 5])
def test_a_beat_up_to_five_seconds_before_the_last_one_credits_nothing_and_moves_nothing(
    back: float,
) -> None:
    life = Life()
    session = life.opened(0)
    life.beat(30, session)
    before = life.ledger
    answer = life.beat(30 - back, session)
    assert answer.session_id == session
    assert life.ledger == before
    life.beat(60, session)
    assert life.total(session) == 60


def test_a_beat_further_back_ends_the_session_where_it_stands_and_opens_a_fresh_one() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(30, session)
    answer = life.beat(24.999, session)
    assert (life.reason(session), life.ended(session), life.total(session)) == ("clock", 30, 30)
    assert answer.reason is None
    assert answer.session_id not in (None, session)
    assert life.open == [answer.session_id]
    # The time until the clock has caught up is not free.
    life.beat(60, answer.session_id)
    assert life.total(answer.session_id) == pytest.approx(35.001)
    life.assert_books_agree()


def test_another_device_too_notices_a_clock_that_was_stepped_back() -> None:
    life = Life()
    tv = life.opened(0)
    life.beat(30, tv)
    tablet = life.opened(10, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.total(tv)) == ("clock", 30, 30)
    assert life.session(tablet).started_at == at(10)


def test_a_late_duplicate_too_notices_a_clock_that_was_stepped_back() -> None:
    life = Life()
    first = life.opened(0)
    second = life.beat(30, first, title=FILM).session_id
    life.beat(60, second, title=FILM)
    answer = life.beat(50, first, title=FILM)
    assert (life.reason(second), life.ended(second), life.total(second)) == ("clock", 60, 30)
    assert life.open == [answer.session_id]
    assert life.session(answer.session_id).started_at == at(50)


def test_a_device_switch_within_the_tolerance_counts_no_second_twice() -> None:
    life = Life()
    tv = life.opened(0)
    life.beat(30, tv)
    tablet = life.opened(27, device="tablet")
    life.beat(60, tablet, device="tablet")
    assert (life.total(tv), life.reason(tv)) == (30, "superseded")
    assert life.used() == 60


def test_the_viewing_day_is_never_earlier_than_the_latest_balance_row() -> None:
    life = Life()
    session = life.opened(TO_RESET + 60)
    answer = life.beat(TO_RESET - 60, session)
    assert life.reason(session) == "clock"
    assert life.session(answer.session_id).reset_date == TUESDAY
    assert {*life.ledger.balances} == {TUESDAY}
    assert life.grant(TO_RESET - 60, 15).reset_date == TUESDAY


# Section 2. Pause


def test_a_pause_is_set_by_the_first_paused_beat_and_cleared_by_the_first_other_one() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(30, session, paused=True)
    life.beat(60, session, paused=True)
    assert life.session(session).paused_at == at(30)
    life.beat(90, session)
    assert life.session(session).paused_at is None
    life.beat(120, session, paused=True)
    assert life.session(session).paused_at == at(120)


def test_a_session_may_begin_paused() -> None:
    life = Life()
    session = life.opened(0, paused=True)
    assert life.session(session).paused_at == NOON


def test_a_pause_of_three_minutes_counts_in_full() -> None:
    life = Life()
    session = life.opened(0)
    life.beats(range(30, 181, 30), session, paused=True)
    life.beat(210, session)
    assert life.total(session) == 210


def test_a_pause_of_fifteen_minutes_counts_five() -> None:
    life = Life()
    session = life.opened(0)
    life.beats(range(30, 901, 30), session, paused=True)
    life.beat(930, session)
    life.beat(960, session)
    # 30 s before the pause, 300 s of it, 30 s after it.
    assert life.total(session) == life.used() == 360


def test_a_pause_stops_counting_in_the_middle_of_an_interval() -> None:
    life = Life()
    session = life.opened(0, paused=True)
    life.beat(290, session, paused=True)
    life.beat(320, session, paused=True)
    assert life.total(session) == 300
    life.beat(350, session)
    assert life.total(session) == 300


def test_each_pause_counts_its_own_five_minutes() -> None:
    life = Life()
    session = life.opened(0)
    for start in (0, 600):
        life.beats(range(start + 30, start + 541, 30), session, paused=True)
        life.beat(start + 570, session)
    # 30 s, 300 of 540 s, then 60 s to the next pause and again 300 of 540 s.
    assert life.total(session) == 30 + 300 + 60 + 300


# Section 2. Silence


def test_a_gap_of_up_to_three_hundred_seconds_counts_in_full() -> None:
    life = Life()
    session = life.opened(0)
    answer = life.beat(300, session)
    assert answer.session_id == session
    assert life.total(session) == 300


def test_a_longer_gap_makes_the_session_stale_thirty_seconds_after_its_last_beat() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(60, session)
    answer = life.beat(360.001, session)
    assert (life.reason(session), life.ended(session), life.total(session)) == ("stale", 90, 90)
    assert answer.reason is None
    assert life.session(answer.session_id).started_at == at(360.001)
    assert life.used() == 90


def test_a_session_is_stale_swept_or_not() -> None:
    swept, unswept = Life(), Life()
    for life in (swept, unswept):
        session = life.opened(0)
        life.beat(60, session)
    swept.sweep(400)
    for life in (swept, unswept):
        life.beat(500, session)
    assert swept.ledger == unswept.ledger


def test_the_sweep_leaves_a_session_alone_that_is_not_silent() -> None:
    life = Life()
    life.opened(0)
    before = life.ledger
    life.sweep(300)
    assert life.ledger == before


def test_a_session_that_is_superseded_ended_now() -> None:
    life = Life()
    tv = life.opened(0)
    life.opened(20, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.total(tv)) == ("superseded", 20, 20)


def test_a_session_that_is_superseded_ended_thirty_seconds_after_its_last_beat_if_earlier() -> None:
    life = Life()
    tv = life.opened(0)
    life.opened(200, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.total(tv)) == ("superseded", 30, 30)


def test_restarting_the_player_every_29_seconds_is_not_free() -> None:
    life = Life()
    for number in range(11):
        life.opened(number * 29)
    assert life.used() == 290
    assert len(life.open) == 1


def test_an_end_is_at_now_by_the_rules_of_a_beat() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(30, session)
    ended = life.end(100, session)
    assert ended.ended_at == at(100)
    assert (ended.end_reason, ended.total) == ("stopped", seconds(100))
    assert life.used() == 100


def test_an_end_with_the_clock_stepped_back_ends_the_session_where_it_stands() -> None:
    for back in (3, 60):
        life = Life()
        session = life.opened(0)
        life.beat(90, session)
        ended = life.end(90 - back, session)
        assert (ended.ended_at, ended.total) == (at(90), seconds(90))
        assert life.open == []


def test_an_end_on_a_session_that_was_silent_books_the_stale_end_and_answers_that() -> None:
    life = Life()
    session = life.opened(0)
    ended = life.end(301, session)
    assert (ended.end_reason, ended.ended_at, ended.total) == ("stale", at(30), seconds(30))
    assert life.used() == 30


def test_an_end_after_a_gap_of_three_hundred_seconds_counts_in_full() -> None:
    life = Life()
    assert life.end(300, life.opened(0)).total == seconds(300)


def test_ending_twice_is_the_same_as_ending_once() -> None:
    life = Life()
    session = life.opened(0)
    once = life.end(30, session)
    before = life.ledger
    assert life.end(60, session) == once
    assert life.ledger == before


# Section 2. Every end credits from the last beat to the end by the pause rule


def stopped(life: Life, session: UUID) -> None:
    life.end(310, session)


def superseded(life: Life, session: UUID) -> None:
    life.beat(310, device="tablet")


def stale(life: Life, session: UUID) -> None:
    life.sweep(800)


def title_changed(life: Life, session: UUID) -> None:
    life.beat(310, session, title=FILM)


def exhausted(life: Life, session: UUID) -> None:
    life.set_limit(timedelta(0))
    life.beat(310, session)


ENDINGS = [stopped, superseded, stale, title_changed, exhausted]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_end_credits_from_the_last_beat_to_the_end(
    ending: Callable[[Life, UUID], None],
) -> None:
    life = Life()
    session = life.opened(280)
    life.beat(290, session)
    ending(life, session)
    assert life.reason(session) == ending.__name__
    assert life.ended(session) == (320 if ending is stale else 310)
    assert life.total(session) == life.ended(session) - 280
    life.assert_books_agree()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_end_credits_by_the_pause_rule(ending: Callable[[Life, UUID], None]) -> None:
    life = Life()
    session = life.opened(0, paused=True)
    life.beat(290, session, paused=True)
    ending(life, session)
    assert life.reason(session) == ending.__name__
    assert life.ended(session) == (320 if ending is stale else 310)
    assert life.total(session) == life.used() == 300
    life.assert_books_agree()


def test_the_end_at_a_reset_credits_by_the_pause_rule() -> None:
    life = Life()
    session = life.opened(TO_RESET - 310, paused=True)
    life.beat(TO_RESET - 20, session, paused=True)
    life.beat(TO_RESET + 10, session, paused=True)
    assert life.reason(session) == "reset"
    assert life.total(session) == 300


def test_the_tail_of_a_stale_session_stops_at_the_reset() -> None:
    life = Life()
    session = life.opened(TO_RESET - 10)
    life.sweep(TO_RESET + 300)
    assert (life.reason(session), life.ended(session)) == ("stale", TO_RESET)
    assert life.used(MONDAY) == life.total(session) == 10
    assert TUESDAY not in life.ledger.balances


def test_the_tail_of_a_superseded_session_stops_at_the_reset() -> None:
    life = Life()
    tv = life.opened(TO_RESET - 10)
    tablet = life.opened(TO_RESET + 10, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.total(tv)) == ("superseded", TO_RESET, 10)
    assert life.session(tablet).reset_date == TUESDAY
    assert (life.used(MONDAY), life.used(TUESDAY)) == (10, 0)


def test_a_tail_is_booked_by_the_childs_next_beat_on_whatever_device() -> None:
    life = Life()
    tv = life.opened(0)
    life.opened(400, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.used()) == ("stale", 30, 30)


def test_a_tail_is_booked_by_a_grant() -> None:
    life = Life()
    tv = life.opened(0)
    balance = life.grant(400, 15)
    assert (life.reason(tv), life.ended(tv)) == ("stale", 30)
    assert balance.used == seconds(30)


def test_a_tail_is_booked_by_the_sweep() -> None:
    life = Life()
    tv = life.opened(0)
    life.sweep(301)
    assert (life.reason(tv), life.ended(tv), life.used()) == ("stale", 30, 30)


# Section 2. Reset crossing


def test_a_beat_that_straddles_the_reset_is_split_there() -> None:
    life = Life()
    old = life.opened(TO_RESET - 100)
    life.beat(TO_RESET - 10, old)
    answer = life.beat(TO_RESET + 20, old)
    assert (life.used(MONDAY), life.used(TUESDAY)) == (100, 20)
    assert (life.reason(old), life.ended(old)) == ("reset", TO_RESET)
    new = life.session(answer.session_id)
    assert new.id != old
    assert new.reset_date == TUESDAY
    assert new.started_at == at(TO_RESET)
    assert new.last_heartbeat_at == at(TO_RESET + 20)
    assert new.total == seconds(20)
    assert (answer.used, answer.reason) == (seconds(20), None)
    life.assert_books_agree()


def test_the_session_after_a_reset_has_the_same_title_flag_device_and_pause() -> None:
    life = Life()
    old = life.opened(TO_RESET - 100, title=DOCUMENTARY, device="tablet")
    life.beat(TO_RESET - 10, old, title=DOCUMENTARY, device="tablet", paused=True)
    answer = life.beat(TO_RESET + 20, old, title=DOCUMENTARY, device="tablet", paused=True)
    new = life.session(answer.session_id)
    assert (new.title_id, new.is_educational) == (DOCUMENTARY.id, True)
    assert (new.device_id, new.device_type) == ("tablet", "web")
    assert new.paused_at == at(TO_RESET - 10)


def test_a_pause_is_not_lengthened_by_a_reset() -> None:
    life = Life()
    session: UUID | None = life.opened(TO_RESET - 100, paused=True)
    for second in range(TO_RESET - 70, TO_RESET + 600, 30):
        session = life.beat(second, session, paused=True).session_id
    assert (life.used(MONDAY), life.used(TUESDAY)) == (100, 200)


def test_a_beat_at_the_very_reset_belongs_to_the_new_day() -> None:
    life = Life()
    old = life.opened(TO_RESET - 30)
    answer = life.beat(TO_RESET, old)
    assert (life.reason(old), life.total(old)) == ("reset", 30)
    assert life.session(answer.session_id).reset_date == TUESDAY
    assert (answer.session_id != old, answer.used) == (True, timedelta(0))


def test_a_reset_gives_the_new_days_time_to_a_child_that_had_used_up_the_old_one() -> None:
    life = Life()
    life.watched(timedelta(minutes=119))
    old = life.opened(TO_RESET - 100)
    answer = life.beat(TO_RESET + 20, old)
    assert life.reason(old) == "reset"
    assert answer.enforcement is Enforcement.ALLOWED
    assert answer.remaining == timedelta(minutes=120) - seconds(20)


def test_an_end_that_crosses_leaves_both_parts_stopped_and_answers_the_id_asked_for() -> None:
    life = Life()
    old = life.opened(TO_RESET - 100)
    answered = life.end(TO_RESET + 20, old)
    assert answered.id == old
    assert (answered.end_reason, answered.ended_at) == ("stopped", at(TO_RESET))
    (other,) = [s for s in life.ledger.sessions.values() if s.id != old]
    assert (other.end_reason, other.ended_at) == ("stopped", at(TO_RESET + 20))
    assert (other.started_at, other.reset_date) == (at(TO_RESET), TUESDAY)
    assert (life.used(MONDAY), life.used(TUESDAY)) == (100, 20)


def test_an_old_session_id_goes_on_after_the_reset_without_knowing() -> None:
    life = Life()
    old = life.opened(TO_RESET - 30)
    new = life.beat(TO_RESET + 10, old).session_id
    answer = life.beat(TO_RESET + 40, old)
    assert answer.session_id == new
    assert life.used(TUESDAY) == 40


# Section 2. Educational titles


def test_an_exempt_title_is_credited_as_educational_on_balance_and_session() -> None:
    life = Life()
    session = life.opened(0, title=DOCUMENTARY)
    answer = life.beat(30, session, title=DOCUMENTARY)
    assert (life.used(), life.educational()) == (0, 30)
    assert life.session(session).educational == life.session(session).total == seconds(30)
    assert answer.is_educational
    assert answer.remaining == timedelta(minutes=120)


def test_an_educational_title_counts_where_the_config_does_not_exempt_it() -> None:
    life = Life(NOT_EXEMPT)
    session = life.opened(0, title=DOCUMENTARY)
    answer = life.beat(30, session, title=DOCUMENTARY)
    assert (life.used(), life.educational()) == (30, 0)
    assert life.session(session).educational == timedelta(0)
    assert answer.is_educational


def test_a_regular_title_counts_whatever_the_config_says() -> None:
    for viewer in (CHILD, NOT_EXEMPT):
        life = Life(viewer)
        life.beat(30, life.opened(0))
        assert (life.used(), life.educational()) == (30, 0)


def test_the_exemption_is_the_one_at_that_beat() -> None:
    life = Life()
    session = life.opened(0, title=DOCUMENTARY)
    life.beat(30, session, title=DOCUMENTARY)
    life.viewer = NOT_EXEMPT
    life.beat(70, session, title=DOCUMENTARY)
    life.viewer = CHILD
    life.beat(120, session, title=DOCUMENTARY)
    assert (life.educational(), life.used()) == (80, 40)
    assert life.session(session).educational == seconds(80)
    life.assert_books_agree()


def test_the_flag_is_read_at_session_start_and_kept() -> None:
    for title in (CARTOON, DOCUMENTARY):
        life = Life()
        session = life.opened(0, title=title)
        turned = replace(title, is_educational=not title.is_educational)
        answer = life.beat(30, session, title=turned)
        assert answer.session_id == session
        assert answer.is_educational == title.is_educational
        assert life.educational() == (30 if title.is_educational else 0)


def test_a_title_of_which_nothing_is_known_is_regular() -> None:
    life = Life()
    life.beat(30, life.opened(0, title=Title(UUID(int=9))), title=Title(UUID(int=9)))
    assert (life.used(), life.educational()) == (30, 0)


# Section 2. Change of title


@pytest.mark.parametrize(
    ("first", "second", "used", "educational"),
    [(DOCUMENTARY, CARTOON, 20, 30), (CARTOON, DOCUMENTARY, 30, 20)],
)
def test_another_title_credits_and_ends_the_session_and_opens_one_for_the_new_title(
    first: Title, second: Title, used: float, educational: float
) -> None:
    life = Life()
    old = life.opened(0, title=first)
    answer = life.beat(30, old, title=second)
    assert (life.reason(old), life.ended(old), life.total(old)) == ("title_changed", 30, 30)
    new = life.session(answer.session_id)
    assert (new.title_id, new.started_at) == (second.id, at(30))
    assert answer.is_educational == second.is_educational
    life.beat(50, new.id, title=second)
    assert (life.used(), life.educational()) == (used, educational)
    life.assert_books_agree()


def test_a_change_of_title_over_a_reset_credits_each_day() -> None:
    life = Life()
    old = life.opened(TO_RESET - 10)
    answer = life.beat(TO_RESET + 20, old, title=FILM)
    assert (life.used(MONDAY), life.used(TUESDAY)) == (10, 20)
    assert life.session(answer.session_id).started_at == at(TO_RESET + 20)
    assert {s.end_reason for s in life.ledger.sessions.values()} == {
        "reset",
        "title_changed",
        None,
    }


def test_a_change_to_a_title_that_counts_is_refused_without_time() -> None:
    life = almost_out(left=0)
    old = life.opened(0, title=DOCUMENTARY)
    answer = life.beat(30, old, title=CARTOON)
    assert life.reason(old) == "title_changed"
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert answer.session_id == old
    assert life.open == []


def test_a_change_to_an_exempt_title_is_allowed_without_time() -> None:
    life = almost_out(left=10)
    old = life.opened(0)
    answer = life.beat(30, old, title=DOCUMENTARY)
    assert life.reason(old) == "exhausted"
    assert (answer.enforcement, answer.reason) == ("allowed", None)
    assert life.session(answer.session_id).title_id == DOCUMENTARY.id


# Section 1. Titles that cannot be started


def test_a_withdrawn_title_cannot_be_started() -> None:
    life = Life()
    withdrawn = replace(CARTOON, is_withdrawn=True)
    with pytest.raises(TitleNotFound):
        life.beat(0, title=withdrawn)
    session = life.opened(0, title=FILM)
    before = life.ledger
    with pytest.raises(TitleNotFound):
        life.beat(30, session, title=withdrawn)
    assert life.ledger == before


def test_a_running_session_of_a_withdrawn_title_goes_on() -> None:
    life = Life()
    session = life.opened(TO_RESET - 60)
    withdrawn = replace(CARTOON, is_withdrawn=True)
    assert life.beat(TO_RESET - 30, session, title=withdrawn).session_id == session
    # Over the reset too: nobody started anything.
    answer = life.beat(TO_RESET + 30, session, title=withdrawn)
    assert (answer.enforcement, life.used(TUESDAY)) == ("allowed", 30)


def test_a_title_that_does_not_exist_is_not_found() -> None:
    life = Life()
    with pytest.raises(TitleNotFound):
        life.beat(0, title=None)


# Section 2. The invariant


def test_an_evening_with_everything_in_it_agrees_with_its_balances() -> None:
    life = Life()
    tv = life.opened(TO_RESET - 900)
    life.beat(TO_RESET - 870, tv, paused=True)
    tablet = life.opened(TO_RESET - 860, device="tablet", title=DOCUMENTARY)
    life.beat(TO_RESET - 800, tablet, device="tablet", title=FILM)
    life.grant(TO_RESET - 700, 15)
    life.beat(TO_RESET - 400, tablet, device="tablet", title=FILM)
    life.viewer = NOT_EXEMPT
    night = life.opened(TO_RESET - 20, title=DOCUMENTARY)
    life.beat(TO_RESET + 10, night, title=DOCUMENTARY)
    life.end(TO_RESET + 60, max(life.open))
    life.assert_books_agree()
    assert {*life.ledger.balances} == {MONDAY, TUESDAY}


# Section 3. One stream per child


def test_a_child_has_at_most_one_open_session() -> None:
    life = Life()
    for number, device in enumerate(["tv", "tablet", "tv", "phone", "phone"]):
        life.opened(number * 10, device=device)
        assert len(life.open) == 1


def test_two_racing_first_beats_leave_exactly_one_session_open() -> None:
    life = Life()
    life.beat(0, device="tv")
    last = life.beat(0, device="tablet")
    assert life.open == [last.session_id]


def test_adults_may_have_several_sessions_and_have_no_balance_rows() -> None:
    life = Life(ADULT)
    tv, tablet = life.opened(0), life.opened(10, device="tablet")
    assert life.open == [tv, tablet]
    life.beat(30, tv)
    life.beat(70, tablet, device="tablet")
    assert (life.total(tv), life.total(tablet)) == (30, 60)
    assert life.ledger.balances == {}


def test_an_adult_is_always_unlimited() -> None:
    life = Life(ADULT)
    session: UUID | None = life.opened(0)
    for hour in range(1, 10):
        for minute in range(0, 60, 5):
            answer = life.beat(hour * 3600 + minute * 60, session)
            session = answer.session_id
    assert (answer.enforcement, answer.remaining) == ("allowed", None)
    assert answer.next_heartbeat_seconds == 30


def test_an_adults_day_is_by_six_utc() -> None:
    life = Life(replace(ADULT))
    old = life.opened(TO_RESET - 10)
    new = life.beat(TO_RESET + 10, old).session_id
    assert (life.session(old).reset_date, life.session(new).reset_date) == (MONDAY, TUESDAY)


def test_a_beat_without_a_session_id_opens_a_session() -> None:
    life = Life()
    first = life.opened(0)
    second = life.opened(10)
    assert first != second
    assert life.reason(first) == "superseded"


def test_a_beat_with_the_id_of_another_devices_session_opens_a_session() -> None:
    life = Life()
    tv = life.opened(0)
    answer = life.beat(20, tv, device="tablet")
    assert answer.session_id != tv
    assert life.session(answer.session_id).device_id == "tablet"
    assert (life.reason(tv), life.total(tv)) == ("superseded", 20)


def test_where_the_tail_uses_up_the_time_it_ends_exhausted_and_the_other_is_blocked() -> None:
    life = almost_out(left=10)
    tv = life.opened(0)
    answer = life.beat(20, device="tablet")
    assert (life.reason(tv), life.ended(tv), life.total(tv)) == ("exhausted", 20, 20)
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert answer.session_id is None
    assert life.open == []


def test_a_tail_that_uses_up_yesterdays_time_does_not_block_today() -> None:
    life = Life()
    life.set_limit(seconds(20))
    tv = life.opened(TO_RESET - 25)
    tablet = life.opened(TO_RESET + 2, device="tablet")
    assert (life.reason(tv), life.total(tv), life.used(MONDAY)) == ("superseded", 25, 25)
    assert life.open == [tablet]


def test_where_an_exempt_tail_runs_out_of_nothing_the_session_is_superseded() -> None:
    life = almost_out(left=0)
    tv = life.opened(0, title=DOCUMENTARY)
    life.opened(20, device="tablet", title=DOCUMENTARY)
    assert life.reason(tv) == "superseded"


def test_a_beat_that_is_refused_at_once_changes_nothing() -> None:
    life = almost_out(left=0)
    tv = life.opened(0, title=DOCUMENTARY)
    before = life.ledger
    answer = life.beat(20, device="tablet")
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert life.ledger == before
    # Whoever is playing goes on.
    assert life.beat(30, tv, title=DOCUMENTARY).enforcement is Enforcement.ALLOWED


def test_a_beat_for_a_stopped_session_is_blocked_and_credits_nothing() -> None:
    life = Life()
    session = life.opened(0)
    life.end(30, session)
    before = life.ledger
    answer = life.beat(60, session)
    assert (answer.enforcement, answer.reason) == ("blocked", "session_ended")
    assert answer.session_id == session
    assert life.ledger == before


def test_a_beat_for_a_stopped_session_is_blocked_even_where_the_device_plays_again() -> None:
    life = Life()
    session = life.opened(0)
    life.end(30, session)
    life.opened(40)
    before = life.ledger
    assert life.beat(60, session).reason is Reason.SESSION_ENDED
    assert life.ledger == before


def test_a_late_duplicate_continues_the_session_that_the_device_has_open_by_now() -> None:
    life = Life()
    first = life.opened(0)
    second = life.beat(30, first, title=FILM).session_id
    answer = life.beat(40, first)
    assert answer.session_id == second
    assert life.open == [second]
    assert life.used() == 40


def test_the_loser_of_a_race_of_first_beats_continues_the_session_of_the_winner() -> None:
    life = Life()
    loser, winner = life.opened(0), life.opened(0)
    assert life.beat(30, loser).session_id == winner
    assert life.beat(60, winner).session_id == winner
    assert life.used() == 60


def test_a_beat_for_a_superseded_session_is_blocked() -> None:
    life = Life()
    tv = life.opened(0)
    tablet = life.opened(20, device="tablet")
    before = life.ledger
    answer = life.beat(30, tv)
    assert (answer.enforcement, answer.reason) == ("blocked", "superseded")
    assert answer.session_id == tv
    assert life.ledger == before
    # It is so after the other device has stopped, too.
    life.end(40, tablet)
    assert life.beat(50, tv).reason is Reason.SUPERSEDED


def test_a_player_that_woke_from_sleep_goes_on_with_a_fresh_session() -> None:
    life = Life()
    session = life.opened(0)
    answer = life.beat(4000, session)
    assert answer.reason is None
    assert life.open == [answer.session_id]
    assert answer.session_id != session
    # The same old id goes on with the session that is open by now.
    assert life.beat(4030, session).session_id == answer.session_id


def test_a_player_that_got_extra_time_goes_on_with_a_fresh_session() -> None:
    life = almost_out(left=10)
    session = life.opened(0)
    assert life.beat(30, session).reason is Reason.VIEWING_TIME_EXHAUSTED
    life.grant(60, 15)
    answer = life.beat(90, session)
    assert (answer.enforcement, answer.reason) == ("warning_15", None)
    assert life.session(answer.session_id).started_at == at(90)


def test_a_player_that_woke_is_blocked_while_another_device_plays() -> None:
    life = Life()
    tv = life.opened(0)
    life.sweep(400)
    tablet = life.opened(500, device="tablet")
    answer = life.beat(510, tv)
    assert (answer.enforcement, answer.reason) == ("blocked", "superseded")
    assert life.open == [tablet]


def test_a_player_that_woke_is_blocked_without_time() -> None:
    life = almost_out(left=10)
    session = life.opened(0)
    answer = life.beat(400, session)
    assert life.reason(session) == "stale"
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert life.open == []


def test_a_session_id_that_does_not_exist_is_not_found() -> None:
    life = Life()
    with pytest.raises(SessionNotFound):
        life.beat(0, UUID(int=404))
    with pytest.raises(SessionNotFound):
        life.end(0, UUID(int=404))
    assert life.ledger == Ledger()


def test_beats_at_one_instant_are_taken_in_list_order() -> None:
    life = Life()
    life.beat(0, device="tv")
    life.beat(0, device="tablet")
    assert life.session(life.open[0]).device_id == "tablet"
    life.beat(0, device="tv")
    assert life.session(life.open[0]).device_id == "tv"


# Section 4. Enforcement


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (901, "allowed"),
        (900.001, "allowed"),
        (900, "warning_15"),
        (300.001, "warning_15"),
        (300, "warning_5"),
        (0.001, "warning_5"),
        (0, "blocked"),
        (-1, "blocked"),
    ],
)
def test_enforcement_follows_what_remains_after_the_credit(left: float, expected: str) -> None:
    life = almost_out(left + 10)
    answer = life.beat(10, life.opened(0))
    assert answer.enforcement == expected
    assert answer.remaining == seconds(max(0, left))
    assert (answer.reason is not None) == (expected == "blocked")


def test_what_remains_is_null_and_allowed_without_a_limit_and_under_the_override() -> None:
    life = Life(UNLIMITED)
    answer = life.beat(30, life.opened(0))
    assert (answer.enforcement, answer.remaining) == ("allowed", None)
    life = almost_out(left=10)
    session = life.opened(0)
    life.grant(5, None)
    answer = life.beat(30, session)
    assert (answer.enforcement, answer.remaining, answer.reason) == ("allowed", None, None)


def test_an_exempt_title_is_always_allowed_at_zero_remaining_too() -> None:
    life = almost_out(left=0)
    session = life.opened(0, title=DOCUMENTARY)
    answer = life.beat(30, session, title=DOCUMENTARY)
    assert (answer.enforcement, answer.reason) == ("allowed", None)
    assert answer.remaining == timedelta(0)
    assert answer.next_heartbeat_seconds == 30


def test_an_educational_title_that_is_not_exempt_is_blocked_like_any_other() -> None:
    life = almost_out(left=10, viewer=NOT_EXEMPT)
    answer = life.beat(30, life.opened(0, title=DOCUMENTARY), title=DOCUMENTARY)
    assert answer.reason is Reason.VIEWING_TIME_EXHAUSTED


def test_the_beat_that_finds_the_time_used_up_ends_the_session() -> None:
    life = almost_out(left=10)
    session = life.opened(0)
    answer = life.beat(30, session)
    assert (life.reason(session), life.ended(session), life.total(session)) == ("exhausted", 30, 30)
    assert answer.session_id == session
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert answer.remaining == timedelta(0)


def test_a_blocked_profile_cannot_open_a_session() -> None:
    life = almost_out(left=0)
    before = life.ledger
    answer = life.beat(0)
    assert (answer.enforcement, answer.reason) == ("blocked", "viewing_time_exhausted")
    assert answer.session_id is None
    assert life.ledger == before


def test_a_blocked_beat_answers_the_session_id_it_was_sent() -> None:
    life = almost_out(left=10)
    session = life.opened(0)
    life.beat(30, session)
    before = life.ledger
    answer = life.beat(60, session)
    assert (answer.session_id, answer.reason) == (session, "viewing_time_exhausted")
    assert life.ledger == before


def test_a_lowered_limit_blocks_with_the_next_beat() -> None:
    life = Life()
    life.watched(timedelta(minutes=60))
    session = life.opened(0)
    assert life.beat(30, session).enforcement is Enforcement.ALLOWED
    life.set_limit(timedelta(minutes=30))
    assert life.beat(60, session).reason is Reason.VIEWING_TIME_EXHAUSTED


def test_weekend_and_weekday_have_their_own_limits() -> None:
    life = Life()
    friday_night = 4 * 86400 + TO_RESET - 600
    session = life.opened(friday_night)
    assert life.beat(friday_night, session).remaining == timedelta(minutes=120)
    # After midnight it is still Friday's allowance; at the reset Saturday's begins.
    saturday = life.opened(friday_night + 600)
    assert life.beat(friday_night + 600, saturday).remaining == timedelta(minutes=180)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (2000, 30),
        (930, 30),
        (929, 29),
        (900.5, 1),
        (900, 30),
        (310.2, 11),
        (301, 1),
        (300, 30),
        (31, 30),
        (12, 12),
        (0.2, 1),
    ],
)
def test_the_next_beat_lands_on_the_next_threshold(left: float, expected: int) -> None:
    assert almost_out(left).beat(0).next_heartbeat_seconds == expected


def test_the_block_falls_on_the_second() -> None:
    life = almost_out(left=47)
    session = life.opened(0)
    second = 0
    answer = life.beat(0, session)
    while answer.reason is None:
        second += answer.next_heartbeat_seconds
        answer = life.beat(second, session)
    assert second == 47
    assert answer.remaining == timedelta(0)


def test_a_threshold_that_a_pause_cannot_reach_is_not_waited_for() -> None:
    life = almost_out(left=310)
    session = life.opened(0, paused=True)
    life.beats(range(30, 300, 30), session, paused=True)
    answer = life.beat(300, session, paused=True)
    assert (answer.remaining, answer.next_heartbeat_seconds) == (seconds(10), 30)
    # Unpaused it is.
    assert life.beat(330, session).next_heartbeat_seconds == 10


def test_a_threshold_that_a_pause_does_reach_is_waited_for() -> None:
    life = almost_out(left=310)
    answer = life.beat(0, life.opened(0, paused=True), paused=True)
    assert answer.next_heartbeat_seconds == 10


# Section 6. Grants


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_a_grant_adds_to_what_remains(minutes: int) -> None:
    life = almost_out(left=100)
    balance = life.grant(0, minutes)
    assert balance.remaining == timedelta(minutes=minutes, seconds=100)
    assert life.ledger.balances[MONDAY] == balance


def test_a_grant_raises_granted_seconds_and_never_rewrites_used_seconds() -> None:
    life = almost_out(left=0)
    before = life.ledger.balances[MONDAY]
    balance = life.grant(0, 15)
    assert balance == replace(before, granted=timedelta(minutes=15))


def test_an_overrun_is_forgiven_first() -> None:
    life = almost_out(left=10)
    life.beat(40, life.opened(0))
    balance = life.grant(60, 15)
    assert balance.remaining == timedelta(minutes=15)
    assert balance.granted == timedelta(minutes=15, seconds=30)
    assert balance.used == timedelta(minutes=120, seconds=30)


def test_an_unlimited_grant_lasts_until_the_next_reset() -> None:
    life = almost_out(left=0)
    balance = life.grant(0, None)
    assert balance.is_unlimited_override
    assert balance.remaining is None
    session: UUID | None = life.opened(10)
    session = life.beat(TO_RESET - 10, session).session_id
    assert life.beat(TO_RESET - 5, session).remaining is None
    assert life.beat(TO_RESET + 5, session).remaining == timedelta(minutes=120) - seconds(5)


@pytest.mark.parametrize("unlimited", ["override", "null limit"])
def test_a_finite_grant_is_added_while_nothing_is_limited_and_remaining_stays_null(
    unlimited: str,
) -> None:
    life = Life(UNLIMITED if unlimited == "null limit" else CHILD)
    if unlimited == "override":
        life.grant(0, None)
    balance = life.grant(10, 30)
    assert balance.granted == timedelta(minutes=30)
    assert balance.remaining is None


def test_a_grant_is_for_the_running_day() -> None:
    life = Life()
    assert life.grant(TO_RESET - 1, 15).reset_date == MONDAY
    assert life.grant(TO_RESET, 15).reset_date == TUESDAY
    assert {*life.ledger.balances} == {MONDAY, TUESDAY}


def test_a_grant_makes_the_days_row() -> None:
    life = Life()
    life.grant(0, 30)
    assert life.ledger.balances == {
        MONDAY: Balance(MONDAY, granted=timedelta(minutes=30), limit=timedelta(minutes=120))
    }


def test_grants_all_count() -> None:
    life = almost_out(left=0)
    for minutes in (15, 30, 60, 15):
        balance = life.grant(0, minutes)
    assert balance.remaining == balance.granted == timedelta(minutes=120)


def test_a_grant_leaves_a_playing_session_alone() -> None:
    life = almost_out(left=100)
    session = life.opened(0)
    before = life.session(session)
    life.grant(20, 15)
    assert life.session(session) == before
    assert life.beat(30, session).remaining == timedelta(minutes=15, seconds=70)


def test_granting_to_an_adult_is_refused() -> None:
    with pytest.raises(ValueError, match="adult"):
        Life(ADULT).grant(0, 15)


# Section 2. The fast path


def test_a_beat_is_steady_only_where_nothing_but_time_is_added() -> None:
    life = Life()
    session = life.session(life.opened(TO_RESET - 400))
    beat = Beat(CARTOON, "tv", "web", session.id)

    def steady(second: float, changed: Session = session, **differs: Any) -> bool:
        return is_steady(changed, life.viewer, replace(beat, **differs), at(second))

    assert steady(TO_RESET - 370)
    assert steady(TO_RESET - 370, is_paused=True)
    assert steady(TO_RESET - 100)
    assert steady(TO_RESET - 405)
    assert not steady(TO_RESET - 99.999)
    assert not steady(TO_RESET - 405.001)
    assert not steady(TO_RESET - 370, title=FILM)
    assert not steady(TO_RESET - 370, title=None)
    assert not steady(TO_RESET - 370, device_id="tablet")
    recent = replace(session, last_heartbeat_at=at(TO_RESET - 30))
    assert steady(TO_RESET - 0.001, recent)
    assert not steady(TO_RESET, recent)
    assert not steady(TO_RESET - 370, replace(session, ended_at=at(TO_RESET - 380)))


def test_instants_of_one_session_are_in_order() -> None:
    life = Life()
    session = life.opened(0)
    instants = [life.session(session).last_heartbeat_at]
    for second in (30, 28, 60, 60, 90):
        life.beat(second, session)
        instants.append(life.session(session).last_heartbeat_at)
    assert all(earlier <= later for earlier, later in pairwise(instants))


# What the sections leave to each other


def test_a_player_that_ignores_the_answered_id_does_not_watch_a_cartoon_for_free() -> None:
    life = Life()
    cartoon = life.opened(0)
    documentary = life.beat(30, cartoon, title=DOCUMENTARY).session_id
    # A duplicate that comes this soon is late; a player that goes on like this plays the cartoon.
    assert life.beat(40, cartoon).session_id == documentary
    assert life.beat(100, cartoon).session_id != documentary
    life.beat(160, cartoon)
    assert life.ledger.balances[MONDAY].educational == seconds(70)
    assert life.ledger.balances[MONDAY].used == seconds(30 + 60)


def test_a_title_that_was_withdrawn_meanwhile_survives_a_clock_that_was_stepped_back() -> None:
    life = Life()
    session = life.opened(0)
    life.beat(60, session)
    answer = life.beat(50, session, title=replace(CARTOON, is_withdrawn=True))
    assert (answer.enforcement, life.reason(session)) == (Enforcement.ALLOWED, End.CLOCK)
    assert answer.session_id != session


def test_an_end_at_the_very_reset_leaves_nothing_in_the_new_day() -> None:
    life = Life()
    session = life.opened(TO_RESET - 100)
    assert life.end(TO_RESET, session).total == seconds(100)
    assert list(life.ledger.sessions) == [session]
    assert list(life.ledger.balances) == [MONDAY]
