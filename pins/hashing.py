"""Slow hashes, off the request's way: few at a time, at low priority, and never a long queue.

bcrypt holds a core for tens of milliseconds. Here it runs in threads of the operating system's
(also where gunicorn's workers are greenlets, which a call into C would stop all at once), which
give way to every thread that serves requests. Each web process has `HASHING_THREADS` of them and
lets `HASHING_SLOTS` requests wait for one; whoever comes then is answered 503 at once. So hashing
takes neither the processor nor the worker's threads from heartbeats.
"""

import base64
import hmac
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from time import monotonic
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

import bcrypt
from django.conf import settings

from adminmetrics import recorder
from parentalcontrols.problems import unavailable

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a request waits for its turn, and then for its hash: where others take the whole
#: processor, an honest 503 is better than a queue that does not move.
_LONGEST_WAIT = 8.0

_has_slot: ContextVar[bool] = ContextVar("has_hashing_slot", default=False)
_has_turn: ContextVar[bool] = ContextVar("has_hashing_turn", default=False)


class _Hashers:
    """The threads of one process, and the places in their queue."""

    def __init__(self) -> None:
        self.slots = threading.BoundedSemaphore(settings.HASHING_SLOTS)
        self.owners: Counter[Hashable] = Counter()
        self.counting = threading.Lock()
        self.turns = threading.BoundedSemaphore(settings.HASHING_THREADS)
        self.threads = _native_threads(settings.HASHING_THREADS)

    def take(self, owner: Hashable) -> bool:
        """Takes a place at once, if there is one for that owner."""
        if not self.slots.acquire(blocking=False):
            return False
        with self.counting:
            is_free = owner is None or self.owners[owner] < max(1, settings.HASHING_SLOTS // 2)
            if is_free:
                self.owners[owner] += 1
                recorder.gauge(recorder.HASHING_QUEUE, self.owners.total())
        if not is_free:
            self.slots.release()
        return is_free

    def give_back(self, owner: Hashable) -> None:
        """Gives a place back that was taken."""
        with self.counting:
            self.owners[owner] -= 1
            if not self.owners[owner]:
                del self.owners[owner]
            recorder.gauge(recorder.HASHING_QUEUE, self.owners.total())
        self.slots.release()


def _native_threads(count: int) -> Executor:
    """Threads of the operating system's, whatever the worker class made of `threading`."""
    if "gevent" in sys.modules:
        from gevent.monkey import is_module_patched
        from gevent.threadpool import ThreadPoolExecutor as NativeThreadPoolExecutor

        if is_module_patched("threading"):
            return cast(Executor, NativeThreadPoolExecutor(count))
    return ThreadPoolExecutor(count, thread_name_prefix="hashing")


_making = threading.Lock()


@lru_cache(maxsize=1)
def _hashers_of(process_id: int) -> _Hashers:
    return _Hashers()


def _hashers() -> _Hashers:
    """Those of this process; threads do not survive a fork."""
    # A cache alone would let requests that race to be the first make one queue each.
    with _making:
        return _hashers_of(os.getpid())


@contextmanager
def slot(owner: Hashable = None) -> Iterator[None]:
    """A place among those who may hash; raises a 503 `Problem` at once where all are taken.

    An owner, an account or an address, gets half of them at most: nobody shuts all others out.
    Who has a slot keeps it: a slot inside a slot is the same one.
    """
    if _has_slot.get():
        yield
        return
    hashers = _hashers()
    if not hashers.take(owner):
        raise unavailable()
    token = _has_slot.set(True)
    try:
        yield
    finally:
        _has_slot.reset(token)
        hashers.give_back(owner)


@contextmanager
def turn() -> Iterator[None]:
    """A slot whose turn it is: as many as there are threads have one at a time."""
    if _has_turn.get():
        yield
        return
    with slot():
        turns = _hashers().turns
        asked = monotonic()
        has_turn = turns.acquire(timeout=_LONGEST_WAIT)
        recorder.observe(recorder.HASH_WAIT_SECONDS, monotonic() - asked)
        if not has_turn:
            raise unavailable()
        token = _has_turn.set(True)
        try:
            yield
        finally:
            _has_turn.reset(token)
            turns.release()


def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a slow function answers, called in a hashing thread; the caller waits meanwhile.

    Raises a 503 `Problem` where the thread does not get the processor in time.
    """
    with turn():
        future = _hashers().threads.submit(_giving_way, partial(function, *args, **kwargs))
        try:
            return future.result(timeout=_LONGEST_WAIT)
        except TimeoutError:
            future.cancel()
            raise unavailable() from None


def _giving_way(call: Callable[[], T]) -> T:
    if sys.platform == "linux":
        # Linux schedules threads, and takes a thread's id here (sched(7), "The nice value"). None
        # is ever lowered, which only root may: the service may be started by `nice` itself.
        thread = threading.get_native_id()
        with suppress(OSError):
            niceness = max(settings.HASHING_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
    return call()


def hash_pin(account_id: UUID, pin: str) -> str:
    """A PIN as it is stored."""
    return run(bcrypt.hashpw, _peppered(account_id, pin), _salt()).decode("ascii")


def matches(account_id: UUID, pin: str, pin_hash: str | None) -> bool:
    """Whether a PIN is the one that is stored; without one the same work is done for a False."""
    peppered = _peppered(account_id, pin)
    if pin_hash is None:
        run(bcrypt.hashpw, peppered, _salt())
        return False
    return run(bcrypt.checkpw, peppered, pin_hash.encode("ascii"))


def _salt() -> bytes:
    return bcrypt.gensalt(settings.PIN_BCRYPT_ROUNDS)


def _peppered(account_id: UUID, pin: str) -> bytes:
    """What bcrypt gets: four digits alone would fall to any leak of the table in seconds.

    Bound to the account, so that a hash is of no use in another one's row. Base64, because bcrypt
    ends at a NUL.
    """
    key = settings.PIN_PEPPER.encode()
    return base64.b64encode(hmac.digest(key, account_id.bytes + pin.encode(), "sha256"))
