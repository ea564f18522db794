"""What the tests of every package share."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from adminmetrics.tests.programs import IS_CI, header, left_out

if TYPE_CHECKING:
    from parentalcontrols.tests.cast import Cast
    from pins.tests.service import Service

settings.register_profile("ci", derandomize=True, deadline=None)
if IS_CI:
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    # A checkout has no collected static files; WhiteNoise finds them with their apps, and warns.
    config.addinivalue_line("filterwarnings", "ignore:No directory at:UserWarning")
    config.addinivalue_line(
        "markers", "direct(reason): holds on PostgreSQL itself, not through a pooler"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # `make test-matrix` lets a row go through PgBouncer.
    if not os.environ.get("POOLER_BINARY"):
        return
    for item in items:
        if (direct := item.get_closest_marker("direct")) is not None:
            reason = f"behind a pooler: {direct.args[0]}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header() -> str | None:
    return header(left_out())


@pytest.fixture
def cast(db: None) -> "Cast":
    """Two households that know nothing of each other, and something to watch."""
    from parentalcontrols.tests.cast import Cast

    return Cast()


@pytest.fixture(scope="session")
def served(django_db_setup: None) -> "Iterator[Service]":
    """The service in three processes of its own, on the database of the tests' models.

    It sees what a test commits, so it is for tests with `django_db(transaction=True)`.
    """
    from pins.tests.service import await_warm, database_of_tests, gunicorn

    url, workers = database_of_tests(), 3
    # What it counts would stand in the tables that the tests of the metrics read.
    with gunicorn(url, WORKERS=str(workers), METRICS_ENABLED="false") as service:
        # One that still rehearses its statements would be in the way of a test that empties tables.
        await_warm(url, workers)
        yield service
