"""Which programs the tests in a browser need, and what is left out where they are not."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

IS_CI = os.environ.get("CI", "").lower() == "true"
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
#: Files beside this one that need them.
IN_A_BROWSER = ("screenshots.py", "test_browser.py")
#: What Debian calls the packages of the two.
PACKAGES = "chromium and chromium-driver"


def left_out(
    *, is_ci: bool = IS_CI, programs: Collection[str] = (CHROMIUM, DRIVER)
) -> Sequence[str]:
    """The files that are not collected: those of the browser, if a program is missing.

    None in CI, where they fail instead, so that nobody takes them for passed.
    """
    has_all = all(Path(program).exists() for program in programs)
    return () if is_ci or has_all else IN_A_BROWSER


def header(files: Sequence[str]) -> str | None:
    """One line of what is left out, if anything is."""
    if not files:
        return None
    return (
        f"left out: {len(files)} files that need a browser ({', '.join(files)}); "
        f"to run them, install Debian's {PACKAGES}"
    )
