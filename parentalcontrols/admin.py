"""Staff's view of the household: accounts, profiles, titles and configs.

What all its pages have in common stands in `adminmetrics.pages`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Lower, Now
from django.forms import ModelForm, ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from rest_framework.exceptions import Throttled

from adminmetrics.pages import (
    EXCERPT_ROWS,
    Excerpt,
    HouseholdSearchMixin,
    ServedAdmin,
    ViewOnlyAdmin,
    as_uuid,
    link,
    list_url,
    minutes,
    moment,
    update_and_log,
    yes_no,
)
from parentalcontrols import accounts, ratelimits
from parentalcontrols.models import Account, Profile, RefreshFamily, Title, ViewingTimeConfig
from parentalcontrols.problems import Problem
from parentalcontrols.ratelimits import Guess
from pins import audit
from pins.models import AuditAction, AuditEntry, Pin

admin.site.site_header = "Viewing time administration"
admin.site.site_title = "Viewing time"
admin.site.index_title = "Households, titles and what was watched"
# There is no page to go to: what else is served here is an API.
admin.site.site_url = None


@contextmanager
def _limited_guess(email: str, address: str | None) -> Iterator[Guess]:
    """A guess at a password by a form, which says so where it is one too many."""
    try:
        with accounts.limited_log_in(email, address or "unknown") as guess:
            yield guess
    except Throttled as error:
        count = math.ceil((getattr(error, "wait", None) or 60) / 60)
        unit = "minute" if count == 1 else "minutes"
        raise ValidationError(f"Too many attempts. Try again in {count} {unit}.") from None
    except Problem as problem:
        if problem.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        raise ValidationError("The service is busy. Try again shortly.") from None


class LoginForm(AdminAuthenticationForm):
    """Staff signs in under the same limits as every household (`accounts.limited_log_in`)."""

    def clean(self) -> dict[str, Any]:
        email = self.cleaned_data.get("username")
        if email is None or not self.cleaned_data.get("password"):
            # Nothing is compared with a password, so nobody failed and nobody succeeded.
            return super().clean()
        address = ratelimits.client_address(self.request) if self.request else None
        with _limited_guess(email, address) as guess:
            cleaned = super().clean()
            guess.succeeded()
        return cleaned


class OwnPasswordForm(AdminPasswordChangeForm):
    """Staff changes its own password; the old one is guessed under the limits of a log-in."""

    def clean_old_password(self) -> str:
        with _limited_guess(self.user.email, None) as guess:
            old: str = super().clean_old_password()
            guess.succeeded()
        return old


def change_own_password(request: HttpRequest) -> HttpResponseBase:
    """The admin's page for it, with our form, which the site cannot be told to take."""
    page = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )
    return page(request)


admin.site.login_form = LoginForm


