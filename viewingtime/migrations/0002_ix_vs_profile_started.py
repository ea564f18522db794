"""Builds `ix_vs_profile_started` without locking the table against writes.

An index of that name that is not what the model declares (an ascending one of an older
installation, or an invalid one that an interrupted build left behind) is replaced. Re-runnable.
"""

from django.db import migrations, models

NAME = "ix_vs_profile_started"

IS_SOUND = """
SELECT i.indisvalid AND i.indisready
    AND pg_get_indexdef(i.indexrelid, 1, true) = 'profile_id'
    AND pg_get_indexdef(i.indexrelid, 2, true) = 'started_at'
    AND i.indoption[0] = 0 AND i.indoption[1] & 1 = 1
    AND i.indnatts = 2 AND i.indpred IS NULL
FROM pg_index AS i
WHERE i.indexrelid = to_regclass('ix_vs_profile_started')
"""
DROP = "DROP INDEX CONCURRENTLY IF EXISTS ix_vs_profile_started"
CREATE = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_vs_profile_started
ON viewing_sessions (profile_id uuid_ops, started_at timestamptz_ops DESC)
"""


def build(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(IS_SOUND)
        found = cursor.fetchone()
        if found == (True,):
            return
        if found is not None:
            cursor.execute(DROP)
        cursor.execute(CREATE)


def drop(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(DROP)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("viewingtime", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[
                migrations.AddIndex(
                    model_name="viewingsession",
                    index=models.Index(
                        fields=["profile", "-started_at"],
                        name=NAME,
                        opclasses=["uuid_ops", "timestamptz_ops"],
                    ),
                ),
            ],
        ),
    ]
