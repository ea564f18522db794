"""What all pages of the admin have in common: served lists, forms that only write what changed.

Three rules hold on every page. A list opens as fast on a million rows as on ten: it is ordered
and searched by an index, counted up to a bound, and loads no column that it does not show. What
was watched, and what a parent set, is shown and never written; nothing is deleted. No page shows
anything of a password or a PIN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ORDER_VAR, SEARCH_VAR, ChangeList
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.paginator import Paginator
from django.db import connection, transaction
from django.db.models import Field, ManyToManyField, Model, Q, QuerySet, URLField
from django.forms import Field as FormField
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.http import urlencode

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

#: Rows of a list that are counted and can be paged to; who needs others searches for them.
MOST_ROWS = 10_000
#: Rows of an excerpt on another object's page.
EXCERPT_ROWS = 20

#: The planner's idea of how many rows a table has, as of its last vacuum; -1 where it has none.
TABLE_ESTIMATE = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"


# --- Lists ----------------------------------------------------------------------------------


class BoundedPaginator(_Paginator):
    """Counts no further than `MOST_ROWS`, and so never skips more than that either."""

    object_list: QuerySet[Any]

    @cached_property
    def _counted(self) -> int:
        # By the key alone: what a list annotates is told of the rows that it shows.
        return self.object_list.order_by().values("pk")[: MOST_ROWS + 1].count()

    @cached_property
    def count(self) -> int:
        """How many rows can be paged to."""
        return min(self._counted, MOST_ROWS)

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than can be paged to."""
        return self._counted > MOST_ROWS

    @property
    def most_rows(self) -> str:
        """The bound, for people."""
        return f"{MOST_ROWS:,}"

    @cached_property
    def estimate(self) -> str:
        """How many rows a cut list has in all, for people; empty where nobody knows."""
        query = self.object_list.query
        if query.where:
            return ""
        with connection.cursor() as cursor:
            cursor.execute(TABLE_ESTIMATE, [query.get_meta().db_table])
            rows = cursor.fetchone()[0]
        return f"about {rows:,}" if rows > MOST_ROWS else ""


class ServedChangeList(ChangeList):
    """A list in the order that an index serves, of the columns that it shows."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        # `sortable_by` hides the links alone; the parameter would still sort a whole table.
        self.params.pop(ORDER_VAR, None)
        return super().get_ordering(request, queryset)

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[Any]:
        queryset = super().get_queryset(request, exclude_parameters)
        if self.awaits_choice:
            return queryset.none()
        columns = self._lists.list_columns
        return queryset.only(*columns) if columns else queryset

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self._lists.must_choose:
            # No link to a list of everybody's.
            self.full_result_count = self.result_count

    @property
    def awaits_choice(self) -> bool:
        """Whether it has not been said yet of whom rows are to be listed."""
        chosen = self.query.strip() or self._lists.lookups & self.params.keys()
        return self._lists.must_choose and not chosen

    @property
    def _lists(self) -> "ServedAdmin":
        return cast(ServedAdmin, self.model_admin)


class ServedAdmin(_ModelAdmin):
    """What every list and form of ours has in common.

    `lookups`: the filters that a link may name; each is served by an index.
    `list_columns`: what a list loads, where that is less than `get_queryset` does.
    `must_choose`: nothing is listed until a filter or a search says of whom. Rows of everybody,
    in no order that means anything, would answer no question.
    `search_ordering`: the order of what a search found, by the index that found it.
    `touched`: columns that are written with every change.
    """

    lookups: ClassVar[frozenset[str]] = frozenset()
    list_columns: ClassVar[tuple[str, ...]] = ()
    must_choose: ClassVar[bool] = False
    search_ordering: ClassVar[tuple[Any, ...]] = ()
    touched: ClassVar[tuple[str, ...]] = ()

    change_list_template = "admin/adminmetrics/change_list.html"
    change_form_template = "admin/adminmetrics/change_form.html"
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ServedChangeList

    def get_ordering(self, request: HttpRequest) -> Sequence[Any]:  # type: ignore[override]
        searches = self.search_ordering and request.GET.get(SEARCH_VAR, "").strip()
        return self.search_ordering if searches else super().get_ordering(request)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Django allows every column of the model: slow, and a way to guess at hidden ones."""
        return lookup in self.lookups

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Households register themselves and titles come from the catalogue."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whatever is deleted takes with it what was watched."""
        return False

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """An action is for the rows that were ticked on the page, never for a whole table."""
        ticked = request.POST.getlist(ACTION_CHECKBOX_NAME)
        return super().response_action(request, queryset.filter(pk__in=ticked), *args, **kwargs)

    def formfield_for_dbfield(
        self, db_field: "Field[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> FormField | None:
        """The form brings along what it showed, so that only what staff changed is a change."""
        if not isinstance(db_field, ManyToManyField):
            kwargs["show_hidden_initial"] = True
        if isinstance(db_field, URLField):
            kwargs["assume_scheme"] = "https"
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: Any, form: "ModelForm[Any]", change: bool
    ) -> None:
        """Writes what was changed and nothing else: others write the same row meanwhile."""
        columns = {field.name for field in obj._meta.concrete_fields}
        changed = columns.intersection(form.changed_data)
        if changed:
            obj.save(update_fields=changed.union(self.touched))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["excerpts"] = self.excerpts(request, context["original"])
        return super().render_change_form(request, context, *args, **kwargs)

    def excerpts(self, request: HttpRequest, obj: Any) -> "list[Excerpt]":
        """What else is told on an object's page."""
        return []

    def may_view(self, request: HttpRequest, model: type[Model]) -> bool:
        """Whether the member of staff may see rows of another model."""
        return self.admin_site.get_model_admin(model).has_view_permission(request)


