"""The log of erasures, and the erasure of what the audit says of a household.

A row says that somebody was erased, when, and how many rows that were; it stays, and says nothing
else. The database lets entries of the audit go in the transaction that writes such a row for them,
and in no other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from django.db import connection
from django.db.models import QuerySet

from pins import sql
from pins.audit import Actor
from pins.models import AuditEntry, Erasure


@dataclass(frozen=True, slots=True)
class Receipt:
    """That something was erased: the number of the log's row, when, and how many of each kind."""

    id: UUID
    erased_at: datetime
    deleted: Mapping[str, int]


def record(
    *, account_id: UUID, profile_id: UUID | None, actor: Actor, deleted: Mapping[str, int]
) -> Receipt:
    """Logs the erasure of a profile, or of an account, and deletes what the audit says of it.

    In the transaction that erases, when nobody can write about it any more. `deleted` is what went
    so far. Locks the entries that it deletes.
    """
    entries = _entries(account_id, profile_id)
    receipt_id = uuid4()
    counts = {**deleted, "audit_entries": entries.count()}
    with connection.cursor() as cursor:
        cursor.execute(
            sql.RECORD_ERASURE,
            {
                "id": receipt_id,
                "account_id": account_id,
                "profile_id": profile_id,
                "actor": actor.kind.value,
                "deleted": json.dumps(counts),
            },
        )
        (at,) = cursor.fetchone()
    entries.delete()
    return Receipt(receipt_id, at, counts)


def _entries(account_id: UUID, profile_id: UUID | None) -> QuerySet[AuditEntry]:
    """What the audit says of an account, or of one of its profiles."""
    entries = AuditEntry.objects.filter(account_id=account_id)
    return entries if profile_id is None else entries.filter(profile_id=profile_id)


def logged() -> list[tuple[UUID, UUID | None]]:
    """The account and the profile of every erasure, oldest first; None for a whole account."""
    return list(Erasure.objects.order_by("at", "id").values_list("account_id", "profile_id"))
