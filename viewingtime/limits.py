"""Changing what a child may watch, and when its day starts (domain.md section 5)."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.problems import not_found
from parentalcontrols.viewing_day import changed_schedules
from viewingtime import ledgers


def change(*, profile_id: UUID, changes: dict[str, Any]) -> ViewingTimeConfig:
    """Sets config fields of a child and answers its config.

    Limits and the exemption take effect at once, on the running day's balance too and in the same
    transaction; the reset hour and the time zone at the next reset. `changes` holds model fields
    that were validated.
    """
    with transaction.atomic():
        held = ledgers.hold([profile_id])
        if profile_id not in held.ledgers:
            raise not_found()
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
    return config
