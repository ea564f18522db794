"""Reading a catalogue's file: its rows as they stand, and which column fills which field."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

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
