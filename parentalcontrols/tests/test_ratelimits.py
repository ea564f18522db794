"""How often a password may be guessed: at log-in, and for another PIN."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import F
from django.http import HttpResponse
from django.test import RequestFactory
from pytest_django.fixtures import Settings
from rest_framework.exceptions import Throttled

from parentalcontrols import ratelimits
from parentalcontrols.models import Account, RateLimitWindow
from parentalcontrols.ratelimits import Subject
from parentalcontrols.settings import Rate, _networks
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_problem,
    database_now,
    set_pin,
)
from pins import hashing
from viewingtime.tests.test_concurrency import at_once

LOGIN, RESET = "/auth/login", "/parental-controls/pin/reset"
PARENT, NOBODY = "parent@example.com", "nobody@example.com"
HERE, ELSEWHERE = "198.51.100.7", "203.0.113.9"
WRONG = "not-the-password"


def log_in(
    email: str = PARENT, password: str = PASSWORD, address: str = HERE, **more: Any
) -> HttpResponse:
    body = {"email": email, "password": password}
    return Device().send("POST", LOGIN, body, REMOTE_ADDR=address, **more)


def fail(times: int, email: str = PARENT, address: str = HERE) -> None:
    """So many wrong guesses that are let through."""
    for _ in range(times):
        assert_problem(log_in(email, WRONG, address), 401, "wrong_login")


def assert_limited(answer: HttpResponse, most: int = 900) -> int:
    """The answer is a 429 that tells when to come back; answers in how many seconds."""
    assert_problem(answer, 429, "too_many_requests")
    assert answer.headers["Retry-After"].isdecimal()
    seconds = int(answer.headers["Retry-After"])
    assert 1 <= seconds <= most
    return seconds


@pytest.fixture
def rate(settings: Settings) -> Any:
    """Sets limits for a test: `rate(LOGIN_ACCOUNT=3)` tries in a quarter of an hour."""

    def change(**tries: int) -> None:
        changed = {name: Rate(count, 900) for name, count in tries.items()}
        settings.RATELIMITS = {**settings.RATELIMITS, **changed}

    return change


def end_windows() -> None:
    """Lets every window's time run out."""
    RateLimitWindow.objects.update(ends_at=database_now() - timedelta(milliseconds=1))


# Log-in, by e-mail


def test_after_ten_wrong_guesses_not_even_the_right_password_is_let_in(cast: Cast) -> None:
    fail(10)
    assert 890 <= assert_limited(log_in(password=WRONG)) <= 900
    assert_limited(log_in())
    assert_limited(log_in(address=ELSEWHERE))


def test_the_tenth_guess_may_still_be_right(cast: Cast) -> None:
    fail(9)
    assert log_in().status_code == 200


