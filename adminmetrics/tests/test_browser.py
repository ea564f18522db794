"""The admin in a real browser: every page, live figures, no barrier, nothing its policy forbids."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from adminmetrics import dashboard, recorder, rollup
from adminmetrics.models import MetricRollup
from adminmetrics.tests.browser import OF_COLOURS, Browser, chromium
from adminmetrics.tests.evening import fill
from adminmetrics.tests.test_groups import make_groups
from parentalcontrols.models import Account
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
    window.forget()
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


def everything(cast: Cast) -> list[str]:
    """Every page of the admin: of each model that it knows the list and, of one row, the page."""
    pages = ["/admin/", INDEXES, "/admin/password_change/", "/admin/password_change/done/"]
    for model, model_admin in admin.site._registry.items():
        options = model._meta
        base = f"/admin/{options.app_label}/{options.model_name}/"
        pages.append(base)
        if model is MetricRollup:
            continue
        if getattr(model_admin, "must_choose", False):
            (lookup,) = model_admin.lookups
            pages.append(f"{base}?{lookup}={(cast.parent, cast.child)['profile' in lookup].pk}")
        row = model._default_manager.order_by("pk").last()
        assert row is not None, f"no row of {model} to look at"
        pages += [f"{base}{row.pk}/change/", f"{base}{row.pk}/history/"]
        if model_admin.has_add_permission(AnyRequest(cast.staff)):
            pages.append(f"{base}add/")
    child = f"/admin/parentalcontrols/profile/{cast.child.pk}/change/"
    return [*dict.fromkeys([*pages, child])]


@dataclass
class AnyRequest:
    """As much of a request as tells who asks."""

    user: Account


@pytest.fixture
def root(browser: Browser, cast: Cast) -> Browser:
    """Signed in as a superuser, with something to see on every page."""
    fill(cast, hours=2)
    cast.anonymous.post("/auth/login", {"email": cast.parent.email, "password": PASSWORD})
    path = f"/parental-controls/profiles/{cast.child.pk}/viewing-time/grant"
    assert cast.phone.post(path, {"minutes": 15}).status_code == 200
    Account.objects.filter(pk=cast.staff.pk).update(is_superuser=True)
    cast.staff.refresh_from_db()
    browser.forget()
    browser.sign_in(cast.staff.email, PASSWORD)
    return browser


def test_every_page_of_the_admin_is_without_barriers_and_fits_a_phone(
    root: Browser, cast: Cast
) -> None:
    pages = everything(cast)
    assert len(pages) > 35
    found: dict[str, list[str]] = {}
    for path in pages:
        root.emulate()
        root.open(path)
        assert root.find_all("#user-tools"), f"{path} is no page"
        barriers = root.barriers()
        root.emulate(scheme="dark")
        root.wait(lambda: root.script("return document.getAnimations().length") == 0)
        barriers += root.barriers(OF_COLOURS)
        root.emulate(width=375, height=800)
        if (pixels := root.script(OVERFLOW)) > 0:
            barriers.append(f"{pixels} pixels wider than a phone")
        if barriers:
            found[path] = barriers
    assert not found, "\n".join(f"{page}: {barriers}" for page, barriers in found.items())


@pytest.mark.parametrize("width", [375, 1300])
def test_a_list_that_is_wider_than_its_place_is_scrolled_by_the_keyboard(
    root: Browser, cast: Cast, width: int
) -> None:
    ViewingSession.objects.update(device_id="the-television-of-the-living-room-" * 2)
    root.emulate(width=width, height=800)
    root.open(f"/admin/viewingtime/viewingsession/?profile__id__exact={cast.child.pk}")
    place = root.find(".list-rows")
    assert place.get_property("scrollWidth") > place.get_property("clientWidth")
    assert place.aria_role == "region"
    assert place.accessible_name == "Viewing sessions"
    place.send_keys(Keys.ARROW_RIGHT)
    root.wait(lambda: place.get_property("scrollLeft") > 0)
    assert root.script(OVERFLOW) <= 0
    assert root.barriers() == []


def test_a_childs_sessions_fit_a_window_of_usual_width(root: Browser, cast: Cast) -> None:
    root.emulate(width=1300, height=800)
    root.open(f"/admin/viewingtime/viewingsession/?profile__id__exact={cast.child.pk}")
    place = root.find(".list-rows")
    assert place.get_property("scrollWidth") <= place.get_property("clientWidth")


def test_what_support_is_led_to_is_without_barriers(browser: Browser, cast: Cast) -> None:
    """The landing page's links, and pages of rows that support may only look at."""
    fill(cast, hours=2)
    browser.open("/admin/")
    links = browser.find_all("#content-main a, .metrics-now a")
    paths = {link.get_attribute("href").removeprefix(browser.url) for link in links}
    assert {METRICS, INDEXES} <= paths
    assert len(paths) > 10
    paths |= {
        f"/admin/parentalcontrols/{name}/{row.pk}/change/"
        for name, row in (
            ("account", cast.parent),
            ("profile", cast.child),
            ("title", cast.cartoon),
        )
    }
    found = {}
    for path in sorted(paths):
        browser.open(path)
        if barriers := browser.barriers():
            found[path] = barriers
    assert not found, "\n".join(f"{page}: {barriers}" for page, barriers in found.items())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_way_in_and_out_is_without_barriers_and_needs_no_mouse(
    browser: Browser, cast: Cast, scheme: str
) -> None:
    browser.forget()
    browser.emulate(scheme=scheme)
    browser.open("/admin/")
    assert browser.barriers() == []
    keys = ActionChains(browser.driver)
    # The first field has the focus.
    keys.send_keys("support@example.com", Keys.TAB, "not-the-password", Keys.ENTER).perform()
    browser.wait(lambda: browser.find_all(".errornote"))
    assert browser.barriers() == []
    browser.find("#id_password").send_keys(PASSWORD, Keys.ENTER)
    browser.wait(lambda: browser.find_all(".metrics-tiles"))
    browser.find("#logout-form button").send_keys(Keys.ENTER)
    browser.wait(lambda: "/admin/logout/" in browser.driver.current_url)
    assert browser.barriers() == []


