"""A real browser, headless: Debian's Chromium, which notes whatever a page's policy forbids."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from adminmetrics.tests.programs import CHROMIUM, DRIVER, PACKAGES

AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
#: Seconds after which a test gives up waiting; nothing is expected to take that long.
LONG = 30

_NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
_RUN_AXE = """
const done = arguments[arguments.length - 1];
const options = {resultTypes: ["violations"]};
if (arguments[0]) options.runOnly = arguments[0];
axe.run(document, options).then((found) => done(found.violations.map(
    (v) => [v.impact, v.id, v.nodes.map((node) => node.html.slice(0, 200))]
)));
"""
#: The rules of axe that another colour scheme may break.
OF_COLOURS = ("color-contrast", "link-in-text-block")


class Browser:
    """A window, and what went wrong in it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.errors: list[str] = []

    def open(self, path: str) -> None:
        """Goes to a path and waits until the page is whole."""
        self.collect()
        self.driver.get(self.url + path)
        self.wait(self.is_whole)

    def is_whole(self) -> bool:
        """Whether nothing of the page is under way any more."""
        return bool(self.script("return document.readyState") == "complete")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def wait(self, condition: Callable[[], object], seconds: float = LONG) -> None:
        """Until a condition holds; fails else."""
        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def forget(self) -> None:
        """Leaves the page, which refreshes itself and would be given cookies again, and forgets."""
        self.collect()
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})

    def sign_in(self, email: str, password: str) -> None:
        self.open("/admin/login/")
        self.find("#id_username").send_keys(email)
        self.find("#id_password").send_keys(password)
        self.find("[type=submit]").click()
        self.wait(lambda: urlsplit(self.driver.current_url).path == "/admin/")
        # What is under way still would set the cookies of somebody who signs in next.
        self.wait(self.is_whole)

    def emulate(self, *, width: int = 1280, height: int = 1000, scheme: str = "light") -> None:
        """A window of that size, for somebody who prefers light or dark pages."""
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command("Emulation.setEmulatedMedia", {"features": [feature]})

    def collect(self) -> list[str]:
        """Every error of the console and violation of the policy since the start."""
        if self.driver.current_url.startswith("http"):
            self.errors += self.script("return (window.violations || []).splice(0)")
        for entry in self.driver.get_log("browser"):
            if entry["level"] == "SEVERE":
                self.errors.append(entry["message"])
        return self.errors

    def barriers(self, rules: Sequence[str] | None = None) -> list[str]:
        """What axe finds serious or critical, by all its rules or by some."""
        self.collect()
        if not self.script("return 'axe' in window"):
            self.script(AXE.read_text())
        found = self.driver.execute_async_script(_RUN_AXE, rules)
        # Axe itself tries to add a style, which the policy refuses.
        self.script("window.violations = []")
        self.driver.get_log("browser")
        return [json.dumps(f) for f in found if f[0] in {"serious", "critical"}]


@contextmanager
def chromium(url: str) -> Iterator[Browser]:
    """A browser with an empty profile of its own; fails with a sentence where there is none."""
    for program in (CHROMIUM, DRIVER):
        assert Path(program).exists(), f"{program} is missing: install Debian's {PACKAGES}."
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1280,1000",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        driver.set_script_timeout(LONG)
        try:
            driver.execute_cdp_cmd(
                "Page.addScriptToEvaluateOnNewDocument", {"source": _NOTE_VIOLATIONS}
            )
            yield Browser(driver, url)
        finally:
            driver.quit()
