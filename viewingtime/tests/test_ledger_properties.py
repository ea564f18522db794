"""What holds for every evening (domain.md sections 2 to 6), shown on random ones.

An evening is a sequence of events at instants that grow, or that step back now and then. Nothing
here knows how the rules are built; the sentences one by one are in test_ledger_rules.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from typing import Any
from uuid import UUID

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from parentalcontrols.viewing_day import Schedule, changed_schedules
from viewingtime.ledger import (
    ADULT,
    Answer,
    Balance,
    Beat,
    End,
    Ledger,
    Reason,
    Session,
    Title,
    TitleNotFound,
    Viewer,
    close_silent,
    end_session,
    grant,
    is_steady,
    transition,
    verdict,
)

ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

CARTOON = Title(UUID(int=0xCA))
FILM = Title(UUID(int=0xF1))
WITHDRAWN = Title(UUID(int=0xFF), is_withdrawn=True)
DOCUMENTARY = Title(UUID(int=0xD0), is_educational=True)

# A Monday in the middle of its viewing day.
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
RESET = datetime(2026, 3, 3, 6, tzinfo=UTC)

CHILD = Viewer(
    is_kids=True,
    weekday_limit=30 * MINUTE,
    weekend_limit=45 * MINUTE,
    educational_exempt=True,
    schedule=Schedule.of(6, "UTC"),
)
UNLIMITED = replace(CHILD, weekday_limit=None, weekend_limit=None)


def seconds(amount: float) -> timedelta:
    return timedelta(seconds=amount)


# Events


@dataclass(frozen=True)
class Play:
    """A beat; `session` picks one that the profile has had: None none, 0 the device's latest."""

    device: str
    title: Title
    session: int | None
    is_paused: bool


@dataclass(frozen=True)
class Stop:
    session: int


@dataclass(frozen=True)
class Grant:
    minutes: int | None


@dataclass(frozen=True)
class Limits:
    weekday: timedelta | None
    weekend: timedelta | None
    educational_exempt: bool


@dataclass(frozen=True)
class Reschedule:
    reset_hour: int
    timezone: str


@dataclass(frozen=True)
class Sweep:
    pass


Event = Play | Stop | Grant | Limits | Reschedule | Sweep
Evening = Sequence[tuple[timedelta, Event]]


def milliseconds(low: int, high: int) -> st.SearchStrategy[timedelta]:
    return st.integers(low, high).map(lambda amount: timedelta(milliseconds=amount))


# Most gaps are those of a player; some are lost beats, a nap, a night.
player_gaps = milliseconds(20_000, 31_000) | milliseconds(0, 300_000)
forward = st.one_of(
    milliseconds(0, 60_000),
    milliseconds(20_000, 31_000),
    milliseconds(290_000, 310_000),
    milliseconds(0, 1_200_000),
    st.sampled_from([ZERO, 30 * SECOND, 300 * SECOND, 300 * SECOND + timedelta(milliseconds=1)]),
)
long_gaps = milliseconds(0, 30 * 3_600_000)
stepping = st.one_of(forward, forward, milliseconds(-10_000, 0))

titles = st.sampled_from([CARTOON, CARTOON, DOCUMENTARY, FILM, WITHDRAWN])
plays = st.builds(
    Play,
    device=st.sampled_from(["tv", "tv", "tablet"]),
    title=titles,
    session=st.one_of(st.just(0), st.just(0), st.none(), st.integers(1, 8)),
    is_paused=st.booleans(),
)
steady_plays = st.builds(
    Play,
    device=st.just("tv"),
    title=st.just(CARTOON),
    session=st.just(0),
    is_paused=st.sampled_from([False, False, True]),
)
# The rules know nothing of quarters of an hour; a short limit is reached often.
limits = st.one_of(
    st.none(),
    st.sampled_from([15 * MINUTE, 30 * MINUTE]),
    milliseconds(0, 300_000),
    milliseconds(0, 1_200_000),
)
others = st.one_of(
    st.builds(Stop, st.integers(0, 8)),
    st.builds(Grant, st.sampled_from([15, 15, 30, 60, None])),
    st.builds(Limits, limits, limits, st.booleans()),
    st.builds(
        Reschedule, st.integers(0, 23), st.sampled_from(["UTC", "Asia/Tokyo", "Pacific/Apia"])
    ),
    st.just(Sweep()),
)
events: st.SearchStrategy[Event] = st.one_of(steady_plays, plays, plays, others)
# Anywhere in the day, and often just before its end.
starts = st.one_of(
    milliseconds(0, 86_400_000).map(lambda amount: NOON + amount),
    milliseconds(0, 1_200_000).map(lambda amount: RESET - amount),
)
viewers = st.builds(
    replace,
    st.just(CHILD),
    weekday_limit=limits,
    weekend_limit=limits,
    educational_exempt=st.booleans(),
)


