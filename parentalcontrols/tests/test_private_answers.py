"""What browsers and caches in between are told, and what a page of somebody else cannot do."""

import re

import pytest
from django.http import HttpResponse
from django.test import Client

from parentalcontrols.models import Account
from parentalcontrols.tests.cast import API, PASSWORD, Cast, Device, everything_stored
from parentalcontrols.tests.routes import ROUTES, Route, body_for, device_for, own_ids

pytestmark = pytest.mark.django_db


def assert_private(answer: HttpResponse) -> None:
    """Nobody keeps it, takes it for a page, or shows it in a frame."""
    headers = answer.headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    for directive in ("default-src 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "Set-Cookie" not in headers
    assert "Server" not in headers
    assert "X-Powered-By" not in headers


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_no_answer_is_kept_framed_or_taken_for_something_else(cast: Cast, route: Route) -> None:
    path = route.path(own_ids(cast))
    phone = device_for(route, cast)
    assert_private(phone.send(route.method, path, body_for(route, cast)))
    # Nor is a refusal.
    for device in (cast.anonymous, cast.child_tv, Device("x")):
        assert_private(device.send(route.method, path, body_for(route, cast)))
    for method in ("TRACE", "DELETE", "OPTIONS"):
        assert_private(phone.send(method, path))
    assert_private(phone.send(route.method, path, raw=b"{"))


@pytest.mark.parametrize("path", ["/auth/nothing", "/parental-controls/weekly-report?format=csv"])
def test_nor_is_what_is_not_there_or_a_file(cast: Cast, path: str) -> None:
    assert_private(cast.phone.get(path))


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/nothing", "/metrics", "/api/v1"])
def test_nor_is_anything_beside_the_api(path: str) -> None:
    assert_private(Client().get(path))


def test_a_file_of_the_pages_may_be_kept() -> None:
    assert "max-age" in Client().get("/static/admin/css/base.css").headers["Cache-Control"]


def test_a_form_of_another_page_does_nothing_with_a_cookie_of_staff(cast: Cast) -> None:
    """Neither in the API, which knows no cookies, nor in the admin, which wants its own token."""
    cast.staff.is_superuser = True
    cast.staff.save()
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(cast.staff)
    page = browser.get("/admin/")
    assert page.status_code == 200
    before = everything_stored()
    headers = {"Origin": "https://evil.example.com", "Referer": "https://evil.example.com/"}
    form = {"name": "x", "is_kids": "true", "minutes": "60"}
    for path in ("/auth/profiles", f"/parental-controls/profiles/{cast.child.id}/viewing-time"):
        answer = browser.post(API + path, form, headers=headers)
        assert answer.status_code in {401, 403, 405}
    action = {"action": "deactivate", "_selected_action": str(cast.parent.id)}
    for path in ("/admin/parentalcontrols/account/", "/admin/password_change/", "/admin/logout/"):
        assert browser.post(path, action, headers=headers).status_code == 403
    assert everything_stored() == before
    assert Account.objects.get(id=cast.parent.id).is_active


def test_cookies_of_the_admin_are_for_the_admin_alone() -> None:
    browser = Client(enforce_csrf_checks=True)
    page = browser.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token is not None
    Account.objects.create_user("boss@example.com", PASSWORD, is_staff=True)
    form = {"username": "boss@example.com", "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
    answer = browser.post("/admin/login/", form)
    assert answer.status_code == 302
    session = answer.cookies["sessionid"]
    assert session["httponly"]
    assert session["samesite"] == "Lax"
    assert answer.cookies["csrftoken"]["samesite"] == "Lax"
    # The page may not be shown in a frame, either, nor kept.
    inside = browser.get("/admin/")
    assert "frame-ancestors 'none'" in inside.headers["Content-Security-Policy"]
    assert "no-store" in inside.headers["Cache-Control"]
    assert browser.get(f"{API}/auth/me").status_code == 401


@pytest.mark.parametrize("target", ["https://evil.example.com/", "//evil.example.com", "/\\evil"])
def test_the_log_in_of_the_admin_leads_to_no_other_host(cast: Cast, target: str) -> None:
    form = {"username": cast.staff.email, "password": PASSWORD, "next": target}
    answer = Client().post(f"/admin/login/?next={target}", form)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/admin/" or answer.headers["Location"].startswith("/acc")
