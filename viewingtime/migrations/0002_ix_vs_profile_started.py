"""Builds `ix_vs_profile_started` without locking the table against writes.

An index of that name that is not what the model declares (an ascending one of an older
installation, or an invalid one that an interrupted build left behind) is replaced. Re-runnable.
"""

from django.db import migrations, models

from adminmetrics.concurrent_indexes import BuildIndexConcurrently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("viewingtime", "0001_initial")]

    operations = [
        BuildIndexConcurrently(
            "viewingsession",
            models.Index(
                fields=["profile", "-started_at"],
                name="ix_vs_profile_started",
                opclasses=["uuid_ops", "timestamptz_ops"],
            ),
        ),
    ]
