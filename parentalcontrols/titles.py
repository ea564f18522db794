"""Reading a catalogue into the table of titles: read, map, check, write, report.

What is wrong with a row is decided field by field. A row is *rejected* where writing it would
store something false or unusable under its name: no title, NUL or other control characters, a
value that is too long, a list where a text belongs. A value of lesser weight is *blanked*, with a
note in the report: a year that cannot be (in the future, before the first film, or without its
century, which must not be guessed), a running time of zero or of more than a day, an address that
no browser opens, an educational flag that is neither yes nor no (the title is regular then, so
that its time counts), a rating that only says that there is none.
"""

import csv
import io
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import connection, transaction
from django.db.models import Value as Bound
from django.db.models.functions import Lower

from parentalcontrols.models import Title

FileFormat = Literal["json", "csv"]
Value = str | int | bool | None

#: The fields that a file can fill, and the names (letters and digits only, in lower case) under
#: which their columns are found unless the caller names them. Earlier names are preferred.
COLUMN_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "title": ("title", "titlename", "displayname", "name"),
    "external_id": ("externalid", "externalkey"),
    "release_year": ("releaseyear", "year", "releasedate"),
    "is_educational": ("iseducational", "educational"),
    "age_rating": ("agerating", "mpaarating"),
    "genre": ("genre", "majorgenre"),
    "director": ("director",),
    "distributor": ("distributor",),
    "runtime_minutes": ("runtimeminutes", "runningtimemin", "runningtime", "runtime"),
    "synopsis": ("synopsis", "description"),
    "artwork_url": ("artworkurl", "artwork", "posterurl"),
}
FIELDS: Final = tuple(COLUMN_NAMES)

#: The longest text of each field, in characters.
LONGEST: Final[Mapping[str, int]] = {
    "title": 300,
    "external_id": 100,
    "age_rating": 20,
    "genre": 100,
    "director": 200,
    "distributor": 200,
    "synopsis": 10_000,
    "artwork_url": 500,
}

#: Ways to write that nobody has rated a title.
UNRATED: Final = frozenset(
    {"not rated", "unrated", "not yet rated", "nr", "ur", "open", "none", "unknown", "n/a", "-"}
)
YES: Final = frozenset({"true", "yes", "y", "1"})
NO: Final = frozenset({"false", "no", "n", "0"})

FIRST_FILM_YEAR: Final = 1888
LONGEST_RUNTIME_MINUTES: Final = 24 * 60
ROWS_PER_BATCH: Final = 1000

# Two imports at once would both miss the same title and both create it; nothing in the table
# forbids that. The lock is the import's own, so that it holds up nobody else, and it ends with
# the transaction. The key is arbitrary.
ONE_IMPORT_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(7451230911)"

_is_web_address = URLValidator(schemes=["http", "https"])


