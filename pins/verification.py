"""The one way to check a PIN, and what sets, changes, resets and unlocks it.

Every path that is sent a PIN comes by `check`: a place in the hashing queue first, then the
attempt is reserved in the database, then the PIN is hashed. So of any number of parallel guesses
no more than five are evaluated, whatever processes they reach (domain.md section 7).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction

from adminmetrics import recorder
from parentalcontrols import ratelimits
from parentalcontrols.problems import Problem, unavailable
from parentalcontrols.ratelimits import Guess, Subject
from pins import audit, hashing, sql
from pins.audit import Actor
from pins.models import AuditAction

#: Seconds that an evaluated attempt takes at least, right or wrong, the hash included.
LEAST_SECONDS = 0.2

#: How often a reservation is tried where a lock ended between two statements.
_TRIES = 3

#: What the metrics call the refusals of a PIN.
_OUTCOMES = {"incorrect_pin": "wrong", "pin_locked": "locked", "pin_not_set": "not_set"}


@dataclass(frozen=True, slots=True)
class Status:
    """Whether there is a PIN, and until when it is locked, if it is."""

    has_pin: bool
    locked_until: datetime | None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A reserved attempt: its number, and what it is held against."""

    number: int
    pin_hash: str
    version: UUID


def status(account_id: UUID) -> Status:
    """The state of an account's PIN; a lock that has run out is none."""
    row = _one(sql.LOCK_STATE, account_id=account_id)
    if row is None:
        return Status(has_pin=False, locked_until=None)
    _, locked_until, seconds = row
    return Status(has_pin=True, locked_until=locked_until if (seconds or 0) > 0 else None)


def check(account_id: UUID, pin: str, *, actor: Actor) -> UUID:
    """The version of the account's PIN if it is this one, else a `Problem`.

    403 `incorrect_pin` or `pin_locked`, 400 `pin_not_set`; 503 where too many are being checked,
    and 429 after too many wrong ones from the actor's address, which spend no attempt. Never
    inside a transaction: its rollback would give a guess back.
    """
    try:
        version = _check(account_id, pin, actor)
    except Problem as problem:
        recorder.pin(_OUTCOMES.get(problem.code, "busy"))
        raise
    recorder.pin("right")
    return version


def _check(account_id: UUID, pin: str, actor: Actor) -> UUID:
    started = time.monotonic()
    _refuse_locked(_one(sql.LOCK_STATE, account_id=account_id))
    with hashing.slot(account_id):
        guess = _guess_from(actor.address)
        try:
            with hashing.turn():
                outcome = _evaluate(account_id, pin, _reserve(account_id, actor), actor)
        except Problem:
            # Nothing was evaluated.
            guess.succeeded()
            raise
        if not isinstance(outcome, Problem):
            guess.succeeded()
        take_as_long_as_any(started)
    if isinstance(outcome, Problem):
        raise outcome
    return outcome


def _guess_from(address: str) -> Guess:
    """A guess that counts for an address; for none where there is no address."""
    if not address:
        return Guess(())
    return ratelimits.guess(Subject("PIN_ADDRESS", address, is_known=False))


def take_as_long_as_any(started: float) -> None:
    """Waits until `LEAST_SECONDS` after `started`, by the monotonic clock.

    Its slot is kept meanwhile: who waits here is counted among those who may hash.
    """
    time.sleep(max(0.0, started + LEAST_SECONDS - time.monotonic()))


def _refuse_locked(state: tuple[Any, ...] | None) -> None:
    """Raises 403 `pin_locked` where `LOCK_STATE` tells of a lock in force."""
    if state is not None and (state[2] or 0) > 0:
        raise _locked(until=state[1], seconds=state[2])


def _reserve(account_id: UUID, actor: Actor) -> _Attempt | None:
    """A reserved attempt; None without a PIN; raises 403 `pin_locked` under a lock.

    The attempt that locks the PIN tells the audit of it in the same transaction.
    """
    for _ in range(_TRIES):
        with transaction.atomic(durable=True):
            reserved = _one(
                sql.RESERVE_ATTEMPT,
                account_id=account_id,
                failures=sql.FAILURES_TO_LOCK,
                minutes=sql.LOCK_MINUTES,
            )
            if reserved is not None and reserved[3] is not None:
                audit.record(
                    account_id=account_id,
                    actor=actor,
                    action=AuditAction.PIN_LOCKED,
                    after={"locked_until": _text(reserved[3])},
                )
        if reserved is not None:
            pin_hash, version, number, _ = reserved
            return _Attempt(number, pin_hash, version)
        state = _one(sql.LOCK_STATE, account_id=account_id)
        if state is None:
            return None
        _refuse_locked(state)
    raise unavailable()


