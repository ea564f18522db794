"""How many children are watching at this moment, for the metrics."""

from django.db import connection

#: A child that was heard of so recently is watching: up to then a gap counts in full
#: (domain.md section 2, "Silence").
HEARD_WITHIN_SECONDS = 300
#: Counting stops here; a page shows a figure, it does not wait for one.
MOST_COUNTED = 100_000

#: Open sessions of children with a late enough beat, up to a bound; served by `uq_vs_open_kids`,
#: which holds the open ones alone, and locks nothing.
COUNT_WATCHING = """
SELECT count(*)
FROM (
    SELECT
    FROM viewing_sessions
    WHERE ended_at IS NULL
        AND is_kids
        AND last_heartbeat_at > clock_timestamp() - make_interval(secs => %(seconds)s)
    LIMIT %(most)s
) AS watching
"""


def children_watching() -> int:
    """Children with an open session and a beat in the last five minutes, `MOST_COUNTED` at most."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_WATCHING, {"seconds": HEARD_WITHIN_SECONDS, "most": MOST_COUNTED})
        (count,) = cursor.fetchone()
    return int(count)
