"""How often one may register, refresh, try PINs and take files away."""

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from parentalcontrols import ratelimits
from parentalcontrols.models import Account, RateLimitWindow
from parentalcontrols.tests.cast import API, PASSWORD, PIN, Cast, Device, assert_problem, set_pin
from parentalcontrols.tests.routes import document
from parentalcontrols.tests.test_ratelimits import (
    ELSEWHERE,
    HERE,
    assert_limited,
    end_windows,
    networks,
    rate,
)
from pins.models import Pin

__all__ = ["rate"]
REGISTER, REFRESH = "/auth/register", "/auth/refresh"
VERIFY, SET = "/parental-controls/pin/verify", "/parental-controls/pin"


def post(path: str, body: Any, device: Device | None = None, address: str = HERE) -> HttpResponse:
    return (device or Device()).send("POST", path, body, REMOTE_ADDR=address)


# Registering


def register(email: str | None = None, address: str = HERE) -> HttpResponse:
    body = {"email": email or f"{uuid4()}@example.com", "password": PASSWORD}
    return post(REGISTER, body, address=address)


@pytest.mark.django_db
def test_an_address_registers_so_many_households_and_no_more(rate: Any) -> None:
    rate(REGISTER_ADDRESS=3)
    assert [register().status_code for _ in range(3)] == [201] * 3
    before = Account.objects.count()
    assert_limited(register())
    assert Account.objects.count() == before
    assert register(address=ELSEWHERE).status_code == 201
    end_windows()
    assert register().status_code == 201


@pytest.mark.django_db
def test_an_email_is_asked_for_only_so_often_whoever_asks(cast: Cast, rate: Any) -> None:
    """Else whether it is taken could be asked all day long, from many addresses."""
    rate(REGISTER_EMAIL=2)
    for email, address in ((cast.parent.email, HERE), (cast.parent.email.upper(), ELSEWHERE)):
        assert_problem(register(email, address), 400, "invalid")
    assert_limited(register(cast.parent.email, "192.0.2.55"))
    assert register(address=HERE).status_code == 201


@pytest.mark.django_db
def test_what_is_no_registration_counts_for_nothing(rate: Any) -> None:
    rate(REGISTER_ADDRESS=1)
    for body in ({}, {"email": "x", "password": PASSWORD}, {"email": "a@example.com"}):
        assert_problem(post(REGISTER, body), 400)
    assert register().status_code == 201


# Refreshing


def logged_in(cast: Cast) -> str:
    answer = post("/auth/login", {"email": cast.parent.email, "password": PASSWORD})
    return str(answer.json()["refresh_token"])


def refresh(token: str, address: str = HERE) -> HttpResponse:
    return post(REFRESH, {"refresh_token": token}, address=address)


def test_a_log_in_is_refreshed_only_so_often_and_others_go_on(cast: Cast, rate: Any) -> None:
    rate(REFRESH_LOGIN=3)
    token, other = logged_in(cast), logged_in(cast)
    for _ in range(3):
        token = refresh(token).json()["refresh_token"]
    assert_limited(refresh(token))
    assert refresh(other).status_code == 200
    end_windows()
    # It was not spent by the refusal.
    assert refresh(token).status_code == 200


def test_a_childs_device_cannot_use_up_what_its_parent_needs(cast: Cast, rate: Any) -> None:
    rate(REFRESH_LOGIN=2)
    answer = cast.phone.post(f"/auth/profiles/{cast.child.id}/token")
    stolen = answer.json()["refresh_token"]
    for _ in range(5):
        refresh(stolen)
    assert_limited(refresh(stolen))
    assert refresh(logged_in(cast)).status_code == 200


def test_tokens_that_are_none_are_counted_by_address_and_good_ones_are_not(
    cast: Cast, rate: Any
) -> None:
    rate(REFRESH_ADDRESS=3)
    token = logged_in(cast)
    for _ in range(5):
        token = refresh(token).json()["refresh_token"]
    for _ in range(3):
        assert_problem(refresh("not.a.token"), 401)
    assert_limited(refresh(token))
    assert refresh(token, ELSEWHERE).status_code == 200


# PINs


def test_an_address_that_tries_the_pins_of_many_households_is_stopped(
    cast: Cast, rate: Any
) -> None:
    rate(PIN_ADDRESS=3)
    set_pin(cast.parent)
    set_pin(cast.outsider, "1357")
    doors: list[tuple[str, dict[str, Any], Device]] = [
        (VERIFY, {"pin": "0000"}, cast.child_tv),
        (SET, {"new_pin": "2222", "current_pin": "0000"}, cast.foreign_phone),
        (
            f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant",
            {"minutes": 15, "pin": "0000"},
            cast.child_tv,
        ),
    ]
    for path, body, device in doors:
        assert_problem(post(path, body, device), 403, "incorrect_pin")
    attempts = {pin.account_id: pin.attempts_reserved for pin in Pin.objects.all()}
    for path, body, device in doors:
        assert_limited(post(path, body, device))
    # Nor was anything looked at, and elsewhere the right one is still right.
    assert {pin.account_id: pin.attempts_reserved for pin in Pin.objects.all()} == attempts
    assert_limited(post(VERIFY, {"pin": PIN}, cast.child_tv))
    assert post(VERIFY, {"pin": PIN}, cast.child_tv, ELSEWHERE).status_code == 200


