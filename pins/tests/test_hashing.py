"""The hashing threads: who may hash, who is sent away, and that nobody else waits for them."""

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import bcrypt
import psutil
import psycopg
import pytest
import requests
from django.conf import settings as configured
from django.contrib.auth.hashers import check_password, make_password
from django.db import transaction
from django.http import HttpResponse

from parentalcontrols.models import Account
from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import PASSWORD, PIN, Cast, assert_problem, make_account, set_pin
from parentalcontrols.tests.cast import everything_stored as stored_now
from pins import hashing, verification
from pins.audit import OPERATOR
from pins.models import Pin
from pins.tests.service import LONG, Home, Service, database, gunicorn

WRONG, NEW = "0815", "2580"
#: bcrypt's cost for PINs that takes a core half a second.
SLOW_ROUNDS = "13"


class Queue:
    """The hashing queue of this process, made anew for each size."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def of(self, slots: int, threads: int = 1) -> None:
        self._settings.HASHING_SLOTS, self._settings.HASHING_THREADS = slots, threads
        hashing._hashers_of.cache_clear()

    @property
    def free_slots(self) -> int:
        """Taken, counted and given back."""
        slots = hashing._hashers().slots
        free = 0
        while slots.acquire(blocking=False):
            free += 1
        for _ in range(free):
            slots.release()
        return free


@pytest.fixture
def queue(settings: Any) -> Iterator[Queue]:
    yield Queue(settings)
    hashing._hashers_of.cache_clear()


@contextmanager
def hashing_meanwhile() -> Iterator[None]:
    """It is somebody else's turn, for as long as this lasts."""
    begun, may_end = threading.Event(), threading.Event()

    def linger() -> None:
        with hashing.turn():
            begun.set()
            assert may_end.wait(LONG)

    with ThreadPoolExecutor(1) as pool:
        lingering = pool.submit(linger)
        assert begun.wait(LONG)
        try:
            yield
        finally:
            may_end.set()
            lingering.result(LONG)


