"""The judge of every scenario: the books of players and parents against what PostgreSQL has.

Four questions (docs/reliability.md): is anything lost or counted twice, did a child watch more than
it was allowed, was every answer honest, and did the service recover by itself. A finding is a
sentence; none means that it passed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from tests.faults.books import DEADLINES, SECOND, Ack, Book, Clock
from tests.faults.stalls import Stalls

#: Seconds within which every child's beats are taken again after a fault.
RECOVERY: Final = 5.0
#: Seconds for which a connection may be found reset after its process was killed.
_RESET_SECONDS: Final = 2.0
#: Answers round to hundredths of a minute.
_ROUNDING: Final = 0.301
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Fault:
    """When it was, and how long the service took afterwards."""

    ended_at: int
    #: Seconds until a beat of every child was taken; None: it was not, in time.
    recovered_after: float | None = None


@dataclass
class Evidence:
    """All that was noted of an evening besides the books."""

    books: Sequence[Book]
    clock: Clock = field(default_factory=Clock)
    #: When processes of the service were killed.
    kills: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)


@dataclass
class Rows:
    """What PostgreSQL has of one child."""

    sessions: list[Any] = field(default_factory=list)
    balances: list[Any] = field(default_factory=list)
    grants: list[int] = field(default_factory=list)
    config: Any = None


@dataclass
class Findings:
    """Sentences by question."""

    lost: list[str] = field(default_factory=list)
    over_grant: list[str] = field(default_factory=list)
    dishonest: list[str] = field(default_factory=list)
    not_recovered: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        return [*self.lost, *self.over_grant, *self.dishonest, *self.not_recovered]


def judge(rows: Mapping[UUID, Rows], evidence: Evidence) -> Findings:
    """Everything that is wrong; `rows` by child (`read`)."""
    findings = Findings()
    for book in evidence.books:
        found = rows[book.child]
        findings.lost += [
            f"{book.child}: {sentence}"
            for sentence in (
                *_lost_beats(book, found, evidence.clock),
                *_inexact_rows(found),
                *_lost_decisions(book, found),
            )
        ]
        findings.over_grant += _over_grants(book, found, evidence.clock)
    findings.dishonest += _dishonest(evidence)
    findings.not_recovered += _not_recovered(evidence)
    return findings


def read(database: psycopg.Connection, children: Sequence[UUID]) -> dict[UUID, Rows]:
    """The rows of some children at one instant."""
    rows = {child: Rows() for child in children}
    wanted = {"children": list(children)}
    cursor: psycopg.Cursor[Any] = database.cursor(row_factory=namedtuple_row)
    with database.transaction(), cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(
            "SELECT * FROM viewing_sessions WHERE profile_id = ANY(%(children)s) "
            "ORDER BY started_at, ended_at NULLS LAST",
            wanted,
        )
        for row in cursor:
            rows[row.profile_id].sessions.append(row)
        cursor.execute(
            "SELECT * FROM viewing_time_balances WHERE profile_id = ANY(%(children)s)", wanted
        )
        for row in cursor:
            rows[row.profile_id].balances.append(row)
        cursor.execute(
            "SELECT profile_id, minutes FROM time_grants WHERE profile_id = ANY(%(children)s)",
            wanted,
        )
        for row in cursor:
            rows[row.profile_id].grants.append(row.minutes)
        cursor.execute(
            "SELECT * FROM viewing_time_configs WHERE profile_id = ANY(%(children)s)", wanted
        )
        for row in cursor:
            rows[row.profile_id].config = row
    return rows


# --- Nothing lost ---------------------------------------------------------------------------


def _lost_beats(book: Book, rows: Rows, clock: Clock) -> Iterator[str]:
    sessions = {row.id: row for row in rows.sessions}
    used_before = 0.0
    for ack in book.acks:
        if ack.used_minutes < used_before:
            yield f"used fell from {used_before} to {ack.used_minutes} minutes"
        used_before = ack.used_minutes
        sent_at = clock.at_the_database(ack.sent_at, ack.heard_at)
        if not ack.is_playing or sent_at is None:
            continue
        row = None if ack.session is None else sessions.get(ack.session)
        if row is None:
            yield f"session {ack.session} was told and is not there"
        elif row.last_heartbeat_at < _instant(sent_at):
            missing = _instant(sent_at) - row.last_heartbeat_at
            yield f"a beat of session {ack.session} was taken and is not there: {missing} missing"
        elif clock.is_steady and book.phase is None:
            yield from _miscounted(ack, rows)
    total = sum(float(row.used_seconds) for row in rows.balances)
    if total + _ROUNDING < used_before * 60:
        yield f"{used_before} minutes were told and {total / 60:.3f} are stored"
    # Where a clock is set back, what passed since the last beat is not known.
    unknown = (1 + len(clock.steps)) * book.longest_step / SECOND
    free = book.watched / SECOND - (total - (book.home.minutes * 60 - book.allowance))
    if book.phase is None and free > unknown:
        yield f"{free:.3f} s were watched that count nowhere"


def _miscounted(ack: Ack, rows: Rows) -> Iterator[str]:
    """What an answer told of the day, against what the sessions had counted by then."""
    least = _used_until(rows, _instant(ack.sent_at)) - _ROUNDING
    most = _used_until(rows, _instant(ack.heard_at)) + _ROUNDING
    told = ack.used_minutes * 60
    if not least <= told <= most:
        yield f"{told:.2f} s were told, where {least:.2f} to {most:.2f} s had been watched"


def _used_until(rows: Rows, instant: datetime) -> float:
    """Seconds that the sessions count up to an instant; each counts whatever passed."""
    passed = [
        max(timedelta(0), min(instant, _end_of(row)) - row.started_at) for row in rows.sessions
    ]
    return sum(passed, timedelta(0)).total_seconds()


def _end_of(row: Any) -> datetime:
    end: datetime = row.ended_at or row.last_heartbeat_at
    return end


def _inexact_rows(rows: Rows) -> Iterator[str]:
    """Each session counts what passed, once, to the microsecond; a day is the sum of its own."""
    by_day: dict[date, Decimal] = {row.reset_date: Decimal(0) for row in rows.balances}
    for row in rows.sessions:
        elapsed = Decimal((_end_of(row) - row.started_at) // timedelta(microseconds=1)) / SECOND
        if row.total_seconds != elapsed:
            yield f"session {row.id} counts {row.total_seconds} s, where {elapsed} s passed"
        by_day[row.reset_date] = by_day.get(row.reset_date, Decimal(0)) + row.total_seconds
    for row in rows.balances:
        booked = row.used_seconds + row.educational_seconds
        if booked != by_day[row.reset_date]:
            yield f"{row.reset_date} has {booked} s, its sessions {by_day[row.reset_date]} s"
    if (opened := sum(row.ended_at is None for row in rows.sessions)) > 1:
        yield f"{opened} sessions are open"


def _lost_decisions(book: Book, rows: Rows) -> Iterator[str]:
    """Grants and limits: what was answered is there, once."""
    certain = sorted(book.grants[key] for key in book.granted)
    if sorted(rows.grants) != certain:
        unsure = sorted(book.grants[key] for key in book.grants.keys() - book.granted)
        # What was never answered may be there or not.
        if sorted(rows.grants) != sorted([*certain, *unsure]):
            yield f"grants of {certain} minutes were answered, {sorted(rows.grants)} are stored"
    granted = sum(float(row.granted_seconds) for row in rows.balances)
    if not 0 <= granted - 60 * sum(rows.grants) <= book.longest_step / SECOND:
        yield f"{granted} s are granted in the balance, {60 * sum(rows.grants)} s by grants"
    limits = {rows.config.weekday_limit_minutes, rows.config.weekend_limit_minutes}
    if not limits <= book.limits:
        yield f"the limit is {limits}, where {book.limits} was answered"
    for row in rows.balances:
        if row.limit_seconds not in {limit * 60 for limit in limits}:
            yield f"the day's limit is {row.limit_seconds} s, the config's {limits} min"
    known = None if book.phase is None else book.phase.is_exempt
    if known is not None and rows.config.educational_exempt != known:
        yield f"the exemption is {rows.config.educational_exempt}, where {known} was answered"


# --- No over-grant --------------------------------------------------------------------------


def _over_grants(book: Book, rows: Rows, clock: Clock) -> Iterator[str]:
    step = book.longest_step / SECOND
    if book.phase is not None:
        for sent_at in book.stale:
            yield f"{book.child}: a beat at {_instant(sent_at)} was judged by an old config"
        return
    if book.overrun > step:
        yield f"{book.child} watched {book.overrun:.3f} s too long, one beat took {step:.3f} s"
    gap = max([step, *((b.heard_at - a.sent_at) / SECOND for a, b in pairwise(book.acks))])
    if not clock.is_steady:
        # After a long silence by the database's clock a session ends half a minute after its beat.
        gap += 30
    for row in rows.balances:
        over = float(row.used_seconds - row.granted_seconds) - row.limit_seconds
        if over > gap:
            yield f"{book.child} has {over:.3f} s too much, no beat counts more than {gap:.3f} s"


# --- Honest answers -------------------------------------------------------------------------


def _dishonest(evidence: Evidence) -> Iterator[str]:
    for book in evidence.books:
        for outcome in book.outcomes:
            if outcome.fault is not None:
                yield f"{outcome.kind} after {outcome.seconds:.2f} s: {outcome.fault}"
            if outcome.status and outcome.seconds > (deadline := DEADLINES[outcome.kind]):
                stalled = evidence.stalls.seconds_between(outcome.sent_at, outcome.heard_at)
                if outcome.seconds - stalled > deadline:
                    yield f"{outcome.kind} after {outcome.seconds:.2f} s, stalls {stalled:.2f} s"
            if outcome.status == 0 and not any(
                kill <= outcome.heard_at <= kill + _RESET_SECONDS * SECOND
                for kill in evidence.kills
            ):
                yield f"{outcome.kind}: reset after {outcome.seconds:.2f} s, nobody was killed"


# --- Recovery by itself ---------------------------------------------------------------------


def _not_recovered(evidence: Evidence) -> Iterator[str]:
    """In the quiet after each fault, up to the next one."""
    for fault in evidence.faults:
        if fault.recovered_after is None:
            late = [b.child for b in evidence.books if not b.first_ack_since(fault.ended_at)]
            yield f"{len(late)} of {len(evidence.books)} children had no beat taken: {late[:3]}"
    if not evidence.faults:
        return
    ended_at = evidence.faults[-1].ended_at
    for book in evidence.books:
        beats = (
            outcome
            for outcome in book.outcomes
            if outcome.kind == "beat" and outcome.sent_at > ended_at + RECOVERY * SECOND
        )
        # Once may be a process that got no processor for a second: that is told when it asks again.
        for first, second in pairwise(beats):
            if first.status == second.status == 503:
                after = (first.sent_at - ended_at) / SECOND
                yield f"{book.child} was refused twice running {after:.2f} s after the fault"
                break


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
