"""Staff's view of what was watched: on the child's page, and in lists of one child or household.

Nothing here writes: a session, a balance and a grant are what the service counted and what a
parent gave, and no correction of a title or a profile reaches them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string

from adminmetrics.pages import (
    EXCERPT_ROWS,
    Excerpt,
    HouseholdSearchMixin,
    ViewOnlyAdmin,
    link,
    list_url,
    minutes,
    moment,
    yes_no,
)
from parentalcontrols.admin import ProfileAdmin as HouseholdProfileAdmin
from parentalcontrols.models import DEFAULT_TIMEZONE, Account, Profile, Title
from viewingtime import ledger, ledgers, timelines
from viewingtime.ledger import Balance, Viewer
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance

#: Viewing days and grants on a child's page.
LATEST_DAYS = 7
#: Sessions in the picture of a day.
MOST_PICTURED = 200


def hours(time: timedelta | Decimal | int | None) -> str:
    """An amount of time, or so many seconds, as h:mm:ss; None = unlimited."""
    if time is None:
        return "unlimited"
    whole = time if isinstance(time, timedelta) else timedelta(seconds=float(time))
    rest, seconds = divmod(int(whole.total_seconds()), 60)
    return f"{rest // 60}:{rest % 60:02}:{seconds:02}"


def at_length(seconds: Decimal | int | None) -> str:
    """So many seconds in words, and what exactly is stored; None = unlimited."""
    if seconds is None:
        return "unlimited"
    rest, left = divmod(int(seconds), 60)
    told = f"{rest // 60} h {rest % 60:02} min {left:02} s"
    return f"{told} ({Decimal(seconds).normalize():,f} seconds)"


class OneChildsAdmin(HouseholdSearchMixin, ViewOnlyAdmin):
    """Rows of one child or household, newest first; no list of everybody's.

    `columns`: the model's own that its pages show. `told`: by which method an object's page tells
    a column that nobody reads as it is. Of the profile and the title only the name is loaded.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[Mapping[str, str]] = {}
    related: ClassVar[tuple[str, ...]] = ("profile",)
    related_columns: ClassVar[tuple[str, ...]] = ("profile__name",)

    must_choose = True
    lookups = frozenset({"profile__id__exact"})
    search_fields = ("profile__account__email",)
    search_help_text = (
        "Listed for one child or household: open them from the child's page, "
        "or search for the household's whole e-mail or for an id."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return (
            super()
            .get_queryset(request)
            .select_related(*self.related)
            .only("pk", *self.columns, *self.related_columns)
        )

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*self.related, *(self.told.get(column, column) for column in self.columns))

    @admin.display(description="profile")
    def person(self, row: Any) -> str:
        return link(Profile, row.profile_id, row.profile.name)


@admin.register(ViewingSession)
class ViewingSessionAdmin(OneChildsAdmin):
    """What somebody watched, and why it ended."""

    id_lookups = ("id", "profile_id")
    # `ix_vs_profile_started` gives a profile's in this order.
    ordering = ("-started_at", "-id")
    related = ("profile", "title")
    related_columns = ("profile__name", "title__title")
    columns = (
        "reset_date",
        "started_at",
        "last_heartbeat_at",
        "paused_at",
        "ended_at",
        "end_reason",
        "total_seconds",
        "educational_seconds",
        "is_educational",
        "device_type",
        "device_id",
    )
    told: ClassVar[Mapping[str, str]] = {
        "total_seconds": "watched_at_length",
        "educational_seconds": "exempt_at_length",
    }
    list_display = (
        "started_at",
        "person",
        "title",
        "watched",
        "exempt",
        "ended",
        "reset_date",
        "device",
    )

    @admin.display(description="device")
    def device(self, session: ViewingSession) -> str:
        return f"{session.device_type} {session.device_id}"

    @admin.display(description="ended")
    def ended(self, session: ViewingSession) -> str:
        if session.ended_at is None:
            return "still open"
        return f"{moment(session.ended_at)}, {session.get_end_reason_display().lower()}"

    @admin.display(description="watched")
    def watched(self, session: ViewingSession) -> str:
        return hours(session.total_seconds)

    @admin.display(description="of it exempt")
    def exempt(self, session: ViewingSession) -> str:
        return hours(session.educational_seconds)

    @admin.display(description="watched")
    def watched_at_length(self, session: ViewingSession) -> str:
        return at_length(session.total_seconds)

    @admin.display(description="of it exempt")
    def exempt_at_length(self, session: ViewingSession) -> str:
        return at_length(session.educational_seconds)