class Hashes:
    """Counts the hashes that are made, and tells in which threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        for name in ("hashpw", "checkpw"):
            monkeypatch.setattr(bcrypt, name, self._counting(getattr(bcrypt, name)))

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            self.threads.append(threading.get_native_id())
            return function(*arguments)

        return count

    def __len__(self) -> int:
        return len(self.threads)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Hashes:
    return Hashes(monkeypatch)


def verify(cast: Cast, pin: str) -> HttpResponse:
    return cast.phone.post("/parental-controls/pin/verify", {"pin": pin})


def grant_path(cast: Cast) -> str:
    return f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant"


# A place in the queue


def test_a_full_queue_sends_everybody_away_at_once_and_spends_no_try(
    cast: Cast, queue: Queue
) -> None:
    set_pin(cast.parent)
    queue.of(slots=1)
    stored = stored_now()
    log_in = {"email": cast.parent.email, "password": PASSWORD}
    with hashing_meanwhile():
        # None of these can wait: who hashes goes on until all are answered.
        for answer in (
            verify(cast, PIN),
            verify(cast, WRONG),
            cast.child_tv.post("/parental-controls/pin/verify", {"pin": WRONG}),
            cast.phone.post("/parental-controls/pin", {"new_pin": NEW, "current_pin": WRONG}),
            cast.foreign_phone.post("/parental-controls/pin", {"new_pin": NEW}),
            cast.phone.post(grant_path(cast), {"minutes": 15, "pin": WRONG}),
            cast.child_tv.post(grant_path(cast), {"minutes": 15, "pin": PIN}),
            cast.phone.post("/parental-controls/pin/reset", {"password": "x", "new_pin": NEW}),
            cast.anonymous.post("/auth/login", log_in),
            cast.anonymous.post("/auth/login", {**log_in, "password": "not-the-password"}),
            cast.anonymous.post("/auth/register", {**log_in, "email": "new@example.com"}),
        ):
            document = assert_problem(answer, 503, "unavailable")
            assert "enforcement" not in document
            assert int(answer.headers["Retry-After"]) > 0
        assert stored_now() == stored
    assert verify(cast, PIN).status_code == 200


def test_a_full_queue_leaves_everything_alone_that_needs_no_hash(cast: Cast, queue: Queue) -> None:
    queue.of(slots=1)
    with hashing_meanwhile():
        assert cast.child_tv.beat(cast.child, cast.cartoon)["enforcement"] == "allowed"
        assert cast.phone.get("/parental-controls/pin/status").status_code == 200
        assert cast.phone.post(grant_path(cast), {"minutes": 15}).status_code == 200


def test_a_locked_pin_is_refused_as_such_by_a_full_queue_too(cast: Cast, queue: Queue) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast, WRONG)
    queue.of(slots=1)
    with hashing_meanwhile():
        assert_problem(verify(cast, PIN), 403, "pin_locked")


def test_nobody_takes_more_than_half_of_the_places(queue: Queue) -> None:
    queue.of(slots=6)
    mine, theirs = uuid4(), uuid4()

    def places(owner: object, most: int) -> int:
        """How many places an owner gets at a time, who asks in contexts of their own."""
        found = 0
        for _ in range(most):
            with suppress(Problem):
                context = contextvars.Context()
                held.enter_context(in_context(context, owner))
                found += 1
        return found

    with ExitStack() as held:
        assert places(mine, 6) == 3
        assert places(theirs, 2) == 2
        assert places(mine, 1) == 0
        assert queue.free_slots == 1
        assert places(None, 6) == 1
    assert queue.free_slots == 6
    with ExitStack() as held:
        assert places(mine, 6) == 3


@contextmanager
def in_context(context: contextvars.Context, owner: object) -> Iterator[None]:
    """A place that somebody takes in a context of their own, as every request has one."""
    place = hashing.slot(owner)
    context.run(place.__enter__)
    try:
        yield
    finally:
        context.run(place.__exit__, None, None, None)


def test_an_account_that_is_flooded_shuts_no_other_out(cast: Cast, queue: Queue) -> None:
    set_pin(cast.parent)
    set_pin(cast.outsider)
    queue.of(slots=2, threads=2)
    with in_context(contextvars.Context(), cast.parent.id):
        assert_problem(verify(cast, PIN), 503, "unavailable")
        theirs = cast.foreign_phone.post("/parental-controls/pin/verify", {"pin": PIN})
        assert theirs.status_code == 200
    assert verify(cast, PIN).status_code == 200


def test_who_has_a_place_but_no_turn_in_time_is_sent_away_and_spends_no_try(
    cast: Cast, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_pin(cast.parent)
    queue.of(slots=4)
    monkeypatch.setattr(hashing, "_LONGEST_WAIT", 0.01)
    with hashing_meanwhile():
        for _ in range(8):
            assert_problem(verify(cast, WRONG), 503, "unavailable")
        assert queue.free_slots == 3
    assert queue.free_slots == 4
    assert Pin.objects.get().attempts_reserved == 0


def test_a_request_waits_for_its_turn_while_places_are_left(cast: Cast, queue: Queue) -> None:
    queue.of(slots=2)
    with ThreadPoolExecutor(1) as pool:
        with hashing_meanwhile():
            waiting = pool.submit(hashing.run, os.getpid)
            assert wait_until(lambda: queue.free_slots == 0, LONG)
            assert not waiting.done()
        assert waiting.result(LONG) == os.getpid()


def test_places_are_given_back_after_errors(queue: Queue) -> None:
    queue.of(slots=2)

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            hashing.run(fail)
        with pytest.raises(ZeroDivisionError), hashing.slot(), hashing.turn():
            fail()
    assert queue.free_slots == 2
    assert hashing.run(os.getpid) == os.getpid()


@pytest.mark.django_db(transaction=True)
def test_places_are_given_back_after_every_refusal(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "LEAST_SECONDS", 0.0)
    queue.of(slots=2)
    account = make_account("parent@example.com")
    for pin in (PIN, None):
        with pytest.raises(RuntimeError), transaction.atomic():
            verification.check(account.id, WRONG, actor=OPERATOR)
        for _ in range(7):
            with pytest.raises(Problem):
                verification.check(account.id, WRONG, actor=OPERATOR)
        assert queue.free_slots == 2
        if pin is not None:
            set_pin(account)


def test_a_place_inside_a_place_is_the_same_one(queue: Queue) -> None:
    queue.of(slots=1)
    with hashing.slot(), hashing.slot():
        with hashing.turn(), hashing.turn(), hashing.slot():
            assert queue.free_slots == 0
            assert hashing.run(os.getpid) == os.getpid()
        assert queue.free_slots == 0
    assert queue.free_slots == 1


def test_a_waiting_attempt_keeps_its_place_until_it_is_answered(cast: Cast, queue: Queue) -> None:
    """Who pauses to take as long as any other is one of those who keep a thread busy."""
    set_pin(cast.parent)
    queue.of(slots=1)
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: seen.append(queue.free_slots))
        verify(cast, PIN)
    assert seen == [0]


def test_racing_first_requests_of_a_process_share_one_queue(queue: Queue) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            queue.of(slots=2)
            barrier = threading.Barrier(8)

            def first(barrier: threading.Barrier = barrier) -> int:
                barrier.wait(LONG)
                return id(hashing._hashers())

            with ThreadPoolExecutor(8) as pool:
                assert len({f.result(LONG) for f in [pool.submit(first) for _ in range(8)]}) == 1
    finally:
        sys.setswitchinterval(interval)


# What runs where


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority on Linux alone")
def test_a_hashing_thread_gives_way_and_the_caller_does_not(queue: Queue, settings: Any) -> None:
    settings.HASHING_NICENESS = 7
    queue.of(slots=1)
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def niceness() -> tuple[int, int]:
        return threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)

    thread, nice = hashing.run(niceness)
    assert thread != threading.get_native_id()
    assert nice == 7
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority on Linux alone")
def test_a_thread_that_gives_way_further_already_is_left_as_it_is(
    queue: Queue, settings: Any
) -> None:
    """Only root may raise a priority: a service started by `nice` is no reason to fail."""
    queue.of(slots=1)
    settings.HASHING_NICENESS = 19
    hashing.run(os.getpid)
    settings.HASHING_NICENESS = 5
    assert hashing.run(os.getpriority, os.PRIO_PROCESS, 0) == 19


def test_pins_and_passwords_are_hashed_in_hashing_threads_alone(
    queue: Queue, hashes: Hashes
) -> None:
    queue.of(slots=1)
    thread = hashing.run(threading.get_native_id)
    assert thread != threading.get_native_id()
    account = Account(email="parent@example.com")
    account.set_password(PASSWORD)
    assert account.check_password(PASSWORD)
    assert not account.check_password("not-the-password")
    assert check_password(PASSWORD, make_password(PASSWORD))
    assert len(hashes) == 5
    pin_hash = hashing.hash_pin(account.id, PIN)
    assert hashing.matches(account.id, PIN, pin_hash)
    assert not hashing.matches(account.id, PIN, None)
    assert len(hashes) == 8
    assert set(hashes.threads) == {thread}


def test_no_more_hashes_run_at_a_time_than_there_are_threads(queue: Queue) -> None:
    queue.of(slots=12, threads=3)
    running, most = 0, 0
    lock, all_running = threading.Lock(), threading.Barrier(3)

    def watch() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_running.wait(LONG)
        with lock:
            running -= 1

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(hashing.run, watch) for _ in range(12)]:
            future.result(LONG)
    assert most == 3


# What is hashed


def test_a_pin_matches_its_hash_and_no_other_pin_does(queue: Queue) -> None:
    account_id = uuid4()
    pin_hash = hashing.hash_pin(account_id, PIN)
    right = [n for n in range(0, 10_000, 7) if hashing.matches(account_id, f"{n:04}", pin_hash)]
    assert right == [int(PIN)]


def test_equal_pins_have_different_hashes() -> None:
    account_id = uuid4()
    assert hashing.hash_pin(account_id, PIN) != hashing.hash_pin(account_id, PIN)


def test_a_hash_is_worth_nothing_in_another_accounts_row() -> None:
    mine, theirs = uuid4(), uuid4()
    pin_hash = hashing.hash_pin(mine, PIN)
    assert hashing.matches(mine, PIN, pin_hash)
    assert not hashing.matches(theirs, PIN, pin_hash)


def test_a_hash_is_worth_nothing_without_the_pepper(settings: Any) -> None:
    account_id = uuid4()
    pin_hash = hashing.hash_pin(account_id, PIN)
    settings.PIN_PEPPER = configured.PIN_PEPPER + "x"
    assert not hashing.matches(account_id, PIN, pin_hash)
    plain = pin_hash.encode()
    assert not bcrypt.checkpw(PIN.encode(), plain)
    assert not bcrypt.checkpw(account_id.bytes.replace(b"\0", b"") + PIN.encode(), plain)


def test_the_cost_is_the_settings(settings: Any) -> None:
    settings.PIN_BCRYPT_ROUNDS = 5
    assert hashing.hash_pin(uuid4(), PIN).startswith("$2b$05$")
    settings.PASSWORD_BCRYPT_ROUNDS = 6
    assert "$2b$06$" in make_password(PASSWORD)


# Time that tells nothing


@pytest.mark.parametrize("pin", [PIN, WRONG])
@pytest.mark.parametrize("has_pin", [True, False], ids=["set", "unset"])
def test_right_wrong_and_unset_each_cost_one_hash_and_the_same_least_time(
    cast: Cast, hashes: Hashes, has_pin: bool, pin: str
) -> None:
    if has_pin:
        set_pin(cast.parent)
    attempts = [
        lambda: verify(cast, pin),
        lambda: cast.child_tv.post(grant_path(cast), {"minutes": 15, "pin": pin}),
    ]
    for attempt in attempts:
        hashes.threads.clear()
        began = time.monotonic()
        answer = attempt()
        assert time.monotonic() - began >= verification.LEAST_SECONDS
        assert answer.status_code == (400 if not has_pin else 200 if pin == PIN else 403)
        assert len(hashes) == 1


def test_a_wrong_current_pin_costs_one_hash_and_the_least_time(cast: Cast, hashes: Hashes) -> None:
    set_pin(cast.parent)
    hashes.threads.clear()
    began = time.monotonic()
    answer = cast.phone.post("/parental-controls/pin", {"new_pin": NEW, "current_pin": WRONG})
    assert time.monotonic() - began >= verification.LEAST_SECONDS
    assert_problem(answer, 403, "incorrect_pin")
    assert len(hashes) == 1


@pytest.mark.parametrize("password", [PASSWORD, "not-the-password"])
def test_a_reset_takes_the_same_least_time_with_any_password(cast: Cast, password: str) -> None:
    began = time.monotonic()
    cast.phone.post("/parental-controls/pin/reset", {"password": password, "new_pin": NEW})
    assert time.monotonic() - began >= verification.LEAST_SECONDS


def test_a_locked_pin_costs_no_hash(cast: Cast, hashes: Hashes) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        verify(cast, WRONG)
    hashes.threads.clear()
    assert_problem(verify(cast, PIN), 403, "pin_locked")
    assert len(hashes) == 0


# Real servers


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


class SlowHome:
    """A household whose PIN takes long to check."""

    def __init__(self, service: Service, database_url: str) -> None:
        self.service, self.database_url = service, database_url
        self.home = Home.made_by(service, database_url)
        self.home.set_pin(service, PIN)
        assert self.home.beat(service).status_code == 200

    def verify(self) -> requests.Response:
        body = {"pin": PIN}
        return self.service.post("/parental-controls/pin/verify", body, self.home.child_tv)

    def attempts(self) -> tuple[int, int]:
        """How many attempts were reserved, and how many were cleared."""
        asked = (
            "SELECT attempts_reserved, attempts_cleared FROM pins "
            "WHERE account_id = (SELECT account_id FROM profiles WHERE id = %s)"
        )
        with psycopg.connect(self.database_url) as connection:
            found: tuple[int, int] | None = connection.execute(asked, [self.home.child]).fetchone()
        assert found is not None
        return found

    def is_under_way(self) -> bool:
        return self.attempts() == (1, 0)


def nice_values(process: psutil.Process) -> list[int]:
    """How far each thread of a process gives way, its first one first (proc_pid_stat(5))."""
    tasks = sorted(Path(f"/proc/{process.pid}/task").iterdir(), key=lambda task: int(task.name))
    return [int((task / "stat").read_text().rpartition(")")[2].split()[16]) for task in tasks]


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_a_hash_stalls_no_other_request_of_its_worker(database_url: str, worker_class: str) -> None:
    environment = {"WORKERS": "1", "PIN_BCRYPT_ROUNDS": SLOW_ROUNDS, "HASHING_NICENESS": "1"}
    with gunicorn(database_url, **environment, WORKER_CLASS=worker_class) as service:
        slow = SlowHome(service, database_url)
        with ThreadPoolExecutor(1) as pool:
            hashed = pool.submit(slow.verify)
            assert wait_until(slow.is_under_way, LONG)
            # More than one of each: one could have slipped in before the hash began.
            for _ in range(3):
                assert service.livez().status_code == 200
                assert slow.home.beat(service).json()["enforcement"] == "allowed"
            assert not hashed.done()
            # The hash was not over either, waiting for its least time or to be answered.
            assert slow.is_under_way()
            assert hashed.result(LONG).json()["verified"] is True
        assert slow.attempts() == (1, 1)
        if sys.platform == "linux":
            (worker,) = service.workers()
            first, *others = nice_values(worker)
            assert max(others) == max(first, 1)


def test_an_attempt_whose_process_dies_counts_as_a_failure(database_url: str) -> None:
    environment = {"WORKERS": "1", "PIN_BCRYPT_ROUNDS": SLOW_ROUNDS, "HASHING_NICENESS": "1"}
    with gunicorn(database_url, **environment) as service:
        slow = SlowHome(service, database_url)
        (worker,) = service.workers()
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(slow.verify)
            assert wait_until(slow.is_under_way, LONG)
            worker.kill()
            with pytest.raises(requests.ConnectionError):
                lost.result(LONG)
        assert wait_until(lambda: slow.service.workers() not in ([], [worker]), LONG)
        assert wait_until(service.is_ready, LONG)
        assert slow.attempts() == (1, 0)
