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


_DAY = "when the viewing day began, in the child's time zone"
_EXEMPT = "the part that was exempt from the limit"
_COUNTED = "the part that counted against the limit"
_CHILD = "the child's"


class HistorySessionSerializer(serializers.Serializer[Any]):
    """A session; `ended_at` is null while it is open, and its minutes are those credited so far."""

    session_id = serializers.UUIDField(help_text="the session's")
    title_id = serializers.UUIDField(help_text="what was played")
    title_name = serializers.CharField(help_text="as it is called now")
    device_type = serializers.ChoiceField(DeviceType.choices)
    is_educational = serializers.BooleanField(help_text="the title's flag, as it was at the start")
    started_at = serializers.DateTimeField(help_text="with its first beat, or with a reset")
    ended_at = serializers.DateTimeField(allow_null=True, help_text="null while it is open")
    duration_minutes = serializers.FloatField(help_text="what it was credited so far")


class HistoryDaySerializer(serializers.Serializer[Any]):
    """A viewing day: the sums of all its sessions, and those of them that are on this page."""

    date = serializers.DateField(help_text=_DAY)
    total_minutes = serializers.FloatField(help_text="of all its sessions")
    educational_minutes = serializers.FloatField(help_text=_EXEMPT)
    counted_minutes = serializers.FloatField(help_text=_COUNTED)
    sessions = HistorySessionSerializer(
        many=True, help_text="the newest first; others of the day may be on the next page"
    )


class HistorySerializer(serializers.Serializer[Any]):
    """Days with sessions, newest first, and the cursor of the next page; null on the last one."""

    profile_id = serializers.UUIDField(help_text="as in the path")
    days = HistoryDaySerializer(many=True, help_text="those with sessions, the newest first")
    next_cursor = serializers.CharField(
        allow_null=True, help_text="the `cursor` of the next page; null on the last one"
    )


class ReportDaySerializer(serializers.Serializer[Any]):
    """A viewing day; `limit_minutes` null is unlimited."""

    date = serializers.DateField(help_text=_DAY)
    minutes = serializers.FloatField(help_text="what was watched in all")
    counted_minutes = serializers.FloatField(help_text=_COUNTED)
    educational_minutes = serializers.FloatField(help_text=_EXEMPT)
    limit_minutes = serializers.FloatField(
        allow_null=True, help_text="in force on that day, without extra time; null = unlimited"
    )
    granted_minutes = serializers.FloatField(help_text="extra time of the day")
    is_unlimited_override = serializers.BooleanField(
        help_text="whether a grant lifted the limit of the day"
    )


class TopTitleSerializer(serializers.Serializer[Any]):
    """A title, and how long it was watched in the week."""

    title_id = serializers.UUIDField(help_text="what was played")
    title_name = serializers.CharField(help_text="as it is called now")
    total_minutes = serializers.FloatField(help_text="exempt or not")


class ReportProfileSerializer(serializers.Serializer[Any]):
    """A child's last seven viewing days, oldest first, and its three most watched titles."""

    profile_id = serializers.UUIDField(help_text=_CHILD)
    profile_name = serializers.CharField(help_text=_CHILD)
    daily_totals = ReportDaySerializer(many=True, help_text="seven, the oldest first")
    average_daily_minutes = serializers.FloatField(help_text="the total over seven")
    total_minutes = serializers.FloatField(help_text="of the seven days, exempt or not")
    educational_minutes = serializers.FloatField(help_text=_EXEMPT)
    limit_usage_percent = serializers.FloatField(
        allow_null=True,
        help_text="what counted, of limits and extra time; null where nothing was limited",
    )
    top_titles = TopTitleSerializer(many=True, help_text="three at most, the longest first")


class WeeklyReportSerializer(serializers.Serializer[Any]):
    """The children of the household, oldest profile first; the earliest and latest day of all."""

    week_start = serializers.DateField(help_text="the earliest day of all children")
    week_end = serializers.DateField(help_text="the latest day of all children")
    profiles = ReportProfileSerializer(
        many=True, help_text="the children, the oldest profile first"
    )
