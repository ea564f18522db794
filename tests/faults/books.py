"""What players and parents write down of every answer: the books that the judge holds against
PostgreSQL. All instants are microseconds since 1970 by this machine's clock.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from pins.tests.service import Told
from tests.faults.stage import Household

SECOND: Final = 1_000_000
#: Seconds within which a kind of request is answered, come what may (docs/operations.md).
DEADLINES: Final = {"beat": 2.0, "grant": 10.0, "config": 10.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request; `status` 0: its connection ended without an answer."""

    kind: str
    status: int
    sent_at: int
    heard_at: int
    #: What is wrong with the form of the answer.
    fault: str | None = None

    @property
    def seconds(self) -> float:
        return (self.heard_at - self.sent_at) / SECOND


def outcome_of(kind: str, told: Told) -> Outcome:
    """An answer to a good request: 200, or a 503 in the documented form."""
    fault = None
    if told.status == 503:
        is_honest = told.is_honest_refusal if kind == "beat" else is_retryable(told)
        fault = None if is_honest else f"a 503 without its members: {told.body}"
    elif told.status != 200:
        fault = f"{told.status}: {told.body}"
    return Outcome(kind, told.status, told.sent_at, told.heard_at, fault)


def is_retryable(told: Told) -> bool:
    """Whether a 503 is a problem document that says when to come again."""
    return (
        int(told.headers.get("Retry-After", "0")) > 0
        and told.headers["Content-Type"] == "application/problem+json"
    )


@dataclass(frozen=True, slots=True)
class Ack:
    """A beat that was answered with a verdict."""

    session: UUID | None
    sent_at: int
    heard_at: int
    used_minutes: float
    enforcement: str

    @property
    def is_playing(self) -> bool:
        return self.enforcement != "blocked"


@dataclass(frozen=True, eq=False, slots=True)
class Phase:
    """What a parent has set, from the answer to one change to the start of the next.

    `is_exempt` None: a change is under way, or nobody knows what became of one.
    """

    is_exempt: bool | None


@dataclass
class Book:
    """What a child's player and its parent were answered.

    The child watches from the answer that lets it until the one that does not: a refusal stops
    the player as well, an answer that never came does not.
    """

    child: UUID
    home: Household
    #: Seconds that were left when the evening began.
    allowance: float
    acks: list[Ack] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    #: Minutes of each grant by its key, and the keys that were answered with success.
    grants: dict[str, int] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)
    #: The limits that may be in force: the last that was answered, and later ones in doubt.
    limits: set[int] = field(default_factory=set)
    changes: int = 0
    #: Of a child that may watch only while its title is exempt, else None.
    phase: Phase | None = None
    #: Beats that were judged by what a parent had changed before, answers in hand; how late.
    stale: list[int] = field(default_factory=list)
    watched: int = 0
    #: Microseconds from the last beat that let it watch to the answer that did not, at the most.
    longest_step: int = 0
    _playing_since: Ack | None = None

    def note_verdict(self, told: Told, body: Mapping[str, Any], phase: Phase | None) -> None:
        """A beat was decided; `phase` is the parent's when it was sent."""
        session = body["session_id"]
        ack = Ack(
            None if session is None else UUID(session),
            told.sent_at,
            told.heard_at,
            body["used_minutes"],
            body["enforcement"],
        )
        self.acks.append(ack)
        self._watch(ack.heard_at)
        self._playing_since = ack if ack.is_playing else None
        is_known = phase is not None and phase is self.phase and phase.is_exempt is not None
        if is_known and phase is not None and ack.is_playing != phase.is_exempt:
            self.stale.append(told.sent_at)

    def note_refusal(self, told: Told) -> None:
        """A beat was refused: the player stops."""
        self._watch(told.heard_at)
        self._playing_since = None

    def _watch(self, until: int) -> None:
        since = self._playing_since
        if since is not None:
            self.watched += until - since.heard_at
            self.longest_step = max(self.longest_step, until - since.sent_at)

    @property
    def overrun(self) -> float:
        """Seconds that the child watched beyond what it was allowed by then."""
        given = sum(minutes * 60 for minutes in self.grants.values())
        return self.watched / SECOND - self.allowance - given

    def first_ack_since(self, instant: int) -> Ack | None:
        """The first verdict on a beat that was sent after an instant."""
        found = None
        for ack in reversed(self.acks):
            if ack.sent_at < instant:
                break
            found = ack
        return found


@dataclass
class Clock:
    """The database's clock against this machine's: steps, each with its offset from then on."""

    steps: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    @property
    def is_steady(self) -> bool:
        return len(self.steps) == 1

    def step(self, now: int, seconds: int) -> None:
        """From now on the database's clock is ahead by so many seconds."""
        self.steps.append((now, seconds * SECOND))

    def at_the_database(self, begin: int, end: int) -> int | None:
        """`begin` by the database's clock; None where that was set at about that time."""
        near = SECOND // 2
        if any(begin - near < at < end + near for at, _ in self.steps[1:]):
            return None
        return begin + max(step for step in self.steps if step[0] <= begin)[1]


def counts(books: Iterable[Book]) -> Counter[str]:
    """How many of each kind of request got which answer: `beat 200`, `grant 503`, `beat 0`."""
    return Counter(f"{outcome.kind} {outcome.status}" for outcome in all_outcomes(books))


def all_outcomes(books: Iterable[Book]) -> Iterator[Outcome]:
    for book in books:
        yield from book.outcomes
