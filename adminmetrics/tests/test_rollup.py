"""Handing over: everything arrives, once, whatever becomes of the answer."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from adminmetrics import histograms, queries, recorder, rollup, sql
from adminmetrics.models import MetricProcess, MetricRollup
from adminmetrics.queries import Source
from adminmetrics.recorder import HEARTBEAT_SECONDS, HEARTBEATS
from adminmetrics.rollup import Reporter
from parentalcontrols.processes import wait_until

LONG = 30.0
#: Not as short as can be: the longest is known to a microsecond.
durations = st.floats(1e-4, histograms.LONGEST)


def count_of(name: str = HEARTBEATS) -> int:
    return queries.figures().count(name)


def minutes_pass(minutes: int) -> None:
    """Moves everything that was handed over into the past."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE metric_rollups SET starts_at = starts_at - make_interval(mins => %s)", [minutes]
        )


# Adding


def test_what_was_counted_is_in_the_roll_ups_of_the_minute(reporter: Reporter) -> None:
    recorder.heartbeats(3, 1, 0.010)
    reporter.hand_over()
    row = MetricRollup.objects.get(name=HEARTBEAT_SECONDS)
    assert (row.resolution, row.starts_at.second, row.worker) == (60, 0, reporter.worker)
    assert (row.count, row.total, row.most) == (3, 30_000, 10_000)
    assert row.counts == [3]
    assert MetricRollup.objects.get(name=HEARTBEATS).count == 3


def test_hand_overs_add_up_and_histograms_merge(reporter: Reporter) -> None:
    durations = [0.001, 0.002, 0.004, 0.004, 0.500, 0.0000001, 3600.0]
    for seconds in durations:
        recorder.observe(recorder.HASH_WAIT_SECONDS, seconds)
        reporter.hand_over()
    (row,) = merged_rows(recorder.HASH_WAIT_SECONDS)
    assert row.count == sum(row.counts) == len(durations)
    assert row.buckets == sorted(row.buckets)
    assert row.most == 3_600_000_000
    assert row.total == sum(round(seconds * 1e6) for seconds in durations)


def merged_rows(name: str) -> list[MetricRollup]:
    """The rows of a name; of one minute, or of two where the test ran over its end."""
    rows = list(MetricRollup.objects.filter(name=name).order_by("starts_at"))
    while len(rows) > 1:
        # The turn of a minute: put into one what the statement put into two.
        MetricRollup.objects.filter(name=name).delete()
        last, first = rows.pop(), rows[0]
        by_bucket = dict(zip(first.buckets, first.counts, strict=True))
        for bucket, n in zip(last.buckets, last.counts, strict=True):
            by_bucket[bucket] = by_bucket.get(bucket, 0) + n
        first.buckets, first.counts = sorted(by_bucket), [by_bucket[b] for b in sorted(by_bucket)]
        first.count, first.total = first.count + last.count, first.total + last.total
        first.most = max(first.most, last.most)
    return rows


def test_nothing_new_writes_no_row_but_a_sign_of_life(reporter: Reporter) -> None:
    reporter.hand_over()
    reporter.hand_over()
    assert not MetricRollup.objects.exists()
    process = MetricProcess.objects.get()
    assert (process.sequence, process.seen_at > process.started_at) == (2, True)


def test_a_gauge_is_summed_over_the_workers_that_are_alive(db: None) -> None:
    one, other, gone = Reporter(), Reporter(), Reporter()
    recorder.gauge(recorder.HASHING_QUEUE, 5)
    one.hand_over()
    gone.hand_over(is_last=True)
    recorder.gauge(recorder.HASHING_QUEUE, 2)
    other.hand_over()
    assert queries.service().gauges[recorder.HASHING_QUEUE] == 7


