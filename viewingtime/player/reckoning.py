"""What a player knows by itself: its own clock, its own screen, and what the rules make of both.

Nothing here asks the service, and nothing here is the service's: the rules of accounting are
written down a second time (domain.md sections 2 to 4), as far as an evening touches them. There
is no reset in it, no grant, and no clock that is set back.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from viewingtime.player.evening import SILENCE_SECONDS

#: The largest difference between the rules and the service that is no fault, per session.
TOLERANCE = timedelta(seconds=1)

#: An enforcement and its reason.
_Verdict = tuple[str, str | None]

_NOTHING = timedelta(0)
_SILENCE = timedelta(seconds=SILENCE_SECONDS)
_COUNTED_OF_A_PAUSE = timedelta(seconds=300)
_TAIL = timedelta(seconds=30)
_BLOCKED, _ALLOWED = "blocked", "allowed"
_EXHAUSTED, _SUPERSEDED = "viewing_time_exhausted", "superseded"
#: Up to which time left each verdict is given.
_VERDICTS = (
    (_NOTHING, _BLOCKED),
    (timedelta(minutes=5), "warning_5"),
    (timedelta(minutes=15), "warning_15"),
)


class OwnClock:
    """The player's clock: the wall's time when it was made, and from then on a monotonic count.

    Nobody who sets the machine's clock moves it.
    """

    def __init__(self) -> None:
        self._started_at = datetime.now(UTC)
        self._zero = time.monotonic()

    def now(self) -> datetime:
        """The instant, in UTC."""
        return self._started_at + timedelta(seconds=time.monotonic() - self._zero)


class Screen(StrEnum):
    """What the screen shows."""

    DARK = "dark"
    PLAYING = "playing"
    PAUSED = "paused"


class ScreenTime:
    """How long the screen really played and stood still, whatever anybody was told of it."""

    def __init__(self, at: datetime) -> None:
        self.shows = Screen.DARK
        self._since = at
        self._spent = dict.fromkeys(Screen, timedelta(0))

    def show(self, screen: Screen, at: datetime) -> None:
        """From `at` on the screen shows this."""
        self._spent[self.shows] += at - self._since
        self.shows, self._since = screen, at

    @property
    def playing(self) -> timedelta:
        """The time on screen until the last change."""
        return self._spent[Screen.PLAYING]

    @property
    def paused(self) -> timedelta:
        """The time in pause until the last change."""
        return self._spent[Screen.PAUSED]


@dataclass(frozen=True, slots=True)
class Title:
    """Something to watch."""

    id: UUID
    is_educational: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """Under which rules a profile watches; a limit of None is unlimited, as an adult is."""

    is_kids: bool
    limit: timedelta | None = None
    educational_exempt: bool = True

    def exempts(self, title: Title) -> bool:
        """Whether the title may be watched without end."""
        return self.limit is None or (self.educational_exempt and title.is_educational)


@dataclass(frozen=True, slots=True)
class Sent:
    """A beat, as the player sent it."""

    title: Title
    device_id: str
    session_id: UUID | None = None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the service answered to a beat."""

    session_id: UUID | None
    enforcement: str
    reason: str | None
    is_educational: bool
    next_heartbeat_seconds: float = 30.0

    @property
    def is_blocked(self) -> bool:
        return self.enforcement == _BLOCKED

    @property
    def is_exhausted(self) -> bool:
        """Whether the child has no time left."""
        return self.is_blocked and self.reason == _EXHAUSTED


@dataclass
class _Session:
    title: Title
    device_id: str
    last_beat_at: datetime
    paused_at: datetime | None
    total: timedelta = _NOTHING
    is_open: bool = True
    was_superseded: bool = False

    def count(self, until: datetime) -> None:
        """Elapsed time counts, of a pause its first five minutes."""
        if self.paused_at is not None:
            until = min(until, self.paused_at + _COUNTED_OF_A_PAUSE)
        self.total += max(_NOTHING, until - self.last_beat_at)

    def beat(self, at: datetime, *, is_paused: bool) -> None:
        self.count(at)
        self.last_beat_at = at
        self.paused_at = (self.paused_at or at) if is_paused else None

    def end(self, at: datetime) -> None:
        self.count(at)
        self.is_open = False

    def end_without_a_word(self, at: datetime) -> None:
        self.end(min(at, self.last_beat_at + _TAIL))


