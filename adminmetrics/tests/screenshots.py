"""Takes the pictures in `docs/images`: `make screenshots`. No test, so none is collected."""

from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from pytest_django.live_server_helper import LiveServer

from adminmetrics.models import MetricProcess
from adminmetrics.tests.browser import chromium
from adminmetrics.tests.evening import fill
from adminmetrics.tests.test_groups import make_groups
from parentalcontrols.tests.cast import PASSWORD, Cast, database_now, make_account

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
METRICS = "/admin/adminmetrics/metricrollup/"


@pytest.mark.django_db(transaction=True)
def test_take_them(live_server: LiveServer, cast: Cast) -> None:
    fill(cast)
    make_groups()
    staff = make_account("support@example.com", is_staff=True)
    staff.groups.add(Group.objects.get(name="support"))
    child = f"/admin/parentalcontrols/profile/{cast.child.pk}/change/"
    IMAGES.mkdir(exist_ok=True)
    with chromium(live_server.url) as browser:
        browser.sign_in(staff.email, PASSWORD)
        for name, path, size, scheme in (
            ("admin-home", "/admin/", (1280, 900), "light"),
            ("admin-metrics", f"{METRICS}?range=24h", (1280, 1360), "light"),
            ("admin-metrics-dark", f"{METRICS}?range=6h", (1280, 1360), "dark"),
            ("admin-metrics-phone", f"{METRICS}?range=1h", (390, 1600), "light"),
            ("admin-indexes", f"{METRICS}indexes/", (1280, 1300), "light"),
            ("admin-child", child, (1280, 1300), "light"),
        ):
            browser.emulate(width=size[0], height=size[1], scheme=scheme)
            MetricProcess.objects.update(seen_at=database_now())
            browser.open(path)
            browser.driver.save_screenshot(str(IMAGES / f"{name}.png"))