def test_figures_can_be_narrowed_to_a_host_and_a_worker(
    reporter: Reporter, settings: object
) -> None:
    settings.INSTANCE_NAME = "one:8000"
    recorder.heartbeats(3, 1, 0.010)
    reporter.hand_over()
    settings.INSTANCE_NAME = "other:8000"
    reporter.worker = "77"
    recorder.heartbeats(4, 1, 0.010)
    reporter.hand_over()
    asked = [None, Source("one:8000"), Source("other:8000"), Source("other:8000", "77")]
    counted = [queries.figures(source=source).count(HEARTBEATS) for source in asked]
    assert counted == [7, 3, 4, 4]
    assert queries.figures(source=Source("one:8000", "77")).count(HEARTBEATS) == 0


def test_sums_are_by_step_of_time(reporter: Reporter) -> None:
    recorder.heartbeats(3, 1, 0.010)
    reporter.hand_over()
    minutes_pass(120)
    recorder.heartbeats(4, 1, 0.020)
    reporter.hand_over()
    (first, last) = MetricRollup.objects.filter(name=HEARTBEATS).order_by("starts_at")
    steps = queries.series(since=first.starts_at, step=60, names=[HEARTBEAT_SECONDS])
    assert {step: found.count(HEARTBEATS) for step, found in steps.items()} == {
        int(first.starts_at.timestamp()): 3,
        int(last.starts_at.timestamp()): 4,
    }
    assert queries.figures(since=last.starts_at).count(HEARTBEATS) == 4
    assert steps[int(last.starts_at.timestamp())].quantile_ms(
        HEARTBEAT_SECONDS, 0.95
    ) == pytest.approx(20, rel=0.025)


@property_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(durations, max_size=20), min_size=1, max_size=6).filter(any))
def test_quantiles_of_what_processes_handed_over_are_those_of_all_durations(
    db: None, parts: list[list[float]]
) -> None:
    """Each part is a process, which hands over after every few of its durations."""
    MetricRollup.objects.all().delete()
    for part in parts:
        recorder.reset(is_on=True)
        process = Reporter()
        for number, seconds in enumerate(part):
            recorder.heartbeats(1, 1, seconds)
            if number % 4 == 0:
                process.hand_over()
        process.hand_over(is_last=True)
    true = sorted(seconds for part in parts for seconds in part)
    found = queries.figures()
    assert found.count(HEARTBEATS) == len(true)
    assert found.longest_ms(HEARTBEAT_SECONDS) == pytest.approx(true[-1] * 1000, abs=0.001)
    for share in (0.5, 0.95, 0.99):
        rank = math.ceil(share * len(true) - 1e-9)
        told = found.quantile_ms(HEARTBEAT_SECONDS, share)
        assert told == pytest.approx(true[rank - 1] * 1000, rel=0.025)


# Once


class Line:
    """The way to the database: what is sent is lost on it (`before`), or its answer (`after`)."""

    def __init__(self) -> None:
        self.trouble: str | None = None

    def __call__(
        self, execute: Callable[..., Any], statement: str, parameters: Any, *rest: Any
    ) -> Any:
        trouble = self.trouble if statement == sql.HAND_OVER else None
        if trouble == "before":
            raise OperationalError("the line is dead")
        found = execute(statement, parameters, *rest)
        if trouble == "after":
            raise OperationalError("the answer is lost")
        return found


@pytest.fixture
def line(db: None) -> Iterator[Line]:
    line = Line()
    with connection.execute_wrapper(line):
        yield line


@pytest.mark.parametrize("trouble", ["before", "after"])
def test_a_hand_over_whose_answer_was_lost_is_sent_again_and_added_once(
    reporter: Reporter, line: Line, trouble: str
) -> None:
    recorder.heartbeats(3, 1, 0.010)
    for _ in range(3):
        line.trouble = trouble
        with pytest.raises(OperationalError):
            reporter.hand_over()
        recorder.heartbeats(2, 1, 0.100)
    line.trouble = None
    reporter.hand_over()
    assert count_of() == 9
    found = queries.figures()
    assert sum(found.histograms[HEARTBEAT_SECONDS].values()) == 9
    assert found.sum_of(HEARTBEAT_SECONDS).most == 100_000