@admin.register(Account)
class AccountAdmin(HouseholdSearchMixin, ServedAdmin):
    """A household's log-in: found by its e-mail, deactivated and reactivated.

    Who may enter this site, and in which groups, is for superusers to say.
    """

    email_lookup = "email"
    id_lookups = ("id",)
    by_beginning = True
    ordering = ("-created_at", "id")
    search_ordering = ("email",)
    search_fields = ("email",)
    search_help_text = "The beginning of the e-mail, or the account's id."
    list_display = ("email", "is_active", "is_staff", "created_at")
    list_columns = ("id", "email", "is_active", "is_staff", "created_at")
    fieldsets = (
        (None, {"fields": ("email", "is_active", "created_at", "last_login")}),
        ("Staff", {"fields": ("is_staff", "is_superuser", "groups")}),
    )
    filter_horizontal = ("groups",)
    actions = ("deactivate", "reactivate")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        return super().get_queryset(request).defer("password")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        fixed = ("email", "created_at", "last_login", "is_superuser")
        if not _staff(request).is_superuser:
            return (*fixed, "is_staff", "groups")
        # Nobody can lock themselves out.
        own = obj is not None and obj.pk == _staff(request).pk
        return (*fixed, "is_active", "is_staff") if own else fixed

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only a superuser changes an account that may enter this site."""
        allowed = super().has_change_permission(request, obj)
        if obj is None or _staff(request).is_superuser:
            return allowed
        return allowed and not (obj.is_staff or obj.is_superuser)

    def excerpts(self, request: HttpRequest, obj: Account) -> list[Excerpt]:
        excerpts = []
        if self.may_view(request, Profile):
            profiles = Profile.objects.filter(account_id=obj.pk).order_by("created_at", "id")
            excerpts.append(
                Excerpt(
                    heading="Profiles",
                    columns=("Name", "Child", "Parental rating", "Created"),
                    rows=[
                        (
                            link(Profile, profile.pk, profile.name),
                            yes_no(profile.is_kids),
                            profile.parental_rating or "-",
                            profile.created_at,
                        )
                        for profile in profiles.only(
                            "id", "name", "is_kids", "parental_rating", "created_at"
                        )[:EXCERPT_ROWS]
                    ],
                    more_url=list_url(Profile, account__id__exact=obj.pk),
                )
            )
        if self.may_view(request, Pin):
            excerpts.append(_pin_excerpt(obj))
        if self.may_view(request, AuditEntry):
            entries = AuditEntry.objects.filter(account_id=obj.pk).order_by("-id")
            excerpts.append(
                Excerpt(
                    heading="Latest changes",
                    columns=("When", "What", "By", "Device"),
                    rows=[
                        (
                            link(AuditEntry, entry.pk, moment(entry.at)),
                            entry.get_action_display(),
                            entry.get_actor_display(),
                            entry.device or "-",
                        )
                        for entry in entries.only("id", "at", "action", "actor", "device")[:5]
                    ],
                    more_url=list_url(AuditEntry, account__id__exact=obj.pk),
                )
            )
        if self.may_view(request, RefreshFamily):
            families = RefreshFamily.objects.filter(account_id=obj.pk).order_by("-created_at")
            excerpts.append(
                Excerpt(
                    heading="Latest log-ins",
                    columns=("Logged in", "Good until", "Ended"),
                    rows=[
                        (
                            family.created_at,
                            family.expires_at,
                            family.revoked_at or "-",
                        )
                        for family in families.only("created_at", "expires_at", "revoked_at")[:5]
                    ],
                    more_url=list_url(RefreshFamily, account__id__exact=obj.pk),
                )
            )
        return excerpts

    @admin.action(permissions=["change"], description="Deactivate the selected accounts")
    def deactivate(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        """Every token of theirs is refused from now on."""
        self._set_active(request, queryset, is_active=False)

    @admin.action(permissions=["change"], description="Reactivate the selected accounts")
    def reactivate(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        """Takes a deactivation back."""
        self._set_active(request, queryset, is_active=True)

    def _set_active(
        self, request: HttpRequest, queryset: QuerySet[Account], *, is_active: bool
    ) -> None:
        others = queryset.exclude(pk=_staff(request).pk).exclude(is_active=is_active)
        if not _staff(request).is_superuser:
            others = others.filter(is_staff=False, is_superuser=False)
        told = "reactivated" if is_active else "deactivated"
        with transaction.atomic():
            changed = update_and_log(request, others, told.capitalize() + ".", is_active=is_active)
            for account in changed:
                _audit_standing(request, account, is_active=is_active)
        messages.info(request, f"Accounts {told}: {len(changed)}.")

    def save_model(
        self, request: HttpRequest, obj: Account, form: "ModelForm[Any]", change: bool
    ) -> None:
        with transaction.atomic():
            was_other = "is_active" in form.changed_data and _lock_if_other(obj)
            super().save_model(request, obj, form, change)
            if was_other:
                _audit_standing(request, obj, is_active=obj.is_active)


def _lock_if_other(account: Account) -> bool:
    """Locks the stored row if `is_active` is about to change: somebody may have been faster."""
    stored = Account.objects.exclude(is_active=account.is_active).filter(pk=account.pk)
    return bool(stored.select_for_update(no_key=True).values_list("pk"))


def _audit_standing(request: HttpRequest, account: Account, *, is_active: bool) -> None:
    """Tells the household that staff deactivated or reactivated its account."""
    audit.record(
        account_id=account.pk,
        actor=audit.staff(request),
        action=AuditAction.ACCOUNT_REACTIVATED if is_active else AuditAction.ACCOUNT_DEACTIVATED,
    )


def _pin_excerpt(account: Account) -> Excerpt:
    """Whether the household has a PIN, and whether it is locked."""
    found = Pin.objects.filter(account_id=account.pk).only(
        "account", "changed_at", "locked_until", "attempts_reserved", "attempts_cleared"
    )
    return Excerpt(
        heading="PIN",
        columns=("Changed", "State", "Wrong attempts"),
        rows=[
            (link(Pin, pin.pk, moment(pin.changed_at)), pin.state, pin.failed_attempts)
            for pin in found
        ],
        empty="None set.",
    )


@admin.register(RefreshFamily)
class RefreshFamilyAdmin(HouseholdSearchMixin, ViewOnlyAdmin):
    """When a household logged in, and until when that is good; not the tokens' ids."""

    email_lookup = "account__email"
    id_lookups = ("account_id",)
    must_choose = True
    lookups = frozenset({"account__id__exact"})
    ordering = ("-created_at", "id")
    search_fields = ("account__email",)
    search_help_text = "Listed for one household: its whole e-mail, or the account's id."
    list_display = ("created_at", "account", "expires_at", "revoked_at")
    fields = ("account", "created_at", "expires_at", "revoked_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RefreshFamily]:
        return (
            super()
            .get_queryset(request)
            .select_related("account")
            .only("id", "created_at", "expires_at", "revoked_at", "account__email")
        )


class ProfileAdmin(HouseholdSearchMixin, ServedAdmin):
    """A person in the household. Whose it is, and whether it is a child, never changes.

    `viewingtime.admin` registers it, together with what the child watched.
    """

    email_lookup = "account__email"
    id_lookups = ("id",)
    by_beginning = True
    lookups = frozenset({"account__id__exact"})
    ordering = ("account_id", "created_at", "id")
    search_ordering = ("account__email", "created_at", "id")
    search_fields = ("account__email",)
    search_help_text = "The beginning of the household's e-mail, or the profile's id."
    list_display = ("name", "household", "is_kids", "parental_rating", "created_at")
    fields = (
        "name",
        "parental_rating",
        "avatar_url",
        "account",
        "is_kids",
        "created_at",
    )
    readonly_fields = ("account", "is_kids", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Profile]:
        return (
            super()
            .get_queryset(request)
            .select_related("account")
            .only(
                "id",
                "name",
                "is_kids",
                "parental_rating",
                "avatar_url",
                "created_at",
                "account__email",
            )
        )

    @admin.display(description="household")
    def household(self, profile: Profile) -> str:
        return link(Account, profile.account_id, profile.account.email)

    def excerpts(self, request: HttpRequest, obj: Profile) -> list[Excerpt]:
        if not obj.is_kids or not self.may_view(request, ViewingTimeConfig):
            return []
        config: ViewingTimeConfig | None = getattr(obj, "viewing_time_config", None)
        return [
            Excerpt(
                heading="Viewing-time config",
                columns=(
                    "Weekdays",
                    "Weekends",
                    "Day starts at",
                    "Time zone",
                    "Educational titles exempt",
                    "Changed",
                ),
                rows=[]
                if config is None
                else [
                    (
                        link(ViewingTimeConfig, config.pk, minutes(config.weekday_limit_minutes)),
                        minutes(config.weekend_limit_minutes),
                        f"{config.reset_hour:02}:00",
                        config.timezone,
                        yes_no(config.educational_exempt),
                        config.updated_at,
                    )
                ],
                empty="None yet: the defaults are in force.",
            )
        ]


@admin.register(ViewingTimeConfig)
class ViewingTimeConfigAdmin(HouseholdSearchMixin, ViewOnlyAdmin):
    """What parents set for their children; theirs alone to change."""

    lookups = frozenset({"profile__id__exact"})
    ordering = ("profile_id",)
    search_fields = ("profile__account__email",)
    search_help_text = "The household's whole e-mail, or the profile's id."
    list_display = ("child", "weekdays", "weekends", "starts_at", "timezone", "educational_exempt")
    fields = (
        "profile",
        "weekdays",
        "weekends",
        "starts_at",
        "timezone",
        "educational_exempt",
        "earlier_schedules",
        "created_at",
        "updated_at",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[ViewingTimeConfig]:
        columns = (field.name for field in ViewingTimeConfig._meta.concrete_fields)
        return (
            super().get_queryset(request).select_related("profile").only(*columns, "profile__name")
        )

    @admin.display(description="child")
    def child(self, config: ViewingTimeConfig) -> str:
        return config.profile.name

    @admin.display(description="weekdays")
    def weekdays(self, config: ViewingTimeConfig) -> str:
        return minutes(config.weekday_limit_minutes)

    @admin.display(description="weekends")
    def weekends(self, config: ViewingTimeConfig) -> str:
        return minutes(config.weekend_limit_minutes)

    @admin.display(description="day starts at")
    def starts_at(self, config: ViewingTimeConfig) -> str:
        return f"{config.reset_hour:02}:00"


@admin.register(Title)
class TitleAdmin(ServedAdmin):
    """Something to watch: corrected, withdrawn and restored here, added by the import."""

    ordering = ("title", "id")
    search_ordering = (Lower("title"), "release_year", "id")
    search_fields = ("title",)
    search_help_text = "The beginning of the title, the whole external id, or the title's id."
    list_display = (
        "title",
        "release_year",
        "is_educational",
        "age_rating",
        "external_id",
        "withdrawn_at",
    )
    list_columns = ("id", *list_display)
    fieldsets = (
        (None, {"fields": ("title", "release_year", "is_educational", "age_rating")}),
        (
            "Description",
            {
                "fields": (
                    "genre",
                    "director",
                    "distributor",
                    "runtime_minutes",
                    "synopsis",
                    "artwork_url",
                )
            },
        ),
        ("Catalogue", {"fields": ("external_id", "withdrawn_at", "created_at", "updated_at")}),
    )
    readonly_fields = ("external_id", "withdrawn_at", "created_at", "updated_at")
    touched = ("updated_at",)
    actions = ("withdraw", "restore")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Title], search_term: str
    ) -> tuple[QuerySet[Title], bool]:
        """Served by the primary key, `uq_titles_external_id` and `ix_titles_title_year`."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if (wanted := as_uuid(term)) is not None:
            return queryset.filter(pk=wanted), False
        named = queryset.filter(external_id=term)
        if named.exists():
            return named, False
        folded = queryset.alias(folded=Lower("title"))
        return folded.filter(folded__startswith=term.lower()), False

    @admin.action(permissions=["change"], description="Withdraw the selected titles")
    def withdraw(self, request: HttpRequest, queryset: QuerySet[Title]) -> None:
        """They cannot be started any more; who is watching one goes on."""
        titles = queryset.filter(withdrawn_at=None)
        changed = update_and_log(
            request, titles, "Withdrawn.", withdrawn_at=Now(), updated_at=Now()
        )
        messages.info(request, f"Titles withdrawn: {len(changed)}.")

    @admin.action(permissions=["change"], description="Restore the selected titles")
    def restore(self, request: HttpRequest, queryset: QuerySet[Title]) -> None:
        """Takes a withdrawal back."""
        titles = queryset.exclude(withdrawn_at=None)
        changed = update_and_log(request, titles, "Restored.", withdrawn_at=None, updated_at=Now())
        messages.info(request, f"Titles restored: {len(changed)}.")


def _staff(request: HttpRequest) -> Account:
    """Who asks; the site lets nobody in who is not signed in."""
    return cast(Account, request.user)
