"""Figures of every worker of every instance, with real processes."""

import json
import math
import re
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from tempfile import TemporaryFile
from threading import Event
from typing import IO, Any
from uuid import uuid4

import psycopg
import pytest
import requests

from adminmetrics.recorder import HEARTBEAT_EVENT
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API
from pins.tests.service import LONG, Service, database, gunicorn

APPLICATION = "adminmetrics.tests.beating:application"
BEATS, A_REQUEST = 10_000, 50
#: Of the beats whose durations are compared one by one.
PLAYERS, BEATS_EACH = 16, 150


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture
def staff(database_url: str) -> Iterator[psycopg.Connection]:
    """Whoever registers becomes staff by this."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE metric_rollups, metric_processes")
        yield connection


def serving(
    database_url: str, name: str, stderr: IO[bytes] | None = None, **more: str
) -> AbstractContextManager[Service]:
    return gunicorn(
        database_url,
        application=APPLICATION,
        stderr=stderr,
        INSTANCE_NAME=name,
        WORKERS="2",
        # Every town registers the same people.
        RATELIMIT_ENABLED="false",
        **more,
    )


def staff_token(service: Service, staff: psycopg.Connection) -> str:
    credentials = {"email": "staff@example.com", "password": "watch-together-7"}
    answer = service.post("/auth/register", credentials)
    if answer.status_code == 400:
        answer = service.post("/auth/login", credentials)
    staff.execute("UPDATE accounts SET is_staff = true WHERE email = 'staff@example.com'")
    return str(answer.json()["access_token"])


def count(service: Service, n: int) -> str:
    """Lets the service count; the worker that did."""
    answer = requests.get(
        f"{service.url}/count?n={n}", headers={"Connection": "close"}, timeout=LONG
    )
    assert answer.status_code == 200
    return answer.text


def metrics(service: Service, token: str) -> dict[str, Any]:
    answer = requests.get(
        f"{service.url}{API}/admin/metrics",
        headers={"Authorization": f"Bearer {token}", "Connection": "close"},
        timeout=LONG,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def total(service: Service, token: str) -> int:
    return int(metrics(service, token)["heartbeat"]["total_processed"])


def scraped(service: Service, name: str = "viewingtime_heartbeats_total") -> int:
    headers = {"Connection": "close"}
    text = requests.get(f"{service.url}/metrics", headers=headers, timeout=LONG).text
    found = re.search(rf"^{re.escape(name)} ([0-9.]+)$", text, re.M)
    assert found, text
    return int(float(found[1]))


def children_of(service: Service, staff: psycopg.Connection) -> tuple[str, str, list[str]]:
    """A parent's token, a title, and enough children for 16 requests at a time."""
    credentials = {"email": f"{uuid4()}@example.com", "password": "watch-together-7"}
    token = service.post("/auth/register", credentials).json()["access_token"]
    title, children = str(uuid4()), [str(uuid4()) for _ in range(16 * A_REQUEST)]
    staff.execute("INSERT INTO titles (id, title) VALUES (%s, 'cartoon')", [title])
    staff.execute(
        "INSERT INTO profiles (id, account_id, name, is_kids) "
        "SELECT child, (SELECT id FROM accounts WHERE email = %s), 'child', true "
        "FROM unnest(%s::uuid[]) AS child",
        [credentials["email"], children],
    )
    staff.execute(
        "INSERT INTO viewing_time_configs (profile_id) SELECT unnest(%s::uuid[])", [children]
    )
    return token, title, children


def beat(service: Service, token: str, title: str, children: Sequence[str]) -> None:
    """A batch of real beats, all of which are let play; one that is refused is sent again."""
    beats = [{"profile_id": child, "title_id": title, "device_id": "tv"} for child in children]
    while True:
        answer = service.post("/viewing-time/heartbeats", {"heartbeats": beats}, token)
        if answer.status_code != 503:
            break
    assert {told["enforcement"] for told in answer.json()["results"]} == {"allowed"}


def shown(service: Service, tile: str = "total") -> str:
    """A figure on the admin's page of metrics, for the member of staff."""
    page = f"{service.url}/admin/adminmetrics/metricrollup/"
    with requests.Session() as browser:
        browser.headers["Connection"] = "close"
        form = browser.get(f"{service.url}/admin/login/", timeout=LONG)
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert found
        credentials = {"username": "staff@example.com", "password": "watch-together-7"}
        browser.post(
            form.url,
            {**credentials, "csrfmiddlewaretoken": found[1], "next": page},
            timeout=LONG,
        )
        text = browser.get(page, timeout=LONG).text
    figure = re.search(rf'data-tile="{tile}".*?<dd[^>]*>\s*([0-9,.]+)', text, re.S)
    assert figure, text
    return figure[1]


