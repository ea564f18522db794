"""Staff's view of PINs and of the audit: a lock can be lifted, nothing else is changed."""

import json
from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html

from adminmetrics.pages import HouseholdSearchMixin, ServedAdmin, ViewOnlyAdmin, link, log_action
from pins import audit, verification
from pins.models import ActorKind, AuditEntry, Pin


class LockedFilter(admin.SimpleListFilter):
    """The PINs that are locked now; served by `ix_pins_locked`."""

    title = "lock"
    parameter_name = "locked"
    NOW = "now"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(self.NOW, "Locked now")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Pin]) -> QuerySet[Pin]:
        return queryset.filter(locked_until__gt=Now()) if self.value() == self.NOW else queryset


@admin.register(Pin)
class PinAdmin(HouseholdSearchMixin, ServedAdmin):
    """Whose PIN is locked; the PIN itself is nobody's to see, and its hash neither."""

    email_lookup = "account__email"
    id_lookups = ("account_id",)
    ordering = ("account_id",)
    search_fields = ("account__email",)
    search_help_text = "The household's whole e-mail, or the account's id."
    list_display = ("account", "state", "failed_attempts", "changed_at")
    list_columns = (
        "attempts_reserved",
        "attempts_cleared",
        "locked_until",
        "changed_at",
        "account__email",
    )
    list_filter = (LockedFilter,)
    lookups = frozenset({LockedFilter.parameter_name})
    fields = ("account", "state", "failed_attempts", "created_at", "changed_at")
    readonly_fields = fields
    actions = ("unlock",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pin]:
        return (
            super()
            .get_queryset(request)
            .select_related("account")
            .only(*self.list_columns, "created_at")
        )

    def get_ordering(self, request: HttpRequest) -> Sequence[Any]:  # type: ignore[override]
        is_filtered = request.GET.get(LockedFilter.parameter_name) == LockedFilter.NOW
        # `ix_pins_locked` gives the locked ones in this order.
        return ("locked_until", "account_id") if is_filtered else super().get_ordering(request)

    def has_change_permission(self, request: HttpRequest, obj: Pin | None = None) -> bool:
        """It is for the list's action: a single PIN's page has nothing to write."""
        return obj is None and super().has_change_permission(request)

    @admin.display(description="state")
    def state(self, pin: Pin) -> str:
        return pin.state

    @admin.display(description="wrong attempts")
    def failed_attempts(self, pin: Pin) -> int:
        return pin.failed_attempts

    @admin.action(permissions=["change"], description="Unlock the selected PINs")
    def unlock(self, request: HttpRequest, queryset: QuerySet[Pin]) -> None:
        """Lifts locks; audited for the household to see.

        Nothing happens to a PIN that is open: forgetting its wrong attempts would not be audited.
        """
        locked = {pin.pk: pin for pin in queryset.filter(locked_until__gt=Now())}
        with transaction.atomic():
            unlocked = verification.unlock(locked, actor=audit.staff(request))
            log_action(request, [locked[account_id] for account_id in unlocked], "Unlocked.")
        messages.info(request, f"PINs unlocked: {len(unlocked)}.")


@admin.register(AuditEntry)
class AuditEntryAdmin(HouseholdSearchMixin, ViewOnlyAdmin):
    """What loosened or tightened a household's limits; never edited, by nobody."""

    email_lookup = "account__email"
    id_lookups = ("account_id",)
    must_choose = True
    lookups = frozenset({"account__id__exact"})
    ordering = ("-id",)
    search_fields = ("account__email",)
    search_help_text = "Listed for one household: its whole e-mail, or the account's id."
    list_display = ("at", "household", "action", "by", "child", "device", "change")
    list_columns = (
        "id",
        "account_id",
        "at",
        "action",
        "actor",
        "actor_id",
        "profile_id",
        "device",
        "before",
        "after",
    )
    fields = ("household", "child", "at", "action", "by", "login_id", "device", "before", "after")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        """With the names of those whose ids an entry holds; None where they are there no more.

        Not joined: an entry is listed also when its account or profile is gone.
        """
        entries: QuerySet[AuditEntry] = super().get_queryset(request)
        named: QuerySet[AuditEntry] = entries.annotate(
            household_name=_named(get_user_model(), "email", "account_id"),
            child_name=_named(_profiles(), "name", "profile_id"),
            actor_account_name=_named(get_user_model(), "email", "actor_id"),
            actor_profile_name=_named(_profiles(), "name", "actor_id"),
        )
        return named

    @admin.display(description="household")
    def household(self, entry: Any) -> str:
        name = entry.household_name or entry.account_id
        return link(get_user_model(), entry.account_id, name)

    @admin.display(description="by")
    def by(self, entry: Any) -> str:
        kind: str = entry.get_actor_display()
        if entry.actor_id is None:
            return kind
        if entry.actor == ActorKind.PROFILE:
            name = entry.actor_profile_name or entry.actor_id
            return format_html("{} {}", kind, link(_profiles(), entry.actor_id, name))
        name = entry.actor_account_name or entry.actor_id
        return format_html("{} {}", kind, link(get_user_model(), entry.actor_id, name))

    @admin.display(description="profile", empty_value="-")
    def child(self, entry: Any) -> str | None:
        if entry.profile_id is None:
            return None
        return link(_profiles(), entry.profile_id, entry.child_name or entry.profile_id)

    @admin.display(description="before -> after", empty_value="-")
    def change(self, entry: AuditEntry) -> str:
        before, after = entry.before or {}, entry.after or {}
        return "; ".join(
            f"{name}: {_value(before, name)} -> {_value(after, name)}"
            for name in {**before, **after}
            if name not in before or name not in after or before[name] != after[name]
        )


def _value(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "-"


def _profiles() -> type[Model]:
    """The model by its name: profiles belong to a package that is none of ours to import."""
    return apps.get_model("parentalcontrols", "Profile")


def _named(model: type[Model], name: str, reference: str) -> Subquery:
    """A column of the row that an entry refers to by its id: one look-up by the primary key."""
    found = model._default_manager.filter(pk=OuterRef(reference)).order_by()
    return Subquery(found.values(name))
