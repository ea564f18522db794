"""Shapes of history and weekly report (api.md), and how their queries are read.

The bodies are made by plain functions; the serializers describe them in the OpenAPI document.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from parentalcontrols import cursors
from parentalcontrols.problems import invalid
from viewingtime import history, reports
from viewingtime.history import Key, Place
from viewingtime.models import DeviceType
from viewingtime.serializers import minutes

FORMAT = OpenApiParameter(
    "format", str, enum=["json", "csv"], description="wins over the `Accept` header"
)
HISTORY_PARAMETERS = [
    OpenApiParameter(
        "from_date",
        OpenApiTypes.DATE,
        description=f"the first viewing day; {history.USUAL_DAYS} days up to the last one without",
    ),
    OpenApiParameter(
        "to_date", OpenApiTypes.DATE, description="the last viewing day; the running one without"
    ),
    OpenApiParameter("cursor", str, description="`next_cursor` of a page"),
    FORMAT,
]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
#: The days of a reading, its newest session, and the last one that was listed.
_Cursor = tuple[date, date, _Instant, UUID, _Instant, UUID]


def read_date(query: Mapping[str, str], field: str) -> date | None:
    """A date of a query, None where it is left out; a 400 for what is no YYYY-MM-DD."""
    text = query.get(field)
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    detail = "A date is needed, as in 2026-03-29."
    raise invalid([{"field": field, "code": "invalid", "detail": detail}])


def read_cursor(
    cursor: str, *, from_date: date | None = None, to_date: date | None = None
) -> Place:
    """Where a reading goes on; days that are told beside the cursor have to be its own."""
    first, last, *keys = cursors.decode(cursor, _Cursor)
    place = Place(first, last, Key(*keys[:2]), Key(*keys[2:]))
    if not history.is_readable(first, last) or keys[:2] < keys[2:]:
        raise cursors.refused()
    errors = [
        {"field": field, "code": "not_the_cursors", "detail": f"The cursor is one from {own}."}
        for field, sent, own in (("from_date", from_date, first), ("to_date", to_date, last))
        if sent not in (None, own)
    ]
    if errors:
        raise invalid(errors)
    return place


def _cursor(place: Place | None) -> str | None:
    """A place as clients hand it back."""
    if place is None or place.top is None or place.last is None:
        return None
    return cursors.encode((place.from_date, place.to_date, *place.top, *place.last))


def history_body(profile_id: UUID, page: history.Page) -> dict[str, Any]:
    """A page of a history as JSON has it."""
    return {
        "profile_id": profile_id,
        "days": [
            {
                "date": day.date,
                "total_minutes": minutes(day.total),
                "educational_minutes": minutes(day.educational),
                "counted_minutes": minutes(day.counted),
                "sessions": [
                    {
                        "session_id": session.id,
                        "title_id": session.title_id,
                        "title_name": session.title_name,
                        "device_type": session.device_type,
                        "is_educational": session.is_educational,
                        "started_at": session.started_at,
                        "ended_at": session.ended_at,
                        "duration_minutes": minutes(session.total),
                    }
                    for session in day.sessions
                ],
            }
            for day in page.days
        ],
        "next_cursor": _cursor(page.next),
    }


def report_body(report: reports.Report) -> dict[str, Any]:
    """A weekly report as JSON has it."""
    return {
        "week_start": report.week_start,
        "week_end": report.week_end,
        "profiles": [
            {
                "profile_id": child.profile_id,
                "profile_name": child.name,
                "daily_totals": [
                    {
                        "date": day.date,
                        "minutes": minutes(day.total),
                        "counted_minutes": minutes(day.counted),
                        "educational_minutes": minutes(day.educational),
                        "limit_minutes": minutes(day.limit),
                        "granted_minutes": minutes(day.granted),
                        "is_unlimited_override": day.is_unlimited_override,
                    }
                    for day in child.days
                ],
                "average_daily_minutes": minutes(child.daily_average),
                "total_minutes": minutes(child.total),
                "educational_minutes": minutes(child.educational),
                "limit_usage_percent": child.limit_usage_percent,
                "top_titles": [
                    {
                        "title_id": title.id,
                        "title_name": title.name,
                        "total_minutes": minutes(title.total),
                    }
                    for title in child.top_titles
                ],
            }
            for child in reports.giving_way(report.children)
        ],
    }


class HistorySessionSerializer(serializers.Serializer[Any]):
    """A session; `ended_at` is null while it is open, and its minutes are those credited so far."""

    session_id = serializers.UUIDField()
    title_id = serializers.UUIDField()
    title_name = serializers.CharField()
    device_type = serializers.ChoiceField(DeviceType.choices)
    is_educational = serializers.BooleanField()
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    duration_minutes = serializers.FloatField()


class HistoryDaySerializer(serializers.Serializer[Any]):
    """A viewing day: the sums of all its sessions, and those of them that are on this page."""

    date = serializers.DateField()
    total_minutes = serializers.FloatField()
    educational_minutes = serializers.FloatField(help_text="exempt from the limit")
    counted_minutes = serializers.FloatField()
    sessions = HistorySessionSerializer(many=True)


class HistorySerializer(serializers.Serializer[Any]):
    """Days with sessions, newest first, and the cursor of the next page; null on the last one."""

    profile_id = serializers.UUIDField()
    days = HistoryDaySerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)


class ReportDaySerializer(serializers.Serializer[Any]):
    """A viewing day; `limit_minutes` null is unlimited."""

    date = serializers.DateField()
    minutes = serializers.FloatField()
    counted_minutes = serializers.FloatField()
    educational_minutes = serializers.FloatField(help_text="exempt from the limit")
    limit_minutes = serializers.FloatField(allow_null=True)
    granted_minutes = serializers.FloatField()
    is_unlimited_override = serializers.BooleanField()


class TopTitleSerializer(serializers.Serializer[Any]):
    """A title, and how long it was watched in the week."""

    title_id = serializers.UUIDField()
    title_name = serializers.CharField()
    total_minutes = serializers.FloatField()


class ReportProfileSerializer(serializers.Serializer[Any]):
    """A child's last seven viewing days, oldest first, and its three most watched titles."""

    profile_id = serializers.UUIDField()
    profile_name = serializers.CharField()
    daily_totals = ReportDaySerializer(many=True)
    average_daily_minutes = serializers.FloatField()
    total_minutes = serializers.FloatField()
    educational_minutes = serializers.FloatField()
    limit_usage_percent = serializers.FloatField(
        allow_null=True, help_text="of limits and grants; null where nothing was limited"
    )
    top_titles = TopTitleSerializer(many=True)


class WeeklyReportSerializer(serializers.Serializer[Any]):
    """The children of the household, oldest profile first; the earliest and latest day of all."""

    week_start = serializers.DateField()
    week_end = serializers.DateField()
    profiles = ReportProfileSerializer(many=True)