class ViewOnlyAdmin(ServedAdmin):
    """Rows that staff may look at and nobody may change here."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- Excerpts -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A short table on an object's page, beside its form and not a part of it.

    Not an inline: its rows come and go while staff edits, and a formset refuses to be saved when
    they do. `more_url` leads to the whole list, empty where the excerpt is all there is. `figure`
    is a picture above the table, as safe HTML without inline styles.
    """

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str = "None yet."
    more_url: str = ""
    figure: str = ""


def change_url(model: type[Model], pk: Any) -> str:
    """The page of an object."""
    options = model._meta
    return reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[pk])


def list_url(model: type[Model], **lookups: Any) -> str:
    """The list of a model, filtered."""
    options = model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
    return f"{address}?{urlencode(lookups)}"


def link(model: type[Model], pk: Any, text: object) -> str:
    """A link to an object's page."""
    return format_html('<a href="{}">{}</a>', change_url(model, pk), text)


def moment(value: datetime) -> str:
    """An instant in UTC, as the pages write it elsewhere."""
    return f"{value:%Y-%m-%d %H:%M:%S}"


def minutes(value: int | None) -> str:
    """A limit or a grant for people."""
    return "unlimited" if value is None else f"{value} min"


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


# --- Searches -------------------------------------------------------------------------------


def as_uuid(term: str) -> UUID | None:
    """The id that somebody pasted into a search, if it is one."""
    try:
        return UUID(term)
    except ValueError:
        return None


class HouseholdSearchMixin:
    """Search by the household's e-mail, in any case of its letters, or by an id.

    `email_lookup` leads to the e-mail and `id_lookups` to the ids. `by_beginning`: the beginning
    of an e-mail will do. Each is served by an index (`uq_accounts_email`, the beginning where the
    column's collation is C or the like); a text in the middle of the e-mail is not looked for.
    """

    email_lookup: ClassVar[str] = "profile__account__email"
    id_lookups: ClassVar[tuple[str, ...]] = ("profile_id",)
    by_beginning: ClassVar[bool] = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().lower()
        if not term:
            return queryset, False
        if (wanted := as_uuid(term)) is not None:
            ids = Q(*((lookup, wanted) for lookup in self.id_lookups), _connector=Q.OR)
            return queryset.filter(ids), False
        exact = queryset.filter(**{self.email_lookup: term})
        if not self.by_beginning or exact.exists():
            return exact, False
        return queryset.filter(**{f"{self.email_lookup}__startswith": term}), False


# --- Writing --------------------------------------------------------------------------------


def update_and_log(
    request: HttpRequest, queryset: QuerySet[Any], message: str, **values: Any
) -> list[Any]:
    """Writes the same values to a few rows and who did it to their histories; answers the rows.

    Locks them first, by key: of two who do the same at once, one did it.
    """
    with transaction.atomic():
        rows = list(queryset.order_by("pk").select_for_update(of=("self",), no_key=True))
        queryset.model._default_manager.filter(pk__in=[row.pk for row in rows]).update(**values)
        log_action(request, rows, message)
    return rows


def log_action(request: HttpRequest, rows: Sequence[Any], message: str) -> None:
    """Writes to the histories of rows who did what."""
    # The site lets nobody in who is not signed in.
    staff = cast(AbstractBaseUser, request.user)
    LogEntry.objects.log_actions(
        user_id=staff.pk, queryset=rows, action_flag=CHANGE, change_message=message
    )
