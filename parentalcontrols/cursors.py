"""Places in a list, as clients hand them back for its next page: opaque text."""

import base64
from typing import Any

import msgspec

from parentalcontrols.problems import Problem, invalid


def encode(place: Any) -> str:
    """A place, anything that JSON can hold, as text that needs no escaping in a query but `=`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def decode(cursor: str, kind: Any) -> Any:
    """The place, of the type `kind`, that a cursor means; a 400 for one that was never made."""
    try:
        document = base64.b64decode(cursor, altchars=b"-_", validate=True)
        place = msgspec.json.decode(document, type=kind)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise refused() from None
    if encode(place) != cursor:
        raise refused()
    return place


def refused() -> Problem:
    """What this service never made."""
    return invalid([{"field": "cursor", "code": "invalid", "detail": "This is no cursor."}])
