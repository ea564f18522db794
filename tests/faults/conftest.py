"""The servers that scenarios share; each leaves them as it found them."""

import os
from collections.abc import Iterator

import pytest

from pins.tests.service import Service, gunicorn
from tests.faults import results, table
from tests.faults.stage import Stage, servers


def pytest_configure(config: pytest.Config) -> None:
    # With several processes at work the first one alone, before any of them begins.
    if not hasattr(config, "workerinput"):
        results.forget(table.SCENARIOS)


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Servers that a scenario may kill, as long as it starts them again."""
    if os.environ.get("POOLER_BINARY"):
        pytest.skip("behind a pooler: these servers are reached directly, and nothing is prepared")
    with servers() as running:
        yield running


@pytest.fixture(scope="session")
def undying(stage: Stage) -> Iterator[Service]:
    """One service for all scenarios that kill others alone: it lives through every one of them."""
    with gunicorn(
        stage.environment["DATABASE_URL"],
        WORKERS="2",
        REDIS_URL=stage.environment["REDIS_URL"],
    ) as service:
        yield service
