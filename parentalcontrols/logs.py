"""How log lines look: JSON, or plain text in a terminal, and no values of rows in either."""

import logging
import re
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

#: What PostgreSQL adds to an error, up to the next line of the traceback: keys and rows, with
#: whatever personal data they hold.
_DETAIL = re.compile(r"^(DETAIL|CONTEXT|HINT):.*(?:\n(?!DETAIL:|CONTEXT:|HINT:|\n).+)*", re.M)


def without_values(text: str) -> str:
    """The text of an exception without the values of rows that a database error tells."""
    return _DETAIL.sub(r"\1: (not logged)", text)


#: Attributes of a record that no line tells. Django adds the request, whose text is its whole
#: address: the admin's search has e-mails there.
_UNTOLD = [*RESERVED_ATTRS, "request"]
#: The same, and what a plain line has a place for.
_IN_PLACE = frozenset({*_UNTOLD, "request_id"})
#: What both forms tell of a line.
_JSON: dict[str, Any] = {
    "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
    "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
    "reserved_attrs": _UNTOLD,
}
_PLAIN: dict[str, Any] = {
    "fmt": "%(asctime)s %(levelname)-7s %(request_id)s %(name)s %(message)s",
    "defaults": {"request_id": "-"},
}


class JsonLines(JsonFormatter):
    """One JSON object a line."""

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - the base class names it
        return without_values(logging.Formatter.formatException(self, exc_info))


class PlainLines(logging.Formatter):
    """Text for a person who watches: what else a line tells stands behind its message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class names it
        more = (f" {name}={value}" for name, value in vars(record).items() if name not in _IN_PLACE)
        return super().formatMessage(record) + "".join(more)

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - as above
        return without_values(super().formatException(exc_info))


def formatter(*, is_plain: bool) -> logging.Formatter:
    """Plain text, or JSON."""
    return PlainLines(**_PLAIN) if is_plain else JsonLines(**_JSON)
