"""Two instances behind a proxy and a pooler: one dies, both are replaced, tables change under load.

Every child's player keeps its own ledger of the beats that were acknowledged (`crowd`); afterwards
each of them is in PostgreSQL, once, to the microsecond.
"""

from collections.abc import Iterator

import psycopg
import pytest

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, database_of_tests
from tests.topology.house import House, house
from viewingtime.tests.test_restarts import PLAYERS, crowd

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def running(transactional_db: None) -> Iterator[House]:
    with house(database_of_tests()) as started:
        yield started


def test_an_instance_that_dies_under_load_takes_no_answered_beat_along(running: House) -> None:
    with crowd(running.front) as playing:
        playing.await_more()
        for instance in running.instances:
            instance.kill()
            playing.await_more()
            instance.start()
            assert wait_until(instance.is_ready, LONG)
            assert wait_until(instance.serves, LONG)
            playing.await_more()
        # The proxy sends what was under way to the other instance.
        assert playing.outcomes["unanswered"] == 0


def test_a_rolling_restart_of_both_instances_refuses_nobody(running: House) -> None:
    with crowd(running.front) as playing:
        playing.await_more()
        for instance in running.instances:
            assert instance.stop() == 0
            playing.await_more()
            instance.start()
            assert wait_until(instance.is_ready, LONG)
            assert wait_until(instance.serves, LONG)
            playing.await_more()
        assert playing.outcomes["unanswered"] == 0
        assert playing.outcomes["refused"] == 0


def test_tables_change_while_the_instances_serve(running: House) -> None:
    with crowd(running.front) as playing:
        playing.await_more()
        # Indexes are dropped and built concurrently, by the migrations themselves.
        running.migrate("viewingtime", "0001")
        playing.await_more()
        running.migrate()
        playing.await_more()
        # What a next release adds first: the instances that run do not know the column.
        address = running.environment["DATABASE_URL"]
        with psycopg.connect(address, autocommit=True) as database:
            table = "ALTER TABLE viewing_sessions"
            database.execute(f"{table} ADD COLUMN next_release text NOT NULL DEFAULT ''")
            try:
                playing.await_more(10 * PLAYERS)
            finally:
                database.execute(f"{table} DROP COLUMN next_release")
        playing.await_more()
        assert playing.outcomes["unanswered"] == 0
        assert playing.outcomes["refused"] == 0


@pytest.mark.direct("there is another pooler between it and PostgreSQL")
def test_the_limits_of_requests_are_in_force_behind_the_pooler_and_not_for_migrations(
    running: House,
) -> None:
    limits = (
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), "
        "current_setting('client_connection_check_interval'), "
        "current_setting('idle_in_transaction_session_timeout')"
    )
    with psycopg.connect(running.pooler.url) as database:
        assert database.execute(limits).fetchone() == ("1400ms", "15s", "500ms", "10s")
    with psycopg.connect(running.environment["DATABASE_URL"]) as database:
        assert database.execute(limits).fetchone() == ("0", "0", "0", "0")
