"""The rules of accounting and enforcement as pure functions (domain.md sections 2 to 4 and 6).

This module is the specification in code: no ORM, no clock of its own. A `Ledger` holds what is
known of one profile; each function takes one with the instant `now` and answers the next one.
Instants are aware datetimes, amounts of time are `timedelta`, exact to the microsecond.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from math import ceil
from uuid import UUID

from parentalcontrols.viewing_day import ADULT_SCHEDULE, Schedule, ViewingDay, is_weekend

ZERO = timedelta(0)
#: A gap between two beats that is counted in full; a longer one makes the session stale.
SILENCE = timedelta(seconds=300)
#: How much of a pause is counted.
PAUSE_ALLOWANCE = timedelta(seconds=300)
#: How long after its last beat a session ends that went silent or was superseded.
TAIL = timedelta(seconds=30)
#: How far the clock may step back without ending the session.
CLOCK_TOLERANCE = timedelta(seconds=5)
#: The usual time between two beats.
BEAT = timedelta(seconds=30)
WARNING_15 = timedelta(minutes=15)
WARNING_5 = timedelta(minutes=5)


class Enforcement(StrEnum):
    """What the player has to do."""

    ALLOWED = "allowed"
    WARNING_15 = "warning_15"
    WARNING_5 = "warning_5"
    BLOCKED = "blocked"


class Reason(StrEnum):
    """Why a beat is blocked."""

    VIEWING_TIME_EXHAUSTED = "viewing_time_exhausted"
    SESSION_ENDED = "session_ended"
    SUPERSEDED = "superseded"
    UNAVAILABLE = "unavailable"


class End(StrEnum):
    """Why a session ended."""

    STOPPED = "stopped"
    SUPERSEDED = "superseded"
    STALE = "stale"
    EXHAUSTED = "exhausted"
    RESET = "reset"
    TITLE_CHANGED = "title_changed"
    CLOCK = "clock"


class TitleNotFound(Exception):
    """The title does not exist, or it is withdrawn and would have to be started."""


class SessionNotFound(Exception):
    """The session does not exist or is another profile's."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who watches, and under which rules. A limit of None is unlimited."""

    is_kids: bool
    weekday_limit: timedelta | None = None
    weekend_limit: timedelta | None = None
    educational_exempt: bool = True
    schedule: Schedule = ADULT_SCHEDULE

    def limit(self, day: date) -> timedelta | None:
        """The limit of a viewing day as the config sets it."""
        if not self.is_kids:
            return None
        return self.weekend_limit if is_weekend(day) else self.weekday_limit

    def exempts(self, is_educational: bool) -> bool:
        """Whether time with such a title is free of the limit."""
        return self.is_kids and self.educational_exempt and is_educational


ADULT = Viewer(is_kids=False)


@dataclass(frozen=True, slots=True)
class Title:
    """What a beat must know of its title."""

    id: UUID
    is_educational: bool = False
    is_withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """A player's sign of life; `title` is None where the title does not exist."""

    title: Title | None
    device_id: str
    device_type: str = "web"
    session_id: UUID | None = None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """One continuous viewing; `educational` is the exempt part of `total`."""

    id: UUID
    title_id: UUID
    device_id: str
    device_type: str
    is_educational: bool
    reset_date: date
    started_at: datetime
    last_heartbeat_at: datetime
    paused_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    total: timedelta = ZERO
    educational: timedelta = ZERO

    def counted_until(self, instant: datetime) -> timedelta:
        """The credit from the last beat to `instant`, by the pause rule."""
        if self.paused_at is not None:
            instant = min(instant, self.paused_at + PAUSE_ALLOWANCE)
        return max(ZERO, instant - self.last_heartbeat_at)

    def is_silent(self, now: datetime) -> bool:
        """Whether the session went stale, swept or not."""
        return self.ended_at is None and now - self.last_heartbeat_at > SILENCE


