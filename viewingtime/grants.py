"""Extra time from a parent (domain.md section 6)."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from parentalcontrols.problems import not_found
from viewingtime import ledger, ledgers
from viewingtime.models import TimeGrant


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant and what remains right after it; None = unlimited."""

    granted_minutes: int | None
    remaining: timedelta | None
    is_unlimited_override: bool


def grant(*, profile_id: UUID, account_id: UUID, minutes: int | None, is_remote: bool) -> Granted:
    """Gives a child 15, 30 or 60 minutes for the running day, or None = unlimited until the reset.

    The grant and the balance are written in one transaction; parallel grants queue for the
    profile and all count. The caller has made sure that the profile is a child's.
    """
    with transaction.atomic():
        held = ledgers.hold([profile_id])
        if profile_id not in held.ledgers:
            raise not_found()
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
    remaining = ledger.verdict(balance, is_exempt=True).remaining
    return Granted(minutes, remaining, balance.is_unlimited_override)