def test_an_email_that_nobody_has_is_answered_the_same_all_the_way(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    Account.objects.filter(id=cast.outsider.id).update(is_active=False)

    def told(email: str) -> list[tuple[int, bytes, list[str]]]:
        answers = [log_in(email, WRONG) for _ in range(5)]
        return [(a.status_code, a.content, sorted(a.headers)) for a in answers]

    real = told(PARENT)
    assert [status for status, *_ in real] == [401, 401, 401, 429, 429]
    assert told(NOBODY) == real
    assert told(cast.outsider.email) == real


def test_an_email_is_counted_as_one_however_it_is_written(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    for email in ("PARENT@example.com", " parent@example.com", "Parent@Example.Com "):
        fail(1, email)
    assert_limited(log_in())
    assert RateLimitWindow.objects.filter(name="LOGIN_ACCOUNT").count() == 1


def test_somebody_elses_guesses_are_not_mine(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    fail(3)
    assert_limited(log_in())
    assert log_in(cast.outsider.email).status_code == 200


def test_the_right_password_starts_the_count_of_its_email_afresh(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    for _ in range(4):
        fail(2)
        assert log_in().status_code == 200
    fail(3)
    assert_limited(log_in())


def test_what_is_refused_as_no_log_in_at_all_is_no_guess(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    for body in ({}, {"email": PARENT}, {"email": PARENT, "password": 5}, {"email": "x"}):
        assert_problem(Device().post(LOGIN, body), 400)
    assert not RateLimitWindow.objects.exists()


# Log-in, by address


def test_an_address_is_limited_whosever_password_is_guessed(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ADDRESS=4)
    for number in range(4):
        fail(1, f"somebody-{number}@example.com")
    assert_limited(log_in())
    assert_limited(log_in(cast.outsider.email))
    assert log_in(address=ELSEWHERE).status_code == 200


def test_a_success_takes_its_own_try_back_and_no_other_of_the_address(
    cast: Cast, rate: Any
) -> None:
    """An account of their own does not wash the guesses of whoever guesses at others."""
    rate(LOGIN_ADDRESS=4)
    fail(3, NOBODY)
    for _ in range(6):
        assert log_in(cast.outsider.email).status_code == 200
    fail(1, NOBODY)
    assert_limited(log_in(cast.outsider.email))


def test_an_address_that_is_refused_uses_up_nobodys_count(cast: Cast, rate: Any) -> None:
    """Else whoever has used up their own could go on to lock everybody else out."""
    rate(LOGIN_ACCOUNT=3, LOGIN_ADDRESS=4)
    for number in range(4):
        fail(1, f"somebody-{number}@example.com")
    for _ in range(10):
        assert_limited(log_in(password=WRONG))
    fail(2, address=ELSEWHERE)
    assert log_in(address=ELSEWHERE).status_code == 200


def test_a_neighbours_log_in_costs_an_address_nothing(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ADDRESS=2)
    for _ in range(5):
        assert log_in().status_code == 200
    assert RateLimitWindow.objects.get(name="LOGIN_ADDRESS").count == 0


def test_another_forwarded_address_every_time_does_not_help(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ADDRESS=3, LOGIN_ACCOUNT=100)
    for number in range(3):
        headers = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
        assert log_in(password=WRONG, headers=headers).status_code == 401
    for name in ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "Forwarded"):
        assert_limited(log_in(headers={name: "192.0.2.77"}))


def test_behind_our_proxy_every_client_has_its_own_count(
    cast: Cast, rate: Any, settings: Settings
) -> None:
    rate(LOGIN_ADDRESS=2)
    settings.TRUSTED_PROXIES = networks("10.0.0.0/8")

    def through(client: str, password: str) -> HttpResponse:
        headers = {"X-Forwarded-For": f"192.0.2.99, {client}"}
        return log_in(NOBODY, password, "10.1.2.3", headers=headers)

    for client in (HERE, ELSEWHERE):
        assert [through(client, WRONG).status_code for _ in range(3)] == [401, 401, 429]


def test_a_household_cannot_use_all_the_addresses_of_its_network(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ADDRESS=3)
    for number in range(3):
        fail(1, f"somebody-{number}@example.com", f"2001:db8:1:2::{number:x}")
    assert_limited(log_in(address="2001:db8:1:2:ffff:ffff:ffff:ffff"))
    assert log_in(address="2001:db8:1:3::1").status_code == 200


# Windows


def test_a_window_ends_and_the_next_one_is_whole(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    fail(3)
    assert_limited(log_in())
    end_windows()
    fail(3)
    assert assert_limited(log_in()) > 890


def test_tries_beyond_the_limit_do_not_lengthen_the_window(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    fail(3)
    ends = list(RateLimitWindow.objects.order_by("id").values_list("ends_at", flat=True))
    for _ in range(3):
        assert_limited(log_in())
    assert list(RateLimitWindow.objects.order_by("id").values_list("ends_at", flat=True)) == ends


def test_a_success_does_not_lengthen_the_window_either(cast: Cast) -> None:
    fail(2)
    ends = set(RateLimitWindow.objects.values_list("ends_at", flat=True))
    assert log_in().status_code == 200
    assert set(RateLimitWindow.objects.values_list("ends_at", flat=True)) == ends


def test_who_comes_back_when_told_to_is_let_in(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3, LOGIN_ADDRESS=3)
    fail(3)
    windows = RateLimitWindow.objects.order_by("name")
    assert [window.name for window in windows] == ["LOGIN_ACCOUNT", "LOGIN_ADDRESS"]
    now = database_now()
    for window, left in zip(windows, (100.5, 200.5), strict=True):
        window.ends_at = now + timedelta(seconds=left)
        window.save()
    # Rounded up: not a second too early.
    wait = assert_limited(log_in())
    assert wait in {200, 201}
    RateLimitWindow.objects.update(ends_at=F("ends_at") - timedelta(seconds=wait))
    assert log_in().status_code == 200


def test_in_the_last_moment_of_a_window_a_second_is_told(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    fail(3)
    RateLimitWindow.objects.update(ends_at=database_now() + timedelta(milliseconds=900))
    assert assert_limited(log_in()) == 1


def test_the_databases_clock_decides_and_no_workers(cast: Cast, rate: Any) -> None:
    rate(LOGIN_ACCOUNT=3)
    fail(3)
    for days in (-2, 2):
        with time_machine.travel(datetime.now() + timedelta(days=days)):
            assert_limited(log_in())


# Races


@contextmanager
def many_slots(settings: Settings, count: int) -> Iterator[None]:
    """Lets so many requests of this process hash or wait for it, half of them of one address."""
    usual = settings.HASHING_SLOTS
    settings.HASHING_SLOTS = count
    hashing._hashers_of.cache_clear()
    try:
        yield
    finally:
        settings.HASHING_SLOTS = usual
        hashing._hashers_of.cache_clear()


def outcome_of(*subjects: Subject) -> str:
    try:
        ratelimits.guess(*subjects)
    except Throttled:
        return "limited"
    return "let through"


@pytest.mark.django_db(transaction=True)
def test_of_32_parallel_guesses_exactly_the_limit_is_let_through(rate: Any) -> None:
    rate(LOGIN_ACCOUNT=10)
    for turn in range(5):
        subject = Subject("LOGIN_ACCOUNT", f"{turn}@example.com")
        outcomes = at_once(*[lambda s=subject: outcome_of(s) for _ in range(32)])
        assert (outcomes.count("let through"), outcomes.count("limited")) == (10, 22)
    assert set(RateLimitWindow.objects.values_list("count", flat=True)) == {32}


@pytest.mark.django_db(transaction=True)
def test_at_the_turn_of_a_window_no_more_than_the_limit_is_let_through(rate: Any) -> None:
    rate(LOGIN_ACCOUNT=10)
    subject = Subject("LOGIN_ACCOUNT", PARENT)
    for _ in range(5):
        end_windows()
        outcomes = at_once(*[lambda: outcome_of(subject) for _ in range(24)])
        assert outcomes.count("let through") == 10


@pytest.mark.django_db(transaction=True)
def test_of_parallel_log_ins_exactly_the_limit_is_evaluated(
    cast: Cast, rate: Any, settings: Settings
) -> None:
    rate(LOGIN_ACCOUNT=5)
    with many_slots(settings, 2 * 20):
        answers = at_once(*[lambda: log_in(password=WRONG).status_code for _ in range(20)])
    assert sorted(answers) == [401] * 5 + [429] * 15
    assert_limited(log_in())


@pytest.mark.django_db(transaction=True)
def test_guesses_and_successes_that_cross_each_other_do_not_deadlock(rate: Any) -> None:
    """Whatever the order in which the subjects are named."""
    rate(LOGIN_ACCOUNT=10_000, LOGIN_ADDRESS=10_000)
    one = Subject("LOGIN_ACCOUNT", PARENT)
    other = Subject("LOGIN_ADDRESS", HERE, is_known=False)

    def guess_often(*subjects: Subject) -> None:
        for _ in range(25):
            ratelimits.guess(*subjects)

    def succeed_often(*subjects: Subject) -> None:
        for _ in range(25):
            ratelimits.guess(*subjects).succeeded()

    at_once(
        *[lambda: guess_often(one, other), lambda: guess_often(other, one)] * 2,
        *[lambda: succeed_often(one, other), lambda: succeed_often(other, one)] * 2,
    )
    # Every success took its own try of the address back, and none of a failure's.
    assert RateLimitWindow.objects.get(name="LOGIN_ADDRESS").count == 100


@pytest.mark.django_db(transaction=True)
def test_a_log_in_that_finds_no_place_to_hash_is_no_guess(cast: Cast) -> None:
    slots = hashing._hashers().slots
    taken = 0
    try:
        while slots.acquire(blocking=False):
            taken += 1
        for answer in (
            log_in(),
            cast.phone.post(RESET, {"password": PASSWORD, "new_pin": PIN}),
        ):
            assert_problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
    finally:
        for _ in range(taken):
            slots.release()
    assert taken == django_settings.HASHING_SLOTS
    assert not RateLimitWindow.objects.exists()
    assert log_in().status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_limited_log_in_hashes_nothing_and_gives_its_place_back(
    cast: Cast, rate: Any, settings: Settings
) -> None:
    """With every hashing thread busy it is answered all the same, as often as it comes."""
    rate(LOGIN_ACCOUNT=2)
    fail(2)
    with many_slots(settings, 3), ThreadPoolExecutor(1) as pool:
        busy, done = threading.Event(), threading.Event()

        def hold_the_turn() -> None:
            with hashing.turn():
                busy.set()
                assert done.wait(30)

        holding = pool.submit(hold_the_turn)
        assert busy.wait(10)
        try:
            for _ in range(8):
                assert_limited(log_in())
        finally:
            done.set()
        holding.result(timeout=10)


# What is stored


def test_no_email_and_no_address_is_stored(cast: Cast) -> None:
    fail(1)
    fail(1, NOBODY, "2001:db8:1:2::3")
    cast.phone.post(RESET, {"password": WRONG, "new_pin": PIN})
    with connection.cursor() as cursor:
        cursor.execute("SELECT w::text, w.subject FROM rate_limit_windows AS w")
        rows = cursor.fetchall()
    assert len(rows) == 6
    plain = [PARENT, NOBODY, HERE, "2001:db8:1:2::3", "2001:db8:1:2::/64", str(cast.parent.id)]
    for row, subject in rows:
        assert len(subject) == 32
        for value in plain:
            raw = value.encode()
            assert value not in row
            assert raw.hex() not in row
            # Nor what anybody could make of it who knows no secret.
            for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5, hashlib.blake2b):
                assert bytes(subject) != digest(raw).digest()[:32]


@pytest.mark.django_db
def test_what_is_stored_depends_on_a_secret_and_on_the_limit(settings: Settings) -> None:
    keys = [Subject(limit, PARENT).key for limit in ("LOGIN_ACCOUNT", "PIN_RESET")]
    settings.SECRET_KEY = "another-secret-of-the-admin-0123456789-abcdefghij"
    keys += [Subject(limit, PARENT).key for limit in ("LOGIN_ACCOUNT", "PIN_RESET")]
    assert len(set(keys)) == 4


# Switched off


def test_switched_off_nothing_is_limited_or_stored(cast: Cast, settings: Settings) -> None:
    settings.RATELIMIT_ENABLED = False
    fail(12)
    assert log_in().status_code == 200
    for _ in range(6):
        answer = cast.phone.post(RESET, {"password": WRONG, "new_pin": PIN})
        assert_problem(answer, 403, "incorrect_password")
    answer = cast.phone.post(RESET, {"password": PASSWORD, "new_pin": PIN})
    assert answer.status_code == 200
    assert not RateLimitWindow.objects.exists()


# Another PIN for the password


def reset(device: Device, password: str, address: str = HERE) -> HttpResponse:
    body = {"password": password, "new_pin": "2580"}
    return device.send("POST", RESET, body, REMOTE_ADDR=address)


def test_after_five_wrong_passwords_a_pin_is_not_reset_for_the_right_one(cast: Cast) -> None:
    set_pin(cast.parent)
    for address in (HERE, ELSEWHERE, HERE, ELSEWHERE, HERE):
        assert_problem(reset(cast.phone, WRONG, address), 403, "incorrect_password")
    for password in (PASSWORD, WRONG):
        assert 1790 <= assert_limited(reset(cast.phone, password), 1800) <= 1800
    verify = cast.phone.post("/parental-controls/pin/verify", {"pin": PIN})
    assert verify.status_code == 200
    # Neither logging in nor another household is limited by that.
    assert log_in().status_code == 200
    assert reset(cast.foreign_phone, PASSWORD).status_code == 200
    end_windows()
    assert reset(cast.phone, PASSWORD).status_code == 200


def test_a_reset_with_the_right_password_starts_the_count_afresh(cast: Cast, rate: Any) -> None:
    rate(PIN_RESET=2)
    for _ in range(2):
        assert_problem(reset(cast.phone, WRONG), 403, "incorrect_password")
        assert reset(cast.phone, PASSWORD).status_code == 200


def test_resets_are_limited_by_address_too(cast: Cast, rate: Any) -> None:
    rate(PIN_RESET_ADDRESS=2)
    for device in (cast.phone, cast.foreign_phone):
        assert_problem(reset(device, WRONG), 403, "incorrect_password")
    assert_limited(reset(cast.phone, PASSWORD))
    assert reset(cast.phone, PASSWORD, ELSEWHERE).status_code == 200


# Whose address it is


def networks(text: str) -> list[Any]:
    """As the settings read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUSTED_PROXIES", text)
        return list(_networks("TRUSTED_PROXIES"))


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "expected"),
    [
        # Nobody is believed who is not ours.
        ("198.51.100.7", None, "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "10.0.0.0/8", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9", "", "127.0.0.1"),
        # Our proxy is, for what it added itself.
        ("10.0.0.1", "203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("10.0.0.2", "203.0.113.9", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.9, 203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 192.168.0.1", "10.0.0.0/8, 192.168.0.1", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9 ,\t10.0.0.2 ", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9,10.0.0.2", "10.0.0.0/8", "203.0.113.9"),
        # Who is inside comes from inside.
        ("10.0.0.1", "10.0.0.9", "10.0.0.0/8", "10.0.0.9"),
        ("10.0.0.1", None, "10.0.0.0/8", "10.0.0.1"),
        # What is no address ends the trail: nothing before it is believed.
        ("10.0.0.1", "", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, garbage, 10.0.0.2", "10.0.0.0/8", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9,", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:999999", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:443:443", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "010.1.1.1", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9\x00", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "\xb9.2.3.4", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "," * 5000, "10.0.0.0/8", "10.0.0.1"),
        # Of IPv6 the network, and IPv4 in its clothes is IPv4.
        ("2001:db8:1:2:3:4:5:6", None, "", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", None, "", "2001:db8:1:2::/64"),
        ("::1", "2001:db8:1:2::9", "::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", None, "", "fe80::/64"),
        ("::ffff:198.51.100.7", None, "", "198.51.100.7"),
        ("::ffff:c633:6407", None, "", "198.51.100.7"),
        ("::ffff:10.0.0.1", "203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2", "10.0.0.0/8", "203.0.113.9"),
        # Some proxies write a port, and IPv6 in brackets.
        ("10.0.0.1", "203.0.113.9:443", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2:8080", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]", "10.0.0.0/8", "2001:db8::/64"),
        ("10.0.0.1", "[2001:db8::1]:443", "10.0.0.0/8", "2001:db8::/64"),
        ("10.0.0.1", "[::ffff:203.0.113.9]:443", "10.0.0.0/8", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1", "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", "[]:443", "10.0.0.0/8", "10.0.0.1"),
        ("198.51.100.7:443", None, "", "unknown"),
        # A socket of the file system has none.
        ("", "203.0.113.9", "10.0.0.0/8", "unknown"),
        ("nonsense", "203.0.113.9", "0.0.0.0/0", "unknown"),
    ],
)
def test_the_address_is_the_last_one_that_our_proxies_vouch_for(
    settings: Settings, remote: str, forwarded: str | None, trusted: str, expected: str
) -> None:
    settings.TRUSTED_PROXIES = networks(trusted)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)
    assert ratelimits.client_address(request) == expected


def test_a_request_without_any_address_has_one_for_its_count(settings: Settings) -> None:
    request = RequestFactory().get("/")
    del request.META["REMOTE_ADDR"]
    assert ratelimits.client_address(request) == "unknown"