class Reckoning:
    """What the rules make of one profile's beats.

    Sessions have the ids that the service gave them. A beat or an end that was answered is booked
    in the order of the answers, at the middle of its journey. One that nobody answered is not
    booked, it only adds to the leeway: the service may have counted it or not.

    Whether time is left is asked with the tolerance on both sides; within that the service's word
    is followed.
    """

    def __init__(self, rules: Rules) -> None:
        #: How much more than all known sessions the balance may have: one may be open unheard.
        self.balance_leeway = _NOTHING
        self._rules = rules
        self._sessions: dict[UUID, _Session] = {}
        self._leeway: dict[UUID, timedelta] = {}

    def total(self, session_id: UUID) -> timedelta:
        """What the rules make of a session; nothing for one that they do not know."""
        session = self._sessions.get(session_id)
        return _NOTHING if session is None else session.total

    def leeway(self, session_id: UUID) -> timedelta:
        """How much less than that the service may have: the end had to be sent again."""
        return self._leeway.get(session_id, _NOTHING)

    def beat(
        self, sent: Sent, told: Told, at: datetime, unheard_since: datetime | None = None
    ) -> str | None:
        """Books a beat that was answered; says what in the answer is against the rules, if any.

        `at` is when the service decided, by the player's clock; `unheard_since` when the beat was
        first sent, if that was without an answer.
        """
        if sent.session_id is None and unheard_since is not None:
            self.balance_leeway += at - unheard_since
        self._end_silent(at)
        session = None if sent.session_id is None else self._sessions.get(sent.session_id)
        if sent.session_id is not None and session is None:
            return "a beat of a session that the rules do not know was taken"
        if told.is_educational != sent.title.is_educational:
            return "a beat was answered with the wrong is_educational"
        if session is None or not session.is_open:
            if session is not None and session.was_superseded:
                # Its tail may have used up the time; then that is what it is told.
                out_of_time = self._verdicts(sent.title) & {(_BLOCKED, _EXHAUSTED)}
                expected = {(_BLOCKED, _SUPERSEDED), *out_of_time}
                return self._compare(told, expected, sent.session_id)
            return self._open(sent, told, at)
        session.beat(at, is_paused=sent.is_paused)
        if session.title != sent.title:
            session.is_open = False
            return self._open(sent, told, at)
        if told.is_exhausted:
            session.is_open = False
        return self._compare(told, self._verdicts(sent.title), sent.session_id)

    def end(self, session_id: UUID, at: datetime, unheard_since: datetime | None = None) -> None:
        """Books that the player ended a session; an ended one stays as it is."""
        self._end_silent(at)
        session = self._sessions.get(session_id)
        if session is not None and session.is_open:
            session.end(at)
            if unheard_since is not None:
                self._leeway[session_id] = at - unheard_since

    def _open(self, sent: Sent, told: Told, at: datetime) -> str | None:
        playing = [s for s in self._sessions.values() if s.is_open] if self._rules.is_kids else []
        verdicts = self._verdicts(sent.title)
        if verdicts != {(_BLOCKED, _EXHAUSTED)}:
            # Without time left the beat would have changed nothing.
            for other in playing:
                other.end_without_a_word(at)
                other.was_superseded = True
            verdicts |= self._verdicts(sent.title)
        if told.is_blocked or told.session_id is None:
            return self._compare(told, verdicts, sent.session_id)
        if told.session_id in self._sessions:
            return "a beat that should open a session was answered with an old one"
        self._sessions[told.session_id] = _Session(
            sent.title, sent.device_id, at, at if sent.is_paused else None
        )
        return self._compare(told, verdicts, told.session_id)

    def _end_silent(self, at: datetime) -> None:
        for session in self._sessions.values():
            if session.is_open and at - session.last_beat_at > _SILENCE:
                session.end_without_a_word(at)

    def _verdicts(self, title: Title) -> set[_Verdict]:
        """What may be answered by the time that is left, with the tolerance on both sides."""
        if self._rules.limit is None or self._rules.exempts(title):
            return {(_ALLOWED, None)}
        used = sum(
            (s.total for s in self._sessions.values() if not self._rules.exempts(s.title)),
            _NOTHING,
        )
        left = self._rules.limit - used
        found = {
            next((verdict for most, verdict in _VERDICTS if near <= most), _ALLOWED)
            for near in (left - TOLERANCE, left, left + TOLERANCE)
        }
        return {(verdict, _EXHAUSTED if verdict == _BLOCKED else None) for verdict in found}

    def _compare(self, told: Told, verdicts: set[_Verdict], session_id: UUID | None) -> str | None:
        if (told.enforcement, told.reason) not in verdicts:
            expected = " or ".join(sorted(_words(*verdict) for verdict in verdicts))
            return f"a beat was answered {_words(told.enforcement, told.reason)}, not {expected}"
        if told.session_id != session_id:
            return "a beat was answered with another session than it should be"
        return None


def _words(enforcement: str, reason: str | None) -> str:
    return f"{enforcement} ({reason})" if reason else enforcement
