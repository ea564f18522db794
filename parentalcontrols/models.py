"""The household: accounts, profiles, titles and each child's viewing-time config."""

import uuid
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models.functions import Lower, Mod, Now

#: Limits in minutes are multiples of this, from the first to the last (domain.md section 1).
LIMIT_STEP_MINUTES = 15
LIMIT_LEAST_MINUTES = 15
LIMIT_MOST_MINUTES = 480

DEFAULT_WEEKDAY_LIMIT_MINUTES = 120
DEFAULT_WEEKEND_LIMIT_MINUTES = 180
DEFAULT_RESET_HOUR = 6
DEFAULT_TIMEZONE = "UTC"


_M = TypeVar("_M", bound=models.Model)


class CachedQuerySet(models.QuerySet[_M]):
    """Rows of which `config_cache` keeps a part: a change of many tells it, too.

    Django sends no signal for `update` and `bulk_create`. (`delete` and `bulk_update` go by
    signals and by `update`.)
    """

    def update(self, **values: Any) -> int:
        from parentalcontrols import invalidation

        if not invalidation.touches(self.model, values):
            return super().update(**values)
        # The update may change what the rows are found by.
        keys = list(self.order_by().values_list("pk", flat=True))
        count = super().update(**values)
        invalidation.on_commit(self.model, keys)
        return count

    def bulk_create(self, objs: Iterable[_M], *args: Any, **kwargs: Any) -> list[_M]:
        from parentalcontrols import invalidation

        created = super().bulk_create(objs, *args, **kwargs)
        invalidation.created(self.model, [row.pk for row in created])
        return created


class AccountManager(BaseUserManager["Account"]):
    """Accounts are found by their e-mail, whatever its letters' case."""

    def get_queryset(self) -> "CachedQuerySet[Account]":
        return CachedQuerySet(self.model, using=self._db)

    def get_by_natural_key(self, username: str | None) -> "Account":
        account: Account = self.get(email=(username or "").strip().lower())
        return account

    def create_user(self, email: str, password: str | None = None, **extra: Any) -> "Account":
        """A new account; raises `IntegrityError` where the e-mail is taken."""
        account: Account = self.model(email=email.strip().lower(), **extra)
        account.set_password(password)
        account.save(using=self._db)
        return account

    def create_superuser(self, email: str, password: str | None = None, **extra: Any) -> "Account":
        """A new account with every right in the admin."""
        return self.create_user(
            email, password, **{"is_staff": True, "is_superuser": True, **extra}
        )


class Account(AbstractBaseUser, PermissionsMixin):
    """A household's login. The e-mail, kept in lower case, is the user name."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # Bytewise order, so that an index serves a search by the beginning of an e-mail.
    email = models.EmailField(max_length=254, db_collation="C")
    is_active = models.BooleanField(
        "active",
        default=True,
        db_default=True,
        help_text="Without it every token of the account is refused.",
    )
    is_staff = models.BooleanField(
        "staff",
        default=False,
        db_default=False,
        help_text=(
            "May enter this site, and read the metrics by the API. What is seen and done here is "
            "up to the groups: support sees every page and changes nothing; operator also "
            "deactivates and reactivates accounts, unlocks PINs, and edits and withdraws titles. "
            "Without a group there is nothing to see."
        ),
    )
    token_version = models.PositiveIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text=(
            "Tokens of an earlier version are refused. A trigger raises it with a new password "
            "and with every change of `is_active`; it never goes back."
        ),
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = AccountManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        db_table = "accounts"
        ordering = ("-created_at", "id")
        constraints = [
            # Log-in and the admin's search by e-mail.
            models.UniqueConstraint(
                fields=["email"],
                name="uq_accounts_email",
                violation_error_message="An account with this e-mail exists already.",
            ),
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="ck_accounts_email_lower"
            ),
        ]
        indexes = [
            # The admin's list, newest first, without sorting a million rows.
            models.Index(
                fields=["-created_at", "id"],
                name="ix_accounts_created",
            ),
        ]

    def __str__(self) -> str:
        return self.email

    def clean(self) -> None:
        super().clean()
        self.email = self.email.strip().lower()


class RefreshFamily(models.Model):
    """The refresh tokens that descend from one log-in: only the youngest is good.

    Rotation is one conditional UPDATE of `current_token_id`; a token that is presented a second
    time ends the whole family (OAuth 2.0 Security Best Current Practice, RFC 9700 section 4.14).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(
        "parentalcontrols.Account", on_delete=models.CASCADE, related_name="refresh_families"
    )
    profile = models.ForeignKey(
        "parentalcontrols.Profile",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="refresh_families",
        db_index=False,
        help_text="The child that the tokens speak for; without one they speak for the parent.",
    )
    current_token_id = models.UUIDField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "refresh_families"
        verbose_name = "refresh token family"
        verbose_name_plural = "refresh token families"
        indexes = [
            # What goes with a profile that is deleted.
            models.Index(
                fields=["profile"],
                name="ix_refresh_families_profile",
                condition=models.Q(profile__isnull=False),
            ),
            # What `prune_expired` deletes.
            models.Index(fields=["expires_at"], name="ix_refresh_families_expires"),
        ]

    def __str__(self) -> str:
        return f"Log-in of {self.account}, {self.created_at:%Y-%m-%d %H:%M} UTC"


