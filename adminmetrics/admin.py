"""The pages of metrics for staff: the charts, the processes that count, and index health."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.timezone import now
from django.views.decorators.http import require_safe

from adminmetrics import dashboard, index_audit, index_health, queries
from adminmetrics.dashboard import DEFAULT_RANGE, RANGES, Range
from adminmetrics.models import MetricProcess, MetricRollup
from adminmetrics.pages import ViewOnlyAdmin
from adminmetrics.queries import Source

admin.site.index_template = "admin/adminmetrics/index.html"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for. `refused`: the range that it named and that cannot be told."""

    range: Range
    source: Source
    refused: Range | None = None


@admin.register(MetricRollup)
class MetricsAdmin(ViewOnlyAdmin):
    """Not a list of roll-ups: what they add up to, as figures and charts."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="adminmetrics_metricrollup_changelist"),
            path("data/", view(self.data), name="adminmetrics_metricrollup_data"),
            path(
                "indexes/",
                view(require_safe(self.index_health)),
                name="adminmetrics_index_health",
            ),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page: charts that ask for their data anew by themselves."""
        asked = self._asked(request)
        wanted, source = asked.range, asked.source
        data = dashboard.page(wanted, source)
        since = now() - timedelta(seconds=wanted.seconds)
        sources = queries.sources(since=since, asked=source)
        context = {
            **self.admin_site.each_context(request),
            "title": "Metrics",
            "opts": self.opts,
            "ranges": dashboard.ranges(source),
            "wanted": wanted,
            "refused": asked.refused,
            "minute_days": settings.METRICS_MINUTE_DAYS,
            "sources": sources,
            "asked_source": _address(source),
            "source_name": dashboard.source_name(source),
            "is_unheard": not _is_among(sources, source),
            "charts": dashboard.CHARTS,
            "tiles": data["tiles"],
            "as_of": data["as_of"],
            "data": {**data, "charts": [_told(chart) for chart in dashboard.CHARTS]},
        }
        return TemplateResponse(request, "admin/adminmetrics/metrics.html", context)

    def data(self, request: HttpRequest) -> HttpResponse:
        """The same as JSON, for the page to ask again."""
        asked = self._asked(request)
        return JsonResponse(dashboard.page(asked.range, asked.source))

    def index_health(self, request: HttpRequest) -> HttpResponse:
        """What `manage.py verify_indexes` tells, as of now; 503 where it cannot be told."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Index health",
            "opts": self.opts,
            "checked_at": f"{now():%Y-%m-%d %H:%M:%S} UTC",
        }
        status = HTTPStatus.OK
        try:
            report = index_audit.audit(seconds=index_health.PAGE_SECONDS)
        except (OperationalError, InterfaceError) as error:
            # The kind alone: a driver's message can hold addresses and values.
            context["cause"] = type(error.__cause__ or error).__name__
            status = HTTPStatus.SERVICE_UNAVAILABLE
        else:
            context |= index_health.page(report)
        template = "admin/adminmetrics/index_health.html"
        return TemplateResponse(request, template, context, status=status)

    def _asked(self, request: HttpRequest) -> Asked:
        """What the address asks for; what it does not know is as if it was not asked for.

        In place of a range that is too long for the source it is the longest that is not.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        wanted = RANGES.get(request.GET.get("range", ""), DEFAULT_RANGE)
        named = request.GET.get("source", "").replace("\0", "").strip()
        instance, _, worker = named.partition(" ")
        source = Source(instance or None, worker or None)
        told = dashboard.ranges(source)
        return Asked(wanted, source) if wanted in told else Asked(told[-1], source, refused=wanted)


@admin.register(MetricProcess)
class MetricProcessAdmin(ViewOnlyAdmin):
    """The processes that count, those that were heard of last first."""

    change_list_template = "admin/adminmetrics/processes.html"
    # The table holds the processes of two days (`prune_metrics`).
    ordering = ("-seen_at", "id")
    list_display = ("instance", "worker", "started_at", "up_since", "seen_at", "ended_at")
    fields = (*list_display, "sequence", "gauges")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, {"title": "Worker processes"})


def _address(source: Source) -> str:
    """A source as an address names it."""
    return " ".join(part for part in (source.instance, source.worker) if part)


def _is_among(sources: Mapping[str, list[str]], source: Source) -> bool:
    """Whether it is everybody, or one of those."""
    if source.instance is None:
        return True
    workers = sources.get(source.instance)
    return workers is not None and (source.worker is None or source.worker in workers)


def _told(chart: dashboard.Chart) -> dict[str, Any]:
    """A chart as the script of the page wants to know it."""
    return {
        "key": chart.key,
        "unit": chart.unit,
        "lines": chart.lines,
        "is_log": chart.is_log,
        "edges": dashboard.HEAT_EDGES if chart.is_heat else None,
    }
