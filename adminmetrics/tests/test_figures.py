"""Figures agree with each other and do not shrink, whatever is handed over or folded meanwhile."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from adminmetrics import queries, recorder, retention
from adminmetrics.queries import Source
from adminmetrics.recorder import HEARTBEAT_SECONDS, HEARTBEATS
from adminmetrics.rollup import Reporter
from adminmetrics.tests.test_retention import HOUR, put
from parentalcontrols.tests.cast import database_now


@pytest.mark.django_db(transaction=True)
def test_a_histogram_holds_as_many_as_were_counted() -> None:
    stop = threading.Event()

    def count() -> None:
        reporter = Reporter()
        while not stop.is_set():
            recorder.heartbeats(1, 1, 0.001)
            reporter.hand_over()
        connection.close()

    counting = threading.Thread(target=count)
    counting.start()
    try:
        seen = 0
        while seen < 300:
            found = queries.figures()
            seen = found.count(HEARTBEAT_SECONDS)
            assert sum(found.histograms.get(HEARTBEAT_SECONDS, {}).values()) == seen
    finally:
        stop.set()
        counting.join()


@pytest.mark.django_db
def test_of_an_instance_all_is_told_whenever_it_is_asked() -> None:
    ages = (0, 9, 11, 59, 61, 119, 121, 2000, 60_000, 600_000, 900_000)
    for minutes in ages:
        put(timedelta(minutes=minutes), count=1, worker="7")
        put(timedelta(minutes=minutes), count=1, worker="8")
        put(timedelta(minutes=minutes), count=100, instance="other")
    now = database_now()
    for later in (timedelta(), timedelta(minutes=1), timedelta(minutes=61), timedelta(days=2)):
        found = queries.of_instance("one", now=now + later)
        assert found.sums == queries.figures(source=Source("one")).sums
        assert found.count(HEARTBEATS) == 2 * len(ages)
        list(retention.prune())


@pytest.mark.django_db
@pytest.mark.parametrize(("instance", "each"), [(None, 101), ("one", 1), ("other", 100)])
def test_a_total_is_of_all_time_whenever_it_is_asked(instance: str | None, each: int) -> None:
    ages = (0, 9, 11, 59, 61, 119, 121, 2000, 60_000, 600_000, 900_000)
    for minutes in ages:
        put(timedelta(minutes=minutes), count=1)
        put(timedelta(minutes=minutes), count=100, instance="other")
        put(timedelta(minutes=minutes), count=7, name=recorder.ERRORS)
    now = database_now()
    for later in (timedelta(), timedelta(minutes=1), timedelta(minutes=61), timedelta(days=2)):
        found = queries.total(HEARTBEATS, instance=instance, now=now + later)
        assert found == each * len(ages)
        list(retention.prune())


@pytest.mark.django_db
def test_of_a_total_what_is_settled_is_read_once_an_hour() -> None:
    now = database_now().replace(minute=30)
    hour = now.replace(minute=0, second=0, microsecond=0)
    put(timedelta(days=3), HOUR, count=1)

    def read() -> list[str]:
        with CaptureQueriesContext(connection) as found:
            queries.total(HEARTBEATS, now=now)
        return [query["sql"] for query in found]

    first, second = read(), read()
    assert len(first) == 2
    (running,) = second
    assert f"r.starts_at >= '{hour.isoformat(' ')}" in running


@pytest.mark.django_db
def test_of_an_instance_what_is_settled_is_added_up_once_an_hour() -> None:
    now = database_now().replace(minute=30)
    put(timedelta(days=3), HOUR, count=1)
    assert queries.of_instance("one", now=now).count(HEARTBEATS) == 1
    # Nothing of the service writes rows of the past; who does sees it within the hour.
    put(timedelta(days=3), HOUR, count=2, name=HEARTBEATS, worker="another")
    assert queries.of_instance("one", now=now + timedelta(minutes=39)).count(HEARTBEATS) == 1
    assert queries.of_instance("one", now=now + timedelta(minutes=40)).count(HEARTBEATS) == 3
