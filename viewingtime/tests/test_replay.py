"""Every answer under load agrees with the rules, replayed with the database's own instants.

Children do everything at once that a household can do, each one thing after the other, racing
copies excepted. A journal in the database keeps the instants of what each event wrote. Afterwards
`viewingtime.ledger` is told the same events with the same instants: it has to give the same
answers, to the last digit, and the same rows, to the microsecond.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import SOAK_SECONDS, Service, Told
from viewingtime import ledger, ledgers
from viewingtime.ledger import Balance, Ledger, Session, Viewer
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.serializers import answer_body, minutes
from viewingtime.tests.evenings import LINES, Evening, Event
from viewingtime.tests.village import Child, children, instant

pytestmark = pytest.mark.django_db(transaction=True)

CHILDREN = 22
#: Seconds that are used of the fifteen minutes when the evening begins.
USED = (0.0, 0.0, 10.0, 298.5, 597.0, 599.0, 894.0, 897.0, 898.5, 899.5)

_JOURNAL = """
CREATE TABLE journal (
    id bigserial PRIMARY KEY, profile_id uuid, session_id uuid, is_new boolean,
    started_at timestamptz, last_heartbeat_at timestamptz, ended_at timestamptz
);
CREATE FUNCTION keep_journal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO journal (
        profile_id, session_id, is_new, started_at, last_heartbeat_at, ended_at
    ) VALUES (
        NEW.profile_id, NEW.id, TG_OP = 'INSERT', NEW.started_at, NEW.last_heartbeat_at,
        NEW.ended_at
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_journal AFTER INSERT OR UPDATE ON viewing_sessions
FOR EACH ROW EXECUTE FUNCTION keep_journal();
"""
_NO_JOURNAL = """
DROP TRIGGER IF EXISTS keep_journal ON viewing_sessions;
DROP FUNCTION IF EXISTS keep_journal();
DROP TABLE IF EXISTS journal;
"""


@pytest.fixture
def journal(transactional_db: None) -> Iterator[Callable[[], None]]:
    """Begins the journal."""
    with connection.cursor() as cursor:
        yield lambda: cursor.execute(_JOURNAL)
        cursor.execute(_NO_JOURNAL)


@dataclass
class Replay:
    """The rules' own account of a child's evening."""

    child: Child
    instants: list[datetime]
    opened: dict[datetime, list[UUID]]
    book: Ledger
    viewer: Viewer
    titles: dict[UUID, ledger.Title] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    now: datetime = datetime.min

    def new_id(self) -> UUID:
        """The id that the service gave to the session which started now."""
        return self.opened[self.now].pop(0)

    def of(self, event: Event, until: datetime) -> None:
        """Tells the rules an event; what the service answered has to be what they answer."""
        begin = bisect_left(self.instants, instant(event.sent_at))
        found = self.instants[begin : bisect_left(self.instants, until)]
        if event.is_heard and event.told:
            heard_at = instant(max(told.heard_at for told in event.told))
            assert all(t <= heard_at for t in found), "written after the answer"
        assert len(found) <= max(1, len(event.told)), (event, found)
        if not event.is_heard:
            assert all(told.status == 200 or told.is_honest_refusal for told in event.told)
            if not found:
                return
        given = sorted(((t.status, answer_of(event.kind, t)) for t in event.told), key=repr)
        for times in in_order(found or [instant(event.sent_at)], max(1, len(event.told))):
            before = (self.book, self.viewer, self.outcomes.copy())
            opened = {t: list(self.opened[t]) for t in found}
            told = self._answers(event, times)
            all_known = not any(self.opened[t] for t in found)
            if all_known and (told == given or not event.is_heard):
                return
            self.book, self.viewer, self.outcomes = before
            self.opened |= opened
        raise AssertionError((event, found))

    def _answers(self, event: Event, times: Sequence[datetime]) -> list[Any] | None:
        """What the rules answer to copies of an event at those instants, sorted.

        None where they open a session that the service did not.
        """
        answers = []
        try:
            for self.now in times:
                answers.append(getattr(self, f"_{event.kind}")(event.sent))
        except IndexError:
            return None
        return sorted((answer for answer in answers if answer is not None), key=repr)

    def _one(self, sent: dict[str, Any]) -> tuple[int, Any]:
        session_id = sent["session_id"]
        beat = ledger.Beat(
            title=self.titles[UUID(sent["title_id"])],
            device_id=sent["device_id"],
            session_id=None if session_id is None else UUID(session_id),
            is_paused=sent["is_paused"],
        )
        try:
            self.book, answer = ledger.transition(
                self.book, self.viewer, beat, self.now, self.new_id
            )
        except (ledger.TitleNotFound, ledger.SessionNotFound):
            return 404, None
        self.outcomes[answer.enforcement.value, answer.reason and answer.reason.value] += 1
        return 200, answer_body(answer)

    _beat = _one

    def _beats(self, sent: dict[str, Any]) -> tuple[int, Any]:
        return 200, [self._one(beat) for beat in sent["heartbeats"]]

    def _end(self, sent: dict[str, Any]) -> tuple[int, Any]:
        self.book, session = ledger.end_session(
            self.book, self.viewer, UUID(sent["session_id"]), self.now, self.new_id
        )
        return 200, (str(session.id), session.total.total_seconds(), session.ended_at)

    def _grant(self, sent: dict[str, Any]) -> tuple[int, Any]:
        self.book, balance = ledger.grant(self.book, self.viewer, sent["minutes"], self.now)
        remaining = balance.remaining
        left = None if remaining is None else max(ledger.ZERO, remaining)
        return 200, (sent["minutes"], minutes(left), balance.is_unlimited_override)

    def _config(self, sent: dict[str, Any]) -> tuple[int, Any]:
        if "educational_exempt" in sent:
            self.viewer = replace(self.viewer, educational_exempt=sent["educational_exempt"])
        else:
            limit = sent["weekday_limit_minutes"]
            amount = None if limit is None else timedelta(minutes=limit)
            self.viewer = replace(self.viewer, weekday_limit=amount, weekend_limit=amount)
            self.book = Ledger(
                self.book.sessions,
                {day: replace(b, limit=amount) for day, b in self.book.balances.items()},
            )
        return 200, None

    def _title(self, sent: dict[str, Any]) -> None:
        self.titles[sent["title_id"]] = ledger.Title(
            sent["title_id"],
            is_educational=sent["is_educational"],
            is_withdrawn=sent["is_withdrawn"],
        )


def in_order(instants: list[datetime], copies: int) -> Iterator[list[datetime]]:
    """Every way in which so many copies can have been decided at these instants, one or more at
    each: those for one child that are taken together are decided at the same one.
    """
    for cuts in combinations(range(1, copies), len(instants) - 1):
        bounds = [0, *cuts, copies]
        counts = [end - begin for begin, end in pairwise(bounds)]
        yield [t for t, count in zip(instants, counts, strict=True) for _ in range(count)]


def answer_of(kind: str, told: Told) -> Any:
    """What an answer says, as `Replay` tells it; None for a refusal."""
    body = told.body
    if told.status != 200:
        return None
    match kind:
        case "beats":
            return [
                (result["error"]["status"], None) if "error" in result else (200, result)
                for result in body["results"]
            ]
        case "end":
            ended_at = datetime.fromisoformat(body["ended_at"])
            return (body["session_id"], body["total_seconds"], ended_at)
        case "grant":
            return tuple(
                body[name]
                for name in ("granted_minutes", "remaining_minutes", "is_unlimited_override")
            )
        case "config":
            return None
    return body


def stored(child: Child) -> Ledger:
    """A child's rows."""
    sessions = {
        row.id: Session(
            id=row.id,
            title_id=row.title_id,
            device_id=row.device_id,
            device_type=row.device_type,
            is_educational=row.is_educational,
            reset_date=row.reset_date,
            started_at=row.started_at,
            last_heartbeat_at=row.last_heartbeat_at,
            paused_at=row.paused_at,
            ended_at=row.ended_at,
            end_reason=row.end_reason,
            total=timedelta(seconds=float(row.total_seconds)),
            educational=timedelta(seconds=float(row.educational_seconds)),
        )
        for row in ViewingSession.objects.filter(profile=child.profile)
    }
    balances = {
        row.reset_date: Balance(
            row.reset_date,
            used=timedelta(seconds=float(row.used_seconds)),
            educational=timedelta(seconds=float(row.educational_seconds)),
            granted=timedelta(seconds=float(row.granted_seconds)),
            is_unlimited_override=row.is_unlimited_override,
            limit=ledgers.limit_of(row.limit_seconds),
        )
        for row in ViewingTimeBalance.objects.filter(profile=child.profile)
    }
    return Ledger(sessions, balances)


def journaled() -> tuple[dict[UUID, list[datetime]], dict[UUID, dict[datetime, list[UUID]]]]:
    """Per child the instants at which something was written, and the sessions that opened then."""
    instants: dict[UUID, set[datetime]] = defaultdict(set)
    opened: dict[UUID, dict[datetime, list[UUID]]] = defaultdict(lambda: defaultdict(list))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT profile_id, session_id, is_new, started_at, last_heartbeat_at, ended_at "
            "FROM journal ORDER BY id"
        )
        for profile_id, session_id, is_new, started_at, *others in cursor.fetchall():
            instants[profile_id] |= {t for t in (started_at, *others) if t is not None}
            if is_new:
                opened[profile_id][started_at].append(session_id)
    return {id_: sorted(found) for id_, found in instants.items()}, opened


