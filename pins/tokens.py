"""PIN tokens: what a checked PIN buys for five minutes (domain.md section 7).

Signed for one account and one version of its PIN, so that a new PIN voids them. One that was
obtained with a profile token is good once, for one grant to that profile.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db import connection
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import authentication
from parentalcontrols.authentication import Caller
from parentalcontrols.problems import Problem
from pins import sql, verification

PIN = "pin"
#: How long a PIN token is good, in seconds.
PIN_TOKEN_SECONDS = 300


@dataclass(frozen=True, slots=True)
class _Claims:
    account_id: UUID
    version: UUID
    profile_id: UUID | None
    token_id: UUID
    expires_at: datetime


def issue(caller: Caller, version: UUID) -> str:
    """The token for a PIN of that version, checked by that caller."""
    claims = {"sub": str(caller.account_id), "pinver": str(version)}
    if caller.profile_id is not None:
        claims["pid"] = str(caller.profile_id)
    return authentication.encode(PIN, PIN_TOKEN_SECONDS, **claims)


def require(account_id: UUID, token: str | None) -> None:
    """Demands a PIN token for a change by the parent, once the account has a PIN.

    403 `pin_required` without one, `pin_token_invalid` where it is bad: a token that is sent is
    checked in any case.
    """
    if token is None:
        if verification.status(account_id).has_pin:
            raise verification.required(
                "A PIN token is needed for this: pin/verify gives one for the PIN."
            )
    elif _current(account_id, token).profile_id is not None:
        raise _invalid()


def accept_for_grant(account_id: UUID, token: str, profile_id: UUID) -> None:
    """Accepts a PIN token for a grant, in the grant's transaction; raises a 403 `Problem` else.

    One that is good once is spent with it: what rolls the grant back gives it back.
    """
    claims = _current(account_id, token)
    if claims.profile_id is None:
        return
    if claims.profile_id != profile_id:
        raise _invalid()
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SPEND_TOKEN, {"token_id": claims.token_id, "expires_at": claims.expires_at}
        )
        if cursor.fetchone() is None:
            raise _invalid()


def _current(account_id: UUID, token: str) -> _Claims:
    """The claims of a token of this account's present PIN."""
    claims = _read(token)
    if claims.account_id != account_id:
        raise _invalid()
    with connection.cursor() as cursor:
        cursor.execute(sql.LOCK_STATE, {"account_id": account_id})
        row = cursor.fetchone()
    if row is None or row[0] != claims.version:
        raise _invalid()
    return claims


def _read(token: str) -> _Claims:
    try:
        claims = authentication.decode(PIN, token)
        return _Claims(
            account_id=UUID(claims["sub"]),
            version=UUID(claims["pinver"]),
            profile_id=UUID(claims["pid"]) if "pid" in claims else None,
            token_id=UUID(claims["jti"]),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )
    except (AuthenticationFailed, KeyError, ValueError, TypeError, AttributeError):
        raise _invalid() from None


def _invalid() -> Problem:
    return Problem(
        403,
        "pin_token_invalid",
        "The PIN token is not valid (any more); enter the PIN again.",
    )
