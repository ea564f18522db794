"""Ten times as many beats as the database can book, for a minute."""

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Final

from pins.tests.service import gunicorn
from tests.faults.books import DEADLINES, SECOND, Book
from tests.faults.crowd import Crowd, some_of
from tests.faults.evening import FAULT_SECONDS, conclude, now_in_microseconds
from tests.faults.judge import RECOVERY, Evidence, Fault
from tests.faults.stage import Stage

TIMES: Final = 10
#: Seconds of overload: a minute in a thorough run.
SECONDS: Final = min(6 * FAULT_SECONDS, 60.0)
#: Players, each on a connection; as many as an ordinary limit of open files allows.
PLAYERS: Final = 600
#: Those who find out what is sustainable, and who are served again afterwards.
FEW: Final = 10
#: Seconds that the database needs for each beat: a disk that is slow, so that it is the database
#: that is overloaded and not the machine of the players.
_ROW_SECONDS: Final = 0.08
#: Seconds that the database needs for each statement, however many beats are in it: a replica
#: that confirms each commit and is far away, or a disk that stalls.
_STATEMENT_SECONDS: Final = 0.37


@contextmanager
def slow_database(stage: Stage, when: str, each: str, seconds: float) -> Iterator[None]:
    """Inside it takes so long before or after each row or statement; later it is as it was."""
    with stage.connect() as database:
        database.execute(f"""
            CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END
            $$;
            CREATE TRIGGER be_slow {when} UPDATE ON viewing_sessions
            FOR EACH {each} EXECUTE FUNCTION be_slow();
        """)
        try:
            yield
        finally:
            database.execute("DROP FUNCTION be_slow CASCADE")


def may_open(players: int) -> int:
    """So many players, or fewer where the limit of open files is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = players + 200
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(players, soft - 200)


def test_of_ten_times_too_many_beats_as_many_are_booked_as_can_be(stage: Stage) -> None:
    began = time.monotonic()
    players = may_open(PLAYERS)
    home = stage.household(players)
    books = [Book(child, home, 480 * 60, limits={480}) for child in home.children]
    evidence = Evidence(books)
    figures: dict[str, str] = {}
    with (
        evidence.stalls.watched(),
        gunicorn(stage.postgres.url, WORKERS="2", REDIS_URL=stage.valkey.url) as service,
    ):
        asyncio.run(overload(stage, Crowd(service, books), evidence, figures))
    conclude("overload", stage, evidence, began=began, figures=figures)


def test_where_every_statement_is_slow_all_beats_share_a_few(stage: Stage) -> None:
    home = stage.household(120)
    books = [Book(child, home, 480 * 60, limits={480}) for child in home.children]
    evidence = Evidence(books)
    with gunicorn(stage.postgres.url, WORKERS="1", REDIS_URL=stage.valkey.url) as service:
        crowd = Crowd(service, books)

        async def play() -> int:
            await crowd.begin()
            with slow_database(stage, "AFTER", "STATEMENT", _STATEMENT_SECONDS):
                since = now_in_microseconds()
                # A few first: what a step for few costs must not bound what is taken of many.
                await crowd.play(2.0, players=8)
                await crowd.play(5.0, players=len(books), rate=200)
            crowd.hang_up()
            return since

        taken, answered = since_then(evidence, asyncio.run(play()))
    # Eight at a time would be twenty a second.
    assert taken >= 0.95 * len(answered), (taken, len(answered))
    assert taken >= 400, (taken, len(answered))
    assert answered[ceil(0.99 * len(answered)) - 1] < DEADLINES["beat"]


async def overload(stage: Stage, crowd: Crowd, evidence: Evidence, figures: dict[str, str]) -> None:
    await crowd.begin()
    with slow_database(stage, "BEFORE", "ROW", _ROW_SECONDS):
        since = now_in_microseconds()
        await crowd.play(3.0, players=FEW)
        taken, _ = since_then(evidence, since)
        sustainable = taken / ((now_in_microseconds() - since) / SECOND)

        since = now_in_microseconds()
        players = len(evidence.books)
        await crowd.play(SECONDS, players=players, rate=TIMES * sustainable)
        taken, answered = since_then(evidence, since)

        fault = Fault(now_in_microseconds())
        evidence.faults.append(fault)
        await crowd.play(RECOVERY, players=FEW, rate=sustainable / 2)
        acks = [book.first_ack_since(fault.ended_at) for book in some_of(evidence.books, FEW)]
        if all(acks):
            last = max(ack.heard_at for ack in acks if ack is not None)
            fault.recovered_after = (last - fault.ended_at) / SECOND
    crowd.hang_up()
    p99 = answered[ceil(0.99 * len(answered)) - 1]
    figures |= {
        "sustainable": f"{sustainable:.0f} a second",
        "offered for": f"{SECONDS:.0f} s",
        "offered": f"{len(answered) / SECONDS:.0f} a second",
        "taken": f"{taken / SECONDS:.0f} a second",
        "p99 of all answers": f"{p99:.2f} s",
    }
    assert len(answered) / SECONDS >= 0.8 * TIMES * sustainable, figures
    assert p99 < DEADLINES["beat"], figures
    # What can be booked is booked, and not swept away by what cannot.
    assert taken / SECONDS >= 0.6 * sustainable, figures


def since_then(evidence: Evidence, since: int) -> tuple[int, list[float]]:
    """How many beats that were sent since then were taken, and the seconds of all answers."""
    found = [
        outcome for book in evidence.books for outcome in book.outcomes if outcome.sent_at >= since
    ]
    return sum(outcome.status == 200 for outcome in found), sorted(o.seconds for o in found)