@pytest.mark.parametrize("key", dashboard.RANGES)
def test_every_range_draws_its_charts(browser: Browser, cast: Cast, key: str) -> None:
    fill(cast, hours=2)
    browser.open(METRICS)
    browser.find(f'.metrics-ranges a[href="?range={key}"]').send_keys(Keys.ENTER)
    browser.wait(lambda: f"range={key}" in browser.driver.current_url)
    browser.wait(lambda: browser.script("return document.readyState") == "complete")
    assert browser.text(".metrics-ranges [aria-current]") == dashboard.RANGES[key].label
    assert drawn(browser) == {chart.key for chart in dashboard.CHARTS}
    assert "last" in browser.text("#summary-latency")
    assert "most of them" in browser.text("#summary-heat")
    assert browser.barriers() == []


#: How many pixels of a chart have the colour of its first line.
_INKED = """
const ink = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
ink.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--metrics-1");
ink.fillRect(0, 0, 1, 1);
const wanted = ink.getImageData(0, 0, 1, 1).data.join();
const canvas = document.querySelector(`[data-chart="${arguments[0]}"] canvas`);
const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
let found = 0;
for (let at = 0; at < data.length; at += 4) {
    found += data.slice(at, at + 4).join() === wanted;
}
return found;
"""


@pytest.mark.parametrize("key", ["1h", "7d"])
def test_a_single_figure_is_drawn_as_a_point(browser: Browser, cast: Cast, key: str) -> None:
    fill(cast, hours=1)
    newest = MetricRollup.objects.latest("starts_at").starts_at
    MetricRollup.objects.exclude(starts_at=newest - timedelta(minutes=20)).delete()
    browser.open(f"{METRICS}?range={key}")
    for chart in ("trips", "cache"):
        assert browser.script(_INKED, chart) > 10, chart


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
    browser: Browser, cast: Cast, counting: None, path: str
) -> None:
    """Told in what the page asks, not by a clock: the machine that tests may be busy."""
    browser.open(path)
    assert tile(browser, "total") == "0"
    assert tile(browser, "watching") == "0"
    browser.script(_NOTE_REFRESHES, "1")
    cast.child_tv.beat(cast.child, cast.cartoon)
    browser.wait(lambda: tile(browser, "total") == "1")
    assert tile(browser, "watching") == "1"
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
    both = int(tile(browser, "in_range").replace(",", ""))
    browser.find('#metrics-source option[value="tv-1:8000 4101"]').click()
    browser.find(".metrics-filter [type=submit]").click()
    browser.wait(lambda: "source=tv-1" in browser.driver.current_url)
    browser.wait(lambda: browser.find_all("[data-tile]"))
    assert 0 < int(tile(browser, "in_range").replace(",", "")) < both
    chosen = browser.find("#metrics-source").get_property("value")
    assert chosen == "tv-1:8000 4101"
    assert "source=tv-1" in browser.find(".metrics-ranges a").get_attribute("href")


