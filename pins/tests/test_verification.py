"""The count of wrong PINs, by the database's clock: five lock for half an hour, a right one clears.

Attempts that overlap are made to by holding up the hash of one of them, in its hashing thread.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import bcrypt
import pytest
from django.db import DatabaseError, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from model_bakery import baker

from parentalcontrols.models import Account
from parentalcontrols.problems import Problem
from parentalcontrols.tests.cast import PIN, Cast, everything_stored, set_pin
from pins import audit, hashing, verification
from pins.audit import OPERATOR, Actor
from pins.models import ActorKind, AuditAction, AuditEntry, Pin
from viewingtime.tests import clock
from viewingtime.tests.test_concurrency import at_once, in_thread

WRONG, NEW, OTHER = "0815", "2580", "9173"
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
LOCK = timedelta(minutes=30)
FIVE = 5
INSTANT = timedelta(microseconds=1)
LONG = 30


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an attempt takes at least, and at most, is `test_hashing`'s."""
    monkeypatch.setattr(verification, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(hashing, "_LONGEST_WAIT", LONG)


@pytest.fixture
def home(db: None) -> Account:
    """An account with a PIN; the database's clock stands at noon."""
    account = make_home()
    clock.install()
    clock.set_to(NOON)
    return account


@pytest.fixture
def racing_home(transactional_db: None, settings: Any) -> Iterator[Account]:
    """An account with a PIN, for several connections, and enough hashing threads."""
    settings.HASHING_SLOTS, settings.HASHING_THREADS = 64, 32
    hashing._hashers_of.cache_clear()
    yield make_home()
    hashing._hashers_of.cache_clear()


def make_home(pin: str | None = PIN) -> Account:
    account = baker.make(Account, email=f"{uuid4()}@example.com", is_active=True)
    if pin is not None:
        set_pin(account, pin)
    return account


def outcome(call: Callable[[], object]) -> str:
    """What comes of an attempt: "right", or the code of the refusal."""
    try:
        call()
    except Problem as problem:
        return problem.code
    return "right"


def attempt(account: Account, pin: str, actor: Actor = OPERATOR) -> str:
    return outcome(lambda: verification.check(account.id, pin, actor=actor))


def attempts(account: Account, pin: str, count: int) -> list[str]:
    return [attempt(account, pin) for _ in range(count)]


def change(account: Account, current_pin: str | None, new_pin: str) -> str:
    return outcome(
        lambda: verification.set_pin(
            account.id, new_pin, current_pin=current_pin, actor=audit.OPERATOR
        )
    )


def lock_of(account: Account) -> datetime | None:
    return verification.status(account.id).locked_until


def actions(account: Account) -> list[str]:
    found = AuditEntry.objects.filter(account_id=account.id).order_by("id")
    return list(found.values_list("action", flat=True))


class HeldUp:
    """Holds up the first hash that is compared, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_under_way, self.may_go_on = threading.Event(), threading.Event()
        self._compare = bcrypt.checkpw
        self._first = threading.Lock()
        monkeypatch.setattr(bcrypt, "checkpw", self._held_up)

    def _held_up(self, password: bytes, hashed: bytes) -> bool:
        if self._first.acquire(blocking=False):
            self.is_under_way.set()
            assert self.may_go_on.wait(LONG)
        return self._compare(password, hashed)

    def begin(self, call: Callable[[], object]) -> Future[Any]:
        """Starts a call in a thread, and answers once it is being hashed."""
        begun = in_thread(call)
        assert self.is_under_way.wait(LONG)
        return begun

    def finish(self, begun: Future[Any]) -> Any:
        self.may_go_on.set()
        return begun.result(LONG)


# One attempt after the other


def test_four_wrong_pins_do_not_lock(home: Account) -> None:
    assert attempts(home, WRONG, 4) == ["incorrect_pin"] * 4
    assert lock_of(home) is None
    assert attempt(home, PIN) == "right"


def test_the_fifth_wrong_pin_locks_for_30_minutes(home: Account) -> None:
    assert attempts(home, WRONG, FIVE) == ["incorrect_pin"] * FIVE
    assert lock_of(home) == NOON + LOCK
    assert attempt(home, PIN) == "pin_locked"
    assert attempt(home, WRONG) == "pin_locked"


def test_a_lock_lasts_to_its_last_microsecond(home: Account) -> None:
    attempts(home, WRONG, FIVE)
    clock.set_to(NOON + LOCK - INSTANT)
    assert attempt(home, PIN) == "pin_locked"
    assert lock_of(home) == NOON + LOCK
    clock.set_to(NOON + LOCK)
    assert lock_of(home) is None
    assert attempt(home, PIN) == "right"


def test_what_is_refused_under_a_lock_neither_prolongs_it_nor_counts(home: Account) -> None:
    attempts(home, WRONG, FIVE)
    stored = everything_stored()
    clock.set_to(NOON + timedelta(minutes=20))
    assert attempts(home, WRONG, 20) == ["pin_locked"] * 20
    assert everything_stored() == stored


def test_a_lock_that_ran_out_starts_a_fresh_count_of_five(home: Account) -> None:
    attempts(home, WRONG, FIVE)
    clock.set_to(NOON + LOCK)
    assert attempts(home, WRONG, 4) == ["incorrect_pin"] * 4
    assert lock_of(home) is None
    later = NOON + LOCK + timedelta(minutes=1)
    clock.set_to(later)
    assert attempts(home, WRONG, 2) == ["incorrect_pin", "pin_locked"]
    assert lock_of(home) == later + LOCK


def test_a_right_pin_clears_the_count(home: Account) -> None:
    for _ in range(3):
        attempts(home, WRONG, 4)
        assert attempt(home, PIN) == "right"
    assert lock_of(home) is None
    assert attempts(home, WRONG, 6) == ["incorrect_pin"] * FIVE + ["pin_locked"]


def test_the_fifth_attempt_may_be_the_right_one(home: Account) -> None:
    attempts(home, WRONG, 4)
    assert attempt(home, PIN) == "right"
    assert lock_of(home) is None
    assert attempts(home, WRONG, 6) == ["incorrect_pin"] * FIVE + ["pin_locked"]


def test_wrong_pins_are_not_forgotten_with_time(home: Account) -> None:
    attempts(home, WRONG, 4)
    clock.set_to(NOON + timedelta(days=30))
    assert attempts(home, WRONG, 2) == ["incorrect_pin", "pin_locked"]


def test_each_account_has_a_count_of_its_own(home: Account) -> None:
    neighbour = make_home()
    attempts(home, WRONG, FIVE)
    assert attempts(neighbour, WRONG, 4) == ["incorrect_pin"] * 4
    assert attempt(neighbour, PIN) == "right"
    assert attempt(home, PIN) == "pin_locked"


def test_without_a_pin_nothing_is_counted_and_nothing_locked(db: None) -> None:
    account = make_home(pin=None)
    assert attempts(account, PIN, 7) == ["pin_not_set"] * 7
    assert not Pin.objects.exists()
    assert change(account, None, NEW) == "right"
    assert attempt(account, NEW) == "right"


def test_an_attempt_that_ends_in_an_error_counts_as_a_failure(
    home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: bytes) -> bool:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(bcrypt, "checkpw", fail)
        for _ in range(4):
            with pytest.raises(MemoryError):
                attempt(home, PIN)
    assert attempts(home, WRONG, 2) == ["incorrect_pin", "pin_locked"]


def test_a_change_counts_like_any_other_attempt(home: Account) -> None:
    assert [change(home, WRONG, NEW) for _ in range(FIVE)] == ["incorrect_pin"] * FIVE
    assert change(home, PIN, NEW) == "pin_locked"
    assert attempt(home, PIN) == "pin_locked"


def test_a_change_clears_the_count(home: Account) -> None:
    attempts(home, WRONG, 4)
    assert change(home, PIN, NEW) == "right"
    assert attempts(home, PIN, 4) == ["incorrect_pin"] * 4
    assert attempt(home, NEW) == "right"


def test_a_change_without_the_current_pin_spends_no_attempt(home: Account) -> None:
    stored = everything_stored()
    assert [change(home, None, NEW) for _ in range(6)] == ["pin_required"] * 6
    assert everything_stored() == stored


def test_verify_change_and_grant_share_one_count(cast: Cast) -> None:
    set_pin(cast.parent)
    grant = f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant"
    tries = [
        lambda pin: cast.phone.post("/parental-controls/pin/verify", {"pin": pin}),
        lambda pin: cast.child_tv.post("/parental-controls/pin/verify", {"pin": pin}),
        lambda pin: cast.phone.post("/parental-controls/pin", {"new_pin": NEW, "current_pin": pin}),
        lambda pin: cast.child_tv.post(grant, {"minutes": 15, "pin": pin}),
        lambda pin: cast.phone.post(grant, {"minutes": 15, "pin": pin}),
    ]
    assert [attempt(WRONG).json()["code"] for attempt in tries] == ["incorrect_pin"] * FIVE
    assert [attempt(PIN).json()["code"] for attempt in tries] == ["pin_locked"] * FIVE


# What is recorded, and the lifting of a lock


def test_a_lock_is_recorded_once_with_its_end_and_who_caused_it(home: Account) -> None:
    culprit = Actor(ActorKind.PROFILE, uuid4(), uuid4(), "living-room tv")
    for _ in range(7):
        attempt(home, WRONG, actor=culprit)
    (entry,) = AuditEntry.objects.filter(account_id=home.id, action=AuditAction.PIN_LOCKED)
    assert entry.after == {"locked_until": "2026-03-28T12:30:00Z"}
    assert (entry.actor, entry.actor_id) == (culprit.kind, culprit.id)
    assert (entry.login_id, entry.device) == (culprit.login_id, culprit.device)


def test_a_lock_that_the_right_pin_lifts_at_once_is_recorded_with_its_end(home: Account) -> None:
    attempts(home, WRONG, 4)
    before = actions(home)
    assert attempt(home, PIN) == "right"
    assert actions(home) == [*before, "pin_locked", "pin_unlocked"]
    attempts(home, WRONG, 3)
    assert attempt(home, PIN) == "right"
    assert actions(home) == [*before, "pin_locked", "pin_unlocked"]


def test_an_unlocked_pin_may_be_tried_five_times_again_and_that_is_recorded(home: Account) -> None:
    attempts(home, WRONG, FIVE)
    staff = Actor(ActorKind.STAFF, uuid4())
    assert verification.unlock([home.id], actor=staff) == [home.id]
    assert lock_of(home) is None
    entry = AuditEntry.objects.filter(account_id=home.id).latest("id")
    assert (entry.action, entry.actor, entry.actor_id) == ("pin_unlocked", "staff", staff.id)
    assert entry.before == {"locked_until": "2026-03-28T12:30:00Z"}
    assert attempts(home, WRONG, 6) == ["incorrect_pin"] * FIVE + ["pin_locked"]


def test_unlocking_answers_and_records_only_what_was_locked(home: Account) -> None:
    tried, locked, ran_out, without = make_home(), make_home(), make_home(), make_home(pin=None)
    attempts(ran_out, WRONG, FIVE)
    clock.set_to(NOON + LOCK)
    attempts(locked, WRONG, FIVE)
    attempts(tried, WRONG, 4)
    everybody = [tried.id, locked.id, ran_out.id, without.id]
    assert verification.unlock([*everybody, uuid4()], actor=OPERATOR) == [locked.id]
    unlocked = AuditEntry.objects.filter(action=AuditAction.PIN_UNLOCKED)
    assert [entry.account_id for entry in unlocked] == [locked.id]
    assert attempts(tried, WRONG, 4) == ["incorrect_pin"] * 4
    assert attempts(locked, PIN, 1) == ["right"]
    assert attempts(without, PIN, 1) == ["pin_not_set"]


def test_unlocking_nobody_does_nothing(home: Account) -> None:
    attempts(home, WRONG, FIVE)
    assert verification.unlock([], actor=OPERATOR) == []
    assert attempt(home, PIN) == "pin_locked"


def test_setting_changing_and_overwriting_are_recorded_without_the_pin(db: None) -> None:
    account = make_home(pin=None)
    change(account, None, PIN)
    change(account, PIN, NEW)
    verification.overwrite(account.id, OTHER, actor=OPERATOR)
    assert actions(account) == ["pin_set", "pin_changed", "pin_reset"]
    entries = AuditEntry.objects.filter(account_id=account.id)
    assert {(entry.before, entry.after) for entry in entries} == {(None, None)}


def test_what_is_refused_is_not_recorded_as_a_change(home: Account) -> None:
    before = actions(home)
    change(home, WRONG, NEW)
    change(home, None, NEW)
    assert actions(home) == before


# Attempts that overlap


@pytest.mark.django_db(transaction=True)
def test_a_check_inside_a_transaction_is_refused_and_counts_nothing() -> None:
    account = make_home()
    for pin in (PIN, WRONG):
        with pytest.raises(RuntimeError), transaction.atomic():
            attempt(account, pin)
    assert Pin.objects.get().attempts_reserved == 0
    assert attempt(account, PIN) == "right"


def test_a_right_pin_does_not_forgive_a_wrong_one_that_was_reserved_after_it(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempt(racing_home, WRONG) == "incorrect_pin"
    held_up = HeldUp(monkeypatch)
    right = held_up.begin(lambda: attempt(racing_home, PIN))
    assert attempts(racing_home, WRONG, 3) == ["incorrect_pin"] * 3
    assert held_up.finish(right) == "right"
    assert attempts(racing_home, WRONG, 3) == ["incorrect_pin"] * 2 + ["pin_locked"]


def test_a_right_pin_lifts_the_lock_that_it_was_counted_for_before_it_was_hashed(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = HeldUp(monkeypatch)
    right = held_up.begin(lambda: attempt(racing_home, PIN))
    assert attempts(racing_home, WRONG, 5) == ["incorrect_pin"] * 4 + ["pin_locked"]
    assert held_up.finish(right) == "right"
    assert lock_of(racing_home) is None
    assert attempts(racing_home, WRONG, 2) == ["incorrect_pin", "pin_locked"]


def test_a_right_pin_does_not_lift_a_lock_that_five_later_attempts_set(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = HeldUp(monkeypatch)
    right = held_up.begin(lambda: attempt(racing_home, PIN))
    verification.unlock([racing_home.id], actor=OPERATOR)
    assert attempts(racing_home, WRONG, FIVE) == ["incorrect_pin"] * FIVE
    assert held_up.finish(right) == "right"
    assert attempt(racing_home, PIN) == "pin_locked"


@pytest.mark.parametrize("new_pin", [NEW, PIN])
def test_a_pin_that_is_replaced_while_it_is_hashed_is_refused(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch, new_pin: str
) -> None:
    held_up = HeldUp(monkeypatch)
    old = held_up.begin(lambda: attempt(racing_home, PIN))
    verification.overwrite(racing_home.id, new_pin, actor=OPERATOR)
    assert held_up.finish(old) == "incorrect_pin"
    assert attempt(racing_home, new_pin) == "right"


def test_a_change_by_a_pin_that_is_replaced_while_it_is_hashed_is_refused(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = HeldUp(monkeypatch)
    late = held_up.begin(lambda: change(racing_home, PIN, OTHER))
    assert change(racing_home, PIN, NEW) == "right"
    assert held_up.finish(late) == "incorrect_pin"
    assert attempt(racing_home, NEW) == "right"
    assert attempt(racing_home, OTHER) == "incorrect_pin"


@pytest.mark.parametrize("earlier", [0, 4])
def test_an_attempt_that_gets_no_processor_in_time_is_sent_away_and_not_counted(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    attempts(racing_home, WRONG, earlier)
    before = actions(racing_home)
    held_up = HeldUp(monkeypatch)
    with monkeypatch.context() as hasty:
        hasty.setattr(hashing, "_LONGEST_WAIT", 0.01)
        starved = held_up.begin(lambda: attempt(racing_home, WRONG))
        assert starved.result(LONG) == "unavailable"
    assert lock_of(racing_home) is None
    # The fifth one locked, until it was given back.
    assert actions(racing_home) == before + ["pin_locked", "pin_unlocked"] * (earlier == 4)
    held_up.may_go_on.set()
    left = FIVE - earlier
    assert attempts(racing_home, WRONG, left + 1) == ["incorrect_pin"] * left + ["pin_locked"]


def test_an_unlock_while_a_wrong_pin_is_hashed_leaves_that_one_uncounted(
    racing_home: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = HeldUp(monkeypatch)
    wrong = held_up.begin(lambda: attempt(racing_home, WRONG))
    verification.unlock([racing_home.id], actor=OPERATOR)
    assert held_up.finish(wrong) == "incorrect_pin"
    assert attempts(racing_home, WRONG, 6) == ["incorrect_pin"] * FIVE + ["pin_locked"]


def test_of_racing_changes_by_the_same_current_pin_one_is_made(racing_home: Account) -> None:
    for _ in range(5):
        current = set_pin(racing_home)
        new_pins = ["1111", "2222", "3333", "4444"]
        outcomes = at_once(
            *[
                lambda new_pin=new_pin, current=current: change(racing_home, current, new_pin)
                for new_pin in new_pins
            ]
        )
        assert sorted(outcomes) == ["incorrect_pin"] * 3 + ["right"]
        made = new_pins[outcomes.index("right")]
        verification.unlock([racing_home.id], actor=OPERATOR)
        assert [pin for pin in new_pins if attempt(racing_home, pin) == "right"] == [made]
    assert actions(racing_home).count("pin_changed") == 5


@pytest.mark.django_db(transaction=True)
def test_of_racing_first_pins_one_is_set() -> None:
    for _ in range(5):
        account = make_home(pin=None)
        pins = ["1111", "2222", "3333", "4444"]
        calls = [lambda pin=pin, home=account: change(home, None, pin) for pin in pins]
        outcomes = at_once(*calls)
        assert sorted(outcomes) == ["pin_required"] * 3 + ["right"]
        assert attempt(account, pins[outcomes.index("right")]) == "right"
        assert actions(account) == ["pin_set"]


def test_racing_right_pins_are_all_right(racing_home: Account) -> None:
    for _ in range(3):
        assert set(at_once(*[lambda: attempt(racing_home, PIN) for _ in range(FIVE)])) == {"right"}
        assert lock_of(racing_home) is None


def test_unlocks_race_guesses_without_a_deadlock(racing_home: Account) -> None:
    neighbour = make_home()
    both = [racing_home.id, neighbour.id]

    def unlock(account_ids: list[UUID]) -> None:
        for _ in range(20):
            verification.unlock(account_ids, actor=OPERATOR)

    guesses = [lambda home=home: attempts(home, WRONG, 20) for home in (racing_home, neighbour)]
    try:
        at_once(lambda: unlock(both), lambda: unlock(both[::-1]), *guesses, *guesses)
    except DatabaseError as error:
        pytest.fail(f"{error}")
    verification.unlock(both, actor=OPERATOR)
    assert [attempt(home, PIN) for home in (racing_home, neighbour)] == ["right", "right"]


# Any sequence of events, against the rules told in another way


@dataclass
class Guess:
    """An attempt under way: its number, whether its PIN was right, and for which PIN."""

    number: int
    is_right: bool
    version: int
    reserved: verification._Attempt


@dataclass
class Rules:
    """The rules of the counter: a list of what counts, and a lock."""

    pin: str = PIN
    version: int = 0
    now: datetime = NOON
    counted: list[int] = field(default_factory=list)
    locked_until: datetime | None = None
    reservations: int = 0
    told: list[str] = field(default_factory=list)

    def begin(self) -> int | None:
        """The number of an attempt; None under a lock."""
        if self.is_locked:
            return None
        if self.locked_until is not None:
            self.counted, self.locked_until = [], None
        self.reservations += 1
        self.counted.append(self.reservations)
        if len(self.counted) == FIVE:
            self.locked_until = self.now + LOCK
            self.told.append("pin_locked")
        return self.reservations

    def finish(self, guess: Guess) -> bool:
        """Whether a guess is right; what was reserved after it goes on counting."""
        if not guess.is_right or guess.version != self.version:
            return False
        self.counted = [number for number in self.counted if number > guess.number]
        if len(self.counted) < FIVE:
            self.unlock_now()
        return True

    def give_back(self, guess: Guess) -> None:
        """A guess that was never evaluated counts no more, if it is the latest one."""
        if guess.version == self.version and guess.number in self.counted[-1:]:
            self.counted.pop()
            self.reservations -= 1
            self.unlock_now()

    def replace(self, pin: str) -> None:
        self.pin = pin
        self.version += 1
        self.counted, self.locked_until = [], None

    def unlock(self) -> None:
        self.counted = []
        self.unlock_now()

    def unlock_now(self) -> None:
        if self.is_locked:
            self.told.append("pin_unlocked")
        self.locked_until = None

    @property
    def is_locked(self) -> bool:
        return self.locked_until is not None and self.now < self.locked_until


class Run:
    """The rules and the database, told the same."""

    def __init__(self) -> None:
        self.account = make_home()
        self.rules = Rules()
        self.under_way: list[Guess] = []
        clock.set_to(self.rules.now)

    def begin(self, pin: str) -> None:
        number = self.rules.begin()
        if number is None:
            with pytest.raises(Problem) as refused:
                verification._reserve(self.account.id, OPERATOR)
            assert refused.value.code == "pin_locked"
            left = self.rules.locked_until - self.rules.now
            assert refused.value.headers["Retry-After"] == str(-(-left // timedelta(seconds=1)))
            return
        reserved = verification._reserve(self.account.id, OPERATOR)
        assert reserved is not None
        is_right = pin == self.rules.pin
        self.under_way.append(Guess(number, is_right, self.rules.version, reserved))

    def finish(self, place: int) -> None:
        if self.under_way:
            guess = self.under_way.pop(place % len(self.under_way))
            pin = self.pin_of(guess)
            found = verification._evaluate(self.account.id, pin, guess.reserved, OPERATOR)
            if self.rules.finish(guess):
                assert found == guess.reserved.version
            else:
                assert isinstance(found, Problem)
                assert found.code == "incorrect_pin"

    def starve(self, place: int) -> None:
        """An attempt whose hash does not get the processor in time."""
        if self.under_way:
            guess = self.under_way.pop(place % len(self.under_way))
            self.rules.give_back(guess)
            verification._give_back(self.account.id, guess.reserved, OPERATOR)

    @staticmethod
    def pin_of(guess: Guess) -> str:
        """The right PIN is odd or even by turns."""
        right = PIN if guess.version % 2 == 0 else NEW
        return right if guess.is_right else WRONG

    def attempt(self, pin: str) -> None:
        before = len(self.under_way)
        self.begin(pin)
        if len(self.under_way) > before:
            self.finish(-1)

    def crash(self, pin: str) -> None:
        """An attempt whose process dies before it is evaluated."""
        before = len(self.under_way)
        self.begin(pin)
        del self.under_way[before:]

    def replace(self) -> None:
        self.rules.replace(NEW if self.rules.pin == PIN else PIN)
        verification.overwrite(self.account.id, self.rules.pin, actor=OPERATOR)

    def unlock(self) -> None:
        was_locked = self.rules.is_locked
        self.rules.unlock()
        unlocked = verification.unlock([self.account.id], actor=OPERATOR)
        assert unlocked == [self.account.id] * was_locked

    def wait(self, minutes: int) -> None:
        self.rules.now += timedelta(minutes=minutes)
        clock.set_to(self.rules.now)

    def do(self, event: tuple[str, Any]) -> None:
        name, argument = event
        if argument == "right":
            argument = self.rules.pin
        getattr(self, name)(*([] if argument is None else [argument]))
        expected = self.rules.locked_until if self.rules.is_locked else None
        assert lock_of(self.account) == expected

    def assert_told(self) -> None:
        """The audit tells of every lock and unlock."""
        told = [action for action in actions(self.account) if action in LOCKING]
        assert told == self.rules.told


EVENTS = st.one_of(
    st.tuples(st.sampled_from(["begin", "attempt"]), st.just(WRONG)),
    st.tuples(st.sampled_from(["begin", "attempt", "crash"]), st.sampled_from(["right", WRONG])),
    st.tuples(st.sampled_from(["finish", "finish", "starve"]), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1, 29, 30, 31])),
    st.tuples(st.sampled_from(["unlock", "replace"]), st.none()),
)
LOCKING = ("pin_locked", "pin_unlocked")
FIVE_WRONG = [("attempt", WRONG)] * FIVE


@pytest.mark.django_db
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example([*FIVE_WRONG, ("wait", 30), *FIVE_WRONG, ("attempt", "right")])
@example([("begin", "right"), *FIVE_WRONG, ("wait", 30), *FIVE_WRONG, ("finish", 0)])
@example([("begin", "right"), ("unlock", None), *FIVE_WRONG, ("finish", 0), ("begin", "right")])
@example([("begin", "right"), ("replace", None), *FIVE_WRONG, ("finish", 0), ("begin", "right")])
@example([("begin", "right"), *[("begin", WRONG)] * 4, ("finish", 0), ("starve", -1)])
@given(st.lists(EVENTS, max_size=40))
def test_any_sequence_of_attempts_locks_as_the_rules_say(events: list[tuple[str, Any]]) -> None:
    clock.install()
    run = Run()
    for event in events:
        run.do(event)
    run.assert_told()
