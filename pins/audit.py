"""Every loosening and tightening of a household's limits: who, from what to what, and when.

Rows are only ever added, in the transaction of what they tell of; a trigger in the database
refuses to change or delete one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest

from parentalcontrols import ratelimits
from parentalcontrols.authentication import Caller
from pins.models import ActorKind, AuditAction, AuditEntry

#: Entries on one page of the audit.
PAGE_ENTRIES = 50

_LONGEST_DEVICE = 200


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the kind of token or person, its id, and the device as far as it is known.

    `address` is what limits on guessing count, and is not recorded.
    """

    kind: ActorKind
    id: UUID | None = None
    login_id: UUID | None = None
    device: str = ""
    address: str = ""


#: Whoever runs `manage.py`.
OPERATOR = Actor(ActorKind.OPERATOR)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first; `next_before` is None on the last page."""

    entries: list[AuditEntry]
    next_before: int | None


def caller(request: HttpRequest, who: Caller) -> Actor:
    """The actor that an API request's token speaks for, and what its device calls itself."""
    is_parent = who.profile_id is None
    return Actor(
        kind=ActorKind.ACCOUNT if is_parent else ActorKind.PROFILE,
        id=who.account_id if is_parent else who.profile_id,
        login_id=who.login_id,
        device=_device(request),
        address=ratelimits.client_address(request),
    )


def staff(request: HttpRequest) -> Actor:
    """The member of staff who is signed in to the admin."""
    return Actor(kind=ActorKind.STAFF, id=request.user.pk, device=_device(request))


def _device(request: HttpRequest) -> str:
    """The user agent, without what is not printable."""
    agent = request.META.get("HTTP_USER_AGENT", "")
    return "".join(c for c in agent if c.isprintable())[:_LONGEST_DEVICE]


def record(
    *,
    account_id: UUID,
    actor: Actor,
    action: AuditAction,
    profile_id: UUID | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Adds an entry; `at` is the instant by the database's clock where the caller has read it.

    What a child's device does is about that child, if about no other: erased with it.
    """
    if profile_id is None and actor.kind is ActorKind.PROFILE:
        profile_id = actor.id
    entry = AuditEntry(
        account_id=account_id,
        profile_id=profile_id,
        action=action,
        actor=actor.kind,
        actor_id=actor.id,
        login_id=actor.login_id,
        device=actor.device,
        before=before,
        after=after,
    )
    if at is not None:
        entry.at = at
    entry.save(force_insert=True)


def read(*, account_id: UUID, before: int | None, size: int = PAGE_ENTRIES) -> Page:
    """A page of an account's entries, those older than entry `before`; one query."""
    found = AuditEntry.objects.filter(account_id=account_id).order_by("-id")
    if before is not None:
        found = found.filter(id__lt=before)
    entries = list(found[: size + 1])
    return Page(entries[:size], entries[size - 1].id if len(entries) > size else None)
