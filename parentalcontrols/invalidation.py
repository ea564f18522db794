"""Tells `config_cache` what changed, when the change is committed.

By signals for rows that are saved or deleted one by one, by `CachedQuerySet` for many at once.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import DatabaseError, models, transaction
from django.db.models.signals import post_delete, post_save
from redis.exceptions import RedisError

from parentalcontrols import config_cache
from parentalcontrols.models import Account, Profile, ViewingTimeConfig

logger = logging.getLogger(__name__)

#: The columns of each model that entries are made of.
CACHED_COLUMNS: Final[Mapping[type[models.Model], frozenset[str]]] = {
    # A trigger raises `token_version` with each of the others.
    Account: frozenset({"is_active", "password", "token_version"}),
    Profile: frozenset({"account", "account_id", "is_kids"}),
    ViewingTimeConfig: frozenset(
        {"profile", "profile_id", *config_cache.Config.__struct_fields__},
    ),
}


def touches(model: type[models.Model], columns: Iterable[str]) -> bool:
    """Whether a change of those columns makes entries wrong."""
    return not CACHED_COLUMNS[model].isdisjoint(columns)


def on_commit(model: type[models.Model], keys: Collection[UUID]) -> None:
    """Forgets what entries keep of those rows, once the running transaction is committed."""
    if not keys:
        return
    forget = _forget_accounts if model is Account else config_cache.invalidate
    transaction.on_commit(partial(forget, keys))


def created(model: type[models.Model], keys: Collection[UUID]) -> None:
    """Forgets what entries say of new rows: that a child has no config. Others nobody knows yet."""
    if model is ViewingTimeConfig:
        on_commit(model, keys)


def _forget_accounts(account_ids: Collection[UUID]) -> None:
    """Forgets the profiles of accounts: those there are after the commit."""
    profiles = Profile.objects.filter(account_id__in=account_ids).values_list("id", flat=True)
    try:
        config_cache.invalidate(list(profiles))
    except DatabaseError:
        # The change is committed and nobody can say any more whom it concerns.
        logger.warning("config_cache_cleared", extra={"cause": "database_unavailable"})
        try:
            config_cache.clear()
        except (RedisError, OSError):
            logger.warning("config_cache_not_cleared")


def _saved(
    sender: type[models.Model],
    instance: models.Model,
    update_fields: Collection[str] | None = None,
    **signal: Any,
) -> None:
    if signal["created"]:
        created(sender, [instance.pk])
    elif update_fields is None or touches(sender, update_fields):
        on_commit(sender, [instance.pk])


def _deleted(sender: type[models.Model], instance: models.Model, **_: Any) -> None:
    # The profiles of an account are deleted with it, each with a signal of its own.
    if sender is not Account:
        on_commit(sender, [instance.pk])


def connect() -> None:
    """Listens to every change of the models that entries are made of."""
    for model in CACHED_COLUMNS:
        post_save.connect(_saved, sender=model, dispatch_uid="config_cache_saved")
        post_delete.connect(_deleted, sender=model, dispatch_uid="config_cache_deleted")
