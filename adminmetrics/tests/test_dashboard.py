"""What the pages of metrics tell: exact figures, and their course step by step."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from adminmetrics import dashboard, histograms, recorder, retention, rollup
from adminmetrics.models import MetricProcess, MetricRollup
from adminmetrics.rollup import Reporter
from parentalcontrols import environment
from parentalcontrols.tests.cast import Cast, database_now, make_account

METRICS = "/admin/adminmetrics/metricrollup/"
DATA = METRICS + "data/"


@pytest.fixture
def browser(cast: Cast) -> Client:
    """A superuser's, signed in."""
    client = Client()
    client.force_login(make_account("root@example.com", is_staff=True, is_superuser=True))
    return client


def ask(browser: Client, **query: str) -> dict[str, object]:
    answer = browser.get(DATA, query)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    return answer.json()


def tiles(data: dict[str, object]) -> dict[str, str]:
    return {tile["key"]: tile["text"] for tile in data["tiles"]}


def put(minutes_ago: int, name: str = recorder.HEARTBEATS, **fields: object) -> None:
    starts_at = database_now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
    values = {"resolution": 60, "instance": "one", "worker": "7", "count": 1} | fields
    MetricRollup.objects.create(starts_at=starts_at, name=name, **values)


def test_what_this_process_counted_is_told_at_once(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_reporter", Reporter())
    for _ in range(1234):
        recorder.heartbeats(1, 1, 0.004)
    found = tiles(ask(browser))
    assert (found["total"], found["in_range"], found["trips"]) == ("1,234", "1,234", "1.00")
    assert found["p95"] in {"3.9 ms", "4.0 ms", "4.1 ms"}


def test_a_figure_of_nothing_is_none_and_not_nought(browser: Client) -> None:
    found = tiles(ask(browser))
    assert {found[key] for key in ("p95", "trips", "hit_rate")} == {"none"}
    put(3, recorder.CONFIG_CACHE_MISSES, count=4)
    assert tiles(ask(browser))["hit_rate"] == "0%"


@pytest.mark.django_db(transaction=True)
def test_while_roll_ups_cannot_be_written_the_page_tells_the_figures_from_before(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_reporter", Reporter())
    recorder.heartbeats(5, 1, 0.004)
    assert tiles(ask(browser))["total"] == "5"
    with connection.cursor() as cursor:
        cursor.execute("REVOKE INSERT, UPDATE ON metric_rollups FROM CURRENT_USER")
    try:
        recorder.heartbeats(7, 1, 0.004)
        assert tiles(ask(browser))["total"] == "5"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("GRANT INSERT, UPDATE ON metric_rollups TO CURRENT_USER")
    assert tiles(ask(browser))["total"] == "12"


def test_the_total_is_of_all_time_and_the_rest_of_the_range(browser: Client) -> None:
    put(3, count=5)
    put(50, count=7)
    put(60 * 24 * 20, count=100, resolution=86400)
    for key, expected in (("15m", "5"), ("1h", "12"), ("24h", "12"), ("30d", "112")):
        found = tiles(ask(browser, range=key))
        assert (found["total"], found["in_range"]) == ("112", expected), key


def test_a_course_has_a_value_for_each_step_and_null_where_there_is_none(browser: Client) -> None:
    bucket = histograms.bucket_of(0.020)
    put(5, count=120)
    put(5, recorder.HEARTBEAT_SECONDS, count=120, most=20_000, buckets=[bucket], counts=[120])
    put(5, recorder.HEARTBEAT_ROUND_TRIPS, count=180)
    data = ask(browser, range="15m")
    times = data["times"]
    assert len(times) == 15
    assert times == list(range(times[0], times[0] + 15 * 60, 60))
    index = times.index(MetricRollup.objects.first().starts_at.timestamp())
    lines = data["lines"]
    assert lines["beats"][index] == 2
    assert lines["trips"][index] == 1.5
    assert lines["p50"][index] == pytest.approx(20, rel=0.025)
    assert [n for i, n in enumerate(lines["p99"]) if i != index] == [None] * 14
    assert [n for i, n in enumerate(lines["beats"]) if i != index] == [0] * 14
    ((step, row, count),) = data["heat"]
    assert (step, count) == (index, 120)
    assert dashboard.HEAT_EDGES[row - 1] < 20 <= dashboard.HEAT_EDGES[row]


def test_every_duration_has_its_row_in_the_heat_map(browser: Client) -> None:
    every = list(range(histograms.SIZE))
    counts = [1] * len(every)
    put(5, recorder.HEARTBEAT_SECONDS, count=len(every), buckets=every, counts=counts)
    heat = ask(browser, range="15m")["heat"]
    assert sum(count for _, _, count in heat) == len(every)
    assert {row for _, row, _ in heat} == set(range(len(dashboard.HEAT_EDGES) + 1))


@pytest.mark.parametrize("key", dashboard.RANGES)
def test_every_range_ends_now_and_has_few_enough_steps_to_draw(browser: Client, key: str) -> None:
    wanted = dashboard.RANGES[key]
    before = database_now().timestamp()
    data = ask(browser, range=key)
    assert before - wanted.step <= data["times"][-1] <= database_now().timestamp()
    assert len(data["times"]) == wanted.seconds // wanted.step <= 200


def test_hours_are_kept_apart_for_as_long_as_the_longest_range_looks_back() -> None:
    longest = max(dashboard.RANGES.values(), key=lambda found: found.seconds)
    assert longest.step < 86400
    assert environment.read["METRICS_HOUR_DAYS"].least * 86400 >= longest.seconds


def test_what_another_process_counted_is_seen_within_five_seconds(settings: object) -> None:
    assert settings.METRICS_FLUSH_SECONDS + dashboard.DEFAULT_RANGE.poll < 5


def test_it_can_be_narrowed(browser: Client) -> None:
    put(5, count=1, instance="one", worker="7")
    put(5, count=2, instance="one", worker="8")
    put(5, count=4, instance="other", worker="7")
    for source, expected in (("", "7"), ("one", "3"), ("one 8", "2"), ("other 8", "0")):
        assert tiles(ask(browser, source=source))["in_range"] == expected, source
    assert [tiles(ask(browser, source=source))["total"] for source in ("", "one")] == ["7", "3"]


def offered(page: str) -> list[str]:
    return re.findall(r'<a href="\?range=(\w+)', page)


@pytest.mark.parametrize(
    ("days", "longest", "label"),
    [(1, "24h", "24 hours"), (6, "24h", "24 hours"), (7, "7d", "7 days")],
)
def test_of_a_worker_no_range_is_told_in_which_its_figures_are_folded(
    browser: Client, settings: object, days: int, longest: str, label: str
) -> None:
    settings.METRICS_MINUTE_DAYS = days
    put(60 * 24 * days - 65, count=3)
    put(60 * 24 * days + 65, count=100)
    list(retention.prune())
    page = browser.get(METRICS, {"range": "30d", "source": "one 7"}).content.decode()
    every = list(dashboard.RANGES)
    assert offered(page) == every[: every.index(longest) + 1]
    assert f"these are the last {label}, not 30 days." in page
    assert f'<input type="hidden" name="range" value="{longest}">' in page
    data = ask(browser, range="30d", source="one 7")
    assert data["range"] == longest
    if dashboard.RANGES[longest].seconds == days * 86400:
        assert tiles(data)["in_range"] == "3"


@pytest.mark.parametrize("source", ["", "one"])
def test_of_an_instance_every_range_is_told(browser: Client, source: str) -> None:
    page = browser.get(METRICS, {"range": "30d", "source": source}).content.decode()
    assert offered(page) == list(dashboard.RANGES)
    assert "not 30 days" not in page


def test_what_a_worker_counted_ever_is_not_told(browser: Client) -> None:
    """It would shrink with each run of `prune_metrics`."""
    put(5, count=1)
    found = tiles(ask(browser, source="one 7"))
    assert "total" not in found
    assert found["in_range"] == "1"


def hear_of(instance: str, worker: str, **ago: float) -> None:
    seen_at = database_now() - timedelta(**ago)
    MetricProcess.objects.create(id=uuid4(), instance=instance, worker=worker, seen_at=seen_at)


def options(page: str) -> list[tuple[str, bool, str]]:
    """What the figures can be narrowed to: value, whether it is chosen, words."""
    found = re.findall(r'<option value="([^"]*)"( selected)?>([^<]*)</option>', page)
    return [(value, bool(selected), words) for value, selected, words in found]


def test_whose_figures_are_shown_is_what_is_chosen(browser: Client) -> None:
    hear_of("one", "7", minutes=5)
    hear_of("one", "8", hours=20)
    unheard = " (not heard of in this range)"
    for source, value, words in (
        ("one", "one", "one, all workers"),
        ("one 7", "one 7", "one, worker 7"),
        ("one 8", "one 8", f"one, worker 8{unheard}"),
        ("other", "other", f"other, all workers{unheard}"),
        (" other 7\0 ", "other 7", f"other, worker 7{unheard}"),
    ):
        page = browser.get(METRICS, {"source": source}).content.decode()
        assert [told for told in options(page) if told[1]] == [(value, True, words)], source
    page = browser.get(METRICS, {"range": "24h", "source": "one 8"}).content.decode()
    assert ("one 8", True, "one, worker 8") in options(page)
    assert unheard not in page


def test_a_chart_without_figures_says_whose_they_would_be(browser: Client) -> None:
    put(5)
    page = browser.get(METRICS, {"source": "other 7"}).content.decode()
    said = re.findall(r"data-empty>([^<]*)<", page)
    assert said == [f"{c.empty} Shown is other, worker 7 alone." for c in dashboard.CHARTS]
    page = browser.get(METRICS).content.decode()
    assert re.findall(r"data-empty>([^<]*)<", page) == [c.empty for c in dashboard.CHARTS]


def test_an_instance_that_is_gone_is_chosen_for_as_long_as_the_range_has_its_figures(
    browser: Client,
) -> None:
    hear_of("one", "7", minutes=5)
    for days, instance in ((5, "retired"), (20, "long-retired")):
        hear_of(instance, "7", days=days)
        put(60 * 24 * days, instance=instance)
    list(retention.prune())
    assert MetricProcess.objects.count() == 1
    for key, expected in (
        ("24h", ["one"]),
        ("7d", ["one", "retired"]),
        ("30d", ["long-retired", "one", "retired"]),
    ):
        page = browser.get(METRICS, {"range": key}).content.decode()
        found = [value for value, _, words in options(page) if words.endswith(", all workers")]
        assert found == expected, key
    data = ask(browser, range="7d", source="retired")
    assert tiles(data)["in_range"] == "1"


def test_of_very_many_workers_the_one_that_is_asked_for_and_every_instance_are_offered(
    browser: Client,
) -> None:
    hear_of("other", "7", minutes=50)
    hear_of("other", "8", minutes=50)
    for worker in range(250):
        hear_of("one", str(worker), minutes=5)
    page = browser.get(METRICS, {"source": "other 7"}).content.decode()
    values = [value for value, _, _ in options(page)]
    assert len(values) == 1 + 2 + 200
    assert {"one", "other", "other 7"} <= set(values)
    assert "other 8" not in values


@pytest.mark.parametrize(
    "query",
    [
        {"range": "1y"},
        {"range": "\0"},
        {"source": "\0"},
        {"source": "' OR 1=1 --"},
        {"source": "x" * 5000},
        {"source": "<script>alert(1)</script>"},
    ],
    ids=repr,
)
def test_an_address_that_asks_for_nonsense_gets_a_page(
    browser: Client, query: dict[str, str]
) -> None:
    assert browser.get(DATA, query).status_code == 200
    page = browser.get(METRICS, query)
    assert page.status_code == 200
    assert b"<script>alert" not in page.content


def test_the_page_tells_its_figures_without_a_script(browser: Client) -> None:
    put(5, count=4321)
    page = browser.get(METRICS).content.decode()
    assert "<dd>4,321</dd>" in page
    assert " style=" not in page
    assert "<dd>4,321</dd>" in browser.get("/admin/").content.decode()


def test_it_takes_as_many_queries_for_a_month_as_for_a_quarter_of_an_hour(
    browser: Client,
) -> None:
    def queries(key: str) -> int:
        with CaptureQueriesContext(connection) as found:
            ask(browser, range=key)
        return len(found)

    # What is settled is added up by whoever asks first.
    ask(browser)
    first = queries("15m")
    for number in range(100):
        put(number * 7)
    assert queries("30d") == queries("15m") == first


def test_workers_are_listed_with_what_they_counted_up_to(browser: Client) -> None:
    MetricProcess.objects.create(id="0" * 32, instance="tv-1:8000", worker="4101")
    page = browser.get("/admin/adminmetrics/metricprocess/").content.decode()
    assert "tv-1:8000" in page
    assert "4101" in page


def test_who_is_not_signed_in_is_sent_to_the_log_in(cast: Cast) -> None:
    for path in (METRICS, DATA):
        answer = Client().get(path)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/admin/login/")
