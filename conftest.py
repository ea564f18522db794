"""What the tests of every package share."""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from parentalcontrols.tests.cast import Cast

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI", "").lower() == "true":
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    # A checkout has no collected static files; WhiteNoise finds them with their apps, and warns.
    config.addinivalue_line("filterwarnings", "ignore:No directory at:UserWarning")


@pytest.fixture
def cast(db: None) -> "Cast":
    """Two households that know nothing of each other, and something to watch."""
    from parentalcontrols.tests.cast import Cast

    return Cast()
