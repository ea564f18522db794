"""`prune_metrics`: what ages gets coarser, and no count is ever lost."""

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from adminmetrics import queries, retention
from adminmetrics.models import MetricProcess, MetricRollup, Resolution
from adminmetrics.queries import Source
from adminmetrics.recorder import HASH_WAIT_SECONDS, HEARTBEATS
from parentalcontrols.tests.cast import database_now

MINUTE, HOUR, DAY, EVER = Resolution.MINUTE, Resolution.HOUR, Resolution.DAY, Resolution.EVER


def put(age: timedelta, resolution: int = MINUTE, **fields: object) -> MetricRollup:
    values = {"name": HEARTBEATS, "instance": "one", "worker": "7", "count": 1} | fields
    starts_at = (database_now() - age).replace(second=0, microsecond=0)
    return MetricRollup.objects.create(resolution=resolution, starts_at=starts_at, **values)


def rows(**lookups: object) -> list[tuple[object, ...]]:
    found = MetricRollup.objects.filter(**lookups).order_by("resolution", "starts_at", "instance")
    return list(found.values_list("resolution", "instance", "worker", "count"))


def prune(**options: int) -> dict[str, int]:
    return {folded.kind: folded.rows for folded in retention.prune(**options)}


@pytest.mark.django_db
def test_minutes_become_hours_without_workers() -> None:
    old = (database_now() - timedelta(days=3)).replace(minute=0)
    age = database_now() - old
    put(age, worker="7", count=2)
    put(age - timedelta(minutes=1), worker="8", count=3)
    put(age - timedelta(minutes=59), instance="other", count=5)
    put(age - timedelta(minutes=60), count=7)
    assert prune()["minutes folded into hours"] == 4
    expected = [(HOUR, "one", "", 5), (HOUR, "one", "", 7), (HOUR, "other", "", 5)]
    assert sorted(rows()) == expected
    assert {row.starts_at.minute for row in MetricRollup.objects.all()} == {0}


@pytest.mark.django_db
def test_what_is_young_stays_as_it_is_to_the_hour() -> None:
    now = database_now()
    edge = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
    kept = put(now - edge)
    folded = put(now - edge + timedelta(minutes=1))
    prune()
    assert MetricRollup.objects.filter(pk=kept.pk).exists()
    assert not MetricRollup.objects.filter(pk=folded.pk).exists()


@pytest.mark.django_db
def test_hours_become_days_and_days_a_count_of_all_time() -> None:
    put(timedelta(days=40), HOUR, worker="", count=2)
    put(timedelta(days=500), DAY, worker="", count=3)
    put(timedelta(days=600), DAY, worker="", instance="long gone", count=4)
    found = prune()
    assert found["hours folded into days"] == 1
    assert found["days folded into all time"] == 2
    assert sorted(rows()) == [
        (EVER, "long gone", "", 4),
        (EVER, "one", "", 3),
        (DAY, "one", "", 2),
    ]


@pytest.mark.django_db
def test_one_run_takes_what_is_very_old_all_the_way() -> None:
    put(timedelta(days=500))
    prune()
    assert rows() == [(EVER, "one", "", 1)]


@pytest.mark.django_db
def test_what_an_instance_counted_never_shrinks() -> None:
    """Prometheus takes that for a restart, and all that is left for new."""
    for days in (1, 3, 40, 500, 600):
        put(timedelta(days=days), count=days)
    put(timedelta(days=500), instance="other", count=7)
    # Of before instances were kept.
    put(timedelta(days=500), EVER, instance="", worker="", count=11)
    for _ in range(2):
        prune()
        assert queries.figures(source=Source("one")).count(HEARTBEATS) == 1144
        assert queries.figures(source=Source("other")).count(HEARTBEATS) == 7
        assert queries.figures().count(HEARTBEATS) == 1144 + 7 + 11


@pytest.mark.django_db
def test_a_roll_up_that_was_there_is_added_to_and_histograms_merge() -> None:
    values = {"name": HASH_WAIT_SECONDS, "count": 3, "total": 30, "most": 20}
    put(timedelta(days=500), buckets=[5, 9], counts=[1, 2], **values)
    prune()
    put(timedelta(days=501), buckets=[2, 9], counts=[1, 2], **values | {"most": 25})
    put(timedelta(days=502), **values | {"count": 1, "total": 1, "most": 1})
    prune()
    (row,) = MetricRollup.objects.all()
    assert (row.count, row.total, row.most) == (7, 61, 25)
    assert (row.buckets, row.counts) == ([2, 5, 9], [1, 1, 4])


@pytest.mark.django_db
def test_sums_of_everything_stay_the_same_in_batches_of_any_size() -> None:
    for number in range(40):
        age = timedelta(days=number * 20, minutes=number * 7)
        put(age, name=HASH_WAIT_SECONDS, count=number, buckets=[number % 5], counts=[number])
    before = queries.figures()
    prune(batch=3)
    after = queries.figures()
    assert after.sums == before.sums
    assert after.histograms == before.histograms
    assert MetricRollup.objects.count() < 40
    assert not any(prune(batch=3).values())


@pytest.mark.django_db(transaction=True)
def test_two_at_once_move_every_row_once() -> None:
    for number in range(300):
        put(timedelta(days=3, minutes=number), count=1)
    start = threading.Barrier(4)
    moved = []

    def run() -> None:
        start.wait()
        moved.append(prune(batch=10)["minutes folded into hours"])
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prune()
    assert queries.figures().count(HEARTBEATS) == 300
    assert sum(moved) <= 300
    assert not MetricRollup.objects.filter(resolution=MINUTE).exists()


@pytest.mark.django_db
def test_processes_that_are_long_gone_are_forgotten() -> None:
    now = database_now()
    for worker, age in (("old", 4), ("young", 1)):
        MetricProcess.objects.create(
            id=f"{age:032x}", instance="one", worker=worker, seen_at=now - timedelta(days=age)
        )
    assert prune()["worker processes forgotten"] == 1
    assert MetricProcess.objects.get().worker == "young"


@pytest.mark.django_db
def test_the_command_reports() -> None:
    put(timedelta(days=3))
    out = StringIO()
    call_command("prune_metrics", stdout=out)
    assert "minutes folded into hours: 1\n" in out.getvalue()


@pytest.mark.django_db
def test_a_reading_from_an_instant_on_leaves_out_what_has_no_time_any_more() -> None:
    put(timedelta(days=500))
    put(timedelta(days=3), HOUR, worker="")
    prune()
    assert queries.figures().count(HEARTBEATS) == 2
    assert queries.figures(since=datetime(2000, 1, 1, tzinfo=UTC)).count(HEARTBEATS) == 1