def test_a_number_that_was_taken_is_taken_no_more(reporter: Reporter, db: None) -> None:
    recorder.heartbeats(3, 1, 0.010)
    parcel = reporter._pack()
    for _ in range(3):
        reporter._send(parcel, is_last=False)
    assert count_of() == 3


# The thread


@pytest.fixture
def running(transactional_db: None, settings: object) -> Iterator[None]:
    settings.METRICS_ENABLED = True
    settings.METRICS_FLUSH_SECONDS = 0.05
    rollup.start()
    yield
    rollup.stop()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object]) -> None:
        assert wait_until(lambda: bool(condition()), LONG)

    return wait


def test_the_thread_hands_over_by_itself(running: None, eventually: Callable) -> None:
    recorder.heartbeats(3, 1, 0.010)
    eventually(lambda: count_of() == 3)
    recorder.heartbeats(4, 1, 0.010)
    eventually(lambda: count_of() == 7)


def test_the_end_of_the_process_hands_over_the_rest(running: None, settings: object) -> None:
    settings.METRICS_FLUSH_SECONDS = 3600
    recorder.heartbeats(3, 1, 0.010)
    rollup.stop()
    assert count_of() == 3
    assert MetricProcess.objects.get().ended_at is not None


def test_while_the_database_refuses_it_is_said_once_and_nothing_is_lost(
    transactional_db: None, reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE metric_rollups RENAME TO metric_rollups_away")
    try:
        for _ in range(3):
            recorder.heartbeats(3, 1, 0.010)
            reporter._try()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE metric_rollups_away RENAME TO metric_rollups")
    reporter._try()
    assert count_of() == 9
    told = [r.message for r in caplog.records if r.name == "adminmetrics.rollup"]
    assert told == ["metrics_not_handed_over", "metrics_handed_over_again"]


def test_a_request_waits_for_a_hand_over_that_hangs_no_longer_than_a_second(
    reporter: Reporter,
) -> None:
    with reporter._one_at_a_time:
        done = []
        thread = threading.Thread(target=lambda: done.append(reporter.hand_over_for_request()))
        thread.start()
        thread.join(LONG)
        assert done == [False]


def test_switched_off_nothing_is_started(db: None, settings: object) -> None:
    settings.METRICS_ENABLED = False
    rollup.start()
    assert rollup._reporter is None
    rollup.hand_over_now()
    rollup.stop()


# How long the service has been up


def up_for(reporter: Reporter) -> float:
    reporter.hand_over()
    return queries.service().uptime_seconds


def everything_ages(seconds: int, *, and_is_seen: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE metric_processes SET
                started_at = started_at - make_interval(secs => %(s)s),
                up_since = up_since - make_interval(secs => %(s)s),
                seen_at = seen_at - make_interval(secs => CASE WHEN %(seen)s THEN 0 ELSE %(s)s END)
            """,
            {"s": seconds, "seen": and_is_seen},
        )


def test_without_a_process_nothing_is_up(db: None) -> None:
    found = queries.service()
    assert (found.uptime_seconds, found.workers, found.as_of) == (0, 0, None)


def test_uptime_survives_a_rolling_restart(reporter: Reporter) -> None:
    assert up_for(reporter) < 10
    everything_ages(5000, and_is_seen=True)
    other = Reporter()
    assert up_for(other) > 5000
    reporter.hand_over(is_last=True)
    assert up_for(other) > 5000
    assert queries.service().workers == 1


@pytest.mark.parametrize("killed", [True, False])
def test_uptime_starts_anew_after_an_outage(reporter: Reporter, killed: bool) -> None:
    reporter.hand_over(is_last=not killed)
    everything_ages(5000, and_is_seen=not killed)
    assert up_for(Reporter()) < 100


def test_a_worker_that_replaces_the_only_one_keeps_the_servers_uptime(reporter: Reporter) -> None:
    reporter.hand_over(is_last=True)
    replaced = Reporter(service_started=time.monotonic() - 5000)
    assert up_for(replaced) > 4999
