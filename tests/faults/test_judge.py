"""The judge finds what is wrong, so that what it does not find is not there."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.faults.books import SECOND, Ack, Book, Outcome, Phase
from tests.faults.judge import Evidence, Fault, Findings, Rows, judge
from tests.faults.stage import Household

#: When the child of these tests began to watch.
BEGAN = datetime(2026, 3, 2, 17, tzinfo=UTC)
SESSION = UUID(int=1)
TODAY = date(2026, 3, 2)


def microseconds(seconds: float) -> int:
    """An instant of the evening as the books have it."""
    return round(BEGAN.timestamp() * SECOND + seconds * SECOND)


class Case:
    """A child who beat each second for ten, was given 15 minutes, and whose limit was lowered."""

    def __init__(self) -> None:
        child = uuid4()
        home = Household(uuid4(), [child], uuid4(), "", 480)
        self.book = Book(child, home, 480 * 60, limits={420}, changes=1)
        self.book.grants, self.book.granted = {"a key": 15}, {"a key"}
        for second in range(11):
            sent_at, heard_at = microseconds(second - 0.01), microseconds(second + 0.01)
            self.book.acks.append(Ack(SESSION, sent_at, heard_at, round(second / 60, 2), "allowed"))
            self.book.outcomes.append(Outcome("beat", 200, sent_at, heard_at))
        self.book.watched, self.book.longest_step = 10 * SECOND, SECOND
        self.session = SimpleNamespace(
            id=SESSION,
            reset_date=TODAY,
            started_at=BEGAN,
            last_heartbeat_at=BEGAN + timedelta(seconds=10),
            ended_at=None,
            total_seconds=Decimal(10),
        )
        self.balance = SimpleNamespace(
            reset_date=TODAY,
            used_seconds=Decimal(10),
            educational_seconds=Decimal(0),
            granted_seconds=Decimal(900),
            limit_seconds=420 * 60,
        )
        self.config = SimpleNamespace(
            weekday_limit_minutes=420, weekend_limit_minutes=420, educational_exempt=True
        )
        self.rows = Rows([self.session], [self.balance], [15], self.config)
        self.evidence = Evidence([self.book], faults=[Fault(microseconds(2), 0.5)])

    def judged(self) -> Findings:
        return judge({self.book.child: self.rows}, self.evidence)


def book_less(case: Case) -> None:
    """A millisecond of a beat that was taken."""
    case.session.last_heartbeat_at -= timedelta(milliseconds=11)
    case.session.total_seconds -= Decimal("0.011")
    case.balance.used_seconds -= Decimal("0.011")


def book_twice(case: Case) -> None:
    case.session.total_seconds += 1
    case.balance.used_seconds += 1


def open_a_second_session(case: Case) -> None:
    case.rows.sessions.append(SimpleNamespace(**{**vars(case.session), "id": uuid4()}))


def tell_too_little(case: Case) -> None:
    case.book.acks[5] = Ack(SESSION, microseconds(5), microseconds(5.1), 0.0, "allowed")


def watch_free(case: Case) -> None:
    case.book.watched += 5 * SECOND


def set_attribute(of: Callable[[Case], Any], name: str, value: Any) -> Callable[[Case], None]:
    return lambda case: setattr(of(case), name, value)


LOSSES: dict[str, Callable[[Case], None]] = {
    "a beat": book_less,
    "a beat twice": book_twice,
    "a session": lambda case: case.rows.sessions.clear(),
    "the balance's share": set_attribute(lambda c: c.balance, "used_seconds", Decimal("9.999")),
    "one stream": open_a_second_session,
    "an answer's truth": tell_too_little,
    "what was watched": watch_free,
    "a grant": lambda case: case.rows.grants.clear(),
    "a grant twice": lambda case: case.rows.grants.append(15),
    "the grant's time": set_attribute(lambda c: c.balance, "granted_seconds", Decimal(0)),
    "a change": set_attribute(lambda c: c.config, "weekday_limit_minutes", 480),
    "a change for today": set_attribute(lambda c: c.balance, "limit_seconds", 480 * 60),
}


def test_an_evening_as_it_should_be_has_no_findings() -> None:
    assert Case().judged().all() == []


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_lost_or_counted_twice_is_found(what: str) -> None:
    case = Case()
    LOSSES[what](case)
    findings = case.judged()
    assert findings.lost
    assert not findings.dishonest


def test_a_grant_that_was_never_answered_may_be_there_or_not() -> None:
    case = Case()
    case.book.grants["another key"] = 30
    assert case.judged().all() == []
    case.rows.grants.append(30)
    case.balance.granted_seconds += 1800
    assert case.judged().all() == []


def test_a_child_that_watched_more_than_a_beat_too_long_is_found() -> None:
    case = Case()
    case.book.allowance, case.book.grants, case.book.granted = 8.5, {}, set()
    case.rows.grants.clear()
    assert case.judged().over_grant


def test_a_balance_that_is_overdrawn_by_more_than_a_beat_is_found() -> None:
    case = Case()
    case.balance.limit_seconds = 5 - 900
    assert case.judged().over_grant


def test_a_beat_judged_by_an_old_config_is_found() -> None:
    case = Case()
    case.book.phase = Phase(True)
    case.book.stale.append(microseconds(3))
    assert case.judged().over_grant


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("beat", 500, microseconds(3), microseconds(3.1), "500"),
        Outcome("beat", 0, microseconds(3), microseconds(3.1)),
        Outcome("beat", 200, microseconds(3), microseconds(5.1)),
        Outcome("beat", 503, microseconds(3), microseconds(5.1)),
        Outcome("grant", 200, microseconds(3), microseconds(13.1)),
    ],
)
def test_what_is_neither_an_answer_nor_an_honest_refusal_is_found(outcome: Outcome) -> None:
    case = Case()
    case.book.outcomes.append(outcome)
    assert case.judged().dishonest


def test_a_late_answer_is_honest_where_the_machine_stood_still_meanwhile() -> None:
    case = Case()
    case.book.outcomes.append(Outcome("beat", 200, microseconds(3), microseconds(5.1)))
    case.evidence.stalls.noted.append((microseconds(4), 0.2))
    assert case.judged().all() == []
    case.evidence.stalls.noted[0] = (microseconds(5.2), 0.2)
    assert case.judged().dishonest
    # Of a stall that was under way when it was sent, only the rest.
    case.evidence.stalls.noted[0] = (microseconds(3.05), 0.2)
    assert case.judged().dishonest


def test_a_reset_is_honest_where_a_process_was_killed_just_then() -> None:
    case = Case()
    case.book.outcomes.append(Outcome("beat", 0, microseconds(3), microseconds(3.1)))
    case.evidence.kills.append(microseconds(2.9))
    assert case.judged().all() == []
    case.evidence.kills[0] = microseconds(0.5)
    assert case.judged().dishonest


def test_a_service_that_does_not_recover_is_found() -> None:
    case = Case()
    case.evidence.faults[0].recovered_after = None
    assert case.judged().not_recovered


def test_a_child_refused_twice_running_long_after_the_fault_is_found() -> None:
    case = Case()
    refusals = [
        Outcome("beat", 503, microseconds(at), microseconds(at + 0.1)) for at in (8, 8.3, 8.6)
    ]
    case.book.outcomes += refusals[:1]
    assert case.judged().all() == []
    taken = Outcome("beat", 200, microseconds(8.3), microseconds(8.4))
    case.book.outcomes += [taken, refusals[2]]
    assert case.judged().all() == []
    case.book.outcomes.insert(-2, refusals[1])
    assert case.judged().not_recovered
