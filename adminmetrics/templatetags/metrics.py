"""Figures of the metrics for pages that are not theirs."""

from typing import Any

from django import template
from django.contrib import admin

from adminmetrics import dashboard
from adminmetrics.models import MetricRollup

register = template.Library()


@register.inclusion_tag("admin/adminmetrics/tiles.html", takes_context=True)
def metrics_now(context: dict[str, Any]) -> dict[str, Any]:
    """The figures of the last quarter of an hour, for staff that may see metrics."""
    page = admin.site.get_model_admin(MetricRollup)
    if not page.has_view_permission(context["request"]):
        return {"tiles": []}
    wanted = dashboard.RANGES["15m"]
    return {"tiles": dashboard.tiles(wanted), "wanted": wanted, "is_live": True}
