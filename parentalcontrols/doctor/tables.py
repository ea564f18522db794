"""Checks of what is in the database: migrations, indexes, rights, zones."""

import zoneinfo
from datetime import UTC, datetime

from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from adminmetrics import index_audit
from parentalcontrols.doctor import Finding, check, ok, problem, warning

_ZONES = """
SELECT name, ARRAY(
    SELECT extract(epoch FROM (at AT TIME ZONE name) - (at AT TIME ZONE 'UTC'))::integer
    FROM unnest(%s::timestamptz[]) AS at
)
FROM unnest(%s::text[]) AS name
WHERE name IN (SELECT n.name FROM pg_timezone_names AS n)
"""
_RIGHTS = """
SELECT
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    ARRAY(
        SELECT name FROM unnest(%s::text[]) AS name
        WHERE to_regclass(name) IS NOT NULL
            AND NOT (
                has_table_privilege(to_regclass(name)::oid, 'SELECT')
                AND has_table_privilege(to_regclass(name)::oid, 'INSERT')
                AND has_table_privilege(to_regclass(name)::oid, 'UPDATE')
                AND has_table_privilege(to_regclass(name)::oid, 'DELETE')
            )
        ORDER BY name
    )
"""
_NAMED = 5


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@check("migrations")
def migrations() -> Finding:
    """The tables are those of this version."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = [f"{step.app_label}.{step.name}" for step, _ in missing]
        return problem(f"not applied: {_some(names)}", "Run `manage.py migrate`.")
    unknown = set(executor.loader.applied_migrations) - set(executor.loader.graph.nodes)
    newer = sorted(f"{app}.{name}" for app, name in unknown if app in apps.app_configs)
    if newer:
        return warning(
            f"of another version: {_some(newer)}", "A newer version ran here: upgrade this one."
        )
    return ok("all applied")


@check("indexes")
def indexes() -> Finding:
    """Indexes and constraints are those that the models declare, and are used."""
    report = index_audit.audit()
    if not report.is_sound:
        names = [f"{f.kind} {f.name}" for f in report.findings]
        return problem(_some(names), "Run `manage.py verify_indexes`: it says how to mend them.")
    return ok(f"{report.indexes} indexes and {report.constraints} constraints are sound")


@check("rights of the role")
def rights() -> Finding:
    """The role may do what the service does, and no more."""
    tables = sorted(model._meta.db_table for model in apps.get_models(include_auto_created=True))
    with connection.cursor() as cursor:
        cursor.execute(_RIGHTS, [tables])
        is_superuser, closed = cursor.fetchone()
    if closed:
        return problem(
            f"may not read and write {_some(closed)}",
            "GRANT SELECT, INSERT, UPDATE, DELETE on them, or let the role own them.",
        )
    if is_superuser:
        return warning(
            "a superuser: whoever finds a hole in the service has the whole server",
            "Make a role that owns this database and nothing else.",
        )
    return ok("enough, and no superuser")


@check("time zones")
def zones() -> Finding:
    """This host's rules decide when days begin; PostgreSQL's are a sign of how old they are."""
    year = datetime.now(UTC).year
    instants = [datetime(y, month, 15, tzinfo=UTC) for y in (year, year + 1) for month in (1, 7)]
    names = sorted(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})
    with connection.cursor() as cursor:
        cursor.execute(_ZONES, [instants, names])
        theirs = dict(cursor.fetchall())
    different = [name for name, offsets in theirs.items() if _offsets(name, instants) != offsets]
    if different:
        return warning(
            f"this host and PostgreSQL differ about {_some(sorted(different))}",
            "Install the newest tzdata (requirements.txt); this host's rules are those that count.",
        )
    return ok(f"{len(theirs)} zones agree with PostgreSQL's")


def _offsets(name: str, instants: list[datetime]) -> list[int]:
    zone = zoneinfo.ZoneInfo(name)
    offsets = (instant.astimezone(zone).utcoffset() for instant in instants)
    return [int(offset.total_seconds()) for offset in offsets if offset is not None]