def test_two_instances_of_two_workers_count_ten_thousand_beats_exactly(
    database_url: str, staff: psycopg.Connection
) -> None:
    with serving(database_url, "one") as one, serving(database_url, "other") as other:
        parent, title, children = children_of(one, staff)
        groups = [children[at : at + A_REQUEST] for at in range(0, len(children), A_REQUEST)]
        with ThreadPoolExecutor(16) as pool:
            list(
                pool.map(
                    lambda i: beat((one, other)[i % 2], parent, title, groups[i % 16]),
                    range(BEATS // A_REQUEST),
                )
            )
        token = staff_token(one, staff)
        staff.execute("UPDATE accounts SET is_superuser = true WHERE is_staff")
        for service in (one, other):
            assert wait_until(lambda s=service: total(s, token) >= BEATS, LONG)
            assert total(service, token) == BEATS
            assert shown(service) == f"{BEATS:,}"
        assert wait_until(lambda: scraped(one) + scraped(other) >= BEATS, LONG)
        assert (scraped(one), scraped(other)) == (BEATS // 2, BEATS // 2)
        verdicts = 'viewingtime_heartbeat_verdicts_total{verdict="allowed"}'
        assert scraped(one, verdicts) == BEATS // 2
        assert scraped(one, "viewingtime_heartbeat_duration_seconds_count") == BEATS // 2
        assert scraped(one, "viewingtime_workers") == 2


def timed_beats(service: Service, token: str, title: str, child: str) -> dict[str, float]:
    """One beat after the other: how long its client waited for each, in milliseconds, by id."""
    waited = {}
    body = {"profile_id": child, "title_id": title, "device_id": "tv"}
    with requests.Session() as player:
        player.headers["Authorization"] = f"Bearer {token}"
        for _ in range(BEATS_EACH):
            request_id = uuid4().hex
            began = time.perf_counter()
            answer = player.post(
                f"{service.url}{API}/viewing-time/heartbeat",
                json=body,
                headers={"X-Request-ID": request_id},
                timeout=LONG,
            )
            waited[request_id] = (time.perf_counter() - began) * 1000
            assert answer.status_code == 200, answer.text
    return waited


def test_quantiles_are_within_two_and_a_half_percent_of_those_of_every_single_beat(
    database_url: str, staff: psycopg.Connection
) -> None:
    """The truth is a line of the log for each beat, which says how long that one took.

    What its client saw is longer by the way there and back, and never shorter.
    """
    with (
        TemporaryFile() as log,
        serving(database_url, "one", log, HEARTBEAT_LOG_SAMPLE="1") as one,
        serving(database_url, "other", log, HEARTBEAT_LOG_SAMPLE="1") as other,
    ):
        parent, title, children = children_of(one, staff)
        waited: dict[str, float] = {}
        with ThreadPoolExecutor(PLAYERS) as pool:
            for told in pool.map(
                lambda i: timed_beats((one, other)[i % 2], parent, title, children[i]),
                range(PLAYERS),
            ):
                waited |= told
        token = staff_token(one, staff)
        staff.execute("UPDATE accounts SET is_superuser = true WHERE is_staff")
        assert wait_until(lambda: total(one, token) >= len(waited), LONG)
        figures = [metrics(service, token)["heartbeat"] for service in (one, other)]
        tile = float(shown(one, "p95").replace(",", ""))
        log.seek(0)
        lines = [json.loads(line) for line in log if HEARTBEAT_EVENT.encode() in line]
    took = {line["request_id"]: line["duration_ms"] for line in lines}
    assert len(lines) == len(took) == len(waited) == PLAYERS * BEATS_EACH
    assert all(took[request_id] < waited[request_id] for request_id in waited)
    true = sorted(took.values())
    p95, p99 = (true[math.ceil(share * len(true)) - 1] for share in (0.95, 0.99))
    for told in figures:
        assert told["total_processed"] == len(true)
        assert told["p95_duration_ms"] == pytest.approx(p95, rel=0.025)
        assert told["p99_duration_ms"] == pytest.approx(p99, rel=0.025)
        assert told["max_duration_ms"] == pytest.approx(true[-1], abs=0.001)
        assert told["avg_duration_ms"] == pytest.approx(sum(true) / len(true), abs=0.002)
    # Rounded for people: to a tenth, or to a whole one from 100 on.
    assert tile == pytest.approx(figures[0]["p95_duration_ms"], abs=0.51 if tile >= 100 else 0.051)


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_what_a_worker_counted_last_is_handed_over_when_it_ends(
    database_url: str, staff: psycopg.Connection, worker_class: str
) -> None:
    more = {"METRICS_FLUSH_SECONDS": "5", "WORKER_CLASS": worker_class}
    with serving(database_url, "one", **more) as service:
        for _ in range(20):
            count(service, 5)
    (counted,) = staff.execute(
        "SELECT sum(count) FROM metric_rollups WHERE name = 'heartbeats'"
    ).fetchone()
    assert counted == 100
    ended = staff.execute("SELECT ended_at FROM metric_processes").fetchall()
    assert len(ended) == 2
    assert (None,) not in ended


def test_beats_that_wait_are_seen_in_the_gauge_while_they_do(
    database_url: str, staff: psycopg.Connection
) -> None:
    def waiting() -> int:
        return scraped(service, "viewingtime_heartbeat_queue")

    with (
        serving(database_url, "one", METRICS_FLUSH_SECONDS="1") as service,
        ThreadPoolExecutor(PLAYERS) as pool,
        psycopg.connect(database_url) as holder,
    ):
        token, title, children = children_of(service, staff)
        held = children[:PLAYERS]
        holder.execute("SELECT FROM profiles WHERE id = ANY(%s::uuid[]) FOR UPDATE", [held])
        is_seen = Event()

        def insist(child: str) -> None:
            body = {"profile_id": child, "title_id": title, "device_id": "tv"}
            while not is_seen.is_set():
                service.post("/viewing-time/heartbeat", body, token)

        players = [pool.submit(insist, child) for child in held]
        try:
            assert wait_until(lambda: waiting() > 0, LONG)
        finally:
            is_seen.set()
            holder.rollback()
        for player in players:
            player.result()
        assert wait_until(lambda: waiting() == 0, LONG)


def test_what_a_batch_has_refused_is_counted_and_logged_with_its_request(
    database_url: str, staff: psycopg.Connection
) -> None:
    staff.execute(
        "ALTER TABLE viewing_sessions ADD CONSTRAINT x CHECK (device_id <> 'poison') NOT VALID"
    )
    try:
        with (
            TemporaryFile() as log,
            serving(database_url, "one", log, METRICS_FLUSH_SECONDS="1") as service,
        ):
            token, title, children = children_of(service, staff)
            beats = [
                {"profile_id": child, "title_id": title, "device_id": device}
                for child, device in (
                    (children[0], "tv"),
                    (children[1], "poison"),
                    (str(uuid4()), "tv"),
                    (children[2], ""),
                )
            ]
            answer = requests.post(
                f"{service.url}{API}/viewing-time/heartbeats",
                json={"heartbeats": beats},
                headers={"Authorization": f"Bearer {token}", "X-Request-ID": "the-batch"},
                timeout=LONG,
            )
            codes = [told.get("error", {}).get("code") for told in answer.json()["results"]]
            assert codes == [None, "internal_error", "not_found", "invalid"]
            assert wait_until(lambda: scraped(service, "viewingtime_errors_total") == 1, LONG)
            assert scraped(service, "viewingtime_heartbeats_refused_total") == 2
            log.seek(0)
            faults = [json.loads(line) for line in log if b"internal_error" in line]
        assert [line["request_id"] for line in faults] == ["the-batch"]
    finally:
        staff.execute("ALTER TABLE viewing_sessions DROP CONSTRAINT x")


def test_greenlets_hand_over_while_they_serve(database_url: str, staff: psycopg.Connection) -> None:
    with serving(database_url, "one", METRICS_FLUSH_SECONDS="1") as service:
        count(service, 7)
        token = staff_token(service, staff)
        assert wait_until(lambda: total(service, token) == 7, LONG)


def test_a_worker_that_is_killed_takes_no_more_than_the_last_seconds_with_it(
    database_url: str, staff: psycopg.Connection
) -> None:
    with serving(database_url, "one", METRICS_FLUSH_SECONDS="1") as service:
        token = staff_token(service, staff)
        count(service, 10)
        assert wait_until(lambda: total(service, token) == 10, LONG)
        before = {worker.pid for worker in service.workers()}
        for worker in service.workers():
            worker.send_signal(signal.SIGKILL)
        assert wait_until(
            lambda: len({w.pid for w in service.workers()} - before) == 2 and service.is_ready(),
            LONG,
        )
        count(service, 5)
        assert wait_until(lambda: total(service, token) == 15, LONG)
