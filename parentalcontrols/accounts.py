"""Registering, logging in, and the rotation of refresh tokens."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import authentication
from parentalcontrols.models import Account, RefreshFamily
from parentalcontrols.problems import Problem, invalid


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and the refresh token that buys the next pair."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"


def register(*, email: str, password: str) -> TokenPair:
    """A new account and its first tokens; an e-mail that is taken is a 400."""
    account = Account(email=email)
    account.set_password(password)
    try:
        with transaction.atomic():
            account.save(force_insert=True)
            return _first_pair(account)
    except IntegrityError:
        raise invalid(
            [
                {
                    "field": "email",
                    "code": "email_taken",
                    "detail": "An account with this e-mail exists already.",
                }
            ]
        ) from None


def log_in(*, email: str, password: str) -> TokenPair:
    """Tokens for the right e-mail and password; anything else is one and the same 401.

    An unknown e-mail costs a hash as well, so that time does not tell who has an account.
    """
    account = Account.objects.filter(email=email).first()
    if account is None or not account.is_active:
        make_password(password)
        raise _wrong_login()
    if not check_password(password, account.password):
        raise _wrong_login()
    return _first_pair(account)


def _wrong_login() -> Problem:
    return Problem(401, "wrong_login", "The e-mail or the password is wrong.")


def _first_pair(account: Account) -> TokenPair:
    family = RefreshFamily(
        account=account,
        current_token_id=uuid4(),
        expires_at=Now() + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS),
    )
    family.save(force_insert=True)
    return _pair(account, family_id=family.id, token_id=family.current_token_id)


def _pair(account: Account, *, family_id: UUID, token_id: UUID) -> TokenPair:
    return TokenPair(
        authentication.access_token(account),
        authentication.refresh_token(account, family_id=family_id, token_id=token_id),
    )


def refresh(*, token: str) -> TokenPair:
    """The next pair for the youngest refresh token of a family; everything else is a 401.

    The exchange is one conditional UPDATE, so that of two racing copies one wins. A token that
    was exchanged before ends its whole family: somebody has a copy.
    """
    claims = authentication.read_refresh_token(token)
    account = Account.objects.filter(id=claims.account_id).first()
    authentication.require_live(account, claims)
    family = RefreshFamily.objects.filter(
        id=claims.family_id, account_id=claims.account_id, revoked_at=None
    )
    token_id = uuid4()
    exchanged = family.filter(current_token_id=claims.token_id, expires_at__gt=Now()).update(
        current_token_id=token_id,
        expires_at=Now() + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS),
    )
    if not exchanged or account is None:
        family.update(revoked_at=Now())
        raise AuthenticationFailed
    return _pair(account, family_id=claims.family_id, token_id=token_id)
