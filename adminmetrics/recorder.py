"""What this process counted and measured since it started; `adminmetrics.rollup` hands it over.

Called on the path of requests, so nothing here waits, asks anybody or raises, and a call costs
well under two microseconds. There is no lock: every number is changed by one `place[key] += n` on
a dictionary, a list or a slot of built-in type. CPython changes threads at calls and backward
jumps alone, never within such a statement, so none is lost; a test of many threads holds it to
that. Numbers only grow; whoever hands them over remembers what was handed over before (`read`).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from adminmetrics import histograms

#: The event that tells of sampled beats, with profile_id, db_ops and duration_ms (T010, T022).
HEARTBEAT_EVENT = "heartbeat_processed"
logger = logging.getLogger(__name__)

# --- Names: counters ------------------------------------------------------------------------

HEARTBEATS = "heartbeats"
HEARTBEAT_REQUESTS = "heartbeat_requests"
HEARTBEAT_ROUND_TRIPS = "heartbeat_round_trips"
CONFIG_CACHE_HITS = "config_cache_hits"
CONFIG_CACHE_MISSES = "config_cache_misses"
CONFIG_CACHE_INVALIDATIONS = "config_cache_invalidations"
WEEKLY_REPORTS = "weekly_reports"
WEEKLY_REPORT_QUERIES = "weekly_report_queries"
#: Beats of a batch that were refused, each by itself: the batch was answered 200.
HEARTBEATS_REFUSED = "heartbeats_refused"
#: Answers of status 500, and beats of a batch that were answered with one.
ERRORS = "errors"
#: Calls of this module that it did not understand: an unknown name, or what is no number.
UNRECORDED = "unrecorded"

#: Verdicts by kind, as heartbeats answer them in `enforcement`.
VERDICTS = ("allowed", "warning_15", "warning_5", "blocked")
#: What became of a PIN that was sent. `locked`: a lock was in force; `busy`: nobody looked at it.
PIN_OUTCOMES = ("right", "wrong", "locked", "not_set", "busy")
#: Codes of problems (docs/api.md, "Errors"); any other is counted as `other`. What gunicorn refuses
#: before there is a request (`headers_too_large` and the like) is logged and not counted.
REFUSAL_CODES = (
    "bad_request",
    "body_too_large",
    "forbidden",
    "idempotency_key_reused",
    "incorrect_password",
    "incorrect_pin",
    "invalid",
    "malformed",
    "method_not_allowed",
    "not_a_kids_profile",
    "not_authenticated",
    "not_found",
    "parent_required",
    "pin_locked",
    "pin_not_set",
    "pin_required",
    "pin_token_invalid",
    "staff_account",
    "staff_required",
    "request_timeout",
    "too_many_requests",
    "unavailable",
    "unsupported_media_type",
    "wrong_login",
    "other",
)
_VERDICT, _PIN, _REFUSED = "verdict_", "pin_", "refused_"
COUNTERS = (
    HEARTBEATS,
    HEARTBEAT_REQUESTS,
    HEARTBEAT_ROUND_TRIPS,
    HEARTBEATS_REFUSED,
    CONFIG_CACHE_HITS,
    CONFIG_CACHE_MISSES,
    CONFIG_CACHE_INVALIDATIONS,
    WEEKLY_REPORTS,
    WEEKLY_REPORT_QUERIES,
    ERRORS,
    UNRECORDED,
    *(_VERDICT + kind for kind in VERDICTS),
    *(_PIN + outcome for outcome in PIN_OUTCOMES),
    *(_REFUSED + code for code in REFUSAL_CODES),
)

# --- Names: durations and gauges ------------------------------------------------------------

HEARTBEAT_SECONDS = "heartbeat_seconds"
WEEKLY_REPORT_SECONDS = "weekly_report_seconds"
#: How long requests waited for their turn to hash.
HASH_WAIT_SECONDS = "hash_wait_seconds"
DURATIONS = (HEARTBEAT_SECONDS, WEEKLY_REPORT_SECONDS, HASH_WAIT_SECONDS)

#: Requests that hash or wait for it, and beats that wait for the statement that takes them.
HASHING_QUEUE = "hashing_queue"
HEARTBEAT_QUEUE = "heartbeat_queue"
GAUGES = (HASHING_QUEUE, HEARTBEAT_QUEUE)

#: No request lasts longer; keeps nonsense out of the sums, in seconds.
_MOST_SECONDS = 86_400.0


class Durations:
    """The durations of one kind: how many in each bucket, their sum and the longest, in seconds."""

    __slots__ = ("buckets", "longest", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * histograms.SIZE
        self.seconds = 0.0
        self.longest = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything recorded up to an instant. Durations in microseconds."""

    counters: dict[str, int]
    buckets: dict[str, list[int]]
    microseconds: dict[str, int]
    gauges: dict[str, int]


_counters: dict[str, int] = {}
_durations: dict[str, Durations] = {}
_gauges: dict[str, int] = {}
_measures: dict[str, Callable[[], int]] = {}
_heartbeat = Durations()
_is_on: bool = settings.METRICS_ENABLED
_sample: int = settings.HEARTBEAT_LOG_SAMPLE
_until_line = 1