def evenings(gaps: st.SearchStrategy[timedelta], most: int = 25) -> st.SearchStrategy[Evening]:
    """Short ones, which explain a failure best; long ones, which find it; and one long show."""
    one = st.tuples(gaps, events)
    calm = st.tuples(player_gaps, steady_plays)
    return st.one_of(
        st.lists(one, min_size=1, max_size=most),
        st.lists(one, min_size=12, max_size=most),
        st.lists(st.one_of(calm, calm, calm, one), min_size=8, max_size=most),
    )


growing = st.one_of(evenings(forward), evenings(forward | long_gaps))
any_clock = st.one_of(evenings(stepping), evenings(stepping | long_gaps))


# A profile that lives through them


class Life:
    """One profile: its ledger, and its config as it is kept."""

    def __init__(self, viewer: Viewer, now: datetime) -> None:
        self.viewer, self.now = viewer, now
        self.ledger = Ledger()
        self.reset_hour, self.timezone = 6, "UTC"
        self.earlier: list[dict[str, Any]] = []
        self._ids = count(1)
        self.answer: Answer | None = None
        self.beat: Beat | None = None

    def new_id(self) -> UUID:
        return UUID(int=next(self._ids))

    def pick(self, device: str | None, index: int) -> UUID | None:
        """The session so many back: of the device for 0, of all otherwise."""
        mine = [s.id for s in self.ledger.sessions.values() if index or s.device_id == device]
        return sorted(mine)[-1 - index % len(mine)] if mine else None

    def today(self) -> date:
        return self.viewer.schedule.viewing_day(self.now, self.ledger.latest_day).date

    def live(self, gap: timedelta, what: Event) -> None:
        self.now += gap
        self.answer = self.beat = None
        match what:
            case Play():
                session = None if what.session is None else self.pick(what.device, what.session)
                self.play(Beat(what.title, what.device, "web", session, what.is_paused))
            case Stop():
                if (stopped := self.pick("tv", what.session)) is not None:
                    self.ledger, _ = end_session(
                        self.ledger, self.viewer, stopped, self.now, self.new_id
                    )
            case Grant():
                if self.viewer.is_kids:
                    self.ledger, _ = grant(self.ledger, self.viewer, what.minutes, self.now)
            case Limits():
                self.set_limits(what)
            case Reschedule():
                self.reschedule(what)
            case Sweep():
                self.ledger = close_silent(self.ledger, self.viewer, self.now)

    def play(self, beat: Beat) -> None:
        try:
            self.ledger, self.answer = transition(
                self.ledger, self.viewer, beat, self.now, self.new_id
            )
        except TitleNotFound:
            assert beat.title is WITHDRAWN
        else:
            self.beat = beat

    def set_limits(self, what: Limits) -> None:
        if not self.viewer.is_kids:
            return
        self.viewer = replace(
            self.viewer,
            weekday_limit=what.weekday,
            weekend_limit=what.weekend,
            educational_exempt=what.educational_exempt,
        )
        # The change updates the running day's row in its own transaction.
        balance = self.ledger.balances.get(self.today())
        if balance is not None:
            changed = replace(balance, limit=self.viewer.limit(balance.reset_date))
            self.ledger = Ledger(
                self.ledger.sessions, {**self.ledger.balances, balance.reset_date: changed}
            )

    def reschedule(self, what: Reschedule) -> None:
        if not self.viewer.is_kids:
            return
        self.earlier = changed_schedules(
            reset_hour=self.reset_hour,
            timezone=self.timezone,
            earlier=self.earlier,
            new_reset_hour=what.reset_hour,
            new_timezone=what.timezone,
            now=self.now,
            latest_day=self.ledger.latest_day,
        )
        self.reset_hour, self.timezone = what.reset_hour, what.timezone
        schedule = Schedule.of(self.reset_hour, self.timezone, self.earlier)
        self.viewer = replace(self.viewer, schedule=schedule)

    @property
    def sessions(self) -> list[Session]:
        return list(self.ledger.sessions.values())

    @property
    def open(self) -> list[Session]:
        return [s for s in self.sessions if s.ended_at is None]

    @property
    def watched(self) -> timedelta:
        return total(self.sessions)


