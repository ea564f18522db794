"""Indexes on a table that can be large: built beside the service, alone.

An interrupted build leaves an invalid index behind; it is dropped before it is built again.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("parentalcontrols", "0003_device_tokens_idempotency_rate_limits")]

    operations = [
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS ix_refresh_families_profile",
            migrations.RunSQL.noop,
        ),
        AddIndexConcurrently(
            "refreshfamily",
            models.Index(
                fields=["profile"],
                name="ix_refresh_families_profile",
                condition=models.Q(profile__isnull=False),
            ),
        ),
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS ix_refresh_families_expires",
            migrations.RunSQL.noop,
        ),
        AddIndexConcurrently(
            "refreshfamily",
            models.Index(fields=["expires_at"], name="ix_refresh_families_expires"),
        ),
    ]
