"""Changing what a child may watch, and when its day starts (domain.md section 5)."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.problems import not_found
from parentalcontrols.viewing_day import changed_schedules
from pins import audit, tokens
from pins.audit import Actor
from pins.models import AuditAction
from viewingtime import ledgers


def change(
    *,
    profile_id: UUID,
    account_id: UUID,
    changes: dict[str, Any],
    actor: Actor,
    pin_token: str | None = None,
) -> ViewingTimeConfig:
    """Sets config fields of a child and answers its config.

    Once the account has a PIN, a PIN token is needed: a 403 `Problem` without one.

    Limits and the exemption take effect at once, on the running day's balance too and in the same
    transaction; the reset hour and the time zone at the next reset. `changes` holds model fields
    that were validated.
    """
    with transaction.atomic():
        held = ledgers.hold([profile_id])
        if profile_id not in held.ledgers:
            raise not_found()
        tokens.require(account_id, pin_token)
        config, _ = ViewingTimeConfig.objects.select_related("profile").get_or_create(
            profile_id=profile_id
        )
        latest_day = held.ledgers[profile_id].latest_day
        config.earlier_schedules = changed_schedules(
            reset_hour=config.reset_hour,
            timezone=config.timezone,
            earlier=config.earlier_schedules,
            new_reset_hour=changes.get("reset_hour", config.reset_hour),
            new_timezone=changes.get("timezone", config.timezone),
            now=held.now,
            latest_day=latest_day,
        )
        before = {field: getattr(config, field) for field in changes}
        for field, value in changes.items():
            setattr(config, field, value)
        config.updated_at = Now()
        config.save()
        config.refresh_from_db(fields=["updated_at"])

        viewer = ledgers.viewer_of(config)
        running = viewer.schedule.viewing_day(held.now, latest_day).date
        balance = held.ledgers[profile_id].balances.get(running)
        if balance is not None:
            ledgers.set_limit(profile_id, replace(balance, limit=viewer.limit(running)))
        ledgers.mark_changed(profile_id, held.now)
        changed = [field for field, value in changes.items() if value != before[field]]
        if changed:
            audit.record(
                account_id=account_id,
                profile_id=profile_id,
                actor=actor,
                action=AuditAction.CONFIG_CHANGED,
                before={field: before[field] for field in changed},
                after={field: changes[field] for field in changed},
                at=held.now,
            )
    return config
