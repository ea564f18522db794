"""Registering, logging in, tokens for a child's device, and the rotation of refresh tokens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import transaction
from django.db.models.functions import Now
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import authentication, ratelimits
from parentalcontrols.models import Account, Profile, RefreshFamily
from parentalcontrols.problems import Problem, invalid, not_found
from parentalcontrols.ratelimits import Guess, Subject
from pins import audit, hashing, verification
from pins.audit import Actor
from pins.models import AuditAction


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and the refresh token that buys the next pair."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"


def register(*, email: str, password: str, address: str) -> TokenPair:
    """A new account and its first tokens; an e-mail that is taken is a 400, too many are a 429.

    An e-mail that is taken is no error to the database, whose log would tell it.
    """
    account = Account(email=email)
    with hashing.slot(address):
        ratelimits.guess(
            Subject("REGISTER_ADDRESS", address), Subject("REGISTER_EMAIL", email.strip().lower())
        )
        account.set_password(password)
    with transaction.atomic():
        Account.objects.bulk_create([account], ignore_conflicts=True)
        if not Account.objects.filter(id=account.id).exists():
            raise invalid(
                [
                    {
                        "field": "email",
                        "code": "email_taken",
                        "detail": "An account with this e-mail exists already.",
                    }
                ]
            )
        return _first_pair(account)


@contextmanager
def limited_log_in(email: str, address: str) -> Iterator[Guess]:
    """A guess at a password: a place in the hashing queue, then a count of address and e-mail.

    Raises 503 and 429. Counts the same for an e-mail that nobody has, so that nobody can tell.
    """
    with hashing.slot(address):
        yield ratelimits.guess(
            Subject("LOGIN_ADDRESS", address, is_known=False),
            Subject("LOGIN_ACCOUNT", email.strip().lower()),
        )


def log_in(*, email: str, password: str, address: str) -> TokenPair:
    """Tokens for the right e-mail and password; anything else is one and the same 401.

    An unknown e-mail costs a hash as well, so that time does not tell who has an account.
    """
    with limited_log_in(email, address) as guess:
        account = Account.objects.filter(email=email).first()
        if account is None or not account.is_active:
            make_password(password)
            raise _wrong_login()
        if not check_password(password, account.password):
            raise _wrong_login()
        guess.succeeded()
    return _first_pair(account)


def reset_pin(account: Account, *, password: str, new_pin: str, address: str, actor: Actor) -> None:
    """Another PIN for the account's password; its lock is lifted.

    403 `incorrect_password`; 429 after too many of them.
    """
    started = time.monotonic()
    with hashing.slot(account.id):
        guess = ratelimits.guess(
            Subject("PIN_RESET_ADDRESS", address, is_known=False),
            Subject("PIN_RESET", str(account.id)),
        )
        is_right = check_password(password, account.password)
        if is_right:
            guess.succeeded()
            verification.overwrite(account.id, new_pin, actor=actor)
        verification.take_as_long_as_any(started)
    if not is_right:
        raise Problem(403, "incorrect_password", "The password is wrong.")


def confirm(account: Account, *, password: str, address: str) -> None:
    """Makes sure that whoever asks knows the account's password.

    403 `incorrect_password`; 429 after too many, counted with wrong ones at log-in.
    """
    with limited_log_in(account.email, address) as guess:
        if not check_password(password, account.password):
            raise Problem(403, "incorrect_password", "The password is wrong.")
        guess.succeeded()


def child_tokens(profile: Profile, *, account: Account, actor: Actor) -> TokenPair:
    """Tokens for a device in a child's hands: they speak for that profile and only tighten."""
    if not profile.is_kids:
        raise Problem(400, "not_a_kids_profile", "Only a child's device needs a token of its own.")
    with transaction.atomic():
        # Held before its account is: in that order an erasure holds them.
        if not Profile.objects.select_for_update(no_key=True).filter(id=profile.id).exists():
            raise not_found()
        family = _new_family(account, profile)
        audit.record(
            account_id=account.id,
            profile_id=profile.id,
            actor=actor,
            action=AuditAction.PROFILE_TOKEN_ISSUED,
            after={"login_id": str(family.id)},
        )
    return _pair_of(account, family)


def _wrong_login() -> Problem:
    return Problem(401, "wrong_login", "The e-mail or the password is wrong.")


def _new_family(account: Account, profile: Profile | None = None) -> RefreshFamily:
    family = RefreshFamily(
        account=account,
        profile=profile,
        current_token_id=uuid4(),
        expires_at=Now() + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS),
    )
    family.save(force_insert=True)
    return family


def _first_pair(account: Account) -> TokenPair:
    return _pair_of(account, _new_family(account))


def _pair_of(account: Account, family: RefreshFamily) -> TokenPair:
    return _pair(
        account,
        family_id=family.id,
        token_id=family.current_token_id,
        profile_id=family.profile_id,
    )


def _pair(
    account: Account, *, family_id: UUID, token_id: UUID, profile_id: UUID | None
) -> TokenPair:
    return TokenPair(
        authentication.access_token(account, profile_id=profile_id, login_id=family_id),
        authentication.refresh_token(
            account, family_id=family_id, token_id=token_id, profile_id=profile_id
        ),
    )


def _of_profile(profile_id: UUID | None) -> dict[str, Any]:
    """The filter for tokens of one child, or of the parent."""
    return {"profile_id": profile_id} if profile_id is not None else {"profile": None}


def refresh(*, token: str, address: str) -> TokenPair:
    """The next pair for the youngest refresh token of a family; everything else is a 401.

    The exchange is one conditional UPDATE, so that of two racing copies one wins. A token that
    was exchanged before ends its whole family: somebody has a copy. The scope stays what it was; a
    profile that is deleted takes its families with it.

    Failures are counted by address, exchanges by log-in and not by account: a child's device must
    not be able to use up the parent's.
    """
    failure = ratelimits.guess(Subject("REFRESH_ADDRESS", address, is_known=False))
    claims = authentication.read_refresh_token(token)
    account = Account.objects.filter(id=claims.account_id).first()
    authentication.require_live(account, claims)
    ratelimits.guess(Subject("REFRESH_LOGIN", str(claims.family_id)))
    family = RefreshFamily.objects.filter(
        id=claims.family_id,
        account_id=claims.account_id,
        revoked_at=None,
        **_of_profile(claims.profile_id),
    )
    token_id = uuid4()
    # Whoever is answered 503 for the sake of what follows is to find the token unspent.
    with transaction.atomic():
        exchanged = family.filter(current_token_id=claims.token_id, expires_at__gt=Now()).update(
            current_token_id=token_id,
            expires_at=Now() + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS),
        )
        if exchanged:
            failure.succeeded()
    if not exchanged or account is None:
        family.update(revoked_at=Now())
        raise AuthenticationFailed
    return _pair(
        account, family_id=claims.family_id, token_id=token_id, profile_id=claims.profile_id
    )