@admin.register(ViewingTimeBalance)
class ViewingTimeBalanceAdmin(OneChildsAdmin):
    """A child's viewing days: what was used, granted and allowed."""

    # `uq_vtb_profile_reset_date` gives a profile's in this order.
    ordering = ("-reset_date", "-id")
    columns = (
        "reset_date",
        "used_seconds",
        "educational_seconds",
        "granted_seconds",
        "limit_seconds",
        "is_unlimited_override",
    )
    told: ClassVar[Mapping[str, str]] = {
        "used_seconds": "used_at_length",
        "educational_seconds": "exempt_at_length",
        "granted_seconds": "granted_at_length",
        "limit_seconds": "limit_at_length",
    }
    list_display = (
        "reset_date",
        "person",
        "used",
        "exempt",
        "granted",
        "limit",
        "is_unlimited_override",
    )

    @admin.display(description="used")
    def used(self, balance: ViewingTimeBalance) -> str:
        return hours(balance.used_seconds)

    @admin.display(description="exempt")
    def exempt(self, balance: ViewingTimeBalance) -> str:
        return hours(balance.educational_seconds)

    @admin.display(description="granted")
    def granted(self, balance: ViewingTimeBalance) -> str:
        return hours(balance.granted_seconds)

    @admin.display(description="limit")
    def limit(self, balance: ViewingTimeBalance) -> str:
        return hours(balance.limit_seconds)

    @admin.display(description="used")
    def used_at_length(self, balance: ViewingTimeBalance) -> str:
        return at_length(balance.used_seconds)

    @admin.display(description="exempt")
    def exempt_at_length(self, balance: ViewingTimeBalance) -> str:
        return at_length(balance.educational_seconds)

    @admin.display(description="granted")
    def granted_at_length(self, balance: ViewingTimeBalance) -> str:
        return at_length(balance.granted_seconds)

    @admin.display(description="limit")
    def limit_at_length(self, balance: ViewingTimeBalance) -> str:
        return at_length(balance.limit_seconds)


@admin.register(TimeGrant)
class TimeGrantAdmin(OneChildsAdmin):
    """Extra time that parents gave."""

    id_lookups = ("id", "profile_id")
    # `ix_grants_profile_granted` gives a profile's in this order.
    ordering = ("-granted_at", "-id")
    related = ("profile", "account")
    related_columns = ("profile__name", "account__email")
    columns = ("granted_at", "reset_date", "minutes", "is_remote")
    told: ClassVar[Mapping[str, str]] = {"minutes": "given"}
    list_display = ("granted_at", "person", "given", "is_remote", "by", "reset_date")

    @admin.display(description="given")
    def given(self, grant: TimeGrant) -> str:
        return minutes(grant.minutes)

    @admin.display(description="by")
    def by(self, grant: TimeGrant) -> str:
        return link(Account, grant.account_id, grant.account.email)


@admin.register(Profile)
class ProfileAdmin(HouseholdProfileAdmin):
    """A person in the household, with what it watched and what is left today."""

    def excerpts(self, request: HttpRequest, obj: Profile) -> list[Excerpt]:
        excerpts = super().excerpts(request, obj)
        if obj.is_kids and self.may_view(request, ViewingTimeBalance):
            excerpts.append(_today(obj, with_sessions=self.may_view(request, ViewingSession)))
        if self.may_view(request, ViewingSession):
            excerpts.append(_latest_sessions(obj))
        if obj.is_kids and self.may_view(request, ViewingTimeBalance):
            excerpts.append(_latest_balances(obj))
        if obj.is_kids and self.may_view(request, TimeGrant):
            excerpts.append(_latest_grants(obj))
        return excerpts


def _today(profile: Profile, *, with_sessions: bool) -> Excerpt:
    """The running viewing day by the database's clock; one that nothing was booked on, too."""
    config = getattr(profile, "viewing_time_config", None)
    viewer = ledgers.viewer_of(config)
    now, balance = ledgers.read_balance(profile.pk, viewer)
    zone = DEFAULT_TIMEZONE if config is None else config.timezone
    remaining = ledger.verdict(balance, is_exempt=True).remaining
    return Excerpt(
        heading="Today's balance",
        columns=("Viewing day", "Limit", "Granted", "Used", "Exempt", "Remaining"),
        rows=[
            (
                balance.reset_date,
                "lifted for today" if balance.is_unlimited_override else hours(balance.limit),
                hours(balance.granted),
                hours(balance.used),
                hours(balance.educational),
                hours(remaining),
            )
        ],
        figure=_picture(profile, viewer, balance, now, zone) if with_sessions else "",
    )