def test_a_chart_is_read_by_keyboard_and_as_a_table(browser: Browser, cast: Cast) -> None:
    fill(cast, hours=2)
    browser.open(METRICS)
    browser.find("[data-metrics-pause]").click()
    canvas = browser.find('[data-chart="latency"] [data-canvas]')
    # The keys of a picture would stay with the screen reader.
    assert canvas.aria_role == "application"
    assert canvas.accessible_name.startswith("Heartbeat latency p50: ")
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


#: Marks where the focus is as the n-th stop, and tells how that looks; null at the end.
_STOP = """
const found = document.activeElement;
if (!found || found === document.body || found.dataset.stop) return null;
found.dataset.stop = arguments[0];
return look(found);
"""
_LOOK = """
window.look = (found) => {
    const style = getComputedStyle(found);
    return [style.outlineStyle, style.textDecorationLine, style.boxShadow, style.borderColor,
        style.backgroundColor].join();
};
"""
_STOPS = """
document.activeElement.blur();
return [...document.querySelectorAll("[data-stop]")].map(
    (found) => [Number(found.dataset.stop), look(found), found.outerHTML.slice(0, 200)]
);
"""
#: What can be used and seen and was no stop.
_MISSED = """
const used = "a[href], button, select, input, textarea, summary, [tabindex='0']";
return [...document.querySelectorAll(used)]
    .filter((found) => !found.dataset.stop && !found.disabled && found.checkVisibility())
    .map((found) => found.outerHTML.slice(0, 200));
"""


@pytest.mark.parametrize("path", ["/admin/", METRICS, INDEXES, "child"])
def test_everything_is_reached_by_the_tab_key_in_order_and_shows_that_it_is(
    browser: Browser, cast: Cast, path: str
) -> None:
    fill(cast, hours=2)
    if path == "child":
        path = f"/admin/parentalcontrols/profile/{cast.child.pk}/change/"
    browser.open(path)
    browser.script(_LOOK)
    focused: list[str] = []
    while (
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        or (look := browser.script(_STOP, len(focused))) is not None
    ):
        focused.append(look)
    assert len(focused) > 20
    assert browser.script(_MISSED) == []
    stops = browser.script(_STOPS)
    assert "skip-to-content-link" in stops[0][2]
    assert [number for number, _, _ in stops] == sorted(number for number, _, _ in stops)
    unseen = [html for number, look, html in stops if look == focused[number]]
    assert unseen == []


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


#: What whoever cannot see the page is told by it, one after the other.
_NOTE_TOLD = """
const place = document.querySelector("[role=status]");
window.told = [];
new MutationObserver(() => window.told.push(place.textContent)).observe(
    place, {childList: true, characterData: true, subtree: true});
"""
_UNANSWERED = """
window.answered = window.fetch;
window.failures = 0;
window.fetch = () => {
    window.failures++;
    return Promise.reject(new TypeError("Failed to fetch"));
};
"""


@pytest.mark.parametrize("path", [METRICS + "?range=15m", "/admin/"])
def test_who_is_signed_out_is_told_so_once(browser: Browser, path: str) -> None:
    browser.open(path)
    browser.script(_NOTE_TOLD)
    assert browser.find("[role=status]").aria_role == "status"
    browser.driver.delete_all_cookies()
    browser.wait(lambda: browser.text("[role=status]"))
    told = ["You are signed out: reload the page to sign in again."]
    assert browser.script("return window.told") == told


def test_that_the_service_does_not_answer_is_told_once_and_until_it_does(browser: Browser) -> None:
    browser.open(METRICS + "?range=15m")
    browser.script(_NOTE_TOLD)
    browser.script(_UNANSWERED)
    browser.wait(lambda: browser.script("return window.failures") >= 2)
    told = ["The service does not answer; the figures are older. Trying again."]
    assert browser.script("return window.told") == told
    assert browser.text("[data-metrics-status]") == "No process is counting."
    browser.script("window.fetch = window.answered")
    browser.wait(lambda: browser.text("[role=status]") == "")
    assert browser.script("return window.told") == [*told, ""]
