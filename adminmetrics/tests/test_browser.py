"""The admin in a real browser: every page, live figures, no barrier, nothing its policy forbids."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.keys import Keys

from adminmetrics import dashboard, recorder, rollup
from adminmetrics.tests.browser import Browser, chromium
from adminmetrics.tests.evening import fill
from adminmetrics.tests.test_groups import make_groups
from parentalcontrols.tests.cast import PASSWORD, Cast, make_account
from viewingtime.models import ViewingSession

METRICS = "/admin/adminmetrics/metricrollup/"
INDEXES = METRICS + "indexes/"
#: By how many pixels a page is wider than the window.
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def window(live_server: LiveServer) -> Iterator[Browser]:
    with chromium(live_server.url) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser, transactional_db: None, cast: Cast) -> Iterator[Browser]:
    """Signed in as one of support; every error of a page fails the test."""
    make_groups()
    staff = make_account("support@example.com", is_staff=True)
    staff.groups.add(Group.objects.get(name="support"))
    window.emulate()
    window.driver.delete_all_cookies()
    window.errors.clear()
    window.sign_in(staff.email, PASSWORD)
    yield window
    errors = window.collect()
    assert not errors, "\n".join(errors)
    window.driver.get("about:blank")


def tile(browser: Browser, key: str) -> str:
    return browser.text(f'[data-tile="{key}"] dd')


def drawn(browser: Browser) -> set[str]:
    """The charts that have a picture."""
    return {
        figure.get_attribute("data-chart")
        for figure in browser.find_all("[data-chart]")
        if figure.find_elements("css selector", "canvas")
    }


def pages_of(browser: Browser) -> list[str]:
    """Where the landing page leads to, and the pages of single objects behind that."""
    browser.open("/admin/")
    paths = {a.get_attribute("href") for a in browser.find_all("#content-main a, .metrics-now a")}
    return sorted(path.removeprefix(browser.url) for path in paths if path)


def test_every_page_of_the_admin_is_without_barriers_in_the_light_and_in_the_dark(
    browser: Browser, cast: Cast
) -> None:
    fill(cast, hours=2)
    found = {}
    pages = [
        "/admin/",
        *pages_of(browser),
        f"/admin/parentalcontrols/account/{cast.parent.pk}/change/",
        f"/admin/parentalcontrols/profile/{cast.child.pk}/change/",
        f"/admin/parentalcontrols/title/{cast.cartoon.pk}/change/",
        f"/admin/parentalcontrols/profile/{cast.child.pk}/history/",
        "/admin/password_change/",
    ]
    assert len(set(pages)) > 12
    assert INDEXES in pages
    for scheme in ("light", "dark"):
        browser.emulate(scheme=scheme)
        for path in dict.fromkeys(pages):
            browser.open(path)
            if barriers := browser.barriers():
                found[f"{scheme} {path}"] = barriers
    assert not found, "\n".join(f"{page}: {barriers}" for page, barriers in found.items())


@pytest.mark.parametrize("key", dashboard.RANGES)
def test_every_range_draws_its_charts(browser: Browser, cast: Cast, key: str) -> None:
    fill(cast, hours=2)
    browser.open(f"{METRICS}?range={key}")
    assert browser.text(".metrics-ranges [aria-current]") == dashboard.RANGES[key].label
    assert drawn(browser) == {chart.key for chart in dashboard.CHARTS}
    assert "last" in browser.text("#summary-latency")
    assert "most of them" in browser.text("#summary-heat")


def test_without_figures_it_says_so_instead_of_drawing(browser: Browser) -> None:
    browser.open(METRICS)
    assert drawn(browser) == set()
    told = [empty.text for empty in browser.find_all("[data-empty]") if empty.is_displayed()]
    assert told == [chart.empty for chart in dashboard.CHARTS]
    assert browser.text("[data-metrics-status]") == "No process is counting."
    assert browser.barriers() == []


@pytest.fixture
def counting(browser: Browser) -> Iterator[None]:
    """This process hands over as a worker does."""
    rollup.start()
    yield
    rollup.stop()


#: Notes how often the page had asked anew when it first showed a total.
_NOTE_REFRESHES = """
const place = document.querySelector('[data-tile="total"] dd');
const asked = () => Number(document.documentElement.dataset.metricsFresh || 0);
const before = asked();
new MutationObserver(() => {
    if (place.textContent === arguments[0]) {
        window.refreshes ??= asked() - before;
    }
}).observe(place, {childList: true, characterData: true, subtree: true});
"""


@pytest.mark.parametrize("path", [METRICS + "?range=15m", "/admin/"])
def test_a_beat_is_seen_within_five_seconds_without_a_reload(
    browser: Browser, counting: None, path: str
) -> None:
    """Told in what the page asks, not by a clock: the machine that tests may be busy."""
    browser.open(path)
    assert tile(browser, "total") == "0"
    browser.script(_NOTE_REFRESHES, "7")
    recorder.heartbeats(7, 1, 0.004)
    browser.wait(lambda: tile(browser, "total") == "7")
    refreshes = browser.script("return window.refreshes")
    assert refreshes <= 2, "one that was under way, and the next"
    assert refreshes * dashboard.RANGES["15m"].poll <= 5
    if path != "/admin/":
        browser.wait(lambda: "latency" in drawn(browser))


def test_figures_stand_still_while_somebody_reads(browser: Browser, counting: None) -> None:
    browser.open(METRICS + "?range=15m")
    browser.find("[data-metrics-pause]").click()
    fresh = "return Number(document.documentElement.dataset.metricsFresh || 0)"
    before = browser.script(fresh)
    recorder.heartbeats(7, 1, 0.004)
    rollup.hand_over_now()
    assert tile(browser, "total") == "0"
    browser.find("[data-metrics-pause]").click()
    browser.wait(lambda: browser.script(fresh) > before)
    assert tile(browser, "total") == "7"


def test_it_can_be_narrowed_to_a_worker(browser: Browser, cast: Cast) -> None:
    fill(cast, hours=2)
    browser.open(METRICS)
    both = int(tile(browser, "total").replace(",", ""))
    browser.find('#metrics-source option[value="tv-1:8000 4101"]').click()
    browser.find(".metrics-filter [type=submit]").click()
    browser.wait(lambda: "source=tv-1" in browser.driver.current_url)
    browser.wait(lambda: browser.find_all("[data-tile]"))
    assert 0 < int(tile(browser, "total").replace(",", "")) < both
    chosen = browser.find("#metrics-source").get_property("value")
    assert chosen == "tv-1:8000 4101"
    assert "source=tv-1" in browser.find(".metrics-ranges a").get_attribute("href")


def test_a_chart_is_read_by_keyboard_and_as_a_table(browser: Browser, cast: Cast) -> None:
    fill(cast, hours=2)
    browser.open(METRICS)
    browser.find("[data-metrics-pause]").click()
    canvas = browser.find('[data-chart="latency"] [data-canvas]')
    canvas.send_keys(Keys.END)
    last = browser.text('[data-chart="latency"] [data-readout]')
    assert "p95" in last
    canvas.send_keys(Keys.ARROW_LEFT)
    before = browser.text('[data-chart="latency"] [data-readout]')
    assert before < last, "a minute earlier"
    browser.find('[data-chart="latency"] summary').click()
    browser.wait(lambda: browser.find_all('[data-chart="latency"] table tbody tr'))
    heads = [
        head.get_property("textContent")
        for head in browser.find_all('[data-chart="latency"] thead th')
    ]
    assert heads == ["Time", "p50", "p95", "p99"]
    assert len(browser.find_all('[data-chart="latency"] tbody tr')) == 60


@pytest.mark.parametrize("path", ["/admin/", METRICS, INDEXES])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Browser, cast: Cast, path: str
) -> None:
    fill(cast, hours=2)
    browser.emulate(width=375, height=800)
    browser.open(path)
    assert browser.script(OVERFLOW) <= 0
    assert browser.barriers() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_findings_and_plans_scroll_in_themselves(
    browser: Browser, cast: Cast, scheme: str
) -> None:
    index = "ix_vs_profile_started"
    (declared,) = [one for one in ViewingSession._meta.indexes if one.name == index]
    cast.phone.beat(cast.child, cast.cartoon)
    with connection.schema_editor() as editor:
        editor.remove_index(ViewingSession, declared)
    try:
        browser.emulate(width=375, height=800, scheme=scheme)
        browser.open(INDEXES)
        assert browser.text(".health-verdict").startswith("Not sound: ")
        for summary in browser.find_all("details summary"):
            summary.send_keys(Keys.ENTER)
        browser.wait(lambda: all(plan.is_displayed() for plan in browser.find_all("details pre")))
        assert any(
            code.get_property("scrollWidth") > code.get_property("clientWidth")
            for code in browser.find_all("pre")
        )
        assert browser.script(OVERFLOW) <= 0
        assert browser.barriers() == []
    finally:
        with connection.schema_editor() as editor:
            editor.add_index(ViewingSession, declared)
    checked = browser.find(".metrics-filter [type=submit]")
    checked.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.text(".health-verdict").startswith("Sound: "))


def test_a_childs_day_is_drawn_against_its_limit(browser: Browser, cast: Cast) -> None:
    fill(cast, hours=1)
    browser.open(f"/admin/parentalcontrols/profile/{cast.child.pk}/change/")
    assert len(browser.find_all(".timeline rect")) == 4
    assert len(browser.find_all(".timeline .timeline-exempt")) == 1
    assert browser.find_all(".timeline .timeline-limit")
    assert "4 sessions: 1:40 used of a limit of 2:00, 0:50 more were exempt." in browser.text(
        "figure figcaption"
    )


def test_who_is_signed_out_is_told_so(browser: Browser) -> None:
    browser.open(METRICS + "?range=15m")
    browser.driver.delete_all_cookies()
    browser.wait(lambda: "signed out" in browser.text("[data-metrics-status]"))
