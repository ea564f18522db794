"""Who is asking: access and refresh tokens, and the authenticators that read them.

A leaf: it imports nothing of ours. Tokens are JWTs signed with HS256 (the algorithm, issuer and
audience are pinned). An account that was deactivated or changed its password refuses every token
that was issued before, by the claim `ver`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError

if TYPE_CHECKING:
    from parentalcontrols.models import Account

ACCESS = "access"
REFRESH = "refresh"
SCOPE_ACCOUNT = "account"
_MOST_TOKEN_BYTES = 4096


class AccountState(Protocol):
    """What decides whether an account's tokens are good."""

    id: UUID
    is_active: bool
    token_version: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified claims of an access token: for whom it speaks."""

    account_id: UUID
    token_version: int
    scope: str

    # What DRF asks of a request's user.
    is_authenticated = True


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """The verified claims of a refresh token."""

    account_id: UUID
    token_version: int
    scope: str
    family_id: UUID
    token_id: UUID


@lru_cache(maxsize=1)
def _backend() -> TokenBackend:
    return TokenBackend(
        algorithm="HS256",
        signing_key=settings.TOKEN_SIGNING_KEY,
        audience=settings.TOKEN_AUDIENCE,
        issuer=settings.TOKEN_ISSUER,
    )


def _encode(kind: str, account: AccountState, seconds: int, **claims: Any) -> str:
    now = datetime.now(UTC)
    token: str = _backend().encode(
        {
            "token_type": kind,
            "sub": str(account.id),
            "ver": account.token_version,
            "scope": SCOPE_ACCOUNT,
            "iat": now,
            "exp": now + timedelta(seconds=seconds),
            "jti": str(uuid4()),
            **claims,
        }
    )
    return token


def _decode(kind: str, token: str) -> dict[str, Any]:
    """The claims of a good token of that kind; anything else is a 401."""
    if len(token) > _MOST_TOKEN_BYTES:
        raise AuthenticationFailed
    try:
        claims: dict[str, Any] = _backend().decode(token)  # type: ignore[arg-type]
    except (TokenBackendError, ValueError):
        raise AuthenticationFailed from None
    if (
        "exp" not in claims
        or claims.get("token_type") != kind
        or claims.get("scope") != SCOPE_ACCOUNT
    ):
        raise AuthenticationFailed
    return claims


def access_token(account: AccountState) -> str:
    """A token that speaks for the parent, good for `ACCESS_TOKEN_SECONDS`."""
    return _encode(ACCESS, account, settings.ACCESS_TOKEN_SECONDS)


def refresh_token(account: AccountState, *, family_id: UUID, token_id: UUID) -> str:
    """A token that buys the next pair once, good for `REFRESH_TOKEN_SECONDS`."""
    seconds = settings.REFRESH_TOKEN_SECONDS
    return _encode(REFRESH, account, seconds, jti=str(token_id), fam=str(family_id))


def read_access_token(token: str) -> Caller:
    """The caller an access token speaks for; raises `AuthenticationFailed`."""
    claims = _decode(ACCESS, token)
    try:
        return Caller(UUID(claims["sub"]), int(claims["ver"]), claims["scope"])
    except (KeyError, ValueError, TypeError):
        raise AuthenticationFailed from None


def read_refresh_token(token: str) -> RefreshClaims:
    """The claims of a refresh token; raises `AuthenticationFailed`."""
    claims = _decode(REFRESH, token)
    try:
        return RefreshClaims(
            account_id=UUID(claims["sub"]),
            token_version=int(claims["ver"]),
            scope=claims["scope"],
            family_id=UUID(claims["fam"]),
            token_id=UUID(claims["jti"]),
        )
    except (KeyError, ValueError, TypeError):
        raise AuthenticationFailed from None


def require_live(account: AccountState | None, caller: Caller | RefreshClaims) -> None:
    """Raises `AuthenticationFailed` unless the account still honours the token."""
    if (
        account is None
        or account.id != caller.account_id
        or not account.is_active
        or account.token_version != caller.token_version
    ):
        raise AuthenticationFailed


class CallerAuthentication(BaseAuthentication):
    """Reads the token and asks no database: whoever uses it checks `require_live` himself."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        """`(caller, caller)`; None without an `Authorization: Bearer` header."""
        parts = get_authorization_header(request).split()
        if not parts or parts[0].lower() != b"bearer":
            return None
        if len(parts) != 2:
            raise AuthenticationFailed
        try:
            token = parts[1].decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationFailed from None
        caller = read_access_token(token)
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class AccountAuthentication(CallerAuthentication):
    """Reads the token and the account it speaks for: `request.user` is an `Account`."""

    def authenticate(self, request: Request) -> "tuple[Account, Caller] | None":
        """`(account, caller)`; None without an `Authorization: Bearer` header."""
        found = super().authenticate(request)
        if found is None:
            return None
        caller = found[1]
        account = get_user_model().objects.filter(id=caller.account_id).first()
        require_live(account, caller)
        return account, caller  # type: ignore[return-value]
