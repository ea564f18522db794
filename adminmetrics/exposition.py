"""The metrics of one instance in Prometheus' text format.

An instance tells what it counted itself, all workers together, so that whoever scrapes every
instance sums them. The library is used for the format alone: it counts nothing here.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adminmetrics import histograms, recorder
from adminmetrics.queries import Figures, Service

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Buckets whose edges are told: twelve a decade from 100 microseconds to 10 seconds, which are
#: exact edges of ours. Between two of them, a fifth apart, Prometheus interpolates.
_TOLD = range(histograms.PER_DECADE, 6 * histograms.PER_DECADE + 1, histograms.PER_DECADE // 12)

_COUNTERS = {
    recorder.HEARTBEATS: ("heartbeats", "Heartbeats that were answered."),
    recorder.HEARTBEAT_REQUESTS: (
        "heartbeat_requests",
        "Requests with heartbeats; a batch is one request.",
    ),
    recorder.HEARTBEAT_ROUND_TRIPS: (
        "heartbeat_round_trips",
        "Round trips to the database that heartbeats took.",
    ),
    recorder.HEARTBEATS_REFUSED: (
        "heartbeats_refused",
        "Heartbeats of batches that were refused, each by itself.",
    ),
    recorder.CONFIG_CACHE_HITS: ("config_cache_hits", "Configs found in the cache."),
    recorder.CONFIG_CACHE_MISSES: ("config_cache_misses", "Configs not found in the cache."),
    recorder.CONFIG_CACHE_INVALIDATIONS: (
        "config_cache_invalidations",
        "Configs taken out of the cache because they changed.",
    ),
    recorder.WEEKLY_REPORTS: ("weekly_reports", "Weekly reports that were made."),
    recorder.WEEKLY_REPORT_QUERIES: (
        "weekly_report_queries",
        "Queries that weekly reports took.",
    ),
    recorder.ERRORS: ("errors", "Answers of status 500, beats of batches included."),
    recorder.UNRECORDED: (
        "unrecorded",
        "Figures that could not be recorded: a fault of the service.",
    ),
}
_DURATIONS = {
    recorder.HEARTBEAT_SECONDS: (
        "heartbeat_duration_seconds",
        "How long each heartbeat waited for its answer.",
    ),
    recorder.WEEKLY_REPORT_SECONDS: (
        "weekly_report_duration_seconds",
        "How long weekly reports took.",
    ),
    recorder.HASH_WAIT_SECONDS: (
        "hash_wait_seconds",
        "How long requests waited for their turn to hash.",
    ),
}
_GAUGES = {
    recorder.HASHING_QUEUE: ("hashing_queue", "Requests that hash or wait for it."),
    recorder.HEARTBEAT_QUEUE: (
        "heartbeat_queue",
        "Heartbeats that wait for the statement that takes them.",
    ),
}


def text(figures: Figures, service: Service) -> bytes:
    """The figures of an instance, and what is alive of it, as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures, service))
    found: bytes = generate_latest(registry)
    return found


class _Collector(Collector):
    def __init__(self, figures: Figures, service: Service) -> None:
        self.figures = figures
        self.service = service

    def collect(self) -> Iterator[Metric]:
        for source, (name, about) in _COUNTERS.items():
            yield CounterMetricFamily(
                f"viewingtime_{name}", about, value=self.figures.count(source)
            )
        yield self._labelled(
            "heartbeat_verdicts", "Heartbeats by verdict.", "verdict", recorder.VERDICTS, "verdict_"
        )
        yield self._labelled(
            "pin_attempts",
            "PINs that were sent, by outcome.",
            "outcome",
            recorder.PIN_OUTCOMES,
            "pin_",
        )
        yield self._labelled(
            "refusals",
            "Requests answered with a problem, by its code.",
            "code",
            recorder.REFUSAL_CODES,
            "refused_",
        )
        for source, (name, about) in _DURATIONS.items():
            family = HistogramMetricFamily(f"viewingtime_{name}", about)
            found = self.figures.sum_of(source)
            family.add_metric(
                [],
                _cumulated(self.figures.histograms.get(source, {}), found.count),
                found.total / 1e6,
            )
            yield family
        for source, (name, about) in _GAUGES.items():
            value = self.service.gauges.get(source, 0)
            yield GaugeMetricFamily(f"viewingtime_{name}", about, value=value)
        yield GaugeMetricFamily(
            "viewingtime_workers", "Processes that count.", value=self.service.workers
        )
        yield GaugeMetricFamily(
            "viewingtime_uptime_seconds",
            "For how long some process of the service was always there.",
            value=self.service.uptime_seconds,
        )

    def _labelled(
        self, name: str, about: str, label: str, values: tuple[str, ...], prefix: str
    ) -> Metric:
        family = CounterMetricFamily(f"viewingtime_{name}", about, labels=[label])
        for value in values:
            family.add_metric([value], self.figures.count(prefix + value))
        return family


def _cumulated(counts: Mapping[int, int], all_of_them: int) -> list[tuple[str, float]]:
    """How many were no longer than each edge that is told, and all of them."""
    told = [(f"{histograms.edge(b):.6g}", float(histograms.at_most(counts, b))) for b in _TOLD]
    return [*told, ("+Inf", float(all_of_them))]
