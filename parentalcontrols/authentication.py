"""Who is asking: access and refresh tokens, and the authenticators that read them.

A leaf: it imports nothing of ours. Tokens are JWTs signed with HS256 (the algorithm, issuer and
audience are pinned). An account that was deactivated or changed its password refuses every token
that was issued before, by the claim `ver`.

An account token speaks for the parent. A profile token speaks for one child and can only tighten
(api.md, "Two kinds of token"): it is let in nowhere but where a view says so by `AnyCaller`.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError

if TYPE_CHECKING:
    from parentalcontrols.models import Account

ACCESS = "access"
REFRESH = "refresh"
SCOPE_ACCOUNT = "account"
SCOPE_PROFILE = "profile"
_MOST_TOKEN_BYTES = 4096


class AccountState(Protocol):
    """What decides whether an account's tokens are good."""

    id: UUID
    is_active: bool
    token_version: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified claims of an access token: for whom it speaks.

    `profile_id` is the child of a profile token, None for the parent. `login_id` tells the
    device: every token that descends from one log-in, or from one profile token, has the same.
    """

    account_id: UUID
    token_version: int
    scope: str
    profile_id: UUID | None = None
    login_id: UUID | None = None

    # What DRF asks of a request's user.
    is_authenticated = True

    @property
    def is_parent(self) -> bool:
        """Whether the token may loosen."""
        return self.profile_id is None

    def may_see(self, profile_id: UUID) -> bool:
        """Whether the token reaches that profile at all, if it is the account's."""
        return self.profile_id is None or self.profile_id == profile_id


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """The verified claims of a refresh token."""

    account_id: UUID
    token_version: int
    scope: str
    profile_id: UUID | None
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


def encode(kind: str, seconds: int, **claims: Any) -> str:
    """A signed token of a kind, good for so many seconds."""
    now = datetime.now(UTC)
    token: str = _backend().encode(
        {
            "token_type": kind,
            "iat": now,
            "exp": now + timedelta(seconds=seconds),
            "jti": str(uuid4()),
            **claims,
        }
    )
    return token


def decode(kind: str, token: str) -> dict[str, Any]:
    """The claims of a good token of that kind; raises `AuthenticationFailed` for all others."""
    if len(token) > _MOST_TOKEN_BYTES:
        raise AuthenticationFailed
    try:
        claims: dict[str, Any] = _backend().decode(token)  # type: ignore[arg-type]
    except (TokenBackendError, ValueError):
        raise AuthenticationFailed from None
    if "exp" not in claims or claims.get("token_type") != kind:
        raise AuthenticationFailed
    return claims


def _subject(account: AccountState, profile_id: UUID | None) -> dict[str, Any]:
    """The claims that say for whom a token speaks."""
    claims = {"sub": str(account.id), "ver": account.token_version}
    if profile_id is None:
        return {**claims, "scope": SCOPE_ACCOUNT}
    return {**claims, "scope": SCOPE_PROFILE, "pid": str(profile_id)}


def _profile_in(claims: dict[str, Any]) -> UUID | None:
    """The child of a profile token; a scope that does not fit its claims is refused."""
    if claims["scope"] == SCOPE_PROFILE:
        return UUID(claims["pid"])
    if claims["scope"] != SCOPE_ACCOUNT or "pid" in claims:
        raise AuthenticationFailed
    return None


def access_token(
    account: AccountState, *, profile_id: UUID | None = None, login_id: UUID | None = None
) -> str:
    """A token good for `ACCESS_TOKEN_SECONDS`: the parent's, or that of one child's device."""
    claims = _subject(account, profile_id)
    if login_id is not None:
        claims["fam"] = str(login_id)
    return encode(ACCESS, settings.ACCESS_TOKEN_SECONDS, **claims)


def refresh_token(
    account: AccountState, *, family_id: UUID, token_id: UUID, profile_id: UUID | None = None
) -> str:
    """A token that buys the next pair once, good for `REFRESH_TOKEN_SECONDS`."""
    claims = _subject(account, profile_id) | {"jti": str(token_id), "fam": str(family_id)}
    return encode(REFRESH, settings.REFRESH_TOKEN_SECONDS, **claims)


def read_access_token(token: str) -> Caller:
    """The caller an access token speaks for; raises `AuthenticationFailed`."""
    caller, expires_at = _verified(token)
    if time.time() >= expires_at:
        raise AuthenticationFailed
    return caller


@lru_cache(maxsize=16384)
def _verified(token: str) -> tuple[Caller, float]:
    """The claims of a token whose signature is good, and when it runs out; a player's is asked
    for every 30 seconds, and a signature costs a hundred times what remembering it does.
    """
    claims = decode(ACCESS, token)
    try:
        return Caller(
            account_id=UUID(claims["sub"]),
            token_version=int(claims["ver"]),
            scope=claims["scope"],
            profile_id=_profile_in(claims),
            login_id=UUID(claims["fam"]) if "fam" in claims else None,
        ), float(claims["exp"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise AuthenticationFailed from None


def read_refresh_token(token: str) -> RefreshClaims:
    """The claims of a refresh token; raises `AuthenticationFailed`."""
    claims = decode(REFRESH, token)
    try:
        return RefreshClaims(
            account_id=UUID(claims["sub"]),
            token_version=int(claims["ver"]),
            scope=claims["scope"],
            profile_id=_profile_in(claims),
            family_id=UUID(claims["fam"]),
            token_id=UUID(claims["jti"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
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
    """Reads the token and asks no database: who uses it checks `require_live`."""

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
        accounts = get_user_model().objects.filter(id=caller.account_id)
        if caller.profile_id is not None:
            # A child that was deleted has no tokens any more.
            accounts = accounts.filter(profiles__id=caller.profile_id)
        account = accounts.first()
        require_live(account, caller)
        return account, caller  # type: ignore[return-value]


class ParentOnly(BasePermission):
    """Lets account tokens in and no others; what every view asks unless it says otherwise."""

    message = "Only a parent may do this: sign in with the household's own account."
    code = "parent_required"

    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.auth, Caller) and request.auth.is_parent


class StaffOnly(ParentOnly):
    """Lets in account tokens of staff; `request.user` has to be the account."""

    message = "Only staff may do this."
    code = "staff_required"

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            # Nothing is told of staff to a child's device.
            self.message, self.code = ParentOnly.message, ParentOnly.code
            return False
        return bool(request.user.is_staff)


class AnyCaller(IsAuthenticated):
    """Lets in the tokens of children's devices, too; their profile is for the view to check."""