def _evaluate(account_id: UUID, pin: str, attempt: _Attempt | None, actor: Actor) -> UUID | Problem:
    """The version of the PIN where it is this one; what to refuse it with else."""
    if attempt is None:
        hashing.matches(account_id, pin, None)
        return Problem(400, "pin_not_set", "This account has no PIN yet.")
    try:
        is_right = hashing.matches(account_id, pin, attempt.pin_hash)
    except Problem:
        _give_back(account_id, attempt, actor)
        raise
    if not is_right:
        return _incorrect()
    with transaction.atomic():
        cleared = _one(
            sql.CLEAR_ATTEMPTS,
            account_id=account_id,
            version=attempt.version,
            attempt=attempt.number,
            failures=sql.FAILURES_TO_LOCK,
        )
        if cleared is not None and cleared[0] is not None:
            _tell_unlocked(account_id, cleared[0], actor)
    # Without a row another PIN was set while this one was hashed.
    return attempt.version if cleared is not None else _incorrect()


def _give_back(account_id: UUID, attempt: _Attempt, actor: Actor) -> None:
    """Takes back an attempt that nobody evaluated."""
    with transaction.atomic():
        given_back = _one(
            sql.GIVE_ATTEMPT_BACK,
            account_id=account_id,
            version=attempt.version,
            attempt=attempt.number,
        )
        if given_back is not None and given_back[0] is not None:
            _tell_unlocked(account_id, given_back[0], actor)


def _tell_unlocked(account_id: UUID, locked_until: datetime, actor: Actor) -> None:
    audit.record(
        account_id=account_id,
        actor=actor,
        action=AuditAction.PIN_UNLOCKED,
        before={"locked_until": _text(locked_until)},
    )


def set_pin(account_id: UUID, new_pin: str, *, current_pin: str | None, actor: Actor) -> None:
    """Sets the first PIN, or another one for the right `current_pin`, which is ignored else.

    403 `pin_required` without the current one, and what `check` raises. Of racing changes by the
    same current PIN one is made; to the others it is not the current one any more.
    """
    if status(account_id).has_pin:
        _change(account_id, new_pin, current_pin, actor)
        return
    pin_hash = hashing.hash_pin(account_id, new_pin)
    with transaction.atomic():
        is_first = _one(sql.SET_FIRST, account_id=account_id, pin_hash=pin_hash, version=uuid4())
        if is_first is not None:
            audit.record(account_id=account_id, actor=actor, action=AuditAction.PIN_SET)
    if is_first is None:
        # Somebody else set one meanwhile.
        _change(account_id, new_pin, current_pin, actor)


def _change(account_id: UUID, new_pin: str, current_pin: str | None, actor: Actor) -> None:
    if current_pin is None:
        raise required("The current PIN is needed for this: send it as current_pin.")
    with hashing.slot(account_id):
        version = check(account_id, current_pin, actor=actor)
        pin_hash = hashing.hash_pin(account_id, new_pin)
        with transaction.atomic():
            replaced = _one(
                sql.REPLACE,
                account_id=account_id,
                pin_hash=pin_hash,
                version=uuid4(),
                old_version=version,
            )
            if replaced is None:
                raise _incorrect()
            audit.record(account_id=account_id, actor=actor, action=AuditAction.PIN_CHANGED)


def overwrite(account_id: UUID, new_pin: str, *, actor: Actor) -> None:
    """Sets a PIN whatever was there, and lifts its lock; whoever asks knew the password."""
    pin_hash = hashing.hash_pin(account_id, new_pin)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                sql.OVERWRITE,
                {"account_id": account_id, "pin_hash": pin_hash, "version": uuid4()},
            )
        audit.record(account_id=account_id, actor=actor, action=AuditAction.PIN_RESET)


def unlock(account_ids: Iterable[UUID], *, actor: Actor) -> list[UUID]:
    """Lifts locks and clears what was counted; answers the accounts that were locked."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(sql.UNLOCK, {"account_ids": list(account_ids)})
            locks = cursor.fetchall()
        for account_id, locked_until in locks:
            _tell_unlocked(account_id, locked_until, actor)
    return [account_id for account_id, _ in locks]


def locked_now() -> int:
    """How many PINs are locked at this moment."""
    row = _one(sql.COUNT_LOCKED)
    return int(row[0]) if row else 0


def required(detail: str) -> Problem:
    """A PIN, or what it buys, is missing; `detail` says what to send."""
    return Problem(403, "pin_required", detail)


def _incorrect() -> Problem:
    return Problem(403, "incorrect_pin", "The PIN is wrong.")


def _locked(*, until: datetime, seconds: int) -> Problem:
    return Problem(
        403,
        "pin_locked",
        "The PIN is locked after too many wrong attempts; try again later.",
        headers={"Retry-After": str(seconds), "X-Locked-Until": _text(until)},
        members={"locked_until": _text(until)},
    )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _one(statement: str, **parameters: Any) -> tuple[Any, ...] | None:
    """The only row a statement answers, if it answers one."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row
