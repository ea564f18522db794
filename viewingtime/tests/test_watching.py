"""How many children are watching, for the metrics."""

from datetime import timedelta

from django.db import connection

from parentalcontrols.tests.cast import Cast, database_now, pass_time
from viewingtime import watching
from viewingtime.models import ViewingSession
from viewingtime.watching import children_watching


def test_children_with_a_late_beat_are_counted_and_nobody_else(cast: Cast) -> None:
    assert children_watching() == 0
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    cast.phone.beat(cast.sibling, cast.cartoon)
    cast.phone.beat(cast.adult, cast.cartoon)
    assert children_watching() == 2
    cast.phone.post(f"/viewing-time/session/{session}/end")
    assert children_watching() == 1
    pass_time(301)
    assert children_watching() == 0


def test_it_reads_the_open_sessions_alone(cast: Cast) -> None:
    now = database_now()
    ViewingSession.objects.bulk_create(
        ViewingSession(
            profile=cast.child,
            title=cast.cartoon,
            device_id="tv",
            reset_date=now.date(),
            started_at=now - timedelta(minutes=number),
            last_heartbeat_at=now,
            ended_at=now,
            end_reason="stopped",
        )
        for number in range(5000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE viewing_sessions")
        cursor.execute(
            "EXPLAIN " + watching.COUNT_WATCHING, {"seconds": 300, "most": watching.MOST_COUNTED}
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "uq_vs_open_kids" in plan