def test_right_pins_count_for_nothing(cast: Cast, rate: Any) -> None:
    rate(PIN_ADDRESS=1)
    set_pin(cast.parent)
    for _ in range(3):
        assert post(VERIFY, {"pin": PIN}, cast.child_tv).status_code == 200
    assert RateLimitWindow.objects.get(name="PIN_ADDRESS").count == 0


def test_a_lock_is_told_as_a_lock_and_counts_no_further_for_the_address(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        assert_problem(post(VERIFY, {"pin": "0000"}, cast.child_tv), 403, "incorrect_pin")
    for _ in range(5):
        assert_problem(post(VERIFY, {"pin": PIN}, cast.child_tv), 403, "pin_locked")
    assert RateLimitWindow.objects.get(name="PIN_ADDRESS").count == 5


# Files


@pytest.mark.parametrize("path", ["/parental-controls/weekly-report", "history"])
def test_a_household_takes_so_many_files_and_no_more(cast: Cast, rate: Any, path: str) -> None:
    rate(EXPORT=2)
    if path == "history":
        path = f"/parental-controls/profiles/{cast.child.id}/history"
    for _ in range(2):
        assert cast.phone.get(path + "?format=csv").status_code == 200
    assert_limited(cast.phone.get(path + "?format=csv"))
    assert_limited(cast.phone.send("GET", path, headers={"Accept": "text/csv"}))
    # What is shown on a page goes on, and so do others.
    assert cast.phone.get(path).status_code == 200
    other = "/parental-controls/weekly-report?format=csv"
    assert cast.foreign_phone.get(other).status_code == 200


def test_an_address_takes_so_many_files_whosever_they_are(cast: Cast, rate: Any) -> None:
    rate(EXPORT_ADDRESS=2)
    path = "/parental-controls/weekly-report?format=csv"
    for device in (cast.phone, cast.foreign_phone):
        assert device.get(path).status_code == 200
    assert_limited(cast.phone.get(path))
    assert cast.phone.send("GET", path, REMOTE_ADDR=ELSEWHERE).status_code == 200


# Behind a proxy


def test_a_spoofed_address_helps_nobody_and_a_true_one_is_found(
    cast: Cast, rate: Any, settings: Settings
) -> None:
    rate(REGISTER_ADDRESS=1)
    settings.TRUSTED_PROXIES = networks("10.0.0.0/8, 2001:db8:ffff::/48")

    def through(proxy: str, forwarded: str) -> int:
        body = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
        headers = {"X-Forwarded-For": forwarded}
        return Device().send("POST", REGISTER, body, REMOTE_ADDR=proxy, headers=headers).status_code

    assert through("10.1.2.3", "192.0.2.1, 198.51.100.1:5000") == 201
    # The same client, whatever it claims to be, by whichever proxies.
    for forwarded in (
        "203.0.113.1, 198.51.100.1:6000",
        "198.51.100.1",
        "garbage, ::1, 198.51.100.1",
        "198.51.100.1, 10.9.9.9",
        "::ffff:198.51.100.1",
    ):
        assert through("2001:db8:ffff::1", forwarded) == 429
    # It writes what it likes, and nobody believes it: it is no proxy.
    assert through("198.51.100.1", "203.0.113.1") == 429
    assert through("10.1.2.3", "198.51.100.1, 203.0.113.1") == 201


@pytest.mark.parametrize("is_https_only", [False, True])
def test_a_forwarded_scheme_is_believed_where_the_service_is_for_https_alone(
    settings: Settings, is_https_only: bool
) -> None:
    header = ("HTTP_X_FORWARDED_PROTO", "https") if is_https_only else None
    settings.SECURE_PROXY_SSL_HEADER = header
    settings.SECURE_HSTS_SECONDS = 60 if is_https_only else 0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = is_https_only
    for scheme, is_secure in (("https", is_https_only), ("http", False), ("x", False), ("", False)):
        request = RequestFactory().get("/", headers={"X-Forwarded-Proto": scheme})
        assert request.is_secure() is is_secure
        answer = Client().get("/livez", headers={"X-Forwarded-Proto": scheme})
        assert ("Strict-Transport-Security" in answer.headers) is is_secure


# What is told of them


def test_every_limited_path_tells_its_429(settings: Settings) -> None:
    told = {
        path.removeprefix(API)
        for path, methods in document()["paths"].items()
        if any("429" in operation["responses"] for operation in methods.values())
    }
    assert told == {
        *(REGISTER, "/auth/login", REFRESH, SET, VERIFY, "/parental-controls/pin/reset"),
        "/parental-controls/profiles/{profile_id}/viewing-time/grant",
        "/parental-controls/profiles/{profile_id}/history",
        "/parental-controls/weekly-report",
        *("/account/export", "/account/erase"),
    }


@pytest.mark.django_db
def test_switched_off_nothing_is_asked_of_the_database(settings: Settings) -> None:
    settings.RATELIMIT_ENABLED = False
    with CaptureQueriesContext(connection) as asked:
        ratelimits.export(RequestFactory().get("/"), uuid4())
    assert len(asked) == 0
