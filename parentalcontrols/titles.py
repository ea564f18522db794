"""Importing titles: a checked catalogue becomes the table of titles, all of it or nothing."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Value as Bound
from django.db.models.functions import Lower

from parentalcontrols.models import Title
from parentalcontrols.title_files import ColumnPlan, Row, Value
from parentalcontrols.title_rows import Note, Record, Rejection, check_rows, rejected_as_ambiguous

ROWS_PER_BATCH: Final = 1000

# Two imports at once would both miss the same title and both create it; nothing in the table
# forbids that. The lock is the import's own, so that it holds up nobody else, and it ends with
# the transaction. The key is arbitrary.
ONE_IMPORT_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(7451230911)"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did, or would have done where `written` is false.

    `rows` = `created` + `updated` + `unchanged` + `merged` + the rejections. `merged` rows told of
    a title that another row of the same file tells of too.
    """

    rows: int
    created: int
    updated: int
    unchanged: int
    merged: int
    rejections: tuple[Rejection, ...]
    notes: tuple[Note, ...]
    written: bool


# --- Writing --------------------------------------------------------------------------------


def import_titles(
    *,
    rows: Sequence[Row],
    plan: ColumnPlan,
    now: datetime,
    skip_invalid: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Creates and updates titles; in one transaction, all or nothing.

    A record is the title with its external id; a record with a new one is the title of the same
    name and year that has none yet, if there is exactly one; a record without is the title of the
    same name (whatever the letters' case) and year. A title that already says the same is not
    written. `withdrawn_at`, and fields that the file has no column for, are never touched.

    With a rejected row nothing is written, unless `skip_invalid`. `progress` is called with the
    number of rows done. Statements per 1,000 rows: two look-ups, an INSERT and an UPDATE.
    """
    checked = check_rows(rows=rows, plan=plan, this_year=now.year)
    advance = progress or (lambda _: None)
    advance(len(checked.rejections))
    wanted = not dry_run and (skip_invalid or not checked.rejections)
    # Those with an external id first: they are sure of their titles, the others take what is left.
    records = sorted(checked.records, key=lambda record: record.external_id is None)
    claimed: set[UUID] = set()
    outcome = _Outcome()
    with transaction.atomic():
        if wanted:
            with connection.cursor() as cursor:
                cursor.execute(ONE_IMPORT_AT_A_TIME)
        for start in range(0, len(records), ROWS_PER_BATCH):
            batch = records[start : start + ROWS_PER_BATCH]
            done = _write_batch(batch, plan=plan, now=now, claimed=claimed, write=wanted)
            outcome = outcome.plus(done)
            advance(sum(len(record.rows) for record in batch))
        written = wanted and (skip_invalid or not outcome.rejections)
        if not written:
            transaction.set_rollback(True)
    return ImportReport(
        rows=len(rows),
        created=outcome.created,
        updated=outcome.updated,
        unchanged=outcome.unchanged,
        merged=outcome.merged,
        rejections=tuple(
            sorted((*checked.rejections, *outcome.rejections), key=lambda one: one.row)
        ),
        notes=checked.notes,
        written=written,
    )


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of a batch, in titles; `merged` and `rejections` count rows."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    merged: int = 0
    rejections: tuple[Rejection, ...] = ()

    def plus(self, other: "_Outcome") -> "_Outcome":
        return _Outcome(
            created=self.created + other.created,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            merged=self.merged + other.merged,
            rejections=self.rejections + other.rejections,
        )


def _write_batch(
    batch: Sequence[Record],
    *,
    plan: ColumnPlan,
    now: datetime,
    claimed: set[UUID],
    write: bool,
) -> _Outcome:
    """Creates and updates a batch. `claimed` are the titles that earlier records stand for."""
    by_external_id, by_name = _stored(batch, plan=plan, lock=write)
    new: list[Title] = []
    changed: list[Title] = []
    changed_fields = {"updated_at"}
    rejections: list[Rejection] = []
    unchanged = merged = 0
    for record in batch:
        candidates = _candidates(record, by_external_id, by_name, claimed)
        if len(candidates) > 1:
            rejections.extend(rejected_as_ambiguous(record))
            continue
        merged += len(record.rows) - 1
        values = _stored_values(record)
        if not candidates:
            new.append(Title(**values, created_at=now))
            continue
        title = candidates[0]
        claimed.add(title.id)
        differing = {name: value for name, value in values.items() if getattr(title, name) != value}
        if not differing:
            unchanged += 1
            continue
        for name, value in differing.items():
            setattr(title, name, value)
        title.updated_at = now
        changed.append(title)
        changed_fields.update(differing)
    if write and new:
        Title.objects.bulk_create(new)
    if write and changed:
        Title.objects.bulk_update(changed, sorted(changed_fields))
    return _Outcome(
        created=len(new),
        updated=len(changed),
        unchanged=unchanged,
        merged=merged,
        rejections=tuple(rejections),
    )


def _candidates(
    record: Record,
    by_external_id: Mapping[str, Title],
    by_name: Mapping[tuple[str, Value], Sequence[Title]],
    claimed: set[UUID],
) -> list[Title]:
    """The stored titles that a record may mean: none, one, or too many to tell."""
    known = by_external_id.get(record.external_id or "")
    if known is not None:
        return [known]
    free = [title for title in by_name.get(record.name_key, ()) if title.id not in claimed]
    if record.external_id is None:
        return free
    # It has a name of its own and needs none of these; it takes the one that waits for an id.
    waiting = [title for title in free if title.external_id is None]
    return waiting if len(waiting) == 1 else []


def _stored_values(record: Record) -> dict[str, Any]:
    """The record as a title stores it: unknown means regular, and an id is never taken away."""
    values: dict[str, Any] = dict(record.values)
    if values.get("is_educational", False) is None:
        values["is_educational"] = False
    if record.external_id is None:
        values.pop("external_id", None)
    return values


def _stored(
    batch: Sequence[Record], *, plan: ColumnPlan, lock: bool
) -> tuple[dict[str, Title], dict[tuple[str, Value], list[Title]]]:
    """The titles that a batch may mean, by external id and by name and year."""
    titles = Title.objects.only("id", "title", "external_id", "release_year", *plan.fields)
    if lock:
        # Nobody's edit is lost between our reading and writing. NO KEY: a child that starts a
        # title meanwhile needs a key share of its row and must not wait for the import.
        titles = titles.select_for_update(no_key=True)
    titles = titles.order_by("id")
    external_ids = [record.external_id for record in batch if record.external_id is not None]
    # The database folds the case of both sides: its rules for letters may differ from Python's.
    names = [Lower(Bound(record.title)) for record in batch]
    stored: dict[UUID, Title] = {}
    for found in (
        titles.filter(external_id__in=external_ids),
        titles.alias(folded=Lower("title")).filter(folded__in=names),
    ):
        for title in found:
            stored.setdefault(title.id, title)
    by_name: defaultdict[tuple[str, Value], list[Title]] = defaultdict(list)
    for title in stored.values():
        year = title.release_year if "release_year" in plan.columns else None
        by_name[title.title.lower(), year].append(title)
    return {title.external_id: title for title in stored.values() if title.external_id}, by_name