def reset(*, is_on: bool | None = None) -> None:
    """Forgets everything that was counted; `is_on` None: as the settings say.

    Who is asked whenever gauges are read (`measured`) stays: a queue registers once a process.
    """
    global _heartbeat, _is_on, _sample, _until_line  # noqa: PLW0603 - one for the process
    _counters.update(dict.fromkeys(COUNTERS, 0))
    _durations.update({name: Durations() for name in DURATIONS})
    _gauges.update(dict.fromkeys(GAUGES, 0))
    _heartbeat = _durations[HEARTBEAT_SECONDS]
    _is_on = settings.METRICS_ENABLED if is_on is None else is_on
    _sample = settings.HEARTBEAT_LOG_SAMPLE
    _until_line = 1


reset()


# --- Recording ------------------------------------------------------------------------------


def heartbeats(count: int, round_trips: int, seconds: float) -> None:
    """One request with so many beats, that asked the database so often and took so long.

    Its duration is that of each of its beats: so long each waited for its answer.
    """
    if not _is_on:
        return
    try:
        if not 0.0 <= seconds < _MOST_SECONDS:
            seconds = 0.0
        durations = _heartbeat
        durations.buckets[histograms.bucket_of(seconds)] += count
        durations.seconds += seconds * count
        durations.longest = max(durations.longest, seconds)
        _counters[HEARTBEATS] += count
        _counters[HEARTBEAT_REQUESTS] += 1
        _counters[HEARTBEAT_ROUND_TRIPS] += round_trips
    except Exception:  # whatever is wrong with a number must not break a request
        _counters[UNRECORDED] += 1


def count(name: str, n: int = 1) -> None:
    """Adds to a counter; a name that is not in `COUNTERS` counts as `UNRECORDED`."""
    if not _is_on:
        return
    try:
        _counters[name] += n
    except Exception:  # as above
        _counters[UNRECORDED] += 1


def observe(name: str, seconds: float) -> None:
    """Adds one duration to those of a name in `DURATIONS`."""
    if not _is_on:
        return
    try:
        if not 0.0 <= seconds < _MOST_SECONDS:
            seconds = 0.0
        durations = _durations[name]
        durations.buckets[histograms.bucket_of(seconds)] += 1
        durations.seconds += seconds
        durations.longest = max(durations.longest, seconds)
    except Exception:  # as above
        _counters[UNRECORDED] += 1


def gauge(name: str, value: int) -> None:
    """Says what a gauge of `GAUGES` stands at now."""
    if _is_on and name in _gauges:
        _gauges[name] = value
    else:
        count(UNRECORDED)


def measured(name: str, measure: Callable[[], int]) -> None:
    """Lets a gauge be asked for whenever it is read; `measure` must be quick, and not raise."""
    _measures[name] = measure


def verdict(enforcement: str, n: int = 1) -> None:
    """So many beats were answered with that `enforcement`."""
    count(_VERDICT + enforcement, n)


def pin(outcome: str) -> None:
    """A PIN was sent, with an outcome of `PIN_OUTCOMES`."""
    count(_PIN + outcome)


def refusal(status: int, code: str) -> None:
    """A request was answered with a problem."""
    if status == 500:
        count(ERRORS)
        return
    name = _REFUSED + code
    count(name if name in _counters else _REFUSED + "other")


def refused_in_batch(status: int) -> None:
    """A beat of a batch was answered with a problem of that status."""
    count(ERRORS if status == 500 else HEARTBEATS_REFUSED)


def weekly_report(queries: int, seconds: float) -> None:
    """A weekly report was made."""
    count(WEEKLY_REPORTS)
    count(WEEKLY_REPORT_QUERIES, queries)
    observe(WEEKLY_REPORT_SECONDS, seconds)


def log_heartbeats(profile_ids: Sequence[UUID], round_trips: int, seconds: float) -> None:
    """Logs one of `HEARTBEAT_LOG_SAMPLE` beats; 1 logs each, 0 none.

    `profile_ids`: one for each beat of a request, which took so many round trips and so long.
    """
    global _until_line  # noqa: PLW0603 - one for the process; which beats it picks does not matter
    left = _until_line - len(profile_ids)
    if left > 0 or not _sample:
        _until_line = max(left, 1)
        return
    for profile_id in profile_ids[_until_line - 1 :: _sample]:
        logger.info(
            HEARTBEAT_EVENT,
            extra={
                "profile_id": str(profile_id),
                "db_ops": round_trips,
                "duration_ms": round(seconds * 1000, 3),
            },
        )
    _until_line = _sample - (-left % _sample)


# --- Reading --------------------------------------------------------------------------------


def read() -> Reading:
    """Everything recorded so far; each number is a copy that grows no more."""
    return Reading(
        counters=dict(_counters),
        buckets={name: found.buckets[:] for name, found in _durations.items()},
        microseconds={name: round(found.seconds * 1e6) for name, found in _durations.items()},
        gauges=_gauges | {name: ask() for name, ask in _measures.items() if _is_on},
    )


def take_longest() -> Iterator[tuple[str, int]]:
    """The longest duration of each name since the last call, in microseconds."""
    for name, found in _durations.items():
        longest, found.longest = found.longest, 0.0
        yield name, round(longest * 1e6)
