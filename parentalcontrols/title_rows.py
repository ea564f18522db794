"""Checking a catalogue's rows, and merging those that tell of one title.

What is wrong with a row is decided field by field. A row is *rejected* where writing it would
store something false or unusable under its name: no title, NUL or other control characters, a
value that is too long, a list where a text belongs. A value of lesser weight is *blanked*, with a
note in the report: a year that cannot be (in the future, before the first film, or without its
century, which must not be guessed), a running time of zero or of more than a day, an address that
no browser opens, an educational flag that is neither yes nor no (the title is regular then, so
that its time counts), a rating that only says that there is none.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator

from parentalcontrols.title_files import ColumnPlan, EducationalRule, Row, Value

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

_is_web_address = URLValidator(schemes=["http", "https"])


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
            ambiguous.extend(rejected_as_ambiguous(record))
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


def rejected_as_ambiguous(record: Record) -> Iterator[Rejection]:
    """The rows of a record that could be any of several titles."""
    for row in record.rows:
        yield Rejection(
            row=row,
            title=record.title,
            reason="several titles have this name and year: only an external id can tell which",
        )
