"""The tables of environment variables in docs/settings.md, made from what the settings read."""

import re
from pathlib import Path

from parentalcontrols import environment
from parentalcontrols.environment import Read
from parentalcontrols.variables import TABLES, Variable

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
_TABLE = re.compile(
    r"(<!-- (?P<name>[a-z]+): made by manage\.py settings_table -->\n).*?(<!-- end -->\n)",
    re.DOTALL,
)
#: The table whose variables have no default.
_NEEDED = "needed"


def updated(document: str) -> str:
    """The document with its tables made anew; raises `KeyError` for a table that is none."""
    return _TABLE.sub(lambda found: found[1] + table(found["name"]) + found[3], document)


def table(name: str) -> str:
    """One table in Markdown."""
    heads = ["name", "meaning", "when wrong"]
    if name != _NEEDED:
        heads.insert(1, "default")
    rows = []
    for variable in TABLES[name]:
        cells = [f"`{variable.name}`", variable.meaning, _wrong(variable)]
        if name != _NEEDED:
            cells.insert(1, _default(variable))
        rows.append(cells)
    head = f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _default(variable: Variable) -> str:
    if variable.default is not None:
        return variable.default
    found = _read(variable)
    if not found.default:
        return "none"
    return found.default if found.kind in {"flag", "number"} else f"`{found.default}`"


def _wrong(variable: Variable) -> str:
    if variable.wrong is not None:
        return variable.wrong
    found = _read(variable)
    if found.kind == "number":
        return f"no whole number from {found.least} to {found.most}: no start"
    return f"no {found.kind}: no start"


def _read(variable: Variable) -> Read:
    return environment.read[variable.name]
