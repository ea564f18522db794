"""`/metrics`: what this instance counted, for those who may know."""

import re

import pytest
from django.http import HttpResponse
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from adminmetrics import recorder
from adminmetrics.rollup import Reporter
from parentalcontrols.tests.cast import Cast, assert_problem

TOKEN = "a-token-of-more-than-thirty-two-characters"


def ask(**headers: str) -> HttpResponse:
    return Client(raise_request_exception=False).get("/metrics", **headers)


def scrape() -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels."""
    answer = ask()
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


@pytest.fixture
def counted(reporter: Reporter, settings: object) -> None:
    """Ten beats of this instance, and five of another one."""
    settings.INSTANCE_NAME = "one:8000"
    for _ in range(9):
        recorder.heartbeats(1, 1, 0.0005)
    recorder.heartbeats(1, 2, 3.0)
    recorder.verdict("blocked")
    recorder.refusal(403, "incorrect_pin")
    recorder.gauge(recorder.HASHING_QUEUE, 4)
    reporter.hand_over()
    settings.INSTANCE_NAME = "other:8000"
    recorder.heartbeats(5, 1, 0.001)
    Reporter().hand_over()
    settings.INSTANCE_NAME = "one:8000"


def test_it_tells_what_this_instance_counted(counted: None) -> None:
    found = scrape()
    assert found["viewingtime_heartbeats_total"] == {(): 10}
    assert found["viewingtime_heartbeat_round_trips_total"] == {(): 11}
    assert found["viewingtime_heartbeat_verdicts_total"][("verdict", "blocked"),] == 1
    assert found["viewingtime_refusals_total"][("code", "incorrect_pin"),] == 1
    assert found["viewingtime_hashing_queue"] == {(): 4}
    assert found["viewingtime_workers"] == {(): 1}


def test_the_histogram_is_cumulative_and_ends_with_all(counted: None) -> None:
    found = scrape()
    name = "viewingtime_heartbeat_duration_seconds"
    buckets = {float(labels[0][1]): n for labels, n in found[f"{name}_bucket"].items()}
    counts = [n for _, n in sorted(buckets.items())]
    assert counts == sorted(counts)
    assert buckets[0.001] == 9
    assert buckets[0.0001] == 0
    assert buckets[1.0] == 9
    assert buckets[float("inf")] == found[f"{name}_count"][()] == 10
    assert found[f"{name}_sum"][()] == pytest.approx(3.0045)


def test_names_keep_the_conventions(db: None) -> None:
    text = ask().content.decode()
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert len(families) > 15
    for name, kind in families:
        assert re.fullmatch(r"viewingtime_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert f"# HELP {name} " in text
        if kind == "histogram":
            assert name.endswith("_seconds"), name


def test_nothing_counted_is_told_as_zero(db: None) -> None:
    found = scrape()
    assert found["viewingtime_heartbeats_total"] == {(): 0}
    assert found["viewingtime_heartbeat_verdicts_total"].keys() == {
        (("verdict", kind),) for kind in recorder.VERDICTS
    }


# Who may ask


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_who_asks_from_this_host_is_answered(db: None, address: str) -> None:
    assert ask(REMOTE_ADDR=address).status_code == 200


@pytest.mark.parametrize("address", ["10.0.0.5", "2001:db8::1", "", "localhost", "127.0.0.1:80"])
def test_who_asks_from_elsewhere_is_refused(db: None, address: str) -> None:
    assert_problem(ask(REMOTE_ADDR=address), 403, "forbidden")


@pytest.mark.parametrize(
    "header",
    [
        "HTTP_X_FORWARDED_FOR",
        "HTTP_FORWARDED",
        "HTTP_X_REAL_IP",
        "HTTP_VIA",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_HOST",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "", "for=127.0.0.1"])
def test_a_proxy_on_this_host_speaks_for_others(db: None, header: str, value: str) -> None:
    assert_problem(ask(REMOTE_ADDR="127.0.0.1", **{header: value}), 403, "forbidden")


def test_with_a_token_it_is_answered_from_anywhere(db: None, settings: object) -> None:
    settings.METRICS_ACCESS, settings.METRICS_TOKEN = "token", TOKEN
    answer = ask(REMOTE_ADDR="10.0.0.5", HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"]
)
def test_without_the_token_it_is_refused_on_this_host_too(
    db: None, settings: object, sent: str | None
) -> None:
    settings.METRICS_ACCESS, settings.METRICS_TOKEN = "token", TOKEN
    headers = {} if sent is None else {"HTTP_AUTHORIZATION": sent}
    answer = ask(REMOTE_ADDR="127.0.0.1", **headers)
    assert_problem(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_of_the_api_does_not_open_it(cast: Cast, settings: object) -> None:
    settings.METRICS_ACCESS, settings.METRICS_TOKEN = "token", TOKEN
    assert_problem(ask(HTTP_AUTHORIZATION=f"Bearer {cast.staff_phone.token}"), 401)


def test_switched_off_it_is_not_there(db: None, settings: object) -> None:
    settings.METRICS_ACCESS = "off"
    assert_problem(ask(REMOTE_ADDR="127.0.0.1"), 404, "not_found")


def test_it_is_asked_with_get_or_head_alone(db: None) -> None:
    client = Client(raise_request_exception=False)
    assert client.head("/metrics").status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert_problem(client.generic(method, "/metrics"), 405, "method_not_allowed")
