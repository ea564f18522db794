"""What the tests of the metrics share."""

from collections.abc import Iterator

import pytest

from adminmetrics import recorder
from adminmetrics.rollup import Reporter
from adminmetrics.tests.programs import left_out
from adminmetrics.tests.settled import forget_settled

collect_ignore = list(left_out())


@pytest.fixture(autouse=True)
def _nothing_counted_yet() -> Iterator[None]:
    recorder.reset(is_on=True)
    forget_settled()
    yield
    recorder.reset()


@pytest.fixture
def reporter(db: None) -> Reporter:
    """Hands over for a process, when a test says so."""
    return Reporter()
