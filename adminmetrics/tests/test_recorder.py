"""Recording: nothing is lost among threads, and nothing breaks a request."""

import logging
import sys
import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from adminmetrics import histograms, recorder
from adminmetrics.recorder import HEARTBEATS, UNRECORDED


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_a_request_with_heartbeats_counts_each_of_them() -> None:
    recorder.heartbeats(500, 1, 0.020)
    recorder.heartbeats(1, 2, 0.005)
    found = recorder.read()
    assert found.counters[HEARTBEATS] == 501
    assert found.counters[recorder.HEARTBEAT_REQUESTS] == 2
    assert found.counters[recorder.HEARTBEAT_ROUND_TRIPS] == 3
    buckets = found.buckets[recorder.HEARTBEAT_SECONDS]
    assert buckets[histograms.bucket_of(0.020)] == 500
    assert buckets[histograms.bucket_of(0.005)] == 1
    assert sum(buckets) == 501
    assert found.microseconds[recorder.HEARTBEAT_SECONDS] == 500 * 20_000 + 5_000


def test_of_many_threads_no_count_is_lost(restless: None) -> None:
    start = threading.Barrier(8)

    def beat() -> None:
        start.wait()
        for _ in range(5_000):
            recorder.heartbeats(1, 1, 0.001)
            recorder.count(recorder.CONFIG_CACHE_HITS)
            recorder.observe(recorder.HASH_WAIT_SECONDS, 0.5)

    threads = [threading.Thread(target=beat) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = recorder.read()
    assert found.counters[HEARTBEATS] == 40_000
    assert found.counters[recorder.HEARTBEAT_ROUND_TRIPS] == 40_000
    assert found.counters[recorder.CONFIG_CACHE_HITS] == 40_000
    assert sum(found.buckets[recorder.HEARTBEAT_SECONDS]) == 40_000
    assert found.microseconds[recorder.HEARTBEAT_SECONDS] == 40_000_000
    assert found.microseconds[recorder.HASH_WAIT_SECONDS] == 20_000_000_000


def test_what_was_read_grows_no_more() -> None:
    before = recorder.read()
    recorder.heartbeats(1, 1, 0.001)
    assert before.counters[HEARTBEATS] == 0
    assert sum(before.buckets[recorder.HEARTBEAT_SECONDS]) == 0


@pytest.mark.parametrize("name", ["", "no_such", None, 5, ["x"], recorder.HEARTBEAT_SECONDS])
def test_an_unknown_name_is_counted_as_such_and_raises_nothing(name: object) -> None:
    recorder.count(name)  # type: ignore[arg-type]
    assert recorder.read().counters[UNRECORDED] == 1


def test_nothing_that_is_recorded_raises() -> None:
    recorder.heartbeats("x", None, "y")  # type: ignore[arg-type]
    recorder.count(HEARTBEATS, "x")  # type: ignore[arg-type]
    recorder.observe("x", 1.0)
    recorder.observe(recorder.HASH_WAIT_SECONDS, None)  # type: ignore[arg-type]
    recorder.gauge("x", 1)
    assert recorder.read().counters[UNRECORDED] == 5
    for seconds in (float("nan"), float("inf"), -1.0, 1e300):
        recorder.observe(recorder.HASH_WAIT_SECONDS, seconds)
    found = recorder.read()
    assert found.buckets[recorder.HASH_WAIT_SECONDS][0] == 4
    assert found.microseconds[recorder.HASH_WAIT_SECONDS] == 0


def test_a_refusal_is_counted_by_its_code_and_a_fault_as_an_error() -> None:
    recorder.refusal(403, "incorrect_pin")
    recorder.refusal(418, "a_code_of_tomorrow")
    recorder.refusal(500, "internal_error")
    counters = recorder.read().counters
    assert counters["refused_incorrect_pin"] == 1
    assert counters["refused_other"] == 1
    assert counters[recorder.ERRORS] == 1
    assert counters[UNRECORDED] == 0


def test_switched_off_it_counts_nothing() -> None:
    recorder.reset(is_on=False)
    recorder.heartbeats(1, 1, 0.001)
    recorder.count(HEARTBEATS)
    recorder.observe(recorder.HASH_WAIT_SECONDS, 0.1)
    recorder.gauge(recorder.HASHING_QUEUE, 5)
    recorder.weekly_report(3, 0.1)
    found = recorder.read()
    assert not any(found.counters.values())
    assert not any(any(buckets) for buckets in found.buckets.values())
    assert not any(found.gauges.values())


def test_the_longest_is_told_once() -> None:
    recorder.observe(recorder.WEEKLY_REPORT_SECONDS, 0.5)
    recorder.observe(recorder.WEEKLY_REPORT_SECONDS, 0.25)
    assert dict(recorder.take_longest())[recorder.WEEKLY_REPORT_SECONDS] == 500_000
    assert dict(recorder.take_longest())[recorder.WEEKLY_REPORT_SECONDS] == 0


# The event in the logs


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.profile_id for r in caplog.records if r.message == "heartbeat_processed"]


def log_requests(
    caplog: pytest.LogCaptureFixture, settings: object, sample: int, *sizes: int
) -> tuple[list[str], list[UUID]]:
    """What is logged of requests with so many beats each, and whose beats there were."""
    settings.HEARTBEAT_LOG_SAMPLE = sample
    recorder.reset(is_on=True)
    caplog.set_level(logging.INFO)
    everybody = []
    for size in sizes:
        ids = [uuid4() for _ in range(size)]
        everybody += ids
        recorder.log_heartbeats(ids, 1, 0.0012345)
    return logged(caplog), everybody


@pytest.mark.parametrize("sizes", [(1,) * 25, (25,), (3, 7, 5, 1, 9), (10, 10, 5), (0, 25, 0)])
@pytest.mark.parametrize("sample", [1, 2, 7, 10, 25])
def test_of_so_many_beats_one_is_logged_whatever_the_batches(
    caplog: pytest.LogCaptureFixture, settings: object, sample: int, sizes: tuple[int, ...]
) -> None:
    found, everybody = log_requests(caplog, settings, sample, *sizes)
    assert found == [str(profile_id) for profile_id in everybody[::sample]]


def test_none_is_logged_where_none_is_wanted(
    caplog: pytest.LogCaptureFixture, settings: object
) -> None:
    assert log_requests(caplog, settings, 0, 1, 50)[0] == []


def test_the_line_tells_profile_round_trips_and_duration(
    caplog: pytest.LogCaptureFixture, settings: object
) -> None:
    log_requests(caplog, settings, 1, 1)
    (record,) = [r for r in caplog.records if r.message == "heartbeat_processed"]
    assert (record.db_ops, record.duration_ms) == (1, 1.234)
