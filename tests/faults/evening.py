"""An evening with a fault: everybody plays, something breaks, heals, and the judge has the word."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import pytest

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Service
from tests.faults import results
from tests.faults.books import DEADLINES, SECOND, Book, Clock, Phase, all_outcomes, counts
from tests.faults.judge import RECOVERY, Evidence, Fault, Findings, judge, read
from tests.faults.people import Parent, Player
from tests.faults.stage import Stage

#: How long a fault lasts, and the quiet before and after it; a thorough run takes 10.
FAULT_SECONDS: Final = float(os.environ.get("FAULT_SECONDS", "1"))
QUIET_SECONDS: Final = min(FAULT_SECONDS, 3.0)
#: Households of each kind.
SINGLES, FAMILIES, SIBLINGS, SCHOLARS = 10, 2, 4, 2


@dataclass
class Evening:
    """Who is there, and what was noted of them."""

    name: str
    stage: Stage
    services: Sequence[Service]
    evidence: Evidence
    players: list[Player]
    parents: list[Parent]
    figures: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _hurried: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))
    _late: list[Future[None]] = field(default_factory=list)

    @property
    def books(self) -> Sequence[Book]:
        return self.evidence.books

    def play_on(self, seconds: float = QUIET_SECONDS) -> None:
        """Lets so much time pass; players play."""
        time.sleep(seconds)

    def endure(self) -> None:
        """Lets the time of a fault pass."""
        self.play_on(FAULT_SECONDS)

    def await_everybody(self, seconds: float = LONG) -> bool:
        """Whether a beat of every child that is sent from now on was taken."""
        now = now_in_microseconds()
        return wait_until(lambda: all(b.first_ack_since(now) for b in self.books), seconds)

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Something is wrong inside; afterwards it is noted how long the service takes to heal."""
        yield
        fault = Fault(now_in_microseconds())
        self.evidence.faults.append(fault)
        if wait_until(
            lambda: all(book.first_ack_since(fault.ended_at) for book in self.books), RECOVERY
        ):
            acks = [book.first_ack_since(fault.ended_at) for book in self.books]
            fault.recovered_after = (
                max(ack.heard_at for ack in acks if ack is not None) - fault.ended_at
            ) / SECOND

    @contextmanager
    def many_grants(self, books: Sequence[Book], count: int) -> Iterator[None]:
        """So many parents more ask for time, each over and over, until the block ends.

        They get their answers before the evening is over.
        """
        enough = threading.Event()
        parents = [
            Parent(_beginning_at(self.services, n), books[n % len(books)], seed=n)
            for n in range(count)
        ]
        futures = [self._hurried.submit(parent.only_grant, enough) for parent in parents]
        try:
            yield
        finally:
            enough.set()
            self._late.extend(futures)

    @property
    def refused(self) -> int:
        """Beats that were refused so far."""
        return counts(self.books)["beat 503"]

    def note_kill(self) -> None:
        """A process of the service is killed now: its connections are reset."""
        self.evidence.kills.append(now_in_microseconds())


def now_in_microseconds() -> int:
    return time.time_ns() // 1000


@contextmanager
def evening(
    name: str, stage: Stage, *services: Service, clock: Clock | None = None
) -> Iterator[Evening]:
    """Players and parents at work, inside; afterwards they are judged, and the figures written."""
    books = _single_books(stage)
    families = _family_books(stage)
    tight = _tight_books(stage)
    scholars = _scholar_books(stage)
    everybody = [*books, *(book for family in families for book in family), *tight, *scholars]
    going_on = Evening(
        name,
        stage,
        services,
        Evidence(everybody, clock or Clock()),
        players=[
            *(Player(services, [book]) for book in [*books, *tight, *scholars]),
            *(Player(services, family, in_batches=True) for family in families),
        ],
        parents=[Parent(services, book, seed) for seed, book in enumerate([*books[:4], *scholars])],
    )
    people = len(going_on.players) + len(going_on.parents)
    evening_ends, parents_end = threading.Event(), threading.Event()
    with going_on.evidence.stalls.watched(), ThreadPoolExecutor(people) as pool:
        playing = [pool.submit(player.play, evening_ends) for player in going_on.players]
        acting = [pool.submit(parent.act, parents_end) for parent in going_on.parents]
        try:
            assert going_on.await_everybody(), "the evening did not begin"
            yield going_on
            going_on.play_on()
        finally:
            parents_end.set()
            try:
                _await([*acting, *going_on._late])
            finally:
                evening_ends.set()
                going_on._hurried.shutdown()
        _await(playing)
    conclude(name, stage, going_on.evidence, began=going_on.began, figures=going_on.figures)
    # Otherwise nothing was proved of them.
    assert any(ack.enforcement == "blocked" for book in tight for ack in book.acks)
    assert all(book.changes for book in scholars)


