"""`GET /api/v1/admin/metrics`: figures of all processes, for staff."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from adminmetrics import recorder, rollup
from adminmetrics.models import MetricRollup
from adminmetrics.rollup import Reporter
from parentalcontrols.tests.cast import Cast, assert_problem, everything_stored

PATH = "/admin/metrics"


def read(cast: Cast, query: str = "") -> dict[str, object]:
    answer = cast.staff_phone.get(PATH + query)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_without_anything_counted_everything_is_zero(cast: Cast) -> None:
    found = read(cast)
    assert (found["uptime_seconds"], found["as_of"], found["since"]) == (0, None, None)
    assert set(found["heartbeat"].values()) == {0}
    assert found["config_cache"].pop("max_size") == 10_000
    assert set(found["config_cache"].values()) == {0}
    assert set(found["weekly_report"].values()) == {0}


def test_figures_of_all_processes_are_summed(cast: Cast) -> None:
    one, other = Reporter(), Reporter()
    for _ in range(90):
        recorder.heartbeats(1, 1, 0.010)
    one.hand_over()
    other._handed_over = recorder.read()
    for _ in range(10):
        recorder.heartbeats(1, 3, 0.200)
    recorder.count(recorder.CONFIG_CACHE_HITS, 30)
    recorder.count(recorder.CONFIG_CACHE_MISSES, 10)
    recorder.count(recorder.CONFIG_CACHE_INVALIDATIONS, 2)
    recorder.weekly_report(3, 0.040)
    recorder.weekly_report(2, 0.020)
    other.hand_over()
    found = read(cast)
    heartbeat = found["heartbeat"]
    assert heartbeat["total_processed"] == 100
    assert heartbeat["avg_db_ops_per_heartbeat"] == 1.2
    assert heartbeat["avg_duration_ms"] == 29
    assert heartbeat["max_duration_ms"] == 200
    assert heartbeat["p95_duration_ms"] == pytest.approx(200, rel=0.025)
    assert heartbeat["p99_duration_ms"] == pytest.approx(200, rel=0.025)
    assert found["config_cache"] == {
        "hit_rate": 0.75,
        "total_hits": 30,
        "total_misses": 10,
        "total_invalidations": 2,
        "current_size": 0,
        "max_size": 10_000,
    }
    assert found["weekly_report"]["total_generated"] == 2
    assert found["weekly_report"]["avg_db_ops"] == 2.5
    assert found["weekly_report"]["p95_duration_ms"] == pytest.approx(40, rel=0.025)
    assert found["as_of"] is not None


def test_the_process_that_answers_hands_over_first(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_reporter", Reporter())
    recorder.heartbeats(5, 1, 0.010)
    assert read(cast)["heartbeat"]["total_processed"] == 5


def test_since_leaves_out_what_was_before(cast: Cast, reporter: Reporter) -> None:
    recorder.heartbeats(5, 1, 0.010)
    reporter.hand_over()
    MetricRollup.objects.update(starts_at="2026-01-05T12:00:00Z")
    recorder.heartbeats(3, 1, 0.010)
    reporter.hand_over()
    for since, expected in (
        ("", 8),
        ("?since=2026-01-05T12:00:00Z", 8),
        ("?since=2026-01-05T13:00:00%2B01:00", 8),
        ("?since=2026-01-05T13:00:00+01:00", 8),
        ("?since=2026-01-05T12:00:01Z", 3),
        ("?since=9999-12-31T23:59:59Z", 0),
    ):
        assert read(cast, since)["heartbeat"]["total_processed"] == expected, since


@pytest.mark.parametrize(
    "since",
    [
        *("", "now", "2026-01-05", "2026-01-05T12:00:00", "1767614400", "2026-13-05T12:00:00Z"),
        *("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2026-01-05T12:00:00Z%00"),
        "x" * 3000,
    ],
)
def test_a_since_that_is_no_instant_is_refused(cast: Cast, since: str) -> None:
    document = assert_problem(cast.staff_phone.get(f"{PATH}?since={since}"), 400, "invalid")
    assert [error["field"] for error in document["errors"]] == ["since"]


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00-12:00"])
def test_the_earliest_instant_counts_everything(cast: Cast, reporter: Reporter, since: str) -> None:
    recorder.heartbeats(5, 1, 0.010)
    reporter.hand_over()
    assert read(cast, f"?since={since}")["heartbeat"]["total_processed"] == 5


def test_households_are_refused_and_nothing_is_handed_over(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_reporter", Reporter())
    recorder.heartbeats(5, 1, 0.010)
    before = everything_stored()
    assert_problem(cast.phone.get(PATH), 403, "staff_required")
    assert_problem(cast.child_tv.get(PATH), 403, "parent_required")
    assert_problem(cast.anonymous.get(PATH), 401, "not_authenticated")
    assert everything_stored() == before


def test_who_is_staff_no_more_is_refused_with_the_next_request(cast: Cast) -> None:
    read(cast)
    type(cast.staff).objects.filter(pk=cast.staff.pk).update(is_staff=False)
    assert_problem(cast.staff_phone.get(PATH), 403, "staff_required")


def test_it_takes_as_many_queries_for_a_year_as_for_a_minute(
    cast: Cast, reporter: Reporter
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            read(cast)
        return len(found)

    before = queries()
    for number in range(50):
        MetricRollup.objects.create(
            resolution=60, starts_at=f"2026-01-05T12:{number:02}:00Z", name="heartbeats", count=1
        )
    assert queries() == before <= 4
