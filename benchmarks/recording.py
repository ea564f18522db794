"""What recording costs a request: one call of each function of the recorder, on and off.

`python -m benchmarks.recording` prints a table; microseconds, the best of five rounds.
"""

import os
import timeit
from collections.abc import Callable

_SETTINGS = {
    "DATABASE_URL": "postgresql://nobody@localhost/none",
    "REDIS_URL": "redis://localhost/0",
    "ALLOWED_HOSTS": "localhost",
    "SECRET_KEY": "a-secret-that-is-only-for-this-benchmark-0123456789",
    "TOKEN_SIGNING_KEY": "another-secret-that-is-only-for-this-0123456789",
    "PIN_PEPPER": "a-third-secret-that-is-only-for-this-benchmark-012345",
    "DJANGO_SETTINGS_MODULE": "parentalcontrols.settings",
}
ROUNDS, CALLS = 5, 100_000


def microseconds(call: Callable[[], object]) -> float:
    """What one call costs."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    """Measures, and prints."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import django

    django.setup()
    from django.http import HttpResponse
    from django.test import RequestFactory

    from adminmetrics import recorder
    from parentalcontrols.request_ids import RequestIdMiddleware

    request = RequestFactory().get("/", headers={"X-Request-ID": "the-clients-own"})
    nameless = RequestFactory().get("/")
    response = HttpResponse()
    named = RequestIdMiddleware(lambda _: response)
    measured: dict[str, Callable[[], object]] = {
        "heartbeats": lambda: recorder.heartbeats(1, 1, 0.0042),
        "count": lambda: recorder.count(recorder.CONFIG_CACHE_HITS),
        "observe": lambda: recorder.observe(recorder.HASH_WAIT_SECONDS, 0.0042),
        "gauge": lambda: recorder.gauge(recorder.HASHING_QUEUE, 3),
        "verdict": lambda: recorder.verdict("allowed"),
    }
    print(f"{'':28}{'on':>8}{'off':>8}")
    for name, call in measured.items():
        recorder.reset(is_on=True)
        on = microseconds(call)
        recorder.reset(is_on=False)
        print(f"recorder.{name:19}{on:8.2f}{microseconds(call):8.2f}")
    print(f"{'request id, sent':28}{microseconds(lambda: named(request)):8.2f}")
    print(f"{'request id, made':28}{microseconds(lambda: named(nameless)):8.2f}")


if __name__ == "__main__":
    main()
