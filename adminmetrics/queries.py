"""What the metrics say: sums of all workers' roll-ups, in PostgreSQL. Nothing here writes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from django.db import connection

from adminmetrics import histograms, recorder, sql
from adminmetrics.models import Resolution

_ALL = [int(resolution) for resolution in Resolution]
_TIMED = [resolution for resolution in _ALL if resolution != Resolution.EVER]
_COARSER = [int(Resolution.HOUR), int(Resolution.DAY)]
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
#: After so long no hand-over of a minute arrives any more.
_SETTLED_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Source:
    """Whose figures are asked for; None: everybody's."""

    instance: str | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """What the roll-ups of one name add up to (`models.MetricRollup`)."""

    count: int = 0
    total: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums and histograms by name."""

    sums: Mapping[str, Sum]
    histograms: Mapping[str, Mapping[int, int]]

    def count(self, name: str) -> int:
        """How often something happened."""
        return self.sum_of(name).count

    def sum_of(self, name: str) -> Sum:
        return self.sums.get(name, Sum())

    def average_ms(self, name: str) -> float:
        """The mean of durations in milliseconds, 0 without any."""
        found = self.sum_of(name)
        return found.total / found.count / 1000 if found.count else 0.0

    def longest_ms(self, name: str) -> float:
        """The longest of durations in milliseconds, 0 without any."""
        return self.sum_of(name).most / 1000

    def quantile_ms(self, name: str, share: float) -> float:
        """A quantile of merged histograms in milliseconds, within 2.5 %; 0 without any.

        No longer than the longest, which is known exactly.
        """
        found = histograms.quantile(self.histograms.get(name, {}), share)
        return 0.0 if found is None else min(found * 1000, self.longest_ms(name))

    def ratio(self, part: str, whole: str) -> float:
        """How many of one to each of another, 0 where there is none of that."""
        return self.count(part) / self.count(whole) if self.count(whole) else 0.0

    @property
    def hit_rate(self) -> float:
        """Hits of the config cache to look-ups, 0 to 1."""
        hits = self.count(recorder.CONFIG_CACHE_HITS)
        asked = hits + self.count(recorder.CONFIG_CACHE_MISSES)
        return hits / asked if asked else 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """The service by its processes.

    `uptime_seconds`: for so long some process of it was always there. `as_of`: up to then every
    process that is alive has handed over its figures; None where there is none.
    """

    now: datetime
    uptime_seconds: float
    as_of: datetime | None
    workers: int
    gauges: Mapping[str, int]


def figures(*, since: datetime | None = None, source: Source | None = None) -> Figures:
    """Everything that was counted, or what was in the spans that began at `since` or later.

    Spans are minutes, hours after `METRICS_MINUTE_DAYS`, days after `METRICS_HOUR_DAYS`. What is
    older than `METRICS_DAY_DAYS` has no time any more: any `since` leaves it out.
    """
    asked = _parameters(
        resolutions=_ALL if since is None else _TIMED, since=since or _EARLIEST, source=source
    )
    return _ever(asked)


def of_instance(instance: str, *, now: datetime) -> Figures:
    """Everything that an instance ever counted; `now` by the database's clock.

    What was up to the last hour, or the one before, this process adds up once an hour.
    """
    hour = _settled_until(now)
    running = _ever(_parameters(resolutions=_ALL, since=hour, source=Source(instance)))
    return merged([_settled_figures(instance, hour), running])


def _settled_until(now: datetime) -> datetime:
    """An hour's start: what was before moves to coarser rows, and its sum stays the same."""
    return (now - _SETTLED_AFTER).replace(minute=0, second=0, microsecond=0)


# Those of the hours before are never asked for again, and make room.
@lru_cache(maxsize=64)
def _settled_figures(instance: str, hour: datetime) -> Figures:
    return _ever(_parameters(resolutions=_ALL, before=hour, source=Source(instance)))


