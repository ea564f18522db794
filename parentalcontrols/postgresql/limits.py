"""Whether the server has limits in force for what web processes ask of it (`DATABASE_LIMITS`).

Directly on PostgreSQL a web process brings them along when it connects. A pooler refuses that
(libpq's `options`), or would not pass them on; there they belong to the pooler's own connections
or to the role, and all that is left to us is to look.
"""

import logging
from collections.abc import Mapping

from django.conf import settings
from django.db import DatabaseError, connection

from parentalcontrols.postgresql import deadline

logger = logging.getLogger(__name__)

#: Seconds that a start waits for the answer.
_SECONDS = 3.0
#: In the base unit of each, which is the millisecond for these.
_IN_FORCE = "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(%s)"


def missing() -> Mapping[str, int]:
    """Limits that a statement of this process would not have: what each should be at most, in ms.

    Raises database errors.
    """
    wanted: dict[str, int] = settings.DATABASE_LIMITS
    with connection.cursor() as cursor:
        cursor.execute(_IN_FORCE, [list(wanted)])
        in_force = dict(cursor.fetchall())
    # 0 is none at all.
    return {name: most for name, most in wanted.items() if not 0 < in_force[name] <= most}


def look() -> None:
    """Warns of limits that are missing, at the start of a web process behind a pooler."""
    if not settings.DATABASE_POOLED:
        return
    try:
        with deadline.within(_SECONDS):
            found = missing()
    except DatabaseError as error:
        cause = type(error.__cause__ or error).__name__
        logger.warning("database_unavailable_at_start", extra={"cause": cause})
        return
    finally:
        connection.close()
    if found:
        logger.warning("database_limits_missing", extra={"limits": dict(found)})
