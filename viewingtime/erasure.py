"""Erasing a profile, or a household, for good (docs/operations.md, "Data protection").

One transaction: either everything is gone or nothing is, so nobody ever sees a half-erased
household, and there is nothing to resume. A million sessions take about a second; meanwhile it
holds what belongs to the erased and nothing of anybody else.

**Nothing comes back.** Whatever writes of a profile holds it first, and whatever belongs to an
account names it by a foreign key. A beat, a grant, a retry that is under way is either done before
and erased with the rest, or finds that the profile or the account is not there: a 404, or a 401.

**Order of locks.** Idempotency keys, as in a grant; then profiles, sessions and balances
(`ledgers.hold`); then the account. Whoever writes with a foreign key to both has the profile first.
"""

import logging
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db import connection, transaction

from parentalcontrols.models import Account, IdempotencyKey, Profile
from parentalcontrols.problems import Problem, not_found, unavailable
from pins import audit, erasures, tokens
from pins.audit import Actor
from pins.erasures import Receipt
from pins.models import ActorKind, AuditAction
from viewingtime import grants, ledgers

logger = logging.getLogger(__name__)

#: The longest a request to erase may take, in seconds, and one statement of it.
SECONDS: Final = 60.0
_STATEMENT_LIMIT: Final = "55s"

#: How often a household is looked at anew in which somebody makes profiles meanwhile.
_TRIES: Final = 3

#: What the receipt calls the rows of each table.
_KINDS: Final = {
    "parentalcontrols.Account": "accounts",
    "parentalcontrols.Profile": "profiles",
    "parentalcontrols.ViewingTimeConfig": "configs",
    "parentalcontrols.RefreshFamily": "log_ins",
    "parentalcontrols.IdempotencyKey": "idempotency_keys",
    "viewingtime.ViewingSession": "sessions",
    "viewingtime.ViewingTimeBalance": "balances",
    "viewingtime.TimeGrant": "grants",
    "pins.Pin": "pins",
}


def erase_profile(
    *, profile_id: UUID, account_id: UUID, actor: Actor, pin_token: str | None = None
) -> Receipt:
    """Erases a profile with all that was watched, given and recorded of it; the others go on.

    404 where it is not the account's. Once the account has a PIN, a PIN token is needed unless an
    operator asks: a 403 `Problem` without one. That it was erased stands in the household's audit.
    """
    with transaction.atomic():
        _take_time()
        keys = _delete_keys(account_id, route=grants.route(profile_id))
        held = ledgers.hold([profile_id])
        # That of a grant which had the profile before.
        keys += _delete_keys(account_id, route=grants.route(profile_id))
        profile = Profile.objects.filter(id=profile_id, account_id=account_id).first()
        if profile_id not in held.ledgers or profile is None:
            raise not_found()
        _require_pin(account_id, actor, pin_token)
        # Who makes a config at this moment, holding nothing, is waited for.
        Profile.objects.select_for_update().get(id=profile_id)
        _, rows = profile.delete()
        _forget_in_the_admins_log([profile_id])
        receipt = erasures.record(
            account_id=account_id,
            profile_id=profile_id,
            actor=actor,
            deleted=_told(rows) | {"idempotency_keys": keys},
        )
        audit.record(
            account_id=account_id,
            actor=actor,
            action=AuditAction.PROFILE_ERASED,
            after={"receipt_id": str(receipt.id), "is_kids": profile.is_kids},
            at=receipt.erased_at,
        )
    _log("profile_erased", receipt, account_id=account_id, profile_id=profile_id)
    return receipt


def erase_account(*, account_id: UUID, actor: Actor, pin_token: str | None = None) -> Receipt:
    """Erases a household with everything in it; its tokens are good for nothing from then on.

    404 where there is none, 403 `staff_account` for one of staff. Once it has a PIN, a PIN token is
    needed unless an operator asks: a 403 `Problem` without one. Whoever asks has checked the
    password.
    """
    with transaction.atomic():
        _take_time()
        keys = _delete_keys(account_id)
        account = _hold_household(account_id)
        if account.is_staff or account.is_superuser:
            raise Problem(
                403,
                "staff_account",
                "This account is staff's: it has to be taken from staff before it can be erased.",
            )
        _require_pin(account_id, actor, pin_token)
        profile_ids = list(account.profiles.values_list("id", flat=True))
        _, rows = account.delete()
        _forget_in_the_admins_log([account_id, *profile_ids])
        receipt = erasures.record(
            account_id=account_id,
            profile_id=None,
            actor=actor,
            deleted=_told(rows) | {"idempotency_keys": keys},
        )
    _log("account_erased", receipt, account_id=account_id)
    return receipt


def repeat() -> list[Receipt]:
    """Erases again what the log says was erased and is there nevertheless: after a restore."""
    receipts = []
    for account_id, profile_id in erasures.logged():
        try:
            if profile_id is None:
                receipts.append(erase_account(account_id=account_id, actor=audit.OPERATOR))
            else:
                receipts.append(
                    erase_profile(
                        profile_id=profile_id, account_id=account_id, actor=audit.OPERATOR
                    )
                )
        except Problem as problem:
            if problem.status != 404:
                raise
    return receipts


def _take_time() -> None:
    """Lets one statement take longer than a request's usually may, in this transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [_STATEMENT_LIMIT])


def _require_pin(account_id: UUID, actor: Actor, pin_token: str | None) -> None:
    if actor.kind is not ActorKind.OPERATOR:
        tokens.require(account_id, pin_token)


def _delete_keys(account_id: UUID, **filters: str) -> int:
    """Forgets the answers that are kept for repeats; waits for grants that have claimed one."""
    deleted, _ = IdempotencyKey.objects.filter(account_id=account_id, **filters).delete()
    return deleted


def _hold_household(account_id: UUID) -> Account:
    """The account, it and all its profiles locked; a 404 `Problem` where there is none.

    A profile that was made meanwhile is not waited for with the account in hand: its maker may be
    about to wait for the account.
    """
    for _ in range(_TRIES):
        with transaction.atomic():
            profiles = Profile.objects.filter(account_id=account_id).values_list("id", flat=True)
            held = sorted(profiles)
            ledgers.hold(held)
            account = Account.objects.select_for_update().filter(id=account_id).first()
            if account is None:
                raise not_found()
            if sorted(profiles.all()) == held:
                return account
            transaction.set_rollback(True)
    raise unavailable()


def _forget_in_the_admins_log(ids: list[UUID]) -> None:
    """Of what staff did in the admin it stays that they did it, without e-mail and name."""
    LogEntry.objects.filter(object_id__in=[str(id_) for id_ in ids]).update(
        object_repr="erased", change_message=""
    )


def _log(event: str, receipt: Receipt, **ids: UUID) -> None:
    """Tells the log, by whose lines an erasure is repeated where a restore goes back behind it."""
    logger.info(
        event, extra={key: str(id_) for key, id_ in {"receipt_id": receipt.id, **ids}.items()}
    )


def _told(rows: Mapping[str, int]) -> dict[str, int]:
    """How many rows of each kind; what is no kind of ours has none to tell of."""
    return {kind: rows[label] for label, kind in _KINDS.items() if label in rows}