class CatalogueError(Exception):
    """The file or the mapping cannot be used at all; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as the file has it. `number` counts from 1, without a CSV file's header."""

    number: int
    cells: Mapping[str, object]
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class EducationalRule:
    """A title is educational where `column` says `value`, whatever the letters' case."""

    column: str
    value: str


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """Which column fills which field, and what makes a title educational."""

    columns: Mapping[str, str]
    educational: tuple[EducationalRule, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the file says something about; the others of a title are not touched."""
        ruled = {"is_educational"} if self.educational else set()
        return tuple(name for name in FIELDS if name in self.columns or name in ruled)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a catalogue says about one title. `rows` has several numbers where rows were merged.

    A field that the row does not have at all is missing in `values`; one that it leaves empty is
    there as an empty text or None.
    """

    rows: tuple[int, ...]
    values: Mapping[str, Value]

    @property
    def external_id(self) -> str | None:
        value = self.values.get("external_id")
        return value if isinstance(value, str) else None

    @property
    def title(self) -> str:
        return str(self.values["title"])

    @property
    def name_key(self) -> tuple[str, Value]:
        """What tells titles apart that have no external id; a file without years has only names."""
        return self.title.lower(), self.values.get("release_year")


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A row that is not imported, and why."""

    row: int
    title: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that was left blank in `count` rows; `rows` are the first few of them."""

    field: str
    reason: str
    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """The outcome of `check_rows`: every row is in a record or rejected."""

    records: tuple[Record, ...]
    rejections: tuple[Rejection, ...]
    notes: tuple[Note, ...]


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


# --- Reading --------------------------------------------------------------------------------


def read_rows(*, path: Path, file_format: FileFormat | None = None) -> list[Row]:
    """The rows of a JSON or CSV file in UTF-8, with or without a byte order mark.

    JSON is a list of objects, or an object whose `titles` is one. Without `file_format` the
    file's ending decides. Raises `CatalogueError` where nothing of the file can be read.
    """
    chosen = file_format or path.suffix.lower().removeprefix(".")
    if chosen not in {"json", "csv"}:
        raise CatalogueError(
            f"{path.name} ends neither in .json nor in .csv: say --format json or --format csv."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CatalogueError(
            f"{path.name} is not UTF-8 (line {line}): save it with that encoding."
        ) from None
    return _json_rows(text, path.name) if chosen == "json" else _csv_rows(text, path.name)


def _json_rows(text: str, name: str) -> list[Row]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{name} is not JSON: {error}.") from None
    if isinstance(content, dict):
        content = content.get("titles")
    if not isinstance(content, list):
        raise CatalogueError(
            f'{name} must be a list of objects, or an object with such a list as "titles".'
        )
    return [
        Row(number=number, cells=item)
        if isinstance(item, dict)
        else Row(number=number, cells={}, fault="is not an object")
        for number, item in enumerate(content, 1)
    ]


def _csv_rows(text: str, name: str) -> list[Row]:
    # A cell that is too long is that row's fault alone; the default limit would end the reading.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = [column.strip() for column in next(lines, [])]
        if not any(header):
            raise CatalogueError(f"{name} has no header: its first line must name the columns.")
        twice = [column for column, count in Counter(header).items() if column and count > 1]
        if twice:
            raise CatalogueError(f"{name} has two columns with the name {twice[0]!r}.")
        for cells in lines:
            if not cells:
                continue
            number, fault = len(rows) + 1, ""
            if len(cells) != len(header):
                fault = f"has {len(cells)} cells under {len(header)} columns"
            rows.append(
                Row(number=number, cells=dict(zip(header, cells, strict=False)), fault=fault)
            )
    except csv.Error as error:
        raise CatalogueError(f"{name} is not CSV (line {lines.line_num}): {error}.") from None
    return rows


# --- Mapping --------------------------------------------------------------------------------


def plan_columns(
    *,
    rows: Sequence[Row],
    mapping: Mapping[str, str] | None = None,
    educational: Sequence[EducationalRule] = (),
) -> ColumnPlan:
    """Which column fills which field.

    `mapping` (field to column) goes before the names that are understood by themselves. Without
    `educational` rules documentaries are educational, by the column of the genre. Raises
    `CatalogueError` for a field or column that does not exist, and where no column has the title.
    """
    mapping = mapping or {}
    for field in mapping:
        if field not in COLUMN_NAMES:
            raise CatalogueError(
                f"There is no field {field!r} to map: the fields are {', '.join(FIELDS)}."
            )
    if not rows:
        return ColumnPlan(columns={}, educational=())
    present = list(dict.fromkeys(column for row in rows for column in row.cells))
    simplified: dict[str, str] = {}
    for column in present:
        simplified.setdefault(re.sub(r"[\W_]+", "", column).lower(), column)
    columns = {
        field: simplified[name]
        for field, names in COLUMN_NAMES.items()
        if (name := next((name for name in names if name in simplified), None))
    }
    columns |= {field: _present_column(column, present) for field, column in mapping.items()}
    if "title" not in columns:
        raise CatalogueError(
            f"No column holds the title: say --map title=COLUMN with one of {_listed(present)}."
        )
    rules = tuple(
        EducationalRule(column=_present_column(rule.column, present), value=rule.value)
        for rule in educational
    )
    if not rules and "genre" in columns:
        rules = (EducationalRule(column=columns["genre"], value="Documentary"),)
    return ColumnPlan(columns=columns, educational=rules)


def _present_column(wanted: str, present: Sequence[str]) -> str:
    if wanted in present:
        return wanted
    for column in present:
        if column.strip().lower() == wanted.strip().lower():
            return column
    raise CatalogueError(f"The file has no column {wanted!r}: it has {_listed(present)}.")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(column) for column in columns) or "none"


# --- Checking -------------------------------------------------------------------------------


class _UnusableError(Exception):
    """Why a row must be rejected."""


@dataclass(frozen=True)
class _Blanked:
    """Instead of a value: why there is none."""

    reason: str


def check_rows(*, rows: Sequence[Row], plan: ColumnPlan, this_year: int) -> CheckedRows:
    """The rows as records, those of one title merged; what is wrong with the others.

    Rows are of one title if they have the same external id, or no external id and the same title
    and year (a row without an external id joins the one that has, if there is exactly one). The
    last row wins, except that what it leaves empty is kept from the earlier ones.
    """
    records: list[Record] = []
    rejections: list[Rejection] = []
    blanked: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        values, faults = _check_row(row, plan, this_year, blanked)
        if faults:
            name = row.cells.get(plan.columns.get("title", ""))
            rejections.append(
                Rejection(
                    row=row.number,
                    title="" if name is None else str(name)[: LONGEST["title"]],
                    reason="; ".join(faults),
                )
            )
        else:
            records.append(Record(rows=(row.number,), values=values))
    merged, ambiguous = _merge(records)
    notes = [
        Note(field=field, reason=reason, count=len(numbers), rows=tuple(numbers[:5]))
        for (field, reason), numbers in sorted(blanked.items())
    ]
    return CheckedRows(
        records=tuple(merged),
        rejections=tuple(sorted([*rejections, *ambiguous], key=lambda one: one.row)),
        notes=tuple(notes),
    )


def _check_row(
    row: Row,
    plan: ColumnPlan,
    this_year: int,
    blanked: defaultdict[tuple[str, str], list[int]],
) -> tuple[dict[str, Value], list[str]]:
    if row.fault:
        return {}, [row.fault]
    values: dict[str, Value] = {}
    faults: list[str] = []
    reasons: list[tuple[str, str]] = []
    for field, column in plan.columns.items():
        if column not in row.cells:
            continue
        try:
            value = _checked(field, row.cells[column], this_year)
        except _UnusableError as fault:
            faults.append(f"{field} {fault}")
            continue
        if isinstance(value, _Blanked):
            reasons.append((field, value.reason))
            value = _blank(field)
        values[field] = value
    if not values.get("title") and not any(fault.startswith("title ") for fault in faults):
        faults.insert(0, "has no title")
    told = [rule for rule in plan.educational if rule.column in row.cells]
    if told and values.get("is_educational") is None:
        values["is_educational"] = _by_rules(told, row.cells)
    if not faults:
        for reason in reasons:
            blanked[reason].append(row.number)
    return values, faults


def _checked(field: str, cell: object, this_year: int) -> Value | _Blanked:
    """The value for a field; raises `_UnusableError` where the row must be rejected."""
    if field == "is_educational":
        return _flag(cell)
    text = _text(field, cell)
    if not text:
        return _blank(field)
    if field == "release_year":
        return _year(text, this_year)
    if field == "runtime_minutes":
        return _minutes(text)
    if field == "age_rating" and text.lower() in UNRATED:
        return _Blanked("says that there is no rating")
    if field == "artwork_url":
        try:
            _is_web_address(text)
        except ValidationError:
            return _Blanked("is no http or https address")
    return text


def _blank(field: str) -> Value:
    """How a field of a title is empty; None for a flag that is not known."""
    unknown = {"external_id", "release_year", "runtime_minutes", "is_educational"}
    return None if field in unknown else ""


def _text(field: str, cell: object) -> str:
    """A cell as clean text: composed Unicode, no space around it. Numbers are good names (1776)."""
    if cell is None:
        return ""
    if isinstance(cell, bool | list | dict):
        kind = {bool: "a boolean", list: "a list", dict: "an object"}[type(cell)]
        raise _UnusableError(f"is {kind}, not a text")
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise _UnusableError("is not a number")
        cell = int(cell) if cell.is_integer() else cell
    text = unicodedata.normalize("NFC", str(cell)).strip(" \t\r\n\u00a0")
    # Only a synopsis has lines.
    allowed = "\n\r\t" if field == "synopsis" else ""
    if "\x00" in text:
        raise _UnusableError("contains a NUL character")
    if any(
        unicodedata.category(letter) in {"Cc", "Cs"}
        for letter in text.translate(dict.fromkeys(map(ord, allowed)))
    ):
        raise _UnusableError("contains control characters")
    if not any(unicodedata.category(letter)[0] in "LNPS" for letter in text):
        return ""
    longest = LONGEST.get(field, 100)
    if len(text) > longest:
        raise _UnusableError(f"has {len(text)} characters, {longest} is the most")
    return text


def _year(text: str, this_year: int) -> int | _Blanked:
    """The year of "1998", "1998-06-12", "Jun 12 1998" and the like."""
    found = set(re.findall(r"(?<!\d)\d{4}(?!\d)", text, re.ASCII))
    if len(found) != 1 or text.startswith("-"):
        return _Blanked("does not say one year of four digits")
    year = int(found.pop())
    if year > this_year:
        return _Blanked(f"is later than {this_year}")
    if year < FIRST_FILM_YEAR:
        return _Blanked(f"is earlier than {FIRST_FILM_YEAR}, the year of the first film")
    return year


def _minutes(text: str) -> int | _Blanked:
    """The minutes of "95" and "95 min"."""
    found = re.fullmatch(r"(\d{1,9})(\s*min(utes|\.)?)?", text, re.ASCII | re.IGNORECASE)
    if found is None:
        return _Blanked("is not a whole number of minutes")
    minutes = int(found[1])
    if not 1 <= minutes <= LONGEST_RUNTIME_MINUTES:
        return _Blanked(f"is not between 1 and {LONGEST_RUNTIME_MINUTES} minutes")
    return minutes


def _flag(cell: object) -> bool | _Blanked | None:
    text = "" if cell is None else str(cell).strip().lower()
    if not text:
        return None
    if text in YES:
        return True
    return False if text in NO else _Blanked("is neither yes nor no")


def _by_rules(rules: Sequence[EducationalRule], cells: Mapping[str, object]) -> bool | None:
    """True where a rule holds; None where the row leaves all their columns empty."""
    told = {rule: _comparable(cells[rule.column]) for rule in rules}
    if any(text == _comparable(rule.value) for rule, text in told.items()):
        return True
    return False if any(told.values()) else None


def _comparable(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return unicodedata.normalize("NFC", text).strip().casefold()


def _merge(records: Sequence[Record]) -> tuple[list[Record], list[Rejection]]:
    """One record per title, in the order of their first rows; rows that could mean several."""
    by_external_id: dict[str, Record] = {}
    by_name: dict[tuple[str, Value], Record] = {}
    for record in records:
        if record.external_id is not None:
            known = by_external_id.get(record.external_id)
            by_external_id[record.external_id] = _joined(known, record) if known else record
        else:
            known = by_name.get(record.name_key)
            by_name[record.name_key] = _joined(known, record) if known else record

    named_so: defaultdict[tuple[str, Value], list[str]] = defaultdict(list)
    for external_id, record in by_external_id.items():
        named_so[record.name_key].append(external_id)
    ambiguous: list[Rejection] = []
    alone: list[Record] = []
    for name_key, record in by_name.items():
        candidates = named_so.get(name_key, [])
        if not candidates:
            alone.append(record)
        elif len(candidates) == 1:
            by_external_id[candidates[0]] = _joined(by_external_id[candidates[0]], record)
        else:
            ambiguous.extend(_ambiguous(record))
    merged = sorted([*by_external_id.values(), *alone], key=lambda record: record.rows[0])
    return merged, ambiguous


def _joined(one: Record, other: Record) -> Record:
    """Two records of one title: the later row's values, and the earlier one's where it has none."""
    earlier, later = sorted((one, other), key=lambda record: record.rows[-1])
    said = {name: value for name, value in later.values.items() if value not in ("", None)}
    return Record(
        rows=tuple(sorted((*one.rows, *other.rows))),
        values={**later.values, **earlier.values, **said},
    )


def _ambiguous(record: Record) -> Iterator[Rejection]:
    for row in record.rows:
        yield Rejection(
            row=row,
            title=record.title,
            reason="several titles have this name and year: only an external id can tell which",
        )


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
            rejections.extend(_ambiguous(record))
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
