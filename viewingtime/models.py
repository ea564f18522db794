"""What was watched: sessions, the balance of each viewing day, and the extra time parents gave."""

import uuid

from django.conf import settings
from django.db import models

from parentalcontrols.models import Profile, Title

#: What a parent may grant at a time; the other choice is unlimited (domain.md section 6).
GRANT_MINUTES = (15, 30, 60)

#: Seconds are kept to the microsecond, as PostgreSQL's clock gives them.
_DIGITS, _PLACES = 18, 6


class DeviceType(models.TextChoices):
    TV = "tv"
    MOBILE = "mobile"
    TABLET = "tablet"
    WEB = "web"


class EndReason(models.TextChoices):
    """Why a session ended (domain.md section 3)."""

    STOPPED = "stopped"
    SUPERSEDED = "superseded"
    STALE = "stale"
    EXHAUSTED = "exhausted"
    RESET = "reset"
    TITLE_CHANGED = "title_changed"
    CLOCK = "clock"


class ViewingSession(models.Model):
    """One continuous viewing of one title on one device within one viewing day."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        Profile, on_delete=models.CASCADE, related_name="viewing_sessions", db_index=False
    )
    title = models.ForeignKey(
        Title, on_delete=models.PROTECT, related_name="viewing_sessions", db_index=False
    )
    is_kids = models.BooleanField(
        default=True,
        db_default=True,
        help_text="The profile's, copied for the index that allows a child one open session.",
    )
    device_id = models.CharField(max_length=100)
    device_type = models.CharField(
        max_length=10, choices=DeviceType.choices, default=DeviceType.WEB, db_default=DeviceType.WEB
    )
    is_educational = models.BooleanField(
        "educational", default=False, db_default=False, help_text="The title's flag at the start."
    )
    reset_date = models.DateField("viewing day")
    started_at = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField()
    paused_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(  # noqa: DJ001 - null while the session is open
        max_length=20, choices=EndReason.choices, null=True, blank=True
    )
    total_seconds = models.DecimalField(
        max_digits=_DIGITS, decimal_places=_PLACES, default=0, db_default=0
    )
    educational_seconds = models.DecimalField(
        max_digits=_DIGITS,
        decimal_places=_PLACES,
        default=0,
        db_default=0,
        help_text="The part of the total that was exempt from the limit.",
    )

    class Meta:
        db_table = "viewing_sessions"
        indexes = [
            # History and report: the sessions of a profile in a range of started_at, newest first
            # (domain.md section 8).
            models.Index(
                fields=["profile", "-started_at"],
                opclasses=["uuid_ops", "timestamptz_ops"],
                name="ix_vs_profile_started",
            ),
            # The locks of a heartbeat and the sweep: an adult's open sessions.
            models.Index(
                fields=["profile"],
                name="ix_vs_open_adult",
                condition=models.Q(ended_at__isnull=True, is_kids=False),
            ),
        ]
        constraints = [
            # One stream per child (domain.md section 3), the locks of its heartbeat, and the sweep.
            models.UniqueConstraint(
                fields=["profile"],
                name="uq_vs_open_kids",
                condition=models.Q(ended_at__isnull=True, is_kids=True),
            ),
            models.CheckConstraint(
                condition=models.Q(ended_at__isnull=True, end_reason__isnull=True)
                | models.Q(ended_at__isnull=False, end_reason__in=EndReason.values),
                name="ck_vs_end",
            ),
            models.CheckConstraint(
                condition=models.Q(device_type__in=DeviceType.values), name="ck_vs_device_type"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    educational_seconds__gte=0, total_seconds__gte=models.F("educational_seconds")
                ),
                name="ck_vs_seconds",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title}, watched by {self.profile}, {self.started_at:%Y-%m-%d %H:%M} UTC"


class ViewingTimeBalance(models.Model):
    """One row per child and viewing day, made by the day's first accepted beat or grant.

    Seconds; `limit_seconds` is the limit in force, null = unlimited.
    """

    profile = models.ForeignKey(
        Profile, on_delete=models.CASCADE, related_name="viewing_time_balances", db_index=False
    )
    reset_date = models.DateField("viewing day")
    used_seconds = models.DecimalField(
        max_digits=_DIGITS, decimal_places=_PLACES, default=0, db_default=0
    )
    educational_seconds = models.DecimalField(
        max_digits=_DIGITS, decimal_places=_PLACES, default=0, db_default=0
    )
    granted_seconds = models.DecimalField(
        max_digits=_DIGITS, decimal_places=_PLACES, default=0, db_default=0
    )
    is_unlimited_override = models.BooleanField("limit lifted", default=False, db_default=False)
    limit_seconds = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        db_table = "viewing_time_balances"
        verbose_name = "viewing-time balance"
        constraints = [
            # The heartbeat's upsert, and the latest day of a profile.
            models.UniqueConstraint(
                fields=["profile", "reset_date"], name="uq_vtb_profile_reset_date"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    used_seconds__gte=0, educational_seconds__gte=0, granted_seconds__gte=0
                ),
                name="ck_vtb_seconds",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.profile} on {self.reset_date}"


class TimeGrant(models.Model):
    """Extra time a parent gave; append-only. `minutes` null = unlimited for the day."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        Profile, on_delete=models.CASCADE, related_name="time_grants", db_index=False
    )
    reset_date = models.DateField("viewing day")
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="time_grants"
    )
    minutes = models.PositiveSmallIntegerField(null=True, blank=True)
    is_remote = models.BooleanField(
        "from the parent's device", help_text="Given from the parent's own device, without a PIN."
    )
    granted_at = models.DateTimeField()

    class Meta:
        db_table = "time_grants"
        indexes = [
            # A child's grants, newest first, on its admin page.
            models.Index(fields=["profile", "-granted_at"], name="ix_grants_profile_granted"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(minutes__isnull=True) | models.Q(minutes__in=GRANT_MINUTES),
                name="ck_grants_minutes",
            ),
        ]

    def __str__(self) -> str:
        given = "No limit" if self.minutes is None else f"{self.minutes} min"
        return f"{given} for {self.profile}, {self.granted_at:%Y-%m-%d %H:%M} UTC"
