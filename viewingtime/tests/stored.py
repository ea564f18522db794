"""What was watched long ago, put into the tables at once, and how a statement finds it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection
from model_bakery import baker

from parentalcontrols.models import Profile, Title
from viewingtime.models import ViewingSession

_SESSIONS = """
INSERT INTO viewing_sessions (
    id, profile_id, title_id, is_kids, device_id, device_type, is_educational, reset_date,
    started_at, last_heartbeat_at, ended_at, end_reason, total_seconds, educational_seconds
)
SELECT
    gen_random_uuid(), %(profile_id)s, (%(titles)s::uuid[])[1 + n %% cardinality(%(titles)s)],
    %(is_kids)s, 'tv', 'tv', n %% 3 = 0,
    ((started_at - make_interval(hours => %(reset_hour)s)) AT TIME ZONE 'UTC')::date,
    started_at, started_at, started_at, 'stopped', seconds,
    CASE WHEN n %% 3 = 0 THEN seconds ELSE 0 END
FROM (
    SELECT
        n, %(newest)s::timestamptz - (n / 3) * %(every)s::interval AS started_at,
        1 + n %% 97 + 0.000001 * (n %% 7) AS seconds
    FROM generate_series(0, %(count)s - 1) AS n
) AS made
"""
_BALANCES = """
INSERT INTO viewing_time_balances (
    profile_id, reset_date, used_seconds, educational_seconds, limit_seconds
)
SELECT
    profile_id, reset_date, sum(total_seconds - educational_seconds), sum(educational_seconds), NULL
FROM viewing_sessions
WHERE profile_id = %(profile_id)s AND is_kids
GROUP BY profile_id, reset_date
"""


def store(
    profile: Profile,
    titles: Sequence[Title],
    *,
    count: int,
    newest: datetime,
    over: timedelta,
    reset_hour: int = 6,
) -> None:
    """So many sessions up to an instant, in threes of the same start, with balances without limit.

    Every third is educational and exempt. The profile's zone has to be UTC.
    """
    parameters = {
        "profile_id": profile.id,
        "is_kids": profile.is_kids,
        "titles": [title.id for title in titles],
        "count": count,
        "newest": newest,
        "every": over * 3 / count,
        "reset_hour": reset_hour,
    }
    with connection.cursor() as cursor:
        cursor.execute(_SESSIONS, parameters)
        cursor.execute(_BALANCES, {"profile_id": profile.id})


def session(
    profile: Profile,
    title: Title,
    day: date,
    started_at: datetime,
    seconds: float = 60,
    **fields: Any,
) -> ViewingSession:
    """A session that was stopped, on that viewing day; no balance."""
    return baker.make(
        ViewingSession,
        **{
            "profile": profile,
            "title": title,
            "is_kids": profile.is_kids,
            "device_type": "tv",
            "reset_date": day,
            "started_at": started_at,
            "last_heartbeat_at": started_at + timedelta(seconds=seconds),
            "ended_at": started_at + timedelta(seconds=seconds),
            "end_reason": "stopped",
            "total_seconds": seconds,
            **fields,
        },
    )


@contextmanager
def titles_for_names_alone() -> Iterator[None]:
    """Lets this transaction read of titles nothing but id and name: the database refuses more."""
    with connection.cursor() as cursor:
        cursor.execute("REVOKE SELECT ON titles FROM CURRENT_USER")
        cursor.execute("GRANT SELECT (id, title) ON titles TO CURRENT_USER")
        yield
        cursor.execute("GRANT SELECT ON titles TO CURRENT_USER")


def analyze() -> None:
    """Lets the planner know how much there is."""
    with connection.cursor() as cursor:
        for table in ("viewing_sessions", "viewing_time_balances", "titles"):
            cursor.execute(f"ANALYZE {table}")


def plan_of(statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Every node of the plan by which a statement was run, the topmost first."""
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters)
        (plan,) = cursor.fetchone()
    found = json.loads(plan) if isinstance(plan, str) else plan
    return list(_nodes(found[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def assert_found_by_the_index(nodes: list[dict[str, Any]]) -> None:
    """Sessions were found by `ix_vs_profile_started` and its range alone; no disk was needed."""
    on_sessions = [node for node in nodes if node.get("Relation Name") == "viewing_sessions"]
    assert on_sessions
    assert not [node for node in on_sessions if node["Node Type"] == "Seq Scan"]
    by_index = [node for node in nodes if node.get("Index Name") == "ix_vs_profile_started"]
    assert len(by_index) == len(on_sessions)
    for node in by_index:
        assert "profile_id = " in node["Index Cond"]
        assert "started_at >= " in node["Index Cond"]
        assert "started_at < " in node["Index Cond"]
    assert nodes[0]["Temp Written Blocks"] == 0
    assert nodes[0]["Temp Read Blocks"] == 0
