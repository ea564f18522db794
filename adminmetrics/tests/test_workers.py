"""Figures of every worker of every instance, with real processes."""

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
import requests

from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import API
from pins.tests.service import LONG, Service, database, gunicorn

APPLICATION = "adminmetrics.tests.beating:application"
BEATS, A_REQUEST = 10_000, 50


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


def serving(database_url: str, name: str, *options: str, **more: str) -> ExitStack:
    return gunicorn(
        database_url, *options, application=APPLICATION, INSTANCE_NAME=name, WORKERS="2", **more
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


def total(service: Service, token: str) -> int:
    answer = requests.get(
        f"{service.url}{API}/admin/metrics",
        headers={"Authorization": f"Bearer {token}", "Connection": "close"},
        timeout=LONG,
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["heartbeat"]["total_processed"])


def scraped(service: Service, name: str = "viewingtime_heartbeats_total") -> int:
    headers = {"Connection": "close"}
    text = requests.get(f"{service.url}/metrics", headers=headers, timeout=LONG).text
    found = re.search(rf"^{re.escape(name)} ([0-9.]+)$", text, re.M)
    assert found, text
    return int(float(found[1]))


def test_two_instances_of_two_workers_count_ten_thousand_beats_exactly(
    database_url: str, staff: psycopg.Connection
) -> None:
    with serving(database_url, "one") as one, serving(database_url, "other") as other:
        with ThreadPoolExecutor(16) as pool:
            asked = [(one, other)[i % 2] for i in range(BEATS // A_REQUEST)]
            workers = set(pool.map(lambda service: count(service, A_REQUEST), asked))
        assert len(workers) > 2, "more than the worker of each instance that answers"
        token = staff_token(one, staff)
        for service in (one, other):
            assert wait_until(lambda s=service: total(s, token) >= BEATS, LONG)
            assert total(service, token) == BEATS
        assert wait_until(lambda: scraped(one) + scraped(other) >= BEATS, LONG)
        assert (scraped(one), scraped(other)) == (BEATS // 2, BEATS // 2)
        verdicts = 'viewingtime_heartbeat_verdicts_total{verdict="allowed"}'
        assert scraped(one, verdicts) == BEATS // 2
        assert scraped(one, "viewingtime_heartbeat_duration_seconds_count") == BEATS // 2
        assert scraped(one, "viewingtime_workers") == 2


@pytest.mark.parametrize("options", [(), ("-k", "gevent")], ids=["threads", "greenlets"])
def test_what_a_worker_counted_last_is_handed_over_when_it_ends(
    database_url: str, staff: psycopg.Connection, options: tuple[str, ...]
) -> None:
    with serving(database_url, "one", *options, METRICS_FLUSH_SECONDS="5") as service:
        for _ in range(20):
            count(service, 5)
    (counted,) = staff.execute(
        "SELECT sum(count) FROM metric_rollups WHERE name = 'heartbeats'"
    ).fetchone()
    assert counted == 100
    ended = staff.execute("SELECT ended_at FROM metric_processes").fetchall()
    assert len(ended) == 2
    assert (None,) not in ended


def test_greenlets_hand_over_while_they_serve(database_url: str, staff: psycopg.Connection) -> None:
    with serving(database_url, "one", "-k", "gevent", METRICS_FLUSH_SECONDS="1") as service:
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