def _picture(profile: Profile, viewer: Viewer, balance: Balance, now: datetime, zone: str) -> str:
    """The running day's sessions along its hours, and what was used against the limit."""
    day = viewer.schedule.bounds(balance.reset_date)
    # A range of `ix_vs_profile_started`, with a day to spare for a clock that was set back.
    sessions = (
        ViewingSession.objects.filter(
            profile_id=profile.pk,
            started_at__gte=day.starts_at - timedelta(days=1),
            started_at__lt=day.ends_at + timedelta(days=1),
            reset_date=balance.reset_date,
        )
        .select_related("title")
        .only(
            *("started_at", "last_heartbeat_at", "ended_at", "total_seconds"),
            *("educational_seconds", "title__title"),
        )
        .order_by("-started_at", "-id")[:MOST_PICTURED]
    )
    watched = [
        timelines.Watched(
            title=session.title.title,
            starts_at=session.started_at,
            ends_at=session.ended_at or session.last_heartbeat_at,
            counted=_time(session.total_seconds - session.educational_seconds),
            exempt=_time(session.educational_seconds),
            is_open=session.ended_at is None,
        )
        for session in reversed(sessions)
    ]
    picture = timelines.timeline(day, balance, watched, now=now, zone=ZoneInfo(zone))
    return render_to_string(
        "admin/viewingtime/timeline.html",
        {"picture": picture, "zone": zone, "day": balance.reset_date, "place": timelines},
    )


def _time(seconds: Decimal) -> timedelta:
    return timedelta(seconds=float(seconds))


def _latest_sessions(profile: Profile) -> Excerpt:
    sessions = (
        ViewingSession.objects.filter(profile_id=profile.pk)
        .select_related("title")
        .only(
            "id",
            "started_at",
            "ended_at",
            "end_reason",
            "total_seconds",
            "educational_seconds",
            "reset_date",
            "device_type",
            "device_id",
            "title__title",
        )
        .order_by("-started_at", "-id")
    )
    return Excerpt(
        heading="Latest sessions",
        columns=(
            "Started",
            "Title",
            "Watched",
            "Of it exempt",
            "Ended",
            "Viewing day",
            "Device",
        ),
        rows=[
            (
                link(ViewingSession, session.pk, moment(session.started_at)),
                link(Title, session.title_id, session.title.title),
                hours(session.total_seconds),
                hours(session.educational_seconds),
                session.get_end_reason_display() if session.ended_at else "still open",
                session.reset_date,
                f"{session.device_type} {session.device_id}",
            )
            for session in sessions[:EXCERPT_ROWS]
        ],
        more_url=list_url(ViewingSession, profile__id__exact=profile.pk),
    )


def _latest_balances(profile: Profile) -> Excerpt:
    balances = ViewingTimeBalance.objects.filter(profile_id=profile.pk).order_by("-reset_date")
    return Excerpt(
        heading="Latest viewing days",
        columns=("Viewing day", "Used", "Exempt", "Granted", "Limit", "Limit lifted"),
        rows=[
            (
                link(ViewingTimeBalance, balance.pk, balance.reset_date),
                hours(balance.used_seconds),
                hours(balance.educational_seconds),
                hours(balance.granted_seconds),
                hours(balance.limit_seconds),
                yes_no(balance.is_unlimited_override),
            )
            for balance in balances[:LATEST_DAYS]
        ],
        more_url=list_url(ViewingTimeBalance, profile__id__exact=profile.pk),
    )


def _latest_grants(profile: Profile) -> Excerpt:
    grants = TimeGrant.objects.filter(profile_id=profile.pk).order_by("-granted_at")
    return Excerpt(
        heading="Latest grants",
        columns=("Granted", "Given", "From the parent's device", "Viewing day"),
        rows=[
            (
                link(TimeGrant, grant.pk, moment(grant.granted_at)),
                minutes(grant.minutes),
                yes_no(grant.is_remote),
                grant.reset_date,
            )
            for grant in grants[:LATEST_DAYS]
        ],
        more_url=list_url(TimeGrant, profile__id__exact=profile.pk),
    )
