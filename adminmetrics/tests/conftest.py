"""What the tests of the metrics share."""

from collections.abc import Iterator

import pytest

from adminmetrics import queries, recorder
from adminmetrics.rollup import Reporter
from adminmetrics.tests.programs import left_out

collect_ignore = list(left_out())


@pytest.fixture(autouse=True)
def _nothing_counted_yet() -> Iterator[None]:
    recorder.reset(is_on=True)
    queries._settled.clear()
    yield
    recorder.reset()


@pytest.fixture
def reporter(db: None) -> Reporter:
    """Hands over for a process, when a test says so."""
    return Reporter()
