"""The people of a household, and the rule that nobody sees another household's."""

from uuid import UUID

from django.db import transaction

from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Profile, ViewingTimeConfig
from parentalcontrols.problems import not_found
from pins import audit
from pins.audit import Actor
from pins.models import AuditAction


def owned(caller: Caller, profile_id: UUID, *, kids_only: bool = False) -> Profile:
    """The caller's profile with its config; missing or somebody else's is one and the same 404.

    The parent's are all of the account, a child's device has its own. One query. `kids_only`
    leaves adults out, who have no config.
    """
    if not caller.may_see(profile_id):
        raise not_found()
    profile = (
        Profile.objects.filter(account_id=caller.account_id, id=profile_id)
        .select_related("viewing_time_config")
        .first()
    )
    if profile is None or (kids_only and not profile.is_kids):
        raise not_found()
    return profile


def of_account(account: Account) -> list[Profile]:
    """The household, oldest profile first."""
    return list(Profile.objects.filter(account_id=account.id).order_by("created_at", "id"))


def create(
    *,
    account: Account,
    name: str,
    is_kids: bool,
    parental_rating: str | None = None,
    avatar_url: str | None = None,
    actor: Actor = audit.OPERATOR,
) -> Profile:
    """A new profile; a child gets its viewing-time config, with the defaults, at once."""
    with transaction.atomic():
        profile = Profile.objects.create(
            account=account,
            name=name,
            is_kids=is_kids,
            parental_rating=parental_rating,
            avatar_url=avatar_url,
        )
        if is_kids:
            ViewingTimeConfig.objects.create(profile=profile)
        # A new profile is new time to watch.
        audit.record(
            account_id=account.id,
            profile_id=profile.id,
            actor=actor,
            action=AuditAction.PROFILE_CREATED,
            after={"name": name, "is_kids": is_kids},
        )
    return profile


def config_of(profile: Profile) -> ViewingTimeConfig:
    """A child's config; one that is missing is made with the defaults, once."""
    config: ViewingTimeConfig | None = getattr(profile, "viewing_time_config", None)
    if config is None:
        config, _ = ViewingTimeConfig.objects.get_or_create(profile=profile)
        profile.viewing_time_config = config
    return config
