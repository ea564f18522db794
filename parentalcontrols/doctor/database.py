"""Checks of the PostgreSQL server."""

import os
import time
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from parentalcontrols.doctor import Finding, check, ok, problem, warning
from parentalcontrols.doctor.clocks import judged_skew

_OLDEST, _NEWEST = 15, 18
#: Seconds that a transaction may be open before it is told of.
_LONG_TRANSACTION = 3600


def one(query: str, *parameters: Any) -> Any:
    """The only value that a query answers."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row = cursor.fetchone()
    return None if row is None else row[0]


def setting(name: str) -> str:
    """A setting of the server, as this connection has it."""
    return str(one("SELECT current_setting(%s, true)", name))


@check("database")
def reachable() -> Finding:
    """It answers, and its version is one that is tested."""
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        return problem(
            f"it takes no connection from here ({type(error.__cause__ or error).__name__})",
            "Look whether it runs, whether DATABASE_URL is right, and whether it lets this role in "
            '(pg_hba.conf): psql "$DATABASE_URL" says more.',
        )
    version = int(setting("server_version_num")) // 10000
    told = f"PostgreSQL {setting('server_version')}"
    if version < _OLDEST:
        return problem(told, f"Upgrade it to PostgreSQL {_OLDEST} to {_NEWEST}.")
    if version > _NEWEST:
        return warning(told, f"Nobody has tried it: PostgreSQL {_OLDEST} to {_NEWEST} are tested.")
    return ok(told)


@check("database writes")
def writable() -> Finding:
    """It is the primary: on a standby no beat is taken."""
    if one("SELECT pg_is_in_recovery()"):
        return problem(
            "it is a standby, or still recovering: it takes no writes",
            "Let DATABASE_URL name the primary (or both, with target_session_attrs=read-write), or "
            "promote it: SELECT pg_promote().",
        )
    if setting("transaction_read_only") == "on":
        return problem(
            "it takes no writes",
            "Look who set default_transaction_read_only: \\drds in psql, and its configuration.",
        )
    return ok("it takes them")


@check("database clock")
def clock() -> Finding:
    """The database's clock decides, this host's dates tokens: they have to agree."""
    before = time.time()
    theirs = one("SELECT clock_timestamp()")
    after = time.time()
    ours = datetime.fromtimestamp((before + after) / 2, UTC)
    return judged_skew((theirs - ours).total_seconds(), after - before, "PostgreSQL")


@check("database durability")
def durability() -> Finding:
    """What was answered survives a crash of the server."""
    off = [
        name
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if setting(name) == "off"
    ]
    if off:
        return problem(
            f"off: {', '.join(off)}",
            "Switch it on: without it beats that were answered are lost with a crash, or more.",
        )
    return ok("what is answered is on the disk")


@check("database connections")
def connections() -> Finding:
    """Every process of this instance gets its connections."""
    workers = int(os.environ.get("WORKERS") or "2")
    if settings.WORKER_CLASS == "gevent":
        queues = settings.HEARTBEAT_CREDITORS + settings.HEARTBEAT_DECIDERS + 1
        each = settings.DATABASE_POOL_SIZE + queues
    else:
        each = settings.THREADS + 1
    wanted = workers * each
    most = int(setting("max_connections")) - int(setting("superuser_reserved_connections"))
    told = f"{workers} processes x {each} = {wanted} at most, of {most}; every instance as many"
    if wanted > most:
        return problem(
            told, "Lower WORKERS or DATABASE_POOL_SIZE, raise max_connections, or pool them."
        )
    if 2 * wanted > most:
        return warning(told, "A second instance, or a rolling restart, finds too few.")
    return ok(told)


@check("connection pooler")
def pooler() -> Finding:
    """A pooler in between tells another process id than the server's own."""
    connection.ensure_connection()
    told, own = connection.connection.info.backend_pid, one("SELECT pg_backend_pid()")
    prepared = settings.DATABASES["default"]["OPTIONS"]["server_side_binding"]
    return judged_pooler(is_there=told != own, prepared=prepared)


def judged_pooler(*, is_there: bool, prepared: bool) -> Finding:
    """What a pooler asks of the settings."""
    if is_there and prepared:
        return warning(
            "there is one, and statements are prepared",
            "PgBouncer before 1.21, or without max_prepared_statements: DATABASE_PREPARED=false.",
        )
    if is_there:
        return ok("there is one, and statements are not prepared")
    if not prepared:
        return warning(
            "there is none, and statements are not prepared",
            "Set DATABASE_PREPARED=true: every heartbeat is planned anew without.",
        )
    return ok("none")


@check("archive")
def archive() -> Finding:
    """The log is archived, so that the database can go back to a point in time."""
    if setting("archive_mode") == "off":
        return warning(
            "the log is not archived: a crash of the disk loses what came after the last backup",
            "Set archive_mode and archive_command, see docs/runbooks.md.",
        )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT failed_count, last_failed_time > coalesce(last_archived_time, '-infinity'),"
            " last_archived_time FROM pg_stat_archiver"
        )
        failed, is_failing, latest = cursor.fetchone()
    if is_failing:
        return problem(
            f"the last attempt failed, {failed} in all",
            "Look at the server's log; until it works the log fills the disk.",
        )
    return ok(f"the last segment at {latest:%Y-%m-%d %H:%M:%S} UTC" if latest else "none yet")


@check("disk of the log")
def held_back() -> Finding:
    """No forgotten replication slot keeps the log for ever."""
    slots = one(
        "SELECT coalesce(string_agg(slot_name::text, ', ' ORDER BY slot_name), '')"
        " FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL"
    )
    if slots:
        return warning(
            f"kept for replication slots that nobody uses: {slots}",
            "Let their standby come back, or pg_drop_replication_slot, before the disk is full.",
        )
    return ok("nothing holds it back")


@check("long transactions")
def long_transactions() -> Finding:
    """None keeps dead rows from being cleared away. Others' are seen as far as the role may."""
    age = one(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::bigint"
        " FROM pg_stat_activity WHERE datname = current_database()"
    )
    if age > _LONG_TRANSACTION:
        return warning(
            f"one is open for {age // 60} minutes",
            "Find it in pg_stat_activity and end it: tables grow meanwhile.",
        )
    return ok("none")