class IdempotencyKey(models.Model):
    """A request that was answered, so that its repeat gets the same answer for 24 hours."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(
        "parentalcontrols.Account",
        on_delete=models.CASCADE,
        related_name="idempotency_keys",
        db_index=False,
    )
    route = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(help_text="A keyed hash of the body.")
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "idempotency_keys"
        constraints = [
            # The claim's upsert, which is also what a second copy waits for.
            models.UniqueConstraint(
                fields=["account", "route", "key"], name="uq_idempotency_account_route_key"
            ),
        ]
        indexes = [
            # What `prune_expired` deletes.
            models.Index(fields=["created_at"], name="ix_idempotency_created"),
        ]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"


class RateLimitWindow(models.Model):
    """How often something was tried within the running window of a rate limit.

    `subject` is a keyed hash: no e-mail and no address is stored.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40)
    subject = models.BinaryField()
    ends_at = models.DateTimeField()
    count = models.PositiveIntegerField()

    class Meta:
        db_table = "rate_limit_windows"
        constraints = [
            # The upsert of `ratelimits`.
            models.UniqueConstraint(fields=["name", "subject"], name="uq_rate_limit_name_subject"),
        ]
        indexes = [
            # What `prune_expired` deletes.
            models.Index(fields=["ends_at"], name="ix_rate_limit_ends"),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.count}"


