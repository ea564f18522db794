"""Extra time from a parent (domain.md section 6)."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from parentalcontrols.idempotency import Key
from parentalcontrols.problems import not_found
from pins import audit, tokens
from pins.audit import Actor
from pins.models import AuditAction
from viewingtime import ledger, ledgers
from viewingtime.ledger import Balance
from viewingtime.models import TimeGrant


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant and what remains right after it; None = unlimited."""

    granted_minutes: int | None
    remaining: timedelta | None
    is_unlimited_override: bool


def route(profile_id: UUID) -> str:
    """What the idempotency keys of a child's grants are for."""
    return f"grant {profile_id}"


def grant(
    *,
    profile_id: UUID,
    account_id: UUID,
    minutes: int | None,
    is_remote: bool,
    actor: Actor,
    pin_token: str | None = None,
    key: Key | None = None,
) -> Granted:
    """Gives a child 15, 30 or 60 minutes for the running day, or None = unlimited until the reset.

    The grant, the balance, the audit, the PIN token that is spent and the answer that is kept for
    a repeat are written in one transaction; parallel grants queue for the profile and all count.
    The caller has made sure that the profile is a child's, and checked a PIN that was sent. A bad
    `pin_token` is a 403 `Problem`; a repeat of an answered request is not checked again.
    """
    with transaction.atomic():
        kept = key.claim() if key is not None else None
        if kept is not None:
            return _granted(kept)
        held = ledgers.hold([profile_id])
        if profile_id not in held.ledgers:
            raise not_found()
        if pin_token is not None:
            tokens.accept_for_grant(account_id, pin_token, profile_id)
        after, balance = ledger.grant(
            held.ledgers[profile_id], held.viewers[profile_id], minutes, held.now
        )
        ledgers.write_back(held, {profile_id: after})
        TimeGrant.objects.create(
            profile_id=profile_id,
            reset_date=balance.reset_date,
            account_id=account_id,
            minutes=minutes,
            is_remote=is_remote,
            granted_at=held.now,
        )
        granted = Granted(
            minutes,
            ledger.verdict(balance, is_exempt=True).remaining,
            balance.is_unlimited_override,
        )
        audit.record(
            account_id=account_id,
            profile_id=profile_id,
            actor=actor,
            action=AuditAction.TIME_GRANTED,
            before=_standing(held.ledgers[profile_id].balances.get(balance.reset_date)),
            after={
                **_standing(balance),
                "minutes": minutes,
                "is_remote": is_remote,
                "reset_date": balance.reset_date.isoformat(),
            },
            at=held.now,
        )
        if key is not None:
            key.keep(_kept(granted))
    return granted


def _standing(balance: Balance | None) -> dict[str, Any]:
    """What a grant changes, as the audit tells it."""
    balance = balance or Balance(date.min)
    return {
        "granted_seconds": balance.granted.total_seconds(),
        "is_unlimited_override": balance.is_unlimited_override,
    }


def kept_grant(key: Key) -> Granted | None:
    """The answer that is kept for a key; None where there is none, 400 where it is another's."""
    kept = key.answer()
    return None if kept is None else _granted(kept)


def _kept(granted: Granted) -> dict[str, Any]:
    """A grant's answer as it is kept for a repeat."""
    remaining = granted.remaining
    return {
        "granted_minutes": granted.granted_minutes,
        "remaining_microseconds": None if remaining is None else ledgers.micros(remaining),
        "is_unlimited_override": granted.is_unlimited_override,
    }


def _granted(kept: dict[str, Any]) -> Granted:
    remaining = kept["remaining_microseconds"]
    return Granted(
        kept["granted_minutes"],
        None if remaining is None else ledgers.amount(remaining),
        kept["is_unlimited_override"],
    )
