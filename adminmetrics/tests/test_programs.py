"""On a machine without a browser its tests are left out, and the run says so; never in CI."""

import sys
from pathlib import Path

import pytest

from adminmetrics.tests.programs import IN_A_BROWSER, header, left_out

HERE = Path(__file__).parent
MISSING = "/nowhere/chromium"


@pytest.mark.parametrize("programs", [(MISSING,), (sys.executable, MISSING)])
def test_without_one_of_the_programs_the_files_of_the_browser_are_left_out(
    programs: tuple[str, ...],
) -> None:
    assert left_out(is_ci=False, programs=programs) == IN_A_BROWSER


def test_with_all_programs_nothing_is_left_out_and_nothing_said() -> None:
    assert left_out(is_ci=False, programs=(sys.executable,)) == ()
    assert header(()) is None


def test_in_ci_nothing_is_left_out() -> None:
    assert left_out(is_ci=True, programs=(MISSING,)) == ()


def test_the_header_tells_how_many_and_what_to_install() -> None:
    told = header(IN_A_BROWSER)
    assert "2 files" in told
    assert "install Debian's chromium and chromium-driver" in told
    assert "\n" not in told


def test_the_files_are_all_that_open_a_browser() -> None:
    opening = {path.name for path in HERE.glob("*.py") if "chromium(" in path.read_text()}
    assert opening - {"browser.py", Path(__file__).name} == set(IN_A_BROWSER)