@dataclass(frozen=True, slots=True)
class Balance:
    """The account of one viewing day; a limit of None is unlimited."""

    reset_date: date
    used: timedelta = ZERO
    educational: timedelta = ZERO
    granted: timedelta = ZERO
    is_unlimited_override: bool = False
    limit: timedelta | None = None

    @property
    def remaining(self) -> timedelta | None:
        """What is left, below zero where it was overrun; None = unlimited."""
        if self.limit is None or self.is_unlimited_override:
            return None
        return self.limit + self.granted - self.used

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left for a title that counts."""
        return self.remaining is not None and self.remaining <= ZERO


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known of one profile: its sessions by id and its balances by viewing day.

    It must hold every open session, the session a beat names, the balances of the open sessions'
    days and the latest one.
    """

    sessions: Mapping[UUID, Session] = field(default_factory=dict)
    balances: Mapping[date, Balance] = field(default_factory=dict)

    @property
    def latest_day(self) -> date | None:
        """The latest viewing day that was recorded; the day never goes back behind it."""
        return max(self.balances, default=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much longer, in one place: everything that tells a child's standing asks `verdict`.

    `remaining` is never below zero, None = unlimited. `changes_in` is the playing time after which
    the enforcement changes next, None where it does not before the day ends.
    """

    enforcement: Enforcement
    reason: Reason | None
    remaining: timedelta | None
    changes_in: timedelta | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a beat is answered."""

    session_id: UUID | None
    enforcement: Enforcement
    remaining: timedelta | None
    used: timedelta
    is_educational: bool
    reason: Reason | None
    next_heartbeat_seconds: int


def verdict(balance: Balance | None, *, is_exempt: bool) -> Verdict:
    """The standing of a day for a title that is exempt from its limit or is not.

    `balance` None is an adult's. (domain.md section 4)
    """
    remaining = None if balance is None else balance.remaining
    if remaining is None:
        return Verdict(Enforcement.ALLOWED, None, None, None)
    reported = max(ZERO, remaining)
    if is_exempt:
        return Verdict(Enforcement.ALLOWED, None, reported, None)
    if remaining <= ZERO:
        return Verdict(Enforcement.BLOCKED, Reason.VIEWING_TIME_EXHAUSTED, reported, None)
    if remaining <= WARNING_5:
        return Verdict(Enforcement.WARNING_5, None, reported, remaining)
    if remaining <= WARNING_15:
        return Verdict(Enforcement.WARNING_15, None, reported, remaining - WARNING_5)
    return Verdict(Enforcement.ALLOWED, None, reported, remaining - WARNING_15)


def next_heartbeat_seconds(standing: Verdict, *, paused_for: timedelta | None = None) -> int:
    """Seconds to the next beat: 30, or fewer so that it lands on the next threshold; at least 1.

    `paused_for` is how long the session has been paused: a threshold that lies behind the part of
    the pause that counts is not waited for.
    """
    change = standing.changes_in
    if change is None or (paused_for is not None and change > PAUSE_ALLOWANCE - paused_for):
        change = BEAT
    return max(1, ceil(min(change, BEAT).total_seconds()))


def told(
    *,
    session_id: UUID | None,
    balance: Balance | None,
    is_educational: bool,
    is_exempt: bool,
    reason: Reason | None = None,
    paused_for: timedelta | None = None,
) -> Answer:
    """The answer that a balance makes, after its credit; a `reason` blocks in any case."""
    standing = verdict(balance, is_exempt=is_exempt)
    blocked = reason is not None or standing.enforcement is Enforcement.BLOCKED
    return Answer(
        session_id=session_id,
        enforcement=Enforcement.BLOCKED if blocked else standing.enforcement,
        remaining=standing.remaining,
        used=ZERO if balance is None else balance.used,
        is_educational=is_educational,
        reason=reason or standing.reason,
        next_heartbeat_seconds=next_heartbeat_seconds(standing, paused_for=paused_for),
    )


def told_in_microseconds(
    *,
    session_id: UUID | None,
    used: int | None,
    remaining: int | None,
    paused_for: int | None,
    is_educational: bool,
    is_exempt: bool,
) -> Answer:
    """What `told` answers, from the whole microseconds that a statement gives.

    `used` None: an adult's. `remaining` may be below zero, None = unlimited.
    """
    balance = None
    if used is not None:
        # Only the difference matters: a day of which so much is used, and so much is left.
        limit = None if remaining is None else timedelta(microseconds=used + remaining)
        balance = Balance(date.min, used=timedelta(microseconds=used), limit=limit)
    return told(
        session_id=session_id,
        balance=balance,
        is_educational=is_educational,
        is_exempt=is_exempt,
        paused_for=None if paused_for is None else timedelta(microseconds=paused_for),
    )


class _Book:
    """A working copy of a ledger, in which one event is booked."""

    def __init__(self, ledger: Ledger, viewer: Viewer, new_id: Callable[[], UUID]) -> None:
        self.sessions = dict(ledger.sessions)
        self.balances = dict(ledger.balances)
        self.viewer = viewer
        self.new_id = new_id

    def closed(self) -> Ledger:
        return Ledger(self.sessions, self.balances)

    # The day

    def day(self, now: datetime) -> ViewingDay:
        return self.viewer.schedule.viewing_day(now, max(self.balances, default=None))

    def balance(self, day: date) -> Balance | None:
        """The day's balance, or what it would start with; None for an adult."""
        if not self.viewer.is_kids:
            return None
        return self.balances.get(day) or Balance(day, limit=self.viewer.limit(day))

    def end_of_day(self, session: Session) -> datetime:
        """The reset that ends the session's day; never before what is credited already."""
        ends_at = self.viewer.schedule.bounds(session.reset_date).ends_at
        return max(ends_at, session.last_heartbeat_at)

    # Sessions

    def open_sessions(self) -> list[Session]:
        return [s for s in self.sessions.values() if s.ended_at is None]

    def playing_on(self, device_id: str, now: datetime) -> Session | None:
        """The session that the device has open, the latest where an adult has several."""
        mine = [
            s for s in self.open_sessions() if s.device_id == device_id and not s.is_silent(now)
        ]
        return max(mine, key=lambda s: (s.started_at, s.id), default=None)

    def credit(self, session: Session, until: datetime) -> Session:
        """Books the time from the last beat to `until`, on the session and on its day."""
        seconds = session.counted_until(until)
        exempt = self.viewer.exempts(session.is_educational)
        session = replace(
            session,
            total=session.total + seconds,
            educational=session.educational + (seconds if exempt else ZERO),
        )
        self.sessions[session.id] = session
        balance = self.balance(session.reset_date)
        if balance is not None:
            self.balances[balance.reset_date] = replace(
                balance,
                used=balance.used + (ZERO if exempt else seconds),
                educational=balance.educational + (seconds if exempt else ZERO),
            )
        return session

    def end(self, session: Session, at: datetime, reason: End) -> Session:
        """Credits up to the end and ends the session there."""
        session = replace(self.credit(session, at), ended_at=at, end_reason=reason)
        self.sessions[session.id] = session
        return session

    def notice_silent(self, named: Session | None, now: datetime) -> None:
        """Books the stale session that an event makes noticed: a child has but one open.

        An adult's other sessions are none of this event's business.
        """
        if self.viewer.is_kids:
            self.settle_silent(self.open_sessions(), now)
        elif named is not None:
            self.settle_silent([named], now)

    def settle_silent(self, sessions: Iterable[Session], now: datetime) -> None:
        """Books the ends of the sessions that went stale: 30 s after their last beat."""
        for session in sessions:
            if session.is_silent(now):
                tail_end = min(session.last_heartbeat_at + TAIL, self.end_of_day(session))
                self.end(session, tail_end, End.STALE)

    def is_exhausted(self, session: Session) -> bool:
        """Whether the session is one that counts, on a day that has nothing left."""
        balance = self.balance(session.reset_date)
        return (
            balance is not None
            and balance.is_exhausted
            and not self.viewer.exempts(session.is_educational)
        )

    def cross_resets(self, session: Session, now: datetime, reason: End) -> Session:
        """Splits at every reset up to `now`; answers the session that goes on there."""
        while (reset := self.end_of_day(session)) <= now:
            if reset == now and reason is End.STOPPED:
                # Nothing of it lies in the new day.
                break
            old = self.end(session, reset, reason)
            session = replace(
                old,
                id=self.new_id(),
                reset_date=self.day(reset).date,
                started_at=reset,
                last_heartbeat_at=reset,
                ended_at=None,
                end_reason=None,
                total=ZERO,
                educational=ZERO,
            )
            self.sessions[session.id] = session
        return session

    def start(self, title: Title, beat: Beat, at: datetime) -> Answer:
        """Opens a session; the caller has made sure that it may."""
        day = self.day(at).date
        session = Session(
            id=self.new_id(),
            title_id=title.id,
            device_id=beat.device_id,
            device_type=beat.device_type,
            is_educational=title.is_educational,
            reset_date=day,
            started_at=at,
            last_heartbeat_at=at,
            paused_at=at if beat.is_paused else None,
        )
        # A credit of nothing makes the day's row.
        return self.told(self.credit(session, at))

    # Answers

    def told(self, session: Session) -> Answer:
        paused_at = session.paused_at
        return told(
            session_id=session.id,
            balance=self.balance(session.reset_date),
            is_educational=session.is_educational,
            is_exempt=self.viewer.exempts(session.is_educational),
            paused_for=None if paused_at is None else session.last_heartbeat_at - paused_at,
        )

    def refused(self, beat: Beat, title: Title, reason: Reason, now: datetime) -> Answer:
        """A beat that is not played: it answers the id it was sent."""
        return replace(
            told(
                session_id=beat.session_id,
                balance=self.balance(self.day(now).date),
                is_educational=title.is_educational,
                is_exempt=self.viewer.exempts(title.is_educational),
                reason=reason,
            ),
            next_heartbeat_seconds=int(BEAT.total_seconds()),
        )


def transition(
    ledger: Ledger, viewer: Viewer, beat: Beat, now: datetime, new_id: Callable[[], UUID]
) -> tuple[Ledger, Answer]:
    """What a beat at `now` makes of a ledger, and what it is answered.

    `new_id` gives the ids of sessions that are opened. Raises `TitleNotFound` and
    `SessionNotFound`; then nothing is booked. (domain.md sections 2 to 4)
    """
    book = _Book(ledger, viewer, new_id)
    title = beat.title
    if title is None:
        raise TitleNotFound
    session = None
    if beat.session_id is not None:
        session = book.sessions.get(beat.session_id)
        if session is None:
            raise SessionNotFound
    book.notice_silent(session, now)
    if session is None or session.device_id != beat.device_id:
        answer = _open(book, title, beat, now)
        return book.closed(), answer

    session = book.sessions[session.id]
    if session.ended_at is None and session.last_heartbeat_at - now > CLOCK_TOLERANCE:
        session = book.end(session, session.last_heartbeat_at, End.CLOCK)
        if title.id == session.title_id:
            # It was running: a title that was withdrawn meanwhile goes on.
            title = replace(title, is_withdrawn=False)
    if session.ended_at is None:
        answer = _go_on(book, session, title, beat, now)
    elif session.end_reason == End.STOPPED:
        answer = book.refused(beat, title, Reason.SESSION_ENDED, now)
    elif (playing := book.playing_on(beat.device_id, now)) is not None:
        if playing.last_heartbeat_at - now > CLOCK_TOLERANCE:
            book.end(playing, playing.last_heartbeat_at, End.CLOCK)
            answer = _reopen(book, title, beat, now)
        else:
            # A late duplicate names the title of the session that it was sent for: that is no
            # change of title, unless it is too late to be a duplicate.
            late = title.id == session.title_id and now - session.ended_at <= TAIL
            answer = _go_on(book, playing, None if late else title, beat, now)
    elif session.end_reason == End.SUPERSEDED:
        answer = book.refused(beat, title, Reason.SUPERSEDED, now)
    else:
        answer = _reopen(book, title, beat, now)
    return book.closed(), answer


def _go_on(book: _Book, session: Session, title: Title | None, beat: Beat, now: datetime) -> Answer:
    """A beat of an open session that is neither silent nor ahead of the clock.

    `title` None leaves the session's title as it is.
    """
    changes = title is not None and title.id != session.title_id
    if changes and title is not None and title.is_withdrawn:
        raise TitleNotFound
    now = max(now, session.last_heartbeat_at)
    session = book.credit(book.cross_resets(session, now, End.RESET), now)
    session = replace(
        session,
        last_heartbeat_at=now,
        paused_at=(session.paused_at or now) if beat.is_paused else None,
    )
    book.sessions[session.id] = session
    exhausted = book.is_exhausted(session)
    if exhausted:
        session = book.end(session, now, End.EXHAUSTED)
    if not changes or title is None:
        return book.told(session)
    if not exhausted:
        book.end(session, now, End.TITLE_CHANGED)
    if _has_no_time(book, title, now):
        return book.refused(beat, title, Reason.VIEWING_TIME_EXHAUSTED, now)
    return book.start(title, beat, now)


def _open(book: _Book, title: Title, beat: Beat, now: datetime) -> Answer:
    """A beat that starts a session: a child's other session makes room for it."""
    if title.is_withdrawn:
        raise TitleNotFound
    if not book.viewer.is_kids:
        return book.start(title, beat, now)
    playing = next(iter(book.open_sessions()), None)
    if playing is not None and playing.last_heartbeat_at - now <= CLOCK_TOLERANCE:
        now = max(now, playing.last_heartbeat_at)
    if _has_no_time(book, title, now):
        return book.refused(beat, title, Reason.VIEWING_TIME_EXHAUSTED, now)
    if playing is not None:
        _supersede(book, playing, now)
        if _has_no_time(book, title, now):
            return book.refused(beat, title, Reason.VIEWING_TIME_EXHAUSTED, now)
    return book.start(title, beat, now)


def _supersede(book: _Book, playing: Session, now: datetime) -> None:
    """Ends a session without a word from its player: now, or 30 s after its last beat."""
    last = playing.last_heartbeat_at
    if last > now:
        book.end(playing, last, End.CLOCK)
        return
    at = min(now, last + TAIL, book.end_of_day(playing))
    ended = book.end(playing, at, End.SUPERSEDED)
    if ended.reset_date == book.day(now).date and book.is_exhausted(ended):
        book.sessions[ended.id] = replace(ended, end_reason=End.EXHAUSTED)


def _reopen(book: _Book, title: Title, beat: Beat, now: datetime) -> Answer:
    """A beat of a session that ended without its player's word opens a fresh one, if it may."""
    if title.is_withdrawn:
        raise TitleNotFound
    if _has_no_time(book, title, now):
        return book.refused(beat, title, Reason.VIEWING_TIME_EXHAUSTED, now)
    if book.viewer.is_kids and book.open_sessions():
        return book.refused(beat, title, Reason.SUPERSEDED, now)
    return book.start(title, beat, now)


def _has_no_time(book: _Book, title: Title, now: datetime) -> bool:
    balance = book.balance(book.day(now).date)
    return (
        balance is not None
        and balance.is_exhausted
        and not book.viewer.exempts(title.is_educational)
    )


def end_session(
    ledger: Ledger, viewer: Viewer, session_id: UUID, now: datetime, new_id: Callable[[], UUID]
) -> tuple[Ledger, Session]:
    """The player says that a session is over; answers the session that was asked for.

    An ended one stays as it is. Raises `SessionNotFound`. (domain.md section 2)
    """
    book = _Book(ledger, viewer, new_id)
    if session_id not in book.sessions:
        raise SessionNotFound
    book.notice_silent(book.sessions[session_id], now)
    session = book.sessions[session_id]
    if session.ended_at is None:
        now = max(now, session.last_heartbeat_at)
        last = book.cross_resets(session, now, End.STOPPED)
        ended = book.end(last, now, End.STOPPED)
        book.sessions[ended.id] = replace(ended, last_heartbeat_at=now)
    return book.closed(), book.sessions[session_id]


def close_silent(ledger: Ledger, viewer: Viewer, now: datetime) -> Ledger:
    """Books the end of the sessions that went stale: what the sweep does."""
    book = _Book(ledger, viewer, _no_id)
    book.settle_silent(book.open_sessions(), now)
    return book.closed()


def grant(
    ledger: Ledger, viewer: Viewer, minutes: int | None, now: datetime
) -> tuple[Ledger, Balance]:
    """Extra time for the running day, None = unlimited; answers the day's balance.

    An overrun is forgiven first: what remains is exactly `max(0, remaining) + minutes`.
    (domain.md section 6)
    """
    book = _Book(ledger, viewer, _no_id)
    book.settle_silent(book.open_sessions(), now)
    day = book.day(now).date
    balance = book.balance(day)
    if balance is None:
        raise ValueError("an adult's viewing time is not limited")
    if minutes is None:
        balance = replace(balance, is_unlimited_override=True)
    else:
        overrun = max(ZERO, -(balance.remaining or ZERO))
        balance = replace(balance, granted=balance.granted + overrun + timedelta(minutes=minutes))
    book.balances[day] = balance
    return book.closed(), balance


def _no_id() -> UUID:
    raise AssertionError("this event opens no session")


def is_steady(session: Session, viewer: Viewer, beat: Beat, now: datetime) -> bool:
    """Whether a beat only adds to its session and its day: what one statement can do alone.

    The same session, title and device, no reset in between, neither silent nor against the clock.
    """
    if beat.title is None or session.ended_at is not None:
        return False
    day = viewer.schedule.bounds(session.reset_date)
    return (
        session.title_id == beat.title.id
        and session.device_id == beat.device_id
        and now - session.last_heartbeat_at <= SILENCE
        and session.last_heartbeat_at - now <= CLOCK_TOLERANCE
        and now < day.ends_at
        and session.last_heartbeat_at < day.ends_at
    )