def _ever(asked: dict[str, Any]) -> Figures:
    return _by_step(asked, names=recorder.DURATIONS).get(0, Figures({}, {}))


def series(
    *, since: datetime, step: int, source: Source | None = None, names: Iterable[str]
) -> dict[int, Figures]:
    """Figures by step of `step` seconds, whose keys are their starts in seconds since 1970.

    `names`: the histograms that are wanted.
    """
    return _by_step(
        _parameters(resolutions=_TIMED, since=since, source=source, step=step), names=names
    )


def _parameters(
    *,
    resolutions: list[int],
    since: datetime = _EARLIEST,
    before: datetime = _LATEST,
    source: Source | None,
    step: int | None = None,
) -> dict[str, Any]:
    return {
        "resolutions": resolutions,
        "since": since,
        "before": before,
        "step": step,
        **_narrowed(source),
    }


def _narrowed(source: Source | None) -> dict[str, str | None]:
    source = source or Source()
    return {"instance": source.instance, "worker": source.worker}


def _by_step(parameters: dict[str, Any], *, names: Iterable[str]) -> dict[int, Figures]:
    sums: dict[int, dict[str, Sum]] = defaultdict(dict)
    buckets: dict[int, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    with connection.cursor() as cursor:
        cursor.execute(sql.FIGURES, parameters | {"names": list(names)})
        for step, name, bucket, count, total, most in cursor.fetchall():
            if bucket is None:
                sums[step][name] = Sum(count, total, most)
            else:
                buckets[step][name][bucket] = count
    return {step: Figures(sums[step], buckets[step]) for step in sorted(sums)}


def merged(parts: Iterable[Figures]) -> Figures:
    """The figures of several steps together."""
    sums: dict[str, Sum] = {}
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for part in parts:
        for name, one in part.sums.items():
            so_far = sums.get(name, Sum())
            sums[name] = Sum(
                so_far.count + one.count, so_far.total + one.total, max(so_far.most, one.most)
            )
        for name, counts in part.histograms.items():
            for bucket, count in counts.items():
                found[name][bucket] += count
    return Figures(sums, found)


def total(name: str, *, instance: str | None = None, now: datetime) -> int:
    """How often something was counted, ever; `now` by the database's clock.

    What is settled is added up once an hour, as in `of_instance`.
    """
    hour = _settled_until(now)
    return _settled_count(name, instance, hour) + _count(name, instance, since=hour)


@lru_cache(maxsize=64)
def _settled_count(name: str, instance: str | None, hour: datetime) -> int:
    return _count(name, instance, before=hour)


def _count(
    name: str, instance: str | None, *, since: datetime = _EARLIEST, before: datetime = _LATEST
) -> int:
    asked: dict[str, Any] = {"name": name, "instance": instance}
    asked |= {"resolutions": _ALL, "since": since, "before": before}
    with connection.cursor() as cursor:
        cursor.execute(sql.TOTAL, asked)
        (count,) = cursor.fetchone()
    return int(count)


def service(*, instance: str | None = None) -> Service:
    """The service now, or one instance of it."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SERVICE, {"alive_seconds": sql.ALIVE_SECONDS, "instance": instance})
        now, uptime, as_of, workers, gauges = cursor.fetchone()
    return Service(now, uptime, as_of, workers, json.loads(gauges))


def sources(*, since: datetime, asked: Source | None = None) -> dict[str, list[str]]:
    """The instances that were heard of since then, each with its workers.

    Of very many workers the latest; the one that is asked for is never left out.
    """
    found: dict[str, list[str]] = defaultdict(list)
    parameters = {"since": since, "resolutions": _COARSER, **_narrowed(asked)}
    with connection.cursor() as cursor:
        cursor.execute(sql.SOURCES, parameters)
        for instance, worker in cursor.fetchall():
            found[instance] += [] if worker is None else [worker]
    return {instance: sorted(workers) for instance, workers in sorted(found.items())}
