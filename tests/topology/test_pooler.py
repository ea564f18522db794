"""A database that hangs, stops or is killed behind PgBouncer: honest, in time, nothing lost.

The tests are those of the service that is directly on PostgreSQL; what stands between is another.
"""

from collections.abc import Iterator

import pytest

from pins.tests.service import Home, gunicorn, own_servers
from tests.topology.house import program
from viewingtime.tests.test_outages_under_load import (
    HOMES,
    Evening,
    test_a_database_that_is_restarted_under_load_loses_nothing_and_heals,
    test_with_the_database_hung_all_of_a_crowd_are_refused_in_time_and_it_heals,
)

__all__ = [
    "test_a_database_that_is_restarted_under_load_loses_nothing_and_heals",
    "test_with_the_database_hung_all_of_a_crowd_are_refused_in_time_and_it_heals",
]


@pytest.fixture(scope="module")
def evening() -> Iterator[Evening]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLER_BINARY", program("pgbouncer"))
        patch.setenv("DATABASE_PREPARED", "false")
        with own_servers() as (postgres, valkey, environment):
            url = environment["DATABASE_URL"]
            with gunicorn(url, WORKERS="2", DEMO="true", REDIS_URL=valkey.url) as service:
                assert postgres.pooler is not None
                homes = [Home.made_by(service, postgres.url) for _ in range(HOMES)]
                yield Evening(postgres, service, homes)