def _beginning_at(services: Sequence[Service], n: int) -> list[Service]:
    """All services, so that each is somebody's first."""
    first = n % len(services)
    return [*services[first:], *services[:first]]


def _await(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.result()


def conclude(
    name: str,
    stage: Stage,
    evidence: Evidence,
    *,
    began: float,
    figures: Mapping[str, Any],
) -> None:
    """Judges, writes the figures, and fails the test where something was found."""
    assert stage.await_idle(LONG), "statements are under way still"
    with stage.connect() as database:
        rows = read(database, [book.child for book in evidence.books])
    findings = judge(rows, evidence)
    results.write(_result(name, evidence, findings, began=began, figures=figures))
    assert not findings.all(), "\n".join(findings.all()[:20])


def _result(
    name: str,
    evidence: Evidence,
    findings: Findings,
    *,
    began: float,
    figures: Mapping[str, Any],
) -> results.Result:
    found = counts(evidence.books)
    longest = dict.fromkeys(DEADLINES, 0.0)
    for outcome in all_outcomes(evidence.books):
        longest[outcome.kind] = max(longest[outcome.kind], outcome.seconds)
    recoveries = [fault.recovered_after for fault in evidence.faults]
    known = [seconds for seconds in recoveries if seconds is not None]
    return results.Result(
        name=name,
        seconds=round(time.monotonic() - began, 1),
        taken=found["beat 200"],
        refused=found["beat 503"],
        reset=sum(count for what, count in found.items() if what.endswith(" 0")),
        decisions=found["grant 200"] + found["config 200"],
        longest_beat_seconds=round(longest["beat"], 3),
        longest_decision_seconds=round(max(longest["grant"], longest["config"]), 3),
        recovery_seconds=round(max(known), 2) if known and known == recoveries else None,
        lost=len(findings.lost),
        over_grant=len(findings.over_grant),
        dishonest=len(findings.dishonest),
        not_recovered=len(findings.not_recovered),
        figures=figures,
    )


def _single_books(stage: Stage) -> list[Book]:
    homes = [stage.household() for _ in range(SINGLES)]
    return [Book(home.child, home, 480 * 60, limits={480}) for home in homes]


def _family_books(stage: Stage) -> list[list[Book]]:
    homes = [stage.household(SIBLINGS) for _ in range(FAMILIES)]
    return [
        [Book(child, home, 480 * 60, limits={480}) for child in home.children] for home in homes
    ]


def _tight_books(stage: Stage) -> list[Book]:
    """Children whose time runs out before, during and after the fault."""
    quiet, fault = QUIET_SECONDS, FAULT_SECONDS
    lasts = [quiet / 2, quiet + fault / 10, quiet + fault / 2, quiet + fault, 2 * quiet + fault]
    homes = [stage.household(minutes=15, watched=900 - left) for left in lasts]
    return [
        Book(home.child, home, left, limits={15}) for home, left in zip(homes, lasts, strict=True)
    ]


def _scholar_books(stage: Stage) -> list[Book]:
    """Children without time in front of what their parent exempts, and does not, and does."""
    homes = [stage.household(minutes=15, watched=900, learns=True) for _ in range(SCHOLARS)]
    return [Book(home.child, home, 0, limits={15}, phase=Phase(True)) for home in homes]


def skip(name: str, reason: str) -> NoReturn:
    """Leaves a scenario out, and lets the table say why."""
    results.write(results.Result(name=name, skipped=reason))
    pytest.skip(reason)
