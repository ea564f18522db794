"""The endpoints of the metrics: JSON for staff, and Prometheus' text for whoever scrapes."""

import hmac
import ipaddress
import re
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from adminmetrics import exposition, queries, recorder, rollup
from adminmetrics.queries import Figures
from parentalcontrols import config_cache
from parentalcontrols.authentication import StaffOnly
from parentalcontrols.postgresql import deadline
from parentalcontrols.problems import Problem, invalid, not_found
from parentalcontrols.views import REQUEST_SECONDS, BoundedView

#: Headers by which a proxy in front is known: who asks through one is not on this host.
_FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
)


_is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
).fullmatch


_P95 = "95 of 100 took no longer, to within 2.5 %"
_P99 = "99 of 100 took no longer, to within 2.5 %"


class HeartbeatMetricsSerializer(serializers.Serializer[Any]):
    """Heartbeats; durations in milliseconds."""

    total_processed = serializers.IntegerField(help_text="beats that were answered")
    avg_db_ops_per_heartbeat = serializers.FloatField(help_text="round trips to the database")
    avg_duration_ms = serializers.FloatField(help_text="of a beat, as long as its request took")
    max_duration_ms = serializers.FloatField(help_text="the longest")
    p95_duration_ms = serializers.FloatField(help_text=_P95)
    p99_duration_ms = serializers.FloatField(help_text=_P99)


class ConfigCacheMetricsSerializer(serializers.Serializer[Any]):
    """The cache of viewing-time configs."""

    hit_rate = serializers.FloatField(
        min_value=0, max_value=1, help_text="hits over hits and misses"
    )
    total_hits = serializers.IntegerField(help_text="configs that the cache had")
    total_misses = serializers.IntegerField(help_text="configs that the database was asked for")
    total_invalidations = serializers.IntegerField(help_text="configs that were forgotten")
    current_size = serializers.IntegerField(
        allow_null=True, help_text="configs in the cache; null: it does not say"
    )
    max_size = serializers.IntegerField(help_text="how many configs it is made for")


class WeeklyReportMetricsSerializer(serializers.Serializer[Any]):
    """Weekly reports; durations in milliseconds."""

    total_generated = serializers.IntegerField(help_text="reports that were made")
    avg_db_ops = serializers.FloatField(help_text="queries of a report")
    p95_duration_ms = serializers.FloatField(help_text=_P95)
    p99_duration_ms = serializers.FloatField(help_text=_P99)


class MetricsSerializer(serializers.Serializer[Any]):
    """Figures of every process and host of the service."""

    uptime_seconds = serializers.FloatField(
        help_text="for so long some process of the service was always there"
    )
    as_of = serializers.DateTimeField(
        allow_null=True, help_text="up to then every process has handed over what it counted"
    )
    since = serializers.DateTimeField(allow_null=True, help_text="as asked for; null: all")
    heartbeat = HeartbeatMetricsSerializer()
    config_cache = ConfigCacheMetricsSerializer()
    weekly_report = WeeklyReportMetricsSerializer()


class AdminMetricsView(BoundedView):
    """Read what the service counted.

    Needs an account token of staff: others get 403 `staff_required`, a child's device
    `parent_required`. The figures are those of all processes and hosts; the one that answers hands
    over its own first.
    """

    permission_classes = (StaffOnly,)

    @extend_schema(
        operation_id="admin_metrics",
        parameters=[
            OpenApiParameter(
                "since", datetime, description="counts from then on; everything without it"
            )
        ],
        responses=MetricsSerializer,
    )
    def get(self, request: Request) -> Response:
        since = _read_instant(request.query_params.get("since"))
        rollup.hand_over_now()
        figures, service = queries.figures(since=since), queries.service()
        return Response(
            MetricsSerializer(
                {
                    "uptime_seconds": round(service.uptime_seconds, 3),
                    "as_of": service.as_of,
                    "since": since,
                    "heartbeat": _heartbeat(figures),
                    "config_cache": _config_cache(figures),
                    "weekly_report": _weekly_report(figures),
                }
            ).data
        )


def _heartbeat(figures: Figures) -> dict[str, Any]:
    name = recorder.HEARTBEAT_SECONDS
    return {
        "total_processed": figures.count(recorder.HEARTBEATS),
        "avg_db_ops_per_heartbeat": round(
            figures.ratio(recorder.HEARTBEAT_ROUND_TRIPS, recorder.HEARTBEATS), 3
        ),
        "avg_duration_ms": round(figures.average_ms(name), 3),
        "max_duration_ms": figures.longest_ms(name),
        "p95_duration_ms": round(figures.quantile_ms(name, 0.95), 3),
        "p99_duration_ms": round(figures.quantile_ms(name, 0.99), 3),
    }


def _config_cache(figures: Figures) -> dict[str, Any]:
    return {
        "hit_rate": round(figures.hit_rate, 4),
        "total_hits": figures.count(recorder.CONFIG_CACHE_HITS),
        "total_misses": figures.count(recorder.CONFIG_CACHE_MISSES),
        "total_invalidations": figures.count(recorder.CONFIG_CACHE_INVALIDATIONS),
        "current_size": config_cache.size(),
        "max_size": settings.CONFIG_CACHE_ENTRIES,
    }


def _weekly_report(figures: Figures) -> dict[str, Any]:
    name = recorder.WEEKLY_REPORT_SECONDS
    return {
        "total_generated": figures.count(recorder.WEEKLY_REPORTS),
        "avg_db_ops": round(
            figures.ratio(recorder.WEEKLY_REPORT_QUERIES, recorder.WEEKLY_REPORTS), 3
        ),
        "p95_duration_ms": round(figures.quantile_ms(name, 0.95), 3),
        "p99_duration_ms": round(figures.quantile_ms(name, 0.99), 3),
    }


def _read_instant(text: str | None) -> datetime | None:
    """An RFC 3339 instant; a 400 for anything else."""
    if text is None:
        return None
    # A plus that was not encoded arrives as a space.
    text = text.upper().replace(" ", "+")
    try:
        if not _is_instant(text):
            raise ValueError
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        detail = "Write an instant with its zone, as in 2026-01-05T12:00:00Z."
        raise invalid([{"field": "since", "code": "invalid", "detail": detail}]) from None


def prometheus(request: HttpRequest) -> HttpResponse:
    """What this instance counted, for Prometheus; by `METRICS_ACCESS` not for everybody."""
    if settings.METRICS_ACCESS == "off":
        raise not_found()
    if request.method not in {"GET", "HEAD"}:
        raise Problem(405, headers={"Allow": "GET, HEAD"})
    if settings.METRICS_ACCESS == "token":
        _require_token(request)
    elif not _is_on_this_host(request):
        raise Problem(403)
    name = settings.INSTANCE_NAME
    with deadline.within(REQUEST_SECONDS):
        rollup.hand_over_now()
        service = queries.service(instance=name)
        text = exposition.text(queries.of_instance(name, now=service.now), service)
    return HttpResponse(text, content_type=exposition.CONTENT_TYPE)


def _require_token(request: HttpRequest) -> None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    is_it = hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    if kind.lower() != "bearer" or not is_it:
        raise Problem(401)


def _is_on_this_host(request: HttpRequest) -> bool:
    """Whether the peer is, and speaks for itself: a proxy on this host speaks for others."""
    if any(header in request.META for header in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
