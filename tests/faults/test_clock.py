"""The database's clock, which credits, is set an hour forth and back while everybody plays."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pins.tests.service import gunicorn
from tests.faults.books import Clock
from tests.faults.evening import evening, now_in_microseconds, skip
from tests.faults.stage import servers

_HOUR = 3600


def library() -> Path | None:
    """libfaketime, where it is installed (Debian: `faketime`)."""
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@pytest.fixture
def steps() -> Iterator["Steps"]:
    with tempfile.TemporaryDirectory(prefix="viewingtime-clock-") as folder:
        # The database runs as another account, which has to get there.
        Path(folder).chmod(0o755)
        yield Steps(Path(folder) / "clock")


def test_a_clock_set_an_hour_forth_and_back_gives_no_child_more(steps: "Steps") -> None:
    faketime = library()
    if faketime is None:
        skip("clock-stepped", "libfaketime is not installed (Debian: faketime)")
    environment = {
        "LD_PRELOAD": str(faketime),
        "FAKETIME_TIMESTAMP_FILE": str(steps.file),
        "FAKETIME_NO_CACHE": "1",
        # What is waited for is measured by the other clock, which nobody can set.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }
    with (
        servers(environment) as stage,
        gunicorn(stage.postgres.url, WORKERS="2", REDIS_URL=stage.valkey.url) as service,
        evening("clock-stepped", stage, service, clock=steps.clock) as playing,
    ):
        for seconds in (_HOUR, 0):
            playing.play_on()
            with playing.fault():
                steps.set(seconds)
            with stage.connect() as database:
                ahead = "SELECT extract(epoch FROM clock_timestamp()) - %s"
                (found,) = database.execute(ahead, [now_in_microseconds() / 1e6]).fetchone() or (0,)
                assert abs(float(found) - seconds) < 1
            playing.endure()


class Steps:
    """The file that tells the database's processes what time it is."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.clock = Clock()
        self._write(0)

    def set(self, seconds: int) -> None:
        """From now on it is so many seconds later than it is."""
        self.clock.step(now_in_microseconds(), seconds)
        self._write(seconds)

    def _write(self, seconds: int) -> None:
        written = self.file.with_suffix(".new")
        written.write_text(f"+{seconds}\n")
        written.chmod(0o644)
        written.replace(self.file)