def total(sessions: Iterable[Session]) -> timedelta:
    return sum((s.total for s in sessions), ZERO)


def assert_books_agree(ledger: Ledger) -> None:
    days = {s.reset_date for s in ledger.sessions.values()} | {*ledger.balances}
    for day in days:
        of_day = [s for s in ledger.sessions.values() if s.reset_date == day]
        balance = ledger.balances[day]
        assert total(of_day) == balance.used + balance.educational
        assert sum((s.educational for s in of_day), ZERO) == balance.educational


def expected_enforcement(balance: Balance, is_exempt: bool) -> str:
    """Section 4, word for word."""
    if balance.limit is None or balance.is_unlimited_override or is_exempt:
        return "allowed"
    remaining = balance.limit + balance.granted - balance.used
    if remaining <= ZERO:
        return "blocked"
    if remaining <= 300 * SECOND:
        return "warning_5"
    return "warning_15" if remaining <= 900 * SECOND else "allowed"


# Whatever happens, whatever the clock does


@given(viewer=viewers, start=starts, evening=any_clock)
@settings(deadline=None, max_examples=250)
def test_the_sum_of_the_sessions_equals_the_balance_of_their_day(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
        assert_books_agree(life.ledger)


@given(viewer=viewers, start=starts, evening=any_clock)
@settings(deadline=None, max_examples=200)
def test_a_child_never_has_two_open_sessions(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
        assert len(life.open) <= 1


@given(viewer=viewers, start=starts, evening=any_clock)
@settings(deadline=None, max_examples=200)
def test_what_has_been_written_down_is_not_rewritten(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        before = life.ledger
        life.live(gap, what)
        for old in before.sessions.values():
            new = life.ledger.sessions[old.id]
            if old.ended_at is not None:
                assert new == old
            assert new.reset_date == old.reset_date
            assert (new.title_id, new.device_id) == (old.title_id, old.device_id)
            assert (new.is_educational, new.started_at) == (old.is_educational, old.started_at)
            assert new.last_heartbeat_at >= old.last_heartbeat_at
            assert new.total >= old.total
            assert new.educational >= old.educational
        for day, balance in before.balances.items():
            after = life.ledger.balances[day]
            assert after.used >= balance.used
            assert after.educational >= balance.educational
            assert after.granted >= balance.granted
            assert after.is_unlimited_override >= balance.is_unlimited_override


@given(viewer=viewers | st.just(ADULT), start=starts, evening=any_clock)
@settings(deadline=None, max_examples=200)
def test_no_session_counts_more_than_it_lasted_or_more_as_exempt_than_in_all(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
    for session in life.sessions:
        end = session.ended_at or session.last_heartbeat_at
        assert session.started_at <= session.last_heartbeat_at <= end
        assert ZERO <= session.educational <= session.total <= end - session.started_at
        assert session.is_educational or session.educational == ZERO
        assert (session.ended_at is None) == (session.end_reason is None)
        assert session.end_reason in {None, *End}


@given(start=starts, evening=any_clock)
@settings(deadline=None, max_examples=100)
def test_an_adult_has_no_balances_and_is_never_out_of_time(
    start: datetime, evening: Evening
) -> None:
    life = Life(ADULT, start)
    for gap, what in evening:
        life.live(gap, what)
        assert life.ledger.balances == {}
        if life.answer is not None:
            assert life.answer.remaining is None
            assert life.answer.reason in {None, Reason.SESSION_ENDED}


@given(viewer=viewers, start=starts, evening=any_clock)
@settings(deadline=None, max_examples=250)
def test_a_beat_is_blocked_exactly_where_nothing_remains_for_a_title_that_counts(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
        answer, beat = life.answer, life.beat
        if answer is None or beat is None:
            continue
        event(f"answered {answer.enforcement} {answer.reason}")
        assert (answer.enforcement == "blocked") == (answer.reason is not None)
        if answer.reason is None:
            session = life.ledger.sessions[answer.session_id or UUID(int=0)]
            assert session.ended_at is None
            assert session.device_id == beat.device_id
            balance = life.ledger.balances[session.reset_date]
            exempt = life.viewer.exempts(session.is_educational)
            assert answer.enforcement == expected_enforcement(balance, exempt)
            assert answer.used == balance.used
            assert answer.is_educational == session.is_educational
        elif answer.reason is Reason.VIEWING_TIME_EXHAUSTED:
            day = life.today()
            balance = life.ledger.balances.get(day) or Balance(day, limit=life.viewer.limit(day))
            assert expected_enforcement(balance, is_exempt=False) == "blocked"
            assert answer.remaining == ZERO
            assert answer.session_id in {None, beat.session_id, *life.ledger.sessions}
            assert not life.viewer.exempts(answer.is_educational)
        else:
            # Nothing is opened or goes on for it.
            assert answer.session_id == beat.session_id
            assert not [s for s in life.open if s.device_id == beat.device_id] or (
                answer.reason is Reason.SESSION_ENDED
            )


@given(viewer=viewers, start=starts, evening=any_clock, minutes=st.sampled_from([15, 30, 60]))
@settings(deadline=None, max_examples=200)
def test_what_remains_after_a_grant_is_what_remained_and_the_minutes(
    viewer: Viewer, start: datetime, evening: Evening, minutes: int
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
    # The grant books the tail of a session that went silent; what remained is after that.
    settled = close_silent(life.ledger, life.viewer, life.now)
    day = life.today()
    before = settled.balances.get(day) or Balance(day, limit=life.viewer.limit(day))
    ledger, balance = grant(life.ledger, life.viewer, minutes, life.now)
    assert ledger.sessions == settled.sessions
    assert ledger.balances == {**settled.balances, day: balance}
    assert (balance.used, balance.educational) == (before.used, before.educational)
    if before.remaining is None:
        assert balance.remaining is None
        assert balance.granted == before.granted + minutes * MINUTE
    else:
        assert balance.remaining == max(ZERO, before.remaining) + minutes * MINUTE


@given(viewer=viewers | st.just(ADULT), start=starts, evening=any_clock, data=st.data())
@settings(deadline=None, max_examples=200)
def test_ending_twice_is_the_same_as_ending_once(
    viewer: Viewer, start: datetime, evening: Evening, data: st.DataObject
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
    assume(life.sessions)
    session = data.draw(st.sampled_from(sorted(life.ledger.sessions)))
    once, answer = end_session(life.ledger, life.viewer, session, life.now, life.new_id)
    assert answer.id == session
    assert answer.ended_at is not None
    again = life.now + data.draw(stepping)
    # A child's other session may have gone silent meanwhile; an adult's are no concern of this.
    settled = close_silent(once, life.viewer, again) if life.viewer.is_kids else once
    twice = end_session(once, life.viewer, session, again, life.new_id)
    assert twice == (settled, answer)


@given(viewer=viewers, start=starts, evening=any_clock, gap=forward, what=plays)
@settings(deadline=None, max_examples=250)
def test_copies_of_one_beat_at_one_instant_credit_it_once(
    viewer: Viewer, start: datetime, evening: Evening, gap: timedelta, what: Play
) -> None:
    life = Life(viewer, start)
    for before_gap, before in evening:
        life.live(before_gap, before)
    session = None if what.session is None else life.pick(what.device, what.session)
    life.now += gap
    beat = Beat(what.title, what.device, "web", session, what.is_paused)
    life.play(beat)
    assume(life.answer is not None)
    first, books = life.answer, dict(life.ledger.balances)
    for _ in range(5):
        life.play(beat)
        assert life.ledger.balances == books
        assert first is not None
        assert life.answer is not None
        assert life.answer.remaining == first.remaining
        assert (life.answer.enforcement == "blocked") == (first.enforcement == "blocked")
        assert len(life.open) <= 1


@given(viewer=viewers, start=starts, evening=any_clock, gap=forward)
@settings(deadline=None, max_examples=200)
def test_every_end_credits_from_the_last_beat_to_the_end_by_the_pause_rule(
    viewer: Viewer, start: datetime, evening: Evening, gap: timedelta
) -> None:
    life = Life(viewer, start)
    for before_gap, what in [*evening, (gap, Stop(0))]:
        was_open = life.open
        life.live(before_gap, what)
        for old in was_open:
            new = life.ledger.sessions[old.id]
            if new.ended_at is None:
                continue
            event(f"ended {new.end_reason}")
            until = new.ended_at
            if old.paused_at is not None:
                until = min(until, old.paused_at + 300 * SECOND)
            assert new.total - old.total == max(ZERO, until - old.last_heartbeat_at)


# Where the clock does not step back


@given(viewer=viewers, start=starts, evening=growing)
@settings(deadline=None, max_examples=250)
def test_no_second_is_counted_twice(viewer: Viewer, start: datetime, evening: Evening) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        before = life.watched
        last = max((s.ended_at or s.last_heartbeat_at for s in life.sessions), default=life.now)
        life.live(gap, what)
        # What is credited lies after all that was credited before.
        assert life.watched - before <= max(ZERO, life.now - last)
    assert life.watched <= life.now - start
    in_order = sorted(life.sessions, key=lambda s: (s.started_at, s.id))
    for earlier, later in pairwise(in_order):
        assert earlier.ended_at is not None
        assert earlier.ended_at <= later.started_at


@given(viewer=viewers | st.just(ADULT), start=starts, evening=growing)
@settings(deadline=None, max_examples=200)
def test_every_session_lies_within_its_viewing_day(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        life.live(gap, what)
        for session in life.sessions:
            day = life.viewer.schedule.bounds(session.reset_date)
            end = session.ended_at or session.last_heartbeat_at
            assert day.starts_at <= session.started_at < day.ends_at
            assert end < day.ends_at or (session.ended_at == day.ends_at)


@given(viewer=viewers | st.just(ADULT), start=starts, evening=growing)
@settings(deadline=None, max_examples=200)
def test_a_stale_or_superseded_end_is_at_most_thirty_seconds_after_the_last_beat(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    life = Life(viewer, start)
    for gap, what in evening:
        was_open = life.open
        life.live(gap, what)
        for old in was_open:
            new = life.ledger.sessions[old.id]
            silent = life.now - old.last_heartbeat_at > 300 * SECOND
            reset = life.viewer.schedule.bounds(old.reset_date).ends_at
            tail_end = min(old.last_heartbeat_at + 30 * SECOND, reset)
            if new.end_reason == End.STALE:
                assert silent
                assert new.ended_at == tail_end
            elif new.end_reason == End.SUPERSEDED:
                assert not silent
                assert new.ended_at == min(life.now, tail_end)
            elif silent:
                # It has not been noticed: there was no beat of the child, no grant and no sweep.
                assert new == old
                assert not isinstance(what, Sweep)
                if life.viewer.is_kids:
                    assert life.answer is None
                    assert not isinstance(what, Grant)
                else:
                    assert life.beat is None or life.beat.session_id != old.id


@given(viewer=viewers, start=starts, evening=growing)
@settings(deadline=None, max_examples=150)
def test_sweeping_in_between_changes_nothing_but_the_moment_of_noticing(
    viewer: Viewer, start: datetime, evening: Evening
) -> None:
    # A change of the config in between decides by itself what a tail counts as.
    steps = [(gap, what) for gap, what in evening if isinstance(what, Play | Stop)]
    swept, unswept = Life(viewer, start), Life(viewer, start)
    for gap, what in steps:
        swept.live(gap, Sweep())
        swept.live(ZERO, what)
        unswept.live(gap, what)
        assert swept.answer == unswept.answer
    last = 400 * SECOND
    for life in (swept, unswept):
        life.live(last, Sweep())
    assert swept.ledger == unswept.ledger


# One player


@given(
    start=starts,
    gaps=st.lists(milliseconds(0, 300_000), min_size=1, max_size=12),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_more_beats_in_an_interval_do_not_change_the_sum(
    start: datetime, gaps: Sequence[timedelta], data: st.DataObject
) -> None:
    few, many = Life(UNLIMITED, start), Life(UNLIMITED, start)
    for life in (few, many):
        life.live(ZERO, Play("tv", CARTOON, None, False))
    for gap in gaps:
        few.live(gap, Play("tv", CARTOON, 0, False))
        cuts = sorted(data.draw(st.lists(st.floats(0, 1), max_size=4)))
        passed = ZERO
        for cut in [*(gap * share for share in cuts), gap]:
            many.live(cut - passed, Play("tv", CARTOON, 0, False))
            passed = cut
    assert few.ledger.balances == many.ledger.balances
    assert [(s.started_at, s.total) for s in few.sessions] == [
        (s.started_at, s.total) for s in many.sessions
    ]
    assert few.watched == sum(gaps, ZERO)


def counted(
    beats: Sequence[tuple[datetime, bool]], closed_at: datetime
) -> list[tuple[datetime, datetime]]:
    """The stretches of one player's evening that count: section 2 without any sessions."""
    stretches = []
    paused_at: datetime | None = None
    for (instant, is_paused), (following, _) in pairwise([*beats, (closed_at, False)]):
        paused_at = (paused_at or instant) if is_paused else None
        silent = following - instant > 300 * SECOND
        until = instant + 30 * SECOND if silent else following
        if silent:
            # The day's end is the end of a tail, too.
            reset = instant.replace(hour=6, minute=0, second=0, microsecond=0)
            until = min(until, reset if instant < reset else reset + DAY)
        if paused_at is not None:
            until = min(until, paused_at + 300 * SECOND)
        if until > instant:
            stretches.append((instant, until))
        if silent:
            paused_at = None
    return stretches


@given(
    start=starts,
    steps=st.lists(st.tuples(forward, st.booleans()), min_size=1, max_size=30),
    last=milliseconds(301_000, 900_000),
)
@settings(deadline=None, max_examples=250)
def test_a_players_evening_is_what_a_reckoning_without_sessions_makes_of_it(
    start: datetime, steps: Sequence[tuple[timedelta, bool]], last: timedelta
) -> None:
    life = Life(UNLIMITED, start)
    beats = []
    for gap, is_paused in steps:
        life.live(gap, Play("tv", CARTOON, 0, is_paused))
        beats.append((life.now, is_paused))
    life.live(last, Sweep())
    stretches = counted(beats, life.now)
    for day, balance in life.ledger.balances.items():
        morning = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)
        within = [
            min(until, morning + DAY) - max(since, morning)
            for since, until in stretches
            if since < morning + DAY and until > morning
        ]
        assert balance.used == sum(within, ZERO)
    assert life.watched == sum((until - since for since, until in stretches), ZERO)


@given(left=milliseconds(1, 1_800_000), title=st.sampled_from([CARTOON, FILM]))
@settings(deadline=None, max_examples=100)
def test_the_paced_beats_land_on_every_threshold(left: timedelta, title: Title) -> None:
    life = Life(CHILD, NOON)
    limit = 30 * MINUTE
    balance = Balance(NOON.date(), used=limit - left, limit=limit)
    life.ledger = Ledger({}, {balance.reset_date: balance})
    life.live(ZERO, Play("tv", title, None, False))
    seen = []
    while (answer := life.answer) is not None:
        remaining = left - (life.now - NOON)
        if seen and answer.enforcement != seen[-1]:
            # The beat on which it changed came less than a second after the threshold.
            threshold = {"warning_15": 900, "warning_5": 300, "blocked": 0}[answer.enforcement]
            assert -SECOND < remaining - threshold * SECOND <= ZERO
        seen.append(answer.enforcement)
        assert 1 <= answer.next_heartbeat_seconds <= 30
        if answer.reason is not None:
            break
        life.live(answer.next_heartbeat_seconds * SECOND, Play("tv", title, 0, False))
    expected = [
        name
        for name, above in [("allowed", 900), ("warning_15", 300), ("warning_5", 0)]
        if left > above * SECOND
    ]
    assert list(dict.fromkeys(seen)) == [*expected, "blocked"]
    assert ZERO <= -(left - (life.now - NOON)) < SECOND


@given(viewer=viewers, start=starts, evening=growing, gap=forward, what=plays | steady_plays)
@settings(deadline=None, max_examples=200)
def test_a_beat_is_asked_for_early_only_where_the_standing_changes_then(
    viewer: Viewer, start: datetime, evening: Evening, gap: timedelta, what: Play
) -> None:
    life = Life(viewer, start)
    for before_gap, before in [*evening, (gap, what)]:
        life.live(before_gap, before)
    answer, beat = life.answer, life.beat
    assume(answer is not None and answer.reason is None)
    assert answer is not None
    assert beat is not None
    wait = answer.next_heartbeat_seconds * SECOND
    session = life.ledger.sessions[answer.session_id or UUID(int=0)]
    assume(life.now + wait < life.viewer.schedule.bounds(session.reset_date).ends_at)
    following = replace(beat, session_id=session.id, title=replace(CARTOON, id=session.title_id))
    life.now += wait - SECOND
    early, answer_early = transition(life.ledger, life.viewer, following, life.now, life.new_id)
    if wait > SECOND:
        assert answer_early.enforcement == answer.enforcement
        assert len(early.sessions) == len(life.ledger.sessions)
    life.now += SECOND
    life.play(following)
    assert life.answer is not None
    if wait < 30 * SECOND:
        assert life.answer.enforcement != answer.enforcement


# The fast path


@given(
    viewer=viewers,
    start=starts,
    evening=any_clock,
    last=st.tuples(stepping, steady_plays | plays),
    beat=st.tuples(stepping, st.booleans()),
)
@settings(deadline=None, max_examples=250)
def test_a_steady_beat_adds_to_its_session_and_its_day_and_does_nothing_else(
    viewer: Viewer,
    start: datetime,
    evening: Evening,
    last: tuple[timedelta, Play],
    beat: tuple[timedelta, bool],
) -> None:
    life = Life(viewer, start)
    for before_gap, what in [*evening, last]:
        life.live(before_gap, what)
    gap, is_paused = beat
    life.now += gap
    assume(life.open)
    (old,) = life.open
    title = Title(old.title_id, is_educational=old.is_educational)
    same = Beat(title, old.device_id, "web", old.id, is_paused)
    assume(is_steady(old, life.viewer, same, life.now))
    before = life.ledger
    life.play(same)
    new = life.ledger.sessions[old.id]
    assert life.ledger.sessions == {**before.sessions, old.id: new}
    instant = max(life.now, old.last_heartbeat_at)
    until = instant if old.paused_at is None else min(instant, old.paused_at + 300 * SECOND)
    credit = max(ZERO, until - old.last_heartbeat_at)
    exempt = life.viewer.exempts(old.is_educational)
    balance = before.balances[old.reset_date]
    balance = replace(
        balance,
        used=balance.used + (ZERO if exempt else credit),
        educational=balance.educational + (credit if exempt else ZERO),
    )
    assert life.ledger.balances == {**before.balances, old.reset_date: balance}
    is_out = expected_enforcement(balance, exempt) == "blocked"
    assert new == replace(
        old,
        total=old.total + credit,
        educational=old.educational + (credit if exempt else ZERO),
        last_heartbeat_at=instant,
        paused_at=(old.paused_at or instant) if is_paused else None,
        ended_at=instant if is_out else None,
        end_reason=End.EXHAUSTED if is_out else None,
    )
    assert life.answer is not None
    assert life.answer.session_id == old.id


@given(
    limit=st.none() | milliseconds(0, 28_800_000),
    used=milliseconds(0, 40_000_000),
    granted=milliseconds(0, 7_200_000),
    override=st.booleans(),
    is_exempt=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_the_verdict_is_that_of_section_four(
    limit: timedelta | None,
    used: timedelta,
    granted: timedelta,
    override: bool,
    is_exempt: bool,
) -> None:
    balance = Balance(NOON.date(), used, ZERO, granted, override, limit)
    standing = verdict(balance, is_exempt=is_exempt)
    assert standing.enforcement == expected_enforcement(balance, is_exempt)
    if limit is None or override:
        assert standing.remaining is None
    else:
        assert standing.remaining == max(ZERO, limit + granted - used)
    if standing.changes_in is None:
        return
    assert standing.changes_in > ZERO
    # It changes then, and not a moment earlier.
    then = replace(balance, used=used + standing.changes_in)
    just_before = replace(then, used=then.used - timedelta(microseconds=1))
    assert verdict(just_before, is_exempt=is_exempt).enforcement == standing.enforcement
    assert verdict(then, is_exempt=is_exempt).enforcement != standing.enforcement