def test_every_answer_under_load_is_the_one_of_the_rules(
    served: Service, journal: Callable[[], None]
) -> None:
    people = children(CHILDREN, limit=15)
    limit = timedelta(minutes=15)
    before = {}
    titles = {}
    for n, child in enumerate(people):
        child.has_watched(USED[n % len(USED)])
        before[child.id] = stored(child)
        titles[child.id] = {t.id: ledger.Title(t.id, t.is_educational) for t in child.titles}
        child.connect(served, LINES)
    journal()
    evenings = [Evening(child, seed) for seed, child in enumerate(people)]
    stop = threading.Event()
    try:
        with ThreadPoolExecutor(CHILDREN) as pool:
            playing = [pool.submit(evening.play, stop) for evening in evenings]
            stop.wait(SOAK_SECONDS)
            stop.set()
            for future in playing:
                future.result()
    finally:
        for child in people:
            child.hang_up()

    instants, opened = journaled()
    outcomes: Counter[tuple[str, str | None]] = Counter()
    refused = 0
    for evening in evenings:
        child = evening.child
        replay = Replay(
            child,
            instants[child.id],
            opened[child.id],
            before[child.id],
            Viewer(is_kids=True, weekday_limit=limit, weekend_limit=limit, schedule=child.schedule),
            titles[child.id],
        )
        ends = [instant(event.sent_at) for event in evening.events[1:]]
        for event, until in zip(evening.events, [*ends, instant(2**53)], strict=True):
            replay.of(event, until)
            refused += not event.is_heard
        assert not any(replay.opened.values())
        assert stored(child) == replay.book
        outcomes += replay.outcomes
    assert_invariant()
    assert refused <= sum(len(evening.events) for evening in evenings) / 100
    # It was an evening in which everything happened.
    assert outcomes.keys() >= {
        ("allowed", None),
        ("warning_15", None),
        ("warning_5", None),
        ("blocked", "viewing_time_exhausted"),
        ("blocked", "session_ended"),
    }