class Profile(models.Model):
    """A person in the household. `is_kids` never changes; only kids profiles have limits."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(
        "parentalcontrols.Account",
        on_delete=models.CASCADE,
        related_name="profiles",
        db_index=False,
    )
    name = models.CharField(max_length=100)
    is_kids = models.BooleanField("child", default=False, db_default=False)
    parental_rating = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001
    avatar_url = models.URLField(  # noqa: DJ001
        "avatar URL", max_length=500, null=True, blank=True
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_viewing_change_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text=(
            "When a session last opened, ended or changed. Written under the profile's lock, so "
            "that whoever waited for the lock can tell that what he read before is outdated."
        ),
    )

    objects = CachedQuerySet.as_manager()

    class Meta:
        db_table = "profiles"
        ordering = ("created_at", "id")
        indexes = [
            # The household's list of profiles, in the order of their making.
            models.Index(fields=["account", "created_at", "id"], name="ix_profiles_account"),
        ]

    def __str__(self) -> str:
        return self.name


class Title(models.Model):
    """Something to watch. Lists load `id` and `title` alone, never the heavy fields."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    external_id = models.CharField(  # noqa: DJ001 - several titles may have none
        max_length=100, null=True, blank=True, help_text="The catalogue's own key."
    )
    title = models.CharField(max_length=300)
    release_year = models.PositiveSmallIntegerField(null=True, blank=True)
    is_educational = models.BooleanField("educational", default=False, db_default=False)
    age_rating = models.CharField(max_length=20, blank=True, default="", db_default="")
    genre = models.CharField(max_length=100, blank=True, default="", db_default="")
    director = models.CharField(max_length=200, blank=True, default="", db_default="")
    distributor = models.CharField(max_length=200, blank=True, default="", db_default="")
    runtime_minutes = models.PositiveSmallIntegerField(null=True, blank=True)
    synopsis = models.TextField(blank=True, default="", db_default="")
    artwork_url = models.URLField(
        "artwork URL", max_length=500, blank=True, default="", db_default=""
    )
    withdrawn_at = models.DateTimeField(
        null=True, blank=True, help_text="From then on it cannot be started any more."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    class Meta:
        db_table = "titles"
        ordering = ("title", "id")
        constraints = [
            # The importer's upsert by the catalogue's key.
            models.UniqueConstraint(fields=["external_id"], name="uq_titles_external_id"),
        ]
        indexes = [
            # The importer's look-up by title and year, whatever the case.
            models.Index(Lower("title"), "release_year", name="ix_titles_title_year"),
            # The admin's list by title, without sorting.
            models.Index(fields=["title", "id"], name="ix_titles_title"),
        ]

    def __str__(self) -> str:
        return self.title


def _limit_check(field: str) -> models.Q:
    return models.Q(**{f"{field}__isnull": True}) | models.Q(
        **{f"{field}__gte": LIMIT_LEAST_MINUTES, f"{field}__lte": LIMIT_MOST_MINUTES}
    ) & models.Q(models.lookups.Exact(Mod(models.F(field), LIMIT_STEP_MINUTES), 0))


class ViewingTimeConfig(models.Model):
    """What a parent set for one child (domain.md section 1). Limits in minutes, null = unlimited.

    `earlier_schedules` remembers the reset hours and zones that a change replaced, as
    `parentalcontrols.viewing_day.Schedule` reads them: a change takes effect at the next reset.
    """

    profile = models.OneToOneField(
        Profile, on_delete=models.CASCADE, primary_key=True, related_name="viewing_time_config"
    )
    weekday_limit_minutes = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        default=DEFAULT_WEEKDAY_LIMIT_MINUTES,
        db_default=DEFAULT_WEEKDAY_LIMIT_MINUTES,
    )
    weekend_limit_minutes = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        default=DEFAULT_WEEKEND_LIMIT_MINUTES,
        db_default=DEFAULT_WEEKEND_LIMIT_MINUTES,
    )
    reset_hour = models.PositiveSmallIntegerField(
        default=DEFAULT_RESET_HOUR, db_default=DEFAULT_RESET_HOUR
    )
    timezone = models.CharField(
        max_length=64, default=DEFAULT_TIMEZONE, db_default=DEFAULT_TIMEZONE
    )
    educational_exempt = models.BooleanField(
        "educational titles exempt", default=True, db_default=True
    )
    earlier_schedules = models.JSONField(default=list, db_default=[], blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = CachedQuerySet.as_manager()

    class Meta:
        db_table = "viewing_time_configs"
        verbose_name = "viewing-time config"
        constraints = [
            models.CheckConstraint(
                condition=_limit_check("weekday_limit_minutes"), name="ck_vtc_weekday_limit"
            ),
            models.CheckConstraint(
                condition=_limit_check("weekend_limit_minutes"), name="ck_vtc_weekend_limit"
            ),
            models.CheckConstraint(
                condition=models.Q(reset_hour__gte=0, reset_hour__lte=23), name="ck_vtc_reset_hour"
            ),
            models.CheckConstraint(condition=~models.Q(timezone=""), name="ck_vtc_timezone"),
        ]

    def __str__(self) -> str:
        return f"Viewing time of {self.profile}"
