"""A database clock that tests set: `clock_timestamp()` found in a schema that comes first."""

from datetime import datetime

from django.db import connection

_FUNCTION = """
CREATE SCHEMA IF NOT EXISTS frozen;
CREATE OR REPLACE FUNCTION frozen.clock_timestamp() RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(
        nullif(current_setting('frozen.now', true), '')::timestamptz, pg_catalog.clock_timestamp()
    )
$$;
"""


def install() -> None:
    """Lets the running transaction read the frozen clock in place of the server's."""
    with connection.cursor() as cursor:
        cursor.execute(_FUNCTION.replace("%", "%%"))
        cursor.execute("SET LOCAL search_path = frozen, pg_catalog, public")


def set_to(now: datetime) -> None:
    """Stops the clock of the running transaction at an instant."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('frozen.now', %s, true)", [now.isoformat()])
